//! One observe → step → act: what is decided is begun, and what comes of it is learned when it is there.

use std::sync::Arc;
use std::time::Duration;

use offramp_core::{Action, Failure, Goal, Observation, Outcome, Reason, Step, Timestamp, step};

use super::in_flight::{Finished, Grounds};
use super::{CALLS, Task};
use crate::act::Act;
use crate::announcement::Announcement;
use crate::evictions::Evictions;
use crate::learning;
use crate::observe::Observer;
use crate::place;

/// A message that is still on its way to its isolation after this gives its place to the next: an answer
/// that takes a hundred times as long as others may not come at all.
pub(super) const PERMIT: Duration = Duration::from_secs(1);
/// A step that asks to be taken again at once is taken a moment later, so that no mistake becomes a loop.
const MOMENT: Duration = Duration::from_millis(10);

impl Task {
    /// Looks, decides, and begins what was decided. Says when to look again, or why nothing is left to do.
    pub(super) fn tick(&mut self, unshown: Option<Timestamp>, now: Timestamp) -> Result<Timestamp, Reason> {
        let place = place::of_job(&self.job, &self.shared.account_region);
        let (observer, cluster) = (&self.shared.observer, self.cluster.as_ref());
        let questions = observer.questions(&self.job, place, cluster);
        self.readings.refresh(&self.job, &questions, None, now);
        let (known, absence_is_proven) = ((&questions, &self.readings), self.absence_is_proven(now));
        let seen = observer.observe(&self.job, known, cluster, absence_is_proven, now);
        self.tell_faults(Observer::faults(&seen, &self.readings));
        let mut step = self.decide(&seen, unshown, now);
        self.tell_not_waited_for(&seen);
        // The watch may show the cordon before the PATCH is answered.
        if self.in_flight.isolates() && is_isolated(&seen) == Some(true) {
            self.tell_isolated(now);
        }
        self.tell(&step, now);
        self.remainder = step.remainder.or(self.remainder);
        if step.stage.is_none() {
            self.withdraw(&[]);
            return if self.in_flight.is_empty() { Err(step.reason) } else { Ok(now + CALLS) };
        }
        self.begin(seen, &mut step, now);
        self.readings.refresh(&self.job, &questions, step.read_by, now);
        // What is being read by then wakes the job when it is there.
        let read_by = step.read_by.filter(|at| *at > now);
        let mut until = read_by.map_or(step.wake_at, |at| at.min(step.wake_at)).max(now + MOMENT);
        if !self.in_flight.isolates() || now >= self.permitted_until {
            self.permits.clear();
        } else if !self.permits.is_empty() {
            until = until.min(self.permitted_until);
        }
        Ok(until)
    }

    /// What should happen now. Nothing is done and nothing is told: it may be shown and left at that.
    fn decide(&mut self, seen: &Observation, unshown: Option<Timestamp>, now: Timestamp) -> Step {
        learning::learn_of_observation(&mut self.job.memory, &self.job.instance, seen, now);
        self.ask_for_proof(unshown);
        let step = step(&self.job, seen, &self.shared.policy, now);
        learning::learn_of_step(&mut self.job.memory, &step, seen, now);
        // Nothing has to be confirmed: who may leave is not counted on.
        let leaves = step.goal == Goal::Leave && step.stage.is_some();
        self.departure.tell(leaves.then(|| self.job.since()));
        step
    }

    /// Whether the watches have shown what was on the node at its cordon is asked at once: the answer may take until their
    /// next bookmark, and is there when the last pod has gone.
    fn ask_for_proof(&self, unshown: Option<Timestamp>) {
        if let Some((cluster, at)) = self.unproven(unshown) {
            cluster.prove(at);
        }
    }

    /// Begins what is not in flight already; the actions are taken out of the step.
    fn begin(&mut self, seen: Observation, step: &mut Step, now: Timestamp) {
        let isolates = step.goal == Goal::Leave && is_isolated(&seen) == Some(false);
        let grounds = Arc::new(Grounds { seen, remainder: step.remainder, isolates, at: now });
        let actions = std::mem::take(&mut step.actions);
        self.withdraw(&actions);
        let (shared, evictions) = (&self.shared, self.evictions().cloned());
        let pressure = (step.presses, step.deadline);
        if let Some(evictions) = evictions.as_ref().filter(|_| self.pressure != pressure) {
            evictions.hurry(self.job.instance.clone(), step.presses, step.deadline);
        }
        self.pressure = pressure;
        for action in actions {
            if !self.in_flight.allows(&action, &grounds.seen) {
                continue;
            }
            let act = Act {
                place: Act::place(&action, &self.job, &shared.account_region),
                balancer: Act::balancer(&action, &grounds.seen),
                instance: self.job.instance.clone(),
                presses: step.presses,
                deadline: step.deadline,
                pod_seen: Act::pod_seen(&action, &grounds.seen),
                action: action.clone(),
                cluster: self.cluster.clone(),
                evictions: evictions.clone(),
                calls: shared.observer.calls.clone(),
                journal: shared.journal.clone(),
            };
            self.in_flight.begin(act, action, &grounds);
        }
    }

    /// Evictions that wait for their turn, and are not wanted any more.
    pub(super) fn withdraw(&self, wanted: &[Action]) {
        self.in_flight.withdraw(&self.job.instance, wanted);
    }

    fn evictions(&self) -> Option<&Evictions> {
        self.shared.evictions.get(self.cluster.as_ref()?.name())
    }

    /// Takes in what came of an action.
    pub(super) fn learn(&mut self, Finished { action, result, grounds }: Finished) {
        let now = self.shared.clock.now();
        let Some(result) = result else { return };
        let of_node = action.guard().is_some() || matches!(action, Action::ListPods { .. });
        let nodes = grounds.seen.node.known().zip(self.job.memory.sightings.node.as_ref());
        // What comes late of a node that the instance had before says nothing of the one that it has.
        if of_node && nodes.is_some_and(|(node, newest)| node.name != *newest) {
            return;
        }
        // A list shows what was there when it was asked for.
        let at = if matches!(action, Action::ListPods { .. }) { grounds.at } else { now };
        learning::learn_of_outcome(&mut self.job.memory, &action, &result, &grounds.seen, at);
        self.tell_veto(&action, &result);
        self.announce(Announcement::of_action(&action, &result));
        match action {
            Action::Isolate { .. } if result == Ok(Outcome::Done) && grounds.isolates => {
                self.tell_isolated(now)
            }
            Action::Register(_) => self.readings.targets_changed(now),
            Action::Deregister(_) if result == Err(Failure::Retry) => self.readings.targets_changed(now),
            // What is left when the hook is answered is what counts; nothing, where the deadline was moved out meanwhile.
            Action::CompleteHook(_) if result == Ok(Outcome::Done) => self.remainder = grounds.remainder,
            _ => {}
        }
    }
}

/// Whether the node is isolated, where it is known.
fn is_isolated(seen: &Observation) -> Option<bool> {
    seen.node.known().map(|node| node.cordoned && node.record.is_some())
}
