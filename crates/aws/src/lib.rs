//! The AWS ports of the engine on the real services.
//!
//! Contract: one answer for one call. Nothing here retries, caches answers, logs or decides; a port says
//! what AWS said, in the engine's words, and counts the request. Every partition, proxy and endpoint that the AWS SDK knows works,
//! because no host name is written here. Error codes and texts are read in `fault.rs` only, descriptions of scaling
//! activities in `activities.rs`.
#![deny(missing_docs)]

mod activities;
mod date;
mod fault;
mod groups;
mod meter;
mod open;
mod queue;
mod sessions;
mod split;
mod targets;

#[cfg(test)]
mod replay;

pub use groups::GroupTag;
pub use open::{DeadLetterPolicy, OpenError};
pub use queue::SqsQueue;
pub use sessions::{Access, Options, Sessions};
