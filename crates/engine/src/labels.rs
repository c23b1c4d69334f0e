//! Closed sets, and the one word for each of their members in metrics, logs, Events and answers.

use offramp_core::{
    Action, ActionResult, BalancerKind, Ended, Failure, Goal, LifecycleState, NotWaitedFor, Outcome, Stage,
    Trigger,
};

use crate::ports::Fault;

/// Every trigger by what presses most: a hook has an hour, what EC2 takes back two minutes.
pub(crate) const BY_PRESSURE: [Trigger; 5] =
    [Trigger::Spot, Trigger::CapacityReservation, Trigger::Hook, Trigger::Rebalance, Trigger::Record];

/// A trigger as a label of metrics, a word of logs, and in a node's record.
pub const fn trigger_name(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::Hook => "hook",
        Trigger::Spot => "spot",
        Trigger::CapacityReservation => "capacity_reservation",
        Trigger::Rebalance => "rebalance",
        Trigger::Record => "record",
    }
}

/// Every way in which a claim ends and what was done stays done.
pub(crate) const ENDED: [Ended; 8] = [
    Ended::WithoutOurAnswer,
    Ended::AnsweredUnseen,
    Ended::Twins,
    Ended::Unisolated,
    Ended::Answered,
    Ended::InstanceEnded,
    Ended::WasNotOpen,
    Ended::LeftIsolated,
];

/// How a claim ended, as a word in a node's record.
pub(crate) const fn ended_name(ended: Ended) -> &'static str {
    match ended {
        Ended::WithoutOurAnswer => "ended_without_our_answer",
        Ended::AnsweredUnseen => "answered_unseen",
        Ended::Twins => "twins",
        Ended::Unisolated => "unisolated",
        Ended::Answered => "answered",
        Ended::InstanceEnded => "instance_ended",
        Ended::WasNotOpen => "was_not_open",
        Ended::LeftIsolated => "left_isolated",
    }
}

/// The lifecycle states that have a name of their own in the code, as Auto Scaling writes them.
const STATES: [(LifecycleState, &str); 9] = [
    (LifecycleState::InService, "InService"),
    (LifecycleState::Standby, "Standby"),
    (LifecycleState::TerminatingWait, "Terminating:Wait"),
    (LifecycleState::TerminatingProceed, "Terminating:Proceed"),
    (LifecycleState::Terminating, "Terminating"),
    (LifecycleState::Terminated, "Terminated"),
    (LifecycleState::WarmedPendingWait, "Warmed:Pending:Wait"),
    (LifecycleState::Warmed, "Warmed"),
    (LifecycleState::ReplacingRootVolumeWait, "ReplacingRootVolume:Wait"),
];

/// A lifecycle state as a word in a node's record.
pub(crate) fn state_name(state: &LifecycleState) -> &str {
    if let LifecycleState::Other(text) = state {
        return text;
    }
    STATES.iter().find(|(named, _)| named == state).map_or("", |(_, name)| name)
}

