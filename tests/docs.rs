//! The documents held to the code: names in tables, examples, command lines, links.
//!
//! Each rule is a function from texts to a list of complaints. Every rule runs on the repository, and on an
//! input that breaks it, so that none of them can quietly stop working. The commands of docs/install.md are
//! run by `make walk`.
#![allow(clippy::unwrap_used, reason = "a test that cannot read the repository has failed")]

#[path = "markdown/links.rs"]
mod links;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use offramp_core::{Demands, Hook, HookKey, NoticeKind, Passage, Policy, SpotAction, Trigger, demands};
use offramp_engine::{
    EventReason, JobOutcome, Metrics, RECORD_ANNOTATION, Settings, default_policy, in_words, stage_name,
};
use offramp_wire::Ignored;
use prometheus::Registry;
use prometheus::process_collector::ProcessCollector;

use links::resolve;

/// Words in a column of a table, by the word in its first column.
type Rows = BTreeMap<String, Vec<String>>;

// === The tables of docs/operate.md

#[test]
fn every_field_of_the_configuration_is_explained() {
    let raw = read("crates/offramp/src/config/raw.rs");
    assert_right(&differences("field", &fields_of(&raw), &names(&operate(), "### Fields")));
}

#[test]
fn every_field_is_in_the_sample() {
    let fields = fields_of(&read("crates/offramp/src/config/raw.rs"));
    let sample: BTreeSet<String> = paths_of(&read("docs/samples/offramp.yaml")).into_keys().collect();
    assert_right(&differences("field", &fields, &sample));
}

/// Three places name a default, and the code has it: the page, the sample, and the comments in raw.rs.
#[test]
fn defaults_are_those_of_the_code() {
    let page = rows(&operate(), "### Fields");
    let sample = paths_of(&read("docs/samples/offramp.yaml"));
    let comments = comments_of(&read("crates/offramp/src/config/raw.rs"));
    let mut complaints = wrong_defaults(&page, &sample, &comments);
    for (field, value) in defaults() {
        let said = page.get(field).and_then(|cells| code_in(&cells[0]).first().cloned());
        if said.as_deref().map(plain) != Some(plain(&value)) {
            complaints.push(format!("{field}: the page says {said:?}, the code {value}"));
        }
    }
    assert_right(&complaints);
}

#[test]
fn every_environment_variable_is_explained() {
    // The worker names those that it knows when it meets one that it does not.
    let output = offramp(&["run"], &[("OFFRAMP_NEVER_HEARD_OF_SUCH_A_THING", "x")]);
    let said = String::from_utf8(output.stderr).unwrap();
    let known = said.split("those known are ").nth(1).unwrap().lines().next().unwrap();
    let known: BTreeSet<String> = known.split(", ").map(str::to_owned).collect();
    assert_right(&differences("variable", &known, &names(&operate(), "### Environment variables")));
}

#[test]
fn every_metric_is_explained_with_its_labels() {
    let registered = registered();
    let page = rows(&operate(), "### Metrics");
    let metrics: BTreeSet<String> = registered.keys().cloned().collect();
    // The second table of the section is that of the labels.
    let written = page.iter().filter(|(_, cells)| cells.len() == 3);
    let labels: BTreeMap<String, BTreeSet<String>> = written
        .map(|(name, cells)| (name.clone(), code_in(&cells[1]).into_iter().collect::<BTreeSet<String>>()))
        .collect();
    let mut complaints = differences("metric", &metrics, &labels.keys().cloned().collect());
    for (name, family) in &registered {
        let expect: BTreeSet<String> = family.labels.keys().cloned().collect();
        if labels.get(name).is_some_and(|written| *written != expect) {
            complaints.push(format!("{name} has the labels {expect:?}"));
        }
        if page.get(name).is_some_and(|cells| cells[0] != family.kind) {
            complaints.push(format!("{name} is a {}", family.kind));
        }
    }
    assert_right(&complaints);
}

#[test]
fn every_label_is_explained_with_its_values() {
    let registered = registered();
    let section = section(&operate(), "### Metrics");
    let labels = tables(&section).into_iter().nth(1).unwrap();
    let mut complaints = Vec::new();
    for row in &labels {
        let (label, metric, values) = (&code_in(&row[0])[0], &code_in(&row[1])[0], code_in(&row[2]));
        let expect = &registered[metric].labels[label];
        complaints.extend(differences(label, expect, &values.into_iter().collect()));
    }
    // These three are explained elsewhere, or are not ours to name.
    let elsewhere = ["cluster", "reason", "operation", "version"];
    let all = registered.values().flat_map(|family| family.labels.keys().cloned());
    let all = all.filter(|label| !elsewhere.contains(&label.as_str())).collect();
    let written = labels.iter().map(|row| code_in(&row[0])[0].clone()).collect();
    complaints.extend(differences("label", &all, &written));
    assert_right(&complaints);
}

