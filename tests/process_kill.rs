//! `offramp run` dies by kill -9 in the middle of its work, again and again, and the next one goes on with
//! nothing but the world to look at.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout, reason = "tests")]

// Each test binary uses a part of it.
#[allow(dead_code)]
#[path = "processes/stage.rs"]
mod stage;

use std::env;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use offramp_core::InstanceId;
use offramp_engine::Clock;
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::{App, Pool};
use offramp_sandbox::world::cluster::WorkloadKind;
use stage::{Answered, Stage, Worker, blue, delays, web};
use tokio::task::JoinSet;
use tokio::time::sleep;

/// From a worker that has the message to its death: less than the five seconds for which it lets a refused
/// eviction rest, so that it evicts one pod at most.
const LONGEST_LIFE_MS: u64 = 2_500;

/// How often the one scale-in is interrupted.
const KILLS: usize = 10;
/// Pods on the node that goes, of which the budget lets one go at a time: two more than there are kills, so
/// that the last worker, too, finds something to do.
const PODS: usize = KILLS + 2;

/// Scale-ins that go on side by side, which are killed twice each, late: around their end.
const WORLDS: u64 = 3;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_in_survives_ten_kills_at_random_moments() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut scale_in = ScaleIn::begin(random.u64(..), crowded);
    for number in 1..=KILLS {
        scale_in.live_and_die(Duration::from_millis(random.u64(0..LONGEST_LIFE_MS))).await;
        let left = scale_in.stage.pods_left_on(&scale_in.instance);
        println!("kill {number}: {left} pods left");
        assert!(left > 0 && scale_in.stage.answers() == 0, "{}: done before its end", scale_in.what());
        assert_eq!(scale_in.stage.depth("offramp"), (0, 1), "{}: the message has gone", scale_in.what());
        // Nobody extends the lease of the dead. Ten times ten seconds would be most of this test.
        scale_in.stage.sandbox.with(|world| {
            let now = world.now();
            world.queues.get_mut("offramp").unwrap().let_timeouts_pass(now);
        });
    }
    // The rest may leave at once, which takes seconds instead of half a minute.
    scale_in.stage.sandbox.with(|world| {
        let budgets = world.clusters.values_mut().flat_map(|cluster| cluster.budgets.values_mut());
        budgets.for_each(|budget| budget.min_available = PODS);
    });
    scale_in.end_well().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scale_in_survives_kills_around_its_end() {
    let seed = seed();
    let mut worlds = JoinSet::new();
    for number in 0..WORLDS {
        let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
        let lives: [Duration; 2] = [(); 2].map(|()| Duration::from_millis(random.u64(0..LONGEST_LIFE_MS)));
        worlds.spawn(async move {
            let mut scale_in = ScaleIn::begin(random.u64(..), blue);
            // It evicts one pod of two, and the budget holds the other one back.
            scale_in.live_and_die(lives[0]).await;
            assert_eq!(scale_in.stage.answers(), 0, "{}: done before its end", scale_in.what());
            // The second one gets the message when the first one's lease is over. It needs about half of the
            // longest life, so that it dies in its work, around its end, or just after it.
            scale_in.live_and_die(lives[1]).await;
            scale_in.end_well().await;
        });
    }
    while let Some(world) = worlds.join_next().await {
        world.unwrap();
    }
}

/// The same moments again: `OFFRAMP_TEST_SEED=…`.
fn seed() -> u64 {
    let given = env::var("OFFRAMP_TEST_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| UNIX_EPOCH.elapsed().unwrap().as_secs());
    println!("to see this again: OFFRAMP_TEST_SEED={seed}");
    seed
}

/// Three nodes with so many pods on each that they leave one after the other for longer than ten lives.
fn crowded(seed: u64) -> Fleet {
    let replicas = 3 * PODS;
    let app =
        App { kind: WorkloadKind::Deployment { replicas }, min_available: Some(replicas - 1), ..web(30_080) };
    Fleet::new(Clock::system().now(), delays(), seed).cluster("blue").pool(Pool::new("workers", 3)).app(app)
}

/// A scale-in in a world of its own, and the workers that die on it.
struct ScaleIn {
    stage: Stage,
    answered: Arc<Mutex<Vec<Answered>>>,
    instance: InstanceId,
    seed: u64,
    lives: Vec<Duration>,
}

impl ScaleIn {
    fn begin(seed: u64, fleet: fn(u64) -> Fleet) -> Self {
        let mut stage = Stage::open(fleet(seed));
        let answered = stage.watch_answers();
        let instance = stage.scale_in("workers");
        let scale_in = Self { stage, answered, instance, seed, lives: Vec::new() };
        assert!(scale_in.stage.pods_left_on(&scale_in.instance) > 1, "{}: nothing to drain", scale_in.what());
        scale_in
    }

    fn what(&self) -> String {
        format!("world {}, killed after {:?}", self.seed, self.lives)
    }

    /// A worker starts, and dies so long after it has taken the message on.
    async fn live_and_die(&mut self, life: Duration) {
        let mut worker = Worker::start(&self.stage);
        let over = || self.stage.answers() > 0 && self.stage.is_empty();
        self.stage
            .until("the message is taken on", || !worker.lines_with("notice taken on").is_empty() || over())
            .await;
        sleep(life).await;
        worker.kill();
        self.lives.push(life);
    }

    /// The last worker is left alone, and everything is as if there had been no other.
    async fn end_well(self) {
        let (stage, what) = (&self.stage, self.what());
        let mut worker = Worker::start(stage);
        // Where the life before ended between the answer and the deletion, the instance has gone when this worker gets
        // the message: after the lease (10 s) it believes that no cluster knows it only after `foreign_hold` (60 s).
        let what_has_to_be = "the hook is answered and the queue is empty";
        let is_over = || stage.answers() > 0 && stage.is_empty();
        stage.until_within(Duration::from_secs(120), what_has_to_be, is_over).await;
        worker.line_with("working").await;
        worker.signal("TERM");
        assert_eq!(worker.ended().await.code(), Some(0), "{}", worker.log());

        let story = stage.story().join("\n");
        let answered: Vec<Answered> = self.answered.lock().unwrap().clone();
        let [only] = answered.as_slice() else { panic!("{what}: {answered:?}\n{story}") };
        assert_eq!(only.line, format!("offramp of {} is answered with CONTINUE", self.instance), "{what}");
        assert_eq!(only.instance, self.instance, "{what}");
        assert!(only.in_time, "{what}: nobody saw the moment of the answer\n{story}");
        assert_eq!(only.pods, 0, "{what}: answered with pods left\n{story}");
        assert_eq!(stage.answers(), 1, "{what}\n{story}");
        assert_eq!(stage.sandbox.peek(|world| world.traffic.lost()), 0.0, "{what}\n{story}");
        assert_eq!(stage.depth("offramp-dlq"), (0, 0), "{what}\n{story}");
    }
}
