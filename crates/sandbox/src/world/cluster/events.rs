//! Events, as much of them as `kubectl describe` shows.

use offramp_core::Timestamp;

use super::Cluster;

/// An Event as stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`.
    pub namespace: String,
    /// When it happened.
    pub at: Timestamp,
    /// `Normal` or `Warning`.
    pub kind: String,
    /// One word for machines.
    pub reason: String,
    /// A sentence for people.
    pub note: String,
    /// What it is about.
    pub regarding: Regarding,
    /// Who says so.
    pub reported_by: String,
}

/// The object of an Event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Regarding {
    /// Its kind.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace, where it has one.
    pub namespace: String,
    /// Its UID. Kubelets write the name of their node here.
    pub uid: String,
}

/// A real API server forgets Events after an hour; here the newest are kept: those of a storm of 500 nodes.
const KEPT: usize = 4_000;

impl Cluster {
    /// Stores an Event.
    pub fn put_event(&mut self, event: Event) {
        if self.events.len() == KEPT {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// The reasons of the Events about one node, oldest first.
    pub fn reasons_of_node(&self, name: &str) -> Vec<&str> {
        let about = |event: &&Event| event.regarding.kind == "Node" && event.regarding.name == name;
        self.events.iter().filter(about).map(|event| event.reason.as_str()).collect()
    }
}
