//! What a world looks like from the place of one instance.

use std::collections::BTreeSet;

use offramp_core::{ClusterName, InstanceId, PodRef, Timestamp};
use offramp_engine::InWords;
use offramp_sandbox::World;
use offramp_sandbox::world::balancers::TargetState;
use offramp_sandbox::world::cluster::{Cluster, Node, Phase, Pod};
use offramp_sandbox::world::groups::{Group, LifecycleAction, Member};
use offramp_sandbox::world::instances::{Instance, InstanceState};
use serde_json::Value;

use super::script::seconds;

/// Where the record is on a node.
pub(crate) const RECORD: &str = "offramp.sh/record";

/// What our annotation says.
pub(crate) struct Recorded {
    /// Since when the node is isolated.
    pub(crate) since: Option<Timestamp>,
    /// The ARNs of the targets that it names.
    pub(crate) targets: Vec<String>,
}

pub(crate) fn record(node: &Node) -> Option<Recorded> {
    let value: Value = serde_json::from_str(node.annotations.get(RECORD)?).ok()?;
    let targets = value["targets"].as_array().into_iter().flatten();
    // What all ARNs of the partition begin with is left out.
    let arn = |group: &str| format!("arn:aws:elasticloadbalancing:{group}");
    let targets = targets.filter_map(|target| target["group"].as_str().map(arn)).collect();
    let since = value["since"].as_str().and_then(|text| text.parse::<jiff::Timestamp>().ok());
    let since = since.map(|since| Timestamp::from_millis(since.as_millisecond()));
    Some(Recorded { since, targets })
}

pub(crate) fn stays_in_service(instance: &Instance) -> bool {
    instance.state == InstanceState::Running && instance.interrupted_at.is_none()
}

/// Times in events are whole seconds.
pub(crate) fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_millis(at.as_millis().div_euclid(1000) * 1000)
}

pub(crate) fn instance<'a>(world: &'a World, id: &InstanceId) -> Option<&'a Instance> {
    world.instances.get(id)
}

pub(crate) fn is_running(world: &World, id: &InstanceId) -> bool {
    world.instances.is(id, InstanceState::Running)
}

/// Every member of every group.
pub(crate) fn members(world: &World) -> impl Iterator<Item = (&Group, &InstanceId, &Member)> {
    world.groups.all().flat_map(|group| group.members.iter().map(move |(id, member)| (group, id, member)))
}

pub(crate) fn member<'a>(world: &'a World, id: &InstanceId) -> Option<(&'a Group, &'a Member)> {
    let group = world.groups.get(instance(world, id)?.group.as_ref()?)?;
    Some((group, group.members.get(id)?))
}

/// When an action began.
pub(crate) fn opened(group: &Group, action: &LifecycleAction) -> Option<Timestamp> {
    let hook = group.spec.hooks.iter().find(|hook| hook.name == action.hook)?;
    Some(action.global_until - hook.global_timeout())
}

pub(crate) fn nodes(world: &World) -> impl Iterator<Item = (&Cluster, &Node)> {
    world.clusters.values().flat_map(|cluster| cluster.nodes.values().map(move |node| (cluster, node)))
}

/// The node of an instance, as far as its providerID tells.
pub(crate) fn node_of<'a>(world: &'a World, id: &InstanceId) -> Option<(&'a Cluster, &'a Node)> {
    let cluster = world.clusters.get(instance(world, id)?.cluster.as_ref()?)?;
    let node = cluster.node_of(id).filter(|node| node.claims(id))?;
    // Of twins nobody can say which is the right one.
    let is_twin = |other: &Node| other.name != node.name && other.claims(id);
    let twins = world.clusters.values().flat_map(|cluster| cluster.nodes.values()).any(is_twin);
    (!twins).then_some((cluster, node))
}

/// Whether the watches show a node for the instance. One that joined a moment ago may be there without
/// them: to a worker it is the same as one that joins a moment later.
pub(crate) fn is_shown(world: &World, id: &InstanceId) -> bool {
    node_of(world, id).is_some_and(|(cluster, _)| cluster.view(0).node_of(id).is_some())
}

pub(crate) fn pod_in<'a>(world: &'a World, name: &ClusterName, pod: &PodRef) -> Option<(&'a Node, &'a Pod)> {
    let cluster = world.clusters.get(name)?;
    let pod = cluster.pod(&pod.uid)?;
    Some((cluster.nodes.get(pod.node.as_ref()?)?, pod))
}

pub(crate) fn is_daemon(pod: &Pod) -> bool {
    pod.owner.as_ref().is_some_and(|owner| owner.kind == "DaemonSet")
}

pub(crate) fn is_finished(pod: &Pod) -> bool {
    matches!(pod.phase, Phase::Succeeded | Phase::Failed)
}

/// The machine of an instance whose Node object was deleted.
pub(crate) fn nodeless<'a>(cluster: &'a Cluster, id: &InstanceId) -> Option<&'a Node> {
    cluster.nodeless.values().find(|machine| machine.instance == *id)
}

/// The pods that a drain has to move. One that tolerates the cordon and was made after it has come back. One that is there
/// a minute after its grace does not end by itself. To a node that could not be cordoned new ones come at any time.
pub(crate) fn pods_left(world: &World, id: &InstanceId, made_before: Timestamp) -> Vec<String> {
    let Some((cluster, node)) = node_of(world, id) else { return Vec::new() };
    let ended = |pod: &Pod| pod.ends.is_none_or(|end| world.now() >= end);
    let overdue = |pod: &Pod| ended(pod) && pod.deletion.is_some_and(|end| world.now() >= end + seconds(60));
    let since = record(node).and_then(|record| record.since);
    let came_back = |pod: &Pod| pod.tolerates_all && since.is_some_and(|since| pod.created >= since);
    let is_old = |pod: &Pod| pod.created <= made_before;
    let evictable =
        |pod: &&Pod| is_old(pod) && !is_daemon(pod) && !is_finished(pod) && !overdue(pod) && !came_back(pod);
    let left = cluster.pods_of_node(&node.name).filter(evictable);
    left.map(|pod| pod.pod.in_words()).collect()
}

/// The places where an instance still is a target, draining ones too.
pub(crate) fn targets_left(world: &World, id: &InstanceId) -> Vec<String> {
    let of = |(name, ((instance, port), state)): (&String, (&(InstanceId, u16), TargetState))| {
        (instance == id).then(|| format!("{name}:{port} {state:?}"))
    };
    world
        .balancers
        .all()
        .flat_map(|group| group.targets.iter().map(|(key, target)| (&group.name, (key, target.state))))
        .filter_map(of)
        .collect()
}

/// The bodies of the messages in a queue.
pub(crate) fn bodies(world: &World, queue: &str) -> BTreeSet<String> {
    let queue = world.queues.get(queue);
    queue.into_iter().flat_map(|queue| queue.messages()).map(|message| message.body.clone()).collect()
}
