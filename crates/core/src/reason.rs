//! Why a step is what it is. What operators read of it is written in the engine.

use std::time::Duration;

use crate::*;

/// What is left on an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Remainder {
    /// Pods that should have gone.
    pub pods: usize,
    /// Targets that are still registered.
    pub targets: usize,
    /// Target groups that could not be read: nobody knows.
    pub unread_target_groups: usize,
}

impl Remainder {
    /// Nothing is left.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }
}

/// Why a step is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node is being cordoned and recorded.
    Isolating,
    /// No cluster shows its node, and it is not proven that there is none: one is out of sync, or the node may join yet.
    NodeUnknown,
    /// What was written to the node a moment ago does not show yet.
    WriteUnseen,
    /// Its cluster is in sync, and nobody can say which node is the instance's.
    NodeInDoubt(NodeDoubt),
    /// Nothing is known about the pods.
    PodsUnknown,
    /// Auto Scaling has not been read, or could not be.
    GroupUnknown,
    /// The group shows neither the hook's Wait state nor that the instance is in service: that proves
    /// nothing, and nothing is done or undone.
    GroupUndecided,
    /// The two minutes of a spot notice are over, and nothing proves yet that the kubelet lives.
    SpotUnproven,
    /// The target groups have not been read, or could not be.
    TargetsUnknown,
    /// The event is fresh and the group does not show its Wait state yet.
    Unsettled,
    /// No other healthy target is left that is counted on.
    GateClosed {
        /// The target group in question.
        group: TargetGroupArn,
        /// How long the gate may still hold.
        left: Duration,
    },
    /// The targets are being taken out.
    Deregistering {
        /// How many.
        targets: usize,
        /// Spot does not wait for a node that cannot be written: no label keeps controllers away.
        unlabelled: bool,
    },
    /// The balancers may still send new requests.
    Propagating {
        /// For how long.
        left: Duration,
    },
    /// Pods are on their way out.
    Draining(Left),
    /// There is no node, and the instance runs.
    NoNode {
        /// How long what may be on it is waited for.
        left: Duration,
        /// There was one, and it was deleted.
        deleted: bool,
    },
    /// The node is empty; pods bound in the moment of the cordon would show up about now.
    Settling,
    /// The watch shows no pod any more: it has to prove that it is not late, and a list that it has missed none.
    ProvingEmpty,
    /// The group is told to replace the instance now.
    Detaching,
    /// Targets finish their last requests.
    Quiescing {
        /// How many.
        targets: usize,
    },
    /// The hook is being answered, everything owed is done.
    Completing {
        /// Pods on the node that were not waited for.
        not_waited_for: usize,
    },
    /// AWS took our answer, and the group does not show it yet.
    Confirming,
    /// AWS says that there is nothing to answer while the group still holds the instance: asked again.
    AnswerRefused,
    /// The hook is being answered because its time is up.
    DeadlineReached(Remainder),
    /// The interruption may follow or not.
    AwaitingInterruption {
        /// How long we wait for it.
        left: Duration,
    },
    /// The instance reboots with a new root volume, or is stopped and may start again.
    AwaitingReturn,
    /// The node outlives what claimed it: how that ended is being written into its record.
    WritingEnds,
    /// What the record names is being undone.
    Returning(UndoReason),
    /// Everything owed for the interruption is done.
    Served,
    /// Nothing is owed any more, and what was done stays done.
    Over(Ended),
    /// Nothing is owed any more, and nothing is left of what was done.
    Undone(UndoReason),
    /// The same, but others claim the node: it stays isolated for them.
    Withdrawn {
        /// Why ours is undone.
        why: UndoReason,
        /// How many claims are left.
        claims: usize,
    },
    /// What was done should be undone, and for too long it could not be.
    NotUndone,
}
