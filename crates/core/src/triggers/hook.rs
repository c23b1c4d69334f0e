//! A lifecycle action of the group holds the instance until it is answered. A notice may be a day old, so it
//! authorises nothing by itself but a fresh cordon: the group has to report the matching Wait state.

use crate::hook_action::*;
use crate::*;

pub(super) const ROW: Row = Row {
    trigger: Trigger::Hook,
    lasts: |policy| policy.hook_limit,
    entitlement,
    demands: Demands {
        isolate: Isolation::Cordon,
        deregister: Deregistration::Gated,
        drain: true,
        detach: Detachment::ByDefinition,
        quiesce: true,
        at_the_end: AtTheEnd::AnswerHook,
    },
    until,
};

/// So many failed calls in a row, over nine seconds, and a heartbeat is not counted on any more.
const FAILURES: u32 = 3;

fn entitlement(notice: &Notice, facts: Facts<'_>) -> Entitlement {
    let by_the_group = by_the_group(notice, facts);
    let asked = notice.hook().filter(|_| notice.is_seen() && by_the_group == Entitlement::Acts);
    let Some(hook) = asked else { return by_the_group };
    let open = once_it_is_open(hook, facts);
    let reboots = hook.passage == Passage::RootVolume && matches!(open, Entitlement::Ended(_));
    if reboots { while_it_reboots(facts.seen, is_patient(notice, facts)) } else { open }
}

/// A message that is older than the patience is read for a while, too: its first reading may be a bad one.
fn is_patient(notice: &Notice, Facts { job, policy, now, .. }: Facts<'_>) -> bool {
    now < (notice.at + policy.patience).max(job.delivery_of(notice).at + FRESH)
}

fn by_the_group(notice: &Notice, facts: Facts<'_>) -> Entitlement {
    let Facts { job, seen, now, .. } = facts;
    let served = notice.hook().and_then(|hook| Some((hook, hook.passage.wait_state()?)));
    let Some((hook, wait_state)) = served else { return Entitlement::Undo(UndoReason::NotServed) };
    let patient = is_patient(notice, facts);
    let fresh = now <= notice.at + FRESH;
    let over = |ended| without_us(ended, notice, hook, facts);
    let stays = Entitlement::Undo(UndoReason::InService);
    match after_our_calls(notice, hook, facts) {
        // The instance comes back, whoever answered.
        Some(Entitlement::Ended(_)) if hook.passage == Passage::RootVolume => {
            return while_it_reboots(seen, patient);
        }
        Some(Entitlement::Confirms) if !fresh && seen.is_in_service() => return stays,
        Some(entitlement) => return entitlement,
        None => {}
    }
    // Nothing but `InService` says that the instance stays: an absence, and a state that is neither, prove
    // nothing, and what was done stays done until somebody has looked.
    // Where the group said before that the hook holds it, the hook's own end is waited for.
    let confirmed = job.memory.last_state.as_ref() == Some(&wait_state);
    let undecided = match (fresh, patient || confirmed && now < action_closes_at(notice, hook, facts)) {
        (true, _) => Entitlement::Isolates,
        (false, true) => Entitlement::Waits,
        (false, false) => Entitlement::Ended(Ended::LeftIsolated),
    };
    match &seen.membership {
        // What is described may lag behind: it may have been in the pool before (seed 24110).
        Seen::Known(member) if fresh && member.state == LifecycleState::Warmed => undecided,
        Seen::Known(_) if is_past(hook.passage, false, seen) => over(Ended::Answered),
        Seen::Known(member) if member.state == wait_state => Entitlement::Acts,
        // By a reading that is younger than that itself (autoscaler#10149).
        Seen::Known(_) if seen.is_in_service() && facts.as_of() > notice.at + FRESH => stays,
        Seen::Known(_) => undecided,
        // What is described may lag behind the launch, too.
        Seen::Gone if !fresh && machine::has_ended(facts) => over(Ended::InstanceEnded),
        Seen::Gone if !fresh && machine::lives_outside_its_group(notice, facts) => {
            Entitlement::Undo(UndoReason::NotAMember)
        }
        Seen::Gone => undecided,
        // It was confirmed: a read that fails later does not take that back.
        Seen::Unknown if confirmed && now < notice.at + HOOK_AT_MOST => Entitlement::Acts,
        Seen::Unknown if fresh => Entitlement::Isolates,
        // AWS takes a heartbeat for what is open, which Auto Scaling says, too. While the group cannot be read, the deadline alone
        // goes on, and the removal needs its time before that (aws-node-termination-handler#616).
        Seen::Unknown if is_kept_open(notice, hook, facts) => Entitlement::Acts,
        // AWS ends every hook by its global timeout, 48 h at most: so does the wait for an answer.
        Seen::Unknown if now < notice.at + HOOK_AT_MOST => Entitlement::Waits,
        Seen::Unknown => Entitlement::Ended(Ended::LeftIsolated),
    }
}

