//! Single steps along the paths, as a reader would tell them.

use std::sync::Arc;

use super::world::*;
use crate::*;

pub(super) fn step_at(job: &Job, seen: &Observation, after: u64) -> Step {
    step(job, seen, &policy(), AT + seconds(after))
}

/// Short names for what a step asks for.
pub(super) fn words(step: &Step) -> Vec<String> {
    let group = |arn: &TargetGroupArn| arn.as_str().split('/').nth(1).unwrap().to_owned();
    let place = |target: &TargetKey| format!("{}:{}", group(&target.group), target.port);
    let name = |pod: &PodRef| format!("{}/{}", pod.namespace, pod.name);
    let word = |action: &Action| match action {
        Action::Isolate { exclude: false, .. } => "cordon and record".to_owned(),
        Action::Isolate { exclude: true, .. } => "cordon, exclude and record".to_owned(),
        Action::Exclude { record, .. } if record.targets.is_empty() => "exclude".to_owned(),
        Action::Exclude { record, .. } => format!("exclude, recording {} target", record.targets.len()),
        Action::WriteRecord { .. } => "record".to_owned(),
        Action::ListPods { .. } => "list pods".to_owned(),
        Action::Deregister(target) => format!("deregister {}", place(target)),
        Action::Evict { pod, grace: None, .. } => format!("evict {}", name(pod)),
        Action::Evict { pod, grace: Some(grace), .. } => {
            format!("evict {} with {}s", name(pod), grace.as_secs())
        }
        Action::Delete { pod, grace } => format!("delete {} with {}s", name(pod), grace.as_secs()),
        Action::Heartbeat(hook) => format!("heartbeat for hook {}", hook.name),
        Action::CompleteHook(hook) => format!("complete hook {}: CONTINUE", hook.name),
        Action::Detach { group } => format!("detach from {group}"),
        Action::TerminateThroughGroup { group } => format!("terminate through {group}"),
        Action::Register(target) => format!("register {}", place(target)),
        Action::Release { .. } => "uncordon and forget".to_owned(),
    };
    step.actions.iter().map(word).collect()
}

#[test]
fn an_instance_that_auto_scaling_does_not_list_yet_is_not_given_up() {
    // It was launched, and told to go before its node joined.
    let seen =
        Observation { node: Seen::Gone, pods: Seen::Gone, membership: Seen::Gone, ..ready_to_drain(vec![]) };
    let mut job = job([hook()]);
    assert_eq!(step_at(&job, &seen, 1).reason, Reason::Unsettled);
    job.memory.sightings.no_node_since = Some(AT);
    assert_eq!(step_at(&job, &seen, 61).reason, Reason::GroupUndecided, "it was not listed in one reading");
    job.memory.sightings.no_member_since = Some(AT + seconds(1));
    assert_eq!(step_at(&job, &seen, 61).reason, Reason::Over(Ended::WasNotOpen));
}

#[test]
fn a_second_recommendation_waits_like_the_first() {
    let again = Notice { at: AT + seconds(100), ..notice("again", NoticeKind::Rebalance) };
    let node = isolated(&["rebalance", "again"], false, &[]);
    let seen = Observation { node: Seen::Known(node), ..ready_to_drain(vec![]) };
    let job = job([rebalance(), again]);
    for after in [200, 3_650] {
        let step = step_at(&job, &seen, after);
        assert_eq!((step.stage, step.actions), (Some(Stage::Complete), vec![]), "{after} s");
    }
    assert_eq!(words(&step_at(&job, &seen, 3_700)), ["uncordon and forget"]);
}

#[test]
fn a_spot_notice_that_is_served_does_not_take_a_hook_along() {
    // What Auto Scaling describes lags behind the hook's event.
    let seen = Observation { membership: member(LifecycleState::Terminating), ..ready_to_drain(vec![]) };
    let job = job([spot(), hook()]);
    let step = step_at(&job, &seen, 20);
    assert_eq!((step.stage, step.reason, step.actions), (Some(Stage::Complete), Reason::Unsettled, vec![]));
    let seen = Observation { membership: member(LifecycleState::TerminatingWait), ..seen };
    assert_eq!(words(&step_at(&job, &seen, 21)), ["complete hook offramp: CONTINUE"]);
}

