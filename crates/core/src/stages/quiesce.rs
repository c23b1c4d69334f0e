//! Every target is `unused`: the last request has been answered.

use crate::*;

/// Waits for the deregistration delay of each target.
pub(crate) fn quiesce(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { job, seen, .. } = case.facts;
    if !case.demands.quiesce || case.machine_ended {
        return Condition::Holds;
    }
    if seen.target_groups == Seen::Unknown || case.facts.unread_target_groups() > 0 {
        return read_by(case.facts.reread(), Reason::TargetsUnknown);
    }
    let busy: Vec<Option<Timestamp>> = case
        .targets()
        .filter(|(_, target, _)| !matches!(target.health, TargetHealth::Unused { .. }))
        .map(|(key, _, group)| {
            job.memory.draining_since.get(&key).map(|since| *since + group.deregistration_delay)
        })
        .collect();
    let Some(first) = busy.iter().min() else { return Condition::Holds };
    // Reading before the deregistration delay is over would only cost calls.
    let over = first.filter(|over| *over > case.facts.as_of());
    read_by(over.unwrap_or(case.facts.reread()), Reason::Quiescing { targets: busy.len() })
}
