//! Steps one after the other, with what is learned in between.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::*;

use super::world::*;
use crate::learning;
use crate::ports::NodeSummary;
use crate::texts::InWords;

fn step_at(job: &Job, seen: &Observation, after: u64) -> Step {
    step(job, seen, &policy(), AT + seconds(after))
}

fn words(step: &Step) -> Vec<String> {
    step.actions.iter().map(InWords::in_words).collect()
}

#[test]
fn a_failed_write_rests_whatever_wakes_the_job() {
    let mut job = job([hook()]);
    let groups = Seen::Known(vec![target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy])]);
    let node = Seen::Known(isolated(&["offramp"], true, &[target_key()]));
    let seen = Observation { node, target_groups: groups, ..ready_to_drain(vec![]) };
    let deregister = Action::Deregister(target_key());
    let tries = |job: &Job, after| step_at(job, &seen, after).actions.contains(&deregister);
    assert!(tries(&job, 10));
    learning::learn_of_outcome(
        &mut job.memory,
        &deregister,
        &Err(Failure::Retry),
        &untouched(),
        AT + seconds(10),
    );
    assert!(!tries(&job, 12));
    assert_eq!(step_at(&job, &seen, 12).wake_at, AT + seconds(13));
    assert!(tries(&job, 13));
}

#[test]
fn a_cordon_whose_answer_was_lost_is_waited_for() {
    let mut job = job([hook()]);
    let seen = Observation { membership: member(LifecycleState::InService), ..untouched() };
    let isolate = step_at(&job, &untouched(), 0).actions.remove(0);
    assert_eq!(step_at(&job, &seen, 61).stage, None);
    learning::learn_of_outcome(
        &mut job.memory,
        &isolate,
        &Err(Failure::Retry),
        &untouched(),
        AT + seconds(55),
    );
    assert_eq!(step_at(&job, &seen, 61).stage, Some(Stage::Isolate), "it may have happened");
    assert_eq!(step_at(&job, &seen, 116).stage, None, "a watch would have shown it");
}

#[test]
fn no_write_goes_out_twice_over_the_same_state_of_the_node() {
    let mut job = job([hook()]);
    let seen = untouched();
    let isolate = step_at(&job, &seen, 0).actions.remove(0);
    let isolates = |step: Step| step.actions.iter().any(|action| matches!(action, Action::Isolate { .. }));
    for (outcome, repeated) in [
        (Err(Failure::Retry), true),
        (Ok(Outcome::Done), false),
        (Ok(Outcome::Changed), false),
        (Ok(Outcome::Gone), false),
    ] {
        job.memory = Memory::default();
        learning::learn_of_outcome(&mut job.memory, &isolate, &outcome, &untouched(), AT);
        let step = step_at(&job, &seen, 1);
        assert!(repeated || step.wake_at <= AT + seconds(2), "looks again soon: {step:?}");
        assert_eq!(isolates(step), repeated, "{outcome:?}");
    }
    assert!(isolates(step_at(&job, &seen, 5)), "no watch shows it: it was taken back");
    let mut newer = node();
    newer.resource_version.push('0');
    let seen = Observation { node: Seen::Known(newer), ..seen };
    assert!(isolates(step_at(&job, &seen, 1)));
}

#[test]
fn a_read_that_fails_does_not_begin_an_undo_anew() {
    let mut job = job([hook()]);
    let node = Seen::Known(isolated(&["offramp"], true, &[target_key()]));
    let back = Observation { node, membership: member(LifecycleState::InService), ..ready_to_drain(vec![]) };
    let unread = Observation { membership: Seen::Unknown, ..back.clone() };
    for (seen, after) in [(&back, 100), (&unread, 3_600), (&back, 3_610)] {
        let now = AT + seconds(after);
        learning::learn_of_observation(&mut job.memory, &own(), seen, now);
        let step = step_at(&job, seen, after);
        learning::learn_of_step(&mut job.memory, &step, seen, now);
    }
    assert_eq!(job.memory.returning_since, Some(AT + seconds(100)));
}

