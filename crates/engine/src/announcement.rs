//! What a node's Events tell, so that `kubectl describe node` answers "what is happening to it". The one
//! place that turns what a job does into announcements.

use offramp_core::{Action, ActionResult, Failure, Outcome, Reason, Stage, Trigger};

use std::time::Duration;

use crate::labels::{JobOutcome, action_name, trigger_name};
use crate::texts::{InWords, in_words};

/// One Event of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// What it is about.
    pub reason: EventReason,
    /// A sentence.
    pub text: String,
}

/// The reason of an Event, as tools filter by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum EventReason {
    /// The node is cordoned.
    Isolated,
    /// Everything owed is done: the instance may go.
    Removed,
    /// What was done has been undone.
    Returned,
    /// The gate holds the removal back.
    HeldBack,
    /// Time is up, and the hook is being answered with something left.
    DeadlineReached,
    /// A pod was deleted, budget or not, because the deadline comes.
    PodDeleted,
    /// A permission is missing.
    ActionDenied,
    /// AWS or the API server finds a request wrong: it is not taken, however often it is repeated.
    RequestInvalid,
    /// A disruption budget lets no more pods go for now.
    AwaitingBudget,
    /// An admission webhook or policy refuses to let a pod go.
    EvictionRefused,
    /// It refuses to let the node be cordoned, labelled or recorded.
    IsolationRefused,
    /// It ended otherwise than by our answer, or undecided: somebody should look at the node.
    EndUnclear,
}

impl EventReason {
    /// Every reason.
    pub const ALL: [Self; 12] = [
        Self::Isolated,
        Self::Removed,
        Self::Returned,
        Self::HeldBack,
        Self::DeadlineReached,
        Self::PodDeleted,
        Self::ActionDenied,
        Self::RequestInvalid,
        Self::AwaitingBudget,
        Self::EvictionRefused,
        Self::IsolationRefused,
        Self::EndUnclear,
    ];

    /// The word that stands in the Event.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Isolated => "Isolated",
            Self::Removed => "Removed",
            Self::Returned => "Returned",
            Self::HeldBack => "HeldBack",
            Self::DeadlineReached => "DeadlineReached",
            Self::PodDeleted => "PodDeleted",
            Self::ActionDenied => "ActionDenied",
            Self::RequestInvalid => "RequestInvalid",
            Self::AwaitingBudget => "AwaitingBudget",
            Self::EvictionRefused => "EvictionRefused",
            Self::IsolationRefused => "IsolationRefused",
            Self::EndUnclear => "EndUnclear",
        }
    }

    /// Its Event has the type Warning; the others are Normal.
    pub const fn is_warning(self) -> bool {
        match self {
            Self::HeldBack
            | Self::DeadlineReached
            | Self::PodDeleted
            | Self::ActionDenied
            | Self::RequestInvalid
            | Self::EvictionRefused
            | Self::IsolationRefused
            | Self::EndUnclear => true,
            Self::Isolated | Self::AwaitingBudget | Self::Removed | Self::Returned => false,
        }
    }
}

impl Announcement {
    fn new(reason: EventReason, text: String) -> Option<Self> {
        Some(Self { reason, text })
    }

    pub(crate) fn isolated(trigger: Trigger, since_event: Duration) -> Option<Self> {
        let text = format!("Cordoned for a {} notice, {} old.", trigger_name(trigger), in_words(since_event));
        Self::new(EventReason::Isolated, text)
    }

    /// Something holds a job up, or its time is up.
    pub(crate) fn of_reason(reason: &Reason) -> Option<Self> {
        let about = match reason {
            Reason::GateClosed { .. } => EventReason::HeldBack,
            Reason::DeadlineReached(_) => EventReason::DeadlineReached,
            _ => return None,
        };
        Self::new(about, sentence(&reason.in_words()))
    }

