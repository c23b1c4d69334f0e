//! Queue attributes: text by name, as the API has them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{Answer, Refused, Request};
use crate::World;
use crate::world::queue::Redrive;

/// Those that every queue has and nobody set (SQS API, SetQueueAttributes: the defaults).
const DEFAULTS: [(&str, &str); 4] = [
    ("DelaySeconds", "0"),
    ("MaximumMessageSize", "1048576"),
    ("MessageRetentionPeriod", "345600"),
    ("SqsManagedSseEnabled", "true"),
];

/// GetQueueAttributes.
pub(super) fn get(world: &World, name: &str, request: &Request) -> Answer {
    let queue = world.queues.get(name).ok_or_else(Refused::no_queue)?;
    let (waiting, in_flight) = queue.depth(world.now());
    let (account, region) = (&world.events.account, &world.events.region);
    let arn = |name: &str| format!("arn:aws:sqs:{region}:{account}:{name}");
    let created = queue.created.as_millis().div_euclid(1_000).to_string();
    let mut all: Map<String, Value> =
        DEFAULTS.into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
    all.extend(queue.attributes.iter().map(|(name, value)| (name.clone(), value.clone().into())));
    all.insert("ApproximateNumberOfMessages".to_owned(), waiting.to_string().into());
    all.insert("ApproximateNumberOfMessagesDelayed".to_owned(), "0".into());
    all.insert("ApproximateNumberOfMessagesNotVisible".to_owned(), in_flight.to_string().into());
    all.insert("CreatedTimestamp".to_owned(), created.clone().into());
    all.insert("LastModifiedTimestamp".to_owned(), created.into());
    all.insert("QueueArn".to_owned(), arn(name).into());
    all.insert("ReceiveMessageWaitTimeSeconds".to_owned(), queue.wait.as_secs().to_string().into());
    all.insert("VisibilityTimeout".to_owned(), queue.visibility.as_secs().to_string().into());
    if let Some(Redrive { to, max_receive_count }) = &queue.redrive {
        let policy = json!({ "deadLetterTargetArn": arn(to), "maxReceiveCount": max_receive_count });
        all.insert("RedrivePolicy".to_owned(), policy.to_string().into());
    }
    let asked = request.names("AttributeNames");
    if !asked.contains("All") {
        all.retain(|name, _| asked.contains(name));
    }
    Ok(if all.is_empty() { json!({}) } else { json!({ "Attributes": all }) })
}

/// SetQueueAttributes and CreateQueue.
pub(super) fn set(world: &mut World, name: &str, request: &Request) -> Result<(), Refused> {
    let queue = world.queues.get_mut(name).ok_or_else(Refused::no_queue)?;
    for (name, value) in request.0.get("Attributes").and_then(Value::as_object).into_iter().flatten() {
        let text = value.as_str().unwrap_or_default();
        let invalid =
            || Refused::new("InvalidAttributeValue", format!("Invalid value for the parameter {name}."));
        let seconds = || text.parse().map(Duration::from_secs).map_err(|_| invalid());
        match name.as_str() {
            "VisibilityTimeout" => queue.visibility = seconds()?,
            "ReceiveMessageWaitTimeSeconds" => queue.wait = seconds()?,
            "RedrivePolicy" => queue.redrive = Some(redrive(text).ok_or_else(invalid)?),
            _ => {
                queue.attributes.insert(name.clone(), text.to_owned());
            }
        }
    }
    Ok(())
}

/// The count is a number or a text with a number: both are accepted.
fn redrive(policy: &str) -> Option<Redrive> {
    let policy: Value = serde_json::from_str(policy).ok()?;
    let to = policy.get("deadLetterTargetArn")?.as_str()?.rsplit(':').next()?.to_owned();
    let count = policy.get("maxReceiveCount")?;
    let count = count.as_u64().or_else(|| count.as_str()?.parse().ok())?;
    Some(Redrive { to, max_receive_count: u32::try_from(count).ok()? })
}
