//! The only retry layer: how long to pause after a failure, and how long to wait for an answer. The
//! retries of the AWS SDK and of kube are off; the SDK's adaptive limiter is shared by the whole process
//! for each service and Region, so that one throttled account would slow all.

use std::future::Future;
use std::time::Duration;

use backoff::ExponentialBackoff;
use backoff::backoff::Backoff;

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
pub(crate) struct Pauses {
    inner: ExponentialBackoff,
    jitter: f64,
}

impl Pauses {
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

/// Waits for an answer for at most [`CALL_TIMEOUT`]. No answer means that nothing is known.
pub(crate) async fn answer<T>(what: &str, call: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer,
        Err(_) => Err(Fault::Retry(format!("{what}: no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

/// FNV-1a: stable over versions and machines, which the standard hasher does not promise.
fn hash(key: &str) -> u32 {
    key.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_limit_and_repeat() {
        let take = |key: &str| {
            let mut pauses = Pauses::new(key);
            (0..9).map(|_| pauses.next().as_millis()).collect::<Vec<_>>()
        };
        let a = take("i-0b1c2d3e4f5061728");
        assert_eq!(a, take("i-0b1c2d3e4f5061728"));
        assert_ne!(a, take("i-0b1c2d3e4f5061729"));
        assert!(a.windows(2).all(|pair| pair[0] <= pair[1]), "{a:?}");
        assert!((200..=250).contains(&a[0]) && (15_000..=18_750).contains(&a[8]), "{a:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn no_answer_is_a_fault_that_may_pass() {
        let never = std::future::pending::<Result<(), Fault>>();
        let fault = answer("reading the group", never).await.unwrap_err();
        assert_eq!(fault, Fault::Retry("reading the group: no answer within 10 s".to_owned()));
    }
}
