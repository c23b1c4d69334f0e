//! What watches show of a cluster while they are late: the world as it was a moment ago.
//!
//! Each change of a node or a pod that the watches have yet to show waits here, with what they show until
//! then. Changes of one kind are shown in the order in which they were made, as one connection sends them,
//! so that no object ever goes back. Everything else is seen as it is, Services at all times: they hardly
//! ever change. Writes know nothing of this; they meet the objects as they are stored.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use offramp_core::{InstanceId, NodeName, PodUid, Timestamp};
use offramp_engine::RECORD_ANNOTATION;
use tokio::sync::watch;

use super::index::{Subject, is_healthy, key_of};
use super::{Cluster, EXCLUDE_LABEL, Node, Phase, Pod};

/// How late the watches of a cluster are. A bare watch under a storm was 1.5 to 3.4 s late.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ViewLag {
    /// The watch of nodes.
    pub nodes: Duration,
    /// The watch of pods.
    pub pods: Duration,
}

/// What a worker sees whose watches began at some version.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    cluster: &'a Cluster,
    listed: u64,
}

/// The changes that no watch has shown yet, in the order in which they were made.
#[derive(Debug, Default)]
pub(super) struct Unseen {
    nodes: VecDeque<Late<InstanceId, Node>>,
    pods: VecDeque<Late<PodUid, Pod>>,
    /// The pods that no watch ever shows: it takes a list.
    missed: BTreeSet<PodUid>,
    /// How often some watch has shown a change of a node.
    nodes_shown: u64,
}

/// A question: have the watches that began at `listed` shown what was there at this moment?
#[derive(Debug)]
pub(super) struct Proof {
    at: Timestamp,
    listed: u64,
    /// The newest version when the API server took the question.
    version: Option<u64>,
    answer: watch::Sender<Timestamp>,
}

/// One such change.
#[derive(Debug)]
struct Late<K, T> {
    shown_at: Timestamp,
    /// The resourceVersion that it made.
    version: u64,
    of: K,
    /// What the watch shows until then: nothing where it is new.
    before: Option<T>,
    /// What it is about, for those who wait.
    wakes: Vec<Subject>,
}

impl Cluster {
    /// What a worker sees that has listed everything at this version, and has watched since.
    pub fn view(&self, listed: u64) -> View<'_> {
        View { cluster: self, listed }
    }

    /// A node has changed. Says when the watches show it, where that is not at once.
    pub(super) fn node_changed(
        &mut self,
        now: Timestamp,
        instance: &InstanceId,
        before: Option<Node>,
    ) -> Option<Timestamp> {
        let same = before.as_ref().zip(self.node_of(instance)).is_some_and(|(old, new)| looks_like(old, new));
        let wakes: Vec<_> = (!same).then(|| Subject::Instance(instance.clone())).into_iter().collect();
        let Some(shown_at) = due(&self.unseen.nodes, now, self.lag(now, self.view_lag.nodes)) else {
            self.unseen.nodes_shown += u64::from(!same);
            wakes.iter().for_each(|subject| self.wake(subject));
            return None;
        };
        let of = instance.clone();
        self.unseen.nodes.push_back(Late { shown_at, version: self.version, of, before, wakes });
        Some(shown_at)
    }

    /// A pod has changed, and is healthy by now or not. Says when the watches show it, where that is not at once.
    pub(super) fn pod_changed(
        &mut self,
        now: Timestamp,
        pod: &Pod,
        healthy: bool,
        before: Option<Pod>,
    ) -> Option<Timestamp> {
        let instance = pod.node.as_ref().and_then(|node| self.instance_of(node)).map(Subject::Instance);
        let becomes_ready = healthy && !before.as_ref().is_some_and(is_healthy);
        let readiness = becomes_ready.then(|| Subject::Readiness(pod.pod.namespace.clone()));
        let wakes: Vec<_> = instance.into_iter().chain(readiness).collect();
        let Some(shown_at) = due(&self.unseen.pods, now, self.lag(now, self.view_lag.pods)) else {
            wakes.iter().for_each(|subject| self.wake(subject));
            return None;
        };
        let (of, version) = (pod.pod.uid.clone(), self.version);
        self.unseen.pods.push_back(Late { shown_at, version, of, before, wakes });
        Some(shown_at)
    }

    /// How late a change of this moment is shown.
    fn lag(&self, now: Timestamp, usual: Duration) -> Duration {
        self.silent_until.map_or(usual, |until| usual.max(now.until(until)))
    }

    /// The watches miss this pod, and do not know it.
    pub fn miss_pod(&mut self, uid: PodUid) {
        self.unseen.missed.insert(uid);
    }

    /// The watches show this node as it is.
    pub fn show_node(&mut self, node: &NodeName) {
        let Some(instance) = self.nodes.get(node).map(|node| node.instance.clone()) else { return };
        self.unseen.nodes.retain(|late| late.of != instance);
        self.unseen.nodes_shown += 1;
        self.wake(&Subject::Instance(instance));
    }

    /// The watches that began at `listed` show the pods of this node that they lack and that do not stay there. Says whether
    /// there were any.
    pub fn show_pods_of(&mut self, node: &NodeName, listed: u64) -> bool {
        let shown: BTreeSet<_> =
            self.view(listed).pods_of_node(node).into_iter().map(|pod| pod.pod.uid.clone()).collect();
        let goes = |pod: &&Pod| {
            let of_daemon_set = pod.owner.as_ref().is_some_and(|owner| owner.kind == "DaemonSet");
            !of_daemon_set && matches!(pod.phase, Phase::Pending | Phase::Running)
        };
        let pods = self.pods_of_node(node).filter(goes).map(|pod| pod.pod.uid.clone());
        let lacking: BTreeSet<_> = pods.filter(|uid| !shown.contains(uid)).collect();
        self.unseen.pods.retain(|late| !lacking.contains(&late.of));
        self.unseen.missed.retain(|uid| !lacking.contains(uid));
        let instance = self.instance_of(node).filter(|_| !lacking.is_empty());
        instance.into_iter().for_each(|instance| self.wake(&Subject::Instance(instance)));
        !lacking.is_empty()
    }

    /// Tells when the watches that began at `listed` have shown what is there now.
    pub fn prove(&mut self, now: Timestamp, listed: u64, at: Timestamp, answer: &watch::Sender<Timestamp>) {
        self.proofs.push(Proof { at, listed, version: None, answer: answer.clone() });
        self.answer_proofs(now);
    }

    /// Takes the questions that wait, and answers those whose time has come.
    pub(super) fn answer_proofs(&mut self, now: Timestamp) {
        if self.is_away(now) || self.silent_until.is_some_and(|until| now < until) {
            return;
        }
        let mut waiting = Vec::new();
        for mut proof in std::mem::take(&mut self.proofs) {
            let version = *proof.version.get_or_insert(self.version);
            let unseen = |of: u64| of > proof.listed && of <= version;
            let shown = !self.unseen.nodes.iter().any(|late| unseen(late.version))
                && !self.unseen.pods.iter().any(|late| unseen(late.version));
            if shown {
                proof.answer.send_if_modified(|proven| {
                    let newer = proof.at > *proven;
                    *proven = proof.at.max(*proven);
                    newer
                });
            } else if !proof.answer.is_closed() {
                waiting.push(proof);
            }
        }
        self.proofs = waiting;
    }

    /// The watches show what they have to show by now.
    pub(super) fn show(&mut self, now: Timestamp) {
        let mut woken = take_shown(&mut self.unseen.nodes, now);
        self.unseen.nodes_shown += u64::from(!woken.is_empty());
        woken.extend(take_shown(&mut self.unseen.pods, now));
        woken.iter().for_each(|subject| self.wake(subject));
        self.answer_proofs(now);
    }

    /// The instance behind a node that is there, or that some watch still shows.
    fn instance_of(&self, node: &NodeName) -> Option<InstanceId> {
        let shown = self.unseen.nodes.iter().filter_map(|late| late.before.as_ref());
        let node = self.nodes.get(node).or_else(|| shown.into_iter().find(|shown| shown.name == *node))?;
        Some(node.instance.clone())
    }
}

