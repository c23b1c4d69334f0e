//! What changes in a cluster and what follows from it: controllers look, kube-proxies hear of it.

use std::time::Duration;

use offramp_core::{ClusterName, NodeName, Timestamp};

use super::endpoints::{Spread, endpoint_of};
use super::index::key_of;
use super::{Budget, Due, Key, Node, Pod, Service, Workload};
use crate::world::World;

impl World {
    /// Adds a workload; its pods follow.
    pub fn add_workload(&mut self, name: &ClusterName, workload: Workload) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.index.changed_workloads.insert(workload.uid.clone());
        cluster.workloads.insert((workload.namespace.clone(), workload.name.clone()), workload);
        self.reconcile_soon(name);
    }

    /// Adds a disruption budget.
    pub fn add_budget(&mut self, name: &ClusterName, budget: Budget) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.put_budget(budget);
    }

    /// Adds a Service. The pods that are there are its endpoints at once.
    pub fn add_service(&mut self, name: &ClusterName, service: Service) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.put_service(service);
        self.traffic_changed();
        self.fill_target_groups_soon(name);
    }

    /// Adds a pod that no workload keeps, such as one of a Job or a mirror pod.
    pub fn add_pod(&mut self, name: &ClusterName, pod: Pod) {
        let bound = pod.node.is_some().then(|| pod.pod.uid.clone());
        self.store_pod(name, pod);
        if let Some(uid) = bound {
            self.cluster_after(name, self.delays.pod_start, Due::PodReady(uid));
        }
    }

    /// Stores a pod, new or changed. The kube-proxies learn of it a little later.
    pub(super) fn store_pod(&mut self, name: &ClusterName, pod: Pod) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let stored = cluster.pods.get(&key_of(&pod));
        let accepted = stored.is_some_and(|stored| stored.accepts(self.now));
        let before = stored.and_then(endpoint_of);
        let after = endpoint_of(&pod);
        let spread = (before != after).then(|| cluster.spread(&pod, after));
        let shown_at = cluster.put_pod(self.now, pod.clone());
        self.watches_show_at(name, shown_at);
        if accepted != pod.accepts(self.now) {
            self.backends_changed();
        }
        if let Some(due) = spread {
            self.cluster_after(name, self.delays.endpoint_slices, due);
        }
        self.pod_changed(name, &pod);
    }

    /// Takes a pod out of the store.
    pub(super) fn remove_pod(&mut self, name: &ClusterName, key: &Key) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let Some((pod, shown_at)) = cluster.take_pod(self.now, key) else { return };
        let spread = endpoint_of(&pod).is_some().then(|| cluster.spread(&pod, None));
        self.watches_show_at(name, shown_at);
        if pod.accepts(self.now) {
            self.backends_changed();
        }
        if let Some(due) = spread {
            self.cluster_after(name, self.delays.endpoint_slices, due);
        }
        self.pod_changed(name, &pod);
    }

    /// Stores a node, new or changed.
    pub(super) fn store_node(&mut self, name: &ClusterName, node: Node) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let stored = cluster.nodes.get(&node.name);
        let was_balanced = stored.is_some_and(Node::is_balanced);
        let is_balanced = node.is_balanced();
        // Cordons and labels are of no interest to DaemonSets and to requests.
        let works = |node: &Node| (node.instance.clone(), node.powered, node.ready);
        let works_as_before = stored.is_some_and(|stored| works(stored) == works(&node));
        let shown_at = cluster.put_node(self.now, node);
        self.watches_show_at(name, shown_at);
        if was_balanced != is_balanced {
            self.fill_target_groups_soon(name);
        }
        if works_as_before {
            self.reconcile_soon(name);
        } else {
            self.machines_changed(name);
        }
    }

    /// Takes a node out of the store.
    pub(super) fn remove_node(&mut self, name: &ClusterName, node: &NodeName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let before = cluster.nodes.get(node).is_some_and(Node::is_balanced);
        let shown_at = cluster.take_node(self.now, node);
        self.watches_show_at(name, shown_at);
        if before {
            self.fill_target_groups_soon(name);
        }
        self.machines_changed(name);
    }

    /// The kube-proxies take over what became of a pod.
    pub(super) fn endpoints_spread(&mut self, name: &ClusterName, spread: Spread) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let instance = cluster.take_over(spread);
        self.backends_changed();
        if let Some(instance) = instance {
            self.recheck_targets(&instance);
        }
    }

    pub(super) fn reconcile_soon(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        if !std::mem::replace(&mut cluster.index.reconcile_is_due, true) {
            self.cluster_after(name, Duration::ZERO, Due::Reconcile);
        }
    }

    fn watches_show_at(&mut self, name: &ClusterName, at: Option<Timestamp>) {
        if let Some(at) = at {
            self.cluster_after(name, self.now.until(at), Due::WatchesShow);
        }
    }

    fn pod_changed(&mut self, name: &ClusterName, pod: &Pod) {
        // Nothing stands between a hostPort and its health check.
        if pod.host_port.is_some() {
            let cluster = self.clusters.get(name).zip(pod.node.as_ref());
            let node = cluster.and_then(|(cluster, node)| cluster.machine(node));
            if let Some(instance) = node.map(|node| node.instance.clone()) {
                self.recheck_targets(&instance);
            }
        }
        self.reconcile_soon(name);
    }

    fn machines_changed(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let daemons = cluster.workloads.values().filter(|workload| workload.kind.is_on_every_node());
        let uids: Vec<String> = daemons.map(|workload| workload.uid.clone()).collect();
        cluster.index.changed_workloads.extend(uids);
        self.traffic_changed();
        self.reconcile_soon(name);
    }
}
