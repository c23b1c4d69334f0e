//! The annotation on a node that says what offramp changed there: JSON with a format version. It is the
//! engine's, because every adapter has to write and read the same: replicas of two versions may work side
//! by side during an upgrade, and one undoes what another did.
//!
//! Version 1 is that of offramp 0.1. Its notices are read as claimants of their own, and the next write makes a
//! version 2 of it. Offramp 0.1.1 beside this one reads of version 2 what its outline tells, and leaves it alone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offramp_core::{
    AccountId, AccountRegion, Cause, Claimant, Entry, EntryEnd, Foreign, Installation, InstanceId, NoticeId,
    Record, Region, TargetGroupArn, TargetKey, Timestamp, Trigger,
};
use offramp_wire::{is_account, is_region};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::labels::{ENDED, ended_name, state_name, state_named, trigger_name};

/// The annotation's key.
pub const RECORD_ANNOTATION: &str = "offramp.sh/record";

/// Longer annotations are not ours: all annotations of an object together may have so many bytes (Kubernetes, API
/// validation). A record with 32 entries of the longest names and 200 targets has less than 64 KiB.
const LONGEST: usize = 256 * 1024;

/// A notice in a record of version 1 has a claim for this long at most: `timing.hook_limit` and `timing.patience` are
/// an hour each where nobody chose otherwise, and a second notice may have joined as late as that.
const OF_VERSION_1: Duration = Duration::from_secs(2 * 3_600);

/// What every version says. Later ones keep these fields, so that an older worker beside them knows since when, until
/// when, and what of the node offramp changed.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Outline {
    since: Value,
    cordoned: Value,
    excluded: Value,
    /// One for each claim, with its `end`.
    entries: Vec<Value>,
}

/// Format version 1.
#[derive(Deserialize)]
struct Version1 {
    since: String,
    notices: BTreeSet<String>,
    cordoned: bool,
    excluded: bool,
    targets: Vec<Target1>,
}

#[derive(Deserialize)]
struct Target1 {
    group: String,
    instance: String,
    port: u16,
}

/// Format version 2. Times are RFC 3339, because people read them.
#[derive(Serialize, Deserialize)]
struct Version2 {
    v: u32,
    since: String,
    cordoned: bool,
    excluded: bool,
    entries: Vec<Entry2>,
    /// The instance whose targets these are.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    instance: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    targets: Vec<Target2>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    maintenance: Option<Maintenance2>,
}

/// One for each claimant: a hook by group and name, another trigger by its word alone, a notice of version 1 by its id,
/// each with the queue of the workers whose it is.
#[derive(Serialize, Deserialize)]
struct Entry2 {
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    group: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    hook: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    notice: Option<String>,
    /// The queue of the workers whose claim it is.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    by: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    account: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    region: Option<String>,
    at: String,
    end: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ended: Option<Ended2>,
}

#[derive(Serialize, Deserialize)]
struct Ended2 {
    outcome: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    state: Option<String>,
    at: String,
}

/// A target group by what follows [`ARN`] in its ARN, with the port. A classic balancer,
/// which has neither, is for a later version.
#[derive(Serialize, Deserialize)]
struct Target2 {
    group: String,
    port: u16,
}

#[derive(Serialize, Deserialize)]
struct Maintenance2 {
    start: String,
}

/// The annotation's text, or nothing for a record that stands for one that could not be read: that
/// annotation is to be left as it is.
pub fn write_record(record: &Record) -> Option<String> {
    let Record { since, entries, cordoned, excluded, targets, maintenance, foreign } = record;
    let written = Version2 {
        v: 2,
        since: time_in_words(*since),
        cordoned: *cordoned,
        excluded: *excluded,
        entries: entries.iter().map(|(claimant, entry)| written_entry(claimant, entry)).collect(),
        instance: targets.first().map(|target| target.instance.as_str().to_owned()),
        targets: targets.iter().map(written_target).collect(),
        maintenance: maintenance.map(|start| Maintenance2 { start: time_in_words(start) }),
    };
    // Texts, numbers and lists can always be written.
    if foreign.is_some() { None } else { serde_json::to_string(&written).ok() }
}

fn written_entry(claimant: &Claimant, entry: &Entry) -> Entry2 {
    let ended = entry.ended.as_ref().map(|ended| Ended2 {
        outcome: ended_name(ended.outcome).to_owned(),
        state: ended.state.as_ref().map(|state| state_name(state).to_owned()),
        at: time_in_words(ended.at),
    });
    let AccountRegion { account, region } = &entry.account_region;
    let of = |kind: &str| Entry2 {
        kind: kind.to_owned(),
        group: None,
        hook: None,
        notice: None,
        by: claimant.by.as_ref().map(|by| by.as_str().to_owned()),
        account: account.as_ref().map(|account| account.as_str().to_owned()),
        region: region.as_ref().map(|region| region.as_str().to_owned()),
        at: time_in_words(entry.at),
        end: time_in_words(entry.end),
        ended,
    };
    match &claimant.cause {
        Cause::Hook(group, hook) => Entry2 {
            group: Some(group.as_str().to_owned()),
            hook: Some(hook.as_str().to_owned()),
            ..of(trigger_name(Trigger::Hook))
        },
        Cause::Trigger(trigger) => of(trigger_name(*trigger)),
        Cause::Notice(notice) => Entry2 { notice: Some(notice.as_str().to_owned()), ..of(NOTICE) },
    }
}

