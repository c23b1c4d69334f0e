//! Public bug reports that nobody had tried here. Each names its report; the right value stands in the assertions.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{InstanceId, NodeName, PodRef, RebalancePolicy};
use offramp_engine::RECORD_ANNOTATION;
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::balancers::TargetState;
use offramp_sandbox::world::cluster::{EXCLUDE_LABEL, Ending, NodePatch, Pod, WorkloadKind};
use offramp_sandbox::world::groups::Hook;
use offramp_sandbox::{Delays, Fleet, World};

use super::reports::{answers, outcomes, scale_in, told, workers};
use super::script::{START, Scene, seconds};

/// kubernetes/kubernetes#80389, kubernetes/kubernetes#72320, berops/claudie#1508: of two pods behind one budget, one does
/// not become ready on this node. The budget lets that one go as soon as enough others are ready, and the other
/// one when its successor is. Who asks for the ready one alone waits for ever.
#[tokio::test(start_paused = true)]
async fn the_pod_that_is_not_ready_is_the_one_that_its_budget_lets_go() {
    let web = App { min_available: Some(5), ..App::new("web", 6) };
    let mut scene = Scene::new(workers([web]));
    scene.policy.hook_limit = seconds(600);
    let (instance, other) = (scene.instances("workers").remove(0), scene.instances("workers").remove(1));
    let (own, elsewhere) = (pods_on(&scene, &instance, "web"), pods_on(&scene, &other, "web"));
    let [ready, unready] = &own[..] else { panic!("two pods on each node: {own:?}") };
    set_ready(&scene, unready, false);
    set_ready(&scene, &elsewhere[0], false);
    scene.start_worker();
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(60)).await;
    assert!(!scene.transcript().contains("is evicted"), "four of five are ready: {}", scene.transcript());
    set_ready(&scene, &elsewhere[0], true);
    scene.until_done(seconds(200)).await;
    let text = scene.transcript();
    let evicted = |pod: &PodRef| {
        let line = format!("pod default/{} is evicted", pod.name);
        scene.sandbox.peek(|world| told(world, &line)).expect(&line)
    };
    assert!(evicted(unready) < evicted(ready), "{text}");
    assert!(!text.contains("delete default/web"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "left")), (1, true), "{text}");
}

/// strimzi/drain-cleaner#121, Azure/AKS#4720: a webhook judges each pod by itself. That it refuses one of a StatefulSet says
/// nothing about the next.
#[tokio::test(start_paused = true)]
async fn a_webhook_that_lets_the_second_of_two_pods_go() {
    let kafka = App { kind: WorkloadKind::StatefulSet { replicas: 6 }, ..App::new("kafka", 6) };
    let mut scene = Scene::new(workers([kafka]));
    scene.policy.hook_limit = seconds(600);
    let instance = scene.instances("workers").remove(0);
    let own = pods_on(&scene, &instance, "kafka");
    let [_, second] = &own[..] else { panic!("two pods on each node: {own:?}") };
    let key = |pod: &PodRef| (pod.namespace.clone(), pod.name.clone());
    scene.sandbox.with(|world| {
        let vetoes = &mut world.clusters.get_mut(&"blue".into()).unwrap().vetoes;
        vetoes.extend(own.iter().map(|pod| (key(pod), "rolled by the operator".to_owned())));
    });
    scene.start_worker();
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(60)).await;
    scene.sandbox.with(|world| world.clusters.get_mut(&"blue".into()).unwrap().vetoes.remove(&key(second)));
    let line = format!("pod default/{} is evicted", second.name);
    scene.until(&line, seconds(90), |world| told(world, &line).is_some()).await;
}

/// NVIDIA/gpu-operator#304, NVIDIA/gpu-operator#536: a controller takes every cordon off at once. What is done again without
/// progress is done less often each time, and the hook is answered.
#[tokio::test(start_paused = true)]
async fn a_controller_that_takes_every_cordon_off() {
    let slow = App {
        ending: Ending { pre_stop: seconds(0), takes: Some(seconds(100)), stuck: false },
        grace: seconds(120),
        ..App::new("web", 6)
    };
    let mut scene = Scene::new(workers([slow]));
    scene.policy.hook_limit = seconds(600);
    scene.start_worker();
    let instance = scale_in(&mut scene);
    for _ in 0..300 {
        scene.pass(seconds(1)).await;
        if let Some(node) = scene.sandbox.peek(|world| cordoned(world, &instance)) {
            let patch = NodePatch { unschedulable: Some(false), ..NodePatch::default() };
            scene.sandbox.with(|world| world.patch_node(&"blue".into(), &node, patch)).unwrap();
        }
    }
    scene.until_done(seconds(400)).await;
    let text = scene.transcript();
    let patches = scene.sandbox.peek(|world| world.calls["kubernetes.PATCH node"]);
    assert!(patches <= 20, "{patches} patches: {text}");
    let evictions =
        text.lines().filter(|line| line.contains("pod default/web") && line.ends_with("is evicted")).count();
    assert!(evictions <= 4, "two pods, and each of their like once more: {text}");
    assert_eq!(answers(&mut scene), 1, "{text}");
    assert!(!text.contains("has timed out"), "{text}");
}