#[test]
fn spot_does_everything_at_once() {
    let job = job([spot()]);
    let mut seen = Observation { membership: member(LifecycleState::InService), ..untouched() };
    assert_eq!(words(&step_at(&job, &seen, 0)), ["cordon, exclude and record"]);
    seen.node = Seen::Known(isolated(&["spot"], true, &[]));
    assert_eq!(
        words(&step_at(&job, &seen, 1)),
        [
            "exclude, recording 1 target",
            "evict default/web-1",
            "evict default/web-2",
            "terminate through workers"
        ]
    );
    // A node that cannot be written does not hold the balancers back.
    seen.node = Seen::Unknown;
    assert_eq!(words(&step_at(&job, &seen, 1)), Vec::<String>::new());
    let step = step_at(&job, &seen, 6);
    assert_eq!(words(&step), ["deregister web:30080", "terminate through workers"]);
}

#[test]
fn spot_lets_its_replacement_start_where_that_is_ours_to_say() {
    let check = |group: Group, owner: NodeOwner, state: LifecycleState, expect: Option<&str>| {
        let node = Node { owner, ..isolated(&["spot"], true, &[target_key()]) };
        let seen = Observation {
            node: Seen::Known(node),
            group: Seen::Known(group),
            membership: member(state),
            ..ready_to_drain(vec![])
        };
        let words = words(&step_at(&job([spot()]), &seen, 10));
        assert_eq!(words.first().map(String::as_str), expect);
    };
    use LifecycleState::{InService, Standby, TerminatingWait};
    use NodeOwner::{ManagedNodeGroup, SelfManaged};
    check(group(&["offramp"]), SelfManaged, InService, Some("terminate through workers"));
    check(group(&["offramp", "log-shipper"]), SelfManaged, InService, Some("terminate through workers"));
    check(group(&[]), SelfManaged, InService, Some("detach from workers"));
    check(group(&["log-shipper"]), SelfManaged, InService, None);
    check(group(&["offramp"]), ManagedNodeGroup, InService, None);
    check(Group { managed: true, ..group(&["offramp"]) }, SelfManaged, InService, None);
    check(Group { capacity_rebalancing: true, ..group(&["offramp"]) }, SelfManaged, InService, None);
    check(group(&["offramp"]), SelfManaged, TerminatingWait, None);
    check(group(&[]), SelfManaged, Standby, None);
}

#[test]
fn the_ladder_asks_then_deletes_then_cuts() {
    let refused = |again_at: u64| {
        let mut memory = Memory::default();
        let uid = PodUid::new("uid-web");
        memory.pods.insert(
            uid.clone(),
            PodAnswer { refused_by: Some(Key::Pod(uid.clone())), ..PodAnswer::default() },
        );
        memory
            .cooldowns
            .insert(Key::Pod(uid), Cooldown { times: 1, since: AT, until: AT + seconds(again_at) });
        memory
    };
    let check = |grace: u64, after: u64, memory: &Memory, expect: &[&str]| {
        let mut job = job([spot()]);
        job.memory = Memory { detached: true, ..memory.clone() };
        let seen = ready_to_drain(vec![Pod { grace: seconds(grace), ..pod("web") }]);
        assert_eq!(words(&step_at(&job, &seen, after)), expect, "grace {grace} at +{after}");
    };
    // The spot deadline is +120 s, the margin 15 s: a grace of 30 s has to begin at +75 s.
    check(30, 1, &Memory::default(), &["evict default/web"]);
    check(30, 74, &Memory::default(), &["evict default/web"]);
    check(30, 40, &refused(45), &[]);
    check(30, 46, &refused(45), &["evict default/web"]);
    check(30, 75, &refused(78), &["delete default/web with 30s"]);
    check(30, 76, &refused(78), &["delete default/web with 30s"]);
    check(30, 85, &Memory::default(), &["evict default/web with 20s"]);
    check(30, 85, &refused(88), &["delete default/web with 20s"]);
    // A grace longer than the notice: the budget is asked once, with what is left.
    check(600, 1, &Memory::default(), &["evict default/web with 104s"]);
    check(600, 1, &refused(6), &["delete default/web with 104s"]);
    check(30, 119, &refused(119), &["delete default/web with 1s"]);
}