/// The kind of a cause that a record of version 1 left.
const NOTICE: &str = "notice";

fn written_target(target: &TargetKey) -> Target2 {
    let arn = target.group.as_str();
    Target2 { group: arn.strip_prefix(ARN).unwrap_or(arn).to_owned(), port: target.port }
}

/// What every ARN of a target group begins with in the partition `aws`; in others the whole ARN is written.
const ARN: &str = "arn:aws:elasticloadbalancing:";

/// Reads the annotation. One that is damaged, or of a version that this program does not know, becomes a foreign
/// record with what its outline tells.
pub fn read_record(text: &str) -> Record {
    understood(text).unwrap_or_else(|| {
        let outline: Outline = serde_json::from_str(text).unwrap_or_default();
        let time_of = |value: &Value| value.as_str().and_then(time);
        let ends = outline.entries.iter().filter_map(|entry| time_of(entry.get("end")?));
        Record {
            cordoned: outline.cordoned.as_bool().unwrap_or(false),
            excluded: outline.excluded.as_bool().unwrap_or(false),
            foreign: Some(Foreign { until: ends.max() }),
            ..Record::new(time_of(&outline.since).unwrap_or(Timestamp::from_millis(0)))
        }
    })
}

fn understood(text: &str) -> Option<Record> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    if text.len() > LONGEST {
        return None;
    }
    match serde_json::from_str::<Version>(text).ok()?.v {
        1 => read_version_1(serde_json::from_str(text).ok()?),
        2 => read_version_2(serde_json::from_str(text).ok()?),
        _ => None,
    }
}

fn read_version_1(written: Version1) -> Option<Record> {
    let since = time(&written.since)?;
    let entry = |id: String| {
        let claimant = Claimant { cause: Cause::Notice(NoticeId::new(id)), by: None };
        let account_region = AccountRegion::default();
        (claimant, Entry { at: since, end: since + OF_VERSION_1, account_region, ended: None })
    };
    let target = |target: Target1| {
        Some(TargetKey {
            group: TargetGroupArn::new(target.group),
            instance: InstanceId::parse(&target.instance)?,
            port: target.port,
        })
    };
    Some(Record {
        entries: written.notices.into_iter().map(entry).collect(),
        cordoned: written.cordoned,
        excluded: written.excluded,
        targets: written.targets.into_iter().map(target).collect::<Option<_>>()?,
        ..Record::new(since)
    })
}

fn read_version_2(written: Version2) -> Option<Record> {
    let instance = match &written.instance {
        Some(text) => Some(InstanceId::parse(text)?),
        None => None,
    };
    let maintenance = match &written.maintenance {
        Some(Maintenance2 { start }) => Some(time(start)?),
        None => None,
    };
    let target = |target: Target2| {
        let prefix = if target.group.starts_with("arn:") { "" } else { ARN };
        let group = TargetGroupArn::new(format!("{prefix}{}", target.group));
        Some(TargetKey { group, instance: instance.clone()?, port: target.port })
    };
    Some(Record {
        entries: written.entries.into_iter().map(read_entry).collect::<Option<BTreeMap<_, _>>>()?,
        cordoned: written.cordoned,
        excluded: written.excluded,
        targets: written.targets.into_iter().map(target).collect::<Option<_>>()?,
        maintenance,
        ..Record::new(time(&written.since)?)
    })
}

/// Nothing for a kind that a later version knows: then the whole record is left to it.
fn read_entry(entry: Entry2) -> Option<(Claimant, Entry)> {
    let cause = match (entry.kind.as_str(), entry.group, entry.hook, entry.notice) {
        ("hook", Some(group), Some(hook), _) => Cause::Hook(group.as_str().into(), hook.as_str().into()),
        ("hook", ..) => return None,
        (NOTICE, _, _, Some(notice)) => Cause::Notice(NoticeId::new(notice)),
        (kind, ..) => {
            Cause::Trigger(Trigger::ALL.into_iter().find(|trigger| trigger_name(*trigger) == kind)?)
        }
    };
    let ended = match &entry.ended {
        Some(Ended2 { outcome, state, at }) => {
            let outcome = ENDED.into_iter().find(|known| ended_name(*known) == outcome)?;
            Some(EntryEnd { outcome, state: state.as_deref().map(state_named), at: time(at)? })
        }
        None => None,
    };
    let account_region = AccountRegion {
        account: known(entry.account, is_account)?.map(AccountId::new),
        region: known(entry.region, is_region)?.map(Region::new),
    };
    let claimant = Claimant { cause, by: entry.by.map(Installation::new) };
    Some((claimant, Entry { at: time(&entry.at)?, end: time(&entry.end)?, account_region, ended }))
}

/// Whoever may write the node may have written it: it leads to host names and into logs, like that of an event.
fn known(text: Option<String>, is_one: fn(&str) -> bool) -> Option<Option<String>> {
    if text.as_deref().is_none_or(is_one) { Some(text) } else { None }
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
mod tests;
