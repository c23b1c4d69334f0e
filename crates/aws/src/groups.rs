//! Auto Scaling in one account and Region.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::types::{
    AutoScalingGroup, AutoScalingInstanceDetails, Filter, Instance, LifecycleHook, TagDescription,
};
use offramp_core::{
    Group, GroupName, HookKey, HookName, HookSpec, HookToken, InstanceId, LifecycleState, Membership,
    Outcome, TargetGroupArn, Timestamp,
};
use offramp_engine::{Call, Fault, GroupCall, Groups};
use offramp_wire::cluster_hint;

use crate::activities;
use crate::fault::{Reading, Refusal};
use crate::meter::Meter;
use crate::split::{Whole, whole_or_halves};

/// A tag that puts an Auto Scaling group in scope.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupTag {
    /// Its key.
    pub key: String,
    /// Its value; `None`: any.
    pub value: Option<String>,
}

/// The port on Auto Scaling.
#[derive(Clone, Debug)]
pub(crate) struct AutoScaling {
    client: Client,
    meter: Meter,
    scope: Option<GroupTag>,
}

impl AutoScaling {
    /// A port on this client. With `scope`, only groups that carry the tag are in scope.
    pub(crate) fn new(client: Client, meter: Meter, scope: Option<GroupTag>) -> Self {
        Self { client, meter, scope }
    }
}

#[async_trait]
impl Groups for AutoScaling {
    async fn instances(&self, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Membership>, Fault> {
        let mut found = BTreeMap::new();
        for ids in ids.chunks(MOST_DESCRIBED) {
            let mut page = None;
            loop {
                let request = self.client.describe_auto_scaling_instances();
                let ids = ids.iter().map(ToString::to_string).collect();
                let request = request.set_instance_ids(Some(ids)).set_next_token(page).send();
                let answer = self.meter.send(Call::DescribeAutoScalingInstances, request).await;
                let answer = answer.map_err(|refusal| refusal.fault("describing Auto Scaling instances"))?;
                found.extend(answer.auto_scaling_instances().iter().filter_map(membership));
                // A page may be short although more follow; only the token tells.
                page = answer.next_token.filter(|token| !token.is_empty());
                if page.is_none() {
                    break;
                }
            }
        }
        Ok(found)
    }

    async fn group(&self, name: &GroupName) -> Result<Option<Group>, Fault> {
        let Some(described) = self.describe(name).await? else { return Ok(None) };
        let Some(hooks) = self.hooks(name).await? else { return Ok(None) };
        let tags = described.tags();
        Ok(Some(Group {
            name: name.clone(),
            terminate_hooks: hooks.iter().filter_map(terminate_hook).collect(),
            capacity_rebalancing: described.capacity_rebalance().unwrap_or(false),
            managed: tags.iter().any(|tag| tag.key() == Some("eks:nodegroup-name")),
            in_scope: self.in_scope(tags),
            target_groups: described
                .target_group_arns()
                .iter()
                .map(|arn| TargetGroupArn::new(arn.as_str()))
                .collect(),
            leaving: described
                .instances()
                .iter()
                .filter_map(|instance| member(name.as_str(), instance))
                .filter(|(_, member)| member.state.is_leaving())
                .map(|(id, _)| id)
                .collect(),
        }))
    }

    async fn out_of_service(&self) -> Result<Vec<(InstanceId, Membership)>, Fault> {
        let mut found = Vec::new();
        let mut page = None;
        loop {
            let request = self.client.describe_auto_scaling_groups().max_records(MOST_RECORDS);
            let filters = self.scope.as_ref().map(|scope| vec![filter(scope)]);
            let request = request.set_filters(filters).set_next_token(page).send();
            let answer = self.meter.send(Call::DescribeAutoScalingGroups, request).await;
            let answer = answer.map_err(|refusal| refusal.fault("describing Auto Scaling groups"))?;
            // A server that ignores the filter would answer with groups that are not ours to touch.
            let groups = answer.auto_scaling_groups().iter().filter(|group| self.in_scope(group.tags()));
            let members = groups.flat_map(|group| {
                let name = group.auto_scaling_group_name();
                group.instances().iter().filter_map(move |instance| member(name?, instance))
            });
            found.extend(members.filter(|(_, member)| member.state != LifecycleState::InService));
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                return Ok(found);
            }
        }
    }

