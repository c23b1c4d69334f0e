//! Whether a machine still runs: what each witness alone is worth.

use std::collections::BTreeSet;
use std::time::Duration;

use super::paths::{step_at, words};
use super::world::*;
use crate::*;

/// What was seen of a machine that was healthy after its event.
fn sightings() -> Sightings {
    Sightings { node: Some(node().name), healthy_at: Some(AT + seconds(1)), ..Sightings::default() }
}

fn job_with(notice: Notice, sightings: Sightings) -> Job {
    let mut job = job([notice]);
    job.memory.sightings = sightings;
    job
}

fn unhealthy(state: LifecycleState) -> Seen<Membership> {
    Seen::Known(Membership { group: GroupName::new("workers"), state, healthy: false, pooled: false })
}

fn silent(since: Timestamp) -> Node {
    Node { ready: false, silent: true, ready_since: since, ..isolated(&["offramp"], true, &[target_key()]) }
}

/// A machine of which group, API server and balancer say that it has ended.
fn ended() -> Observation {
    Observation {
        node: Seen::Known(silent(AT - seconds(70))),
        membership: unhealthy(LifecycleState::TerminatingWait),
        ..ready_to_drain(vec![pod("web")])
    }
}

#[test]
fn group_node_and_targets_have_to_agree_that_a_machine_has_ended() {
    let drains = |sightings: Sightings, seen: &Observation, after: u64| {
        words(&step_at(&job_with(hook(), sightings), seen, after)) == ["evict default/web"]
    };
    assert!(!drains(sightings(), &ended(), 10));
    // A group that ends an instance for its load balancer's health check calls it unhealthy from the beginning.
    assert!(drains(Sightings { healthy_at: None, ..sightings() }, &ended(), 10));
    assert!(drains(Sightings { healthy_at: Some(AT - seconds(1)), ..sightings() }, &ended(), 10));
    let healthy = Observation { membership: member(LifecycleState::TerminatingWait), ..ended() };
    assert!(drains(sightings(), &healthy, 10));
    // Its kubelet may have stopped a moment ago.
    let blip = Observation { node: Seen::Known(silent(AT - seconds(40))), ..ended() };
    assert!(drains(sightings(), &blip, 10) && !drains(sightings(), &blip, 20));
    // Its kubelet says itself that something is wrong, and works on.
    let unwell = Node { silent: false, ..silent(AT - seconds(70)) };
    assert!(drains(sightings(), &Observation { node: Seen::Known(unwell), ..ended() }, 10));
    // Its target took traffic before it was deregistered.
    let served = Sightings { served: BTreeSet::from([target_key()]), ..sightings() };
    assert!(drains(served, &ended(), 10));
}

#[test]
fn a_node_that_is_gone_proves_nothing_about_its_machine() {
    let gone = Observation { node: Seen::Gone, pods: Seen::Known(vec![pod("web")]), ..ended() };
    let since = Sightings { no_node_since: Some(AT + seconds(5)), ..sightings() };
    let healthy = Observation { membership: member(LifecycleState::TerminatingWait), ..gone.clone() };
    // Pods of a deleted Node are evicted like others, and their grace counts from the moment it went.
    let job = job_with(hook(), Sightings { longest_grace: seconds(30), ..since.clone() });
    assert_eq!(words(&step_at(&job, &healthy, 10)), ["evict default/web"]);
    let without_pods = Observation { pods: Seen::Known(vec![]), ..healthy };
    let left = |step: Step| if let Reason::NoNode { left, .. } = step.reason { left } else { Duration::ZERO };
    assert_eq!(left(step_at(&job, &without_pods, 10)), seconds(25));
    assert_eq!(words(&step_at(&job, &without_pods, 35)), ["complete hook offramp: CONTINUE"]);
    // Of one that was never there nobody knows what ran on it.
    let unseen = job_with(hook(), Sightings { node: None, ..since.clone() });
    assert_eq!(left(step_at(&unseen, &without_pods, 10)), seconds(595));
    // Together with the others it does.
    assert_eq!(words(&step_at(&job_with(hook(), since), &gone, 65)), ["complete hook offramp: CONTINUE"]);
}

#[test]
fn a_node_is_empty_when_its_watch_has_proven_it_and_a_list_agrees() {
    let closed_at = AT + seconds(1);
    let mut job = job_with(hook(), Sightings { closed_at: Some(closed_at), ..sightings() });
    let empty = |proven| Observation { proven, ..ready_to_drain(vec![]) };
    let steps = |job: &Job, proven| words(&step_at(job, &empty(proven), 60));
    assert_eq!(step_at(&job, &empty(closed_at - seconds(1)), 60).reason, Reason::ProvingEmpty);
    assert!(steps(&job, closed_at - seconds(1)).is_empty());
    assert_eq!(steps(&job, closed_at), ["list pods"]);
    // Of the time before somebody took the cordon off and we put it on again.
    job.memory.pods_listed = Some(closed_at - seconds(1));
    assert_eq!(steps(&job, closed_at), ["list pods"]);
    job.memory.pods_listed = Some(closed_at);
    assert_eq!(steps(&job, closed_at), ["complete hook offramp: CONTINUE"]);
    // None of that is worth the hook: at its end it is answered.
    job.memory.pods_listed = None;
    let late = step_at(&job, &empty(Timestamp::default()), 3_590);
    assert!(words(&late).contains(&"complete hook offramp: CONTINUE".to_owned()), "{late:?}");
}

