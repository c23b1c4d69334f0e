//! The one clock of the engine: a value, so that a simulation runs on virtual time.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use offramp_core::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;

/// Tells the time and waits for it. Clones are one clock.
///
/// It reads the machine's clock once, and goes on by monotonic time, so that nobody who sets the machine's clock moves a
/// deadline. It is moved where the queue's service says that it is wrong (`skew.rs`), and nowhere else.
#[derive(Clone, Debug)]
pub struct Clock {
    started: Instant,
    epoch: Timestamp,
    /// So many milliseconds are added to what the machine's clock said at the start.
    offset: Arc<watch::Sender<i64>>,
}

impl Clock {
    /// From what the machine's clock says now.
    pub fn system() -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self::starting_at(Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)))
    }

    /// A clock that reads `epoch` now and follows tokio's time, paused or not.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self { started: Instant::now(), epoch, offset: Arc::default() }
    }

    /// The clock of another machine, which is so many milliseconds ahead.
    #[must_use]
    pub fn of_another_machine(&self, ahead: i64) -> Self {
        let epoch = Timestamp::from_millis(self.epoch.as_millis().saturating_add(ahead));
        Self { started: self.started, epoch, offset: Arc::default() }
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.unmoved().as_millis().saturating_add(self.offset()))
    }

    /// What it would read if nobody had moved it: for spans that have nothing to do with events.
    pub fn unmoved(&self) -> Timestamp {
        self.epoch + self.started.elapsed()
    }

    /// By how many milliseconds it has been moved ahead since its start.
    pub(crate) fn offset(&self) -> i64 {
        *self.offset.borrow()
    }

    /// Moves it: by so many milliseconds it is then ahead of what the machine's clock said at the start.
    pub(crate) fn set_offset(&self, millis: i64) {
        self.offset.send_replace(millis);
    }

    /// Waits until then, or until the clock is moved: whoever waits looks again. A lease that goes on waiting for a time which
    /// is four minutes away now would lapse. Cancel-safe.
    pub async fn sleep_until(&self, then: Timestamp) {
        let mut offset = self.offset.subscribe();
        let span = self.now().until(then);
        if span > Duration::ZERO {
            tokio::select! {
                biased;
                // Its sender is this clock's own.
                _ = offset.changed() => {}
                () = tokio::time::sleep(span) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_773_478_800_000);

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_looks_again_when_the_clock_is_moved() {
        for offset in [240_000, -240_000] {
            let clock = Clock::starting_at(START);
            let (moved, begun) = (clock.clone(), Instant::now());
            let moving = async {
                tokio::time::sleep(Duration::from_secs(1)).await;
                moved.set_offset(offset);
            };
            tokio::join!(clock.sleep_until(START + Duration::from_secs(60)), moving);
            assert_eq!(begun.elapsed(), Duration::from_secs(1));
            assert_eq!(clock.now().as_millis(), START.as_millis() + 1_000 + offset);
            assert_eq!(clock.unmoved(), START + Duration::from_secs(1));
        }
    }
}
