//! One parsed message or request about one instance.

use std::time::Duration;

use crate::*;

/// The smaller of 48 h and 100 heartbeat timeouts is the longest that a hook can hold an instance.
pub const HOOK_AT_MOST: Duration = Duration::from_secs(48 * 3600);

/// What somebody told us about one instance, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// Equal for copies of the same event.
    pub id: NoticeId,
    /// The instance it speaks of.
    pub instance: InstanceId,
    /// The event's own time: every deadline counts from here, never from when we received it.
    pub at: Timestamp,
    /// Where calls about this instance have to go.
    pub account_region: AccountRegion,
    /// What was said.
    pub kind: NoticeKind,
}

/// The account and Region that sent the event. Forwarding across accounts and Regions leaves both as
/// they were, so calls need credentials *there*. A hook that came straight to SQS names no Region.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AccountRegion {
    /// The sending account.
    pub account: Option<AccountId>,
    /// The sending Region.
    pub region: Option<Region>,
}

impl Notice {
    /// A worker has seen it for itself, and nobody sent it: there is no token then, and its time is about right.
    pub fn is_seen(&self) -> bool {
        self.kind == NoticeKind::Record || self.hook().is_some_and(|hook| hook.key.token.is_none())
    }

    /// The hook that it speaks of.
    pub fn hook(&self) -> Option<&Hook> {
        if let NoticeKind::Hook(hook) = &self.kind { Some(hook) } else { None }
    }
}

/// A lifecycle action in its Wait state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Names the action in calls.
    pub key: HookKey,
    /// The cluster that `NotificationMetadata` names. The field is free text, so this is a hint.
    pub cluster_hint: Option<ClusterName>,
    /// Where the instance comes from and goes to.
    pub passage: Passage,
}

/// What CompleteLifecycleAction and RecordLifecycleActionHeartbeat need. Without a token both are
/// called by instance id.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HookKey {
    /// The Auto Scaling group.
    pub group: GroupName,
    /// The hook of that group.
    pub name: HookName,
    /// The action's own token.
    pub token: Option<HookToken>,
}

/// Where a lifecycle action takes the instance. "Terminating" is not always the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Passage {
    /// Out of the group and terminated (`Destination: EC2`, or absent in older events).
    Ending,
    /// Back into the warm pool (`Destination: WarmPool`): drained, not terminated.
    ToWarmPool,
    /// An instance refresh replaces the root volume: it reboots and stays.
    RootVolume,
    /// Into service.
    Launching,
    /// Into the warm pool, newly made.
    LaunchingToWarmPool,
    /// Out of the warm pool into service.
    LaunchingFromWarmPool,
}

impl Passage {
    /// What a hook does that holds an instance in this state; nothing where the state does not tell. Of
    /// `Warmed:Pending:Wait` it may be a launch hook.
    pub fn held_in(state: &LifecycleState) -> Option<Self> {
        let told = [Self::Ending, Self::RootVolume];
        told.into_iter().find(|passage| passage.wait_state().as_ref() == Some(state))
    }

    /// The state in which the group holds the instance meanwhile; nothing for those that are not served.
    pub(crate) const fn wait_state(self) -> Option<LifecycleState> {
        match self {
            Self::Ending => Some(LifecycleState::TerminatingWait),
            Self::ToWarmPool => Some(LifecycleState::WarmedPendingWait),
            Self::RootVolume => Some(LifecycleState::ReplacingRootVolumeWait),
            Self::Launching | Self::LaunchingToWarmPool | Self::LaunchingFromWarmPool => None,
        }
    }
}

/// What EC2 will do to a spot instance (`instance-action`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpotAction {
    /// It is terminated.
    Terminate,
    /// It is stopped, and may come back.
    Stop,
    /// It is hibernated, without two minutes of notice, and comes back as it was.
    Hibernate,
}
