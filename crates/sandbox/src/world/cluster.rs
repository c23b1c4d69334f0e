//! One Kubernetes cluster: what its API server would store, and the controllers that change it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use offramp_core::{ClusterName, InstanceId, NodeName, PodRef, PodUid, TargetGroupArn, Timestamp, Zone};

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name, as NotificationMetadata has it.
    pub name: ClusterName,
    /// Its nodes by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Its pods by (namespace, name).
    pub pods: BTreeMap<(String, String), Pod>,
    /// Its disruption budgets by (namespace, name).
    pub budgets: BTreeMap<(String, String), Budget>,
    /// Its workloads (Deployments, DaemonSets …) by (namespace, name).
    pub workloads: BTreeMap<(String, String), Workload>,
    /// Its Services by (namespace, name).
    pub services: BTreeMap<(String, String), Service>,
    /// The newest resourceVersion.
    pub version: u64,
    /// Every change, newest last, for watches. Older ones are forgotten (410 Gone).
    pub changes: VecDeque<Change>,
    /// Since when and until when the API server does not answer.
    pub away_until: Option<Timestamp>,
}

/// A node as stored.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// `metadata.uid`.
    pub uid: String,
    /// The instance behind it: `spec.providerID` is `aws:///ZONE/INSTANCE`.
    pub instance: InstanceId,
    /// Its zone.
    pub zone: Zone,
    /// Labels, with the exclude label.
    pub labels: BTreeMap<String, String>,
    /// Annotations, with offramp's record.
    pub annotations: BTreeMap<String, String>,
    /// `spec.unschedulable`.
    pub unschedulable: bool,
    /// `spec.taints` as (key, value, effect).
    pub taints: Vec<(String, String, String)>,
    /// The Ready condition.
    pub ready: bool,
    /// Its last transition.
    pub ready_since: Timestamp,
    /// When it joined.
    pub created: Timestamp,
    /// `metadata.resourceVersion`.
    pub version: u64,
}

/// A pod as stored.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Namespace, name and UID.
    pub pod: PodRef,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// What made it.
    pub owner: Option<Owner>,
    /// `spec.nodeName`.
    pub node: Option<NodeName>,
    /// `spec.priorityClassName`.
    pub priority_class: Option<String>,
    /// `spec.terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// A hostPort, if it has one.
    pub host_port: Option<u16>,
    /// `status.phase`.
    pub phase: Phase,
    /// The Ready condition.
    pub ready: bool,
    /// Its last transition.
    pub ready_since: Timestamp,
    /// When it was made.
    pub created: Timestamp,
    /// `metadata.deletionTimestamp`: when its grace ends.
    pub deletion: Option<Timestamp>,
    /// When its process begins to end (SIGTERM, after preStop).
    pub sigterm: Option<Timestamp>,
    /// How its process behaves at its end.
    pub ending: Ending,
    /// `metadata.resourceVersion`.
    pub version: u64,
}

/// How a process ends when it is told to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending {
    /// It sleeps so long before SIGTERM, serving as before.
    pub pre_stop: Duration,
    /// After SIGTERM it answers nothing new and takes so long to end; `None`: until it is killed at the
    /// end of its grace; a pod that never ends outlives that too.
    pub takes: Option<Duration>,
    /// It survives even its grace (a stuck volume, a dead kubelet): only the end of the node ends it.
    pub stuck: bool,
}

/// What made a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// `ReplicaSet`, `DaemonSet`, `StatefulSet`, `Job`, `Node` (a mirror pod).
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// `status.phase`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Not bound, or not started.
    Pending,
    /// Running.
    Running,
    /// Ended well.
    Succeeded,
    /// Ended badly.
    Failed,
}

/// A PodDisruptionBudget.
#[derive(Clone, Debug)]
pub struct Budget {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// matchLabels.
    pub selector: BTreeMap<String, String>,
    /// At least so many healthy pods have to stay.
    pub min_available: usize,
    /// `metadata.resourceVersion`.
    pub version: u64,
}

/// Something that keeps pods running.
#[derive(Clone, Debug)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// What it is.
    pub kind: WorkloadKind,
    /// What its pods look like.
    pub template: PodTemplate,
}

/// Kinds of workloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkloadKind {
    /// So many pods, anywhere (its pods' owner is a ReplicaSet).
    Deployment {
        /// How many.
        replicas: usize,
    },
    /// One pod on each node.
    DaemonSet,
}

/// What a workload's pods look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodTemplate {
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
    /// Priority class.
    pub priority_class: Option<String>,
    /// Grace.
    pub grace: Duration,
    /// hostPort.
    pub host_port: Option<u16>,
    /// How a pod ends.
    pub ending: Ending,
}

/// A Service of type LoadBalancer or NodePort, instance mode.
#[derive(Clone, Debug)]
pub struct Service {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `metadata.uid`.
    pub uid: String,
    /// matchLabels.
    pub selector: BTreeMap<String, String>,
    /// The node port.
    pub node_port: u16,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// A controller in the cluster keeps this target group filled with the eligible nodes.
    pub target_group: Option<TargetGroupArn>,
    /// `metadata.resourceVersion`.
    pub version: u64,
}

/// One change, as a watch sends it.
#[derive(Clone, Debug)]
pub struct Change {
    /// The resourceVersion it made.
    pub version: u64,
    /// ADDED, MODIFIED or DELETED.
    pub verb: Verb,
    /// The object after it (before it, when deleted).
    pub object: Object,
}

/// What a watch says happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// It is new.
    Added,
    /// It changed.
    Modified,
    /// It is gone.
    Deleted,
}

/// An object that can be watched.
#[derive(Clone, Debug)]
pub enum Object {
    /// A node.
    Node(Node),
    /// A pod.
    Pod(Pod),
    /// A Service.
    Service(Service),
    /// A disruption budget.
    Budget(Budget),
}

/// What happens in a cluster by itself.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// Scheduler and controllers look at the whole cluster.
    Reconcile,
    /// A pod's process gets SIGTERM.
    Sigterm(PodUid),
    /// A pod's process has ended, or its grace has.
    PodEnds(PodUid),
    /// A bound pod becomes ready.
    PodReady(PodUid),
    /// The cloud controller deletes the node of an instance that is gone.
    NodeDeleted(NodeName),
}

/// The exclude label, the key.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

impl Cluster {
    /// The UIDs of the pods bound to a node.
    pub fn pods_on(&self, node: &NodeName) -> BTreeSet<PodUid> {
        self.pods
            .values()
            .filter(|pod| pod.node.as_ref() == Some(node))
            .map(|pod| pod.pod.uid.clone())
            .collect()
    }
}
