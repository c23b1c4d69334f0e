//! Our record on a node whose claim nobody looks after: its message is lost, its job has left the node as it was, or
//! the instance is back from its warm pool or from a stop. It demands nothing, so that its end is the undo.

use std::time::Duration;

use crate::*;

pub(super) const ROW: Row = Row {
    trigger: Trigger::Record,
    lasts: |policy| policy.patience,
    entitlement,
    demands: Demands {
        isolate: Isolation::Cordon,
        deregister: Deregistration::No,
        drain: false,
        detach: Detachment::No,
        quiesce: false,
        at_the_end: AtTheEnd::Nothing,
    },
    until: |_, _| None,
};

/// A claim ends by the operator's limits; some minutes later its job has, even when its cluster was out of sync.
const OVERDUE: Duration = Duration::from_secs(600);

/// Its job should have ended by now.
pub(crate) fn is_overdue(entry: &Entry, now: Timestamp) -> bool {
    now >= entry.end + OVERDUE
}

/// An entry waits for somebody who looks after it. One whose end is written has had somebody: it waits no more, until
/// the instance is positively back.
pub(crate) fn is_due(entry: &Entry, seen: &Observation, now: Timestamp) -> bool {
    match &entry.ended {
        None => is_overdue(entry, now),
        // That it left its group since then proves nothing.
        Some(end) => stays(seen) && (end.state.is_none() || seen.membership != Seen::Gone),
    }
}

/// The instance is in service by its kubelet, and by its group where it is in one.
fn stays(seen: &Observation) -> bool {
    let in_group = match &seen.membership {
        Seen::Known(member) => member.state == LifecycleState::InService,
        Seen::Gone => true,
        Seen::Unknown => false,
    };
    in_group && seen.node.known().is_some_and(|node| node.ready)
}

fn entitlement(notice: &Notice, Facts { job, seen, policy, now }: Facts<'_>) -> Entitlement {
    let unknown = seen.node == Seen::Unknown || seen.membership == Seen::Unknown;
    let is_due = |node: &Node| node.record.as_ref().is_some_and(|record| record.is_due(seen, policy, now));
    // A job for this message has written it, and is over.
    let sent = notice.at.min(job.delivery_of(notice).at);
    let left = |entry: &Entry| entry.ended.as_ref().is_some_and(|end| end.at >= sent);
    let is_left =
        |node: &Node| node.record.as_ref().is_some_and(|record| record.own_entries(policy).any(left));
    match &seen.node {
        Seen::Gone => Entitlement::Ended(Ended::InstanceEnded),
        // Nothing is left to undo: by us, or by somebody else.
        Seen::Known(Node { record: None, .. }) if job.memory.node_write.is_some() => {
            Entitlement::Undo(UndoReason::Overdue)
        }
        Seen::Known(Node { record: None, .. }) => Entitlement::Undo(UndoReason::LookedAfter),
        _ if unknown && now < notice.at + policy.patience => Entitlement::Waits,
        Seen::Known(node) if is_due(node) && stays(seen) => Entitlement::Undo(UndoReason::Overdue),
        Seen::Known(node) if is_due(node) || is_left(node) || unknown => {
            Entitlement::Ended(Ended::LeftIsolated)
        }
        Seen::Known(_) => Entitlement::Undo(UndoReason::LookedAfter),
        Seen::Unknown => Entitlement::Ended(Ended::LeftIsolated),
    }
}
