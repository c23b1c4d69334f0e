//! What a job keeps of what came of its actions, and of what a later observation may not show any more. Core's
//! decision reads it, and says what is done again.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{
    AcceptedEnd, Action, ActionResult, Cooldown, Ending, Evictions, Failure, Goal, Group, HookCalls,
    InstanceId, Key, Memory, NodeDoubt, NodeWrite, Observation, Outcome, Pause, Pod, PodAnswer, PodUid,
    Record, Repeat, Seen, Sightings, Step, TargetHealth, Timestamp, Unwritten,
};

use crate::evictions::refused_by;
use crate::ports::DeletedNode;
use crate::retry;

#[cfg(test)]
pub(crate) mod tests;

/// DescribeTargetHealth may lag behind DeregisterTargets by a few seconds; a target still shown healthy
/// after this was registered again.
const REGISTERED_AGAIN: Duration = Duration::from_secs(15);

/// Takes in what an action led to that followed from `seen`.
pub fn learn_of_outcome(
    memory: &mut Memory,
    action: &Action,
    outcome: &ActionResult,
    seen: &Observation,
    now: Timestamp,
) {
    let worked = has_worked(outcome);
    let may_be_outdated =
        matches!(outcome, Ok(Outcome::Done | Outcome::Changed | Outcome::Gone) | Err(Failure::Retry));
    if let Some(guard) = action.guard().filter(|_| may_be_outdated) {
        let lasts = matches!(action, Action::Isolate { .. } | Action::Exclude { .. });
        let has_to_last = lasts && *outcome == Ok(Outcome::Done);
        memory.node_write = Some(NodeWrite { over: guard.to_owned(), at: now, has_to_last });
    }
    if action.guard().is_some() {
        learn_of_node_write(memory, outcome, now);
    }
    match action {
        Action::Isolate { .. } => {
            memory.isolation_failed = !worked && *outcome != Ok(Outcome::Changed);
            memory.isolation_tried.get_or_insert(now);
        }
        Action::WriteRecord { .. } => memory.record_writes += 1,
        Action::ListPods { .. } if worked => memory.pods_listed = Some(now),
        Action::Evict { pod, .. } | Action::Delete { pod, .. } => {
            learn_of_pod(memory, &pod.uid, action, outcome, seen, now);
        }
        Action::Deregister(target) if worked => {
            memory.draining_since.entry(target.clone()).or_insert(now);
            if memory.deregistered.insert(target.clone()) {
                // The failures before it count no more.
                memory.cooldowns.remove(&action.key());
            }
        }
        Action::Heartbeat(hook) | Action::CompleteHook(hook) => {
            let completes = matches!(action, Action::CompleteHook(_));
            let calls = memory.hooks.entry(hook.clone()).or_default();
            if learn_of_hook(calls, completes, outcome, now) {
                memory.cooldowns.remove(&action.key());
            }
        }
        Action::Detach { .. } | Action::TerminateThroughGroup { .. } => memory.detached |= worked,
        Action::Register(target) if *outcome == Ok(Outcome::Done) => {
            memory.draining_since.remove(target);
        }
        Action::Register(target) if *outcome == Ok(Outcome::Gone) => {
            *memory.unregistrable.entry(target.clone()).or_default() += 1;
        }
        // We have opened it ourselves.
        Action::Release { .. } if worked => forget_isolation(memory),
        Action::Exclude { .. }
        | Action::Release { .. }
        | Action::ListPods { .. }
        | Action::Deregister(_)
        | Action::Register(_) => {}
    }
    rest(memory, action, outcome, now);
}

/// Takes in that the node was there before the job was.
pub(crate) fn learn_of_deleted_node(memory: &mut Memory, DeletedNode { name, longest_grace }: DeletedNode) {
    let sightings = &mut memory.sightings;
    sightings.node.get_or_insert(name);
    sightings.longest_grace = longest_grace;
}