#[test]
fn an_ending_pod_is_cut_only_where_it_would_end_too_late() {
    let check = |ends_after: u64, expect: &[&str]| {
        let ending = Pod { ends_at: Some(AT + seconds(ends_after)), ..pod("web") };
        let mut job = job([spot()]);
        job.memory.detached = true;
        assert_eq!(words(&step_at(&job, &ready_to_drain(vec![ending]), 50)), expect);
    };
    check(100, &[]);
    check(120, &[]);
    check(300, &["delete default/web with 55s"]);
}

#[test]
fn nothing_is_forced_before_a_heartbeat_is_answered() {
    let long = Pod { grace: seconds(600), ..pod("web") };
    let mut job = job([hook()]);
    let seen = ready_to_drain(vec![long]);
    assert_eq!(words(&step_at(&job, &seen, 10)), ["evict default/web", "heartbeat for hook offramp"]);
    job.memory.hooks.insert(hook_key(), heard(10));
    assert_eq!(words(&step_at(&job, &seen, 11)), ["evict default/web"]);
    // It could not be sent: the first timeout is firm.
    job.memory.hooks.clear();
    let rests = Cooldown { times: 3, since: AT, until: AT + seconds(13) };
    job.memory.cooldowns.insert(Key::Hook(hook_key()), rests);
    assert_eq!(words(&step_at(&job, &seen, 11)), ["evict default/web with 274s"]);
}

#[test]
fn a_hook_that_outlived_its_timeout_is_heard_first() {
    let job = job([hook()]);
    let seen = ready_to_drain(vec![pod("web")]);
    let step = step_at(&job, &seen, 400);
    assert_eq!(words(&step), ["evict default/web", "heartbeat for hook offramp"]);
}

#[test]
fn heartbeats_come_at_half_of_the_timeout_from_the_event() {
    let check = |known: bool, heard: Option<u64>, after: u64, expect: bool| {
        let mut job = job([hook()]);
        if let Some(heard) = heard {
            job.memory.hooks.insert(hook_key(), super::world::heard(heard));
        }
        let mut seen = ready_to_drain(vec![pod("web")]);
        if !known {
            seen.group = Seen::Unknown;
        }
        let step = step_at(&job, &seen, after);
        let sent = step.actions.contains(&Action::Heartbeat(hook_key()));
        assert_eq!(sent, expect, "known {known}, heard {heard:?}, at +{after}");
    };
    check(true, None, 149, false);
    check(true, None, 150, true);
    check(true, Some(150), 299, false);
    check(true, Some(150), 300, true);
    // The group may be on its way. The shortest timeout is over after 30 s.
    check(false, None, 14, false);
    check(false, None, 15, true);
    check(false, Some(0), 10, false);
}

#[test]
fn heartbeats_that_fail_near_the_end_are_sent_every_few_seconds() {
    let sent = |failed: u64, pause: u64, after: u64| {
        let mut job = job([hook()]);
        let cooldown =
            Cooldown { times: 4, since: AT + seconds(failed), until: AT + seconds(failed + pause) };
        job.memory.cooldowns.insert(Key::Hook(hook_key()), cooldown);
        let step = step_at(&job, &ready_to_drain(vec![pod("web")]), after);
        step.actions.contains(&Action::Heartbeat(hook_key()))
    };
    // Of 300 s there are 140 left, and then 30.
    assert!(!sent(160, 24, 183) && sent(160, 24, 184));
    assert!(!sent(266, 24, 282) && sent(266, 24, 283));
}

#[test]
fn late_notices_do_little() {
    let check = |notice: Notice, state: Seen<Membership>, after: u64, expect: &str| {
        let seen = Observation { membership: state, ..untouched() };
        let step = step_at(&job([notice]), &seen, after);
        let actions = words(&step).join(", ");
        let text = if actions.is_empty() { format!("{:?}", step.reason) } else { actions };
        assert_eq!(text, expect);
    };
    use LifecycleState::{InService, Terminating, TerminatingProceed, TerminatingWait};
    check(hook(), member(TerminatingWait), 3_000, "cordon and record, heartbeat for hook offramp");
    check(hook(), member(InService), 30, "cordon and record");
    check(hook(), member(InService), 61, "Undone(InService)");
    check(hook(), member(Terminating), 61, "GroupUndecided");
    // A late copy, of one that was served.
    check(hook(), member(TerminatingProceed), 5, "Over(WasNotOpen)");
    check(hook(), Seen::Unknown, 60, "cordon and record");
    check(hook(), Seen::Unknown, 61, "GroupUnknown");
    check(spot(), member(InService), 181, "SpotUnproven");
    check(spot(), member(InService), 241, "Undone(Stale)");
    check(rebalance(), member(InService), 30, "cordon and record");
    check(rebalance(), member(InService), 3_600, "Undone(PatienceOver)");
}

