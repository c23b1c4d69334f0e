//! Watches that are late, as they are under a storm: what the worker sees is a few seconds old, and what it
//! writes meets the world as it is.

use std::collections::BTreeMap;

use offramp_core::{ClusterName, InstanceId, SpotAction};
use offramp_sandbox::fleet::Pool;
use offramp_sandbox::world::cluster::{Node, NodePatch, ViewLag};
use offramp_sandbox::world::events::{SPOT_WARNING, TERMINATE_ACTION};
use offramp_sandbox::world::groups::MemberState;
use offramp_sandbox::{Delays, Fleet, World};
use serde_json::json;

use super::script::{START, Scene, seconds};
use super::transcripts::{golden, web, web_app};

fn be_late(scene: &mut Scene, nodes: u64, pods: u64) {
    scene.say(&format!("the watch of nodes is {nodes} s late, that of pods {pods} s"));
    let view_lag = ViewLag { nodes: seconds(nodes), pods: seconds(pods) };
    scene.sandbox.with(|world| world.clusters.values_mut().for_each(|cluster| cluster.view_lag = view_lag));
}

fn node_of(scene: &Scene, instance: &InstanceId) -> Node {
    let blue = ClusterName::new("blue");
    scene.sandbox.peek(|world| world.clusters[&blue].node_of(instance).unwrap().clone())
}

/// A controller writes to a node what nobody here cares about; it makes a new resourceVersion.
fn label(scene: &mut Scene, instance: &InstanceId, value: &str) {
    let node = node_of(scene, instance).name;
    scene.say(&format!("a controller labels {node}"));
    let labels = BTreeMap::from([("example.com/seen".to_owned(), Some(value.to_owned()))]);
    let patch = NodePatch { labels, ..NodePatch::default() };
    scene.sandbox.with(|world| world.patch_node(&ClusterName::new("blue"), &node, patch)).unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_watch_is_three_seconds_late() {
    // Spot, then the hook, while a controller writes to the node: just before each of them, so that the
    // record meets another version than the worker sees, and after the cordon.
    let fleet =
        Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::spot("spot", 3)).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.start_worker();
    be_late(&mut scene, 3, 3);
    let instance = scene.instances("spot")[0].clone();
    label(&mut scene, &instance, "before");
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    let cordoned = |world: &World| {
        world.clusters[&ClusterName::new("blue")].node_of(&instance).is_some_and(|node| node.unschedulable)
    };
    scene.until("the node is cordoned", seconds(10), cordoned).await;
    scene.pass(seconds(1)).await;
    label(&mut scene, &instance, "after");
    let held = |world: &World| {
        let group = world.groups.get(&"spot".into()).unwrap();
        group.members.get(&instance).is_some_and(|member| member.state == MemberState::TerminatingWait)
    };
    scene.until("the hook holds the instance", seconds(20), held).await;
    label(&mut scene, &instance, "later");
    scene.until_done(seconds(400)).await;
    scene.pass(seconds(30)).await;
    assert_eq!(scene.lost(), 0.0);
    golden("watch_is_late", &mut scene);
}

#[tokio::test(start_paused = true)]
async fn a_scale_in_that_is_seen_late_is_complete() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    be_late(&mut scene, 3, 4);
    scene.sandbox.with(|world| world.scale_in(&"workers".into(), 1)).unwrap();
    let leaving = scene.sandbox.peek(super::crashes::leaving).expect("an instance that leaves");
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    assert_eq!(scene.running_pods_on(&leaving), 0);
    assert_eq!(scene.transcript().matches("is answered with CONTINUE").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_the_watch_shows_after_the_settling_is_waited_for() {
    // The scheduler binds it in the moment of the cordon, and the watch of pods is forty seconds late.
    let mut scene = Scene::new(web());
    scene.start_worker();
    be_late(&mut scene, 0, 40);
    scene.sandbox.with(|world| world.scale_in(&"workers".into(), 1)).unwrap();
    let leaving = scene.sandbox.peek(super::crashes::leaving).expect("an instance that leaves");
    let is_cordoned = |world: &World| {
        world.clusters[&ClusterName::new("blue")].node_of(&leaving).is_some_and(|node| node.unschedulable)
    };
    scene.until("the node is cordoned", seconds(10), is_cordoned).await;
    scene.add_pod(&leaving, "default", "late");
    scene.until_done(seconds(900)).await;
    assert_eq!(scene.lost(), 0.0);
    assert_eq!(scene.running_pods_on(&leaving), 0);
    let transcript = scene.transcript();
    let answered = transcript.find("is answered with CONTINUE").expect("an answer");
    let evicted = transcript.find("evict default/late").expect("it is evicted");
    assert!(evicted < answered, "{transcript}");
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_no_watch_shows_is_drained_from_a_list() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    let instance = scene.instances("workers")[0].clone();
    let missed = scene.add_pod(&instance, "default", "missed");
    let cluster = |world: &mut World| world.clusters.get_mut(&"blue".into()).unwrap().miss_pod(missed);
    scene.sandbox.with(cluster);
    scene.sandbox.with(|world| world.terminate_in_group(&instance, false)).unwrap();
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(900)).await;
    let transcript = scene.transcript();
    let answered = transcript.find("is answered with CONTINUE").expect("an answer");
    let evicted = transcript.find("evict default/missed").expect("it is evicted");
    assert!(evicted < answered, "{transcript}");
    assert_eq!(scene.running_pods_on(&instance), 0);
}