impl<'a> View<'a> {
    /// The node of an instance.
    pub fn node_of(&self, instance: &InstanceId) -> Option<&'a Node> {
        match self.unseen(&self.cluster.unseen.nodes).find(|late| late.of == *instance) {
            Some(late) => late.before.as_ref(),
            None => self.cluster.node_of(instance),
        }
    }

    /// Grows whenever what is shown of a node may have changed.
    pub fn nodes_version(&self) -> u64 {
        self.cluster.unseen.nodes_shown
    }

    /// Whose node has this name.
    pub fn instance_of(&self, name: &NodeName) -> Option<InstanceId> {
        let instance = self.cluster.instance_of(name)?;
        self.node_of(&instance).filter(|node| node.name == *name).map(|_| instance)
    }

    /// The pods bound to a node, by namespace and name.
    pub fn pods_of_node(&self, node: &NodeName) -> Vec<&'a Pod> {
        let mut held: BTreeMap<&PodUid, Option<&Pod>> = BTreeMap::new();
        for late in self.unseen(&self.cluster.unseen.pods) {
            held.entry(&late.of).or_insert(late.before.as_ref());
        }
        let hidden = |uid| held.contains_key(uid) || self.cluster.unseen.missed.contains(uid);
        let as_it_is = self.cluster.pods_of_node(node).filter(|pod| !hidden(&pod.pod.uid));
        let as_it_was = held.values().flatten().copied().filter(|pod| pod.node.as_ref() == Some(node));
        let mut pods: Vec<&Pod> = as_it_is.chain(as_it_was).collect();
        pods.sort_by_key(|pod| key_of(pod));
        pods
    }

    fn unseen<K, T>(&self, all: &'a VecDeque<Late<K, T>>) -> impl Iterator<Item = &'a Late<K, T>> {
        let listed = self.listed;
        all.iter().filter(move |late| late.version > listed)
    }
}

/// Nothing has changed that a worker cares about: a new resourceVersion alone wakes nobody, as with the
/// adapter for real clusters.
fn looks_like(old: &Node, new: &Node) -> bool {
    let looks = |node: &Node| {
        let excluded = node.labels.contains_key(EXCLUDE_LABEL);
        let record = node.annotations.get(RECORD_ANNOTATION).cloned();
        (node.ready, node.ready_since, node.unschedulable, excluded, record)
    };
    looks(old) == looks(new)
}

/// When a change of this moment is shown, where that is not at once: never before an earlier one.
fn due<K, T>(unseen: &VecDeque<Late<K, T>>, now: Timestamp, lag: Duration) -> Option<Timestamp> {
    let earliest = now + lag;
    let shown_at = unseen.back().map_or(earliest, |last| last.shown_at.max(earliest));
    (shown_at > now).then_some(shown_at)
}

fn take_shown<K, T>(unseen: &mut VecDeque<Late<K, T>>, now: Timestamp) -> Vec<Subject> {
    let count = unseen.iter().take_while(|late| late.shown_at <= now).count();
    unseen.drain(..count).flat_map(|late| late.wakes).collect()
}