#[test]
fn rebalance_is_left_to_groups_that_act_on_it() {
    let check = |rebalance_policy, group: Seen<Group>, expect: &[&str]| {
        let policy = Policy { rebalance: rebalance_policy, ..policy() };
        let seen = Observation { group, membership: member(LifecycleState::InService), ..untouched() };
        assert_eq!(words(&step(&job([rebalance()]), &seen, &policy, AT)), expect);
    };
    use RebalancePolicy::{Automatic, Isolate, None};
    let acts = || Seen::Known(Group { capacity_rebalancing: true, ..group(&[]) });
    check(Automatic, Seen::Known(group(&[])), &["cordon and record"]);
    check(Automatic, acts(), &[]);
    check(Automatic, Seen::Gone, &["cordon and record"]);
    check(Automatic, Seen::Unknown, &[]);
    check(Isolate, acts(), &["cordon and record"]);
    check(None, Seen::Known(group(&[])), &[]);
}

/// Seed 660: it had served, so that nothing said that it had ended, and was waited for to the end of its patience.
#[test]
fn a_recommendation_is_over_when_the_instance_goes() {
    let at = |state: Seen<Membership>| {
        let node = Seen::Known(isolated(&["rebalance"], false, &[]));
        let seen = Observation { node, membership: state, ..ready_to_drain(vec![]) };
        step_at(&job([rebalance()]), &seen, 100).reason
    };
    assert_eq!(at(member(LifecycleState::TerminatingProceed)), Reason::Over(Ended::InstanceEnded));
    // Its hook is to come.
    assert!(matches!(at(member(LifecycleState::Terminating)), Reason::AwaitingInterruption { .. }));
    let mut job = job([rebalance()]);
    job.memory.sightings = Sightings {
        no_node_since: Some(AT + seconds(10)),
        no_member_since: Some(AT + seconds(20)),
        served: [target_key()].into(),
        ..Sightings::default()
    };
    let gone = Observation { node: Seen::Gone, membership: Seen::Gone, ..ready_to_drain(vec![]) };
    assert!(matches!(step_at(&job, &gone, 79).reason, Reason::AwaitingInterruption { .. }));
    assert_eq!(step_at(&job, &gone, 80).reason, Reason::Over(Ended::InstanceEnded));
}

#[test]
fn tiers_leave_in_order_and_local_pods_after_the_traffic() {
    let pods = || {
        vec![
            Pod { local_traffic: true, ..pod("local") },
            Pod { let_finish: true, ..pod("batch") },
            Pod { cluster_critical: true, ..pod("dns") },
            Pod { mirror: true, ..pod("static") },
            Pod { finished: true, ..pod("done") },
            Pod { daemon_set: Some("cni".to_owned()), node_critical: true, ..pod("cni") },
            pod("web"),
        ]
    };
    let busy = |pods| Observation {
        target_groups: Seen::Known(vec![target_group(
            Some(TargetHealth::Draining),
            &[TargetHealth::Healthy],
        )]),
        ..ready_to_drain(pods)
    };
    let job = job([hook()]);
    assert_eq!(words(&step_at(&job, &busy(pods()), 6)), ["evict default/web"]);
    assert_eq!(
        words(&step_at(&job, &ready_to_drain(pods()), 6)),
        ["evict default/local", "evict default/web"]
    );
    let critical = vec![Pod { cluster_critical: true, ..pod("dns") }];
    assert_eq!(words(&step_at(&job, &ready_to_drain(critical), 6)), ["evict default/dns"]);
}

