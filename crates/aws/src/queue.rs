//! One SQS queue with its dead-letter queue.

use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_sqs::Client;
use aws_sdk_sqs::error::BuildError;
use aws_sdk_sqs::types::{
    BatchResultErrorEntry, ChangeMessageVisibilityBatchRequestEntry, DeleteMessageBatchRequestEntry,
    Message as Received, MessageAttributeValue, MessageSystemAttributeName, QueueAttributeName,
    SendMessageBatchRequestEntry,
};
use offramp_core::{AccountRegion, Installation, Timestamp};
use offramp_engine::{Call, Depth, Fault, Held, Message, MessageId, Queue, Receipt};

use crate::date::DateOfAnswer;
use crate::fault::{Reading, Refusal};
use crate::meter::Meter;
use crate::open::{DeadLetterPolicy, OpenError, Opened, open};
use crate::sessions::Access;

/// The engine's queue on SQS.
#[derive(Clone, Debug)]
pub struct SqsQueue {
    client: Client,
    meter: Meter,
    url: String,
    opened: Opened,
}

impl SqsQueue {
    /// Reads what the queue says about itself and finds its dead-letter queue.
    pub async fn open(access: &Access, url: &str, policy: DeadLetterPolicy) -> Result<Self, OpenError> {
        let (client, meter) = (access.sqs(), access.meter());
        let opened = open(&client, &meter, url, policy).await?;
        Ok(Self { client, meter, url: url.to_owned(), opened })
    }

    /// The queue's account and Region: where calls go when an event does not say.
    pub fn account_region(&self) -> &AccountRegion {
        &self.opened.account_region
    }

    /// The workers that share this queue, as records of nodes name them.
    pub fn installation(&self) -> &Installation {
        &self.opened.installation
    }

    /// How often a message is received before SQS itself moves it to the dead-letter queue. Every
    /// hand-over counts, so a low number loses work.
    pub fn most_receives(&self) -> Option<u32> {
        self.opened.most_receives
    }

    /// The visibility timeout of the queue, which counts only for receives that name none.
    pub fn default_visibility(&self) -> Option<Duration> {
        self.opened.visibility
    }
}

