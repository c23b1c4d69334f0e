//! Scaling activities: what a group says about the members that it takes out.
//!
//! Follows ASG API `API_Activity.html` and `API_DescribeScalingActivities.html`. Liberties: launches, detaches
//! and changes of the sizes leave no activity; every cause is a user request; a member that waits for its
//! target groups is `InProgress`.

use offramp_core::{GroupName, InstanceId, Timestamp};

use super::{Groups, MemberState};
use crate::world::World;
use crate::world::events;

/// One scaling activity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activity {
    /// Its id.
    pub id: String,
    /// Its group.
    pub group: GroupName,
    /// The instance that goes. In answers it stands in the description alone.
    pub instance: InstanceId,
    /// What is done.
    pub description: String,
    /// Why.
    pub cause: String,
    /// When it began.
    pub started: Timestamp,
    /// When it was over.
    pub ended: Option<Timestamp>,
}

/// StatusCode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ActivityStatus {
    /// On its way.
    InProgress,
    /// A hook holds the instance. This is what AWS answers; the reference has `MidLifecycleAction`.
    MidTerminatingLifecycleAction,
    /// Over.
    Successful,
}

/// AWS keeps the activities of six weeks. Here the newest of those that are over are enough.
const MOST_OVER: usize = 250;

impl Activity {
    /// The end of a member, in the words of AWS (`API_TerminateInstanceInAutoScalingGroup.html`).
    pub(crate) fn terminating(id: String, group: &GroupName, instance: &InstanceId, now: Timestamp) -> Self {
        Self::requested(id, group, instance, now, "Terminating")
    }

    /// The same of one that is let go (`API_DetachInstances.html`). It is told, and not remembered.
    pub(crate) fn detaching(id: String, group: &GroupName, instance: &InstanceId, now: Timestamp) -> Self {
        Self::requested(id, group, instance, now, "Detaching")
    }

    fn requested(id: String, group: &GroupName, instance: &InstanceId, now: Timestamp, what: &str) -> Self {
        let at = events::seconds(now);
        Self {
            id,
            group: group.clone(),
            instance: instance.clone(),
            description: format!("{what} EC2 instance: {instance}"),
            cause: format!("At {at} an instance was taken out of service in response to a user request."),
            started: now,
            ended: None,
        }
    }
}

impl ActivityStatus {
    /// As the API writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InProgress => "InProgress",
            Self::MidTerminatingLifecycleAction => "MidTerminatingLifecycleAction",
            Self::Successful => "Successful",
        }
    }

    /// Progress, in percent: 60 is what AWS reports from an instance that a hook holds, 0 and 100 are documented.
    pub const fn progress(self) -> u64 {
        match self {
            Self::InProgress => 0,
            Self::MidTerminatingLifecycleAction => 60,
            Self::Successful => 100,
        }
    }
}

impl Groups {
    /// What DescribeScalingActivities says at this moment about a group, or about all of them: by start time, the
    /// newest first. It lags like every describe.
    ///
    /// Earlier editions of the reference promised those in progress first; today's does not, so neither does this.
    pub fn activities(&self, group: Option<&GroupName>, now: Timestamp) -> Vec<(&Activity, ActivityStatus)> {
        let seen_at = now - self.describe_lag;
        let wanted = |activity: &&Activity| {
            group.is_none_or(|group| activity.group == *group) && activity.started <= seen_at
        };
        let found = self.activities.iter().rev().filter(wanted);
        found.map(|activity| (activity, self.activity_status(activity, now))).collect()
    }

    /// The newest activity of an instance, as it is.
    pub(crate) fn activity_of(&self, id: &InstanceId) -> Option<&Activity> {
        self.activities.iter().rev().find(|activity| activity.instance == *id)
    }

    fn activity_status(&self, activity: &Activity, now: Timestamp) -> ActivityStatus {
        if activity.ended.is_some_and(|ended| ended <= now - self.describe_lag) {
            return ActivityStatus::Successful;
        }
        match self.describe(&activity.instance, now).map(|described| described.state) {
            Some(MemberState::TerminatingWait) => ActivityStatus::MidTerminatingLifecycleAction,
            Some(
                MemberState::Pending
                | MemberState::InService
                | MemberState::Terminating
                | MemberState::TerminatingProceed
                | MemberState::TerminatingRetained
                | MemberState::Detaching
                | MemberState::WarmedPending
                | MemberState::WarmedPendingWait
                | MemberState::WarmedPendingProceed
                | MemberState::WarmedStopped,
            )
            | None => ActivityStatus::InProgress,
        }
    }
}

impl World {
    /// A group begins to terminate a member.
    pub(super) fn begin_activity(&mut self, group: &GroupName, id: &InstanceId) {
        self.groups.activities_begun += 1;
        // Counted instead of drawn, so that remembering changes nothing else in a world of the same seed.
        let number = self.groups.activities_begun;
        let activity =
            Activity::terminating(format!("5a000000-0000-4000-8000-{number:012x}"), group, id, self.now);
        self.groups.activities.push(activity);
    }

    /// It has left the group.
    pub(super) fn end_activity(&mut self, id: &InstanceId) {
        let now = self.now;
        let open = |activity: &&mut Activity| activity.instance == *id && activity.ended.is_none();
        if let Some(activity) = self.groups.activities.iter_mut().rev().find(open) {
            activity.ended = Some(now);
        }
        let mut over = self.groups.activities.iter().filter(|activity| activity.ended.is_some()).count();
        self.groups.activities.retain(|activity| {
            let drop = activity.ended.is_some() && over > MOST_OVER;
            over -= usize::from(drop);
            !drop
        });
    }
}
