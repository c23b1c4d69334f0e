//! What there is, for clients that ask first: groups, resources, the version.

use axum::http::Method;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::kinds::Kind;
use super::objects::KUBELET_VERSION;

/// A document about the API itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Document {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/api/v1`, `/apis/policy/v1`, `/apis/apps/v1`
    Resources(&'static str),
    /// `/version`
    Version,
    /// `/healthz`, `/livez`, `/readyz`
    Health,
}

impl Document {
    pub(super) fn parse(method: &Method, path: &str) -> Option<Self> {
        if method != Method::GET {
            return None;
        }
        Some(match path.trim_end_matches('/') {
            "/api" => Self::CoreVersions,
            "/apis" => Self::Groups,
            "/api/v1" => Self::Resources("v1"),
            "/apis/policy/v1" => Self::Resources("policy/v1"),
            "/apis/apps/v1" => Self::Resources("apps/v1"),
            "/version" => Self::Version,
            "/healthz" | "/livez" | "/readyz" => Self::Health,
            _ => return None,
        })
    }

    /// The answer. The aggregated form that newer clients prefer is declined by answering the plain one.
    pub(super) fn answer(self) -> Response {
        let json = match self {
            Self::CoreVersions => json!({ "kind": "APIVersions", "versions": ["v1"] }),
            Self::Groups => json!({
                "kind": "APIGroupList",
                "apiVersion": "v1",
                "groups": [group("policy"), group("apps")],
            }),
            Self::Resources(group_version) => resources(group_version),
            Self::Version => version(),
            Self::Health => return "ok".into_response(),
        };
        ([(axum::http::header::CONTENT_TYPE, "application/json")], json.to_string()).into_response()
    }
}

fn group(name: &str) -> Value {
    let version = json!({ "groupVersion": format!("{name}/v1"), "version": "v1" });
    json!({ "name": name, "versions": [version.clone()], "preferredVersion": version })
}

fn resources(group_version: &str) -> Value {
    let mut resources = Vec::new();
    for kind in Kind::ALL.into_iter().filter(|kind| kind.api_version() == group_version) {
        let verbs: &[&str] = match kind {
            Kind::Node => &["get", "list", "watch", "patch"],
            Kind::Pod => &["get", "list", "watch", "delete"],
            Kind::DaemonSet => &["get", "list"],
            Kind::Service | Kind::Budget => &["get", "list", "watch"],
        };
        let mut resource = json!({
            "name": kind.plural(),
            "singularName": kind.singular(),
            "namespaced": kind.is_namespaced(),
            "kind": kind.name(),
            "verbs": verbs,
            "shortNames": [kind.short_name()],
        });
        if matches!(kind, Kind::Pod | Kind::Service) {
            resource["categories"] = json!(["all"]);
        }
        resources.push(resource);
        if kind == Kind::Pod {
            resources.push(json!({
                "name": "pods/eviction",
                "singularName": "",
                "namespaced": true,
                "group": "policy",
                "version": "v1",
                "kind": "Eviction",
                "verbs": ["create"],
            }));
        }
    }
    if group_version == "v1" {
        resources.push(json!({
            "name": "events",
            "singularName": "event",
            "namespaced": true,
            "kind": "Event",
            "verbs": ["list"],
            "shortNames": ["ev"],
        }));
    }
    json!({
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": group_version,
        "resources": resources,
    })
}

/// The version whose behaviour was followed, marked as what it is.
fn version() -> Value {
    json!({
        "major": "1",
        "minor": "36",
        "gitVersion": format!("{KUBELET_VERSION}+offramp-sandbox"),
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    })
}
