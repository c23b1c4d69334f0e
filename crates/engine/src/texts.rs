//! What operators read of a decision: the words of its reasons and endings, in logs, Events and answers.

use std::time::Duration;

use offramp_core::{
    Action, Ended, Key, Left, LeftAlone, NodeDoubt, NotWaitedFor, PodRef, Reason, Remainder, TargetGroupArn,
    TargetKey, UndoReason,
};

use crate::unfinished::UnfinishedKind;

/// Has words for people.
pub trait InWords {
    /// A name, or half a sentence without a full stop.
    fn in_words(&self) -> String;
}

impl InWords for TargetGroupArn {
    /// The name inside the ARN: `arn:…:targetgroup/NAME/ID`.
    fn in_words(&self) -> String {
        self.as_str().split('/').nth(1).unwrap_or(self.as_str()).to_owned()
    }
}

impl InWords for PodRef {
    fn in_words(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

impl InWords for TargetKey {
    fn in_words(&self) -> String {
        format!("{}:{}", self.group.in_words(), self.port)
    }
}

impl InWords for Action {
    fn in_words(&self) -> String {
        match self {
            Self::Isolate { exclude: false, .. } => "cordon and record".to_owned(),
            Self::Isolate { exclude: true, .. } => "cordon, exclude and record".to_owned(),
            Self::Exclude { record, .. } if record.targets.is_empty() => "exclude".to_owned(),
            Self::Exclude { record, .. } => {
                format!("exclude, recording {}", counted(record.targets.len(), "target"))
            }
            Self::WriteRecord { .. } => "record".to_owned(),
            Self::ListPods { node } => format!("list the pods of {node}"),
            Self::Deregister(target) => format!("deregister {}", target.in_words()),
            Self::Evict { pod, grace: None, .. } => format!("evict {}", pod.in_words()),
            Self::Evict { pod, grace: Some(grace), .. } => {
                format!("evict {} with {}", pod.in_words(), in_words(*grace))
            }
            Self::Delete { pod, grace } => format!("delete {} with {}", pod.in_words(), in_words(*grace)),
            Self::Heartbeat(hook) => format!("heartbeat for hook {}", hook.name),
            Self::CompleteHook(hook) => format!("complete hook {}: CONTINUE", hook.name),
            Self::Detach { group } => format!("detach from {group}"),
            Self::TerminateThroughGroup { group } => format!("terminate through {group}"),
            Self::Register(target) => format!("register {}", target.in_words()),
            Self::Release { record, .. } => match (record.cordoned, record.excluded) {
                (true, _) => "uncordon and forget".to_owned(),
                (false, true) => "take the label away and forget".to_owned(),
                // Somebody else's cordon stays.
                (false, false) => "forget".to_owned(),
            },
        }
    }
}

impl InWords for Reason {
    fn in_words(&self) -> String {
        match self {
            Self::Isolating => "isolating the node".to_owned(),
            Self::NodeUnknown => {
                "waiting: no cluster shows its node, and none has proven yet that there is none".to_owned()
            }
            Self::WriteUnseen => "waiting for the watch to show what was written to the node".to_owned(),
            Self::NodeInDoubt(doubt) => format!("waiting: {}", doubt.in_words()),
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
                group.in_words(),
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
            Self::NoNode { left, deleted: true } => {
                format!("the node was deleted, waiting {} for the pods that were on it", in_words(*left))
            }
            Self::NoNode { left, deleted: false } => format!(
                "the instance runs and no cluster has a node for it, holding its hook for {}",
                in_words(*left)
            ),
            Self::Settling => "empty, watching for pods bound just before the cordon".to_owned(),
            Self::SpotUnproven => {
                "its two minutes are over, seeing whether the kubelet still works".to_owned()
            }
            Self::ProvingEmpty => "empty by the watch, making sure that it has missed no pod".to_owned(),
            Self::Detaching => "telling the group to replace the instance now".to_owned(),
            Self::Quiescing { targets } => {
                format!("waiting for {} to finish the last requests", counted(*targets, "target"))
            }
            Self::Completing { not_waited_for: 0 } => {
                "everything owed is done, answering the hook".to_owned()
            }
            Self::Completing { not_waited_for } => format!(
                "answering the hook with {} left that came back or cannot end",
                counted(*not_waited_for, "pod")
            ),
            Self::Confirming => "answered, waiting for the group to show it".to_owned(),
            Self::AnswerRefused => {
                "AWS refuses the answer while the group holds the instance, asking again".to_owned()
            }
            Self::DeadlineReached(remainder) => {
                format!("the deadline has come, answering with {}", remainder.in_words())
            }
            Self::AwaitingInterruption { left } => {
                format!("isolated, waiting up to {} for the interruption", in_words(*left))
            }
            Self::AwaitingReturn => "waiting for the instance to come back".to_owned(),
            Self::WritingEnds => "writing into the node's record how it ended".to_owned(),
            Self::Returning(why) => format!("undoing what was done: {}", why.in_words()),
            Self::Served => "everything owed for the interruption is done".to_owned(),
            Self::Over(ended) => ended.in_words(),
            Self::Undone(why) => why.in_words(),
            Self::NotUndone => {
                "the node should be back in service, and could not be written: it stays isolated".to_owned()
            }
            Self::Withdrawn { why, claims } => {
                format!("{}; the node stays isolated for {}", why.in_words(), counted(*claims, "other claim"))
            }
        }
    }
}

impl InWords for NodeDoubt {
    fn in_words(&self) -> String {
        match self {
            Self::Unidentified { nodes } => format!(
                "it may be one of {} without an instance in their providerID",
                counted(*nodes, "node")
            ),
            Self::Twins { nodes } => format!("{nodes} Ready nodes name this instance in their providerID"),
        }
    }
}

impl InWords for Remainder {
    fn in_words(&self) -> String {
        let left = format!("{} and {} left", counted(self.pods, "pod"), counted(self.targets, "target"));
        match self.unread_target_groups {
            0 => left,
            unread => format!("{left}, {} unread", counted(unread, "target group")),
        }
    }
}

impl InWords for NotWaitedFor {
    fn in_words(&self) -> String {
        let text = match self {
            Self::CameBack => {
                "came back to the node that it was evicted from, and is not waited for; it tolerates the cordon, or \
                 something binds it there"
            }
            Self::Overdue => {
                "is there a minute after its grace, and is not waited for; a finalizer holds it, or the node's kubelet \
                 does not answer"
            }
        };
        text.to_owned()
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
            if let (Some(Key::Budget(namespace, budget)), "refused") = (&self.refused_by, what) {
                text.push_str(&format!(" by the disruption budget {namespace}/{}", budget.0));
            }
        }
        if self.uncordoned {
            text.push_str(", the node cannot be cordoned");
        }
        if let Some(span) = self.forced_in.filter(|_| self.refused > 0) {
            text.push_str(&format!(", forced in {}", in_words(span)));
        }
        text
    }
}

impl InWords for Ended {
    fn in_words(&self) -> String {
        let text = match self {
            Self::WithoutOurAnswer => {
                "the hook cannot be open any more, and it was not our answer that ended it"
            }
            Self::AnsweredUnseen => "the hook is answered, and nobody knows what ran on the instance",
            Self::Twins => {
                "several Ready nodes name the instance in their providerID: none of them was touched"
            }
            Self::Unisolated => {
                "all is done but for the node, which could not be cordoned, labelled or recorded"
            }
            Self::Answered => "the hook is answered",
            Self::InstanceEnded => "the instance has ended",
            Self::WasNotOpen => "the hook was not open: an earlier worker has probably answered it",
            Self::LeftIsolated => {
                "the group said neither that the instance goes nor that it stays: the node stays isolated"
            }
        };
        text.to_owned()
    }
}

impl InWords for UndoReason {
    fn in_words(&self) -> String {
        let text = match self {
            Self::NotOurs => "the hook is somebody else's",
            Self::InService => "the group says that the instance is not held by this hook",
            Self::NotAMember => "Auto Scaling does not list the instance, and its kubelet works on",
            Self::Stale => "the interruption did not come and the node still works",
            Self::LeftAlone(LeftAlone::Karpenter) => "left alone: Karpenter removes this node",
            Self::LeftAlone(LeftAlone::AutoMode) => "left alone: EKS Auto Mode removes this node",
            Self::LeftAlone(LeftAlone::NotSelected) => "left alone: the node selector does not match",
            Self::LeftAlone(LeftAlone::GroupOutOfScope) => "left alone: the group is out of scope",
            Self::ByPolicy => "the policy leaves rebalance recommendations to the group",
            Self::PatienceOver => "what was announced did not come, patience is over",
            Self::Reprieved => "the instance is back in service",
            Self::Overdue => {
                "the claim was over long ago, nobody worked on it any more, and the instance is in service"
            }
            Self::LookedAfter => "nothing of ours on the node is overdue any more",
            Self::NotServed => "launch hooks are not served by this version",
        };
        text.to_owned()
    }
}

impl InWords for UnfinishedKind {
    fn in_words(&self) -> String {
        let text = match self {
            Self::WaitingHook => "a hook holds the instance, and nobody works on it",
            Self::OverdueRecord => "a claim in the node's record is over, and nobody undoes it",
            Self::AbandonedRecord => {
                "the node's record is of another installation of offramp, which does not look after it"
            }
            Self::UnreadableRecord => "the node's record cannot be read, and its time is over",
            Self::LeftIsolated => {
                "the node was left isolated: nobody knows whether its instance goes or stays"
            }
        };
        text.to_owned()
    }
}

/// A span as people write it: `2m5s`, `300ms`, `0s`.
pub fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) if span.subsec_millis() > 0 => format!("{}ms", span.subsec_millis()),
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, 0) => format!("{h}h"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}

/// `1 pod`, `2 pods`.
fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_read_like_words() {
        let check = |millis: u64, expect: &str| assert_eq!(in_words(Duration::from_millis(millis)), expect);
        check(0, "0s");
        check(300, "300ms");
        check(5_900, "5s");
        check(125_000, "2m5s");
        check(120_000, "2m");
        check(3_600_000, "1h");
        check(5_400_000, "1h30m");
    }

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "pod")), ["0 pods", "1 pod", "2 pods"]);
    }

    #[test]
    fn reasons_read_like_half_a_sentence() {
        let check = |reason: Reason, expect: &str| assert_eq!(reason.in_words(), expect);
        check(
            Reason::DeadlineReached(Remainder { pods: 1, targets: 0, ..Remainder::default() }),
            "the deadline has come, answering with 1 pod and 0 targets left",
        );
        check(
            Reason::Undone(UndoReason::InService),
            "the group says that the instance is not held by this hook",
        );
        let left = Left { running: 2, ending: 1, refused: 1, ..Left::default() };
        check(Reason::Draining(left), "3 pods left, 1 ending, 1 refused");
    }
}
