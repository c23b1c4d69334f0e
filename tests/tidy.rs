//! The rules of this repository that a compiler does not know: sizes, names, who may depend on whom,
//! and documents that stay true.
//!
//! Each rule is a function from what was read to a list of complaints. Every rule has two tests: one on
//! the repository, and one on an input that breaks it, so that none of them can quietly stop working.

#[path = "markdown/links.rs"]
mod links;

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use links::resolve;

/// A file of the repository; the path is relative to its root.
#[derive(Debug)]
struct File {
    path: String,
    text: String,
}

/// A package of the workspace with every dependency it declares.
#[derive(Debug)]
struct Package {
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Debug)]
struct Dependency {
    name: String,
    dev: bool,
}

/// The line of dependencies: a package may only use packages of a lower rank, so that those of equal
/// rank do not know each other.
const RANKS: [(&str, u8); 8] = [
    ("offramp-core", 0),
    ("offramp-wire", 1),
    ("offramp-engine", 2),
    ("offramp-aws", 3),
    ("offramp-kubernetes", 3),
    ("offramp-sandbox", 3),
    ("offramp-worlds", 4),
    ("offramp", 4),
];

/// What a crate exists to keep out, by the beginning of the dependency's name.
const KEPT_OUT: [(&str, &[&str]); 4] = [
    ("offramp-wire", &["aws-", "kube", "k8s-openapi", "tokio", "futures", "async-"]),
    ("offramp-engine", &["aws-", "kube", "k8s-openapi", "axum", "hyper", "reqwest"]),
    ("offramp-aws", &["kube", "k8s-openapi"]),
    ("offramp-kubernetes", &["aws-sdk-"]),
];

/// Files of core that say what there is and decide nothing.
const WORD_FILES: [&str; 10] =
    ["action", "ended", "ids", "job", "memory", "notice", "observation", "policy", "reason", "time"];
const DECISION_FILES: [&str; 3] = ["walk", "claim", "goals"];
const BANNED_ENDINGS: [&str; 4] = ["manager", "handler", "processor", "helper"];
const BANNED_MODULES: [&str; 5] = ["util", "utils", "common", "misc", "helpers"];
const SOFT_CAP: usize = 400;
const HARD_CAP: usize = 600;
const DECISION_CAP: usize = 500;
const TRIGGER_CAP: usize = 120;
const CORE_FILE_CAP: usize = 250;
/// With the triggers. Each conclusion that skips a wait or an action costs some ten lines of witnesses.
const CORE_CAP: usize = 2_000;
const WORDS_CAP: usize = 800;
const ARCHITECTURE_CAP: usize = 200;

// === The rules on the repository

#[test]
fn files_can_be_read_in_one_sitting() {
    let files = repository().unwrap();
    for (path, lines) in over(&files, SOFT_CAP) {
        println!("{path} has {lines} lines without tests, more than the {SOFT_CAP} we aim for");
    }
    assert_tidy(&oversized(&files));
}

#[test]
fn names_say_what_a_thing_is() {
    assert_tidy(&badly_named(&repository().unwrap()));
}

#[test]
fn the_decision_stays_small() {
    assert_tidy(&oversized_decision(&repository().unwrap()));
}

#[test]
fn crates_know_only_what_lies_below_them() {
    assert_tidy(&wrong_dependencies(&workspace().unwrap()));
}

#[test]
fn the_engine_keeps_its_tasks_and_has_no_locks() {
    assert_tidy(&engine_escapes(&repository().unwrap()));
}

#[test]
fn nothing_is_left_for_later() {
    assert_tidy(&unfinished(&repository().unwrap()));
}

#[test]
fn an_allowed_lint_has_its_reason() {
    assert_tidy(&unexplained_allows(&repository().unwrap()));
}

#[test]
fn nothing_depends_on_one_machine() {
    assert_tidy(&machine_paths(&repository().unwrap()));
}

#[test]
fn the_architecture_is_one_short_document() {
    assert_tidy(&long_architecture(&repository().unwrap()));
}

#[test]
fn links_between_documents_lead_somewhere() {
    assert_tidy(&dead_links(&repository().unwrap()));
}

