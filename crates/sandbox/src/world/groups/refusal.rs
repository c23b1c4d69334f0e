//! What Auto Scaling says when it refuses, in its own words.

use offramp_core::{GroupName, HookName, HookToken, InstanceId};

/// Why Auto Scaling refuses: all of them are ValidationError.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such group.
    #[error("AutoScalingGroup name not found - AutoScalingGroup {0} not found")]
    NoGroup(GroupName),
    /// There is no such hook.
    #[error("Lifecycle hook {0} not found.")]
    NoHook(HookName),
    /// It is in no group.
    #[error("Instance Id not found - No managed instance found for instance ID: {0}")]
    NoMember(InstanceId),
    /// It is in another group or in none.
    #[error("The instance {0} is not part of Auto Scaling group {1}.")]
    NotPartOf(InstanceId, GroupName),
    /// Only members in service can be detached.
    #[error("The instance {0} is not in InService or Standby.")]
    NotInService(InstanceId),
    /// The action is over, or never was.
    #[error("No active Lifecycle Action found with instance ID {0}")]
    NoActionOf(InstanceId),
    /// The same, asked by token.
    #[error("No active Lifecycle Action found with token {}", .0.as_str())]
    NoActionWith(HookToken),
    /// Neither token nor instance.
    #[error("Either LifecycleActionToken or InstanceId must be specified")]
    NothingNamed,
    /// The group would become too small.
    #[error(
        "Currently, desiredSize equals minSize ({0}). Terminating instance without replacement will violate \
         group's min size constraint. Either set shouldDecrementDesiredCapacity flag to false or lower \
         group's min size."
    )]
    BelowMinimum(usize),
    /// A new desired capacity over MaxSize.
    #[error("New SetDesiredCapacity value {0} is above max value {1} for the AutoScalingGroup.")]
    AboveMaximum(usize, usize),
    /// A new desired capacity under MinSize.
    #[error("New SetDesiredCapacity value {0} is below min value {1} for the AutoScalingGroup.")]
    UnderMinimum(usize, usize),
    /// MinSize over MaxSize.
    #[error("Max bound, {1}, must be greater than or equal to min bound, {0}")]
    MinimumAboveMaximum(usize, usize),
}
