//! GET of one object and of many.

use axum::http::StatusCode;
use axum::response::Response;
use offramp_core::Timestamp;
use serde::Serialize;

use super::kinds::{Item, Kind, View};
use super::objects::Rendered;
use super::request::{Asked, Form};
use super::selectors::Selection;
use super::status::Refusal;
use super::table::{Row, Table};
use super::{Door, Unanswered, json_response};

/// What was taken out of the world. It is rendered after the world is let go.
struct Taken {
    items: Vec<Item>,
    version: u64,
    now: Timestamp,
}

/// A collection, as it is written.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct List<T> {
    pub(super) kind: &'static str,
    pub(super) api_version: &'static str,
    pub(super) metadata: ListMetadata,
    pub(super) items: Vec<T>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListMetadata {
    pub(super) resource_version: String,
}

/// GET of a collection. `limit` is ignored, as a server may (API concepts, "large result sets"), so no
/// answer has a continue token.
pub(super) fn list(
    door: &Door,
    kind: Kind,
    namespace: Option<&str>,
    asked: &Asked,
) -> Result<Response, Unanswered> {
    let selection =
        Selection::parse(kind, namespace, asked.query("fieldSelector"), asked.query("labelSelector"))?;
    let wanted = asked.number("resourceVersion")?;
    let taken = door.sandbox.peek(|world| {
        let cluster = door.cluster(world)?;
        let items = selection.find(cluster).map(View::to_item);
        Some(Taken { items: items.collect(), version: cluster.version, now: world.now() })
    });
    let Taken { items, version, now } = taken.ok_or(Unanswered::Away)?;
    let exact = asked.query("resourceVersionMatch") == Some("Exact");
    match wanted {
        Some(wanted) if wanted > version => return Err(Refusal::too_large(wanted, version).into()),
        Some(wanted) if exact && wanted < version => {
            return Err(
                Refusal::expired(format!("The resourceVersion {wanted} is not kept any more.")).into()
            );
        }
        Some(_) | None => {}
    }
    if asked.query("continue").is_some() {
        return Err(Refusal::expired("The provided continue parameter is not from this server.").into());
    }
    let views = items.iter().map(Item::view);
    Ok(match asked.form() {
        Form::Objects => {
            let items = views.map(Rendered::listed).collect();
            let metadata = ListMetadata { resource_version: version.to_string() };
            let list = List { kind: kind.list_name(), api_version: kind.api_version(), metadata, items };
            json_response(StatusCode::OK, &list)
        }
        Form::Table(carry) => {
            let rows = views.map(|view| Row::of(view, carry, now)).collect();
            json_response(StatusCode::OK, &Table::new(kind, version, true, rows))
        }
    })
}

/// GET of one object.
pub(super) fn get(
    door: &Door,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
    asked: &Asked,
) -> Result<Response, Unanswered> {
    let (item, now) = door
        .sandbox
        .peek(|world| {
            let cluster = door.cluster(world)?;
            Some((View::find(cluster, kind, namespace, name).map(View::to_item), world.now()))
        })
        .ok_or(Unanswered::Away)?;
    let item = item.ok_or_else(|| Refusal::not_found(kind, name))?;
    let view = item.view();
    Ok(match asked.form() {
        Form::Objects => json_response(StatusCode::OK, &Rendered::alone(view)),
        Form::Table(carry) => {
            let rows = vec![Row::of(view, carry, now)];
            json_response(StatusCode::OK, &Table::new(kind, view.version(), true, rows))
        }
    })
}
