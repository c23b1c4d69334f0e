use offramp_core::{BalancerKind, Notice, NoticeKind, Passage, SpotAction};
use serde_json::Value;

use super::*;
use crate::Delays;
use crate::world::balancers::TargetState;
use crate::world::instances::InstanceState;

const QUEUE: &str = "offramp";

fn name() -> GroupName {
    GroupName::new("workers-blue")
}

fn hook(text: &str) -> Hook {
    Hook { heartbeat_timeout: Duration::from_secs(300), ..Hook::terminating(text) }
}

fn spec(hooks: Vec<Hook>) -> GroupSpec {
    let zones = ["eu-west-1a", "eu-west-1b"].map(Zone::new).to_vec();
    GroupSpec {
        name: name(),
        min: 0,
        max: 10,
        desired: 2,
        hooks,
        tags: BTreeMap::new(),
        target_groups: Vec::new(),
        capacity_rebalancing: false,
        template: Template { zones, spot: false, cluster: None, labels: BTreeMap::new() },
    }
}

/// A world whose group has been up for a while.
fn running(change: impl FnOnce(&mut World) -> GroupSpec) -> World {
    let mut world = World::new(Timestamp::from_millis(1_700_000_000_000), Delays::aws(), 7);
    world.create_event_queue(QUEUE, 100);
    let spec = change(&mut world);
    world.create_group(spec);
    pass(&mut world, 600);
    world
}

fn pass(world: &mut World, seconds: u64) {
    world.advance(world.now() + Duration::from_secs(seconds));
}

fn members(world: &World) -> Vec<(InstanceId, MemberState)> {
    let group = world.groups.get(&name()).unwrap();
    group.members.iter().map(|(id, member)| (id.clone(), member.state)).collect()
}

fn state(world: &World, id: &InstanceId) -> Option<MemberState> {
    world.groups.member(&name(), id).map(|member| member.state)
}

fn first(world: &World) -> InstanceId {
    members(world)[0].0.clone()
}

fn events(world: &mut World) -> Vec<Value> {
    let received = world.receive_messages(QUEUE, 100, Some(Duration::from_secs(3_600))).unwrap();
    received.iter().map(|received| serde_json::from_str(&received.message.body).unwrap()).collect()
}

fn answer(event: &Value) -> Answer {
    let detail = &event["detail"];
    Answer {
        group: GroupName::new(detail["AutoScalingGroupName"].as_str().unwrap()),
        hook: HookName::new(detail["LifecycleHookName"].as_str().unwrap()),
        token: Some(HookToken::new(detail["LifecycleActionToken"].as_str().unwrap())),
        instance: None,
    }
}

#[test]
fn members_are_in_service_after_the_launch_delay_spread_over_the_zones() {
    let mut world = World::new(Timestamp::from_millis(0), Delays::aws(), 7);
    world.create_group(spec(Vec::new()));
    assert!(members(&world).iter().all(|(_, state)| *state == MemberState::Pending));
    pass(&mut world, 90);
    assert!(members(&world).iter().all(|(_, state)| *state == MemberState::InService));
    let zones: BTreeSet<Zone> =
        world.groups.get(&name()).unwrap().members.values().map(|member| member.zone.clone()).collect();
    assert_eq!(zones.len(), 2);
}

