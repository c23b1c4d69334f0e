//! The invariants, as far as a world can see them: each call of the worker at the moment before it takes
//! effect, and what is left in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offramp_core::{
    ClusterName, HookKey, HookName, InstanceId, NodeName, PodRef, Policy, TargetKey, Timestamp, hook_is_ours,
};
use offramp_engine::{ClusterCall, GroupCall, InWords, TargetCall};
use offramp_sandbox::World;
use offramp_sandbox::witness::WorkerCall;
use offramp_sandbox::world::cluster::{EXCLUDE_LABEL, Node, Pod};
use offramp_sandbox::world::groups::{Group, LifecycleAction, Member, MemberState};
use offramp_sandbox::world::instances::SPOT_NOTICE;

use super::bounds::Tally;
use super::lookups::{
    bodies, instance, is_daemon, is_finished, is_running, is_shown, member, members, node_of, nodeless,
    nodes, opened, pod_in, pods_left, record, targets_left, whole_seconds,
};
use super::others::is_of_others;
use super::plan::Mood;
use super::script::seconds;

/// The queue of every simulated world, and its dead-letter queue.
pub(crate) const QUEUE: &str = "offramp";
pub(crate) const DEAD_LETTERS: &str = "offramp-dlq";

/// One broken invariant; the number is that of the design.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) at: Timestamp,
    pub(crate) invariant: &'static str,
    pub(crate) what: String,
}

/// What is remembered between two calls.
#[derive(Debug)]
pub(crate) struct Checks {
    pub(crate) policy: Policy,
    pub(crate) broken: Vec<Broken>,
    /// Nodes that somebody else has cordoned.
    pub(crate) cordoned_by_hand: BTreeSet<NodeName>,
    /// Answers to calls may have been lost.
    pub(crate) faulty: bool,
    /// A worker that starts looks for hooks before it has received its messages: as with lost events.
    pub(crate) restarted: bool,
    /// When instances were taken out of their groups.
    pub(crate) detached: BTreeMap<InstanceId, Timestamp>,
    /// The targets that were deregistered.
    pub(crate) taken_out: BTreeSet<TargetKey>,
    /// When workers stood still. What such a one heard last is older than what others have made of the hook since.
    pub(crate) paused: Vec<(Timestamp, Timestamp)>,
    /// When workers began: they know nothing of what came of the calls of others.
    pub(crate) starts: Vec<Timestamp>,
    /// When workers went away.
    pub(crate) ends: Vec<Timestamp>,
    /// The instances that nodes name which are not theirs, with the clusters of those nodes.
    pub(crate) named: BTreeSet<(ClusterName, InstanceId)>,
    /// Events were lost: of a hook that is found by looking, the worker knows when its group began to terminate the
    /// instance, which is earlier.
    pub(crate) lost_events: bool,
    /// Messages were lost: what they spoke of stays until the sweep finds it.
    pub(crate) lost_messages: bool,
    /// When Node objects were deleted under a machine that goes on.
    pub(crate) deleted_nodes: BTreeMap<NodeName, Timestamp>,
    /// Clusters whose API server was away.
    pub(crate) were_away: BTreeSet<ClusterName>,
    /// Clusters whose API server refused changes of nodes.
    pub(crate) nodes_refused: BTreeSet<ClusterName>,
    /// When somebody took a cordon or a label off a node.
    pub(crate) laid_bare: BTreeMap<NodeName, Timestamp>,
    /// When somebody registered an instance again.
    pub(crate) put_back: BTreeMap<InstanceId, Timestamp>,
    /// What the worker did because of what others had done.
    pub(crate) notes: Vec<(Timestamp, String)>,
    /// When no answer to a heartbeat arrived.
    pub(crate) unheard: Vec<(Timestamp, Timestamp)>,
    /// How much goes wrong.
    pub(crate) mood: Mood,
    /// Messages about instances of others have to stay.
    pub(crate) leaves: bool,
    /// Nodes on which no cordon, label or record lasts.
    pub(crate) unclosed: BTreeSet<NodeName>,
    /// Instances for which a message came of a hook that did not hold them.
    pub(crate) false_hooks: BTreeSet<InstanceId>,
    /// Nodes whose record somebody has taken off: a worker that was not there does not know of it.
    pub(crate) wiped: BTreeSet<NodeName>,
    /// What was asked of others, by instance.
    pub(crate) tallies: BTreeMap<InstanceId, Tally>,
    /// The newest moment of a call, and how many there were.
    pub(crate) at_this_moment: (Timestamp, usize),
    /// Unparseable bodies that were sent.
    pub(crate) garbage: BTreeSet<String>,
    /// What was in the queue when all its messages were lost.
    pub(crate) lost_bodies: BTreeSet<String>,
    /// Members whose deadline had come when their first hook was answered.
    late: BTreeMap<InstanceId, Timestamp>,
}

