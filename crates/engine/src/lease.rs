//! The holds on messages: one task extends, deletes and hands back for all jobs, ten at a time.
//!
//! A lease is short (30 s) and extended while its job is alive, which means at most a moment past the
//! time at which it promised to look again. A worker that dies so gives its messages back within half a
//! minute, and a job that hangs does too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};

use crate::arrival::{Alive, Input};
use crate::clock::Clock;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::ports::{Fault, Held, MessageId, Queue, Receipt};
use crate::retry::answer;

/// How much later than promised a job may be before its messages are let go: a tick with every call
/// timing out once.
const GRACE: Duration = Duration::from_secs(10);
/// SQS takes ten entries in a batch.
const BATCH: usize = 10;
/// A delete that failed is tried so often; then the message comes back and finds everything done.
const DELETE_TRIES: u32 = 5;

/// Timing of the leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseTimes {
    /// How long a message stays hidden without an extension.
    pub visibility: Duration,
    /// How often it is extended: a third, so that two extensions may fail.
    pub extend_every: Duration,
}

impl Default for LeaseTimes {
    fn default() -> Self {
        Self { visibility: Duration::from_secs(30), extend_every: Duration::from_secs(10) }
    }
}

/// What the lease task is told.
pub(crate) enum Order {
    /// Hold a message for a job. A newer receipt of the same message replaces the old one, whose delete
    /// would prove nothing.
    Hold {
        message: MessageId,
        receipt: Receipt,
        alive: watch::Receiver<Alive>,
        job: mpsc::UnboundedSender<Input>,
    },
    /// Everything owed is done: delete.
    Delete { messages: Vec<MessageId>, done: oneshot::Sender<()> },
    /// Delete a message that no job holds.
    Drop { receipt: Receipt },
    /// Hand back at once.
    Release { messages: Vec<MessageId> },
    /// Hand back a message that no job holds.
    Return { receipt: Receipt },
    /// Let it lapse: its job is gone.
    Forget { messages: Vec<MessageId> },
}

struct Lease {
    receipt: Receipt,
    alive: watch::Receiver<Alive>,
    job: mpsc::UnboundedSender<Input>,
}

enum Returned {
    Extended(Vec<(MessageId, Receipt)>, Vec<Result<Held, Fault>>),
    Deleted {
        receipts: Vec<Receipt>,
        answers: Vec<Result<(), Fault>>,
        tries: u32,
        done: Option<oneshot::Sender<()>>,
    },
    Released,
}

pub(crate) struct Leases {
    queue: Arc<dyn Queue>,
    clock: Clock,
    times: LeaseTimes,
    journal: Journal,
    held: BTreeMap<MessageId, Lease>,
    in_flight: FuturesUnordered<BoxFuture<'static, Returned>>,
    /// Deletes that wait for company, until the inbox is empty.
    deletes: Vec<Receipt>,
}

impl Leases {
    pub(crate) fn new(queue: Arc<dyn Queue>, clock: Clock, times: LeaseTimes, journal: Journal) -> Self {
        Self {
            queue,
            clock,
            times,
            journal,
            held: BTreeMap::new(),
            in_flight: FuturesUnordered::new(),
            deletes: Vec::new(),
        }
    }