#[test]
fn the_alert_for_unclear_ends_has_them_all() {
    let alerts = read("infra/prometheus/alerts.yaml");
    let outcomes =
        alerts.split("outcome=~\"ended_without").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let alerted = format!("ended_without{outcomes}").split('|').map(str::to_owned).collect();
    let unclear = JobOutcome::ALL.into_iter().filter(|outcome| outcome.is_unclear());
    let unclear = unclear.map(|outcome| outcome.as_str().to_owned()).collect();
    assert_right(&differences("outcome", &unclear, &alerted));
}

#[test]
fn every_event_outcome_and_reason_to_ignore_is_explained() {
    let operate = operate();
    let events: BTreeSet<String> = EventReason::ALL.map(|reason| reason.as_str().to_owned()).into();
    let mut complaints = differences("Event", &events, &names(&operate, "### Events"));
    for (name, cells) in rows(&operate, "### Events") {
        let reason = EventReason::ALL.into_iter().find(|reason| reason.as_str() == name);
        if reason.is_some_and(|reason| reason.is_warning() != (cells[0] == "Warning")) {
            complaints.push(format!("the Event {name} is no {}", cells[0]));
        }
    }
    let outcomes: BTreeSet<String> = JobOutcome::ALL.map(|outcome| outcome.as_str().to_owned()).into();
    complaints.extend(differences("outcome", &outcomes, &names(&operate, "### Outcomes")));
    let ignored: BTreeSet<String> = Ignored::ALL.map(|why| why.as_str().to_owned()).into();
    complaints.extend(differences("reason", &ignored, &names(&operate, "### Ignored messages")));
    assert_right(&complaints);
}

#[test]
fn every_stage_is_explained() {
    let stages = offramp_core::Goal::ALL.into_iter().flat_map(offramp_core::Goal::stages);
    let stages: BTreeSet<String> = stages.map(|stage| stage_name(stage).to_owned()).collect();
    assert_right(&differences("stage", &stages, &names(&operate(), "### Stages")));
}

/// The table of ARCHITECTURE.md says in words what the constants of `triggers/` say in code.
#[test]
fn what_each_trigger_demands_is_explained() {
    let key = HookKey { group: "g".into(), name: "h".into(), token: None };
    let hook = Hook { key, cluster_hint: None, passage: Passage::Ending };
    let kinds = [
        ("hook", NoticeKind::Hook(hook)),
        ("spot, terminate", NoticeKind::Spot(SpotAction::Terminate)),
        ("spot, stop", NoticeKind::Spot(SpotAction::Stop)),
        ("spot, hibernate", NoticeKind::Spot(SpotAction::Hibernate)),
        ("capacity reservation", NoticeKind::CapacityReservation),
        ("rebalance", NoticeKind::Rebalance),
        ("record: nobody looks after it", NoticeKind::Record),
    ];
    let yes_or_no = |demanded: bool| if demanded { "yes" } else { "no" };
    for (_, kind) in &kinds {
        assert!(Trigger::ALL.contains(&Trigger::of(kind)), "{kind:?}");
    }
    let row = |(name, kind): &(&str, NoticeKind)| {
        // A kind that is missing above does not compile here.
        match kind {
            NoticeKind::Hook(_) | NoticeKind::Spot(_) => {}
            NoticeKind::CapacityReservation | NoticeKind::Rebalance | NoticeKind::Record => {}
        }
        let Demands { isolate, deregister, drain, detach, quiesce, at_the_end } = demands(kind);
        let (drain, quiesce) = (yes_or_no(drain), yes_or_no(quiesce));
        format!("{name} {isolate:?} {deregister:?} {drain} {detach:?} {quiesce} {at_the_end:?}")
    };
    let demanded: BTreeSet<String> = kinds.iter().map(row).collect();
    let text = read("ARCHITECTURE.md");
    let section = text.split("## What each trigger demands").nth(1).unwrap().split("###").next().unwrap();
    let table = section.lines().filter(|line| line.starts_with("| ["));
    let told: BTreeSet<String> = table.map(without_links).collect();
    assert_right(&differences("row of a trigger", &demanded, &told));
}

/// The table of ARCHITECTURE.md names functions, limits and outcomes as the code has them.
#[test]
fn what_each_conclusion_needs_is_in_the_code() {
    let text = read("ARCHITECTURE.md");
    let section = text.split("## What each conclusion needs").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<Vec<&str>> = section
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| conclusion"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    assert!(rows.len() > 10, "{rows:?}");
    let mut complaints = Vec::new();
    let mut told = BTreeSet::new();
    for row in &rows {
        let [conclusion, witnesses, otherwise, outcomes, place] = row[..] else { panic!("{row:?}") };
        let &[file, _, function] = &quoted(place)[..] else { panic!("{place}") };
        let (name, rest) = file.split_once("/src/").unwrap();
        let code = read(&format!("crates/{name}/src/{rest}"));
        if !code.contains(&format!("fn {function}(")) {
            complaints.push(format!("{conclusion}: {file} has no function {function}"));
        }
        for (limit, seconds) in limits(witnesses).into_iter().chain(limits(otherwise)) {
            if !code.contains(&format!("const {limit}: Duration = Duration::from_secs({seconds});")) {
                complaints.push(format!("{conclusion}: {file} does not say that {limit} is {seconds} s"));
            }
        }
        told.extend(outcomes.split(['`', ',', ' ']).filter(|word| !word.is_empty()).map(str::to_owned));
    }
    let known: BTreeSet<String> = JobOutcome::ALL.iter().map(|outcome| outcome.as_str().to_owned()).collect();
    complaints.extend(told.difference(&known).map(|outcome| format!("no job ends as {outcome}")));
    let unclear = JobOutcome::ALL.iter().filter(|outcome| outcome.is_unclear());
    let unclear: BTreeSet<String> = unclear.map(|outcome| outcome.as_str().to_owned()).collect();
    complaints.extend(unclear.difference(&told).map(|outcome| format!("no conclusion leads to {outcome}")));
    assert_right(&complaints);
}