/// Takes in what the job is for now. What could not be read does not begin an undo anew.
pub(crate) fn learn_of_step(memory: &mut Memory, step: &Step, seen: &Observation, now: Timestamp) {
    let reads = step.read_by.is_some_and(|at| at <= now);
    memory.reading_since = reads.then(|| memory.reading_since.unwrap_or(now));
    let is_read = seen.node != Seen::Unknown && seen.membership != Seen::Unknown;
    match step.goal {
        Goal::Return => drop(memory.returning_since.get_or_insert(now)),
        Goal::Leave if is_read => memory.returning_since = None,
        Goal::Leave => {}
    }
}

/// What is taken, or would have been, proves that the node can be written.
fn learn_of_node_write(memory: &mut Memory, outcome: &ActionResult, now: Timestamp) {
    if *outcome == Ok(Outcome::Changed) {
        rest_by(memory, &Repeat::Again(Pause::NodeConflict, Key::Conflict), now);
    } else {
        memory.cooldowns.remove(&Key::Conflict);
    }
    let is_refused = match outcome {
        Ok(Outcome::Done | Outcome::Changed | Outcome::Gone) => {
            memory.unwritten = None;
            memory.cooldowns.remove(&Key::Unwritten);
            return;
        }
        Ok(Outcome::Blocked { .. } | Outcome::Vetoed { .. }) | Err(Failure::Denied | Failure::Invalid) => {
            true
        }
        Err(Failure::Retry) => false,
    };
    let unwritten = memory.unwritten.get_or_insert(Unwritten { since: now, newest: now, refused: None });
    unwritten.newest = now;
    if is_refused {
        let (first, _) = unwritten.refused.unwrap_or((now, now));
        unwritten.refused = Some((first, now));
    }
}

/// What was done rests, if it may be done again; what needs no second time is forgotten.
fn rest(memory: &mut Memory, action: &Action, outcome: &ActionResult, now: Timestamp) {
    match action.repeat(outcome) {
        Repeat::Never | Repeat::InTurn => drop(memory.cooldowns.remove(&action.key())),
        again @ Repeat::Again(..) => rest_by(memory, &again, now),
    }
}

fn rest_by(memory: &mut Memory, repeat: &Repeat, now: Timestamp) {
    let Repeat::Again(_, key) = repeat else { return };
    let cooldown = memory.cooldowns.entry(key.clone()).or_default();
    // What is refused while it rests, such as six pods by one budget in the same moment, is one refusal.
    if now >= cooldown.until {
        cooldown.times += 1;
    }
    cooldown.since = now;
    cooldown.until = now + retry::pause(repeat, cooldown.times);
}

const fn has_worked(outcome: &ActionResult) -> bool {
    matches!(outcome, Ok(Outcome::Done | Outcome::Gone))
}

fn learn_of_pod(
    memory: &mut Memory,
    pod: &PodUid,
    action: &Action,
    outcome: &ActionResult,
    seen: &Observation,
    now: Timestamp,
) {
    let worked = has_worked(outcome);
    let vetoed = matches!(outcome, Ok(Outcome::Vetoed { .. }));
    let deleted = matches!(action, Action::Delete { .. });
    let refused_by = match action {
        Action::Evict { pod, origin, .. } if !worked => Some(refused_by(pod, origin, outcome)),
        _ => (!worked).then(|| action.key()),
    };
    let answer = memory.pods.entry(pod.clone()).or_default();
    let cut = answer.cut || (worked && deleted);
    *answer = PodAnswer { refused_by, asked_at: now, vetoed, deleted, cut };
    // Most answers in a storm are refusals, of which nothing is to be known about the pod.
    let seen_pod = || seen.pods.known().into_iter().flatten().find(|seen| seen.pod.uid == *pod);
    memory.unanswered.remove(pod);
    if *outcome == Err(Failure::Retry) {
        // What ends already proves nothing.
        let runs = seen_pod().filter(|pod| pod.deleted_at.is_none());
        memory.unanswered.extend(runs.map(|seen| (pod.clone(), (seen.clone(), now))));
    }
    if !worked {
        return;
    }
    if let Some(pod) = seen_pod() {
        learn_of_end(memory, pod, now, true);
    }
}

