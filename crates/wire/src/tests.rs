//! Whole bodies: every sample event, cut and garbled ones, and ones that mean harm.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use offramp_core::{HookToken, NoticeKind, Passage};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// The longest error: four texts of ours, an excerpt, and two SNS envelopes around them.
const LONGEST_ERROR_CHARS: usize = 400;

fn samples() -> Vec<(String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/events");
    let mut paths: Vec<PathBuf> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        (name, std::fs::read_to_string(path).unwrap())
    };
    paths.iter().map(read).collect()
}

fn sample(name: &str) -> Value {
    let (_, body) = samples().into_iter().find(|(sample, _)| sample == name).unwrap();
    serde_json::from_str(&body).unwrap()
}

fn notice(body: &str) -> Notice {
    match parse(body).unwrap() {
        Parsed::Notices(mut notices) if notices.len() == 1 => notices.remove(0),
        other => panic!("one notice expected: {other:?}"),
    }
}

fn hook(body: &str) -> offramp_core::Hook {
    match notice(body).kind {
        NoticeKind::Hook(hook) => hook,
        other => panic!("a hook expected: {other:?}"),
    }
}

fn error(body: &str) -> String {
    parse(body).unwrap_err().to_string()
}

/// What SNS makes of a message.
fn in_sns(message: &str) -> String {
    json!({"Type": "Notification", "MessageId": "m", "TopicArn": "arn:aws:sns:eu-west-1:111122223333:t",
           "Message": message})
    .to_string()
}

/// One file of the folder, one paragraph of the snapshot: a file without a paragraph fails, and so does a
/// paragraph without a file.
#[test]
fn every_sample_event_has_its_expected_result() {
    let mut all = String::new();
    for (name, body) in samples() {
        writeln!(all, "{name}\n    {}", in_words(&parse(&body))).unwrap();
    }
    insta::assert_snapshot!(all);
}

fn in_words(parsed: &Result<Parsed, ParseError>) -> String {
    match parsed {
        Ok(Parsed::Notices(notices)) => notices.iter().map(notice_in_words).collect(),
        Ok(Parsed::Later) => "of a later version".to_owned(),
        Ok(Parsed::Ignored(why)) => format!("ignored: {}, {why}", why.as_str()),
        Err(error) => format!("error: {error}"),
    }
}

fn notice_in_words(notice: &Notice) -> String {
    let kind = match &notice.kind {
        NoticeKind::Hook(hook) => {
            let key = &hook.key;
            let token = key.token.as_ref().map_or("none", HookToken::as_str);
            let cluster = hook.cluster_hint.as_ref().map_or("none", |hint| hint.as_str());
            format!(
                "hook {:?}, cluster {cluster}\n    {} of {}, token {token}",
                hook.passage, key.name, key.group
            )
        }
        NoticeKind::Spot(action) => format!("spot {action:?}"),
        NoticeKind::CapacityReservation => "capacity_reservation".to_owned(),
        NoticeKind::Record => "record".to_owned(),
        NoticeKind::Rebalance => "rebalance".to_owned(),
    };
    let account = notice.account_region.account.as_ref().map_or("none", |account| account.as_str());
    let region = notice.account_region.region.as_ref().map_or("none", |region| region.as_str());
    format!(
        "{kind}\n    {} at {}\n    account {account}, region {region}, id {}",
        notice.instance,
        jiff::Timestamp::from_millisecond(notice.at.as_millis()).unwrap(),
        notice.id
    )
}

#[test]
fn a_sample_cut_short_is_an_error() {
    for (name, body) in samples() {
        let whole = body.trim_end();
        for end in (0..whole.len()).step_by(7).filter(|end| whole.is_char_boundary(*end)) {
            assert_bounded(&parse(&whole[..end]).expect_err(&name));
        }
    }
}

/// The inner event is cut and the outer one is whole, so that the cut is found one level further in.
#[test]
fn a_sample_cut_short_inside_sns_is_an_error() {
    for (name, body) in samples() {
        let whole = body.trim_end();
        for end in (0..whole.len()).step_by(61).filter(|end| whole.is_char_boundary(*end)) {
            let error = parse(&in_sns(&whole[..end])).expect_err(&name);
            assert!(matches!(error, ParseError::InSnsMessage(_)), "{error}");
            assert_bounded(&error);
        }
    }
}

