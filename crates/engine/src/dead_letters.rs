//! Messages that cannot be read, on their way to the dead-letter queue. A lane of its own: a dead-letter
//! queue that hangs holds up no notice, and liveness does not restart a worker for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::fact::Fact;
use crate::journal::Journal;
use crate::lease::Order;
use crate::ports::{Fault, Message, MessageId, Queue, Receipt};
use crate::retry::timeout;

/// Calls at a time. SQS answers in some 20 ms, so four make 200 a second, twice what the intake brings.
const AT_ONCE: usize = 4;
/// Messages that wait for their turn. A body has at most 1 MiB (SQS), so they hold 50 MiB at most, and 50 KB
/// where they are events. One more is left in the queue, and comes back when its visibility ends.
const WAITING: usize = 50;

/// A message and what is wrong with it.
#[derive(Debug)]
pub(crate) struct Unreadable {
    pub(crate) message: Message,
    pub(crate) why: String,
}

/// The lane.
pub(crate) struct DeadLetters {
    queue: Arc<dyn Queue>,
    orders: mpsc::UnboundedSender<Order>,
    journal: Journal,
    waiting: VecDeque<Unreadable>,
    in_flight: FuturesUnordered<BoxFuture<'static, (Unreadable, Result<(), Fault>)>>,
    /// The newest receipt of every message that is here. While one waits it becomes visible and is received
    /// again, and then its old receipt deletes nothing.
    receipts: BTreeMap<MessageId, Receipt>,
}

impl DeadLetters {
    pub(crate) fn new(queue: Arc<dyn Queue>, orders: mpsc::UnboundedSender<Order>, journal: Journal) -> Self {
        Self {
            queue,
            orders,
            journal,
            waiting: VecDeque::new(),
            in_flight: FuturesUnordered::new(),
            receipts: BTreeMap::new(),
        }
    }

    /// Runs until the intakes have ended. Told to stop, it finishes its calls and hands back what waits.
    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Unreadable>, stop: CancellationToken) {
        let mut open = true;
        while open || !self.in_flight.is_empty() {
            tokio::select! {
                biased;
                Some((unreadable, answer)) = self.in_flight.next(), if !self.in_flight.is_empty() => {
                    self.on_answer(unreadable, answer);
                }
                unreadable = inbox.recv(), if open => match unreadable {
                    Some(unreadable) => self.take(unreadable),
                    None => open = false,
                },
                () = stop.cancelled(), if !self.waiting.is_empty() => {
                    for unreadable in std::mem::take(&mut self.waiting) {
                        self.release(&unreadable.message.id);
                    }
                }
            }
            if !stop.is_cancelled() {
                self.send();
            }
        }
    }

    fn take(&mut self, unreadable: Unreadable) {
        let id = unreadable.message.id.clone();
        let receipt = unreadable.message.receipt.clone();
        if let Some(known) = self.receipts.get_mut(&id) {
            *known = receipt;
        } else if self.waiting.len() < WAITING {
            self.receipts.insert(id, receipt);
            self.waiting.push_back(unreadable);
        } else {
            self.journal.record(Fact::DeadLetterPostponed { message: id });
        }
    }

    fn send(&mut self) {
        while self.in_flight.len() < AT_ONCE
            && let Some(unreadable) = self.waiting.pop_front()
        {
            let queue = Arc::clone(&self.queue);
            self.in_flight.push(Box::pin(async move {
                let Unreadable { message, why } = &unreadable;
                let answer = timeout("dead-lettering a message", queue.dead_letter(message, why)).await;
                (unreadable, answer)
            }));
        }
    }

    /// Only where there is a copy does the message go. Where that failed it comes back.
    fn on_answer(&mut self, unreadable: Unreadable, answer: Result<(), Fault>) {
        let Unreadable { message, why } = unreadable;
        let receipt = self.receipts.remove(&message.id).unwrap_or(message.receipt);
        match answer {
            Ok(()) => {
                self.journal.record(Fact::DeadLettered { message: message.id, why });
                self.order(Order::Drop { receipt });
            }
            Err(fault) => self.journal.record(Fact::QueueFaulted { fault }),
        }
    }

    fn release(&mut self, message: &MessageId) {
        if let Some(receipt) = self.receipts.remove(message) {
            self.order(Order::Return { receipt });
        }
    }

    fn order(&self, order: Order) {
        // The lease task outlives this lane.
        self.orders.send(order).unwrap_or_default();
    }
}
