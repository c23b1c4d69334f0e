//! Our hooks are answered, and what was announced has happened.

use crate::Entitlement::*;
use crate::hook_action::SHORTEST_HEARTBEAT;
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
    let (actions, due) = heartbeats(case.hooks(), case.facts);
    let wake_at = case.deadline.map(|deadline| deadline.answer).into_iter().chain(due).min();
    Condition::Open { actions, wake_at, reason: Reason::Completing { not_waited_for: 0 } }
}

/// A heartbeat says whether a hook that was seen is open, and keeps one open that nobody can read the group of: it needs no
/// other source than AWS's own answer.
pub(crate) fn keep_open(case: &Case<'_>, _: &[Stage]) -> Condition {
    let Facts { job, seen, policy, now } = case.facts;
    let unread = seen.aws_was_asked && seen.membership == Seen::Unknown;
    let in_scope = job.memory.in_scope || !policy.scoped;
    let is_due = |notice: &Notice| now >= notice.at + SHORTEST_HEARTBEAT / 2;
    let asks = |claim: &&Claim<'_>| match claim.entitlement {
        Asks => true,
        Waits | Isolates => unread && in_scope && is_due(claim.notice),
        Acts | Confirms | Returns | Ended(_) | Undo(_) => false,
    };
    let hooks = case.claims.iter().filter(asks).filter_map(|claim| Some((claim.notice, claim.hook()?)));
    match heartbeats(hooks, case.facts) {
        (actions, None) if actions.is_empty() => Condition::Holds,
        (actions, wake_at) => Condition::Open { actions, wake_at, reason: Reason::Unsettled },
    }
}

/// The heartbeats that are due, and when the next one is.
fn heartbeats<'a>(
    hooks: impl Iterator<Item = (&'a Notice, &'a Hook)>,
    facts: Facts<'_>,
) -> (Vec<Action>, Option<Timestamp>) {
    let (mut actions, mut next) = (Vec::new(), None);
    for (notice, hook) in hooks {
        match next_heartbeat(notice, hook, facts) {
            Some(due) if due <= facts.now => actions.push(Action::Heartbeat(hook.key.clone())),
            Some(due) => next = Some(next.map_or(due, |at: Timestamp| at.min(due))),
            None => {}
        }
    }
    (actions, next)
}

fn answer(case: &Case<'_>, everything_else: bool) -> Condition {
    let is_refused = |hook: &Hook| case.facts.job.memory.hook(&hook.key).refused.is_some();
    let reason = match everything_else {
        true if case.hooks().any(|(_, hook)| is_refused(hook)) => Reason::AnswerRefused,
        true => Reason::Completing { not_waited_for: eviction::left_behind(case.facts) },
        false => Reason::DeadlineReached(case.remainder()),
    };
    todo(case.hooks().map(|(_, hook)| Action::CompleteHook(hook.key.clone())).collect(), reason)
}

fn await_interruption(case: &Case<'_>) -> Condition {
    let newest = case.acting().map(|claim| claim.notice.at).max().unwrap_or_default();
    let until = newest + case.facts.policy.patience;
    wait(until, Reason::AwaitingInterruption { left: case.facts.now.until(until) })
}

/// The answers that AWS took are seen in the group, or given again until they are.
pub(crate) fn confirm(case: &Case<'_>, _: &[Stage]) -> Condition {
    let answers = case.answered_hooks().map(|hook| Action::CompleteHook(hook.key.clone()));
    let actions: Vec<Action> = answers.collect();
    if actions.is_empty() { Condition::Holds } else { todo(actions, Reason::Confirming) }
}

/// What is served does not take along a claim that has nothing to say yet: its hook may be open. And an
/// instance that comes back is waited for.
pub(crate) fn await_others(case: &Case<'_>, _: &[Stage]) -> Condition {
    let unsettled = case.claims.iter().any(|claim| match claim.entitlement {
        Isolates | Asks | Confirms | Waits | Returns => true,
        Acts | Ended(_) | Undo(_) => false,
    });
    if unsettled {
        wait(case.facts.recheck(), Reason::Unsettled)
    } else if case.demands.at_the_end == AtTheEnd::AwaitReturn {
        wait(case.facts.recheck(), Reason::AwaitingReturn)
    } else {
        Condition::Holds
    }
}
