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
    /// It does not: what to do now (possibly nothing), when to look again, and why.
    Open { actions: Vec<Action>, wake_at: Option<Timestamp>, reason: Reason },
}

pub(crate) fn wait(until: Timestamp, reason: Reason) -> Condition {
    Condition::Open { actions: Vec::new(), wake_at: Some(until), reason }
}

pub(crate) fn todo(actions: Vec<Action>, reason: Reason) -> Condition {
    Condition::Open { actions, wake_at: None, reason }
}