    pub(crate) fn of_action(action: &Action, outcome: &ActionResult) -> Option<Self> {
        match (action, outcome) {
            (Action::Delete { pod, grace }, Ok(Outcome::Done)) => {
                let text = format!(
                    "Deleted pod {} with {} to end: the deadline comes, and its disruption budget is not \
                     waited for any longer.",
                    pod.in_words(),
                    in_words(*grace)
                );
                Self::new(EventReason::PodDeleted, text)
            }
            (Action::Evict { pod, .. }, Ok(Outcome::Blocked { budget: Some(budget) })) => {
                let text = format!(
                    "The disruption budget {}/{} lets no more pods go for now. It is asked again when a pod of its \
                     namespace becomes ready, and every 40 s at the latest.",
                    pod.namespace, budget.0
                );
                Self::new(EventReason::AwaitingBudget, text)
            }
            // Not the object and not the answer: one Event is enough for all pods of the node.
            (_, Err(Failure::Invalid)) => {
                let action = action_name(action).replace('_', " ");
                let text = format!("Refused as invalid: {action}. The log of offramp has the words.");
                Self::new(EventReason::RequestInvalid, text)
            }
            (_, Err(Failure::Denied)) => {
                let action = action_name(action).replace('_', " ");
                let text =
                    format!("Not permitted: {action}. The log of offramp says what has to be allowed.");
                Self::new(EventReason::ActionDenied, text)
            }
            _ => None,
        }
    }

    /// What has to be read about the node or its instance is refused as invalid.
    pub(crate) fn read_is_invalid() -> Option<Self> {
        let text = "Refused as invalid: a read. The log of offramp has the words.".to_owned();
        Self::new(EventReason::RequestInvalid, text)
    }

    pub(crate) fn vetoed(action: &Action, by: &str) -> Option<Self> {
        if let Action::Evict { pod, .. } | Action::Delete { pod, .. } = action {
            let text = format!(
                "An admission webhook or policy refuses to let pod {} go, and is asked again every few seconds: {by}",
                pod.in_words()
            );
            return Self::new(EventReason::EvictionRefused, text);
        }
        let text = format!("An admission webhook or policy refuses to {}: {by}", action.in_words());
        Self::new(EventReason::IsolationRefused, text)
    }

    /// A job is over. One that did nothing to the node is not worth a word, and neither is one that no hook waited for: EC2 ends
    /// the instance in its own time.
    pub(crate) fn of_end(
        outcome: JobOutcome,
        (last, had_hook): (Option<Stage>, bool),
        reason: &str,
        took: Duration,
    ) -> Option<Self> {
        let took = in_words(took);
        match (outcome, last) {
            (JobOutcome::Left, _) if !had_hook => None,
            (JobOutcome::Left, Some(_)) => {
                Self::new(EventReason::Removed, format!("Everything owed was done within {took}: {reason}."))
            }
            (JobOutcome::LeftUnfinished, Some(_)) => {
                Self::new(EventReason::DeadlineReached, format!("Ended after {took}: {reason}."))
            }
            (
                JobOutcome::Returned
                | JobOutcome::NotOurs
                | JobOutcome::NotAMember
                | JobOutcome::Stale
                | JobOutcome::LeftAlone,
                Some(Stage::Register | Stage::Release),
            ) => Self::new(EventReason::Returned, format!("In service again after {took}: {reason}.")),
            (outcome, _) if outcome.is_unclear() => Self::new(
                EventReason::EndUnclear,
                format!("Ended after {took}, and somebody should look: {reason}."),
            ),
            _ => None,
        }
    }

    /// Two of a job with the same key say the same: a pod is deleted once, a permission is missing until
    /// it is there, and the gate may close again.
    pub(crate) fn key(&self) -> (EventReason, Option<String>) {
        let several = matches!(
            self.reason,
            EventReason::PodDeleted
                | EventReason::AwaitingBudget
                | EventReason::ActionDenied
                | EventReason::RequestInvalid
                | EventReason::EvictionRefused
        );
        (self.reason, several.then(|| self.text.clone()))
    }
}

fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    letters.next().map_or_else(String::new, |first| format!("{}{}.", first.to_uppercase(), letters.as_str()))
}

#[cfg(test)]
mod tests {
    use offramp_core::{GroupName, PodOrigin, PodRef, PodUid, Remainder};

    use super::*;

