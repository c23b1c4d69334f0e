//! Random worlds, notices, faults and crashes from a seed, on virtual time; the invariants hold.
//!
//! A failing seed prints itself, what it breaks, the command that plays it again, and its transcript.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

#[path = "simulation/bounds.rs"]
mod bounds;
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
#[path = "simulation/others.rs"]
mod others;
#[path = "simulation/outages.rs"]
mod outages;
#[path = "simulation/people.rs"]
mod people;
#[path = "simulation/plan.rs"]
mod plan;
#[path = "simulation/pools.rs"]
mod pools;
#[path = "simulation/remains.rs"]
mod remains;
#[allow(dead_code, reason = "the scenarios use more of the stage")]
#[path = "scenarios/script.rs"]
mod script;
#[path = "simulation/shapes.rs"]
mod shapes;
#[path = "simulation/wild.rs"]
mod wild;

use course::{Report, play};
use plan::Mood;

/// How long the worlds of an ordinary run may take together.
const BUDGET: Duration = Duration::from_secs(120);

/// Names other seeds, all of which are played: `OFFRAMP_SEEDS=0..5000`, or one: `OFFRAMP_SEEDS=17`.
const SEEDS: &str = "OFFRAMP_SEEDS";

#[test]
fn the_invariants_hold_in_random_worlds() {
    let begun = Instant::now();
    let (seeds, budget) = match std::env::var(SEEDS) {
        Ok(text) => (seeds_in(&text), None),
        Err(_) => (0..u64::MAX, Some(BUDGET)),
    };
    let played = play_all(seeds, || budget.is_none_or(|budget| begun.elapsed() < budget));
    let worlds = played.len();
    println!("{worlds} worlds in {:.1} s", begun.elapsed().as_secs_f64());
    let branches = count_branches(&played);
    for (name, (seeds, taken)) in &branches {
        println!("{seeds:>6} worlds in which {name}, their branch was taken {taken} times");
    }
    for ((mood, what), percent) in largest(&played) {
        println!("{percent:>6} % of its bound was the most in {mood:?} worlds: {what}");
    }
    assert!(worlds > 0, "no world was played");
    let failed: Vec<&Report> = played.values().filter(|report| !report.broken.is_empty()).collect();
    failed.iter().for_each(|report| println!("{}", report.failure()));
    if let Some(first) = failed.first() {
        println!("{}\n{}", world_of(first.seed).transcript, first.failure());
        panic!(
            "{} of {worlds} worlds break an invariant; play the first again with\n  {SEEDS}={} cargo test -p offramp-worlds --test simulation invariants -- --nocapture",
            failed.len(),
            first.seed
        );
    }
    // A world that never leads to the branch it is there for tests nothing.
    let tests_nothing = |(seeds, taken): &(usize, usize)| *taken == 0 || seeds * 100 < worlds;
    let idle: Vec<_> = branches.iter().filter(|(_, counts)| tests_nothing(counts)).collect();
    assert!(
        worlds < 1_000 || idle.is_empty(),
        "in less than one of a hundred worlds, or for nothing: {idle:?}"
    );
}

/// Plays worlds on every core, for as long as there is time. No world knows of another, and what is said of them is in
/// the order of their seeds.
fn play_all(seeds: Range<u64>, has_time: impl Fn() -> bool + Sync) -> BTreeMap<u64, Report> {
    let next = AtomicU64::new(seeds.start);
    let play_on = || {
        let mut played = Vec::new();
        while has_time() {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                break;
            }
            let mut report = world_of(seed);
            // Thousands of them would fill the memory.
            report.transcript.clear();
            played.push((seed, report));
        }
        played
    };
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..cores).map(|_| scope.spawn(play_on)).collect();
        threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
    })
}

/// By the switch: in how many worlds it is on, and how often these took the branch that it is there for.
fn count_branches(played: &BTreeMap<u64, Report>) -> BTreeMap<&'static str, (usize, usize)> {
    let mut branches = BTreeMap::new();
    for (name, count) in played.values().flat_map(|report| &report.branches) {
        let (worlds, taken) = branches.entry(*name).or_insert((0, 0));
        *worlds += 1;
        *taken += count;
    }
    branches
}

/// The largest figures of all worlds of a mood.
fn largest(played: &BTreeMap<u64, Report>) -> BTreeMap<(Mood, &'static str), usize> {
    let mut largest = BTreeMap::new();
    for (seed, report) in played {
        for (what, percent) in &report.figures {
            let most = largest.entry((Mood::of(*seed), *what)).or_insert(0);
            *most = *percent.max(most);
        }
    }
    largest
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
