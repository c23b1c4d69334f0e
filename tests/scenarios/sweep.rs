//! What was never received, or whose message is lost: it is found by looking. And what is not to be found again.

use std::collections::BTreeMap;

use fastrand::Rng;
use offramp_core::{ClusterName, GroupName, HookName, InstanceId, RebalancePolicy};
use offramp_engine::UnfinishedKind;
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{EXCLUDE_LABEL, NamedMachine, NodePatch, ViewLag};
use offramp_sandbox::world::groups::{ActionResult, Hook, MemberState};
use offramp_sandbox::{Delays, Fleet, World};

use super::crashes::leaving;
use super::script::{START, Scene, seconds};

/// How often the sweep looks.
const SWEEP: u64 = 300;

fn fleet(hooks: Vec<Hook>) -> Fleet {
    let web =
        App { min_available: Some(4), entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 6) };
    let pool = Pool { hooks, ..Pool::new("workers", 3) };
    Fleet::new(START, Delays::aws(), 21).cluster("blue").pool(pool).app(web)
}

fn ours() -> Hook {
    Hook { heartbeat_timeout: seconds(900), ..Hook::terminating("offramp") }
}

fn scale_in(scene: &mut Scene) -> InstanceId {
    scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
    scene.sandbox.peek(leaving).expect("an instance that leaves")
}

fn has_record(world: &World, instance: &InstanceId) -> bool {
    let cluster = &world.clusters[&"blue".into()];
    cluster.node_of(instance).is_some_and(|node| node.annotations.contains_key("offramp.sh/record"))
}

fn jobs_about(scene: &mut Scene, words: &str) -> usize {
    scene.transcript().lines().filter(|line| line.contains(words)).count()
}

/// Lets the time pass, and kills the worker at random moments of it.
async fn pass_with_kills(scene: &mut Scene, random: &mut Rng, kills: u32, span: u64) {
    let mut moments: Vec<u64> = (0..kills).map(|_| random.u64(1..span)).collect();
    moments.sort_unstable();
    let mut at = 0;
    for moment in moments {
        scene.pass(seconds(moment - at)).await;
        at = moment;
        scene.kill_worker().await;
        scene.start_worker();
    }
    scene.pass(seconds(span - at)).await;
}

/// An instance goes, is found within two sweeps, and is served.
async fn scale_in_to_the_end(scene: &mut Scene) -> InstanceId {
    let instance = scale_in(scene);
    let isolated = |world: &World| has_record(world, &instance);
    scene.until("the node is isolated", seconds(2 * SWEEP), isolated).await;
    scene.until_done(seconds(2_000)).await;
    instance
}

#[tokio::test(start_paused = true)]
async fn a_lost_hook_event_is_found_and_served() {
    let mut scene = Scene::new(fleet(vec![ours()]));
    scene.sandbox.with(|world| world.queues.lose_next = 1);
    scene.start_worker();
    let instance = scale_in_to_the_end(&mut scene).await;
    let text = scene.transcript();
    assert!(text.contains("an event for queue offramp is lost"), "{text}");
    assert!(text.contains("found without a message: a hook holds the instance"), "{text}");
    assert_eq!(text.matches("is answered with CONTINUE").count(), 1, "{text}");
    assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{text}");
    let metrics = scene.metrics();
    assert!(metrics.contains("offramp_sweep_found_total{what=\"waiting_hook\"} 1"), "{metrics}");
}

/// The worker is killed at ten random moments, before and after the event, so that mostly no sweep comes to its turn.
/// What is left then is found within two sweeps of a worker that lives. Prints when.
#[tokio::test(start_paused = true)]
async fn a_lost_hook_event_is_found_after_ten_kills() {
    for seed in 0..10 {
        let random = &mut Rng::with_seed(seed);
        let hook = Hook { heartbeat_timeout: seconds(7_200), ..ours() };
        let mut scene = Scene::new(fleet(vec![hook]));
        scene.sandbox.with(|world| world.queues.lose_next = 1);
        scene.start_worker();
        scale_in(&mut scene);
        pass_with_kills(&mut scene, random, 10, 900).await;
        let last_kill = scene.sandbox.now().since(START).as_secs();
        scene.pass(seconds(2 * SWEEP)).await;
        scene.until_done(seconds(3_600)).await;
        let text = scene.transcript();
        let found = text.lines().find(|line| line.contains("found without a message")).unwrap_or_default();
        let found: f64 = found.split_whitespace().next().and_then(|at| at.parse().ok()).expect(&text);
        assert!(found <= (last_kill + 2 * SWEEP) as f64, "seed {seed}\n{text}");
        assert_eq!(text.matches("is answered with CONTINUE").count(), 1, "seed {seed}\n{text}");
        assert_eq!(scene.lost(), 0.0, "seed {seed}\n{text}");
        println!("hook event lost at 0 s, 10 kills within 900 s (seed {seed}): found at {found:.0} s");
    }
}