#[test]
fn every_decision_is_listed() {
    assert_tidy(&unlisted_decisions(&repository().unwrap()));
}

#[test]
fn one_version_of_rust_is_named_everywhere() {
    assert_tidy(&mixed_toolchains(&repository().unwrap()));
}

// === The rules

/// Production files over the hard cap.
fn oversized(files: &[File]) -> Vec<String> {
    over(files, HARD_CAP)
        .into_iter()
        .map(|(path, lines)| {
            format!(
                "{path} has {lines} lines without tests, the limit is {HARD_CAP}: split it by what is in it"
            )
        })
        .collect()
}

fn over(files: &[File], cap: usize) -> Vec<(&str, usize)> {
    let sizes = files.iter().filter(|file| is_production(&file.path)).map(|file| {
        let lines = without_tests(&file.text).count();
        (file.path.as_str(), lines)
    });
    sizes.filter(|(_, lines)| *lines > cap).collect()
}

/// Names that say "does something with it": of types, functions and modules that we define.
fn badly_named(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| is_rust(&file.path)) {
        let parts = file.path.trim_end_matches(".rs").split('/');
        for part in parts.filter(|part| BANNED_MODULES.contains(part)) {
            complaints.push(format!("{}: name the module after what is in it, not `{part}`", file.path));
        }
        if names_what_it_forbids(&file.path) {
            continue;
        }
        for (number, line) in numbered_code(&file.text) {
            if let Some(name) = defined_name(line).filter(|name| is_banned(name)) {
                let path = &file.path;
                complaints.push(format!("{path}:{number}: `{name}`: name it after what it is or does"));
            }
        }
    }
    complaints
}

fn is_banned(name: &str) -> bool {
    let lower = name.to_lowercase();
    let singular = lower.strip_suffix('s').unwrap_or(&lower);
    BANNED_MODULES.contains(&lower.as_str()) || BANNED_ENDINGS.iter().any(|end| singular.ends_with(end))
}

/// The name that a line defines, if it does.
fn defined_name(line: &str) -> Option<&str> {
    const KEYWORDS: [&str; 8] = ["struct", "enum", "trait", "type", "fn", "mod", "const", "static"];
    let mut words = line.split_whitespace();
    words.find(|word| KEYWORDS.contains(word))?;
    let rest = words.next()?;
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
    Some(&rest[..end]).filter(|name| !name.is_empty())
}

/// A newcomer reads the decision in one sitting: its files together, and the crate around them. Its functions are held to 40
/// lines by clippy. The words that it is written in have a limit of their own
/// (docs/decisions/011).
fn oversized_decision(files: &[File]) -> Vec<String> {
    let core: Vec<&File> = files
        .iter()
        .filter(|file| file.path.starts_with("crates/core/src/") && is_production(&file.path))
        .collect();
    let mut complaints = Vec::new();
    let mut decision = 0;
    for name in DECISION_FILES {
        let (as_file, as_folder) = (format!("crates/core/src/{name}.rs"), format!("crates/core/src/{name}/"));
        let own = core.iter().filter(|file| file.path == as_file || file.path.starts_with(&as_folder));
        let lines: usize = own.map(|file| code(&file.text).count()).sum();
        if lines == 0 {
            complaints.push(format!("{as_file} is not there: name the decision files in tests/tidy.rs anew"));
        }
        decision += lines;
    }
    if decision > DECISION_CAP {
        complaints.push(format!(
            "the decision has {decision} lines of code, the limit is {DECISION_CAP}: simplify it"
        ));
    }
    for file in &core {
        let is_trigger = file.path.starts_with("crates/core/src/triggers/");
        let cap = if is_trigger { TRIGGER_CAP } else { CORE_FILE_CAP };
        let lines = code(&file.text).count();
        if lines > cap {
            complaints.push(format!("{} has {lines} lines of code, the limit is {cap}", file.path));
        }
    }
    let is_words =
        |file: &File| WORD_FILES.iter().any(|name| file.path == format!("crates/core/src/{name}.rs"));
    let (mut words, mut decides) = (0, 0);
    for file in core {
        *if is_words(file) { &mut words } else { &mut decides } += code(&file.text).count();
    }
    for (what, lines, cap) in [("words", words, WORDS_CAP), ("code that decides", decides, CORE_CAP)] {
        if lines > cap {
            complaints
                .push(format!("crates/core has {lines} lines of {what}, the limit is {cap}: is it needed?"));
        }
    }
    complaints
}

