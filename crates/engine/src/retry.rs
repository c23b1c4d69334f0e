//! The only retry layer: how long to pause after a failure, and how long to wait for an answer. The
//! retries of the AWS SDK and of kube are off; the SDK's adaptive limiter is shared by the whole process
//! for each service and Region, so that one throttled account would slow all.

use std::future::Future;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;
use offramp_core::{Pause, Repeat};

use crate::ports::Fault;

/// How long a call may take. SQS, Auto Scaling and ELB answer in well under a second; what takes ten
/// will not answer at all, and a spot notice has twelve of these.
pub(crate) const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// The first pause. A cordon that failed on a blip goes out again before anybody could notice.
const FIRST: Duration = Duration::from_millis(200);
/// The longest pause: a cluster or account that comes back is used again within this time.
const LONGEST: Duration = Duration::from_secs(15);

/// Growing pauses with a jitter of its own for each key, so that five hundred jobs that failed together
/// do not come back together. No clock and no random source: a simulated run repeats.
pub(crate) struct GrowingPauses {
    inner: ExponentialBackoff,
    jitter: f64,
}

impl GrowingPauses {
    pub(crate) fn new(key: &str) -> Self {
        let inner = ExponentialBackoff {
            current_interval: FIRST,
            initial_interval: FIRST,
            randomization_factor: 0.0,
            multiplier: 2.0,
            max_interval: LONGEST,
            // Without a limit the time since the first pause, which it reads off the machine's clock, counts for
            // nothing.
            max_elapsed_time: None,
            ..ExponentialBackoff::default()
        };
        Self { inner, jitter: f64::from(hash(key) % 1000) / 4000.0 }
    }

    /// The next pause: the interval and up to a quarter of it.
    pub(crate) fn next(&mut self) -> Duration {
        let pause = self.inner.next_backoff().unwrap_or(LONGEST);
        Duration::from_millis(pause.mul_f64(1.0 + self.jitter).as_millis().try_into().unwrap_or(u64::MAX))
    }

    pub(crate) fn reset(&mut self) {
        self.inner.reset();
    }
}

/// How long something rests that is done for the `times`th time in a row without any progress. Core says what is
/// done again, and what counts as the same.
pub(crate) fn pause(repeat: &Repeat, times: u32) -> Duration {
    let Repeat::Again(pause, _) = repeat else { return Duration::ZERO };
    let grown = |first: Duration, most: u32| first * 2_u32.pow(times.saturating_sub(1).min(most));
    let doubled = |first| grown(first, DOUBLINGS);
    match pause {
        Pause::NodeUnshown => grown(WATCH_LAG, UNSHOWN_DOUBLINGS),
        Pause::NodeConflict if times <= CONFLICTS => Duration::ZERO,
        Pause::NodeConflict => grown(NODE_CONFLICT, CONFLICTS + DOUBLINGS),
        Pause::NodeUnanswered => grown(FIRST, REFUSED_DOUBLINGS),
        Pause::NodeRefused => grown(NODE_REFUSED, NODE_REFUSED_DOUBLINGS),
        Pause::Eviction => eviction_pause(times),
        Pause::Deletion => doubled(DELETION),
        Pause::PodList => grown(POD_LIST, REFUSED_DOUBLINGS),
        Pause::Write => doubled(WRITE),
        Pause::Deregistered => grown(DEREGISTERED, DEREGISTERED_DOUBLINGS),
        Pause::Hook => doubled(HOOK),
        Pause::HookRefused => grown(HOOK, REFUSED_DOUBLINGS),
        Pause::Confirmation => doubled(CONFIRMATION),
    }
}

/// How long evictions rest that something refuses for the `times`th time in a row, or that were taken and do not show.
pub(crate) fn eviction_pause(times: u32) -> Duration {
    EVICTION * 2_u32.pow(times.saturating_sub(1).min(DOUBLINGS))
}

