//! What was changed in the decision on purpose (`make mutants`, `make mutations`), and no other test noticed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::paths::{step_at, words};
use super::world::*;
use crate::*;

#[test]
fn a_record_names_each_trigger_and_when_it_has_no_claim_any_more() {
    let policy = Policy { patience: seconds(1_800), hook_limit: seconds(3_600), ..policy() };
    let check = |kind: NoticeKind, membership: LifecycleState, lasts: u64| {
        let notice = notice("a notice", kind);
        let (trigger, is_hook) = (Trigger::of(&notice.kind), notice.hook().is_some());
        let seen = Observation { membership: member(membership), ..untouched() };
        let step = step(&job([notice]), &seen, &policy, AT + seconds(10));
        let [Action::Isolate { record, .. }] = &step.actions[..] else { panic!("{trigger:?}: {step:?}") };
        let entries: Vec<_> = record.entries.iter().collect();
        let [(claimant, entry)] = entries[..] else { panic!("{record:?}") };
        assert_eq!((entry.at, entry.end), (AT, AT + seconds(lasts)), "{trigger:?}");
        let by_trigger = claimant.cause == Cause::Trigger(trigger);
        assert!(if is_hook { !by_trigger } else { by_trigger }, "{claimant:?}");
    };
    use LifecycleState::{InService, TerminatingWait};
    check(hook().kind, TerminatingWait, 3_600);
    check(spot().kind, InService, 1_800);
    check(NoticeKind::CapacityReservation, InService, 1_800);
    check(rebalance().kind, InService, 1_800);
    assert_eq!(Trigger::of(&NoticeKind::CapacityReservation), Trigger::CapacityReservation);
}

// === Spot

fn of_spot(action: SpotAction) -> Job {
    job([notice("spot", NoticeKind::Spot(action))])
}

fn in_service(node: Seen<Node>) -> Observation {
    let membership = member(LifecycleState::InService);
    Observation { node, membership, ..ready_to_drain(vec![pod("web")]) }
}

#[test]
fn an_instance_that_hibernates_keeps_its_pods_its_label_and_its_place() {
    let job = of_spot(SpotAction::Hibernate);
    let seen = Observation { membership: member(LifecycleState::InService), ..untouched() };
    assert_eq!(words(&step_at(&job, &seen, 1)), ["cordon and record"]);
    let isolated = in_service(Seen::Known(isolated(&["spot"], true, &[target_key()])));
    let step = step_at(&job, &isolated, 10);
    assert_eq!((words(&step), step.reason, step.deadline), (vec![], Reason::AwaitingReturn, None));
    assert_eq!(step.read_by, Some(AT + seconds(20)), "the group may say that it is back");
}

#[test]
fn a_stopped_instance_is_waited_for_as_long_as_the_patience() {
    let silent =
        Node { ready: false, silent: true, ready_since: AT + seconds(130), ..isolated(&["spot"], true, &[]) };
    let reason =
        |after: u64| step_at(&of_spot(SpotAction::Stop), &in_service(Seen::Known(silent.clone())), after);
    assert_eq!(reason(3_599).reason, Reason::AwaitingReturn);
    assert_ne!(reason(3_600).reason, Reason::AwaitingReturn);
}

#[test]
fn what_nobody_can_say_of_a_node_ends_a_spot_notice_in_its_own_way() {
    let doubted = |doubt| Observation { doubt, pods: Seen::Unknown, ..in_service(Seen::Unknown) };
    let reason = |doubt, after: u64| step_at(&job([spot()]), &doubted(doubt), after).reason;
    let (twins, unidentified) = (NodeDoubt::Twins { nodes: 2 }, NodeDoubt::Unidentified { nodes: 1 });
    assert_eq!(reason(Some(twins), 181), Reason::Over(Ended::Twins));
    assert_eq!(reason(Some(unidentified), 181), Reason::NodeInDoubt(unidentified));
    assert_eq!(reason(None, 3_599), Reason::NodeUnknown);
    assert_eq!(reason(None, 3_600), Reason::NodeUnknown);
    // The hook of the same instance is over: that ends no claim of the spot notice.
    let proceeds = Observation { membership: member(LifecycleState::TerminatingProceed), ..doubted(None) };
    let waits = |after: u64| step_at(&job([spot(), hook()]), &proceeds, after).stage.is_some();
    assert!(waits(3_599) && !waits(3_600));
    assert_eq!(reason(None, 7_200), Reason::Undone(UndoReason::PatienceOver));
}

