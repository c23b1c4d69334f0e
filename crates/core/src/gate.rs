//! The safety gate: not the last target that serves, while time allows.

use std::time::Duration;

use crate::*;

/// The first target group that would be left without a target we can count on, if any. It
/// guards everything that ends traffic: the exclude label, deregistration, detach, standby.
///
/// Jobs and replicas agree by the records, without talking: who has the earlier one goes first, the instance id decides
/// between equals, and the last one waits.
/// `is_shown`: this one has been seen as leaving for [`SHOWN`].
pub(crate) fn closed_by<'a>(
    turn: (Timestamp, &InstanceId),
    is_shown: bool,
    seen: &'a Observation,
) -> Option<&'a TargetGroupArn> {
    seen.target_groups.known()?.iter().find(|group| is_last(turn, is_shown, group)).map(|group| &group.arn)
}

/// Whoever did not see the record of this node when it passed the gate has put its label on by then, and that is seen: a
/// record may be older than the PATCH that brought it, which took its time (Baragon#369). A PATCH may take ten seconds, and
/// a watch be up to five late.
pub(crate) const SHOWN: Duration = Duration::from_secs(15);

fn is_last(turn: (Timestamp, &InstanceId), is_shown: bool, group: &TargetGroup) -> bool {
    let serving = group.targets.iter().filter(|target| group.sends_to(target.health));
    let (own, others): (Vec<&Target>, Vec<&Target>) = serving.partition(|target| target.instance == *turn.1);
    let counts_on = |other: &Target| match other.leaving_since {
        Some(since) => is_shown && (since, &other.instance) > turn,
        None => !other.set_aside,
    };
    own.iter().any(|own| {
        let same_place = |other: &Target| group.cross_zone || other.zone == own.zone;
        !others.iter().any(|other| same_place(other) && counts_on(other))
    })
}
