//! The holds on messages: one task extends, deletes and hands back for all jobs, ten at a time.
//!
//! A lease is short (30 s) and extended while its job is alive, which means at most a moment past the
//! time at which it promised to look again. A worker that dies so gives its messages back within half a
//! minute, and so does a job that panics; one that hangs does a moment after what it had promised.

use std::collections::BTreeMap;
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
use crate::retry::timeout;

/// How much later than promised a job may be before its messages are let go: a tick with every call
/// timing out once.
const GRACE: Duration = Duration::from_secs(10);
/// SQS takes ten entries in a batch.
const BATCH: usize = 10;
/// A delete that failed is tried so often; then the message comes back and finds everything done.
const DELETE_TRIES: u32 = 5;
/// A delete that does not fill its batch keeps this distance from the one before. Five hundred jobs that end
/// within ten seconds are 25 in half a second, so that they share 60 calls instead of making 500. Nobody waits
/// for it, and the message stays hidden for 20 s at least (visibility less extension). A job that ends alone
/// waits for no company.
const DELETE_DISTANCE: Duration = Duration::from_millis(500);

/// At a shutdown the last deletes and hand-backs have so long together, where SQS takes some 20 ms. Before that an intake
/// and a running tick may need ten seconds and five more to fail, and the pod has thirty. A message that is not handed
/// back comes back with the end of its lease, and one that is not deleted finds everything done.
const HAND_OVER: Duration = Duration::from_secs(5);

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
    /// Everything owed is done: delete. `done` is dropped when that has been done, or given up.
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
    Deleted { deletes: Vec<Delete>, answers: Vec<Result<(), Fault>>, tries: u32 },
    Released,
}

/// One message to delete.
struct Delete {
    receipt: Receipt,
    /// The job that waits for it, if any: told when the last of its messages is done with, which is when
    /// the last of these goes.
    _told: Option<Arc<oneshot::Sender<()>>>,
}

pub(crate) struct Leases {
    queue: Arc<dyn Queue>,
    clock: Clock,
    times: LeaseTimes,
    journal: Journal,
    held: BTreeMap<MessageId, Lease>,
    in_flight: FuturesUnordered<BoxFuture<'static, Returned>>,
    /// Deletes that wait for company, and until when.
    deletes: Vec<Delete>,
    delete_at: Timestamp,
    /// Messages to hand back, as soon as the inbox is empty.
    releases: Vec<Receipt>,
}

impl Leases {
    pub(crate) fn new(queue: Arc<dyn Queue>, clock: Clock, times: LeaseTimes, journal: Journal) -> Self {
        Self {
            queue,
            delete_at: clock.now(),
            clock,
            times,
            journal,
            held: BTreeMap::new(),
            in_flight: FuturesUnordered::new(),
            deletes: Vec::new(),
            releases: Vec::new(),
        }
    }