#[test]
fn an_ingress_daemon_set_goes_last() {
    let named = IngressDaemonSet { namespace: "default".to_owned(), name: "ingress".to_owned() };
    let policy = Policy { ingress_daemon_sets: [named].into(), ..policy() };
    let ingress = Pod { daemon_set: Some("ingress".to_owned()), ..pod("ingress-1") };
    let check = |pods: Vec<Pod>, expect: &[&str]| {
        let step = step(&job([hook()]), &ready_to_drain(pods), &policy, AT + seconds(6));
        assert_eq!(words(&step)[..expect.len()], *expect);
    };
    check(vec![ingress.clone(), pod("web")], &["evict default/web"]);
    check(vec![ingress], &["evict default/ingress-1"]);
}

#[test]
fn the_gate_lets_one_of_two_go() {
    let leaving = |since: u64| {
        let mut group = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
        Arc::make_mut(&mut group.targets)[1].set_aside = true;
        Arc::make_mut(&mut group.targets)[1].leaving_since = Some(AT + seconds(since));
        let mut node = isolated(&["offramp"], false, &[]);
        node.record.as_mut().unwrap().since = AT + seconds(5);
        Observation {
            node: Seen::Known(node),
            pods: Seen::Known(vec![]),
            target_groups: Seen::Known(vec![group]),
            ..untouched()
        }
    };
    let mut job = job([hook()]);
    job.memory.sightings.closed_at = Some(AT + seconds(17));
    let check = |other_since: u64, after: u64, expect: &[&str]| {
        assert_eq!(words(&step_at(&job, &leaving(other_since), after)), expect);
    };
    // We are first: the other one waits for us, as far as it has seen us. The other is first, or as early with a smaller id.
    check(9, 31, &[]);
    check(9, 32, &["exclude, recording 1 target"]);
    check(3, 32, &[]);
    // The limit counts from when this one was taken up.
    check(3, 604, &["heartbeat for hook offramp"]);
    check(3, 605, &["exclude, recording 1 target", "heartbeat for hook offramp"]);
    check(5, 32, &["exclude, recording 1 target"]);
}

/// Its record is there, and somebody takes the cordon off each time.
#[test]
fn a_node_that_stays_open_has_its_turn_at_the_gate() {
    let mut group = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
    Arc::make_mut(&mut group.targets)[1].leaving_since = Some(AT + seconds(100));
    let node = Seen::Known(Node { cordoned: false, ..isolated(&["offramp"], false, &[]) });
    let seen = Observation {
        node,
        pods: Seen::Known(vec![]),
        target_groups: Seen::Known(vec![group]),
        ..untouched()
    };
    let mut job = job([hook()]);
    job.memory.isolation_tried = Some(AT);
    job.memory.sightings.open_since = Some(AT);
    let often = Cooldown { times: 3, ..Cooldown::default() };
    job.memory.cooldowns.insert(Key::Reopened, often);
    assert!(words(&step_at(&job, &seen, 301)).contains(&"deregister web:30080".to_owned()));
}

/// aws-secure-environment-accelerator#772: none is healthy, and the balancer sends to all that are registered.
#[test]
fn the_last_target_of_a_group_that_fails_open_is_held_back() {
    let closed = |fails_open: bool, other: TargetHealth| {
        let group = target_group(Some(TargetHealth::Unhealthy), &[other]);
        let groups = Seen::Known(vec![TargetGroup { fails_open, ..group }]);
        let node = Seen::Known(isolated(&["offramp"], false, &[]));
        let seen = Observation { node, target_groups: groups, ..ready_to_drain(vec![]) };
        matches!(step_at(&job([hook()]), &seen, 10).reason, Reason::GateClosed { .. })
    };
    assert!(closed(true, TargetHealth::Draining));
    assert!(!closed(true, TargetHealth::Unhealthy), "the other one serves, too");
    assert!(!closed(false, TargetHealth::Draining), "it has nothing to lose");
}

#[test]
fn an_old_notice_is_not_called_undone_while_the_node_is_unknown() {
    let mut job = job([hook()]);
    job.deliveries.insert(hook().id, Delivery { at: AT + seconds(3 * 3_600), redelivered: false });
    let seen =
        Observation { node: Seen::Unknown, membership: member(LifecycleState::InService), ..untouched() };
    assert!(step_at(&job, &seen, 3 * 3_600 + 61).stage.is_some());
}

