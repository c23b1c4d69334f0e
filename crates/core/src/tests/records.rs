//! What a record on a node says of claims, and what becomes of one that nobody looks after.

use super::paths::{step_at, words};
use super::world::*;
use crate::*;

/// The entries of the record that a step writes.
fn written(step: &Step) -> Vec<Claimant> {
    let record = step.actions.iter().find_map(|action| match action {
        Action::Isolate { record, .. }
        | Action::Exclude { record, .. }
        | Action::WriteRecord { record, .. } => Some(record),
        _ => None,
    });
    record.map_or_else(Vec::new, |record| record.entries.keys().cloned().collect())
}

fn recorded(node: Node, entries: Vec<(Claimant, Entry)>) -> Observation {
    let record = Record { entries: entries.into_iter().collect(), ..node.record.clone().unwrap() };
    Observation { node: Seen::Known(Node { record: Some(record), ..node }), ..untouched() }
}

#[test]
fn a_record_of_version_1_holds_a_claim_by_its_notice_and_becomes_one_of_version_2() {
    let of_version_1 = |id: &str| {
        let claimant = Claimant { cause: Cause::Notice(NoticeId::new(id)), by: None };
        (claimant, Entry { end: AT + seconds(7_200), ..entry_at(AT) })
    };
    let node = isolated(&[], false, &[]);
    let seen = recorded(node.clone(), vec![of_version_1("offramp"), of_version_1("of another worker")]);
    let step = step_at(&job([hook()]), &seen, 10);
    assert_eq!(words(&step)[0], "exclude, recording 1 target", "it is isolated");
    let kept = of_version_1("of another worker").0;
    assert_eq!(written(&step), [claimant_of("offramp"), kept.clone()]);
    // Whose message is in another worker's hands is not undone by this one.
    let reprieved = Observation { membership: member(LifecycleState::InService), ..seen };
    assert_eq!(written(&step_at(&job([hook()]), &reprieved, 100)), [kept]);
    let alone = recorded(node, vec![of_version_1("offramp")]);
    let alone = Observation { membership: member(LifecycleState::InService), ..alone };
    assert_eq!(words(&step_at(&job([hook()]), &alone, 100)), ["uncordon and forget"]);
}

#[test]
fn the_last_in_order_finds_no_place_in_a_full_record() {
    let other = |number: usize| {
        let cause = Cause::Hook(GroupName::new("workers"), HookName::new(format!("hook-{number}")));
        (Claimant { cause, by: Some(policy().installation) }, entry_at(AT))
    };
    let of_version_1 = |number: usize| (claimant_of(&format!("notice-{number}")), entry_at(AT));
    let hooks: Vec<_> = (0..MOST_ENTRIES).map(other).collect();
    let node = || isolated(&[], true, &[]);
    let reprieved =
        |entries: Vec<(Claimant, Entry)>| step_at(&job([spot()]), &recorded(node(), entries), 250);
    // Spot comes after all hooks: it is held by its message alone, and undoes nothing for others.
    let step = step_at(&job([spot()]), &recorded(node(), hooks.clone()), 10);
    assert_eq!(words(&step)[0], "exclude, recording 1 target", "it counts as isolated");
    assert!(written(&step).len() == MOST_ENTRIES && !written(&step).contains(&claimant_of("spot")));
    let step = reprieved(hooks);
    assert_eq!((step.stage, step.actions), (None, vec![]));
    // Before notices of version 1 it finds one.
    let older: Vec<_> = (0..MOST_ENTRIES).map(of_version_1).collect();
    let step = step_at(&job([spot()]), &recorded(node(), older), 10);
    assert!(
        written(&step).len() == MOST_ENTRIES && written(&step).contains(&claimant_of("spot")),
        "{step:?}"
    );
}

/// The patience was an hour when the record was written, and is half an hour now.
#[test]
fn a_claim_is_ours_whatever_limits_it_was_written_with() {
    let policy = Policy { patience: seconds(1_800), ..policy() };
    let node = isolated(&["rebalance"], false, &[]);
    let seen = Observation { node: Seen::Known(node), ..untouched() };
    let step = step(&job([rebalance()]), &seen, &policy, AT + seconds(1_801));
    assert_eq!(words(&step), ["uncordon and forget"]);
}

