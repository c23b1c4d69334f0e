//! What people and controllers do to a node that a worker has taken out of service.

use std::collections::BTreeMap;
use std::time::Duration;

use fastrand::Rng;
use offramp_core::{ClusterName, InstanceId, NodeName, TargetGroupArn, TargetKey};
use offramp_engine::{ClusterCall, RECORD_ANNOTATION};
use offramp_sandbox::World;
use offramp_sandbox::world::balancers::TargetState;
use offramp_sandbox::world::cluster::{EXCLUDE_LABEL, Node, NodePatch, Pod};

use super::checks::Checks;
use super::course::{Course, Next, lock};
use super::lookups::{is_running, node_of, nodes, record};
use super::plan::{BUSY, Event, at};
use super::script::{START, seconds};

/// What somebody else does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hand {
    /// A person takes the cordon off.
    Uncordon,
    /// A person takes the label off.
    Unlabel,
    /// A person registers the targets again.
    Register,
    /// A controller does, so many times, and minds no label.
    KeepRegistering(u32),
    /// A controller takes every cordon off, so many times.
    KeepUncordoning(u32),
    /// A controller takes every label off, so many times.
    KeepUnlabelling(u32),
    /// A network plugin that is installed replaces the annotations of a node.
    Wipe,
}

impl Hand {
    pub(crate) const fn branch(self) -> (&'static str, &'static str) {
        match self {
            Self::Uncordon => ("a person uncordons", "cordons again what was uncordoned"),
            Self::Unlabel => ("a person removes the label", "labels again what had lost its label"),
            Self::Register => ("a person registers the targets again", "deregisters again what was put back"),
            Self::KeepRegistering(_) => {
                ("a controller keeps putting targets back", "deregisters again what was put back")
            }
            Self::KeepUncordoning(_) => {
                ("a controller takes every cordon off", "cordons again what was uncordoned")
            }
            Self::KeepUnlabelling(_) => {
                ("a controller takes every label off", "labels again what had lost its label")
            }
            Self::Wipe => ("the annotations of a node are replaced", "records again what was wiped off"),
        }
    }
}

/// Those of a seed, each in every twenty-fourth world, drawn apart from all else.
pub(crate) fn hands(seed: u64) -> Vec<(Duration, Hand)> {
    let random = &mut Rng::with_seed(seed ^ 0x4a2d);
    let times = random.u32(2..20);
    let mut events = Vec::new();
    for hand in [Hand::Uncordon, Hand::Unlabel, Hand::Register, Hand::KeepRegistering(times)] {
        if random.u8(0..24) == 0 {
            events.extend((0..random.usize(1..=3)).map(|_| (at(random), hand)));
        }
    }
    // This one came later, and has a source of its own.
    let random = &mut Rng::with_seed(seed ^ 0x0bed);
    if random.u8(0..24) == 0 {
        events.push((at(random), Hand::KeepUncordoning(random.u32(3..40))));
    }
    let random = &mut Rng::with_seed(seed ^ 0x1abe);
    if random.u8(0..24) == 0 {
        events.push((at(random), Hand::KeepUnlabelling(random.u32(3..40))));
    }
    if random.u8(0..24) == 0 {
        events.extend((0..random.usize(1..=3)).map(|_| (at(random), Hand::Wipe)));
    }
    events
}

/// How long a worker may go by what it has read before: a watch may be late by 15 s, and a call by five.
const UNNOTICED: Duration = seconds(30);
/// A controller looks again after this long.
const LOOKS_AGAIN: Duration = seconds(25);

impl Course {
    /// Where there is nothing to lay hands on, it happens a little later.
    pub(crate) fn lay_hands_on(&mut self, hand: Hand) {
        let now = self.scene.sandbox.now();
        let done = match hand {
            Hand::Uncordon => self.uncordon(),
            Hand::Unlabel => self.unlabel(),
            Hand::Register | Hand::KeepRegistering(_) => self.register_again(),
            Hand::KeepUncordoning(_) => self.take_off_all(Self::uncordon),
            Hand::KeepUnlabelling(_) => self.take_off_all(Self::unlabel),
            Hand::Wipe => self.wipe(),
        };
        let next = match hand {
            Hand::KeepRegistering(times) if done && times > 1 => Some(Hand::KeepRegistering(times - 1)),
            Hand::KeepUncordoning(times) if done && times > 1 => Some(Hand::KeepUncordoning(times - 1)),
            Hand::KeepUnlabelling(times) if done && times > 1 => Some(Hand::KeepUnlabelling(times - 1)),
            _ => (!done).then_some(hand),
        };
        let pause = if done { LOOKS_AGAIN } else { seconds(7) };
        if let Some(next) = next.filter(|_| now < START + BUSY) {
            self.plan(now + pause, Next::Event(Event::Hand(next)));
        }
    }

    fn uncordon(&mut self) -> bool {
        let by_hand = lock(&self.checks).cordoned_by_hand.clone();
        let ours =
            |node: &Node| node.unschedulable && record(node).is_some() && !by_hand.contains(&node.name);
        let patch = NodePatch { unschedulable: Some(false), ..NodePatch::default() };
        self.patch_some("takes the cordon off", patch, ours).is_some()
    }

    fn take_off_all(&mut self, take_off: impl Fn(&mut Self) -> bool) -> bool {
        let mut done = false;
        while take_off(self) {
            done = true;
        }
        let mut checks = lock(&self.checks);
        let Checks { laid_bare, unclosed, .. } = &mut *checks;
        unclosed.extend(laid_bare.keys().filter(|_| done).cloned());
        done
    }

