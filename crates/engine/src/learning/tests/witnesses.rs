//! One witness is not enough: answers of AWS that contradict the group, states that prove nothing, and pods
//! that come back.

use std::collections::BTreeSet;
use std::slice;
use std::time::Duration;

use offramp_core::*;

use super::world::*;
use crate::learning;

/// A step; where it is to write how the job ended, the one after that.
fn step_at(job: &Job, seen: &Observation, after: u64) -> Step {
    let now = AT + seconds(after);
    let first = step(job, seen, &policy(), now);
    let ([Action::WriteRecord { record, .. }], Seen::Known(node)) = (&first.actions[..], &seen.node) else {
        return first;
    };
    assert_eq!(first.reason, Reason::WritingEnds);
    let node = Seen::Known(Node { record: Some(record.clone()), ..node.clone() });
    step(job, &Observation { node, ..seen.clone() }, &policy(), now)
}

/// Isolated, out of its balancers, and with these pods.
fn ready(pods: Vec<Pod>) -> Observation {
    Observation {
        node: Seen::Known(isolated(&["offramp"], true, &[])),
        pods: Seen::Known(pods),
        proven: AT + seconds(1_000),
        target_groups: Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]),
        ..untouched()
    }
}

fn learn(job: &mut Job, action: &Action, outcome: &ActionResult, seen: &Observation, after: u64) {
    learning::learn_of_outcome(&mut job.memory, action, outcome, seen, AT + seconds(after));
}

/// What follows from an observation, when it has been taken in.
fn look(job: &mut Job, seen: &Observation, after: u64) -> Step {
    learning::learn_of_observation(&mut job.memory, &own(), seen, AT + seconds(after));
    step_at(job, seen, after)
}

fn list_pods() -> Action {
    Action::ListPods { node: node().name }
}

fn complete() -> Action {
    Action::CompleteHook(hook_key())
}

fn with_state(state: Seen<Membership>) -> Observation {
    Observation { membership: state, ..ready(vec![]) }
}

// === The hook is answered

#[test]
fn a_refused_answer_is_given_again_while_the_group_holds_the_instance() {
    let seen = ready(vec![]);
    let mut job = job([hook()]);
    let mut asked = Vec::new();
    for after in 10..100 {
        let step = step_at(&job, &seen, after);
        assert_eq!(step.stage, Some(Stage::Complete), "at {after} s: {step:?}");
        if step.actions.contains(&complete()) {
            asked.push(after);
            learn(&mut job, &complete(), &Ok(Outcome::Gone), &seen, after);
            assert_eq!(step_at(&job, &seen, after).reason, Reason::AnswerRefused);
        }
    }
    assert_eq!(asked, [10, 13, 19, 31, 55], "with growing pauses");
    learn(&mut job, &complete(), &Ok(Outcome::Done), &seen, 100);
    assert_eq!(step_at(&job, &seen, 101).reason, Reason::Confirming);
    let left = step_at(&job, &with_state(member(LifecycleState::TerminatingProceed)), 101);
    assert_eq!((left.stage, left.reason), (None, Reason::Over(Ended::Answered)));
}

#[test]
fn a_refused_heartbeat_ends_nothing() {
    let seen = ready(vec![pod("web")]);
    let mut job = job([hook()]);
    let beat = Action::Heartbeat(hook_key());
    assert!(step_at(&job, &seen, 150).actions.contains(&beat));
    learn(&mut job, &beat, &Ok(Outcome::Gone), &seen, 150);
    let step = step_at(&job, &seen, 160);
    assert_eq!(step.stage, Some(Stage::Drain));
    assert!(step.actions.contains(&beat), "it does not count as sent: {step:?}");
    learn(&mut job, &beat, &Ok(Outcome::Done), &seen, 160);
    let unrefused = job.memory.hooks[&hook_key()];
    assert_eq!((unrefused.refused, unrefused.newest), (None, AT + seconds(160)));
}

/// A worker that starts late, and whose heartbeats are refused, does not take the end of the hook for past.
#[test]
fn refused_heartbeats_leave_half_of_the_timeout_after_the_first_receipt() {
    let seen = ready(vec![pod("web")]);
    let late = Delivery { at: AT + seconds(400), redelivered: true };
    let mut job = Job::new(hook(), late);
    for after in [400, 403, 409] {
        learn(&mut job, &Action::Heartbeat(hook_key()), &Ok(Outcome::Gone), &seen, after);
    }
    let deadline = step_at(&job, &seen, 410).deadline.unwrap();
    assert_eq!(deadline, AT + seconds(400 + 150) - policy().deadline_margin);
    // A read that fails moves nothing into the past.
    learning::learn_of_observation(&mut job.memory, &job.instance, &seen, AT + seconds(410));
    let unread = Observation { membership: Seen::Unknown, ..seen };
    assert_eq!(step_at(&job, &unread, 411).deadline, Some(deadline));
}

