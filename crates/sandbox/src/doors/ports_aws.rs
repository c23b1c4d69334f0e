//! Door one, the AWS half: the engine's ports on a world in this process.

mod queue;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use offramp_core::{
    AccountRegion, Group, GroupName, HookKey, HookSpec, InstanceId, LifecycleState, Membership, Outcome,
    TargetGroupArn, TargetHealth, Timestamp,
};
use offramp_engine::{
    Fault, GroupCall, Groups, Sessions, TargetCall, TargetGroupSettings, TargetState, Targets,
};

use crate::witness::WorkerCall;
use crate::world::balancers;
use crate::world::groups::{self, ActionResult, ActivityStatus, Answer, MemberState, Transition};
use crate::{Sandbox, World};

pub use queue::QueueDoor;

#[async_trait]
impl Groups for Sandbox {
    async fn instances(&self, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Membership>, Fault> {
        // DescribeAutoScalingInstances takes 50 ids.
        if ids.len() > 50 {
            let text = format!("describing {} instances: at most 50 at once", ids.len());
            return Err(Fault::Invalid(text));
        }
        let look = |world: &mut World| {
            let known = ids.iter().filter_map(|id| {
                let described = world.groups.describe(id, world.now())?;
                Some((id.clone(), membership(described)))
            });
            known.collect()
        };
        self.call("autoscaling.DescribeAutoScalingInstances", false, look).await
    }

    async fn group(&self, name: &GroupName) -> Result<Option<Group>, Fault> {
        // Two calls, as on AWS: the hooks are not part of the group.
        let look = |world: &mut World| {
            let (group, now) = (world.groups.get(name)?, world.now());
            let described = |id| Some((id, membership(world.groups.describe(id, now)?)));
            let members = group.members.keys().filter_map(described);
            let leaving = members.filter(|(_, member)| member.state.is_leaving()).map(|(id, _)| id.clone());
            Some((group.spec.clone(), leaving.collect()))
        };
        let read = self.call("autoscaling.DescribeAutoScalingGroups", false, look).await?;
        let Some((spec, leaving)) = read else {
            return Ok(None);
        };
        let look = |world: &mut World| {
            let seen = !world.forgets_hooks(name);
            world.groups.get(name).filter(|_| seen).map(|group| group.spec.hooks.clone())
        };
        let hooks = self.call("autoscaling.DescribeLifecycleHooks", false, look).await?.unwrap_or_default();
        let terminating = hooks.into_iter().filter(|hook| hook.transition == Transition::Terminating);
        Ok(Some(Group {
            in_scope: spec.is_in_scope(),
            name: spec.name,
            terminate_hooks: terminating.map(hook_spec).collect(),
            capacity_rebalancing: spec.capacity_rebalancing,
            managed: spec.tags.contains_key("eks:nodegroup-name"),
            target_groups: spec.target_groups,
            leaving,
        }))
    }

    async fn out_of_service(&self) -> Result<Vec<(InstanceId, Membership)>, Fault> {
        let look = |world: &mut World| {
            let described = world.groups.described(world.now()).into_iter();
            let in_scope =
                |name: &GroupName| world.groups.get(name).is_some_and(|group| group.spec.is_in_scope());
            let described = described.filter(|(_, described)| in_scope(&described.group));
            let members = described.map(|(id, described)| (id, membership(described)));
            members.filter(|(_, member)| member.state != LifecycleState::InService).collect()
        };
        // One page on AWS up to 100 groups, which is more than any world has.
        self.call("autoscaling.DescribeAutoScalingGroups", false, look).await
    }

    async fn terminations(&self, group: &GroupName) -> Result<BTreeMap<InstanceId, Timestamp>, Fault> {
        let look = |world: &mut World| {
            let activities = world.groups.activities(Some(group), world.now());
            // Two pages of 100, as at the real service.
            let activities = activities.into_iter().take(200);
            let open = activities.filter(|(_, status)| *status != ActivityStatus::Successful);
            open.map(|(activity, _)| (activity.instance.clone(), activity.started)).collect()
        };
        self.call("autoscaling.DescribeScalingActivities", false, look).await
    }

    async fn perform(&self, calls: &[GroupCall]) -> Vec<Result<Outcome, Fault>> {
        let mut answers = Vec::with_capacity(calls.len());
        for call in calls {
            let name = match call {
                GroupCall::Heartbeat(..) => "autoscaling.RecordLifecycleActionHeartbeat",
                GroupCall::CompleteHook(..) => "autoscaling.CompleteLifecycleAction",
                GroupCall::Detach(..) => "autoscaling.DetachInstances",
                GroupCall::TerminateThroughGroup(..) => "autoscaling.TerminateInstanceInAutoScalingGroup",
            };
            let answer = self.call(name, true, |world| perform(world, call)).await;
            answers.push(answer.and_then(|settled| settled));
        }
        answers
    }
}

#[async_trait]
impl Targets for Sandbox {
    async fn settings(&self, group: &TargetGroupArn) -> Result<Option<TargetGroupSettings>, Fault> {
        let look = |world: &mut World| {
            world.balancers.get(group).map(|group| TargetGroupSettings {
                balancer: group.kind,
                cross_zone: group.cross_zone,
                deregistration_delay: group.deregistration_delay,
            })
        };
        self.call("elasticloadbalancing.DescribeTargetGroups", false, look).await
    }

    async fn health(&self, group: &TargetGroupArn) -> Result<Option<Vec<TargetState>>, Fault> {
        let look = |world: &mut World| {
            world.balancers.get(group).map(|group| {
                // Instance targets are listed without their zone (ELBv2 API, TargetDescription).
                let target = |((instance, port), target): (&(InstanceId, u16), &balancers::Target)| {
                    let (instance, port) = (instance.clone(), *port);
                    TargetState { instance, port, zone: None, health: health(target) }
                };
                group.targets.iter().map(target).collect()
            })
        };
        self.call("elasticloadbalancing.DescribeTargetHealth", false, look).await
    }

