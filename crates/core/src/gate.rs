//! The safety gate: not the last healthy target, while time allows.

use crate::*;

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
    let healthy = group.targets.iter().filter(|target| target.health == TargetHealth::Healthy);
    let (own, others): (Vec<&Target>, Vec<&Target>) =
        healthy.partition(|target| target.instance == *instance);
    own.iter().any(|own| {
        let same_place = |other: &Target| group.cross_zone || other.zone == own.zone;
        !others.iter().any(|other| same_place(other) && counted_on(other, instance, leaving_since))
    })
}

fn counted_on(other: &Target, instance: &InstanceId, leaving_since: Timestamp) -> bool {
    match other.leaving_since {
        Some(since) => (since, &other.instance) > (leaving_since, instance),
        None => !other.set_aside,
    }
}
