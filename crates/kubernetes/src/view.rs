//! What the watches have seen, in memory: nodes by instance, pods by node, Local Services by
//! namespace; and who wants to know when something changes.
//!
//! The locks are held for lookups and copies of a few values, never across an await.

mod channels;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError, RwLock};
use std::time::Duration;

use channels::{Channels, Subject, Touched};
use offramp_core::{InstanceId, Node, NodeDoubt, NodeName, NodeOwner, Pod, PodRef, PodUid, Seen, Timestamp};
use offramp_engine::{DeletedNode, NodeSummary};
use tokio::sync::watch;

use crate::nodes::{Machine, WatchedNode};
use crate::pods::WatchedPod;
use crate::services::WatchedService;

/// A cloud controller says within seconds which machine a new node is; a busy one within a minute.
const IDENTIFIED_WITHIN: Duration = Duration::from_secs(300);

/// So many deleted nodes are remembered: a fleet of that size may be replaced between a deletion and its hook. Some 100 KB.
const DELETED: usize = 1_000;

/// What a watch tells.
#[derive(Debug)]
pub(crate) enum News<T> {
    /// Everything that there is. From here on the watch is in sync.
    Listed(Vec<T>),
    /// One that is new or has changed.
    Changed(T),
    /// One that is gone.
    Deleted(T),
    /// One that reads as none of ours, whatever it was before. `namespace` is empty for what has none.
    Unread { namespace: String, name: String },
    /// The watch has caught up again after it was cut off.
    InSync,
    /// The watch is cut off: what is known may be old, and what is missing may be there.
    OutOfSync,
}

/// The view of one cluster.
#[derive(Debug, Default)]
pub(crate) struct View {
    state: RwLock<State>,
    channels: Mutex<Channels>,
}

#[derive(Debug, Default)]
struct State {
    synced: Synced,
    /// Grows with each change of what is known about nodes.
    nodes_version: u64,
    nodes: BTreeMap<NodeName, WatchedNode>,
    /// Nearly always one.
    by_instance: BTreeMap<InstanceId, BTreeSet<NodeName>>,
    /// The newest last.
    deleted: VecDeque<(InstanceId, DeletedNode)>,
    unidentified: BTreeSet<NodeName>,
    pods: BTreeMap<NodeName, BTreeMap<PodRef, WatchedPod>>,
    /// Selectors by namespace and name.
    services: BTreeMap<String, BTreeMap<String, BTreeMap<String, String>>>,
}

#[derive(Debug, Default)]
struct Synced {
    nodes: bool,
    pods: bool,
    services: bool,
}