/// A kubelet that works on, and says that something is wrong with its node, is waited for.
#[test]
fn a_node_that_is_not_ready_and_not_silent_was_not_taken_back_yet() {
    let node = |ready: bool| Node { ready, silent: false, ..isolated(&["spot"], true, &[]) };
    let reason = |ready: bool, patience: u64, after: u64| {
        let policy = Policy { patience: seconds(patience), ..policy() };
        step(&job([spot()]), &in_service(Seen::Known(node(ready))), &policy, AT + seconds(after)).reason
    };
    assert_eq!(reason(false, 3_600, 3_599), Reason::SpotUnproven);
    assert_eq!(reason(false, 3_600, 3_600), Reason::WritingEnds);
    // One that is Ready still has its minute, however short the patience is.
    assert_eq!(reason(true, 100, 181), Reason::SpotUnproven);
}

/// A node that is Ready proves a minute later that its kubelet lives, and one whose status is newer at once.
#[test]
fn a_spot_notice_is_stale_a_minute_after_its_end() {
    let seen = in_service(Seen::Known(isolated(&["spot"], true, &[target_key()])));
    assert_eq!(step_at(&job([spot()]), &seen, 180).goal, Goal::Leave);
    assert_eq!(step_at(&job([spot()]), &seen, 181).reason, Reason::SpotUnproven);
    assert_eq!(step_at(&job([spot()]), &seen, 240).reason, Reason::SpotUnproven);
    assert_eq!(step_at(&job([spot()]), &seen, 241).goal, Goal::Return);
    let renewed =
        |after| Node { renewed_at: AT + seconds(after), ..isolated(&["spot"], true, &[target_key()]) };
    let at = |after| step_at(&job([spot()]), &in_service(Seen::Known(renewed(after))), 181).goal;
    assert_eq!((at(179), at(180)), (Goal::Leave, Goal::Return));
}

/// The kubelet holds the shutdown up for so long: pods have that much more.
#[test]
fn pods_of_a_spot_instance_have_the_grace_of_its_shutdown() {
    let policy = Policy { node_shutdown_grace: seconds(30), ..policy() };
    let seen = in_service(Seen::Known(isolated(&["spot"], true, &[target_key()])));
    let evicts = |after: u64| {
        let step = step(&job([spot()]), &seen, &policy, AT + seconds(after));
        words(&step).contains(&"evict default/web".to_owned())
    };
    // 120 s and 30 s, less the margin and the grace of the pod.
    assert!(evicts(104) && !evicts(105));
}

// === A record that nobody looks after

#[test]
fn a_record_that_is_gone_says_whether_we_took_it_away() {
    let seen = Observation { membership: member(LifecycleState::InService), ..untouched() };
    let mut job = job([notice("record", NoticeKind::Record)]);
    assert_eq!(step_at(&job, &seen, 10).reason, Reason::Undone(UndoReason::LookedAfter));
    // Whatever the group says.
    let unread = Observation { membership: Seen::Unknown, ..seen.clone() };
    assert_eq!(step_at(&job, &unread, 10).reason, Reason::Undone(UndoReason::LookedAfter));
    job.memory.node_write = Some(NodeWrite { over: "6".to_owned(), at: AT + seconds(5), has_to_last: false });
    assert_eq!(step_at(&job, &seen, 10).reason, Reason::Undone(UndoReason::Overdue));
}

