//! What was read about one instance at one moment.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::*;

/// A reading. A failed read must never look like "it is not there".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Seen<T> {
    /// It is there, and this is what it looks like.
    Known(T),
    /// The source is sure that it is not there.
    Gone,
    /// Not read, not readable, or the source is out of sync. Never advances anything.
    #[default]
    Unknown,
}

impl<T> Seen<T> {
    /// The value, where there is one.
    pub const fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Gone | Self::Unknown => None,
        }
    }
}

/// Everything that `step` may look at.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observation {
    /// The node, from its cluster's watch. `Gone` only from a watch in sync.
    pub node: Seen<Node>,
    /// Why it is `Unknown`, where the watch is in sync.
    pub doubt: Option<NodeDoubt>,
    /// The pods bound to the node.
    pub pods: Seen<Vec<Pod>>,
    /// The newest moment of which it is proven that the watches of the cluster have shown what there was.
    pub proven: Timestamp,
    /// When AWS was asked for the oldest of what it says about the instance's state and its targets. `None`: it has said
    /// nothing yet, and the watches are all there is.
    pub read_at: Option<Timestamp>,
    /// The same for the targets alone.
    pub targets_read_at: Option<Timestamp>,
    /// The instance's place in Auto Scaling, from a reading that began after the newest notice and after our
    /// newest call about one of its hooks. `Gone`: in no group.
    pub membership: Seen<Membership>,
    /// The group it is a member of, or that a hook names.
    pub group: Seen<Group>,
    /// The target groups that could hold the instance, with the health of *all* their targets.
    pub target_groups: Seen<Vec<TargetGroup>>,
    /// How many more there are that could not be read: what is known is acted on, but nothing that needs
    /// them all is done.
    pub unread_target_groups: usize,
    /// Those that ELB does not find.
    pub missing_target_groups: BTreeSet<TargetGroupArn>,
}

impl Observation {
    /// AWS says how things were then, or later. The clock may have been moved back since.
    pub fn as_of(&self, now: Timestamp) -> Timestamp {
        self.read_at.map_or(now, |read_at| read_at.min(now))
    }

    /// The group says that the instance is in service.
    pub(crate) fn is_in_service(&self) -> bool {
        self.membership.known().is_some_and(|member| member.state == LifecycleState::InService)
    }
}

/// Why nobody can say which node an instance has, though every watch is in sync.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeDoubt {
    /// None of the nodes names it, and of some nobody knows what they are: they name no instance, and no other machine.
    Unidentified {
        /// How many.
        nodes: usize,
    },
    /// Several Ready nodes name it: an image with a providerID in it. One machine has one kubelet.
    Twins {
        /// How many.
        nodes: usize,
    },
}

impl NodeDoubt {
    /// Several Ready nodes name the instance.
    pub const fn is_twins(&self) -> bool {
        matches!(self, Self::Twins { .. })
    }
}

/// A Kubernetes node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// Its zone, by its label: ELB does not tell the zone of an instance target.
    pub zone: Option<Zone>,
    /// The Ready condition is True.
    pub ready: bool,
    /// A taint `readiness.k8s.io/…` says that something which its pods need is not there yet (Node Readiness Controller).
    pub unready_for_pods: bool,
    /// Nobody hears of its kubelet: the node controller has set the Ready condition to Unknown, or there is none. A kubelet that
    /// says itself that it is not Ready is alive, and so are its pods (machine-controller-manager#450).
    pub silent: bool,
    /// Since when the Ready condition is what it is.
    pub ready_since: Timestamp,
    /// When its kubelet last wrote its status, every five minutes and at changes: by our clock, when the watch showed it; where
    /// nobody saw that, by its own, and not later than now.
    pub renewed_at: Timestamp,
    /// `spec.unschedulable`.
    pub cordoned: bool,
    /// It carries the label `node.kubernetes.io/exclude-from-external-load-balancers`.
    pub excluded: bool,
    /// What we wrote on it.
    pub record: Option<Record>,
    /// Who makes and removes nodes of this kind.
    pub owner: NodeOwner,
    /// The configured node selector matches (true where none is configured).
    pub selected: bool,
    /// For writes that must not overwrite somebody else's.
    pub resource_version: String,
}