#[test]
fn a_terminating_member_waits_for_its_hook_and_ends_when_it_is_answered() {
    let mut world = running(|_| {
        spec(vec![Hook { metadata: Some("{\"cluster\":\"blue\"}".to_owned()), ..hook("drain") }])
    });
    world.scale_in(&name(), 1).unwrap();
    let leaving =
        members(&world).into_iter().find(|(_, state)| *state == MemberState::Terminating).unwrap().0;
    pass(&mut world, 1);
    assert_eq!(state(&world, &leaving), Some(MemberState::TerminatingWait));
    assert!(events(&mut world).is_empty(), "the event takes half a second more");
    pass(&mut world, 1);
    let event = events(&mut world).remove(0);
    assert_eq!(event["detail-type"], "EC2 Instance-terminate Lifecycle Action");
    assert_eq!(event["source"], "aws.autoscaling");
    let detail = &event["detail"];
    assert_eq!(detail["EC2InstanceId"], leaving.as_str());
    assert_eq!(detail["LifecycleTransition"], "autoscaling:EC2_INSTANCE_TERMINATING");
    assert_eq!(detail["NotificationMetadata"], "{\"cluster\":\"blue\"}");
    assert_eq!((&detail["Origin"], &detail["Destination"]), (&"AutoScalingGroup".into(), &"EC2".into()));
    assert_eq!(detail["LifecycleActionToken"].as_str().unwrap().len(), 36, "exactly 36 characters");
    assert!(event["resources"][0].as_str().unwrap().ends_with(":autoScalingGroupName/workers-blue"));

    world.complete_action(&answer(&event), ActionResult::Continue).unwrap();
    assert_eq!(state(&world, &leaving), Some(MemberState::TerminatingProceed));
    let again = world.complete_action(&answer(&event), ActionResult::Continue).unwrap_err().to_string();
    let token = detail["LifecycleActionToken"].as_str().unwrap();
    assert_eq!(again, format!("No active Lifecycle Action found with token {token}"));
    pass(&mut world, 1);
    assert!(world.instances.is(&leaving, InstanceState::ShuttingDown));
    pass(&mut world, 20);
    assert!(world.instances.is(&leaving, InstanceState::Terminated));
    assert_eq!(state(&world, &leaving), None);
    assert_eq!(world.groups.describe(&leaving, world.now()), None);
    assert_eq!(members(&world).len(), 1, "desired fell, so nothing replaces it");
}

#[test]
fn every_event_reads_as_the_notice_it_stands_for() {
    let mut world = running(|_| {
        let metadata = Some("{\"cluster\":\"blue\"}".to_owned());
        let spec = spec(vec![Hook { metadata, ..hook("drain") }]);
        GroupSpec { template: Template { spot: true, ..spec.template.clone() }, ..spec }
    });
    let id = first(&world);
    let now = world.now();
    world.rebalance_recommend(&id);
    world.spot_interrupt(&id, SpotAction::Terminate);
    world.terminate_in_group(&id, false).unwrap();
    pass(&mut world, 2);
    let received = world.receive_messages(QUEUE, 10, None).unwrap();
    let notices: Vec<Notice> = received
        .iter()
        .flat_map(|received| match offramp_wire::parse(&received.message.body).unwrap() {
            offramp_wire::Parsed::Notices(notices) => notices,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(notices.iter().all(|notice| notice.instance == id));
    assert!(notices.iter().all(|notice| notice.account_region.account == Some("111122223333".into())));
    assert_eq!(notices[0].kind, NoticeKind::Rebalance);
    assert_eq!(notices[1].kind, NoticeKind::Spot(SpotAction::Terminate));
    assert_eq!(notices[1].at, now, "this world began at a whole second");
    let NoticeKind::Hook(hook) = &notices[2].kind else { panic!("{:?}", notices[2]) };
    assert_eq!(hook.passage, Passage::Ending);
    assert_eq!(hook.cluster_hint, Some("blue".into()));
    assert!(hook.key.token.is_some());
}

#[test]
fn an_action_is_also_found_by_its_instance() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    let id = first(&world);
    let by_instance =
        Answer { group: name(), hook: HookName::new("drain"), token: None, instance: Some(id.clone()) };
    let none = world.heartbeat(&by_instance).unwrap_err().to_string();
    assert_eq!(none, format!("No active Lifecycle Action found with instance ID {id}"));
    world.terminate_in_group(&id, false).unwrap();
    pass(&mut world, 2);
    world.heartbeat(&by_instance).unwrap();
    world.complete_action(&by_instance, ActionResult::Continue).unwrap();
}

#[test]
fn the_instance_is_deregistered_from_attached_target_groups_before_lifecycle_hooks_run() {
    let mut world = running(|world| {
        let arn = world.create_target_group("web", BalancerKind::Application, 30_080);
        GroupSpec { target_groups: vec![arn], ..spec(vec![hook("drain")]) }
    });
    let arn = world.balancers.all().next().unwrap().arn.clone();
    let id = first(&world);
    let target = |world: &World| {
        world.balancers.get(&arn).unwrap().targets.get(&(id.clone(), 30_080)).map(|target| target.state)
    };
    assert!(target(&world).is_some(), "members are registered when they come into service");
    world.terminate_in_group(&id, false).unwrap();
    assert!(matches!(target(&world), Some(TargetState::Draining { .. })));
    pass(&mut world, 300);
    assert_eq!(state(&world, &id), Some(MemberState::Terminating));
    pass(&mut world, 1);
    assert_eq!(target(&world), None);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait));
}