/// What stands in backticks, and between them.
fn quoted(text: &str) -> Vec<&str> {
    text.trim_matches('`').split('`').collect()
}

/// Constants in backticks, each with the seconds that follow.
fn limits(text: &str) -> Vec<(&str, &str)> {
    let parts: Vec<&str> = text.split('`').collect();
    let names = parts.windows(2).filter(|pair| !pair[0].is_empty() && pair[0].chars().all(is_of_a_constant));
    names.filter_map(|pair| Some((pair[0], pair[1].trim_start().split_once(" s")?.0))).collect()
}

fn is_of_a_constant(letter: char) -> bool {
    letter.is_ascii_uppercase() || letter == '_'
}

/// The cells of a table's line, with the texts of its links alone.
fn without_links(line: &str) -> String {
    let mut text = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        let (name, after) = after.split_once(']').unwrap();
        let (_, after) = after.split_once(')').unwrap();
        text.push_str(before);
        text.push_str(name);
        rest = after;
    }
    text.push_str(rest);
    let cells: Vec<&str> = text.split('|').map(str::trim).filter(|cell| !cell.is_empty()).collect();
    cells.join(" ")
}

#[test]
fn every_page_of_the_admin_server_is_explained() {
    let source = read("crates/offramp/src/admin.rs");
    let routes = between(&source, ".route(\"", "\"").into_iter().collect();
    assert_right(&differences("page", &routes, &names(&operate(), "### Pages")));
}

#[test]
fn log_lines_and_marks_are_those_of_the_code() {
    let operate = operate();
    let sources = sources();
    let words: Vec<String> = names(&operate, "### Log lines").into_iter().collect();
    let mut complaints = not_in_the_code(&words, &sources);
    let marks = rows(&operate, "### Marks on nodes and pods");
    let marks: Vec<String> = marks.keys().map(|mark| mark.split(':').next().unwrap().to_owned()).collect();
    complaints.extend(not_in_the_code(&marks, &sources));
    if !marks.iter().any(|mark| mark == RECORD_ANNOTATION) {
        complaints.push(format!("the annotation {RECORD_ANNOTATION} is not explained"));
    }
    assert_right(&complaints);
}

// === Examples and links of every document

#[test]
fn every_example_of_a_configuration_is_accepted() {
    let mut complaints = Vec::new();
    let mut count = 0;
    for (path, text) in documents() {
        for (line, block) in blocks(&text, &["yaml"]) {
            count += 1;
            if let Some(refusal) = refusal(&block) {
                complaints.push(format!("{path}:{line}: {refusal}"));
            }
        }
    }
    assert!(count >= 3, "the documents have lost their examples");
    assert_right(&complaints);
}

#[test]
fn every_command_line_is_accepted() {
    let mut complaints = Vec::new();
    let mut count = 0;
    for (path, text) in documents() {
        for (line, words) in command_lines(&text) {
            count += 1;
            if let Some(refusal) = wrong_usage(&words) {
                complaints.push(format!("{path}:{line}: offramp {}: {refusal}", words.join(" ")));
            }
        }
    }
    assert!(count >= 1, "the documents have lost their command lines");
    assert_right(&complaints);
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let documents = documents();
    let exists = |path: &str| root().join(path).exists();
    assert_right(&dead_links(&documents, &exists));
}

#[test]
fn version_and_licence_are_the_same_everywhere() {
    assert_right(&other_versions(&documents(), env!("CARGO_PKG_VERSION")));
    // The manifest's licence is the text that lies beside it, and `cargo deny` admits it.
    assert_eq!(env!("CARGO_PKG_LICENSE"), "Apache-2.0");
    let licence = read("LICENSE");
    assert!(licence.contains("Apache License") && licence.contains("Version 2.0, January 2004"));
    assert!(read("deny.toml").contains("\"Apache-2.0\","));
}

// === The rules

