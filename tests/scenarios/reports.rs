//! Worlds from public bug reports, in which one witness contradicts another. Each names its report; the right
//! value stands in the assertions.

use std::collections::BTreeMap;

use offramp_core::{GroupName, InstanceId, NodeName, SpotAction, Timestamp};
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{Ending, NamedMachine, NodePatch, WorkloadKind};
use offramp_sandbox::world::groups::Hook;
use offramp_sandbox::{Delays, Fleet, World};

use super::crashes::leaving;
use super::script::{START, Scene, seconds};

/// A group of three with one terminate hook of 90 s, pods without a balancer in front of them.
pub(crate) fn workers(apps: impl IntoIterator<Item = App>) -> Fleet {
    let hook = Hook { heartbeat_timeout: seconds(90), ..Hook::terminating("offramp") };
    let pool = Pool { hooks: vec![hook], ..Pool::new("workers", 3) };
    let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool);
    apps.into_iter().fold(fleet, Fleet::app)
}

pub(crate) fn scale_in(scene: &mut Scene) -> InstanceId {
    scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
    scene.sandbox.peek(leaving).expect("an instance that leaves")
}

pub(crate) fn answers(scene: &mut Scene) -> usize {
    scene.transcript().matches("is answered with CONTINUE").count()
}

fn evictions_of(scene: &mut Scene, app: &str) -> usize {
    scene.transcript().matches(&format!("pod default/{app}")).count()
}

pub(crate) fn outcomes(scene: &Scene, outcome: &str) -> bool {
    scene.metrics().lines().any(|line| {
        line.starts_with("offramp_jobs_finished_total")
            && line.contains(&format!("outcome=\"{outcome}\""))
            && line.ends_with(" 1")
    })
}

/// Report 01, PrairieLearn/PrairieLearn#15586: "No active Lifecycle Action found" while the group holds the instance.
#[tokio::test(start_paused = true)]
async fn complete_refused_once() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    scene.start_worker();
    let instance = scale_in(&mut scene);
    scene
        .until("the pods have left", seconds(80), |world| {
            let cluster = &world.clusters[&"blue".into()];
            let node = cluster.node_of(&instance).map(|node| node.name.clone());
            node.is_some_and(|node| cluster.pods_of_node(&node).all(|pod| pod.labels["app"] != "web"))
        })
        .await;
    scene.sandbox.with(|world| world.groups.refused_calls = 1);
    scene.until_done(seconds(60)).await;
    let text = scene.transcript();
    assert!(text.contains("AWS refuses the answer while the group holds the instance"), "{text}");
    assert_eq!(answers(&mut scene), 1, "{text}");
    assert!(!text.contains("has timed out"), "{text}");
    assert!(outcomes(&scene, "left"), "{text}");
}

/// The same for every heartbeat of a long drain: nothing is forced, and the message waits.
#[tokio::test(start_paused = true)]
async fn heartbeat_refused_once() {
    let slow = App {
        ending: Ending { pre_stop: seconds(0), takes: Some(seconds(70)), stuck: false },
        grace: seconds(120),
        ..App::new("web", 3)
    };
    let mut scene = Scene::new(workers([slow]));
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(2)).await;
    scene.sandbox.with(|world| world.groups.refused_calls = 1);
    scene.until_done(seconds(200)).await;
    let text = scene.transcript();
    assert!(text.contains("heartbeat for hook offramp: refused, no active action"), "{text}");
    assert!(text.contains("gets a heartbeat"), "sent again: {text}");
    assert!(!text.contains("delete default/web"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "left")), (1, true), "{text}");
}

/// An action that ends behind our back, while every call is refused: it ends, and is not called `left`.
#[tokio::test(start_paused = true)]
async fn a_hook_that_never_takes_our_answer_is_no_success() {
    let mut scene = Scene::new(workers([]));
    scene.sandbox.with(|world| world.groups.refused_calls = u32::MAX);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(100)).await;
    scene.until_done(seconds(300)).await;
    let text = scene.transcript();
    assert!(text.contains("has timed out"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "ended_without_our_answer")), (0, true), "{text}");
}

/// Report 04, cilium/cilium#28549, cilium/tetragon#3484: a pod that tolerates everything comes back to the cordoned node.
#[tokio::test(start_paused = true)]
async fn pod_that_comes_back_to_the_cordoned_node() {
    let operator = App { tolerates_all: true, ..App::new("operator", 3) };
    let mut scene = Scene::new(workers([App::new("web", 3), operator]));
    scene.policy.hook_limit = seconds(180);
    scene.start_worker();
    let instance = scale_in(&mut scene);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    assert!(evictions_of(&mut scene, "operator") <= 5, "{text}");
    assert!(text.contains("came back to the node that it was evicted from, and is not waited for"), "{text}");
    assert!(!text.contains("the deadline has come") && !text.contains("delete default/"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "left")), (1, true), "{text}");
    let metrics = scene.metrics();
    assert!(metrics.contains("offramp_pods_not_waited_for_total{why=\"came_back\"} 1"), "{metrics}");
    assert!(scene.running_pods_on(&instance) <= 1, "{text}");
}