/// The state of this name.
pub(crate) fn state_named(name: &str) -> LifecycleState {
    let named = STATES.into_iter().find(|(_, known)| *known == name);
    named.map_or_else(|| LifecycleState::Other(name.to_owned()), |(state, _)| state)
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
    /// The node is leaving, and its deadline came with pods or targets left on it.
    LeftUnfinished,
    /// What was done has been undone, or nothing was to be done.
    Returned,
    /// The hook was closed, or its time was up, without an answer of ours.
    EndedWithoutOurAnswer,
    /// The same for a message that had been received before: an earlier worker has probably answered.
    WasNotOpen,
    /// We answered the hook of a living instance whose node no cluster ever showed.
    AnsweredUnseen,
    /// Everything owed was done but the isolation: the node could not be written.
    Unisolated,
    /// Undone: the instance is in no group, and its kubelet works on.
    NotAMember,
    /// A notice of two minutes that was over, and its node works on: nothing was done, or it was undone.
    Stale,
    /// The node or its group is not ours to touch: Karpenter's, Auto Mode's, not selected, or out of scope.
    LeftAlone,
    /// Several Ready nodes name the instance: none of them was touched.
    Twins,
    /// No cluster could say whether it has the instance, until the notice was over.
    ForeignUnsure,
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
    pub const ALL: [Self; 18] = [
        Self::Left,
        Self::LeftUnfinished,
        Self::Returned,
        Self::EndedWithoutOurAnswer,
        Self::AnsweredUnseen,
        Self::Unisolated,
        Self::NotAMember,
        Self::Stale,
        Self::LeftAlone,
        Self::Twins,
        Self::ForeignUnsure,
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
            | Self::LeftUnfinished
            | Self::Returned
            | Self::EndedWithoutOurAnswer
            | Self::AnsweredUnseen
            | Self::Unisolated
            | Self::NotAMember
            | Self::Stale
            | Self::LeftAlone
            | Self::Twins
            | Self::WasNotOpen
            | Self::LeftIsolated
            | Self::NotOurs => true,
            Self::Foreign | Self::ForeignUnsure | Self::HandedOver | Self::Stopped | Self::Panicked => false,
        }
    }

    /// Somebody should look: the alert `OfframpEndUnclear` has these.
    pub const fn is_unclear(self) -> bool {
        match self {
            Self::EndedWithoutOurAnswer
            | Self::AnsweredUnseen
            | Self::Unisolated
            | Self::Twins
            | Self::ForeignUnsure
            | Self::LeftIsolated => true,
            Self::Left
            | Self::LeftUnfinished
            | Self::Returned
            | Self::WasNotOpen
            | Self::NotAMember
            | Self::Stale
            | Self::LeftAlone
            | Self::NotOurs
            | Self::Foreign
            | Self::HandedOver
            | Self::Stopped
            | Self::Panicked => false,
        }
    }

    /// Worth a warning in the log: something was lost, or somebody waits for an answer that does not come from here, often
    /// for a name that is misspelt.
    pub(crate) fn warns(self, trigger: Trigger) -> bool {
        match self {
            Self::LeftUnfinished | Self::Stale | Self::NotOurs => true,
            Self::LeftAlone => trigger == Trigger::Hook,
            other => other.is_unclear(),
        }
    }

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Left => "left",
            Self::LeftUnfinished => "left_unfinished",
            Self::Stale => "stale",
            Self::LeftAlone => "left_alone",
            Self::Returned => "returned",
            Self::EndedWithoutOurAnswer => "ended_without_our_answer",
            Self::AnsweredUnseen => "answered_unseen",
            Self::Unisolated => "unisolated",
            Self::NotAMember => "not_a_member",
            Self::Twins => "twins",
            Self::ForeignUnsure => "foreign_unsure",
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

/// Why a pod is not waited for, in one word.
pub(crate) const fn not_waited_for_name(why: NotWaitedFor) -> &'static str {
    match why {
        NotWaitedFor::CameBack => "came_back",
        NotWaitedFor::Overdue => "overdue",
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

/// Every value of `outcome_name`.
pub(crate) const OUTCOMES: [&str; 8] =
    ["done", "gone", "changed", "blocked", "vetoed", "retry", "denied", "invalid"];
/// Every value of `action_name`; a test holds the two together.
pub(crate) const ACTIONS: [&str; 13] = [
    "isolate",
    "exclude",
    "write_record",
    "list_pods",
    "deregister",
    "evict",
    "delete",
    "heartbeat",
    "complete_hook",
    "detach",
    "terminate_through_group",
    "register",
    "release",
];
/// Every value of `fault_name`.
pub(crate) const FAULTS: [&str; 3] = ["retry", "denied", "invalid"];

/// The kind of an action, as a label of metrics and a word of logs.
pub(crate) const fn action_name(action: &Action) -> &'static str {
    match action {
        Action::Isolate { .. } => "isolate",
        Action::Exclude { .. } => "exclude",
        Action::WriteRecord { .. } => "write_record",
        Action::ListPods { .. } => "list_pods",
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

/// A kind of load balancer as a label of metrics.
pub(crate) const fn balancer_name(kind: BalancerKind) -> &'static str {
    match kind {
        BalancerKind::Application => "application",
        BalancerKind::Network => "network",
    }
}

/// A fault as a label of metrics.
pub(crate) const fn fault_name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Retry(_) => "retry",
        Fault::Denied(_) => "denied",
        Fault::Invalid(_) => "invalid",
    }
}

/// What an action led to, as a label of metrics.
pub(crate) const fn outcome_name(outcome: &ActionResult) -> &'static str {
    match outcome {
        Ok(Outcome::Done) => "done",
        Ok(Outcome::Gone) => "gone",
        Ok(Outcome::Changed) => "changed",
        Ok(Outcome::Blocked { .. }) => "blocked",
        Ok(Outcome::Vetoed { .. }) => "vetoed",
        Err(Failure::Retry) => "retry",
        Err(Failure::Denied) => "denied",
        Err(Failure::Invalid) => "invalid",
    }
}
