//! What one source says and another one contradicts. Each is a switch of a world, and has a branch of the decision that
//! it is there for.

use std::time::Duration;

use fastrand::Rng;
use offramp_core::{ClusterName, NodeName, PodRef, PodUid};

use offramp_sandbox::World;
use offramp_sandbox::world::cluster::{ANNOTATIONS, NamedMachine, Pod};

use super::course::{Course, Next, lock};
use super::plan::at;
use super::script::seconds;

/// What contradicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Contradiction {
    /// The Node object is deleted, and its machine goes on.
    NodeDeleted,
    /// The kubelet dies, and its machine goes on.
    KubeletDies,
    /// For so long the API server refuses every change of a node of one cluster.
    NodesRefused(Duration),
    /// For so long a webhook of one cluster takes every cordon out of the change that brings it.
    CordonsStripped(Duration),
    /// From its birth a node does not say which machine it is.
    NodeUnidentified,
    /// From its birth a node says that it is another one's machine.
    Twins,
    /// From its birth a node has room for so many bytes of annotations.
    AnnotationsFull(usize),
    /// A pod is bound to a node that takes pods, and no watch shows it.
    PodMissed,
}

impl Contradiction {
    /// Its name, and what the transcript says where the branch was taken that it is there for.
    pub(crate) const fn branch(self) -> (&'static str, &'static str) {
        match self {
            Self::NodeDeleted => ("the Node is deleted", "the node was deleted, waiting"),
            Self::KubeletDies => ("the kubelet dies", "is there a minute after its grace"),
            Self::NodesRefused(_) => ("changes of nodes are refused", "the node cannot be cordoned"),
            Self::CordonsStripped(_) => ("cordons are taken out of changes", "the node cannot be cordoned"),
            Self::NodeUnidentified => ("a node names no instance", "without an instance in their providerID"),
            Self::AnnotationsFull(_) => ("a node's annotations are full", "metadata.annotations: Too long"),
            Self::PodMissed => ("a watch misses a pod", "evict default/missed"),
            Self::Twins => ("two nodes name one instance", "Ready nodes name this instance"),
        }
    }
}

/// Those of a seed, each in every twelfth world, drawn apart from all else.
pub(crate) fn contradictions(seed: u64) -> Vec<(Duration, Contradiction)> {
    let random = &mut Rng::with_seed(seed ^ 0x2017);
    let all = [
        Contradiction::NodeDeleted,
        Contradiction::KubeletDies,
        Contradiction::NodesRefused(seconds(random.u64(5..900))),
        Contradiction::NodeUnidentified,
        Contradiction::Twins,
        Contradiction::PodMissed,
    ];
    let mut events = Vec::new();
    let mut draw = |random: &mut Rng, contradiction: Contradiction| {
        if random.u8(0..12) == 0 {
            let times = random.usize(1..=3);
            let born = matches!(
                contradiction,
                Contradiction::NodeUnidentified | Contradiction::Twins | Contradiction::AnnotationsFull(_)
            );
            let time = |random: &mut Rng| if born { Duration::ZERO } else { at(random) };
            events.extend((0..times).map(|_| (time(random), contradiction)));
        }
    };
    all.into_iter().for_each(|contradiction| draw(random, contradiction));
    // This one came later, and has a source of its own: a seed goes on to stand for its world.
    let random = &mut Rng::with_seed(seed ^ 0xf011);
    let full = Contradiction::AnnotationsFull(random.usize(0..1_500));
    draw(random, full);
    let random = &mut Rng::with_seed(seed ^ 0x57f1);
    let stripped = Contradiction::CordonsStripped(seconds(random.u64(30..1_800)));
    draw(random, stripped);
    events
}