#[test]
fn messages_of_a_later_version_are_not_ignored() {
    for detail_type in ["Cordoned node", "anything else"] {
        let body = json!({"source": "offramp", "detail-type": detail_type, "detail": {"version": 2}});
        assert_eq!(parse(&body.to_string()).unwrap(), Parsed::Later);
    }
}

#[test]
fn a_capacity_reservation_gives_notice() {
    let mut event = sample("ec2-capacity-reservation-interruption");
    let kind = NoticeKind::CapacityReservation;
    assert_eq!(notice(&event.to_string()).kind, kind);
    assert_eq!(notice(&sample("ec2-capacity-block-interruption").to_string()).kind, kind);
    event["detail-type"] = json!("EC2 Interruptible Capacity Reservation Instance Interruption Warning");
    assert_eq!(notice(&event.to_string()).kind, kind);
    event["detail"]["instance-id"] = json!(7);
    assert!(error(&event.to_string()).contains("a capacity reservation interruption warning"));
}

#[test]
fn two_sns_envelopes_are_opened_and_no_third() {
    for (name, body) in samples().into_iter().filter(|(name, _)| !name.starts_with("sns-")) {
        let direct = parse(&body);
        let once = in_sns(&body);
        let twice = in_sns(&once);
        assert_eq!(parse(&once), direct, "{name}");
        assert_eq!(parse(&twice), direct, "{name}");
        let error = error(&in_sns(&twice));
        assert!(
            error.ends_with("more than 2 SNS envelopes; subscribe the queue to the first topic"),
            "{error}"
        );
    }
}

#[test]
fn unknown_fields_and_missing_optional_ones_change_nothing_else() {
    let mut event = sample("autoscaling-terminate-lifecycle-action");
    let whole = notice(&event.to_string());
    event["new-field"] = json!({"deep": [{"er": null}]});
    event["detail"]["NewField"] = json!([1, 2.5, {"x": []}]);
    event["resources"] = json!("not even a list");
    assert_eq!(notice(&event.to_string()), whole);

    for optional in ["version", "resources", "account", "region"] {
        event.as_object_mut().unwrap().remove(optional);
    }
    for optional in ["LifecycleActionToken", "NotificationMetadata", "Origin", "Destination"] {
        event["detail"].as_object_mut().unwrap().remove(optional);
    }
    let least = notice(&event.to_string());
    assert_eq!((&least.id, &least.instance, least.at), (&whole.id, &whole.instance, whole.at));
    assert_eq!(least.account_region, offramp_core::AccountRegion::default());
    let least = hook(&event.to_string());
    assert_eq!((least.key.token, least.cluster_hint, least.passage), (None, None, Passage::Ending));
}

/// Nulls stand for nothing, as in many serialisers.
#[test]
fn null_is_the_same_as_missing() {
    let mut event = sample("autoscaling-terminate-lifecycle-action-to-warm-pool");
    event["region"] = Value::Null;
    event["detail"]["Destination"] = Value::Null;
    assert_eq!(notice(&event.to_string()).account_region.region, None);
    assert_eq!(hook(&event.to_string()).passage, Passage::Ending);
    event["time"] = Value::Null;
    assert_eq!(
        error(&event.to_string()),
        "reading a lifecycle action: `time` is missing; send the event whole, without an input transformer"
    );
}