    async fn terminations(&self, group: &GroupName) -> Result<BTreeMap<InstanceId, Timestamp>, Fault> {
        let mut found = BTreeMap::new();
        let mut page = None;
        for _ in 0..MOST_PAGES_OF_ACTIVITIES {
            let request = self.client.describe_scaling_activities().auto_scaling_group_name(group.as_str());
            let request = request.max_records(MOST_RECORDS).set_next_token(page).send();
            let answer = match self.meter.send(Call::DescribeScalingActivities, request).await {
                Ok(answer) => answer,
                Err(refusal) if refusal.reading == Reading::NoGroup => return Ok(BTreeMap::new()),
                Err(refusal) => {
                    return Err(
                        refusal.fault(format_args!("describing the scaling activities of group {group}"))
                    );
                }
            };
            for (id, since) in answer.activities().iter().filter_map(activities::termination) {
                let newest = found.entry(id).or_insert(since);
                *newest = since.max(*newest);
            }
            page = answer.next_token.filter(|token| !token.is_empty());
            if page.is_none() {
                break;
            }
        }
        Ok(found)
    }

    async fn perform(&self, calls: &[GroupCall]) -> Vec<Result<Outcome, Fault>> {
        let mut answers = Vec::with_capacity(calls.len());
        for run in
            calls.chunk_by(|a, b| detached_from(a).is_some_and(|group| detached_from(b) == Some(group)))
        {
            // A run is never empty; only detaches make longer ones than one.
            let Some(first) = run.first() else { continue };
            match first {
                GroupCall::Detach(_, group) => answers.extend(self.detach(group, run).await),
                GroupCall::Heartbeat(id, key) => answers.push(self.heartbeat(id, key).await),
                GroupCall::CompleteHook(id, key) => answers.push(self.complete(id, key).await),
                GroupCall::TerminateThroughGroup(id, group) => answers.push(self.terminate(id, group).await),
            }
        }
        answers
    }
}

impl AutoScaling {
    fn in_scope(&self, tags: &[TagDescription]) -> bool {
        self.scope.as_ref().is_none_or(|scope| {
            tags.iter().any(|tag| {
                tag.key() == Some(&scope.key)
                    && scope.value.as_deref().is_none_or(|value| tag.value().unwrap_or_default() == value)
            })
        })
    }

    async fn describe(&self, name: &GroupName) -> Result<Option<AutoScalingGroup>, Fault> {
        let request = self.client.describe_auto_scaling_groups();
        let request = request.auto_scaling_group_names(name.as_str()).send();
        let answer = self.meter.send(Call::DescribeAutoScalingGroups, request).await;
        let answer =
            answer.map_err(|refusal| refusal.fault(format_args!("describing Auto Scaling group {name}")))?;
        let groups = answer.auto_scaling_groups.unwrap_or_default();
        Ok(groups.into_iter().find(|group| group.auto_scaling_group_name() == Some(name.as_str())))
    }

    /// The hooks of a group, of every transition; `None` where there is no such group. Not paginated: a
    /// group has 50 at most.
    async fn hooks(&self, group: &GroupName) -> Result<Option<Vec<LifecycleHook>>, Fault> {
        let request = self.client.describe_lifecycle_hooks().auto_scaling_group_name(group.as_str());
        match self.meter.send(Call::DescribeLifecycleHooks, request.send()).await {
            Ok(answer) => Ok(Some(answer.lifecycle_hooks.unwrap_or_default())),
            Err(refusal) if refusal.reading == Reading::NoGroup => Ok(None),
            Err(refusal) => {
                Err(refusal.fault(format_args!("describing the lifecycle hooks of group {group}")))
            }
        }
    }

    async fn heartbeat(&self, id: &InstanceId, key: &HookKey) -> Result<Outcome, Fault> {
        let (token, instance) = by_token_or_instance(id, key);
        let request = self.client.record_lifecycle_action_heartbeat();
        let request =
            request.auto_scaling_group_name(key.group.as_str()).lifecycle_hook_name(key.name.as_str());
        let request = request.set_lifecycle_action_token(token).set_instance_id(instance);
        match self.meter.send(Call::RecordLifecycleActionHeartbeat, request.send()).await {
            Ok(_) => Ok(Outcome::Done),
            Err(refusal) => self.unanswered_hook("sending a heartbeat for", id, key, refusal).await,
        }
    }

