//! The engine's [`Cluster`](offramp_engine::Cluster) port on the Kubernetes API: one watch each of
//! Nodes, Pods and Services, trimmed on arrival into a view in memory, and the few writes of a drain.
//!
//! Deliberately absent: decisions, retries, caches with an age, and logging of calls. A call is made
//! once, its answer is read in `fault.rs` and nowhere else, and the engine decides what follows. The
//! only log lines here are about the watches, because nobody else knows why a cluster is out of sync,
//! and about Events, because nobody else asks what became of them.
#![deny(missing_docs)]

mod cluster;
mod clusters;
mod connection;
mod events;
mod failures;
mod fault;
mod missing;
mod nodes;
mod plugin;
mod pods;
mod proof;
mod selector;
mod services;
mod view;
mod watch;

#[cfg(test)]
mod tests;

pub use cluster::KubernetesCluster;
pub use clusters::{Access, ClusterOptions, ClusterSource, OpenError};
