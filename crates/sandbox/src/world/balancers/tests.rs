use super::*;
use crate::Delays;
use crate::world::instances::Launch;

fn pass(world: &mut World, seconds: u64) {
    world.advance(world.now() + Duration::from_secs(seconds));
}

/// Two running instances and a target group.
fn world(kind: BalancerKind) -> (World, TargetGroupArn, Vec<InstanceId>) {
    let mut world = World::new(Timestamp::from_millis(0), Delays::aws(), 7);
    let launch = Launch {
        zone: Zone::new("eu-west-1a"),
        spot: false,
        group: None,
        cluster: None,
        labels: BTreeMap::new(),
    };
    let mut ids = vec![world.launch(launch.clone()), world.launch(launch)];
    ids.sort();
    pass(&mut world, 90);
    let arn = world.create_target_group("web", kind, 30_080);
    (world, arn, ids)
}

fn state(world: &World, arn: &TargetGroupArn, id: &InstanceId) -> Option<TargetState> {
    world.balancers.get(arn)?.targets.get(&(id.clone(), 30_080)).map(|target| target.state)
}

fn set(world: &mut World, arn: &TargetGroupArn, id: &InstanceId, state: TargetState) {
    let group = world.target_group_mut(arn).unwrap();
    group.targets.get_mut(&(id.clone(), 30_080)).unwrap().state = state;
}

#[test]
fn a_draining_target_gets_new_requests_for_the_propagation_time_and_is_listed_for_the_whole_delay() {
    for (kind, propagation) in [(BalancerKind::Application, 20), (BalancerKind::Network, 120)] {
        let (mut world, arn, ids) = world(kind);
        let keys: Vec<(InstanceId, u16)> = ids.iter().map(|id| (id.clone(), 30_080)).collect();
        world.register_targets(&arn, &keys).unwrap();
        for id in &ids {
            set(&mut world, &arn, id, TargetState::Healthy);
        }
        world.deregister_targets(&arn, &keys[..1]).unwrap();
        pass(&mut world, propagation - 1);
        assert_eq!(world.routes(&arn), keys, "{kind:?}: every balancer node has to hear of it");
        pass(&mut world, 1);
        assert_eq!(world.routes(&arn), keys[1..], "{kind:?}");
        world.deregister_targets(&arn, &keys[..1]).unwrap();
        pass(&mut world, 299 - propagation);
        assert!(matches!(state(&world, &arn, &ids[0]), Some(TargetState::Draining { .. })));
        pass(&mut world, 1);
        assert_eq!(state(&world, &arn, &ids[0]), None, "{kind:?}: a second call does not prolong it");
    }
}

#[test]
fn a_short_deregistration_delay_does_not_shorten_the_propagation() {
    let (mut world, arn, ids) = world(BalancerKind::Network);
    let key = (ids[0].clone(), 30_080);
    world.target_group_mut(&arn).unwrap().deregistration_delay = Duration::ZERO;
    world.register_targets(&arn, std::slice::from_ref(&key)).unwrap();
    world.deregister_targets(&arn, std::slice::from_ref(&key)).unwrap();
    pass(&mut world, 119);
    assert_eq!(state(&world, &arn, &ids[0]), None);
    assert_eq!(world.routes(&arn), [key]);
    pass(&mut world, 1);
    assert!(world.routes(&arn).is_empty());
}

#[test]
fn where_no_target_is_healthy_all_registered_ones_get_requests() {
    let (mut world, arn, ids) = world(BalancerKind::Application);
    let keys: Vec<(InstanceId, u16)> = ids.iter().map(|id| (id.clone(), 30_080)).collect();
    world.register_targets(&arn, &keys).unwrap();
    assert_eq!(world.routes(&arn), keys);
    set(&mut world, &arn, &ids[0], TargetState::Unhealthy);
    set(&mut world, &arn, &ids[1], TargetState::Healthy);
    assert_eq!(world.routes(&arn), keys[1..]);
}

#[test]
fn a_target_needs_its_health_checks_and_a_second_port_is_a_second_target() {
    let (mut world, arn, ids) = world(BalancerKind::Application);
    let (one, two) = ((ids[0].clone(), 30_080), (ids[0].clone(), 30_443));
    world.register_targets(&arn, &[one.clone(), two.clone()]).unwrap();
    let answers = world.target_answers(&ids[0], 30_080);
    let (checks, verdict) = if answers {
        (world.delays.first_health_checks, TargetState::Healthy)
    } else {
        (world.delays.failed_health_checks, TargetState::Unhealthy)
    };
    world.advance(world.now() + checks - Duration::from_millis(1));
    assert_eq!(state(&world, &arn, &ids[0]), Some(TargetState::Initial));
    world.advance(world.now() + Duration::from_millis(1));
    assert_eq!(state(&world, &arn, &ids[0]), Some(verdict));
    world.deregister_targets(&arn, &[one]).unwrap();
    let left = world.balancers.get(&arn).unwrap().targets.get(&two).unwrap();
    assert!(!matches!(left.state, TargetState::Draining { .. }), "id and port are both required");
}

#[test]
fn deregistering_what_is_not_registered_succeeds_and_registering_what_does_not_run_fails() {
    let (mut world, arn, ids) = world(BalancerKind::Application);
    world.deregister_targets(&arn, &[(ids[0].clone(), 1)]).unwrap();
    world.terminate_instance(&ids[0]);
    let refused = world.register_targets(&arn, &[(ids[0].clone(), 30_080)]);
    assert_eq!(refused, Err(Refusal::NotRunning(ids[0].clone())));
    let nowhere = TargetGroupArn::new("arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/x/1");
    assert_eq!(world.deregister_targets(&nowhere, &[]), Err(Refusal::NoTargetGroup));
}

#[test]
fn a_draining_target_can_be_registered_again_and_a_terminated_instance_leaves_the_list() {
    let (mut world, arn, ids) = world(BalancerKind::Application);
    let key = (ids[0].clone(), 30_080);
    world.register_targets(&arn, std::slice::from_ref(&key)).unwrap();
    world.deregister_targets(&arn, std::slice::from_ref(&key)).unwrap();
    world.register_targets(&arn, std::slice::from_ref(&key)).unwrap();
    assert_eq!(state(&world, &arn, &ids[0]), Some(TargetState::Initial));
    pass(&mut world, 400);
    assert!(state(&world, &arn, &ids[0]).is_some(), "the old delay is void");
    world.terminate_instance(&ids[0]);
    pass(&mut world, 20);
    assert_eq!(state(&world, &arn, &ids[0]), None);
}