/// Every field without which a notice would have to guess, and what is said when it is absent or wrong.
#[test]
fn errors_name_the_event_and_the_field() {
    let check = |name: &str, path: &[&str], words: &str| {
        let shown = path.join(".");
        let replace = |with: Option<Value>| {
            let mut event = sample(name);
            let (last, parents) = path.split_last().unwrap();
            let parent = parents.iter().fold(&mut event, |at, key| &mut at[*key]);
            match with {
                Some(value) => parent[*last] = value,
                None => drop(parent.as_object_mut().unwrap().remove(*last)),
            }
            error(&event.to_string())
        };
        let missing = replace(None);
        assert!(missing.starts_with(&format!("reading {words}: `{shown}` is missing; ")), "{missing}");
        let wrong =
            [(json!(5), "a number"), (json!([[]]), "an array"), (json!(""), "empty"), (json!("\0"), "`\\0`")];
        for (value, found) in wrong {
            let error = replace(Some(value));
            let (start, end) = (format!("reading {words}: `{shown}` should be "), format!(" and is {found}"));
            assert!(error.starts_with(&start) && error.ends_with(&end), "{error}");
        }
    };
    let hook = ("autoscaling-terminate-lifecycle-action", "a lifecycle action");
    check(hook.0, &["id"], hook.1);
    check(hook.0, &["time"], hook.1);
    check(hook.0, &["source"], "an event of EventBridge");
    check(hook.0, &["detail-type"], "an event of EventBridge");
    for field in ["EC2InstanceId", "AutoScalingGroupName", "LifecycleHookName", "LifecycleTransition"] {
        check(hook.0, &["detail", field], hook.1);
    }
    let bare = "sqs-direct-lifecycle-terminate";
    for field in ["Time", "EC2InstanceId", "AutoScalingGroupName", "LifecycleHookName", "LifecycleTransition"]
    {
        check(bare, &[field], hook.1);
    }
    let spot = ("ec2-spot-interruption-terminate", "a spot interruption notice");
    let rebalance = ("ec2-rebalance-recommendation", "a rebalance recommendation");
    for (name, words) in [spot, rebalance] {
        check(name, &["id"], words);
        check(name, &["time"], words);
        check(name, &["detail", "instance-id"], words);
    }
    let mut event = sample(spot.0);
    event["detail"] = json!("i-0b1c2d3e4f5061728");
    assert_eq!(
        error(&event.to_string()),
        "reading a spot interruption notice: `detail` should be an object and is a text"
    );
    event.as_object_mut().unwrap().remove("detail");
    assert!(error(&event.to_string()).starts_with("reading a spot interruption notice: `detail` is missing"));
}

#[test]
fn the_instance_comes_from_the_detail_and_never_from_resources() {
    let mut event = sample("ec2-spot-interruption-terminate");
    event["resources"] = json!(["arn:aws:ec2:eu-west-1b:instance/i-0ffffffffffffffff"]);
    assert_eq!(notice(&event.to_string()).instance.as_str(), "i-0b1c2d3e4f5061728");
    event["detail"]["instance-id"] = json!("arn:aws:ec2:eu-west-1b:instance/i-0b1c2d3e4f5061728");
    let error = error(&event.to_string());
    assert!(error.contains("`detail.instance-id` should be an instance id"), "{error}");
}

#[test]
fn a_bare_hook_without_request_id_is_known_by_what_it_says_but_not_by_its_token() {
    let mut bare = sample("sqs-direct-lifecycle-terminate");
    bare.as_object_mut().unwrap().remove("RequestId");
    let id = |bare: &serde_json::Value| notice(&bare.to_string()).id.as_str().to_owned();
    let first = id(&bare);
    assert_eq!(first, id(&bare), "a copy has the same id");
    let token = bare["LifecycleActionToken"].take();
    assert!(!first.contains(token.as_str().unwrap()), "{first}");
    assert_eq!(first, id(&bare));
    bare["Time"] = json!("2026-03-15T09:26:53.000Z");
    assert_ne!(first, id(&bare), "the next action of the same hook is another notice");
}

/// A wrong account or Region would send calls somewhere else; none at all means the queue's own.
#[test]
fn a_wrong_home_is_an_error_and_no_home_is_not() {
    let mut event = sample("ec2-rebalance-recommendation");
    event["region"] = json!("evil.example/?");
    assert!(
        error(&event.to_string())
            .ends_with("`region` should be a Region as in eu-west-1 and is `evil.example/?`")
    );
    event["region"] = json!("eu-west-1");
    event["account"] = json!(111_122_223_333_u64);
    assert!(
        error(&event.to_string())
            .ends_with("`account` should be an account of twelve digits and is a number")
    );
}

#[test]
fn messages_of_auto_scaling_itself_are_told_apart() {
    let check = |body: Value, expect: Result<Ignored, &str>| match (parse(&body.to_string()), expect) {
        (Ok(parsed), Ok(why)) => assert_eq!(parsed, Parsed::Ignored(why), "{body}"),
        (Err(error), Err(words)) => assert!(error.to_string().starts_with(words), "{error}"),
        (got, _) => panic!("{body}: {got:?}"),
    };
    const UNKNOWN: &str = "reading a message: neither an event of EventBridge, a lifecycle hook";
    check(json!({"Event": "autoscaling:TEST_NOTIFICATION"}), Ok(Ignored::TestNotification));
    check(json!({"Event": "autoscaling:EC2_INSTANCE_LAUNCH"}), Ok(Ignored::LaunchSucceeded));
    check(json!({"Event": "autoscaling:EC2_INSTANCE_LAUNCH_ERROR"}), Ok(Ignored::LaunchFailed));
    check(json!({"Event": "autoscaling:EC2_INSTANCE_TERMINATE"}), Ok(Ignored::TerminateSucceeded));
    check(json!({"Event": "autoscaling:EC2_INSTANCE_TERMINATE_ERROR"}), Ok(Ignored::TerminateFailed));
    check(json!({"Event": "autoscaling:SOMETHING_NEW"}), Ok(Ignored::OtherEvent));
    check(json!({"Service": "Amazon S3", "Event": "s3:TestEvent"}), Err(UNKNOWN));
    check(json!({"Event": 7}), Err(UNKNOWN));
    check(json!({}), Err(UNKNOWN));
    check(json!({"hello": "world"}), Err(UNKNOWN));
}