/// Longer than `timing.patience` at work, one reading does not list the instance, or the first one does not.
#[test]
fn an_absence_ends_no_removal_however_long_it_takes() {
    let seen = ready(vec![pod("web")]);
    let absent = Observation { membership: Seen::Gone, ..seen.clone() };
    let late = 2 * 3600;
    let mut job = job([hook()]);
    learn(&mut job, &Action::Heartbeat(hook_key()), &Ok(Outcome::Done), &seen, late);
    learning::learn_of_observation(&mut job.memory, &job.instance, &seen, AT + seconds(late));
    assert!(step_at(&job, &absent, late + 10).stage.is_some(), "the hook is open for 300 s more");
    assert_eq!(step_at(&job, &absent, late + 400).reason, Reason::Over(Ended::LeftIsolated));
    let first = Job::new(hook(), Delivery { at: AT + seconds(late), redelivered: true });
    assert!(step_at(&first, &absent, late + 1).stage.is_some(), "read again");
    assert_eq!(step_at(&first, &absent, late + 70).reason, Reason::Over(Ended::LeftIsolated));
}

/// Another worker was first, or somebody by hand: the instance comes back all the same, and serves again.
#[test]
fn a_refusal_before_a_root_volume_is_replaced_leaves_nothing_isolated() {
    let notice = hook_of("offramp", Passage::RootVolume);
    let held = Observation { membership: member(LifecycleState::ReplacingRootVolumeWait), ..ready(vec![]) };
    let rebooting = LifecycleState::Other("ReplacingRootVolume".to_owned());
    for redelivered in [false, true] {
        let mut job = Job::new(notice.clone(), Delivery { at: AT + seconds(5), redelivered });
        learn(&mut job, &complete(), &Ok(Outcome::Gone), &held, 10);
        let seen = Observation { membership: member(rebooting.clone()), ..held.clone() };
        assert!(step_at(&job, &seen, 400).stage.is_some(), "it comes back");
        let back = Observation { membership: member(LifecycleState::InService), ..held.clone() };
        assert_eq!(step_at(&job, &back, 401).goal, Goal::Return);
    }
}

#[test]
fn what_cannot_be_open_any_more_ends_without_our_answer() {
    let seen = ready(vec![]);
    let check = |redelivered: bool, hooks: &[&str], outcome: ActionResult, expect: Ended| {
        let seen = Observation { group: Seen::Known(group(hooks)), ..seen.clone() };
        let mut job = Job::new(hook(), Delivery { at: AT + seconds(5), redelivered });
        learn(&mut job, &complete(), &outcome, &seen, 10);
        // First receipt at 5 s, HeartbeatTimeout 300 s, and 30 s.
        assert!(step_at(&job, &seen, 334).stage.is_some());
        assert_eq!(step_at(&job, &seen, 335).reason, Reason::Over(expect));
    };
    check(false, &["offramp"], Ok(Outcome::Gone), Ended::WithoutOurAnswer);
    check(false, &["offramp", "ship-logs"], Ok(Outcome::Gone), Ended::WithoutOurAnswer);
    check(true, &["offramp"], Ok(Outcome::Gone), Ended::WasNotOpen);
    // With one hook the state has to move after a 200.
    check(false, &["offramp"], Ok(Outcome::Done), Ended::WithoutOurAnswer);
}

/// The answers to heartbeats are lost, and AWS has taken each of them.
#[test]
fn a_heartbeat_that_may_have_been_taken_may_keep_a_hook_open() {
    let mut job = Job::new(hook(), Delivery { at: AT + seconds(5), redelivered: false });
    let seen = ready(vec![]);
    learn(&mut job, &Action::Heartbeat(hook_key()), &Err(Failure::Retry), &seen, 200);
    learn(&mut job, &complete(), &Ok(Outcome::Gone), &seen, 330);
    assert!(step_at(&job, &seen, 529).stage.is_some());
    assert_eq!(step_at(&job, &seen, 530).reason, Reason::Over(Ended::WithoutOurAnswer));
}

/// A worker that went away has answered it, perhaps; nobody is paged for each hook that a sweep finds answered.
#[test]
fn a_hook_that_was_seen_and_is_not_open_was_not_open() {
    let Notice { kind: NoticeKind::Hook(hook), .. } = hook() else { unreachable!() };
    let key = HookKey { token: None, ..hook.key.clone() };
    let seen = notice("seen", NoticeKind::Hook(Hook { key: key.clone(), ..hook }));
    let mut job = Job::new(seen, Delivery { at: AT, redelivered: false });
    learn(&mut job, &Action::CompleteHook(key), &Ok(Outcome::Gone), &ready(vec![]), 10);
    assert_eq!(step_at(&job, &ready(vec![]), 400).reason, Reason::Over(Ended::WasNotOpen));
}

