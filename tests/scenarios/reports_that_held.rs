//! More worlds from public bug reports: what is right there has always been done here, and has to stay so. Each names
//! its report; the right value stands in the assertions.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{InstanceId, SpotAction, Timestamp};
use offramp_sandbox::faults::{Faults, Injected};
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{ANNOTATIONS, Ending, Pod, WorkloadKind};
use offramp_sandbox::world::events::TERMINATE_ACTION;
use offramp_sandbox::world::groups::{ActionResult, Hook};
use offramp_sandbox::{Delays, Fleet, World};
use serde_json::json;

use super::reports::{answers, outcomes, scale_in, told, workers};
use super::script::{START, Scene, seconds};

/// Report 07, kubernetes/kops#5988, kubernetes/kubernetes#93947: nothing new is created in a namespace that is being
/// deleted, no Eviction either. The pod is asked for again until its namespace has taken it along; nobody is told of a
/// missing permission.
#[tokio::test(start_paused = true)]
async fn namespace_being_deleted() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    let instance = scene.instances("workers").remove(0);
    scene.add_pod(&instance, "old", "x");
    scene.sandbox.with(|world| {
        world.clusters.get_mut(&"blue".into()).unwrap().terminating_namespaces.insert("old".to_owned());
    });
    scene.start_worker();
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(25)).await;
    assert_eq!(answers(&mut scene), 0, "{}", scene.transcript());
    scene.sandbox.with(|world| world.delete_pod(&"blue".into(), "old", "x", None, None)).unwrap();
    scene.until_done(seconds(60)).await;
    let text = scene.transcript();
    let asked = scene.sandbox.peek(|world| world.calls["kubernetes.POST eviction"]);
    // Another one for the pod of `web`.
    assert!((4..=12).contains(&asked), "asked again every few seconds, {asked} times: {text}");
    assert!(text.contains("because it is being terminated"), "{text}");
    assert!(at(&scene, "is answered with CONTINUE") > at(&scene, "pod old/x has ended"), "{text}");
    assert!(outcomes(&scene, "left"), "{text}");
    let metrics = scene.metrics();
    assert!(metrics.contains("offramp_actions_total{action=\"evict\",outcome=\"denied\"} 0"), "{metrics}");
    let denied = scene.sandbox.peek(|world| {
        let events = &world.clusters[&"blue".into()].events;
        events.iter().filter(|event| event.reason == "ActionDenied").count()
    });
    assert_eq!(denied, 0, "{text}");
}

/// All annotations of a node have 256 KiB together. Where others have filled them the record has no room, and without a record
/// there is no cordon: the rest is done, and the outcome says so.
#[tokio::test(start_paused = true)]
async fn a_node_whose_annotations_are_full_is_drained_without_a_cordon() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| {
        let blue = world.clusters.get_mut(&"blue".into()).unwrap();
        let node = blue.node_of(&instance).unwrap().name.clone();
        blue.other_annotations.insert(node, ANNOTATIONS);
    });
    scene.start_worker();
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(200)).await;
    let text = scene.transcript();
    assert!(text.contains("metadata.annotations: Too long"), "{text}");
    assert_eq!((answers(&mut scene), outcomes(&scene, "unisolated")), (1, true), "{text}");
    assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{text}");
}

/// Report 08, openkruise/kruise#1831, deckhouse/deckhouse#5142: the pod of a DaemonSet, whoever's kind that is, stays
/// where it is and holds no hook. That the API group of its owner makes no difference is shown where pods are read.
#[tokio::test(start_paused = true)]
async fn daemon_set_stays() {
    let ingress = App { kind: WorkloadKind::DaemonSet, ..App::new("ingress", 0) };
    let mut scene = Scene::new(workers([App::new("web", 3), ingress]));
    scene.start_worker();
    let instance = scale_in(&mut scene);
    scene.until("the hook is answered", seconds(60), |world| told(world, "is answered").is_some()).await;
    let left = scene.sandbox.peek(|world| {
        let cluster = &world.clusters[&"blue".into()];
        let node = &cluster.node_of(&instance).unwrap().name;
        let going = |pod: &Pod| (pod.labels["app"].clone(), pod.deletion.is_some());
        cluster.pods_of_node(node).map(going).collect::<BTreeMap<String, bool>>()
    });
    // The controller would have put another one there at once.
    assert!(!scene.transcript().contains("evict default/ingress"), "{}", scene.transcript());
    let stays = |app: &str| (app.to_owned(), false);
    assert_eq!(left, BTreeMap::from([stays("ingress"), stays("kube-proxy")]), "{}", scene.transcript());
    scene.until_done(seconds(60)).await;
    assert!(outcomes(&scene, "left"), "{}", scene.transcript());
}