impl View {
    /// The node of an instance; `Unknown` while the watch of Nodes is not in sync.
    pub(crate) fn node(&self, instance: &InstanceId) -> Seen<Node> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if !state.synced.nodes || state.ready_nodes(instance) > 1 {
            return Seen::Unknown;
        }
        state.node(instance).map_or(Seen::Gone, |watched| Seen::Known(watched.node.clone()))
    }

    /// Why the node of an instance is not sure, though the watch of Nodes is in sync.
    pub(crate) fn doubt(&self, instance: &InstanceId, now: Timestamp) -> Option<NodeDoubt> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let twins = state.ready_nodes(instance);
        if !state.synced.nodes || twins == 1 {
            return None;
        }
        let unidentified =
            if state.by_instance.contains_key(instance) { 0 } else { state.unidentified(now).count() };
        match (twins, unidentified) {
            (2.., _) => Some(NodeDoubt::Twins { nodes: twins }),
            (_, 1..) => Some(NodeDoubt::Unidentified { nodes: unidentified }),
            _ => None,
        }
    }

    /// The nodes of which nobody knows what machines they are.
    pub(crate) fn unidentified(&self, now: Timestamp) -> Vec<NodeName> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        state.unidentified(now).cloned().collect()
    }

    /// Instances that several Ready nodes name, with those nodes; none while the watch of Nodes is not in sync.
    pub(crate) fn twins(&self) -> Vec<(InstanceId, Vec<NodeName>)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let several = state.by_instance.iter().filter(|(instance, names)| {
            state.synced.nodes && names.len() > 1 && state.ready_nodes(instance) > 1
        });
        let is_ready = |name: &&NodeName| state.nodes.get(*name).is_some_and(|watched| watched.node.ready);
        several.map(|(id, names)| (id.clone(), names.iter().filter(is_ready).cloned().collect())).collect()
    }

    /// What counts about the node of an instance, without a copy of the node.
    pub(crate) fn summary(&self, instance: &InstanceId) -> Option<NodeSummary> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let watched = state.node(instance);
        watched.filter(|_| state.synced.nodes).map(|watched| NodeSummary::from(&watched.node))
    }

    /// Grows whenever a summary may have changed.
    pub(crate) fn nodes_version(&self) -> u64 {
        self.state.read().unwrap_or_else(PoisonError::into_inner).nodes_version
    }

    /// The node that the instance had, while it has none.
    pub(crate) fn deleted(&self, instance: &InstanceId) -> Option<DeletedNode> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let mut of_instance = state.deleted.iter().rev().filter(|(id, _)| id == instance);
        let has_none = state.synced.nodes && !state.by_instance.contains_key(instance);
        of_instance.next().filter(|_| has_none).map(|(_, deleted)| deleted.clone())
    }

    /// Every node with a record; none while the watch of Nodes is not in sync.
    pub(crate) fn recorded(&self) -> Vec<(InstanceId, Node)> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let recorded =
            state.nodes.values().filter(|watched| state.synced.nodes && watched.node.record.is_some());
        recorded.filter_map(|watched| Some((watched.instance()?.clone(), watched.node.clone()))).collect()
    }

    /// The pods of the node that an instance has or had; `Gone` where the name is another's by now. `Unknown` while the watch of Pods, or that of Services, which tells whether
    /// traffic is bound to the node, is not in sync. A node without pods has none: that is known.
    pub(crate) fn pods(&self, node: &NodeName, instance: &InstanceId) -> Seen<Vec<Pod>> {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        if !(state.synced.pods && state.synced.services) {
            return Seen::Unknown;
        }
        if state.nodes.get(node).is_some_and(|owner| owner.instance() != Some(instance)) {
            return Seen::Gone;
        }
        let pods = state.pods.get(node).into_iter().flat_map(BTreeMap::values);
        Seen::Known(pods.map(|watched| state.pod(watched)).collect())
    }

    /// All three watches are in sync.
    pub(crate) fn in_sync(&self) -> bool {
        let state = self.state.read().unwrap_or_else(PoisonError::into_inner);
        let Synced { nodes, pods, services } = state.synced;
        nodes && pods && services
    }

    /// A channel that changes when this instance is touched.
    pub(crate) fn changes(&self, instance: &InstanceId) -> watch::Receiver<u64> {
        self.subscribe(&Subject::Instance(instance.clone()))
    }

    /// A channel that changes when a pod of this namespace becomes ready.
    pub(crate) fn readiness(&self, namespace: &str) -> watch::Receiver<u64> {
        self.subscribe(&Subject::Readiness(namespace.to_owned()))
    }

    fn subscribe(&self, subject: &Subject) -> watch::Receiver<u64> {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).subscribe(subject)
    }

    /// News of the watch of Nodes.
    pub(crate) fn on_nodes(&self, news: News<WatchedNode>) {
        self.update_nodes(|state| match news {
            News::Listed(nodes) => {
                state.synced.nodes = true;
                let before = std::mem::take(&mut state.nodes);
                state.by_instance.clear();
                state.unidentified.clear();
                for mut node in nodes {
                    node.renew(before.get(&node.node.name), true);
                    state.put_node(node);
                }
                let gone = before.into_values().filter(|before| !state.nodes.contains_key(&before.node.name));
                gone.collect::<Vec<_>>().iter().for_each(|gone| state.remember(gone));
                Touched::Everything
            }
            News::Changed(node) | News::Deleted(node) if state.has_read_past(&node) => Touched::Nothing,
            News::Changed(mut node) => {
                // Until the watch has caught up after it was cut off, what it shows may be old.
                node.renew(state.nodes.get(&node.node.name), !state.synced.nodes);
                state.put_node(node)
            }
            News::Deleted(node) => {
                if let Some(known) = state.nodes.get(&node.node.name).cloned() {
                    state.remember(&known);
                }
                state.drop_node(&node.node.name)
            }
            News::Unread { name, .. } => state.drop_node(&NodeName::new(name)),
            News::InSync => turn(&mut state.synced.nodes, true),
            News::OutOfSync => turn(&mut state.synced.nodes, false),
        });
    }

    /// A node that was read because the watch is behind. What the watch does not show at all may be deleted meanwhile.
    pub(crate) fn on_read(&self, mut node: WatchedNode) {
        self.update_nodes(|state| match state.nodes.get(&node.node.name) {
            Some(known) if node.is_newer_than(known) => {
                // The one that the watch shows was deleted.
                if node.created != known.created {
                    let known = known.clone();
                    state.remember(&known);
                }
                node.renew(state.nodes.get(&node.node.name), true);
                node.is_read = true;
                state.put_node(node)
            }
            Some(_) | None => Touched::Nothing,
        });
    }

    /// News of the watch of Pods.
    pub(crate) fn on_pods(&self, news: News<WatchedPod>) {
        self.update(|state| match news {
            News::Listed(pods) => {
                state.synced.pods = true;
                state.pods.clear();
                for pod in pods {
                    state.put_pod(pod);
                }
                Touched::Everything
            }
            News::Changed(pod) => state.put_pod(pod),
            News::Deleted(pod) => state.drop_pod(&pod),
            News::Unread { namespace, name } => state.drop_pods_named(&namespace, &name),
            News::InSync => turn(&mut state.synced.pods, true),
            News::OutOfSync => turn(&mut state.synced.pods, false),
        });
    }

    /// What a list of the pods of one node shows. Those that the watch has missed are shown from now on, but for those that
    /// stay on a node anyway. Says whether there were any.
    pub(crate) fn on_listed(&self, node: &NodeName, pods: impl Iterator<Item = WatchedPod>) -> bool {
        let mut missed = false;
        self.update(|state| {
            let knows = |pod: &PodRef| state.pods.get(node).is_some_and(|known| known.contains_key(pod));
            let new: Vec<_> =
                pods.filter(|watched| watched.pod.must_leave() && !knows(&watched.pod.pod)).collect();
            missed = !new.is_empty();
            new.into_iter().fold(Touched::Nothing, |touched, pod| touched.and(state.put_pod(pod)))
        });
        missed
    }

    /// News of the watch of Services.
    pub(crate) fn on_services(&self, news: News<WatchedService>) {
        self.update(|state| match news {
            News::Listed(services) => {
                state.synced.services = true;
                state.services.clear();
                for service in services {
                    state.put_service(service);
                }
                Touched::Everything
            }
            News::Changed(service) => state.put_service(service),
            News::Deleted(service) => state.put_service(WatchedService { local: None, ..service }),
            News::Unread { namespace, name } => {
                state.put_service(WatchedService { namespace, name, local: None })
            }
            News::InSync => turn(&mut state.synced.services, true),
            News::OutOfSync => turn(&mut state.synced.services, false),
        });
    }

    fn update_nodes(&self, change: impl FnOnce(&mut State) -> Touched) {
        self.update(|state| {
            let touched = change(state);
            state.nodes_version += u64::from(touched != Touched::Nothing);
            touched
        });
    }

    /// Changes the state and then wakes who is concerned: they see the new one.
    fn update(&self, change: impl FnOnce(&mut State) -> Touched) {
        let touched = change(&mut self.state.write().unwrap_or_else(PoisonError::into_inner));
        if touched != Touched::Nothing {
            self.channels.lock().unwrap_or_else(PoisonError::into_inner).wake(&touched);
        }
    }

    #[cfg(test)]
    pub(crate) fn channel_count(&self) -> usize {
        self.channels.lock().unwrap_or_else(PoisonError::into_inner).by_subject.len()
    }
}