/// The message of a job is lost after its node was isolated: for spot the notice is over, and the node stays.
#[tokio::test(start_paused = true)]
async fn a_lost_record_is_found_after_ten_kills() {
    for seed in 0..10 {
        let random = &mut Rng::with_seed(seed);
        let mut scene = Scene::new(fleet(Vec::new()));
        scene.policy.rebalance = RebalancePolicy::Isolate;
        scene.policy.patience = seconds(1_200);
        scene.start_worker();
        let instance = scene.instances("workers")[0].clone();
        scene.sandbox.with(|world| world.rebalance_recommend(&instance));
        let isolated = |world: &World| has_record(world, &instance);
        scene.until("the node is isolated", seconds(10), isolated).await;
        scene.kill_worker().await;
        scene.sandbox.with(|world| world.queues.get_mut("offramp").unwrap().purge());
        scene.start_worker();
        pass_with_kills(&mut scene, random, 10, 1_200 + 600).await;
        // Overdue ten minutes after its end.
        let overdue = scene.sandbox.now().since(START);
        let released = |world: &World| !has_record(world, &instance);
        scene.until("the node is released", seconds(2 * SWEEP), released).await;
        let found = scene.sandbox.now().since(START);
        scene.until_done(seconds(100)).await;
        let text = scene.transcript();
        let free = scene.sandbox.peek(|world| {
            let node = world.clusters[&"blue".into()].node_of(&instance).cloned().unwrap();
            !node.unschedulable
        });
        assert!(free, "seed {seed}\n{text}");
        println!(
            "message lost, 10 kills, overdue since {overdue:?} (seed {seed}): released at {found:?}, {:?} later",
            found.saturating_sub(overdue)
        );
    }
}

/// A hook of somebody else holds the instance for an hour after ours was answered, and one abandons it so that its
/// group retains it: neither is a reason for a second job.
#[tokio::test(start_paused = true)]
async fn what_is_served_makes_no_second_job_in_an_hour() {
    for (default_result, state) in
        [(ActionResult::Continue, "Terminating:Wait"), (ActionResult::Abandon, "Terminating:Retained")]
    {
        let foreign = Hook {
            heartbeat_timeout: if default_result == ActionResult::Abandon {
                seconds(600)
            } else {
                seconds(7_000)
            },
            default_result,
            metadata: Some("arn:aws:codedeploy:deployment/d-1".to_owned()),
            ..Hook::terminating("codedeploy")
        };
        let mut scene = Scene::new(fleet(vec![ours(), foreign]));
        scene.sandbox.with(|world| world.groups.retains_abandoned = true);
        scene.start_worker();
        let instance = scale_in(&mut scene);
        scene.pass(seconds(5)).await;
        scene.until_done(seconds(900)).await;
        let taken_on = jobs_about(&mut scene, "notice taken on");
        scene.pass(seconds(3_600)).await;
        // A worker that has forgotten everything.
        scene.kill_worker().await;
        scene.start_worker();
        scene.pass(seconds(1_200)).await;
        let text = scene.transcript();
        assert!(text.contains(&format!("is {state} in workers")), "{text}");
        assert_eq!(jobs_about(&mut scene, "notice taken on"), taken_on, "{state}\n{text}");
        assert!(!text.contains("found without a message"), "{state}\n{text}");
        assert!(has_record_at(&scene, &instance, "\"ended\":{\"outcome\":\"answered\""), "{text}");
    }
}

fn has_record_at(scene: &Scene, instance: &InstanceId, words: &str) -> bool {
    scene.sandbox.peek(|world| {
        let node = world.clusters[&"blue".into()].node_of(instance);
        node.is_some_and(|node| node.annotations["offramp.sh/record"].contains(words))
    })
}

