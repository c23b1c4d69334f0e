//! The objects of a cluster with lookups beside them: each change makes a version and a line for watches,
//! and tells who waits for it.

use std::collections::{BTreeMap, BTreeSet};

use offramp_core::{InstanceId, NodeName, NodeOwner, PodUid, Timestamp};
use offramp_engine::node_owner;
use tokio::sync::watch;

use super::endpoints::Endpoints;
use super::{Budget, Change, Cluster, Key, Node, Object, Phase, Pod, Service, Verb};
use crate::world::OUT_OF_SCOPE;

/// Watches that are further behind than this start over (410 Gone).
const CHANGES_KEPT: usize = 20_000;

/// Lookups beside the objects of a cluster, kept by the methods in this file.
#[derive(Debug, Default)]
pub(crate) struct Index {
    pods_by_uid: BTreeMap<PodUid, Key>,
    pods_by_node: BTreeMap<NodeName, BTreeSet<Key>>,
    pods_by_owner: BTreeMap<String, BTreeSet<Key>>,
    /// Those of them that run and are not on their way out.
    active_by_owner: BTreeMap<String, BTreeSet<Key>>,
    healthy_by_budget: BTreeMap<Key, BTreeSet<Key>>,
    nodes_by_instance: BTreeMap<InstanceId, NodeName>,
    /// Pods that wait for a node.
    pub(super) unbound: BTreeSet<Key>,
    /// UIDs of workloads whose pods changed since the last look.
    pub(super) changed_workloads: BTreeSet<String>,
    /// A look of the controllers is due.
    pub(super) reconcile_is_due: bool,
    /// A look of the load balancer controller is due.
    pub(super) filling_is_due: bool,
    /// What the kube-proxies know, by Service.
    pub(super) endpoints: BTreeMap<Key, Endpoints>,
    /// Who waits, in the order in which they began to. Each has a channel of their own: the receivers of one channel wake
    /// in random order.
    watchers: BTreeMap<Subject, Vec<watch::Sender<u64>>>,
}

/// What somebody waits for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// A change of the node of an instance, or of a pod on it.
    Instance(InstanceId),
    /// Pods of a namespace become ready.
    Readiness(String),
}

impl Cluster {
    /// The UIDs of the pods bound to a node.
    pub fn pods_on(&self, node: &NodeName) -> BTreeSet<PodUid> {
        self.pods_of_node(node).map(|pod| pod.pod.uid.clone()).collect()
    }

    /// The pods bound to a node.
    pub fn pods_of_node(&self, node: &NodeName) -> impl Iterator<Item = &Pod> {
        let keys = self.index.pods_by_node.get(node).into_iter().flatten();
        keys.filter_map(|key| self.pods.get(key))
    }

    /// How many pods are bound to a node.
    pub(super) fn pods_count(&self, node: &NodeName) -> usize {
        self.index.pods_by_node.get(node).map_or(0, BTreeSet::len)
    }

    /// The pods of a workload.
    pub(super) fn pods_of_owner(&self, uid: &str) -> impl Iterator<Item = &Pod> {
        let keys = self.index.pods_by_owner.get(uid).into_iter().flatten();
        keys.filter_map(|key| self.pods.get(key))
    }

    /// How many pods of a workload run and are not on their way out.
    pub(super) fn active_pods(&self, uid: &str) -> usize {
        self.index.active_by_owner.get(uid).map_or(0, BTreeSet::len)
    }

    /// How many healthy pods a budget counts: Ready, and not on their way out.
    pub fn healthy_pods(&self, budget: &Budget) -> usize {
        let key = (budget.namespace.clone(), budget.name.clone());
        self.index.healthy_by_budget.get(&key).map_or(0, BTreeSet::len)
    }

    /// A pod by UID.
    pub fn pod(&self, uid: &PodUid) -> Option<&Pod> {
        self.index.pods_by_uid.get(uid).and_then(|key| self.pods.get(key))
    }

