//! What belongs to others: nodes and groups that a worker must not touch, and messages that it must leave.

use offramp_core::{ClusterName, Hook, InstanceId, NodeName, Notice, hook_is_ours};
use offramp_engine::{ClusterCall, GroupCall, TargetCall};
use offramp_sandbox::World;
use offramp_sandbox::fleet::Pool;
use offramp_sandbox::witness::WorkerCall;
use offramp_sandbox::world::OUT_OF_SCOPE;
use offramp_sandbox::world::groups::Group;
use offramp_sandbox::world::instances::Instance;
use offramp_sandbox::world::queue::Stored;
use offramp_wire::{Parsed, parse};

use super::checks::{Checks, QUEUE};
use super::course::{Course, lock};
use super::lookups::{instance, is_shown};

/// Why nodes are not the worker's to touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Karpenter removes them.
    Karpenter,
    /// The node selector does not match them.
    Unselected,
    /// Their group has not the tag of the policy. It is read before the first write to AWS, and their nodes may be cordoned
    /// until then.
    Untagged,
}

/// A label of every node that is somebody else's: nobody but the checks reads it.
const OTHERS: &str = "simulation/others";

impl Owner {
    /// Some nodes of theirs, with a hook that would be ours.
    pub(crate) fn pool(self) -> Pool {
        let mut pool = Pool::spot("others", 3);
        let label = match self {
            Self::Karpenter => "karpenter.sh/nodepool",
            Self::Unselected => OUT_OF_SCOPE,
            Self::Untagged => {
                pool.tags.insert(OUT_OF_SCOPE.to_owned(), String::new());
                "simulation/untagged"
            }
        };
        pool.labels.extend([label, OTHERS].map(|label| (label.to_owned(), "others".to_owned())));
        pool
    }
}

pub(crate) fn is_of_others(group: &Group) -> bool {
    group.spec.template.labels.contains_key(OTHERS)
}

/// It belongs to others. Nothing but its node says so, unless it is its group: while a watch shows none that is this
/// instance's, a hook that names a cluster of ours is ours.
pub(crate) fn belongs_to_others(world: &World, id: &InstanceId) -> bool {
    let Some(instance) = instance(world, id).filter(|it| has_label_of_others(it)) else { return false };
    let group = instance.group.as_ref().and_then(|name| world.groups.get(name));
    let by_group = group.is_some_and(|group| !group.spec.is_in_scope());
    // Of a cluster that is away nobody knows (seed 9241).
    let cluster = instance.cluster.as_ref().and_then(|name| world.clusters.get(name));
    by_group || is_shown(world, id) && cluster.is_some_and(|cluster| !cluster.is_away(world.now()))
}

pub(crate) fn has_label_of_others(instance: &Instance) -> bool {
    instance.labels.contains_key(OTHERS)
}

impl Checks {
    /// Invariant 14: what is left alone gets no call.
    pub(crate) fn saw_others(&mut self, world: &World, call: WorkerCall<'_>) {
        let (id, what) = match call {
            WorkerCall::Group(call) => (Some(instance_of(call)), format!("{call:?}")),
            WorkerCall::Target(TargetCall::Deregister(target)) => {
                self.taken_out.insert(target.clone());
                (Some(target.instance.clone()), format!("{call:?}"))
            }
            // What was taken out before its node was seen is put back (seed 58865).
            WorkerCall::Target(TargetCall::Register(target)) if self.taken_out.contains(target) => return,
            WorkerCall::Target(TargetCall::Register(target)) => {
                (Some(target.instance.clone()), format!("{call:?}"))
            }
            WorkerCall::Cluster(name, call) => (self.touched(world, name, call), format!("{call:?}")),
            WorkerCall::Delete(message) => return self.saw_delete_of_others(world, &message.body),
        };
        if let Some(id) = id.filter(|id| belongs_to_others(world, id)) {
            self.break_it(world, "14 what is left alone is touched", format!("{id}: {what}"));
        }
    }

    fn touched(&self, world: &World, name: &ClusterName, call: &ClusterCall) -> Option<InstanceId> {
        let cluster = world.clusters.get(name)?;
        let of_node = |node: &NodeName| cluster.nodes.get(node).map(|node| node.instance.clone());
        match call {
            ClusterCall::Isolate { node, .. }
            | ClusterCall::Exclude { node, .. }
            | ClusterCall::WriteRecord { node, .. }
            | ClusterCall::Release { node, .. } => of_node(node).filter(|_| !self.policy.scoped),
            ClusterCall::Evict { pod, .. } | ClusterCall::Delete { pod, .. } => {
                of_node(cluster.pod(&pod.uid)?.node.as_ref()?)
            }
            ClusterCall::ListPods { .. } => None,
        }
    }

    fn saw_delete_of_others(&mut self, world: &World, body: &str) {
        if self.leaves && is_foreign(self, world, body) {
            self.break_it(world, "14 a message of others is left", format!("it is deleted: {body}"));
        }
    }
}

impl Course {
    /// The other consumer of the queue gets hold of some of its messages.
    pub(crate) fn others_receive(&mut self) {
        let checks = lock(&self.checks);
        let theirs: Vec<String> = self.scene.sandbox.peek(|world| {
            let messages = world.queues.get(QUEUE).into_iter().flat_map(|queue| queue.messages());
            let unwanted = |message: &Stored| message.receive_count >= UNWANTED;
            let theirs = |message: &&Stored| {
                message.receive_count > 0 && is_foreign(&checks, world, &message.body) || unwanted(message)
            };
            messages.filter(|_| checks.leaves).filter(theirs).map(|message| message.id.clone()).collect()
        });
        drop(checks);
        for id in theirs {
            if self.random.u8(0..4) == 0 {
                self.scene.say(&format!("another consumer takes the message {id}"));
                self.scene.sandbox.with(|world| {
                    world.queues.get_mut(QUEUE).into_iter().for_each(|queue| queue.take(&id));
                });
            }
        }
    }
}

/// What was received so often nobody wants: an instance whose node does not say which one it is counts as another's.
const UNWANTED: u32 = 40;

/// About instances that no served cluster has. A hook that names a cluster of ours is ours wherever its instance is.
fn is_foreign(checks: &Checks, world: &World, body: &str) -> bool {
    let is_foreign = |notice: &Notice| {
        let serves = |cluster: &ClusterName| checks.policy.clusters.contains(cluster);
        let cluster = instance(world, &notice.instance).and_then(|instance| instance.cluster.as_ref());
        // A node of ours may name an instance of others (seed 1573), or have named it while it was there (seed 29138).
        let named = |(cluster, id): &(ClusterName, InstanceId)| serves(cluster) && *id == notice.instance;
        let is_ours = |hook: &Hook| hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), &checks.policy);
        !notice.hook().is_some_and(is_ours) && !cluster.is_some_and(serves) && !checks.named.iter().any(named)
    };
    matches!(parse(body), Ok(Parsed::Notices(notices)) if notices.iter().all(is_foreign))
}

fn instance_of(call: &GroupCall) -> InstanceId {
    match call {
        GroupCall::Heartbeat(id, _)
        | GroupCall::CompleteHook(id, _)
        | GroupCall::Detach(id, _)
        | GroupCall::TerminateThroughGroup(id, _) => id.clone(),
    }
}
