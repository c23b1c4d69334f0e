//! How a job ends, and what becomes of its messages.

use std::time::Duration;

use offramp_core::{Ended, Reason, Remainder, UndoReason};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Task;
use crate::announcement::Announcement;
use crate::fact::Fact;
use crate::labels::JobOutcome;
use crate::lease::Order;
use crate::ports::MessageId;
use crate::texts::InWords;

/// The lease task tries to delete a message up to five times, with pauses, and keeps the lease meanwhile.
const DELETION: Duration = Duration::from_secs(45);

/// Why a job is over.
pub(super) enum End {
    Done(Reason),
    Foreign,
    /// No cluster could say whether it has the instance, until it did not matter any more.
    GivenUp,
    HandedOver,
    Stopped,
}

impl Task {
    pub(super) async fn end(mut self, end: End, stop: &CancellationToken) {
        let now = self.shared.clock.now();
        let holds_messages = self.messages.values().any(Option::is_none);
        let messages: Vec<MessageId> = std::mem::take(&mut self.messages).into_keys().collect();
        let (outcome, reason) = match end {
            End::Done(reason) => ended(&reason, self.remainder),
            End::Foreign => {
                (JobOutcome::Foreign, "the instance is in no cluster that this worker serves".to_owned())
            }
            End::GivenUp => (
                JobOutcome::ForeignUnsure,
                "no cluster could say whether it has the instance, until its time was over".to_owned(),
            ),
            End::HandedOver => (JobOutcome::HandedOver, "its messages did not come back".to_owned()),
            End::Stopped if holds_messages => {
                (JobOutcome::Stopped, "the worker stops, its messages are handed back".to_owned())
            }
            End::Stopped => (
                JobOutcome::Stopped,
                "the worker stops, its messages have gone to another one before".to_owned(),
            ),
        };
        match outcome {
            JobOutcome::Foreign | JobOutcome::ForeignUnsure if self.shared.foreign.delete => {
                self.delete(messages, stop).await
            }
            JobOutcome::Stopped => self.order(Order::Release { messages }),
            _ if outcome.is_own() => self.delete(messages, stop).await,
            _ => self.order(Order::Forget { messages }),
        }
        // A job that was cut off says nothing about its stage, and only a removal has a deadline to keep.
        let (last, took) = (self.stage.map(|(stage, _)| stage), now.since(self.job.since()));
        let had_hook = self.job.hooks().next().is_some();
        self.announce(Announcement::of_end(outcome, (last, had_hook), &reason, took));
        let time_left = self.deadline.map(|deadline| now.until(deadline));
        self.shared.journal.record(Fact::Finished {
            instance: self.job.instance.clone(),
            cluster: self.cluster.as_ref().map(|cluster| cluster.name().clone()),
            trigger: self.status.borrow().trigger(),
            outcome,
            reason,
            took,
            left_stage: self
                .stage
                .filter(|_| outcome.is_own())
                .map(|(stage, since)| (stage, now.since(since))),
            time_left: time_left.filter(|_| matches!(outcome, JobOutcome::Left | JobOutcome::LeftUnfinished)),
        });
    }

    /// The last thing a job does.
    fn delete(&self, messages: Vec<MessageId>, stop: &CancellationToken) -> impl Future<Output = ()> + use<> {
        let (done, deleted) = oneshot::channel();
        let stop = stop.clone();
        self.looks_again_by(self.shared.clock.now() + DELETION);
        self.order(Order::Delete { messages, done });
        // The other end is dropped when nothing more is done about the messages. Where the lease task is gone
        // they come back.
        async move {
            tokio::select! {
                biased;
                deleted = deleted => deleted.unwrap_or_default(),
                // Five tries of ten seconds each are no shutdown (seed 2370): the lease task goes on without this job.
                () = stop.cancelled() => {}
            }
        }
    }

    fn order(&self, order: Order) {
        self.shared.orders.send(order).unwrap_or_default();
    }
}

/// A removal that came to its deadline with something left has not done all it owed.
fn ended(reason: &Reason, remainder: Option<Remainder>) -> (JobOutcome, String) {
    match (outcome_of(reason), remainder.filter(|remainder| !remainder.is_empty())) {
        (JobOutcome::Left, Some(remainder)) => {
            let words = format!("{}, and {} at its deadline", reason.in_words(), remainder.in_words());
            (JobOutcome::LeftUnfinished, words)
        }
        (outcome, _) => (outcome, reason.in_words()),
    }
}