#[async_trait]
impl Queue for SqsQueue {
    async fn receive(
        &self,
        most: usize,
        wait: Duration,
        visibility: Duration,
    ) -> Result<Vec<Message>, Fault> {
        let request = self
            .client
            .receive_message()
            .queue_url(&self.url)
            .max_number_of_messages(i32::try_from(most.clamp(1, MOST_IN_BATCH)).unwrap_or(1))
            .wait_time_seconds(whole_seconds(wait.min(LONGEST_POLL)))
            .visibility_timeout(whole_seconds(visibility))
            .message_system_attribute_names(MessageSystemAttributeName::ApproximateReceiveCount)
            .message_system_attribute_names(MessageSystemAttributeName::SentTimestamp);
        let answer = self.meter.send(Call::ReceiveMessage, request.send()).await;
        let answer = answer.map_err(|refusal| refusal.fault("receiving messages"))?;
        Ok(answer.messages.unwrap_or_default().into_iter().filter_map(message).collect())
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Vec<Result<Held, Fault>> {
        let mut answers = Vec::with_capacity(receipts.len());
        for receipts in receipts.chunks(MOST_IN_BATCH) {
            answers.extend(self.extend_batch(receipts, visibility).await);
        }
        answers
    }

    async fn delete(&self, receipts: &[Receipt]) -> Vec<Result<(), Fault>> {
        let mut answers = Vec::with_capacity(receipts.len());
        for receipts in receipts.chunks(MOST_IN_BATCH) {
            answers.extend(self.delete_batch(receipts).await);
        }
        answers
    }

    /// Where the queue has no dead-letter queue, and may have none, there is nothing to do.
    async fn dead_letter(&self, message: &Message, reason: &str) -> Result<(), Fault> {
        let Some(to) = &self.opened.dead_letter_url else { return Ok(()) };
        let doing = "sending a message to the dead-letter queue";
        let reason: String = reason.chars().map(valid).take(MOST_REASON_CHARS).collect();
        let mut attributes = vec![("offramp.message_id", message.id.0.clone())];
        if !reason.is_empty() {
            attributes.push(("offramp.reason", reason));
        }
        let spent: usize = attributes.iter().map(|(name, value)| attribute_bytes(name, value)).sum();
        let body = start_of(&message.body, MOST_BYTES.saturating_sub(spent));

        // A first-in-first-out queue takes only ordered messages.
        let ordered = to.ends_with(".fifo");
        let mut request = self
            .client
            .send_message()
            .queue_url(to)
            .message_body(body)
            .set_message_group_id(ordered.then(|| "offramp".to_owned()))
            .set_message_deduplication_id(ordered.then(|| message.id.0.clone()));
        for (name, value) in attributes {
            let value = MessageAttributeValue::builder().data_type(TEXT).string_value(value).build();
            let value = value.map_err(|error| Fault::Invalid(format!("{doing}: {error}")))?;
            request = request.message_attributes(name, value);
        }
        let sent = self.meter.send(Call::SendMessage, request.send()).await;
        sent.map(drop).map_err(|refusal| refusal.fault(doing))
    }

    async fn send(&self, bodies: &[String]) -> Vec<Result<(), Fault>> {
        let mut answers = Vec::with_capacity(bodies.len());
        for bodies in bodies.chunks(MOST_IN_BATCH) {
            answers.extend(self.send_batch(bodies).await);
        }
        answers
    }

    async fn depth(&self) -> Result<Depth, Fault> {
        self.depth_of(&self.url, "reading the depth of the queue").await
    }

    async fn dead_letters(&self) -> Result<u64, Fault> {
        let Some(url) = &self.opened.dead_letter_url else { return Ok(0) };
        let depth = self.depth_of(url, "reading the depth of the dead-letter queue").await?;
        // Whoever looks at them by hand hides them for a while; they are there nevertheless.
        Ok(depth.waiting + depth.in_flight)
    }
}

impl SqsQueue {
    async fn depth_of(&self, url: &str, doing: &str) -> Result<Depth, Fault> {
        let date = DateOfAnswer::default();
        let request = self
            .client
            .get_queue_attributes()
            .queue_url(url)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessages)
            .attribute_names(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)
            .customize()
            .interceptor(date.clone());
        let answer = self.meter.send(Call::GetQueueAttributes, request.send()).await;
        let answer = answer.map_err(|refusal| refusal.fault(doing))?;
        let attributes = answer.attributes.unwrap_or_default();
        let number = |name: QueueAttributeName| {
            let digits = attributes.get(&name).and_then(|digits| digits.parse().ok());
            digits.ok_or_else(|| Fault::Retry(format!("{doing}: the answer has no {name}")))
        };
        Ok(Depth {
            waiting: number(QueueAttributeName::ApproximateNumberOfMessages)?,
            in_flight: number(QueueAttributeName::ApproximateNumberOfMessagesNotVisible)?,
            date: date.read(),
        })
    }

    async fn extend_batch(&self, receipts: &[Receipt], visibility: Duration) -> Vec<Result<Held, Fault>> {
        let doing = "extending messages";
        let entry = |(index, receipt): (usize, &Receipt)| {
            ChangeMessageVisibilityBatchRequestEntry::builder()
                .id(index.to_string())
                .receipt_handle(&receipt.0)
                .visibility_timeout(whole_seconds(visibility))
                .build()
        };
        let entries = match receipts.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return unbuilt(doing, &error, receipts.len()),
        };
        let request = self.client.change_message_visibility_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries)).send();
        match self.meter.send(Call::ChangeMessageVisibilityBatch, request).await {
            Ok(answer) => {
                let ids = answer.successful().iter().map(|entry| entry.id());
                let refused = |refusal: Refusal| match refusal.reading {
                    Reading::ReceiptLost => Ok(Held::Lost),
                    _ => Err(refusal.fault(doing)),
                };
                sort(doing, receipts.len(), ids, &Held::Extended, answer.failed(), refused)
            }
            Err(refusal) => vec![Err(without(receipts, refusal).fault(doing)); receipts.len()],
        }
    }

    /// Without group and deduplication id: a FIFO queue is refused before it is opened.
    async fn send_batch(&self, bodies: &[String]) -> Vec<Result<(), Fault>> {
        let doing = "sending messages to the queue";
        let entry = |(index, body): (usize, &String)| {
            SendMessageBatchRequestEntry::builder().id(index.to_string()).message_body(body).build()
        };
        let entries = match bodies.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return unbuilt(doing, &error, bodies.len()),
        };
        let request = self.client.send_message_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries)).send();
        match self.meter.send(Call::SendMessageBatch, request).await {
            Ok(answer) => {
                let ids = answer.successful().iter().map(|entry| entry.id());
                sort(doing, bodies.len(), ids, &(), answer.failed(), |refusal| Err(refusal.fault(doing)))
            }
            Err(refusal) => vec![Err(refusal.fault(doing)); bodies.len()],
        }
    }

    async fn delete_batch(&self, receipts: &[Receipt]) -> Vec<Result<(), Fault>> {
        let doing = "deleting messages";
        let entry = |(index, receipt): (usize, &Receipt)| {
            DeleteMessageBatchRequestEntry::builder().id(index.to_string()).receipt_handle(&receipt.0).build()
        };
        let entries = match receipts.iter().enumerate().map(entry).collect::<Result<Vec<_>, _>>() {
            Ok(entries) => entries,
            Err(error) => return unbuilt(doing, &error, receipts.len()),
        };
        let request = self.client.delete_message_batch().queue_url(&self.url);
        let request = request.set_entries(Some(entries)).send();
        match self.meter.send(Call::DeleteMessageBatch, request).await {
            Ok(answer) => {
                let ids = answer.successful().iter().map(|entry| entry.id());
                sort(doing, receipts.len(), ids, &(), answer.failed(), |refusal| Err(refusal.fault(doing)))
            }
            Err(refusal) => vec![Err(without(receipts, refusal).fault(doing)); receipts.len()],
        }
    }
}