/// A webhook lets the record pass and takes the cordon out, and each answer is another version of the node.
#[test]
fn a_cordon_that_is_taken_out_each_time_is_tried_less_often() {
    let mut job = job([hook()]);
    let mut tries = Vec::new();
    for millis in (0..20_000).step_by(100) {
        let record = isolated(&["offramp"], false, &[]).record;
        let newer = Node { resource_version: tries.len().to_string(), record, ..node() };
        let seen = Observation { node: Seen::Known(newer), ..untouched() };
        let now = AT + Duration::from_millis(millis);
        learning::learn_of_observation(&mut job.memory, &own(), &seen, now);
        let step = step(&job, &seen, &policy(), now);
        if let Some(write) = step.actions.iter().find(|action| action.guard().is_some()) {
            learning::learn_of_outcome(&mut job.memory, write, &Ok(Outcome::Done), &seen, now);
            tries.push(millis);
        }
    }
    assert_eq!(tries, [0, 100, 1_200, 3_300, 7_400, 15_500]);
}

/// Somebody writes the node many times a second: each time the watch shows a new version, and it is older than the next.
#[test]
fn a_write_that_comes_too_late_each_time_rests_longer() {
    let mut job = job([hook()]);
    let isolate = step_at(&job, &untouched(), 0).actions.remove(0);
    let mut tries = Vec::new();
    for millis in (0..20_000).step_by(100) {
        let newer = Node { resource_version: millis.to_string(), ..node() };
        let seen = Observation { node: Seen::Known(newer), ..untouched() };
        let now = AT + Duration::from_millis(millis);
        if step(&job, &seen, &policy(), now).actions.iter().any(|action| action.guard().is_some()) {
            learning::learn_of_outcome(&mut job.memory, &isolate, &Ok(Outcome::Changed), &seen, now);
            tries.push(millis);
        }
    }
    assert_eq!(tries, [0, 100, 200, 300, 1_300, 3_300, 7_300, 15_300]);
    learning::learn_of_outcome(&mut job.memory, &isolate, &Ok(Outcome::Done), &untouched(), AT);
    assert_eq!(job.memory.cooldown(&Key::Conflict).times, 0);
}

#[test]
fn the_memory_learns_what_observations_do_not_show() {
    let mut memory = Memory::default();
    let web = pod("web");
    let evict = Action::Evict { pod: web.pod, origin: web.origin.clone(), grace: None };
    learning::learn_of_outcome(&mut memory, &evict, &Ok(Outcome::Blocked { budget: None }), &untouched(), AT);
    let refused_by = Key::Origin("default".to_owned(), web.origin);
    assert!(memory.pods.values().all(|answer| answer.refused_by.as_ref() == Some(&refused_by)));
    assert_eq!(memory.cooldowns, BTreeMap::new(), "it waits for its turn in the lane");
    learning::learn_of_outcome(&mut memory, &evict, &Ok(Outcome::Done), &untouched(), AT + seconds(5));
    assert!(memory.pods.values().all(|answer| answer.refused_by.is_none()));
    let rests = Cooldown { times: 1, since: AT + seconds(5), until: AT + seconds(10) };
    assert_eq!(memory.cooldowns, BTreeMap::from([(evict.key(), rests)]));
    learning::learn_of_outcome(
        &mut memory,
        &Action::CompleteHook(hook_key()),
        &Err(Failure::Retry),
        &untouched(),
        AT,
    );
    let failed = HookCalls { newest: AT, lost: true, ..HookCalls::default() };
    assert_eq!(memory.hooks.get(&hook_key()), Some(&failed));
    let rests = Cooldown { times: 1, since: AT, until: AT + seconds(3) };
    assert_eq!(memory.cooldowns.get(&Key::Hook(hook_key())), Some(&rests));
    let seen = Observation {
        target_groups: Seen::Known(vec![target_group(Some(TargetHealth::Draining), &[])]),
        ..Observation::default()
    };
    learning::learn_of_observation(&mut memory, &own(), &seen, AT);
    learning::learn_of_observation(&mut memory, &own(), &seen, AT + seconds(9));
    assert_eq!(memory.draining_since.get(&target_key()), Some(&AT));
}

/// A target is as old as what ELB says of it, however late Auto Scaling is (seed 92642).
#[test]
fn a_target_that_was_put_back_is_known_by_its_own_reading() {
    let mut memory = Memory::default();
    memory.draining_since.insert(target_key(), AT);
    let mut learn = |targets_after: u64| {
        let at = AT + seconds(targets_after);
        let seen = Observation { read_at: Some(AT), targets_read_at: Some(at), ..untouched() };
        learning::learn_of_observation(&mut memory, &own(), &seen, AT + seconds(110));
        memory.draining_since.contains_key(&target_key())
    };
    assert!(learn(15), "it may still be shown as it was before our call");
    assert!(!learn(16));
}

