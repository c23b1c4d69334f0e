//! SQS: standard queues with visibility, receive counts, redrive and receipts.
//!
//! Follows the SQS developer guide and API reference, and where `aws.md` 3.1 has recordings of the real
//! service, those. Liberties: the oldest visible message comes first, the counts are exact, nothing is ever
//! too old or too big, and any number may be in flight.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::Timestamp;

use super::{Due as WorldDue, World};

/// A message is hidden for at most 12 hours counted from its receipt (SQS developer guide,
/// `sqs-visibility-timeout.html`).
pub const VISIBILITY_LIMIT: Duration = Duration::from_secs(43_200);

/// Every queue of the account, by name.
#[derive(Debug, Default)]
pub struct Queues {
    queues: BTreeMap<String, Queue>,
    /// So many of the next events never arrive: a rule that is disabled, a policy of the queue that refuses them.
    pub lose_next: u32,
    /// So many of the next received messages stay visible and are delivered again at once: a standard
    /// queue delivers at least once.
    pub duplicate_next: u32,
}

/// One standard queue.
#[derive(Clone, Debug)]
pub struct Queue {
    /// How long a received message is hidden where the receiver does not say.
    pub visibility: Duration,
    /// How long a receive waits where the receiver does not say.
    pub wait: Duration,
    /// Where a message goes that was received too often.
    pub redrive: Option<Redrive>,
    /// Every other attribute as it was set.
    pub attributes: BTreeMap<String, String>,
    /// When it was made.
    pub created: Timestamp,
    messages: BTreeMap<u64, Stored>,
    sequence: u64,
}

/// The redrive policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redrive {
    /// The dead-letter queue's name.
    pub to: String,
    /// After so many receives the next one moves it.
    pub max_receive_count: u32,
}

/// An attribute that the sender gave a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attribute {
    /// `String`, `Number` or `Binary`, perhaps with a suffix.
    pub data_type: String,
    /// Its value: text, or for `Binary` the Base64 text.
    pub value: String,
}

/// A message in a queue.
#[derive(Clone, Debug)]
pub struct Stored {
    /// Stays the same over all deliveries.
    pub id: String,
    /// As it was sent.
    pub body: String,
    /// What the sender gave it.
    pub attributes: BTreeMap<String, Attribute>,
    /// When it was sent.
    pub sent_at: Timestamp,
    /// From when on it can be received.
    pub visible_at: Timestamp,
    /// How often it was received.
    pub receive_count: u32,
    /// When it was first received.
    pub first_received: Option<Timestamp>,
    delivery: Option<Delivery>,
}

#[derive(Clone, Debug)]
struct Delivery {
    receipt: String,
    at: Timestamp,
}

/// A message as a receiver gets it.
#[derive(Clone, Debug)]
pub struct Received {
    /// Names this delivery.
    pub receipt: String,
    /// The message after this receive.
    pub message: Stored,
}

/// Why SQS refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such queue.
    #[error("The specified queue does not exist.")]
    NoQueue,
    /// This was never a receipt.
    #[error("The input receipt handle is invalid.")]
    NotAReceipt,
    /// The message is not in flight under this receipt.
    #[error("The specified message isn't in flight.")]
    NotInFlight,
    /// More than 12 hours from its receipt.
    #[error("Total VisibilityTimeout for the message is beyond the limit [43200 seconds].")]
    BeyondLimit,
}

/// What queues are waiting for.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// An event reaches a queue.
    Arrives { queue: String, body: String },
    /// A hidden message may be visible again: nothing to do but to wake the long polls.
    Visible,
}

impl Queues {
    /// One queue.
    pub fn get(&self, name: &str) -> Option<&Queue> {
        self.queues.get(name)
    }

    /// One queue, to change it.
    pub fn get_mut(&mut self, name: &str) -> Option<&mut Queue> {
        self.queues.get_mut(name)
    }

    /// The names of all queues.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.queues.keys().map(String::as_str)
    }
}

impl Queue {
    /// Every message, the oldest first.
    pub fn messages(&self) -> impl Iterator<Item = &Stored> {
        self.messages.values()
    }

