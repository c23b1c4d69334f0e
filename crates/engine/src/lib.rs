//! The loop around the decision: leases, jobs, observe → step → act.
//!
//! Contract: the world is the state and the SQS message is the lease. Nothing about progress is stored
//! here, so a worker may die between any two calls. The engine owns the ports and every retry, batch and
//! cache, knows neither the AWS SDK nor kube, and holds no locks.
#![deny(missing_docs)]

mod clock;
mod ports;

pub use clock::Clock;
pub use ports::{
    Cluster, ClusterCall, Depth, Fault, GroupCall, Groups, Held, Message, MessageId, Queue, Receipt,
    Sessions, Settled, TargetCall, TargetGroupSettings, TargetState, Targets,
};
