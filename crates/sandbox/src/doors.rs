//! The two doors: the engine's ports in process, and HTTP on loopback.

pub mod kubernetes;
pub mod ports_aws;
pub mod ports_kubernetes;
pub mod query;
pub mod sqs;
