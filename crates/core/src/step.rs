//! The decision: what should happen now to one instance, when to look again, and why.

use std::time::Duration;

use crate::case::Case;
use crate::deadline::{ended, node_deadline};
use crate::ownership::{FRESH, standing};
use crate::scene::Scene;
use crate::stage::{self, Answer};
use crate::{
    Action, Goal, Job, Node, Notice, NoticeKind, Observation, Over, Policy, Reason, Record, Seen, Stage,
    Standing, Timestamp,
};

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
    /// Why, in words.
    pub reason: Reason,
    /// When it has to be over, where an acting notice says so.
    pub deadline: Option<Timestamp>,
}

/// Decides the next step for one instance.
///
/// Pure: the same arguments give the same step, and a step that was lost or repeated does no harm.
/// A goal's stages are walked in order; the label is the first unfinished one, actions come from every
/// stage whose requirements are met, because two minutes of spot notice cannot wait for a
/// deregistration delay of 300 s.
pub fn step(job: &Job, seen: &Observation, policy: &Policy, now: Timestamp) -> Step {
    let case = Case { job, seen, policy, now };
    let standings: Vec<(&Notice, Standing)> =
        job.notices.iter().map(|notice| (notice, standing(notice, case))).collect();
    let mut step = match aim(&standings, case) {
        Aim::Leave => leave(&standings, case),
        Aim::Wait(stage, reason) => {
            Step { stage: Some(stage), ..Step::finished(reason, now + policy.recheck) }
        }
        Aim::Confirm => {
            let confirmed = stage::confirm(&scene(&standings, case));
            first_open([(Stage::Complete, confirmed)], now, policy, Over::Answered)
        }
        Aim::Return(over) => {
            let scene = scene(&standings, case);
            // Where that goes on failing, a node in service shall not stay closed for ever.
            let trying = now < job.since() + policy.patience * 3;
            let registered = if trying { stage::register(&scene) } else { Answer::Done };
            // The record goes last: it is all that says what has to be undone.
            let released = match registered {
                Answer::Done => stage::release(&scene),
                Answer::Open { .. } => Answer::Done,
            };
            let answers = [(Stage::Register, registered), (Stage::Release, released)];
            let mut step = first_open(answers, now, policy, over);
            if step.stage.is_some() {
                step.reason = Reason::Returning(over);
            }
            Step { goal: Goal::Return, ..step }
        }
        Aim::Withdraw(over, node, record) => {
            let scene = scene(&standings, case);
            let withdrawn = stage::withdraw(&scene, node, record);
            let step = first_open([(Stage::Release, withdrawn)], now, policy, over);
            Step { goal: Goal::Return, reason: Reason::Returning(over), ..step }
        }
        Aim::Nothing(over) => Step::finished(Reason::Over(over), now),
    };
    let held = step.actions.iter().filter_map(|action| job.memory.held_until(action, now)).min();
    step.actions.retain(|action| job.memory.held_until(action, now).is_none());
    step.wake_at = held.map_or(step.wake_at, |at| at.min(step.wake_at));
    let changes = standings.iter().map(|(notice, _)| notice.at + FRESH);
    let next_change = changes.filter(|at| *at > now).map(|at| at + MOMENT).min();
    Step { wake_at: next_change.map_or(step.wake_at, |at| at.min(step.wake_at)), ..step }
}

/// One millisecond past a boundary that belongs to what came before.
const MOMENT: Duration = Duration::from_millis(1);

/// So long a job does not end on what it saw before its newest write: a watch that is cut off is known to
/// be after 35 s. A write that changed nothing never shows.
const UNSEEN: Duration = Duration::from_secs(60);

enum Aim<'a> {
    Leave,
    Confirm,
    Wait(Stage, Reason),
    Return(Over),
    Withdraw(Over, &'a Node, &'a Record),
    Nothing(Over),
}

/// While any notice claims the node, it leaves. When none does, what the record names is undone, but
/// only if none of them was a real departure and nobody else's notice is in the record.
fn aim<'a>(standings: &[(&Notice, Standing)], Case { job, seen, policy, now }: Case<'a>) -> Aim<'a> {
    let any = |wanted: fn(&Standing) -> bool| standings.iter().any(|(_, standing)| wanted(standing));
    if any(|standing| matches!(standing, Standing::Acts | Standing::Isolates)) {
        return Aim::Leave;
    }
    if any(|standing| matches!(standing, Standing::Confirms)) {
        return Aim::Confirm;
    }
    if any(|standing| matches!(standing, Standing::Waits)) {
        let gone = matches!(seen.node, Seen::Gone);
        let of_hook = |(notice, standing): &(&Notice, Standing)| {
            *standing == Standing::Waits && matches!(notice.kind, NoticeKind::Hook(_))
        };
        let undecided = seen.membership != Seen::Unknown && standings.iter().any(of_hook);
        let reason = if undecided { Reason::GroupUndecided } else { Reason::GroupUnknown };
        let isolated = gone || undecided;
        return Aim::Wait(if isolated { Stage::Complete } else { Stage::Isolate }, reason);
    }
    let over_of = |(_, standing): &(&Notice, Standing)| {
        if let Standing::Over(over) = standing { Some(*over) } else { None }
    };
    let overs: Vec<Over> = standings.iter().filter_map(over_of).collect();
    if let Some(last) = Over::FINAL.into_iter().find(|over| overs.contains(over)) {
        return Aim::Nothing(last);
    }
    if any(|standing| matches!(standing, Standing::Returns)) {
        return Aim::Wait(Stage::Complete, Reason::AwaitingReturn);
    }
    let over = overs.first().copied().unwrap_or(Over::NotOurs);
    let patient = now < job.since() + policy.patience + policy.patience;
    let written_over = |node: &Node| job.memory.written_over(&node.resource_version, now);
    let unseen = |node: &Node| written_over(node).is_some_and(|age| age < UNSEEN);
    let ours = |record: &Record| {
        record.notices.iter().filter(|id| job.notices.iter().any(|notice| notice.id == **id)).count()
    };
    match &seen.node {
        Seen::Known(node) => match &node.record {
            Some(record) if ours(record) == record.notices.len() => Aim::Return(over),
            Some(record) if ours(record) > 0 => Aim::Withdraw(over, node, record),
            // What we wrote a moment ago has to be undone as well, when the watch has caught up with it.
            Some(_) | None if unseen(node) => Aim::Wait(Stage::Isolate, Reason::NodeUnknown),
            Some(_) | None => Aim::Nothing(over),
        },
        Seen::Gone => Aim::Nothing(over),
        // There may be something to undo: an hour more than the longest patience, then the sweep.
        Seen::Unknown if patient && over != Over::NotOurs => Aim::Wait(Stage::Isolate, Reason::NodeUnknown),
        Seen::Unknown => Aim::Nothing(over),
    }
}