/// EventBridge and Auto Scaling give one event times of their own, some hundred milliseconds apart.
#[test]
fn two_routes_of_one_event_are_one_claim() {
    let later = (claimant_of("offramp"), entry_at(AT + seconds(1)));
    let seen = recorded(isolated(&[], false, &[]), vec![later]);
    assert_eq!(
        words(&step_at(&job([hook()]), &seen, 10))[0],
        "exclude, recording 1 target",
        "it is isolated"
    );
    let reprieved = Observation { membership: member(LifecycleState::InService), ..seen };
    assert_eq!(words(&step_at(&job([hook()]), &reprieved, 100)), ["uncordon and forget"]);
}

/// Two installations with a queue each serve different groups of one cluster, or one node with different policies.
#[test]
fn each_installation_undoes_its_own_claims_alone() {
    let theirs = Claimant { by: Some("eu-west-1:111122223333:other".into()), ..claimant_of("rebalance") };
    let seen = recorded(isolated(&["rebalance"], false, &[]), vec![(theirs.clone(), entry_at(AT))]);
    // Theirs is no claim of ours: ours is written beside it.
    assert_eq!(
        written(&step_at(&job([rebalance()]), &seen, 10)),
        [claimant_of("rebalance"), theirs.clone()][..]
    );
    let over = step_at(&job([rebalance()]), &seen, 3_601);
    assert_eq!((over.stage, over.actions), (None, vec![]), "the cordon is theirs");
    assert_eq!(over.reason, Reason::Withdrawn { why: UndoReason::PatienceOver, claims: 1 });
    let both = vec![(theirs.clone(), entry_at(AT)), (claimant_of("rebalance"), entry_at(AT))];
    let over = step_at(&job([rebalance()]), &recorded(isolated(&[], false, &[]), both), 3_601);
    assert_eq!(written(&over), [theirs]);
}

/// A message of the same hook whose metadata names nobody, in the hands of another replica.
#[test]
fn a_hook_that_is_not_ours_takes_no_claim_out_of_a_record() {
    let stranger = hook_of("somebody-elses", Passage::Ending);
    let seen = Observation { node: Seen::Known(isolated(&["somebody-elses"], true, &[])), ..untouched() };
    let step = step_at(&job([stranger]), &seen, 100);
    assert_eq!((step.stage, step.actions), (None, vec![]));
}

#[test]
fn a_copy_that_names_the_region_gives_it_to_the_notice() {
    let mut job = job([hook()]);
    let place = AccountRegion { account: None, region: Some("eu-south-2".into()) };
    let copy = Notice { id: NoticeId::new("by another route"), account_region: place.clone(), ..hook() };
    assert!(!job.join(copy, DELIVERED), "it is a copy");
    assert_eq!(job.notices[0].account_region, place);
}

/// A group that could not terminate an instance begins a new action of the same hook.
#[test]
fn an_older_event_of_a_hook_does_not_undo_for_a_newer_one() {
    let newer = (claimant_of("offramp"), entry_at(AT + seconds(300)));
    let seen = recorded(isolated(&[], false, &[]), vec![newer]);
    let reprieved = Observation { membership: member(LifecycleState::InService), ..seen };
    let step = step_at(&job([hook()]), &reprieved, 100);
    assert_eq!((step.stage, step.actions), (None, vec![]));
}

#[test]
fn a_claim_that_begins_again_renews_its_entry() {
    let ended = EntryEnd { outcome: Ended::LeftIsolated, state: None, at: AT };
    let over = (claimant_of("offramp"), Entry { ended: Some(ended), ..entry_at(AT) });
    let seen = recorded(isolated(&[], false, &[]), vec![over]);
    let step = step_at(&job([hook()]), &seen, 10);
    let [Action::Isolate { record, .. }, ..] = &step.actions[..] else { panic!("{step:?}") };
    assert_eq!(record.entries[&claimant_of("offramp")].ended, None);
}

// === What nobody looks after

