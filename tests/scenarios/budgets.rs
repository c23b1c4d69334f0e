//! Public reports about evictions: whose turn it is behind a budget, and what it does not say.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{InstanceId, PodRef, SpotAction, Timestamp};
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{Budget, Ending, Pod, WorkloadKind};
use offramp_sandbox::{Delays, Fleet, World};

use super::more_reports::{pods_on, scale_in_all};
use super::reports::{answers, told};
use super::script::{START, Scene, seconds};

/// A pod takes twenty seconds to start, so that a budget which it counts in stays closed for as long.
fn slow_starts() -> Delays {
    Delays { pod_start: seconds(20), ..Delays::aws() }
}

fn scene_of(delays: Delays, pool: Pool, apps: impl IntoIterator<Item = App>) -> Scene {
    let fleet = Fleet::new(START, delays, 1).cluster("blue").pool(pool);
    Scene::new(apps.into_iter().fold(fleet, Fleet::app))
}

/// The only one of each instance.
fn pod_of_each(scene: &Scene, members: &[InstanceId], app: &str) -> Vec<PodRef> {
    members.iter().map(|id| pods_on(scene, id, app).remove(0)).collect()
}

fn change_pod(scene: &Scene, pod: &PodRef, change: impl FnOnce(&mut Pod)) {
    scene.sandbox.with(|world| {
        let mut stored = world.clusters[&"blue".into()].pod(&pod.uid).unwrap().clone();
        change(&mut stored);
        world.add_pod(&"blue".into(), stored);
    });
}

fn add_budget(scene: &Scene, name: &str, label: (&str, &str), min_available: usize) {
    let selector = BTreeMap::from([(label.0.to_owned(), label.1.to_owned())]);
    let (namespace, name) = ("default".to_owned(), name.to_owned());
    let budget = Budget { namespace, name, selector, min_available, version: 0 };
    scene.sandbox.with(|world| world.add_budget(&"blue".into(), budget));
}

fn scale_in(scene: &Scene, instance: &InstanceId) {
    scene.sandbox.with(|world| world.terminate_in_group(instance, true)).unwrap();
}

fn interrupt(scene: &Scene, instance: &InstanceId) {
    assert!(scene.sandbox.with(|world| world.spot_interrupt(instance, SpotAction::Terminate)));
}

fn evicted_at(scene: &Scene, pod: &PodRef) -> Option<Timestamp> {
    scene.sandbox.peek(|world| told(world, &format!("pod {}/{} is evicted", pod.namespace, pod.name)))
}

fn killed(grace: u64) -> App {
    let ending = Ending { pre_stop: seconds(0), takes: None, stuck: false };
    App { grace: seconds(grace), ending, ..App::new("slow", 4) }
}

/// Two pods, of which one may be away, and which end within a second.
fn dns() -> App {
    App {
        priority_class: Some("system-cluster-critical".to_owned()),
        min_available: Some(1),
        ending: Ending { pre_stop: seconds(0), takes: Some(seconds(1)), stuck: false },
        ..App::new("coredns", 2)
    }
}

fn serves_dns(world: &World) -> bool {
    let mut pods = world.clusters[&"blue".into()].pods.values();
    pods.any(|pod| pod.labels["app"] == "coredns" && pod.ready && pod.accepts(world.now()))
}

/// kubernetes-sigs/karpenter#2217, kubernetes/kubeadm#1672: two nodes go at once, each with one of the two pods of the cluster's
/// DNS, and beside it an ordinary pod that takes all of its long grace, or that its budget never lets go. One of the two
/// serves at any moment: they are asked through their budget before they are told.
#[tokio::test(start_paused = true)]
async fn critical_pods_of_two_nodes_do_not_go_in_one_moment() {
    let kept = App { min_available: Some(4), ..App::new("kept", 4) };
    for (other, is_spot) in [(killed(600), true), (kept, false)] {
        let pool = if is_spot {
            Pool { hooks: Vec::new(), ..Pool::spot("workers", 4) }
        } else {
            Pool::new("workers", 4)
        };
        let mut scene = scene_of(slow_starts(), pool, [dns(), other]);
        scene.policy.hook_limit = seconds(600);
        scene.start_worker();
        let with_dns = |id: &InstanceId| !pods_on(&scene, id, "coredns").is_empty();
        let both: Vec<InstanceId> = scene.instances("workers").into_iter().filter(with_dns).collect();
        assert_eq!(both.len(), 2);
        both.iter().for_each(|id| if is_spot { interrupt(&scene, id) } else { scale_in(&scene, id) });
        for second in 0..if is_spot { 118 } else { 620 } {
            scene.pass(seconds(1)).await;
            assert!(scene.sandbox.peek(serves_dns), "no DNS in second {second}: {}", scene.transcript());
        }
    }
}