#[test]
fn beside_other_hooks_a_200_and_the_refusal_of_its_repeat_are_enough() {
    let seen = |hooks: Seen<Group>| Observation { group: hooks, ..ready(vec![]) };
    let check = |hooks: Seen<Group>, expect: Option<Stage>| {
        let seen = seen(hooks);
        let mut job = job([hook()]);
        learn(&mut job, &complete(), &Ok(Outcome::Done), &seen, 10);
        assert_eq!(step_at(&job, &seen, 19).actions, [], "not before ten seconds");
        assert_eq!(step_at(&job, &seen, 20).actions, [complete()]);
        learn(&mut job, &complete(), &Ok(Outcome::Gone), &seen, 20);
        assert_eq!(step_at(&job, &seen, 21).stage, expect);
    };
    check(Seen::Known(group(&["offramp", "ship-logs"])), None);
    check(Seen::Unknown, None);
    check(Seen::Known(group(&["offramp"])), Some(Stage::Complete));
}

#[test]
fn of_two_actions_of_one_hook_the_one_that_is_taken_is_open() {
    let token = |name: &str| HookKey { token: Some(HookToken::new(name)), ..hook_key() };
    let of = |name: &str| {
        let Notice { kind: NoticeKind::Hook(hook), .. } = hook() else { unreachable!() };
        notice(name, NoticeKind::Hook(Hook { key: token(name), ..hook }))
    };
    let seen = ready(vec![pod("web")]);
    let mut job = job([of("old"), of("new")]);
    for after in [150, 153, 159] {
        learn(&mut job, &Action::Heartbeat(token("old")), &Ok(Outcome::Gone), &seen, after);
    }
    let deadline = |job: &Job| step_at(job, &seen, 170).deadline.unwrap();
    learn(&mut job, &Action::Heartbeat(token("new")), &Ok(Outcome::Done), &seen, 160);
    learn(&mut job, &Action::Heartbeat(token("old")), &Ok(Outcome::Gone), &seen, 165);
    assert_eq!(deadline(&job), AT + policy().hook_limit - policy().deadline_margin);
    let beats: Vec<Action> = step_at(&job, &seen, 400).actions;
    assert!(beats.contains(&Action::Heartbeat(token("new"))), "{beats:?}");
    assert!(!beats.contains(&Action::Heartbeat(token("old"))), "{beats:?}");
}

/// Found by the simulation: one of two hooks of ours timed out while no worker ran, and its refusals let the other
/// one be answered with pods left, after thousands of heartbeats.
#[test]
fn a_hook_that_is_refused_presses_no_other() {
    let two = BTreeSet::from(["offramp", "drain"].map(HookName::new));
    let policy = Policy { hook_names: two, ..policy() };
    let key = |name: &str| HookKey {
        name: HookName::new(name),
        token: Some(HookToken::new(format!("token-of-{name}"))),
        ..hook_key()
    };
    let seen = Observation {
        group: Seen::Known(group(&["offramp", "drain"])),
        node: Seen::Known(isolated(&["offramp", "drain"], true, &[])),
        ..ready(vec![pod("web")])
    };
    let mut job = job([hook(), hook_of("drain", Passage::Ending)]);
    learn(&mut job, &Action::Heartbeat(key("drain")), &Ok(Outcome::Done), &seen, 290);
    for after in [290, 293, 299] {
        learn(&mut job, &Action::Heartbeat(key("offramp")), &Ok(Outcome::Gone), &seen, after);
        let now = AT + seconds(after);
        let step = step(&job, &seen, &policy, now);
        assert!(!step.actions.contains(&Action::Heartbeat(key("drain"))), "it was heard: {step:?}");
        assert!(!step.actions.contains(&Action::CompleteHook(key("drain"))), "{step:?}");
        assert!(step.wake_at > now || !step.actions.is_empty());
    }
    let step = step(&job, &seen, &policy, AT + seconds(310));
    assert_eq!(step.deadline, Some(AT + policy.hook_limit - policy.deadline_margin));
}

#[test]
fn a_hook_that_was_deleted_cannot_be_answered() {
    let gone = Observation { group: Seen::Known(group(&["ship-logs"])), ..ready(vec![]) };
    let mut job = job([hook()]);
    assert_eq!(step_at(&job, &gone, 10).actions, [complete()], "as long as nothing else says so");
    let listed = ready(vec![]);
    for after in [10, 13, 19] {
        learn(&mut job, &complete(), &Ok(Outcome::Gone), &listed, after);
    }
    // The refusals came while the group listed it.
    let look = |job: &mut Job, after: u64| {
        learning::learn_of_observation(&mut job.memory, &own(), &gone, AT + seconds(after));
        step_at(job, &gone, after)
    };
    let over = Reason::Over(Ended::WithoutOurAnswer);
    assert_ne!(look(&mut job, 40).reason, over, "one reading may be empty");
    learning::learn_of_observation(&mut job.memory, &own(), &listed, AT + seconds(45));
    assert_ne!(look(&mut job, 55).reason, over, "as it was");
    assert_ne!(look(&mut job, 114).reason, over);
    assert_eq!(look(&mut job, 115).reason, over);
}

