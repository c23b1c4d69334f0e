//! Reads of AWS that are slow, fail or are old, and what follows all the same.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{InstanceId, SpotAction, Timestamp};
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::groups::Hook;
use offramp_sandbox::{Delays, Fleet, World};

use super::independence::first_eviction;
use super::more_reports::scale_in_all;
use super::reports::{answers, outcomes, told};
use super::script::{START, Scene, seconds};
use super::transcripts::web_app;

/// Such nodes behind a target group that drains within ten seconds.
fn scene_of(nodes: usize) -> Scene {
    let entrance = Entrance { deregistration_delay: Some(seconds(10)), ..Entrance::new(30_080, 20.0) };
    let web = App { entrance: Some(entrance), ..App::new("web", 6) };
    Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(Pool::new("workers", nodes)).app(web))
}

fn always(scene: &Scene, calls: &str, injected: Injected) {
    scene.sandbox.with(|world| world.faults.always(calls, Some(injected)));
}

fn late(millis: u64) -> Injected {
    Injected::LateAnswer(Duration::from_millis(millis))
}

/// Since the beginning.
fn at(scene: &Scene, what: &str) -> Option<Duration> {
    scene.sandbox.peek(|world: &World| told(world, what).map(|at| at.since(START)))
}

/// The message of a spot notice that nothing comes of, from then.
fn spot_notice(scene: &Scene, instance: &InstanceId, action: &str, noticed: Timestamp) {
    let time = jiff::Timestamp::from_millisecond(noticed.as_millis()).unwrap();
    let body = serde_json::json!({
        "version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602", "source": "aws.ec2",
        "detail-type": "EC2 Spot Instance Interruption Warning", "account": "111122223333",
        "region": "eu-west-1", "time": time.to_string(), "resources": [],
        "detail": { "instance-id": instance.as_str(), "instance-action": action },
    });
    let send =
        |world: &mut World| world.send_message("offramp", &body.to_string(), BTreeMap::new(), Duration::ZERO);
    scene.sandbox.with(send).unwrap();
}

