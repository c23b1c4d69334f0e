//! The exclude label is on the node, and no load balancer sends new requests.

use std::collections::BTreeSet;

use crate::*;

/// Label before deregistration, the gate before both.
pub(crate) fn deregister(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { seen, now, .. } = case.facts;
    let has_time = case.demands.deregister != Deregistration::AtOnce;
    // The gate may have let it pass on what is old by now.
    let in_time = |open| if has_time { once_read(case.facts, open) } else { open };
    if case.demands.deregister == Deregistration::No {
        return Condition::Holds;
    }
    let Some(labelled) = case.ready_for_writes() else {
        return wait(case.facts.recheck(), Reason::Isolating);
    };
    if let Some(closed) = gated(case) {
        return closed;
    }
    if seen.target_groups == Seen::Unknown || has_time && seen.group == Seen::Unknown {
        return read_by(case.facts.reread(), Reason::TargetsUnknown);
    }
    let registered = case.registered();
    if let (true, Seen::Known(node)) = (labelled, &seen.node)
        && let Some(open) = exclude(case, node, &registered)
    {
        return in_time(open);
    }
    let calls: Vec<Action> = case.staying().into_iter().map(Action::Deregister).collect();
    if !calls.is_empty() {
        let reason = Reason::Deregistering { targets: calls.len(), unlabelled: !labelled };
        return in_time(todo(calls, reason));
    }
    if case.facts.unread_target_groups() > 0 {
        return read_by(case.facts.reread(), Reason::TargetsUnknown);
    }
    // Where nothing is read later, somebody may have put a target back meanwhile.
    let is_last = !case.demands.quiesce;
    let reason = |until| Reason::Propagating { left: now.until(until) };
    match case.traffic_until() {
        Some(until) if is_last && until > case.facts.targets_as_of() => read_by(until, reason(until)),
        Some(until) if until > now => wait(until, reason(until)),
        Some(_) | None => Condition::Holds,
    }
}

/// The label is put on the node, and the targets are named in its record.
fn exclude(case: &Case<'_>, node: &Node, registered: &BTreeSet<TargetKey>) -> Option<Condition> {
    // What was deregistered while the node could not be written is named as soon as it can be.
    let targets: BTreeSet<TargetKey> =
        case.facts.job.memory.deregistered.union(registered).cloned().collect();
    let names = |record: &Record| record.foreign.is_some() || targets.is_subset(&record.targets);
    if node.excluded && node.record.as_ref().is_some_and(names) {
        return None;
    }
    let mut record = case.record(node);
    record.excluded |= !node.excluded;
    record.targets.extend(targets);
    // The record may name some that have left already.
    let reason = Reason::Deregistering { targets: registered.len(), unlabelled: false };
    Some(todo(vec![Action::Exclude { record, guard: node.resource_version.clone() }], reason))
}

/// The gate holds back for a while. It holds nothing that has no time to give.
fn gated(case: &Case<'_>) -> Option<Condition> {
    let Facts { job, seen, policy, now } = case.facts;
    if case.demands.deregister == Deregistration::AtOnce || case.machine_ended {
        return None;
    }
    let (record, labelled) = match &seen.node {
        Seen::Known(node) => (node.record.as_ref(), node.excluded || case.unwritable),
        Seen::Gone => (None, true),
        Seen::Unknown => return None,
    };
    // The label takes the node out of every balancer: it waits for the target groups that could not be read, too.
    let unknown = if labelled { case.facts.lost_target_groups() } else { case.facts.unread_target_groups() };
    // Without a record, the other jobs of this worker know it by this.
    let leaving_since = record.map_or(job.since(), |record| record.since);
    let shown_at = job.memory.closed_at().unwrap_or(now) + gate::SHOWN;
    let gated = case.acting().filter(|claim| claim.demands.deregister == Deregistration::Gated);
    let first = gated.map(|claim| claim.notice.at).min()?;
    // A backlog is older than the limit, and makes many leave at once (aws-node-termination-handler#272): it has its time from
    // when it was taken up, as far as the propagation at the end leaves any.
    let taken_up = first.max(leaving_since) + policy.gate_limit;
    let latest = case.deadline.map_or(taken_up, |deadline| deadline.answer - policy.propagation.network);
    let until = taken_up.min(latest);
    if now < until && unknown > 0 {
        return Some(read_by(case.facts.reread().min(until), Reason::TargetsUnknown));
    }
    let group = gate::closed_by((leaving_since, &job.instance), now >= shown_at, seen)?;
    (now < until).then(|| {
        let reason = Reason::GateClosed { group: group.clone(), left: now.until(until) };
        read_by(case.facts.reread().min(until), reason)
    })
}