    fn unlabel(&mut self) -> bool {
        let labels = BTreeMap::from([(EXCLUDE_LABEL.to_owned(), None)]);
        let patch = NodePatch { labels, ..NodePatch::default() };
        let ours = |node: &Node| node.labels.contains_key(EXCLUDE_LABEL) && record(node).is_some();
        self.patch_some("takes the label off", patch, ours).is_some()
    }

    fn wipe(&mut self) -> bool {
        let annotations = BTreeMap::from([(RECORD_ANNOTATION.to_owned(), None)]);
        let patch = NodePatch { annotations, ..NodePatch::default() };
        let wiped = self.patch_some("replaces the annotations of", patch, |node| record(node).is_some());
        let done = wiped.is_some();
        lock(&self.checks).wiped.extend(wiped);
        done
    }

    /// Says which node it was.
    fn patch_some(&mut self, what: &str, patch: NodePatch, of: impl Fn(&Node) -> bool) -> Option<NodeName> {
        let found: Vec<(ClusterName, NodeName)> = self.scene.sandbox.peek(|world| {
            let running = nodes(world).filter(|(_, node)| is_running(world, &node.instance) && of(node));
            running.map(|(cluster, node)| (cluster.name.clone(), node.name.clone())).collect()
        });
        let (cluster, node) = self.random.choice(found)?;
        self.scene.sandbox.with(|world| world.patch_node(&cluster, &node, patch)).ok()?;
        self.scene.say(&format!("somebody {what} {node}"));
        let mut checks = lock(&self.checks);
        // Whoever does it again counts as a controller.
        if checks.laid_bare.insert(node.clone(), self.scene.sandbox.now()).is_some() {
            checks.unclosed.insert(node.clone());
        }
        Some(node)
    }

    fn register_again(&mut self) -> bool {
        let found: Vec<(TargetGroupArn, InstanceId, u16)> = self
            .scene
            .sandbox
            .peek(|world| nodes(world).flat_map(|(_, node)| taken_out(world, node)).collect());
        let Some((group, id, port)) = self.random.choice(found) else { return false };
        let target = [(id.clone(), port)];
        let done = self.scene.sandbox.with(|world| world.register_targets(&group, &target).is_ok());
        if done {
            self.scene.say(&format!("somebody registers {id} again"));
            lock(&self.checks).put_back.insert(id, self.scene.sandbox.now());
        }
        done
    }
}

/// The targets that a record names and that are gone, or on their way.
fn taken_out(world: &World, node: &Node) -> Vec<(TargetGroupArn, InstanceId, u16)> {
    let id = &node.instance;
    let Some(record) = record(node).filter(|_| is_running(world, id)) else { return Vec::new() };
    let named = |arn: &TargetGroupArn| record.targets.contains(&arn.to_string());
    let groups = world.balancers.all().filter(|group| named(&group.arn));
    let is_out =
        |state: Option<TargetState>| state.is_none_or(|it| matches!(it, TargetState::Draining { .. }));
    groups
        .filter(|group| is_out(group.targets.get(&(id.clone(), group.port)).map(|target| target.state)))
        .map(|group| (group.arn.clone(), id.clone(), group.port))
        .collect()
}

impl Checks {
    /// Somebody took its cordon or label off a moment ago, and the worker may not know it.
    pub(crate) fn is_just_laid_bare(&self, world: &World, node: &Node) -> bool {
        self.laid_bare.get(&node.name).is_some_and(|at| world.now() < *at + UNNOTICED)
    }

    /// The same of a target that was registered again.
    pub(crate) fn is_just_put_back(&self, world: &World, id: &InstanceId) -> bool {
        self.put_back.get(id).is_some_and(|at| world.now() < *at + UNNOTICED)
    }

    /// The pod of a DaemonSet that the policy names, which has to go at last.
    pub(crate) fn is_ingress(&self, pod: &Pod) -> bool {
        let named = |owner: &str| {
            self.policy
                .ingress_daemon_sets
                .iter()
                .any(|it| it.namespace == pod.pod.namespace && it.name == owner)
        };
        pod.owner.as_ref().is_some_and(|owner| named(&owner.name))
    }

    pub(crate) fn note_isolation(&mut self, world: &World, name: &ClusterName, call: &ClusterCall) {
        let (node, labels, cordons) = match call {
            ClusterCall::Isolate { node, exclude, .. } => (node, *exclude, true),
            ClusterCall::Exclude { node, .. } => (node, true, false),
            _ => return,
        };
        let stored = world.clusters.get(name).and_then(|cluster| cluster.nodes.get(node));
        let Some(stored) = stored.filter(|_| self.laid_bare.contains_key(node)) else { return };
        let now = world.now();
        if record(stored).is_none() {
            self.notes.push((now, format!("the worker records again what was wiped off: {node}")));
        }
        if cordons && !stored.unschedulable {
            self.notes.push((now, format!("the worker cordons again what was uncordoned: {node}")));
        }
        if labels && !stored.labels.contains_key(EXCLUDE_LABEL) {
            self.notes.push((now, format!("the worker labels again what had lost its label: {node}")));
        }
    }

    pub(crate) fn note_deregistration(&mut self, world: &World, target: &TargetKey) {
        let id = &target.instance;
        let group = world.balancers.get(&target.group);
        let held = group.and_then(|group| group.targets.get(&(id.clone(), target.port)));
        let stands = held.is_some_and(|held| !matches!(held.state, TargetState::Draining { .. }));
        if stands && self.put_back.contains_key(id) && node_of(world, id).is_some() {
            self.notes.push((world.now(), format!("the worker deregisters again what was put back: {id}")));
        }
    }
}
