//! What our annotation on a node says: what we changed there that could be undone, and for whom.

use std::collections::{BTreeMap, BTreeSet};

use crate::*;

/// The record of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the node was first isolated by us.
    pub since: Timestamp,
    /// Whom it is for. The last one out undoes what it names.
    pub entries: BTreeMap<Claimant, Entry>,
    /// The cordon is ours.
    pub cordoned: bool,
    /// The exclude label is ours.
    pub excluded: bool,
    /// The targets that we deregister.
    pub targets: BTreeSet<TargetKey>,
    /// When announced maintenance of the instance begins.
    pub maintenance: Option<Timestamp>,
    /// It cannot be read: damaged, or of a newer version that runs beside this one during an upgrade. It is left on
    /// the node as it is, because an undo that somebody else owes depends on it. The node counts as leaving
    /// (the gate does not rely on it), and nothing of it is ever taken away by us.
    pub foreign: Option<Foreign>,
}

/// Whom an entry is for. Copies of an event and new actions of one hook are one claimant. In this order they find
/// their place in a record that is nearly full.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Claimant {
    /// A hook of a group.
    Hook(GroupName, HookName),
    /// Any notice of another trigger.
    Trigger(Trigger),
    /// One notice, whose trigger a record of version 0.1 does not tell.
    Notice(NoticeId),
}

/// One claim on the node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it is over at the latest. Of several notices of one claimant the latest counts.
    pub end: Timestamp,
    /// How it ended, where the node outlives it.
    pub ended: Option<EntryEnd>,
}

/// How a claim ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryEnd {
    /// How.
    pub outcome: Ended,
    /// The state that the group showed then: when it shows another, somebody looks again.
    pub state: Option<LifecycleState>,
    /// When.
    pub at: Timestamp,
}

/// What can be told of a record that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Foreign {
    /// When the last of its claims ends, where it says so.
    pub until: Option<Timestamp>,
}

/// More entries do not fit: a claim without one is held by its message alone. 32 with the longest names are some 20
/// KB, of the 256 KiB that all annotations of an object share (Kubernetes, API validation).
pub const MOST_ENTRIES: usize = 32;

impl Record {
    /// A record that names nothing yet.
    pub fn new(since: Timestamp) -> Self {
        Self { since, ..Self::default() }
    }

    /// The claim is in it, or need not be.
    pub(crate) fn holds(&self, claimant: &Claimant, end: Timestamp, notice: &NoticeId) -> bool {
        let entry = self.entries.get(claimant);
        entry.map_or(self.entries.len() >= MOST_ENTRIES, |entry| entry.end >= end && entry.ended.is_none())
            || self.entries.contains_key(&Claimant::Notice(notice.clone()))
            || self.foreign.is_some()
    }

    /// Puts a claim in it, where it fits.
    pub(crate) fn add(&mut self, claimant: Claimant, end: Timestamp, notice: &NoticeId) {
        self.entries.remove(&Claimant::Notice(notice.clone()));
        let end = self.entries.get(&claimant).map_or(end, |entry| entry.end.max(end));
        if self.entries.len() < MOST_ENTRIES || self.entries.contains_key(&claimant) {
            self.entries.insert(claimant, Entry { end, ended: None });
        }
    }
}
