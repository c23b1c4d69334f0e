//! The cordons that are on their way in one cluster: nothing else of a storm is written before them.

use std::time::Duration;

use offramp_core::Timestamp;
use tokio::sync::watch;

use crate::clock::Clock;

/// So long everything else waits for the cordons that are known. Five hundred are answered within a second on two cores.
const FIRST: Duration = Duration::from_secs(1);

/// How many cordons are on their way, and since when there is any.
#[derive(Clone)]
pub(crate) struct Isolations {
    clock: Clock,
    pending: watch::Sender<(usize, Timestamp)>,
}

/// One that is on its way, until it is dropped.
pub(crate) struct Isolation(Isolations);

impl Isolations {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, pending: watch::Sender::new((0, Timestamp::default())) }
    }

    pub(crate) fn begin(&self) -> Isolation {
        let now = self.clock.now();
        self.pending.send_modify(|(count, since)| {
            if *count == 0 {
                *since = now;
            }
            *count += 1;
        });
        Isolation(self.clone())
    }

    /// Until when everything else waits at most, if it does.
    pub(crate) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        let (count, since) = *self.pending.borrow();
        Some(since + FIRST).filter(|until| count > 0 && *until > now)
    }

    pub(crate) fn changes(&self) -> watch::Receiver<(usize, Timestamp)> {
        self.pending.subscribe()
    }

    /// Waits until the cordons that are known are on, or for a second.
    pub(crate) async fn pass(&self) {
        let mut changes = self.changes();
        while let Some(until) = self.until(self.clock.now()) {
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = self.clock.sleep_until(until) => {}
            }
        }
    }
}

impl Drop for Isolation {
    fn drop(&mut self) {
        self.0.pending.send_modify(|(count, _)| *count -= 1);
    }
}