/// A worker acts on what it has read a moment ago: an answer lives for a second, a call may be slow by
/// five, and what is described lags behind on top of that.
const READ_AGO: Duration = seconds(12);

impl Checks {
    pub(crate) fn new(policy: Policy, mood: Mood) -> Self {
        Self {
            policy,
            broken: Vec::new(),
            cordoned_by_hand: BTreeSet::new(),
            faulty: false,
            restarted: false,
            starts: Vec::new(),
            ends: Vec::new(),
            detached: BTreeMap::new(),
            taken_out: BTreeSet::new(),
            paused: Vec::new(),
            named: BTreeSet::new(),
            lost_events: false,
            lost_messages: false,
            deleted_nodes: BTreeMap::new(),
            were_away: BTreeSet::new(),
            nodes_refused: BTreeSet::new(),
            laid_bare: BTreeMap::new(),
            put_back: BTreeMap::new(),
            notes: Vec::new(),
            unheard: Vec::new(),
            mood,
            leaves: false,
            unclosed: BTreeSet::new(),
            false_hooks: BTreeSet::new(),
            wiped: BTreeSet::new(),
            tallies: BTreeMap::new(),
            at_this_moment: (Timestamp::default(), 0),
            garbage: BTreeSet::new(),
            lost_bodies: BTreeSet::new(),
            late: BTreeMap::new(),
        }
    }

    /// Looks at a call before it is done.
    pub(crate) fn saw(&mut self, world: &World, call: WorkerCall<'_>) {
        self.count(world, call);
        self.saw_others(world, call);
        match call {
            WorkerCall::Group(GroupCall::CompleteHook(id, key)) => self.saw_answer(world, id, key),
            WorkerCall::Group(GroupCall::Heartbeat(id, key)) => self.saw_foreign_hook(world, id, key),
            WorkerCall::Group(GroupCall::Detach(id, _) | GroupCall::TerminateThroughGroup(id, _)) => {
                self.detached.insert(id.clone(), world.now());
                self.saw_end_of_membership(world, id);
            }
            WorkerCall::Target(TargetCall::Deregister(target)) => {
                self.note_deregistration(world, target);
                self.saw_deregistration(world, target);
            }
            WorkerCall::Target(TargetCall::Register(target)) => {
                self.is_ours(world, &target.instance, "registers");
            }
            WorkerCall::Cluster(name, call) => self.saw_in_cluster(world, name, call),
            WorkerCall::Delete(message) => self.saw_delete(world, message),
        }
    }

    /// Looks at everything when nothing is to come any more.
    pub(crate) fn look_at_the_end(&mut self, world: &World) {
        for (group, id, member) in members(world) {
            for action in &member.actions {
                if self.action_is_ours(group, action) {
                    let text = format!("{} of {id} is open still", action.hook);
                    self.break_it(world, "2 a message goes last", text);
                }
            }
        }
        for (cluster, node) in nodes(world) {
            self.look_at_node(world, cluster, node);
        }
        let dead: BTreeSet<String> = bodies(world, DEAD_LETTERS);
        // What was lost may have been received before.
        let missing = self.garbage.difference(&dead).any(|body| !self.lost_bodies.contains(body));
        if missing || !dead.is_subset(&self.garbage) {
            let text = format!("the dead-letter queue has {dead:?}, garbage was {:?}", self.garbage);
            self.break_it(world, "5 the dead-letter queue has what cannot be read", text);
        }
    }

