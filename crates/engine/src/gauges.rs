//! What no fact moves: how full the queues are, and how wrong our clock is by the dates of their answers.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use offramp_core::Timestamp;
use tokio::sync::watch;

use crate::Handle;
use crate::clock::Clock;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::ports::{Depth, Fault, Queue};
use crate::retry::timeout;
use crate::skew::{ANSWERS, Skew, moved_to};

/// How often the queues are looked at: eight times in the two minutes of which five answers have to agree.
const EVERY: Duration = Duration::from_secs(15);
/// So long the first message waits for the clock to be held against the queue's. An answer takes some 10 ms; a queue that
/// takes this long gives out no messages either.
const MEASURING: Duration = Duration::from_secs(2);

/// Looks at the queues.
pub(crate) struct Gauges {
    queue: Arc<dyn Queue>,
    clock: Clock,
    journal: Journal,
    handle: Handle,
    skew: Skew,
    /// The clock agreed with the queue's, or was moved there.
    agreed: bool,
    /// What the journal was told last.
    told: Option<i64>,
    measured: watch::Sender<bool>,
}

/// A look at the queue, and when its answer was heard, by the clock as nobody has moved it.
type Look = (Timestamp, Result<Depth, Fault>);

impl Gauges {
    /// The second value turns true when the clock has been held against the queue's, or could not be.
    pub(crate) fn new(
        queue: Arc<dyn Queue>,
        clock: Clock,
        journal: Journal,
        handle: Handle,
    ) -> (Self, watch::Receiver<bool>) {
        let (measured, receiver) = watch::channel(false);
        (
            Self {
                queue,
                clock,
                journal,
                handle,
                skew: Skew::default(),
                agreed: false,
                told: None,
                measured,
            },
            receiver,
        )
    }

    /// Looks until dropped.
    pub(crate) async fn run(mut self) {
        // As many at once as have to agree: the clock is right before the first message is handed on.
        let first = join_all((0..ANSWERS).map(|_| self.look()));
        let first = tokio::time::timeout(MEASURING, first).await.unwrap_or_default();
        for (at, depth) in first {
            self.hear(at, depth.ok().and_then(|depth| depth.date)).await;
        }
        self.measured.send_replace(true);
        loop {
            let (at, depth) = self.look().await;
            match depth {
                Ok(depth) => {
                    self.hear(at, depth.date).await;
                    self.journal.metrics().depth(depth);
                }
                Err(fault) => self.journal.record(Fact::QueueFaulted { fault }),
            }
            match timeout("reading the depth of the dead-letter queue", self.queue.dead_letters()).await {
                Ok(count) => self.journal.metrics().dead_letters(count),
                Err(fault) => self.journal.record(Fact::QueueFaulted { fault }),
            }
            self.clock.sleep_until(self.clock.now() + EVERY).await;
        }
    }

    async fn look(&self) -> Look {
        let depth = timeout("reading the depth of the queue", self.queue.depth()).await;
        (self.clock.unmoved(), depth)
    }

    async fn hear(&mut self, at: Timestamp, date: Option<Timestamp>) {
        let Some(behind) = date.and_then(|date| self.skew.hear(at, date)) else { return };
        self.journal.metrics().skew(behind);
        let Some(offset) = moved_to(self.clock.offset(), behind) else {
            self.agreed = true;
            return;
        };
        let moved = self.may_move(behind).await;
        if moved {
            self.clock.set_offset(offset);
            self.agreed = true;
        }
        if moved || self.told.is_none_or(|told| moved_to(told, behind).is_some()) {
            self.told = Some(behind);
            self.journal.record(Fact::ClockWrong { behind, moved });
        }
    }

    /// What is remembered is of the time before. Moved on under a job, a pod whose grace has just begun would be overdue; but
    /// where the clock agreed before, the machine stood still, and the time has passed for its jobs as well. Moved back, a
    /// heartbeat would come minutes late, and a proof be of a moment that is yet to come: only before anything was received.
    async fn may_move(&self, behind: i64) -> bool {
        if !*self.measured.borrow() {
            return true;
        }
        behind > self.clock.offset() && (self.agreed || self.handle.jobs().await.is_empty())
    }
}