/// Documents that name another version: the changelog at its top, and tags of the image.
fn other_versions(documents: &BTreeMap<String, String>, version: &str) -> Vec<String> {
    let mut complaints = Vec::new();
    let newest = |text: &str| text.lines().find(|line| line.starts_with("## ")).map(str::to_owned);
    if let Some(newest) = documents.get("CHANGELOG.md").and_then(|text| newest(text))
        && !newest.contains(version)
    {
        complaints.push(format!("CHANGELOG.md: the newest version is {version}, not {newest:?}"));
    }
    for (path, text) in documents {
        for mark in ["$IMAGE:", "/offramp:"] {
            let tags = text.split(mark).skip(1).filter(|tag| tag.starts_with(|c: char| c.is_ascii_digit()));
            let others = tags.filter(|tag| !tag.starts_with(version));
            complaints.extend(others.map(|_| format!("{path}: the image has the tag {version}")));
        }
    }
    complaints
}

/// What is in one set only.
fn differences(what: &str, code: &BTreeSet<String>, page: &BTreeSet<String>) -> Vec<String> {
    let missing = code.difference(page).map(|name| format!("{what} {name} is not in the document"));
    let unknown = page.difference(code).map(|name| format!("{what} {name} is not in the code"));
    missing.chain(unknown).collect()
}

/// The fields of the structs in raw.rs, each by its path from the root: `clusters[].name`.
fn fields_of(source: &str) -> BTreeSet<String> {
    let mut structs: BTreeMap<&str, Vec<(&str, &str)>> = BTreeMap::new();
    let mut current = "";
    for line in source.lines() {
        if let Some(name) = line.strip_prefix("pub(super) struct ") {
            current = name.split(' ').next().unwrap_or_default();
        } else if let Some((name, kind)) = line
            .strip_prefix("    pub(super) ")
            .and_then(|field| field.trim_end_matches(',').split_once(": "))
        {
            let kind = kind.strip_prefix("Option<").and_then(|kind| kind.strip_suffix('>')).unwrap_or(kind);
            structs.entry(current).or_default().push((name, kind));
        }
    }
    let mut paths = BTreeSet::new();
    let mut open = vec![("RawConfig", String::new())];
    while let Some((name, prefix)) = open.pop() {
        for (field, kind) in structs.get(name).into_iter().flatten() {
            let inner = kind.strip_prefix("Vec<").and_then(|kind| kind.strip_suffix('>'));
            let path = format!("{prefix}{field}");
            match inner.unwrap_or(kind) {
                "Given" => {
                    paths.insert(path);
                }
                nested => open.push((nested, format!("{path}{}.", if inner.is_some() { "[]" } else { "" }))),
            }
        }
    }
    paths
}

/// The documentation of each field in raw.rs that names a default, by the field's last name.
fn comments_of(source: &str) -> BTreeMap<String, Vec<String>> {
    let mut comments: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut above = String::new();
    for line in source.lines().map(str::trim) {
        if let Some(words) = line.strip_prefix("///") {
            above.push_str(words);
        } else {
            if let Some((field, _)) = line.strip_prefix("pub(super) ").and_then(|line| line.split_once(": "))
            {
                comments.entry(field.to_owned()).or_default().push(above.clone());
            }
            above.clear();
        }
    }
    comments
}

/// The fields of a YAML file that gives each on a line of its own, and the value where the line calls it
/// the default.
fn paths_of(yaml: &str) -> BTreeMap<String, Option<String>> {
    let mut found = BTreeMap::new();
    // The keys above this line, with their columns.
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in yaml.lines().filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty()) {
        let column = line.len() - line.trim_start_matches([' ', '-']).len();
        let item = line.trim_start().starts_with("- ");
        let text = &line[column..];
        above.retain(|(other, _)| *other < column);
        let Some((key, value)) =
            text.split_once(':').filter(|(_, value)| value.is_empty() || value.starts_with(' '))
        else {
            continue;
        };
        if let (true, Some((_, list))) = (item, above.last_mut())
            && !list.ends_with("[]")
        {
            list.push_str("[]");
        }
        let path: String = above.iter().map(|(_, key)| format!("{key}.")).collect();
        let path = format!("{path}{key}");
        let (value, comment) = value.split_once(" #").unwrap_or((value, ""));
        let value = value.trim();
        if value.is_empty() {
            // A section or a list: a list of plain values is a field itself.
            above.push((column, key.to_owned()));
            found.insert(path, None);
        } else {
            let default = comment.trim().starts_with("default").then(|| value.to_owned());
            // One that has a default under a condition is no default.
            found.insert(path, default.filter(|_| comment.trim() == "default"));
        }
    }
    let sections: Vec<String> = found.keys().cloned().collect();
    let is_section = |path: &String| {
        sections
            .iter()
            .any(|other| other.starts_with(&format!("{path}.")) || other.starts_with(&format!("{path}[].")))
    };
    found.into_iter().filter(|(path, _)| !is_section(path)).collect()
}

