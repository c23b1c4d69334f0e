//! The stages of a goal, each one function: is it true, and if not, what would make it so.

use std::collections::BTreeSet;

use crate::deadline::{Heartbeat, heartbeat, pause_of};
use crate::eviction;
use crate::gate;
use crate::scene::{Scene, is_registered};
use crate::{
    Action, Hook, HookSpec, LifecycleState, Node, NodeOwner, Notice, NoticeKind, Reason, Record, Seen,
    TargetHealth, TargetKey, Timestamp, hook_is_ours,
};

/// What a stage says.
#[derive(Debug)]
pub(crate) enum Answer {
    /// Its condition holds, or nothing in this job asks for it.
    Done,
    /// It does not hold: what to do now (possibly nothing), when to look again, and why.
    Open { actions: Vec<Action>, wake_at: Option<Timestamp>, reason: Reason },
}

pub(crate) fn wait(until: Timestamp, reason: Reason) -> Answer {
    Answer::Open { actions: Vec::new(), wake_at: Some(until), reason }
}

fn todo(actions: Vec<Action>, reason: Reason) -> Answer {
    Answer::Open { actions, wake_at: None, reason }
}

/// Cordon and record (for spot the exclude label too) are on the node, or there is no node.
pub(crate) fn isolate(scene: &Scene<'_>) -> Answer {
    match &scene.case.seen.node {
        Seen::Gone => Answer::Done,
        Seen::Unknown => wait(scene.recheck(), Reason::NodeUnknown),
        Seen::Known(node) if scene.is_isolated(node) => Answer::Done,
        Seen::Known(node) => {
            let exclude = scene.spot().is_some();
            let record = Record {
                cordoned: node.record.as_ref().is_some_and(|r| r.cordoned) || !node.cordoned,
                excluded: node.record.as_ref().is_some_and(|r| r.excluded) || (exclude && !node.excluded),
                ..scene.record(node)
            };
            todo(
                vec![Action::Isolate { exclude, record, guard: node.resource_version.clone() }],
                Reason::Isolating,
            )
        }
    }
}

/// The exclude label is on the node, and no load balancer sends new requests.
pub(crate) fn deregister(scene: &Scene<'_>) -> Answer {
    if scene.hook().is_none() && scene.spot().is_none() && !scene.hibernates() {
        return Answer::Done;
    }
    let Some(labelled) = scene.ready_for_writes() else {
        return wait(scene.recheck(), Reason::Isolating);
    };
    if let Some(answer) = gated(scene) {
        return answer;
    }
    if scene.case.seen.target_groups == Seen::Unknown {
        return wait(scene.recheck(), Reason::TargetsUnknown);
    }
    let registered = scene.registered();
    if let (true, Seen::Known(node)) = (labelled, &scene.case.seen.node) {
        // What spot deregistered while the node could not be written is named as soon as it can be.
        let ours = scene.case.job.memory.deregistered.union(&registered).cloned();
        let targets: BTreeSet<TargetKey> = ours.collect();
        let names = |record: &Record| record.is_foreign() || targets.is_subset(&record.targets);
        let named = node.record.as_ref().is_some_and(names);
        if !node.excluded || !named {
            let mut record = scene.record(node);
            record.excluded |= !node.excluded;
            record.targets.extend(targets);
            let reason = Reason::Deregistering { targets: record.targets.len(), unlabelled: false };
            return todo(vec![Action::Exclude { record, guard: node.resource_version.clone() }], reason);
        }
    }
    let leaving = &scene.case.job.memory.draining_since;
    let calls: Vec<Action> =
        registered.iter().filter(|key| !leaving.contains_key(key)).cloned().map(Action::Deregister).collect();
    if !calls.is_empty() {
        let reason = Reason::Deregistering { targets: calls.len(), unlabelled: !labelled };
        return todo(calls, reason);
    }
    if scene.case.seen.unread_target_groups > 0 {
        return wait(scene.recheck(), Reason::TargetsUnknown);
    }
    match scene.traffic_until() {
        // A machine that has ended answers nobody, whatever the balancers send.
        Some(until) if until > scene.case.now && !scene.ended => {
            wait(until, Reason::Propagating { left: scene.case.now.until(until) })
        }
        Some(_) | None => Answer::Done,
    }
}

/// The gate holds a hook back for a while. It does not hold spot, which has no time to give.
fn gated(scene: &Scene<'_>) -> Option<Answer> {
    if scene.spot().is_some() || scene.hibernates() || scene.ended {
        return None;
    }
    let Seen::Known(node) = &scene.case.seen.node else { return None };
    let since = node.record.as_ref().map_or(scene.case.now, |record| record.since);
    let asked = scene.hooks().map(|(notice, _)| notice.at).min()?;
    let until = asked + scene.case.policy.gate_limit;
    let group = gate::closed_by(&scene.case.job.instance, since, scene.case.seen)?;
    (scene.case.now < until).then(|| {
        let reason = Reason::GateClosed { group: group.clone(), left: scene.case.now.until(until) };
        wait(scene.recheck().min(until), reason)
    })
}