#[test]
fn a_zone_without_cross_zone_stands_alone() {
    let mut group = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
    Arc::make_mut(&mut group.targets)[1].zone = Some(Zone::new("eu-west-1b"));
    let seen = |group: TargetGroup| Observation {
        node: Seen::Known(isolated(&["offramp"], false, &[])),
        pods: Seen::Known(vec![]),
        target_groups: Seen::Known(vec![group]),
        ..untouched()
    };
    assert_eq!(words(&step_at(&job([hook()]), &seen(group.clone()), 6)), ["exclude, recording 1 target"]);
    group.cross_zone = false;
    let step = step_at(&job([hook()]), &seen(group), 6);
    assert!(matches!(step.reason, Reason::GateClosed { .. }), "{step:?}");
}

#[test]
fn the_deadline_answers_with_what_is_left() {
    let mut job = job([hook()]);
    job.memory.hooks.insert(hook_key(), heard(3_500));
    let stuck = Pod { ends_at: Some(AT + seconds(500)), ..pod("stuck") };
    let seen = ready_to_drain(vec![stuck]);
    assert!(!words(&step_at(&job, &seen, 3_584)).iter().any(|action| action.starts_with("complete")));
    let step = step_at(&job, &seen, 3_585);
    assert_eq!(words(&step), ["complete hook offramp: CONTINUE"]);
    assert_eq!(
        step.reason,
        Reason::DeadlineReached(Remainder { pods: 1, targets: 0, ..Remainder::default() })
    );
    assert_eq!(step.remainder, Some(Remainder { pods: 1, targets: 0, ..Remainder::default() }));
    assert_eq!(step_at(&job, &seen, 3_584).remainder, None);
}

/// After the end of a spot notice nobody can look: its pods may be gone with their machine, and its node be Ready still.
#[test]
fn what_is_left_of_a_spot_instance_is_what_was_there_before_its_end() {
    let job = job([spot()]);
    let seen = ready_to_drain(vec![pod("web")]);
    assert_eq!(
        step_at(&job, &seen, 119).remainder,
        Some(Remainder { pods: 1, targets: 0, ..Remainder::default() })
    );
    assert_eq!(step_at(&job, &ready_to_drain(vec![]), 119).remainder, Some(Remainder::default()));
    assert_eq!(step_at(&job, &ready_to_drain(vec![]), 120).remainder, None);
}

/// What was read of a target may be older than our call that took it out.
#[test]
fn a_target_that_we_have_just_taken_out_is_not_left() {
    let mut job = job([spot()]);
    let groups = vec![target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy])];
    let seen = Observation { target_groups: Seen::Known(groups), ..ready_to_drain(vec![]) };
    let left = |job: &Job| step_at(job, &seen, 119).remainder.map(|remainder| remainder.targets);
    assert_eq!(left(&job), Some(1));
    job.memory.draining_since.insert(target_key(), AT + seconds(118));
    assert_eq!(left(&job), Some(0));
}

#[test]
fn what_the_record_names_is_undone_targets_first() {
    let mut seen = Observation {
        node: Seen::Known(isolated(&["offramp"], true, &[target_key()])),
        membership: member(LifecycleState::InService),
        target_groups: Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]),
        ..untouched()
    };
    let job = job([hook()]);
    let step = step_at(&job, &seen, 100);
    assert_eq!(words(&step), ["register web:30080"]);
    seen.target_groups =
        Seen::Known(vec![target_group(Some(TargetHealth::Initial), &[TargetHealth::Healthy])]);
    assert_eq!(words(&step_at(&job, &seen, 101)), ["uncordon and forget"]);
    seen.node = Seen::Known(node());
    assert_eq!(step_at(&job, &seen, 102).stage, None);
}

/// Its cordon goes at once, and what would send to it waits until it serves.
#[test]
fn a_node_that_does_not_serve_is_uncordoned_and_not_registered() {
    let not_ready = |node: Node| Node { ready: false, ..node };
    let tainted = |node: Node| Node { unready_for_pods: true, ..node };
    for does_not_serve in [not_ready, tainted] {
        let seen = |targets: &[TargetKey]| Observation {
            node: Seen::Known(does_not_serve(isolated(&["offramp"], true, targets))),
            membership: member(LifecycleState::InService),
            target_groups: Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]),
            ..untouched()
        };
        let job = job([hook()]);
        let step = step_at(&job, &seen(&[target_key()]), 100);
        assert_eq!((words(&step).len(), step.stage), (0, Some(Stage::Register)), "{step:?}");
        assert_eq!(words(&step_at(&job, &seen(&[]), 100)), ["uncordon and forget"]);
    }
}