/// HubSpot/Baragon#369: the last two targets of a group leave at once, and each counts on the other. The cordon of the
/// first is slow: the second sees no record on its node, and takes its own target out. What the first read of the
/// balancer before that is no witness that the second still serves.
#[tokio::test(start_paused = true)]
async fn the_last_two_targets_do_not_count_on_each_other() {
    let mut scene = two_serve(Pool::new("workers", 2)).await;
    let slow = Injected::Delay(Duration::from_millis(1_500));
    scene.sandbox.with(|world| world.faults.inject("kubernetes.PATCH node", 1, slow));
    scene.start_worker();
    let members = scene.instances("workers");
    scale_in_all(&mut scene, &members, Duration::from_millis(500)).await;
    scene.pass(seconds(30)).await;
    assert_eq!(taken_out(&scene, &members), 1, "{}", scene.transcript());
}

/// aws/aws-node-termination-handler#331, kubernetes/kops#17230: a tool empties the node, deletes it, and then ends the
/// instance through its group. This worker saw the node, and that nothing was left on it: there is nothing to wait ten
/// minutes for, and nobody to be alarmed.
#[tokio::test(start_paused = true)]
async fn a_node_that_was_emptied_and_deleted_before_its_instance_goes() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    scene.start_worker();
    scene.pass(seconds(5)).await;
    let instance = scene.instances("workers").remove(0);
    let pods = pods_on(&scene, &instance, "web");
    let node = scene.sandbox.with(|world| {
        let node = world.clusters[&"blue".into()].node_of(&instance).unwrap().name.clone();
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        world.patch_node(&"blue".into(), &node, patch).unwrap();
        for pod in &pods {
            world.delete_pod(&"blue".into(), &pod.namespace, &pod.name, None, None).unwrap();
        }
        node
    });
    scene.pass(seconds(30)).await;
    assert_eq!(scene.running_pods_on(&instance), 0, "{}", scene.transcript());
    scene.sandbox.with(|world| world.delete_node(&"blue".into(), &node));
    scene.pass(seconds(5)).await;
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(200)).await;
    let text = scene.transcript();
    assert_eq!((answers(&mut scene), outcomes(&scene, "answered_unseen")), (1, false), "{text}");
    let at = |what: &str| scene.sandbox.peek(|world| told(world, what)).expect(what);
    let took = at("is answered with CONTINUE").since(at("Terminating:Wait"));
    assert!(took <= seconds(2), "nobody waits for a proof of what was seen: {text}");
}

/// aws/aws-node-termination-handler#272: nobody was there for eleven minutes. Both hooks are older than the gate's limit
/// when they are received, and the gate has held neither of them back for a moment.
#[tokio::test(start_paused = true)]
async fn a_backlog_that_is_older_than_the_gate_is_still_asked() {
    let hook = Hook { heartbeat_timeout: seconds(1_800), ..Hook::terminating("offramp") };
    let mut scene = two_serve(Pool { hooks: vec![hook], ..Pool::new("workers", 2) }).await;
    let members = scene.instances("workers");
    scale_in_all(&mut scene, &members, seconds(5)).await;
    scene.pass(seconds(660)).await;
    scene.start_worker();
    scene.pass(seconds(60)).await;
    assert_eq!(taken_out(&scene, &members), 1, "{}", scene.transcript());
}

/// awslabs/aws-secure-environment-accelerator#772: no target is healthy, so that the balancer sends to all of them. The last one
/// that is registered is the last one that serves.
#[tokio::test(start_paused = true)]
async fn the_last_target_of_a_group_that_fails_open() {
    let mut scene = two_serve(Pool::new("workers", 2)).await;
    let arn = scene.settings.target_groups[0].clone();
    scene.sandbox.with(|world| {
        let group = world.target_group_mut(&arn).unwrap();
        group.targets.values_mut().for_each(|target| target.state = TargetState::Unhealthy);
    });
    scene.start_worker();
    let members = scene.instances("workers");
    scale_in_all(&mut scene, &members, Duration::from_millis(500)).await;
    scene.pass(seconds(60)).await;
    assert_eq!(taken_out(&scene, &members), 1, "{}", scene.transcript());
}

