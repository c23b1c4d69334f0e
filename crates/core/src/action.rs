//! What should be done, as values: printable, comparable, safe to repeat and safe to lose.

use std::time::Duration;

use crate::*;

/// One idempotent thing to do for one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Cordon the node and write the record, in one PATCH; for spot the exclude label too.
    Isolate {
        /// Put `node.kubernetes.io/exclude-from-external-load-balancers: "true"` in the same PATCH.
        exclude: bool,
        /// What the annotation will say: everything of ours that could be undone.
        record: Record,
        /// The node's resourceVersion: the PATCH only holds if it has not changed since, because what
        /// another notice or another worker wrote into the record meanwhile must not be lost.
        guard: String,
    },
    /// Put the exclude label on the node and name the targets in its record, in one PATCH. It comes
    /// before [`Action::Deregister`], so that no controller registers the node again.
    Exclude {
        /// What the annotation will say.
        record: Record,
        /// As for [`Action::Isolate`].
        guard: String,
    },
    /// Take one (instance, port) out of one target group.
    Deregister(TargetKey),
    /// Ask for the pod's end through the Eviction API, which respects disruption budgets.
    Evict {
        /// The pod, by UID too.
        pod: PodRef,
        /// What makes it again.
        origin: PodOrigin,
        /// A grace shorter than the pod's own, where less time is left.
        grace: Option<Duration>,
    },
    /// Delete the pod, budget or not: the deadline demands it.
    Delete {
        /// The pod, by UID too.
        pod: PodRef,
        /// The grace it gets, at most its own and at most what is left.
        grace: Duration,
    },
    /// Read the pods of the node anew, past the watch: it may be late, and the node is about to count as empty.
    ListPods {
        /// The node, or the one that there was.
        node: NodeName,
    },
    /// RecordLifecycleActionHeartbeat.
    Heartbeat(HookKey),
    /// CompleteLifecycleAction with CONTINUE.
    CompleteHook(HookKey),
    /// DetachInstances, decrement = false: the group launches a replacement now.
    Detach {
        /// The group it is a member of.
        group: GroupName,
    },
    /// TerminateInstanceInAutoScalingGroup, decrement = false: the group launches a replacement and
    /// runs our hook, which holds the instance.
    TerminateThroughGroup {
        /// The group it is a member of.
        group: GroupName,
    },
    /// Write the node's record and change nothing else there.
    WriteRecord {
        /// What the annotation will say.
        record: Record,
        /// As for [`Action::Isolate`].
        guard: String,
    },
    /// Undo a deregistration that the record names.
    Register(TargetKey),
    /// Undo the isolation that the record names, and take the record away.
    Release {
        /// The record that is undone.
        record: Record,
        /// As for [`Action::Isolate`].
        guard: String,
    },
}

/// The disruption budget that refused an eviction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BudgetName(pub String);

/// What an action led to: the call was answered, or it failed.
pub type ActionResult = Result<Outcome, Failure>;

/// What an answered call led to. A refusal that may pass is an answer too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is so now. "Already so" counts.
    Done,
    /// What it was about does not exist any more.
    Gone,
    /// The object has changed since it was seen, and nothing was written: look again.
    Changed,
    /// A disruption budget refuses for now.
    Blocked {
        /// The budget, where the answer names it.
        budget: Option<BudgetName>,
    },
    /// An admission webhook or policy refuses for now.
    Vetoed {
        /// Its own words, bounded.
        by: String,
    },
}

/// Why a call failed, by what its caller does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It may work later: throttled, timed out, cut off, a server error. Nothing is known.
    Retry,
    /// It will not work until somebody mends permissions or configuration.
    Denied,
    /// The request is wrong; repeating it is useless.
    Invalid,
}