    async fn complete(&self, id: &InstanceId, key: &HookKey) -> Result<Outcome, Fault> {
        let (token, instance) = by_token_or_instance(id, key);
        let request = self.client.complete_lifecycle_action().lifecycle_action_result("CONTINUE");
        let request =
            request.auto_scaling_group_name(key.group.as_str()).lifecycle_hook_name(key.name.as_str());
        let request = request.set_lifecycle_action_token(token).set_instance_id(instance);
        match self.meter.send(Call::CompleteLifecycleAction, request.send()).await {
            Ok(_) => Ok(Outcome::Done),
            Err(refusal) => self.unanswered_hook("completing", id, key, refusal).await,
        }
    }

    /// A refused heartbeat or completion. Where the words leave it open whether there is anything left to
    /// answer, the group and its hooks are looked at.
    async fn unanswered_hook(
        &self,
        doing: &str,
        id: &InstanceId,
        key: &HookKey,
        refusal: Refusal,
    ) -> Result<Outcome, Fault> {
        let refusal = refusal.hiding(key.token.as_ref().map_or("", HookToken::as_str));
        let doing = format!("{doing} lifecycle hook {} of group {} for {id}", key.name, key.group);
        match refusal.reading {
            Reading::NoActiveAction | Reading::NoGroup => Ok(Outcome::Gone),
            Reading::Unclear => {
                let hook = Some(key.name.as_str());
                let hooks = self.hooks(&key.group).await?.unwrap_or_default();
                if hooks.iter().any(|found| found.lifecycle_hook_name() == hook) {
                    Err(Fault::Denied(refusal.text(doing)))
                } else {
                    Ok(Outcome::Gone)
                }
            }
            _ => Err(refusal.fault(doing)),
        }
    }

    async fn detach(&self, group: &GroupName, calls: &[GroupCall]) -> Vec<Result<Outcome, Fault>> {
        let mut answers = Vec::with_capacity(calls.len());
        for calls in calls.chunks(MOST_DETACHED) {
            let ids = calls.iter().map(|call| instance(call).clone()).collect();
            answers.extend(whole_or_halves(ids, |ids| self.detach_together(group, ids)).await);
        }
        answers
    }

    async fn detach_together(&self, group: &GroupName, ids: Vec<InstanceId>) -> Whole {
        let doing = match ids.as_slice() {
            [id] => format!("detaching {id} from group {group}"),
            ids => format!("detaching {} instances from group {group}", ids.len()),
        };
        let request = self.client.detach_instances().auto_scaling_group_name(group.as_str());
        let ids = ids.iter().map(ToString::to_string).collect();
        let request = request.set_instance_ids(Some(ids)).should_decrement_desired_capacity(false);
        match self.meter.send(Call::DetachInstances, request.send()).await {
            Ok(_) => Whole::Each(Ok(Outcome::Done)),
            Err(refusal) => match refusal.reading {
                // Detached already, or on its way out: the group does not count on it.
                Reading::NotAMember | Reading::NotInService => Whole::SomeOf(Ok(Outcome::Done)),
                Reading::Unclear => Whole::SomeOf(Err(refusal.fault(doing))),
                Reading::NoGroup => Whole::Each(Ok(Outcome::Gone)),
                _ => Whole::Each(Err(refusal.fault(doing))),
            },
        }
    }

    async fn terminate(&self, id: &InstanceId, group: &GroupName) -> Result<Outcome, Fault> {
        let request = self.client.terminate_instance_in_auto_scaling_group().instance_id(id.as_str());
        let request = request.should_decrement_desired_capacity(false);
        match self.meter.send(Call::TerminateInstanceInAutoScalingGroup, request.send()).await {
            Ok(_) => Ok(Outcome::Done),
            Err(refusal) => match refusal.reading {
                Reading::NotAMember | Reading::NoGroup => Ok(Outcome::Gone),
                _ => Err(refusal.fault(format_args!("terminating {id} through group {group}"))),
            },
        }
    }
}

/// DescribeAutoScalingInstances takes 50 ids.
const MOST_DESCRIBED: usize = 50;
/// DetachInstances takes 20 ids.
const MOST_DETACHED: usize = 20;
/// DescribeAutoScalingGroups and DescribeScalingActivities give 100 records on a page.
const MOST_RECORDS: i32 = 100;
/// AWS keeps six weeks of activities, newest first. What is still going on is hours old at most, and two hundred
/// activities are more than most groups have in that time.
const MOST_PAGES_OF_ACTIVITIES: usize = 2;
/// HeartbeatTimeout of a hook that was put without one (ASG API, PutLifecycleHook).
const DEFAULT_HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(3_600);
/// No lifecycle action lasts longer than this, or than 100 heartbeat timeouts (ASG UG, lifecycle hooks).
const LONGEST_ACTION: Duration = Duration::from_secs(48 * 3_600);