/// Report 22: a rule with `InputPath: $.detail` sends a lifecycle action without its envelope. It has no time, so it
/// goes to the dead-letter queue with the reason.
#[test]
fn a_detail_without_its_envelope_is_an_error() {
    let detail = sample("autoscaling-terminate-lifecycle-action")["detail"].clone();
    assert!(detail["LifecycleHookName"].is_string() && detail.get("Time").is_none(), "{detail}");
    assert_eq!(
        error(&detail.to_string()),
        "reading a lifecycle action: `Time` is missing; send the event whole, without an input transformer"
    );
}

/// Report 23: a group tells its topic of a launch, with details deep inside one another and null among them. It is
/// ignored as a launch that succeeded.
#[test]
fn a_launch_by_way_of_sns_is_ignored_whatever_its_details() {
    let trigger = json!({"Period": 60, "Dimensions": [{"name": "AutoScalingGroupName", "value": "workers"}]});
    let alarm = json!({"AlarmName": "cpu", "AlarmDescription": null, "StateChangeTime": 1_402_188_328_924_u64,
        "Trigger": trigger});
    let launch = json!({"Progress": 50, "AccountId": "111122223333", "Service": "AWS Auto Scaling",
        "RequestId": "4f7d7a1e-0000-4000-8000-000000000001", "Time": "2026-11-29T10:00:00.000Z",
        "EC2InstanceId": "i-0aaaaaaaaaaaaaaa3", "StatusCode": "InProgress", "AutoScalingGroupName": "workers",
        "Details": {"Availability Zone": "eu-west-1a", "InvokingAlarms": [alarm]},
        "Event": "autoscaling:EC2_INSTANCE_LAUNCH"});
    let body = json!({"Type": "Notification", "MessageId": "b0000000-0000-4000-8000-000000000001",
        "TopicArn": "arn:aws:sns:eu-west-1:111122223333:asg",
        "Subject": "Auto Scaling: launch for group \"workers\"", "Message": launch.to_string(),
        "Timestamp": "2026-11-29T10:00:00.000Z", "SignatureVersion": "1"});
    assert_eq!(parse(&body.to_string()), Ok(Parsed::Ignored(Ignored::LaunchSucceeded)));
    assert_eq!(Ignored::LaunchSucceeded.as_str(), "launch_succeeded");
}

/// Report 24: somebody's function puts events into a list before it sends them on. Not even a list of one is read: it
/// goes to the dead-letter queue with the reason.
#[test]
fn a_list_of_events_is_an_error() {
    let spot = sample("ec2-spot-interruption-terminate");
    assert_eq!(
        error(&json!([spot]).to_string()),
        "reading a message: it is an array, not an object; send events unchanged"
    );
    assert_eq!(parse(&json!([]).to_string()), Err(ParseError::NotAnObject { found: "an array" }));
}

#[test]
fn other_events_are_ignored_by_name() {
    let check = |source: &str, detail_type: &str, expect: Ignored| {
        let body = json!({"source": source, "detail-type": detail_type, "detail": "anything"}).to_string();
        assert_eq!(parse(&body), Ok(Parsed::Ignored(expect)), "{body}");
    };
    check("aws.autoscaling", "EC2 Instance Detach Successful", Ignored::DetachSucceeded);
    check("aws.autoscaling", "EC2 Instance Detach Unsuccessful", Ignored::DetachFailed);
    check("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Started Baking", Ignored::InstanceRefresh);
    check("aws.autoscaling", "EC2 Auto Scaling Instance Refresh Rollback Failed", Ignored::InstanceRefresh);
    check("aws.autoscaling", "EC2 Instance Renamed", Ignored::OtherEvent);
    check("aws.health", "AWS Health Abuse Event", Ignored::Health);
    check("aws.s3", "Object Created", Ignored::OtherEvent);
    // Applications put events of their own on the same bus, under any detail-type.
    check("my.app", "EC2 Spot Instance Interruption Warning", Ignored::OtherEvent);
    check("aws.ec2", "EC2 Instance-terminate Lifecycle Action", Ignored::OtherEvent);
}