    /// The node of an instance.
    pub fn node_of(&self, instance: &InstanceId) -> Option<&Node> {
        self.index.nodes_by_instance.get(instance).and_then(|name| self.nodes.get(name))
    }

    /// Changes its value with the subject, and with the API server's presence.
    pub(crate) fn watch(&mut self, subject: Subject) -> watch::Receiver<u64> {
        let (sender, receiver) = watch::channel(0);
        let watchers = self.index.watchers.entry(subject).or_default();
        watchers.retain(|sender| !sender.is_closed());
        watchers.push(sender);
        receiver
    }

    pub(super) fn wake_all(&mut self) {
        self.index.watchers.retain(|_, watchers| watchers.iter().any(|sender| !sender.is_closed()));
        let all = self.index.watchers.values().flatten();
        all.for_each(|sender| sender.send_modify(|value| *value += 1));
    }

    pub(super) fn wake(&self, subject: &Subject) {
        let watchers = self.index.watchers.get(subject).into_iter().flatten();
        watchers.for_each(|sender| sender.send_modify(|value| *value += 1));
    }

    fn log(&mut self, verb: Verb, object: Object) {
        self.changes.push_back(Change { version: self.version, verb, object });
        while self.changes.len() > CHANGES_KEPT {
            self.changes.pop_front();
        }
    }

    fn budgets_of(&self, pod: &Pod) -> Vec<Key> {
        self.budgets.iter().filter(|(_, budget)| budget.covers(pod)).map(|(key, _)| key.clone()).collect()
    }

    pub(super) fn put_budget(&mut self, mut budget: Budget) {
        self.version += 1;
        budget.version = self.version;
        let key = (budget.namespace.clone(), budget.name.clone());
        let healthy = self.pods.values().filter(|pod| budget.covers(pod) && is_healthy(pod));
        self.index.healthy_by_budget.insert(key.clone(), healthy.map(key_of).collect());
        let known = self.budgets.insert(key, budget.clone()).is_some();
        self.log(if known { Verb::Modified } else { Verb::Added }, Object::Budget(budget));
    }

    pub(super) fn put_service(&mut self, mut service: Service) {
        self.version += 1;
        service.version = self.version;
        let key = (service.namespace.clone(), service.name.clone());
        let endpoints = self.endpoints_at_once(&service);
        self.index.endpoints.insert(key.clone(), endpoints);
        let known = self.services.insert(key, service.clone()).is_some();
        self.log(if known { Verb::Modified } else { Verb::Added }, Object::Service(service));
    }

    /// Says when the watches show it, where that is not at once; so do those below.
    pub(super) fn put_pod(&mut self, now: Timestamp, mut pod: Pod) -> Option<Timestamp> {
        self.version += 1;
        pod.version = self.version;
        let key = key_of(&pod);
        self.index.pods_by_uid.insert(pod.pod.uid.clone(), key.clone());
        match &pod.node {
            Some(node) => {
                self.index.unbound.remove(&key);
                self.index.pods_by_node.entry(node.clone()).or_default().insert(key.clone());
            }
            None => {
                self.index.unbound.insert(key.clone());
            }
        }
        if let Some(owner) = &pod.owner {
            self.index.pods_by_owner.entry(owner.uid.clone()).or_default().insert(key.clone());
            let active = self.index.active_by_owner.entry(owner.uid.clone()).or_default();
            let finished = matches!(pod.phase, Phase::Succeeded | Phase::Failed);
            keep(active, &key, pod.deletion.is_none() && !finished);
            self.index.changed_workloads.insert(owner.uid.clone());
        }
        for budget in self.budgets_of(&pod) {
            let healthy = self.index.healthy_by_budget.entry(budget).or_default();
            keep(healthy, &key, is_healthy(&pod));
        }
        let before = self.pods.insert(key, pod.clone());
        self.check_endpoints_of(&pod.pod.uid);
        self.log(if before.is_some() { Verb::Modified } else { Verb::Added }, Object::Pod(pod.clone()));
        self.pod_changed(now, &pod, is_healthy(&pod), before)
    }

