//! Every combination of what the decision can see, held against the invariants.

use super::world::*;
use crate::claim::Deadline;
use crate::facts::Facts;
use crate::triggers;
use crate::*;

/// One combination.
struct Case<'a> {
    job: &'a Job,
    seen: &'a Observation,
    policy: &'a Policy,
    now: Timestamp,
    step: Step,
}

fn notice_sets() -> Vec<Vec<Notice>> {
    let record = notice("record", NoticeKind::Record);
    let all = [hook(), spot(), rebalance(), hook_of("somebody-elses", Passage::Ending), record];
    (1..1_usize << all.len())
        .map(|mask| {
            let chosen = all.iter().enumerate().filter(|(bit, _)| mask & (1 << bit) != 0);
            chosen.map(|(_, notice)| notice.clone()).collect()
        })
        .collect()
}

fn nodes() -> Vec<Seen<Node>> {
    let claims = ["offramp", "spot", "rebalance"];
    let dead = Node {
        ready: false,
        silent: true,
        ready_since: AT - seconds(120),
        ..isolated(&claims, true, &[target_key()])
    };
    vec![
        Seen::Unknown,
        Seen::Gone,
        Seen::Known(node()),
        Seen::Known(Node { cordoned: true, ..node() }),
        Seen::Known(isolated(&claims, false, &[])),
        Seen::Known(isolated(&claims, true, &[])),
        Seen::Known(isolated(&claims, true, &[target_key()])),
        Seen::Known(isolated(&["of another job"], true, &[target_key()])),
        Seen::Known(dead),
        Seen::Known(Node { owner: NodeOwner::Karpenter, ..node() }),
        Seen::Known(Node { owner: NodeOwner::ManagedNodeGroup, ..isolated(&claims, true, &[]) }),
    ]
}

fn pod_sets() -> Vec<Seen<Vec<Pod>>> {
    let stays = Pod { daemon_set: Some("kube-proxy".to_owned()), ..pod("kube-proxy-1") };
    let local = Pod { local_traffic: true, ..pod("ingress-1") };
    let ending = Pod { ends_at: Some(AT + seconds(600)), ..pod("web-2") };
    vec![
        Seen::Unknown,
        Seen::Known(vec![stays.clone()]),
        Seen::Known(vec![pod("web-1"), stays]),
        Seen::Known(vec![ending, local]),
    ]
}

fn memberships() -> Vec<Seen<Membership>> {
    vec![
        Seen::Unknown,
        Seen::Gone,
        member(LifecycleState::InService),
        member(LifecycleState::TerminatingWait),
        member(LifecycleState::TerminatingProceed),
        member(LifecycleState::Standby),
        member(LifecycleState::Warmed),
        member(LifecycleState::Other("Quarantined".to_owned())),
    ]
}

fn groups() -> Vec<Seen<Group>> {
    vec![
        Seen::Unknown,
        Seen::Known(group(&["offramp"])),
        Seen::Known(Group { capacity_rebalancing: true, ..group(&[]) }),
    ]
}

fn target_sets() -> Vec<Seen<Vec<TargetGroup>>> {
    use TargetHealth::{Draining, Healthy, Unused};
    vec![
        Seen::Unknown,
        Seen::Known(vec![]),
        Seen::Known(vec![target_group(Some(Healthy), &[Healthy])]),
        Seen::Known(vec![target_group(Some(Healthy), &[])]),
        Seen::Known(vec![target_group(Some(Draining), &[Healthy])]),
        Seen::Known(vec![target_group(Some(Unused { registered: false }), &[Healthy])]),
    ]
}

fn memories() -> Vec<Memory> {
    let mut heard = Memory::default();
    heard.hooks.insert(hook_key(), super::world::heard(20));
    heard.draining_since.insert(target_key(), AT);
    let uid = PodUid::new("uid-web-1");
    heard
        .pods
        .insert(uid.clone(), PodAnswer { refused_by: Some(Key::Pod(uid.clone())), ..PodAnswer::default() });
    heard.cooldowns.insert(Key::Pod(uid), Cooldown { times: 1, since: AT, until: AT + seconds(50) });
    let mut answered = Memory { isolation_failed: true, ..Memory::default() };
    let calls = HookCalls { newest: AT, ..HookCalls::default() };
    answered.hooks.insert(hook_key(), HookCalls { continued: Some(AT), ..calls });
    let mut refused = Memory::default();
    refused.hooks.insert(hook_key(), HookCalls { refused: Some(AT), ..calls });
    vec![Memory::default(), heard, answered, refused]
}

fn moments() -> Vec<Timestamp> {
    [0, 4, 61, 110, 121, 181, 250, 290, 601, 3_590, 3_700, 4_201].map(|after| AT + seconds(after)).to_vec()
}