impl State {
    fn pod(&self, watched: &WatchedPod) -> Pod {
        let selects = |selector: &BTreeMap<String, String>| {
            selector.iter().all(|(key, value)| watched.labels.get(key) == Some(value))
        };
        let services = self.services.get(&watched.pod.pod.namespace);
        let behind_local = services.into_iter().flat_map(BTreeMap::values).any(selects);
        Pod { local_traffic: watched.pod.local_traffic || behind_local, ..watched.pod.clone() }
    }

    /// The node of an instance: the Ready one, or the youngest, which of two names of one machine is the new one.
    fn node(&self, instance: &InstanceId) -> Option<&WatchedNode> {
        let nodes = self.by_instance.get(instance)?.iter().filter_map(|name| self.nodes.get(name));
        nodes.max_by_key(|watched| (watched.node.ready, watched.created))
    }

    /// Machines that are Ready under the name of an instance. A kubelet that registers its machine under another name
    /// leaves the old Node behind, Ready until the control plane misses it (openshift/installer#1874): that is one.
    fn ready_nodes(&self, instance: &InstanceId) -> usize {
        let names = self.by_instance.get(instance).into_iter().flatten();
        let ready = names.filter_map(|name| self.nodes.get(name)).filter(|watched| watched.node.ready);
        let mut seen = BTreeSet::new();
        ready.filter(|watched| watched.hardware.as_ref().is_none_or(|hardware| seen.insert(hardware))).count()
    }