    pub(super) fn take_pod(&mut self, now: Timestamp, key: &Key) -> Option<(Pod, Option<Timestamp>)> {
        let mut pod = self.pods.remove(key)?;
        let before = pod.clone();
        self.version += 1;
        pod.version = self.version;
        self.index.pods_by_uid.remove(&pod.pod.uid);
        self.check_endpoints_of(&pod.pod.uid);
        for keys in self.index.healthy_by_budget.values_mut() {
            keys.remove(key);
        }
        self.index.unbound.remove(key);
        if let Some(keys) = pod.node.as_ref().and_then(|node| self.index.pods_by_node.get_mut(node)) {
            keys.remove(key);
        }
        if let Some(owner) = &pod.owner {
            for owned in [&mut self.index.pods_by_owner, &mut self.index.active_by_owner] {
                owned.get_mut(&owner.uid).map(|keys| keys.remove(key));
            }
            self.index.changed_workloads.insert(owner.uid.clone());
        }
        self.log(Verb::Deleted, Object::Pod(pod.clone()));
        let shown_at = self.pod_changed(now, &pod, false, Some(before));
        Some((pod, shown_at))
    }

    pub(super) fn put_node(&mut self, now: Timestamp, mut node: Node) -> Option<Timestamp> {
        self.version += 1;
        node.version = self.version;
        self.index.nodes_by_instance.insert(node.instance.clone(), node.name.clone());
        let before = self.nodes.insert(node.name.clone(), node.clone());
        let instance = node.instance.clone();
        self.log(if before.is_some() { Verb::Modified } else { Verb::Added }, Object::Node(node));
        self.node_changed(now, &instance, before)
    }

    pub(super) fn take_node(&mut self, now: Timestamp, name: &NodeName) -> Option<Timestamp> {
        let mut node = self.nodes.remove(name)?;
        let before = node.clone();
        self.version += 1;
        node.version = self.version;
        self.index.nodes_by_instance.remove(&node.instance);
        let owner = node_owner(&node.labels);
        let ours = matches!(owner, NodeOwner::SelfManaged | NodeOwner::ManagedNodeGroup)
            && !node.labels.contains_key(OUT_OF_SCOPE);
        if let Some(named) = node.named_instance().filter(|_| ours) {
            let daemon = |pod: &&Pod| pod.owner.as_ref().is_some_and(|owner| owner.kind == "DaemonSet");
            let grace = self.pods_of_node(name).filter(|pod| !daemon(pod)).map(|pod| pod.grace).max();
            let deleted = (self.version, name.clone(), grace.unwrap_or_default());
            self.deleted.insert(named.clone(), deleted);
        }
        self.log(Verb::Deleted, Object::Node(node));
        let instance = before.instance.clone();
        self.node_changed(now, &instance, Some(before))
    }
}

impl Service {
    /// Whether a pod is behind it.
    pub fn selects(&self, pod: &Pod) -> bool {
        self.takes(&pod.pod.namespace, &pod.labels)
    }

    /// A Service without selector has endpoints that somebody writes by hand.
    pub(super) fn takes(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.namespace == namespace && !self.selector.is_empty() && selects(&self.selector, labels)
    }
}

/// The key of a pod.
pub(super) fn key_of(pod: &Pod) -> Key {
    (pod.pod.namespace.clone(), pod.pod.name.clone())
}

/// Whether a selector (matchLabels) takes these labels.
pub(super) fn selects(selector: &BTreeMap<String, String>, labels: &BTreeMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}

pub(super) fn is_healthy(pod: &Pod) -> bool {
    pod.ready && pod.deletion.is_none()
}

fn keep(keys: &mut BTreeSet<Key>, key: &Key, member: bool) {
    if member {
        keys.insert(key.clone());
    } else {
        keys.remove(key);
    }
}
