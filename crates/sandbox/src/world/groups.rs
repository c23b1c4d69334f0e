//! Auto Scaling groups: members with their lifecycle states, and the lifecycle actions that hold them.
//!
//! Follows ASG UG (`ec2-auto-scaling-lifecycle.html`, `lifecycle-hooks-overview.html`,
//! `ec2-auto-scaling-capacity-rebalancing.html`) and the API reference. Liberties: a group deregisters a
//! member strictly before `Terminating:Wait`; all hooks of a transition are open side by side; launch
//! hooks are stored and never run; the default termination policy knows zones and age only; a warm pool holds only what
//! came back from the group, stopped; no standby, no instance refresh; retention is for all groups or none; a group notices a
//! lost member after its reaction time instead of a minute.

mod actions;
mod activities;
mod refusal;
mod scaling;
mod warm_pool;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offramp_core::{
    ClusterName, GroupName, HookName, HookToken, InstanceId, TargetGroupArn, Timestamp, Zone,
};

use super::{OUT_OF_SCOPE, World};
pub use actions::Answer;
pub use activities::{Activity, ActivityStatus};
pub use refusal::Refusal;

/// Every group.
#[derive(Debug, Default)]
pub struct Groups {
    groups: BTreeMap<GroupName, Group>,
    history: BTreeMap<InstanceId, Vec<(Timestamp, Option<Described>)>>,
    /// In the order in which they began.
    activities: Vec<Activity>,
    activities_begun: u64,
    /// So many of the next heartbeats and answers are refused although their action is open
    /// (PrairieLearn#15586, seen on AWS).
    pub refused_calls: u32,
    /// So many of the next DescribeLifecycleHooks answer with no hook, as a read that is not consistent may.
    pub hooks_unseen: u32,
    /// Every group retains what is abandoned (`InstanceLifecyclePolicy.RetentionTriggers.TerminateHookAbandon`).
    pub retains_abandoned: bool,
    /// Groups with a warm pool to which a scale-in gives instances back (`InstanceReusePolicy.ReuseOnScaleIn`).
    pub warm_pools: BTreeSet<GroupName>,
    /// For so long describes go on showing what was before a change.
    pub describe_lag: Duration,
}

/// What DescribeAutoScalingInstances says about one member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Described {
    /// Its group.
    pub group: GroupName,
    /// Its zone.
    pub zone: Zone,
    /// Its state.
    pub state: MemberState,
    /// The group's verdict.
    pub healthy: bool,
}

/// What to make a group of.
#[derive(Clone, Debug)]
pub struct GroupSpec {
    /// Its name.
    pub name: GroupName,
    /// MinSize.
    pub min: usize,
    /// MaxSize.
    pub max: usize,
    /// DesiredCapacity.
    pub desired: usize,
    /// Its lifecycle hooks.
    pub hooks: Vec<Hook>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
    /// The target groups attached to it.
    pub target_groups: Vec<TargetGroupArn>,
    /// CapacityRebalance.
    pub capacity_rebalancing: bool,
    /// What it launches.
    pub template: Template,
}

/// What a group launches.
#[derive(Clone, Debug)]
pub struct Template {
    /// Its zones; the emptiest one gets the next instance.
    pub zones: Vec<Zone>,
    /// Spot instances.
    pub spot: bool,
    /// The cluster that its instances join.
    pub cluster: Option<ClusterName>,
    /// Labels of their nodes.
    pub labels: BTreeMap<String, String>,
}

/// One group.
#[derive(Clone, Debug)]
pub struct Group {
    /// As it was made, with the sizes as they are now.
    pub spec: GroupSpec,
    /// The middle part of its ARN.
    pub uuid: String,
    /// When it was made.
    pub created: Timestamp,
    /// Its members by instance.
    pub members: BTreeMap<InstanceId, Member>,
}

/// One lifecycle hook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name.
    pub name: HookName,
    /// Which way it holds instances.
    pub transition: Transition,
    /// What a heartbeat extends the wait by: 30 to 7,200 s.
    pub heartbeat_timeout: Duration,
    /// What happens when nobody answers.
    pub default_result: ActionResult,
    /// NotificationMetadata.
    pub metadata: Option<String>,
}

/// LifecycleTransition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transition {
    /// `autoscaling:EC2_INSTANCE_LAUNCHING`.
    Launching,
    /// `autoscaling:EC2_INSTANCE_TERMINATING`.
    Terminating,
}

/// LifecycleActionResult. Either way a terminating instance ends; ABANDON stops the remaining hooks (ASG
/// UG `lifecycle-hooks-overview.html`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActionResult {
    /// Let it go on.
    Continue,
    /// Let it go on without the other hooks.
    Abandon,
}

