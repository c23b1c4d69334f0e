//! One Kubernetes cluster: what its API server would store, and the controllers that change it.

mod controllers;
mod endpoints;
mod events;
mod index;
mod kubelet;
mod load_balancer_controller;
mod nodes;
mod store;
mod view;
mod writes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use offramp_core::{ClusterName, InstanceId, NodeName, PodRef, PodUid, TargetGroupArn, Timestamp, Zone};

use super::World;
pub use endpoints::{Endpoint, EndpointState};
pub use events::{Event, Regarding};
pub(crate) use index::Subject;
pub use view::{View, ViewLag};
pub use writes::{ANNOTATIONS, ApiError, NodePatch};

/// (namespace, name).
pub type Key = (String, String);

/// One cluster.
#[derive(Debug)]
pub struct Cluster {
    /// Its name, as NotificationMetadata has it.
    pub name: ClusterName,
    /// Its nodes by name.
    pub nodes: BTreeMap<NodeName, Node>,
    /// Machines whose node somebody deleted: kubelet, kube-proxy and containers go on there.
    pub nodeless: BTreeMap<NodeName, Node>,
    /// Some node's providerID names another machine than its own, or none.
    pub(crate) misnamed: bool,
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
    /// The newest Events, oldest first.
    pub events: VecDeque<Event>,
    /// Pods by (namespace, name) whose eviction an admission webhook refuses, with its words.
    pub vetoes: BTreeMap<(String, String), String>,
    /// Whether that webhook refuses clients their deletions of these pods, too.
    pub vetoes_deletions: bool,
    /// Namespaces that are being deleted: nothing new is created in them, not even an Eviction.
    pub terminating_namespaces: BTreeSet<String>,
    /// With these words an admission policy refuses every change of a node.
    pub nodes_vetoed: Option<String>,
    /// A mutating webhook takes each cordon out of a change of a node, and lets the rest pass.
    pub cordons_stripped: bool,
    /// Bytes of annotations that others have put onto nodes: counted, and not stored.
    pub other_annotations: BTreeMap<NodeName, usize>,
    /// Until when the API server does not answer.
    pub away_until: Option<Timestamp>,
    /// The nodes that instances had, by instance, each with the version of its deletion and the longest grace of its pods.
    pub(crate) deleted: BTreeMap<InstanceId, (u64, NodeName, Duration)>,
    /// How late the watches are.
    pub view_lag: ViewLag,
    /// Until when they show nothing new.
    pub(crate) silent_until: Option<Timestamp>,
    /// What they have yet to show.
    unseen: view::Unseen,
    /// Who waits for the proof that they have shown what was there.
    proofs: Vec<view::Proof>,
    /// Lookups beside the objects.
    pub(crate) index: index::Index,
}

/// A node as stored.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// `metadata.uid`.
    pub uid: String,
    /// The instance behind it.
    pub instance: InstanceId,
    /// Which machine its `spec.providerID` names.
    pub names: NamedMachine,
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
    /// The machine behind it works: kubelet, kube-proxy, processes, network. No API server knows this.
    pub powered: bool,
    /// Its kubelet has died. Containers and network go on; nothing that the API server is told of them comes true.
    pub kubelet_dead: bool,
    /// When it joined.
    pub created: Timestamp,
    /// `metadata.resourceVersion`.
    pub version: u64,
}

/// What a node's `spec.providerID` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamedMachine {
    /// `aws:///ZONE/INSTANCE`, the instance behind it.
    Own,
    /// Nothing that tells which machine it is (`k3s://NAME`).
    None,
    /// Another instance: an image with a providerID in it.
    Other(InstanceId),
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
    /// `tolerations: [{operator: Exists}]`: cordons and taints keep it from no node.
    pub tolerates_all: bool,
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
    /// `metadata.deletionGracePeriodSeconds`.
    pub deletion_grace: Option<Duration>,
    /// When its process begins to end (SIGTERM, after preStop).
    pub sigterm: Option<Timestamp>,
    /// When its process will have ended; `None` as long as nothing ends it.
    pub ends: Option<Timestamp>,
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
    /// So many pods under fixed names; a name comes back only when its last pod is gone.
    StatefulSet {
        /// How many.
        replicas: usize,
    },
    /// One pod on each node.
    DaemonSet,
    /// The same by a controller of its own, which calls its kind something else: nothing says that its pods stay.
    OtherDaemonSet,
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
    /// `tolerations: [{operator: Exists}]`.
    pub tolerates_all: bool,
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
    /// Scheduler and controllers look at what changed.
    Reconcile,
    /// A pod's process gets SIGTERM.
    Sigterm(PodUid),
    /// A pod's process has ended, or its grace has.
    PodEnds(PodUid),
    /// A bound pod becomes ready.
    PodReady(PodUid),
    /// Every kube-proxy knows by now what became of a pod.
    EndpointsSpread(endpoints::Spread),
    /// The controller that fills target groups looks at the nodes.
    BalancerController,
    /// The operating system of an instance that shuts down is at its end.
    MachineEnds(InstanceId),
    /// The cloud controller deletes the node of an instance that is gone.
    NodeDeleted(NodeName),
    /// Pod garbage collection looks for pods of this node.
    Orphans(NodeName),
    /// The API server answers again.
    ApiServerBack,
    /// Late watches show a change.
    WatchesShow,
}