    pub(crate) fn break_it(&mut self, world: &World, invariant: &'static str, what: String) {
        // One is enough: the first failure of a kind often repeats.
        if self.broken.len() < 20 {
            self.broken.push(Broken { at: world.now(), invariant, what });
        }
    }

    /// The HeartbeatTimeout of a hook that held an instance then, where it is ours.
    pub(crate) fn timeout_of(
        &self,
        world: &World,
        hook: &str,
        id: &InstanceId,
        at: Timestamp,
    ) -> Option<Duration> {
        let group = world.groups.get(&world.groups.describe(id, at)?.group).filter(|it| !is_of_others(it))?;
        let found = group.spec.hooks.iter().find(|one| one.name.as_str() == hook)?;
        let hint = found.metadata.as_deref().map(ClusterName::new);
        hook_is_ours(&found.name, hint.as_ref(), &self.policy).then_some(found.heartbeat_timeout)
    }

    /// Whether a hook is ours, by what the group says about it.
    pub(crate) fn action_is_ours(&self, group: &Group, action: &LifecycleAction) -> bool {
        self.is_ours_in(group, &action.hook)
    }

    fn is_ours_in(&self, group: &Group, name: &HookName) -> bool {
        let hook = group.spec.hooks.iter().find(|hook| hook.name == *name);
        let hint = hook.and_then(|hook| hook.metadata.as_deref()).map(ClusterName::new);
        hook_is_ours(name, hint.as_ref(), &self.policy) && !is_of_others(group)
    }

    /// Invariant 1: nothing that can be evicted and no target is left, or the deadline has come.
    fn saw_answer(&mut self, world: &World, id: &InstanceId, key: &HookKey) {
        self.saw_foreign_hook(world, id, key);
        let Some((group, member)) = member(world, id) else { return };
        let open = |action: &LifecycleAction| {
            action.hook == key.name && key.token.as_ref().is_none_or(|token| *token == action.token)
        };
        // Where its node does not say whose it is, a hook that names our cluster is answered at its limit (seed 64445).
        if !member.actions.iter().any(open) || !is_running(world, id) || is_of_others(group) {
            return;
        }
        let now = world.now();
        let deadline = self.deadline(world, id, group, member);
        if deadline.is_some_and(|deadline| now >= deadline - self.policy.deadline_margin) {
            self.late.insert(id.clone(), now);
        }
        // The second hook of the same moment has had the first one's deadline.
        if self.late.get(id).is_some_and(|at| now.since(*at) < seconds(30)) {
            return;
        }
        // What a spot notice has begun to drain comes back before the hook is open (seed 4111).
        let warned = instance(world, id).and_then(|it| it.interrupted_at).map(|end| end - SPOT_NOTICE);
        let opened = member.actions.iter().filter_map(|action| opened(group, action));
        let made_before =
            opened.chain(warned).min().filter(|_| self.may_be_unwritten(world, id)).unwrap_or(now);
        // Another node that names it is the one that is Ready, and is drained (seed 7954).
        let is_another = node_of(world, id).is_none_or(|(_, node)| !node.ready)
            && nodes(world).any(|(_, node)| node.instance != *id && node.claims(id));
        // Pods that had no place come in the moment in which somebody takes the cordon off (seed 34835).
        let is_bare = node_of(world, id).is_some_and(|(_, node)| self.is_just_laid_bare(world, node));
        let is_shown = is_shown(world, id) && !is_bare;
        let mut pods = if is_shown { pods_left(world, id, made_before) } else { Vec::new() };
        pods.extend(self.pods_without_node(world, id));
        pods.retain(|_| !is_another);
        // Behind a controller that puts targets back nothing stays as it was read.
        // A controller registers what has lost its label (seed 21525).
        let moving = self.may_be_unwritten(world, id) || self.is_just_put_back(world, id) || is_bare;
        let targets = if moving { Vec::new() } else { targets_left(world, id) };
        if !pods.is_empty() || !targets.is_empty() {
            let text = format!(
                "{} of {id} is answered with pods {pods:?} and targets {targets:?}, {:?} before its deadline",
                key.name,
                deadline.map(|deadline| now.until(deadline)),
            );
            self.break_it(world, "1 nothing is left when a hook is answered", text);
        }
    }

