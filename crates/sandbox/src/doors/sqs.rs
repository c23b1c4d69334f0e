//! SQS over AWS JSON 1.0.
//!
//! Error codes and texts are those of the recordings named in `aws.md` 3.1, else of the API reference.
//! Binary message attributes are refused.

mod refusal;
mod settings;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use md5::{Digest, Md5};
use offramp_core::Timestamp;
use serde_json::{Map, Value, json};

use crate::world::queue::{Attribute, Received};
use crate::{Sandbox, World};
use refusal::Refused;

type Answer = Result<Value, Refused>;

/// Answers one request.
pub(super) async fn answer(sandbox: &Sandbox, operation: &str, host: &str, body: &[u8]) -> Response {
    sandbox.read(|world| world.count_call(&format!("sqs.{operation}")));
    let answer = match serde_json::from_slice(body) {
        Ok(request) => perform(sandbox, operation, host, &Request(request)).await,
        Err(_) => Err(Refused::new("SerializationException", "the body is not JSON")),
    };
    let request_id = sandbox.read(World::uuid);
    let (status, error, body) = match answer {
        Ok(body) => (StatusCode::OK, None, body),
        Err(refused) => (refused.status, Some(format!("{};Sender", refused.code)), refused.body()),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/x-amz-json-1.0".to_owned()),
        (HeaderName::from_static("x-amzn-requestid"), request_id),
        // Of the world's clock; the server would write its own.
        (header::DATE, http_date(sandbox.now())),
    ];
    let error = error.map(|error| [(HeaderName::from_static("x-amzn-query-error"), error)]);
    match error {
        Some(error) => (status, headers, error, body.to_string()).into_response(),
        None => (status, headers, body.to_string()).into_response(),
    }
}

