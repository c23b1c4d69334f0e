//! What does not need a source does not wait for it (invariant 19).

use offramp_core::SpotAction;
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Pool};
use offramp_sandbox::world::groups::Hook;
use offramp_sandbox::{Delays, Fleet, World};

use super::reports::{answers, outcomes, told};
use super::script::{START, Scene, seconds};
use super::transcripts::web_app;

/// Every read of Auto Scaling is throttled from now on.
fn throttle_reads(world: &mut World) {
    for call in ["DescribeAutoScalingInstances", "DescribeAutoScalingGroups"] {
        world.faults.always(&format!("autoscaling.{call}"), Some(Injected::Throttle));
    }
}

#[tokio::test(start_paused = true)]
async fn configured_target_groups_are_deregistered_while_auto_scaling_is_throttled() {
    let fleet =
        Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    scene.sandbox.with(throttle_reads);
    let instance = scene.instances("spot").remove(0);
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    let leaves = |world: &World| told(world, "is deregistered from").is_some();
    scene.until("the target leaves", seconds(5), leaves).await;
    scene.pass(seconds(100)).await;
    assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{}", scene.transcript());
}

#[tokio::test(start_paused = true)]
async fn a_hook_outlives_a_restart_while_auto_scaling_is_throttled() {
    let hook = Hook { heartbeat_timeout: seconds(60), ..Hook::terminating("offramp") };
    let pool = Pool { hooks: vec![hook], ..Pool::new("workers", 3) };
    let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(10)).await;
    scene.kill_worker().await;
    scene.sandbox.with(throttle_reads);
    scene.start_worker();
    scene.pass(seconds(600)).await;
    assert!(scene.sandbox.peek(|world| told(world, "has timed out").is_none()), "{}", scene.transcript());
    scene.sandbox.with(|world| world.faults = offramp_sandbox::faults::Faults::default());
    scene.until_done(seconds(600)).await;
    assert_eq!((answers(&mut scene), scene.lost()), (1, 0.0), "{}", scene.transcript());
    assert!(outcomes(&scene, "left"), "{}", scene.transcript());
}

/// A node leaves by this hook, and its first pod has just been evicted.
pub(super) async fn first_eviction(hook: Hook) -> Scene {
    let pool = Pool { hooks: vec![hook], ..Pool::new("workers", 3) };
    let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(App::new("web", 3));
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.until("the first eviction", seconds(10), |world| told(world, "is evicted").is_some()).await;
    scene
}

/// What was read of the group is old when the rest is done, and nothing newer is to be had: every call takes a minute. The answer
/// waits for one that fails, and for no second one (seed 21169).
#[tokio::test(start_paused = true)]
async fn an_answer_waits_once_for_reads_that_hang() {
    let mut scene = first_eviction(Hook::terminating("offramp")).await;
    let hangs = Some(Injected::Delay(seconds(60)));
    scene.sandbox.with(|world| world.faults.always("autoscaling.DescribeAutoScalingInstances", hangs));
    let answered = |world: &World| told(world, "is answered with CONTINUE").is_some();
    scene.until("the hook is answered", seconds(30), answered).await;
}

/// Auto Scaling takes eight seconds for each read, and the pods are asked to go in the moment in which the
/// cordon shows.
#[tokio::test(start_paused = true)]
async fn the_pods_of_a_spot_node_are_evicted_while_auto_scaling_is_slow() {
    let fleet =
        Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let slow = Some(Injected::Delay(seconds(8)));
    scene.sandbox.with(|world| world.faults.always("autoscaling.DescribeAutoScalingInstances", slow));
    let instance = scene.instances("spot").remove(0);
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    let evicted = |world: &World| told(world, "is evicted").is_some();
    scene.until("the first eviction", seconds(1), evicted).await;
}

/// Invariant 13: five deletions may have ten seconds each, and nobody waits for them in a shutdown.
#[tokio::test(start_paused = true)]
async fn a_stop_does_not_wait_for_a_queue_that_hangs() {
    let fleet =
        Fleet::new(START, Delays::aws(), 4).cluster("blue").pool(Pool::new("workers", 4)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instances = scene.instances("workers");
    scene.sandbox.with(|world| world.terminate_in_group(&instances[0], true)).unwrap();
    scene.pass(seconds(200)).await;
    scene.sandbox.with(|world| world.terminate_in_group(&instances[1], true)).unwrap();
    scene.pass(seconds(5)).await;
    scene.sandbox.with(|world| world.faults.always("sqs", Some(Injected::Delay(seconds(3_600)))));
    let answered = |world: &World| told(world, "is answered with CONTINUE").is_some();
    scene.until("the first hook is answered", seconds(600), answered).await;
    scene.pass(seconds(5)).await;
    // One message is being deleted, the other is to be handed back.
    assert_eq!(scene.jobs().await.len(), 2, "{}", scene.transcript());
    let took = scene.stop_worker().await;
    // A receive has ten seconds to fail, the hand-over has five.
    assert!(took <= seconds(15), "shutdown took {took:?}");
}
