//! The safety gate: not the last target that serves, while time allows.

use std::time::Duration;

use crate::*;

/// The first target group that would be left without a target we can count on, if any. It
/// guards everything that ends traffic: the exclude label, deregistration, detach, standby.
///
/// Jobs and replicas agree by the records, without talking: who has the earlier one goes first, the instance id decides
/// between equals, and the last one waits.
pub(crate) fn closed_by<'a>(turn: &Turn<'_>, seen: &'a Observation) -> Option<&'a TargetGroupArn> {
    let Seen::Known(groups) = &seen.target_groups else { return None };
    groups.iter().find(|group| turn.is_last(group)).map(|group| &group.arn)
}

/// When an instance may go.
#[derive(Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) leaving_since: Timestamp,
    /// Who goes after this one is known: it has been seen as leaving for [`SHOWN`].
    pub(crate) is_shown: bool,
}

/// Whoever did not see the record of this node when it passed the gate has put its label on by then, and that is seen: a
/// record may be older than the PATCH that brought it, which took its time (Baragon#369). A PATCH may take ten seconds, and
/// a watch be up to five late.
pub(crate) const SHOWN: Duration = Duration::from_secs(15);

impl Turn<'_> {
    fn is_last(&self, group: &TargetGroup) -> bool {
        let serving = group.targets.iter().filter(|target| group.sends_to(target.health));
        let (own, others): (Vec<&Target>, Vec<&Target>) =
            serving.partition(|target| target.instance == *self.instance);
        own.iter().any(|own| {
            let same_place = |other: &Target| group.cross_zone || other.zone == own.zone;
            !others.iter().any(|other| same_place(other) && self.counts_on(other))
        })
    }

    fn counts_on(&self, other: &Target) -> bool {
        match other.leaving_since {
            Some(since) => self.is_shown && (since, &other.instance) > (self.leaving_since, self.instance),
            None => !other.set_aside,
        }
    }
}