/// What was not answered, and ends or is gone now, was accepted perhaps (seed 30239: 240 evictions of pods that came back
/// each time). A rollout may have ended it instead: one such end proves nothing about a pod that comes in its place.
fn learn_of_unanswered(memory: &mut Memory, pods: &[Pod]) {
    let goes_on = |uid: &PodUid| pods.iter().any(|pod| pod.pod.uid == *uid && pod.deleted_at.is_none());
    let (unanswered, ended) =
        std::mem::take(&mut memory.unanswered).into_iter().partition(|(uid, _)| goes_on(uid));
    memory.unanswered = unanswered;
    for (pod, asked_at) in BTreeMap::into_values(ended) {
        learn_of_end(memory, &pod, asked_at, false);
    }
}

fn learn_of_end(memory: &mut Memory, pod: &Pod, now: Timestamp, answered: bool) {
    let end = AcceptedEnd { pod: pod.pod.uid.clone(), at: now, is_servers: false };
    match memory.evicted.get_mut(&pod.origin) {
        None => {
            let ends = Evictions { first: end, again: None, accepted: u32::from(answered) };
            memory.evicted.insert(pod.origin.clone(), ends);
        }
        Some(ends) => {
            if ends.again.is_none() && ends.first.is_before(pod) {
                ends.again = Some(end.clone());
            }
            if answered && ends.accepted == 0 {
                ends.first = end;
            }
            ends.accepted += u32::from(answered);
        }
    }
}

/// Takes the API server's own times of these ends, so that a clock of ours that is ahead does not make
/// pods that come back look like older ones. The first counts: when a pod has ended, its deletion is written anew with no
/// grace, so that it looks asked for at that moment.
fn take_server_times(memory: &mut Memory, pods: &[Pod]) {
    for ends in memory.evicted.values_mut() {
        for end in [Some(&mut ends.first), ends.again.as_mut()].into_iter().flatten() {
            let ending = pods.iter().find(|pod| !end.is_servers && pod.pod.uid == end.pod);
            if let Some(at) = ending.and_then(|pod| pod.deleted_at) {
                (end.at, end.is_servers) = (at, true);
            }
        }
    }
}

/// Says whether it is a step forward: what came before was in vain, and counts no more.
fn learn_of_hook(calls: &mut HookCalls, completes: bool, outcome: &ActionResult, now: Timestamp) -> bool {
    calls.newest = now;
    let unanswered = *outcome == Err(Failure::Retry);
    calls.lost |= completes && unanswered;
    if unanswered && !completes {
        calls.unheard = Some(now);
    }
    let (taken, refused) = (*outcome == Ok(Outcome::Done), *outcome == Ok(Outcome::Gone));
    if taken && !completes {
        let continued = calls.continued;
        *calls = HookCalls { newest: now, heard: Some(now), continued, ..HookCalls::default() };
        return true;
    }
    if refused {
        calls.refused = Some(now);
        calls.refusals += 1;
    }
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
        memory.sightings.held |= member.state.is_held();
    }
    let seen_name = seen.node.known().map(|node| &node.name);
    if seen_name.zip(memory.sightings.node.as_ref()).is_some_and(|(seen, known)| seen != known) {
        forget_node(memory);
    }
    let was_closed = memory.sightings.closed_at.is_some();
    learn_of_machine(&mut memory.sightings, instance, seen, now);
    learn_of_lasting(memory, seen, now);
    // It is on again: what came in between is no more than any other pod. Where that goes on, pods come back all the time.
    let is_closed = memory.sightings.closed_at.is_some();
    if !was_closed && is_closed && memory.cooldown(&Key::Reopened).times <= 1 {
        memory.evicted.clear();
        memory.unanswered.clear();
    }
    memory.selected |= seen.node.known().is_some_and(|node| node.selected);
    // A reading of the hooks may be empty once. What is known of their timeouts is not forgotten for that.
    let says_less = |group: &Group| group.terminate_hooks.is_empty() && memory.group.is_some();
    if let Seen::Known(group) = &seen.group
        && memory.group.as_ref() != Some(group)
        && !says_less(group)
    {
        memory.group = Some(group.clone());
    }
    learn_of_missing_hooks(memory, seen, now);
    memory.in_scope |= seen.group.known().is_some_and(|group| group.in_scope);
    if let Seen::Known(pods) = &seen.pods {
        learn_of_unanswered(memory, pods);
        take_server_times(memory, pods);
    }
    let Seen::Known(groups) = &seen.target_groups else { return };
    let read_at = seen.targets_read_at.map_or(now, |read_at| read_at.min(now));
    memory.missing_since.retain(|group, _| seen.missing_target_groups.contains(group));
    for group in &seen.missing_target_groups {
        memory.missing_since.entry(group.clone()).or_insert(now);
    }
    for (key, target) in groups.iter().flat_map(|group| group.targets_of(instance)) {
        match target.health {
            TargetHealth::Draining => {
                memory.draining_since.entry(key).or_insert(now);
            }
            // Registered again behind our back: its time starts anew at the next call.
            TargetHealth::Healthy
            | TargetHealth::Initial
            | TargetHealth::Unhealthy
            | TargetHealth::Unavailable
            | TargetHealth::Unused { registered: true } => {
                let called = memory.draining_since.get(&key);
                if called.is_some_and(|since| read_at.since(*since) > REGISTERED_AGAIN) {
                    memory.draining_since.remove(&key);
                }
            }
            TargetHealth::Unused { registered: false } => {}
        }
    }
}