    /// Runs until every sender of orders is gone; then hands back what is still held.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut extend_at = self.clock.now() + self.times.extend_every;
        loop {
            tokio::select! {
                biased;
                Some(returned) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.on_return(returned);
                }
                order = orders.recv() => match order {
                    Some(order) => {
                        self.on_order(order);
                        while let Ok(order) = orders.try_recv() {
                            self.on_order(order);
                        }
                        self.flush_deletes();
                    }
                    None => break,
                },
                () = self.clock.sleep_until(extend_at) => {
                    extend_at = self.clock.now() + self.times.extend_every;
                    self.extend();
                }
            }
        }
        let receipts = std::mem::take(&mut self.held).into_values().map(|lease| lease.receipt).collect();
        self.release(receipts);
        while let Some(returned) = self.in_flight.next().await {
            self.on_return(returned);
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Hold { message, receipt, alive, job } => {
                self.held.insert(message, Lease { receipt, alive, job });
            }
            Order::Delete { messages, done } => {
                let receipts = self.take(&messages);
                self.delete(receipts, 1, Some(done));
            }
            Order::Drop { receipt } => self.deletes.push(receipt),
            Order::Release { messages } => {
                let receipts = self.take(&messages);
                self.release(receipts);
            }
            Order::Return { receipt } => self.release(vec![receipt]),
            Order::Forget { messages } => drop(self.take(&messages)),
        }
    }

    fn take(&mut self, messages: &[MessageId]) -> Vec<Receipt> {
        messages.iter().filter_map(|id| self.held.remove(id)).map(|lease| lease.receipt).collect()
    }

    /// Extends every lease whose job is alive; the others lapse and come back to somebody.
    fn extend(&mut self) {
        let now = self.clock.now();
        let alive: Vec<(MessageId, Receipt)> = self
            .held
            .iter()
            .filter(|(_, lease)| is_alive(*lease.alive.borrow(), now))
            .map(|(id, lease)| (id.clone(), lease.receipt.clone()))
            .collect();
        for some in alive.chunks(BATCH) {
            let (queue, visibility, some) = (Arc::clone(&self.queue), self.times.visibility, some.to_vec());
            self.in_flight.push(Box::pin(async move {
                let receipts: Vec<Receipt> = some.iter().map(|(_, receipt)| receipt.clone()).collect();
                let call = async { Ok(queue.extend(&receipts, visibility).await) };
                let answers = answer("extending messages", call).await;
                let answers = answers.unwrap_or_else(|fault| vec![Err(fault); receipts.len()]);
                Returned::Extended(some, answers)
            }));
        }
    }

    fn flush_deletes(&mut self) {
        let receipts = std::mem::take(&mut self.deletes);
        self.delete(receipts, 1, None);
    }

    fn delete(&mut self, receipts: Vec<Receipt>, tries: u32, mut done: Option<oneshot::Sender<()>>) {
        if receipts.is_empty() {
            if let Some(done) = done.take() {
                // The job may be gone; then nobody waits.
                done.send(()).unwrap_or_default();
            }
            return;
        }
        let pause = Duration::from_millis(200) * (tries - 1) * (tries - 1);
        for some in receipts.chunks(BATCH) {
            let (queue, clock, receipts) = (Arc::clone(&self.queue), self.clock, some.to_vec());
            let done = done.take();
            self.in_flight.push(Box::pin(async move {
                clock.sleep_until(clock.now() + pause).await;
                let call = async { Ok(queue.delete(&receipts).await) };
                let answers = answer("deleting messages", call).await;
                let answers = answers.unwrap_or_else(|fault| vec![Err(fault); receipts.len()]);
                Returned::Deleted { receipts, answers, tries, done }
            }));
        }
    }

    fn release(&mut self, receipts: Vec<Receipt>) {
        for some in receipts.chunks(BATCH) {
            let (queue, some) = (Arc::clone(&self.queue), some.to_vec());
            self.in_flight.push(Box::pin(async move {
                // What cannot be handed back lapses by itself.
                let call = async { Ok(queue.extend(&some, Duration::ZERO).await) };
                answer("handing messages back", call).await.map(drop).unwrap_or_default();
                Returned::Released
            }));
        }
    }

    fn on_return(&mut self, returned: Returned) {
        match returned {
            Returned::Released => {}
            Returned::Extended(leases, answers) => {
                let mut newest = None;
                for ((message, receipt), answer) in leases.into_iter().zip(answers) {
                    match answer {
                        Ok(Held::Extended) => {}
                        Ok(Held::Lost) => self.on_lost(message, &receipt),
                        Err(fault) => newest = Some(fault),
                    }
                }
                self.tell(newest);
            }
            Returned::Deleted { receipts, answers, tries, done } => {
                let mut newest = None;
                let failed: BTreeSet<Receipt> = receipts
                    .into_iter()
                    .zip(answers)
                    .filter_map(|(receipt, answer)| {
                        newest = Some(answer.err()?);
                        Some(receipt)
                    })
                    .collect();
                self.tell(newest);
                if tries < DELETE_TRIES {
                    self.delete(failed.into_iter().collect(), tries + 1, done);
                } else {
                    self.delete(Vec::new(), tries, done);
                }
            }
        }
    }

    /// What refused one message of a batch mostly refused them all: it is told once.
    fn tell(&self, fault: Option<Fault>) {
        if let Some(fault) = fault {
            self.journal.record(Fact::QueueFaulted { fault });
        }
    }

    /// The job goes on, but this receipt deletes nothing any more: the next delivery brings a new one.
    fn on_lost(&mut self, message: MessageId, receipt: &Receipt) {
        let current = self.held.get(&message).is_some_and(|lease| lease.receipt == *receipt);
        if let (true, Some(lease)) = (current, self.held.remove(&message)) {
            self.journal.record(Fact::LeaseLost { message: message.clone() });
            // A job that has just ended needs no telling.
            lease.job.send(Input::LeaseLost(message)).unwrap_or_default();
        }
    }
}

fn is_alive(alive: Alive, now: Timestamp) -> bool {
    now <= alive.promised + GRACE
}