impl Node {
    /// What is sent to it is served.
    pub(crate) const fn serves(&self) -> bool {
        self.ready && !self.unready_for_pods
    }
}

/// Who makes and removes a node, by its labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeOwner {
    /// A self-managed Auto Scaling group, as far as the node tells.
    SelfManaged,
    /// An EKS managed node group: balancers and drain, but no detach, standby or terminate.
    ManagedNodeGroup,
    /// Karpenter (`karpenter.sh/nodepool`), whose FAQ asks for a single interruption handler.
    Karpenter,
    /// EKS Auto Mode (`eks.amazonaws.com/compute-type: auto`).
    AutoMode,
}

/// A pod bound to the node, trimmed to what matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pod {
    /// Name and UID.
    pub pod: PodRef,
    /// Its own `terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// Succeeded or Failed: nothing runs in it.
    pub finished: bool,
    /// It has the mirror annotation: a static pod, not ours to delete.
    pub mirror: bool,
    /// The DaemonSet that controls it.
    pub daemon_set: Option<String>,
    /// What makes it again after it is gone.
    pub origin: PodOrigin,
    /// When it was made, by the API server's clock, in whole seconds.
    pub created: Timestamp,
    /// It tolerates `node.kubernetes.io/unschedulable`: the scheduler may put it onto a cordoned node.
    pub tolerates_cordon: bool,
    /// Its priority class is `system-cluster-critical`.
    pub cluster_critical: bool,
    /// Its priority class is `system-node-critical`.
    pub node_critical: bool,
    /// Traffic reaches it only through this node: behind `externalTrafficPolicy: Local`, or a hostPort.
    pub local_traffic: bool,
    /// Its annotation asks that it be left to finish by itself.
    pub let_finish: bool,
    /// It is being deleted, and its grace ends then.
    pub ends_at: Option<Timestamp>,
    /// When its end was asked for, by the API server's clock, in whole seconds.
    pub deleted_at: Option<Timestamp>,
    /// The Ready condition is True.
    pub ready: bool,
    /// Of its labels but those that name the pod itself: pods with the same are one to a disruption budget, as far as they are
    /// ready.
    pub labels_hash: u64,
}

impl Pod {
    /// It has to leave whatever the policy says: no DaemonSet keeps it there, no kubelet's file, and it has not finished.
    pub const fn must_leave(&self) -> bool {
        self.daemon_set.is_none() && !self.mirror && !self.finished
    }
}

/// What makes a pod again after it is gone, for people too: namespace, kind and name of its controller, or for a
/// pod without one its namespace and name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodOrigin(pub String);

/// A pod by namespace, name and UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: writes carry it as a precondition.
    pub uid: PodUid,
}

/// What DescribeAutoScalingInstances says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The group it is in.
    pub group: GroupName,
    /// Its lifecycle state.
    pub state: LifecycleState,
    /// The group's own health verdict.
    pub healthy: bool,
    /// It ends in the group's warm pool, where an instance serves nobody and mostly has no node.
    pub pooled: bool,
}

/// `LifecycleState` of an instance in a group. AWS adds states; an unknown one is not an error and does
/// not count as in service (ASG API, Instance).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LifecycleState {
    /// Counted on.
    InService,
    /// A member that is not counted on, without health checks.
    Standby,
    /// A terminate hook holds it.
    TerminatingWait,
    /// The hooks are answered; it ends.
    TerminatingProceed,
    /// On its way to a terminate hook, or ending without one.
    Terminating,
    /// It ended.
    Terminated,
    /// A hook holds it on its way into the warm pool.
    WarmedPendingWait,
    /// In the warm pool, or on its last way there: no hook holds it.
    Warmed,
    /// A hook holds it before its root volume is replaced.
    ReplacingRootVolumeWait,
    /// Any other state, known to AWS or to come.
    Other(String),
}

impl LifecycleState {
    /// A hook holds the instance.
    pub const fn is_held(&self) -> bool {
        matches!(self, Self::TerminatingWait | Self::WarmedPendingWait | Self::ReplacingRootVolumeWait)
    }

    /// The group ends the instance, or moves it into its warm pool.
    pub const fn is_leaving(&self) -> bool {
        matches!(self, Self::TerminatingWait | Self::WarmedPendingWait) || self.is_unheld()
    }

