//! The operator's choices that apply to one job.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::*;

/// What the operator chose. The engine has the defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Who we are in the records of nodes.
    pub installation: Installation,
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
    /// How long a hook is held whose living instance has a node in no cluster.
    pub no_node: Duration,
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
