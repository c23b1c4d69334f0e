//! EC2 takes a spot instance back, two minutes from the event's time on.

use std::time::Duration;

use crate::*;

/// EC2 begins to shut a spot instance down two minutes after the notice's time (EC2 UG,
/// spot-instance-termination-notices).
const LEAD: Duration = Duration::from_secs(120);

/// A spot instance whose kubelet still works this long after its end was not taken back.
const STALE: Duration = Duration::from_secs(60);

/// A node that is Ready has a kubelet that renewed its Lease this long ago or less: the node controller's grace is 40 s, and
/// 50 s from Kubernetes 1.32 on (`node-monitor-grace-period`).
const VOUCHED: Duration = Duration::from_secs(60);

pub(super) const TERMINATE: Row = Row {
    trigger: Trigger::Spot,
    // A stopped instance may come back.
    lasts: |policy| policy.patience,
    entitlement,
    demands: Demands {
        isolate: Isolation::CordonAndLabel,
        deregister: Deregistration::AtOnce,
        drain: true,
        detach: Detachment::ForReplacement,
        // There is no time for a deregistration delay of 300 s.
        quiesce: false,
        at_the_end: AtTheEnd::Nothing,
    },
    until,
};
pub(super) const STOP: Row =
    Row { demands: Demands { at_the_end: AtTheEnd::AwaitReturn, ..TERMINATE.demands }, ..TERMINATE };
/// Its pods sleep with it, and wake up as they were. It begins at once: there is nothing to hurry for.
pub(super) const HIBERNATE: Row = Row {
    demands: Demands { isolate: Isolation::Cordon, drain: false, detach: Detachment::No, ..STOP.demands },
    until: |_, _| None,
    ..STOP
};

fn entitlement(notice: &Notice, Facts { seen, policy, now, .. }: Facts<'_>) -> Entitlement {
    let patient = now < notice.at + policy.patience;
    let comes_back = demands(&notice.kind).at_the_end == AtTheEnd::AwaitReturn;
    let over = notice.at + LEAD + STALE;
    if now <= over {
        return Entitlement::Acts;
    }
    match &seen.node {
        Seen::Known(node) if node.ready && (node.renewed_at >= over || now > over + VOUCHED) => {
            Entitlement::Undo(UndoReason::Stale)
        }
        // What was Ready when its machine was switched off looks like that for a while.
        Seen::Known(node) if node.ready => Entitlement::Waits,
        // Its kubelet works on, and says that something is wrong with the node.
        Seen::Known(node) if !node.silent && patient => Entitlement::Waits,
        // Stopped or hibernated: with its node, the cordon and the label would come back.
        Seen::Known(_) if comes_back && patient => Entitlement::Returns,
        Seen::Known(_) | Seen::Gone => Entitlement::Ended(Ended::InstanceEnded),
        Seen::Unknown if seen.doubt.is_some_and(|doubt| doubt.is_twins()) => Entitlement::Ended(Ended::Twins),
        Seen::Unknown if patient => Entitlement::Waits,
        Seen::Unknown => Entitlement::Undo(UndoReason::PatienceOver),
    }
}

fn until(notice: &Notice, Facts { policy, .. }: Facts<'_>) -> Option<Deadline> {
    let end = notice.at + LEAD;
    let pods = end + policy.node_shutdown_grace;
    Some(Deadline { pods, answer: end, provisional: false, doubtful: false })
}