/// The same by the controller of a DaemonSet that the configuration names.
#[tokio::test(start_paused = true)]
async fn ingress_daemon_set_is_evicted_once() {
    let ingress = App { kind: WorkloadKind::DaemonSet, ..App::new("ingress", 0) };
    let mut scene = Scene::new(workers([App::new("web", 3), ingress]));
    let named = offramp_core::IngressDaemonSet { namespace: "default".into(), name: "ingress".into() };
    scene.policy.ingress_daemon_sets.insert(named);
    scene.policy.hook_limit = seconds(180);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    assert_eq!(text.matches("evict default/ingress").count(), 1, "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "left")), (1, true), "{text}");
}

/// What a webhook keeps in the scenarios below.
pub(crate) fn kafka() -> App {
    App { kind: WorkloadKind::StatefulSet { replicas: 3 }, ..App::new("kafka", 3) }
}

fn refuse_evictions(scene: &Scene) {
    scene.sandbox.with(|world| {
        let cluster = world.clusters.get_mut(&"blue".into()).unwrap();
        for ordinal in 0..3 {
            let pod = ("default".to_owned(), format!("kafka-{ordinal}"));
            cluster.vetoes.insert(pod, "rolled by the operator".to_owned());
        }
    });
}

/// The webhook lets no pod of it go, not even at the deadline.
pub(crate) fn let_none_go(scene: &Scene) {
    refuse_evictions(scene);
    scene.sandbox.with(|world| world.clusters.get_mut(&"blue".into()).unwrap().vetoes_deletions = true);
}

/// Report 06, strimzi/drain-cleaner#121, Azure/AKS#4720: a webhook refuses, and its operator moves the pod itself.
#[tokio::test(start_paused = true)]
async fn webhook_denies_evictions() {
    let mut scene = Scene::new(workers([App::new("web", 3), kafka()]));
    refuse_evictions(&scene);
    scene.start_worker();
    let instance = scale_in(&mut scene);
    scene.pass(seconds(35)).await;
    let held = scene.sandbox.with(|world| {
        let cluster = &world.clusters[&"blue".into()];
        let node = cluster.node_of(&instance).unwrap().name.clone();
        let pods = cluster.pods_of_node(&node).filter(|pod| pod.labels["app"] == "kafka");
        let names: Vec<String> = pods.map(|pod| pod.pod.name.clone()).collect();
        for name in &names {
            world.delete_pod(&"blue".into(), "default", name, None, None).unwrap();
        }
        names
    });
    assert_eq!(held.len(), 1, "the stage has a pod to move");
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    let refusals = text.matches("an admission webhook or policy refuses; asked again until").count();
    assert_eq!(refusals, 1, "one line, not one each five seconds: {text}");
    assert!(text.contains("1 refused, 1 of them by an admission webhook or policy"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "left")), (1, true), "{text}");
    let metrics = scene.metrics();
    assert!(metrics.contains("offramp_actions_total{action=\"evict\",outcome=\"denied\"} 0"), "{metrics}");
    let events = scene.sandbox.peek(|world| {
        let events = &world.clusters[&"blue".into()].events;
        events.iter().map(|event| format!("{} {}", event.reason, event.note)).collect::<Vec<_>>()
    });
    assert_eq!(events.iter().filter(|event| event.starts_with("EvictionRefused ")).count(), 1, "{events:#?}");
    assert!(!events.iter().any(|event| event.starts_with("ActionDenied ")), "{events:#?}");
}

/// KusionStack/kuperator#134, kyverno/kyverno#943: the webhook refuses the deletion at the deadline as well.
#[tokio::test(start_paused = true)]
async fn webhook_denies_deletions() {
    let mut scene = Scene::new(workers([kafka()]));
    let_none_go(&scene);
    scene.start_worker();
    let instance = scene.instances("workers")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(150)).await;
    scene.until_done(seconds(150)).await;
    let text = scene.transcript();
    let deletions = text.matches("delete default/kafka").count();
    // From the last start of a grace of 30 s, 45 s before the end, every 2 s.
    assert!((5..=30).contains(&deletions), "{deletions} deletions: {text}");
}