    async fn perform(&self, calls: &[TargetCall]) -> Vec<Result<Outcome, Fault>> {
        let name = match calls.first() {
            Some(TargetCall::Deregister(_)) => "elasticloadbalancing.DeregisterTargets",
            Some(TargetCall::Register(_)) => "elasticloadbalancing.RegisterTargets",
            None => return Vec::new(),
        };
        // One call on AWS, which works as a whole or not at all.
        let effect = |world: &mut World| -> Vec<_> {
            let settle = |call: &TargetCall| {
                world.show(WorkerCall::Target(call));
                let done = match call {
                    TargetCall::Deregister(key) => {
                        world.deregister_targets(&key.group, &[(key.instance.clone(), key.port)])
                    }
                    TargetCall::Register(key) => {
                        world.register_targets(&key.group, &[(key.instance.clone(), key.port)])
                    }
                };
                // Neither a target group nor an instance that is gone will come back.
                Ok(if done.is_ok() { Outcome::Done } else { Outcome::Gone })
            };
            calls.iter().map(settle).collect()
        };
        match self.call(name, true, effect).await {
            Ok(answers) => answers,
            Err(fault) => vec![Err(fault); calls.len()],
        }
    }
}

impl Sessions for Sandbox {
    fn groups(&self, account_region: &AccountRegion) -> Result<Arc<dyn Groups>, Fault> {
        self.check(account_region)?;
        Ok(Arc::new(self.clone()))
    }

    fn targets(&self, account_region: &AccountRegion) -> Result<Arc<dyn Targets>, Fault> {
        self.check(account_region)?;
        Ok(Arc::new(self.clone()))
    }
}

impl Sandbox {
    /// There is one account with one Region. An event that names neither is from here.
    fn check(&self, account_region: &AccountRegion) -> Result<(), Fault> {
        let (account, region) =
            self.peek(|world| (world.events.account.clone(), world.events.region.clone()));
        if account_region.account.as_ref().is_some_and(|wanted| *wanted != account)
            || account_region.region.as_ref().is_some_and(|wanted| *wanted != region)
        {
            return Err(Fault::Denied(format!(
                "no credentials for {account_region:?}: the sandbox is {account} {region}"
            )));
        }
        Ok(())
    }
}

fn perform(world: &mut World, call: &GroupCall) -> Result<Outcome, Fault> {
    world.show(WorkerCall::Group(call));
    let done = match call {
        GroupCall::Heartbeat(id, key) => world.heartbeat(&answer(id, key)),
        GroupCall::CompleteHook(id, key) => world.complete_action(&answer(id, key), ActionResult::Continue),
        GroupCall::Detach(id, group) => world.detach(group, std::slice::from_ref(id), false),
        GroupCall::TerminateThroughGroup(id, _) => world.terminate_in_group(id, false),
    };
    use groups::Refusal;
    match done {
        Ok(()) => Ok(Outcome::Done),
        // Already on its way out, or out: what was asked for is so (`aws.md` 3).
        Err(Refusal::NotInService(_) | Refusal::NotPartOf(..)) => Ok(Outcome::Done),
        Err(
            Refusal::NoActionOf(_) | Refusal::NoActionWith(_) | Refusal::NoGroup(_) | Refusal::NoMember(_),
        ) => Ok(Outcome::Gone),
        Err(
            refusal @ (Refusal::NothingNamed
            | Refusal::NoHook(_)
            | Refusal::BelowMinimum(_)
            | Refusal::AboveMaximum(..)
            | Refusal::UnderMinimum(..)
            | Refusal::MinimumAboveMaximum(..)),
        ) => Err(Fault::Invalid(refusal.to_string())),
    }
}

fn answer(id: &InstanceId, key: &HookKey) -> Answer {
    let instance = key.token.is_none().then(|| id.clone());
    Answer { group: key.group.clone(), hook: key.name.clone(), token: key.token.clone(), instance }
}

fn membership(described: groups::Described) -> Membership {
    let state = match described.state {
        MemberState::InService => LifecycleState::InService,
        MemberState::Terminating => LifecycleState::Terminating,
        MemberState::TerminatingWait => LifecycleState::TerminatingWait,
        MemberState::TerminatingProceed => LifecycleState::TerminatingProceed,
        MemberState::WarmedPendingWait => LifecycleState::WarmedPendingWait,
        MemberState::WarmedPendingProceed | MemberState::WarmedStopped => LifecycleState::Warmed,
        MemberState::Pending
        | MemberState::Detaching
        | MemberState::TerminatingRetained
        | MemberState::WarmedPending => LifecycleState::Other(described.state.as_str().to_owned()),
    };
    Membership { group: described.group, state, healthy: described.healthy, pooled: false }
}

fn hook_spec(hook: groups::Hook) -> HookSpec {
    let global_timeout = hook.global_timeout();
    HookSpec {
        name: hook.name,
        heartbeat_timeout: hook.heartbeat_timeout,
        global_timeout,
        cluster_hint: hook.metadata.as_deref().and_then(offramp_wire::cluster_hint),
    }
}

const fn health(target: &balancers::Target) -> TargetHealth {
    match target.state {
        balancers::TargetState::Initial => TargetHealth::Initial,
        balancers::TargetState::Healthy => TargetHealth::Healthy,
        balancers::TargetState::Unhealthy => TargetHealth::Unhealthy,
        balancers::TargetState::Draining { .. } => TargetHealth::Draining,
    }
}

#[cfg(test)]
mod tests;