/// Where the page, the sample and the comments in the code disagree about a default.
fn wrong_defaults(
    page: &Rows,
    sample: &BTreeMap<String, Option<String>>,
    comments: &BTreeMap<String, Vec<String>>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (field, cells) in page {
        let cell = cells[0].trim();
        // A cell that is nothing but code is a value; else it is a rule in words.
        let value =
            cell.strip_prefix('`').and_then(|cell| cell.strip_suffix('`')).filter(|v| !v.contains('`'));
        let sampled = sample.get(field).cloned().flatten();
        // The address is the one default that the sample does not use.
        if value.map(plain) != sampled.as_deref().map(plain) && field != "admin.listen" {
            complaints.push(format!("{field}: the default is {value:?} here and {sampled:?} in the sample"));
        }
        let last = field.rsplit(['.', ']']).next().unwrap_or_default();
        let said = |value: &str| {
            let comments = comments.get(last).into_iter().flatten();
            let words: Vec<String> = comments
                .flat_map(|text| {
                    let rest = text.split("Default: ").nth(1).unwrap_or_default();
                    rest.split([' ', ',', ';', ':'])
                        .take(1)
                        .map(|word| word.trim_end_matches('.').replace('`', ""))
                        .collect::<Vec<_>>()
                })
                .collect();
            words.is_empty() || words.iter().any(|word| value.starts_with(word.as_str()) && !word.is_empty())
        };
        if let Some(value) = value.filter(|value| !said(value)) {
            complaints.push(format!("{field}: the default is {value} here and something else in raw.rs"));
        }
    }
    complaints
}

/// What the code uses where nothing is said, as a duration or a number is written.
fn defaults() -> Vec<(&'static str, String)> {
    let Policy {
        deadline_margin,
        node_shutdown_grace,
        hook_limit,
        patience,
        no_node,
        gate_limit,
        propagation,
        settle,
        recheck,
        installation: _,
        hook_names: _,
        scoped: _,
        clusters: _,
        rebalance: _,
        ingress_daemon_sets: _,
    } = default_policy();
    let Settings { receives, permits, most_jobs, foreign, lease, target_groups: _, messages: _ } =
        Settings::default();
    let times: [(&str, Duration); 13] = [
        ("timing.deadline_margin", deadline_margin),
        ("timing.node_shutdown_grace", node_shutdown_grace),
        ("timing.hook_limit", hook_limit),
        ("timing.patience", patience),
        ("timing.no_node", no_node),
        ("timing.gate_limit", gate_limit),
        ("timing.application_propagation", propagation.application),
        ("timing.network_propagation", propagation.network),
        ("timing.settle", settle),
        ("timing.recheck", recheck),
        ("foreign_hold", foreign.hold),
        ("lease.visibility", lease.visibility),
        ("lease.extend_every", lease.extend_every),
    ];
    let counts =
        [("intake.receives_in_flight", receives), ("intake.permits", permits), ("jobs.most", most_jobs)];
    let times = times.into_iter().map(|(field, time)| (field, in_words(time)));
    times.chain(counts.into_iter().map(|(field, count)| (field, count.to_string()))).collect()
}

/// A duration as its seconds, and everything else as it is: `150s` and `2m30s` are the same.
fn plain(value: impl AsRef<str>) -> String {
    let text = value.as_ref().trim().replace(' ', "");
    let mut seconds = 0;
    let mut number = String::new();
    for letter in text.chars() {
        match (letter, number.parse::<u64>()) {
            ('0'..='9', _) => number.push(letter),
            ('s', Ok(count)) => seconds += count,
            ('m', Ok(count)) => seconds += count * 60,
            ('h', Ok(count)) => seconds += count * 3600,
            _ => return text,
        }
        if !letter.is_ascii_digit() {
            number.clear();
        }
    }
    if number.is_empty() && !text.is_empty() { format!("{seconds}s") } else { text }
}

/// Words that stand in no source file. `…` is where the code puts something in.
fn not_in_the_code(words: &[String], sources: &str) -> Vec<String> {
    let pieces = words.iter().flat_map(|words| words.split('…').map(str::trim));
    let missing = pieces.filter(|piece| !piece.is_empty() && !said_in(piece, sources));
    missing.map(|piece| format!("no source file says {piece:?}")).collect()
}

/// A text in a source file may have any value where it is written here, such as a trigger's name.
fn said_in(piece: &str, sources: &str) -> bool {
    let mut rest = vec![piece.to_owned()];
    // `hook notice taken on` is "{} notice taken on".
    rest.extend(piece.split_once(' ').map(|(_, rest)| format!("{{}} {rest}")));
    // `left after` is "{} after {}".
    rest.extend(piece.split_once(' ').map(|(first, rest)| format!("{{{first}}} {rest}")));
    // `deregister: waiting` is "{}: {reason}" around "waiting {} for".
    rest.extend(piece.split_once(": ").map(|(_, rest)| rest.to_owned()));
    rest.iter().any(|words| sources.contains(words.as_str()))
}