/// No evictable pod is left on the node.
pub(crate) fn drain(scene: &Scene<'_>, quiet: bool) -> Answer {
    if (scene.hook().is_none() && scene.spot().is_none()) || scene.ended {
        return Answer::Done;
    }
    let node = match &scene.case.seen.node {
        Seen::Gone => return Answer::Done,
        Seen::Unknown => return wait(scene.recheck(), Reason::PodsUnknown),
        Seen::Known(node) if !scene.is_isolated(node) => return wait(scene.recheck(), Reason::Isolating),
        Seen::Known(node) => node,
    };
    let pods = match &scene.case.seen.pods {
        Seen::Gone => return Answer::Done,
        Seen::Unknown => return wait(scene.recheck(), Reason::PodsUnknown),
        Seen::Known(pods) => pods,
    };
    let plan = eviction::plan(pods, quiet, scene.deadline, scene.case);
    if plan.left.running + plan.left.ending == 0 {
        let settled =
            node.record.as_ref().map_or(scene.case.now, |record| record.since) + scene.case.policy.settle;
        return if settled > scene.case.now { wait(settled, Reason::Settling) } else { Answer::Done };
    }
    let mut actions = plan.actions;
    if plan.heartbeat_first {
        // Those that have been heard need none: each that is taken would call for the next at once.
        let unheard = |hook: &Hook| {
            let calls = scene.case.job.memory.hook(&hook.key);
            calls.heard.is_none() && calls.again_at <= scene.case.now
        };
        let hooks = scene.hooks().filter(|(_, hook)| unheard(hook));
        actions.extend(hooks.map(|(_, hook)| Action::Heartbeat(hook.key.clone())));
    }
    Answer::Open { actions, wake_at: plan.wake_at, reason: Reason::Draining(plan.left) }
}

/// The group no longer counts on the instance. Only spot asks for it: a hook's instance is on its way
/// out by definition (and could not be detached).
pub(crate) fn detach(scene: &Scene<'_>) -> Answer {
    if scene.hook().is_some() || scene.spot().is_none() || scene.case.job.memory.detached {
        return Answer::Done;
    }
    let member = match &scene.case.seen.membership {
        Seen::Gone => return Answer::Done,
        Seen::Unknown => return wait(scene.recheck(), Reason::GroupUnknown),
        Seen::Known(member) if member.state != LifecycleState::InService => return Answer::Done,
        Seen::Known(member) => member,
    };
    let group = match &scene.case.seen.group {
        Seen::Gone => return Answer::Done,
        Seen::Unknown => return wait(scene.recheck(), Reason::GroupUnknown),
        Seen::Known(group) => group,
    };
    let managed_node =
        scene.case.seen.node.known().is_some_and(|node| node.owner == NodeOwner::ManagedNodeGroup);
    // The group replaces by itself, or belongs to EKS.
    if group.capacity_rebalancing || group.managed || managed_node {
        return Answer::Done;
    }
    if scene.ready_for_writes().is_none() {
        return wait(scene.recheck(), Reason::Isolating);
    }
    let is_ours = |hook: &HookSpec| hook_is_ours(&hook.name, hook.cluster_hint.as_ref(), scene.case.policy);
    let ours = group.terminate_hooks.iter().any(is_ours);
    let group_name = member.group.clone();
    let action = match (ours, group.terminate_hooks.is_empty()) {
        // Our hook holds the instance while its replacement starts two minutes earlier.
        (true, _) => Action::TerminateThroughGroup { group: group_name },
        (false, true) => Action::Detach { group: group_name },
        // With nobody's hook but other people's, a terminate could end it at once, and a detach would
        // silence their hooks.
        (false, false) => return Answer::Done,
    };
    todo(vec![action], Reason::Detaching)
}

/// Every target is `unused`. Only a hook waits for it; the spot notice has no time for a delay of 300 s.
pub(crate) fn quiesce(scene: &Scene<'_>) -> Answer {
    if scene.hook().is_none() || scene.ended {
        return Answer::Done;
    }
    if scene.case.seen.target_groups == Seen::Unknown || scene.case.seen.unread_target_groups > 0 {
        return wait(scene.recheck(), Reason::TargetsUnknown);
    }
    let busy: Vec<Option<Timestamp>> = scene
        .targets()
        .filter(|(_, target, _)| is_registered(target) || target.health == TargetHealth::Draining)
        .map(|(key, _, delay)| scene.case.job.memory.draining_since.get(&key).map(|since| *since + delay))
        .collect();
    let Some(first) = busy.iter().min() else { return Answer::Done };
    // Reading before the deregistration delay is over would only cost calls; a moment after it, the
    // answer is not one that another job has just read.
    let until = match first {
        Some(over) if *over > scene.case.now => *over + scene.case.policy.recheck / 4,
        Some(_) | None => scene.recheck(),
    };
    wait(until, Reason::Quiescing { targets: busy.len() })
}

