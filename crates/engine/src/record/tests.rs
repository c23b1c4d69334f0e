use offramp_core::{Ended, GroupName, HookName, LifecycleState, MOST_ENTRIES};

use super::*;

const AT: Timestamp = Timestamp::from_millis(1_774_000_000_123);

fn instance() -> InstanceId {
    InstanceId::parse("i-0b1c2d3e4f5061728").unwrap()
}

fn target(group: &str) -> TargetKey {
    TargetKey { group: TargetGroupArn::new(group), instance: instance(), port: 30_080 }
}

fn ours(cause: Cause) -> Claimant {
    Claimant { cause, by: Some("eu-west-1:111122223333:offramp".into()) }
}

fn hook(group: &str, name: &str) -> Claimant {
    ours(Cause::Hook(GroupName::from(group), HookName::from(name)))
}

fn entry(end: Timestamp, ended: Option<EntryEnd>) -> Entry {
    let account_region =
        AccountRegion { account: Some("444455556666".into()), region: Some("eu-central-1".into()) };
    Entry { at: AT, end, account_region, ended }
}

fn record() -> Record {
    let end = AT + Duration::from_secs(3_600);
    let ended = EntryEnd {
        outcome: Ended::LeftIsolated,
        state: Some(LifecycleState::Other("Terminating:Retained".to_owned())),
        at: end,
    };
    Record {
        entries: BTreeMap::from([
            (hook("workers", "drain"), entry(end, Some(ended))),
            (
                ours(Cause::Trigger(Trigger::Spot)),
                Entry { account_region: AccountRegion::default(), ..entry(end, None) },
            ),
        ]),
        cordoned: true,
        targets: [target("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1")].into(),
        maintenance: Some(AT),
        ..Record::new(AT)
    }
}

#[test]
fn what_is_written_reads_back() {
    let check = |record: Record| assert_eq!(read_record(&write_record(&record).unwrap()), record);
    check(record());
    check(Record::new(AT));
    for trigger in Trigger::ALL.into_iter().filter(|trigger| *trigger != Trigger::Hook) {
        check(Record { entries: [(ours(Cause::Trigger(trigger)), entry(AT, None))].into(), ..record() });
    }
    for outcome in ENDED {
        for state in [None, Some(LifecycleState::InService), Some(LifecycleState::Warmed)] {
            let ended = Some(EntryEnd { outcome, state, at: AT });
            check(Record { entries: [(hook("g", "h"), entry(AT, ended))].into(), ..record() });
        }
    }
    check(Record {
        targets: [target("arn:aws-cn:elasticloadbalancing:cn-north-1:1:targetgroup/web/1")].into(),
        ..record()
    });
}

#[test]
fn the_format_is_stable() {
    assert_eq!(
        write_record(&record()).unwrap(),
        r#"{"v":2,"since":"2026-03-20T09:46:40.123Z","cordoned":true,"excluded":false,"entries":[{"kind":"hook","group":"workers","hook":"drain","by":"eu-west-1:111122223333:offramp","account":"444455556666","region":"eu-central-1","at":"2026-03-20T09:46:40.123Z","end":"2026-03-20T10:46:40.123Z","ended":{"outcome":"left_isolated","state":"Terminating:Retained","at":"2026-03-20T10:46:40.123Z"}},{"kind":"spot","by":"eu-west-1:111122223333:offramp","at":"2026-03-20T09:46:40.123Z","end":"2026-03-20T10:46:40.123Z"}],"instance":"i-0b1c2d3e4f5061728","targets":[{"group":"eu-west-1:1:targetgroup/web/1","port":30080}],"maintenance":{"start":"2026-03-20T09:46:40.123Z"}}"#
    );
}

