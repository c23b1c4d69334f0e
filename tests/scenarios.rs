//! Scripted worlds and what the worker does in them, on virtual time: golden transcripts that a person
//! can read, and the same worlds with the worker dying between any two calls.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

#[path = "scenarios/budgets.rs"]
mod budgets;
#[path = "scenarios/clocks.rs"]
mod clocks;
#[path = "scenarios/crashes.rs"]
mod crashes;
#[path = "scenarios/figures.rs"]
mod figures;
#[path = "scenarios/gate.rs"]
mod gate;
#[path = "scenarios/independence.rs"]
mod independence;
#[path = "scenarios/late_watches.rs"]
mod late_watches;
#[path = "scenarios/more_reports.rs"]
mod more_reports;
#[path = "scenarios/node_events.rs"]
mod node_events;
#[path = "scenarios/outcomes.rs"]
mod outcomes;
#[path = "scenarios/reports.rs"]
mod reports;
#[path = "scenarios/reports_that_held.rs"]
mod reports_that_held;
#[allow(dead_code, reason = "the simulation uses more of the stage")]
#[path = "scenarios/script.rs"]
mod script;
#[path = "scenarios/slow_reads.rs"]
mod slow_reads;
#[path = "scenarios/sweep.rs"]
mod sweep;
#[path = "scenarios/transcripts.rs"]
mod transcripts;