/// The instance has another node by now, in another cluster perhaps: what the first one refused says nothing about this one
/// (seed 81293).
fn forget_node(memory: &mut Memory) {
    let of_node = [Key::Node, Key::Unwritten, Key::Conflict, Key::Reopened, Key::PodList];
    memory.cooldowns.retain(|key, _| !of_node.contains(key));
    memory.evicted.clear();
    memory.unanswered.clear();
    memory.record_writes = 0;
    (memory.node_write, memory.unwritten, memory.pods_listed) = (None, None, None);
    memory.isolation_failed = false;
    memory.sightings.closed_at = None;
    forget_isolation(memory);
}

/// Nothing of ours is on the node.
fn forget_isolation(memory: &mut Memory) {
    memory.isolation_tried = None;
    let Sightings { open_since, recorded, lasts, .. } = &mut memory.sightings;
    (*open_since, *recorded, *lasts) = (None, None, false);
}

/// Takes in whether what was written to the node lasts.
fn learn_of_lasting(memory: &mut Memory, seen: &Observation, now: Timestamp) {
    let tried = memory.isolation_tried.is_some();
    let sightings = &mut memory.sightings;
    let mut lasted = sightings.lasts;
    match &seen.node {
        Seen::Known(node) => {
            let write = memory.node_write.as_mut();
            // A watch that has not come as far as our newest write says nothing about it.
            if write.as_ref().is_none_or(|write| write.over != node.resource_version) {
                lasted |= write.is_some_and(|write| std::mem::take(&mut write.has_to_last));
                memory.cooldowns.remove(&Key::Node);
                let is_labelled = |record: &Record| node.excluded || !record.excluded;
                sightings.lasts = node.cordoned && node.record.as_ref().is_some_and(is_labelled);
                if node.record.is_some() && sightings.recorded != node.record {
                    sightings.recorded.clone_from(&node.record);
                }
            }
            sightings.open_since = (tried && !sightings.lasts).then(|| sightings.open_since.unwrap_or(now));
        }
        Seen::Gone => {
            (sightings.open_since, sightings.recorded) = (None, None);
        }
        Seen::Unknown => {}
    }
    if lasted && !memory.sightings.lasts && tried {
        // The first time it is written again at once.
        let times = memory.cooldown(&Key::Reopened).times;
        let again = Repeat::Again(Pause::NodeRefused, Key::Reopened);
        let pause = if times == 0 { Duration::ZERO } else { retry::pause(&again, times) };
        let cooldown = Cooldown { times: times + 1, since: now, until: now + pause };
        memory.cooldowns.insert(Key::Reopened, cooldown);
    }
}