#[test]
fn a_record_whose_claim_lasts_is_left_to_its_job() {
    let seen = in_service(Seen::Known(isolated(&["spot"], true, &[])));
    let step = step_at(&job([notice("record", NoticeKind::Record)]), &seen, 10);
    let expect = Reason::Withdrawn { why: UndoReason::LookedAfter, claims: 1 };
    assert_eq!((step.reason, step.actions), (expect, vec![]));
}

#[test]
fn a_record_in_which_every_claim_of_others_has_ended_is_held_by_nobody() {
    let mut node = isolated(&["spot"], true, &[]);
    let end = EntryEnd { outcome: Ended::LeftIsolated, state: None, at: AT + seconds(5) };
    let entries = &mut node.record.as_mut().unwrap().entries;
    entries.values_mut().for_each(|entry| entry.ended = Some(end.clone()));
    let step = step_at(&job([rebalance()]), &in_service(Seen::Known(node)), 7_200);
    assert_eq!(step.reason, Reason::Undone(UndoReason::PatienceOver));
}

#[test]
fn each_goal_has_its_own_stages() {
    assert_eq!(Goal::Leave.stages().first(), Some(&Stage::Isolate));
    assert_eq!(Goal::Return.stages(), [Stage::Register, Stage::Release]);
}

/// What a message older than a minute may be entitled to changes at that moment.
#[test]
fn a_minute_after_its_event_a_notice_is_looked_at_again() {
    let policy = Policy { recheck: seconds(300), ..policy() };
    let seen = in_service(Seen::Known(isolated(&["rebalance"], false, &[])));
    let wake_at = |after: u64| step(&job([rebalance()]), &seen, &policy, AT + seconds(after)).wake_at;
    assert_eq!(wake_at(10), AT + seconds(60) + Duration::from_millis(1));
    assert!(wake_at(60) > AT + seconds(61), "once");
}

#[test]
fn an_instance_that_ends_on_a_node_that_took_no_cordon_was_not_isolated() {
    let mut job = job([spot()]);
    job.memory.unwritten = Some(Unwritten { since: AT, newest: AT + seconds(20), refused: None });
    let silent = Node { ready: false, silent: true, ready_since: AT + seconds(130), ..node() };
    let seen = in_service(Seen::Known(silent));
    assert_eq!(step_at(&job, &seen, 300).reason, Reason::Over(Ended::Unisolated));
}

#[test]
fn a_write_that_no_watch_shows_holds_an_end_up_for_a_minute() {
    let mut job = job([notice("record", NoticeKind::Record)]);
    job.memory.node_write = Some(NodeWrite { over: "7".to_owned(), at: AT, has_to_last: false });
    let seen = Observation { membership: member(LifecycleState::InService), ..untouched() };
    assert_eq!(step_at(&job, &seen, 59).reason, Reason::WriteUnseen);
    assert_ne!(step_at(&job, &seen, 60).reason, Reason::WriteUnseen);
}

// === A hook

/// By then a group has shown its new state: before that a refusal may be about the same moment as the 200.
#[test]
fn beside_other_hooks_a_refusal_counts_ten_seconds_after_the_200() {
    let seen = Observation { group: Seen::Known(group(&["offramp", "ship-logs"])), ..ready_to_drain(vec![]) };
    let refused = |after: u64| {
        let mut job = job([hook()]);
        let (continued, refused) = (Some(AT + seconds(10)), Some(AT + seconds(after)));
        job.memory.hooks.insert(hook_key(), HookCalls { continued, refused, ..heard(5) });
        step_at(&job, &seen, 25).reason
    };
    assert_eq!(refused(19), Reason::Confirming);
    assert_eq!(refused(20), Reason::WritingEnds);
}

/// Two replicas that leave at once agree by their records: the last healthy target stays.
#[test]
fn the_gate_counts_on_a_target_that_leaves_later() {
    let leaving = |since: Timestamp| {
        let mut group = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
        Arc::make_mut(&mut group.targets)[1].leaving_since = Some(since);
        let node = Seen::Known(isolated(&["offramp"], false, &[]));
        let seen = Observation { node, target_groups: Seen::Known(vec![group]), ..untouched() };
        let mut job = job([hook()]);
        job.memory.sightings.closed_at = Some(AT);
        step_at(&job, &seen, 15).reason
    };
    assert!(matches!(leaving(AT - seconds(1)), Reason::GateClosed { .. }));
    assert!(!matches!(leaving(AT + seconds(1)), Reason::GateClosed { .. }));
}