/// What SQS takes in one batch, and gives in one receive.
const MOST_IN_BATCH: usize = 10;
/// The longest WaitTimeSeconds.
const LONGEST_POLL: Duration = Duration::from_secs(20);
/// The default MaximumMessageSize of a queue, body and attributes together. No event of AWS's comes near.
const MOST_BYTES: usize = 262_144;
/// Enough for any reason of ours.
const MOST_REASON_CHARS: usize = 256;
/// The data type of a text attribute. It counts towards a message's size.
const TEXT: &str = "String";

/// SQS counts in seconds; rounded up, so that a message is never held for less than asked for.
fn whole_seconds(span: Duration) -> i32 {
    let seconds = span.as_secs() + u64::from(span.subsec_nanos() > 0);
    i32::try_from(seconds).unwrap_or(i32::MAX)
}

/// Nothing for a message without id or receipt: it could neither be named nor deleted, and comes again.
fn message(received: Received) -> Option<Message> {
    let attributes = received.attributes.unwrap_or_default();
    let number = |name: MessageSystemAttributeName| attributes.get(&name).map(String::as_str);
    let receive_count = number(MessageSystemAttributeName::ApproximateReceiveCount);
    let sent_at = number(MessageSystemAttributeName::SentTimestamp);
    Some(Message {
        id: MessageId(received.message_id?),
        receipt: Receipt(received.receipt_handle?),
        body: received.body.unwrap_or_default(),
        receive_count: receive_count.and_then(|digits| digits.parse().ok()).unwrap_or(1),
        sent_at: sent_at.and_then(|digits| digits.parse().ok()).map(Timestamp::from_millis),
    })
}

/// One answer for each item of a batch, in the order of the items. An item of which the answer says
/// nothing may or may not have been done.
fn sort<'a, T: Clone>(
    doing: &str,
    count: usize,
    done_ids: impl Iterator<Item = &'a str>,
    done: &T,
    failed: &[BatchResultErrorEntry],
    refused: impl Fn(Refusal) -> Result<T, Fault>,
) -> Vec<Result<T, Fault>> {
    let mut answers = vec![Err(Fault::Retry(format!("{doing}: the answer leaves a message out"))); count];
    let done = done_ids.map(|id| (id, Ok(done.clone())));
    let refused = failed.iter().map(|item| (item.id(), refused(Refusal::of_item(item))));
    for (id, answer) in done.chain(refused) {
        if let Some(place) = id.parse::<usize>().ok().and_then(|index| answers.get_mut(index)) {
            *place = answer;
        }
    }
    answers
}

fn unbuilt<T: Clone>(doing: &str, error: &BuildError, count: usize) -> Vec<Result<T, Fault>> {
    vec![Err(Fault::Invalid(format!("{doing}: {error}"))); count]
}

fn without(receipts: &[Receipt], refusal: Refusal) -> Refusal {
    receipts.iter().fold(refusal, |refusal, receipt| refusal.hiding(&receipt.0))
}

/// SQS refuses characters that XML 1.0 does not have.
const fn valid(c: char) -> char {
    match c {
        '\t' | '\n' | '\r' | ' '..='\u{D7FF}' | '\u{E000}'..='\u{FFFD}' | '\u{10000}'..='\u{10FFFF}' => c,
        _ => char::REPLACEMENT_CHARACTER,
    }
}

fn attribute_bytes(name: &str, value: &str) -> usize {
    name.len() + TEXT.len() + value.len()
}

/// As much of the text as fits into so many bytes.
fn start_of(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
