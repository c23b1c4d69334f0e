//! What must not be left when a message goes, and in the end.

use std::time::Duration;

use offramp_core::{Hook, InstanceId, Notice, NoticeKind, SpotAction, Trigger, hook_is_ours};
use offramp_engine::trigger_name;
use offramp_sandbox::World;
use offramp_sandbox::world::balancers::TargetState;
use offramp_sandbox::world::cluster::{Cluster, EXCLUDE_LABEL, Node};
use offramp_sandbox::world::groups::{LifecycleAction, Member, MemberState};
use offramp_sandbox::world::instances::InstanceState;
use offramp_sandbox::world::queue::Stored;
use offramp_wire::{Parsed, parse};

use super::checks::{Checks, DEAD_LETTERS, QUEUE};
use super::lookups::{
    RECORD, bodies, instance, is_shown, member, node_of, pods_left, record, stays_in_service, targets_left,
};
use super::others::has_label_of_others;
use super::script::seconds;

/// So long a recommendation is kept for a cluster that cannot say whether it has the instance.
const UNSURE: Duration = seconds(600);

/// Nothing is left but records of nodes that name another one's instance: they are looked at once an hour, and left
/// isolated each time (seed 3663).
pub(crate) fn waits_for_twins(world: &World) -> bool {
    let waits = |body: &String| match parse(body) {
        Ok(Parsed::Notices(notices)) => notices
            .iter()
            .all(|notice| notice.kind == NoticeKind::Record && is_named_twice(world, &notice.instance)),
        Ok(Parsed::Ignored(_) | Parsed::Later) | Err(_) => false,
    };
    let left = bodies(world, QUEUE);
    !left.is_empty() && left.iter().all(waits)
}

/// Nobody knows which node is the instance's: two that are Ready in one cluster name it, or nodes with a record in several.
fn is_named_twice(world: &World, id: &InstanceId) -> bool {
    let named = |cluster: &Cluster, counts: fn(&Node) -> bool| {
        cluster.nodes.values().filter(|node| node.claims(id) && counts(node)).count()
    };
    let has_twins = |cluster: &Cluster| named(cluster, |node| node.ready) > 1;
    let has_record = |cluster: &&Cluster| named(cluster, |node| record(node).is_some()) > 0;
    world.clusters.values().any(has_twins) || world.clusters.values().filter(has_record).count() > 1
}

impl Checks {
    /// Invariant 2: nothing is owed for a message that goes.
    pub(crate) fn saw_delete(&mut self, world: &World, message: &Stored) {
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
        let known = instance(world, id).filter(|known| !has_label_of_others(known))?;
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
                if self.is_just_laid_bare(world, node) || self.is_just_put_back(world, id) {
                    return None;
                }
                if !node.unschedulable || record(node).is_none() || !node.labels.contains_key(EXCLUDE_LABEL) {
                    return Some(format!("node {} is not isolated (API server away: {away})", node.name));
                }
                if targets_left(world, id).iter().any(|left| !left.contains("Draining")) {
                    return Some(format!("it is a target: {:?}", targets_left(world, id)));
                }
                // In no group, without a kubelet and without targets it counts as ended (seed 90391). The worker that has
                // detached it knows why it is in no group; another one does not.
                let is_silent = !node.ready && world.now() >= node.ready_since + seconds(60);
                let detached_at = self.detached.get(id);
                let changes = || self.starts.iter().chain(&self.ends);
                let knows = detached_at.is_some_and(|at| changes().all(|change| change < at));
                let pods = match member(world, id) {
                    None if is_silent && !knows => Vec::new(),
                    _ => pods_left(world, id, world.now()),
                };
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
                // After ten minutes no cluster is waited for, and the sweep looks after the record (seed 1786).
                let given_up = away && world.now() >= notice.at + UNSURE;
                (waits && !given_up).then(|| "patience is not over".to_owned())
            }
        }
    }

    fn is_open(&self, world: &World, id: &InstanceId, hook: &Hook) -> bool {
        let ours = hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), &self.policy);
        let Some((_, member)) = member(world, id).filter(|_| ours) else { return false };
        let open = |action: &LifecycleAction| {
            action.hook == hook.key.name && hook.key.token.as_ref().is_none_or(|token| *token == action.token)
        };
        let held = [MemberState::TerminatingWait, MemberState::WarmedPendingWait];
        held.contains(&member.state) && member.actions.iter().any(open)
    }

    /// Invariant 8: with the last message about an instance in service goes what was done for it.
    fn look_for_remains(&mut self, world: &World, message: &Stored, notice: &Notice) {
        let id = &notice.instance;
        let stays = instance(world, id).is_some_and(stays_in_service)
            && member(world, id).is_some_and(|(_, member)| member.state == MemberState::InService);
        let Some((cluster, node)) = node_of(world, id).filter(|_| stays && !self.lost_messages) else {
            return;
        };
        // What comes back from a warm pool has its old record, until the sweep looks (seed 3565).
        let pooled =
            member(world, id).is_some_and(|(group, _)| world.groups.warm_pools.contains(&group.spec.name));
        if cluster.is_away(world.now()) || pooled {
            return;
        }
        let others = world.queues.get(QUEUE).into_iter().flat_map(|queue| queue.messages());
        let last =
            !others.filter(|other| other.id != message.id).any(|other| other.body.contains(id.as_str()));
        // Where nobody could read the group, the record says how it ended, and the sweep looks again (seed 22166).
        let text = node.annotations.get(RECORD).map_or("", String::as_str);
        let has_ended = text.matches("\"ended\"").count() >= text.matches("\"kind\"").count();
        if last && record(node).is_some() && !has_ended {
            let text = format!("the last message of {id} goes, and node {} has the record", node.name);
            self.break_it(world, "8 what was done is undone", text);
        }
    }

    /// The API server was away, and after ten minutes a recommendation is waited for no longer (seed 8279).
    fn is_left_to_the_sweep(&self, cluster: &Cluster, node: &Node) -> bool {
        let kinds = node.annotations.get(RECORD).map_or("", String::as_str).split("\"kind\":\"").skip(1);
        self.were_away.contains(&cluster.name)
            && kinds.clone().count() > 0
            && kinds.clone().all(|kind| kind.starts_with("rebalance"))
    }

    /// Invariant 8: a node that stays is as it was.
    pub(crate) fn look_at_node(&mut self, world: &World, cluster: &Cluster, node: &Node) {
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
        if self.wiped.contains(&node.name) && record(node).is_none()
            || is_named_twice(world, id)
            || self.is_left_to_the_sweep(cluster, node)
        {
            return;
        }
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