#[test]
fn a_hook_is_kept_alive_before_it_is_given_up() {
    // The shortest timeout there is: half of it is over when its margin begins.
    let mut short = group(&["offramp"]);
    short.terminate_hooks[0].heartbeat_timeout = seconds(30);
    let draining = vec![target_group(Some(TargetHealth::Draining), &[TargetHealth::Healthy])];
    let seen = Observation {
        group: Seen::Known(short),
        target_groups: Seen::Known(draining),
        ..ready_to_drain(vec![])
    };
    let mut job = job([hook()]);
    assert_eq!(words(&step_at(&job, &seen, 15)), ["heartbeat for hook offramp"]);
    // A worker that has just started knows of no heartbeat, and asks too.
    assert_eq!(words(&step_at(&job, &seen, 29)), ["heartbeat for hook offramp"]);
    // One lost answer proves nothing; three in a row, and what is left is the first timeout.
    let lost = |job: &mut Job, after: u64| {
        learning::learn_of_outcome(
            &mut job.memory,
            &Action::Heartbeat(hook_key()),
            &Err(Failure::Retry),
            &untouched(),
            AT + seconds(after),
        );
    };
    lost(&mut job, 3);
    assert_eq!(words(&step_at(&job, &seen, 15)), ["heartbeat for hook offramp"]);
    lost(&mut job, 6);
    lost(&mut job, 12);
    assert_eq!(words(&step_at(&job, &seen, 24)), ["complete hook offramp: CONTINUE"]);
    learning::learn_of_outcome(
        &mut job.memory,
        &Action::Heartbeat(hook_key()),
        &Ok(Outcome::Done),
        &untouched(),
        AT + seconds(15),
    );
    assert_eq!(words(&step_at(&job, &seen, 16)), Vec::<String>::new());
}

#[test]
fn a_hook_walks_from_the_cordon_to_its_answer() {
    let mut job = job([hook()]);
    let mut seen = untouched();
    let check = |job: &Job, seen: &Observation, after: u64, stage: Option<Stage>, actions: &[&str]| {
        let step = step_at(job, seen, after);
        assert_eq!((step.stage, words(&step)), (stage, actions.iter().map(ToString::to_string).collect()));
    };
    check(&job, &seen, 0, Some(Stage::Isolate), &["cordon and record"]);
    seen.node = Seen::Known(isolated(&["offramp"], false, &[]));
    check(
        &job,
        &seen,
        1,
        Some(Stage::Deregister),
        &["exclude, recording 1 target", "evict default/web-1", "evict default/web-2"],
    );
    seen.node = Seen::Known(isolated(&["offramp"], true, &[target_key()]));
    seen.pods = Seen::Known(vec![]);
    check(&job, &seen, 6, Some(Stage::Deregister), &["deregister web:30080"]);
    job.memory.draining_since.insert(target_key(), AT + seconds(6));
    seen.target_groups =
        Seen::Known(vec![target_group(Some(TargetHealth::Draining), &[TargetHealth::Healthy])]);
    check(&job, &seen, 7, Some(Stage::Deregister), &[]);
    check(&job, &seen, 36, Some(Stage::Quiesce), &[]);
    check(&job, &seen, 151, Some(Stage::Quiesce), &["heartbeat for hook offramp"]);
    seen.target_groups = Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]);
    check(&job, &seen, 140, Some(Stage::Complete), &["complete hook offramp: CONTINUE"]);
    learning::learn_of_outcome(
        &mut job.memory,
        &Action::CompleteHook(hook_key()),
        &Ok(Outcome::Done),
        &seen,
        AT + seconds(140),
    );
    check(&job, &seen, 141, Some(Stage::Complete), &[]);
    seen.membership = member(LifecycleState::TerminatingProceed);
    check(&job, &seen, 141, None, &[]);
}

#[test]
fn a_new_root_volume_brings_the_instance_back() {
    let notice = hook_of("offramp", Passage::RootVolume);
    let mut job = job([notice]);
    let mut seen =
        Observation { membership: member(LifecycleState::ReplacingRootVolumeWait), ..ready_to_drain(vec![]) };
    seen.node = Seen::Known(isolated(&["offramp"], true, &[]));
    assert_eq!(words(&step_at(&job, &seen, 6)), ["complete hook offramp: CONTINUE"]);
    learning::learn_of_outcome(
        &mut job.memory,
        &Action::CompleteHook(hook_key()),
        &Ok(Outcome::Done),
        &seen,
        AT + seconds(6),
    );
    seen.membership = member(LifecycleState::Other("ReplacingRootVolume".to_owned()));
    let step = step_at(&job, &seen, 7);
    assert_eq!((step.stage, step.reason), (Some(Stage::Complete), Reason::AwaitingReturn));
    seen.membership = member(LifecycleState::InService);
    assert_eq!(words(&step_at(&job, &seen, 200)), ["uncordon and forget"]);
}

