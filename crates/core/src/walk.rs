//! The decision: what should happen now to one instance, when to look again, and why.

use std::time::Duration;

use crate::*;

/// What should happen now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What the job is for at this moment.
    pub goal: Goal,
    /// The first unfinished stage; `None` means that the job is finished.
    pub stage: Option<Stage>,
    /// What to do, in this order of importance. All of it may be done at once.
    pub actions: Vec<Action>,
    /// When to look again if nothing happens before.
    pub wake_at: Timestamp,
    /// What AWS says has to be as new as this, once this time has come.
    pub read_by: Option<Timestamp>,
    /// Why, in words.
    pub reason: Reason,
    /// When it has to be over, where an acting notice says so.
    pub deadline: Option<Timestamp>,
    /// Minutes are all there is.
    pub presses: bool,
    /// What is left, when the deadline of a hook has come, and until that of an instance which EC2 takes back.
    pub remainder: Option<Remainder>,
}

/// Decides the next step for one instance.
///
/// Pure: the same arguments give the same step, and a step that was lost or repeated does no harm.
/// The claims of the job choose a goal and its stages, which are walked in order. The label is the first unfinished
/// stage, and gives the reason, unless a deadline has come. Actions come from every stage whose requirements
/// are met, because two minutes of spot notice cannot wait for a deregistration delay of 300 s. What rests after
/// an earlier try is left out.
pub fn step(job: &Job, seen: &Observation, policy: &Policy, now: Timestamp) -> Step {
    let case = Case::new(Facts { job, seen, policy, now });
    let mut step = match course(&case) {
        Course::Stages { goal, rows, done } => {
            Step { goal, ..walk(rows, &case, Step::over(done, case.facts.recheck())) }
        }
        Course::Wait(stage, reason) => {
            // While the watch shows a node that is not ready, AWS has nothing to say.
            let is_ready = case.facts.seen.node.known().is_none_or(|node| node.ready);
            let read_by = is_ready.then(|| case.facts.reread());
            Step { stage: Some(stage), read_by, ..Step::over(reason, case.facts.recheck()) }
        }
        Course::Over(reason) => Step::over(reason, now),
    };
    step.deadline = case.deadline.map(|deadline| deadline.answer);
    step.presses = case.acting().any(Claim::presses);
    step.read_by = [step.read_by, case.read_by()].into_iter().flatten().min();
    step.remainder = remainder(&case);
    let held = step.actions.iter().filter_map(|action| job.memory.held_until(action, now)).min();
    step.actions.retain(|action| job.memory.held_until(action, now).is_none());
    let changes = job.notices.iter().map(|notice| notice.at + FRESH);
    let next_change = changes.filter(|at| *at > now).map(|at| at + MOMENT).min();
    step.wake_at = [held, next_change].into_iter().flatten().fold(step.wake_at, Timestamp::min);
    step
}

/// EC2 does not wait: what is left at its end is what was there a moment before, and nobody can look afterwards.
fn remainder(case: &Case<'_>) -> Option<Remainder> {
    let (deadline, now) = (case.deadline?, case.facts.now);
    let by_hook = now >= deadline.answer && case.hooks().next().is_some();
    let is_told = by_hook || now < deadline.pods && case.acting().any(Claim::presses);
    is_told.then(|| case.remainder())
}

/// One millisecond past a boundary that belongs to what came before.
const MOMENT: Duration = Duration::from_millis(1);

/// Walks the rows: the first open one gives label and reason, all open ones give actions, and the earliest wish
/// to look again wins. A reason that says "the deadline has come" goes before all.
fn walk(rows: &[StageRow], case: &Case<'_>, over: Step) -> Step {
    let mut step = over;
    let mut open = Vec::new();
    for (stage, decide) in rows {
        let Condition::Open { actions, wake_at, read_by, reason } = decide(case, &open) else { continue };
        if open.is_empty() || matches!(reason, Reason::DeadlineReached(_)) {
            step.reason = reason;
        }
        open.push(*stage);
        // Two stages may ask for the same; one stage asks for nothing twice, and there may be hundreds of pods.
        let earlier = step.actions.len();
        for action in actions {
            if !step.actions[..earlier].contains(&action) {
                step.actions.push(action);
            }
        }
        step.wake_at = wake_at.map_or(step.wake_at, |at| at.min(step.wake_at));
        step.read_by = step.read_by.into_iter().chain(read_by).min();
    }
    step.stage = open.first().copied();
    step
}

impl Step {
    fn over(reason: Reason, wake_at: Timestamp) -> Self {
        Self {
            goal: Goal::Leave,
            stage: None,
            actions: Vec::new(),
            wake_at,
            read_by: None,
            reason,
            deadline: None,
            presses: false,
            remainder: None,
        }
    }
}
