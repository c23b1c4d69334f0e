//! The invariants, as far as a world can see them: each call of the worker at the moment before it takes
//! effect, and what is left in the end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offramp_core::{
    ClusterName, Hook, HookKey, InstanceId, NodeName, Notice, NoticeKind, PodRef, Policy, SpotAction,
    TargetKey, Timestamp, Trigger, hook_is_ours,
};
use offramp_engine::{ClusterCall, GroupCall, InWords, TargetCall, trigger_name};
use offramp_sandbox::World;
use offramp_sandbox::witness::WorkerCall;
use offramp_sandbox::world::balancers::TargetState;
use offramp_sandbox::world::cluster::{Cluster, EXCLUDE_LABEL, Node, Pod};
use offramp_sandbox::world::groups::{Group, LifecycleAction, Member, MemberState};
use offramp_sandbox::world::instances::InstanceState;
use offramp_sandbox::world::queue::Stored;
use offramp_wire::{Parsed, parse};

use super::lookups::{
    RECORD, bodies, instance, is_daemon, is_finished, is_running, is_shown, member, members, node_of,
    nodeless, nodes, pod_in, pods_left, record, stays_in_service, targets_left, whole_seconds,
};
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
    policy: Policy,
    pub(crate) broken: Vec<Broken>,
    /// Nodes that somebody else has cordoned.
    pub(crate) cordoned_by_hand: BTreeSet<NodeName>,
    /// Answers to calls may have been lost.
    pub(crate) faulty: bool,
    /// A worker that starts looks for hooks before it has received its messages: as with lost events.
    pub(crate) restarted: bool,
    /// Events were lost: of a hook that is found by looking, the worker knows when its group began to terminate the
    /// instance, which is earlier.
    pub(crate) lost_events: bool,
    /// Messages were lost: what they spoke of stays until the sweep finds it.
    pub(crate) lost_messages: bool,
    /// When Node objects were deleted under a machine that goes on.
    pub(crate) deleted_nodes: BTreeMap<NodeName, Timestamp>,
    /// Clusters whose API server refused changes of nodes.
    pub(crate) nodes_refused: BTreeSet<ClusterName>,
    /// Unparseable bodies that were sent.
    pub(crate) garbage: BTreeSet<String>,
    /// Members whose deadline had come when their first hook was answered.
    late: BTreeMap<InstanceId, Timestamp>,
}

/// A worker acts on what it has read a moment ago: an answer lives for a second, a call may be slow by
/// five, and what is described lags behind on top of that.
const READ_AGO: Duration = seconds(12);