/// Why the binary does not accept this configuration, or this piece of one.
fn refusal(yaml: &str) -> Option<String> {
    let folder = tempfile::tempdir().unwrap();
    let mut text = String::new();
    for (number, line) in yaml.lines().enumerate() {
        // Files of the example are not on this machine.
        if let Some((before, _)) = line.split_once("kubeconfig: ") {
            let file = folder.path().join(format!("kubeconfig-{number}"));
            fs::write(&file, "").unwrap();
            text.push_str(&format!("{before}kubeconfig: {}\n", file.display()));
        } else {
            text.push_str(&format!("{line}\n"));
        }
    }
    for (section, rest) in [
        ("queue:", "queue: { url: 'https://sqs.eu-west-1.amazonaws.com/123456789012/offramp' }\n"),
        ("clusters:", "clusters: [{ name: blue }]\n"),
    ] {
        if !text.lines().any(|line| line.starts_with(section)) {
            text.push_str(rest);
        }
    }
    let file = folder.path().join("offramp.yaml");
    fs::write(&file, text).unwrap();
    let path = file.display().to_string();
    // As in a pod, but without credentials: what is right ends at the queue, before anything is reached.
    let output = offramp(
        &["run", "--config", &path],
        &[
            ("KUBERNETES_SERVICE_HOST", "127.0.0.1"),
            ("OFFRAMP_ADMIN_LISTEN", "127.0.0.1:0"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ],
    );
    let said = String::from_utf8(output.stderr).unwrap();
    let error = said.lines().find(|line| line.starts_with("offramp: error: ")).unwrap_or("it has run");
    (!(error.starts_with("offramp: error: opening queue ") && error.contains("no AWS credentials")))
        .then(|| error.to_owned())
}

/// The lines of a document that call offramp, without its name.
fn command_lines(text: &str) -> Vec<(usize, Vec<String>)> {
    let mut found = Vec::new();
    for (start, block) in blocks(text, &["console", "sh"]) {
        for (number, line) in block.lines().enumerate() {
            let line = line.strip_prefix("$ ").unwrap_or(line).split(" #").next().unwrap_or_default();
            let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
            let is_variable = |word: &&String| word.contains('=') && word.chars().all(|c| c != '-');
            let begin = words.iter().take_while(is_variable).count();
            match words.get(begin).map(String::as_str) {
                Some("offramp") => found.push((start + number, words[begin + 1..].to_vec())),
                // The workspace's binary.
                Some("cargo") if words.get(begin + 1).is_some_and(|word| word == "run") => {
                    let own = words.iter().skip_while(|word| *word != "--").skip(1).cloned().collect();
                    found.push((start + number, own));
                }
                _ => {}
            }
        }
    }
    found
}

/// Why the command line is refused. `--help` at its end reads all of it, and starts nothing.
fn wrong_usage(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).chain(["--help"]).collect();
    let output = offramp(&words, &[]);
    let said = String::from_utf8(output.stderr).unwrap();
    (output.status.code() != Some(0)).then(|| said.lines().next().unwrap_or_default().to_owned())
}

/// Links to files that do not exist, or to headings that a document does not have.
fn dead_links(documents: &BTreeMap<String, String>, exists: &dyn Fn(&str) -> bool) -> Vec<String> {
    let mut complaints = Vec::new();
    for (path, text) in documents {
        let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in links(text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let file = if file.is_empty() { path.clone() } else { resolve(folder, file) };
            if !exists(&file) {
                complaints.push(format!("{path}: the link to `{target}` leads nowhere"));
            } else if let (Some(text), false) = (documents.get(&file), anchor.is_empty())
                && !anchors(text).contains(anchor)
            {
                complaints.push(format!("{path}: `{target}`: {file} has no such heading"));
            }
        }
    }
    complaints
}

fn links(text: &str) -> Vec<String> {
    let prose = prose(text);
    let inline = between(&prose, "](", ")");
    // `[name]: target`
    let named = prose.lines().filter(|line| line.starts_with('['));
    let named = named.filter_map(|line| line.split_once("]: ")).map(|(_, target)| target.to_owned());
    inline.into_iter().chain(named).collect()
}

/// The anchors that GitHub gives to headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut anchors = BTreeSet::new();
    for line in prose(text).lines().filter(|line| line.starts_with('#')) {
        let heading = line.trim_start_matches('#').trim().to_lowercase();
        let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        let slug: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let numbered = (1..).map(|number| format!("{slug}-{number}"));
        let free = std::iter::once(slug.clone()).chain(numbered).find(|slug| !anchors.contains(slug));
        anchors.extend(free);
    }
    anchors
}

/// A document without its code blocks.
fn prose(text: &str) -> String {
    let mut inside = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    lines.flat_map(|line| [line, "\n"]).collect()
}

// === The rules on what breaks them