/// As version 0.1.1 wrote it.
#[test]
fn a_record_of_version_1_is_read_and_becomes_a_version_2() {
    let text = r#"{"v":1,"since":"2026-03-20T09:46:40.123Z","notices":["a","b"],"cordoned":true,"excluded":false,"targets":[{"group":"arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1","instance":"i-0b1c2d3e4f5061728","port":30080}]}"#;
    let end = AT + OF_VERSION_1;
    let notice = |id: &str| {
        let claimant = Claimant { cause: Cause::Notice(NoticeId::from(id)), by: None };
        (claimant, Entry { account_region: AccountRegion::default(), ..entry(end, None) })
    };
    let expect = Record {
        entries: [notice("a"), notice("b")].into(),
        cordoned: true,
        targets: record().targets,
        ..Record::new(AT)
    };
    assert_eq!(read_record(text), expect);
    let written = write_record(&expect).unwrap();
    assert!(
        written.contains(r#"{"kind":"notice","notice":"a","at":"2026-03-20T09:46:40.123Z","end":"2026-03-20T11:46:40.123Z"}"#),
        "{written}"
    );
    assert_eq!(read_record(&written), expect);
}

#[test]
fn what_cannot_be_read_is_not_ours_to_write_or_to_undo() {
    let check = |text: &str, since: i64| {
        let read = read_record(text);
        assert!(read.foreign.is_some() && read.since == Timestamp::from_millis(since), "{text}");
        assert!(read.targets.is_empty() && read.entries.is_empty(), "{text}");
        assert_eq!(write_record(&read), None, "{text}");
    };
    let text = write_record(&record()).unwrap();
    check(&text.replace("\"v\":2", "\"v\":3"), AT.as_millis());
    check(&text.replace("i-0b1c2d3e4f5061728", "somewhere"), AT.as_millis());
    check(&text.replace("\"spot\"", "\"earthquake\""), AT.as_millis());
    check(&text.replace("\"hook\":\"drain\"", "\"hook\":null"), AT.as_millis());
    check(&text.replace("left_isolated", "vanished"), AT.as_millis());
    check(&text.replace(",\"port\":30080", ""), AT.as_millis());
    check(&text.replace("444455556666", "44445555666\\n"), AT.as_millis());
    check(&text.replace("eu-central-1", "evil.example/#"), AT.as_millis());
    check(&text.replace("\"start\":\"2026", "\"start\":\"spring"), AT.as_millis());
    check(&text.replace("2026-", "spring "), 0);
    check(&text[..text.len() - 1], 0);
    check(r#"{"v":1,"since":"2026-03-20T09:46:40Z"}"#, 1_774_000_000_000);
    check("", 0);
    check("true", 0);
    check(&format!(r#"{{"v":2,"since":"{}"}}"#, " ".repeat(LONGEST)), 0);
}

#[test]
fn a_record_of_a_later_version_is_a_claim_with_an_end() {
    let text = r#"{"v":3,"since":"2026-03-20T09:46:40Z","cordoned":true,"excluded":true,"targets":"of another form",
        "entries":[{"kind":"spot","end":"2026-03-20T09:48:40Z"},{"kind":"hook","end":"2026-03-20T10:46:40Z"},{}]}"#;
    let read = read_record(text);
    let until = Some(Timestamp::from_millis(1_774_003_600_000));
    assert!(read.cordoned && read.excluded);
    assert_eq!(read.foreign, Some(Foreign { until }));
    assert_eq!(write_record(&read), None, "it stays as it is");
}

/// As long as AWS lets names be: 255 characters for groups and hooks, 32 for target groups.
#[test]
fn the_longest_record_fits() {
    let ended = Some(EntryEnd {
        outcome: Ended::WithoutOurAnswer,
        state: Some(LifecycleState::ReplacingRootVolumeWait),
        at: AT,
    });
    // A queue's name has at most 80.
    let by = Some(format!("us-gov-west-1:111122223333:{}", "q".repeat(80)).as_str().into());
    let entry = |number: usize| {
        let claimant = Claimant { by: by.clone(), ..hook(&format!("{number:0>255}"), &"h".repeat(255)) };
        (claimant, entry(AT, ended.clone()))
    };
    let group = |number: usize| {
        target(&format!(
            "arn:aws-us-gov:elasticloadbalancing:us-gov-west-1:111122223333:targetgroup/{number:0>32}/0123456789abcdef"
        ))
    };
    let full = Record {
        entries: (0..MOST_ENTRIES).map(entry).collect(),
        targets: (0..200).map(group).collect(),
        ..record()
    };
    let text = write_record(&full).unwrap();
    assert!(text.len() <= 64 * 1024, "{} bytes", text.len());
    assert_eq!(read_record(&text), full);
}
