//! What operators read of a decision: the words of its reasons and endings, in logs, Events and answers.

use offramp_core::{Left, LeftAlone, Over, Reason, counted, in_words};

/// Has words for people.
pub(crate) trait InWords {
    /// Half a sentence, without a full stop.
    fn in_words(&self) -> String;
}

impl InWords for Reason {
    fn in_words(&self) -> String {
        match self {
            Self::Isolating => "isolating the node".to_owned(),
            Self::NodeUnknown => "waiting: the cluster is out of sync, the node is not known".to_owned(),
            Self::PodsUnknown => "waiting: the pods of the node are not known".to_owned(),
            Self::GroupUnknown => "waiting for Auto Scaling to say what the instance is doing".to_owned(),
            Self::GroupUndecided => {
                "waiting: the group shows neither the hook's Wait state nor that the instance is in \
                                     service"
                    .to_owned()
            }
            Self::TargetsUnknown => "waiting for the target groups to be read".to_owned(),
            Self::Unsettled => "waiting for the group to show the hook's Wait state".to_owned(),
            Self::GateClosed { group, left } => format!(
                "holding back: the last healthy target of {} (goes on in {})",
                group.short(),
                in_words(*left)
            ),
            Self::Deregistering { targets: 0, .. } => "keeping controllers from adding the node".to_owned(),
            Self::Deregistering { targets, unlabelled } => {
                let but = if *unlabelled { ", not labelled: the node cannot be written" } else { "" };
                format!("deregistering {}{but}", counted(*targets, "target"))
            }
            Self::Propagating { left } => {
                format!("waiting {} for the balancers to send nothing new", in_words(*left))
            }
            Self::Draining(left) => left.in_words(),
            Self::Settling => "empty, watching for pods bound just before the cordon".to_owned(),
            Self::Detaching => "telling the group to replace the instance now".to_owned(),
            Self::Quiescing { targets } => {
                format!("waiting for {} to finish the last requests", counted(*targets, "target"))
            }
            Self::Completing => "everything owed is done, answering the hook".to_owned(),
            Self::Confirming => "answered, waiting for the group to show it".to_owned(),
            Self::AnswerRefused => {
                "AWS refuses the answer while the group holds the instance, asking again".to_owned()
            }
            Self::DeadlineReached { pods, targets } => {
                let (pods, targets) = (counted(*pods, "pod"), counted(*targets, "target"));
                format!("the deadline has come, answering with {pods} and {targets} left")
            }
            Self::AwaitingInterruption { left } => {
                format!("isolated, waiting up to {} for the interruption", in_words(*left))
            }
            Self::AwaitingReturn => "waiting for the instance to come back".to_owned(),
            Self::Returning(over) => format!("undoing what was done: {}", over.in_words()),
            Self::SpotServed => "everything owed for the spot notice is done".to_owned(),
            Self::Over(over) => over.in_words(),
        }
    }
}

impl InWords for Left {
    fn in_words(&self) -> String {
        let mut text = format!("{} left", counted(self.running + self.ending, "pod"));
        for (count, what) in [
            (self.ending, "ending"),
            (self.refused, "refused"),
            (self.vetoed, "of them by an admission webhook or policy"),
            (self.awaiting_quiet, "until traffic has left"),
        ] {
            if count > 0 {
                text.push_str(&format!(", {count} {what}"));
            }
        }
        if let Some(span) = self.forced_in.filter(|_| self.refused > 0) {
            text.push_str(&format!(", forced in {}", in_words(span)));
        }
        text
    }
}

impl InWords for Over {
    fn in_words(&self) -> String {
        let text = match self {
            Self::Answered => "the hook is answered",
            Self::EndedWithoutUs => {
                "the hook cannot be open any more, and it was not our answer that ended it"
            }
            Self::WasNotOpen => "the hook was not open: an earlier worker has probably answered it",
            Self::LeftIsolated => {
                "the group said neither that the instance goes nor that it stays: the node stays isolated"
            }
            Self::NotOurs => "the hook is somebody else's",
            Self::Disagrees => "the group says that the instance is not held by this hook",
            Self::Stale => "the spot notice is over and the node still works",
            Self::Ended => "the instance has ended",
            Self::LeftAlone(LeftAlone::Karpenter) => "left alone: Karpenter removes this node",
            Self::LeftAlone(LeftAlone::AutoMode) => "left alone: EKS Auto Mode removes this node",
            Self::LeftAlone(LeftAlone::NotSelected) => "left alone: the node selector does not match",
            Self::LeftAlone(LeftAlone::GroupOutOfScope) => "left alone: the group is out of scope",
            Self::ByPolicy => "the policy leaves rebalance recommendations to the group",
            Self::PatienceOver => "what was announced did not come, patience is over",
            Self::Reprieved => "the instance is back in service",
            Self::NotServed => "launch hooks are not served by this version",
        };
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_read_like_half_a_sentence() {
        let check = |reason: Reason, expect: &str| assert_eq!(reason.in_words(), expect);
        check(
            Reason::DeadlineReached { pods: 1, targets: 0 },
            "the deadline has come, answering with 1 pod and 0 targets left",
        );
        check(Reason::Over(Over::Disagrees), "the group says that the instance is not held by this hook");
        let left = Left { running: 2, ending: 1, refused: 1, ..Left::default() };
        check(Reason::Draining(left), "3 pods left, 1 ending, 1 refused");
    }
}
