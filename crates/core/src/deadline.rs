//! When it has to be over: from the event's own time and the hook's limits, never from our start.

use std::time::Duration;

use crate::case::Case;
use crate::{
    Hook, HookCalls, HookKey, HookSpec, Job, LifecycleState, Notice, NoticeKind, Observation, Policy, Seen,
    SpotAction, Timestamp,
};

/// EC2 begins to shut a spot instance down two minutes after the notice's time (EC2 UG,
/// spot-instance-termination-notices).
pub(crate) const SPOT_LEAD: Duration = Duration::from_secs(120);

/// So many failed calls in a row, over nine seconds, and a heartbeat is not counted on any more.
const FAILURES: u32 = 3;

/// A node that has not been Ready for this long, of an instance that its group gave up, has ended. The
/// kubelet's lease runs out after 40 s; a network blip is shorter.
const ENDED: Duration = Duration::from_secs(60);

/// The tightest end among the notices that act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// When the pods have to be gone.
    pub(crate) pods: Timestamp,
    /// When the hooks have to be answered at the latest.
    pub(crate) answer: Timestamp,
    /// A heartbeat that has not been tried yet would move it out: force nothing before that.
    pub(crate) provisional: bool,
}

impl Deadline {
    fn tightest(self, other: Self) -> Self {
        // A firm end stays firm: what a heartbeat could move out does not loosen it.
        let sooner = if other.pods < self.pods { other } else { self };
        Self { pods: sooner.pods, answer: self.answer.min(other.answer), provisional: sooner.provisional }
    }
}

/// The deadline of the node, or nothing where no acting notice has one.
pub(crate) fn node_deadline<'a>(
    acting: impl Iterator<Item = &'a Notice> + Clone,
    case: Case<'_>,
) -> Option<Deadline> {
    let of = |notice: &Notice| match &notice.kind {
        NoticeKind::Spot(SpotAction::Terminate | SpotAction::Stop) => Some(of_spot(notice, case.policy)),
        NoticeKind::Hook(hook) => Some(of_hook(notice, hook, case)),
        NoticeKind::Spot(SpotAction::Hibernate) | NoticeKind::Rebalance => None,
    };
    // A hook that AWS refuses again and again, beside another of ours that holds the instance, has most likely
    // timed out: its end presses nobody. Alone it is all that is known.
    let sure = acting.clone().filter(|notice| !is_doubtful(notice, case.job)).filter_map(of);
    sure.reduce(Deadline::tightest).or_else(|| acting.filter_map(of).reduce(Deadline::tightest))
}

fn is_doubtful(notice: &Notice, job: &Job) -> bool {
    let NoticeKind::Hook(hook) = &notice.kind else { return false };
    let calls = job.memory.hook(&hook.key);
    calls.refused.is_some() && calls.failures >= FAILURES
}

fn of_spot(notice: &Notice, policy: &Policy) -> Deadline {
    let end = notice.at + SPOT_LEAD;
    Deadline { pods: end + policy.node_shutdown_grace, answer: end, provisional: false }
}

fn of_hook(notice: &Notice, hook: &Hook, case: Case<'_>) -> Deadline {
    let Case { job, seen, policy, now } = case;
    let spec = spec_of(hook, seen);
    let limit = match spec {
        Some(spec) => policy.hook_limit.min(spec.global_timeout),
        None => policy.hook_limit,
    };
    // One lost answer proves nothing: it is tried again within seconds.
    let HookCalls { heard, refused, failures, .. } = job.memory.hook(&hook.key);
    let tried = failures >= FAILURES;
    let next = heard.zip(spec).map(|(heard, spec)| heard + spec.heartbeat_timeout);
    // Still waiting after its first timeout: an earlier worker's heartbeat moved the end out.
    let outlived = |first: Timestamp| now >= first && in_wait_state(case);
    // AWS refuses heartbeats for a hook that the group still shows: nobody knows how much is left, and half of
    // the timeout from our first receipt on is what an earlier worker's heartbeat leaves at least.
    let half = spec.map(|spec| job.delivery_of(notice).at + spec.heartbeat_timeout / 2);
    let (end, provisional) = match spec.map(|spec| notice.at + spec.heartbeat_timeout) {
        // Heartbeats came through, and then they did not: what the last one gained is all there is.
        _ if heard.is_some() && tried => {
            (next.map_or(notice.at + limit, |next| next.min(notice.at + limit)), false)
        }
        _ if heard.is_some() => (notice.at + limit, false),
        Some(first) if refused.is_some() && in_wait_state(case) => {
            (half.unwrap_or(first).max(first).min(notice.at + limit), !tried)
        }
        Some(first) if outlived(first) => (notice.at + limit, !tried),
        Some(first) => (first.min(notice.at + limit), !tried),
        None => (notice.at + limit, !tried),
    };
    // A heartbeat goes out before the first timeout, at once after a restart, and what comes of it makes
    // the end firm: until then nothing is answered for lack of time.
    let answer = if provisional { notice.at + limit } else { end };
    Deadline { pods: end, answer: answer - policy.deadline_margin, provisional }
}

/// One read that fails does not take back what the group said before: the end would jump into the past.
fn in_wait_state(Case { job, seen, .. }: Case<'_>) -> bool {
    use LifecycleState::{ReplacingRootVolumeWait, TerminatingWait, WarmedPendingWait};
    let state = match &seen.membership {
        Seen::Known(member) => Some(&member.state),
        Seen::Unknown => job.memory.last_state.as_ref(),
        Seen::Gone => None,
    };
    matches!(state, Some(TerminatingWait | WarmedPendingWait | ReplacingRootVolumeWait))
}

/// What is due for a hook that holds the instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Heartbeat {
    /// Send one now.
    Due,
    /// Send one then.
    At(Timestamp),
    /// The hook's settings are not known, and it has been sent one.
    Unknown,
}

/// Heartbeats come at half of the hook's timeout, counted from the event's time, at once where that is
/// over. HeartbeatTimeout is not in the event: until it is known, one goes out at once.
pub(crate) fn heartbeat(notice: &Notice, hook: &Hook, Case { job, seen, now, .. }: Case<'_>) -> Heartbeat {
    let last = job.memory.hook(&hook.key).heard;
    let due = match (spec_of(hook, seen), last) {
        (Some(spec), _) => last.unwrap_or(notice.at) + spec.heartbeat_timeout / 2,
        (None, None) => now,
        (None, Some(_)) => return Heartbeat::Unknown,
    };
    match due.max(pause_of(&hook.key, job)) {
        due if due <= now => Heartbeat::Due,
        due => Heartbeat::At(due),
    }
}

/// When a hook may be called again after a failure.
pub(crate) fn pause_of(hook: &HookKey, job: &Job) -> Timestamp {
    job.memory.hook(hook).again_at
}

pub(crate) fn spec_of<'a>(hook: &Hook, seen: &'a Observation) -> Option<&'a HookSpec> {
    let group = seen.group.known().filter(|group| group.name == hook.key.group)?;
    group.terminate_hooks.iter().find(|spec| spec.name == hook.key.name)
}

/// The instance has already ended: there is nothing to drain and nobody to wait for.
pub(crate) fn ended(seen: &Observation, now: Timestamp) -> bool {
    let given_up = match &seen.membership {
        Seen::Known(member) => !member.healthy || member.state == LifecycleState::Terminated,
        Seen::Gone => true,
        Seen::Unknown => false,
    };
    match &seen.node {
        Seen::Gone => true,
        Seen::Known(node) => given_up && !node.ready && now.since(node.ready_since) >= ENDED,
        Seen::Unknown => false,
    }
}
