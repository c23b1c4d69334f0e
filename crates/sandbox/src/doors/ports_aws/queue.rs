//! The queue's port.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use offramp_engine::{Depth, Fault, Held, Message, MessageId, Queue, Receipt};

use crate::world::queue::{self, Attribute};
use crate::{Sandbox, World};

/// One queue of a sandbox.
#[derive(Clone, Debug)]
pub struct QueueDoor {
    sandbox: Sandbox,
    name: String,
}

impl QueueDoor {
    /// A port for the queue of this name.
    pub fn new(sandbox: &Sandbox, name: &str) -> Self {
        Self { sandbox: sandbox.clone(), name: name.to_owned() }
    }

    async fn each(
        &self,
        call: &str,
        receipts: &[Receipt],
        effect: impl Fn(&mut World, &str) -> Result<(), queue::Refusal> + Send + Sync,
    ) -> Vec<Result<(), BatchFault>> {
        let pass = match self.sandbox.pass(call, true).await {
            Ok(pass) => pass,
            Err(fault) => return vec![Err(BatchFault::Call(fault)); receipts.len()],
        };
        let answers = self.sandbox.with(|world| {
            let entries = receipts.iter().enumerate();
            let one = |(index, receipt): (usize, &Receipt)| {
                pass.entry(index).map_err(BatchFault::Call)?;
                effect(world, &receipt.0).map_err(BatchFault::Refused)
            };
            entries.map(one).collect()
        });
        match pass.answered().await {
            Ok(()) => answers,
            Err(fault) => vec![Err(BatchFault::Call(fault)); receipts.len()],
        }
    }
}

/// Why one entry of a batch did not work.
#[derive(Clone, Debug)]
enum BatchFault {
    Call(Fault),
    Refused(queue::Refusal),
}

#[async_trait]
impl Queue for QueueDoor {
    async fn receive(
        &self,
        most: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, Fault> {
        let pass = self.sandbox.pass("sqs.ReceiveMessage", false).await?;
        let received =
            self.sandbox.long_poll(&self.name, most, wait, Some(visibility)).await.map_err(no_queue)?;
        pass.answered().await?;
        Ok(received.into_iter().map(message).collect())
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Vec<Result<Held, Fault>> {
        let extend =
            |world: &mut World, receipt: &str| world.change_visibility(&self.name, receipt, visibility);
        let answers = self.each("sqs.ChangeMessageVisibilityBatch", receipts, extend).await;
        let held = |answer| match answer {
            Ok(()) => Ok(Held::Extended),
            Err(BatchFault::Call(fault)) => Err(fault),
            Err(BatchFault::Refused(queue::Refusal::NoQueue)) => Err(no_queue(queue::Refusal::NoQueue)),
            Err(BatchFault::Refused(_)) => Ok(Held::Lost),
        };
        answers.into_iter().map(held).collect()
    }

    async fn delete(&self, receipts: &[Receipt]) -> Vec<Result<(), Fault>> {
        let delete = |world: &mut World, receipt: &str| {
            world.show_delete(&self.name, receipt);
            world.delete_message(&self.name, receipt)
        };
        let answers = self.each("sqs.DeleteMessageBatch", receipts, delete).await;
        let deleted = |answer| match answer {
            Ok(()) => Ok(()),
            Err(BatchFault::Call(fault)) => Err(fault),
            Err(BatchFault::Refused(refusal)) => Err(Fault::Invalid(format!("deleting messages: {refusal}"))),
        };
        answers.into_iter().map(deleted).collect()
    }

    async fn dead_letter(&self, message: &Message, reason: &str) -> Result<(), Fault> {
        let attribute = Attribute { data_type: "String".to_owned(), value: reason.to_owned() };
        let attributes = BTreeMap::from([("offramp.reason".to_owned(), attribute)]);
        let send = |world: &mut World| {
            let redrive = world.queues.get(&self.name).and_then(|queue| queue.redrive.clone());
            let to = redrive.map(|redrive| redrive.to).ok_or(queue::Refusal::NoQueue)?;
            world.send_message(&to, &message.body, attributes, Duration::ZERO)
        };
        let sent = self.sandbox.call("sqs.SendMessage", true, send).await?;
        sent.map(drop).map_err(|refusal| {
            Fault::Invalid(format!("sending a message to the dead-letter queue of {}: {refusal}", self.name))
        })
    }

    async fn send(&self, bodies: &[String]) -> Vec<Result<(), Fault>> {
        let send = |world: &mut World| {
            let sent = bodies
                .iter()
                .map(|body| world.send_message(&self.name, body, BTreeMap::new(), Duration::ZERO));
            sent.map(|sent| sent.map(drop).map_err(no_queue)).collect()
        };
        let sent = self.sandbox.call("sqs.SendMessageBatch", true, send).await;
        sent.unwrap_or_else(|fault| vec![Err(fault); bodies.len()])
    }

    async fn depth(&self) -> Result<Depth, Fault> {
        let look = |world: &mut World| {
            let depth = world.queues.get(&self.name).map(|queue| queue.depth(world.now()));
            depth.map(|depth| (depth, world.now().whole_second()))
        };
        let depth = self.sandbox.call("sqs.GetQueueAttributes", false, look).await?;
        let ((waiting, in_flight), date) = depth.ok_or_else(|| no_queue(queue::Refusal::NoQueue))?;
        Ok(Depth { waiting, in_flight, date: Some(date) })
    }

    async fn dead_letters(&self) -> Result<u64, Fault> {
        let look = |world: &mut World| {
            let redrive = world.queues.get(&self.name).and_then(|queue| queue.redrive.clone());
            let to = redrive.and_then(|redrive| world.queues.get(&redrive.to));
            to.map_or(0, |queue| queue.depth(world.now()).0)
        };
        self.sandbox.call("sqs.GetQueueAttributes", false, look).await
    }
}

impl Sandbox {
    /// ReceiveMessage with its wait. Whoever drops it takes no message along: messages are taken at one
    /// moment, at its very end.
    pub(crate) async fn long_poll(
        &self,
        queue: &str,
        most: usize,
        wait: Duration,
        visibility: Option<Duration>,
    ) -> Result<Vec<queue::Received>, queue::Refusal> {
        let (clock, mut changes) = (self.clock(), self.changes());
        let until = self.now() + wait;
        loop {
            // Looks before it takes: taking wakes everybody who waits, and two would wake each other.
            if self.peek(|world| world.has_visible(queue))? {
                let received = self.with(|world| world.receive_messages(queue, most, visibility))?;
                if !received.is_empty() {
                    return Ok(received);
                }
            }
            if self.now() >= until {
                return Ok(Vec::new());
            }
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = clock.sleep_until(until) => {}
            }
        }
    }
}

fn message(received: queue::Received) -> Message {
    let queue::Received { receipt, message } = received;
    Message {
        id: MessageId(message.id),
        receipt: Receipt(receipt),
        body: message.body,
        receive_count: message.receive_count,
        sent_at: Some(message.sent_at),
    }
}

fn no_queue(refusal: queue::Refusal) -> Fault {
    Fault::Denied(format!("using a queue: {refusal}"))
}