/// One member.
#[derive(Clone, Debug)]
pub struct Member {
    /// Its zone.
    pub zone: Zone,
    /// Its lifecycle state.
    pub state: MemberState,
    /// HealthStatus.
    pub healthy: bool,
    /// The order of launches.
    pub launched: Timestamp,
    /// Capacity Rebalancing replaces it: it is not counted on any more.
    pub at_risk: bool,
    /// The lifecycle actions that hold it.
    pub actions: Vec<LifecycleAction>,
}

/// LifecycleState.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Launched, not running.
    Pending,
    /// Counted on.
    InService,
    /// Deregistered from the attached target groups, and waiting for that.
    Terminating,
    /// Held by hooks.
    TerminatingWait,
    /// On its last way.
    TerminatingProceed,
    /// Abandoned by a hook and kept: not counted, until somebody ends it through its group (ASG UG
    /// `configure-instance-retention.html`).
    TerminatingRetained,
    /// On its way out of the group, alive.
    Detaching,
    /// On its way into the warm pool: deregistered from the attached target groups, and waiting for that.
    WarmedPending,
    /// Held by hooks on that way.
    WarmedPendingWait,
    /// On the last part of it.
    WarmedPendingProceed,
    /// In the warm pool, stopped.
    WarmedStopped,
}

/// One open lifecycle action.
#[derive(Clone, Debug)]
pub struct LifecycleAction {
    /// The hook.
    pub hook: HookName,
    /// Its token, 36 characters.
    pub token: HookToken,
    /// When it times out unless a heartbeat comes.
    pub until: Timestamp,
    /// When it times out whatever comes.
    pub global_until: Timestamp,
}

/// What groups are waiting for.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// Compare what there is with what is wanted.
    Reconcile(GroupName),
    /// The attached target groups have let go of a terminating member.
    Deregistered(GroupName, InstanceId),
    /// The same for a detached one.
    Detached(GroupName, InstanceId),
    /// Somebody should have answered a lifecycle action by now.
    ActionTimeout(GroupName, InstanceId, HookToken),
    /// The hooks are answered: terminate it.
    Proceed(GroupName, InstanceId),
    /// Health checks find that a member has ended.
    Lost(InstanceId),
}

impl GroupSpec {
    /// Where scope needs a group tag, it has the tag.
    pub fn is_in_scope(&self) -> bool {
        !self.tags.contains_key(OUT_OF_SCOPE)
    }
}

impl Hook {
    /// A terminate hook as the API makes it where nothing else is said: 3,600 s, ABANDON.
    pub fn terminating(name: &str) -> Self {
        Self {
            name: HookName::new(name),
            transition: Transition::Terminating,
            heartbeat_timeout: Duration::from_secs(3_600),
            default_result: ActionResult::Abandon,
            metadata: None,
        }
    }

    /// "48 hours or 100 times the heartbeat timeout, whichever is smaller" (ASG UG
    /// `lifecycle-hooks.html`).
    pub fn global_timeout(&self) -> Duration {
        Duration::from_secs(48 * 3_600).min(self.heartbeat_timeout * 100)
    }
}

impl Transition {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Launching => "autoscaling:EC2_INSTANCE_LAUNCHING",
            Self::Terminating => "autoscaling:EC2_INSTANCE_TERMINATING",
        }
    }
}

impl ActionResult {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Continue => "CONTINUE",
            Self::Abandon => "ABANDON",
        }
    }
}

impl MemberState {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "Pending",
            Self::InService => "InService",
            Self::Terminating => "Terminating",
            Self::TerminatingWait => "Terminating:Wait",
            Self::TerminatingProceed => "Terminating:Proceed",
            Self::TerminatingRetained => "Terminating:Retained",
            Self::Detaching => "Detaching",
            Self::WarmedPending => "Warmed:Pending",
            Self::WarmedPendingWait => "Warmed:Pending:Wait",
            Self::WarmedPendingProceed => "Warmed:Pending:Proceed",
            Self::WarmedStopped => "Warmed:Stopped",
        }
    }
}

impl Member {
    /// Whether the group counts on it for its desired capacity.
    pub const fn counts(&self) -> bool {
        matches!(self.state, MemberState::Pending | MemberState::InService) && self.healthy && !self.at_risk
    }
}

impl Groups {
    /// One group.
    pub fn get(&self, name: &GroupName) -> Option<&Group> {
        self.groups.get(name)
    }