/// While our clock is ahead of the API server's, a pod that comes back at once looks older than its eviction.
#[test]
fn a_pod_that_looks_older_each_time_is_not_evicted_for_ever() {
    let mut job = job([hook()]);
    let mut evicted = 0;
    for round in 0..1_000 {
        let uid = PodUid::new(format!("uid-{round}"));
        let back = Pod { pod: PodRef { uid, ..pod("agent").pod }, ..of("agent", "agent") };
        let seen = ready(vec![back.clone()]);
        learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(10));
        if evictions_at(&job, &seen, 10).is_empty() {
            break;
        }
        learn(&mut job, &evict(&back), &Ok(Outcome::Done), &seen, 10);
        evicted += 1;
    }
    assert_eq!(evicted, 250, "as many as a node has room for");
}

#[test]
fn a_target_that_is_put_back_where_no_listener_is_holds_nothing_up() {
    let unused = target_group(Some(TargetHealth::Unused { registered: true }), &[TargetHealth::Healthy]);
    let node = Seen::Known(isolated(&["offramp"], true, &[target_key()]));
    let seen = Observation { node, target_groups: Seen::Known(vec![unused]), ..ready(vec![]) };
    let mut job = job([hook()]);
    let deregister = Action::Deregister(target_key());
    learn(&mut job, &deregister, &Ok(Outcome::Done), &seen, 10);
    let look = |job: &mut Job, after: u64| {
        learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(after));
        step_at(job, &seen, after)
    };
    assert_ne!(look(&mut job, 50).stage, Some(Stage::Quiesce), "it has no requests to finish");
    assert!(look(&mut job, 50).actions.contains(&deregister), "it was registered again");
}

#[test]
fn an_instance_that_is_not_listed_is_answered_only_after_a_200() {
    let unlisted = with_state(Seen::Gone);
    let check = |outcome: ActionResult, expect: Option<Stage>| {
        let mut job = job([hook()]);
        learn(&mut job, &complete(), &outcome, &ready(vec![]), 70);
        assert_eq!(step_at(&job, &unlisted, 71).stage, expect, "{outcome:?}");
    };
    check(Ok(Outcome::Done), None);
    check(Ok(Outcome::Gone), Some(Stage::Complete));
}

/// spacelift-io/terraform-aws-spacelift-workerpool-on-ec2#197: a message with an older token is refused, the newer
/// one is taken. The removal ends by our answer, whatever the older message says.
#[test]
fn an_older_action_of_an_answered_hook_does_not_end_without_our_answer() {
    let mut older = hook();
    older.id = NoticeId::new("older");
    let NoticeKind::Hook(hook_of_older) = &mut older.kind else { unreachable!() };
    hook_of_older.key.token = Some(HookToken::new("an older token"));
    let old_key = hook_of_older.key.clone();
    let seen = ready(vec![]);
    let mut job = job([older, hook()]);
    learn(&mut job, &Action::Heartbeat(old_key), &Ok(Outcome::Gone), &seen, 5);
    learn(&mut job, &complete(), &Ok(Outcome::Done), &seen, 10);
    let past = with_state(member(LifecycleState::TerminatingProceed));
    assert_eq!(step_at(&job, &past, 20).reason, Reason::Over(Ended::Answered));
}

// === The group disagrees: undo

#[test]
fn on_a_hook_only_in_service_undoes() {
    let check = |state: Seen<Membership>, at_61: Option<Goal>, at_3_600: Reason| {
        let seen = with_state(state);
        let job = job([hook()]);
        let early = step_at(&job, &seen, 61);
        assert_eq!(early.stage.map(|_| early.goal), at_61, "{:?}", seen.membership);
        let late = step_at(&job, &seen, 3_600);
        assert_eq!(late.reason, at_3_600, "{:?}", seen.membership);
        if at_61 == Some(Goal::Leave) {
            assert_eq!((early.actions, late.stage, late.actions), (vec![], None, vec![]));
        }
    };
    let retained = || member(LifecycleState::Other("Terminating:Retained".to_owned()));
    let isolated = || Reason::Over(Ended::LeftIsolated);
    check(member(LifecycleState::InService), Some(Goal::Return), Reason::Returning(UndoReason::InService));
    check(retained(), Some(Goal::Leave), isolated());
    check(member(LifecycleState::Standby), Some(Goal::Leave), isolated());
    check(member(LifecycleState::Terminating), Some(Goal::Leave), isolated());
    check(Seen::Gone, Some(Goal::Leave), isolated());
    check(member(LifecycleState::TerminatingProceed), None, Reason::Over(Ended::WasNotOpen));
}