/// kubernetes-sigs/aws-load-balancer-controller#1871: target health cannot be read, so that pods behind a Local Service wait until
/// the ladder reaches them, on two spot nodes at once. The budget has room for one of them, and is asked.
#[tokio::test(start_paused = true)]
async fn local_pods_of_two_spot_nodes_are_asked_through_their_budget() {
    let web = App {
        min_available: Some(2),
        ending: Ending { pre_stop: seconds(0), takes: Some(seconds(1)), stuck: false },
        entrance: Some(Entrance { local: true, ..Entrance::new(30_080, 20.0) }),
        ..App::new("web", 3)
    };
    let pool = Pool { hooks: Vec::new(), ..Pool::spot("spot", 3) };
    let mut scene = scene_of(Delays::aws(), pool, [web]);
    let throttled = Some(Injected::Throttle);
    scene.sandbox.with(|world| world.faults.always("elasticloadbalancing.DescribeTargetHealth", throttled));
    scene.start_worker();
    scene.instances("spot")[..2].iter().for_each(|id| interrupt(&scene, id));
    scene.pass(seconds(119)).await;
    let text = scene.transcript();
    assert!(text.contains("pod default/web") && text.contains("is evicted"), "{text}");
}

/// zalando/postgres-operator#611, #1663, #867: the budget speaks of the master alone, by a label that the operator puts on one pod
/// of the StatefulSet. It holds no replica, on a spot node or behind a hook.
#[tokio::test(start_paused = true)]
async fn the_budget_of_the_master_holds_no_replica() {
    for (is_spot, limit) in [(true, 3), (false, 10)] {
        let pg = App { kind: WorkloadKind::StatefulSet { replicas: 3 }, ..App::new("pg", 3) };
        let mut scene = scene_of(Delays::aws(), Pool::spot("workers", 3), [pg]);
        let members = scene.instances("workers");
        let pods = pod_of_each(&scene, &members, "pg");
        change_pod(&scene, &pods[0], |pod| drop(pod.labels.insert("role".to_owned(), "master".to_owned())));
        add_budget(&scene, "pg-master", ("role", "master"), 1);
        scene.start_worker();
        scale_in(&scene, &members[0]);
        scene.pass(seconds(82)).await;
        assert!(scene.transcript().contains("refused by"), "{}", scene.transcript());
        let noticed = scene.sandbox.now();
        if is_spot {
            interrupt(&scene, &members[1])
        } else {
            scale_in(&scene, &members[1])
        }
        scene.pass(seconds(60)).await;
        let took = evicted_at(&scene, &pods[1]).map(|at| at.since(noticed));
        assert!(took.is_some_and(|took| took <= seconds(limit)), "{took:?}: {}", scene.transcript());
    }
}

/// aws/karpenter-provider-aws#3052, kubernetes-sigs/karpenter#454, kubernetes/kops#18679: a pod that is not ready costs its
/// exhausted budget nothing. On a node that leaves later it does not wait behind those that are ready.
#[tokio::test(start_paused = true)]
async fn a_pod_that_is_not_ready_is_asked_on_its_own() {
    for number in 0..10 {
        let web = App { min_available: Some(39), ..App::new("web", 40) };
        let mut scene = scene_of(Delays::aws(), Pool::new("workers", 4), [web]);
        let members = scene.instances("workers");
        let unready = pods_on(&scene, &members[1], "web").remove(number);
        change_pod(&scene, &unready, |pod| pod.ready = false);
        scene.start_worker();
        scale_in(&scene, &members[0]);
        scene.pass(seconds(40)).await;
        assert!(!scene.transcript().contains("is evicted"), "{}", scene.transcript());
        scale_in(&scene, &members[1]);
        let begun = scene.sandbox.now();
        scene.pass(seconds(60)).await;
        let took = evicted_at(&scene, &unready).map(|at| at.since(begun));
        assert!(took.is_some_and(|took| took <= seconds(15)), "{number}: {took:?}: {}", scene.transcript());
    }
}

/// gardener/machine-controller-manager#52, zalando-incubator/cluster-lifecycle-manager#80: a node goes every twenty seconds, and
/// the budget lets one pod go every twenty-one. Whoever has least time is next, so that nobody is forced.
#[tokio::test(start_paused = true)]
async fn nobody_starves_behind_those_that_come_later() {
    let web = App { min_available: Some(19), ..App::new("web", 20) };
    let mut scene = scene_of(slow_starts(), Pool::new("workers", 20), [web]);
    scene.policy.hook_limit = seconds(200);
    scene.start_worker();
    let members = scene.instances("workers");
    let pods = pod_of_each(&scene, &members[..11], "web");
    scale_in(&scene, &members[0]);
    scene.pass(seconds(1)).await;
    scale_in(&scene, &members[1]);
    for id in &members[2..11] {
        scene.pass(seconds(20)).await;
        scale_in(&scene, id);
    }
    scene.pass(seconds(120)).await;
    let text = scene.transcript();
    let times: Vec<_> = pods.iter().map(|pod| evicted_at(&scene, pod)).collect();
    assert!(!text.contains("delete default/web"), "{times:?}: {text}");
    assert!(times.windows(2).all(|pair| pair[0] <= pair[1] && pair[0].is_some()), "{times:?}: {text}");
}