    /// Its cluster refused changes of nodes for a while.
    pub(crate) fn may_be_unwritten(&self, world: &World, id: &InstanceId) -> bool {
        let cluster = instance(world, id).and_then(|instance| instance.cluster.as_ref());
        let is_unclosed = |node: &Node| self.unclosed.contains(&node.name);
        cluster.is_some_and(|cluster| self.nodes_refused.contains(cluster))
            || nodes(world).any(|(_, node)| node.instance == *id && is_unclosed(node))
    }

    /// Pods of a machine whose node was deleted under it: they have their grace from then on.
    fn pods_without_node(&self, world: &World, id: &InstanceId) -> Vec<String> {
        let nodeless = world.clusters.values().find_map(|cluster| Some((cluster, nodeless(cluster, id)?)));
        let Some((cluster, machine)) = nodeless else { return Vec::new() };
        let Some(deleted) = self.deleted_nodes.get(&machine.name) else { return Vec::new() };
        let overdue = |pod: &Pod| pod.deletion.is_some_and(|end| world.now() >= end + seconds(60));
        let pods = cluster
            .pods_of_node(&machine.name)
            .filter(|pod| !is_daemon(pod) && !is_finished(pod) && !overdue(pod));
        let runs = pods.filter(|pod| pod.created < *deleted && world.now() < *deleted + pod.grace);
        runs.map(|pod| pod.pod.in_words()).collect()
    }

    /// The earliest end of any open hook of ours or of the spot notice: the moment of the end itself,
    /// without a margin.
    fn deadline(&self, world: &World, id: &InstanceId, group: &Group, member: &Member) -> Option<Timestamp> {
        let now = world.now();
        let activities = world.groups.activities(Some(&group.spec.name), now);
        let ours = group.spec.hooks.iter().filter(|hook| self.is_ours_in(group, &hook.name)).count();
        let open = member.actions.iter().filter(|action| self.action_is_ours(group, action)).count();
        let another_is_over = open < ours;
        let hooks = member.actions.iter().filter(|action| self.action_is_ours(group, action)).map(|action| {
            let hook = group.spec.hooks.iter().find(|hook| hook.name == action.hook);
            let opened = opened(group, action).unwrap_or(action.global_until);
            let began = activities.iter().find(|(activity, _)| activity.instance == *id);
            let began = began
                .filter(|_| self.lost_events || self.restarted)
                .map_or(opened, |(activity, _)| activity.started);
            let opened = opened.min(began);
            let first = whole_seconds(opened) + hook.map_or(Duration::ZERO, |hook| hook.heartbeat_timeout);
            let limits = whole_seconds(opened) + self.policy.hook_limit;
            let end = limits.min(whole_seconds(action.global_until)).min(whole_seconds(action.until));
            // AWS took a heartbeat, and the worker never heard of it: it counts on one before, or on the first timeout. Which one
            // it heard last nobody knows: the earliest end that is ahead, or where none is, the latest.
            let timeout = first.since(whole_seconds(opened));
            let heard =
                self.may_be_last_heard(id, &action.hook).into_iter().map(|at| (at + timeout).max(first));
            // Another one that began since has heard of none, and leaves half of a timeout after it (seed 43943).
            let unheard =
                self.starts.iter().filter(|start| **start > opened).map(|start| *start + timeout / 2);
            let (ahead, past): (Vec<_>, Vec<_>) =
                heard.chain(unheard).chain([first]).partition(|known| now < *known);
            let known = ahead.into_iter().min().or(past.into_iter().max()).unwrap_or(first);
            // One that stood still meanwhile counts on what it had heard before (seed 45578).
            let slept = |(from, until): &&(Timestamp, Timestamp)| {
                opened < *from && *from <= now && now < *until + timeout
            };
            let ends_for_it = self.paused.iter().filter(slept).map(|(from, _)| {
                let heard = last_heartbeat_before(world, id, &action.hook, *from);
                let end = heard.map_or(first, |at| (at + timeout).max(first));
                // Of another hook it does not know that it has timed out meanwhile (seed 46091).
                if another_is_over { end.min(now) } else { end }
            });
            let end = ends_for_it.fold(end, Timestamp::min);
            if self.faulty || !self.unheard.is_empty() { end.min(known) } else { end }
        });
        // The worker has no margin before the answer at a spot instance's end.
        let spot = instance(world, id)
            .and_then(|instance| instance.interrupted_at)
            .map(|end| whole_seconds(end) + self.policy.deadline_margin);
        hooks.chain(spot).min()
    }

