//! The group no longer counts on the instance.

use crate::*;

/// Asked for where a replacement should start before the instance ends. A hook's instance is on its way out
/// by definition, and could not be detached.
pub(crate) fn detach(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { job, seen, policy, .. } = case.facts;
    if case.demands.detach != Detachment::ForReplacement || job.memory.detached {
        return Condition::Holds;
    }
    let member = match &seen.membership {
        Seen::Gone => return Condition::Holds,
        Seen::Unknown => return read_by(case.facts.reread(), Reason::GroupUnknown),
        Seen::Known(member) if member.state != LifecycleState::InService => return Condition::Holds,
        Seen::Known(member) => member,
    };
    let group = match &seen.group {
        Seen::Gone => return Condition::Holds,
        Seen::Unknown => return read_by(case.facts.reread(), Reason::GroupUnknown),
        Seen::Known(group) => group,
    };
    let managed_node = seen.node.known().is_some_and(|node| node.owner == NodeOwner::ManagedNodeGroup);
    // The group replaces by itself, or belongs to EKS.
    if group.capacity_rebalancing || group.managed || managed_node {
        return Condition::Holds;
    }
    if case.ready_for_writes().is_none() {
        return wait(case.facts.recheck(), Reason::Isolating);
    }
    let group_name = member.group.clone();
    let action = match (has_our_hook(group, policy), group.terminate_hooks.is_empty()) {
        // Our hook holds the instance while its replacement starts two minutes earlier.
        (true, _) => Action::TerminateThroughGroup { group: group_name },
        (false, true) => Action::Detach { group: group_name },
        // With nobody's hook but other people's, a terminate could end it at once, and a detach would
        // silence their hooks.
        (false, false) => return Condition::Holds,
    };
    once_read(case.facts, todo(vec![action], Reason::Detaching))
}

fn has_our_hook(group: &Group, policy: &Policy) -> bool {
    let is_ours = |hook: &HookSpec| hook_is_ours(&hook.name, hook.cluster_hint.as_ref(), policy);
    group.terminate_hooks.iter().any(is_ours)
}