/// A watch was up to 3.4 s late in a storm on a busy API server. Past that, a write that changed nothing
/// (an admission webhook took it back) is made again, twice as late each time, up to 80 s: some fifty in the hour of a hook.
const WATCH_LAG: Duration = Duration::from_secs(5);
const UNSHOWN_DOUBLINGS: u32 = 4;
/// A node changes a few times a minute, so that the next try nearly always goes through, as soon as the watch has shown the
/// change. What somebody writes many times a second is tried again after a second, and then twice as late each time, up
/// to 8 s.
const NODE_CONFLICT: Duration = Duration::from_millis(125);
const CONFLICTS: u32 = 3;
/// How long a write to the node rests that the API server refuses: a permission may be granted, a webhook come back within
/// a second. Twice as long each time, up to 128 s: some thirty-five in the hour of a hook.
const NODE_REFUSED: Duration = Duration::from_secs(1);
const NODE_REFUSED_DOUBLINGS: u32 = 7;
/// How long an eviction rests at first. kubectl drain and the Eviction API's own advice are 5 s; after a success this covers
/// the time until a watch shows it. Twice as long each time, up to 40 s: some ninety refusals of one budget in the hour of a
/// hook. A pod that becomes ready ends the rest (`evictions`); a budget that somebody edits is seen within
/// these 40 s.
const EVICTION: Duration = Duration::from_secs(5);
/// How long a deletion rests that was refused: at the end seconds count, and a webhook that refuses all of them would
/// otherwise be asked some hundred times a second. Twice as long each time, up to 16 s, half of the usual grace.
const DELETION: Duration = Duration::from_secs(2);
/// How long a list of a node's pods rests, twice as long each time, up to 64 s. What it shows beside the watch is shown
/// by that within a second as well, mostly; what fails for minutes would be asked some 70 times in nine of them at 8 s
/// (seed 2435), and is the most expensive read of all.
const POD_LIST: Duration = Duration::from_secs(1);
/// How long a failed AWS write rests, whatever wakes the job meanwhile, and twice as long each time, up to 24 s. ELB grants
/// an account ten calls a second; calls of many jobs go out together.
const WRITE: Duration = Duration::from_secs(3);
/// How long a target stays alone that was deregistered, and that a controller puts back: as long as DescribeTargetHealth may
/// lag behind (`learning`), and twice as long each time, up to 240 s: some twenty in the hour of a hook.
const DEREGISTERED: Duration = Duration::from_secs(15);
const DEREGISTERED_DOUBLINGS: u32 = 4;
/// How long a hook rests after a failed call: a tenth of the shortest HeartbeatTimeout (30 s), and twice
/// as long each time, up to 24 s; up to 192 s where AWS says that it is not open. All calls to Auto Scaling share
/// one bucket for each account.
const HOOK: Duration = Duration::from_secs(3);
/// How long an answer rests that AWS took, before it is given again. A group shows its new state within seconds; a
/// refusal counts as the second witness after as long (core's `hook_action`).
const CONFIRMATION: Duration = Duration::from_secs(10);
const DOUBLINGS: u32 = 3;
/// A refusal passes within seconds, or stays: 64 times the first pause.
const REFUSED_DOUBLINGS: u32 = 6;

/// Waits for an answer for at most [`CALL_TIMEOUT`]. No answer means that nothing is known.
pub(crate) async fn timeout<T>(what: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    timeout_of(CALL_TIMEOUT, what, call).await
}

/// The same for what takes several calls.
pub(crate) async fn timeout_of<T>(
    limit: Duration,
    what: &str,
    call: impl Future<Output = Result<T, Fault>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::Retry(format!("{what}: no answer within {} s", limit.as_secs()))),
    }
}

/// FNV-1a: stable over versions and machines, which the standard hasher does not promise.
pub(crate) fn hash(key: &str) -> u32 {
    key.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use offramp_core::{HookKey, Key};

    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_repeat() {
        let take = |key: &str| {
            let mut pauses = GrowingPauses::new(key);
            (0..9).map(|_| pauses.next().as_millis()).collect::<Vec<_>>()
        };
        let a = take("i-0b1c2d3e4f5061728");
        assert_eq!(a, take("i-0b1c2d3e4f5061728"));
        assert_ne!(a, take("i-0b1c2d3e4f5061729"));
        assert!(a.windows(2).all(|pair| pair[0] <= pair[1]), "{a:?}");
        assert!((200..=250).contains(&a[0]) && (15_000..=18_750).contains(&a[8]), "{a:?}");
    }

    #[test]
    fn what_is_done_in_vain_rests_longer_each_time() {
        let hook = Key::Hook(HookKey { group: "g".into(), name: "h".into(), token: None });
        let check = |pause: Pause, expect: [u64; 5]| {
            let repeat = Repeat::Again(pause, hook.clone());
            let millis = [1, 2, 3, 4, 5].map(|times| super::pause(&repeat, times).as_millis());
            assert_eq!(millis, expect.map(u128::from), "{pause:?}");
        };
        check(Pause::NodeUnshown, [5_000, 10_000, 20_000, 40_000, 80_000]);
        check(Pause::NodeConflict, [0, 0, 0, 1_000, 2_000]);
        check(Pause::NodeUnanswered, [200, 400, 800, 1_600, 3_200]);
        check(Pause::NodeRefused, [1_000, 2_000, 4_000, 8_000, 16_000]);
        check(Pause::Eviction, [5_000, 10_000, 20_000, 40_000, 40_000]);
        check(Pause::Deletion, [2_000, 4_000, 8_000, 16_000, 16_000]);
        check(Pause::PodList, [1_000, 2_000, 4_000, 8_000, 16_000]);
        check(Pause::Write, [3_000, 6_000, 12_000, 24_000, 24_000]);
        check(Pause::Deregistered, [15_000, 30_000, 60_000, 120_000, 240_000]);
        check(Pause::Hook, [3_000, 6_000, 12_000, 24_000, 24_000]);
        check(Pause::HookRefused, [3_000, 6_000, 12_000, 24_000, 48_000]);
        check(Pause::Confirmation, [10_000, 20_000, 40_000, 80_000, 80_000]);
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_a_fault_that_may_pass() {
        let never = std::future::pending::<Result<(), Fault>>();
        let fault = timeout("reading the group", never).await.unwrap_err();
        assert_eq!(fault, Fault::Retry("reading the group: no answer within 10 s".to_owned()));
    }
}