    fn unidentified(&self, now: Timestamp) -> impl Iterator<Item = &NodeName> {
        let old = move |name: &&NodeName| {
            self.nodes.get(*name).is_some_and(|watched| now >= watched.created + IDENTIFIED_WITHIN)
        };
        self.unidentified.iter().filter(old)
    }

    fn has_read_past(&self, news: &WatchedNode) -> bool {
        self.nodes.get(&news.node.name).is_some_and(|known| known.is_read && known.is_newer_than(news))
    }

    fn put_node(&mut self, node: WatchedNode) -> Touched {
        let name = node.node.name.clone();
        let looks_same = self.nodes.get(&name).is_some_and(|old| old.looks_like(&node));
        if looks_same {
            self.nodes.insert(name, node);
            return Touched::Nothing;
        }
        // A node object can come back under its name for another instance, or tell a little later which it is.
        let was = self.drop_node(&name);
        // Whoever it names, it may be any instance.
        if node.is_reused {
            self.unidentified.insert(name.clone());
        }
        let is = match &node.machine {
            Machine::Instance(instance) => {
                self.deleted.retain(|(deleted, _)| deleted != instance);
                self.by_instance.entry(instance.clone()).or_default().insert(name.clone());
                Touched::of(Subject::Instance(instance.clone()))
            }
            Machine::Unidentified => {
                self.unidentified.insert(name.clone());
                Touched::Nothing
            }
            Machine::Other => Touched::Nothing,
        };
        self.nodes.insert(name, node);
        was.and(is)
    }

    fn remember(&mut self, node: &WatchedNode) {
        let ours = node.node.selected
            && matches!(node.node.owner, NodeOwner::SelfManaged | NodeOwner::ManagedNodeGroup);
        let (Some(instance), name) = (node.instance().cloned(), &node.node.name) else { return };
        // Of what is left alone nothing is concluded later, and pods that were not listed yet have a grace, too.
        if !(ours && self.synced.pods) {
            return;
        }
        let pods = self.pods.get(name).into_iter().flat_map(BTreeMap::values);
        let leaving = pods.map(|watched| &watched.pod).filter(|pod| pod.must_leave());
        let longest_grace = leaving.map(|pod| pod.grace).max().unwrap_or_default();
        self.deleted.push_back((instance, DeletedNode { name: name.clone(), longest_grace }));
        let surplus = self.deleted.len().saturating_sub(DELETED);
        self.deleted.drain(..surplus);
    }