/// Half of the time is over in which AWS took heartbeats and said nothing else.
fn is_kept_open(notice: &Notice, hook: &Hook, Facts { job, policy, now, .. }: Facts<'_>) -> bool {
    let is_open = job.memory.hook(&hook.key).heard.is_some() && now < notice.at + HOOK_AT_MOST;
    is_open && now >= notice.at + policy.hook_limit / 2
}

fn while_it_reboots(seen: &Observation, patient: bool) -> Entitlement {
    match &seen.node {
        Seen::Known(node) if node.ready && seen.is_in_service() => Entitlement::Undo(UndoReason::Reprieved),
        Seen::Gone if seen.membership == Seen::Gone => Entitlement::Ended(Ended::Answered),
        Seen::Known(_) | Seen::Gone | Seen::Unknown if patient => Entitlement::Returns,
        Seen::Known(_) | Seen::Gone | Seen::Unknown => Entitlement::Ended(Ended::LeftIsolated),
    }
}

/// From the event's own time and the hook's limits, never from our start.
fn until(notice: &Notice, facts: Facts<'_>) -> Option<Deadline> {
    let Facts { job, policy, now, .. } = facts;
    let hook = notice.hook()?;
    let spec = spec_of(hook, facts);
    let limit = notice.at + spec.map_or(policy.hook_limit, |spec| policy.hook_limit.min(spec.global_timeout));
    // One lost answer proves nothing: it is tried again within seconds.
    let HookCalls { heard, refused, .. } = job.memory.hook(&hook.key);
    let tried = job.memory.cooldown(&Key::Hook(hook.key.clone())).times >= FAILURES;
    let next = heard.zip(spec).map(|(heard, spec)| heard + spec.heartbeat_timeout);
    // Still waiting after its first timeout: an earlier worker's heartbeat moved the end out.
    let outlived = |first: Timestamp| now >= first && is_in_wait_state(facts);
    // AWS refuses heartbeats for a hook that the group still shows: nobody knows how much is left, and half of
    // the timeout from our first receipt on is what an earlier worker's heartbeat leaves at least.
    let half = spec.map(|spec| job.delivery_of(notice).at + spec.heartbeat_timeout / 2);
    let (end, provisional) = match spec.map(|spec| notice.at + spec.heartbeat_timeout) {
        // Heartbeats came through, and then they did not: what the last one gained is all there is.
        _ if heard.is_some() && tried => (next.map_or(limit, |next| next.min(limit)), false),
        _ if heard.is_some() => (limit, false),
        Some(first) if refused.is_some() && is_in_wait_state(facts) => {
            (half.unwrap_or(first).max(first).min(limit), !tried)
        }
        Some(first) if outlived(first) => (limit, !tried),
        Some(first) => (first.min(limit), !tried),
        None => (limit, !tried),
    };
    // A heartbeat goes out before the first timeout, at once after a restart, and what comes of it makes
    // the end firm: until then nothing is answered for lack of time.
    let answer = if provisional { limit } else { end } - policy.deadline_margin;
    Some(Deadline { pods: end, answer, provisional, doubtful: refused.is_some() && tried })
}

/// By the newest that the group said: else the end would jump into the past.
pub(crate) fn is_in_wait_state(facts: Facts<'_>) -> bool {
    facts.state().is_some_and(LifecycleState::is_held)
}

/// When the next heartbeat is due, or nothing where the hook's settings are not known, and it has been sent one:
/// at half of the hook's timeout, counted from the event's time. HeartbeatTimeout is not in the event: until it
/// is known, one goes out every 15 s, half of the shortest. The first goes out at once for a hook that was seen, of which
/// nobody knows how much is left.
pub(crate) fn next_heartbeat(notice: &Notice, hook: &Hook, facts: Facts<'_>) -> Option<Timestamp> {
    let Facts { job, now, .. } = facts;
    let last = job.memory.hook(&hook.key).heard;
    let due = match (spec_of(hook, facts), last) {
        (_, None) if notice.is_seen() => now,
        (Some(spec), _) => last.unwrap_or(notice.at) + spec.heartbeat_timeout / 2,
        (None, _) => last.unwrap_or(notice.at) + hook_action::SHORTEST_HEARTBEAT / 2,
    };
    Some(due.max(hook_action::rests_until(hook, last.unwrap_or(notice.at), facts)))
}
