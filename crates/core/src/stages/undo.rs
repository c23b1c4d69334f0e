//! What our record names is undone.

use std::collections::BTreeSet;

use crate::*;

/// ELB does not know an instance that was launched a moment ago, and it never knows again one that has ended.
const TRIES: u32 = 3;

/// The targets that the record names are registered again.
pub(crate) fn register(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { job, seen, policy, now } = case.facts;
    // Where that goes on failing, a node in service shall not stay closed for ever.
    if now >= job.memory.returning_since.unwrap_or(now) + policy.patience * 2 {
        return Condition::Holds;
    }
    let Some(targets) = taken_out(case) else { return Condition::Holds };
    let reason = Reason::Returning(case.undo_reason());
    // A balancer that has no healthy target left sends to those that are not healthy. The cordon alone is taken off
    // whatever the node says.
    if !seen.node.known().is_some_and(Node::serves) {
        return wait(case.facts.recheck(), reason);
    }
    let Some(groups) = seen.target_groups.known().filter(|_| case.facts.unread_target_groups() == 0) else {
        return read_by(case.facts.reread(), reason);
    };
    let staying = case.staying();
    // A group that was deleted meanwhile takes no targets.
    let exists = |key: &&TargetKey| groups.iter().any(|group| group.arn == key.group);
    // Whoever may write the node may have named another instance.
    let own = |key: &&TargetKey| key.instance == job.instance;
    let takes = |key: &&TargetKey| job.memory.unregistrable.get(*key).is_none_or(|times| *times < TRIES);
    let missing = targets.difference(&staying).filter(exists).filter(own).filter(takes);
    let actions: Vec<Action> = missing.cloned().map(Action::Register).collect();
    if actions.is_empty() { Condition::Holds } else { todo(actions, reason) }
}

/// The targets that we have taken out: those in the record, unless others claim the node too, and those that could not be
/// recorded because the node could not be written.
fn taken_out(case: &Case<'_>) -> Option<BTreeSet<TargetKey>> {
    let Facts { job, seen, .. } = case.facts;
    let record = case.own_record(seen.node.known()?);
    if record.as_ref().is_some_and(|record| !case.others(record).entries.is_empty()) {
        return None;
    }
    let recorded = record.map_or_else(BTreeSet::new, |record| record.targets);
    let targets: BTreeSet<TargetKey> = recorded.union(&job.memory.deregistered).cloned().collect();
    (!targets.is_empty()).then_some(targets)
}

/// Label, cordon and record are taken away: last, because the record is all that says what has to be undone. While
/// others are in it, our claims alone are taken out.
pub(crate) fn release(case: &Case<'_>, open: &[Stage]) -> Condition {
    let node = match &case.facts.seen.node {
        _ if open.contains(&Stage::Register) => return Condition::Holds,
        Seen::Gone => return Condition::Holds,
        Seen::Unknown => return wait(case.facts.recheck(), case.facts.node_unknown()),
        Seen::Known(node) => node,
    };
    let Some(record) = case.own_record(node) else { return Condition::Holds };
    let (others, guard) = (case.others(&record), node.resource_version.clone());
    let action = if others.entries.is_empty() {
        Action::Release { record, guard }
    } else {
        Action::WriteRecord { record: others, guard }
    };
    todo(vec![action], Reason::Returning(case.undo_reason()))
}