fn http_date(at: Timestamp) -> String {
    let at = jiff::Timestamp::from_millisecond(at.as_millis()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

async fn perform(sandbox: &Sandbox, operation: &str, host: &str, request: &Request) -> Answer {
    match operation {
        "ReceiveMessage" => receive(sandbox, request).await,
        "SendMessage" => sandbox.with(|world| send(world, &request.queue()?, request)),
        "SendMessageBatch" => batch(sandbox, request, send),
        "DeleteMessage" => sandbox.with(|world| delete(world, &request.queue()?, request)),
        "DeleteMessageBatch" => batch(sandbox, request, delete),
        "ChangeMessageVisibility" => sandbox.with(|world| change(world, &request.queue()?, request)),
        "ChangeMessageVisibilityBatch" => batch(sandbox, request, change),
        "PurgeQueue" => sandbox.with(|world| {
            let name = request.queue()?;
            world.queues.get_mut(&name).ok_or_else(Refused::no_queue)?.purge();
            Ok(json!({}))
        }),
        "GetQueueUrl" => sandbox.read(|world| {
            let name = request.text("QueueName").ok_or_else(|| Refused::missing("QueueName"))?;
            world.queues.get(name).ok_or_else(Refused::no_queue)?;
            Ok(json!({ "QueueUrl": url(world, host, name) }))
        }),
        "ListQueues" => sandbox.read(|world| {
            let prefix = request.text("QueueNamePrefix").unwrap_or_default();
            let names = world.queues.names().filter(|name| name.starts_with(prefix));
            let urls: Vec<String> = names.map(|name| url(world, host, name)).collect();
            Ok(if urls.is_empty() { json!({}) } else { json!({ "QueueUrls": urls }) })
        }),
        "CreateQueue" => sandbox.with(|world| {
            let name = request.text("QueueName").ok_or_else(|| Refused::missing("QueueName"))?;
            world.create_queue(name);
            settings::set(world, name, request)?;
            Ok(json!({ "QueueUrl": url(world, host, name) }))
        }),
        "SetQueueAttributes" => sandbox.with(|world| {
            settings::set(world, &request.queue()?, request)?;
            Ok(json!({}))
        }),
        "GetQueueAttributes" => sandbox.read(|world| settings::get(world, &request.queue()?, request)),
        _ => Err(Refused::not_implemented(operation)),
    }
}

async fn receive(sandbox: &Sandbox, request: &Request) -> Answer {
    let name = request.queue()?;
    let default_wait = sandbox.peek(|world| world.queues.get(&name).map(|queue| queue.wait));
    let most = request.number("MaxNumberOfMessages", 1, 1..=10, "between 1 and 10")?;
    let wait = request.number(
        "WaitTimeSeconds",
        default_wait.ok_or_else(Refused::no_queue)?.as_secs(),
        0..=20,
        ">= 0 and <= 20",
    )?;
    let visibility = request.visibility()?;
    let most = usize::try_from(most).unwrap_or(10);
    let received = sandbox.long_poll(&name, most, Duration::from_secs(wait), visibility).await?;
    let mut system = request.names("MessageSystemAttributeNames");
    system.extend(request.names("AttributeNames"));
    let own = request.names("MessageAttributeNames");
    let messages: Vec<Value> = received.iter().map(|received| message(received, &system, &own)).collect();
    Ok(if messages.is_empty() { json!({}) } else { json!({ "Messages": messages }) })
}

fn send(world: &mut World, queue: &str, request: &Request) -> Answer {
    let body = request.text("MessageBody").filter(|body| !body.is_empty());
    let body = body.ok_or_else(|| Refused::missing("MessageBody"))?;
    let attributes = request.attributes()?;
    let delay = request.number("DelaySeconds", 0, 0..=900, ">= 0 and <= 900")?;
    let digest = digest(&attributes);
    let id = world.send_message(queue, body, attributes, Duration::from_secs(delay))?;
    let mut answer = json!({ "MessageId": id, "MD5OfMessageBody": hex(&Md5::digest(body)) });
    if let Some(digest) = digest {
        answer["MD5OfMessageAttributes"] = digest.into();
    }
    Ok(answer)
}

fn delete(world: &mut World, queue: &str, request: &Request) -> Answer {
    world.delete_message(queue, request.receipt()?)?;
    Ok(json!({}))
}

fn change(world: &mut World, queue: &str, request: &Request) -> Answer {
    let visibility = request.visibility()?.ok_or_else(|| Refused::missing("VisibilityTimeout"))?;
    let receipt = request.receipt()?;
    world
        .change_visibility(queue, receipt, visibility)
        .map_err(|refusal| Refused::visibility(refusal, receipt, visibility.as_secs()))?;
    Ok(json!({}))
}

/// Up to ten entries, each with its own result: "the result of the action on each message is reported
/// individually in the response" (SQS API).
fn batch(sandbox: &Sandbox, request: &Request, one: fn(&mut World, &str, &Request) -> Answer) -> Answer {
    let queue = request.queue()?;
    let entries = request.0.get("Entries").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let ids = batch_ids(entries)?;
    sandbox.with(|world| {
        world.queues.get(&queue).ok_or_else(Refused::no_queue)?;
        let (mut successful, mut failed) = (Vec::new(), Vec::new());
        for (id, entry) in ids.into_iter().zip(entries) {
            match one(world, &queue, &Request(entry.clone())) {
                Ok(mut answer) => {
                    answer["Id"] = id.into();
                    successful.push(answer);
                }
                Err(refused) => failed.push(json!({
                    "Id": id, "Code": refused.code, "Message": refused.message, "SenderFault": true,
                })),
            }
        }
        let mut answer = json!({ "Successful": successful });
        if !failed.is_empty() {
            answer["Failed"] = failed.into();
        }
        Ok(answer)
    })
}

fn batch_ids(entries: &[Value]) -> Result<Vec<String>, Refused> {
    if entries.is_empty() {
        return Err(Refused::empty_batch());
    }
    if entries.len() > 10 {
        return Err(Refused::too_many(entries.len()));
    }
    let mut ids = Vec::new();
    for entry in entries {
        let id = entry.get("Id").and_then(Value::as_str).unwrap_or_default();
        let fits = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'));
        if !fits || id.is_empty() || id.len() > 80 {
            return Err(Refused::invalid_id());
        }
        if ids.iter().any(|other| other == id) {
            return Err(Refused::repeated_id(id));
        }
        ids.push(id.to_owned());
    }
    Ok(ids)
}

fn message(received: &Received, system: &BTreeSet<String>, own: &BTreeSet<String>) -> Value {
    let Received { receipt, message } = received;
    let first = message.first_received.map_or(0, |at| at.as_millis());
    let system: Map<String, Value> = [
        ("SenderId", "AIDASANDBOXSENDER0001".to_owned()),
        ("SentTimestamp", message.sent_at.as_millis().to_string()),
        ("ApproximateReceiveCount", message.receive_count.to_string()),
        ("ApproximateFirstReceiveTimestamp", first.to_string()),
    ]
    .into_iter()
    .filter(|(name, _)| system.contains(*name) || system.contains("All"))
    .map(|(name, value)| (name.to_owned(), value.into()))
    .collect();
    let wanted = |name: &str| {
        let prefixed = |asked: &String| asked.strip_suffix(".*").is_some_and(|start| name.starts_with(start));
        own.contains("All") || own.contains(name) || own.iter().any(prefixed)
    };
    let own: BTreeMap<String, Attribute> = message
        .attributes
        .iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, attribute)| (name.clone(), attribute.clone()))
        .collect();
    let mut answer = json!({
        "MessageId": message.id,
        "ReceiptHandle": receipt,
        "MD5OfBody": hex(&Md5::digest(&message.body)),
        "Body": message.body,
    });
    if !system.is_empty() {
        answer["Attributes"] = system.into();
    }
    if let Some(digest) = digest(&own) {
        answer["MD5OfMessageAttributes"] = digest.into();
        answer["MessageAttributes"] = own
            .into_iter()
            .map(|(name, own)| (name, json!({ "DataType": own.data_type, "StringValue": own.value })))
            .collect::<Map<_, _>>()
            .into();
    }
    answer
}

