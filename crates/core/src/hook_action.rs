//! Whether the action of one of our hooks is still open. No single answer of AWS tells: a refusal can pass
//! (PrairieLearn#15586: "No active Lifecycle Action" while the group said `Terminating:Wait`, and taken some
//! seconds later), and a 200 can be lost.

use std::time::Duration;

use crate::*;

/// A refusal that comes this long after a 200 is a second witness: by then a group has shown its new state.
const REPEAT: Duration = Duration::from_secs(10);
/// HeartbeatTimeout is from 30 to 7,200 s (API PutLifecycleHook).
pub(crate) const SHORTEST_HEARTBEAT: Duration = Duration::from_secs(30);
/// Heartbeats that fail near the end of a hook are this far apart.
const SOON: Duration = Duration::from_secs(2);
/// So much, where it is not known.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(7_200);
/// What clocks may differ by, and AWS's own delay in noticing that a timeout is over.
const SLACK: Duration = Duration::from_secs(30);

/// So many refusals in a row, over 45 s, and a hook that was seen is not open. One that is open is refused for some seconds
/// at most (PrairieLearn#15586).
const REFUSALS: u32 = 5;

/// So many refusals, over nine seconds, and as many readings: then a hook that is not listed is deleted, a minute after
/// the first of them. Three empty ones came within 19 s (seed 7271).
const READINGS: u32 = 3;

/// What the notice of a hook comes to that we have called about: nothing as long as its action is open. Follows
/// from our calls and from a reading of the group that began after the newest of them.
pub(crate) fn after_our_calls(notice: &Notice, hook: &Hook, facts: Facts<'_>) -> Option<Entitlement> {
    let Facts { job, seen, now, .. } = facts;
    let calls = job.memory.hook(&hook.key);
    let (continued, refused) = (calls.continued.is_some(), calls.refused.is_some());
    // A refusal for an instance in service is what the group says, too: it decides.
    if !continued && (!refused || seen.is_in_service()) {
        return None;
    }
    let redelivered = job.is_redelivered(notice);
    let ended = if is_past(hook.passage, continued, seen) || is_refused_beside_others(hook, &calls, seen) {
        // Refused each time: it was not our answer.
        if may_be_ours(notice, hook, job) { Ended::Answered } else { Ended::WithoutOurAnswer }
    } else if refused && is_superseded(&hook.key, job) {
        Ended::WasNotOpen
    } else if refused && seen.membership != Seen::Unknown && is_deleted(hook, facts) {
        if continued { Ended::Answered } else { Ended::WithoutOurAnswer }
    } else if now >= action_closes_at(notice, hook, facts) {
        if redelivered { Ended::WasNotOpen } else { Ended::WithoutOurAnswer }
    } else {
        return continued.then_some(Entitlement::Confirms);
    };
    Some(Entitlement::Ended(if ended == Ended::Answered && continued { as_answered(facts) } else { ended }))
}

/// The action is over, and this job has given it no answer: the calls were denied, or nobody was there to make them. Where
/// the job has never seen it open, and it need not have timed out, the message is a late copy of one that was served.
pub(crate) fn without_us(ended: Ended, notice: &Notice, hook: &Hook, facts: Facts<'_>) -> Entitlement {
    let Facts { job, .. } = facts;
    let timeout = spec_of(hook, facts).map_or(LONGEST_HEARTBEAT, |spec| spec.heartbeat_timeout);
    let was_open = job.memory.sightings.held || job.memory.hook(&hook.key).heard.is_some();
    Entitlement::Ended(match may_be_ours(notice, hook, job) {
        true => ended,
        false if was_open || job.delivery_of(notice).at >= notice.at + timeout => Ended::WithoutOurAnswer,
        false => Ended::WasNotOpen,
    })
}

/// Another worker may have given the answer, before it went away, or we did for a newer action of this hook.
fn may_be_ours(notice: &Notice, hook: &Hook, job: &Job) -> bool {
    let answered = calls_of_hook(&hook.key, job).any(|calls| calls.continued.is_some() || calls.lost);
    answered || job.is_redelivered(notice)
}

/// What our answer was worth: nobody knows what ran on a living instance that we know no node of.
fn as_answered(facts: Facts<'_>) -> Ended {
    let Facts { job, seen, .. } = facts;
    let sightings = &job.memory.sightings;
    let unseen = seen.node.known().is_none() && sightings.node.is_none();
    // It is sure that there is no node, and neither group nor balancers thought anything of the machine.
    let dead = sightings.unhealthy && sightings.no_node_since.is_some() && sightings.served.is_empty();
    match (unseen, dead) {
        _ if sightings.twins.is_some() => Ended::AnsweredUnseen,
        _ if facts.is_unisolated() => Ended::Unisolated,
        (false, _) => Ended::Answered,
        _ if sightings.pooled && sightings.no_node_since.is_some() => Ended::Answered,
        (true, true) => Ended::InstanceEnded,
        (true, false) => Ended::AnsweredUnseen,
    }
}