/// Report 09, aws/aws-node-termination-handler#476: the scheduler had decided before the cordon, and the pod comes after
/// it. It is evicted as well, before the hook is answered.
#[tokio::test(start_paused = true)]
async fn pod_bound_after_the_cordon() {
    let mut scene = Scene::new(workers([App::new("web", 3)]));
    scene.start_worker();
    let instance = scale_in(&mut scene);
    let cordoned = |world: &World| world.clusters[&"blue".into()].node_of(&instance).unwrap().unschedulable;
    scene.until("the node is cordoned", seconds(10), cordoned).await;
    scene.add_pod(&instance, "shop", "late-1");
    scene.until_done(seconds(60)).await;
    let text = scene.transcript();
    assert!(at(&scene, "pod shop/late-1 is evicted") < at(&scene, "pod shop/late-1 has ended"), "{text}");
    assert!(at(&scene, "pod shop/late-1 has ended") < at(&scene, "is answered with CONTINUE"), "{text}");
    assert!(outcomes(&scene, "left"), "{text}");
}

/// Report 11, kubernetes-sigs/aws-load-balancer-controller#2757: one target group over two clusters, of which this worker
/// knows one. The healthy targets of the other one stand in for the last of ours.
#[tokio::test(start_paused = true)]
async fn target_group_of_two_clusters() {
    for theirs_are_registered in [true, false] {
        let entrance = Entrance { deregistration_delay: Some(seconds(10)), ..Entrance::new(30_080, 20.0) };
        let web = App { entrance: Some(entrance), ..App::new("web", 2) };
        let fleet = Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(Pool::new("workers", 1));
        let fleet = fleet.app(web.clone()).cluster("green").pool(Pool::new("theirs", 2)).app(web);
        let mut scene = Scene::new(fleet);
        scene.policy.clusters = ["blue".into()].into();
        scene.settings.target_groups.retain(|arn| arn.as_str().contains("/blue-web/"));
        let theirs: Vec<_> = scene.instances("theirs").into_iter().map(|id| (id, 30_080)).collect();
        let arn = scene.settings.target_groups[0].clone();
        scene.sandbox.with(|world| {
            // No controller fills it: it would take the others' targets out again.
            let blue = world.clusters.get_mut(&"blue".into()).unwrap();
            blue.services.values_mut().for_each(|service| service.target_group = None);
            if theirs_are_registered {
                world.register_targets(&arn, &theirs).unwrap();
            }
        });
        scene.pass(seconds(60)).await;
        scene.start_worker();
        let begun = scene.sandbox.now();
        scale_in(&mut scene);
        scene.pass(seconds(30)).await;
        let text = scene.transcript();
        let out = scene.sandbox.peek(|world| told(world, "is deregistered from blue-web"));
        // Without them the gate holds: else this would show nothing.
        assert_eq!(out.is_some(), theirs_are_registered, "{text}");
        assert!(out.is_none_or(|at| at.since(begun) <= seconds(5)), "{text}");
        if theirs_are_registered {
            scene.until_done(seconds(60)).await;
            assert!(outcomes(&scene, "left"), "{}", scene.transcript());
        }
    }
}

