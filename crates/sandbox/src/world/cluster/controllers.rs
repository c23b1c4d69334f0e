//! Controllers and scheduler: what is missing is made, what waits gets a node.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

use offramp_core::{ClusterName, NodeName, PodRef, PodUid};

use super::{Cluster, Key, Node, Owner, Phase, Pod, PodTemplate, Workload, WorkloadKind};
use crate::world::World;

/// What a kubelet takes by default.
const PODS_PER_NODE: usize = 110;

impl World {
    pub(super) fn reconcile(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.index.reconcile_is_due = false;
        let changed = std::mem::take(&mut cluster.index.changed_workloads);
        let missing: Vec<Missing> = cluster
            .workloads
            .values()
            .filter(|workload| changed.contains(&workload.uid))
            .flat_map(|workload| cluster.missing(workload))
            .collect();
        for missing in missing {
            self.make_pod(name, missing);
        }
        self.schedule(name);
    }

    fn make_pod(&mut self, name: &ClusterName, missing: Missing) {
        let Missing { namespace, name: pod_name, owner, template, node } = missing;
        let uid = PodUid::new(self.uuid());
        let pod_name = match pod_name {
            PodName::Fixed(fixed) => fixed,
            PodName::Prefix(prefix) => {
                let pods = self.clusters.get(name).map(|cluster| &cluster.pods);
                let taken =
                    |pod: &str| pods.is_some_and(|p| p.contains_key(&(namespace.clone(), pod.to_owned())));
                free_name(&prefix, || suffix(&mut self.random), taken)
            }
        };
        let pod = Pod {
            pod: PodRef { namespace, name: pod_name, uid },
            labels: template.labels,
            annotations: template.annotations,
            owner: Some(owner),
            node: None,
            priority_class: template.priority_class,
            grace: template.grace,
            host_port: template.host_port,
            tolerates_all: template.tolerates_all,
            phase: Phase::Pending,
            ready: false,
            ready_since: self.now,
            created: self.now,
            deletion: None,
            deletion_grace: None,
            sigterm: None,
            ends: None,
            ending: template.ending,
            version: 0,
        };
        match node {
            Some(node) => self.bind(name, pod, node),
            None => self.store_pod(name, pod),
        }
    }

    /// Binds what waits to the node with the fewest pods; among equals the first name wins. To a pod that
    /// tolerates everything a cordoned node, which empties, is as good as any: that is where it comes back to
    /// (cilium/cilium#28549).
    fn schedule(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get(name) else { return };
        if cluster.index.unbound.is_empty() {
            return;
        }
        let mut nodes: BinaryHeap<Reverse<(usize, NodeName)>> = cluster
            .nodes
            .values()
            .filter(|node| node.ready && !node.unschedulable && !repels(node))
            .map(|node| Reverse((cluster.pods_count(&node.name), node.name.clone())))
            .collect();
        let waiting: Vec<Pod> =
            cluster.index.unbound.iter().filter_map(|key| cluster.pods.get(key)).cloned().collect();
        let (tolerant, waiting): (Vec<Pod>, Vec<Pod>) =
            waiting.into_iter().partition(|pod| pod.tolerates_all);
        for pod in tolerant {
            let Some(cluster) = self.clusters.get(name) else { return };
            let ready = cluster.nodes.values().filter(|node| node.ready);
            let emptiest =
                ready.min_by_key(|node| cluster.pods_count(&node.name)).map(|node| node.name.clone());
            if let Some(node) = emptiest {
                self.bind(name, pod, node);
            }
        }
        for pod in waiting {
            let Some(Reverse((count, node))) = nodes.pop() else { return };
            if count >= PODS_PER_NODE {
                return;
            }
            nodes.push(Reverse((count + 1, node.clone())));
            self.bind(name, pod, node);
        }
    }
}

/// A name that no pod has: the API server refuses one that is taken, and the controller tries again.
pub(super) fn free_name(
    prefix: &str,
    mut suffix: impl FnMut() -> String,
    taken: impl Fn(&str) -> bool,
) -> String {
    loop {
        let name = format!("{prefix}-{}", suffix());
        if !taken(&name) {
            return name;
        }
    }
}

/// Five characters as Kubernetes has them at the end of a pod's name: no vowels, nothing ambiguous.
fn suffix(random: &mut fastrand::Rng) -> String {
    let alphabet = b"bcdfghjklmnpqrstvwxz2456789";
    (0..5).filter_map(|_| random.choice(alphabet).map(|byte| char::from(*byte))).collect()
}

/// A pod that should be there.
struct Missing {
    namespace: String,
    name: PodName,
    owner: Owner,
    template: PodTemplate,
    /// Where it has to be.
    node: Option<NodeName>,
}

enum PodName {
    Fixed(String),
    Prefix(String),
}

impl Cluster {
    fn missing(&self, workload: &Workload) -> Vec<Missing> {
        let missing = |name: PodName, owner: Owner, node: Option<NodeName>| Missing {
            namespace: workload.namespace.clone(),
            name,
            owner,
            template: workload.template.clone(),
            node,
        };
        let owner = |kind: &str, name: &str| Owner {
            kind: kind.to_owned(),
            name: name.to_owned(),
            uid: workload.uid.clone(),
        };
        match workload.kind {
            // A pod that is being deleted does not count: its successor comes at once (ReplicaSet).
            WorkloadKind::Deployment { replicas } => {
                let active = self.active_pods(&workload.uid);
                let set = replica_set(workload);
                (active..replicas)
                    .map(|_| missing(PodName::Prefix(set.clone()), owner("ReplicaSet", &set), None))
                    .collect()
            }
            // "At most one": the name is free only when the object is gone.
            WorkloadKind::StatefulSet { replicas } => {
                let key = |name: &str| -> Key { (workload.namespace.clone(), name.to_owned()) };
                (0..replicas)
                    .map(|ordinal| format!("{}-{ordinal}", workload.name))
                    .filter(|name| !self.pods.contains_key(&key(name)))
                    .map(|name| missing(PodName::Fixed(name), owner("StatefulSet", &workload.name), None))
                    .collect()
            }
            // Its pods tolerate the cordon (node.kubernetes.io/unschedulable).
            WorkloadKind::DaemonSet | WorkloadKind::OtherDaemonSet => {
                let other = workload.kind == WorkloadKind::OtherDaemonSet;
                let kind = if other { "AdvancedDaemonSet" } else { "DaemonSet" };
                let pods = self.pods_of_owner(&workload.uid);
                let covered: BTreeSet<&NodeName> = pods.filter_map(|pod| pod.node.as_ref()).collect();
                self.nodes
                    .values()
                    .filter(|node| node.ready && !covered.contains(&node.name))
                    .map(|node| {
                        let prefix = PodName::Prefix(workload.name.clone());
                        missing(prefix, owner(kind, &workload.name), Some(node.name.clone()))
                    })
                    .collect()
            }
        }
    }
}

/// The ReplicaSet between a Deployment and its pods. It is no object here and has the Deployment's UID.
fn replica_set(workload: &Workload) -> String {
    let hash: String = workload.uid.chars().filter(char::is_ascii_alphanumeric).take(10).collect();
    format!("{}-{hash}", workload.name)
}

fn repels(node: &Node) -> bool {
    node.taints.iter().any(|(_, _, effect)| effect == "NoSchedule" || effect == "NoExecute")
}
