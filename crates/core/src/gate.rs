//! The safety gate: not the last healthy target, while time allows.

use crate::{InstanceId, Observation, Seen, Target, TargetGroup, TargetGroupArn, TargetHealth, Timestamp};

/// The first target group that would be left without a healthy target we can count on, if any. It
/// guards everything that ends traffic: the exclude label, deregistration, detach, standby.
///
/// Jobs and replicas agree without talking: who has the earlier record goes first, the instance id
/// decides between equals, and the last one waits.
pub(crate) fn closed_by<'a>(
    instance: &InstanceId,
    leaving_since: Timestamp,
    seen: &'a Observation,
) -> Option<&'a TargetGroupArn> {
    let Seen::Known(groups) = &seen.target_groups else { return None };
    groups.iter().find(|group| is_last(instance, leaving_since, group)).map(|group| &group.arn)
}

fn is_last(instance: &InstanceId, leaving_since: Timestamp, group: &TargetGroup) -> bool {
    let own: Vec<&Target> = group
        .targets
        .iter()
        .filter(|target| target.instance == *instance && target.health == TargetHealth::Healthy)
        .collect();
    own.iter().any(|own| {
        let stands_in = |other: &&Target| {
            other.instance != *instance
                && other.health == TargetHealth::Healthy
                && (group.cross_zone || other.zone == own.zone)
                && counted_on(other, instance, leaving_since)
        };
        !group.targets.iter().any(|other| stands_in(&other))
    })
}

fn counted_on(other: &Target, instance: &InstanceId, leaving_since: Timestamp) -> bool {
    match other.leaving_since {
        Some(since) => (since, &other.instance) > (leaving_since, instance),
        None => !other.set_aside,
    }
}
