//! Why a step is what it is. The Display of a reason is what operators read.

use std::fmt;
use std::time::Duration;

use crate::eviction::Left;
use crate::ids::TargetGroupArn;
use crate::ownership::Over;
use crate::words::{counted, in_words};

/// Why a step is what it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The node is being cordoned and recorded.
    Isolating,
    /// Its cluster is out of sync, so nothing is known about the node.
    NodeUnknown,
    /// Nothing is known about the pods.
    PodsUnknown,
    /// Auto Scaling has not been read, or could not be.
    GroupUnknown,
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
    /// The node is empty; pods bound in the moment of the cordon would show up about now.
    Settling,
    /// The group is told to replace the instance now.
    Detaching,
    /// Targets finish their last requests.
    Quiescing {
        /// How many.
        targets: usize,
    },
    /// The hook is being answered, everything owed is done.
    Completing,
    /// The hook is being answered because its time is up.
    DeadlineReached {
        /// Pods that are left.
        pods: usize,
        /// Targets that are still registered.
        targets: usize,
    },
    /// The interruption may follow or not.
    AwaitingInterruption {
        /// How long we wait for it.
        left: Duration,
    },
    /// The instance reboots with a new root volume, or is stopped and may start again.
    AwaitingReturn,
    /// What the record names is being undone.
    Returning(Over),
    /// Everything owed for the spot notice is done.
    SpotServed,
    /// Nothing is owed any more.
    Over(Over),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolating => f.write_str("isolating the node"),
            Self::NodeUnknown => f.write_str("waiting: the cluster is out of sync, the node is not known"),
            Self::PodsUnknown => f.write_str("waiting: the pods of the node are not known"),
            Self::GroupUnknown => f.write_str("waiting for Auto Scaling to say what the instance is doing"),
            Self::TargetsUnknown => f.write_str("waiting for the target groups to be read"),
            Self::Unsettled => f.write_str("waiting for the group to show the hook's Wait state"),
            Self::GateClosed { group, left } => write!(
                f,
                "holding back: the last healthy target of {} (goes on in {})",
                group.short(),
                in_words(*left)
            ),
            Self::Deregistering { targets: 0, .. } => f.write_str("keeping controllers from adding the node"),
            Self::Deregistering { targets, unlabelled } => {
                let but = if *unlabelled { ", not labelled: the node cannot be written" } else { "" };
                write!(f, "deregistering {}{but}", counted(*targets, "target"))
            }
            Self::Propagating { left } => {
                write!(f, "waiting {} for the balancers to send nothing new", in_words(*left))
            }
            Self::Draining(left) => write!(f, "{left}"),
            Self::Settling => f.write_str("empty, watching for pods bound just before the cordon"),
            Self::Detaching => f.write_str("telling the group to replace the instance now"),
            Self::Quiescing { targets } => {
                write!(f, "waiting for {} to finish the last requests", counted(*targets, "target"))
            }
            Self::Completing => f.write_str("everything owed is done, answering the hook"),
            Self::DeadlineReached { pods, targets } => {
                let (pods, targets) = (counted(*pods, "pod"), counted(*targets, "target"));
                write!(f, "the deadline has come, answering with {pods} and {targets} left")
            }
            Self::AwaitingInterruption { left } => {
                write!(f, "isolated, waiting up to {} for the interruption", in_words(*left))
            }
            Self::AwaitingReturn => f.write_str("waiting for the instance to come back"),
            Self::Returning(over) => write!(f, "undoing what was done: {over}"),
            Self::SpotServed => f.write_str("everything owed for the spot notice is done"),
            Self::Over(over) => write!(f, "{over}"),
        }
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} left", counted(self.running + self.ending, "pod"))?;
        for (count, what) in [
            (self.ending, "ending"),
            (self.refused, "refused"),
            (self.awaiting_quiet, "until traffic has left"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        let Some(span) = self.forced_in.filter(|_| self.refused > 0) else { return Ok(()) };
        write!(f, ", forced in {}", in_words(span))
    }
}