#[test]
fn an_unanswered_hook_ends_with_its_default_result_and_a_heartbeat_extends_it() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    let id = first(&world);
    world.terminate_in_group(&id, true).unwrap();
    pass(&mut world, 2);
    let event = events(&mut world).remove(0);
    pass(&mut world, 290);
    world.heartbeat(&answer(&event)).unwrap();
    pass(&mut world, 299);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait));
    pass(&mut world, 1);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingProceed));
}

#[test]
fn no_heartbeat_extends_a_hook_beyond_100_heartbeat_timeouts() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    let id = first(&world);
    world.terminate_in_group(&id, true).unwrap();
    pass(&mut world, 2);
    let event = events(&mut world).remove(0);
    let mut heartbeats = 0;
    while world.heartbeat(&answer(&event)).is_ok() {
        heartbeats += 1;
        pass(&mut world, 250);
    }
    assert_eq!(heartbeats, 100 * 300 / 250);
    assert_eq!(hook("long").global_timeout(), Duration::from_secs(30_000));
    let longest = Hook { heartbeat_timeout: Duration::from_secs(7_200), ..hook("longest") };
    assert_eq!(longest.global_timeout(), Duration::from_secs(172_800), "48 hours");
}

#[test]
fn with_continue_remaining_hooks_run_and_with_abandon_they_do_not() {
    for (result, held) in [(ActionResult::Continue, true), (ActionResult::Abandon, false)] {
        let mut world = running(|_| spec(vec![hook("drain"), hook("logs")]));
        let id = first(&world);
        world.terminate_in_group(&id, true).unwrap();
        pass(&mut world, 2);
        let events = events(&mut world);
        assert_eq!(events.len(), 2);
        assert_ne!(answer(&events[0]).token, answer(&events[1]).token, "each action has its own token");
        world.complete_action(&answer(&events[0]), result).unwrap();
        assert_eq!(state(&world, &id) == Some(MemberState::TerminatingWait), held, "{result:?}");
        assert_eq!(world.complete_action(&answer(&events[1]), result).is_ok(), held);
        assert_eq!(state(&world, &id), Some(MemberState::TerminatingProceed));
    }
}

#[test]
fn what_is_abandoned_is_retained_where_the_group_says_so() {
    for result in [ActionResult::Continue, ActionResult::Abandon] {
        let mut world = running(|_| spec(vec![hook("drain")]));
        world.groups.retains_abandoned = true;
        let id = first(&world);
        world.terminate_in_group(&id, false).unwrap();
        pass(&mut world, 2);
        let event = events(&mut world).remove(0);
        world.complete_action(&answer(&event), result).unwrap();
        pass(&mut world, 3_600);
        let retained = (result == ActionResult::Abandon).then_some(MemberState::TerminatingRetained);
        assert_eq!(state(&world, &id), retained, "{result:?}");
        if retained.is_some() {
            world.terminate_in_group(&id, false).unwrap();
            pass(&mut world, 600);
            assert_eq!(state(&world, &id), None, "until somebody ends it");
        }
    }
}

/// ASG UG `warm-pool-instance-lifecycle.html`: "Warmed:Pending:Wait", "Warmed:Stopped", and into service again.
#[test]
fn a_scale_in_gives_instances_back_to_the_warm_pool_and_a_scale_out_takes_them_out() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    world.groups.warm_pools.insert(name());
    world.set_desired(&name(), 1).unwrap();
    pass(&mut world, 2);
    let (id, held) = members(&world).into_iter().find(|(_, state)| *state != MemberState::InService).unwrap();
    assert_eq!(held, MemberState::WarmedPendingWait);
    let event = events(&mut world).remove(0);
    assert_eq!(event["detail"]["Destination"], "WarmPool");
    world.complete_action(&answer(&event), ActionResult::Continue).unwrap();
    pass(&mut world, 2);
    assert_eq!(state(&world, &id), Some(MemberState::WarmedStopped));
    assert!(world.instances.is(&id, InstanceState::Stopped));
    world.set_desired(&name(), 2).unwrap();
    pass(&mut world, 120);
    assert_eq!(state(&world, &id), Some(MemberState::InService), "instead of a new one");
    assert_eq!(members(&world).len(), 2);
}