/// Report 12, terraform-aws-modules/terraform-aws-autoscaling: NotificationMetadata as JSON, or with blanks around it. On a
/// spot notice our own hook on the group is ours all the same, so that the replacement starts at once.
#[tokio::test(start_paused = true)]
async fn metadata_as_json() {
    for metadata in ["blue", "{\"cluster\":\"blue\",\"team\":\"shop\"}", " blue\n"] {
        let hook = Hook {
            metadata: Some(metadata.to_owned()),
            heartbeat_timeout: seconds(300),
            ..Hook::terminating("drain-it")
        };
        let pool = Pool { hooks: vec![hook], ..Pool::spot("workers", 3) };
        let app = App { entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 3) };
        let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(app));
        scene.start_worker();
        let instance = scene.instances("workers")[0].clone();
        scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
        scene.pass(seconds(10)).await;
        let text = scene.transcript();
        assert!(text.contains("terminate through workers"), "{metadata:?}: {text}");
        assert!(!text.contains("detach from"), "{metadata:?}: {text}");
    }
}

/// A dead-letter queue that never answers: notices go on being isolated at once, and what cannot be read waits in a
/// lane with an end.
#[tokio::test(start_paused = true)]
async fn dead_letter_queue_that_hangs() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    scene.sandbox.with(|world| {
        for nth in 1..400 {
            world.faults.inject("sqs.SendMessage", nth, Injected::Delay(seconds(3_600)));
        }
        for number in 0..80 {
            let body = format!("no notice, {number}");
            world.send_message("offramp", &body, BTreeMap::new(), seconds(0)).unwrap();
        }
    });
    scene.start_worker();
    scene.pass(seconds(20)).await;
    let instance = scene.instances("workers")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    let node = |world: &World| world.clusters[&"blue".into()].node_of(&instance).unwrap().clone();
    scene.until("the node is cordoned", seconds(2), |world| node(world).unschedulable).await;
    scene.pass(seconds(120)).await;
    let metrics = scene.metrics();
    let postponed = metrics.lines().find(|line| line.starts_with("offramp_dead_letters_postponed_total "));
    assert!(postponed.is_some_and(|line| !line.ends_with(" 0")), "{metrics}");
    // Told to stop, it does not wait for the queue: four calls have ten seconds each, side by side.
    assert!(scene.stop_worker().await < seconds(20));
}

/// A message of a later version that reads the same queue during an upgrade: it is left for that one.
#[tokio::test(start_paused = true)]
async fn message_of_a_later_version() {
    let mut scene = Scene::new(workers([]));
    let body = r#"{"source":"offramp","detail-type":"Cordoned node","detail":{"version":2}}"#;
    scene.sandbox.with(|world| world.send_message("offramp", body, BTreeMap::new(), seconds(0)).unwrap());
    scene.start_worker();
    scene.pass(seconds(100)).await;
    let (left, dead) = scene.sandbox.peek(|world| {
        let count = |queue: &str| world.queues.get(queue).map_or(0, |queue| queue.messages().count());
        (count("offramp"), count("offramp-dlq"))
    });
    assert_eq!((left, dead), (1, 0));
    let metrics = scene.metrics();
    let line = metrics.lines().find(|line| line.starts_with("offramp_messages_of_later_version_total "));
    let seen: u32 = line.unwrap().rsplit(' ').next().unwrap().parse().unwrap();
    assert!((2..=5).contains(&seen), "once each visibility of 30 s, and not without a pause: {seen}");
}

/// Report 03, kubernetes/autoscaler#6128, aws/containers-roadmap#1811: the Node object is deleted, and its machine
/// serves on. Balancers and pods get their time.
#[tokio::test(start_paused = true)]
async fn node_object_deleted_while_held() {
    let slow = App {
        ending: Ending { pre_stop: seconds(5), takes: Some(seconds(25)), stuck: false },
        grace: seconds(60),
        entrance: Some(Entrance { deregistration_delay: Some(seconds(10)), ..Entrance::new(30_080, 20.0) }),
        ..App::new("web", 3)
    };
    let mut scene = Scene::new(workers([slow]));
    scene.start_worker();
    let instance = scale_in(&mut scene);
    scene.until("the first eviction", seconds(60), |world| told(world, "is evicted").is_some()).await;
    let node =
        scene.sandbox.peek(|world| world.clusters[&"blue".into()].node_of(&instance).unwrap().name.clone());
    scene.sandbox.with(|world| world.delete_node(&"blue".into(), &node));
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    assert!(text.contains("the node was deleted, waiting"), "{text}");
    let at = |what: &str| scene.sandbox.peek(|world| told(world, what)).expect(what);
    let answer = at("is answered with CONTINUE");
    assert!(answer.since(at("is deregistered")) >= seconds(30), "the propagation of an ALB: {text}");
    assert!(answer.since(at("is deleted by hand")) >= seconds(60), "the grace of its pods: {text}");
    assert!((scene.lost(), outcomes(&scene, "left")) == (0.0, true), "{text}");
}