/// Its targets have left before: they are not told once more.
#[test]
fn a_node_that_is_labelled_anew_deregisters_nothing() {
    let mut node = isolated(&["offramp"], true, &[target_key()]);
    node.excluded = false;
    let group = target_group(Some(TargetHealth::Draining), &[TargetHealth::Healthy; 2]);
    let target_groups = Seen::Known(vec![group]);
    let seen = Observation { node: Seen::Known(node), target_groups, ..ready_to_drain(vec![]) };
    let step = step_at(&job([hook()]), &seen, 6);
    assert_eq!(step.reason, Reason::Deregistering { targets: 0, unlabelled: false }, "{step:?}");
}

#[test]
fn hibernation_leaves_the_pods_alone() {
    let job = job([notice("spot", NoticeKind::Spot(SpotAction::Hibernate))]);
    let seen = Observation { node: Seen::Known(isolated(&["spot"], true, &[])), ..untouched() };
    assert_eq!(words(&step_at(&job, &seen, 1)), ["exclude, recording 1 target"]);
}

#[test]
fn a_removal_that_nobody_confirms_does_not_get_past_its_first_stage() {
    // A worker that was started anew, while Auto Scaling cannot be read: the hook may run out, and somebody has to
    // learn of it, also where the node is cordoned already. Once it has gone there is nothing left to isolate.
    let job = job([hook()]);
    let unread = |node| Observation { node, membership: Seen::Unknown, group: Seen::Unknown, ..untouched() };
    let stage = |node| step_at(&job, &unread(node), 100).stage;
    assert_eq!(stage(untouched().node), Some(Stage::Isolate));
    assert_eq!(stage(Seen::Known(isolated(&["offramp"], true, &[]))), Some(Stage::Isolate));
    assert_eq!(stage(Seen::Gone), Some(Stage::Complete));
}

#[test]
fn a_return_that_cannot_register_comes_to_an_end() {
    let seen = Observation {
        node: Seen::Known(isolated(&["offramp"], true, &[target_key()])),
        membership: member(LifecycleState::InService),
        target_groups: Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]),
        ..untouched()
    };
    let mut job = job([hook()]);
    // A hook may have held it for a day.
    assert_eq!(words(&step_at(&job, &seen, 24 * 3600)), ["register web:30080"]);
    job.memory.returning_since = Some(AT + seconds(100));
    let at = |hours: u64, less: u64| step_at(&job, &seen, 100 + hours * 3600 - less);
    assert_eq!(words(&at(2, 1)), ["register web:30080"]);
    assert_eq!(words(&at(2, 0)), ["uncordon and forget"]);
    // So does one whose record cannot be taken away.
    assert_eq!(words(&at(3, 1)), ["uncordon and forget"]);
    assert_eq!((at(3, 0).stage, at(3, 0).reason), (None, Reason::NotUndone));
}

#[test]
fn a_stopped_instance_gets_its_node_back_as_it_was() {
    for action in [SpotAction::Stop, SpotAction::Hibernate] {
        let job = job([notice("spot", NoticeKind::Spot(action))]);
        let at = |ready, after| {
            let node = Node {
                ready,
                silent: !ready,
                ready_since: AT + seconds(130),
                ..isolated(&["spot"], true, &[])
            };
            let groups = Seen::Known(vec![target_group(None, &[])]);
            let seen = Observation {
                node: Seen::Known(node),
                membership: Seen::Gone,
                group: Seen::Gone,
                target_groups: groups,
                ..ready_to_drain(vec![])
            };
            step_at(&job, &seen, after)
        };
        assert_eq!(
            (at(true, 30).stage, at(true, 30).reason),
            (Some(Stage::Complete), Reason::AwaitingReturn)
        );
        assert_eq!(at(false, 600).reason, Reason::AwaitingReturn);
        assert_eq!(words(&at(true, 700)), ["uncordon and forget"]);
        assert_eq!(at(false, 3601).stage, None, "patience is over");
    }
}