/// Our hooks are answered, and what was announced has happened.
pub(crate) fn complete(scene: &Scene<'_>, everything_else: bool) -> Answer {
    let hooks: Vec<(&Notice, &Hook)> = scene.hooks().collect();
    if hooks.is_empty() {
        return awaiting_interruption(scene);
    }
    let late = scene.deadline.is_some_and(|deadline| deadline.answer <= scene.case.now);
    if everything_else || late {
        let (ready, paused): (Vec<_>, Vec<_>) =
            hooks.iter().partition(|(_, hook)| pause_of(&hook.key, scene.case.job) <= scene.case.now);
        return Answer::Open {
            actions: ready.iter().map(|(_, hook)| Action::CompleteHook(hook.key.clone())).collect(),
            wake_at: paused.iter().map(|(_, hook)| pause_of(&hook.key, scene.case.job)).min(),
            reason: match everything_else {
                true if hooks.iter().any(|(_, hook)| scene.is_refused(hook)) => Reason::AnswerRefused,
                true => Reason::Completing,
                false => scene.given_up(),
            },
        };
    }
    let mut wake_at = scene.deadline.map(|deadline| deadline.answer);
    let mut actions = Vec::new();
    for (notice, hook) in hooks {
        match heartbeat(notice, hook, scene.case) {
            Heartbeat::Due => actions.push(Action::Heartbeat(hook.key.clone())),
            Heartbeat::At(due) => wake_at = Some(wake_at.map_or(due, |at| at.min(due))),
            Heartbeat::Unknown => {}
        }
    }
    Answer::Open { actions, wake_at, reason: Reason::Completing }
}

/// The answers that AWS took are seen in the group, or given again until they are.
pub(crate) fn confirm(scene: &Scene<'_>) -> Answer {
    let mut actions = Vec::new();
    let mut wake_at = scene.recheck();
    for hook in scene.answered_hooks() {
        match pause_of(&hook.key, scene.case.job) {
            due if due <= scene.case.now => actions.push(Action::CompleteHook(hook.key.clone())),
            due => wake_at = wake_at.min(due),
        }
    }
    if scene.confirming.is_empty() {
        return Answer::Done;
    }
    Answer::Open { actions, wake_at: Some(wake_at), reason: Reason::Confirming }
}

fn awaiting_interruption(scene: &Scene<'_>) -> Answer {
    // What acts beside it is a spot notice: the interruption has come.
    if scene.acting.iter().any(|notice| notice.kind != NoticeKind::Rebalance) {
        return Answer::Done;
    }
    let newest = scene.acting.iter().map(|notice| notice.at).max();
    newest.map_or(Answer::Done, |at| {
        let until = at + scene.case.policy.patience;
        wait(until, Reason::AwaitingInterruption { left: scene.case.now.until(until) })
    })
}

/// The targets that the record names are registered again.
pub(crate) fn register(scene: &Scene<'_>) -> Answer {
    let seen = scene.case.seen;
    let record = seen.node.known().and_then(|node| node.record.as_ref());
    let Some(record) = record.filter(|record| !record.targets.is_empty()) else { return Answer::Done };
    let Some(groups) = seen.target_groups.known().filter(|_| seen.unread_target_groups == 0) else {
        return wait(scene.recheck(), Reason::TargetsUnknown);
    };
    let registered = scene.registered();
    // A group that was deleted meanwhile takes no targets.
    let exists = |key: &&TargetKey| groups.iter().any(|group| group.arn == key.group);
    let missing = record.targets.difference(&registered).filter(exists);
    let actions: Vec<Action> = missing.cloned().map(Action::Register).collect();
    let reason = Reason::Deregistering { targets: actions.len(), unlabelled: false };
    if actions.is_empty() { Answer::Done } else { todo(actions, reason) }
}

/// Our notices are taken out of a record that others are in: the last one out undoes what it names.
pub(crate) fn withdraw(scene: &Scene<'_>, node: &Node, record: &Record) -> Answer {
    let mut record = record.clone();
    record.notices.retain(|id| scene.case.job.notices.iter().all(|notice| notice.id != *id));
    let guard = node.resource_version.clone();
    todo(vec![Action::Isolate { exclude: false, record, guard }], Reason::Isolating)
}

/// Label, cordon and record are taken away.
pub(crate) fn release(scene: &Scene<'_>) -> Answer {
    match &scene.case.seen.node {
        Seen::Gone => Answer::Done,
        Seen::Unknown => wait(scene.recheck(), Reason::NodeUnknown),
        Seen::Known(Node { record: None, .. }) => Answer::Done,
        Seen::Known(Node { record: Some(record), resource_version, .. }) => {
            let action =
                Action::Release { record: record.clone(), resource_version: resource_version.clone() };
            todo(vec![action], Reason::Isolating)
        }
    }
}
