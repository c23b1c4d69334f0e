//! EC2 sees an elevated risk of interruption: the node gets no new pods, and the interruption may follow or not.

use crate::*;

pub(super) const ROW: Row = Row {
    trigger: Trigger::Rebalance,
    lasts: |policy| policy.patience,
    entitlement,
    demands: Demands {
        isolate: Isolation::Cordon,
        deregister: Deregistration::No,
        drain: false,
        detach: Detachment::No,
        quiesce: false,
        at_the_end: AtTheEnd::AwaitInterruption,
    },
    until: |_, _| None,
};

fn entitlement(notice: &Notice, facts: Facts<'_>) -> Entitlement {
    let Facts { seen, policy, now, .. } = facts;
    // What was announced has come, by the hook of the group or without it (seed 660).
    if machine::is_gone(facts) || seen.membership.known().is_some_and(|member| member.state.is_past_hooks()) {
        return Entitlement::Ended(Ended::InstanceEnded);
    }
    if now >= notice.at + policy.patience {
        return Entitlement::Undo(UndoReason::PatienceOver);
    }
    match (policy.rebalance, &seen.group) {
        (RebalancePolicy::None, _) => Entitlement::Undo(UndoReason::ByPolicy),
        (RebalancePolicy::Isolate, _) | (RebalancePolicy::Automatic, Seen::Gone) => Entitlement::Acts,
        // The group replaces the instance by itself, and its hook follows.
        (RebalancePolicy::Automatic, Seen::Known(group)) if group.capacity_rebalancing => {
            Entitlement::Undo(UndoReason::ByPolicy)
        }
        (RebalancePolicy::Automatic, Seen::Known(_)) => Entitlement::Acts,
        (RebalancePolicy::Automatic, Seen::Unknown) => Entitlement::Waits,
    }
}
