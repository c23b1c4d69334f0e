//! A worker whose configuration says which groups or nodes are its own: the others are left as they were, although
//! their hooks have the same name and their notices lie in the same queue.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

// Each test binary uses a part of it.
#[allow(dead_code)]
#[path = "processes/stage.rs"]
mod stage;

use offramp_core::SpotAction;
use offramp_engine::Clock;
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::Pool;
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
    let cluster = Fleet::new(Clock::system().now(), delays(), seed).cluster("blue");
    cluster.pool(ours).pool(theirs).app(web(30_080))
}

async fn serves_ours_and_leaves_theirs(seed: u64, start: &Start<'_>, reason: &str) {
    let mut stage = Stage::open(fleet(seed));
    let answered = stage.watch_answers();
    let mut worker = Worker::start_as(&stage, start);
    worker.ready_when("that all is well", |status, _| status == 200).await;

    let leaving = stage.scale_in("theirs");
    let interrupted = stage.member_of("theirs");
    let ours = stage.scale_in("ours");
    let pods = [&leaving, &interrupted].map(|instance| stage.pods_left_on(instance));
    stage.sandbox.with(|world| assert!(world.spot_interrupt(&interrupted, SpotAction::Terminate)));

    stage.until("our hook is answered", || !answered.lock().unwrap().is_empty()).await;
    stage.until("the queue is empty", || stage.is_empty()).await;

    let story = stage.story().join("\n");
    let answered = answered.lock().unwrap();
    assert!(answered.iter().all(|one| one.instance == ours && one.in_time && one.pods == 0), "{answered:?}");
    for instance in [&leaving, &interrupted] {
        let told = worker.lines_with(reason);
        assert!(told.iter().any(|line| line["instance"] == instance.as_str()), "{}", worker.log());
        stage.sandbox.peek(|world| {
            let node = world.clusters.values().find_map(|cluster| cluster.node_of(instance)).unwrap();
            assert!(!node.unschedulable && node.annotations.is_empty(), "{node:?}");
        });
        assert!(!story.contains(&format!("{instance} is Detaching")), "{story}");
        assert!(!story.contains(&format!("{instance} is deregistered")), "{story}");
    }
    assert_eq!([&leaving, &interrupted].map(|instance| stage.pods_left_on(instance)), pods);
    assert!(story.lines().any(|line| line == format!("{leaving} is Terminating:Wait in theirs")), "{story}");
    assert_eq!(stage.depth("offramp-dlq"), (0, 0), "{story}");
}
