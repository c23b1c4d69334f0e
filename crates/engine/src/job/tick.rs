//! One observe → step → act, after the observing: what is decided is done, and what came of it is learned.

use std::pin::pin;
use std::time::Duration;

use offramp_core::{Action, Failure, Goal, Node, Observation, Outcome, Step, Timestamp, step};

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
        let (clock, permits) = (self.shared.clock.clone(), std::mem::take(&mut self.permits));
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
        let mut step = self.decide(seen);
        self.tell_not_waited_for(seen);
        self.tell(&step, self.shared.clock.now());
        let again_at = self.act(seen, &mut step).await;
        (step, again_at)
    }

    /// What should happen now. Nothing is done and nothing is told: it may be shown and left at that.
    fn decide(&mut self, seen: &Observation) -> Step {
        let now = self.shared.clock.now();
        learning::learn_of_observation(&mut self.job.memory, &self.job.instance, seen, now);
        self.ask_for_proof();
        let step = step(&self.job, seen, &self.shared.policy, now);
        learning::learn_of_goal(&mut self.job.memory, step.goal, seen, now);
        // Nothing has to be confirmed: who may leave is not counted on.
        let leaves = step.goal == Goal::Leave && step.stage.is_some();
        self.departure.tell(leaves.then(|| self.job.since()));
        step
    }

    /// What refuses evictions is asked again when a pod of its namespace has become ready.
    pub(super) fn learn_of_readiness(&mut self, now: Timestamp) {
        for (namespace, readiness) in &mut self.refusing {
            if readiness.has_changed().is_ok_and(|changed| changed) {
                readiness.mark_unchanged();
                learning::learn_of_readiness(&mut self.job.memory, namespace, now);
            }
        }
        let namespaces = learning::refusing_namespaces(&self.job.memory);
        self.refusing.retain(|namespace, _| namespaces.contains(namespace.as_str()));
        let Some(cluster) = &self.cluster else { return };
        for namespace in namespaces {
            if !self.refusing.contains_key(namespace) {
                self.refusing.insert(namespace.to_owned(), cluster.readiness(namespace));
            }
        }
    }

    /// Whether the watches have shown what was on the node at its cordon is asked at once: the answer may take until their
    /// next bookmark, and is there when the last pod has gone.
    fn ask_for_proof(&self) {
        if let Some((cluster, at)) = self.unproven() {
            cluster.prove(at);
        }
    }

    /// Does it, and learns what came of it; the actions are taken out of the step. Says when to look again.
    async fn act(&mut self, seen: &Observation, step: &mut Step) -> Timestamp {
        let before = self.job.memory.clone();
        let actor = Actor {
            job: &self.job,
            default_place: &self.shared.account_region,
            seen,
            cluster: self.cluster.as_ref(),
            calls: &self.shared.observer.calls,
            journal: &self.shared.journal,
        };
        let wanted = step.actions.len();
        let results = actor.act(std::mem::take(&mut step.actions)).await;
        let now = self.shared.clock.now();
        let failures = results.iter().filter(|(_, result)| result.is_err()).count();
        let pause = (failures > 0).then(|| self.pauses.next());
        let untouched = |node: &Node| !node.cordoned || node.record.is_none();
        let isolates = step.goal == Goal::Leave && seen.node.known().is_some_and(untouched);
        for (action, result) in &results {
            learning::learn_of_outcome(&mut self.job.memory, action, result, seen, now);
            self.tell_veto(action, result);
            self.announce(Announcement::of_action(action, result));
            if let Action::Isolate { .. } = action {
                self.isolate_again_at =
                    pause.filter(|_| *result == Err(Failure::Retry)).map(|pause| now + pause);
                if *result == Ok(Outcome::Done) && isolates {
                    self.tell_isolated(now);
                }
            }
        }
        let is_answer = |(action, result): &(Action, _)| {
            matches!(action, Action::CompleteHook(_)) && *result == Ok(Outcome::Done)
        };
        // What is left when the hook is answered is what counts; nothing, where the deadline was moved out meanwhile.
        if step.remainder.is_some() || results.iter().any(is_answer) {
            self.remainder = step.remainder;
        }
        let answers = results.len() - failures;
        if failures == 0 && answers > 0 {
            self.pauses.reset();
        }
        // What was learned may allow the next thing at once; what found no seat has waited already.
        let memory = &self.job.memory;
        let learned =
            memory.isolation_failed != before.isolation_failed || (answers > 0 && *memory != before);
        if learned || results.len() < wanted {
            return now;
        }
        pause.map_or(step.wake_at, |pause| step.wake_at.min(now + pause))
    }
}