    #[test]
    fn reasons_are_single_words_of_their_own() {
        let words: std::collections::BTreeSet<&str> =
            EventReason::ALL.map(EventReason::as_str).into_iter().collect();
        assert_eq!(words.len(), EventReason::ALL.len());
        for word in words {
            assert!(word.starts_with(|first: char| first.is_ascii_uppercase()), "{word}");
            assert!(word.chars().all(|letter| letter.is_ascii_alphabetic()), "{word}");
        }
    }

    #[test]
    fn what_holds_a_job_up_is_announced_and_its_stages_are_not() {
        assert_eq!(Announcement::of_reason(&Reason::Settling), None);
        let group = "arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1".into();
        let closed = Reason::GateClosed { group, left: Duration::from_secs(60) };
        let held = Announcement::of_reason(&closed).unwrap();
        assert!(held.reason == EventReason::HeldBack && held.reason.is_warning());
        assert!(held.text.starts_with("Holding back: the last healthy target of "), "{}", held.text);
        let late = Reason::DeadlineReached(Remainder { pods: 2, targets: 0, ..Remainder::default() });
        let late = Announcement::of_reason(&late).unwrap();
        assert_eq!(late.reason, EventReason::DeadlineReached);
    }

    #[test]
    fn only_what_an_operator_should_know_of_an_action_is_announced() {
        let pod = PodRef { namespace: "shop".to_owned(), name: "web-1".to_owned(), uid: PodUid::new("u") };
        let grace = Duration::from_secs(30);
        let (evict, delete) = (
            Action::Evict { pod: pod.clone(), origin: PodOrigin("shop web".into()), grace: None },
            Action::Delete { pod, grace },
        );
        let group = GroupName::new("workers");
        let said = |action: &Action, outcome: ActionResult| Announcement::of_action(action, &outcome);
        let deleted = said(&delete, Ok(Outcome::Done)).unwrap();
        assert!(deleted.reason == EventReason::PodDeleted && deleted.text.contains("shop/web-1"));
        let denied = said(&Action::TerminateThroughGroup { group }, Err(Failure::Denied)).unwrap();
        assert_eq!(denied.reason, EventReason::ActionDenied);
        assert!(denied.text.starts_with("Not permitted: terminate through group."), "{}", denied.text);
        let invalid = said(&evict, Err(Failure::Invalid)).unwrap();
        assert!(invalid.reason == EventReason::RequestInvalid && invalid.reason.is_warning());
        assert!(invalid.text.starts_with("Refused as invalid: evict."), "{}", invalid.text);
        assert_eq!(said(&evict, Ok(Outcome::Done)), None);
        assert_eq!(said(&evict, Err(Failure::Retry)), None);
        assert_eq!(said(&delete, Ok(Outcome::Gone)), None);
    }

    #[test]
    fn a_job_that_did_nothing_ends_without_a_word() {
        let said = |outcome, last| {
            let said = Announcement::of_end(outcome, (last, true), "it is over", Duration::from_secs(90));
            said.map(|said| said.reason)
        };
        assert_eq!(said(JobOutcome::Left, Some(Stage::Complete)), Some(EventReason::Removed));
        assert_eq!(said(JobOutcome::Left, None), None);
        let of_spot = (Some(Stage::Complete), false);
        assert_eq!(Announcement::of_end(JobOutcome::Left, of_spot, "it is over", Duration::ZERO), None);
        assert_eq!(
            said(JobOutcome::LeftUnfinished, Some(Stage::Complete)),
            Some(EventReason::DeadlineReached)
        );
        assert_eq!(said(JobOutcome::Stale, Some(Stage::Release)), Some(EventReason::Returned));
        assert_eq!(said(JobOutcome::LeftIsolated, None), Some(EventReason::EndUnclear));
        assert_eq!(
            said(JobOutcome::EndedWithoutOurAnswer, Some(Stage::Complete)),
            Some(EventReason::EndUnclear)
        );
        assert_eq!(said(JobOutcome::Returned, Some(Stage::Release)), Some(EventReason::Returned));
        assert_eq!(said(JobOutcome::NotOurs, Some(Stage::Release)), Some(EventReason::Returned));
        assert_eq!(said(JobOutcome::Returned, Some(Stage::Isolate)), None);
        assert_eq!(said(JobOutcome::Stopped, Some(Stage::Drain)), None);
    }
}
