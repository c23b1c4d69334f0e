//! What our annotation on a node says: what we changed there that could be undone, and for whom.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::*;

/// The record of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// When the node was first isolated by us.
    pub since: Timestamp,
    /// Whom it is for, of this installation and of others. The last one out undoes what it names.
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
pub struct Claimant {
    /// What the claim came from.
    pub cause: Cause,
    /// Whose it is. Each installation undoes its own alone: two of them on one cluster, with a queue each, have claims
    /// that the other knows nothing about (keikoproj/lifecycle-manager#71). A record of version 0.1 does not tell.
    pub by: Option<Installation>,
}

/// What a claim came from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
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
    /// Where calls about the instance go, as the notice said.
    pub account_region: AccountRegion,
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

/// Ten minutes past its end, and ten sweeps.
const ABANDONED: Duration = Duration::from_secs(3_600);

impl Record {
    /// A record that names nothing yet.
    pub fn new(since: Timestamp) -> Self {
        Self { since, ..Self::default() }
    }

    /// The notice is in it, or need not be.
    pub(crate) fn holds(&self, notice: &Notice, policy: &Policy) -> bool {
        let claimant = Claimant::of(notice, policy);
        let last = self.entries.last_key_value().filter(|_| self.entries.len() >= MOST_ENTRIES);
        let has_no_place = last.is_some_and(|(last, _)| *last < claimant);
        let covers = |entry: &Entry| entry.at + FRESH >= notice.at && entry.ended.is_none();
        self.entries.get(&claimant).map_or(has_no_place, covers)
            || self.entries.contains_key(&Claimant::of_version_1(notice))
            || self.foreign.is_some()
    }

    /// Puts a notice in it. Where there are too many, the last in the order of claimants finds no place.
    pub(crate) fn add(&mut self, notice: &Notice, policy: &Policy) {
        self.entries.remove(&Claimant::of_version_1(notice));
        let end = triggers::expected_end(notice, policy);
        let account_region = notice.account_region.clone();
        let new = Entry { at: notice.at, end, account_region, ended: None };
        let entry = self.entries.entry(Claimant::of(notice, policy)).or_insert_with(|| new.clone());
        *entry = Entry { at: entry.at.max(new.at), end: entry.end.max(new.end), ..new };
        if self.entries.len() > MOST_ENTRIES {
            self.entries.pop_last();
        }
    }

    /// Takes out of it what is a notice's.
    pub(crate) fn remove(&mut self, notice: &Notice, facts: Facts<'_>) {
        self.entries.retain(|who, entry| !is_of(notice, who, entry, facts));
    }

    /// Writes how a notice ended.
    pub(crate) fn end(&mut self, notice: &Notice, end: &EntryEnd, facts: Facts<'_>) {
        for (who, entry) in &mut self.entries {
            if is_of(notice, who, entry, facts) {
                entry.ended.get_or_insert_with(|| end.clone());
            }
        }
    }

    /// Somebody looks after this hook, which holds the instance in this state, or has done so: where the state is another
    /// one than at its end, another action of it has begun.
    pub fn looks_after(
        &self,
        group: &GroupName,
        hook: &HookName,
        state: &LifecycleState,
        now: Timestamp,
    ) -> bool {
        let names = |who: &Claimant| match &who.cause {
            Cause::Hook(of, name) => (of, name) == (group, hook),
            Cause::Notice(_) => true,
            Cause::Trigger(_) => false,
        };
        let looks = |entry: &Entry| match &entry.ended {
            // Whoever left it isolated has not served the hook.
            Some(end) => end.outcome != Ended::LeftIsolated && end.state.as_ref() == Some(state),
            None => !triggers::record::is_overdue(entry, now),
        };
        self.foreign.is_some() || self.entries.iter().any(|(who, entry)| names(who) && looks(entry))
    }

    /// The entries of this installation.
    pub fn own_entries(&self, policy: &Policy) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(|(who, _)| who.is_ours(policy)).map(|(_, entry)| entry)
    }

    /// Since when a claim of another installation has been overdue, if it has been for an hour: by then that one would
    /// have looked after it, if it still exists.
    pub fn abandoned_since(&self, policy: &Policy, now: Timestamp) -> Option<Timestamp> {
        let others = self.entries.iter().filter(|(who, entry)| !who.is_ours(policy) && entry.ended.is_none());
        others.map(|(_, entry)| entry.end).filter(|end| now >= *end + ABANDONED).min()
    }

    /// Whether [`is_due`](Self::is_due) may say so, whatever the group says.
    pub fn may_be_due(&self, policy: &Policy, now: Timestamp) -> bool {
        let may_be = |entry: &Entry| entry.ended.is_some() || triggers::record::is_overdue(entry, now);
        self.foreign.is_none() && (self.entries.is_empty() || self.own_entries(policy).any(may_be))
    }

    /// Something in it is ours and waits for somebody who looks after it, by what is seen now. The node and the place
    /// in the group count, whether a job is at work on it does not.
    pub fn is_due(&self, seen: &Observation, policy: &Policy, now: Timestamp) -> bool {
        let is_due = |entry: &Entry| triggers::record::is_due(entry, seen, now);
        self.foreign.is_none() && (self.entries.is_empty() || self.own_entries(policy).any(is_due))
    }
}

/// An entry is a notice's: but not a newer one of the same claimant. What is overdue is that of whoever found it.
fn is_of(notice: &Notice, who: &Claimant, entry: &Entry, Facts { seen, policy, now, .. }: Facts<'_>) -> bool {
    if notice.kind == NoticeKind::Record {
        return who.is_ours(policy) && triggers::record::is_due(entry, seen, now);
    }
    *who == Claimant::of_version_1(notice)
        || *who == Claimant::of(notice, policy) && entry.at <= notice.at + FRESH
}

impl Claimant {
    /// Whom a record names for a notice of ours.
    pub fn of(notice: &Notice, policy: &Policy) -> Self {
        Self { cause: triggers::cause(notice), by: Some(policy.installation.clone()) }
    }

    /// Ours to undo; what version 0.1 wrote may be anybody's, and nobody else looks after it.
    fn is_ours(&self, policy: &Policy) -> bool {
        self.by.as_ref().is_none_or(|by| *by == policy.installation)
    }

    fn of_version_1(notice: &Notice) -> Self {
        Self { cause: Cause::Notice(notice.id.clone()), by: None }
    }
}
