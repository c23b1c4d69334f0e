//! No evictable pod is left on the node.

use crate::*;

/// Evicts in order of class, and ever harder towards the deadline.
pub(crate) fn drain(case: &Case<'_>, open: &[Stage]) -> Condition {
    let Facts { job, seen, now, .. } = case.facts;
    if !case.demands.drain || case.machine_ended {
        return Condition::Holds;
    }
    let node = match &seen.node {
        Seen::Gone => None,
        Seen::Unknown => return wait(case.facts.recheck(), Reason::PodsUnknown),
        Seen::Known(node) if !case.unwritable && !case.is_closed(node) => {
            return wait(case.facts.recheck(), Reason::Isolating);
        }
        Seen::Known(node) => Some(node),
    };
    let pods = match &seen.pods {
        Seen::Gone => &[][..],
        Seen::Unknown => return wait(case.facts.recheck(), Reason::PodsUnknown),
        Seen::Known(pods) => pods,
    };
    let quiet = case.is_quiet(!open.contains(&Stage::Deregister));
    let plan = eviction::plan(pods, quiet, case.deadline, case.facts);
    if plan.left.running + plan.left.ending == 0 {
        return once_empty(node, case);
    }
    let mut actions = plan.actions;
    if plan.heartbeat_first {
        // Those that have been heard need none: each that is taken would call for the next at once.
        let unheard = |hook: &Hook| {
            let rests_until = job.memory.cooldown(&Key::Hook(hook.key.clone())).until;
            job.memory.hook(&hook.key).heard.is_none() && rests_until <= now
        };
        let hooks = case.hooks().filter(|(_, hook)| unheard(hook));
        actions.extend(hooks.map(|(_, hook)| Action::Heartbeat(hook.key.clone())));
    }
    let left = Left { uncordoned: case.unwritable, ..plan.left };
    let read_by = (left.awaiting_quiet > 0 && !case.demands.quiesce).then(|| case.facts.reread());
    Condition::Open { actions, wake_at: plan.wake_at, read_by, reason: Reason::Draining(left) }
}

/// A pod that was bound in the moment of the cordon shows up a little later, and what was on a machine without a node
/// is not seen at all.
fn once_empty(node: Option<&Node>, case: &Case<'_>) -> Condition {
    let Facts { job, policy, now, .. } = case.facts;
    let settled = |node: &Node| match &node.record {
        Some(record) => record.since + policy.settle,
        // Without a cordon new pods may come at any time: there is nothing to settle.
        None if case.unwritable => now,
        None => now + policy.settle,
    };
    let until = node.map_or_else(|| machine::runs_without_node_until(case.facts), settled);
    let reason = match node {
        Some(_) => Reason::Settling,
        None => Reason::NoNode { left: now.until(until), deleted: job.memory.sightings.node.is_some() },
    };
    if until > now { wait(until, reason) } else { prove_empty(case) }
}

/// A watch may be late by more than any settling (seed 9007399: ten seconds), or miss a pod and not know it. So it has to
/// have shown what there was when the node was closed to new pods, and a list of the node's pods has to agree.
fn prove_empty(case: &Case<'_>) -> Condition {
    let Facts { job, seen, .. } = case.facts;
    let Some(node) = &job.memory.sightings.node else { return Condition::Holds };
    let Some(closed_at) = job.memory.closed_at() else { return Condition::Holds };
    if seen.proven < closed_at {
        return wait(case.facts.recheck(), Reason::ProvingEmpty);
    }
    if job.memory.pods_listed.is_some_and(|listed| listed >= closed_at) {
        return Condition::Holds;
    }
    todo(vec![Action::ListPods { node: node.clone() }], Reason::ProvingEmpty)
}