#[test]
fn terminate_without_decrement_launches_a_replacement_and_with_it_desired_falls() {
    for (decrement, members_after) in [(false, 2), (true, 1)] {
        let mut world = running(|_| spec(Vec::new()));
        let id = first(&world);
        world.terminate_in_group(&id, decrement).unwrap();
        pass(&mut world, 120);
        assert_eq!(state(&world, &id), None);
        assert_eq!(members(&world).len(), members_after);
        let again = world.terminate_in_group(&id, false).unwrap_err().to_string();
        assert_eq!(again, format!("Instance Id not found - No managed instance found for instance ID: {id}"));
    }
    let mut world = running(|_| GroupSpec { min: 2, ..spec(Vec::new()) });
    let id = first(&world);
    assert_eq!(world.terminate_in_group(&id, true), Err(Refusal::BelowMinimum(2)));
    assert_eq!(state(&world, &id), Some(MemberState::InService));
}

#[test]
fn a_detached_instance_runs_on_without_hooks_and_is_replaced() {
    let mut world = running(|world| {
        let arn = world.create_target_group("web", BalancerKind::Network, 30_080);
        GroupSpec { target_groups: vec![arn], ..spec(vec![hook("drain")]) }
    });
    let id = first(&world);
    world.detach(&name(), std::slice::from_ref(&id), false).unwrap();
    assert_eq!(state(&world, &id), Some(MemberState::Detaching));
    pass(&mut world, 301);
    assert_eq!(state(&world, &id), None);
    assert!(world.instances.is(&id, InstanceState::Running));
    assert!(world.balancers.all().all(|group| group.targets.keys().all(|(instance, _)| *instance != id)));
    assert!(events(&mut world).is_empty());
    assert_eq!(members(&world).len(), 2);
    let again = world.detach(&name(), std::slice::from_ref(&id), false).unwrap_err().to_string();
    assert_eq!(again, format!("The instance {id} is not part of Auto Scaling group workers-blue."));
}

#[test]
fn a_terminating_instance_cannot_be_detached() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    let id = first(&world);
    world.terminate_in_group(&id, false).unwrap();
    let refused = world.detach(&name(), std::slice::from_ref(&id), false).unwrap_err().to_string();
    assert_eq!(refused, format!("The instance {id} is not in InService or Standby."));
}

#[test]
fn without_capacity_rebalancing_a_spot_member_is_replaced_only_after_it_has_ended() {
    let mut world = running(|_| {
        let spec = spec(vec![hook("drain")]);
        GroupSpec { template: Template { spot: true, ..spec.template.clone() }, ..spec }
    });
    let id = first(&world);
    assert!(world.rebalance_recommend(&id), "the group ignores the recommendation");
    assert!(world.spot_interrupt(&id, SpotAction::Terminate));
    assert!(!world.spot_interrupt(&id, SpotAction::Terminate), "only once");
    pass(&mut world, 119);
    assert!(world.instances.is(&id, InstanceState::Running));
    assert_eq!(state(&world, &id), Some(MemberState::InService));
    assert_eq!(members(&world).len(), 2);
    pass(&mut world, 1);
    assert!(world.instances.is(&id, InstanceState::ShuttingDown), "at 120 s EC2 begins");
    pass(&mut world, 3);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait), "the hook runs late");
    assert!(!world.groups.describe(&id, world.now()).unwrap().healthy);
    assert_eq!(members(&world).len(), 3);
    let events = events(&mut world);
    let types: Vec<&str> = events.iter().map(|event| event["detail-type"].as_str().unwrap()).collect();
    assert_eq!(
        types,
        [
            "EC2 Instance Rebalance Recommendation",
            "EC2 Spot Instance Interruption Warning",
            "EC2 Instance-terminate Lifecycle Action"
        ]
    );
    assert_eq!(events[1]["detail"]["instance-action"], "terminate");
    let zone = &world.instances.get(&id).unwrap().zone;
    assert_eq!(events[1]["resources"][0], format!("arn:aws:ec2:{zone}:instance/{id}"));
    pass(&mut world, 60);
    world.complete_action(&answer(&events[2]), ActionResult::Continue).unwrap();
    pass(&mut world, 1);
    assert_eq!(state(&world, &id), None);
}

