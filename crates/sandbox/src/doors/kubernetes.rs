//! A cluster's API server, as far as offramp and `kubectl` use it, over plain HTTP.
//!
//! It follows the Kubernetes API reference and API concepts (kubernetes.io/docs/reference/using-api) of
//! v1.36. What it does not have it refuses by name (501), so that a client never mistakes it for more.

mod discovery;
mod events;
mod kinds;
mod list;
mod objects;
mod request;
mod selectors;
mod status;
mod table;
mod watch;
mod writes;

use std::io;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use offramp_core::ClusterName;
use serde::Serialize;
use serde_json::json;

use crate::world::cluster::Cluster;
use crate::{Sandbox, World};
use request::{Asked, Call};
use status::Refusal;

/// The API server of one cluster of the sandbox.
pub fn kubernetes_router(sandbox: Sandbox, cluster: ClusterName) -> Router {
    Router::new().fallback(answer).with_state(Door { sandbox, cluster })
}

/// A kubeconfig with one context per cluster, named like the cluster; the first one is current. Nobody has
/// to log in.
pub fn kubeconfig(clusters: &[(ClusterName, String)]) -> String {
    const USER: &str = "sandbox";
    let named = |name: &ClusterName, key: &str, value| json!({ "name": name.as_str(), key: value });
    let servers: Vec<_> =
        clusters.iter().map(|(name, url)| named(name, "cluster", json!({ "server": url }))).collect();
    let contexts: Vec<_> = clusters
        .iter()
        .map(|(name, _)| named(name, "context", json!({ "cluster": name.as_str(), "user": USER })))
        .collect();
    // JSON is YAML, and nothing in it has to be quoted twice.
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": servers,
        "users": [{ "name": USER, "user": {} }],
        "contexts": contexts,
        "current-context": clusters.first().map(|(name, _)| name.as_str()).unwrap_or_default(),
    });
    format!("{config:#}\n")
}

/// The way into the world for one cluster.
#[derive(Clone, Debug)]
struct Door {
    sandbox: Sandbox,
    cluster: ClusterName,
}

impl Door {
    /// The cluster, unless its API server does not answer.
    fn cluster<'a>(&self, world: &'a World) -> Option<&'a Cluster> {
        world.clusters.get(&self.cluster).filter(|cluster| !cluster.is_away(world.now()))
    }
}

async fn answer(State(door): State<Door>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let asked = Asked::new(&parts);
    let call = Call::parse(&parts.method, &asked);
    let is_here = door.sandbox.read(|world| {
        world.count_call(&call.name());
        door.cluster(world).is_some()
    });
    if !is_here {
        return no_answer();
    }
    let answered = match call {
        Call::Document(document) => Ok(document.answer()),
        Call::List { kind, namespace } => list::list(&door, kind, namespace, &asked),
        Call::Watch { kind, namespace } => watch::watch(&door, kind, namespace, &asked),
        Call::Get { kind, namespace, name } => list::get(&door, kind, namespace, name, &asked),
        Call::PatchNode { name } => writes::patch_node(&door, name, &asked, body).await,
        Call::Evict { namespace, name } => writes::evict(&door, namespace, name, &asked, body).await,
        Call::DeletePod { namespace, name } => writes::delete_pod(&door, namespace, name, &asked, body).await,
        Call::CreateEvent { namespace } => events::create(&door, namespace, &asked, body).await,
        Call::ListEvents { namespace } => events::list(&door, namespace, &asked),
        Call::Unknown => Err(Refusal::not_implemented(format!("{} {}", parts.method, asked.path)).into()),
    };
    answered.unwrap_or_else(|unanswered| match unanswered {
        Unanswered::Refused(refusal) => refusal.into_response(),
        Unanswered::Away => no_answer(),
    })
}

/// Why a request has no good answer.
#[derive(Debug)]
enum Unanswered {
    Refused(Refusal),
    Away,
}

impl From<Refusal> for Unanswered {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

/// Closes the connection before a single byte of an answer: a body that fails at once takes the head with
/// it, because hyper writes both together.
fn no_answer() -> Response {
    Body::from_stream(futures::stream::iter([Err::<&[u8], _>(connection_lost())])).into_response()
}

fn connection_lost() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, "the API server of this sandbox cluster is away")
}

fn json_response(code: StatusCode, body: &impl Serialize) -> Response {
    match serde_json::to_vec(body) {
        Ok(bytes) => (code, [(CONTENT_TYPE, "application/json")], bytes).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("writing an object: {error}")).into_response()
        }
    }
}

#[cfg(test)]
mod tests;