/// kubernetes/autoscaler#6128: the Node was deleted before its instance was told to go, so that nobody knows what runs
/// there. And eks-node never registered: the same.
#[tokio::test(start_paused = true)]
async fn no_node_for_a_living_instance() {
    let web = App { entrance: Some(Entrance::new(30_080, 20.0)), ..App::new("web", 3) };
    let mut scene = Scene::new(workers([web]));
    let gone = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| {
        let node = world.clusters[&"blue".into()].node_of(&gone).unwrap().name.clone();
        world.delete_node(&"blue".into(), &node);
    });
    scene.start_worker();
    scene.sandbox.with(|world| world.terminate_in_group(&gone, true)).unwrap();
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(800)).await;
    let text = scene.transcript();
    assert!(text.contains("the instance runs and no cluster has a node for it"), "{text}");
    let at = |what: &str| scene.sandbox.peek(|world| told(world, what)).expect(what);
    assert!(at("is answered with CONTINUE").since(at("Terminating:Wait")) >= seconds(600), "{text}");
    assert!(outcomes(&scene, "answered_unseen"), "{text}");
}

/// Report 05, kubernetes/autoscaler#2930, aws/karpenter-provider-aws#1166: the kubelet is dead, the group calls the instance
/// healthy, and its pods never leave the API.
#[tokio::test(start_paused = true)]
async fn dead_kubelet_healthy_instance() {
    let stuck =
        App { ending: Ending { pre_stop: seconds(0), takes: None, stuck: true }, ..App::new("web", 3) };
    let mut scene = Scene::new(workers([stuck]));
    scene.policy.hook_limit = seconds(180);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    assert!(text.contains("is there a minute after its grace"), "{text}");
    assert!(text.contains("answering the hook with 1 pod left that came back or cannot end"), "{text}");
    assert!(!text.contains("the deadline has come") && !text.contains("delete default/"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "left")), (1, true), "{text}");
    let metrics = scene.metrics();
    assert!(metrics.contains("offramp_pods_not_waited_for_total{why=\"overdue\"} 1"), "{metrics}");
}

/// Report 20, kubernetes/kubectl#1568: an admission policy refuses every change of a node. It goes on without, loudly.
#[tokio::test(start_paused = true)]
async fn cordon_refused_for_good() {
    let web = App { entrance: Some(Entrance::new(30_080, 20.0)), ..App::new("web", 3) };
    let mut scene = Scene::new(workers([web]));
    scene.policy.hook_limit = seconds(120);
    let words = "nodes are changed by Terraform only";
    scene.sandbox.with(|world| {
        world.clusters.get_mut(&"blue".into()).unwrap().nodes_vetoed = Some(words.to_owned());
    });
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(150)).await;
    let text = scene.transcript();
    assert!(text.contains("is deregistered from blue-web"), "{text}");
    let evictions =
        text.lines().filter(|line| line.contains("pod default/web") && line.ends_with("is evicted"));
    assert!((1..=2).contains(&evictions.count()), "{text}");
    let patches = scene.sandbox.peek(|world| world.calls["kubernetes.PATCH node"]);
    assert!((5..=10).contains(&patches), "tried again with growing pauses, {patches} times: {text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "unisolated")), (1, true), "{text}");
    let events = scene.sandbox.peek(|world| {
        let events = &world.clusters[&"blue".into()].events;
        events.iter().filter(|event| event.reason == "IsolationRefused" && event.note.contains(words)).count()
    });
    assert_eq!(events, 1, "{text}");
}

/// Report 02, k3s-io/k3s#935, aws/aws-node-termination-handler#618: nodes that do not say which instance they are. The hook
/// is kept, and the reason says why.
#[tokio::test(start_paused = true)]
async fn node_without_aws_provider_id() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    scene.policy.hook_limit = seconds(400);
    rename(&mut scene, 0, NamedMachine::None);
    rename(&mut scene, 1, NamedMachine::None);
    scene.start_worker();
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(120)).await;
    let reasons: Vec<String> = scene.jobs().await.into_iter().map(|job| job.reason).collect();
    assert_eq!(reasons, ["waiting: it may be one of 2 nodes without an instance in their providerID"]);
    scene.until_done(seconds(400)).await;
    let text = scene.transcript();
    let at = |what: &str| scene.sandbox.peek(|world| told(world, what)).expect(what);
    assert!(at("is answered with CONTINUE").since(at("Terminating:Wait")) >= seconds(380), "{text}");
    assert!(outcomes(&scene, "answered_unseen"), "{text}");
}

