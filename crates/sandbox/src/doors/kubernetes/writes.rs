//! PATCH of a node, eviction and deletion of a pod.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::http::StatusCode;
use axum::response::Response;
use offramp_core::{NodeName, PodUid};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::kinds::{Kind, View};
use super::objects::Rendered;
use super::request::Asked;
use super::status::Refusal;
use super::{Door, Unanswered, json_response};
use crate::World;
use crate::world::cluster::{ApiError, NodePatch};

/// The largest body that an API server takes.
const LARGEST_BODY: usize = 3 * 1024 * 1024;

/// PATCH of a node. For the fields that can be patched here, strategic merge and JSON merge mean the same:
/// maps are merged, and `spec.taints` is an atomic list (core/v1, `+listType=atomic`).
pub(super) async fn patch_node(
    door: &Door,
    name: &str,
    asked: &Asked,
    body: Body,
) -> Result<Response, Unanswered> {
    match asked.content_type() {
        "application/strategic-merge-patch+json" | "application/merge-patch+json" => {}
        "application/json-patch+json" => return Err(Refusal::not_implemented("JSON patches of nodes").into()),
        other => {
            let message = format!("the body of a PATCH was in an unknown format: {other:?}");
            return Err(Refusal::unsupported_media_type(message).into());
        }
    }
    refuse_dry_run(asked, &[])?;
    let body = read(body).await?;
    let patch: Value = serde_json::from_slice(&body)
        .map_err(|error| Refusal::bad_request(format!("invalid patch of node {name:?}: {error}")))?;
    let (patch, uid) = node_patch(&patch)?;
    let node = NodeName::new(name);
    let patched = door.sandbox.with(|world| {
        let stored = world.clusters.get(&door.cluster).and_then(|cluster| cluster.nodes.get(&node));
        match (uid, stored) {
            (Some(uid), Some(stored)) if uid != stored.uid => Err(uid_conflict(&uid, &stored.uid)),
            _ => world.patch_node(&door.cluster, &node, patch),
        }
    });
    match patched {
        Ok(node) => Ok(json_response(StatusCode::OK, &Rendered::alone(View::Node(&node)))),
        Err(error) => Err(unanswered(error, Kind::Node, name)),
    }
}

/// POST of an Eviction.
pub(super) async fn evict(
    door: &Door,
    namespace: &str,
    name: &str,
    asked: &Asked,
    body: Body,
) -> Result<Response, Unanswered> {
    let eviction: Eviction = parse(asked, &read(body).await?)?;
    if eviction.metadata.name.as_deref() != Some(name) {
        return Err(Refusal::bad_request("name in URL does not match name in Eviction object").into());
    }
    let options = eviction.delete_options.unwrap_or_default();
    refuse_dry_run(asked, &options.dry_run)?;
    let grace = options.grace()?;
    let evicted = door.sandbox.with(|world| {
        options.check_version(door, world, namespace, name)?;
        world.evict_pod(&door.cluster, namespace, name, options.uid().as_ref(), grace)
    });
    match evicted {
        Ok(()) => {
            let status = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success",
                                 "code": StatusCode::CREATED.as_u16() });
            Ok(json_response(StatusCode::CREATED, &status))
        }
        Err(error) => Err(unanswered(error, Kind::Pod, name)),
    }
}

/// DELETE of a pod. The options stand in the body or in the query, as with a real API server.
pub(super) async fn delete_pod(
    door: &Door,
    namespace: &str,
    name: &str,
    asked: &Asked,
    body: Body,
) -> Result<Response, Unanswered> {
    let body = read(body).await?;
    let mut options: DeleteOptions =
        if body.is_empty() { DeleteOptions::default() } else { parse(asked, &body)? };
    if options.grace_period_seconds.is_none() {
        options.grace_period_seconds =
            asked.number("gracePeriodSeconds")?.and_then(|grace| i64::try_from(grace).ok());
    }
    refuse_dry_run(asked, &options.dry_run)?;
    let grace = options.grace()?;
    let find = |world: &World| {
        let cluster = world.clusters.get(&door.cluster)?;
        View::find(cluster, Kind::Pod, Some(namespace), name).map(View::to_item)
    };
    let deleted = door.sandbox.with(|world| {
        options.check_version(door, world, namespace, name)?;
        let before = find(world);
        world.ask_to_delete_pod(&door.cluster, namespace, name, grace, options.uid().as_ref())?;
        find(world).or(before).ok_or(ApiError::NotFound)
    });
    match deleted {
        Ok(pod) => Ok(json_response(StatusCode::OK, &Rendered::alone(pod.view()))),
        Err(error) => Err(unanswered(error, Kind::Pod, name)),
    }
}