    fn drop_node(&mut self, name: &NodeName) -> Touched {
        self.unidentified.remove(name);
        let Some(old) = self.nodes.remove(name) else { return Touched::Nothing };
        let Machine::Instance(instance) = old.machine else { return Touched::Nothing };
        if let Some(names) = self.by_instance.get_mut(&instance) {
            names.remove(name);
            if names.is_empty() {
                self.by_instance.remove(&instance);
            }
        }
        Touched::of(Subject::Instance(instance))
    }

    fn put_pod(&mut self, pod: WatchedPod) -> Touched {
        let touched = self.touched(&pod.node);
        let pods = self.pods.entry(pod.node.clone()).or_default();
        let old = pods.get(&pod.pod.pod);
        let looks_same = old.is_some_and(|old| (&old.pod, &old.labels) == (&pod.pod, &pod.labels));
        let becomes_ready = pod.is_healthy() && !old.is_some_and(WatchedPod::is_healthy);
        let readiness = Subject::Readiness(pod.pod.pod.namespace.clone());
        pods.insert(pod.pod.pod.clone(), pod);
        let touched = if looks_same { Touched::Nothing } else { touched };
        if becomes_ready { touched.and(Touched::of(readiness)) } else { touched }
    }

    fn drop_pod(&mut self, pod: &WatchedPod) -> Touched {
        let Some(pods) = self.pods.get_mut(&pod.node) else { return Touched::Nothing };
        pods.remove(&pod.pod.pod);
        if pods.is_empty() {
            self.pods.remove(&pod.node);
        }
        self.touched(&pod.node)
    }

    /// A look at each node: it costs a fraction of a millisecond, and comes when a pod that waits for a node changes.
    fn drop_pods_named(&mut self, namespace: &str, name: &str) -> Touched {
        let (namespace, name) = (namespace.to_owned(), name.to_owned());
        let first = PodRef { namespace, name, uid: PodUid::new(String::new()) };
        let named = |pod: &&PodRef| pod.namespace == first.namespace && pod.name == first.name;
        let found = self.pods.values().filter_map(|pods| {
            let (_, found) = pods.range(&first..).next().filter(|(pod, _)| named(pod))?;
            Some(found.clone())
        });
        let found: Vec<WatchedPod> = found.collect();
        found.iter().fold(Touched::Nothing, |touched, pod| touched.and(self.drop_pod(pod)))
    }

    /// A selector decides about pods on any node, and changes rarely.
    fn put_service(&mut self, service: WatchedService) -> Touched {
        let WatchedService { namespace, name, local } = service;
        let named = self.services.entry(namespace.clone()).or_default();
        let old = match local.clone() {
            Some(selector) => named.insert(name, selector),
            None => named.remove(&name),
        };
        if named.is_empty() {
            self.services.remove(&namespace);
        }
        if old == local { Touched::Nothing } else { Touched::Everything }
    }

    fn touched(&self, node: &NodeName) -> Touched {
        let instance = self.nodes.get(node).and_then(WatchedNode::instance);
        instance.map_or(Touched::Nothing, |instance| Touched::of(Subject::Instance(instance.clone())))
    }
}

