//! What the API server says when it refuses: `Status` objects.

use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::kinds::Kind;
use crate::world::cluster::ApiError;

/// A refusal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Refusal {
    code: StatusCode,
    reason: &'static str,
    message: String,
    details: Value,
}

impl Refusal {
    pub(super) fn not_found(kind: Kind, name: &str) -> Self {
        let message = format!("{} {name:?} not found", qualified(kind));
        Self::new(StatusCode::NOT_FOUND, "NotFound", message).about(kind, name)
    }

    pub(super) fn conflict(kind: Kind, name: &str, why: &str) -> Self {
        let message = format!("Operation cannot be fulfilled on {} {name:?}: {why}", qualified(kind));
        Self::new(StatusCode::CONFLICT, "Conflict", message).about(kind, name)
    }

    pub(super) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(super) fn unsupported_media_type(message: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
    }

    /// A resourceVersion that is not remembered any more. Lists say so by their answer, watches by an event.
    pub(super) fn expired(message: impl Into<String>) -> Self {
        Self::new(StatusCode::GONE, "Expired", message)
    }

    /// A resourceVersion that is not there yet.
    pub(super) fn too_large(asked: u64, current: u64) -> Self {
        let message = format!("Too large resource version: {asked}, current: {current}");
        let causes =
            json!([{ "reason": "ResourceVersionTooLarge", "message": "Too large resource version" }]);
        Self {
            details: json!({ "causes": causes, "retryAfterSeconds": 1 }),
            ..Self::new(StatusCode::GATEWAY_TIMEOUT, "Timeout", message)
        }
    }

    /// What this API server does not have. A real one would; nothing here pretends.
    pub(super) fn not_implemented(what: impl Into<String>) -> Self {
        let message = format!("the sandbox does not implement {}", what.into());
        Self::new(StatusCode::NOT_IMPLEMENTED, "NotImplemented", message)
    }

    /// Why the world refused to change an object. `None` is no answer at all.
    pub(super) fn of(error: ApiError, kind: Kind, name: &str) -> Option<Self> {
        match error {
            ApiError::NotFound => Some(Self::not_found(kind, name)),
            ApiError::Conflict(why) => Some(Self::conflict(kind, name, &why)),
            ApiError::TooManyRequests { message, .. } => Some(Self::blocked(&message)),
            ApiError::Vetoed(words) => Some(Self::new(StatusCode::FORBIDDEN, "Forbidden", words)),
            ApiError::TooLong(words) => {
                Some(Self::new(StatusCode::UNPROCESSABLE_ENTITY, "Invalid", words).about(kind, name))
            }
            ApiError::NamespaceTerminating { namespace, message } => {
                Some(Self::in_terminating_namespace(kind, name, &namespace, message))
            }
            ApiError::Several => Some(Self::several_budgets()),
            ApiError::Away => None,
        }
    }

    /// The `Status` object.
    pub(super) fn to_json(&self) -> Value {
        let mut status = json!({
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "code": self.code.as_u16(),
        });
        if !self.reason.is_empty() {
            status["reason"] = self.reason.into();
        }
        if !self.details.is_null() {
            status["details"] = self.details.clone();
        }
        status
    }

    fn new(code: StatusCode, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), details: Value::Null }
    }

    fn about(mut self, kind: Kind, name: &str) -> Self {
        self.details = json!({ "name": name, "kind": kind.plural() });
        if !kind.group().is_empty() {
            self.details["group"] = kind.group().into();
        }
        self
    }

    /// The texts of the Eviction API (kubernetes, `registry/core/pod/storage/eviction.go`). It names no
    /// time to wait here, so there is no Retry-After header.
    fn blocked(cause: &str) -> Self {
        let message = "Cannot evict pod as it would violate the pod's disruption budget.";
        Self {
            details: json!({ "causes": [{ "reason": "DisruptionBudget", "message": cause }] }),
            ..Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
        }
    }

    fn in_terminating_namespace(kind: Kind, name: &str, namespace: &str, message: String) -> Self {
        let cause = json!({
            "reason": "NamespaceTerminating",
            "message": format!("namespace {namespace} is being terminated"),
            "field": "metadata.namespace",
        });
        let mut refusal = Self::new(StatusCode::FORBIDDEN, "Forbidden", message).about(kind, name);
        refusal.details["causes"] = json!([cause]);
        refusal
    }

    fn several_budgets() -> Self {
        let message = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "", message)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.code, [(CONTENT_TYPE, "application/json")], self.to_json().to_string()).into_response()
    }
}

/// `nodes`, `poddisruptionbudgets.policy`.
fn qualified(kind: Kind) -> String {
    match kind.group() {
        "" => kind.plural().to_owned(),
        group => format!("{}.{group}", kind.plural()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(refusal: &Refusal, expect: Value) {
        let mut status = refusal.to_json();
        for constant in ["kind", "apiVersion", "metadata", "status"] {
            assert!(status.as_object_mut().unwrap().remove(constant).is_some(), "{constant} is there");
        }
        assert_eq!(status, expect);
    }

    #[test]
    fn refusals_read_as_those_of_a_real_api_server() {
        check(
            &Refusal::not_found(Kind::Node, "a"),
            json!({ "message": "nodes \"a\" not found", "reason": "NotFound", "code": 404,
                    "details": { "name": "a", "kind": "nodes" } }),
        );
        check(
            &Refusal::not_found(Kind::Budget, "web"),
            json!({ "message": "poddisruptionbudgets.policy \"web\" not found", "reason": "NotFound", "code": 404,
                    "details": { "name": "web", "kind": "poddisruptionbudgets", "group": "policy" } }),
        );
        let cause = "The disruption budget web needs 3 healthy pods and has 3 currently";
        let blocked = ApiError::TooManyRequests { budget: "web".into(), message: cause.into() };
        check(
            &Refusal::of(blocked, Kind::Pod, "web-1").unwrap(),
            json!({ "message": "Cannot evict pod as it would violate the pod's disruption budget.",
                    "reason": "TooManyRequests", "code": 429,
                    "details": { "causes": [{ "reason": "DisruptionBudget", "message": cause }] } }),
        );
        check(
            &Refusal::of(ApiError::Several, Kind::Pod, "web-1").unwrap(),
            json!({ "message": "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support.",
                    "code": 500 }),
        );
        let ending = ApiError::NamespaceTerminating { namespace: "old".into(), message: "no".into() };
        let cause = json!({ "reason": "NamespaceTerminating", "message": "namespace old is being terminated",
                            "field": "metadata.namespace" });
        check(
            &Refusal::of(ending, Kind::Pod, "x").unwrap(),
            json!({ "message": "no", "reason": "Forbidden", "code": 403,
                    "details": { "name": "x", "kind": "pods", "causes": [cause] } }),
        );
        assert_eq!(Refusal::of(ApiError::Away, Kind::Pod, "web-1"), None);
    }
}
