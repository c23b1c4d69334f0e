//! What should happen next to one instance that goes away.
//!
//! Contract: every function here is pure, synchronous and total. Time enters as a [`Timestamp`] and
//! leaves as "wake me at". The world enters as an [`Observation`] and leaves as [`Action`] values that
//! are safe to repeat and safe to lose. Calling [`step`] once too often is a no-op.
//!
//! Deliberately absent: async, I/O, clocks, randomness, serialisation, logging, and any stored
//! progress. The stage of a job is derived from a fresh observation each time, which is why a worker
//! that dies loses nothing.
#![deny(missing_docs)]
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm, clippy::too_many_lines))]

mod action;
mod case;
mod claim;
mod ended;
mod eviction;
mod facts;
mod gate;
mod goals;
mod hook_action;
mod ids;
mod job;
mod machine;
mod memory;
mod not_waited_for;
mod notice;
mod observation;
mod policy;
mod reason;
mod record;
mod repeat;
mod stages;
mod time;
mod triggers;
mod walk;

#[cfg(test)]
extern crate self as offramp_core;
#[cfg(test)]
mod tests;

/// One vocabulary: what is not public in its module stays inside the crate.
pub use {
    action::*, claim::*, ended::*, eviction::*, goals::*, ids::*, job::*, memory::*, not_waited_for::*,
    notice::*, observation::*, policy::*, reason::*, record::*, repeat::*, stages::*, time::*, triggers::*,
    walk::*,
};
use {case::*, facts::*};
