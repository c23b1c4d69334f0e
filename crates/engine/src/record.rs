//! The annotation on a node that says what offramp changed there: JSON with a format version. It is the
//! engine's, because every adapter has to write and read the same: replicas of two versions may work side
//! by side during an upgrade, and one undoes what another did.

use std::collections::BTreeSet;

use offramp_core::{InstanceId, NoticeId, Record, TargetGroupArn, TargetKey, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The annotation's key.
pub const RECORD_ANNOTATION: &str = "offramp.sh/record";

/// The version that this program writes and understands.
const VERSION: u32 = 1;

/// Format version 1.
#[derive(Serialize, Deserialize)]
struct Written {
    v: u32,
    /// RFC 3339, because people read it.
    since: String,
    notices: BTreeSet<String>,
    cordoned: bool,
    excluded: bool,
    targets: Vec<WrittenTarget>,
}

#[derive(Serialize, Deserialize)]
struct WrittenTarget {
    group: String,
    instance: String,
    port: u16,
}

/// What can be told of a record of any version: later ones keep these fields, so that an older worker beside
/// them knows since when, until when, and what of the node offramp changed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Outline {
    since: Value,
    cordoned: Value,
    excluded: Value,
    /// One for each claim, with its `end`.
    entries: Vec<Value>,
}

/// The annotation's text, or nothing for a record that stands for one that could not be read: that
/// annotation is to be left as it is.
pub fn write_record(record: &Record) -> Option<String> {
    let Record { since, notices, cordoned, excluded, targets, foreign_until: _ } = record;
    let target = |target: &TargetKey| WrittenTarget {
        group: target.group.as_str().to_owned(),
        instance: target.instance.as_str().to_owned(),
        port: target.port,
    };
    let written = Written {
        v: VERSION,
        since: time_in_words(*since),
        notices: notices.iter().map(|notice| notice.as_str().to_owned()).collect(),
        cordoned: *cordoned,
        excluded: *excluded,
        targets: targets.iter().map(target).collect(),
    };
    // Texts, numbers and lists can always be written.
    if record.is_foreign() { None } else { serde_json::to_string(&written).ok() }
}

/// Reads the annotation. One that is damaged or of another version becomes [`Record::foreign`], with what its
/// outline tells.
pub fn read_record(text: &str) -> Record {
    understood(text).unwrap_or_else(|| {
        let outline: Outline = serde_json::from_str(text).unwrap_or_default();
        let time_of = |value: &Value| value.as_str().and_then(time);
        let ends = outline.entries.iter().filter_map(|entry| time_of(entry.get("end")?));
        Record {
            cordoned: outline.cordoned.as_bool().unwrap_or(false),
            excluded: outline.excluded.as_bool().unwrap_or(false),
            foreign_until: ends.max(),
            ..Record::foreign(time_of(&outline.since).unwrap_or(Timestamp::from_millis(0)))
        }
    })
}

fn understood(text: &str) -> Option<Record> {
    let written: Written = serde_json::from_str(text).ok()?;
    let Written { v: VERSION, since, notices, cordoned, excluded, targets } = written else { return None };
    let target = |target: WrittenTarget| {
        Some(TargetKey {
            group: TargetGroupArn::new(target.group),
            instance: InstanceId::parse(&target.instance)?,
            port: target.port,
        })
    };
    Some(Record {
        since: time(&since)?,
        notices: notices.into_iter().map(NoticeId::new).collect(),
        cordoned,
        excluded,
        targets: targets.into_iter().map(target).collect::<Option<_>>()?,
        foreign_until: None,
    })
}

fn time(text: &str) -> Option<Timestamp> {
    text.parse::<jiff::Timestamp>().ok().map(|time| Timestamp::from_millis(time.as_millisecond()))
}

fn time_in_words(time: Timestamp) -> String {
    // Only times beyond the year 9999 cannot be written; they read back as a record of another version.
    jiff::Timestamp::from_millisecond(time.as_millis())
        .map_or_else(|_| String::new(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            since: Timestamp::from_millis(1_774_000_000_123),
            notices: BTreeSet::from([NoticeId::from("a"), NoticeId::from("b")]),
            cordoned: true,
            excluded: false,
            targets: BTreeSet::from([TargetKey {
                group: TargetGroupArn::from("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1"),
                instance: InstanceId::parse("i-0b1c2d3e4f5061728").unwrap(),
                port: 30_080,
            }]),
            foreign_until: None,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        assert_eq!(read_record(&write_record(&record()).unwrap()), record());
    }

    #[test]
    fn the_format_is_stable() {
        assert_eq!(
            write_record(&record()).unwrap(),
            r#"{"v":1,"since":"2026-03-20T09:46:40.123Z","notices":["a","b"],"cordoned":true,"excluded":false,"targets":[{"group":"arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1","instance":"i-0b1c2d3e4f5061728","port":30080}]}"#
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_ours_to_write_or_to_undo() {
        let check = |text: &str, since: i64| {
            let mut read = read_record(text);
            assert!(read.is_foreign() && read.since == Timestamp::from_millis(since), "{text}");
            assert!(read.targets.is_empty(), "{text}");
            read.notices.insert(NoticeId::from("ours"));
            assert_eq!(write_record(&read), None, "{text}");
        };
        let text = write_record(&record()).unwrap();
        check(&text.replace("\"v\":1", "\"v\":2"), 1_774_000_000_123);
        check(&text.replace("i-0b1c2d3e4f5061728", "somewhere"), 1_774_000_000_123);
        check(&text.replace("2026-", "spring "), 0);
        check(&text[..text.len() - 1], 0);
        check(r#"{"v":2,"since":"2026-03-20T09:46:40Z"}"#, 1_774_000_000_000);
        check("", 0);
        check("true", 0);
    }

    #[test]
    fn a_record_of_a_later_version_is_a_claim_with_an_end() {
        let text = r#"{"v":2,"since":"2026-03-20T09:46:40Z","cordoned":true,"excluded":true,"targets":"of another form",
            "entries":[{"kind":"spot","end":"2026-03-20T09:48:40Z"},{"kind":"hook","end":"2026-03-20T10:46:40Z"},{}]}"#;
        let read = read_record(text);
        let until = Timestamp::from_millis(1_774_003_600_000);
        assert!(read.is_foreign() && read.cordoned && read.excluded);
        assert_eq!(read.foreign_until, Some(until));
        assert_eq!(write_record(&read), None, "it stays as it is");
    }
}