    /// Invariant 14: somebody else's hooks are never answered.
    fn saw_foreign_hook(&mut self, world: &World, id: &InstanceId, key: &HookKey) {
        let Some(group) = world.groups.get(&key.group) else { return };
        // A hook that is not there is nobody's.
        let Some(hook) = group.spec.hooks.iter().find(|hook| hook.name == key.name) else { return };
        let hint = hook.metadata.as_deref().map(ClusterName::new);
        if !hook_is_ours(&key.name, hint.as_ref(), &self.policy) {
            let text = format!("hook {} of {id} is somebody else's", key.name);
            self.break_it(world, "14 only what is ours is touched", text);
        }
    }

    /// Invariant 14: an instance of another cluster is never touched.
    fn is_ours(&mut self, world: &World, id: &InstanceId, what: &str) {
        let cluster = instance(world, id).and_then(|instance| instance.cluster.clone());
        // A node of ours may name it (seed 6429).
        let is_named =
            nodes(world).any(|(of, node)| self.policy.clusters.contains(&of.name) && node.claims(id));
        if let Some(cluster) = cluster.filter(|cluster| !is_named && !self.policy.clusters.contains(cluster))
        {
            let text = format!("the worker {what} {id} of cluster {cluster}");
            self.break_it(world, "14 only what is ours is touched", text);
        }
    }

    /// Invariant 7: only for a member in service.
    fn saw_end_of_membership(&mut self, world: &World, id: &InstanceId) {
        self.is_ours(world, id, "detaches or terminates");
        let in_service = |at: Timestamp| {
            world.groups.describe(id, at).is_some_and(|described| described.state == MemberState::InService)
        };
        let state = member(world, id).map(|(_, member)| member.state);
        if state != Some(MemberState::InService) && !in_service(world.now() - READ_AGO) {
            let text = format!("{id} is {state:?}");
            self.break_it(world, "7 only a member in service is detached or terminated", text);
        }
    }

    /// Invariant 6: the label first; and 8: the record first. Spot goes on without a node it cannot write.
    fn saw_deregistration(&mut self, world: &World, target: &TargetKey) {
        let id = &target.instance;
        self.is_ours(world, id, "deregisters");
        // A node that joined a moment ago, and that no watch shows, nobody can label.
        let Some((_, node)) = node_of(world, id).filter(|_| is_shown(world, id)) else { return };
        if self.may_be_unwritten(world, id)
            || self.is_just_laid_bare(world, node)
            || instance(world, id).is_some_and(|instance| instance.interrupted_at.is_some())
        {
            return;
        }
        if !node.labels.contains_key(EXCLUDE_LABEL) {
            let text = format!("{} of {id}: node {} has no exclude label", target.in_words(), node.name);
            self.break_it(world, "6 the exclude label goes before the deregistration", text);
        }
        let named = record(node).is_some_and(|record| record.targets.contains(&target.group.to_string()));
        if !named {
            let text =
                format!("{} of {id}: the record of node {} does not name it", target.in_words(), node.name);
            self.break_it(world, "8 what can be undone is recorded first", text);
        }
    }

