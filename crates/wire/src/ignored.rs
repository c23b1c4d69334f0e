//! Why a well-formed message leads to nothing.

use std::fmt;

/// Why a well-formed message leads to nothing. Such a message is deleted, not dead-lettered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ignored {
    /// Auto Scaling tried out the target of a new hook or of a notification.
    TestNotification,
    /// An instance came.
    LaunchSucceeded,
    /// An instance could not be launched.
    LaunchFailed,
    /// An instance is gone: its hooks have been answered before.
    TerminateSucceeded,
    /// An instance could not be terminated: the group tries again, with another lifecycle action.
    TerminateFailed,
    /// An instance left its group.
    DetachSucceeded,
    /// An instance could not leave its group.
    DetachFailed,
    /// About the refresh of a whole group. What it does to each instance comes as a hook.
    InstanceRefresh,
    /// An instance changed its state. Not served yet.
    StateChange,
    /// AWS Health announces or reports something. Not served yet.
    Health,
    /// Another event, which some rule sends here.
    OtherEvent,
}

impl Ignored {
    /// Every reason.
    pub const ALL: [Self; 11] = [
        Self::TestNotification,
        Self::LaunchSucceeded,
        Self::LaunchFailed,
        Self::TerminateSucceeded,
        Self::TerminateFailed,
        Self::DetachSucceeded,
        Self::DetachFailed,
        Self::InstanceRefresh,
        Self::StateChange,
        Self::Health,
        Self::OtherEvent,
    ];

    /// The reason as a label of metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TestNotification => "test_notification",
            Self::LaunchSucceeded => "launch_succeeded",
            Self::LaunchFailed => "launch_failed",
            Self::TerminateSucceeded => "terminate_succeeded",
            Self::TerminateFailed => "terminate_failed",
            Self::DetachSucceeded => "detach_succeeded",
            Self::DetachFailed => "detach_failed",
            Self::InstanceRefresh => "instance_refresh",
            Self::StateChange => "state_change",
            Self::Health => "health",
            Self::OtherEvent => "other_event",
        }
    }
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TestNotification => "a test notification of Auto Scaling",
            Self::LaunchSucceeded => "an instance was launched",
            Self::LaunchFailed => "an instance could not be launched",
            Self::TerminateSucceeded => "an instance was terminated",
            Self::TerminateFailed => "an instance could not be terminated",
            Self::DetachSucceeded => "an instance was detached from its group",
            Self::DetachFailed => "an instance could not be detached from its group",
            Self::InstanceRefresh => "the progress of an instance refresh",
            Self::StateChange => "state changes are not served by this version",
            Self::Health => "AWS Health is not served by this version",
            Self::OtherEvent => "an event of another kind",
        })
    }
}
