//! The gate counts on nobody who may leave, by each witness alone. Of two targets one goes, and the other one serves, for all
//! that its balancer says.

use offramp_core::{InstanceId, SpotAction};
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::Pool;
use offramp_sandbox::world::cluster::{EXCLUDE_LABEL, NamedMachine};

use super::more_reports::{scale_in_all, two_serve};
use super::reports::rename;
use super::script::{Scene, seconds};

/// The group ends both, and the event about the other one is lost.
#[tokio::test(start_paused = true)]
async fn whom_the_group_ends_is_not_counted_on() {
    let mut scene = two_serve(Pool::new("workers", 2)).await;
    let members = scene.instances("workers");
    scene.sandbox.with(|world| world.queues.lose_next = 1);
    scale_in_all(&mut scene, &members[1..], seconds(3)).await;
    scene.start_worker();
    scale_in_all(&mut scene, &members[..1], seconds(20)).await;
    assert_held(&mut scene, &members[0]).await;
}

/// A spot notice for the other one. A policy refuses every change of the nodes, so that no record says that it leaves; its
/// group does not know, and its deregistration fails.
#[tokio::test(start_paused = true)]
async fn whose_job_is_here_is_not_counted_on() {
    let mut scene = two_serve(Pool::spot("workers", 2)).await;
    let members = scene.instances("workers");
    scene.start_worker();
    scene.sandbox.with(|world| {
        for call in
            ["elasticloadbalancing.DeregisterTargets", "autoscaling.TerminateInstanceInAutoScalingGroup"]
        {
            world.faults.always(call, Some(Injected::Error));
        }
        world.clusters.get_mut(&"blue".into()).unwrap().nodes_vetoed = Some("no".to_owned());
        world.spot_interrupt(&members[1], SpotAction::Terminate);
    });
    scene.pass(seconds(3)).await;
    // Half a minute later it goes on without a cordon.
    scale_in_all(&mut scene, &members[..1], seconds(60)).await;
    assert!(is_held(&scene, &members[0]).await, "{}", scene.transcript());
}

/// Two Ready Nodes name the other one: whether its machine is closed already, nobody knows.
#[tokio::test(start_paused = true)]
async fn whose_node_nobody_knows_is_not_counted_on() {
    let mut scene = two_serve(Pool::new("workers", 3)).await;
    let members = scene.instances("workers");
    rename(&mut scene, 2, NamedMachine::Other(members[1].clone()));
    let arn = scene.settings.target_groups[0].clone();
    scene.sandbox.with(|world| {
        let group = world.target_group_mut(&arn).unwrap();
        group.targets.retain(|(instance, _), _| *instance != members[2]);
    });
    scene.start_worker();
    scale_in_all(&mut scene, &members[..1], seconds(20)).await;
    assert_held(&mut scene, &members[0]).await;
}

/// Isolated, and held back: no label says that its targets may be taken out.
async fn assert_held(scene: &mut Scene, instance: &InstanceId) {
    let text = scene.transcript();
    let (cordoned, labelled) = scene.sandbox.peek(|world| {
        let node = world.clusters[&"blue".into()].node_of(instance).unwrap();
        (node.unschedulable, node.labels.contains_key(EXCLUDE_LABEL))
    });
    assert_eq!((cordoned, labelled), (true, false), "{text}");
    assert!(is_held(scene, instance).await, "{text}");
}

async fn is_held(scene: &Scene, instance: &InstanceId) -> bool {
    let jobs = scene.jobs().await;
    jobs.iter().any(|job| job.instance == *instance && job.reason.starts_with("holding back"))
}
