//! A worker whose configuration says which groups or nodes are its own: the others are left as they were,
//! although their hooks have the same name and their notices lie in the same queue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

// Each test binary uses a part of it.
#[allow(dead_code)]
#[path = "processes/stage.rs"]
mod stage;

use std::collections::BTreeSet;

use offramp_core::{ClusterName, InstanceId, PodRef, SpotAction};
use offramp_engine::Clock;
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::{App, Pool};
use offramp_sandbox::world::cluster::WorkloadKind;
use stage::{Stage, Start, Worker, delays, web};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_without_the_tag_are_left_as_they_were() {
    let start = Start { config: "scope: { group_tag: offramp=yes }\n", ..Start::default() };
    serves_ours_and_leaves_theirs(1, &start, "left alone: the group is out of scope").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_without_the_labels_are_left_as_they_were() {
    let start = Start { cluster: "node_selector: team=web", ..Start::default() };
    serves_ours_and_leaves_theirs(2, &start, "left alone: the node selector does not match").await;
}

/// Three nodes of ours and four of theirs, in one cluster and behind one load balancer.
fn fleet(seed: u64) -> Fleet {
    let mut ours = Pool::new("ours", 3);
    ours.tags.insert("offramp".to_owned(), "yes".to_owned());
    ours.labels.insert("team".to_owned(), "web".to_owned());
    let mut theirs = Pool::spot("theirs", 4);
    theirs.tags.insert("offramp".to_owned(), "no".to_owned());
    theirs.labels.insert("team".to_owned(), "shop".to_owned());
    // Two on every node.
    let web = App { kind: WorkloadKind::Deployment { replicas: 14 }, min_available: Some(13), ..web(30_080) };
    Fleet::new(Clock::system().now(), delays(), seed).cluster("blue").pool(ours).pool(theirs).app(web)
}

fn pods_on(stage: &Stage, instances: [&InstanceId; 2]) -> BTreeSet<PodRef> {
    let nodes = instances.map(|instance| stage.node_of(instance));
    stage.sandbox.peek(|world| {
        let blue = &world.clusters[&ClusterName::new("blue")];
        nodes.iter().flat_map(|node| blue.pods_of_node(node).map(|pod| pod.pod.clone())).collect()
    })
}

async fn serves_ours_and_leaves_theirs(seed: u64, start: &Start<'_>, reason: &str) {
    let mut stage = Stage::open(fleet(seed));
    let answered = stage.watch_answers();
    let mut worker = Worker::start_as(&stage, start);
    worker.ready_when("that all is well", |status, _| status == 200).await;

    let leaving = stage.scale_in("theirs");
    let interrupted = stage.member_of("theirs");
    let ours = stage.scale_in("ours");
    let theirs = pods_on(&stage, [&leaving, &interrupted]);
    assert!(!theirs.is_empty());
    stage.sandbox.with(|world| assert!(world.spot_interrupt(&interrupted, SpotAction::Terminate)));

    stage.until("our hook is answered", || !answered.lock().unwrap().is_empty()).await;
    stage.until("the queue is empty", || stage.is_empty()).await;

    let story = stage.story().join("\n");
    let answered = answered.lock().unwrap();
    assert!(answered.iter().all(|one| one.instance == ours && one.in_time && one.pods == 0), "{answered:?}");
    for instance in [&leaving, &interrupted] {
        let told = worker.lines_with(reason);
        assert!(told.iter().any(|line| line["instance"] == instance.as_str()), "{}", worker.log());
        // A hook of ours that nobody answers is worth a warning; a spot notice about somebody else's node is not.
        let ended =
            told.iter().find(|line| line["instance"] == instance.as_str() && line["outcome"] == "left_alone");
        let level = if instance == &leaving { "WARN" } else { "INFO" };
        assert_eq!(ended.map(|line| &line["level"]), Some(&level.into()), "{}", worker.log());
        stage.sandbox.peek(|world| {
            let node = world.clusters.values().find_map(|cluster| cluster.node_of(instance)).unwrap();
            assert!(!node.unschedulable && node.annotations.is_empty(), "{node:?}");
        });
        assert!(!story.contains(&format!("{instance} is Detaching")), "{story}");
        assert!(!story.contains(&format!("{instance} is deregistered")), "{story}");
    }
    let now = pods_on(&stage, [&leaving, &interrupted]);
    assert!(theirs.is_subset(&now), "{theirs:?} {now:?}");
    assert!(story.lines().any(|line| line == format!("{leaving} is Terminating:Wait in theirs")), "{story}");
    assert_eq!(stage.depth("offramp-dlq"), (0, 0), "{story}");
}
