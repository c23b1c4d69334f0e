//! `offramp run` dies by kill -9 in the middle of its work, again and again, and the next one goes on with
//! nothing but the world to look at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

// Each test binary uses a part of it.
#[allow(dead_code)]
#[path = "processes/stage.rs"]
mod stage;

use std::env;
use std::time::{Duration, UNIX_EPOCH};

use stage::{Answered, Stage, Worker, blue};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// Worlds that go on side by side, each with so many kills: a message of a dead worker stays hidden for up
/// to ten seconds, which is most of what this takes.
const WORLDS: u64 = 5;
const KILLS: u64 = 2;
/// From a worker that has the message to its death. The first worker cannot be done by then: it evicts one
/// pod of two, and the budget holds the other one back for five seconds. The second one needs about half of
/// this, so that it dies in its work, around its end, or just after it.
const LONGEST_LIFE_MS: u64 = 2_500;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_in_survives_kill_9_at_ten_random_moments() {
    let given = env::var("OFFRAMP_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_secs());
    println!("to see this again: OFFRAMP_TEST_SEED={seed}");
    let mut worlds = JoinSet::new();
    let mut kills = 0;
    for number in 0..WORLDS {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let lives: Vec<Duration> =
            (0..KILLS).map(|_| Duration::from_millis(random.u64(0..LONGEST_LIFE_MS))).collect();
        kills += lives.len();
        worlds.spawn(one_world(random.u64(..), lives));
    }
    while let Some(world) = worlds.join_next().await {
        world.unwrap();
    }
    assert_eq!(kills, 10);
}

async fn one_world(seed: u64, lives: Vec<Duration>) {
    let mut stage = Stage::open(blue(seed));
    let answered = stage.watch_answers();
    let instance = stage.scale_in("workers");
    let what = format!("world {seed}, killed after {lives:?}");
    println!("{what}");
    assert!(stage.pods_left_on(&instance) > 1, "{what}: nothing to drain");

    for (number, life) in lives.into_iter().enumerate() {
        let mut worker = Worker::start(&stage);
        stage
            .until("the message is taken on", || {
                !worker.lines_with("notice taken on").is_empty() || stage.answers() > 0 && stage.is_empty()
            })
            .await;
        sleep(life).await;
        worker.kill();
        assert!(number > 0 || stage.answers() == 0, "{what}: the first worker was done before its end");
    }
    let mut worker = Worker::start(&stage);
    stage
        .until("the hook is answered and the queue is empty", || stage.answers() > 0 && stage.is_empty())
        .await;
    worker.line_with("working").await;
    worker.signal("TERM");
    assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());

    let story = stage.story().join("\n");
    let answered: Vec<Answered> = answered.lock().unwrap().clone();
    let [only] = answered.as_slice() else { panic!("{what}: {answered:?}\n{story}") };
    assert_eq!(only.line, format!("offramp of {instance} is answered with CONTINUE"), "{what}");
    assert_eq!(only.instance, instance, "{what}");
    assert!(only.in_time, "{what}: nobody saw the moment of the answer\n{story}");
    assert_eq!(only.pods, 0, "{what}: answered with pods left\n{story}");
    assert_eq!(stage.answers(), 1, "{what}\n{story}");
    assert_eq!(stage.sandbox.peek(|world| world.traffic.lost()), 0.0, "{what}\n{story}");
    assert_eq!(stage.depth("offramp-dlq"), (0, 0), "{what}\n{story}");
}
