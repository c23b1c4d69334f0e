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
#![cfg_attr(not(test), deny(clippy::wildcard_enum_match_arm))]

mod action;
mod case;
mod deadline;
mod eviction;
mod gate;
mod goal;
mod hook_state;
mod ids;
mod job;
mod notice;
mod observation;
mod over;
mod ownership;
mod policy;
mod reason;
mod returning;
mod scene;
mod stage;
mod step;
mod time;

#[cfg(test)]
mod tests;

pub use action::*;
pub use eviction::{Left, PodClass, classify};
pub use goal::*;
pub use ids::*;
pub use job::*;
pub use notice::*;
pub use observation::*;
pub use over::*;
pub use ownership::{Standing, hook_is_ours, left_alone};
pub use policy::*;
pub use reason::Reason;
pub use returning::Evictions;
pub use step::{Step, step};
pub use time::Timestamp;