/// The exclude label, the key.
pub const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

impl Cluster {
    /// A cluster without nodes.
    pub fn new(name: ClusterName) -> Self {
        Self {
            name,
            nodes: BTreeMap::new(),
            nodeless: BTreeMap::new(),
            misnamed: false,
            pods: BTreeMap::new(),
            budgets: BTreeMap::new(),
            workloads: BTreeMap::new(),
            services: BTreeMap::new(),
            version: 1,
            changes: VecDeque::new(),
            events: VecDeque::new(),
            vetoes: BTreeMap::new(),
            vetoes_deletions: false,
            terminating_namespaces: BTreeSet::new(),
            nodes_vetoed: None,
            cordons_stripped: false,
            deleted: BTreeMap::new(),
            other_annotations: BTreeMap::new(),
            away_until: None,
            view_lag: ViewLag::default(),
            silent_until: None,
            unseen: view::Unseen::default(),
            proofs: Vec::new(),
            index: index::Index::default(),
        }
    }

    /// Whether the API server does not answer at the moment.
    pub fn is_away(&self, now: Timestamp) -> bool {
        self.away_until.is_some_and(|until| now < until)
    }
}

impl WorkloadKind {
    /// One pod on each node.
    pub(crate) const fn is_on_every_node(self) -> bool {
        match self {
            Self::DaemonSet | Self::OtherDaemonSet => true,
            Self::Deployment { .. } | Self::StatefulSet { .. } => false,
        }
    }
}

impl Node {
    /// `spec.providerID`.
    pub fn provider_id(&self) -> String {
        match &self.names {
            NamedMachine::Own => format!("aws:///{}/{}", self.zone, self.instance),
            NamedMachine::None => format!("k3s://{}", self.name),
            NamedMachine::Other(instance) => format!("aws:///{}/{instance}", self.zone),
        }
    }

    /// The instance that it says it is.
    pub fn named_instance(&self) -> Option<&InstanceId> {
        match &self.names {
            NamedMachine::Own => Some(&self.instance),
            NamedMachine::None => None,
            NamedMachine::Other(named) => Some(named),
        }
    }

    /// Whether it says that it is this instance.
    pub fn claims(&self, instance: &InstanceId) -> bool {
        self.named_instance() == Some(instance)
    }
}

impl Pod {
    /// Whether its process takes new requests: from its start to SIGTERM.
    pub fn accepts(&self, now: Timestamp) -> bool {
        let over = |at: Option<Timestamp>| at.is_some_and(|at| at <= now);
        self.phase == Phase::Running && !over(self.sigterm) && !over(self.ends)
    }
}

impl World {
    /// Adds an empty cluster.
    pub fn add_cluster(&mut self, name: &ClusterName) {
        self.clusters.insert(name.clone(), Cluster::new(name.clone()));
    }

    /// The API server of a cluster does not answer for so long; everything else in it goes on.
    pub fn take_api_server_away(&mut self, name: &ClusterName, span: Duration) {
        let until = self.now() + span;
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.away_until = Some(until);
        cluster.wake_all();
        self.cluster_after(name, span, Due::ApiServerBack);
    }

    /// The watches of a cluster show nothing new for so long, and their connections look alive.
    pub fn silence_watches(&mut self, name: &ClusterName, span: Duration) {
        let until = self.now() + span;
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.silent_until = Some(until);
        self.cluster_after(name, span, Due::WatchesShow);
    }

    pub(crate) fn cluster_due(&mut self, name: &ClusterName, due: Due) {
        match due {
            Due::Reconcile => self.reconcile(name),
            Due::Sigterm(uid) => self.pod_sigterm(name, &uid),
            Due::PodEnds(uid) => self.pod_ends(name, &uid),
            Due::PodReady(uid) => self.pod_ready(name, &uid),
            Due::EndpointsSpread(spread) => self.endpoints_spread(name, spread),
            Due::BalancerController => self.fill_target_groups(name),
            Due::MachineEnds(instance) => self.machine_ends(name, &instance),
            Due::NodeDeleted(node) => self.node_deleted(name, &node),
            Due::Orphans(node) => self.collect_orphans(name, &node),
            Due::WatchesShow => {
                let now = self.now;
                if let Some(cluster) = self.clusters.get_mut(name) {
                    cluster.show(now);
                }
            }
            Due::ApiServerBack => {
                let now = self.now;
                if let Some(cluster) = self.clusters.get_mut(name) {
                    cluster.wake_all();
                    cluster.answer_proofs(now);
                }
            }
        }
    }

    fn cluster_after(&mut self, name: &ClusterName, delay: Duration, due: Due) {
        self.after(delay, super::Due::Cluster(name.clone(), due));
    }
}

#[cfg(test)]
mod tests;
