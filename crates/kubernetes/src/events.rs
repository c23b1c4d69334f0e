//! Events on nodes, for `kubectl describe node`: events.k8s.io/v1, one after the other, each sent once.
//!
//! kube's own recorder counts an Event up that differs from an earlier one in its note alone, and for that
//! it needs PATCH. Here a second pod that was deleted is a second Event, and `create` is all that is asked for.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use offramp_core::NodeName;
use offramp_engine::{Announcement, Call, Metrics};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::connection::Connection;
use crate::fault;

/// A hook's removal makes two Events, a spot notice's one, and what holds it up makes warnings: 500 at once make 4,000
/// with six warnings each. They go out one at a time, at 5 to 10 ms each, and what waits takes about 1 MB.
const WAITING: usize = 4096;
/// What takes so long will not be answered.
const PATIENCE: Duration = Duration::from_secs(10);
/// Events of objects without a namespace live here.
const NAMESPACE: &str = "default";
/// The longest note that the API server takes, in bytes.
const LONGEST_NOTE: usize = 1024;

/// Where announcements go in.
#[derive(Debug)]
pub(crate) struct Announcer {
    waiting: mpsc::Sender<Said>,
    left_out: Arc<AtomicU64>,
}

/// Sends what is announced.
pub(crate) struct Events {
    cluster: String,
    connection: Arc<Connection>,
    metrics: Metrics,
    inbox: mpsc::Receiver<Said>,
    left_out: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Said {
    node: NodeName,
    at: Timestamp,
    announcement: Announcement,
}

/// The way in, and what has to run.
pub(crate) fn open(cluster: String, connection: Arc<Connection>, metrics: Metrics) -> (Announcer, Events) {
    let (waiting, inbox) = mpsc::channel(WAITING);
    let left_out = Arc::new(AtomicU64::new(0));
    let announcer = Announcer { waiting, left_out: Arc::clone(&left_out) };
    (announcer, Events { cluster, connection, metrics, inbox, left_out })
}

impl Announcer {
    /// Never waits: where too much waits already, this one is left out and counted.
    pub(crate) fn announce(&self, node: &NodeName, announcement: Announcement) {
        let said = Said { node: node.clone(), at: Timestamp::now(), announcement };
        if self.waiting.try_send(said).is_err() {
            self.left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Events {
    /// Sends one at a time, for ever. A failure is said once, until one comes through again.
    pub(crate) async fn send(mut self) {
        let cluster = self.cluster;
        let mut failing = false;
        while let Some(said) = self.inbox.recv().await {
            let event = event(said);
            let client = self.connection.opened().await.general;
            let events: Api<Event> = Api::namespaced(client, NAMESPACE);
            let post = PostParams::default();
            let request =
                self.metrics.measure(Call::CreateEvent, events.create(&post, &event), fault::result);
            let failed = match timeout(PATIENCE, request).await {
                Ok(Ok(_)) => None,
                Ok(Err(error)) => Some(fault::unannounced(&error)),
                Err(_) => Some(format!("no answer within {} s", PATIENCE.as_secs())),
            };
            if let Some(why) = failed.as_ref().filter(|_| !failing) {
                tracing::warn!(cluster, "putting Events on nodes: {why}; removals go on without them");
            }
            failing = failed.is_some();
            let left_out = self.left_out.swap(0, Ordering::Relaxed);
            if left_out > 0 {
                tracing::warn!(cluster, left_out, "left Events out: the API server takes them too slowly");
            }
        }
    }
}

/// `kubectl describe node` looks for Events whose object is the Node without a namespace, by its UID or by
/// its name in place of the UID, as kubelets write it.
fn event(Said { node, at, announcement: Announcement { reason, text } }: Said) -> Event {
    let name = node.as_str().to_owned();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{:x}", at.as_nanosecond())),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(at)),
        type_: Some(if reason.is_warning() { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(reason.as_str().to_owned()),
        action: Some("TakeOutOfService".to_owned()),
        note: Some(cut(text)),
        regarding: Some(ObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Node".to_owned()),
            uid: Some(name.clone()),
            name: Some(name),
            ..ObjectReference::default()
        }),
        reporting_controller: Some("offramp".to_owned()),
        reporting_instance: Some("offramp".to_owned()),
        ..Event::default()
    }
}

fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(LONGEST_NOTE));
    text
}

#[cfg(test)]
mod tests {
    use offramp_engine::EventReason;

    use super::*;

    #[test]
    fn a_note_is_never_longer_than_the_api_server_takes() {
        let announcement = Announcement { reason: EventReason::Isolated, text: "ä".repeat(600) };
        let said = Said { node: NodeName::from("n1"), at: Timestamp::UNIX_EPOCH, announcement };
        let event = event(said);
        assert_eq!(event.note.unwrap(), "ä".repeat(512));
        assert_eq!(event.metadata.name.unwrap(), "n1.0");
    }
}