/// Puts a record on the first node, as an earlier worker left it, and cordons it.
fn leave_record(scene: &Scene, record: &str) -> InstanceId {
    let instance = scene.instances("workers")[0].clone();
    scene.sandbox.with(|world| {
        let name = world.clusters[&"blue".into()].node_of(&instance).unwrap().name.clone();
        let annotation = ("offramp.sh/record".to_owned(), Some(record.to_owned()));
        let patch =
            NodePatch { unschedulable: Some(true), annotations: [annotation].into(), ..NodePatch::default() };
        world.patch_node(&"blue".into(), &name, patch).unwrap();
    });
    instance
}

const LEFT: &str = r#"{"v":2,"since":"2026-03-13T09:00:00Z","cordoned":true,"excluded":false,"entries":[{"kind":"hook",
    "group":"workers","hook":"offramp","by":"","at":"2026-03-13T09:00:00Z","end":"2026-03-13T10:00:00Z","ended":
    {"outcome":"answered","state":"Warmed","at":"2026-03-13T09:10:00Z"}}]}"#;

/// A node of another cluster names the same instance.
#[tokio::test(start_paused = true)]
async fn what_was_done_is_undone_though_a_second_cluster_claims_the_instance() {
    let pool = |name: &str| Pool { hooks: Vec::new(), ..Pool::new(name, 3) };
    let fleet = Fleet::new(START, Delays::aws(), 21).cluster("blue").pool(pool("workers"));
    let mut scene = Scene::new(fleet.cluster("green").pool(pool("others")));
    let instance = leave_record(&scene, LEFT);
    let other = scene.instances("others").remove(0);
    scene.sandbox.with(|world| {
        let green = ClusterName::new("green");
        let node = world.clusters[&green].node_of(&other).unwrap().name.clone();
        world.rename_machine(&green, &node, NamedMachine::Other(instance.clone()));
        let view_lag = ViewLag { nodes: seconds(2), pods: seconds(2) };
        world.clusters.values_mut().for_each(|cluster| cluster.view_lag = view_lag);
    });
    scene.start_worker();
    scene.pass(seconds(2 * SWEEP)).await;
    assert!(!scene.sandbox.peek(|world| has_record(world, &instance)), "{}", scene.transcript());
    assert!(scene.jobs().await.is_empty(), "{}", scene.transcript());
}

/// A node comes back with the cordon of the day before: from its warm pool, after a stop that nobody saw the end of, or
/// from a removal of version 0.1.
#[tokio::test(start_paused = true)]
async fn what_is_back_in_service_is_released_by_the_first_sweep() {
    let lost = LEFT.replace(r#""ended":"#, r#""was":"#);
    let of_version_1 = r#"{"v":1,"since":"2026-03-13T09:00:00Z","notices":["a"],"cordoned":true,"excluded":false,"targets":[]}"#;
    for record in [LEFT, &lost, of_version_1] {
        let mut scene = Scene::new(fleet(vec![ours()]));
        let instance = leave_record(&scene, record);
        scene.start_worker();
        scene.pass(seconds(70)).await;
        let (free, text) = (!scene.sandbox.peek(|world| has_record(world, &instance)), scene.transcript());
        assert!(free && text.contains("uncordon and forget"), "{record}\n{text}");
        scene.pass(seconds(2 * SWEEP)).await;
        assert_eq!(jobs_about(&mut scene, "found without a message"), 1, "{record}");
    }
}

/// A warm pool that is used often: out of it, back into it, and out again within the hour in which a message is remembered.
#[tokio::test(start_paused = true)]
async fn what_comes_back_twice_is_released_twice() {
    let mut scene = Scene::new(fleet(vec![ours()]));
    scene.start_worker();
    for day in ["13", "14"] {
        let instance = leave_record(&scene, &LEFT.replace("-13T", &format!("-{day}T")));
        scene.pass(seconds(2 * SWEEP)).await;
        assert!(!scene.sandbox.peek(|world| has_record(world, &instance)), "{}", scene.transcript());
    }
}

/// No worker runs for longer than `timing.hook_limit`, and AWS holds the instance for longer than that.
#[tokio::test(start_paused = true)]
async fn a_hook_that_is_found_late_is_drained_all_the_same() {
    let mut scene = Scene::new(fleet(vec![Hook { heartbeat_timeout: seconds(7_200), ..ours() }]));
    scene.sandbox.with(|world| world.queues.lose_next = 1);
    let instance = scale_in(&mut scene);
    scene.pass(seconds(4_200)).await;
    scene.start_worker();
    scene.pass(seconds(70)).await;
    scene.until_done(seconds(1_000)).await;
    let text = scene.transcript();
    assert!(!text.contains("the deadline has come"), "{text}");
    assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{text}");
    assert_eq!(text.matches("is answered with CONTINUE").count(), 1, "{text}");
}

/// Two Ready nodes name the instance, and the event of its hook is lost: the hook is kept open, and somebody can look.
#[tokio::test(start_paused = true)]
async fn a_hook_of_an_instance_that_two_nodes_name_is_found() {
    let mut scene = Scene::new(fleet(vec![ours()]));
    scene.sandbox.with(|world| world.queues.lose_next = 1);
    let instance = scale_in(&mut scene);
    let other = scene.instances("workers").into_iter().find(|id| *id != instance).unwrap();
    scene.sandbox.with(|world| {
        let node = world.clusters[&"blue".into()].node_of(&other).unwrap().name.clone();
        world.rename_machine(&"blue".into(), &node, NamedMachine::Other(instance));
    });
    scene.start_worker();
    scene.pass(seconds(2 * SWEEP)).await;
    let reasons: Vec<String> = scene.jobs().await.into_iter().map(|job| job.reason).collect();
    assert_eq!(reasons, ["waiting: 2 Ready nodes name this instance in their providerID"]);
    assert!(scene.transcript().contains("gets a heartbeat"), "{}", scene.transcript());
}

/// Two installations in one account, whose hooks have one name and name no cluster: the other's clusters are not seen here.
#[tokio::test(start_paused = true)]
async fn a_hook_of_another_installation_is_not_answered_for_want_of_a_node() {
    let mut scene = Scene::new(fleet(vec![Hook { metadata: Some("owned by team 7".to_owned()), ..ours() }]));
    scene.policy.hook_names = [HookName::new("offramp")].into();
    scene.policy.clusters = [ClusterName::new("red")].into();
    scene.sandbox.with(|world| world.queues.lose_next = 1);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(2 * SWEEP)).await;
    let text = scene.transcript();
    assert!(!text.contains("found without a message") && !text.contains("is answered"), "{text}");
}

