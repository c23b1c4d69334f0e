//! What has to be known about a queue before its first message is received.

use std::time::Duration;

use aws_sdk_sqs::Client;
use aws_sdk_sqs::config::timeout::TimeoutConfig;
use aws_sdk_sqs::types::QueueAttributeName;
use offramp_core::{AccountId, AccountRegion, Installation, Region};
use offramp_engine::Call;

use crate::fault::Reading;
use crate::meter::Meter;

/// Why a queue cannot be used. Only [`OpenError::Unreachable`] may pass by itself.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// AWS did not answer, or not now: try again later.
    #[error("{0}")]
    Unreachable(String),
    /// There are no credentials.
    #[error("{0}")]
    NoCredentials(String),
    /// The credentials are refused, or do not permit the call.
    #[error("{0}")]
    Denied(String),
    /// There is no such queue.
    #[error("{0}")]
    NoQueue(String),
    /// The queue has no dead-letter queue that could be used, and has to have one.
    #[error("{0}")]
    NoDeadLetterQueue(String),
    /// Something configured cannot be right.
    #[error("{0}")]
    Invalid(String),
}

/// What to do where the queue's redrive policy names no dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeadLetterPolicy {
    /// Refuse to open it: messages that nobody can read would be lost.
    Required,
    /// Go on. [`dead_letter`](offramp_engine::Queue::dead_letter) then keeps no copy.
    Optional,
}

/// What the queue says about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Opened {
    pub(crate) installation: Installation,
    pub(crate) account_region: AccountRegion,
    pub(crate) visibility: Option<Duration>,
    pub(crate) most_receives: Option<u32>,
    pub(crate) dead_letter_url: Option<String>,
}

/// Reads the queue's attributes and finds its dead-letter queue.
pub(crate) async fn open(
    client: &Client,
    meter: &Meter,
    url: &str,
    policy: DeadLetterPolicy,
) -> Result<Opened, OpenError> {
    let attributes = read_attributes(client, meter, url).await?;
    let attribute = |name: QueueAttributeName| attributes.get(&name).map(String::as_str);
    let arn = attribute(QueueAttributeName::QueueArn).and_then(QueueArn::parse).ok_or_else(|| {
        OpenError::Invalid(format!("opening queue {url}: its QueueArn is missing or is no ARN of a queue"))
    })?;
    let redrive = attribute(QueueAttributeName::RedrivePolicy).map(|text| {
        Redrive::parse(text).ok_or_else(|| {
            OpenError::NoDeadLetterQueue(format!("opening queue {url}: its redrive policy cannot be read"))
        })
    });
    let redrive = redrive.transpose()?;
    let dead_letter_url = match &redrive {
        Some(redrive) => Some(dead_letter_url(client, meter, url, &redrive.to).await?),
        None if policy == DeadLetterPolicy::Optional => None,
        None => {
            return Err(OpenError::NoDeadLetterQueue(format!(
                "opening queue {url}: it has no redrive policy; give it a dead-letter queue, or set \
                 queue.without_dead_letter_queue to allow, and messages that cannot be read are deleted"
            )));
        }
    };
    Ok(Opened {
        installation: Installation::new(format!("{}:{}:{}", arn.region, arn.account, arn.name)),
        visibility: attribute(QueueAttributeName::VisibilityTimeout)
            .and_then(|seconds| seconds.parse().ok())
            .map(Duration::from_secs),
        most_receives: redrive.and_then(|redrive| redrive.most_receives),
        account_region: AccountRegion { account: Some(arn.account), region: Some(arn.region) },
        dead_letter_url,
    })
}

type Attributes = std::collections::HashMap<QueueAttributeName, String>;

async fn read_attributes(client: &Client, meter: &Meter, url: &str) -> Result<Attributes, OpenError> {
    let request = client
        .get_queue_attributes()
        .queue_url(url)
        .attribute_names(QueueAttributeName::QueueArn)
        .attribute_names(QueueAttributeName::RedrivePolicy)
        .attribute_names(QueueAttributeName::VisibilityTimeout)
        .customize()
        .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(start_timeout()));
    let answer = meter.send(Call::GetQueueAttributes, request.send()).await.map_err(|refusal| {
        let text = refusal.text(format_args!("opening queue {url}"));
        match refusal.reading {
            Reading::Retry | Reading::Throttled => OpenError::Unreachable(text),
            Reading::NoCredentials => OpenError::NoCredentials(text),
            Reading::Denied => OpenError::Denied(text),
            Reading::NoQueue => OpenError::NoQueue(text),
            _ => OpenError::Invalid(text),
        }
    })?;
    Ok(answer.attributes.unwrap_or_default())
}

