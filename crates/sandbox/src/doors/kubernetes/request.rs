//! What a request asks for, read from its method, path, query and headers.

use std::collections::BTreeMap;

use axum::http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method};

use super::discovery::Document;
use super::kinds::Kind;
use super::status::Refusal;
use super::table::Carry;

/// A request without its body.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) path: String,
    query: BTreeMap<String, String>,
    headers: HeaderMap,
}

/// A call of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call<'a> {
    Document(Document),
    List { kind: Kind, namespace: Option<&'a str> },
    Watch { kind: Kind, namespace: Option<&'a str> },
    Get { kind: Kind, namespace: Option<&'a str>, name: &'a str },
    PatchNode { name: &'a str },
    Evict { namespace: &'a str, name: &'a str },
    DeletePod { namespace: &'a str, name: &'a str },
    CreateEvent { namespace: &'a str },
    ListEvents { namespace: Option<&'a str> },
    Unknown,
}

/// How objects are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    Objects,
    Table(Carry),
}

impl Asked {
    pub(super) fn new(parts: &Parts) -> Self {
        let query = parts.uri.query().unwrap_or_default();
        Self {
            path: parts.uri.path().to_owned(),
            query: form_urlencoded::parse(query.as_bytes()).into_owned().collect(),
            headers: parts.headers.clone(),
        }
    }

    /// A query parameter that is there and not empty.
    pub(super) fn query(&self, key: &str) -> Option<&str> {
        self.query.get(key).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(super) fn is_set(&self, key: &str) -> bool {
        matches!(self.query(key), Some("true" | "1"))
    }

    pub(super) fn number(&self, key: &str) -> Result<Option<u64>, Refusal> {
        let parse = |text: &str| {
            text.parse().map_err(|_| Refusal::bad_request(format!("invalid {key}: {text:?} is not a number")))
        };
        self.query(key).map(parse).transpose()
    }

    /// The media type of the body, without its parameters.
    pub(super) fn content_type(&self) -> &str {
        self.header(&CONTENT_TYPE).split(';').next().unwrap_or_default().trim()
    }

    /// Tables for clients that prefer them, objects for all others.
    pub(super) fn form(&self) -> Form {
        let first = self.header(&ACCEPT).split(',').next().unwrap_or_default();
        let has = |parameter: &str| first.split(';').any(|part| part.trim() == parameter);
        if !(has("as=Table") && has("v=v1") && has("g=meta.k8s.io")) {
            return Form::Objects;
        }
        Form::Table(match self.query("includeObject") {
            Some("None") => Carry::Nothing,
            Some("Object") => Carry::Object,
            Some(_) | None => Carry::Metadata,
        })
    }

    fn header(&self, name: &HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

impl<'a> Call<'a> {
    pub(super) fn parse(method: &Method, asked: &'a Asked) -> Self {
        if let Some(document) = Document::parse(method, &asked.path) {
            return Self::Document(document);
        }
        if let Some(call) = Self::about_events(method, asked) {
            return call;
        }
        let Some(resource) = Resource::parse(&asked.path) else { return Self::Unknown };
        let Resource { kind, namespace, name, subresource } = resource;
        match (method.as_str(), kind, namespace, name, subresource) {
            ("GET", _, _, None, None) if asked.is_set("watch") => {
                if kind.can_be_watched() {
                    Self::Watch { kind, namespace }
                } else {
                    Self::Unknown
                }
            }
            ("GET", _, _, None, None) => Self::List { kind, namespace },
            ("GET", _, _, Some(name), None) => Self::Get { kind, namespace, name },
            ("PATCH", Kind::Node, _, Some(name), None) => Self::PatchNode { name },
            ("POST", Kind::Pod, Some(namespace), Some(name), Some("eviction")) => {
                Self::Evict { namespace, name }
            }
            ("DELETE", Kind::Pod, Some(namespace), Some(name), None) => Self::DeletePod { namespace, name },
            _ => Self::Unknown,
        }
    }

    /// Events are written in their own API group, and read in the core group, where `kubectl` looks.
    fn about_events(method: &Method, asked: &'a Asked) -> Option<Self> {
        let path = asked.path.as_str();
        let of_namespace = |rest: &'a str| rest.strip_prefix("namespaces/")?.strip_suffix("/events");
        if *method == Method::POST {
            let namespace = of_namespace(path.strip_prefix("/apis/events.k8s.io/v1/")?)?;
            return Some(Self::CreateEvent { namespace });
        }
        let rest =
            path.strip_prefix("/api/v1/").filter(|_| *method == Method::GET && !asked.is_set("watch"))?;
        let namespace = of_namespace(rest);
        (rest == "events" || namespace.is_some()).then_some(Self::ListEvents { namespace })
    }

    /// The name under which the world counts it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Document(_) => "kubernetes.GET discovery".to_owned(),
            Self::List { kind, .. } => format!("kubernetes.GET {}", kind.plural()),
            Self::Watch { kind, .. } => format!("kubernetes.WATCH {}", kind.plural()),
            Self::Get { kind, .. } => format!("kubernetes.GET {}", kind.singular()),
            Self::PatchNode { .. } => "kubernetes.PATCH node".to_owned(),
            Self::Evict { .. } => "kubernetes.POST eviction".to_owned(),
            Self::DeletePod { .. } => "kubernetes.DELETE pod".to_owned(),
            Self::CreateEvent { .. } => "kubernetes.POST event".to_owned(),
            Self::ListEvents { .. } => "kubernetes.GET events".to_owned(),
            Self::Unknown => "kubernetes.unknown".to_owned(),
        }
    }
}

struct Resource<'a> {
    kind: Kind,
    namespace: Option<&'a str>,
    name: Option<&'a str>,
    subresource: Option<&'a str>,
}

impl<'a> Resource<'a> {
    /// `/api/v1/namespaces/NAMESPACE/pods/NAME/eviction` and its shorter forms.
    fn parse(path: &'a str) -> Option<Self> {
        let (group, rest) = match path.strip_prefix("/api/v1/") {
            Some(rest) => ("", rest),
            None => path.strip_prefix("/apis/")?.split_once("/v1/")?,
        };
        let mut parts = rest.split('/');
        let first = parts.next()?;
        let (namespace, plural) = match first {
            "namespaces" => (Some(parts.next()?), parts.next()?),
            plural => (None, plural),
        };
        let kind = Kind::ALL.into_iter().find(|kind| kind.plural() == plural && kind.group() == group)?;
        let (name, subresource) = (parts.next(), parts.next());
        let is_placed = match (kind.is_namespaced(), namespace, name) {
            (true, Some(_), _) | (true, None, None) | (false, None, _) => true,
            (true, None, Some(_)) | (false, Some(_), _) => false,
        };
        (is_placed && parts.next().is_none()).then_some(Self { kind, namespace, name, subresource })
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn paths_are_calls() {
        let check = |method: &str, uri: &str, expect: &str| {
            let (parts, ()) = Request::builder().method(method).uri(uri).body(()).unwrap().into_parts();
            assert_eq!(Call::parse(&parts.method, &Asked::new(&parts)).name(), expect, "{method} {uri}");
        };
        check("GET", "/api", "kubernetes.GET discovery");
        check("GET", "/apis/policy/v1?timeout=32s", "kubernetes.GET discovery");
        check("GET", "/api/v1/nodes", "kubernetes.GET nodes");
        check("GET", "/api/v1/nodes?watch=1", "kubernetes.WATCH nodes");
        check("GET", "/api/v1/nodes/a", "kubernetes.GET node");
        check("GET", "/api/v1/nodes/a/status", "kubernetes.unknown");
        check("PATCH", "/api/v1/nodes/a", "kubernetes.PATCH node");
        check("PUT", "/api/v1/nodes/a", "kubernetes.unknown");
        check("GET", "/api/v1/namespaces/x/nodes", "kubernetes.unknown");
        check("GET", "/api/v1/pods", "kubernetes.GET pods");
        check("GET", "/api/v1/namespaces/x/pods?watch=true", "kubernetes.WATCH pods");
        check("GET", "/api/v1/namespaces/x/pods/y", "kubernetes.GET pod");
        check("GET", "/api/v1/pods/y", "kubernetes.unknown");
        check("DELETE", "/api/v1/namespaces/x/pods/y", "kubernetes.DELETE pod");
        check("DELETE", "/api/v1/namespaces/x/pods", "kubernetes.unknown");
        check("POST", "/api/v1/namespaces/x/pods/y/eviction", "kubernetes.POST eviction");
        check("GET", "/apis/policy/v1/poddisruptionbudgets", "kubernetes.GET poddisruptionbudgets");
        check("GET", "/api/v1/poddisruptionbudgets", "kubernetes.unknown");
        check("GET", "/apis/apps/v1/namespaces/x/daemonsets/y", "kubernetes.GET daemonset");
        check("GET", "/apis/apps/v1/daemonsets?watch=true", "kubernetes.unknown");
        check("POST", "/apis/events.k8s.io/v1/namespaces/default/events", "kubernetes.POST event");
        check("POST", "/api/v1/namespaces/default/events", "kubernetes.unknown");
        check("GET", "/api/v1/events?fieldSelector=involvedObject.kind%3DNode", "kubernetes.GET events");
        check("GET", "/api/v1/namespaces/default/events", "kubernetes.GET events");
        check("GET", "/api/v1/events?watch=true", "kubernetes.unknown");
        check("GET", "/openapi/v3", "kubernetes.unknown");
    }
}