/// Report 13, aws/aws-sdk-go#249, #4879, aws/aws-sdk-java#2802: for 40 s every call is refused, because the credentials
/// have run out and nobody has renewed them. Nothing is lost, and it goes on within 15 s of the first good answer.
#[tokio::test(start_paused = true)]
async fn credentials_run_out_for_40s() {
    let entrance = Entrance { deregistration_delay: Some(seconds(10)), ..Entrance::new(30_080, 20.0) };
    let mut scene = Scene::new(workers([App { entrance: Some(entrance), ..App::new("web", 3) }]));
    scene.start_worker();
    let first = scale_in(&mut scene);
    scene.until("the notice is there", seconds(10), |world| queued(world) == 1).await;
    scene.pass(Duration::from_millis(1_500)).await;
    scene.sandbox.with(refuse_everything);
    scene.pass(seconds(20)).await;
    // Another one goes meanwhile, and nobody can hear of it.
    let next = scene.instances("workers").into_iter().find(|id| *id != first).unwrap();
    scene.sandbox.with(|world| world.terminate_in_group(&next, true)).unwrap();
    scene.pass(seconds(20)).await;
    let renewed = scene.sandbox.now();
    let cordoned = |world: &World| world.clusters[&"blue".into()].node_of(&next).unwrap().unschedulable;
    assert!(!scene.sandbox.peek(cordoned), "{}", scene.transcript());
    assert_eq!(answers(&mut scene), 0, "the answer was due in the meantime: {}", scene.transcript());
    scene.sandbox.with(|world| world.faults = Faults::default());
    scene.until("the next one is cordoned", seconds(15), cordoned).await;
    scene.until_done(seconds(90)).await;
    let text = scene.transcript();
    assert!(text.contains("access denied"), "what is refused is told: {text}");
    assert!(at(&scene, "is answered with CONTINUE").since(renewed) <= seconds(15), "{text}");
    assert_eq!((scene.lost(), answers(&mut scene)), (0.0, 2), "{text}");
    assert!(!text.contains("has timed out"), "{text}");
    let dead = scene.sandbox.peek(|world| world.queues.get("offramp-dlq").unwrap().messages().count());
    assert_eq!(dead, 0, "{text}");
}

/// Report 18, aws/aws-node-termination-handler#562: the queue delays its messages by 90 s, so that of the two minutes half
/// a minute is left. The pod goes at once, with the grace that is left and not with its own.
#[tokio::test(start_paused = true)]
async fn spot_notice_that_is_90s_late() {
    let slow = App {
        ending: Ending { pre_stop: seconds(0), takes: None, stuck: false },
        grace: seconds(60),
        ..App::new("web", 3)
    };
    let delays = Delays { event: seconds(90), ..Delays::aws() };
    let mut scene =
        Scene::new(Fleet::new(START, delays, 1).cluster("blue").pool(Pool::spot("workers", 3)).app(slow));
    scene.start_worker();
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(91)).await;
    let graces: Vec<Duration> = scene.sandbox.peek(|world| {
        let cluster = &world.clusters[&"blue".into()];
        let node = &cluster.node_of(&instance).unwrap().name;
        cluster.pods_of_node(node).filter_map(|pod| pod.deletion_grace).collect()
    });
    let text = scene.transcript();
    assert!(
        matches!(graces[..], [grace] if grace >= seconds(12) && grace <= seconds(15)),
        "{graces:?} {text}"
    );
    scene.pass(seconds(20)).await;
    assert!(at(&scene, "has ended") < START + seconds(120), "{text}");
    assert_eq!(scene.running_pods_on(&instance), 0, "{text}");
}