fn every_case(mut check: impl FnMut(&Case<'_>)) {
    let policy = policy();
    let (nodes, pods, memberships, groups, targets, memories, moments) =
        (nodes(), pod_sets(), memberships(), groups(), target_sets(), memories(), moments());
    for notices in notice_sets() {
        let mut job = job(notices);
        for node in &nodes {
            for pods in &pods {
                for membership in &memberships {
                    for group in &groups {
                        for target_groups in &targets {
                            let seen = Observation {
                                doubt: None,
                                node: node.clone(),
                                pods: if *node == Seen::Gone { Seen::Gone } else { pods.clone() },
                                proven: Timestamp::default(),
                                read_at: Some(JUST_NOW),
                                targets_read_at: Some(JUST_NOW),
                                membership: membership.clone(),
                                group: group.clone(),
                                target_groups: target_groups.clone(),
                                unread_target_groups: 0,
                                missing_target_groups: std::collections::BTreeSet::new(),
                            };
                            for memory in &memories {
                                job.memory = memory.clone();
                                for now in &moments {
                                    let step = step(&job, &seen, &policy, *now);
                                    let case =
                                        Case { job: &job, seen: &seen, policy: &policy, now: *now, step };
                                    check(&case);
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl Case<'_> {
    fn require(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "{what}\n{:#?}\nat +{:?}\n{:#?}\n{:#?}",
            self.step,
            self.now.since(AT),
            self.job,
            self.seen
        );
    }

    fn has(&self, wanted: impl Fn(&Action) -> bool) -> bool {
        self.step.actions.iter().any(wanted)
    }

    /// After a 200 the same answer may be given again, whatever has come onto the node since.
    fn answers_anew(&self, action: &Action) -> bool {
        let taken =
            |hook: &HookKey| self.job.memory.hooks.get(hook).is_some_and(|calls| calls.continued.is_some());
        matches!(action, Action::CompleteHook(hook) if !taken(hook))
    }

    fn has_notice(&self, of: fn(&NoticeKind) -> bool) -> bool {
        self.job.notices.iter().any(|notice| of(&notice.kind))
    }

    fn spot_in_time(&self) -> bool {
        self.has_notice(|kind| matches!(kind, NoticeKind::Spot(_))) && self.now <= AT + seconds(180)
    }

    fn evictable(&self) -> bool {
        self.seen
            .pods
            .known()
            .is_some_and(|pods| pods.iter().any(|pod| classify(pod, self.policy) != PodClass::Stays))
    }

    fn own_targets(&self) -> Vec<TargetHealth> {
        let groups = self.seen.target_groups.known();
        let own = own();
        groups
            .into_iter()
            .flatten()
            .flat_map(|group| group.targets_of(&own))
            .map(|(_, target)| target.health)
            .collect()
    }

    fn gate_is_closed(&self) -> bool {
        let groups = self.seen.target_groups.known();
        groups
            .into_iter()
            .flatten()
            .any(|group| group.targets.len() == 1 && self.own_targets() == [TargetHealth::Healthy])
    }

    fn deadline_has_come(&self) -> bool {
        matches!(self.step.reason, Reason::DeadlineReached(_))
    }

    fn alive(&self) -> bool {
        self.seen.node.known().is_some_and(|node| node.ready)
    }
}

/// One walk through all cases for all invariants: the walk is the expensive part.
#[test]
fn every_step_keeps_the_invariants() {
    let mut cases = 0_u64;
    every_case(|case| {
        cases += 1;
        invariant_1_a_hook_is_answered_last(case);
        invariant_3_unknown_advances_nothing(case);
        invariant_6_and_8_label_and_record_come_first(case);
        invariant_7_detach_only_in_service(case);
        invariant_8_only_what_the_record_names_is_undone(case);
        invariant_11_isolation_comes_first(case);
        invariant_14_only_what_is_ours(case);
        invariant_15_the_gate_guards_everything(case);
        invariant_16_a_notice_alone_authorises_the_cordon(case);
        a_step_without_actions_waits(case);
    });
    println!("{cases} cases");
    assert!(cases > 1_000_000, "only {cases} cases");
}

fn invariant_1_a_hook_is_answered_last(case: &Case<'_>) {
    if !case.has(|action| case.answers_anew(action)) || !case.alive() {
        return;
    }
    let registered = |health: &TargetHealth| !matches!(health, TargetHealth::Unused { registered: false });
    let clean = !case.evictable() && !case.own_targets().iter().any(registered);
    case.require(clean || case.deadline_has_come(), "1: a hook is answered with pods or targets left");
}

fn invariant_3_unknown_advances_nothing(case: &Case<'_>) {
    let unknown = case.seen.node == Seen::Unknown
        || case.seen.pods == Seen::Unknown
        || case.seen.target_groups == Seen::Unknown;
    let answers = case.has(|action| case.answers_anew(action));
    let ended = !case.alive() && matches!(case.seen.node, Seen::Known(_));
    let only_pods = case.seen.node != Seen::Unknown && case.seen.target_groups != Seen::Unknown;
    if unknown && answers && !(ended && only_pods) {
        case.require(case.deadline_has_come(), "3: a hook is answered on something unknown");
    }
    let departs = matches!(case.step.reason, Reason::Served);
    case.require(!(departs && case.seen.node == Seen::Unknown), "3: an unknown node counts as served");
}

fn invariant_6_and_8_label_and_record_come_first(case: &Case<'_>) {
    let deregisters = case.has(|action| matches!(action, Action::Deregister(_)));
    let Seen::Known(node) = &case.seen.node else { return };
    let spot_goes_on = case.spot_in_time() && case.job.memory.isolation_failed;
    let named = node.record.as_ref().is_some_and(|record| record.targets.contains(&target_key()));
    if deregisters {
        case.require(node.excluded && named || spot_goes_on, "6, 8: deregistered before label and record");
    }
    for action in &case.step.actions {
        if let Action::Isolate { record, exclude, guard } = action {
            case.require(*guard == node.resource_version, "8: a record is written blindly");
            let had = node.record.as_ref().is_some_and(|record| record.cordoned);
            case.require(record.cordoned == (!node.cordoned || had), "8: the record lies about the cordon");
            case.require(!exclude || record.excluded || node.excluded, "8: the label is not recorded");
        }
        if let Action::WriteRecord { record, guard } = action {
            case.require(*guard == node.resource_version, "8: a record is written blindly");
            let changed = |had: &Record| Record { entries: record.entries.clone(), ..had.clone() };
            let had = node.record.as_ref();
            case.require(
                had.map(changed).as_ref() == Some(record),
                "8: a claim that ends changes what is to undo",
            );
        }
    }
}

fn invariant_7_detach_only_in_service(case: &Case<'_>) {
    let detaches =
        case.has(|action| matches!(action, Action::Detach { .. } | Action::TerminateThroughGroup { .. }));
    if detaches {
        let in_service = case.seen.membership == member(LifecycleState::InService);
        case.require(in_service, "7: detached from a state that forbids it");
        let managed = |node: &Node| node.owner == NodeOwner::ManagedNodeGroup;
        case.require(!case.seen.node.known().is_some_and(managed), "14: a managed group's instance detached");
    }
}

fn invariant_8_only_what_the_record_names_is_undone(case: &Case<'_>) {
    if !case.has(|action| matches!(action, Action::Release { .. } | Action::Register(_))) {
        return;
    }
    let record = case.seen.node.known().and_then(|node| node.record.as_ref());
    let ours = |record: &Record| {
        let of_job =
            |who: &Claimant| case.job.notices.iter().any(|notice| claimant_of(notice.id.as_str()) == *who);
        let overdue = |end: Timestamp| {
            case.has_notice(|kind| *kind == NoticeKind::Record) && case.now >= end + seconds(600)
        };
        record.entries.iter().all(|(who, entry)| of_job(who) || overdue(entry.end))
    };
    case.require(record.is_some_and(ours), "8: undone for somebody else's notice");
    let of_hook = case.job.notices.iter().any(|notice| notice.id.as_str() == "offramp");
    let stays = case.seen.membership == member(LifecycleState::InService);
    case.require(!of_hook || stays, "17: undone although the group does not say that the instance stays");
    case.require(!case.spot_in_time(), "4: undone while a spot notice claims the node");
}

fn invariant_11_isolation_comes_first(case: &Case<'_>) {
    if !case.has(|action| matches!(action, Action::Isolate { .. })) || case.spot_in_time() {
        return;
    }
    let alone = case.step.actions.iter().all(|action| {
        matches!(action, Action::Isolate { .. } | Action::Heartbeat(_) | Action::CompleteHook(_))
    });
    case.require(alone, "11: something goes out beside the first isolation");
}

fn invariant_14_only_what_is_ours(case: &Case<'_>) {
    let foreign_only = case.job.notices.iter().all(|notice| notice.id.as_str() == "somebody-elses");
    let karpenter = |node: &Node| node.owner == NodeOwner::Karpenter;
    if foreign_only || case.seen.node.known().is_some_and(karpenter) {
        case.require(case.step.actions.is_empty(), "14: something that is not ours was touched");
    }
    let others = case.has(|action| match action {
        Action::CompleteHook(hook) | Action::Heartbeat(hook) => hook.name.as_str() != "offramp",
        _ => false,
    });
    case.require(!others, "14: somebody else's hook was answered");
}

fn invariant_15_the_gate_guards_everything(case: &Case<'_>) {
    let limit = AT + case.policy.gate_limit;
    if !case.gate_is_closed() || case.spot_in_time() || case.now >= limit || !case.alive() {
        return;
    }
    let ends_traffic = case.has(|action| {
        matches!(
            action,
            Action::Exclude { .. }
                | Action::Deregister(_)
                | Action::Detach { .. }
                | Action::TerminateThroughGroup { .. }
        )
    });
    case.require(!ends_traffic, "15: the last healthy target was taken");
}

fn invariant_16_a_notice_alone_authorises_the_cordon(case: &Case<'_>) {
    let confirmed = case.seen.membership == member(LifecycleState::TerminatingWait);
    let rebalance = case.has_notice(|kind| *kind == NoticeKind::Rebalance);
    // Where the group cannot be read, AWS says by its answers to heartbeats that the hook is open.
    let heard = case.job.memory.hooks.values().any(|calls| calls.heard.is_some());
    let half = AT + case.policy.hook_limit / 2;
    let kept_open = heard && case.seen.membership == Seen::Unknown && case.now >= half;
    if confirmed || kept_open || case.spot_in_time() {
        return;
    }
    let allowed = |action: &Action| match action {
        Action::Isolate { .. } => rebalance || case.now <= AT + seconds(60),
        Action::WriteRecord { .. } => {
            case.step.goal == Goal::Return || case.step.reason == Reason::WritingEnds
        }
        Action::Release { .. } | Action::Register(_) => true,
        // What was confirmed once is answered again, whatever is read later.
        Action::CompleteHook(_) => !case.answers_anew(action),
        // It changes nothing but the time that a hook of ours is open, and AWS refuses it for one that is not. Without it a
        // hook ends while Auto Scaling cannot be read.
        Action::Heartbeat(_) => case.seen.membership == Seen::Unknown,
        _ => false,
    };
    case.require(case.step.actions.iter().all(allowed), "16: a notice alone authorised more than the cordon");
}

fn a_step_without_actions_waits(case: &Case<'_>) {
    let labelled = case.step.stage.is_none_or(|stage| case.step.goal.stages().contains(&stage));
    case.require(labelled, "the stage is not one of the goal's");
    if case.step.actions.is_empty() && case.step.stage.is_some() {
        case.require(case.step.wake_at > case.now, "a step without actions would spin");
    }
}

/// Invariant 5: whatever is seen, two days and an hour later nothing is waited for.
#[test]
fn every_job_ends() {
    let policy = policy();
    let late = AT + seconds(49 * 3600);
    for notices in notice_sets() {
        let job = job(notices);
        for node in nodes() {
            for membership in memberships() {
                let seen = Observation { node: node.clone(), membership: membership.clone(), ..untouched() };
                let step = step(&job, &seen, &policy, late);
                let ends = step.stage.is_none()
                    || step.goal == Goal::Return
                    || step.actions.iter().any(|action| {
                        matches!(
                            action,
                            Action::Release { .. }
                                | Action::Register(_)
                                | Action::CompleteHook(_)
                                | Action::WriteRecord { .. }
                        )
                    });
                assert!(ends, "{step:#?}\n{job:#?}\n{seen:#?}");
            }
        }
    }
}

/// Invariant 4: in whatever order notices come, the job ends up the same, and no notice loosens the
/// deadline that the others set.
#[test]
fn notices_merge_in_any_order() {
    let policy = policy();
    let seen = untouched();
    let record = notice("record", NoticeKind::Record);
    let all = [hook(), spot(), rebalance(), hook_of("somebody-elses", Passage::Ending), record];
    let deadline = |job: &Job, now| {
        let facts = Facts { job, seen: &seen, policy: &policy, now };
        Deadline::tightest(
            job.notices.iter().filter_map(|notice| (triggers::row(&notice.kind).until)(notice, facts)),
        )
    };
    for now in moments() {
        for a in &all {
            for b in &all {
                for c in &all {
                    let one = job([a.clone(), b.clone(), c.clone(), b.clone()]);
                    let two = job([c.clone(), a.clone(), b.clone()]);
                    assert_eq!(one.notices.len(), two.notices.len(), "copies joined");
                    let steps = [&one, &two].map(|job| {
                        let step = step(job, &seen, &policy, now);
                        (step.stage, step.actions, step.wake_at)
                    });
                    assert_eq!(steps[0], steps[1], "order matters");
                    let alone = job([a.clone()]);
                    let (tight, loose) = (deadline(&one, now), deadline(&alone, now));
                    if let (Some(tight), Some(loose)) = (tight, loose) {
                        assert!(tight.pods <= loose.pods && tight.answer <= loose.answer);
                    }
                }
            }
        }
    }
}