#[test]
fn a_state_that_proves_nothing_is_told_as_such() {
    let seen = with_state(member(LifecycleState::Other("Terminating:Retained".to_owned())));
    assert_eq!(step_at(&job([hook()]), &seen, 61).reason, Reason::GroupUndecided);
    assert_eq!(step_at(&job([hook()]), &with_state(Seen::Unknown), 61).reason, Reason::GroupUnknown);
}

#[test]
fn an_instance_in_its_warm_pool_is_not_put_back_into_service() {
    let mut job = job([hook_of("offramp", Passage::ToWarmPool)]);
    let warmed = with_state(member(LifecycleState::Warmed));
    let end = |job: &Job| (step_at(job, &warmed, 61).stage, step_at(job, &warmed, 61).reason);
    assert!(step_at(&job, &warmed, 59).stage.is_some(), "it may be from before: it has been there once");
    assert_eq!(end(&job), (None, Reason::Over(Ended::WasNotOpen)));
    job.memory.sightings.held = true;
    assert_eq!(end(&job), (None, Reason::Over(Ended::WithoutOurAnswer)));
    // Another worker had its message, and may have answered.
    job.deliveries.values_mut().for_each(|delivery| delivery.redelivered = true);
    assert_eq!(end(&job), (None, Reason::Over(Ended::Answered)));
}

/// Seed 217: a hook's message for an instance in service, of a hook that its group does not have.
#[test]
fn what_a_refusal_is_about_is_undone_where_the_group_has_the_instance_in_service() {
    let mut job = job([hook()]);
    let in_service =
        Observation { group: Seen::Known(group(&[])), ..with_state(member(LifecycleState::InService)) };
    learn(&mut job, &Action::Heartbeat(hook_key()), &Ok(Outcome::Gone), &in_service, 30);
    assert_eq!(step_at(&job, &in_service, 35).reason, Reason::Unsettled, "it may say so a moment too early");
    assert_eq!(step_at(&job, &in_service, 61).reason, Reason::Returning(UndoReason::InService));
}

// === A pod need not be waited for

/// Seeds 75 and 1281: somebody takes the cordon off, and pods come that are like all others.
#[test]
fn pods_that_came_while_the_cordon_was_off_are_evicted_and_waited_for() {
    let first = Pod { tolerates_cordon: true, ..of("web", "web-1") };
    let back = Pod { pod: pod("web-2").pod, created: AT + seconds(20), ..first.clone() };
    let mut job = job([hook()]);
    learning::learn_of_observation(&mut job.memory, &own(), &ready(vec![first.clone()]), AT + seconds(10));
    learn(&mut job, &evict(&first), &Ok(Outcome::Done), &ready(vec![first]), 10);
    let open = Observation { node: Seen::Known(node()), ..ready(vec![back.clone()]) };
    let closed = ready(vec![back.clone()]);
    assert!(
        !step_at(&job, &closed, 21).actions.contains(&evict(&back)),
        "with the cordon on it has come back"
    );
    learning::learn_of_observation(&mut job.memory, &own(), &open, AT + seconds(22));
    learning::learn_of_observation(&mut job.memory, &own(), &closed, AT + seconds(23));
    assert_eq!(step_at(&job, &closed, 23).actions, [evict(&back)]);
}

fn of(owner: &str, name: &str) -> Pod {
    Pod { origin: PodOrigin(format!("default ReplicaSet {owner}")), ..pod(name) }
}

fn evict(pod: &Pod) -> Action {
    Action::Evict { pod: pod.pod.clone(), origin: pod.origin.clone(), grace: None }
}

/// Evicts what comes back each second, and gives how often before it is left.
fn evictions_of(template: &Pod, created_late_by: Duration) -> usize {
    let mut job = job([hook()]);
    for round in 0..20 {
        let after = 10 + round;
        let uid = PodUid::new(format!("uid-{round}"));
        let created = if round == 0 { template.created } else { AT + seconds(after) - created_late_by };
        let back = Pod { pod: PodRef { uid, ..template.pod.clone() }, created, ..template.clone() };
        let seen = ready(vec![back.clone()]);
        learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(after));
        let step = step_at(&job, &seen, after);
        if !step.actions.contains(&evict(&back)) {
            assert_eq!(step.actions, [list_pods()], "it is not waited for either");
            learn(&mut job, &list_pods(), &Ok(Outcome::Done), &seen, after);
            assert_eq!(step_at(&job, &seen, after).actions, [complete()]);
            return round.try_into().unwrap();
        }
        learn(&mut job, &evict(&back), &Ok(Outcome::Done), &seen, after);
        // The watch shows its deletion, with the API server's time.
        let deleted_at = Some(AT + seconds(after) - created_late_by);
        let ending = Pod { deleted_at, ends_at: Some(AT + seconds(after + 30)), ..back };
        let shown = ready(vec![ending.clone()]);
        learning::learn_of_observation(&mut job.memory, &own(), &shown, AT + seconds(after));
        // When it has ended, its deletion is written anew, with no grace (kube-apiserver 1.36).
        let end = Some(AT + seconds(after + 1) - created_late_by);
        let ended = ready(vec![Pod { deleted_at: end, ends_at: end, ..ending }]);
        learning::learn_of_observation(&mut job.memory, &own(), &ended, AT + seconds(after + 1));
    }
    panic!("it is evicted without end");
}