/// Dependencies against the line, and those that a crate exists to keep out.
fn wrong_dependencies(packages: &[Package]) -> Vec<String> {
    let rank = |name: &str| RANKS.iter().find(|(known, _)| *known == name).map(|(_, rank)| *rank);
    let mut complaints = Vec::new();
    for Package { name, dependencies } in packages {
        let Some(own) = rank(name) else {
            complaints
                .push(format!("{name} has no place in the line of crates: give it one in tests/tidy.rs"));
            continue;
        };
        let kept_out = KEPT_OUT.iter().find(|(known, _)| known == name).map_or(&[][..], |(_, kept)| *kept);
        for dependency in dependencies {
            let other = &dependency.name;
            if rank(other).is_some_and(|other| other >= own) {
                complaints.push(format!("{name} depends on {other}, which is not below it"));
            }
            if !dependency.dev && kept_out.iter().any(|prefix| other.starts_with(prefix)) {
                complaints.push(format!("{name} depends on {other}, which it exists to keep out"));
            }
            if own == 0 && !dependency.dev {
                complaints.push(format!("{name} depends on {other}: the decision depends on nothing"));
            }
        }
    }
    complaints
}

/// Tasks outside of the engine's `JoinSet` survive a simulated crash, and locks can be held too long.
fn engine_escapes(files: &[File]) -> Vec<String> {
    const TASKS: [&str; 4] = ["tokio::spawn", "task::spawn", "spawn_blocking", "thread::spawn"];
    const LOCKS: [&str; 2] = ["Mutex", "RwLock"];
    let engine = |path: &str| path.starts_with("crates/engine/src/") && is_production(path);
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| engine(&file.path)) {
        for (number, line) in numbered_code(&file.text) {
            let path = &file.path;
            for found in TASKS.iter().filter(|found| line.contains(*found)) {
                complaints.push(format!("{path}:{number}: `{found}`: start it in the engine's JoinSet"));
            }
            for found in LOCKS.iter().filter(|found| line.contains(*found)) {
                complaints.push(format!("{path}:{number}: `{found}`: let one task own it, or use a channel"));
            }
        }
    }
    complaints
}

/// Stubs, and tests that nobody runs.
fn unfinished(files: &[File]) -> Vec<String> {
    const MARKS: [&str; 4] = ["todo!(", "unimplemented!(", "#[ignore]", "#[ignore ="];
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| is_rust(&file.path) && !names_what_it_forbids(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            for mark in MARKS.iter().filter(|mark| line.contains(*mark)) {
                let (path, number) = (&file.path, number + 1);
                complaints.push(format!("{path}:{number}: `{mark}`: finish it, or take it out"));
            }
        }
    }
    complaints
}

/// `allow` and `expect` attributes with neither `reason = …` nor a comment above.
fn unexplained_allows(files: &[File]) -> Vec<String> {
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| is_rust(&file.path) && !names_what_it_forbids(&file.path)) {
        let lines: Vec<&str> = file.text.lines().map(str::trim_start).collect();
        for (index, line) in lines.iter().enumerate() {
            let begins = ["#[allow(", "#![allow(", "#[expect(", "#![expect("];
            if !begins.iter().any(|begin| line.starts_with(begin)) {
                continue;
            }
            let end = lines[index..].iter().position(|line| line.contains(")]")).unwrap_or(0);
            let inside = lines[index..=index + end].iter().any(|line| line.contains("reason ="));
            let beside = line.contains(" //") || (index > 0 && lines[index - 1].starts_with("//"));
            if !inside && !beside {
                complaints.push(format!("{}:{}: say why the lint is wrong here", file.path, index + 1));
            }
        }
    }
    complaints
}

