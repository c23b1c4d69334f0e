//! Nodes come and go with their instances.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{ClusterName, InstanceId, NodeName};

use super::index::key_of;
use super::{Due, EXCLUDE_LABEL, Key, NamedMachine, Node, Phase, Pod};
use crate::world::World;

/// Pod garbage collection waits for 40 s, and looks every 20 s (kube-controller-manager, `quarantineTime`, `gcCheckPeriod`).
const ORPHANS: Duration = Duration::from_secs(60);

impl Node {
    /// Whether a controller that fills target groups counts it: the criteria of the AWS Load Balancer
    /// Controller (instance mode). A cordon is not among them (its issues 1161, 885, 1112; Kubernetes 1.19
    /// stopped to look at it too, kubernetes/kubernetes#90823).
    pub fn is_balanced(&self) -> bool {
        let left_out = |key: &str, effect: &str| {
            key == "ToBeDeletedByClusterAutoscaler"
                || (key == "karpenter.sh/disrupted" && effect == "NoSchedule")
        };
        self.ready
            && !self.labels.contains_key(EXCLUDE_LABEL)
            && !self.labels.contains_key("node-role.kubernetes.io/control-plane")
            && !self.taints.iter().any(|(key, _, effect)| left_out(key, effect))
    }
}

impl World {
    /// The cluster and the node of an instance.
    pub(crate) fn node_of_instance(&self, instance: &InstanceId) -> Option<(&super::Cluster, &Node)> {
        let joins = self.instances.get(instance)?.cluster.as_ref()?;
        let cluster = self.clusters.get(joins)?;
        Some((cluster, cluster.machine_of(instance)?))
    }

    /// An instance runs: its node joins, Ready, or is Ready again.
    pub(crate) fn instance_started(&mut self, id: &InstanceId) {
        if self.machine_starts_again(id) {
            return;
        }
        let Some(instance) = self.instances.get(id).cloned() else { return };
        let Some(name) = instance.cluster.filter(|name| self.clusters.contains_key(name)) else { return };
        let [a, b, c, d] = instance.private_ip.octets();
        let region = instance.zone.as_str().trim_end_matches(|letter: char| letter.is_ascii_lowercase());
        let node_name = format!("ip-{a}-{b}-{c}-{d}.{region}.compute.internal");
        let mut labels = BTreeMap::from(
            [
                ("kubernetes.io/arch", "amd64"),
                ("kubernetes.io/hostname", node_name.as_str()),
                ("kubernetes.io/os", "linux"),
                ("node.kubernetes.io/instance-type", "m7i.large"),
                ("topology.kubernetes.io/region", region),
                ("topology.kubernetes.io/zone", instance.zone.as_str()),
            ]
            .map(|(key, value)| (key.to_owned(), value.to_owned())),
        );
        labels.extend(instance.labels);
        let uid = self.uuid();
        let node = Node {
            name: NodeName::new(node_name),
            uid,
            instance: id.clone(),
            zone: instance.zone,
            labels,
            annotations: BTreeMap::new(),
            unschedulable: false,
            taints: Vec::new(),
            ready: true,
            ready_since: self.now,
            powered: true,
            kubelet_dead: false,
            names: NamedMachine::Own,
            created: self.now,
            version: 0,
        };
        self.tell(format!("node {} joins {name}", node.name));
        self.store_node(&name, node);
        self.recheck_targets(id);
    }

    /// An instance shuts down: containers, kube-proxy and network go on for half of the time that EC2
    /// needs, as with a kubelet that holds the shutdown back for its pods.
    pub(crate) fn instance_shutting_down(&mut self, id: &InstanceId) {
        self.traffic_changed();
        let Some(name) = self.node_of_instance(id).map(|(cluster, _)| cluster.name.clone()) else { return };
        self.cluster_after(&name, self.delays.shutdown / 2, Due::MachineEnds(id.clone()));
    }

    /// An instance is off; its node stays (the cloud controller deletes only nodes of instances that do not exist any more).
    pub(crate) fn instance_stopped(&mut self, id: &InstanceId) {
        self.traffic_changed();
        let Some(name) = self.node_of_instance(id).map(|(cluster, _)| cluster.name.clone()) else { return };
        self.machine_ends(&name, id);
    }

    /// The kubelet of a machine that was off finds its node as it was, and starts the pods that are bound to it. Those whose
    /// deletion was asked for are gone. A node that was deleted meanwhile is made anew.
    fn machine_starts_again(&mut self, id: &InstanceId) -> bool {
        let now = self.now;
        let Some((cluster, machine)) = self.node_of_instance(id) else { return false };
        let (name, machine) = (cluster.name.clone(), machine.clone());
        let pods: Vec<_> = cluster.pods_of_node(&machine.name).cloned().collect();
        if !cluster.nodes.contains_key(&machine.name) {
            self.clusters.get_mut(&name).map(|cluster| cluster.nodeless.remove(&machine.name));
            return false;
        }
        self.tell(format!("node {} is back", machine.name));
        let works = Node { powered: true, ready: true, ready_since: now, kubelet_dead: false, ..machine };
        self.store_node(&name, works);
        for pod in pods {
            if pod.deletion.is_some() {
                self.remove_pod(&name, &key_of(&pod));
                continue;
            }
            let uid = pod.pod.uid.clone();
            let starts = Pod { phase: Phase::Pending, ready: false, sigterm: None, ends: None, ..pod };
            self.store_pod(&name, starts);
            self.cluster_after(&name, self.delays.pod_start, Due::PodReady(uid));
        }
        self.recheck_targets(id);
        true
    }

