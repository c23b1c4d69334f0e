//! What a worker has seen for itself and puts onto its own queue, in the shape of an EventBridge event: a hook whose
//! event was lost, a record that nobody looks after. Any worker of the queue takes it, as it takes an event of AWS.
//!
//! It authorises nothing: whoever may send to the queue could have written it, so that the group and the node are read
//! before anything is done. A token is never in it.

use offramp_core::{AccountRegion, Hook, Notice, NoticeKind, Passage};
use serde::{Deserialize, Serialize};

use crate::Parsed;
use crate::envelope::Event;
use crate::error::ParseError;
use crate::field::Place;
use crate::json::Text;
use crate::lifecycle;

/// `source` of what offramp sends to itself.
pub(crate) const SOURCE: &str = "offramp";

const HOOK: &str = "Waiting Lifecycle Hook";
const RECORD: &str = "Overdue Record";
/// A worker that does not know a version leaves the message to one that does.
const VERSION: u64 = 1;

const PLACE: Place = Place::of("a message of offramp to itself");

/// As every version writes it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Versioned {
    version: serde_json::Value,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
struct About<'a> {
    #[serde(borrow, rename = "EC2InstanceId")]
    instance: Text<'a>,
}

/// Reads it; what this version does not know is of a later one.
pub(crate) fn of_event(event: &Event<'_>) -> Result<Parsed, ParseError> {
    let version = event.detail::<Versioned>(PLACE).unwrap_or_default().version;
    let notice = if version.as_u64() != Some(VERSION) {
        return Ok(Parsed::Later);
    } else if event.is(SOURCE, HOOK) {
        lifecycle::of_event(event)?
    } else if event.is(SOURCE, RECORD) {
        let about: About<'_> = event.detail(PLACE)?;
        let instance = PLACE.detail().instance("EC2InstanceId", &about.instance)?;
        event.notice(PLACE, instance, NoticeKind::Record)?
    } else {
        return Ok(Parsed::Later);
    };
    Ok(Parsed::Notices(vec![notice]))
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
struct Written<'a> {
    version: &'a str,
    id: &'a str,
    detail_type: &'a str,
    source: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account: Option<&'a str>,
    time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<&'a str>,
    resources: [&'a str; 0],
    detail: Detail<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Detail<'a> {
    #[serde(rename = "version")]
    version: u64,
    #[serde(rename = "EC2InstanceId")]
    instance: &'a str,
    #[serde(flatten)]
    hook: Option<WrittenHook<'a>>,
}

/// The fields of a lifecycle action.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct WrittenHook<'a> {
    auto_scaling_group_name: &'a str,
    lifecycle_hook_name: &'a str,
    lifecycle_transition: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    notification_metadata: Option<&'a str>,
    origin: &'a str,
    destination: &'a str,
}

/// The message that says what `notice` says, for [`parse`](crate::parse); nothing for a notice that only AWS can give,
/// for a launch hook, or with a time that cannot be written.
pub fn own_message(notice: &Notice) -> Option<String> {
    let (detail_type, hook) = match &notice.kind {
        NoticeKind::Hook(hook) => (HOOK, Some(written(hook)?)),
        NoticeKind::Record => (RECORD, None),
        NoticeKind::Spot(_) | NoticeKind::CapacityReservation | NoticeKind::Rebalance => return None,
    };
    let AccountRegion { account, region } = &notice.account_region;
    let written = Written {
        version: "0",
        id: notice.id.as_str(),
        detail_type,
        source: SOURCE,
        account: account.as_ref().map(|account| account.as_str()),
        time: jiff::Timestamp::from_millisecond(notice.at.as_millis()).ok()?.to_string(),
        region: region.as_ref().map(|region| region.as_str()),
        resources: [],
        detail: Detail { version: VERSION, instance: notice.instance.as_str(), hook },
    };
    serde_json::to_string(&written).ok()
}

fn written(hook: &Hook) -> Option<WrittenHook<'_>> {
    let destination = match hook.passage {
        Passage::Ending => "EC2",
        Passage::ToWarmPool => "WarmPool",
        Passage::RootVolume => "AutoScalingGroup",
        Passage::Launching | Passage::LaunchingToWarmPool | Passage::LaunchingFromWarmPool => return None,
    };
    Some(WrittenHook {
        auto_scaling_group_name: hook.key.group.as_str(),
        lifecycle_hook_name: hook.key.name.as_str(),
        lifecycle_transition: "autoscaling:EC2_INSTANCE_TERMINATING",
        notification_metadata: hook.cluster_hint.as_ref().map(|cluster| cluster.as_str()),
        origin: "AutoScalingGroup",
        destination,
    })
}

#[cfg(test)]
mod tests {
    use offramp_core::{HookKey, InstanceId, Timestamp};

    use super::*;
    use crate::parse;

    fn notice(kind: NoticeKind) -> Notice {
        Notice {
            id: "workers/drain/i-0b1c2d3e4f5061728/1773480413214".into(),
            instance: InstanceId::parse("i-0b1c2d3e4f5061728").unwrap(),
            at: Timestamp::from_millis(1_773_480_413_214),
            account_region: AccountRegion {
                account: Some("111122223333".into()),
                region: Some("eu-west-1".into()),
            },
            kind,
        }
    }

    fn hook(passage: Passage, cluster: Option<&str>) -> NoticeKind {
        let key = HookKey { group: "workers".into(), name: "drain".into(), token: None };
        NoticeKind::Hook(Hook { key, cluster_hint: cluster.map(Into::into), passage })
    }

    #[test]
    fn what_is_written_reads_back() {
        let check = |notice: Notice| {
            let text = own_message(&notice).unwrap();
            assert_eq!(parse(&text), Ok(Parsed::Notices(vec![notice])), "{text}");
        };
        check(notice(NoticeKind::Record));
        check(Notice { account_region: AccountRegion::default(), ..notice(NoticeKind::Record) });
        for passage in [Passage::Ending, Passage::ToWarmPool, Passage::RootVolume] {
            for cluster in [None, Some("blue")] {
                check(notice(hook(passage, cluster)));
            }
        }
    }

    #[test]
    fn what_only_aws_can_say_is_not_written() {
        for kind in [NoticeKind::Rebalance, NoticeKind::CapacityReservation, hook(Passage::Launching, None)] {
            assert_eq!(own_message(&notice(kind)), None);
        }
        let endless = Notice { at: Timestamp::from_millis(i64::MAX), ..notice(NoticeKind::Record) };
        assert_eq!(own_message(&endless), None);
    }

    #[test]
    fn what_a_later_version_sends_is_left_to_it() {
        let text = own_message(&notice(NoticeKind::Record)).unwrap();
        let check = |from: &str, to: &str, later: bool| {
            let text = text.replace(from, to);
            assert_eq!(parse(&text) == Ok(Parsed::Later), later, "{text}");
        };
        check("", "", false);
        check(r#""version":1"#, r#""version":2"#, true);
        check(r#""version":1,"#, "", true);
        check("Overdue Record", "Cordoned Node", true);
        // Damaged, and of a version that is known: somebody has to look at it.
        let damaged = text.replace("i-0b1c2d3e4f5061728\"}", "somewhere\"}");
        let error = parse(&damaged).unwrap_err().to_string();
        assert!(error.contains("a message of offramp to itself: `detail.EC2InstanceId`"), "{error}");
    }
}
