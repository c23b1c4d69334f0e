//! Closed sets, and the one word for each of their members in metrics, logs, Events and answers.

use offramp_core::{Action, Goal, NoticeKind, Stage};

/// What a notice came from, as a label of metrics and a word of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// An Auto Scaling lifecycle action.
    Hook,
    /// A spot interruption notice.
    Spot,
    /// The warning that an instance of a capacity reservation or block is taken back.
    CapacityReservation,
    /// A rebalance recommendation.
    Rebalance,
}

impl Trigger {
    /// Every trigger. Of several in one job the first names it: a hook waits for an answer.
    pub const ALL: [Self; 4] = [Self::Hook, Self::Spot, Self::CapacityReservation, Self::Rebalance];

    /// The same by what presses most: a hook has an hour, what EC2 takes back two minutes.
    pub(crate) const BY_PRESSURE: [Self; 4] =
        [Self::Spot, Self::CapacityReservation, Self::Hook, Self::Rebalance];

    /// What a notice of this kind came from.
    pub const fn of(kind: &NoticeKind) -> Self {
        match kind {
            NoticeKind::Hook(_) => Self::Hook,
            NoticeKind::Spot(_) => Self::Spot,
            NoticeKind::CapacityReservation => Self::CapacityReservation,
            NoticeKind::Rebalance => Self::Rebalance,
        }
    }

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Spot => "spot",
            Self::CapacityReservation => "capacity_reservation",
            Self::Rebalance => "rebalance",
        }
    }
}

/// What a look at a configured target group found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ConfiguredTargetGroup {
    /// It is there.
    Found,
    /// It does not exist.
    Missing,
    /// It is in another Region than the queue.
    OtherRegion,
    /// It could not be read.
    Unread,
}

impl ConfiguredTargetGroup {
    /// Every state.
    pub const ALL: [Self; 4] = [Self::Found, Self::Missing, Self::OtherRegion, Self::Unread];

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Found => "found",
            Self::Missing => "missing",
            Self::OtherRegion => "other_region",
            Self::Unread => "unread",
        }
    }
}

/// How a job ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum JobOutcome {
    /// Everything owed is done, and the node is leaving.
    Left,
    /// What was done has been undone, or nothing was to be done.
    Returned,
    /// The hook was closed, or its time was up, without an answer of ours.
    EndedWithoutOurAnswer,
    /// The same for a message that had been received before: an earlier worker has probably answered.
    WasNotOpen,
    /// The group never said that the instance stays, so that nothing was undone, and never that it goes.
    LeftIsolated,
    /// The hook is somebody else's: by its name, or by the cluster that its metadata names.
    NotOurs,
    /// The instance is in no cluster of ours.
    Foreign,
    /// The messages were lost to another worker.
    HandedOver,
    /// The worker was stopped; the messages are handed back.
    Stopped,
    /// The job hit a bug; the messages come back.
    Panicked,
}

impl JobOutcome {
    /// Every outcome.
    pub const ALL: [Self; 10] = [
        Self::Left,
        Self::Returned,
        Self::EndedWithoutOurAnswer,
        Self::WasNotOpen,
        Self::LeftIsolated,
        Self::NotOurs,
        Self::Foreign,
        Self::HandedOver,
        Self::Stopped,
        Self::Panicked,
    ];

    /// The job came to this end by itself: everything is done about its messages.
    pub(crate) const fn is_own(self) -> bool {
        match self {
            Self::Left
            | Self::Returned
            | Self::EndedWithoutOurAnswer
            | Self::WasNotOpen
            | Self::LeftIsolated
            | Self::NotOurs => true,
            Self::Foreign | Self::HandedOver | Self::Stopped | Self::Panicked => false,
        }
    }

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::Returned => "returned",
            Self::EndedWithoutOurAnswer => "ended_without_our_answer",
            Self::WasNotOpen => "was_not_open",
            Self::LeftIsolated => "left_isolated",
            Self::NotOurs => "not_ours",
            Self::Foreign => "foreign",
            Self::HandedOver => "handed_over",
            Self::Stopped => "stopped",
            Self::Panicked => "panicked",
        }
    }
}

/// What a job is for, in one word.
pub const fn goal_name(goal: Goal) -> &'static str {
    match goal {
        Goal::Leave => "leave",
        Goal::Return => "return",
    }
}

/// A stage as a label of metrics and a word of logs.
pub const fn stage_name(stage: Stage) -> &'static str {
    match stage {
        Stage::Isolate => "isolate",
        Stage::Deregister => "deregister",
        Stage::Drain => "drain",
        Stage::Detach => "detach",
        Stage::Quiesce => "quiesce",
        Stage::Complete => "complete",
        Stage::Register => "register",
        Stage::Release => "release",
    }
}

/// The kind of an action, as a label of metrics and a word of logs.
pub(crate) const fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Isolate { .. } => "isolate",
        Action::Exclude { .. } => "exclude",
        Action::Deregister(_) => "deregister",
        Action::Evict { .. } => "evict",
        Action::Delete { .. } => "delete",
        Action::Heartbeat(_) => "heartbeat",
        Action::CompleteHook(_) => "complete_hook",
        Action::Detach { .. } => "detach",
        Action::TerminateThroughGroup { .. } => "terminate_through_group",
        Action::Register(_) => "register",
        Action::Release { .. } => "release",
    }
}