/// kubeovn/kube-ovn#376: a controller replaces all annotations of a node. That the cordon is ours is not forgotten with them.
#[tokio::test(start_paused = true)]
async fn a_record_that_is_wiped_off_leaves_no_cordon_behind() {
    for wiped_at in [60, 1_195] {
        let pool = Pool::spot("workers", 3);
        let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool));
        scene.policy.rebalance = RebalancePolicy::Isolate;
        scene.policy.patience = seconds(1_200);
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.rebalance_recommend(&instance));
        scene.pass(seconds(wiped_at)).await;
        let node = scene.sandbox.peek(|world| cordoned(world, &instance)).expect("it is cordoned");
        scene.sandbox.with(|world| {
            let annotations = BTreeMap::from([(RECORD_ANNOTATION.to_owned(), None)]);
            let patch = NodePatch { annotations, ..NodePatch::default() };
            world.patch_node(&"blue".into(), &node, patch).unwrap();
        });
        scene.until_done(seconds(1_400)).await;
        let text = scene.transcript();
        let after =
            scene.sandbox.peek(|world| world.clusters[&"blue".into()].node_of(&instance).unwrap().clone());
        assert!(!after.unschedulable && after.annotations.is_empty(), "wiped at {wiped_at}: {text}");
    }
}

/// deckhouse/deckhouse#1218: a controller takes the exclude label off each time, and leaves the cordon and the record.
#[tokio::test(start_paused = true)]
async fn a_controller_that_takes_the_label_off() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    scene.policy.hook_limit = seconds(600);
    scene.start_worker();
    let instance = scale_in(&mut scene);
    for _ in 0..200 {
        scene.pass(seconds(1)).await;
        let labelled = scene.sandbox.peek(|world| {
            let node = world.clusters[&"blue".into()].node_of(&instance)?;
            node.labels.contains_key(EXCLUDE_LABEL).then(|| node.name.clone())
        });
        if let Some(node) = labelled {
            let labels = BTreeMap::from([(EXCLUDE_LABEL.to_owned(), None)]);
            let patch = NodePatch { labels, ..NodePatch::default() };
            scene.sandbox.with(|world| world.patch_node(&"blue".into(), &node, patch)).unwrap();
        }
    }
    let text = scene.transcript();
    let patches = scene.sandbox.peek(|world| world.calls["kubernetes.PATCH node"]);
    assert!(patches <= 5, "{patches} patches: {text}");
    assert_eq!(answers(&mut scene), 1, "not at the limit: {text}");
    assert!(!text.contains("the deadline has come") && !text.contains("has timed out"), "{text}");
}

/// A pool of two nodes behind one balancer, a minute later.
pub(super) async fn two_serve(pool: Pool) -> Scene {
    let web = App { entrance: Some(Entrance::new(30_080, 20.0)), ..App::new("web", 2) };
    let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(web));
    scene.pass(seconds(60)).await;
    scene
}

/// The group ends these instances, one so long after the other.
pub(super) async fn scale_in_all(scene: &mut Scene, members: &[InstanceId], apart: Duration) {
    for id in members {
        scene.sandbox.with(|world| world.terminate_in_group(id, true)).unwrap();
        scene.pass(apart).await;
    }
}

/// How many of the instances were taken out of their target group.
fn taken_out(scene: &Scene, members: &[InstanceId]) -> usize {
    let is_out = |id: &&InstanceId| {
        let line = format!("{id} is deregistered from blue-web");
        scene.sandbox.peek(|world| told(world, &line)).is_some()
    };
    members.iter().filter(is_out).count()
}

/// The pods of a workload on the node of an instance, in the order in which the API server lists them.
pub(super) fn pods_on(scene: &Scene, instance: &InstanceId, app: &str) -> Vec<PodRef> {
    scene.sandbox.peek(|world| {
        let blue = &world.clusters[&"blue".into()];
        let node = &blue.node_of(instance).unwrap().name;
        let pods = blue.pods_of_node(node).filter(|pod| pod.labels["app"] == app);
        pods.map(|pod| pod.pod.clone()).collect()
    })
}

/// The readiness probe of a pod says something else.
fn set_ready(scene: &Scene, pod: &PodRef, ready: bool) {
    scene.sandbox.with(|world| {
        let stored = world.clusters[&"blue".into()].pod(&pod.uid).unwrap().clone();
        let ready_since = world.now();
        world.add_pod(&"blue".into(), Pod { ready, ready_since, ..stored });
    });
}

/// The node of an instance, while it is cordoned.
fn cordoned(world: &World, instance: &InstanceId) -> Option<NodeName> {
    let node = world.clusters[&"blue".into()].node_of(instance)?;
    node.unschedulable.then(|| node.name.clone())
}
