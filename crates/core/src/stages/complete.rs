//! Our hooks are answered, and what was announced has happened.

use crate::Entitlement::*;
use crate::hook_action::{SHORTEST_HEARTBEAT, rests_until};
use crate::triggers::hook::next_heartbeat;
use crate::*;

/// Answers the hooks when all else is done, or at the deadline, and keeps them alive until then.
pub(crate) fn complete(case: &Case<'_>, open: &[Stage]) -> Condition {
    let now = case.facts.now;
    match case.demands.at_the_end {
        AtTheEnd::AwaitInterruption => return await_interruption(case),
        AtTheEnd::AwaitReturn | AtTheEnd::Nothing => return Condition::Holds,
        AtTheEnd::AnswerHook => {}
    }
    if open.is_empty() || case.deadline.is_some_and(|deadline| deadline.answer <= now) {
        return answer(case, open.is_empty());
    }
    let (actions, due) = due_of(heartbeats(case.hooks(), case.facts), now);
    let wake_at = case.deadline.map(|deadline| deadline.answer).into_iter().chain(due).min();
    Condition::Open { actions, wake_at, read_by: None, reason: Reason::Completing { not_waited_for: 0 } }
}

/// A heartbeat says whether a hook that was seen is open, and keeps one open that nobody can read the group of: it needs no
/// other source than AWS's own answer.
pub(crate) fn keep_open(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { job, seen, policy, now } = case.facts;
    let unread = seen.read_at.is_some() && seen.membership == Seen::Unknown;
    let in_scope = job.memory.in_scope || !policy.scoped;
    let is_due = |notice: &Notice| now >= notice.at + SHORTEST_HEARTBEAT / 2;
    let asks = |claim: &&Claim<'_>| match claim.entitlement {
        Asks => true,
        Waits | Isolates => unread && in_scope && is_due(claim.notice),
        Acts | Confirms | Returns | Ended(_) | Undo(_) => false,
    };
    let hooks = case.claims.iter().filter(asks).filter_map(|claim| Some((claim.notice, claim.hook()?)));
    when_due(heartbeats(hooks, case.facts), now, Reason::Unsettled)
}

/// The next heartbeats, and when they are due.
fn heartbeats<'a>(
    hooks: impl Iterator<Item = (&'a Notice, &'a Hook)>,
    facts: Facts<'_>,
) -> Vec<(Timestamp, Action)> {
    let due =
        |(notice, hook)| Some((next_heartbeat(notice, hook, facts)?, Action::Heartbeat(hook.key.clone())));
    hooks.filter_map(due).collect()
}

/// The calls that are due, and when the next one is.
fn due_of(calls: Vec<(Timestamp, Action)>, now: Timestamp) -> (Vec<Action>, Option<Timestamp>) {
    let (due, later): (Vec<_>, Vec<_>) = calls.into_iter().partition(|(at, _)| *at <= now);
    (due.into_iter().map(|(_, action)| action).collect(), later.into_iter().map(|(at, _)| at).min())
}

fn when_due(calls: Vec<(Timestamp, Action)>, now: Timestamp, reason: Reason) -> Condition {
    match due_of(calls, now) {
        (actions, None) if actions.is_empty() => Condition::Holds,
        (actions, wake_at) => Condition::Open { actions, wake_at, read_by: None, reason },
    }
}

fn answer(case: &Case<'_>, everything_else: bool) -> Condition {
    let Facts { job, now, .. } = case.facts;
    let calls = |hook: &Hook| job.memory.hook(&hook.key);
    let reason = match everything_else {
        true if case.hooks().any(|(_, hook)| calls(hook).refused.is_some()) => Reason::AnswerRefused,
        true => Reason::Completing { not_waited_for: eviction::left_behind(case.facts) },
        false => Reason::DeadlineReached(case.remainder()),
    };
    let answers = case.hooks().map(|(notice, hook)| {
        let open_since = calls(hook).heard.unwrap_or(notice.at);
        (rests_until(hook, open_since, case.facts), Action::CompleteHook(hook.key.clone()))
    });
    // While answers hang, or what they follow from is read, the hook is kept open (seed 5914).
    let has_time = case.deadline.is_none_or(|deadline| deadline.answer > now);
    let reads = everything_else && has_time && wants_reading(case.facts).is_some();
    let kept = case.hooks().filter(|(_, hook)| everything_else && (reads || calls(hook).lost));
    let open = when_due(answers.chain(heartbeats(kept, case.facts)).collect(), now, reason);
    if reads { once_read(case.facts, open) } else { open }
}

fn await_interruption(case: &Case<'_>) -> Condition {
    let newest = case.acting().map(|claim| claim.notice.at).max().unwrap_or_default();
    let until = newest + case.facts.policy.patience;
    wait(until, Reason::AwaitingInterruption { left: case.facts.now.until(until) })
}

/// The answers that AWS took are seen in the group, or given again until they are.
pub(crate) fn confirm(case: &Case<'_>, _: &[Stage]) -> Condition {
    let rests = |hook: &Hook| case.facts.job.memory.cooldown(&Key::Hook(hook.key.clone())).until;
    let answers = case.answered_hooks().map(|hook| (rests(hook), Action::CompleteHook(hook.key.clone())));
    when_due(answers.collect(), case.facts.now, Reason::Confirming)
}

/// What is served does not take along a claim that has nothing to say yet: its hook may be open. And an
/// instance that comes back is waited for.
pub(crate) fn await_others(case: &Case<'_>, _: &[Stage]) -> Condition {
    let unsettled = case.claims.iter().any(|claim| match claim.entitlement {
        Isolates | Asks | Confirms | Waits | Returns => true,
        Acts | Ended(_) | Undo(_) => false,
    });
    if unsettled {
        read_by(case.facts.reread(), Reason::Unsettled)
    } else if case.demands.at_the_end == AtTheEnd::AwaitReturn {
        read_by(case.facts.reread(), Reason::AwaitingReturn)
    } else {
        Condition::Holds
    }
}
