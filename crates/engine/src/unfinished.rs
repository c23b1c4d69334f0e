//! What no job can finish, for people: found by the sweep, and gone from the list when a sweep finds it no more.

use offramp_core::{AccountRegion, ClusterName, InstanceId, NodeName, Timestamp};

/// Something that no job can finish.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    /// What it is.
    pub what: UnfinishedKind,
    /// The instance.
    pub instance: InstanceId,
    /// Where it is.
    pub account_region: AccountRegion,
    /// Its cluster, where one has its node.
    pub cluster: Option<ClusterName>,
    /// Its node, where there is one.
    pub node: Option<NodeName>,
    /// Since when, as far as this worker knows.
    pub since: Timestamp,
}

impl Unfinished {
    /// The same thing of the same instance.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        (self.what, &self.instance) == (other.what, &other.instance)
    }
}

/// What kind of thing it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnfinishedKind {
    /// A hook of ours holds the instance, and no message about it has begun a job.
    WaitingHook,
    /// A claim in the node's record is over, and no message about it has begun a job.
    OverdueRecord,
    /// The node's record is damaged, or of a later version whose time is over.
    UnreadableRecord,
    /// A claim of another installation in the node's record is long over: its queue may not exist any more.
    AbandonedRecord,
    /// A job left the node isolated, because the group said neither that the instance goes nor that it stays.
    LeftIsolated,
}

impl UnfinishedKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [
        Self::WaitingHook,
        Self::OverdueRecord,
        Self::UnreadableRecord,
        Self::AbandonedRecord,
        Self::LeftIsolated,
    ];

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::WaitingHook => "waiting_hook",
            Self::OverdueRecord => "overdue_record",
            Self::UnreadableRecord => "unreadable_record",
            Self::AbandonedRecord => "abandoned_record",
            Self::LeftIsolated => "left_isolated",
        }
    }
}
