//! What many jobs cost together, and what the metrics say of them.

use offramp_core::SpotAction;
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::{Delays, Fleet, World};

use super::script::{START, Scene, seconds};

const NODES: usize = 120;

/// A storm: every node but one gets its notice at the same moment.
async fn storm(prepare: impl FnOnce(&mut World)) -> Scene {
    let web = App { entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", NODES) };
    let fleet = Fleet::new(START, Delays::aws(), 21).cluster("blue").pool(Pool::spot("spot", NODES)).app(web);
    let mut scene = Scene::new(fleet);
    scene.sandbox.with(prepare);
    scene.start_worker();
    let doomed = scene.instances("spot")[1..].to_vec();
    scene.sandbox.with(|world| {
        for id in &doomed {
            world.spot_interrupt(id, SpotAction::Terminate);
        }
    });
    scene.pass(seconds(25)).await;
    scene
}

#[tokio::test(start_paused = true)]
async fn a_storm_shares_its_calls() {
    let mut scene = storm(|_| ()).await;
    let calls = scene.sandbox.peek(|world| world.calls.clone());
    let count = |call: &str| calls.get(call).copied().unwrap_or_default();
    let jobs = u64::try_from(NODES).unwrap();
    assert!(count("kubernetes.PATCH node") >= jobs - 1, "{calls:#?}");
    // Shared: 50 instances in a call, one read of a target group for everybody, one call for all targets.
    assert!(count("autoscaling.DescribeAutoScalingInstances") <= 15, "{calls:#?}");
    assert!(count("elasticloadbalancing.DescribeTargetHealth") <= 25, "{calls:#?}");
    assert!(count("elasticloadbalancing.DeregisterTargets") <= jobs / 8, "{calls:#?}");
    assert!(count("autoscaling.DescribeLifecycleHooks") <= 2, "{calls:#?}");

    // To the end: two messages for each job, ten of them in a call.
    scene.until_done(seconds(400)).await;
    let calls = scene.sandbox.peek(|world| world.calls.clone());
    let count = |call: &str| calls.get(call).copied().unwrap_or_default();
    assert!(count("sqs.DeleteMessageBatch") <= jobs / 4, "{calls:#?}");
    assert!(count("autoscaling.DescribeAutoScalingInstances") <= jobs / 2, "{calls:#?}");
}

#[tokio::test(start_paused = true)]
async fn nothing_that_is_slow_holds_a_cordon_up() {
    let slow = |world: &mut World| {
        for call in ["autoscaling.DescribeAutoScalingInstances", "kubernetes.POST eviction"] {
            for nth in 1..=300 {
                world.faults.inject(call, nth, Injected::Delay(seconds(8)));
            }
        }
    };
    let mut scene = storm(slow).await;
    let transcript = scene.transcript();
    let isolated = transcript.lines().filter(|line| line.contains("isolated 500ms after the event"));
    assert_eq!(isolated.count(), NODES - 1, "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn a_cordon_that_failed_is_tried_again_while_aws_hangs() {
    let slow = |world: &mut World| {
        for nth in 1..=300 {
            world.faults.inject("autoscaling.DescribeAutoScalingInstances", nth, Injected::Delay(seconds(8)));
        }
        for nth in 1..=u64::try_from(2 * (NODES - 1)).unwrap() {
            world.faults.inject("kubernetes.PATCH node", nth, Injected::Error);
        }
    };
    let mut scene = storm(slow).await;
    let transcript = scene.transcript();
    let isolated = transcript.lines().filter(|line| line.contains("isolated 1s after the event"));
    assert_eq!(isolated.count(), NODES - 1, "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn a_cordon_that_hangs_gives_its_place_to_the_next() {
    let web = App { entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 6) };
    let fleet = Fleet::new(START, Delays::aws(), 23).cluster("blue").pool(Pool::spot("spot", 6)).app(web);
    let mut scene = Scene::new(fleet);
    scene.settings.permits = 1;
    scene.sandbox.with(|world| world.faults.inject("kubernetes.PATCH node", 1, Injected::Delay(seconds(9))));
    scene.start_worker();
    for id in &scene.instances("spot")[..3] {
        scene.sandbox.with(|world| world.spot_interrupt(id, SpotAction::Terminate));
    }
    let cordoned = |world: &World| {
        let blue = world.clusters.values().next().unwrap();
        blue.nodes.values().filter(|node| node.unschedulable).count()
    };
    scene.until("the others are cordoned", seconds(3), |world| cordoned(world) == 2).await;
    scene.until("the one that hung is, too", seconds(12), |world| cordoned(world) == 3).await;
}

#[tokio::test(start_paused = true)]
async fn a_notice_that_joins_a_busy_job_holds_up_no_other() {
    let web = App { entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 12) };
    let fleet = Fleet::new(START, Delays::aws(), 24).cluster("blue").pool(Pool::spot("spot", 6)).app(web);
    let mut scene = Scene::new(fleet);
    scene.settings.permits = 1;
    let doomed = scene.instances("spot")[..2].to_vec();
    scene.sandbox.with(|world| {
        for nth in 1..=20 {
            world.faults.inject("kubernetes.POST eviction", nth, Injected::Delay(seconds(9)));
        }
        world.spot_interrupt(&doomed[0], SpotAction::Terminate);
    });
    scene.start_worker();
    scene
        .until("its evictions hang", seconds(10), |world| {
            world.calls.contains_key("kubernetes.POST eviction")
        })
        .await;
    let before = scene.sandbox.peek(|world| world.now());
    scene.sandbox.with(|world| {
        world.rebalance_recommend(&doomed[0]);
        world.spot_interrupt(&doomed[1], SpotAction::Terminate);
    });
    let cordoned = |world: &World| {
        let blue = world.clusters.values().next().unwrap();
        blue.nodes.values().filter(|node| node.unschedulable).count()
    };
    scene.until("the other is cordoned", seconds(3), |world| cordoned(world) == 2).await;
    assert!(scene.sandbox.peek(|world| world.now()) < before + seconds(3));
}

#[tokio::test(start_paused = true)]
async fn metrics_have_closed_labels_and_are_there_from_the_start() {
    let mut scene = Scene::new(
        Fleet::new(START, Delays::aws(), 22)
            .cluster("blue")
            .pool(Pool::spot("spot", 3))
            .app(App { entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 6) }),
    );
    scene.start_worker();
    let names = |text: &str| -> Vec<String> {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
    };
    scene.pass(seconds(1)).await;
    let before = scene.metrics();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(400)).await;
    let after = scene.metrics();
    assert_eq!(names(&before), names(&after), "a series appeared with its first event");
    for secret in [instance.as_str(), "web-", "token"] {
        assert!(!after.contains(secret), "{secret} is in the metrics\n{after}");
    }
    for line in [
        r#"offramp_notices_total{trigger="spot"} 1"#,
        r#"offramp_notices_total{trigger="hook"} 1"#,
        r#"offramp_jobs_finished_total{cluster="blue",outcome="left",trigger="hook"} 1"#,
        r#"offramp_time_left_seconds_count{cluster="blue",trigger="hook"} 1"#,
        r#"offramp_stage_seconds_count{stage="quiesce"} 1"#,
        r#"offramp_queue_connected 1"#,
        r#"offramp_deregistrations_total{balancer="application",outcome="done"} 1"#,
        r#"offramp_actions_total{action="isolate",outcome="done"} 2"#,
        r#"offramp_actions_total{action="complete_hook",outcome="done"} 1"#,
        r#"offramp_isolation_seconds_count{cluster="blue",trigger="spot"} 1"#,
        r#"offramp_jobs{cluster="blue",stage="complete"} 0"#,
    ] {
        assert!(after.lines().any(|have| have == line), "{line} is missing in\n{after}");
    }
}