#[test]
fn the_hook_of_an_unseen_machine_is_not_called_left() {
    let passed = |healthy: bool| Observation {
        node: Seen::Gone,
        pods: Seen::Gone,
        membership: Seen::Known(Membership {
            group: GroupName::new("workers"),
            state: LifecycleState::TerminatingProceed,
            healthy,
            pooled: false,
        }),
        ..untouched()
    };
    let check = |sightings: Sightings, seen: Observation, expect: Ended| {
        let mut job = job_with(hook(), sightings);
        let continued = HookCalls { continued: Some(AT + seconds(700)), ..heard(650) };
        job.memory.hooks.insert(hook_key(), continued);
        assert_eq!(step_at(&job, &seen, 710).reason, Reason::Over(expect));
    };
    check(Sightings { node: None, ..sightings() }, passed(true), Ended::AnsweredUnseen);
    let dead = Sightings { node: None, unhealthy: true, ..sightings() };
    let proven = Sightings { no_node_since: Some(AT + seconds(70)), ..dead.clone() };
    check(proven, passed(false), Ended::InstanceEnded);
    // It may be a node that names no instance, or one of two.
    check(dead, passed(false), Ended::AnsweredUnseen);
    let twins = Some(NodeDoubt::Twins { nodes: 2 });
    check(Sightings { twins, ..sightings() }, passed(true), Ended::AnsweredUnseen);
    check(sightings(), passed(true), Ended::Answered);
    // What ends in a warm pool has no node, once that is proven.
    let pooled = Sightings { node: None, pooled: true, ..sightings() };
    check(pooled.clone(), passed(true), Ended::AnsweredUnseen);
    let proven = Sightings { no_node_since: Some(AT + seconds(70)), ..pooled };
    check(proven, passed(true), Ended::Answered);
}

#[test]
fn what_ends_in_a_warm_pool_is_not_held_for_want_of_a_node() {
    let seen = Observation {
        node: Seen::Gone,
        pods: Seen::Gone,
        membership: member(LifecycleState::TerminatingWait),
        target_groups: Seen::Known(Vec::new()),
        ..untouched()
    };
    let without_node = Sightings { node: None, no_node_since: Some(AT + seconds(70)), ..sightings() };
    let answers = |sightings: Sightings| {
        words(&step_at(&job_with(hook(), sightings), &seen, 71))
            .contains(&"complete hook offramp: CONTINUE".to_owned())
    };
    assert!(!answers(without_node.clone()));
    assert!(answers(Sightings { pooled: true, ..without_node }));
}

#[test]
fn a_dead_machine_is_not_faster_than_the_balancers() {
    let mut job = job_with(hook(), sightings());
    job.memory.draining_since.insert(target_key(), AT + seconds(5));
    let target_groups =
        Seen::Known(vec![target_group(Some(TargetHealth::Draining), &[TargetHealth::Healthy])]);
    let seen = Observation { target_groups, ..ended() };
    assert_eq!(step_at(&job, &seen, 10).reason, Reason::Propagating { left: seconds(25) });
    // But the last requests are not waited for.
    assert_eq!(words(&step_at(&job, &seen, 35)), ["complete hook offramp: CONTINUE"]);
}

#[test]
fn what_no_source_has_any_more_has_ended() {
    let gone = Observation { node: Seen::Gone, membership: Seen::Gone, pods: Seen::Gone, ..ended() };
    let since = Some(AT + seconds(35));
    let sightings = Sightings { no_node_since: since, no_member_since: since, ..Sightings::default() };
    let mut job = job_with(hook(), sightings);
    assert_eq!(step_at(&job, &gone, 90).reason, Reason::GroupUndecided);
    // Nobody has answered its hook. It was open, or its timeout was over when the message came for the first time.
    assert_eq!(step_at(&job, &gone, 95).reason, Reason::Over(Ended::WasNotOpen));
    job.memory.sightings.held = true;
    assert_eq!(step_at(&job, &gone, 95).reason, Reason::Over(Ended::WithoutOurAnswer));
    job.memory.sightings.held = false;
    job.deliveries.insert(hook().id, Delivery { at: AT + seconds(300), redelivered: false });
    assert_eq!(step_at(&job, &gone, 300).reason, Reason::Over(Ended::WithoutOurAnswer));
    job.deliveries.insert(hook().id, Delivery { redelivered: true, ..DELIVERED });
    assert_eq!(step_at(&job, &gone, 95).reason, Reason::Over(Ended::InstanceEnded));
}

