//! The stages of the goals, each one function: does its condition hold, and if not, what would make it so.

mod complete;
mod deregister;
mod detach;
mod drain;
mod isolate;
mod quiesce;
mod undo;
mod write_ends;

pub(crate) use complete::{await_others, complete, confirm, keep_open};
pub(crate) use deregister::deregister;
pub(crate) use detach::detach;
pub(crate) use drain::drain;
pub(crate) use isolate::{go_on_trying, isolate};
pub(crate) use quiesce::quiesce;
pub(crate) use undo::{register, release};
pub(crate) use write_ends::write_ends;

use std::time::Duration;

use crate::*;

/// One condition that must come true.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// Cordon and record are on the node, or there is no node; and the notice is confirmed.
    Isolate,
    /// The exclude label is on the node, and no load balancer sends new requests.
    Deregister,
    /// No evictable pod is left on the node.
    Drain,
    /// The group no longer counts on the instance.
    Detach,
    /// Every target is `unused`: the last request has been answered.
    Quiesce,
    /// Our hooks are answered.
    Complete,
    /// The targets that the record names are registered again.
    Register,
    /// Label, cordon and record are taken away.
    Release,
}

/// What a stage says of its condition.
#[derive(Debug)]
pub(crate) enum Condition {
    /// It holds, or nothing in this job asks for it.
    Holds,
    /// It does not: what to do now (possibly nothing), when to look again, until when AWS says nothing of interest, and why.
    Open { actions: Vec<Action>, wake_at: Option<Timestamp>, read_by: Option<Timestamp>, reason: Reason },
}

pub(crate) fn wait(until: Timestamp, reason: Reason) -> Condition {
    Condition::Open { actions: Vec::new(), wake_at: Some(until), read_by: None, reason }
}

/// What AWS says has to be as new as that.
pub(crate) fn read_by(at: Timestamp, reason: Reason) -> Condition {
    Condition::Open { actions: Vec::new(), wake_at: None, read_by: Some(at), reason }
}

/// A controller takes some seconds to put a target back, or a group to take an instance back: what is decided on older
/// readings may be wrong by then.
const RECENT: Duration = Duration::from_millis(2_500);

/// There is no way back from it, so that it follows from what AWS has just said. Meanwhile hooks are kept open.
pub(crate) fn once_read(facts: Facts<'_>, open: Condition) -> Condition {
    match (wants_reading(facts), open) {
        (Some(oldest), Condition::Open { mut actions, wake_at, reason, .. }) => {
            actions.retain(|action| matches!(action, Action::Heartbeat(_)));
            Condition::Open { actions, wake_at, read_by: Some(oldest), reason }
        }
        (_, open) => open,
    }
}

/// How new a reading has to be, where it is not: one that was asked for since the job has come here, or a moment before. Each
/// may take its seconds (aws-load-balancer-controller#1871).
pub(crate) fn wants_reading(facts: Facts<'_>) -> Option<Timestamp> {
    let oldest = facts.job.memory.reading_since.unwrap_or(facts.now) - RECENT;
    (facts.as_of() < oldest).then_some(oldest)
}

pub(crate) fn todo(actions: Vec<Action>, reason: Reason) -> Condition {
    Condition::Open { actions, wake_at: None, read_by: None, reason }
}