/// The MD5 of message attributes as clients check it (SQS developer guide, `sqs-message-metadata.html`,
/// "Calculating the MD5 message digest for message attributes").
fn digest(attributes: &BTreeMap<String, Attribute>) -> Option<String> {
    if attributes.is_empty() {
        return None;
    }
    let put = |md5: &mut Md5, text: &str| {
        md5.update(u32::try_from(text.len()).unwrap_or(u32::MAX).to_be_bytes());
        md5.update(text);
    };
    let mut md5 = Md5::new();
    for (name, Attribute { data_type, value }) in attributes {
        put(&mut md5, name);
        put(&mut md5, data_type);
        // The transport type of strings and numbers.
        md5.update([1]);
        put(&mut md5, value);
    }
    Some(hex(&md5.finalize()))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn url(world: &World, host: &str, name: &str) -> String {
    format!("http://{host}/{}/{name}", world.events.account)
}

/// The members of one request.
struct Request(Value);

impl Request {
    fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name)?.as_str()
    }

    /// The queue's name out of its URL.
    fn queue(&self) -> Result<String, Refused> {
        let url = self.text("QueueUrl").ok_or_else(|| Refused::missing("QueueUrl"))?;
        Ok(url.rsplit('/').next().unwrap_or_default().to_owned())
    }

    fn receipt(&self) -> Result<&str, Refused> {
        self.text("ReceiptHandle").ok_or_else(|| Refused::missing("ReceiptHandle"))
    }

    fn number(
        &self,
        name: &str,
        default: u64,
        range: std::ops::RangeInclusive<i64>,
        words: &str,
    ) -> Result<u64, Refused> {
        let Some(value) = self.0.get(name).filter(|value| !value.is_null()) else { return Ok(default) };
        let number = value.as_i64().filter(|number| range.contains(number));
        let number = number.and_then(|number| u64::try_from(number).ok());
        number.ok_or_else(|| Refused::out_of_range(name, &value.to_string(), words))
    }

    fn visibility(&self) -> Result<Option<Duration>, Refused> {
        let name = "VisibilityTimeout";
        if self.0.get(name).is_none_or(Value::is_null) {
            return Ok(None);
        }
        Ok(Some(Duration::from_secs(self.number(name, 0, 0..=43_200, ">= 0 and <= 43200")?)))
    }

    fn names(&self, name: &str) -> BTreeSet<String> {
        let names = self.0.get(name).and_then(Value::as_array).into_iter().flatten();
        names.filter_map(Value::as_str).map(str::to_owned).collect()
    }

    fn attributes(&self) -> Result<BTreeMap<String, Attribute>, Refused> {
        let attributes = self.0.get("MessageAttributes").and_then(Value::as_object).into_iter().flatten();
        attributes
            .map(|(name, value)| {
                let text = |part: &str| value.get(part).and_then(Value::as_str).map(str::to_owned);
                let (Some(data_type), Some(value)) = (text("DataType"), text("StringValue")) else {
                    return Err(Refused::not_implemented(
                        "message attributes other than strings and numbers",
                    ));
                };
                Ok((name.clone(), Attribute { data_type, value }))
            })
            .collect()
    }
}
