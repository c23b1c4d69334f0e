//! GET with `watch=true`: a line of JSON for every change, for as long as the client listens.

use std::collections::BTreeSet;
use std::io;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use futures::stream;
use offramp_core::Timestamp;
use serde::Serialize;
use serde_json::json;
use tokio::sync::watch::Receiver;
use tokio::time::{Instant, sleep_until};

use super::kinds::{Item, Kind, View};
use super::objects::Rendered;
use super::request::{Asked, Form};
use super::selectors::Selection;
use super::status::Refusal;
use super::table::{Row, Table};
use super::{Door, Unanswered, connection_lost};
use crate::world::cluster::{Change, Cluster, Key, Verb};

/// How long a watch lives that names no limit (kube-apiserver's `--min-request-timeout`).
const LONGEST: Duration = Duration::from_mins(30);
/// Bookmarks "typically every minute" (KEP-956); more often here, so that a short demo has some.
const BOOKMARK_EVERY: Duration = Duration::from_secs(30);
/// How many objects are copied at once, so that a watch that catches up does not hold up the world.
const AT_ONCE: usize = 256;

/// A running watch.
#[derive(Debug)]
struct Watch {
    door: Door,
    selection: Selection,
    form: Form,
    place: Place,
    wants_bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    changes: Receiver<u64>,
    /// Objects that the client does not see at the moment because a label, a phase or a cordon is wrong.
    hidden: BTreeSet<Key>,
    columns_are_sent: bool,
}

/// How far a watch has come.
#[derive(Clone, Copy, Debug)]
enum Place {
    /// It begins with what there is, and says where that ends if asked.
    Beginning { announce_end: bool },
    /// It has told everything up to this resourceVersion.
    After(u64),
    /// It is over.
    Over,
}

/// What a look at the world brought.
enum Seen {
    Nothing,
    Events { events: Vec<(Verb, Item)>, announce_end: bool, now: Timestamp },
    Expired(Refusal),
    Away,
}

#[derive(Serialize)]
struct Event<T> {
    #[serde(rename = "type")]
    kind: &'static str,
    object: T,
}