fn outcome_of(reason: &Reason) -> JobOutcome {
    match reason {
        Reason::Served | Reason::Over(Ended::Answered | Ended::InstanceEnded) => JobOutcome::Left,
        Reason::Over(Ended::WithoutOurAnswer) => JobOutcome::EndedWithoutOurAnswer,
        Reason::Over(Ended::AnsweredUnseen) => JobOutcome::AnsweredUnseen,
        Reason::Over(Ended::Twins) => JobOutcome::Twins,
        Reason::Over(Ended::Unisolated) => JobOutcome::Unisolated,
        Reason::Over(Ended::WasNotOpen) => JobOutcome::WasNotOpen,
        Reason::Over(Ended::LeftIsolated) | Reason::NotUndone => JobOutcome::LeftIsolated,
        Reason::Undone(why) | Reason::Withdrawn { why, .. } => match why {
            UndoReason::NotAMember => JobOutcome::NotAMember,
            UndoReason::NotOurs => JobOutcome::NotOurs,
            UndoReason::Stale => JobOutcome::Stale,
            UndoReason::LeftAlone(_) => JobOutcome::LeftAlone,
            UndoReason::InService
            | UndoReason::ByPolicy
            | UndoReason::PatienceOver
            | UndoReason::Reprieved
            | UndoReason::Overdue
            | UndoReason::LookedAfter
            | UndoReason::NotServed => JobOutcome::Returned,
        },
        // No job ends on any other.
        _ => JobOutcome::Returned,
    }
}

#[cfg(test)]
mod tests {
    use offramp_core::{LeftAlone, Trigger};

    use super::*;

    #[test]
    fn what_was_left_at_the_deadline_is_no_mere_end() {
        let check = |reason: Reason, remainder: Option<(usize, usize)>, outcome, words: &str| {
            let remainder =
                remainder.map(|(pods, targets)| Remainder { pods, targets, ..Remainder::default() });
            assert_eq!(ended(&reason, remainder), (outcome, words.to_owned()), "{reason:?}");
        };
        let (answered, refused) = (Reason::Over(Ended::Answered), Reason::Over(Ended::WithoutOurAnswer));
        let left = "the hook is answered, and 1 pod and 2 targets left at its deadline";
        check(answered.clone(), Some((1, 2)), JobOutcome::LeftUnfinished, left);
        check(answered.clone(), Some((0, 0)), JobOutcome::Left, "the hook is answered");
        check(answered, None, JobOutcome::Left, "the hook is answered");
        check(refused.clone(), Some((1, 2)), JobOutcome::EndedWithoutOurAnswer, &refused.in_words());
    }

    #[test]
    fn what_somebody_should_know_of_is_a_warning() {
        let check = |why: UndoReason, outcome: JobOutcome, warns: [bool; 2]| {
            assert_eq!(outcome_of(&Reason::Undone(why)), outcome, "{why:?}");
            assert_eq!(outcome_of(&Reason::Withdrawn { why, claims: 1 }), outcome, "{why:?}");
            assert_eq!(
                [Trigger::Hook, Trigger::Spot].map(|trigger| outcome.warns(trigger)),
                warns,
                "{why:?}"
            );
        };
        check(UndoReason::InService, JobOutcome::Returned, [false, false]);
        check(UndoReason::NotAMember, JobOutcome::NotAMember, [false, false]);
        check(UndoReason::NotOurs, JobOutcome::NotOurs, [true, true]);
        check(UndoReason::Stale, JobOutcome::Stale, [true, true]);
        for why in
            [LeftAlone::NotSelected, LeftAlone::Karpenter, LeftAlone::AutoMode, LeftAlone::GroupOutOfScope]
        {
            check(UndoReason::LeftAlone(why), JobOutcome::LeftAlone, [true, false]);
        }
        assert!(JobOutcome::LeftUnfinished.warns(Trigger::Spot) && !JobOutcome::Left.warns(Trigger::Hook));
    }
}