fn record_notice(after: u64) -> Notice {
    Notice { at: AT + seconds(after), ..notice("record", NoticeKind::Record) }
}

fn ended(outcome: Ended, state: Option<LifecycleState>, after: u64) -> Option<EntryEnd> {
    Some(EntryEnd { outcome, state, at: AT + seconds(after) })
}

/// A node with an entry of the spot notice, as the sweep finds it.
fn found(ended: Option<EntryEnd>, ready: bool, membership: Seen<Membership>) -> Observation {
    let node = Node { ready, ..isolated(&[], true, &[target_key()]) };
    let seen = recorded(node, vec![(claimant_of("spot"), Entry { ended, ..entry_at(AT) })]);
    Observation { membership, target_groups: Seen::Known(vec![target_group(None, &[])]), ..seen }
}

fn is_due(seen: &Observation, after: u64) -> bool {
    let record = seen.node.known().and_then(|node| node.record.as_ref()).unwrap();
    record.is_due(seen, &policy(), AT + seconds(after))
}

/// What the sweep takes up, and what its job does then. What is left is not taken up again.
#[test]
fn a_record_is_taken_up_once_for_each_thing_that_can_be_done() {
    const LATE: u64 = 4_200;
    let check = |ended: Option<EntryEnd>,
                 ready: bool,
                 membership: Seen<Membership>,
                 expect: Option<&[&str]>| {
        let seen = found(ended, ready, membership);
        assert_eq!(is_due(&seen, LATE), expect.is_some(), "{seen:?}");
        let step = step_at(&job([record_notice(LATE)]), &seen, LATE);
        assert_eq!(words(&step), expect.unwrap_or_default(), "{step:?}");
        if let [Action::WriteRecord { record, .. }] = &step.actions[..] {
            let Seen::Known(node) = seen.node else { panic!("no node") };
            let node = Seen::Known(Node { record: Some(record.clone()), ..node });
            let after = Observation { node, membership: seen.membership, ..untouched() };
            assert!(!is_due(&after, LATE + 86_400), "{after:?}");
            let step = step_at(&job([record_notice(LATE)]), &after, LATE + 1);
            assert_eq!((step.stage, step.reason), (None, Reason::Over(Ended::LeftIsolated)));
            // Whoever left it isolated has served no hook.
            let (group, hook) = (GroupName::new("workers"), HookName::new("offramp"));
            assert!(!record.looks_after(&group, &hook, &LifecycleState::TerminatingWait, AT + seconds(LATE)));
        }
    };
    let (undo, write): (Option<&[&str]>, Option<&[&str]>) =
        (Some(&["register web:30080"]), Some(&["record"]));
    check(None, true, member(LifecycleState::InService), undo);
    check(None, true, Seen::Gone, undo);
    check(None, false, member(LifecycleState::InService), write);
    check(None, false, Seen::Gone, write);
    for state in [LifecycleState::TerminatingWait, LifecycleState::Terminating, LifecycleState::Standby] {
        check(None, true, member(state), write);
    }
    // Somebody has looked: nothing more until the instance is positively back.
    let stopped = || ended(Ended::InstanceEnded, Some(LifecycleState::InService), 3_600);
    check(stopped(), true, member(LifecycleState::InService), undo);
    check(stopped(), false, member(LifecycleState::InService), None);
    check(stopped(), true, Seen::Gone, None);
    let retained = LifecycleState::Other("Terminating:Retained".to_owned());
    check(ended(Ended::LeftIsolated, Some(retained.clone()), 3_600), true, member(retained), None);
    let in_pool = || ended(Ended::Answered, Some(LifecycleState::Warmed), 100);
    check(in_pool(), false, member(LifecycleState::Warmed), None);
    check(in_pool(), true, member(LifecycleState::Other("Pending".to_owned())), None);
    check(in_pool(), true, member(LifecycleState::InService), undo);
    // In no group then and now: its kubelet is all there is.
    check(ended(Ended::LeftIsolated, None, 3_600), true, Seen::Gone, undo);
}