    /// The group ends the instance, and no hook holds it at this moment.
    pub const fn is_unheld(&self) -> bool {
        matches!(self, Self::Terminating) || self.is_past_hooks()
    }

    /// The group ends the instance, and every hook is over.
    pub const fn is_past_hooks(&self) -> bool {
        matches!(self, Self::TerminatingProceed | Self::Terminated)
    }
}

/// One Auto Scaling group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: GroupName,
    /// Its lifecycle hooks on termination.
    pub terminate_hooks: Vec<HookSpec>,
    /// Capacity Rebalancing is on: the group itself replaces spot instances at risk.
    pub capacity_rebalancing: bool,
    /// It belongs to an EKS managed node group (tag `eks:nodegroup-name`).
    pub managed: bool,
    /// It is in scope by its tags and name (true where no scope is configured).
    pub in_scope: bool,
    /// The target groups attached to it.
    pub target_groups: Vec<TargetGroupArn>,
    /// Members that it terminates or moves into its warm pool.
    pub leaving: BTreeSet<InstanceId>,
}

/// One lifecycle hook as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookSpec {
    /// Its name.
    pub name: HookName,
    /// What a heartbeat extends the wait by: 30 to 7,200 s.
    pub heartbeat_timeout: Duration,
    /// The end of it all, whatever the heartbeats: the smaller of 48 h and 100 heartbeat timeouts.
    pub global_timeout: Duration,
    /// The cluster that its NotificationMetadata names.
    pub cluster_hint: Option<ClusterName>,
}

/// One target group and all its targets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroup {
    /// Its ARN.
    pub arn: TargetGroupArn,
    /// The kind of balancer in front of it.
    pub balancer: BalancerKind,
    /// A healthy target of another zone can stand in.
    pub cross_zone: bool,
    /// How long a target drains after its deregistration.
    pub deregistration_delay: Duration,
    /// None of its targets is healthy, so that the balancer sends to all that are registered.
    pub fails_open: bool,
    /// The targets of the instance, and the others too while one of its own serves.
    pub targets: std::sync::Arc<[Target]>,
}

impl TargetGroup {
    /// The balancer sends new requests to this target of it.
    pub fn sends_to(&self, health: TargetHealth) -> bool {
        use TargetHealth::{Healthy, Initial, Unavailable, Unhealthy};
        health == Healthy || self.fails_open && matches!(health, Unhealthy | Initial | Unavailable)
    }

    /// The targets of one instance with their keys: one for each port.
    pub fn targets_of(&self, instance: &InstanceId) -> impl Iterator<Item = (TargetKey, &Target)> {
        self.targets.iter().filter(move |target| target.instance == *instance).map(|target| {
            let key =
                TargetKey { group: self.arn.clone(), instance: target.instance.clone(), port: target.port };
            (key, target)
        })
    }
}

/// The kind of a load balancer: they differ in how long they go on after a deregistration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BalancerKind {
    /// Application Load Balancer.
    Application,
    /// Network Load Balancer.
    Network,
}

/// One target as DescribeTargetHealth lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// The instance.
    pub instance: InstanceId,
    /// The port it was registered with.
    pub port: u16,
    /// Its zone, where known.
    pub zone: Option<Zone>,
    /// Its health.
    pub health: TargetHealth,
    /// The node behind it is cordoned or labelled, its group ends it, or the watch of its cluster is out of sync: nobody counts on it.
    pub set_aside: bool,
    /// The node behind it has our record, or its job is here, since then; and it has not passed the gate.
    pub leaving_since: Option<Timestamp>,
}

/// The state of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetHealth {
    /// Registered, first checks running.
    Initial,
    /// Gets traffic.
    Healthy,
    /// Registered; gets traffic only where every target is unhealthy. With `unhealthy.draining`.
    Unhealthy,
    /// Deregistered, its delay is running.
    Draining,
    /// Gets no traffic.
    Unused {
        /// Still on the list (no listener uses the group, or the instance is stopped).
        registered: bool,
    },
    /// Health checks are off, or ELB has an internal error.
    Unavailable,
}

/// One (target group, instance, port).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetKey {
    /// The target group.
    pub group: TargetGroupArn,
    /// The instance.
    pub instance: InstanceId,
    /// The port: a target with a port override is only found with it.
    pub port: u16,
}