/// kubernetes-sigs/aws-load-balancer-controller#1871, keikoproj/lifecycle-manager#35: AWS answers each read some seconds late.
/// What follows from it follows a few seconds later, and not at the deadline.
#[tokio::test(start_paused = true)]
async fn reads_that_take_seconds_delay_a_removal_by_seconds() {
    let mut wrong = Vec::new();
    for calls in [
        "autoscaling",
        "elasticloadbalancing",
        "autoscaling.DescribeAutoScalingInstances",
        "autoscaling.DescribeAutoScalingGroups",
        "elasticloadbalancing.DescribeTargetHealth",
        "elasticloadbalancing.DescribeTargetGroups",
    ] {
        for millis in [1_000, 2_400, 2_600, 4_000, 9_000] {
            let mut scene = scene_of(6);
            always(&scene, calls, late(millis));
            scene.start_worker();
            for id in &scene.instances("workers")[..2] {
                scene.sandbox.with(|world| world.terminate_in_group(id, true)).unwrap();
            }
            scene.pass(seconds(600)).await;
            let answered = at(&scene, "is answered with CONTINUE").is_some_and(|at| at <= seconds(120));
            if !answered || scene.lost() > 0.0 || answers(&mut scene) != 2 {
                wrong.push((calls, millis));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Two facts of one job that are read out of step never become recent together; several jobs share their readings.
#[tokio::test(start_paused = true)]
async fn reads_that_are_out_of_step_hold_no_job_up() {
    for (apart, instances, health) in [(700, 1_300, 1_300), (1_000, 2_000, 2_000), (1_300, 2_600, 9_000)] {
        let mut scene = scene_of(5);
        scene.start_worker();
        always(&scene, "autoscaling.DescribeAutoScalingInstances", late(instances));
        always(&scene, "elasticloadbalancing.DescribeTargetHealth", late(health));
        let members = scene.instances("workers");
        scale_in_all(&mut scene, &members[..3], Duration::from_millis(apart)).await;
        scene.pass(seconds(300)).await;
        assert_eq!(answers(&mut scene), 3, "{apart} {instances} {health}: {}", scene.transcript());
        let reads = scene.sandbox.peek(|world| world.calls["elasticloadbalancing.DescribeTargetHealth"]);
        assert!(reads <= 40, "{apart} {instances} {health}: {reads}");
    }
}

/// All is done when the reads become slow, and the hook has half a minute left.
#[tokio::test(start_paused = true)]
async fn an_answer_does_not_wait_for_slow_reads_past_its_hook() {
    for millis in [3_000, 60_000] {
        let hook = Hook { heartbeat_timeout: seconds(60), ..Hook::terminating("offramp") };
        let mut scene = first_eviction(hook).await;
        always(&scene, "autoscaling.DescribeAutoScalingInstances", late(millis));
        scene.pass(seconds(60)).await;
        assert_eq!(answers(&mut scene), 1, "{millis}: {}", scene.transcript());
        assert!(at(&scene, "has timed out").is_none(), "{millis}: {}", scene.transcript());
    }
}

/// The replacement of a spot instance starts as soon as its group has been read.
#[tokio::test(start_paused = true)]
async fn a_replacement_while_reads_take_seconds() {
    for millis in [1_000, 2_600, 5_000] {
        let fleet = Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::spot("spot", 3));
        let mut scene = Scene::new(fleet.app(App::new("web", 3)));
        always(&scene, "autoscaling.DescribeAutoScalingInstances", late(millis));
        scene.start_worker();
        let instance = scene.instances("spot").remove(0);
        scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
        scene.pass(seconds(119)).await;
        let begun = at(&scene, "is Terminating in spot");
        assert!(begun.is_some_and(|at| at <= seconds(20)), "{millis}: {begun:?}: {}", scene.transcript());
    }
}

/// Pods behind a Service whose traffic is local wait for the balancers, and for nothing that Auto Scaling says.
#[tokio::test(start_paused = true)]
async fn pods_that_wait_for_the_balancers_do_not_wait_for_auto_scaling() {
    for millis in [0, 2_600, 9_000] {
        let entrance = Entrance { local: true, ..Entrance::new(30_080, 100.0) };
        let web = App { entrance: Some(entrance), ..App::new("web", 6) };
        let fleet = Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::spot("spot", 3)).app(web);
        let mut scene = Scene::new(fleet);
        scene.start_worker();
        always(&scene, "autoscaling.DescribeAutoScalingInstances", late(millis));
        let instance = scene.instances("spot").remove(0);
        scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
        scene.pass(seconds(100)).await;
        let first = at(&scene, "is evicted");
        assert!(first.is_some_and(|at| at <= seconds(31)), "{millis}: {first:?}");
    }
}

/// keikoproj/lifecycle-manager#35: target health cannot be read for as long as the hook lasts. The pods do not wait for it, the
/// label takes the node out in time, and nobody says that nothing was left.
#[tokio::test(start_paused = true)]
async fn target_health_that_is_throttled_to_the_end() {
    for (throttled, limit) in [
        ("DescribeTargetHealth", 300),
        ("DescribeTargetHealth", 1_500),
        ("DescribeTargetGroups", 300),
        ("DescribeTargetGroups", 1_500),
    ] {
        let web = App { entrance: Some(Entrance::new(30_080, 20.0)), ..App::new("web", 6) };
        let fleet =
            Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(Pool::new("workers", 6)).app(web);
        let mut scene = Scene::new(fleet);
        scene.policy.hook_limit = seconds(limit);
        always(&scene, &format!("elasticloadbalancing.{throttled}"), Injected::Throttle);
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
        scene.pass(seconds(20)).await;
        assert!(at(&scene, "is evicted").is_some(), "{}", scene.transcript());
        scene.pass(seconds(limit + 100)).await;
        let told = (scene.lost(), answers(&mut scene), outcomes(&scene, "left_unfinished"));
        assert_eq!(told, (0.0, 1, true), "{throttled} {limit}: {}", scene.transcript());
        assert!(scene.transcript().contains("1 target group unread"), "{}", scene.transcript());
    }
}

/// aws/aws-node-termination-handler#616, kube-aws#1799: what Auto Scaling says cannot be read at all, and it takes heartbeats.
/// The limit of the hook goes on: the pods leave by their budgets, and the hook has its answer in time.
#[tokio::test(start_paused = true)]
async fn a_group_that_cannot_be_read_to_the_end() {
    for (calls, how) in [
        ("autoscaling.DescribeAutoScalingInstances", Injected::Denied),
        ("autoscaling.DescribeAutoScalingInstances", Injected::Throttle),
        ("autoscaling.DescribeAutoScalingGroups", Injected::Denied),
        ("autoscaling.DescribeLifecycleHooks", Injected::Denied),
    ] {
        let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(Pool::new("workers", 3));
        let mut scene = Scene::new(fleet.app(App::new("web", 3)));
        scene.policy.hook_limit = seconds(600);
        always(&scene, calls, how.clone());
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
        scene.pass(seconds(610)).await;
        let text = scene.transcript();
        assert!(at(&scene, "is answered with CONTINUE").is_some(), "{calls} {how:?}: {text}");
        assert!(at(&scene, "is evicted").is_some(), "{calls} {how:?}: {text}");
    }
}

/// The same role, and spot notices: the nodes are drained and taken out. Whether their groups have other target groups nobody
/// knows, and the outcome says so.
#[tokio::test(start_paused = true)]
async fn spot_without_any_permission_for_auto_scaling() {
    let web = App { entrance: Some(Entrance::new(30_080, 20.0)), ..App::new("web", 3) };
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("spot", 3) };
    let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(web));
    always(&scene, "autoscaling", Injected::Denied);
    scene.start_worker();
    let instance = scene.instances("spot").remove(0);
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(20)).await;
    assert_eq!(scene.running_pods_on(&instance), 0, "{}", scene.transcript());
    scene.until_done(seconds(600)).await;
    let text = scene.transcript();
    assert!(text.contains("is deregistered from blue-web"), "{text}");
    assert_eq!((scene.lost(), outcomes(&scene, "left_unfinished")), (0.0, true), "{text}");
}

