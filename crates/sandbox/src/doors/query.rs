//! Auto Scaling and ELBv2 over the Query protocol: a form in, XML out.

mod autoscaling;
mod balancing;
mod xml;

use std::collections::BTreeMap;

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};

use crate::world::{balancers, groups};
use crate::{Sandbox, World};
use xml::Xml;

/// A service, by the version of its API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Service {
    AutoScaling,
    Balancing,
}

/// The parameters of one request.
struct Form(BTreeMap<String, String>);

/// A refused request.
#[derive(Debug)]
struct Refused {
    status: StatusCode,
    code: &'static str,
    message: String,
}

type Answer = Result<Xml, Refused>;

/// Answers one request.
pub(super) fn answer(sandbox: &Sandbox, body: &[u8]) -> Response {
    let form = Form(form_urlencoded::parse(body).into_owned().collect());
    let (action, version) =
        (form.text("Action").unwrap_or("nothing"), form.text("Version").unwrap_or("none"));
    let service = match version {
        "2011-01-01" => Service::AutoScaling,
        "2015-12-01" => Service::Balancing,
        _ => {
            sandbox.read(|world| world.count_call(&format!("{version}.{action}")));
            let refused = Refused::not_implemented(&format!("{action} (API version {version})"));
            return refused.response("", "none");
        }
    };
    let (namespace, prefix) = service.names();
    // Reads wake nobody: two clients that poll would wake each other.
    let reads = action.starts_with("Describe");
    let perform = |world: &mut World| {
        world.count_call(&format!("{prefix}.{action}"));
        let answer = match service {
            Service::AutoScaling => autoscaling::perform(world, action, &form),
            Service::Balancing => balancing::perform(world, action, &form),
        };
        (answer, world.uuid())
    };
    let (answer, request_id) = if reads { sandbox.read(perform) } else { sandbox.with(perform) };
    let result = match answer {
        Ok(result) => result,
        Err(refused) => return refused.response(namespace, &request_id),
    };
    let mut document = Xml::default();
    document.root(&format!("{action}Response"), namespace, |response| {
        response.nested(&format!("{action}Result"), result);
        response.node("ResponseMetadata", |metadata| metadata.text("RequestId", &request_id));
    });
    (StatusCode::OK, [(header::CONTENT_TYPE, "text/xml")], document.into_text()).into_response()
}

impl Service {
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::AutoScaling => ("http://autoscaling.amazonaws.com/doc/2011-01-01/", "autoscaling"),
            Self::Balancing => {
                ("http://elasticloadbalancing.amazonaws.com/doc/2015-12-01/", "elasticloadbalancing")
            }
        }
    }
}

impl Form {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    fn required(&self, name: &str) -> Result<&str, Refused> {
        self.text(name).ok_or_else(|| Refused::validation(format!("The parameter {name} is required.")))
    }

    fn flag(&self, name: &str) -> Result<bool, Refused> {
        Ok(self.required(name)?.eq_ignore_ascii_case("true"))
    }

    /// `Name.member.1`, `Name.member.2` …
    fn list(&self, name: &str) -> Vec<&str> {
        (1..).map_while(|index| self.text(&format!("{name}.member.{index}"))).collect()
    }

    fn size(&self, name: &str, default: usize, most: usize) -> Result<usize, Refused> {
        let Some(text) = self.text(name) else { return Ok(default) };
        let size = text.parse().ok().filter(|size| (1..=most).contains(size));
        size.ok_or_else(|| Refused::validation(format!("{name} must be between 1 and {most}.")))
    }
}

impl Refused {
    fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationError", message)
    }

    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, code, message: message.into() }
    }

    fn not_implemented(what: &str) -> Self {
        let message = format!("the sandbox does not know {what}");
        Self { status: StatusCode::NOT_IMPLEMENTED, ..Self::new("NotImplemented", message) }
    }

    fn response(self, namespace: &str, request_id: &str) -> Response {
        let mut document = Xml::default();
        document.root("ErrorResponse", namespace, |response| {
            response.node("Error", |error| {
                error.text("Type", "Sender");
                error.text("Code", self.code);
                error.text("Message", &self.message);
            });
            response.text("RequestId", request_id);
        });
        (self.status, [(header::CONTENT_TYPE, "text/xml")], document.into_text()).into_response()
    }
}

impl From<groups::Refusal> for Refused {
    fn from(refusal: groups::Refusal) -> Self {
        Self::validation(refusal.to_string())
    }
}

impl From<balancers::Refusal> for Refused {
    fn from(refusal: balancers::Refusal) -> Self {
        let code = match refusal {
            balancers::Refusal::NoTargetGroup => "TargetGroupNotFound",
            balancers::Refusal::NotRunning(_) | balancers::Refusal::NoInstance(_) => "InvalidTarget",
        };
        Self::new(code, refusal.to_string())
    }
}

/// One page of items that are in order of their names: those from the token on, and the token of the
/// next page.
fn page<T>(items: Vec<(String, T)>, token: Option<&str>, most: usize) -> (Vec<T>, Option<String>) {
    let mut rest = items.into_iter().filter(|(name, _)| token.is_none_or(|from| name.as_str() >= from));
    let page = rest.by_ref().take(most).map(|(_, item)| item).collect();
    (page, rest.next().map(|(name, _)| name))
}