/// Absolute paths that exist on one machine only.
fn machine_paths(files: &[File]) -> Vec<String> {
    const PATHS: [&str; 3] = ["/work/", "/root/", "/Users/"];
    let begins_a_path = |line: &str, at: usize| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && !"_-.}/*".contains(c))
    };
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| !names_what_it_forbids(&file.path)) {
        for (number, line) in file.text.lines().enumerate() {
            let found = |path: &str| line.match_indices(path).any(|(at, _)| begins_a_path(line, at));
            for path in PATHS.iter().filter(|path| found(path)) {
                let (file, number) = (&file.path, number + 1);
                complaints.push(format!("{file}:{number}: `{path}` exists on one machine only"));
            }
        }
    }
    complaints
}

fn long_architecture(files: &[File]) -> Vec<String> {
    match files.iter().find(|file| file.path == "ARCHITECTURE.md").map(|file| file.text.lines().count()) {
        None => vec!["ARCHITECTURE.md is not there: it is where a newcomer begins".into()],
        Some(lines) if lines > ARCHITECTURE_CAP => {
            vec![format!("ARCHITECTURE.md has {lines} lines, the limit is {ARCHITECTURE_CAP}: shorten it")]
        }
        Some(_) => Vec::new(),
    }
}

/// Relative Markdown links whose target does not exist.
fn dead_links(files: &[File]) -> Vec<String> {
    let exists: BTreeSet<&str> = files
        .iter()
        .flat_map(|file| {
            // The file itself, and every folder above it.
            file.path.match_indices('/').map(|(at, _)| &file.path[..at]).chain([file.path.as_str()])
        })
        .collect();
    let mut complaints = Vec::new();
    for file in files.iter().filter(|file| file.path.ends_with(".md")) {
        let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
        for target in link_targets(&file.text) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            if !exists.contains(resolve(folder, path).as_str()) {
                complaints.push(format!("{}: the link to `{target}` leads nowhere", file.path));
            }
        }
    }
    complaints
}

fn link_targets(text: &str) -> impl Iterator<Item = &str> {
    let starts = text.match_indices("](").map(|(at, mark)| &text[at + mark.len()..]);
    starts.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target)
}

fn unlisted_decisions(files: &[File]) -> Vec<String> {
    let folder = "docs/decisions/";
    let Some(list) = files.iter().find(|file| file.path == format!("{folder}README.md")) else {
        return vec![format!("{folder}README.md is not there: it lists the decisions")];
    };
    let listed: BTreeSet<&str> = link_targets(&list.text).collect();
    let decisions = files.iter().filter_map(|file| file.path.strip_prefix(folder));
    decisions
        .filter(|name| *name != "README.md" && !listed.contains(name))
        .map(|name| format!("{folder}{name} is not listed in {folder}README.md"))
        .collect()
}

/// The image is built with the toolchain that the tests ran with.
fn mixed_toolchains(files: &[File]) -> Vec<String> {
    let text = |path: &str| files.iter().find(|file| file.path == path).map_or("", |file| file.text.as_str());
    let quoted = |path: &str, key: &str| {
        let line = text(path).lines().find(|line| line.starts_with(key))?;
        line.split('"').nth(1).map(str::to_owned)
    };
    let Some(pinned) = quoted("rust-toolchain.toml", "channel") else {
        return vec!["rust-toolchain.toml names no channel: pin the toolchain".into()];
    };
    let mut complaints = Vec::new();
    let minimum = quoted("Cargo.toml", "rust-version").unwrap_or_default();
    if minimum.is_empty() || !pinned.starts_with(&minimum) {
        complaints.push(format!("Cargo.toml has rust-version \"{minimum}\", the toolchain is {pinned}"));
    }
    if !text("Dockerfile").lines().any(|line| line.starts_with(&format!("FROM rust:{pinned}-"))) {
        complaints.push(format!("the Dockerfile does not begin with `FROM rust:{pinned}-…`"));
    }
    complaints
}

// === Reading

