//! What follows from a decision and from what came of the one before.

mod courses;
mod witnesses;
#[allow(dead_code, reason = "core's own tests use all of it")]
#[path = "../../../core/src/tests/world.rs"]
pub(crate) mod world;