#[test]
fn a_record_that_cannot_be_read_holds_nothing_up_and_is_never_undone() {
    let foreign = |excluded| Node { record: Some(foreign_record()), ..isolated(&[], excluded, &[]) };
    let seen = |node| Observation { node: Seen::Known(node), ..ready_to_drain(vec![pod("web")]) };
    for notice in [hook(), spot()] {
        let job = job([notice]);
        let open = Node { cordoned: false, ..foreign(false) };
        let isolate = step_at(&job, &seen(open), 1).actions.remove(0);
        let Action::Isolate { record, .. } = isolate else { panic!("{isolate:?}") };
        assert!(record.foreign.is_some(), "so that the adapter knows");
        // Cordon and label are there: the drain goes on as if the record named this job.
        assert_eq!(words(&step_at(&job, &seen(foreign(true)), 6)), ["evict default/web"]);
    }
    // Nothing says which changes are ours to take back.
    let reprieved = Observation { membership: member(LifecycleState::InService), ..seen(foreign(true)) };
    let step = step_at(&job([hook()]), &reprieved, 61);
    assert_eq!((step.stage, words(&step)), (None, vec![]));
}

#[test]
fn the_gate_counts_from_the_hook_and_not_from_an_older_notice() {
    let mut older = rebalance();
    older.at = AT - seconds(900);
    let seen = Observation {
        node: Seen::Known(isolated(&["offramp", "rebalance"], false, &[])),
        pods: Seen::Known(vec![]),
        target_groups: Seen::Known(vec![target_group(Some(TargetHealth::Healthy), &[])]),
        ..untouched()
    };
    let step = step_at(&job([older, hook()]), &seen, 6);
    assert!(matches!(step.reason, Reason::GateClosed { .. }), "{step:?}");
}

#[test]
fn the_last_notice_out_of_a_record_undoes_it() {
    let seen = |ids: &[&str]| Observation {
        node: Seen::Known(isolated(ids, false, &[])),
        membership: member(LifecycleState::InService),
        ..untouched()
    };
    let ours = job([hook()]);
    let step = step_at(&ours, &seen(&["offramp", "of another worker"]), 100);
    let [Action::WriteRecord { record, .. }] = &step.actions[..] else { panic!("{step:?}") };
    assert_eq!(record.entries.keys().collect::<Vec<_>>(), [&claimant_of("of another worker")]);
    assert_eq!(step_at(&ours, &seen(&["of another worker"]), 101).stage, None);
    assert_eq!(words(&step_at(&ours, &seen(&["offramp"]), 101)), ["uncordon and forget"]);
}

#[test]
fn a_target_group_that_could_not_be_read_shuts_the_gate_for_the_label() {
    let healthy = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
    let seen = |node: Node| Observation {
        node: Seen::Known(node),
        target_groups: Seen::Known(vec![healthy.clone()]),
        unread_target_groups: 1,
        ..untouched()
    };
    let cordoned = isolated(&["offramp"], false, &[]);
    let labels = |step: Step| step.actions.iter().any(|action| matches!(action, Action::Exclude { .. }));
    assert!(!labels(step_at(&job([hook()]), &seen(cordoned.clone()), 6)));
    let read = Observation { unread_target_groups: 0, ..seen(cordoned.clone()) };
    assert!(labels(step_at(&job([hook()]), &read, 6)));
    // Nobody waits for it for ever.
    let limit = policy().gate_limit.as_secs();
    let mut job = job([hook()]);
    job.memory.hooks.insert(hook_key(), heard(limit - 10));
    assert!(labels(step_at(&job, &seen(cordoned), limit + 1)));
}

#[test]
fn an_unread_target_group_holds_the_end_back_and_nothing_else() {
    let healthy = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
    let mut seen = Observation {
        node: Seen::Known(isolated(&["offramp"], true, &[target_key()])),
        pods: Seen::Known(vec![]),
        target_groups: Seen::Known(vec![healthy]),
        unread_target_groups: 1,
        ..untouched()
    };
    assert_eq!(words(&step_at(&job([hook()]), &seen, 6)), ["deregister web:30080"]);
    seen.target_groups = Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]);
    let step = step_at(&job([hook()]), &seen, 6);
    assert_eq!((step.stage, step.reason), (Some(Stage::Deregister), Reason::TargetsUnknown));
}