#[test]
fn a_subscription_that_waits_is_kept_for_the_operator() {
    let check = |kind: &str| {
        let body = json!({"Type": kind, "MessageId": "m", "Token": "2336412f37fb687f5d51e6e2425dacbba",
            "TopicArn": "arn:aws:sns:eu-west-1:111122223333:node-events",
            "Message": "You have chosen to subscribe to the topic.",
            "SubscribeURL": "https://sns.eu-west-1.amazonaws.com/?Token=2336412f37fb687f5d51e6e2425dacbba"});
        let error = error(&body.to_string());
        assert!(error.starts_with(&format!("reading an SNS message of type `{kind}`: ")), "{error}");
        assert!(!error.contains("2336412f"), "{error}");
    };
    check("SubscriptionConfirmation");
    check("UnsubscribeConfirmation");
}

#[test]
fn reasons_have_distinct_labels_and_words() {
    let labels: BTreeSet<_> = Ignored::ALL.iter().map(|why| why.as_str()).collect();
    let words: BTreeSet<_> = Ignored::ALL.iter().map(Ignored::to_string).collect();
    assert_eq!((labels.len(), words.len()), (Ignored::ALL.len(), Ignored::ALL.len()));
    let left = EVENTS.iter().filter_map(|(_, _, treatment)| match treatment {
        Leave(why) => Some(*why),
        Read(_) => None,
    });
    let used: BTreeSet<_> =
        left.chain(NOTIFICATIONS.iter().map(|(_, why)| *why)).chain([Ignored::OtherEvent]).collect();
    assert_eq!(used, Ignored::ALL.into_iter().collect());
}

