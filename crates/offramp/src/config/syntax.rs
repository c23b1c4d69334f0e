//! What a single value has to look like. Each reader says what it expected in its error.

use std::net::SocketAddr;
use std::time::Duration;

use axum::http::Uri;
use jiff::SignedDuration;
use offramp_core::{IngressDaemonSet, Region, TargetGroupArn};

use super::GroupTag;

/// `30s`, `10m`, `1h30m`. A bare number is refused: 30 seconds and 30 minutes are both likely.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    text.parse::<SignedDuration>().ok().and_then(|span| Duration::try_from(span).ok()).ok_or_else(|| {
        format!("\"{text}\" is no duration; write a number with its unit, such as 30s, 10m or 1h")
    })
}

/// A whole number of at least 1.
pub(super) fn count(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("\"{text}\" is no whole number of at least 1")),
    }
}

/// An absolute http(s) URL without a user. What was typed is not repeated where it may hold a password.
pub(super) fn url(text: &str) -> Result<Uri, String> {
    if text.contains('@') {
        return Err("a URL with a user or password in it is refused; credentials come from the environment"
            .to_owned());
    }
    let wrong = || format!("\"{text}\" is no URL that begins with https:// or http://");
    let url: Uri = text.parse().map_err(|_| wrong())?;
    let scheme = url.scheme_str().is_some_and(|scheme| scheme == "https" || scheme == "http");
    if scheme && url.host().is_some_and(|host| !host.is_empty()) { Ok(url) } else { Err(wrong()) }
}

/// A queue's URL: an endpoint, the account and the queue's name.
pub(super) fn queue_url(text: &str) -> Result<String, String> {
    let url = url(text)?;
    let parts: Vec<_> = url.path().split('/').skip(1).collect();
    match parts.as_slice() {
        // EventBridge and lifecycle hooks would have to be given a message group, and one that waits for its drain
        // would hold up every later one (SQS DG, FIFO queues).
        [.., name] if name.ends_with(".fifo") => Err(format!(
            "\"{text}\" is a FIFO queue, in which one removal would hold up the next; make a standard queue"
        )),
        [.., account, name] if !account.is_empty() && !name.is_empty() && url.query().is_none() => {
            Ok(text.to_owned())
        }
        _ => Err(format!(
            "\"{text}\" is no queue URL; it looks like https://sqs.REGION.amazonaws.com/ACCOUNT/NAME"
        )),
    }
}

/// The Region that a queue's URL names: `sqs.REGION.…` in any partition, or the older
/// `REGION.queue.…` (<https://docs.aws.amazon.com/general/latest/gr/sqs-service.html>).
pub(super) fn region_of_queue(url: &str) -> Option<Region> {
    let url: Uri = url.parse().ok()?;
    let labels: Vec<_> = url.host()?.split('.').collect();
    let named = labels.windows(2).find_map(|pair| match pair {
        ["sqs" | "sqs-fips", region] => Some(*region),
        [region, "queue"] => Some(*region),
        _ => None,
    });
    region(named?).ok()
}

/// `eu-west-1`, `us-gov-west-1`.
pub(super) fn region(text: &str) -> Result<Region, String> {
    let parts: Vec<_> = text.split('-').collect();
    let plain = text.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-'));
    let numbered = parts.last().is_some_and(|last| last.parse::<u8>().is_ok());
    if plain && numbered && parts.len() >= 3 {
        Ok(Region::new(text))
    } else {
        Err(format!("\"{text}\" is no Region; it looks like eu-west-1"))
    }
}

/// `arn:PARTITION:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID`.
pub(super) fn target_group(text: &str) -> Result<TargetGroupArn, String> {
    let parts: Vec<_> = text.split(':').collect();
    let whole = match parts.as_slice() {
        ["arn", partition, "elasticloadbalancing", region, account, resource] => {
            let resource: Vec<_> = resource.split('/').collect();
            let named = matches!(resource.as_slice(), ["targetgroup", name, id] if !name.is_empty() && !id.is_empty());
            named && partition.starts_with("aws") && !region.is_empty() && is_account(account)
        }
        _ => false,
    };
    if whole {
        Ok(TargetGroupArn::new(text))
    } else {
        Err(format!(
            "\"{text}\" is no target group ARN; it looks like \
             arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID"
        ))
    }
}

/// `127.0.0.1:9090`.
pub(super) fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| format!("\"{text}\" is no IP address with a port, such as 127.0.0.1:9090"))
}

/// `NAMESPACE/NAME`.
pub(super) fn daemon_set(text: &str) -> Result<IngressDaemonSet, String> {
    match text.split_once('/') {
        Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
            Ok(IngressDaemonSet { namespace: namespace.to_owned(), name: name.to_owned() })
        }
        _ => Err(format!("\"{text}\" is no DaemonSet; write NAMESPACE/NAME")),
    }
}

/// `KEY` or `KEY=VALUE`. A key can hold `=` itself only where it is given without a value, which is not
/// supported, since no tool writes such keys.
pub(super) fn group_tag(text: &str) -> Result<GroupTag, String> {
    let (key, value) = match text.split_once('=') {
        Some((key, value)) => (key, Some(value.to_owned())),
        None => (text, None),
    };
    if key.is_empty() {
        return Err(format!("\"{text}\" is no tag; write KEY or KEY=VALUE"));
    }
    Ok(GroupTag { key: key.to_owned(), value })
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit())
}