#[test]
fn capacity_rebalancing_launches_a_replacement_first_and_may_exceed_the_maximum() {
    let mut world = running(|_| {
        let spec = spec(vec![hook("drain")]);
        let template = Template { spot: true, ..spec.template.clone() };
        GroupSpec { capacity_rebalancing: true, max: 2, template, ..spec }
    });
    let id = first(&world);
    world.rebalance_recommend(&id);
    pass(&mut world, 60);
    assert_eq!(state(&world, &id), Some(MemberState::InService));
    assert_eq!(members(&world).len(), 3);
    pass(&mut world, 33);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait));
}

#[test]
fn with_capacity_rebalancing_a_notice_runs_the_hook_at_once() {
    let mut world = running(|_| {
        let spec = spec(vec![hook("drain")]);
        let template = Template { spot: true, ..spec.template.clone() };
        GroupSpec { capacity_rebalancing: true, template, ..spec }
    });
    let id = first(&world);
    world.spot_interrupt(&id, SpotAction::Terminate);
    pass(&mut world, 2);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait));
    assert_eq!(members(&world).len(), 3);
}

#[test]
fn a_member_terminated_by_hand_gets_its_hook_after_it_is_shut_down() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    let id = first(&world);
    assert!(world.terminate_instance(&id));
    assert!(!world.terminate_instance(&id));
    assert_eq!(state(&world, &id), Some(MemberState::InService), "the group has not noticed");
    pass(&mut world, 2);
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait));
}

#[test]
fn hooks_come_and_go() {
    let mut world = running(|_| spec(Vec::new()));
    assert_eq!(world.delete_hook(&name(), &HookName::new("drain")), Err(Refusal::NoHook("drain".into())));
    world.put_hook(&name(), hook("drain")).unwrap();
    let longer = Hook { heartbeat_timeout: Duration::from_secs(600), ..hook("drain") };
    world.put_hook(&name(), longer.clone()).unwrap();
    world.put_hook(&name(), hook("logs")).unwrap();
    assert_eq!(world.groups.get(&name()).unwrap().spec.hooks, [longer, hook("logs")]);

    let id = first(&world);
    world.terminate_in_group(&id, false).unwrap();
    pass(&mut world, 2);
    world.delete_hook(&name(), &HookName::new("drain")).unwrap();
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingWait), "the other hook holds it");
    world.delete_hook(&name(), &HookName::new("logs")).unwrap();
    assert_eq!(state(&world, &id), Some(MemberState::TerminatingProceed));
}

#[test]
fn describes_may_lag_behind() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    world.groups.describe_lag = Duration::from_secs(5);
    let id = first(&world);
    world.terminate_in_group(&id, false).unwrap();
    let described = |world: &World| world.groups.describe(&id, world.now()).map(|described| described.state);
    pass(&mut world, 4);
    assert_eq!(described(&world), Some(MemberState::InService));
    pass(&mut world, 1);
    assert_eq!(described(&world), Some(MemberState::Terminating));
    pass(&mut world, 1);
    assert_eq!(described(&world), Some(MemberState::TerminatingWait));
}

#[test]
fn desired_stays_between_minimum_and_maximum() {
    let mut world = running(|_| GroupSpec { min: 1, max: 3, ..spec(Vec::new()) });
    let above = world.set_desired(&name(), 4).unwrap_err().to_string();
    assert_eq!(above, "New SetDesiredCapacity value 4 is above max value 3 for the AutoScalingGroup.");
    assert_eq!(world.set_desired(&name(), 0), Err(Refusal::UnderMinimum(0, 1)));
    world.set_desired(&name(), 3).unwrap();
    assert_eq!(members(&world).len(), 3);
    world.set_desired(&name(), 1).unwrap();
    pass(&mut world, 120);
    assert_eq!(members(&world).len(), 1);
}