fn turn(synced: &mut bool, to: bool) -> Touched {
    if *synced == to {
        return Touched::Nothing;
    }
    *synced = to;
    Touched::Everything
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(n: u32) -> InstanceId {
        InstanceId::parse(&format!("i-{n:08x}")).unwrap()
    }

    fn node(name: &str, n: u32, version: &str) -> WatchedNode {
        let node = serde_json::json!({
            "metadata": { "name": name, "resourceVersion": version },
            "spec": { "providerID": format!("aws:///a/{}", instance(n)) },
        });
        crate::nodes::read(serde_json::from_value(node).unwrap(), None, Timestamp::default()).unwrap()
    }

    /// machine-controller-manager#633: a new machine takes over the Node of one that has ended, with its providerID.
    #[test]
    fn a_node_whose_machine_has_changed_may_be_any_instance() {
        let read = |hardware: &str, version: &str| {
            let mut watched = node("n1", 1, version);
            watched.node.ready = true;
            watched.hardware = Some(hardware.to_owned());
            watched
        };
        let (view, now) = (View::default(), Timestamp::from_millis(1_000_000));
        view.on_nodes(News::Listed(vec![read("ec2a", "1")]));
        assert_eq!(view.doubt(&instance(2), now), None);
        view.on_nodes(News::Changed(read("ec2b", "2")));
        let doubt = Some(NodeDoubt::Unidentified { nodes: 1 });
        assert_eq!(view.doubt(&instance(2), now), doubt);
        view.on_nodes(News::Changed(read("ec2b", "3")));
        view.on_nodes(News::Listed(vec![read("ec2b", "4")]));
        assert_eq!(view.doubt(&instance(2), now), doubt, "it is not forgotten");
        assert!(view.node(&instance(1)).known().is_some(), "what was done to it can still be undone");
        view.on_nodes(News::Deleted(read("ec2b", "5")));
        assert_eq!(view.doubt(&instance(2), now), None);
    }

    #[test]
    fn a_node_that_was_read_is_not_shown_as_it_was_before() {
        let view = View::default();
        let read = |version: &str, ready: bool| {
            let mut watched = node("n1", 1, version);
            watched.node.ready = ready;
            watched
        };
        let shown = || view.node(&instance(1)).known().map(|node| node.resource_version.clone());
        view.on_read(read("1", true));
        view.on_nodes(News::Listed(vec![read("2", true)]));
        view.on_read(read("1", false));
        assert_eq!(shown().as_deref(), Some("2"), "the watch is ahead");
        let changes = view.changes(&instance(1));
        view.on_read(read("10", false));
        assert!(changes.has_changed().unwrap());
        // The watch comes along.
        view.on_nodes(News::Changed(read("9", true)));
        view.on_nodes(News::Deleted(read("9", true)));
        assert_eq!(shown().as_deref(), Some("10"));
        view.on_nodes(News::Changed(read("10", false)));
        view.on_nodes(News::Changed(read("9", true)));
        assert_eq!(shown().as_deref(), Some("9"), "an API server whose versions went back");
        view.on_read(read("11", true));
        view.on_nodes(News::Deleted(read("12", true)));
        view.on_read(read("11", true));
        assert_eq!(shown(), None, "it is gone");
    }

    /// kops#17230: the tool that empties a node deletes it, and then ends its instance.
    #[test]
    fn a_deleted_node_is_remembered_until_it_comes_back() {
        let view = View::default();
        view.on_nodes(News::Listed(vec![node("n1", 1, "1")]));
        view.on_nodes(News::Deleted(node("n1", 1, "1")));
        assert_eq!(view.deleted(&instance(1)), None, "nobody knows its pods");
        view.on_pods(News::Listed(Vec::new()));
        let mut others = node("n0", 0, "1");
        others.node.selected = false;
        view.on_nodes(News::Listed(vec![node("n1", 1, "1"), others.clone()]));
        view.on_nodes(News::Deleted(others));
        assert_eq!(view.deleted(&instance(0)), None, "it was not ours");
        view.on_nodes(News::Deleted(node("n1", 1, "2")));
        let deleted = DeletedNode { name: "n1".into(), longest_grace: Duration::ZERO };
        assert_eq!(view.deleted(&instance(1)), Some(deleted));
        view.on_nodes(News::Changed(node("n1", 1, "3")));
        assert_eq!(view.deleted(&instance(1)), None);
        view.on_nodes(News::Listed(vec![]));
        assert!(view.deleted(&instance(1)).is_some(), "it was deleted while the watch was cut off");
        for n in 0..2_000 {
            view.on_nodes(News::Changed(node("other", n + 10, "4")));
            view.on_nodes(News::Deleted(node("other", n + 10, "5")));
        }
        assert_eq!((view.deleted(&instance(10)), view.deleted(&instance(2_009)).is_some()), (None, true));
    }

    /// kubernetes#6193: a kubelet whose clock is ten minutes ahead, or behind.
    #[test]
    fn a_status_is_as_old_as_its_sight() {
        let view = View::default();
        let read = |written_at: i64, read_at: i64| {
            let node = node("n1", 1, "1");
            let [written_at, read_at] = [written_at, read_at].map(Timestamp::from_millis);
            WatchedNode { written_at, read_at, ..node }
        };
        let renewed = || view.node(&instance(1)).known().unwrap().renewed_at.as_millis();
        view.on_nodes(News::Listed(vec![read(700, 100)]));
        assert_eq!(renewed(), 100, "not later than now");
        view.on_nodes(News::Changed(read(700, 300)));
        assert_eq!(renewed(), 100, "something else has changed");
        view.on_nodes(News::Listed(vec![read(700, 350)]));
        assert_eq!(renewed(), 100, "nothing has changed");
        view.on_nodes(News::Changed(read(1_000, 400)));
        assert_eq!(renewed(), 400);
        view.on_nodes(News::Changed(read(90, 500)));
        assert_eq!(renewed(), 500, "its clock was set right, and is behind now");
        view.on_nodes(News::Listed(vec![read(95, 900)]));
        assert_eq!(renewed(), 95, "nobody knows when it was written, but by that");
    }

    #[test]
    fn channels_without_listener_are_dropped() {
        let view = View::default();
        let kept = view.changes(&instance(0));
        for n in 1..1_000 {
            drop(view.changes(&instance(n)));
        }
        assert!(view.channel_count() < 200, "{}", view.channel_count());
        view.on_nodes(News::Listed(Vec::new()));
        assert_eq!(view.channel_count(), 1);
        assert!(kept.has_changed().unwrap());
        drop(kept);
        view.on_nodes(News::Changed(node("n0", 0, "1")));
        assert_eq!(view.channel_count(), 0);
    }

    #[test]
    fn a_new_resource_version_alone_wakes_nobody_and_is_kept() {
        let view = View::default();
        view.on_nodes(News::Listed(vec![node("n1", 1, "1")]));
        let changes = view.changes(&instance(1));
        view.on_nodes(News::Changed(node("n1", 1, "2")));
        assert!(!changes.has_changed().unwrap());
        assert_eq!(view.node(&instance(1)).known().unwrap().resource_version, "2");
    }

    #[test]
    fn pods_that_become_ready_are_told_by_namespace() {
        let view = View::default();
        let pod = |ready: &str| {
            let pod = serde_json::json!({
                "metadata": { "namespace": "shop", "name": "web-1", "uid": "u1" },
                "spec": { "nodeName": "n2", "containers": [] },
                "status": { "conditions": [{ "type": "Ready", "status": ready }] },
            });
            crate::pods::read(serde_json::from_value(pod).unwrap()).unwrap()
        };
        view.on_pods(News::Listed(vec![pod("False")]));
        let mut readiness = view.readiness("shop");
        let elsewhere = view.readiness("bank");
        let mut told = |news| {
            view.on_pods(news);
            let changed = readiness.has_changed().unwrap();
            readiness.mark_unchanged();
            changed
        };
        assert!(!told(News::Changed(pod("False"))));
        assert!(told(News::Changed(pod("True"))));
        assert!(!told(News::Changed(pod("True"))));
        assert!(!told(News::Changed(pod("False"))));
        assert!(!told(News::Deleted(pod("False"))));
        assert!(!elsewhere.has_changed().unwrap());
    }

    #[test]
    fn whatever_may_change_a_summary_is_counted() {
        let view = View::default();
        let is_counted = |news| {
            let before = view.nodes_version();
            view.on_nodes(news);
            view.nodes_version() > before
        };
        assert!(is_counted(News::Listed(vec![node("n1", 1, "1")])));
        assert!(!is_counted(News::Changed(node("n1", 1, "2"))), "a new resourceVersion alone");
        let mut cordoned = node("n1", 1, "3");
        cordoned.node.cordoned = true;
        assert!(is_counted(News::Changed(cordoned)));
        assert!(is_counted(News::Changed(node("n2", 1, "4"))), "a twin");
        assert!(is_counted(News::Deleted(node("n2", 1, "5"))));
        assert!(is_counted(News::OutOfSync));
        assert!(is_counted(News::InSync));
    }

    #[test]
    fn names_and_instances_may_change_places() {
        let view = View::default();
        view.on_nodes(News::Listed(vec![node("n1", 1, "1")]));
        let changes = view.changes(&instance(1));
        view.on_nodes(News::Changed(node("n1", 2, "2")));
        assert!(changes.has_changed().unwrap());
        assert_eq!(view.node(&instance(1)), Seen::Gone);
        assert!(view.node(&instance(2)).known().is_some());
        for n in 1..=2 {
            assert_eq!(view.summary(&instance(n)), view.node(&instance(n)).known().map(NodeSummary::from));
        }
        // Two objects for one instance: the older one's end does not hide the newer.
        view.on_nodes(News::Changed(node("n2", 2, "3")));
        view.on_nodes(News::Deleted(node("n1", 2, "4")));
        assert_eq!(view.node(&instance(2)).known().unwrap().name.as_str(), "n2");
        view.on_nodes(News::Changed(node("n3", 2, "5")));
        view.on_nodes(News::Deleted(node("n3", 2, "6")));
        assert_eq!(view.node(&instance(2)).known().unwrap().name.as_str(), "n2");
        view.on_nodes(News::Deleted(node("n2", 2, "7")));
        assert_eq!(view.node(&instance(2)), Seen::Gone);
    }

    #[test]
    fn what_reads_as_none_of_ours_leaves_the_view() {
        let view = View::default();
        let unread = |namespace: &str, name: &str| (namespace.to_owned(), name.to_owned());
        view.on_nodes(News::Listed(vec![node("n1", 1, "1")]));
        let (namespace, name) = unread("", "n1");
        view.on_nodes(News::Unread { namespace, name });
        assert_eq!(view.node(&instance(1)), Seen::Gone);

        view.on_nodes(News::Listed(vec![node("n1", 1, "1")]));
        let local = Some(BTreeMap::from([("app".to_owned(), "web".to_owned())]));
        let (namespace, name) = unread("shop", "web");
        view.on_services(News::Listed(vec![WatchedService { namespace, name, local }]));
        let changes = view.changes(&instance(1));
        let (namespace, name) = unread("shop", "web");
        view.on_services(News::Unread { namespace, name });
        assert!(changes.has_changed().unwrap() && view.state.read().unwrap().services.is_empty());
    }

    /// openshift/installer#1874: the machine is registered under a second name, and the first one is still Ready.
    #[test]
    fn a_machine_of_two_names_is_one_by_its_hardware() {
        let ready = |name: &str, created: i64, hardware: Option<&str>| {
            let mut watched = node(name, 1, "1");
            watched.node.ready = true;
            watched.created = Timestamp::from_millis(created);
            watched.hardware = hardware.map(str::to_owned);
            watched
        };
        let now = Timestamp::from_millis(1_000_000);
        let view = View::default();
        let check = |hardware: [Option<&str>; 2], one_machine: bool| {
            let [one, other] = hardware;
            // The older name is not the first one in the order of the alphabet, or of what is told.
            for (old, new) in [("n1", "n2"), ("n2", "n1")] {
                view.on_nodes(News::Listed(vec![ready(new, 2, other), ready(old, 1, one)]));
                let seen = view.node(&instance(1)).known().map(|node| node.name.clone());
                assert_eq!(seen, one_machine.then(|| NodeName::from(new)), "{hardware:?}");
                let doubt = (!one_machine).then_some(NodeDoubt::Twins { nodes: 2 });
                assert_eq!(view.doubt(&instance(1), now), doubt, "{hardware:?}");
                let twins = vec![(instance(1), vec!["n1".into(), "n2".into()])];
                assert_eq!(view.twins(), if one_machine { vec![] } else { twins }, "{hardware:?}");
            }
        };
        check([Some("ec2a"), Some("ec2a")], true);
        check([Some("ec2a"), Some("ec2b")], false);
        check([None, None], false);
        check([Some("ec2a"), None], false);
    }
}
