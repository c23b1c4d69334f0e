//! What a job keeps of what came of its actions, and of what a later observation may not show any more. Core's
//! decision reads it, and says what is done again.

use std::time::Duration;

use offramp_core::{
    Action, HookCalls, InstanceId, Memory, NodeWrite, Observation, Outcome, PodAnswer, PodUid, Repeat, Seen,
    TargetHealth, Timestamp,
};

use crate::retry;

#[cfg(test)]
mod tests;

/// DescribeTargetHealth may lag behind DeregisterTargets by a few seconds; a target still shown healthy
/// after this was registered again.
const REGISTERED_AGAIN: Duration = Duration::from_secs(15);

/// Takes in what an action led to that followed from `seen`.
pub fn learn_of_outcome(
    memory: &mut Memory,
    action: &Action,
    outcome: &Outcome,
    seen: &Observation,
    now: Timestamp,
) {
    let worked = has_worked(outcome);
    match action {
        Action::Isolate { guard, .. } | Action::Exclude { guard, .. } | Action::Release { guard, .. } => {
            if matches!(outcome, Outcome::Done | Outcome::Changed | Outcome::Retry) {
                memory.node_write = Some(NodeWrite { over: guard.clone(), at: now });
            }
            if let Action::Isolate { .. } = action {
                memory.isolation_failed = !worked && *outcome != Outcome::Changed;
                memory.isolation_tried.get_or_insert(now);
            }
        }
        Action::Evict { pod, .. } => learn_of_pod(memory, &pod.uid, false, outcome, seen, now),
        Action::Delete { pod, .. } => learn_of_pod(memory, &pod.uid, true, outcome, seen, now),
        Action::Deregister(target) if worked => {
            memory.draining_since.entry(target.clone()).or_insert(now);
            memory.deregistered.insert(target.clone());
        }
        Action::Heartbeat(hook) | Action::CompleteHook(hook) => {
            let completes = matches!(action, Action::CompleteHook(_));
            let calls = memory.hooks.entry(hook.clone()).or_default();
            if learn_of_hook(calls, completes, outcome, now) {
                memory.cooldowns.remove(&action.key());
            }
        }
        Action::Detach { .. } | Action::TerminateThroughGroup { .. } => memory.detached |= worked,
        Action::Deregister(_) | Action::Register(_) => {}
    }
    rest(memory, action, outcome, now);
}

/// What was done rests, if it may be done again; what needs no second time is forgotten.
fn rest(memory: &mut Memory, action: &Action, outcome: &Outcome, now: Timestamp) {
    let repeat = action.repeat(outcome);
    let key = match &repeat {
        Repeat::Never => {
            memory.cooldowns.remove(&action.key());
            return;
        }
        Repeat::Again(_, key) | Repeat::Budget(_, key) => key,
    };
    let cooldown = memory.cooldowns.entry(key.clone()).or_default();
    cooldown.times += 1;
    cooldown.until = now + retry::pause(&repeat, cooldown.times);
}

const fn has_worked(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Done | Outcome::Gone)
}

fn learn_of_pod(
    memory: &mut Memory,
    pod: &PodUid,
    deleted: bool,
    outcome: &Outcome,
    seen: &Observation,
    now: Timestamp,
) {
    let worked = has_worked(outcome);
    let vetoed = matches!(outcome, Outcome::Vetoed { .. });
    let answer = memory.pods.entry(pod.clone()).or_default();
    *answer = PodAnswer { refused: !worked, vetoed, deleted, cut: answer.cut || (worked && deleted) };
    if !worked {
        return;
    }
    let seen_pod = seen.pods.known().into_iter().flatten().find(|seen| seen.pod.uid == *pod);
    if let Some(pod) = seen_pod {
        memory.evicted(pod, now);
    }
}

/// Says whether it is a step forward: what came before was in vain, and counts no more.
fn learn_of_hook(calls: &mut HookCalls, completes: bool, outcome: &Outcome, now: Timestamp) -> bool {
    calls.newest = now;
    calls.lost |= completes && *outcome == Outcome::Retry;
    let (taken, refused) = (*outcome == Outcome::Done, *outcome == Outcome::Gone);
    if taken && !completes {
        let continued = calls.continued;
        *calls = HookCalls { newest: now, heard: Some(now), continued, ..HookCalls::default() };
        return true;
    }
    calls.refused = if refused { Some(now) } else { calls.refused };
    let first = taken && calls.continued.is_none();
    if first {
        calls.continued = Some(now);
    }
    first
}

/// Takes in what an observation shows and a later one may not: a target that drains without our call,
/// the state of the instance in its group.
pub fn learn_of_observation(memory: &mut Memory, instance: &InstanceId, seen: &Observation, now: Timestamp) {
    if let Seen::Known(member) = &seen.membership {
        memory.last_state = Some(member.state.clone());
    }
    memory.in_scope |= seen.group.known().is_some_and(|group| group.in_scope);
    memory.take_server_times(seen.pods.known().map_or(&[], Vec::as_slice));
    let Seen::Known(groups) = &seen.target_groups else { return };
    for (key, target) in groups.iter().flat_map(|group| group.targets_of(instance)) {
        match target.health {
            TargetHealth::Draining => {
                memory.draining_since.entry(key).or_insert(now);
            }
            // Registered again behind our back: its time starts anew at the next call.
            TargetHealth::Healthy
            | TargetHealth::Initial
            | TargetHealth::Unhealthy
            | TargetHealth::Unavailable => {
                let called = memory.draining_since.get(&key);
                if called.is_some_and(|since| now.since(*since) > REGISTERED_AGAIN) {
                    memory.draining_since.remove(&key);
                }
            }
            TargetHealth::Unused { .. } => {}
        }
    }
}