/// Asks SQS for the URL. Where asking is not permitted, or not known to the server, the URL is made from
/// the queue's own: both are in one account and Region, as SQS demands of a dead-letter queue.
async fn dead_letter_url(
    client: &Client,
    meter: &Meter,
    url: &str,
    to: &QueueArn,
) -> Result<String, OpenError> {
    let request = client
        .get_queue_url()
        .queue_name(&to.name)
        .queue_owner_aws_account_id(to.account.as_str())
        .customize()
        .config_override(aws_sdk_sqs::config::Builder::new().timeout_config(start_timeout()));
    let refusal = match meter.send(Call::GetQueueUrl, request.send()).await {
        Ok(answer) => match answer.queue_url {
            Some(url) => return Ok(url),
            None => return sibling_url(url, to),
        },
        Err(refusal) => refusal,
    };
    let text = refusal.text(format_args!("finding the dead-letter queue {} of queue {url}", to.name));
    match refusal.reading {
        Reading::Retry | Reading::Throttled => Err(OpenError::Unreachable(text)),
        Reading::NoCredentials => Err(OpenError::NoCredentials(text)),
        Reading::NoQueue => Err(OpenError::NoDeadLetterQueue(text)),
        _ => sibling_url(url, to),
    }
}

fn sibling_url(url: &str, to: &QueueArn) -> Result<String, OpenError> {
    match url.rsplit_once('/') {
        Some((parent, _)) => Ok(format!("{parent}/{}", to.name)),
        None => Err(OpenError::Invalid(format!("opening queue {url}: this is no URL of a queue"))),
    }
}

/// At the start nobody else bounds a call that is never answered.
fn start_timeout() -> TimeoutConfig {
    TimeoutConfig::builder().operation_timeout(Duration::from_secs(10)).build()
}

/// `arn:PARTITION:sqs:REGION:ACCOUNT:NAME`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct QueueArn {
    region: Region,
    account: AccountId,
    name: String,
}

impl QueueArn {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(6, ':');
        let ("arn", _, "sqs") = (parts.next()?, parts.next()?, parts.next()?) else { return None };
        let (region, account, name) = (parts.next()?, parts.next()?, parts.next()?);
        let whole = !region.is_empty() && !account.is_empty() && !name.is_empty();
        whole.then(|| Self {
            region: Region::new(region),
            account: AccountId::new(account),
            name: name.to_owned(),
        })
    }
}

/// A redrive policy: JSON with `deadLetterTargetArn` and `maxReceiveCount`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Redrive {
    to: QueueArn,
    most_receives: Option<u32>,
}

impl Redrive {
    fn parse(text: &str) -> Option<Self> {
        let policy: serde_json::Value = serde_json::from_str(text).ok()?;
        let to = QueueArn::parse(policy.get("deadLetterTargetArn")?.as_str()?)?;
        // A number, or the same as text: both are accepted and given back as they were set.
        let most_receives = policy.get("maxReceiveCount").and_then(|count| match count {
            serde_json::Value::String(digits) => digits.parse().ok(),
            count => u32::try_from(count.as_u64()?).ok(),
        });
        Some(Self { to, most_receives })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arns_of_queues_are_read_in_every_partition() {
        let check = |text: &str, expect: Option<(&str, &str, &str)>| {
            let arn = QueueArn::parse(text);
            let parts =
                arn.as_ref().map(|arn| (arn.region.as_str(), arn.account.as_str(), arn.name.as_str()));
            assert_eq!(parts, expect, "{text}");
        };
        check("arn:aws:sqs:eu-west-1:111122223333:notices", Some(("eu-west-1", "111122223333", "notices")));
        check("arn:aws-cn:sqs:cn-north-1:111122223333:n", Some(("cn-north-1", "111122223333", "n")));
        check("arn:aws:sns:eu-west-1:111122223333:notices", None);
        check("arn:aws:sqs:eu-west-1:111122223333", None);
        check("arn:aws:sqs:::notices", None);
        check("", None);
    }

    #[test]
    fn redrive_policies_count_in_numbers_or_text() {
        let check = |count: &str, expect: Option<u32>| {
            let text = format!(
                r#"{{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:111122223333:dlq","maxReceiveCount":{count}}}"#
            );
            assert_eq!(Redrive::parse(&text).unwrap().most_receives, expect, "{text}");
        };
        check("100", Some(100));
        check("\"100\"", Some(100));
        check("-1", None);
        assert_eq!(Redrive::parse("{}"), None);
        assert_eq!(Redrive::parse("not json"), None);
    }
}