#[test]
fn a_target_that_leaves_is_not_deregistered_again() {
    let group = target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy]);
    let node = Seen::Known(isolated(&["offramp"], true, &[target_key()]));
    let seen = Observation { node, target_groups: Seen::Known(vec![group]), ..untouched() };
    let mut job = job([hook()]);
    let deregisters =
        |job: &Job| words(&step_at(job, &seen, 10)).contains(&"deregister web:30080".to_owned());
    assert!(deregisters(&job));
    job.memory.draining_since.insert(target_key(), AT + seconds(5));
    job.memory.deregistered = BTreeSet::from([target_key()]);
    assert!(!deregisters(&job));
}

#[test]
fn a_hook_that_was_never_confirmed_is_waited_for_as_long_as_it_can_be_open() {
    let reason = |job: &Job, membership: Seen<Membership>, after: u64| {
        step_at(job, &Observation { membership, ..untouched() }, after).reason
    };
    let left = Reason::Over(Ended::LeftIsolated);
    let unread = job([hook()]);
    assert_eq!(reason(&unread, Seen::Unknown, 48 * 3_600 - 1), Reason::GroupUnknown);
    assert_eq!(reason(&unread, Seen::Unknown, 48 * 3_600), left);
    // Heard of two hours after the event, and listed no more: 300 s of the hook, and 30 s.
    let mut confirmed = job([hook()]);
    confirmed.memory.last_state = Some(LifecycleState::TerminatingWait);
    confirmed.memory.hooks.insert(hook_key(), heard(7_200));
    assert_eq!(reason(&confirmed, Seen::Gone, 7_529), Reason::GroupUndecided);
    assert_eq!(reason(&confirmed, Seen::Gone, 7_530), left);
    assert_ne!(reason(&confirmed, Seen::Unknown, 48 * 3_600 - 1), left);
    assert_eq!(reason(&confirmed, Seen::Unknown, 48 * 3_600), left);
}

/// It was heard of: its end is firm, and what does not go by then is cut short.
#[test]
fn a_hook_that_was_heard_of_has_a_firm_end() {
    let evicts = |calls: HookCalls, after: u64| {
        words(&step_at(&called(calls, 0), &ready_to_drain(vec![pod("web")]), after)).remove(0)
    };
    assert_eq!(evicts(heard(3_400), 3_500), "evict default/web");
    assert_eq!(evicts(heard(3_400), 3_570), "evict default/web with 15s");
}

/// A hook is not counted on any more after three refusals in a row: until then the first of two ends counts.
#[test]
fn one_refusal_does_not_take_a_hook_out_of_the_deadline() {
    let deadline = |failed: u32| {
        let mut job = called(HookCalls { refused: Some(AT + seconds(100)), ..HookCalls::default() }, failed);
        let others = hook_of("other-hook", Passage::Ending);
        job.memory.hooks.insert(others.hook().unwrap().key.clone(), heard(50));
        job.join(others, DELIVERED);
        let mut group = group(&["offramp", "other-hook"]);
        group.terminate_hooks[0].global_timeout = seconds(1_000);
        let seen = Observation { group: Seen::Known(group), ..ready_to_drain(vec![pod("web")]) };
        let hook_names = ["offramp", "other-hook"].map(HookName::new).into();
        step(&job, &seen, &Policy { hook_names, ..policy() }, AT + seconds(110)).deadline
    };
    assert_eq!(deadline(1), Some(AT + seconds(985)));
    assert_eq!(deadline(3), Some(AT + seconds(3_585)));
}