fn scene<'a>(standings: &[(&'a Notice, Standing)], case: Case<'a>) -> Scene<'a> {
    let with = |wanted: &[Standing]| -> Vec<&'a Notice> {
        standings.iter().filter(|(_, s)| wanted.contains(s)).map(|(notice, _)| *notice).collect()
    };
    let acting = with(&[Standing::Acts]);
    Scene {
        case,
        deadline: node_deadline(acting.iter().copied(), case),
        claiming: with(&[Standing::Acts, Standing::Isolates]),
        confirming: with(&[Standing::Confirms]),
        acting,
        ended: ended(case.seen, case.now),
    }
}

fn leave(standings: &[(&Notice, Standing)], case: Case<'_>) -> Step {
    let Case { policy, now, .. } = case;
    let scene = scene(standings, case);
    let isolated = stage::isolate(&scene);
    let confirmed = (Stage::Complete, stage::confirm(&scene));
    if scene.acting.is_empty() {
        // A fresh event alone never finishes a job: the group has to speak.
        let open = stage::wait(scene.recheck(), Reason::Unsettled);
        let answers = [(Stage::Isolate, isolated), (Stage::Isolate, open), confirmed];
        return first_open(answers, now, policy, Over::Disagrees);
    }
    let deregistered = stage::deregister(&scene);
    let quiet = scene.is_quiet(matches!(deregistered, Answer::Done));
    let drained = stage::drain(&scene, quiet);
    let detached = stage::detach(&scene);
    let quiesced = stage::quiesce(&scene);
    let all_done = [&isolated, &deregistered, &drained, &detached, &quiesced]
        .into_iter()
        .all(|answer| matches!(answer, Answer::Done));
    let completed = stage::complete(&scene, all_done);
    let answers = [
        (Stage::Isolate, isolated),
        (Stage::Deregister, deregistered),
        (Stage::Drain, drained),
        (Stage::Detach, detached),
        (Stage::Quiesce, quiesced),
        (Stage::Complete, completed),
        confirmed,
    ];
    let mut step = first_open(answers, now, policy, Over::Ended);
    step.deadline = scene.deadline.map(|deadline| deadline.answer);
    if step.stage.is_none() {
        step.reason = Reason::SpotServed;
        // A notice that has nothing to say yet is not served with the others: its hook may be open.
        let unsettled = |standing: &Standing| !matches!(standing, Standing::Acts | Standing::Over(_));
        if standings.iter().any(|(_, standing)| unsettled(standing)) {
            step = Step { stage: Some(Stage::Complete), reason: Reason::Unsettled, ..step };
        } else if scene.comes_back() {
            step = Step { stage: Some(Stage::Complete), reason: Reason::AwaitingReturn, ..step };
        }
    }
    step
}

/// Walks the stages: the first open one gives label and reason, all open ones give actions, and the
/// earliest wish to look again wins. A reason that says "the deadline has come" goes before all.
fn first_open<const N: usize>(
    answers: [(Stage, Answer); N],
    now: Timestamp,
    policy: &Policy,
    over: Over,
) -> Step {
    let mut step = Step::finished(Reason::Over(over), now + policy.recheck);
    for (stage, answer) in answers {
        let Answer::Open { actions, wake_at, reason } = answer else { continue };
        let overrules = matches!(reason, Reason::DeadlineReached { .. });
        if step.stage.is_none() || overrules {
            step.reason = reason;
        }
        step.stage.get_or_insert(stage);
        for action in actions {
            if !step.actions.contains(&action) {
                step.actions.push(action);
            }
        }
        step.wake_at = wake_at.map_or(step.wake_at, |at| at.min(step.wake_at));
    }
    step
}

impl Step {
    fn finished(reason: Reason, wake_at: Timestamp) -> Self {
        Self { goal: Goal::Leave, stage: None, actions: Vec::new(), wake_at, reason, deadline: None }
    }
}