    fn saw_in_cluster(&mut self, world: &World, name: &ClusterName, call: &ClusterCall) {
        self.note_isolation(world, name, call);
        self.note_release(world, name, call);
        match call {
            ClusterCall::Evict { pod, grace } => self.saw_eviction(world, name, pod, *grace),
            ClusterCall::Delete { pod, grace } => self.saw_force(world, name, pod, *grace),
            ClusterCall::Isolate { .. }
            | ClusterCall::Exclude { .. }
            | ClusterCall::WriteRecord { .. }
            | ClusterCall::ListPods { .. }
            | ClusterCall::Release { .. } => {}
        }
        if !self.policy.clusters.contains(name) {
            let text = format!("cluster {name} is not served");
            self.break_it(world, "14 only what is ours is touched", text);
        }
    }

    /// Nothing is asked for twice: a pod that ends already is left to end.
    fn saw_eviction(&mut self, world: &World, name: &ClusterName, pod: &PodRef, grace: Option<Duration>) {
        let Some((node, pod)) = pod_in(world, name, pod) else { return };
        let bare = self.nodes_refused.contains(name)
            || self.unclosed.contains(&node.name)
            || self.is_just_laid_bare(world, node);
        if !node.unschedulable && !bare {
            let text = format!("node {} takes new pods while {} is evicted", node.name, pod.pod.in_words());
            self.break_it(world, "4 a drain begins with the cordon", text);
        }
        if is_daemon(pod) && !self.is_ingress(pod) {
            let text = format!("{} of a DaemonSet is evicted", pod.pod.in_words());
            self.break_it(world, "14 only what is ours is touched", text);
        }
        if let Some(grace) = grace.filter(|grace| *grace < pod.grace) {
            self.is_time(world, node, pod, grace);
        }
    }

    fn saw_force(&mut self, world: &World, name: &ClusterName, pod: &PodRef, grace: Duration) {
        if let Some((node, pod)) = pod_in(world, name, pod) {
            self.is_time(world, node, pod, grace);
        }
    }

    /// Nothing is forced while its own grace still fits before the deadline.
    fn is_time(&mut self, world: &World, node: &Node, pod: &Pod, grace: Duration) {
        let id = &node.instance;
        let Some(((group, member), true)) = member(world, id).map(|found| (found, is_running(world, id)))
        else {
            return;
        };
        // Its hook timed out a moment ago: it ends, whatever anybody does, or only somebody else's hook holds it.
        let is_ours = member.actions.iter().any(|action| self.action_is_ours(group, action));
        if !is_ours && member.state != MemberState::InService {
            return;
        }
        let Some(deadline) = self.deadline(world, id, group, member) else {
            let text = format!("{} of {id} is forced, and there is no deadline", pod.pod.in_words());
            self.break_it(world, "5 nothing is forced before its time", text);
            return;
        };
        // Of spot the margin counts for pods, though not for the answer.
        let margins = self.policy.deadline_margin * 2;
        let first = deadline - margins - pod.grace;
        if world.now() < first {
            let text = format!(
                "{} of {id} is forced with {grace:?}, {:?} early",
                pod.pod.in_words(),
                world.now().until(first)
            );
            self.break_it(world, "5 nothing is forced before its time", text);
        }
    }
}

/// The newest before a moment that AWS took.
fn last_heartbeat_before(
    world: &World,
    id: &InstanceId,
    hook: &HookName,
    before: Timestamp,
) -> Option<Timestamp> {
    let told = format!("{hook} of {id} gets a heartbeat");
    let mut story = world.story.iter().rev();
    story.find(|(at, line)| *at <= before && *line == told).map(|(at, _)| *at)
}
