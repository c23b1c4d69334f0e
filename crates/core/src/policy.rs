//! The operator's choices that apply to one job.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::*;

/// What the operator chose. Every default carries its arithmetic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Names of lifecycle hooks that are ours, beside those whose metadata names a cluster of ours.
    pub hook_names: BTreeSet<HookName>,
    /// Only groups in scope are touched: until a group has been read, its instances are isolated at most.
    pub scoped: bool,
    /// The clusters we serve.
    pub clusters: BTreeSet<ClusterName>,
    /// What a rebalance recommendation leads to.
    pub rebalance: RebalancePolicy,
    /// `m` of the ladder: the end is planned this much before the deadline.
    pub deadline_margin: Duration,
    /// How long the kubelet's graceful shutdown goes on after EC2 begins to shut the instance down.
    pub node_shutdown_grace: Duration,
    /// A hook is answered after this long, heartbeats or not.
    pub hook_limit: Duration,
    /// What has no deadline is given up after this long.
    pub patience: Duration,
    /// How long the gate may hold a removal back.
    pub gate_limit: Duration,
    /// How long balancers go on sending new requests after a deregistration.
    pub propagation: Propagation,
    /// Pods bound in the very moment of the cordon are seen within this time.
    pub settle: Duration,
    /// How often target health and group state are read again while something waits for them.
    pub recheck: Duration,
    /// DaemonSets whose pods bring traffic in: they go last, after the balancers are quiet.
    pub ingress_daemon_sets: BTreeSet<IngressDaemonSet>,
}

/// A DaemonSet by namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct IngressDaemonSet {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// What a rebalance recommendation leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RebalancePolicy {
    /// [`RebalancePolicy::None`] where the group has Capacity Rebalancing, else
    /// [`RebalancePolicy::Isolate`].
    Automatic,
    /// Nothing: the group acts by itself, and its hook follows.
    None,
    /// Cordon only.
    Isolate,
}

/// For how long new requests may still arrive after DeregisterTargets, whatever the health says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Propagation {
    /// Behind an Application Load Balancer.
    pub application: Duration,
    /// Behind a Network Load Balancer.
    pub network: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            hook_names: BTreeSet::new(),
            scoped: false,
            clusters: BTreeSet::new(),
            rebalance: RebalancePolicy::Automatic,
            // Notices may lead by 108 s in place of 120 (runs-on#277): 12 s, and 3 s for our calls.
            deadline_margin: Duration::from_secs(15),
            // Before Kubernetes 1.34, AL2023 AMIs had no graceful shutdown (amazon-eks-ami#2390).
            node_shutdown_grace: Duration::ZERO,
            // The longest common grace (15 min), two PDB-bound rounds of it, and as much again.
            hook_limit: Duration::from_secs(3600),
            patience: Duration::from_secs(3600),
            // Launch (3 to 5 min), registration and first health checks (up to 2 min), twice over.
            gate_limit: Duration::from_secs(600),
            propagation: Propagation {
                // "Some seconds to tens of seconds" (aws-load-balancer-controller#2366).
                application: Duration::from_secs(30),
                // About two minutes, and a quarter more (aws-node-termination-handler#316).
                network: Duration::from_secs(150),
            },
            // The scheduler's binding cycle, and a watch event: each well under a second when idle,
            // seconds in a storm. Karpenter drains for at least as long.
            settle: Duration::from_secs(5),
            // One DescribeTargetHealth for each target group, shared for a quarter of this by all jobs: 20 groups
            // use 2 calls a second for one job, and 8 for many, of the 10 that ELB grants an account.
            recheck: Duration::from_secs(10),
            ingress_daemon_sets: BTreeSet::new(),
        }
    }
}
