//! Random worlds, notices, faults and crashes from a seed, on virtual time; the invariants hold.
//!
//! A failing seed prints itself, what it breaks, the command that plays it again, and its transcript.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::ops::Range;
use std::time::{Duration, Instant};

#[path = "simulation/checks.rs"]
mod checks;
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

use course::{Report, play};

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
    for seed in seeds {
        if budget.is_some_and(|budget| begun.elapsed() > budget) {
            break;
        }
        let report = world_of(seed);
        played += 1;
        if !report.broken.is_empty() {
            println!("{}", report.failure());
            failed.push(report);
        }
    }
    println!("{played} worlds in {:.1} s", begun.elapsed().as_secs_f64());
    assert!(played > 0, "no world was played");
    if let Some(first) = failed.first() {
        println!("{}\n{}", first.transcript, first.failure());
        panic!(
            "{} of {played} worlds break an invariant; play the first again with\n  {SEEDS}={} cargo test -p offramp --test simulation invariants -- --nocapture",
            failed.len(),
            first.seed
        );
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
