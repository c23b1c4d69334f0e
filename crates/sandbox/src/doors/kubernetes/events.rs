//! Events: events.k8s.io/v1 takes them, and core/v1 lists them for `kubectl describe` and `get events`.

use axum::body::Body;
use axum::http::StatusCode;
use axum::response::Response;
use offramp_core::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::list::{List, ListMetadata};
use super::objects::Time;
use super::request::Asked;
use super::status::Refusal;
use super::writes::{parse, read};
use super::{Door, Unanswered, json_response};
use crate::world::cluster::{Event, Regarding};

/// As much of an Event as counts here. What has no default an API server asks for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Written {
    metadata: Named,
    event_time: String,
    #[serde(rename = "type")]
    kind: String,
    reason: String,
    action: String,
    #[serde(default)]
    note: String,
    regarding: WrittenRegarding,
    reporting_controller: String,
    reporting_instance: String,
}

#[derive(Deserialize)]
struct Named {
    name: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct WrittenRegarding {
    kind: String,
    name: String,
    namespace: String,
    uid: String,
}

/// POST of an Event. What a real API server refuses of one is refused here (`pkg/apis/core/validation`).
pub(super) async fn create(
    door: &Door,
    namespace: &str,
    asked: &Asked,
    body: Body,
) -> Result<Response, Unanswered> {
    let body = read(body).await?;
    let written: Written = parse(asked, &body)?;
    let refused = |what: &str| Err(Refusal::bad_request(format!("invalid Event: {what}")).into());
    // An object without a namespace has its Events in `default`.
    let expected = Some(written.regarding.namespace.as_str()).filter(|name| !name.is_empty());
    if expected.unwrap_or("default") != namespace {
        return refused("involvedObject.namespace does not match event.namespace");
    }
    if !["Normal", "Warning"].contains(&written.kind.as_str()) {
        return refused("type is neither Normal nor Warning");
    }
    if written.note.len() > 1024 {
        return refused("note can have at most 1024 bytes");
    }
    let required = [
        ("reason", &written.reason, 128),
        ("action", &written.action, 128),
        ("reportingController", &written.reporting_controller, 128),
        ("reportingInstance", &written.reporting_instance, 128),
    ];
    for (field, value, most) in required {
        if value.is_empty() || value.len() > most {
            return refused(&format!("{field} has to have between 1 and {most} bytes"));
        }
    }
    let Ok(at) = written.event_time.parse::<jiff::Timestamp>() else {
        return refused("eventTime is not a time");
    };
    let WrittenRegarding { kind, name, namespace: place, uid } = written.regarding;
    let event = Event {
        name: written.metadata.name,
        namespace: namespace.to_owned(),
        at: Timestamp::from_millis(at.as_millisecond()),
        kind: written.kind,
        reason: written.reason,
        note: written.note,
        regarding: Regarding { kind, name, namespace: place, uid },
        reported_by: written.reporting_controller,
    };
    door.sandbox.read(|world| {
        let cluster = world.clusters.get_mut(&door.cluster);
        cluster.map(|cluster| cluster.put_event(event)).ok_or(Unanswered::Away)
    })?;
    // As it came, which is what a real API server answers too, with what it adds.
    let stored: Value = parse(asked, &body)?;
    Ok(json_response(StatusCode::CREATED, &stored))
}

/// GET of Events as core/v1. `kubectl describe` asks for those of one object by field selector.
pub(super) fn list(door: &Door, namespace: Option<&str>, asked: &Asked) -> Result<Response, Unanswered> {
    let terms = asked.query("fieldSelector").unwrap_or_default().split(',').filter(|term| !term.is_empty());
    let terms = terms.map(Term::parse).collect::<Result<Vec<Term<'_>>, Refusal>>()?;
    let wanted = |event: &&Event| {
        namespace.is_none_or(|namespace| namespace == event.namespace)
            && terms.iter().all(|Term(field, value)| field(event) == *value)
    };
    door.sandbox.peek(|world| {
        let cluster = door.cluster(world).ok_or(Unanswered::Away)?;
        let items: Vec<Rendered<'_>> = cluster.events.iter().filter(wanted).map(Rendered::of).collect();
        let metadata = ListMetadata { resource_version: cluster.version.to_string() };
        let list = List { kind: "EventList", api_version: "v1", metadata, items };
        Ok(json_response(StatusCode::OK, &list))
    })
}

/// A field and the value that it has to have.
struct Term<'a>(fn(&Event) -> &str, &'a str);

impl<'a> Term<'a> {
    fn parse(term: &'a str) -> Result<Self, Refusal> {
        let (field, value) = term.split_once('=').unwrap_or((term, ""));
        let read: fn(&Event) -> &str = match field {
            "involvedObject.kind" => |event| &event.regarding.kind,
            "involvedObject.name" => |event| &event.regarding.name,
            "involvedObject.namespace" => |event| &event.regarding.namespace,
            "involvedObject.uid" => |event| &event.regarding.uid,
            other => return Err(Refusal::not_implemented(format!("selecting Events by {other}"))),
        };
        Ok(Self(read, value.strip_prefix('=').unwrap_or(value)))
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Rendered<'a> {
    metadata: Metadata<'a>,
    involved_object: InvolvedObject<'a>,
    #[serde(rename = "type")]
    kind: &'a str,
    reason: &'a str,
    message: &'a str,
    /// An Event of events.k8s.io has this and no first or last time. Go clients read it with six digits only.
    event_time: String,
    reporting_component: &'a str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Metadata<'a> {
    name: &'a str,
    namespace: &'a str,
    creation_timestamp: Time,
}

#[derive(Serialize)]
struct InvolvedObject<'a> {
    kind: &'a str,
    name: &'a str,
    namespace: &'a str,
    uid: &'a str,
}

impl<'a> Rendered<'a> {
    fn of(event: &'a Event) -> Self {
        let Event { name, namespace, at, kind, reason, note, regarding, reported_by } = event;
        let Regarding { kind: object, name: called, namespace: place, uid } = regarding;
        Self {
            metadata: Metadata { name, namespace, creation_timestamp: Time(*at) },
            involved_object: InvolvedObject { kind: object, name: called, namespace: place, uid },
            kind,
            reason,
            message: note,
            event_time: micros(*at),
            reporting_component: reported_by,
        }
    }
}

fn micros(at: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(at.as_millis()).map(|at| format!("{at:.6}")).unwrap_or_default()
}