fn assert_tidy(complaints: &[String]) {
    assert!(complaints.is_empty(), "{} to mend:\n  {}\n", complaints.len(), complaints.join("\n  "));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every text file outside of what is built, fetched or git's.
fn repository() -> io::Result<Vec<File>> {
    let (root, mut files) = (root(), Vec::new());
    read_folder(&root, "", &mut files)?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    if files.len() < 50 {
        return Err(io::Error::other(format!("found only {} files under {}", files.len(), root.display())));
    }
    Ok(files)
}

fn read_folder(root: &Path, folder: &str, files: &mut Vec<File>) -> io::Result<()> {
    const NOT_OURS: [&str; 5] = [".git", ".cache", "target", "node_modules", ".terraform"];
    for entry in fs::read_dir(root.join(folder))? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type()?.is_dir() {
            if !NOT_OURS.contains(&name.as_str()) {
                read_folder(root, &path, files)?;
            }
            continue;
        }
        // What is not UTF-8 (a picture) is nothing that we check.
        match fs::read_to_string(entry.path()) {
            Ok(text) => files.push(File { path, text }),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The packages as cargo understands their manifests.
fn workspace() -> io::Result<Vec<Package>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version", "1", "--no-deps", "--offline", "--manifest-path"])
        .arg(root().join("Cargo.toml"))
        .output()?;
    if !output.status.success() {
        return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    Ok(packages(&metadata))
}

fn packages(metadata: &serde_json::Value) -> Vec<Package> {
    let list = |value: &serde_json::Value| value.as_array().cloned().unwrap_or_default();
    let name = |value: &serde_json::Value| value["name"].as_str().unwrap_or_default().to_owned();
    list(&metadata["packages"])
        .iter()
        .map(|package| Package {
            name: name(package),
            dependencies: list(&package["dependencies"])
                .iter()
                .map(|dependency| Dependency { name: name(dependency), dev: dependency["kind"] == "dev" })
                .collect(),
        })
        .collect()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

fn is_production(path: &str) -> bool {
    let test = path.ends_with("/tests.rs") || path.contains("/tests/");
    is_rust(path) && path.starts_with("crates/") && path.contains("/src/") && !test
}

/// This file, whose text holds every pattern that it looks for.
fn names_what_it_forbids(path: &str) -> bool {
    path == "tests/tidy.rs"
}

/// Lines outside of items that are marked `#[cfg(test)]`, with their numbers. rustfmt's form is taken
/// for granted: such an item begins at the margin, and ends with a brace there or with a semicolon.
fn without_tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let (mut skipping, mut in_body) = (false, false);
    text.lines().enumerate().filter_map(move |(index, line)| {
        if !skipping && line == "#[cfg(test)]" {
            (skipping, in_body) = (true, false);
            return None;
        }
        if skipping {
            in_body |= line.ends_with('{');
            skipping = !(line == "}" || (!in_body && line.ends_with([';', '}'])));
            return None;
        }
        Some((index + 1, line))
    })
}

/// Lines of code without tests, blanks and comments, with their numbers.
fn numbered_code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    without_tests(text).filter_map(|(number, line)| {
        let end = line.find(" //").unwrap_or(line.len());
        let line = line[..end].trim();
        (!line.is_empty() && !line.starts_with("//")).then_some((number, line))
    })
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    numbered_code(text).map(|(_, line)| line)
}

// === The rules on inputs that break them

fn file(path: &str, text: &str) -> File {
    File { path: path.into(), text: text.into() }
}

/// What a rule says about one file.
fn said(rule: fn(&[File]) -> Vec<String>, path: &str, text: &str) -> String {
    rule(&[file(path, text)]).join("\n")
}

#[test]
fn tests_blanks_and_comments_are_no_code() {
    let text = "//! Doc.\nuse a;\n\n#[cfg(test)]\nmod tests;\n#[cfg(test)]\nfn x() {\n    y();\n}\nb(); // c\n\
                #[cfg(test)]\nmod more {\n    d();\n}\ne();\n";
    assert_eq!(code(text).collect::<Vec<_>>(), ["use a;", "b();", "e();"]);
    let numbers: Vec<usize> = numbered_code(text).map(|(number, _)| number).collect();
    assert_eq!(numbers, [2, 10, 15]);
}

#[test]
fn a_long_file_is_found_and_its_tests_do_not_count() {
    let long = "x();\n".repeat(HARD_CAP + 1);
    assert!(said(oversized, "crates/aws/src/queue.rs", &long).contains("601 lines"));
    assert_eq!(said(oversized, "crates/aws/src/queue/tests.rs", &long), "");
    let tests = format!("x();\n#[cfg(test)]\nmod tests {{\n{long}}}\n");
    assert_eq!(said(oversized, "crates/aws/src/queue.rs", &tests), "");
    assert_eq!(over(&[file("crates/aws/src/queue.rs", &"x();\n".repeat(401))], SOFT_CAP).len(), 1);
}

#[test]
fn banned_names_are_found_where_they_are_defined() {
    let check = |text: &str| said(badly_named, "crates/engine/src/jobs.rs", text);
    assert!(check("pub(crate) struct JobManager<T> {").contains("`JobManager`"));
    assert!(check("    async fn message_handlers(&self) {").contains("`message_handlers`"));
    assert!(check("mod utils;").contains("`utils`"));
    assert_eq!(check("let handler = axum::handler::Handler::from(x);"), "", "somebody else's name");
    assert_eq!(check("// struct JobManager is what we do not want"), "");
    assert!(said(badly_named, "tests/common/mod.rs", "").contains("`common`"));
    assert!(said(badly_named, "crates/aws/src/misc.rs", "").contains("`misc`"));
}

#[test]
fn a_decision_that_grows_is_found() {
    let decision = |lines: usize| -> Vec<File> {
        let path = |name| format!("crates/core/src/{name}.rs");
        DECISION_FILES.iter().map(|name| file(&path(name), &"x();\n".repeat(lines))).collect()
    };
    assert_eq!(oversized_decision(&decision(100)), [""; 0]);
    assert!(oversized_decision(&decision(167)).join("").contains("501 lines"));
    let with = |path: &str, lines: usize| {
        let mut files = decision(100);
        files.push(file(path, &"x();\n".repeat(lines)));
        oversized_decision(&files).join("")
    };
    assert_eq!(with("crates/core/src/triggers/spot.rs", 120), "");
    assert!(with("crates/core/src/triggers/spot.rs", 121).contains("spot.rs has 121 lines"));
    assert!(with("crates/core/src/reason.rs", 251).contains("reason.rs has 251 lines"));
    assert!(with("crates/core/src/reason.rs", 801).contains("801 lines of words"));
    assert!(with("crates/core/src/gate.rs", 1_701).contains("2001 lines of code that decides"));
    assert!(with("crates/core/src/triggers/spot.rs", 1_701).contains("2001 lines of code that decides"));
    assert!(oversized_decision(&decision(100)[1..]).join("").contains("walk.rs is not there"));
}

#[test]
fn dependencies_against_the_line_are_found() {
    let check = |name: &str, dependency: &str, dev: bool| {
        let dependencies = vec![Dependency { name: dependency.into(), dev }];
        wrong_dependencies(&[Package { name: name.into(), dependencies }]).join("\n")
    };
    assert_eq!(check("offramp-engine", "offramp-wire", false), "");
    assert!(check("offramp-wire", "offramp-engine", false).contains("not below"));
    assert!(check("offramp-aws", "offramp-sandbox", true).contains("not below"));
    assert!(check("offramp-engine", "aws-sdk-sqs", false).contains("keep out"));
    assert!(check("offramp-engine", "kube", false).contains("keep out"));
    assert!(check("offramp-kubernetes", "aws-sdk-autoscaling", false).contains("keep out"));
    assert!(check("offramp-core", "serde", false).contains("depends on nothing"));
    assert_eq!(check("offramp-core", "proptest", true), "");
    assert!(check("offramp-extra", "serde", false).contains("no place"));
}

#[test]
fn the_manifests_are_read_as_cargo_prints_them() {
    let metadata = serde_json::json!({"packages": [{"name": "a", "dependencies": [
        {"name": "b", "kind": null}, {"name": "c", "kind": "dev"}]}]});
    let read = packages(&metadata);
    let kinds: Vec<_> = read[0].dependencies.iter().map(|d| (d.name.as_str(), d.dev)).collect();
    assert_eq!((read[0].name.as_str(), kinds), ("a", vec![("b", false), ("c", true)]));
    let names: BTreeSet<String> = workspace().unwrap().into_iter().map(|package| package.name).collect();
    assert_eq!(names, RANKS.iter().map(|(name, _)| (*name).to_owned()).collect());
}

#[test]
fn tasks_and_locks_in_the_engine_are_found() {
    let path = "crates/engine/src/jobs.rs";
    assert!(said(engine_escapes, path, "let task = tokio::spawn(x);").contains("JoinSet"));
    assert!(said(engine_escapes, path, "use std::sync::{Arc, Mutex};").contains("`Mutex`"));
    assert_eq!(said(engine_escapes, path, "tasks.spawn(x); // no Mutex is needed"), "");
    assert_eq!(said(engine_escapes, "crates/sandbox/src/lib.rs", "world: Mutex<World>"), "");
}

#[test]
fn stubs_and_sleeping_tests_are_found() {
    let path = "crates/wire/src/spot.rs";
    assert!(said(unfinished, path, "    todo!()").contains("spot.rs:1"));
    assert!(said(unfinished, path, "#[test]\n#[ignore = \"slow\"]").contains("spot.rs:2"));
    assert_eq!(said(unfinished, path, "ignore(todo)"), "");
}

#[test]
fn an_allow_without_a_reason_is_found() {
    let path = "crates/wire/src/spot.rs";
    assert!(said(unexplained_allows, path, "#[allow(dead_code)]\nfn x() {}").contains("spot.rs:1"));
    assert_eq!(said(unexplained_allows, path, "// Serde fills it.\n#[allow(dead_code)]"), "");
    assert_eq!(said(unexplained_allows, path, "#[expect(\n    dead_code,\n    reason = \"x\"\n)]"), "");
}

#[test]
fn paths_of_one_machine_are_found() {
    let check = |text: &str| said(machine_paths, "docs/guide.md", text);
    assert!(check("see `/work/main`").contains("guide.md:1"));
    assert!(check("cp x /root/y").contains("/root/"));
    assert_eq!(check("a job at https://example.org/work/1"), "");
}

#[test]
fn a_long_or_missing_architecture_is_found() {
    assert_eq!(said(long_architecture, "ARCHITECTURE.md", &"x\n".repeat(200)), "");
    assert!(said(long_architecture, "ARCHITECTURE.md", &"x\n".repeat(201)).contains("201 lines"));
    assert!(said(long_architecture, "README.md", "").contains("not there"));
}

#[test]
fn dead_links_are_found() {
    let readme = |text: &str| dead_links(&[file("docs/a.md", text), file("crates/x.rs", "")]).join("\n");
    assert!(readme("[b](b.md)").contains("`b.md` leads nowhere"));
    assert_eq!(readme("[x](../crates/x.rs#top) [c](../crates) [w](https://w.org/x) [here](#here)"), "");
}

#[test]
fn an_unlisted_decision_is_found() {
    let list = file("docs/decisions/README.md", "* [one](001-one.md)");
    let files = [list, file("docs/decisions/001-one.md", ""), file("docs/decisions/002-two.md", "")];
    assert_eq!(unlisted_decisions(&files).len(), 1);
    assert!(unlisted_decisions(&files[1..]).join("").contains("README.md is not there"));
}

#[test]
fn a_second_rust_version_is_found() {
    let files = |image: &str, minimum: &str| {
        mixed_toolchains(&[
            file("rust-toolchain.toml", "[toolchain]\nchannel = \"1.95.0\"\n"),
            file("Cargo.toml", &format!("rust-version = \"{minimum}\"\n")),
            file("Dockerfile", &format!("FROM rust:{image}-slim AS build\n")),
        ])
    };
    assert_eq!(files("1.95.0", "1.95"), [""; 0]);
    assert_eq!(files("1.94.0", "1.95").len(), 1);
    assert_eq!(files("1.95.0", "1.96").len(), 1);
    assert!(said(mixed_toolchains, "Cargo.toml", "").contains("pin the toolchain"));
}
