//! The one clock of the engine: a value, so that a simulation runs on virtual time.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use offramp_core::Timestamp;
use tokio::time::Instant;

/// Tells the time and waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Source);

#[derive(Clone, Copy, Debug)]
enum Source {
    /// The machine's clock, as events carry UTC times.
    System,
    /// Tokio's clock, which a test may pause, counted from a fixed point.
    Tokio { started: Instant, epoch: Timestamp },
}

impl Clock {
    /// The machine's clock.
    pub const fn system() -> Self {
        Self(Source::System)
    }

    /// A clock that reads `epoch` now and follows tokio's time, paused or not.
    pub fn starting_at(epoch: Timestamp) -> Self {
        Self(Source::Tokio { started: Instant::now(), epoch })
    }

    /// The time now.
    pub fn now(&self) -> Timestamp {
        match self.0 {
            Source::System => {
                let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_millis(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Tokio { started, epoch } => epoch + started.elapsed(),
        }
    }

    /// Waits until then. Cancel-safe.
    pub async fn sleep_until(&self, then: Timestamp) {
        let span = self.now().until(then);
        if span > Duration::ZERO {
            tokio::time::sleep(span).await;
        }
    }
}
