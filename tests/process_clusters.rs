//! Two clusters on one queue, one of which cannot be reached: the other one is served as if nothing were
//! wrong, nothing is lost, and nobody mistakes one for the other.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

// Each test binary uses a part of it.
#[allow(dead_code)]
#[path = "processes/stage.rs"]
mod stage;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offramp_core::ClusterName;
use offramp_engine::Clock;
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::{App, Pool};
use stage::{Stage, Start, Worker, blue, delays, get, is_ready, web};

/// Hooks of somebody else, on nodes of a cluster of ours, stand for what lands in a shared queue.
const FOREIGN_HOOK: &str = "codedeploy";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_server_does_not_listen_holds_nobody_up() {
    let mut stage = Stage::new(fleet(1));
    stage.open_aws();
    stage.open_cluster("blue");
    serves_blue_and_then_green(stage, |stage| stage.open_cluster("green")).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_whose_server_is_away_holds_nobody_up() {
    let stage = Stage::open(fleet(2));
    let away = |stage: &Stage, span: Duration| {
        stage.sandbox.with(|world| world.take_api_server_away(&ClusterName::new("green"), span));
    };
    away(&stage, Duration::from_secs(3_600));
    serves_blue_and_then_green(stage, move |stage| away(stage, Duration::ZERO)).await;
}

/// A cluster in sync counts as such whatever the queue does: its gauge fires a critical alert.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_and_gauges_are_right_while_there_is_no_queue() {
    let mut stage = Stage::new(blue(3));
    stage.open_cluster("blue");
    let mut worker = Worker::start(&stage);
    let admin = worker.admin().await;
    assert_eq!(get(admin, "/live").await.0, 200);
    worker
        .ready_when("that only the queue is missing", |status, parts| {
            status == 503 && is_ready(parts, "cluster blue") && !is_ready(parts, "queue")
        })
        .await;
    let (_, metrics) = get(admin, "/metrics").await;
    assert!(metrics.contains("\nofframp_cluster_synced{cluster=\"blue\"} 1\n"), "{metrics}");
}

/// Two clusters with three nodes and the web app each; blue has three more nodes with a foreign hook.
fn fleet(seed: u64) -> Fleet {
    let mut foreign = Pool::new("foreign", 3);
    foreign.hooks[0].name = FOREIGN_HOOK.into();
    foreign.hooks[0].metadata = Some("arn:aws:codedeploy:deployment/d-1".to_owned());
    Fleet::new(Clock::system().now(), delays(), seed)
        .cluster("blue")
        .pool(Pool::new("blue-workers", 3))
        .pool(foreign)
        .app(App { min_available: Some(4), ..web(30_080) })
        .cluster("green")
        .pool(Pool::new("green-workers", 3))
        .app(App { min_available: Some(4), ..web(30_081) })
}

/// With green down, until `comes_back` is called.
async fn serves_blue_and_then_green(mut stage: Stage, comes_back: impl FnOnce(&mut Stage)) {
    let answered = stage.watch_answers();
    let mut worker = Worker::start_as(&stage, &Start { config: "foreign_hold: 2s\n", ..Start::default() });
    worker
        .ready_when("that only green is missing", |status, parts| {
            let ready = ["queue", "cluster blue"].iter().all(|name| is_ready(parts, name));
            status == 503 && ready && !is_ready(parts, "cluster green") && parts.len() == 3
        })
        .await;
    let said = worker.line_with("out of sync").await;
    assert_eq!(said["cluster"], "green");

    let foreign = stage.scale_in("foreign");
    let green = stage.scale_in("green-workers");
    let blue = stage.scale_in("blue-workers");
    let (blue_node, green_node) = (stage.node_of(&blue), stage.node_of(&green));
    let answer = |instance| format!("offramp of {instance} is answered with CONTINUE");
    stage.until("blue's hook is answered", || stage.story().contains(&answer(&blue))).await;
    stage.until("only green's message is left", || total(stage.depth("offramp")) == 1).await;
    assert_eq!(stage.writes("green"), Vec::<String>::new());
    worker.ready_when("that green is still missing", |status, _| status == 503).await;

    comes_back(&mut stage);
    stage.until("green's hook is answered", || stage.story().contains(&answer(&green))).await;
    stage.until("the queue is empty", || stage.is_empty()).await;
    worker.ready_when("that all is well", |status, _| status == 200).await;
    // It says so when the watch has been open for a moment, a little after the list that made it ready.
    assert_eq!(worker.line_with(": in sync").await["cluster"], "green");

    assert_eq!(stage.patched("blue"), BTreeSet::from([blue_node.clone()]));
    assert_eq!(stage.patched("green"), BTreeSet::from([green_node.clone()]));
    for cluster in ["blue", "green"] {
        let writes = stage.writes(cluster);
        assert!(writes.iter().any(|words| words.ends_with("/eviction")), "{writes:?}");
        let expected = |words: &String| {
            words.starts_with("PATCH ") || ["/eviction", "/events"].iter().any(|end| words.ends_with(end))
        };
        assert!(writes.iter().all(expected), "{writes:?}");
    }
    for (cluster, node) in [("blue", &blue_node), ("green", &green_node)] {
        let told = || -> Vec<String> {
            stage.sandbox.peek(|world| {
                let events = world.clusters[&ClusterName::new(cluster)].events.iter();
                let about = events.filter(|event| event.regarding.name == node.as_str());
                about.map(|event| event.reason.clone()).collect()
            })
        };
        // Events go out beside everything else, so the last one may be a moment late.
        stage.until("the last Event", || told().last().is_some_and(|last| last == "Removed")).await;
        // One that meets a dead connection is not repeated, and green's server has just come back.
        assert!(
            told().first().is_some_and(|first| first == "Isolated") || cluster == "green",
            "{:?}",
            told()
        );
    }
    // A worker writes annotations on what it touches; those of nodes that have ended are gone with them.
    let marked = stage.sandbox.peek(|world| {
        let nodes = world.clusters.values().flat_map(|cluster| cluster.nodes.values());
        let marked = nodes.filter(|node| !node.annotations.is_empty() || node.unschedulable);
        marked.map(|node| (node.instance.clone(), node.annotations.clone())).collect::<BTreeMap<_, _>>()
    });
    assert!(marked.keys().all(|instance| *instance == blue || *instance == green), "{marked:?}");

    let story = stage.story().join("\n");
    let answered = answered.lock().unwrap();
    assert_eq!(answered.len(), 2, "{answered:?}\n{story}");
    assert!(answered.iter().all(|one| one.in_time && one.pods == 0), "{answered:?}\n{story}");
    assert!(!story.contains(FOREIGN_HOOK), "{story}");
    assert_eq!(worker.lines_with("the hook is somebody else's").len(), 1, "{}", worker.log());
    let still_waits = format!("{foreign} is Terminating:Wait in foreign");
    assert!(story.lines().any(|line| line == still_waits), "{story}");
    assert_eq!(stage.sandbox.peek(|world| world.traffic.lost()), 0.0, "{story}");
    assert_eq!(stage.depth("offramp-dlq"), (0, 0), "{story}");
}

fn total((waiting, in_flight): (u64, u64)) -> u64 {
    waiting + in_flight
}