/// Another installation's claim, whose message its own workers hold, and a record of a version to come.
#[tokio::test(start_paused = true)]
async fn what_is_not_ours_to_undo_is_left() {
    let theirs = LEFT.replace(r#""by":"""#, r#""by":"eu-west-1:111122223333:other""#);
    let abandoned = theirs.replace(r#""ended":"#, r#""was":"#);
    let later = LEFT.replace(r#""v":2"#, r#""v":3"#);
    for (record, what) in
        [(&theirs, None), (&abandoned, Some("abandoned_record")), (&later, Some("unreadable_record"))]
    {
        let mut scene = Scene::new(fleet(vec![ours()]));
        let instance = leave_record(&scene, record);
        scene.start_worker();
        scene.pass(seconds(2 * SWEEP)).await;
        assert!(has_record_at(&scene, &instance, "2026-03-13"), "{}", scene.transcript());
        assert_eq!(jobs_about(&mut scene, "notice taken on"), 0);
        for one in UnfinishedKind::ALL.map(UnfinishedKind::as_str) {
            let gauge = format!("offramp_unfinished{{what=\"{one}\"}} {}", u8::from(what == Some(one)));
            assert!(scene.metrics().contains(&gauge), "{}", scene.metrics());
        }
    }
}

/// One permission is missing: of the scaling activities only since when is not known.
#[tokio::test(start_paused = true)]
async fn without_scaling_activities_hooks_are_found_all_the_same() {
    let mut scene = Scene::new(fleet(vec![ours()]));
    scene.sandbox.with(|world| {
        world.queues.lose_next = 1;
        for nth in 1..100 {
            world.faults.inject("autoscaling.DescribeScalingActivities", nth, Injected::Throttle);
        }
    });
    scene.start_worker();
    let instance = scale_in_to_the_end(&mut scene).await;
    let text = scene.transcript();
    assert!(text.contains("looking for what was not received:"), "{text}");
    assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{text}");
    assert!(!text.contains("the deadline has come"), "{text}");
}

/// A hook of ours that timed out while somebody else's holds the instance: nothing is forced for it, and nobody is paged.
#[tokio::test(start_paused = true)]
async fn a_hook_that_is_over_behind_another_is_not_served() {
    let foreign = Hook {
        heartbeat_timeout: seconds(7_000),
        metadata: Some("arn:aws:codedeploy:deployment/d-1".to_owned()),
        ..Hook::terminating("codedeploy")
    };
    let short = Hook { heartbeat_timeout: seconds(30), default_result: ActionResult::Continue, ..ours() };
    let mut scene = Scene::new(fleet(vec![short, foreign]));
    scene.sandbox.with(|world| world.queues.lose_next = 2);
    scene.start_worker();
    scale_in(&mut scene);
    scene.pass(seconds(3 * SWEEP)).await;
    let text = scene.transcript();
    assert!(text.contains("has timed out: CONTINUE") && text.contains("was_not_open after"), "{text}");
    assert!(!text.contains("evict") && !text.contains("delete default/"), "{text}");
    assert_eq!(jobs_about(&mut scene, "found without a message"), 1, "{text}");
}

/// Nobody sends a message while `messages` is off; what was found is told, and nothing is done.
#[tokio::test(start_paused = true)]
async fn with_messages_off_it_is_told_and_left() {
    let mut scene = Scene::new(fleet(vec![Hook { heartbeat_timeout: seconds(7_200), ..ours() }]));
    scene.settings.messages = false;
    scene.sandbox.with(|world| world.queues.lose_next = 1);
    scene.start_worker();
    let instance = scale_in(&mut scene);
    scene.pass(seconds(2_400)).await;
    let text = scene.transcript();
    assert_eq!(jobs_about(&mut scene, "nobody works on it; no message could be sent"), 1, "{text}");
    assert!(text.contains("no job can finish this: a hook holds the instance"), "{text}");
    assert!(!scene.sandbox.peek(|world| has_record(world, &instance)), "{text}");
    let metrics = scene.metrics();
    assert!(metrics.contains("offramp_unfinished{what=\"waiting_hook\"} 1"), "{metrics}");
}

/// A sender whose clock is two hundred years ahead.
#[tokio::test(start_paused = true)]
async fn a_time_in_the_future_holds_no_node_for_ever() {
    let mut scene = Scene::new(fleet(Vec::new()));
    scene.policy.rebalance = RebalancePolicy::Isolate;
    scene.start_worker();
    let instance = scene.instances("workers")[0].clone();
    let body = format!(
        r#"{{"version": "0", "id": "7bf73129", "detail-type": "EC2 Instance Rebalance Recommendation",
        "source": "aws.ec2", "account": "111122223333", "time": "2226-03-14T09:00:00Z",
        "region": "eu-west-1", "resources": [], "detail": {{"instance-id": "{instance}"}}}}"#
    );
    scene.sandbox.with(|world| world.send_message("offramp", &body, BTreeMap::new(), seconds(0))).unwrap();
    let isolated = |world: &World| has_record(world, &instance);
    scene.until("the node is isolated", seconds(10), isolated).await;
    let released = |world: &World| !has_record(world, &instance);
    scene.until("the node is released", seconds(3_700), released).await;
}

/// What a scale-in gives to a warm pool comes back with the node that went, and our cordon is on it (EKS, `reuseOnScaleIn`).
#[tokio::test(start_paused = true)]
async fn what_was_done_for_a_warm_pool_is_undone_when_the_instance_is_back() {
    let workers = GroupName::new("workers");
    let mut scene = Scene::new(fleet(vec![ours()]));
    scene.sandbox.with(|world| world.groups.warm_pools.insert(workers.clone()));
    scene.start_worker();
    let instance = scale_in(&mut scene);
    let is =
        |world: &World, state| world.groups.get(&"workers".into()).unwrap().members[&instance].state == state;
    let pooled = |world: &World| is(world, MemberState::WarmedStopped);
    scene.until("it is in the warm pool", seconds(600), pooled).await;
    scene.pass(seconds(2 * SWEEP)).await;
    assert!(scene.sandbox.peek(|world| has_record(world, &instance)), "{}", scene.transcript());
    scene.sandbox.with(|world| world.set_desired(&workers, 3)).unwrap();
    let undone = |world: &World| is(world, MemberState::InService) && !has_record(world, &instance);
    scene.until("its node is as it was", seconds(2 * SWEEP), undone).await;
    scene.until_done(seconds(60)).await;
    let taken = scene.sandbox.peek(|world| {
        let node = world.clusters[&"blue".into()].node_of(&instance).unwrap();
        (node.unschedulable, node.labels.contains_key(EXCLUDE_LABEL))
    });
    assert_eq!((taken, scene.lost()), ((false, false), 0.0), "{}", scene.transcript());
}
