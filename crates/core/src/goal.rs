//! What a job is for, and the stages on the way.

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Goal {
    /// The instance goes away.
    Leave,
    /// It stays after all: what our record names is undone.
    Return,
}

impl Goal {
    /// Every goal.
    pub const ALL: [Self; 2] = [Self::Leave, Self::Return];

    /// The stages in their order. A later stage may act before an earlier one is done, as far as what
    /// it requires is met; the label of a job is the first unfinished one.
    pub const fn stages(self) -> &'static [Stage] {
        match self {
            Self::Leave => &[
                Stage::Isolate,
                Stage::Deregister,
                Stage::Drain,
                Stage::Detach,
                Stage::Quiesce,
                Stage::Complete,
            ],
            Self::Return => &[Stage::Register, Stage::Release],
        }
    }
}

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