/// The token names the action itself; the instance only whatever action is open on it.
fn by_token_or_instance(id: &InstanceId, key: &HookKey) -> (Option<String>, Option<String>) {
    match &key.token {
        Some(token) => (Some(token.as_str().to_owned()), None),
        None => (None, Some(id.to_string())),
    }
}

fn detached_from(call: &GroupCall) -> Option<&GroupName> {
    match call {
        GroupCall::Detach(_, group) => Some(group),
        GroupCall::Heartbeat(..) | GroupCall::CompleteHook(..) | GroupCall::TerminateThroughGroup(..) => None,
    }
}

fn instance(call: &GroupCall) -> &InstanceId {
    match call {
        GroupCall::Heartbeat(id, _)
        | GroupCall::CompleteHook(id, _)
        | GroupCall::Detach(id, _)
        | GroupCall::TerminateThroughGroup(id, _) => id,
    }
}

fn membership(details: &AutoScalingInstanceDetails) -> Option<(InstanceId, Membership)> {
    let id = InstanceId::parse(details.instance_id()?)?;
    let state = details.lifecycle_state().unwrap_or_default();
    Some((id, in_group(details.auto_scaling_group_name()?, state, details.health_status())))
}

/// The same of an instance as its group lists it.
fn member(group: &str, instance: &Instance) -> Option<(InstanceId, Membership)> {
    let id = InstanceId::parse(instance.instance_id()?)?;
    let state = instance.lifecycle_state().map(|state| state.as_str());
    Some((id, in_group(group, state.unwrap_or_default(), instance.health_status())))
}

fn in_group(group: &str, state: &str, health: Option<&str>) -> Membership {
    Membership {
        group: GroupName::new(group),
        state: lifecycle_state(state),
        healthy: healthy(health),
        pooled: ends_in_pool(state),
    }
}

/// The API reference writes "Healthy" and "Unhealthy", answers come as "HEALTHY" too.
fn healthy(status: Option<&str>) -> bool {
    !status.unwrap_or_default().eq_ignore_ascii_case("unhealthy")
}

/// What leaves only the groups with this tag (ASG API, Filter).
fn filter(tag: &GroupTag) -> Filter {
    let filter = match &tag.value {
        Some(value) => Filter::builder().name(format!("tag:{}", tag.key)).values(value),
        None => Filter::builder().name("tag-key").values(&tag.key),
    };
    filter.build()
}

fn ends_in_pool(state: &str) -> bool {
    state.starts_with("Warmed:Terminat")
}

fn lifecycle_state(text: &str) -> LifecycleState {
    match text {
        "InService" => LifecycleState::InService,
        "Standby" => LifecycleState::Standby,
        // An instance of the warm pool ends by the same hooks.
        "Terminating:Wait" | "Warmed:Terminating:Wait" => LifecycleState::TerminatingWait,
        "Terminating:Proceed" | "Warmed:Terminating:Proceed" => LifecycleState::TerminatingProceed,
        "Terminating" | "Warmed:Terminating" => LifecycleState::Terminating,
        "Terminated" | "Warmed:Terminated" => LifecycleState::Terminated,
        "Warmed:Pending:Wait" => LifecycleState::WarmedPendingWait,
        "Warmed:Pending:Proceed" | "Warmed:Running" | "Warmed:Stopped" | "Warmed:Hibernated" => {
            LifecycleState::Warmed
        }
        "ReplacingRootVolume:Wait" => LifecycleState::ReplacingRootVolumeWait,
        other => LifecycleState::Other(other.to_owned()),
    }
}

fn terminate_hook(hook: &LifecycleHook) -> Option<HookSpec> {
    if hook.lifecycle_transition() != Some("autoscaling:EC2_INSTANCE_TERMINATING") {
        return None;
    }
    let heartbeat_timeout = hook.heartbeat_timeout().and_then(seconds).unwrap_or(DEFAULT_HEARTBEAT_TIMEOUT);
    let global_timeout = hook.global_timeout().and_then(seconds);
    Some(HookSpec {
        name: HookName::new(hook.lifecycle_hook_name()?),
        heartbeat_timeout,
        global_timeout: global_timeout.unwrap_or_else(|| (heartbeat_timeout * 100).min(LONGEST_ACTION)),
        cluster_hint: hook.notification_metadata().and_then(cluster_hint),
    })
}

fn seconds(seconds: i32) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

#[cfg(test)]
mod tests;