/// Report 19, eksctl-io/eksctl#4347, #4774, VirtusLab/kubedrainer#3: two hooks with timeouts as short as AWS has them, of
/// which one is somebody else's. Ours gets its heartbeats in time and its answer after the pod; the other gets nothing.
#[tokio::test(start_paused = true)]
async fn two_hooks_with_the_shortest_heartbeat() {
    let hook = |name: &str, timeout: u64, metadata: &str| Hook {
        heartbeat_timeout: seconds(timeout),
        metadata: Some(metadata.to_owned()),
        default_result: ActionResult::Continue,
        ..Hook::terminating(name)
    };
    let hooks = vec![hook("offramp", 30, "blue"), hook("ship-logs", 45, r#"{"bucket":"logs"}"#)];
    let slow = App {
        ending: Ending { pre_stop: seconds(0), takes: Some(seconds(70)), stuck: false },
        grace: seconds(90),
        ..App::new("web", 3)
    };
    let pool = Pool { hooks, ..Pool::new("workers", 3) };
    let mut scene = Scene::new(Fleet::new(START, Delays::aws(), 1).cluster("blue").pool(pool).app(slow));
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(120)).await;
    let text = scene.transcript();
    let ours: Vec<Timestamp> = scene.sandbox.peek(|world| {
        let lines = world.story.iter().filter(|(_, line)| line.contains("offramp of "));
        lines.map(|(at, _)| *at).collect()
    });
    // Heartbeats and the answer: half of the timeout lies between two of them, and the pod takes 70 s.
    assert!(ours.len() > 70 / 15, "{text}");
    let pauses: Vec<Duration> = ours.windows(2).map(|pair| pair[1].since(pair[0])).collect();
    let (last, between) = pauses.split_last().unwrap();
    assert!(*last <= seconds(16), "{pauses:?}: {text}");
    assert!(between.iter().all(|pause| (seconds(14)..=seconds(16)).contains(pause)), "{pauses:?}: {text}");
    assert!(text.contains("ship-logs of i-a has timed out"), "{text}");
    assert!(
        !text.contains("ship-logs of i-a gets") && !text.contains("ship-logs of i-a is answered"),
        "{text}"
    );
    assert!(at(&scene, "has ended") < at(&scene, "is answered with CONTINUE"), "{text}");
    assert!(outcomes(&scene, "left"), "{text}");
}

/// Report 25: the hook of another account, forwarded to our queue, and it names the instance of a node of ours. Nothing is
/// called in our own account for it, where the instance is somebody else's or nobody's.
#[tokio::test(start_paused = true)]
async fn message_of_another_account() {
    let mut calls = Vec::new();
    for sent in [false, true] {
        let mut scene = Scene::new(workers([App::new("web", 3)]));
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        if sent {
            let body = hook_of_another_account(&instance);
            let send = |world: &mut World| world.send_message("offramp", &body, BTreeMap::new(), seconds(0));
            scene.sandbox.with(send).unwrap();
        }
        scene.pass(seconds(120)).await;
        let text = scene.transcript();
        // Else nobody has read the message, and this shows nothing.
        assert_eq!(text.contains("hook notice taken on"), sent, "{text}");
        assert_eq!(
            text.contains("observing: no credentials for") && text.contains("999988887777"),
            sent,
            "{text}"
        );
        assert!(!text.contains(" evict ") && answers(&mut scene) == 0, "{text}");
        let ours = |call: &str| call.starts_with("autoscaling.") || call.starts_with("elasticloadbalancing.");
        calls.push(scene.sandbox.peek(|world| {
            let calls = world.calls.iter().filter(|(call, _)| ours(call));
            calls.map(|(call, count)| (call.clone(), *count)).collect::<BTreeMap<_, _>>()
        }));
    }
    // The sweep looks into our own account, whatever comes by the queue.
    assert_eq!(calls[0], calls[1]);
}

fn hook_of_another_account(instance: &InstanceId) -> String {
    let detail = json!({
        "LifecycleActionToken": "be2184df-0000-4db9-a4a4-e6d6a72210d1",
        "AutoScalingGroupName": "workers",
        "LifecycleHookName": "offramp",
        "EC2InstanceId": instance.as_str(),
        "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
        "NotificationMetadata": "blue",
        "Origin": "AutoScalingGroup",
        "Destination": "EC2",
    });
    let event = json!({
        "version": "0",
        "id": "5c0ffee0-0000-4000-8000-000000000009",
        "detail-type": TERMINATE_ACTION,
        "source": "aws.autoscaling",
        "account": "999988887777",
        "time": "2026-03-14T09:00:00Z",
        "region": "eu-west-1",
        "resources": [],
        "detail": detail,
    });
    event.to_string()
}

/// When something was told for the first time.
fn at(scene: &Scene, what: &str) -> Timestamp {
    scene.sandbox.peek(|world| told(world, what)).expect(what)
}

fn queued(world: &World) -> usize {
    world.queues.get("offramp").unwrap().messages().count()
}

/// From now on every call of AWS is refused.
fn refuse_everything(world: &mut World) {
    for service in ["sqs", "autoscaling", "elasticloadbalancing"] {
        world.faults.always(service, Some(Injected::Denied));
    }
}
