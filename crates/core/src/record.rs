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
    /// The time of its latest event. What is more than [`FRESH`] older is another claim: events of one claimant come by
    /// two routes with times of their own.
    pub at: Timestamp,
    /// When it should be over by the operator's limits, so that somebody looks whether it is.
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

    /// The notice is in it, or need not be.
    pub(crate) fn holds(&self, notice: &Notice) -> bool {
        let claimant = triggers::claimant(notice);
        let last = self.entries.last_key_value().filter(|_| self.entries.len() >= MOST_ENTRIES);
        let has_no_place = last.is_some_and(|(last, _)| *last < claimant);
        let covers = |entry: &Entry| entry.at + FRESH >= notice.at && entry.ended.is_none();
        self.entries.get(&claimant).map_or(has_no_place, covers)
            || self.entries.contains_key(&Claimant::Notice(notice.id.clone()))
            || self.foreign.is_some()
    }

    /// Puts a notice in it. Where there are too many, the last in the order of claimants finds no place.
    pub(crate) fn add(&mut self, notice: &Notice, policy: &Policy) {
        self.entries.remove(&Claimant::Notice(notice.id.clone()));
        let new = Entry { at: notice.at, end: triggers::expected_end(notice, policy), ended: None };
        let entry = self.entries.entry(triggers::claimant(notice)).or_insert_with(|| new.clone());
        *entry = Entry { at: entry.at.max(new.at), end: entry.end.max(new.end), ended: None };
        if self.entries.len() > MOST_ENTRIES {
            self.entries.pop_last();
        }
    }

    /// Takes a notice out of it, but not a newer one of the same claimant.
    pub(crate) fn remove(&mut self, notice: &Notice) {
        let claimant = triggers::claimant(notice);
        self.entries.retain(|who, entry| {
            *who != Claimant::Notice(notice.id.clone()) && (*who != claimant || entry.at > notice.at + FRESH)
        });
    }
}