/// kubernetes-sigs/karpenter#2350, aws/aws-node-termination-handler#368: an instance whose hook is open gets a spot notice, while
/// its pod waits behind a budget with those of other hooks. From then on it has two minutes, and is next.
#[tokio::test(start_paused = true)]
async fn a_spot_notice_joins_a_drain_behind_a_budget() {
    for victim in [1, 5, 10, 15] {
        let web = App { min_available: Some(23), ..App::new("web", 24) };
        let mut scene = scene_of(slow_starts(), Pool::spot("workers", 24), [web]);
        scene.start_worker();
        let members = scene.instances("workers");
        let pods = pod_of_each(&scene, &members[..16], "web");
        scale_in_all(&mut scene, &members[..16], Duration::from_millis(200)).await;
        scene.pass(seconds(10)).await;
        interrupt(&scene, &members[victim]);
        let noticed = scene.sandbox.now();
        scene.pass(seconds(118)).await;
        let times: Vec<_> = pods.iter().map(|pod| evicted_at(&scene, pod)).collect();
        let next = times.iter().flatten().filter(|at| **at > noticed).min();
        assert_eq!(next, times[victim].as_ref(), "{victim}: {times:?}: {}", scene.transcript());
    }
}

/// kubernetes-sigs/karpenter#2361: pods with two budgets, whose eviction is a 500 each time. The others are not slowed, the calls
/// are bounded, and they are deleted with their own grace when the ladder says so.
#[tokio::test(start_paused = true)]
async fn pods_with_two_budgets_slow_no_others() {
    let mut times = Vec::new();
    for two in [false, true] {
        let twice = App { min_available: Some(1), ..App::new("twice", 80) };
        let mut scene = scene_of(Delays::aws(), Pool::spot("workers", 8), [twice, App::new("web", 240)]);
        scene.policy.hook_limit = seconds(600);
        let slow = Some(Injected::Delay(Duration::from_millis(300)));
        scene.sandbox.with(|world| world.faults.always("kubernetes.POST eviction", slow));
        if two {
            add_budget(&scene, "again", ("app", "twice"), 1);
        }
        scene.start_worker();
        let members = scene.instances("workers");
        members[..2].iter().for_each(|id| scale_in(&scene, id));
        scene.pass(seconds(14)).await;
        let (begun, pods) = (scene.sandbox.now(), pods_on(&scene, &members[2], "web"));
        interrupt(&scene, &members[2]);
        scene.pass(seconds(70)).await;
        let last = pods.iter().map(|pod| evicted_at(&scene, pod).unwrap()).max().unwrap();
        times.push(last.since(begun));
        if two {
            let calls = scene.sandbox.peek(|world| world.calls["kubernetes.POST eviction"]);
            assert!(calls <= 90 + 90 + 30 * 6, "{calls}");
            scene.pass(seconds(40)).await;
            assert_eq!(scene.running_pods_on(&members[2]), 0, "{}", scene.transcript());
        }
    }
    assert!(times[1] <= times[0] + seconds(1), "{times:?}");
}

/// A budget that opens lets twice as many ask each time, and eighty pods are more than a machine word has bits.
#[tokio::test(start_paused = true)]
async fn a_budget_that_opens_lets_everybody_go() {
    let web = App { min_available: Some(240), ..App::new("web", 240) };
    let mut scene = scene_of(Delays::aws(), Pool::new("workers", 6), [web]);
    scene.start_worker();
    let members = scene.instances("workers");
    scale_in_all(&mut scene, &members[..3], seconds(1)).await;
    scene.pass(seconds(20)).await;
    scene.sandbox.with(|world| {
        let blue = world.clusters.get_mut(&"blue".into()).unwrap();
        blue.budgets.values_mut().for_each(|budget| budget.min_available = 0);
    });
    scene.pass(seconds(300)).await;
    let evicted = |world: &World| world.story.iter().filter(|(_, line)| line.ends_with("is evicted")).count();
    assert_eq!(scene.sandbox.peek(evicted), 120, "{}", scene.transcript());
}

/// kubernetes/kubernetes#85577, openshift/machine-api-operator#780, kubernetes-sigs/cluster-api#10706: a pod is Terminating for
/// three hours, with a grace of half an hour, when the removal begins. Whether this worker saw that or not, it is overdue.
#[tokio::test(start_paused = true)]
async fn a_pod_that_was_overdue_before_holds_no_hook() {
    for seen_by_us in [true, false] {
        let ending = Ending { pre_stop: seconds(0), takes: None, stuck: true };
        let stuck = App { grace: seconds(1_800), ending, ..App::new("web", 3) };
        let mut scene = scene_of(Delays::aws(), Pool::new("workers", 3), [stuck]);
        let instance = scene.instances("workers").remove(0);
        let pod = pods_on(&scene, &instance, "web").remove(0);
        if seen_by_us {
            scene.start_worker();
        }
        let delete = |world: &mut World| world.delete_pod(&"blue".into(), "default", &pod.name, None, None);
        scene.sandbox.with(delete).unwrap();
        scene.pass(seconds(3 * 3_600)).await;
        if !seen_by_us {
            scene.start_worker();
        }
        scale_in(&scene, &instance);
        scene.pass(seconds(180)).await;
        assert_eq!(answers(&mut scene), 1, "{seen_by_us}: {}", scene.transcript());
    }
}