/// GET of a collection with `watch`.
pub(super) fn watch(
    door: &Door,
    kind: Kind,
    namespace: Option<&str>,
    asked: &Asked,
) -> Result<Response, Unanswered> {
    let selection =
        Selection::parse(kind, namespace, asked.query("fieldSelector"), asked.query("labelSelector"))?;
    let announce_end = asked.is_set("sendInitialEvents");
    let place = match asked.number("resourceVersion")? {
        Some(version) if version > 0 && !announce_end => Place::After(version),
        Some(_) | None => Place::Beginning { announce_end },
    };
    let limit =
        asked.number("timeoutSeconds")?.filter(|seconds| *seconds > 0).map_or(LONGEST, Duration::from_secs);
    let changes = door.sandbox.changes();
    let hidden = door
        .sandbox
        .peek(|world| Some(hidden_at(door.cluster(world)?, &selection, place)))
        .ok_or(Unanswered::Away)??;
    let watch = Watch {
        door: door.clone(),
        selection,
        form: asked.form(),
        place,
        wants_bookmarks: asked.is_set("allowWatchBookmarks"),
        next_bookmark: Instant::now() + BOOKMARK_EVERY,
        ends: Instant::now() + limit,
        changes,
        hidden,
        columns_are_sent: false,
    };
    let lines = stream::unfold(watch, Watch::next);
    Ok(([(CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response())
}

/// The objects that a client does not see at the start. Those that changed since its resourceVersion are
/// left out, because nobody knows what they were then.
fn hidden_at(cluster: &Cluster, selection: &Selection, place: Place) -> Result<BTreeSet<Key>, Refusal> {
    let start = match place {
        Place::After(version) if version > cluster.version => {
            return Err(Refusal::too_large(version, cluster.version));
        }
        Place::After(version) => version,
        Place::Beginning { .. } | Place::Over => cluster.version,
    };
    if !selection.can_change() {
        return Ok(BTreeSet::new());
    }
    let is_hidden = |view: &View<'_>| {
        view.version() <= start && selection.may_match(*view) && !selection.matches_now(*view)
    };
    Ok(View::all(cluster, selection.kind).filter(is_hidden).map(key_of).collect())
}

impl Watch {
    /// The next lines, or the end.
    async fn next(mut self) -> Option<(io::Result<Bytes>, Self)> {
        if matches!(self.place, Place::Over) {
            return None;
        }
        loop {
            self.changes.mark_unchanged();
            let lines = match self.look() {
                Seen::Nothing => None,
                Seen::Events { events, announce_end, now } => Some(self.events(&events, announce_end, now)),
                Seen::Expired(refusal) => {
                    self.place = Place::Over;
                    Some(line(&Event { kind: "ERROR", object: refusal.to_json() }))
                }
                Seen::Away => {
                    self.place = Place::Over;
                    Some(Err(connection_lost()))
                }
            };
            if let Some(lines) = lines {
                return Some((lines.map(Bytes::from), self));
            }
            tokio::select! {
                biased;
                () = sleep_until(self.ends) => {
                    let last = self.wants_bookmarks.then(|| self.bookmark(false));
                    self.place = Place::Over;
                    return last.map(|line| (line.map(Bytes::from), self));
                }
                () = sleep_until(self.next_bookmark), if self.wants_bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK_EVERY;
                    return Some((self.bookmark(false).map(Bytes::from), self));
                }
                changed = self.changes.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
            }
        }
    }

    fn look(&mut self) -> Seen {
        let Self { door, selection, place, hidden, .. } = self;
        door.sandbox.peek(|world| {
            let Some(cluster) = door.cluster(world) else { return Seen::Away };
            let (events, announce_end) = match *place {
                Place::Over => return Seen::Nothing,
                Place::Beginning { announce_end } => {
                    let events = selection.find(cluster).map(|view| (Verb::Added, view.to_item())).collect();
                    *place = Place::After(cluster.version);
                    (events, announce_end)
                }
                Place::After(version) => {
                    let Some(changes) = changes_after(cluster, version) else {
                        let text = format!("too old resource version: {version} ({})", cluster.version);
                        return Seen::Expired(Refusal::expired(text));
                    };
                    let mut events = Vec::new();
                    for change in changes {
                        let view = View::of(&change.object, cluster);
                        if let Some(verb) = verb_for(selection, hidden, change.verb, view) {
                            events.push((verb, view.to_item()));
                        }
                        *place = Place::After(change.version);
                        if events.len() == AT_ONCE {
                            break;
                        }
                    }
                    (events, false)
                }
            };
            if events.is_empty() && !announce_end {
                return Seen::Nothing;
            }
            Seen::Events { events, announce_end, now: world.now() }
        })
    }

    fn events(&mut self, events: &[(Verb, Item)], announce_end: bool, now: Timestamp) -> io::Result<Vec<u8>> {
        let mut lines = Vec::new();
        for (verb, item) in events {
            let kind = match verb {
                Verb::Added => "ADDED",
                Verb::Modified => "MODIFIED",
                Verb::Deleted => "DELETED",
            };
            let view = item.view();
            match self.form {
                Form::Objects => write_line(&mut lines, &Event { kind, object: Rendered::alone(view) })?,
                Form::Table(carry) => {
                    let rows = vec![Row::of(view, carry, now)];
                    let object = Table::new(view.kind(), view.version(), !self.columns_are_sent, rows);
                    self.columns_are_sent = true;
                    write_line(&mut lines, &Event { kind, object })?;
                }
            }
        }
        if announce_end {
            lines.extend(self.bookmark(true)?);
        }
        Ok(lines)
    }

    /// How far the client is, so that it can come back after changes of other objects.
    fn bookmark(&self, ends_the_beginning: bool) -> io::Result<Vec<u8>> {
        let Place::After(version) = self.place else { return Ok(Vec::new()) };
        let mut metadata = json!({ "resourceVersion": version.to_string(), "creationTimestamp": null });
        if ends_the_beginning {
            metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
        }
        let kind = self.selection.kind;
        let object = match self.form {
            Form::Objects => {
                json!({ "kind": kind.name(), "apiVersion": kind.api_version(), "metadata": metadata })
            }
            Form::Table(_) => json!({ "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": metadata,
                                      "columnDefinitions": [], "rows": [] }),
        };
        line(&Event { kind: "BOOKMARK", object })
    }
}

/// The changes since a version, or nothing where some of them are forgotten. Every version has its change.
fn changes_after(cluster: &Cluster, version: u64) -> Option<impl Iterator<Item = &Change>> {
    let oldest = cluster.changes.front().map_or(cluster.version + 1, |change| change.version);
    let start = cluster.changes.partition_point(|change| change.version <= version);
    (version + 1 >= oldest).then(|| cluster.changes.range(start..))
}

/// What a change means to a client that only sees a selection: an object that comes to match is new to it,
/// one that ceases to match is gone.
fn verb_for(selection: &Selection, hidden: &mut BTreeSet<Key>, verb: Verb, view: View<'_>) -> Option<Verb> {
    if !selection.may_match(view) {
        return None;
    }
    if !selection.can_change() {
        return Some(verb);
    }
    let key = key_of(view);
    match (verb, selection.matches_now(view)) {
        (Verb::Deleted, _) => (!hidden.remove(&key)).then_some(Verb::Deleted),
        (Verb::Added, true) => Some(Verb::Added),
        (Verb::Modified, true) => Some(if hidden.remove(&key) { Verb::Added } else { Verb::Modified }),
        (Verb::Added, false) => {
            hidden.insert(key);
            None
        }
        (Verb::Modified, false) => hidden.insert(key).then_some(Verb::Deleted),
    }
}

fn key_of(view: View<'_>) -> Key {
    (view.namespace().unwrap_or_default().to_owned(), view.name().to_owned())
}

fn line(event: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    write_line(&mut line, event)?;
    Ok(line)
}

fn write_line(lines: &mut Vec<u8>, event: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *lines, event)?;
    lines.push(b'\n');
    Ok(())
}