#[test]
fn a_pod_that_comes_back_is_evicted_once_or_twice() {
    let none = Duration::ZERO;
    let tolerant = Pod { tolerates_cordon: true, ..of("cilium-operator", "cilium-operator-0") };
    assert_eq!(evictions_of(&tolerant, none), 1);
    assert_eq!(evictions_of(&of("web", "web-1"), none), 2);
    let unowned = Pod { tolerates_cordon: true, ..pod("bare") };
    assert_eq!(evictions_of(&unowned, none), 1, "it goes by its name");
    // A clock of ours that is four minutes ahead of the API server's.
    assert_eq!(evictions_of(&tolerant, seconds(240)), 1);
}

#[test]
fn an_eviction_without_an_answer_counts_when_its_pod_is_gone() {
    let tolerant = |name: &str| Pod { tolerates_cordon: true, ..of("web", name) };
    let first = tolerant("web-1");
    let mut job = job([hook()]);
    let seen = ready(vec![first.clone()]);
    learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(10));
    learn(&mut job, &evict(&first), &Err(Failure::Retry), &seen, 10);
    // It failed, as far as the watch says.
    let second = Pod { created: AT + seconds(11), ..tolerant("web-2") };
    let both = ready(vec![first, second.clone()]);
    learning::learn_of_observation(&mut job.memory, &own(), &both, AT + seconds(11));
    assert!(step_at(&job, &both, 11).actions.contains(&evict(&second)));
    // It had worked.
    let back = ready(vec![second.clone()]);
    learning::learn_of_observation(&mut job.memory, &own(), &back, AT + seconds(12));
    assert!(step_at(&job, &back, 12).actions.contains(&evict(&second)), "a rollout may have put it there");
    learn(&mut job, &evict(&second), &Err(Failure::Retry), &back, 13);
    let third = Pod { created: AT + seconds(14), ..tolerant("web-3") };
    let again = ready(vec![third]);
    learning::learn_of_observation(&mut job.memory, &own(), &again, AT + seconds(14));
    assert_eq!(step_at(&job, &again, 14).actions, [list_pods()], "it comes back each time");
}

/// What ends anyway has not ended by our call: each try would count, and a nodeful of them all pods of its origin.
#[test]
fn a_deletion_that_fails_says_nothing_about_a_pod_that_ends() {
    let mut job = job([hook()]);
    let ending = Pod { deleted_at: Some(AT), ends_at: Some(AT + seconds(900)), ..of("web", "web-1") };
    let seen = ready(vec![ending.clone()]);
    let delete = Action::Delete { pod: ending.pod, grace: seconds(1) };
    for after in 10..300 {
        learn(&mut job, &delete, &Err(Failure::Retry), &seen, after);
        learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(after));
    }
    assert!(job.memory.evicted.is_empty());
}

#[test]
fn an_ingress_daemon_set_is_evicted_once() {
    let named = IngressDaemonSet { namespace: "default".to_owned(), name: "ingress".to_owned() };
    let policy = Policy { ingress_daemon_sets: [named].into(), ..policy() };
    let first = Pod { daemon_set: Some("ingress".to_owned()), tolerates_cordon: true, ..pod("ingress-a") };
    let again = Pod { pod: pod("ingress-b").pod, created: AT + seconds(11), ..first.clone() };
    let mut job = job([hook()]);
    let seen = ready(vec![first.clone()]);
    assert_eq!(step(&job, &seen, &policy, AT + seconds(10)).actions, [evict(&first)]);
    learn(&mut job, &evict(&first), &Ok(Outcome::Done), &seen, 10);
    assert_eq!(step(&job, &ready(vec![again]), &policy, AT + seconds(12)).actions, [complete()]);
}