#[test]
fn an_instance_that_we_have_detached_is_no_member_for_that_reason() {
    let node =
        Node { record: isolated(&["spot"], true, &[]).record, excluded: true, ..silent(AT - seconds(900)) };
    let seen = Observation { node: Seen::Known(node), membership: Seen::Gone, ..ended() };
    let mut job = job([spot()]);
    assert_eq!(words(&step_at(&job, &seen, 10)), ["evict default/web"], "one reading");
    job.memory.sightings.no_member_since = Some(AT - seconds(50));
    assert_eq!(words(&step_at(&job, &seen, 10)), [""; 0]);
    job.memory.detached = true;
    assert_eq!(words(&step_at(&job, &seen, 10)), ["evict default/web"]);
}

#[test]
fn an_instance_in_no_group_whose_kubelet_works_on_is_put_back() {
    let outside = |renewed: u64| {
        let node = Node { renewed_at: AT + seconds(renewed), ..isolated(&["offramp"], false, &[]) };
        Observation { node: Seen::Known(node), membership: Seen::Gone, ..ready_to_drain(vec![pod("web")]) }
    };
    let job = job_with(hook(), Sightings { no_member_since: Some(AT + seconds(2)), ..sightings() });
    // Its status is older than the reading, or not surely younger.
    assert_eq!(step_at(&job, &outside(60), 300).reason, Reason::GroupUndecided);
    let step = step_at(&job, &outside(61), 300);
    assert_eq!(
        (words(&step), step.reason),
        (vec!["uncordon and forget".to_owned()], Reason::Returning(UndoReason::NotAMember))
    );
    // A kubelet that is not Ready proves nothing.
    let node = Node {
        ready: false,
        silent: true,
        ready_since: AT + seconds(290),
        ..outside(61).node.known().unwrap().clone()
    };
    let silent = Observation { node: Seen::Known(node), ..outside(61) };
    assert_eq!(step_at(&job, &silent, 300).reason, Reason::GroupUndecided);
}

#[test]
fn a_target_group_is_gone_after_two_readings() {
    let arn = target_key().group;
    let lost = Observation {
        target_groups: Seen::Known(vec![]),
        missing_target_groups: BTreeSet::from([arn.clone()]),
        ..ready_to_drain(vec![])
    };
    let mut job = job_with(hook(), sightings());
    assert_eq!(step_at(&job, &lost, 20).reason, Reason::TargetsUnknown);
    job.memory.missing_since.insert(arn, AT + seconds(20));
    assert_eq!(step_at(&job, &lost, 29).reason, Reason::TargetsUnknown);
    assert_eq!(words(&step_at(&job, &lost, 30)), ["complete hook offramp: CONTINUE"]);
}

#[test]
fn balancers_that_cannot_be_read_say_nothing_for_ten_minutes() {
    let unread = Observation { unread_target_groups: 1, ..ended() };
    assert_eq!(words(&step_at(&job_with(hook(), sightings()), &unread, 10)), ["evict default/web"]);
    let long = Node { ready_since: AT - seconds(600), ..silent(AT) };
    let unread = Observation { node: Seen::Known(long), ..unread };
    assert_ne!(words(&step_at(&job_with(hook(), sightings()), &unread, 10)), ["evict default/web"]);
}

/// A node of which the API server refuses every write.
fn unwritten(refused: Option<(u64, u64)>, newest: u64) -> Job {
    let mut job = job_with(hook(), sightings());
    let refused = refused.map(|(first, last)| (AT + seconds(first), AT + seconds(last)));
    job.memory.unwritten = Some(Unwritten { since: AT, newest: AT + seconds(newest), refused });
    job
}

#[test]
fn only_what_is_refused_again_and_again_cannot_be_written() {
    let goes_on =
        |job: &Job| words(&step_at(job, &untouched(), 400)).contains(&"evict default/web-1".to_owned());
    assert!(goes_on(&unwritten(Some((0, 30)), 30)));
    assert!(!goes_on(&unwritten(Some((0, 29)), 29)));
    // One refusal, and then no answers: that may pass for five minutes.
    assert!(!goes_on(&unwritten(Some((0, 0)), 299)));
    assert!(goes_on(&unwritten(None, 300)));
    // One try that failed long ago.
    assert!(!goes_on(&unwritten(None, 0)));
}

#[test]
fn a_write_that_shows_was_only_not_answered() {
    let answered = |node: Node| {
        let mut job = unwritten(None, 0);
        job.memory.hooks.insert(hook_key(), HookCalls { continued: Some(AT + seconds(50)), ..heard(40) });
        let membership = member(LifecycleState::TerminatingProceed);
        step_at(&job, &Observation { node: Seen::Known(node), membership, ..untouched() }, 60).reason
    };
    assert_eq!(answered(isolated(&["offramp"], true, &[])), Reason::Over(Ended::Answered));
    assert_eq!(answered(node()), Reason::Over(Ended::Unisolated));
}

#[test]
fn targets_that_could_not_be_recorded_are_registered_again_as_well() {
    let mut job = job_with(hook(), sightings());
    job.memory.deregistered.insert(target_key());
    let seen = Observation {
        node: Seen::Known(node()),
        membership: member(LifecycleState::InService),
        target_groups: Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]),
        ..untouched()
    };
    assert_eq!(words(&step_at(&job, &seen, 100)), ["register web:30080"]);
}