/// Only what the group holds has an end to meet.
#[test]
fn a_heartbeat_that_is_refused_hurries_while_the_group_holds_the_instance() {
    let calls = |last_state: Option<LifecycleState>, after: u64| {
        let refused = Some(AT + seconds(200));
        let mut job = called(HookCalls { refused, refusals: 3, ..HookCalls::default() }, 3);
        let cooldown = Cooldown { times: 3, since: AT + seconds(200), until: AT + seconds(290) };
        job.memory.cooldowns.insert(Key::Hook(hook_key()), cooldown);
        job.memory.last_state = last_state;
        let seen = Observation { membership: Seen::Unknown, ..ready_to_drain(vec![pod("web")]) };
        words(&step_at(&job, &seen, after)).contains(&"heartbeat for hook offramp".to_owned())
    };
    // Half of the 100 s that are left.
    let held = Some(LifecycleState::TerminatingWait);
    assert!(!calls(held.clone(), 249) && calls(held, 250));
    assert!(!calls(None, 289) && calls(None, 290));
}

#[test]
fn a_root_volume_is_new_when_kubelet_and_group_say_so() {
    let Notice { kind: NoticeKind::Hook(of_volume), .. } = hook_of("offramp", Passage::RootVolume) else {
        unreachable!()
    };
    let mut job = job([hook_of("offramp", Passage::RootVolume)]);
    job.memory.hooks.insert(of_volume.key, HookCalls { continued: Some(AT + seconds(6)), ..heard(5) });
    let step = |node: Seen<Node>, membership: Seen<Membership>, after: u64| {
        step_at(&job, &Observation { node, membership, ..ready_to_drain(vec![]) }, after)
    };
    let ready = || Seen::Known(isolated(&["offramp"], true, &[]));
    let silent = Seen::Known(Node { ready: false, ..isolated(&["offramp"], true, &[]) });
    let rebooting = || member(LifecycleState::Other("ReplacingRootVolume".to_owned()));
    let in_service = || member(LifecycleState::InService);
    assert_eq!(step(ready(), in_service(), 200).goal, Goal::Return);
    for (node, membership) in [(ready(), rebooting()), (silent, in_service()), (Seen::Gone, in_service())] {
        assert_eq!(step(node, membership, 200).reason, Reason::AwaitingReturn);
    }
    assert_eq!(step(Seen::Gone, Seen::Gone, 200).reason, Reason::Over(Ended::Answered));
    assert_eq!(step(ready(), rebooting(), 3_599).reason, Reason::AwaitingReturn);
    assert_ne!(step(ready(), rebooting(), 3_600).reason, Reason::AwaitingReturn);
}

/// A hook whose calls came to this, `failed` of them in a row.
fn called(calls: HookCalls, failed: u32) -> Job {
    let mut job = job([hook()]);
    job.memory.hooks.insert(hook_key(), calls);
    let cooldown = Cooldown { times: failed, since: AT, until: AT };
    job.memory.cooldowns.insert(Key::Hook(hook_key()), cooldown);
    job
}

#[test]
fn the_end_of_a_hook_follows_from_what_came_of_its_heartbeats() {
    let seen = ready_to_drain(vec![pod("web")]);
    let unheard = HookCalls::default;
    let refused = || HookCalls { refused: Some(AT + seconds(200)), ..unheard() };
    let check = |calls: HookCalls, failed: u32, after: u64, expect: u64| {
        let step = step_at(&called(calls, failed), &seen, after);
        let deadline = AT + seconds(expect) - policy().deadline_margin;
        assert_eq!(step.deadline, Some(deadline), "{calls:?}, {failed} failed, at +{after}");
    };
    // Nothing was tried enough: the operator's limit.
    check(unheard(), 2, 100, 3_600);
    check(unheard(), 3, 100, 300);
    // It waits longer than its first timeout: somebody's heartbeat was taken.
    check(unheard(), 3, 300, 3_600);
    check(heard(200), 2, 250, 3_600);
    check(heard(200), 3, 250, 500);
    check(refused(), 3, 250, 300);
    check(refused(), 3, 310, 300);
}