    /// How many messages wait, and how many are in flight.
    pub fn depth(&self, now: Timestamp) -> (u64, u64) {
        let waiting = self.messages.values().filter(|message| message.visible_at <= now).count() as u64;
        (waiting, self.messages.len() as u64 - waiting)
    }

    /// The message whose newest delivery has this receipt: the one that a delete would take away.
    pub fn delivered_as(&self, receipt: &str) -> Option<&Stored> {
        let message = self.messages.get(&place_in(receipt).ok()?)?;
        message.delivery.as_ref().filter(|delivery| delivery.receipt == receipt).map(|_| message)
    }

    /// Every hidden message can be received again, as it will be when its visibility timeout is over: for
    /// tests that have no time to wait for that.
    pub fn let_timeouts_pass(&mut self, now: Timestamp) {
        self.messages.values_mut().for_each(|message| message.visible_at = message.visible_at.min(now));
    }

    /// Another consumer takes a message for good.
    pub fn take(&mut self, id: &str) {
        self.messages.retain(|_, message| message.id != id);
    }

    /// Forgets every message.
    pub fn purge(&mut self) {
        self.messages.clear();
    }
}

impl World {
    /// Makes a queue, or leaves the one that is there.
    pub fn create_queue(&mut self, name: &str) -> &mut Queue {
        let created = self.now;
        self.queues.queues.entry(name.to_owned()).or_insert_with(|| Queue {
            visibility: Duration::from_secs(30),
            wait: Duration::ZERO,
            redrive: None,
            attributes: BTreeMap::new(),
            created,
            messages: BTreeMap::new(),
            sequence: 0,
        })
    }

    /// Makes the queue that events go to, and its dead-letter queue.
    pub fn create_event_queue(&mut self, name: &str, max_receive_count: u32) {
        let to = format!("{name}-dlq");
        self.create_queue(&to);
        self.create_queue(name).redrive = Some(Redrive { to, max_receive_count });
        self.events.queue = Some(name.to_owned());
    }

    /// Puts a message into a queue and gives its id.
    pub fn send_message(
        &mut self,
        queue: &str,
        body: &str,
        attributes: BTreeMap<String, Attribute>,
        delay: Duration,
    ) -> Result<String, Refusal> {
        let id = self.uuid();
        let now = self.now;
        let target = self.queues.queues.get_mut(queue).ok_or(Refusal::NoQueue)?;
        let message = Stored {
            id: id.clone(),
            body: body.to_owned(),
            attributes,
            sent_at: now,
            visible_at: now + delay,
            receive_count: 0,
            first_received: None,
            delivery: None,
        };
        target.sequence += 1;
        target.messages.insert(target.sequence, message);
        if delay > Duration::ZERO {
            self.after(delay, WorldDue::Queue(Due::Visible));
        }
        Ok(id)
    }

    /// Whether a receive would get anything now.
    pub fn has_visible(&self, queue: &str) -> Result<bool, Refusal> {
        let queue = self.queues.get(queue).ok_or(Refusal::NoQueue)?;
        Ok(queue.messages.values().any(|message| message.visible_at <= self.now))
    }

    /// Receives at most `most` messages and hides them. A message that was received as often as the
    /// redrive policy allows moves to the dead-letter queue instead (SQS developer guide,
    /// `sqs-dead-letter-queues.html`).
    pub fn receive_messages(
        &mut self,
        name: &str,
        most: usize,
        visibility: Option<Duration>,
    ) -> Result<Vec<Received>, Refusal> {
        let now = self.now;
        let queue = self.queues.get(name).ok_or(Refusal::NoQueue)?;
        let visibility = visibility.unwrap_or(queue.visibility);
        let (redrive, places) = (queue.redrive.clone(), queue.visible(now));
        let mut received = Vec::new();
        for place in places {
            if received.len() == most {
                break;
            }
            let receipt = format!("AQEB{place:016x}{}", self.uuid());
            let duplicated = self.queues.duplicate_next > 0;
            let Some(queue) = self.queues.get_mut(name) else { break };
            let Some(message) = queue.messages.get_mut(&place) else { continue };
            if let Some(redrive) = redrive.as_ref().filter(|r| message.receive_count >= r.max_receive_count) {
                let moved = queue.messages.remove(&place);
                self.move_to(&redrive.to, moved);
                continue;
            }
            message.receive_count += 1;
            message.first_received.get_or_insert(now);
            message.delivery = Some(Delivery { receipt: receipt.clone(), at: now });
            message.visible_at = if duplicated { now } else { now + visibility };
            received.push(Received { receipt, message: message.clone() });
            self.queues.duplicate_next -= u32::from(duplicated);
        }
        if !received.is_empty() {
            self.after(visibility, WorldDue::Queue(Due::Visible));
        }
        Ok(received)
    }