    /// An instance is gone; the cloud controller will find out.
    pub(crate) fn instance_gone(&mut self, id: &InstanceId) {
        let Some((cluster, node)) = self.node_of_instance(id) else { return };
        let (name, node) = (cluster.name.clone(), node.name.clone());
        self.machine_ends(&name, id);
        let nodeless = self.clusters.get_mut(&name).and_then(|cluster| cluster.nodeless.remove(&node));
        if nodeless.is_some() {
            return self.collect_orphans(&name, &node);
        }
        self.cluster_after(&name, self.delays.node_deletion, Due::NodeDeleted(node));
    }

    /// Kubelet and kube-proxy fall silent and every process ends. That the node is not Ready is known at
    /// once here; on a real cluster it takes the node-monitor-grace-period (40 to 50 s).
    pub(super) fn machine_ends(&mut self, name: &ClusterName, id: &InstanceId) {
        let now = self.now;
        let Some(cluster) = self.clusters.get(name) else { return };
        let Some(node) = cluster.machine_of(id).filter(|node| node.powered).cloned() else { return };
        let pods: Vec<_> = cluster.pods_of_node(&node.name).cloned().collect();
        self.cut_connections(id);
        self.tell(format!("node {} is silent", node.name));
        self.store_machine(name, Node { powered: false, ready: false, ready_since: now, ..node });
        for mut pod in pods {
            pod.ends = Some(pod.ends.map_or(now, |ends| ends.min(now)));
            if pod.ready {
                pod.ready = false;
                pod.ready_since = now;
            }
            self.store_pod(name, pod);
        }
        self.recheck_targets(id);
    }

    /// The Node object goes, and with it every pod that was bound to it (pod garbage collection).
    pub(super) fn node_deleted(&mut self, name: &ClusterName, node: &NodeName) {
        let Some(cluster) = self.clusters.get(name) else { return };
        if cluster.machine(node).is_none_or(|node| node.powered) {
            return;
        }
        let pods: Vec<Key> = cluster.pods_of_node(node).map(key_of).collect();
        self.tell(format!("node {node} is deleted"));
        self.remove_node(name, node);
        for pod in pods {
            self.remove_pod(name, &pod);
        }
    }

    /// Somebody deletes the Node object of a machine that runs on. Its kubelet does not make another one before it is
    /// started anew.
    pub fn delete_node(&mut self, name: &ClusterName, node: &NodeName) {
        let stored = self.clusters.get(name).and_then(|cluster| cluster.nodes.get(node)).cloned();
        let Some(machine) = stored else { return };
        self.tell(format!("node {node} is deleted by hand"));
        self.remove_node(name, node);
        if let Some(cluster) = self.clusters.get_mut(name) {
            cluster.nodeless.insert(node.clone(), machine);
        }
        self.cluster_after(name, ORPHANS, Due::Orphans(node.clone()));
    }

    /// The providerID of a node says something else from now on.
    pub fn rename_machine(&mut self, name: &ClusterName, node: &NodeName, names: NamedMachine) {
        let stored = self.clusters.get_mut(name).and_then(|cluster| {
            cluster.misnamed |= names != NamedMachine::Own;
            cluster.nodes.get(node).cloned()
        });
        if let Some(node) = stored {
            self.tell(format!("node {} says that it is {names:?}", node.name));
            self.store_node(name, Node { names, ..node });
        }
    }

    /// A kubelet dies, and its machine goes on. That the node is not Ready is known at once here.
    pub fn kill_kubelet(&mut self, name: &ClusterName, node: &NodeName) {
        let stored = self.clusters.get(name).and_then(|cluster| cluster.nodes.get(node)).cloned();
        let Some(machine) = stored.filter(|machine| machine.powered && !machine.kubelet_dead) else { return };
        self.tell(format!("the kubelet of node {node} dies"));
        self.store_node(name, Node { kubelet_dead: true, ready: false, ready_since: self.now, ..machine });
    }

    /// Pods without a Node are deleted, grace or not (pod garbage collection, `gcOrphaned`).
    pub(super) fn collect_orphans(&mut self, name: &ClusterName, node: &NodeName) {
        let Some(cluster) = self.clusters.get(name).filter(|cluster| !cluster.nodes.contains_key(node))
        else {
            return;
        };
        let pods: Vec<Key> = cluster.pods_of_node(node).map(key_of).collect();
        for pod in pods {
            self.remove_pod(name, &pod);
        }
    }

    /// Changes a machine, whether it has a Node object or not.
    fn store_machine(&mut self, name: &ClusterName, machine: Node) {
        let nodeless =
            self.clusters.get_mut(name).and_then(|cluster| cluster.nodeless.get_mut(&machine.name));
        match nodeless {
            Some(stored) => *stored = machine,
            None => self.store_node(name, machine),
        }
    }
}

impl super::Cluster {
    /// A machine by the name that its node has or had.
    pub(crate) fn machine(&self, name: &NodeName) -> Option<&Node> {
        self.nodes.get(name).or_else(|| self.nodeless.get(name))
    }

    /// The machine of an instance.
    pub fn machine_of(&self, instance: &InstanceId) -> Option<&Node> {
        let nodeless = || self.nodeless.values().find(|machine| machine.instance == *instance);
        self.node_of(instance).or_else(nodeless)
    }
}