/// A heartbeat goes before all force, whatever is known of the hook.
#[test]
fn nothing_is_forced_before_a_heartbeat_was_tried() {
    let forces = |calls: HookCalls, failed: u32, known: bool, after: u64| {
        let mut seen = ready_to_drain(vec![pod("web")]);
        if !known {
            seen.group = Seen::Unknown;
        }
        let words = words(&step_at(&called(calls, failed), &seen, after));
        !words.contains(&"evict default/web".to_owned())
    };
    let refused = HookCalls { refused: Some(AT + seconds(200)), ..HookCalls::default() };
    for (calls, known, after) in
        [(HookCalls::default(), true, 3_560), (HookCalls::default(), false, 3_560), (refused, true, 270)]
    {
        assert!(!forces(calls, 2, known, after), "{calls:?}, {known}");
        assert!(forces(calls, 3, known, after), "{calls:?}, {known}");
    }
}

// === A node that is nearly empty

#[test]
fn a_node_settles_after_its_cordon() {
    let reason = |after: u64| step_at(&job([hook()]), &ready_to_drain(vec![]), after).reason;
    assert_eq!(reason(4), Reason::Settling);
    assert_ne!(reason(5), Reason::Settling);
}

#[test]
fn a_pod_from_before_an_accepted_end_has_not_come_back() {
    let end = |pod: &str, after: u64| AcceptedEnd {
        pod: PodUid::new(format!("uid-{pod}")),
        at: AT + seconds(after),
        is_servers: true,
    };
    let web = |created: Timestamp| Pod { origin: PodOrigin("web".to_owned()), created, ..pod("web-3") };
    let mut job = job([hook()]);
    let ends = Evictions { first: end("web-1", 10), again: Some(end("web-2", 20)), accepted: 2 };
    job.memory.evicted.insert(PodOrigin("web".to_owned()), ends);
    let evicts =
        |created: Timestamp| !words(&step_at(&job, &ready_to_drain(vec![web(created)]), 30)).is_empty();
    let is_left = |created| not_waited_for(&job, &web(created), &policy(), AT + seconds(30)).is_some();
    assert!(evicts(AT - seconds(60)) && !is_left(AT - seconds(60)));
    assert!(is_left(AT + seconds(21)));
}

// === What is ours

/// Scope needs the group, and the instance has none any more: whoever took its targets out knew the group.
#[test]
fn without_its_group_an_instance_is_ours_when_its_targets_were_taken_out() {
    let policy = Policy { scoped: true, ..policy() };
    let goal = |targets: &[TargetKey], after: u64| {
        let node = Seen::Known(isolated(&["spot"], true, targets));
        let seen = Observation { group: Seen::Gone, membership: Seen::Gone, ..in_service(node) };
        let mut job = job([spot()]);
        job.memory.sightings.no_member_since = Some(AT + seconds(10));
        step(&job, &seen, &policy, AT + seconds(after)).goal
    };
    assert_eq!(goal(&[target_key()], 80), Goal::Leave);
    assert_eq!(goal(&[], 80), Goal::Return);
    // One reading that does not list it proves nothing.
    assert_eq!(goal(&[], 60), Goal::Leave);
    // Nothing but its node says whose it is where scope needs no group.
    let policy = Policy { scoped: false, ..policy.clone() };
    let node = Seen::Known(isolated(&["spot"], true, &[]));
    let seen = Observation { group: Seen::Gone, membership: Seen::Gone, ..in_service(node) };
    let mut job = job([spot()]);
    job.memory.sightings.no_member_since = Some(AT + seconds(10));
    assert_eq!(step(&job, &seen, &policy, AT + seconds(80)).goal, Goal::Leave);
}