#[test]
fn hostile_bodies_are_short_errors() {
    let check = |body: String, expect: &str| {
        let error = parse(&body).unwrap_err();
        assert_bounded(&error);
        assert!(error.to_string().contains(expect), "{expect}: {error}");
    };
    let deep = 500_000;
    check(String::new(), "EOF while parsing");
    check("null".into(), "it is null, not an object");
    check("true".into(), "it is true or false, not an object");
    check("1e5".into(), "it is a number, not an object");
    check(r#"["0", "aws.ec2", "EC2 Spot Instance Interruption Warning"]"#.into(), "it is an array");
    check(r#""Lifecycle""#.into(), "it is a text");
    check("[".repeat(deep), "EOF while parsing");
    check("[".repeat(deep) + &"]".repeat(deep), "it is an array");
    check(r#"{"detail":"#.repeat(deep), "EOF while parsing");
    check(r#"{"x":"#.repeat(deep) + "1" + &"}".repeat(deep), "neither an event");
    check(r#"{"time":"#.repeat(deep) + "1" + &"}".repeat(deep), "neither an event");
    check(r#"{"source":1e999999}"#.into(), "number out of range");
    check(format!(r#"{{"source":{}}}"#, "9".repeat(deep)), "number out of range");
    check(r#"{"source":"a","source":"b"}"#.into(), "duplicate field `source`");
    check("{\"source\":\"\0\"}".into(), "control character");
    check("\0\x1b]0;title\x07".into(), r"it begins with `\0\u{1b}]0;title\u{7}`");
    check("\u{feff}{}".into(), r"it begins with `\u{feff}{}`");
    check(r#"{"source":"\ud800"}"#.into(), "hex escape");
    check("a".repeat(1 << 20), "expected value");
    check(
        format!(r#"{{"source":"aws.ec2","detail-type":"{}"}}"#, "x".repeat(1 << 20)),
        "`detail-type` should be",
    );
    check(format!(r#"{{"Type":"{}","Message":"{{}}"}}"#, "x".repeat(200)), "reading an SNS message");
    check(in_sns("key: value\nLifecycleActionToken: 3af51d82"), "in the Message of an SNS notification");
    check(in_sns(&in_sns(&"\0".repeat(1 << 19))), r"begins with `\0\0");
    check(r#"{"Type":"Notification","Message":{"source":"aws.ec2"}}"#.into(), "`Message` should be a text");
    check(r#"{"Type":"Notification","TopicArn":"t"}"#.into(), "`Message` is missing");
}

/// A wide body is skipped, not stored: an unknown field costs nothing but the time to read over it.
#[test]
fn what_is_unknown_may_be_large_and_deep() {
    let spot = sample("ec2-spot-interruption-terminate").to_string();
    let deep = format!("{}1{}", "[".repeat(400_000), "]".repeat(400_000));
    let body = spot.replacen('{', &format!(r#"{{"new":{deep},"#), 1);
    assert_eq!(parse(&body), parse(&spot));
}

#[test]
fn errors_never_show_the_token_of_a_hook() {
    for (name, body) in samples() {
        let Ok(Parsed::Notices(notices)) = parse(&body) else { continue };
        let NoticeKind::Hook(hook) = &notices[0].kind else { continue };
        let token = hook.key.token.as_ref().unwrap().as_str();
        let broken = [
            format!(r#"{{"LifecycleActionToken":"{token}","#),
            format!(r#"{{"LifecycleActionToken":"{token}"}}"#),
            in_sns(&format!(r#"{{"LifecycleActionToken":"{token}","#)),
            body.replace("EC2InstanceId", "Instance"),
            body.replace("LifecycleTransition", "Transition"),
            body.replace(token, &format!("{token}{token}")).replace("EC2InstanceId", "Instance"),
        ];
        for body in broken {
            let error = error(&body);
            assert!(!error.contains(&token[..8]), "{name}: {error}");
        }
    }
}

fn assert_bounded(error: &ParseError) {
    let words = error.to_string();
    assert!(words.chars().count() <= LONGEST_ERROR_CHARS, "{} characters: {words}", words.chars().count());
    assert!(!words.contains(char::is_control), "{words:?}");
}

/// One change to a body, somewhere in it.
#[derive(Clone, Debug)]
enum Change {
    Overwrite(u8),
    Insert(String),
    Remove(usize),
    Repeat(usize),
}

fn changes() -> impl Strategy<Value = Vec<(f64, Change)>> {
    let one = prop_oneof![
        any::<u8>().prop_map(Change::Overwrite),
        r#"[\PC\x00-\x1f"{}\[\]:,\\]{1,8}"#.prop_map(Change::Insert),
        (1_usize..60).prop_map(Change::Remove),
        (1_usize..60).prop_map(Change::Repeat),
    ];
    proptest::collection::vec((0.0..1.0_f64, one), 1..6)
}

fn garble(body: &str, changes: &[(f64, Change)]) -> String {
    let mut bytes = body.as_bytes().to_vec();
    for (place, change) in changes {
        // Truncation is wanted: a fraction of the length becomes a position.
        let at = (place * bytes.len() as f64) as usize;
        let until = |span: usize| (at + span).min(bytes.len());
        match change {
            Change::Overwrite(byte) if at < bytes.len() => bytes[at] = *byte,
            Change::Overwrite(byte) => bytes.push(*byte),
            Change::Insert(text) => drop(bytes.splice(at..at, text.bytes())),
            Change::Remove(span) => drop(bytes.drain(at..until(*span))),
            Change::Repeat(span) => {
                let again = bytes[at..until(*span)].to_vec();
                drop(bytes.splice(at..at, again));
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn garbled_samples_are_read_or_refused(which in any::<prop::sample::Index>(), changes in changes()) {
        let samples = SAMPLES.get_or_init(samples);
        let (_, body) = &samples[which.index(samples.len())];
        match parse(&garble(body, &changes)) {
            Ok(Parsed::Notices(notices)) => {
                // What is read is fit to be kept: nothing in it is endless or unprintable.
                for notice in notices {
                    prop_assert!(field::is_name(notice.id.as_str()));
                    if let NoticeKind::Hook(hook) = notice.kind {
                        prop_assert!(field::is_name(hook.key.group.as_str()));
                        prop_assert!(field::is_name(hook.key.name.as_str()));
                    }
                }
            }
            Ok(Parsed::Ignored(why)) => prop_assert!(Ignored::ALL.contains(&why)),
            Ok(Parsed::Later) => {}
            Err(error) => assert_bounded(&error),
        }
    }

    #[test]
    fn any_text_is_refused_in_short(body in "\\PC{0,200}") {
        assert_bounded(&parse(&body).unwrap_err());
    }
}

static SAMPLES: std::sync::OnceLock<Vec<(String, String)>> = std::sync::OnceLock::new();