    /// Deletes a message. An older receipt is answered with success and deletes nothing while a newer
    /// delivery exists; after the visibility timeout the newest receipt still deletes (`aws.md` 3.1).
    pub fn delete_message(&mut self, queue: &str, receipt: &str) -> Result<(), Refusal> {
        let queue = self.queues.get_mut(queue).ok_or(Refusal::NoQueue)?;
        let place = place_in(receipt)?;
        let newest = queue.messages.get(&place).and_then(|message| message.delivery.as_ref());
        if newest.is_some_and(|delivery| delivery.receipt == receipt) {
            queue.messages.remove(&place);
        }
        Ok(())
    }

    /// Sets how long a message stays hidden from now on; zero hands it back. Works with the newest
    /// receipt, also after the timeout has passed (`aws.md` 3.1), and never beyond 12 hours in total.
    pub fn change_visibility(
        &mut self,
        name: &str,
        receipt: &str,
        visibility: Duration,
    ) -> Result<(), Refusal> {
        let now = self.now;
        let queue = self.queues.get_mut(name).ok_or(Refusal::NoQueue)?;
        let place = place_in(receipt)?;
        let message = queue.messages.get_mut(&place).ok_or(Refusal::NotInFlight)?;
        let delivery = message.delivery.as_mut().filter(|d| d.receipt == receipt && d.at != HANDED_BACK);
        let delivery = delivery.ok_or(Refusal::NotInFlight)?;
        if now + visibility > delivery.at + VISIBILITY_LIMIT {
            return Err(Refusal::BeyondLimit);
        }
        if visibility.is_zero() {
            delivery.at = HANDED_BACK;
        }
        message.visible_at = now + visibility;
        if visibility > Duration::ZERO {
            self.after(visibility, WorldDue::Queue(Due::Visible));
        }
        Ok(())
    }

    pub(crate) fn queue_due(&mut self, due: Due) {
        match due {
            // The queue may have been deleted meanwhile; then the event has nowhere to go.
            Due::Arrives { queue, .. } if self.queues.lose_next > 0 => {
                self.queues.lose_next -= 1;
                self.tell(format!("an event for queue {queue} is lost"));
            }
            Due::Arrives { queue, body } => {
                if let Err(refusal) = self.send_message(&queue, &body, BTreeMap::new(), Duration::ZERO) {
                    self.tell(format!("an event for queue {queue} is dropped: {refusal}"));
                }
            }
            Due::Visible => {}
        }
    }

    /// A message in a dead-letter queue keeps its id and the time it was sent.
    fn move_to(&mut self, dead_letters: &str, message: Option<Stored>) {
        let now = self.now;
        let Some(message) = message else { return };
        self.tell(format!("message {} goes to {dead_letters}", message.id));
        if let Some(target) = self.queues.get_mut(dead_letters) {
            target.sequence += 1;
            let message = Stored { visible_at: now, delivery: None, ..message };
            target.messages.insert(target.sequence, message);
        }
    }
}

impl Queue {
    fn visible(&self, now: Timestamp) -> Vec<u64> {
        let visible = self.messages.iter().filter(|(_, message)| message.visible_at <= now);
        visible.map(|(place, _)| *place).collect()
    }
}

/// Marks a delivery that was handed back: its receipt can still delete, but not hide again.
const HANDED_BACK: Timestamp = Timestamp::from_millis(i64::MIN);

/// A receipt says which message it is for, so that one of a deleted message is still known as such.
fn place_in(receipt: &str) -> Result<u64, Refusal> {
    let digits = receipt.strip_prefix("AQEB").and_then(|rest| rest.get(..16));
    digits.and_then(|hex| u64::from_str_radix(hex, 16).ok()).ok_or(Refusal::NotAReceipt)
}

#[cfg(test)]
mod tests;