fn activities(world: &World) -> Vec<(InstanceId, Timestamp, ActivityStatus)> {
    let found = world.groups.activities(Some(&name()), world.now());
    found
        .into_iter()
        .map(|(activity, status)| (activity.instance.clone(), activity.started, status))
        .collect()
}

#[test]
fn a_termination_is_an_activity_from_its_beginning_until_the_instance_has_gone() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    assert_eq!(activities(&world), [], "launches leave none");
    let (id, began) = (first(&world), world.now());
    world.terminate_in_group(&id, false).unwrap();
    assert_eq!(activities(&world), [(id.clone(), began, ActivityStatus::InProgress)]);
    pass(&mut world, 2);
    assert_eq!(activities(&world), [(id.clone(), began, ActivityStatus::MidTerminatingLifecycleAction)]);
    let event = events(&mut world).remove(0);
    world.complete_action(&answer(&event), ActionResult::Continue).unwrap();
    assert_eq!(activities(&world), [(id.clone(), began, ActivityStatus::InProgress)]);
    pass(&mut world, 60);
    assert_eq!(activities(&world), [(id.clone(), began, ActivityStatus::Successful)]);
    let (activity, _) = world.groups.activities(None, world.now())[0];
    assert_eq!(activity.description, format!("Terminating EC2 instance: {id}"));
    assert_eq!(world.groups.activities(Some(&"others".into()), world.now()), []);
}

#[test]
fn the_newest_activity_comes_first_and_a_detached_member_leaves_none() {
    let mut world = running(|_| GroupSpec { desired: 3, ..spec(vec![hook("drain")]) });
    let ids: Vec<InstanceId> = members(&world).into_iter().map(|(id, _)| id).collect();
    world.terminate_in_group(&ids[0], true).unwrap();
    pass(&mut world, 10);
    world.terminate_in_group(&ids[1], true).unwrap();
    world.detach(&name(), &ids[2..], true).unwrap();
    pass(&mut world, 10);
    let order: Vec<InstanceId> = activities(&world).into_iter().map(|(id, ..)| id).collect();
    assert_eq!(order, [ids[1].clone(), ids[0].clone()]);
}

#[test]
fn activities_lag_behind_like_other_describes() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    world.groups.describe_lag = Duration::from_secs(5);
    let id = first(&world);
    world.terminate_in_group(&id, false).unwrap();
    pass(&mut world, 4);
    assert_eq!(activities(&world), []);
    pass(&mut world, 1);
    assert_eq!(activities(&world)[0].2, ActivityStatus::InProgress);
    pass(&mut world, 1);
    assert_eq!(activities(&world)[0].2, ActivityStatus::MidTerminatingLifecycleAction);
}

#[test]
fn old_activities_are_forgotten_and_open_ones_are_not() {
    let mut world = running(|_| spec(vec![hook("drain")]));
    let held = first(&world);
    world.terminate_in_group(&held, false).unwrap();
    let waiting = |id: &InstanceId| Answer {
        group: name(),
        hook: HookName::new("drain"),
        token: None,
        instance: Some(id.clone()),
    };
    for _ in 0..255 {
        // Long enough for the replacement, short enough for the heartbeat.
        pass(&mut world, 98);
        let in_service = members(&world).into_iter().find(|(_, state)| *state == MemberState::InService);
        let (id, _) = in_service.unwrap();
        world.terminate_in_group(&id, false).unwrap();
        pass(&mut world, 2);
        world.complete_action(&waiting(&id), ActionResult::Continue).unwrap();
        world.heartbeat(&waiting(&held)).unwrap();
    }
    pass(&mut world, 60);
    let left = activities(&world);
    let over = left.iter().filter(|(.., status)| *status == ActivityStatus::Successful).count();
    assert_eq!((left.len(), over), (251, 250));
    let (oldest, _, status) = left.last().unwrap();
    assert_eq!((oldest, *status), (&held, ActivityStatus::MidTerminatingLifecycleAction));
}

#[test]
fn the_same_seed_gives_the_same_story() {
    let story = || {
        let mut world = running(|_| spec(vec![hook("drain")]));
        let id = first(&world);
        world.terminate_in_group(&id, false).unwrap();
        pass(&mut world, 1_000);
        world.story.clone()
    };
    assert_eq!(story(), story());
}
