//! What the decision is about: the arguments of `step`, together.

use crate::*;

/// What is known of one instance at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) job: &'a Job,
    pub(crate) seen: &'a Observation,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    /// Why nothing is known about the node.
    pub(crate) fn node_unknown(&self) -> Reason {
        self.seen.doubt.map_or(Reason::NodeUnknown, Reason::NodeInDoubt)
    }

    /// When to read again what no watch tells.
    pub(crate) fn recheck(&self) -> Timestamp {
        self.now + self.policy.recheck
    }
}