#[test]
fn fields_are_found_in_structs() {
    let source = "pub(super) struct RawConfig {\n    /// X. Default: 3s.\n    pub(super) one: Option<Given>,\n    \
                  pub(super) two: Option<RawTwo>,\n    pub(super) many: Option<Vec<RawTwo>>,\n    \
                  pub(super) list: Option<Vec<Given>>,\n}\npub(super) struct RawTwo {\n    \
                  pub(super) inner: Option<Given>,\n}\n";
    let expect = ["list", "many[].inner", "one", "two.inner"].map(str::to_owned);
    assert_eq!(fields_of(source), BTreeSet::from(expect.clone()));
    let yaml =
        "# x\none: 3s # default\ntwo:\n  inner: a\nmany:\n  - inner: b # default in a pod\nlist:\n  - c/d\n";
    let sample = paths_of(yaml);
    assert_eq!(sample.keys().cloned().collect::<BTreeSet<_>>(), BTreeSet::from(expect.clone()));
    assert_eq!((sample["one"].as_deref(), sample["many[].inner"].as_deref()), (Some("3s"), None));
    let two =
        differences("field", &BTreeSet::from(expect), &BTreeSet::from(["one".to_owned(), "x".to_owned()]));
    assert_eq!(two.len(), 4, "{two:?}");
}

#[test]
fn a_default_that_differs_is_found() {
    let check = |page: &str, sample: Option<&str>, comment: &str| {
        let page = BTreeMap::from([("timing.settle".to_owned(), vec![page.to_owned(), String::new()])]);
        let sample = BTreeMap::from([("timing.settle".to_owned(), sample.map(str::to_owned))]);
        let comments = BTreeMap::from([("settle".to_owned(), vec![comment.to_owned()])]);
        wrong_defaults(&page, &sample, &comments).len()
    };
    assert_eq!(check("`150s`", Some("2m30s"), "Long. Default: 150s; because."), 0);
    assert_eq!(check("all nodes", None, "Which. Default: all."), 0);
    assert_eq!(check("`5s`", Some("6s"), "Default: 5s."), 1);
    assert_eq!(check("`5s`", Some("5s"), "Default: 6s."), 1);
    assert_eq!(check("none", Some("5s"), ""), 1);
}

#[test]
fn words_that_the_code_does_not_say_are_found() {
    let sources =
        r#"write!(f, "{} notice taken on", x); write!(f, "{} after {}: {reason}"); "too many jobs""#;
    let check = |words: &str| not_in_the_code(&[words.to_owned()], sources).len();
    assert_eq!(check("hook notice taken on"), 0);
    assert_eq!(check("too many … jobs"), 0, "each piece for itself");
    assert_eq!(check("hook notice put on"), 1);
    assert_eq!(check("too few jobs"), 1);
}

#[test]
fn a_wrong_example_is_found() {
    assert_eq!(refusal("timing:\n  settle: 5s\n"), None);
    assert!(refusal("timing:\n  setle: 5s\n").unwrap().contains("did you mean \"settle\"?"));
    assert!(refusal("queue:\n  url: offramp\n").unwrap().contains("queue.url"));
}

#[test]
fn a_wrong_command_line_is_found() {
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    let text =
        "```console\n$ A=b offramp run --config x  # comment\n$ cargo run -- demo --plain\n$ ls\n```\n";
    assert_eq!(command_lines(text), [(2, words("run --config x")), (3, words("demo --plain"))]);
    assert_eq!(wrong_usage(&words("demo --plain --seed 7")), None);
    assert!(wrong_usage(&words("demo --plian")).is_some());
    assert!(wrong_usage(&words("plan")).is_some());
}

#[test]
fn a_dead_link_is_found() {
    let document =
        |text: &str| BTreeMap::from([("docs/a.md".to_owned(), format!("# Top of `a`, 1.\n{text}"))]);
    let check = |text: &str| dead_links(&document(text), &|path| path == "docs/a.md" || path == "x.rs").len();
    assert_eq!(check("[a](a.md#top-of-a-1) [b](#top-of-a-1) [x](../x.rs#L3) [w](https://w.org/y)"), 0);
    assert_eq!(check("[a](a.md#top) [b](#nothing) [c](c.md)\n[d]: ../d.md"), 4);
    assert_eq!(check("```\n[a](nowhere.md)\n```"), 0, "code is no link");
    let twice = anchors("# One\n# One\n```sh\n# no heading\n```\n");
    assert_eq!(twice, BTreeSet::from(["one".to_owned(), "one-1".to_owned()]));
}

#[test]
fn another_version_is_found() {
    let check = |path: &str, text: &str| {
        other_versions(&BTreeMap::from([(path.to_owned(), text.to_owned())]), "0.1.0").len()
    };
    assert_eq!(check("CHANGELOG.md", "## Unreleased: 0.1.0\n## 0.0.9\n"), 0);
    assert_eq!(check("CHANGELOG.md", "## 0.2.0\n## 0.1.0\n"), 1);
    assert_eq!(check("docs/a.md", "push $IMAGE:0.1.0 x/offramp:$TAG"), 0);
    assert_eq!(check("docs/a.md", "push $IMAGE:0.1.1 x/offramp:0.0.1"), 2);
}

#[test]
fn tables_are_read_by_rows_and_cells() {
    let text =
        "## A\n| x | y |\n|---|---|\n| `one`, `two` | 1 |\n\n| z | |\n|---|---|\n| `three` | |\n## B\n";
    assert_eq!(tables(&section(text, "## A")).len(), 2);
    assert_eq!(rows(text, "## A")["one"], ["1"]);
    assert_eq!(names(text, "## A"), BTreeSet::from(["one".to_owned(), "three".to_owned()]));
}

