//! One observe → step → act, after the observing: what is decided is done, and what came of it is learned.

use std::pin::pin;
use std::time::Duration;

use offramp_core::{Action, Goal, Node, Observation, Outcome, Step, Timestamp, step};

use super::Task;
use crate::act::Actor;
use crate::announcement::Announcement;
use crate::learning;

/// A message that is still on its way to its isolation after this gives its place to the next: an answer
/// that takes a hundred times as long as others may not come at all.
const PERMIT: Duration = Duration::from_secs(1);

impl Task {
    /// A tick, and the permits given back with its end, or before that when it takes too long.
    pub(super) async fn tick_with_permit(&mut self, seen: &Observation) -> (Step, Timestamp) {
        let (clock, permits) = (self.shared.clock, std::mem::take(&mut self.permits));
        let mut tick = pin!(self.tick(seen));
        tokio::select! {
            biased;
            ticked = &mut tick => return ticked,
            () = clock.sleep_until(clock.now() + PERMIT), if !permits.is_empty() => drop(permits),
        }
        tick.await
    }

    /// One observe → step → act, after the observing. Says when to look again.
    async fn tick(&mut self, seen: &Observation) -> (Step, Timestamp) {
        let now = self.shared.clock.now();
        learning::learn_of_observation(&mut self.job.memory, &self.job.instance, seen, now);
        self.tell_came_back(seen);
        let mut step = step(&self.job, seen, &self.shared.policy, now);
        self.tell(&step, now);
        let before = self.job.memory.clone();
        let untouched = |node: &Node| !node.cordoned || node.record.is_none();
        let isolates = step.goal == Goal::Leave && seen.node.known().is_some_and(untouched);
        let actor = Actor {
            instance: &self.job.instance,
            home: &self.home,
            seen,
            cluster: self.cluster.as_ref(),
            calls: &self.shared.observer.calls,
            journal: &self.shared.journal,
        };
        let wanted = step.actions.len();
        let outcomes = actor.act(std::mem::take(&mut step.actions)).await;
        let now = self.shared.clock.now();
        let failures = outcomes.iter().filter(|(_, outcome)| is_failure(outcome)).count();
        let pause = (failures > 0).then(|| self.pauses.next());
        for (action, outcome) in &outcomes {
            learning::learn_of_outcome(&mut self.job.memory, action, outcome, seen, now);
            self.tell_veto(action, outcome);
            self.announce(Announcement::of_action(action, outcome));
            if let Action::Isolate { .. } = action {
                self.isolate_again_at = pause.filter(|_| *outcome == Outcome::Retry).map(|pause| now + pause);
                if *outcome == Outcome::Done && isolates {
                    self.tell_isolated(now);
                }
            }
        }
        let answers = outcomes.len() - failures;
        if failures == 0 && answers > 0 {
            self.pauses.reset();
        }
        // What was learned may allow the next thing at once; what found no seat has waited already.
        let memory = &self.job.memory;
        let learned =
            memory.isolation_failed != before.isolation_failed || (answers > 0 && *memory != before);
        let again_at = if learned || outcomes.len() < wanted {
            now
        } else {
            pause.map_or(step.wake_at, |pause| step.wake_at.min(now + pause))
        };
        (step, again_at)
    }
}

/// Nothing was learned of the world, but that this did not work.
const fn is_failure(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Retry | Outcome::Denied | Outcome::Invalid => true,
        Outcome::Done
        | Outcome::Gone
        | Outcome::Changed
        | Outcome::Blocked { .. }
        | Outcome::Vetoed { .. } => false,
    }
}