/// kubernetes/autoscaler#10149: what Auto Scaling describes is most of a minute old, and shows the instance in service while its
/// hook is open. What it says counts when it was asked a minute after the event.
#[tokio::test(start_paused = true)]
async fn a_group_that_is_described_as_it_was() {
    for lag in [30, 50, 52, 58] {
        let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(Pool::new("workers", 3));
        let mut scene = Scene::new(fleet.app(App::new("web", 3)));
        scene.sandbox.with(|world| world.groups.describe_lag = seconds(lag));
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
        scene.pass(seconds(400)).await;
        let text = scene.transcript();
        assert!(!text.contains("is uncordoned") && !text.contains("has timed out"), "{lag}: {text}");
        assert_eq!(answers(&mut scene), 1, "{lag}: {text}");
    }
}

/// A spot notice that came so late that its end passes a moment after we have taken the target out: the node still works, and
/// gets its target back. A reading from before our call shows it registered, and the call itself may be under way.
#[tokio::test(start_paused = true)]
async fn a_target_that_was_just_taken_out_is_put_back() {
    for (before, deregisters_in) in [(6, 0), (3, 9_900)] {
        let pool = Pool { capacity_rebalancing: true, ..Pool::spot("spot", 3) };
        let entrance = Entrance { attached: true, ..Entrance::new(30_080, 100.0) };
        let web = App { entrance: Some(entrance), ..App::new("web", 6) };
        let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(pool).app(web));
        scene.start_worker();
        let instance = scene.instances("spot").remove(0);
        let blue = |world: &World| world.clusters[&"blue".into()].node_of(&instance).unwrap().clone();
        // Its kubelet writes its status every five minutes: once is three minutes after the notice, to the second.
        let mut renewed = scene.sandbox.peek(blue).created;
        while renewed < START + seconds(200) {
            renewed = renewed + seconds(300);
        }
        let noticed = renewed - seconds(180);
        scene.pass(renewed.since(scene.sandbox.now()) - seconds(before)).await;
        let slow = Injected::Delay(Duration::from_millis(deregisters_in));
        always(&scene, "elasticloadbalancing.DeregisterTargets", slow);
        spot_notice(&scene, &instance, "terminate", noticed);
        scene.pass(seconds(120)).await;
        let text = scene.transcript();
        assert!(text.contains("is deregistered from") && text.contains("is uncordoned"), "{before}: {text}");
        let is_registered = scene.sandbox.peek(|world| {
            world.balancers.all().all(|group| world.routes(&group.arn).iter().any(|(id, _)| *id == instance))
        });
        assert!(is_registered && scene.jobs().await.is_empty(), "{before}: {text}");
    }
}

/// A node that is silent after a spot notice with `stop` is waited for by its watch: AWS has nothing to say meanwhile.
#[tokio::test(start_paused = true)]
async fn what_waits_for_a_watch_alone_does_not_ask_aws() {
    let pool = Pool { capacity_rebalancing: true, hooks: Vec::new(), ..Pool::spot("spot", 3) };
    let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(pool).app(web_app()));
    scene.start_worker();
    let instance = scene.instances("spot").remove(0);
    spot_notice(&scene, &instance, "stop", START);
    scene.pass(seconds(100)).await;
    scene.sandbox.with(|world| {
        let now = world.now();
        let blue = world.clusters.get_mut(&"blue".into()).unwrap();
        let name = blue.node_of(&instance).unwrap().name.clone();
        let node = blue.nodes.get_mut(&name).unwrap();
        (node.ready, node.ready_since) = (false, now);
    });
    scene.pass(seconds(3_400)).await;
    let reads = scene.sandbox.peek(|world| world.calls["autoscaling.DescribeAutoScalingInstances"]);
    assert!(reads <= 40, "{reads} in an hour");
}