/// The group says that a hook holds the instance, and not which: ours may be answered or over, behind somebody else's.
/// AWS takes a heartbeat for what is open. Where it gives no answer, the group has to do.
pub(crate) fn once_it_is_open(hook: &Hook, Facts { job, .. }: Facts<'_>) -> Entitlement {
    let HookCalls { heard, refusals, .. } = job.memory.hook(&hook.key);
    let in_vain = job.memory.cooldown(&Key::Hook(hook.key.clone())).times;
    match (heard, refusals) {
        (Some(_), _) => Entitlement::Acts,
        (None, REFUSALS..) => Entitlement::Ended(Ended::WasNotOpen),
        (None, 0) if in_vain >= REFUSALS => Entitlement::Acts,
        (None, _) => Entitlement::Asks,
    }
}

/// The group shows the instance past the Wait state. That it lists the instance no more says so only after
/// a 200: an instance that was detached is not listed either.
pub(crate) fn is_past(passage: Passage, continued: bool, seen: &Observation) -> bool {
    let state = match &seen.membership {
        Seen::Known(member) => &member.state,
        Seen::Gone => return continued,
        Seen::Unknown => return false,
    };
    match (passage, state) {
        (_, LifecycleState::TerminatingProceed | LifecycleState::Terminated)
        | (Passage::ToWarmPool, LifecycleState::Warmed) => true,
        (Passage::RootVolume, state) => continued && *state != LifecycleState::ReplacingRootVolumeWait,
        (_, _) => false,
    }
}

/// Where another hook may hold the instance the state does not move. There a 200 and the refusal of its
/// repeat are two witnesses.
fn is_refused_beside_others(hook: &Hook, calls: &HookCalls, seen: &Observation) -> bool {
    let group = seen.group.known().filter(|group| group.name == hook.key.group);
    let alone =
        group.is_some_and(|group| matches!(&group.terminate_hooks[..], [only] if only.name == hook.key.name));
    let repeated = calls.continued.zip(calls.refused).is_some_and(|(taken, no)| no >= taken + REPEAT);
    repeated && !alone
}

/// A hook has one open action for an instance, and that is another one: its calls are taken, since ours were
/// for the last time. A group that could not terminate an instance tries again with a new action.
fn is_superseded(key: &HookKey, job: &Job) -> bool {
    let taken_at = |calls: &HookCalls| calls.heard.max(calls.continued);
    let own = taken_at(&job.memory.hook(key));
    calls_of_hook(key, job).any(|calls| taken_at(calls) > own)
}

/// What came of our calls about any action of this hook.
fn calls_of_hook<'a>(key: &HookKey, job: &'a Job) -> impl Iterator<Item = &'a HookCalls> {
    let same_hook = |other: &HookKey| (&other.group, &other.name) == (&key.group, &key.name);
    job.memory.hooks.iter().filter(move |(other, _)| same_hook(other)).map(|(_, calls)| calls)
}

/// The hook or its group does not exist any more. One reading of the hooks may be empty (seed 1051).
fn is_deleted(hook: &Hook, Facts { job, seen, now, .. }: Facts<'_>) -> bool {
    let missing_since = job.memory.sightings.missing_hooks.get(&hook.key);
    job.memory.hook(&hook.key).refusals >= READINGS
        && seen.group != Seen::Unknown
        && missing_since.is_some_and(|since| now >= *since + FRESH)
}

/// Calls that fail rest longer each time, but for no more than a half of what is left: of a hook of 30 s the pauses
/// of 6 and 12 s would miss the moment in which AWS answers again. What is refused, and not held any more, has no end to meet.
pub(crate) fn rests_until(hook: &Hook, open_since: Timestamp, facts: Facts<'_>) -> Timestamp {
    let Cooldown { since, until, .. } = facts.job.memory.cooldown(&Key::Hook(hook.key.clone()));
    let timeout = spec_of(hook, facts).map_or(SHORTEST_HEARTBEAT, |spec| spec.heartbeat_timeout);
    let left = since.until(open_since + timeout);
    let is_held = triggers::hook::is_in_wait_state(facts);
    let hurries = !left.is_zero() && (is_held || facts.job.memory.hook(&hook.key).refused.is_none());
    if hurries { until.min(since + (left / 2).max(SOON)) } else { until }
}

/// Later than this the action cannot be open, whatever was lost: an upper bound, and no deadline.
pub(crate) fn action_closes_at(notice: &Notice, hook: &Hook, facts: Facts<'_>) -> Timestamp {
    let job = facts.job;
    let HookCalls { heard, unheard, .. } = job.memory.hook(&hook.key);
    let from = heard.max(unheard).unwrap_or_else(|| notice.at.max(job.delivery_of(notice).at));
    let limits = |spec: &HookSpec| (spec.heartbeat_timeout, spec.global_timeout);
    let (timeout, global) = spec_of(hook, facts).map_or((LONGEST_HEARTBEAT, HOOK_AT_MOST), limits);
    (from + timeout).min(notice.at + global) + SLACK
}

/// The hook as the group has it, or had it when it was read with it for the last time.
pub(crate) fn spec_of<'a>(hook: &Hook, Facts { job, seen, .. }: Facts<'a>) -> Option<&'a HookSpec> {
    let now = seen.group.known().and_then(|group| spec_in(group, hook));
    now.or_else(|| spec_in(job.memory.group.as_ref()?, hook))
}

fn spec_in<'a>(group: &'a Group, hook: &Hook) -> Option<&'a HookSpec> {
    let is_it = |spec: &&HookSpec| group.name == hook.key.group && spec.name == hook.key.name;
    group.terminate_hooks.iter().find(is_it)
}