#[test]
fn where_scope_needs_a_group_it_is_read_before_anything_but_the_cordon() {
    let policy = Policy { scoped: true, ..policy() };
    let mut job = job([hook()]);
    let unread = Observation { group: Seen::Unknown, ..ready_to_drain(vec![pod("web")]) };
    let at = |job: &Job, seen: &Observation| step(job, seen, &policy, AT + seconds(100));
    assert!(at(&job, &unread).actions.is_empty());
    assert_eq!(at(&job, &unread).reason, Reason::Unsettled);
    // Nobody's group is nobody's scope.
    let node = Seen::Known(isolated(&["offramp"], false, &[]));
    let none = Observation { node, group: Seen::Gone, ..unread.clone() };
    assert_eq!(at(&job, &none).reason, Reason::Unsettled, "it may be listed in a moment");
    job.memory.sightings.no_member_since = Some(AT + seconds(30));
    assert_eq!(at(&job, &none).reason, Reason::Returning(UndoReason::LeftAlone(LeftAlone::GroupOutOfScope)));
    // What was read once holds while a later read fails.
    let read = ready_to_drain(vec![pod("web")]);
    learning::learn_of_observation(&mut job.memory, &own(), &read, AT);
    assert_eq!(words(&at(&job, &unread)), ["evict default/web"]);
}

#[test]
fn a_hook_is_kept_open_while_its_group_cannot_be_read() {
    // A worker that was started anew has not seen the group: the hook waits, and one heartbeat goes out at once.
    let mut job = job([hook()]);
    let unread = Observation { membership: Seen::Unknown, group: Seen::Unknown, ..untouched() };
    let heartbeat = ["heartbeat for hook offramp"];
    let first = step_at(&job, &unread, 100);
    assert_eq!((words(&first), first.reason), (heartbeat.map(String::from).to_vec(), Reason::GroupUnknown));
    let outcome = Ok(Outcome::Done);
    let beat = Action::Heartbeat(hook_key());
    learning::learn_of_outcome(&mut job.memory, &beat, &outcome, &unread, AT + seconds(100));
    // Half of the shortest timeout, as long as nobody knows this one.
    assert_eq!(
        step_at(&job, &unread, 101).wake_at.min(AT + seconds(115)),
        step_at(&job, &unread, 101).wake_at
    );
    assert!(words(&step_at(&job, &unread, 114)).is_empty());
    assert_eq!(words(&step_at(&job, &unread, 115)), heartbeat);
    // What was read once is remembered: half of 300 s.
    learning::learn_of_observation(&mut job.memory, &own(), &untouched(), AT + seconds(116));
    assert!(words(&step_at(&job, &unread, 249)).iter().all(|word| !word.starts_with("heartbeat")));
    assert!(words(&step_at(&job, &unread, 250)).contains(&heartbeat[0].to_owned()));
    // A scope that nobody has read is no scope.
    let scoped = Policy { scoped: true, ..policy() };
    let unscoped = Job { memory: Memory::default(), ..job };
    assert!(step(&unscoped, &unread, &scoped, AT + seconds(100)).actions.is_empty());
}

#[test]
fn what_is_configured_is_deregistered_while_the_group_cannot_be_read() {
    let spot = job([spot()]);
    let node = Seen::Known(isolated(&["offramp", "spot"], true, &[target_key()]));
    let throttled = Observation {
        node,
        membership: Seen::Unknown,
        group: Seen::Unknown,
        unread_target_groups: 1,
        ..untouched()
    };
    let words_at = |job: &Job| words(&step_at(job, &throttled, 5));
    assert!(words_at(&spot).contains(&"deregister web:30080".to_owned()), "{:?}", words_at(&spot));
    // A hook has the time to hear which target groups there are, and whether others can stand in.
    let mut confirmed = job([hook()]);
    learning::learn_of_observation(&mut confirmed.memory, &own(), &untouched(), AT);
    assert!(!words_at(&confirmed).contains(&"deregister web:30080".to_owned()));
}