#[test]
fn a_hook_is_looked_after_until_it_is_overdue_or_held_anew() {
    let held = LifecycleState::TerminatingWait;
    let check = |ended: Option<EntryEnd>, after: u64, expect: bool| {
        let entries = [(claimant_of("offramp"), Entry { ended, ..entry_at(AT) })];
        let record = Record { entries: entries.into(), ..Record::new(AT) };
        let (group, hook) = (GroupName::new("workers"), HookName::new("offramp"));
        assert_eq!(record.looks_after(&group, &hook, &held, AT + seconds(after)), expect);
        assert!(!record.looks_after(&group, &HookName::new("other"), &held, AT));
    };
    check(None, 4_199, true);
    check(None, 4_200, false);
    check(ended(Ended::Answered, Some(held.clone()), 60), 86_400, true);
    check(ended(Ended::Answered, Some(LifecycleState::InService), 60), 100, false);
    check(ended(Ended::LeftIsolated, Some(held.clone()), 60), 100, false);
}

#[test]
fn what_is_overdue_waits_for_its_sources_and_is_left_when_they_stay_away() {
    let unread = found(None, true, Seen::Unknown);
    let job = job([record_notice(4_200)]);
    let step = step_at(&job, &unread, 4_201);
    assert_eq!((step.stage, step.reason), (Some(Stage::Isolate), Reason::GroupUnknown));
    assert_eq!(words(&step_at(&job, &unread, 4_200 + 3_600)), ["record"]);
    let gone = Observation { node: Seen::Gone, pods: Seen::Gone, ..unread };
    assert_eq!(step_at(&job, &gone, 4_201).reason, Reason::Over(Ended::InstanceEnded));
}

#[test]
fn only_our_own_entries_are_taken_up() {
    let theirs = Claimant { by: Some("eu-west-1:111122223333:other".into()), ..claimant_of("spot") };
    let of_version_1 = claimant_of("of another worker");
    let node = || isolated(&[], false, &[]);
    let seen = |who: &Claimant| Observation {
        membership: member(LifecycleState::InService),
        ..recorded(node(), vec![(who.clone(), entry_at(AT))])
    };
    assert!(!is_due(&seen(&theirs), 86_400));
    let step = step_at(&job([record_notice(86_400)]), &seen(&theirs), 86_400);
    assert_eq!((step.stage, step.actions), (None, vec![]));
    // Nobody else looks after what version 0.1 wrote, nor after a record without a claim.
    assert!(is_due(&seen(&of_version_1), 86_400));
    assert_eq!(
        words(&step_at(&job([record_notice(86_400)]), &seen(&of_version_1), 86_400)),
        ["uncordon and forget"]
    );
    let nobodys = Observation { membership: member(LifecycleState::InService), ..recorded(node(), vec![]) };
    assert_eq!(words(&step_at(&job([record_notice(0)]), &nobodys, 0)), ["uncordon and forget"]);
    let foreign = Node { record: Some(foreign_record()), ..node() };
    assert!(!is_due(&Observation { node: Seen::Known(foreign), ..nobodys }, 86_400));
}

/// A hook that is answered beside a foreign one, or an instance that its group retains.
#[test]
fn a_job_writes_how_it_ended_where_the_node_outlives_it() {
    let mut job = job([hook_of("offramp", Passage::ToWarmPool)]);
    let calls = HookCalls { continued: Some(AT + seconds(50)), ..HookCalls::default() };
    job.memory.hooks.insert(hook_key(), calls);
    let seen = |state: LifecycleState| Observation {
        node: Seen::Known(isolated(&["offramp"], true, &[])),
        membership: member(state),
        ..untouched()
    };
    let step = step_at(&job, &seen(LifecycleState::Warmed), 60);
    assert_eq!((step.stage, step.reason.clone()), (Some(Stage::Complete), Reason::WritingEnds));
    let [Action::WriteRecord { record, .. }] = &step.actions[..] else { panic!("{step:?}") };
    let end = ended(Ended::Answered, Some(LifecycleState::Warmed), 60);
    assert_eq!(record.entries[&claimant_of("offramp")].ended, end);
    // A webhook that takes it back, or a node that cannot be written, does not keep the job.
    job.memory.record_writes = 3;
    assert_eq!(step_at(&job, &seen(LifecycleState::Warmed), 60).reason, Reason::Over(Ended::Answered));
    // A node that goes with its instance needs no such write.
    job.memory.record_writes = 0;
    let going = step_at(&job, &seen(LifecycleState::TerminatingProceed), 60);
    assert_eq!((going.stage, going.actions), (None, vec![]));
}