/// As much of an Eviction as counts here.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Eviction {
    metadata: EvictionMetadata,
    delete_options: Option<DeleteOptions>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EvictionMetadata {
    name: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct DeleteOptions {
    grace_period_seconds: Option<i64>,
    preconditions: Option<Preconditions>,
    dry_run: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Preconditions {
    uid: Option<String>,
    resource_version: Option<String>,
}

impl DeleteOptions {
    fn uid(&self) -> Option<PodUid> {
        self.preconditions.as_ref()?.uid.as_deref().map(PodUid::from)
    }

    fn grace(&self) -> Result<Option<Duration>, Refusal> {
        let seconds = |seconds: i64| {
            u64::try_from(seconds).map(Duration::from_secs).map_err(|_| {
                Refusal::bad_request(format!("invalid gracePeriodSeconds: {seconds} is negative"))
            })
        };
        self.grace_period_seconds.map(seconds).transpose()
    }

    fn check_version(&self, door: &Door, world: &World, namespace: &str, name: &str) -> Result<(), ApiError> {
        let wanted =
            self.preconditions.as_ref().and_then(|conditions| conditions.resource_version.as_deref());
        let cluster = world.clusters.get(&door.cluster);
        let pod = cluster.and_then(|cluster| View::find(cluster, Kind::Pod, Some(namespace), name));
        let (Some(wanted), Some(pod)) = (wanted, pod) else { return Ok(()) };
        let stored = pod.version().to_string();
        if wanted == stored {
            return Ok(());
        }
        Err(ApiError::Conflict(format!(
            "the ResourceVersion in the precondition ({wanted}) does not match the ResourceVersion in record \
             ({stored}). The object might have been modified"
        )))
    }
}

/// The changes that a patch asks for, and the UID that it expects.
fn node_patch(patch: &Value) -> Result<(NodePatch, Option<String>), Refusal> {
    let mut changes = NodePatch::default();
    let mut uid = None;
    for (key, value) in fields(patch, "the patch")? {
        match key.as_str() {
            "apiVersion" | "kind" => {}
            "metadata" => {
                for (key, value) in fields(value, "metadata")? {
                    match (key.as_str(), value) {
                        ("name", _) => {}
                        ("labels", map) => changes.labels = texts(map, "metadata.labels")?,
                        ("annotations", map) => changes.annotations = texts(map, "metadata.annotations")?,
                        ("uid", Value::String(text)) => uid = Some(text.clone()),
                        ("resourceVersion", Value::String(text)) => {
                            changes.resource_version = Some(text.parse().map_err(|_| {
                                Refusal::bad_request(format!("invalid metadata.resourceVersion: {text:?}"))
                            })?);
                        }
                        (other, _) => return Err(no_patch(&format!("metadata.{other}"))),
                    }
                }
            }
            "spec" => {
                for (key, value) in fields(value, "spec")? {
                    match (key.as_str(), value) {
                        ("unschedulable", Value::Bool(unschedulable)) => {
                            changes.unschedulable = Some(*unschedulable);
                        }
                        ("unschedulable", Value::Null) => changes.unschedulable = Some(false),
                        ("taints", Value::Null) => changes.taints = Some(Vec::new()),
                        ("taints", Value::Array(list)) => {
                            changes.taints = Some(list.iter().map(taint).collect::<Result<_, _>>()?);
                        }
                        (other, _) => return Err(no_patch(&format!("spec.{other}"))),
                    }
                }
            }
            other => return Err(no_patch(other)),
        }
    }
    Ok((changes, uid))
}

fn taint(taint: &Value) -> Result<(String, String, String), Refusal> {
    let text = |key: &str| taint.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (key, value, effect) = (text("key"), text("value"), text("effect"));
    if key.is_empty() || effect.is_empty() {
        return Err(Refusal::bad_request("invalid spec.taints: a taint needs a key and an effect"));
    }
    Ok((key, value, effect))
}

fn texts(map: &Value, path: &str) -> Result<BTreeMap<String, Option<String>>, Refusal> {
    let text = |(key, value): (&String, &Value)| match value {
        Value::Null => Ok((key.clone(), None)),
        Value::String(text) => Ok((key.clone(), Some(text.clone()))),
        _ => Err(Refusal::bad_request(format!("invalid {path}: the value of {key:?} is not a string"))),
    };
    fields(map, path)?.iter().map(text).collect()
}

fn fields<'a>(value: &'a Value, path: &str) -> Result<&'a Map<String, Value>, Refusal> {
    value.as_object().ok_or_else(|| Refusal::bad_request(format!("invalid patch: {path} is not an object")))
}

fn no_patch(path: &str) -> Refusal {
    Refusal::not_implemented(format!("a patch of {path} of a node"))
}

fn uid_conflict(wanted: &str, stored: &str) -> ApiError {
    let why = format!("Precondition failed: UID in precondition: {wanted}, UID in object meta: {stored}");
    ApiError::Conflict(why)
}

/// Nothing here can be tried without being done.
fn refuse_dry_run(asked: &Asked, in_body: &[String]) -> Result<(), Refusal> {
    if asked.query("dryRun").is_some() || !in_body.is_empty() {
        return Err(Refusal::not_implemented("dryRun"));
    }
    Ok(())
}

fn unanswered(error: ApiError, kind: Kind, name: &str) -> Unanswered {
    Refusal::of(error, kind, name).map_or(Unanswered::Away, Unanswered::Refused)
}

pub(super) fn parse<'a, T: Deserialize<'a>>(asked: &Asked, body: &'a [u8]) -> Result<T, Refusal> {
    match asked.content_type() {
        "" | "application/json" => {}
        other => {
            let message = format!("the body of the request was in an unknown format: {other:?}");
            return Err(Refusal::unsupported_media_type(message));
        }
    }
    serde_json::from_slice(body).map_err(|error| Refusal::bad_request(format!("invalid body: {error}")))
}

pub(super) async fn read(body: Body) -> Result<Bytes, Refusal> {
    to_bytes(body, LARGEST_BODY)
        .await
        .map_err(|error| Refusal::bad_request(format!("reading the body of the request: {error}")))
}