impl Course {
    pub(crate) fn contradict(&mut self, contradiction: Contradiction) {
        let now = self.scene.sandbox.now();
        match contradiction {
            Contradiction::NodeDeleted => {
                let Some((cluster, node)) = self.some_node() else { return };
                self.scene.sandbox.with(|world| world.delete_node(&cluster, &node));
                lock(&self.checks).deleted_nodes.insert(node, now);
            }
            Contradiction::KubeletDies => {
                let Some((cluster, node)) = self.some_node() else { return };
                self.scene.sandbox.with(|world| world.kill_kubelet(&cluster, &node));
            }
            Contradiction::PodMissed => {
                let Some((cluster, node)) = self.some_node() else { return };
                self.scene.sandbox.with(|world| {
                    // A scheduler binds none to a node that it sees cordoned.
                    if world.clusters[&cluster].nodes[&node].unschedulable {
                        return;
                    }
                    let Some(like) = world.clusters[&cluster].pods_of_node(&node).next().cloned() else {
                        return;
                    };
                    let name = format!("missed-{}", now.as_millis());
                    let (namespace, uid) = ("default".to_owned(), PodUid::new(name.as_str()));
                    let pod = PodRef { namespace, name, uid: uid.clone() };
                    let pod = Pod { pod, owner: None, created: now, ..like };
                    world
                        .clusters
                        .get_mut(&cluster)
                        .into_iter()
                        .for_each(|cluster| cluster.miss_pod(uid.clone()));
                    world.add_pod(&cluster, pod);
                });
            }
            Contradiction::NodeUnidentified => {
                let Some((cluster, node)) = self.some_node() else { return };
                self.scene.sandbox.with(|world| rename_at_birth(world, &cluster, &node, NamedMachine::None));
            }
            Contradiction::Twins => {
                let (Some((cluster, node)), Some((other, twin))) = (self.some_node(), self.some_node())
                else {
                    return;
                };
                self.scene.sandbox.with(|world| {
                    let named = world.clusters[&other].nodes[&twin].instance.clone();
                    if twin != node {
                        lock(&self.checks).named.insert((cluster.clone(), named.clone()));
                        rename_at_birth(world, &cluster, &node, NamedMachine::Other(named));
                    }
                });
            }
            Contradiction::AnnotationsFull(left) => {
                let Some((cluster, node)) = self.some_node() else { return };
                lock(&self.checks).unclosed.insert(node.clone());
                self.scene.sandbox.with(|world| {
                    let cluster = world.clusters.get_mut(&cluster);
                    cluster.map(|cluster| cluster.other_annotations.insert(node, ANNOTATIONS - left));
                });
            }
            Contradiction::CordonsStripped(span) => {
                let Some((cluster, _)) = self.some_node() else { return };
                self.scene.say(&format!("a webhook takes each cordon out of {cluster} for {span:?}"));
                self.strip_cordons(&cluster, true);
                lock(&self.checks).nodes_refused.insert(cluster.clone());
                self.plan(now + span, Next::CordonsLast(cluster));
            }
            Contradiction::NodesRefused(span) => {
                let Some((cluster, _)) = self.some_node() else { return };
                self.scene.say(&format!("changes of the nodes of {cluster} are refused for {span:?}"));
                self.refuse_nodes(&cluster, Some("nodes are changed by Terraform only".to_owned()));
                lock(&self.checks).nodes_refused.insert(cluster.clone());
                self.plan(now + span, Next::NodesAllowed(cluster));
            }
        }
    }

    pub(crate) fn refuse_nodes(&mut self, name: &ClusterName, words: Option<String>) {
        self.scene.sandbox.with(|world| {
            if let Some(cluster) = world.clusters.get_mut(name) {
                cluster.nodes_vetoed = words;
            }
        });
    }

    pub(crate) fn strip_cordons(&mut self, name: &ClusterName, strips: bool) {
        self.scene.sandbox.with(|world| {
            if let Some(cluster) = world.clusters.get_mut(name) {
                cluster.cordons_stripped = strips;
            }
        });
    }

    /// A node; every second time one that a worker works on.
    fn some_node(&mut self) -> Option<(ClusterName, NodeName)> {
        let (ours, all): (Vec<_>, Vec<_>) = self.scene.sandbox.peek(|world| {
            let of = |cluster: &offramp_sandbox::world::cluster::Cluster| {
                let name = cluster.name.clone();
                let nodes = cluster.nodes.values().filter(|node| node.powered);
                let nodes = nodes.map(|node| (node.unschedulable, (name.clone(), node.name.clone())));
                nodes.collect::<Vec<_>>()
            };
            let nodes: Vec<_> = world.clusters.values().flat_map(of).collect();
            let cordoned =
                nodes.iter().filter(|(cordoned, _)| *cordoned).map(|(_, node)| node.clone()).collect();
            (cordoned, nodes.into_iter().map(|(_, node)| node).collect())
        });
        let from = if ours.is_empty() || self.random.bool() { all } else { ours };
        self.random.choice(from)
    }
}

/// No watch has ever shown it otherwise: a providerID cannot be changed (seed 89971).
fn rename_at_birth(world: &mut World, name: &ClusterName, node: &NodeName, names: NamedMachine) {
    world.rename_machine(name, node, names);
    world.clusters.get_mut(name).into_iter().for_each(|cluster| cluster.show_node(node));
}
