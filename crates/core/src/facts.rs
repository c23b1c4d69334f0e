//! What the decision is about: the arguments of `step`, together.

use std::time::Duration;

use crate::*;

/// ELB is eventually consistent (TargetGroupNotFound for one that was made a moment ago).
const TWO_READINGS: Duration = Duration::from_secs(10);

/// One reading that does not list an instance says nothing of its group: it may lag behind the launch, or be empty once.
const UNLISTED: Duration = Duration::from_secs(60);

/// What is known of one instance at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts<'a> {
    pub(crate) job: &'a Job,
    pub(crate) seen: &'a Observation,
    pub(crate) policy: &'a Policy,
    pub(crate) now: Timestamp,
}

impl Facts<'_> {
    /// AWS says how things were then, or later.
    pub(crate) fn as_of(&self) -> Timestamp {
        self.seen.as_of(self.now)
    }

    /// ELB says how the targets were then, or later.
    pub(crate) fn targets_as_of(&self) -> Timestamp {
        self.seen.targets_read_at.map_or(self.now, |read_at| read_at.min(self.now))
    }

    /// How many target groups are not known. One that is not found counts among them until a second reading, 10 s later, does
    /// not find it either: it is then gone.
    pub(crate) fn unread_target_groups(&self) -> usize {
        self.seen.unread_target_groups + self.lost_target_groups()
    }

    /// How many are not found for the first time.
    pub(crate) fn lost_target_groups(&self) -> usize {
        let since =
            |group: &TargetGroupArn| self.job.memory.missing_since.get(group).copied().unwrap_or(self.now);
        let missing = self.seen.missing_target_groups.iter();
        missing.filter(|group| self.targets_as_of() < since(group) + TWO_READINGS).count()
    }

    /// What the group says that the instance is doing. One read that fails does not take back what it said before.
    pub(crate) fn state(&self) -> Option<&LifecycleState> {
        match &self.seen.membership {
            Seen::Known(member) => Some(&member.state),
            Seen::Unknown => self.job.memory.last_state.as_ref(),
            Seen::Gone => None,
        }
    }

    /// It has been in no group for a minute, by each reading.
    pub(crate) fn is_unlisted(&self) -> bool {
        let since = self.job.memory.sightings.no_member_since;
        since.is_some_and(|since| self.as_of() >= since + UNLISTED)
    }

    /// What was written to the node was not taken, and does not show either: an answer may have been lost.
    pub(crate) fn is_unisolated(&self) -> bool {
        let shows = |node: &Node| node.cordoned && node.excluded && node.record.is_some();
        let Memory { unwritten, sightings, .. } = &self.job.memory;
        match &self.seen.node {
            Seen::Known(node) => (unwritten.is_some() || sightings.open_since.is_some()) && !shows(node),
            Seen::Gone | Seen::Unknown => unwritten.is_some_and(|unwritten| unwritten.refused.is_some()),
        }
    }

    /// Why nothing is known about the node.
    pub(crate) fn node_unknown(&self) -> Reason {
        self.seen.doubt.map_or(Reason::NodeUnknown, Reason::NodeInDoubt)
    }

    /// When to look again, whatever the watches tell until then.
    pub(crate) fn recheck(&self) -> Timestamp {
        self.now + self.policy.recheck
    }

    /// When to read again what no watch tells.
    pub(crate) fn reread(&self) -> Timestamp {
        self.as_of() + self.policy.recheck
    }
}
