//! Whether the action of one of our hooks is still open. No single answer of AWS tells: a refusal can pass
//! (PrairieLearn#15586: "No active Lifecycle Action" while the group said `Terminating:Wait`, and taken some
//! seconds later), and a 200 can be lost.

use std::time::Duration;

use crate::deadline::spec_of;
use crate::job::{HookCalls, Job};
use crate::notice::{HOOK_AT_MOST, Hook, HookKey, Notice, Passage};
use crate::observation::{LifecycleState, Observation, Seen};
use crate::over::Over;
use crate::time::Timestamp;

/// After a 200 the same answer is given again after this long. A group shows its new state within seconds.
pub(crate) const REPEAT: Duration = Duration::from_secs(10);
/// HeartbeatTimeout is at most 7,200 s (API PutLifecycleHook): that much, where it is not known.
const LONGEST_HEARTBEAT: Duration = Duration::from_secs(7_200);
/// What clocks may differ by, and AWS's own delay in noticing that a timeout is over.
const SLACK: Duration = Duration::from_secs(30);

/// How the action of one of our hooks stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HookState {
    /// It waits for an answer, as far as anybody knows.
    Open,
    /// AWS took our CONTINUE, and nothing has shown it yet.
    Continued,
    /// It is over.
    Over(Over),
}

/// Follows from our calls and from a reading of the group that began after the newest of them.
pub(crate) fn hook_state(
    notice: &Notice,
    hook: &Hook,
    job: &Job,
    seen: &Observation,
    now: Timestamp,
) -> HookState {
    let Some(calls) = job.memory.hook_calls.get(&hook.key) else { return HookState::Open };
    if is_past(hook.passage, calls, seen) || is_refused_beside_others(hook, calls, seen) {
        return HookState::Over(Over::Answered);
    }
    let (continued, refused) = (calls.continued.is_some(), calls.refused.is_some());
    if refused && is_superseded(&hook.key, job) {
        return HookState::Over(Over::WasNotOpen);
    }
    if refused && is_deleted(hook, seen) {
        return HookState::Over(Over::EndedWithoutUs);
    }
    if (continued || refused) && now >= closes_at(notice, hook, job, seen) {
        let redelivered = job.delivery_of(notice).redelivered;
        return HookState::Over(if redelivered { Over::WasNotOpen } else { Over::EndedWithoutUs });
    }
    if continued { HookState::Continued } else { HookState::Open }
}

/// The group shows the instance past the Wait state. That it lists the instance no more says so only after
/// a 200: an instance that was detached is not listed either.
fn is_past(passage: Passage, calls: &HookCalls, seen: &Observation) -> bool {
    let continued = calls.continued.is_some();
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
    let alone = group.is_some_and(|group| group.terminate_hooks.len() == 1);
    let repeated = calls.continued.zip(calls.refused).is_some_and(|(taken, no)| no >= taken + REPEAT);
    repeated && !alone
}

/// A hook has one open action for an instance, and that is another one: its calls are taken, since ours were
/// for the last time. A group that could not terminate an instance tries again with a new action.
fn is_superseded(key: &HookKey, job: &Job) -> bool {
    let mut same_hook =
        job.memory.hook_calls.keys().filter(|other| {
            (&other.group, &other.name) == (&key.group, &key.name) && other.token != key.token
        });
    same_hook.any(|other| job.memory.hook_taken_at(other) > job.memory.hook_taken_at(key))
}

/// The hook or its group does not exist any more.
fn is_deleted(hook: &Hook, seen: &Observation) -> bool {
    match &seen.group {
        Seen::Known(group) => group.name == hook.key.group && spec_of(hook, seen).is_none(),
        Seen::Gone => true,
        Seen::Unknown => false,
    }
}

/// Later than this the action cannot be open, whatever was lost: an upper bound, and no deadline.
fn closes_at(notice: &Notice, hook: &Hook, job: &Job, seen: &Observation) -> Timestamp {
    let spec = spec_of(hook, seen);
    let heard = job.memory.heartbeats.get(&hook.key).copied();
    let from = heard.unwrap_or_else(|| notice.at.max(job.delivery_of(notice).at));
    let timeout = spec.map_or(LONGEST_HEARTBEAT, |spec| spec.heartbeat_timeout);
    let global = spec.map_or(HOOK_AT_MOST, |spec| spec.global_timeout);
    (from + timeout).min(notice.at + global) + SLACK
}