#[tokio::test(start_paused = true)]
async fn a_claim_that_ends_before_its_cordon_is_seen_leaves_nothing_behind() {
    // A hook that the group knows nothing of allows the cordon for a minute. The cordon is possible only
    // at the end of that minute, and the watch shows it when the claim is over.
    let mut scene = Scene::new(web());
    scene.start_worker();
    be_late(&mut scene, 3, 0);
    let instance = scene.instances("workers")[0].clone();
    let hook = json!({
        "LifecycleActionToken": "00000000-0000-4000-8000-000000000001",
        "AutoScalingGroupName": "workers",
        "LifecycleHookName": "offramp",
        "EC2InstanceId": instance.as_str(),
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "NotificationMetadata": "blue",
    });
    scene.sandbox.with(|world| {
        world.take_api_server_away(&ClusterName::new("blue"), seconds(58));
        world.emit_event("aws.autoscaling", TERMINATE_ACTION, &[], &hook);
    });
    scene.pass(seconds(59)).await;
    assert!(node_of(&scene, &instance).unschedulable, "{}", scene.transcript());
    scene.until_done(seconds(120)).await;
    let node = node_of(&scene, &instance);
    assert!(!node.unschedulable && node.annotations.is_empty(), "{node:?}\n{}", scene.transcript());
}

/// Launches one more instance, without a node so far.
fn launch(scene: &mut Scene) -> InstanceId {
    let before = scene.instances("spot");
    scene.sandbox.with(|world| world.set_desired(&"spot".into(), before.len() + 1)).unwrap();
    let mut new = scene.instances("spot").into_iter().filter(|instance| !before.contains(instance));
    new.next().expect("a new instance")
}

fn spot(nodes: usize) -> Fleet {
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("spot", nodes) };
    Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(pool).app(web_app())
}

fn cordoned(instance: &InstanceId) -> impl FnMut(&World) -> bool + '_ {
    |world| world.clusters[&"blue".into()].node_of(instance).is_some_and(|node| node.unschedulable)
}

#[tokio::test(start_paused = true)]
async fn a_node_that_joins_after_its_notice_is_isolated() {
    // A node joins 90 s after its launch. No cluster knows it when the notice comes, and each can prove that.
    let mut scene = Scene::new(spot(3));
    scene.start_worker();
    let instance = launch(&mut scene);
    scene.pass(seconds(50)).await;
    let detail = json!({ "instance-id": instance.as_str(), "instance-action": "terminate" });
    scene.sandbox.with(|world| world.emit_event("aws.ec2", SPOT_WARNING, &[], &detail));
    scene.until("the node is cordoned", seconds(45), cordoned(&instance)).await;
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_shown_after_the_hold_is_isolated() {
    // The node joined ten seconds before its notice, and the watch is later than a notice is held that nobody knows.
    let mut scene = Scene::new(spot(3));
    scene.start_worker();
    let instance = launch(&mut scene);
    be_late(&mut scene, 95, 0);
    scene.pass(seconds(100)).await;
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.until("the node is cordoned", seconds(100), cordoned(&instance)).await;
}