/// Takes in which of the hooks that we have called about are missing in their group.
fn learn_of_missing_hooks(memory: &mut Memory, seen: &Observation, now: Timestamp) {
    for key in memory.hooks.keys() {
        let is_missing = match &seen.group {
            Seen::Known(group) if group.name != key.group => continue,
            Seen::Known(group) => !group.terminate_hooks.iter().any(|hook| hook.name == key.name),
            Seen::Gone => true,
            Seen::Unknown => continue,
        };
        if is_missing {
            memory.sightings.missing_hooks.entry(key.clone()).or_insert(now);
        } else {
            memory.sightings.missing_hooks.remove(key);
        }
    }
}

/// When the newest eviction or deletion was taken that no watch has shown, though it had the time.
pub(crate) fn unshown_since(memory: &Memory, pods: &[Pod], now: Timestamp) -> Option<Timestamp> {
    let taken = pods.iter().filter(|pod| pod.deleted_at.is_none()).filter_map(|pod| {
        let answer = memory.pods.get(&pod.pod.uid).filter(|answer| answer.refused_by.is_none())?;
        (memory.cooldown(&Key::Pod(pod.pod.uid.clone())).until <= now).then_some(answer.asked_at)
    });
    taken.max()
}

/// Takes in what tells later whether the machine runs.
fn learn_of_machine(sightings: &mut Sightings, instance: &InstanceId, seen: &Observation, now: Timestamp) {
    sightings.twins = sightings.twins.or_else(|| seen.doubt.filter(NodeDoubt::is_twins));
    match &seen.node {
        Seen::Known(node) => {
            sightings.node = Some(node.name.clone());
            sightings.no_node_since = None;
            let closed = node.cordoned && node.record.is_some();
            sightings.closed_at = closed.then(|| sightings.closed_at.unwrap_or(now));
        }
        Seen::Gone => {
            sightings.no_node_since.get_or_insert(now);
            sightings.closed_at.get_or_insert(now);
        }
        Seen::Unknown => {}
    }
    if let (Seen::Known(_), Seen::Known(pods)) = (&seen.node, &seen.pods) {
        let leaving = pods.iter().filter(|pod| pod.must_leave());
        sightings.longest_grace = leaving.map(|pod| pod.grace).max().unwrap_or_default();
    }
    if let Seen::Known(pods) = &seen.pods {
        let ending = pods.iter().filter(|pod| pod.ends_at.is_some());
        let before = std::mem::take(&mut sightings.ending);
        for pod in ending {
            let same = before.get(&pod.pod.uid).filter(|known| known.ends_at == pod.ends_at).copied();
            let ending = same.unwrap_or(Ending { since: now, ends_at: pod.ends_at });
            sightings.ending.insert(pod.pod.uid.clone(), ending);
        }
    }
    let read_at = seen.as_of(now);
    match &seen.membership {
        Seen::Known(member) => {
            sightings.unhealthy = !member.healthy;
            sightings.pooled = member.pooled;
            sightings.healthy_at = if member.healthy { Some(read_at) } else { sightings.healthy_at };
            sightings.no_member_since = None;
        }
        Seen::Gone => {
            sightings.no_member_since.get_or_insert(now);
        }
        Seen::Unknown => {}
    }
    let groups = seen.target_groups.known().into_iter().flatten();
    for (key, target) in groups.flat_map(|group| group.targets_of(instance)) {
        match target.health {
            TargetHealth::Healthy => {
                sightings.served.insert(key);
            }
            TargetHealth::Initial | TargetHealth::Unhealthy | TargetHealth::Unavailable => {
                sightings.served.remove(&key);
            }
            // That says nothing of what it was before.
            TargetHealth::Draining | TargetHealth::Unused { .. } => {}
        }
    }
}