    /// Every group by name.
    pub fn all(&self) -> impl Iterator<Item = &Group> {
        self.groups.values()
    }

    /// What DescribeAutoScalingInstances says at this moment; nothing where it is no member.
    pub fn describe(&self, id: &InstanceId, now: Timestamp) -> Option<Described> {
        let seen_at = now - self.describe_lag;
        let history = self.history.get(id)?;
        history.iter().rev().find(|(at, _)| *at <= seen_at).and_then(|(_, described)| described.clone())
    }

    /// Every instance that DescribeAutoScalingInstances lists without being asked for ids.
    pub fn described(&self, now: Timestamp) -> BTreeMap<InstanceId, Described> {
        let all = self.history.keys();
        all.filter_map(|id| self.describe(id, now).map(|described| (id.clone(), described))).collect()
    }

    fn member(&self, group: &GroupName, id: &InstanceId) -> Option<&Member> {
        self.groups.get(group)?.members.get(id)
    }
}

impl World {
    /// Makes a group. It launches its members at once, and they are in service after the launch delay.
    pub fn create_group(&mut self, spec: GroupSpec) {
        let name = spec.name.clone();
        let group = Group { spec, uuid: self.uuid(), created: self.now, members: BTreeMap::new() };
        self.groups.groups.insert(name.clone(), group);
        self.reconcile_group(&name);
    }

    /// `arn:aws:autoscaling:REGION:ACCOUNT:autoScalingGroup:UUID:autoScalingGroupName/NAME`.
    pub fn group_arn(&self, name: &GroupName) -> Option<String> {
        let uuid = &self.groups.get(name)?.uuid;
        let (region, account) = (&self.events.region, &self.events.account);
        Some(format!(
            "arn:aws:autoscaling:{region}:{account}:autoScalingGroup:{uuid}:autoScalingGroupName/{name}"
        ))
    }

    pub(crate) fn group_due(&mut self, due: Due) {
        match due {
            Due::Reconcile(group) => self.reconcile_group(&group),
            Due::Deregistered(group, id) => self.open_actions(&group, &id),
            Due::Detached(group, id) => self.drop_member(&group, &id),
            Due::ActionTimeout(group, id, token) => self.action_timeout(&group, &id, &token),
            Due::Proceed(group, id) => self.end_member(&group, &id),
            Due::Lost(id) => self.replace_lost(&id),
        }
    }

    /// Changes a member, and remembers since when describes may say so.
    fn change_member(&mut self, group: &GroupName, id: &InstanceId, change: impl FnOnce(&mut Member)) {
        let Some(member) = self.groups.groups.get_mut(group).and_then(|g| g.members.get_mut(id)) else {
            return;
        };
        let before = (member.state, member.healthy);
        change(member);
        let now = member.clone();
        if before != (now.state, now.healthy) {
            let health = if now.healthy { "" } else { ", unhealthy" };
            self.tell(format!("{id} is {} in {group}{health}", now.state.as_str()));
        }
        self.remember(group, id, Some(&now));
    }

    fn drop_member(&mut self, group: &GroupName, id: &InstanceId) {
        let members = self.groups.groups.get_mut(group).map(|group| &mut group.members);
        if members.and_then(|members| members.remove(id)).is_some() {
            self.instances.leave_group(id);
            self.end_activity(id);
            self.tell(format!("{id} has left {group}"));
            self.remember(group, id, None);
            self.reconcile_group(group);
        }
    }

    fn remember(&mut self, group: &GroupName, id: &InstanceId, member: Option<&Member>) {
        let described = member.map(|member| Described {
            group: group.clone(),
            zone: member.zone.clone(),
            state: member.state,
            healthy: member.healthy,
        });
        let now = self.now;
        let history = self.groups.history.entry(id.clone()).or_default();
        if history.last().is_none_or(|(_, last)| *last != described) {
            history.push((now, described));
        }
    }

    /// The ports under which an instance is registered in the group's attached target groups.
    fn attached_targets(&self, group: &GroupName, id: &InstanceId) -> Vec<(TargetGroupArn, u16)> {
        let attached: BTreeSet<&TargetGroupArn> =
            self.groups.get(group).map(|group| group.spec.target_groups.iter().collect()).unwrap_or_default();
        let target_groups = attached.into_iter().filter_map(|arn| self.balancers.get(arn));
        target_groups
            .flat_map(|target_group| {
                let ports = target_group.targets.keys().filter(|(instance, _)| instance == id);
                ports.map(|(_, port)| (target_group.arn.clone(), *port))
            })
            .collect()
    }
}

#[cfg(test)]
mod tests;
