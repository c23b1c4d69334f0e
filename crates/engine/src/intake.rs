//! From the queue to a job: receive, parse, hand on. Start reading here, then `job.rs`, core's
//! `walk.rs`, and `act.rs`.

use std::panic::catch_unwind;
use std::sync::Arc;
use std::time::Duration;

use offramp_core::{Delivery, Notice, Timestamp, Trigger};
use offramp_wire::{Parsed, parse};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::arrival::Arrival;
use crate::clock::Clock;
use crate::dead_letters::Unreadable;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::lease::{LeaseTimes, Order};
use crate::ports::{Fault, Message, Queue};
use crate::retry::{GrowingPauses, timeout};

/// How long a receive waits for messages. Long enough to cost little (four loops make 48 calls a minute
/// on an idle queue), short enough for a shutdown: a running poll is never dropped, because its messages
/// would stay hidden.
pub(crate) const POLL: Duration = Duration::from_secs(5);

/// SQS hands out ten messages at a time.
const MOST: usize = 10;

/// An event's time may lie this far ahead of our clock. Clocks that are kept in step differ by less than a second;
/// a time in the year 9999 would hold a job and its node for ever.
const AHEAD: Duration = Duration::from_secs(60);

/// How the intake is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntakeHealth {
    /// When a receive last came back, with messages, without, or with a fault; by the clock as nobody has moved it.
    pub at: Timestamp,
    /// Why the queue cannot be read, if so. `None` before the first answer too.
    pub fault: Option<Fault>,
    /// A receive has succeeded.
    pub connected: bool,
}

/// One of several loops that receive.
#[derive(Clone)]
pub(crate) struct Intake {
    pub(crate) queue: Arc<dyn Queue>,
    /// A permit covers a message from its receipt to the first try to isolate.
    pub(crate) permits: Arc<Semaphore>,
    pub(crate) arrivals: mpsc::Sender<Arrival>,
    pub(crate) dead_letters: mpsc::Sender<Unreadable>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) lease: LeaseTimes,
    pub(crate) intake_health: watch::Sender<IntakeHealth>,
    pub(crate) journal: Journal,
    pub(crate) clock: Clock,
    /// Nothing is handed on before: how old an event is is the first thing that counts.
    pub(crate) clock_is_measured: watch::Receiver<bool>,
}

impl Intake {
    /// Receives until told to stop.
    pub(crate) async fn run(mut self, number: usize, stop: CancellationToken) {
        let mut pauses = GrowingPauses::new(&format!("intake {number}"));
        while let Some(mut permits) = self.permits(&stop).await {
            let receive = self.queue.receive(permits.len(), POLL, self.lease.visibility);
            let received = timeout("receiving messages", receive).await;
            self.intake_health.send_modify(|intake_health| {
                intake_health.at = self.clock.unmoved();
                intake_health.connected |= received.is_ok();
                intake_health.fault = received.as_ref().err().cloned();
            });
            self.journal.metrics().connected(received.is_ok());
            match received {
                Ok(messages) => {
                    pauses.reset();
                    // Its sender goes without an answer only where the worker ends.
                    self.clock_is_measured.wait_for(|measured| *measured).await.map(drop).unwrap_or_default();
                    for message in messages {
                        self.take(message, permits.pop(), &stop).await;
                    }
                }
                Err(fault) => {
                    drop(permits);
                    self.journal.record(Fact::QueueFaulted { fault });
                    let again = self.clock.now() + pauses.next();
                    tokio::select! {
                        biased;
                        () = stop.cancelled() => {}
                        () = self.clock.sleep_until(again) => {}
                    }
                }
            }
        }
    }

    /// Waits for one permit, and takes up to nine more: never more messages than permits.
    async fn permits(&self, stop: &CancellationToken) -> Option<Vec<OwnedSemaphorePermit>> {
        let first = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            permit = Arc::clone(&self.permits).acquire_owned() => permit.ok()?,
        };
        let mut permits = vec![first];
        while let (true, Ok(permit)) = (permits.len() < MOST, Arc::clone(&self.permits).try_acquire_owned()) {
            permits.push(permit);
        }
        Some(permits)
    }

    /// Hands a message on: to its job, to the dead letters, or back.
    async fn take(&self, message: Message, permit: Option<OwnedSemaphorePermit>, stop: &CancellationToken) {
        if stop.is_cancelled() {
            self.order(Order::Return { receipt: message.receipt });
            return;
        }
        // A message that hits a bug is set aside like any other that cannot be read: ending the worker would
        // only let it come back to the next one.
        let Ok(parsed) = catch_unwind(|| parse(&message.body)) else {
            let why = "this version hits a bug in reading it; please report it".to_owned();
            return self.set_aside(message, why).await;
        };
        match parsed {
            Ok(Parsed::Notices(notices)) => {
                // Shared by the notices of one message: given back when the last has been tried.
                let permit = permit.map(Arc::new);
                for notice in notices {
                    self.hand_on(notice, &message, permit.clone()).await;
                }
            }
            Ok(Parsed::Ignored(why)) => {
                self.journal.record(Fact::Ignored { why: why.as_str() });
                self.order(Order::Drop { receipt: message.receipt });
            }
            // Nothing is done about it, so that it comes back when its visibility ends, at the earliest to a
            // worker that knows it. At once would be a loop without a pause.
            Ok(Parsed::Later) => self.journal.record(Fact::LaterVersion { message: message.id }),
            Err(error) => self.set_aside(message, error.to_string()).await,
        }
    }

    /// The lane takes it or refuses it at once.
    async fn set_aside(&self, message: Message, why: String) {
        // It lives until every intake has ended.
        self.dead_letters.send(Unreadable { message, why }).await.unwrap_or_default();
    }

    async fn hand_on(&self, notice: Notice, message: &Message, permit: Option<Arc<OwnedSemaphorePermit>>) {
        let now = self.clock.now();
        // The queue's clock is the same for every worker, and in every delivery.
        let at = notice.at.min(message.sent_at.unwrap_or(now) + AHEAD);
        let notice = Notice { at, ..notice };
        self.journal.record(Fact::Received {
            instance: notice.instance.clone(),
            trigger: Trigger::of(&notice.kind),
            age: now.since(notice.at),
        });
        let arrival = Arrival {
            notice,
            message: message.id.clone(),
            receipt: message.receipt.clone(),
            delivery: Delivery { at: now, redelivered: message.receive_count > 1 },
            permit,
        };
        // The receiver lives until every intake has ended.
        self.arrivals.send(arrival).await.unwrap_or_default();
    }

    fn order(&self, order: Order) {
        // The lease task outlives every intake.
        self.orders.send(order).unwrap_or_default();
    }
}