/// A notice of a hook that was seen in its group.
fn seen(after: u64) -> Notice {
    let Notice { kind: NoticeKind::Hook(hook), .. } = hook() else { unreachable!() };
    let kind = NoticeKind::Hook(Hook { key: HookKey { token: None, ..hook.key }, ..hook });
    Notice { at: AT + seconds(after), ..notice(&format!("seen-{after}"), kind) }
}

/// Found by a review: with a HeartbeatTimeout of an hour it was answered at once, with its pods running. And by the
/// simulation: one that was over, behind somebody else's, had its pods forced after three refusals.
#[test]
fn a_hook_that_was_seen_is_drained_when_aws_takes_a_heartbeat() {
    let mut group = group(&["offramp"]);
    group.terminate_hooks[0].heartbeat_timeout = seconds(3_600);
    let world = Observation {
        node: Seen::Known(isolated(&["offramp"], false, &[])),
        group: Seen::Known(group),
        ..untouched()
    };
    let mut job = job([seen(0)]);
    let NoticeKind::Hook(hook) = job.notices[0].kind.clone() else { unreachable!() };
    let step = step_at(&job, &world, 1);
    assert_eq!(step.actions, [Action::Heartbeat(hook.key.clone())], "{step:?}");
    // What the group has not confirmed is not asked about, whoever may have sent it.
    let unread = Observation { membership: Seen::Unknown, ..world.clone() };
    assert_eq!(step_at(&job, &unread, 1).actions, []);
    let mut with = |calls: HookCalls, times: u32| {
        job.memory.hooks.insert(hook.key.clone(), calls);
        job.memory.cooldowns.insert(Key::Hook(hook.key.clone()), Cooldown { times, since: AT, until: AT });
        step_at(&job, &world, 100)
    };
    let refused = |refusals| HookCalls { refused: Some(AT), refusals, ..HookCalls::default() };
    assert_eq!(with(refused(4), 9).actions.len(), 1, "asked once more: what was not answered is no refusal");
    assert_eq!(with(refused(5), 5).reason, Reason::WritingEnds, "it was not open");
    assert_eq!(with(heard(2), 0).stage, Some(Stage::Deregister));
    // No permission for heartbeats: what the group says has to do.
    assert_eq!(with(HookCalls::default(), 5).stage, Some(Stage::Deregister));
}

/// A kubelet may write its own node's annotation.
#[test]
fn targets_of_another_instance_are_not_registered() {
    let theirs = TargetKey { instance: other(), ..target_key() };
    let node = isolated(&["spot"], false, &[theirs]);
    let seen = Observation {
        node: Seen::Known(node),
        target_groups: Seen::Known(vec![target_group(None, &[])]),
        ..untouched()
    };
    assert_eq!(words(&step_at(&job([spot()]), &seen, 250)), ["uncordon and forget"]);
}

/// Its event comes late, or from another replica's sweep.
#[test]
fn what_was_seen_and_what_is_received_are_one_notice() {
    let event = |after: u64| Notice { at: AT + seconds(after), ..hook() };
    let check = |first: Notice, second: Notice, copy: bool| {
        assert_eq!(!job([first]).join(second, DELIVERED), copy);
    };
    check(hook(), seen(60), true);
    check(seen(60), hook(), true);
    check(seen(0), seen(5), true);
    check(seen(0), seen(61), false);
    check(hook(), seen(61), false);
    // The group waits for its target groups, and the event comes after that.
    check(event(3_600), seen(0), true);
    check(seen(0), event(3_600), true);
    check(hook_of("other-hook", Passage::Ending), seen(0), false);
    let moved = Notice { kind: hook_of("offramp", Passage::RootVolume).kind, ..hook() };
    check(moved, seen(0), false);
    check(record_notice(0), record_notice(300), true);
    check(record_notice(0), seen(0), false);
}