// === Reading documents

/// The code blocks of these languages, each with the number of its first line.
fn blocks(text: &str, languages: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    let mut open: Option<(bool, usize, String)> = None;
    for (number, line) in text.lines().enumerate() {
        match (&mut open, line.trim_start().strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some((languages.contains(&language.trim()), number + 2, String::new()));
            }
            (Some(_), Some(_)) => {
                found.extend(
                    open.take().filter(|(wanted, ..)| *wanted).map(|(_, start, block)| (start, block)),
                );
            }
            (Some((_, _, block)), None) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, None) => {}
        }
    }
    found
}

/// The text under a heading, up to the next one of its kind or above.
fn section(text: &str, heading: &str) -> String {
    let level = heading.chars().take_while(|c| *c == '#').count();
    let lines = text.lines().skip_while(|line| *line != heading).skip(1);
    let ends = |line: &&str| {
        let hashes = line.chars().take_while(|c| *c == '#').count();
        hashes > 0 && hashes <= level
    };
    lines.take_while(|line| !ends(line)).flat_map(|line| [line, "\n"]).collect()
}

/// Every table of a text as rows of cells, without its head.
fn tables(text: &str) -> Vec<Vec<Vec<String>>> {
    let mut tables: Vec<Vec<Vec<String>>> = Vec::new();
    let mut inside = false;
    for line in text.lines() {
        let Some(row) = line.strip_prefix("| ").and_then(|row| row.strip_suffix(" |")) else {
            inside &= line.starts_with('|');
            continue;
        };
        if !inside {
            tables.push(Vec::new());
            inside = true;
            continue;
        }
        let cells = row.split('|').map(|cell| cell.trim().to_owned()).collect();
        tables.last_mut().unwrap().push(cells);
    }
    tables
}

/// The rows of every table under a heading, by the code in their first cell.
fn rows(text: &str, heading: &str) -> Rows {
    let section = section(text, heading);
    assert!(!section.is_empty(), "the section {heading} is gone");
    let rows = tables(&section).into_iter().flatten();
    let named = rows.filter_map(|mut row| {
        let name = code_in(&row.remove(0)).into_iter().next()?;
        Some((name, row))
    });
    named.collect()
}

fn names(text: &str, heading: &str) -> BTreeSet<String> {
    rows(text, heading).into_keys().collect()
}

/// What stands between backticks.
fn code_in(cell: &str) -> Vec<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// What stands between two marks, wherever it does.
fn between(text: &str, open: &str, close: &str) -> Vec<String> {
    let rests = text.split(open).skip(1);
    rests.filter_map(|rest| rest.split_once(close)).map(|(inside, _)| inside.to_owned()).collect()
}

// === The repository and the binary

/// A metric with every value of its labels.
struct Family {
    kind: &'static str,
    labels: BTreeMap<String, BTreeSet<String>>,
}

fn registered() -> BTreeMap<String, Family> {
    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self())).unwrap();
    Metrics::register(&registry, &["blue".into()]).unwrap();
    let families = registry.gather().into_iter().map(|family| {
        let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
            labels.entry(pair.name().to_owned()).or_default().insert(pair.value().to_owned());
        }
        let kind = match family.get_field_type() {
            prometheus::proto::MetricType::COUNTER => "counter",
            prometheus::proto::MetricType::GAUGE => "gauge",
            _ => "histogram",
        };
        (family.name().to_owned(), Family { kind, labels })
    });
    families.collect()
}

/// With an environment of its own, so that that of the test run changes nothing.
fn offramp(words: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offramp"));
    command.args(words).env_clear().envs(variables.iter().copied()).output().unwrap()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap()
}

fn operate() -> String {
    read("docs/operate.md")
}

/// Every Markdown file, by its path from the root.
fn documents() -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    collect(&root(), "", &|name| name.ends_with(".md"), &mut documents);
    assert!(documents.contains_key("README.md") && documents.contains_key("docs/operate.md"));
    documents
}

/// All production sources in one text.
fn sources() -> String {
    let mut sources = BTreeMap::new();
    collect(&root().join("crates"), "", &|name| name.ends_with(".rs"), &mut sources);
    let production = sources.into_iter().filter(|(path, _)| !path.contains("tests"));
    // Texts that go over several lines become one.
    production
        .map(|(_, text)| text.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn collect(folder: &Path, prefix: &str, wanted: &dyn Fn(&str) -> bool, found: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let path = format!("{prefix}{name}");
        if entry.file_type().unwrap().is_dir() {
            // What is built or fetched is not ours.
            if !name.starts_with('.') && name != "target" && name != "node_modules" {
                collect(&entry.path(), &format!("{path}/"), wanted, found);
            }
        } else if wanted(&name) {
            found.insert(path, fs::read_to_string(entry.path()).unwrap());
        }
    }
}

#[track_caller]
fn assert_right(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n  {}\n", complaints.join("\n  "));
}