impl Checks {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            broken: Vec::new(),
            cordoned_by_hand: BTreeSet::new(),
            faulty: false,
            restarted: false,
            lost_events: false,
            lost_messages: false,
            deleted_nodes: BTreeMap::new(),
            nodes_refused: BTreeSet::new(),
            garbage: BTreeSet::new(),
            late: BTreeMap::new(),
        }
    }

    /// Looks at a call before it is done.
    pub(crate) fn saw(&mut self, world: &World, call: WorkerCall<'_>) {
        match call {
            WorkerCall::Group(GroupCall::CompleteHook(id, key)) => self.saw_answer(world, id, key),
            WorkerCall::Group(GroupCall::Heartbeat(id, key)) => self.saw_foreign_hook(world, id, key),
            WorkerCall::Group(GroupCall::Detach(id, _) | GroupCall::TerminateThroughGroup(id, _)) => {
                self.saw_end_of_membership(world, id);
            }
            WorkerCall::Target(TargetCall::Deregister(target)) => self.saw_deregistration(world, target),
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
        if dead != self.garbage {
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
        let group = world.groups.get(&world.groups.describe(id, at)?.group)?;
        let found = group.spec.hooks.iter().find(|one| one.name.as_str() == hook)?;
        let hint = found.metadata.as_deref().map(ClusterName::new);
        hook_is_ours(&found.name, hint.as_ref(), &self.policy).then_some(found.heartbeat_timeout)
    }

    /// Whether a hook is ours, by what the group says about it.
    pub(crate) fn action_is_ours(&self, group: &Group, action: &LifecycleAction) -> bool {
        let hook = group.spec.hooks.iter().find(|hook| hook.name == action.hook);
        let hint = hook.and_then(|hook| hook.metadata.as_deref()).map(ClusterName::new);
        hook_is_ours(&action.hook, hint.as_ref(), &self.policy)
    }

    /// Invariant 1: nothing that can be evicted and no target is left, or the deadline has come.
    fn saw_answer(&mut self, world: &World, id: &InstanceId, key: &HookKey) {
        self.saw_foreign_hook(world, id, key);
        let Some((group, member)) = member(world, id) else { return };
        let open = |action: &LifecycleAction| {
            action.hook == key.name && key.token.as_ref().is_none_or(|token| *token == action.token)
        };
        if !member.actions.iter().any(open) || !is_running(world, id) {
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
        let opened = member.actions.iter().filter_map(|action| opened(group, action)).min();
        let made_before = opened.filter(|_| self.may_be_unwritten(world, id)).unwrap_or(now);
        let mut pods = if is_shown(world, id) { pods_left(world, id, made_before) } else { Vec::new() };
        pods.extend(self.pods_without_node(world, id));
        // Behind a controller that puts targets back nothing stays as it was read.
        let targets = if self.may_be_unwritten(world, id) { Vec::new() } else { targets_left(world, id) };
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
    fn may_be_unwritten(&self, world: &World, id: &InstanceId) -> bool {
        let cluster = instance(world, id).and_then(|instance| instance.cluster.as_ref());
        cluster.is_some_and(|cluster| self.nodes_refused.contains(cluster))
    }

    /// Pods of a machine whose node was deleted under it: they have their grace from then on.
    fn pods_without_node(&self, world: &World, id: &InstanceId) -> Vec<String> {
        let nodeless = world.clusters.values().find_map(|cluster| Some((cluster, nodeless(cluster, id)?)));
        let Some((cluster, machine)) = nodeless else { return Vec::new() };
        let Some(deleted) = self.deleted_nodes.get(&machine.name) else { return Vec::new() };
        let pods = cluster.pods_of_node(&machine.name).filter(|pod| !is_daemon(pod) && !is_finished(pod));
        let runs = pods.filter(|pod| pod.created < *deleted && world.now() < *deleted + pod.grace);
        runs.map(|pod| pod.pod.in_words()).collect()
    }

    /// The earliest end of any open hook of ours or of the spot notice: the moment of the end itself,
    /// without a margin.
    fn deadline(&self, world: &World, id: &InstanceId, group: &Group, member: &Member) -> Option<Timestamp> {
        let activities = world.groups.activities(Some(&group.spec.name), world.now());
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
            // AWS took a heartbeat, and the worker never heard of it: it counts on the first timeout.
            if self.faulty && world.now() < first { end.min(first) } else { end }
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
        if let Some(cluster) = cluster.filter(|cluster| !self.policy.clusters.contains(cluster)) {
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
        if !node.unschedulable && !self.nodes_refused.contains(name) {
            let text = format!("node {} takes new pods while {} is evicted", node.name, pod.pod.in_words());
            self.break_it(world, "4 a drain begins with the cordon", text);
        }
        if is_daemon(pod) {
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
        let Some(deadline) = self.deadline(world, id, group, member) else {
            let text = format!("{} of {id} is forced, and there is no deadline", pod.pod.in_words());
            self.break_it(world, "5 nothing is forced before its time", text);
            return;
        };
        // Of spot the margin counts for pods, though not for the answer.
        let first = deadline - self.policy.deadline_margin - self.policy.deadline_margin - pod.grace;
        if world.now() < first {
            let text = format!(
                "{} of {id} is forced with {grace:?}, {:?} early",
                pod.pod.in_words(),
                world.now().until(first)
            );
            self.break_it(world, "5 nothing is forced before its time", text);
        }
    }

    /// Invariant 2: nothing is owed for a message that goes.
    fn saw_delete(&mut self, world: &World, message: &Stored) {
        match parse(&message.body) {
            Err(_) => {
                if !bodies(world, DEAD_LETTERS).contains(&message.body) {
                    let text = format!("unread and not dead-lettered: {}", message.body);
                    self.break_it(world, "2 a message goes last", text);
                }
            }
            Ok(Parsed::Ignored(_) | Parsed::Later) => {}
            Ok(Parsed::Notices(notices)) => {
                for notice in notices {
                    if let Some(owed) = self.owed(world, &notice) {
                        let text = format!(
                            "the {} message of {} goes, but {owed}",
                            trigger_name(Trigger::of(&notice.kind)),
                            notice.instance
                        );
                        self.break_it(world, "2 a message goes last", text);
                    } else {
                        self.look_for_remains(world, message, &notice);
                    }
                }
            }
        }
    }

    /// What is still owed for a notice.
    fn owed(&self, world: &World, notice: &Notice) -> Option<String> {
        let id = &notice.instance;
        let known = instance(world, id)?;
        let served = known.cluster.as_ref().is_some_and(|cluster| self.policy.clusters.contains(cluster));
        if !served || known.state != InstanceState::Running {
            let open =
                served && matches!(&notice.kind, NoticeKind::Hook(hook) if self.is_open(world, id, hook));
            return open.then(|| "its hook is open".to_owned());
        }
        let away = known.cluster.as_ref().and_then(|name| world.clusters.get(name));
        let away = away.is_some_and(|cluster| cluster.is_away(world.now()));
        match &notice.kind {
            NoticeKind::Hook(hook) => self.is_open(world, id, hook).then(|| "its hook is open".to_owned()),
            NoticeKind::Spot(_) | NoticeKind::CapacityReservation => {
                if world.now() > notice.at + seconds(120) || self.may_be_unwritten(world, id) {
                    return None;
                }
                let (_, node) = node_of(world, id).filter(|_| is_shown(world, id))?;
                if !node.unschedulable || record(node).is_none() || !node.labels.contains_key(EXCLUDE_LABEL) {
                    return Some(format!("node {} is not isolated (API server away: {away})", node.name));
                }
                if targets_left(world, id).iter().any(|left| !left.contains("Draining")) {
                    return Some(format!("it is a target: {:?}", targets_left(world, id)));
                }
                let pods = pods_left(world, id, world.now());
                let drains = notice.kind != NoticeKind::Spot(SpotAction::Hibernate);
                (drains && !pods.is_empty()).then(|| format!("pods are left: {pods:?}"))
            }
            NoticeKind::Record => None,
            NoticeKind::Rebalance => {
                // In no cluster it is foreign.
                let (group, member) = member(world, id).filter(|_| is_shown(world, id))?;
                let waits = !group.spec.capacity_rebalancing
                    && self.policy.rebalance != offramp_core::RebalancePolicy::None
                    && member.state == MemberState::InService
                    && known.interrupted_at.is_none()
                    && world.now() < notice.at + self.policy.patience;
                waits.then(|| "patience is not over".to_owned())
            }
        }
    }

    fn is_open(&self, world: &World, id: &InstanceId, hook: &Hook) -> bool {
        let ours = hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), &self.policy);
        let Some((_, member)) = member(world, id).filter(|_| ours) else { return false };
        let open = |action: &LifecycleAction| {
            action.hook == hook.key.name && hook.key.token.as_ref().is_none_or(|token| *token == action.token)
        };
        member.state == MemberState::TerminatingWait && member.actions.iter().any(open)
    }

    /// Invariant 8: with the last message about an instance in service goes what was done for it.
    fn look_for_remains(&mut self, world: &World, message: &Stored, notice: &Notice) {
        let id = &notice.instance;
        let stays = instance(world, id).is_some_and(stays_in_service)
            && member(world, id).is_some_and(|(_, member)| member.state == MemberState::InService);
        let Some((_, node)) = node_of(world, id).filter(|_| stays && !self.lost_messages) else { return };
        let others = world.queues.get(QUEUE).into_iter().flat_map(|queue| queue.messages());
        let last =
            !others.filter(|other| other.id != message.id).any(|other| other.body.contains(id.as_str()));
        if last && record(node).is_some() {
            let text = format!("the last message of {id} goes, and node {} has the record", node.name);
            self.break_it(world, "8 what was done is undone", text);
        }
    }

    /// Invariant 8: a node that stays is as it was.
    fn look_at_node(&mut self, world: &World, cluster: &Cluster, node: &Node) {
        let id = &node.instance;
        // A worker takes it for the machine that it names.
        if !node.claims(id) {
            return;
        }
        // To its balancers a node that is not Ready is none.
        let Some(known) = instance(world, id).filter(|known| stays_in_service(known) && node.ready) else {
            return;
        };
        let Some((group, Member { state: MemberState::InService, .. })) = member(world, id) else { return };
        let by_hand = self.cordoned_by_hand.contains(&node.name);
        let labelled = node.labels.contains_key(EXCLUDE_LABEL);
        if record(node).is_some() || labelled || node.unschedulable != by_hand {
            let text = format!(
                "node {} of {id} stays, cordoned: {} (by hand: {by_hand}), labelled: {labelled}, record: {:?}",
                node.name,
                node.unschedulable,
                node.annotations.get(RECORD)
            );
            self.break_it(world, "8 what was done is undone", text);
        }
        let attached = group.spec.target_groups.iter();
        let filled = cluster.services.values().filter_map(|service| service.target_group.as_ref());
        for target_group in attached.chain(filled).filter_map(|arn| world.balancers.get(arn)) {
            let target = target_group.targets.get(&(known.id.clone(), target_group.port));
            if target.is_none_or(|target| matches!(target.state, TargetState::Draining { .. })) {
                let text = format!("{id} stays and is no target of {}", target_group.name);
                self.break_it(world, "8 what was done is undone", text);
            }
        }
    }
}

/// When an action began.
fn opened(group: &Group, action: &LifecycleAction) -> Option<Timestamp> {
    let hook = group.spec.hooks.iter().find(|hook| hook.name == action.hook)?;
    Some(action.global_until - hook.global_timeout())
}
