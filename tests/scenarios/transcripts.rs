//! The scenarios, each with its golden transcript under `golden/`.

use offramp_core::{ClusterName, GroupName, SpotAction};
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::{Delays, Fleet};

use super::script::{START, Scene, seconds};

pub(crate) fn golden(name: &str, scene: &mut Scene) {
    let transcript = scene.transcript();
    insta::with_settings!({
        snapshot_path => "golden",
        prepend_module_to_snapshot => false,
        omit_expression => true,
    }, {
        insta::assert_snapshot!(name, transcript);
    });
}

/// Three nodes behind an Application Load Balancer that a controller fills, six pods of a web app with
/// a preStop that covers the balancer.
pub(crate) fn web() -> Fleet {
    Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(Pool::new("workers", 3)).app(web_app())
}

pub(crate) fn web_app() -> App {
    App { min_available: Some(4), entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 6) }
}

fn scale_in(scene: &mut Scene, group: &str) {
    scene.sandbox.with(|world| world.scale_in(&GroupName::new(group), 1)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn scale_in_of_one_node() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("scale_in", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn scale_in_with_an_attached_target_group() {
    // The group itself deregisters and waits for the delay before it calls the hook.
    let entrance = Entrance { attached: true, ..Entrance::new(30_080, 100.0) };
    let fleet = Fleet::new(START, Delays::aws(), 1)
        .cluster("blue")
        .pool(Pool::new("workers", 3))
        .app(App { entrance: Some(entrance), ..web_app() });
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(310)).await;
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("scale_in_attached", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn spot_alone() {
    // No hook at all: the worker detaches the instance, so that its replacement starts at once.
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("spot", 3) };
    let fleet = Fleet::new(START, Delays::aws(), 2).cluster("blue").pool(pool).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(300)).await;
    scene.pass(seconds(150)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("spot_alone", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn spot_then_hook() {
    let fleet =
        Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(400)).await;
    scene.pass(seconds(30)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("spot_then_hook", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn rebalance_then_spot_then_hook() {
    let fleet =
        Fleet::new(START, Delays::aws(), 4).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.rebalance_recommend(&instance));
    scene.pass(seconds(600)).await;
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(400)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("rebalance_then_spot_then_hook", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn rebalance_that_comes_to_nothing() {
    let fleet =
        Fleet::new(START, Delays::aws(), 5).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.rebalance_recommend(&instance));
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(4_000)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("rebalance_that_comes_to_nothing", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn two_clusters_one_of_them_away() {
    let fleet = Fleet::new(START, Delays::aws(), 6)
        .cluster("blue")
        .pool(Pool::new("blue-workers", 3))
        .app(web_app())
        .cluster("green")
        .pool(Pool::new("green-workers", 3))
        .app(App { entrance: Some(Entrance::new(30_081, 100.0)), ..web_app() });
    let mut scene = Scene::new(fleet);
    let green = ClusterName::new("green");
    scene.sandbox.with(|world| world.take_api_server_away(&green, seconds(90)));
    scene.say("the API server of green is away for 90 s");
    scene.start_worker();
    scale_in(&mut scene, "blue-workers");
    scale_in(&mut scene, "green-workers");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(1_200)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("two_clusters", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_hook_is_left_to_its_owner() {
    let mut pool = Pool::new("workers", 3);
    pool.hooks[0].name = "codedeploy".into();
    pool.hooks[0].metadata = Some("arn:aws:codedeploy:deployment/d-1".to_owned());
    pool.hooks[0].heartbeat_timeout = seconds(120);
    let fleet = Fleet::new(START, Delays::aws(), 7).cluster("blue").pool(pool).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(300)).await;
    scene.pass(seconds(200)).await;
    let touched = scene
        .sandbox
        .peek(|world| world.calls.keys().any(|call| call.contains("PATCH") || call.contains("eviction")));
    assert!(!touched);
    golden("foreign_hook", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_gives_way_late() {
    let app = App { min_available: Some(6), ..web_app() };
    let fleet = Fleet::new(START, Delays::aws(), 8).cluster("blue").pool(Pool::new("workers", 3)).app(app);
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(200)).await;
    scene.say("somebody loosens the budget");
    scene.sandbox.with(|world| {
        let blue = world.clusters.get_mut(&ClusterName::new("blue")).unwrap();
        blue.budgets.values_mut().for_each(|budget| budget.min_available = 4);
    });
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("budget_gives_way_late", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_never_ends() {
    let mut app = App::new("stuck", 3);
    app.ending.stuck = true;
    let fleet = Fleet::new(START, Delays::aws(), 9)
        .cluster("blue")
        .pool(Pool::new("workers", 3))
        .app(web_app())
        .app(app);
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(4_000)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("pod_never_ends", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_duplicate_message() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    scene.sandbox.with(|world| world.queues.duplicate_next = 1);
    scale_in(&mut scene, "workers");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("duplicate_message", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_message_that_cannot_be_parsed() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    let body =
        r#"{"source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning", "detail": {}}"#;
    scene.sandbox.with(|world| world.send_message("offramp", body, Default::default(), seconds(0))).unwrap();
    scene.until_done(seconds(60)).await;
    let dead = scene.sandbox.peek(|world| {
        let queue = world.queues.get("offramp-dlq").unwrap();
        queue.messages().map(|message| message.body.clone()).collect::<Vec<_>>()
    });
    assert_eq!(dead, [body]);
    golden("unparseable_message", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn the_api_server_is_away_for_a_minute() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(3)).await;
    scene.say("the API server is away for a minute");
    scene.sandbox.with(|world| world.take_api_server_away(&ClusterName::new("blue"), seconds(60)));
    scene.until_done(seconds(1_200)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("api_server_away", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_in_the_middle() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    scale_in(&mut scene, "workers");
    scene.pass(seconds(4)).await;
    let took = scene.stop_worker().await;
    assert!(took <= seconds(6), "shutdown took {took:?}");
    scene.pass(seconds(20)).await;
    scene.say("another worker starts");
    scene.start_worker();
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("shutdown_in_the_middle", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_hook_of_a_cluster_that_is_not_served_is_never_answered() {
    // Two installations hear of every hook of the account, and both have named the hook `offramp`.
    let fleet = Fleet::new(START, Delays::aws(), 10)
        .cluster("blue")
        .pool(Pool::new("blue-workers", 3))
        .cluster("green")
        .pool(Pool::new("green-workers", 3));
    let mut scene = Scene::new(fleet);
    scene.policy.clusters = [ClusterName::new("green")].into();
    scene.policy.hook_names = ["offramp".into()].into();
    scene.start_worker();
    scale_in(&mut scene, "blue-workers");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(300)).await;
    let transcript = scene.transcript();
    assert!(!transcript.contains("is answered"), "{transcript}");
    assert!(transcript.contains("the instance is in no cluster that this worker serves"), "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn two_workers_with_a_notice_each_leave_no_cordon_behind() {
    let mut scene = Scene::new(
        Fleet::new(START, Delays::aws(), 13).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app()),
    );
    scene.settings.receives = 1;
    scene.settings.permits = 1;
    scene.start_worker();
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    for _ in 0..4 {
        scene.sandbox.with(|world| world.rebalance_recommend(&instance));
        scene.pass(seconds(40)).await;
    }
    scene.until_done(seconds(8_000)).await;
    let left = scene.sandbox.peek(|world| {
        let blue = &world.clusters[&ClusterName::new("blue")];
        blue.nodes.values().filter(|node| node.unschedulable || !node.annotations.is_empty()).count()
    });
    assert_eq!(left, 0, "{}", scene.transcript());
}
