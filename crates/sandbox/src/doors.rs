//! The two doors: the engine's ports in process, and HTTP on loopback.

mod aws;
mod control;
pub mod kubernetes;
pub mod ports_aws;
pub mod ports_kubernetes;
mod query;
mod sqs;

pub use aws::aws_router;