    /// Runs until every sender of orders is gone; then hands back what is still held.
    pub(crate) async fn run(mut self, mut orders: mpsc::UnboundedReceiver<Order>) {
        let mut extend_at = self.clock.now() + self.times.extend_every;
        loop {
            // It may have been set before the clock was moved back (seed 19679).
            self.delete_at = self.delete_at.min(self.clock.now() + DELETE_DISTANCE);
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
                        self.release();
                        self.delete_full_batches();
                    }
                    None => break,
                },
                () = self.clock.sleep_until(self.delete_at), if !self.deletes.is_empty() => {
                    self.delete_at = self.clock.now() + DELETE_DISTANCE;
                    let deletes = std::mem::take(&mut self.deletes);
                    self.delete(deletes, 1);
                }
                () = self.clock.sleep_until(extend_at) => {
                    extend_at = self.clock.now() + self.times.extend_every;
                    self.extend();
                }
            }
        }
        self.hand_over().await;
    }

    /// The last thing, for which no queue that hangs gets more than its time.
    async fn hand_over(mut self) {
        let by = self.clock.now() + HAND_OVER;
        let deletes = std::mem::take(&mut self.deletes);
        self.delete(deletes, 1);
        self.releases.extend(std::mem::take(&mut self.held).into_values().map(|lease| lease.receipt));
        self.release();
        loop {
            tokio::select! {
                biased;
                returned = self.in_flight.next() => match returned {
                    Some(returned) => self.on_return(returned),
                    None => return,
                },
                () = self.clock.sleep_until(by) => return,
            }
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Hold { message, receipt, alive, job } => {
                self.held.insert(message, Lease { receipt, alive, job });
            }
            Order::Delete { messages, done } => {
                let told = Arc::new(done);
                for receipt in self.take(&messages) {
                    self.deletes.push(Delete { receipt, _told: Some(Arc::clone(&told)) });
                }
            }
            Order::Drop { receipt } => self.deletes.push(Delete { receipt, _told: None }),
            Order::Release { messages } => {
                let receipts = self.take(&messages);
                self.releases.extend(receipts);
            }
            Order::Return { receipt } => self.releases.push(receipt),
            Order::Forget { messages } => drop(self.take(&messages)),
        }
    }

    fn take(&mut self, messages: &[MessageId]) -> Vec<Receipt> {
        messages.iter().filter_map(|id| self.held.remove(id)).map(|lease| lease.receipt).collect()
    }

    /// Extends every lease whose job is alive; the others lapse and come back to somebody.
    fn extend(&mut self) {
        let now = self.clock.now();
        // A job that has ended reads nothing any more. Kept until the shutdown, its messages would be handed
        // back with receipts of old, while somebody else works on them.
        self.held.retain(|_, lease| !lease.job.is_closed());
        let alive: Vec<(MessageId, Receipt)> = self
            .held
            .iter()
            .filter(|(_, lease)| now <= lease.alive.borrow().looks_again_by + GRACE)
            .map(|(id, lease)| (id.clone(), lease.receipt.clone()))
            .collect();
        for some in alive.chunks(BATCH) {
            let (queue, visibility, some) = (Arc::clone(&self.queue), self.times.visibility, some.to_vec());
            self.in_flight.push(Box::pin(async move {
                let receipts: Vec<Receipt> = some.iter().map(|(_, receipt)| receipt.clone()).collect();
                let call = async { Ok(queue.extend(&receipts, visibility).await) };
                let answers = timeout("extending messages", call).await;
                let answers = answers.unwrap_or_else(|fault| vec![Err(fault); receipts.len()]);
                Returned::Extended(some, answers)
            }));
        }
    }

    /// What fills a batch has no more company to wait for.
    fn delete_full_batches(&mut self) {
        let full = self.deletes.len() - self.deletes.len() % BATCH;
        let deletes = self.deletes.drain(..full).collect();
        self.delete(deletes, 1);
    }

    fn delete(&mut self, deletes: Vec<Delete>, tries: u32) {
        let pause = Duration::from_millis(200) * (tries - 1) * (tries - 1);
        let mut deletes = deletes.into_iter().peekable();
        while deletes.peek().is_some() {
            let (queue, clock) = (Arc::clone(&self.queue), self.clock.clone());
            let deletes: Vec<Delete> = deletes.by_ref().take(BATCH).collect();
            self.in_flight.push(Box::pin(async move {
                clock.sleep_until(clock.now() + pause).await;
                let receipts: Vec<Receipt> = deletes.iter().map(|delete| delete.receipt.clone()).collect();
                let call = async { Ok(queue.delete(&receipts).await) };
                let answers = timeout("deleting messages", call).await;
                let answers = answers.unwrap_or_else(|fault| vec![Err(fault); receipts.len()]);
                Returned::Deleted { deletes, answers, tries }
            }));
        }
    }

    fn release(&mut self) {
        for some in std::mem::take(&mut self.releases).chunks(BATCH) {
            let (queue, some) = (Arc::clone(&self.queue), some.to_vec());
            self.in_flight.push(Box::pin(async move {
                // What cannot be handed back lapses by itself.
                let call = async { Ok(queue.extend(&some, Duration::ZERO).await) };
                timeout("handing messages back", call).await.map(drop).unwrap_or_default();
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
            Returned::Deleted { deletes, answers, tries } => {
                let mut newest = None;
                let failed = deletes.into_iter().zip(answers).filter_map(|(delete, answer)| {
                    newest = Some(answer.err()?);
                    Some(delete)
                });
                let failed = failed.collect();
                self.tell(newest);
                if tries < DELETE_TRIES {
                    self.delete(failed, tries + 1);
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