#[test]
fn evictions_go_on_while_a_second_notice_joins() {
    // Its own entry takes a PATCH, and the watch that shows it.
    let two = job([spot(), hook()]);
    let node = Seen::Known(isolated(&["spot"], true, &[]));
    let seen = Observation { node, ..ready_to_drain(vec![pod("web")]) };
    let step = step_at(&two, &seen, 20);
    assert!(words(&step).contains(&"evict default/web".to_owned()), "{step:?}");
    // Somebody else's cordon is none of ours.
    let other = Seen::Known(isolated(&[], true, &[]));
    let seen = Observation { node: other, ..seen };
    assert!(!words(&step_at(&two, &seen, 20)).contains(&"evict default/web".to_owned()));
}

/// aws-node-termination-handler#347: an instance that was detached, by us or by others, has no group to be in scope by.
#[test]
fn what_was_in_scope_stays_so_without_its_group() {
    let policy = Policy { scoped: true, ..policy() };
    let mut job = job([spot()]);
    learning::learn_of_observation(&mut job.memory, &own(), &ready_to_drain(vec![pod("web")]), AT);
    let detached =
        Observation { membership: Seen::Gone, group: Seen::Gone, ..ready_to_drain(vec![pod("web")]) };
    let at = |job: &Job| words(&step(job, &detached, &policy, AT + seconds(10)));
    assert_eq!(at(&job), ["evict default/web"]);
    // A worker that is started anew sees it by the record.
    job.memory = Memory::default();
    assert_eq!(at(&job), [""; 0], "until the group is read, it is isolated at most");
    let undone = step(&job, &detached, &policy, AT + seconds(10)).goal == Goal::Return;
    assert!(!undone);
}

/// kubernetes#60479: a node that its kubelet has made anew lacks the labels that others had put on it.
#[test]
fn a_hook_is_not_undone_for_a_label_that_is_missing_later() {
    let mut job = job([hook()]);
    let seen = ready_to_drain(vec![pod("web")]);
    learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(1));
    let node = Node { selected: false, ..node() };
    let step = step_at(&job, &Observation { node: Seen::Known(node.clone()), ..seen.clone() }, 10);
    assert_eq!(step.reason, Reason::Isolating);
    let never = Job { memory: Memory::default(), ..job };
    let step = step_at(&never, &Observation { node: Seen::Known(node), ..seen }, 10);
    assert_eq!(step.reason, Reason::Undone(UndoReason::LeftAlone(LeftAlone::NotSelected)));
}

/// keikoproj/governor#11: another machine has taken the node over, and ELB does not know the instance any more.
#[test]
fn a_registration_that_cannot_be_holds_the_release_up_three_times() {
    let mut job = job([hook()]);
    let node = Seen::Known(isolated(&["offramp"], true, &[target_key()]));
    let seen = Observation { node, membership: member(LifecycleState::InService), ..ready_to_drain(vec![]) };
    for after in [100, 104, 111] {
        assert_eq!(words(&step_at(&job, &seen, after)), ["register web:30080"]);
        let (register, now) = (Action::Register(target_key()), AT + seconds(after));
        learning::learn_of_outcome(&mut job.memory, &register, &Ok(Outcome::Gone), &seen, now);
        assert!(!words(&step_at(&job, &seen, after)).contains(&"register web:30080".to_owned()));
    }
    assert_eq!(words(&step_at(&job, &seen, 130)), ["uncordon and forget"]);
}

#[test]
fn a_confirmed_hook_stays_confirmed_while_nothing_can_be_read() {
    let mut job = job([hook()]);
    let mut seen = ready_to_drain(vec![pod("web")]);
    learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(50));
    seen.membership = Seen::Unknown;
    assert_eq!(words(&step_at(&job, &seen, 160)), ["evict default/web", "heartbeat for hook offramp"]);
}

/// Baragon#369: a record may be older than the PATCH that brought it, so that whoever has passed the gate is not counted on,
/// whenever its record begins.
#[test]
fn whoever_has_passed_the_gate_waits_for_nobody() {
    let leaving = |excluded| {
        let summary = NodeSummary::from(&isolated(&["offramp"], excluded, &[]));
        (summary.set_aside, summary.leaving_since)
    };
    assert_eq!(leaving(false), (true, Some(AT)));
    assert_eq!(leaving(true), (true, None));
}
