//! Random worlds, notices, faults and crashes from a seed, on virtual time; the invariants hold.
//!
//! A failing seed prints itself, what it breaks, the command that plays it again, and its transcript.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::time::{Duration, Instant};

#[path = "simulation/checks.rs"]
mod checks;
#[path = "simulation/contradictions.rs"]
mod contradictions;
#[path = "simulation/course.rs"]
mod course;
#[path = "simulation/happenings.rs"]
mod happenings;
#[path = "simulation/lookups.rs"]
mod lookups;
#[path = "simulation/plan.rs"]
mod plan;
#[allow(dead_code, reason = "the scenarios use more of the stage")]
#[path = "scenarios/script.rs"]
mod script;

use contradictions::contradictions;
use course::{Report, play};
use plan::Mood;

/// How long the worlds of an ordinary run may take together.
const BUDGET: Duration = Duration::from_secs(25);

/// Names other seeds, all of which are played: `OFFRAMP_SEEDS=0..5000`, or one: `OFFRAMP_SEEDS=17`.
const SEEDS: &str = "OFFRAMP_SEEDS";

#[test]
fn the_invariants_hold_in_random_worlds() {
    let begun = Instant::now();
    let (seeds, budget) = match std::env::var(SEEDS) {
        Ok(text) => (seeds_in(&text), None),
        Err(_) => (0..u64::MAX, Some(BUDGET)),
    };
    let mut played = 0_u64;
    let mut failed: Vec<Report> = Vec::new();
    let mut branches = Branches::new();
    for seed in seeds {
        if budget.is_some_and(|budget| begun.elapsed() > budget) {
            break;
        }
        let report = world_of(seed);
        played += 1;
        count_branches(&mut branches, &report);
        if !report.broken.is_empty() {
            println!("{}", report.failure());
            failed.push(report);
        }
    }
    println!("{played} worlds in {:.1} s", begun.elapsed().as_secs_f64());
    for (name, (seeds, taken)) in &branches {
        println!("{seeds:>6} worlds in which {name}, their branch was taken {taken} times");
    }
    assert!(played > 0, "no world was played");
    if let Some(first) = failed.first() {
        println!("{}\n{}", first.transcript, first.failure());
        panic!(
            "{} of {played} worlds break an invariant; play the first again with\n  {SEEDS}={} cargo test -p offramp --test simulation invariants -- --nocapture",
            failed.len(),
            first.seed
        );
    }
    // A world that never leads to the branch it is there for tests nothing.
    let tests_nothing = |(worlds, taken): &(u64, usize)| *taken == 0 || worlds * 100 < played;
    let idle: Vec<_> = branches.iter().filter(|(_, counts)| tests_nothing(counts)).collect();
    assert!(
        played < 1_000 || idle.is_empty(),
        "in less than one of a hundred worlds, or for nothing: {idle:?}"
    );
}

/// By what contradicts: in how many worlds it does, and how often these took the branch that it is there for.
type Branches = BTreeMap<&'static str, (u64, usize)>;

fn count_branches(branches: &mut Branches, report: &Report) {
    let drawn = contradictions(report.seed).into_iter().filter(|_| Mood::of(report.seed) == Mood::Wild);
    let kinds: BTreeSet<_> = drawn.map(|(_, contradiction)| contradiction.branch()).collect();
    for (name, branch) in kinds {
        let (worlds, taken) = branches.entry(name).or_default();
        *worlds += 1;
        *taken += report.transcript.matches(branch).count();
    }
}

#[test]
fn a_seed_plays_the_same_world_twice() {
    for seed in [1, 2, 3, 4] {
        let (first, second) = (world_of(seed), world_of(seed));
        assert_eq!(first.transcript, second.transcript, "seed {seed}");
        assert_eq!(first.calls, second.calls, "seed {seed}");
    }
}

fn world_of(seed: u64) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.unwrap().block_on(play(seed))
}

fn seeds_in(text: &str) -> Range<u64> {
    let number =
        |text: &str| text.trim().parse::<u64>().expect("OFFRAMP_SEEDS is a number or a range such as 0..500");
    match text.split_once("..") {
        Some((from, to)) => number(from)..number(to),
        None => number(text)..number(text) + 1,
    }
}