/// The same for a spot notice, which names no cluster: it ends with its time, and says that nobody was sure.
#[tokio::test(start_paused = true)]
async fn spot_notice_that_may_be_ours() {
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("workers", 3) };
    let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool));
    rename(&mut scene, 0, NamedMachine::None);
    rename(&mut scene, 1, NamedMachine::None);
    scene.start_worker();
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(165)).await;
    assert!(!outcomes(&scene, "foreign"), "{}", scene.transcript());
    scene.pass(seconds(40)).await;
    assert!(outcomes(&scene, "foreign_unsure"), "{}", scene.transcript());
}

/// aws/karpenter-provider-aws#7029 and images with a providerID in them: two Ready nodes name one instance. None is touched.
#[tokio::test(start_paused = true)]
async fn two_ready_nodes_for_one_instance() {
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("workers", 3) };
    let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(App::new("web", 3));
    let mut scene = Scene::new(fleet);
    let instance = scene.instances("workers").remove(0);
    rename(&mut scene, 1, NamedMachine::Other(instance.clone()));
    scene.start_worker();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(100)).await;
    let reasons: Vec<String> = scene.jobs().await.into_iter().map(|job| job.reason).collect();
    assert_eq!(reasons, ["waiting: 2 Ready nodes name this instance in their providerID"]);
    let touched = |world: &World| {
        let nodes = world.clusters[&"blue".into()].nodes.values();
        nodes.filter(|node| node.unschedulable || !node.annotations.is_empty()).count()
    };
    // The machine that the notice speaks of ends, and its node is the first to be not Ready: the other one is not its.
    scene.pass(seconds(60)).await;
    assert_eq!(scene.sandbox.peek(touched), 0, "{}", scene.transcript());
    scene.pass(seconds(60)).await;
    let text = scene.transcript();
    assert!(!text.contains("is evicted") && outcomes(&scene, "twins"), "{text}");
}

/// One of them is not Ready: an object of an earlier machine that nobody has deleted.
#[tokio::test(start_paused = true)]
async fn an_older_node_object_of_the_same_instance() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    let instance = scene.instances("workers").remove(0);
    let older = rename(&mut scene, 1, NamedMachine::Other(instance.clone()));
    scene.sandbox.with(|world| world.kill_kubelet(&"blue".into(), &older));
    scene.start_worker();
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(200)).await;
    assert!(outcomes(&scene, "left"), "{}", scene.transcript());
}

/// Report 10, SUSE/caasp-salt#338, awesomenix/drainsafe#1: a person has cordoned the node before. The record goes, and the cordon
/// stays, in the log too.
#[tokio::test(start_paused = true)]
async fn cordon_of_an_admin_stays() {
    let pool = Pool::spot("workers", 3);
    let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool));
    scene.policy.patience = seconds(20);
    let instance = scene.instances("workers").remove(0);
    let node = |world: &World| world.clusters[&"blue".into()].node_of(&instance).unwrap().clone();
    scene.sandbox.with(|world| {
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        world.patch_node(&"blue".into(), &node(world).name, patch).unwrap();
    });
    scene.start_worker();
    scene.sandbox.with(|world| world.rebalance_recommend(&instance));
    scene.pass(seconds(5)).await;
    assert!(scene.sandbox.peek(|world| node(world).annotations.contains_key("offramp.sh/record")));
    scene.until_done(seconds(60)).await;
    let (after, text) = (scene.sandbox.peek(|world| node(world)), scene.transcript());
    assert!(after.unschedulable && after.annotations.is_empty(), "{text}");
    assert!(text.contains("worker  i-a  forget") && !text.contains("uncordon"), "{text}");
}

/// The providerID of the node of an instance of the group `workers` says something else.
pub(super) fn rename(scene: &mut Scene, index: usize, names: NamedMachine) -> NodeName {
    let instance = scene.instances("workers").remove(index);
    scene.sandbox.with(|world| {
        let node = world.clusters[&"blue".into()].node_of(&instance).unwrap().name.clone();
        world.rename_machine(&"blue".into(), &node, names);
        node
    })
}

/// When something was told for the first time.
pub(crate) fn told(world: &World, what: &str) -> Option<Timestamp> {
    world.story.iter().find(|(_, line)| line.contains(what)).map(|(at, _)| *at)
}