#[test]
fn an_answer_that_was_taken_is_undone_when_the_group_says_in_service_and_not_at_once() {
    let job = called(HookCalls { continued: Some(AT + seconds(20)), ..heard(10) }, 0);
    let step = |state: LifecycleState, after: u64| {
        step_at(&job, &Observation { membership: member(state), ..ready_to_drain(vec![]) }, after)
    };
    use LifecycleState::{InService, TerminatingWait};
    assert_eq!(step(InService, 60).reason, Reason::Confirming);
    assert_eq!(step(TerminatingWait, 61).reason, Reason::Confirming);
    assert_eq!(step(InService, 61).goal, Goal::Return);
}

/// Its first reading may be a bad one.
#[test]
fn a_message_that_is_older_than_the_patience_is_read_for_a_minute() {
    let late = Delivery { at: AT + seconds(7_200), redelivered: true };
    let absent = Observation { membership: Seen::Gone, ..untouched() };
    let reason = |after: u64| step_at(&Job::new(hook(), late), &absent, after).reason;
    assert_eq!(reason(7_259), Reason::GroupUndecided);
    assert_eq!(reason(7_260), Reason::Over(Ended::LeftIsolated));
}

/// What an answer follows from is read again first, and not past the end of its hook.
#[test]
fn an_answer_does_not_wait_for_a_reading_past_its_deadline() {
    let mut job = job([hook()]);
    job.memory.hooks.insert(hook_key(), heard(3_500));
    let seen = Observation { read_at: Some(AT), targets_read_at: Some(AT), ..ready_to_drain(vec![]) };
    let answers = |after: u64| {
        words(&step_at(&job, &seen, after)).contains(&"complete hook offramp: CONTINUE".to_owned())
    };
    assert_eq!([3_584, 3_585].map(answers), [false, true]);
}

fn entitlement_at(job: &Job, seen: &Observation, after: u64) -> Entitlement {
    let facts = Facts { job, seen, policy: &policy(), now: AT + seconds(after) };
    Case::new(facts).claims[0].entitlement
}

/// Heartbeats that AWS takes say that a hook is open, for so long that the removal has its time yet.
#[test]
fn a_hook_whose_group_cannot_be_read_is_served_when_half_of_its_limit_is_over() {
    let mut job = job([hook()]);
    let seen = Observation { membership: Seen::Unknown, ..untouched() };
    let entitled = |job: &Job, after: u64| entitlement_at(job, &seen, after);
    assert_eq!(entitled(&job, 1_800), Entitlement::Waits, "AWS has taken nothing");
    job.memory.hooks.insert(hook_key(), heard(1_000));
    assert_eq!([1_799, 1_800].map(|after| entitled(&job, after)), [Entitlement::Waits, Entitlement::Acts]);
    let day = 86_400;
    assert_eq!(entitled(&job, 2 * day - 1), Entitlement::Acts);
    assert_eq!(entitled(&job, 2 * day), Entitlement::Ended(Ended::LeftIsolated));
}

/// Which is as new as its event says nothing of it (autoscaler#10149).
#[test]
fn an_instance_in_service_stays_by_a_reading_that_is_a_minute_younger_than_its_event() {
    let job = job([hook()]);
    let read = |read_after: u64| {
        let read_at = Some(AT + seconds(read_after));
        let seen = Observation { membership: member(LifecycleState::InService), read_at, ..untouched() };
        entitlement_at(&job, &seen, 100)
    };
    assert_eq!([read(60), read(61)], [Entitlement::Waits, Entitlement::Undo(UndoReason::InService)]);
}

/// A job that waits for what AWS says asks again.
#[test]
fn what_is_undecided_is_read_again() {
    let seen =
        Observation { membership: member(LifecycleState::InService), read_at: Some(AT), ..untouched() };
    let step = step_at(&job([hook()]), &seen, 100);
    assert_eq!((step.reason, step.read_by), (Reason::GroupUndecided, Some(AT + seconds(10))));
    let unknown =
        Observation { node: Seen::Unknown, pods: Seen::Unknown, read_at: Some(AT + seconds(99)), ..seen };
    let step = step_at(&job([hook()]), &unknown, 100);
    assert_eq!((step.reason, step.read_by), (Reason::NodeUnknown, Some(AT + seconds(109))));
}