#[test]
fn pods_from_before_the_cordon_are_evicted_whatever_they_tolerate() {
    let tolerant = |name: &str| Pod { tolerates_cordon: true, ..of("web", name) };
    let (one, two) = (tolerant("web-1"), tolerant("web-2"));
    let mut job = job([hook()]);
    let seen = ready(vec![one.clone(), two.clone()]);
    assert_eq!(step_at(&job, &seen, 10).actions, [evict(&one), evict(&two)]);
    learn(&mut job, &evict(&one), &Ok(Outcome::Done), &seen, 10);
    learn(&mut job, &evict(&two), &Ok(Outcome::Blocked { budget: None }), &seen, 10);
    // The second was made long before the eviction of the first; a third comes in place of that.
    let third = Pod { created: AT + seconds(11), ..tolerant("web-3") };
    let step = step_at(&job, &ready(vec![two.clone(), third]), 15);
    assert_eq!(step.actions, [evict(&two)]);
}

#[test]
fn the_deadline_forces_no_pod_that_came_back() {
    let first = Pod { tolerates_cordon: true, ..of("agent", "agent-1") };
    let back = Pod { pod: pod("agent-2").pod, created: AT + seconds(11), ..first.clone() };
    let mut job = job([spot()]);
    let node = Seen::Known(isolated(&["spot"], true, &[]));
    let seen = |pods| Observation { node: node.clone(), ..ready(pods) };
    learn(&mut job, &evict(&first), &Ok(Outcome::Done), &seen(vec![first.clone()]), 10);
    let forces = |step: Step| {
        let is_forced =
            |action: &Action| matches!(action, Action::Delete { .. } | Action::Evict { grace: Some(_), .. });
        step.actions.iter().any(is_forced)
    };
    assert!(!forces(step_at(&job, &seen(vec![back]), 110)));
    assert!(forces(step_at(&job, &seen(vec![pod("web")]), 75)), "another pod is");
}

#[test]
fn a_veto_counts_as_a_refusal_with_a_name() {
    let seen = ready(vec![pod("kafka-0")]);
    let mut job = job([hook()]);
    let vetoed = Ok(Outcome::Vetoed { by: "rolled by the operator".to_owned() });
    learn(&mut job, &evict(&pod("kafka-0")), &vetoed, &seen, 10);
    let Reason::Draining(left) = step_at(&job, &seen, 11).reason else { panic!("not draining") };
    assert_eq!((left.refused, left.vetoed), (1, 1));
    assert_eq!(step_at(&job, &seen, 15).actions, [evict(&pod("kafka-0"))], "asked again");
}

/// KusionStack/kuperator#134: a webhook refuses the DELETE as well.
#[test]
fn a_deletion_that_is_refused_rests() {
    let node = Seen::Known(isolated(&["spot"], true, &[]));
    let seen = Observation { node, ..ready(vec![pod("kafka-0")]) };
    let mut job = job([spot()]);
    for refusal in [Ok(Outcome::Vetoed { by: "rolled by the operator".to_owned() }), Err(Failure::Denied)] {
        job.memory = Memory { detached: true, ..Memory::default() };
        learn(&mut job, &evict(&pod("kafka-0")), &refusal, &seen, 70);
        let deletion = Action::Delete { pod: pod("kafka-0").pod, grace: seconds(30) };
        assert_eq!(
            step_at(&job, &seen, 75).actions,
            slice::from_ref(&deletion),
            "a refused eviction goes further at once"
        );
        learn(&mut job, &deletion, &refusal, &seen, 75);
        let rested = step_at(&job, &seen, 76);
        assert_eq!((rested.actions, rested.wake_at), (vec![], AT + seconds(77)));
        assert_eq!(step_at(&job, &seen, 77).actions, [deletion], "asked again");
    }
}

fn evictions_at(job: &Job, seen: &Observation, after: u64) -> Vec<Action> {
    let actions = step_at(job, seen, after).actions.into_iter();
    actions.filter(|action| matches!(action, Action::Evict { .. })).collect()
}

#[test]
fn a_grace_that_is_cut_begins_anew() {
    // A spot notice joins a drain of ten minutes, and the pod's end is moved to the front.
    let ending = |ends: u64, asked: u64| Pod {
        ends_at: Some(AT + seconds(ends)),
        deleted_at: Some(AT + seconds(asked)),
        ..pod("web")
    };
    let mut job = job([hook()]);
    let mut look = |pod: Pod, after: u64| {
        let seen = ready_to_drain(vec![pod.clone()]);
        learning::learn_of_observation(&mut job.memory, &own(), &seen, AT + seconds(after));
        not_waited_for(&job, &pod, &policy(), AT + seconds(after))
    };
    assert_eq!(look(ending(600, 0), 0), None);
    assert_eq!(look(ending(105, 0), 300), None);
    assert_eq!(look(ending(105, 0), 464), None);
    assert_eq!(look(ending(105, 0), 465), Some(NotWaitedFor::Overdue));
}

