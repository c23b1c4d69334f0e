//! What a job is for, and its way there: lists of stages as data, and the order in which they are chosen.

use std::time::Duration;

use crate::*;

/// What a job is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Goal {
    /// The instance goes away.
    Leave,
    /// It stays after all: what our record names is undone.
    Return,
}

impl Goal {
    /// Every goal.
    pub const ALL: [Self; 2] = [Self::Leave, Self::Return];

    /// The stages in their order. A later stage may act before an earlier one is done, as far as what
    /// it requires is met; the label of a job is the first unfinished one.
    pub fn stages(self) -> Vec<Stage> {
        let rows = if self == Self::Leave { LEAVE } else { RETURN };
        let mut stages: Vec<Stage> = rows.iter().map(|(stage, _)| *stage).collect();
        stages.dedup();
        stages
    }
}

/// A stage and what decides it, given the stages before it that are open. Several rows may have the same stage.
pub(crate) type StageRow = (Stage, fn(&Case<'_>, &[Stage]) -> Condition);

/// The group or the notice itself has confirmed that the instance goes.
const LEAVE: &[StageRow] = &[
    (Stage::Isolate, isolate),
    (Stage::Deregister, deregister),
    (Stage::Drain, drain),
    (Stage::Detach, detach),
    (Stage::Quiesce, quiesce),
    (Stage::Complete, complete),
    (Stage::Complete, confirm),
    (Stage::Complete, keep_open),
    (Stage::Complete, await_others),
    (Stage::Isolate, go_on_trying),
];
/// Only fresh events say so. They never finish a job: the group has to speak.
const ISOLATE: &[StageRow] = &[
    (Stage::Isolate, isolate),
    (Stage::Isolate, |case, _| read_by(case.facts.reread(), Reason::Unsettled)),
    (Stage::Complete, confirm),
    (Stage::Complete, keep_open),
];
/// The source that owns the fact has to speak first.
const WAIT: &[StageRow] =
    &[(Stage::Isolate, until_isolated), (Stage::Complete, until_read), (Stage::Complete, keep_open)];
/// All is done, and AWS took our answers.
const CONFIRM: &[StageRow] = &[(Stage::Complete, confirm)];
/// Every claim has ended, and what was done stays done.
const ENDED: &[StageRow] = &[(Stage::Complete, write_ends)];
/// No claim is left. Where others have one, only ours is taken out of the record.
const RETURN: &[StageRow] = &[(Stage::Register, register), (Stage::Release, release)];

/// What follows from the claims of a job.
pub(crate) enum Course {
    /// These stages are walked; `done` is why nothing is left, once all of them hold.
    Stages { goal: Goal, rows: &'static [StageRow], done: Reason },
    /// Nothing is done until the world says more.
    Wait(Stage, Reason),
    /// Nothing is left.
    Over(Reason),
}

/// In this order: while any claim acts, the node leaves, whatever the others say. What was done is undone only
/// when no claim is left, and none of them ended with the departure.
const COURSES: [fn(&Case<'_>) -> Option<Course>; 7] =
    [leave, isolate_only, confirm_only, wait_for_the_source, stay_gone, wait_for_return, undo];

/// The first course that applies.
pub(crate) fn course(case: &Case<'_>) -> Course {
    let first = COURSES.iter().find_map(|applies| applies(case));
    first.unwrap_or_else(|| Course::Over(undone(case)))
}

/// What was done is undone, as far as nobody else claims the node.
fn undone(case: &Case<'_>) -> Reason {
    let record = case.facts.seen.node.known().and_then(|node| case.own_record(node));
    let claims = |record| case.others(&record).entries.values().filter(|entry| entry.ended.is_none()).count();
    match record.map(claims) {
        Some(claims) if claims > 0 => Reason::Withdrawn { why: case.undo_reason(), claims },
        Some(_) | None => Reason::Undone(case.undo_reason()),
    }
}

fn leave(case: &Case<'_>) -> Option<Course> {
    let done = if case.unwritable { Reason::Over(Ended::Unisolated) } else { Reason::Served };
    let course = Course::Stages { goal: Goal::Leave, rows: LEAVE, done };
    case.claims.iter().any(|claim| claim.acts()).then_some(course)
}

fn isolate_only(case: &Case<'_>) -> Option<Course> {
    let course = Course::Stages { goal: Goal::Leave, rows: ISOLATE, done: Reason::Unsettled };
    case.claims.iter().any(|claim| claim.isolates()).then_some(course)
}

fn confirm_only(case: &Case<'_>) -> Option<Course> {
    let done = Reason::Over(Ended::Answered);
    let course = Course::Stages { goal: Goal::Leave, rows: CONFIRM, done };
    case.claims.iter().any(|claim| claim.entitlement == Entitlement::Confirms).then_some(course)
}

fn wait_for_the_source(case: &Case<'_>) -> Option<Course> {
    let waits = case.claims.iter().any(|claim| claim.entitlement == Entitlement::Waits);
    waits.then_some(Course::Stages { goal: Goal::Leave, rows: WAIT, done: Reason::GroupUnknown })
}

/// What the source does not say, by the claims that wait for it.
fn unsaid(case: &Case<'_>) -> Reason {
    let waiting = || case.claims.iter().filter(|claim| claim.entitlement == Entitlement::Waits);
    let of_hook = waiting().any(|claim| claim.hook().is_some());
    let of_spot = waiting().any(|claim| matches!(claim.notice.kind, NoticeKind::Spot(_)));
    match (&case.facts.seen.node, of_hook, of_spot) {
        (_, true, _) if case.facts.seen.membership != Seen::Unknown => Reason::GroupUndecided,
        (Seen::Known(_), false, true) => Reason::SpotUnproven,
        (Seen::Unknown, false, true) => case.facts.node_unknown(),
        (Seen::Known(_) | Seen::Gone | Seen::Unknown, _, _) => Reason::GroupUnknown,
    }
}

fn until_isolated(case: &Case<'_>, _: &[Stage]) -> Condition {
    let (reason, node) = (unsaid(case), &case.facts.seen.node);
    let isolated = matches!(reason, Reason::GroupUndecided | Reason::SpotUnproven) || *node == Seen::Gone;
    if isolated { Condition::Holds } else { read_by(case.facts.reread(), reason) }
}

fn until_read(case: &Case<'_>, _: &[Stage]) -> Condition {
    read_by(case.facts.reread(), unsaid(case))
}

fn stay_gone(case: &Case<'_>) -> Option<Course> {
    let ended = |claim: &Claim<'_>| {
        let Entitlement::Ended(ended) = claim.entitlement else { return None };
        let unisolated = ended == Ended::InstanceEnded && case.facts.is_unisolated();
        Some(if unisolated { Ended::Unisolated } else { ended })
    };
    let course = |ended| Course::Stages { goal: Goal::Leave, rows: ENDED, done: Reason::Over(ended) };
    case.claims.iter().filter_map(ended).min().map(course)
}

fn wait_for_return(case: &Case<'_>) -> Option<Course> {
    let returns = case.claims.iter().any(|claim| claim.entitlement == Entitlement::Returns);
    returns.then_some(Course::Wait(Stage::Complete, Reason::AwaitingReturn))
}

/// So long a job does not end on what it saw before its newest write: a watch that is cut off is known to
/// be after 35 s. A write that changed nothing never shows.
const UNSEEN: Duration = Duration::from_secs(60);

fn undo(case: &Case<'_>) -> Option<Course> {
    let Facts { job, seen, policy, now } = case.facts;
    let unseen = |node: &Node| {
        let age = job.memory.written_over(&node.resource_version, now);
        age.is_some_and(|age| age < UNSEEN)
    };
    // There may be something to undo: an hour more than the longest patience, then the sweep.
    let taken_up = job.deliveries.values().map(|delivery| delivery.at).max().unwrap_or_default();
    let patient = now < job.since().max(taken_up) + policy.patience * 2;
    // The record stays, and the sweep finds it.
    let gives_up = job.memory.returning_since.is_some_and(|since| now >= since + policy.patience * 3);
    match &seen.node {
        Seen::Known(node) if has_ours(node, case) => Some(match gives_up {
            true => Course::Over(Reason::NotUndone),
            false => Course::Stages { goal: Goal::Return, rows: RETURN, done: undone(case) },
        }),
        // What we wrote a moment ago has to be undone as well, when the watch has caught up with it.
        Seen::Known(node) if unseen(node) => Some(Course::Wait(Stage::Isolate, Reason::WriteUnseen)),
        Seen::Unknown if patient && case.undo_reason() != crate::UndoReason::NotOurs => {
            Some(Course::Wait(Stage::Isolate, case.facts.node_unknown()))
        }
        Seen::Known(_) | Seen::Gone | Seen::Unknown => None,
    }
}

/// Some of its record is this job's, or nobody's; or its targets were taken out while it could not be written.
fn has_ours(node: &Node, case: &Case<'_>) -> bool {
    let Some(record) = case.own_record(node) else { return !case.facts.job.memory.deregistered.is_empty() };
    let others = case.others(&record).entries.len();
    record.foreign.is_none() && (others == 0 || others < record.entries.len())
}