/// kubernetes-sigs/cluster-api#10706: the grace of a pod was over long before anybody looked. One that was cut may have been cut a
/// moment ago: the API server counts it from the first deletion.
#[test]
fn what_ended_long_ago_is_overdue_at_once_unless_its_grace_was_cut() {
    let seen_after = |granted: u64, after: u64| {
        let (asked, grace) = (AT, seconds(900));
        let ending =
            Pod { ends_at: Some(asked + seconds(granted)), deleted_at: Some(asked), grace, ..pod("web") };
        let mut job = job([hook()]);
        let (seen, now) = (ready_to_drain(vec![ending.clone()]), AT + seconds(after));
        learning::learn_of_observation(&mut job.memory, &own(), &seen, now);
        not_waited_for(&job, &ending, &policy(), now)
    };
    assert_eq!(seen_after(900, 900 + 659), None);
    assert_eq!(seen_after(900, 900 + 660), Some(NotWaitedFor::Overdue));
    assert_eq!(seen_after(103, 900 + 660), None);
}

/// NVIDIA/gpu-operator#536: a controller takes every cordon off.
#[test]
fn a_node_whose_cordon_never_lasts_is_drained_without_it() {
    let version =
        |version: u64, node: Node| Seen::Known(Node { resource_version: version.to_string(), ..node });
    let open = |at: u64| Observation { node: version(at, node()), ..ready(vec![pod("web")]) };
    let closed = |at: u64| Observation {
        node: version(at, isolated(&["offramp"], false, &[])),
        ..ready(vec![pod("web")])
    };
    let mut job = job([hook()]);
    let isolates = |step: &Step| step.actions.iter().any(|action| matches!(action, Action::Isolate { .. }));
    let mut patches = 0;
    for after in (10..200).step_by(2) {
        let step = look(&mut job, &open(after), after);
        if let Some(isolate) = step.actions.iter().find(|action| matches!(action, Action::Isolate { .. })) {
            patches += 1;
            learn(&mut job, isolate, &Ok(Outcome::Done), &open(after), after);
            look(&mut job, &closed(after + 1), after + 1);
        }
    }
    assert!((6..=12).contains(&patches), "{patches} patches");
    let step = look(&mut job, &open(201), 201);
    assert!(step.actions.iter().any(|action| matches!(action, Action::Evict { .. })), "{step:?}");
    assert!(!isolates(&step), "{step:?}");
}

/// Two nodes name the instance, one of them in a cluster that takes no changes.
#[test]
fn what_one_node_refused_says_nothing_about_another() {
    let mut job = job([hook()]);
    let seen = Observation { node: Seen::Known(node()), ..ready(vec![pod("web")]) };
    let evicts = |step: &Step| step.actions.iter().any(|action| matches!(action, Action::Evict { .. }));
    for after in [10, 100, 200] {
        let step = look(&mut job, &seen, after);
        for isolate in step.actions.iter().filter(|action| action.guard().is_some()) {
            learn(&mut job, isolate, &Err(Failure::Denied), &seen, after);
        }
    }
    assert!(evicts(&look(&mut job, &seen, 201)), "it cannot be written");
    let other = Node { name: "n2".into(), ..node() };
    let step = look(&mut job, &Observation { node: Seen::Known(other), ..seen }, 202);
    assert!(!evicts(&step) && step.actions.iter().any(|action| matches!(action, Action::Isolate { .. })));
}

/// A webhook takes out of a PATCH what the API server then says is done: all of it, or all but the record.
#[test]
fn a_node_that_never_shows_its_cordon_is_drained_without_it() {
    let evicted_at = |lets_records_pass: bool| {
        let mut open = Observation { node: Seen::Known(node()), ..ready(vec![pod("web")]) };
        let mut job = job([hook()]);
        (10..600).step_by(5).find(|after| {
            learning::learn_of_observation(&mut job.memory, &own(), &open, AT + seconds(*after));
            job.memory.hooks.insert(hook_key(), heard(*after));
            let step = step_at(&job, &open, *after);
            if step.actions.iter().any(|action| matches!(action, Action::Evict { .. })) {
                let empty = Observation { pods: Seen::Known(vec![]), ..open.clone() };
                let step = step_at(&job, &empty, *after);
                assert_eq!(step.reason, Reason::ProvingEmpty, "new pods may come at any time");
            }
            for action in step.actions.iter().filter(|action| action.guard().is_some()) {
                learn(&mut job, action, &Ok(Outcome::Done), &open, *after);
                if let (Seen::Known(shown), true) = (&mut open.node, lets_records_pass) {
                    shown.resource_version = after.to_string();
                }
            }
            step.actions.iter().any(|action| matches!(action, Action::Evict { .. }))
        })
    };
    assert_eq!(
        evicted_at(false),
        Some(315),
        "five minutes after it was seen open in spite of the first PATCH"
    );
    assert_eq!(evicted_at(true), Some(30), "three times it was shown what became of the PATCH");
}
