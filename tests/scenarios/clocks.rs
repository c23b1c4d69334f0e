//! A machine whose clock is wrong (5.1 "Time"): its worker comes to the same ends as any other.

use offramp_core::SpotAction;
use offramp_sandbox::faults::{Faults, Injected};
use offramp_sandbox::fleet::Pool;
use offramp_sandbox::world::groups::Hook;
use offramp_sandbox::{Delays, Fleet};

use super::reports::{answers, outcomes, told};
use super::script::{START, Scene, seconds};
use super::transcripts::web_app;

/// Four minutes, to either side. AWS refuses what is signed five minutes before or after.
const WRONG: [i64; 2] = [240_000, -240_000];

fn scene(pool: Pool, clocks_ahead: i64) -> Scene {
    let fleet = Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(pool).app(web_app());
    let mut scene = Scene::new(fleet);
    scene.clocks_ahead = clocks_ahead;
    scene
}

/// What the metrics say of the clock, in seconds.
fn skew(scene: &Scene) -> i64 {
    let metrics = scene.metrics();
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix("offramp_clock_skew_seconds "));
    lines.next().unwrap().parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_spot_notice_is_served_in_its_two_minutes_by_a_clock_that_is_wrong() {
    for clocks_ahead in WRONG {
        let mut scene = scene(Pool::spot("spot", 3), clocks_ahead);
        let instance = scene.instances("spot").remove(0);
        // It is there already when the worker starts: nothing is decided by the wrong time.
        scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
        scene.start_worker();
        scene.pass(seconds(119)).await;
        let text = scene.transcript();
        assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{text}");
        assert!(scene.sandbox.peek(|world| told(world, "is deregistered from").is_some()), "{text}");
        let side = if clocks_ahead > 0 { "ahead of" } else { "behind" };
        assert!(text.contains(&format!("{side} the queue's, whose time counts")), "{text}");
        assert!(skew(&scene).abs_diff(-clocks_ahead / 1_000) <= 1, "{}", skew(&scene));
    }
}

#[tokio::test(start_paused = true)]
async fn a_hook_is_drained_and_answered_by_a_clock_that_is_wrong() {
    for clocks_ahead in WRONG {
        let hook = Hook { heartbeat_timeout: seconds(60), ..Hook::terminating("offramp") };
        let mut scene = scene(Pool { hooks: vec![hook], ..Pool::new("workers", 3) }, clocks_ahead);
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
        scene.pass(seconds(10)).await;
        scene.until_done(seconds(600)).await;
        assert_eq!((answers(&mut scene), scene.lost()), (1, 0.0), "{}", scene.transcript());
        assert!(outcomes(&scene, "left"), "{}", scene.transcript());
    }
}

/// A worker reads its machine's clock at its start alone: a jump is one between two workers, in the middle of a removal.
#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_under_a_removal_changes_nothing() {
    for jump in [3_600_000, -3_600_000] {
        let hook = Hook { heartbeat_timeout: seconds(120), ..Hook::terminating("offramp") };
        let mut scene = scene(Pool { hooks: vec![hook], ..Pool::new("workers", 3) }, 0);
        scene.start_worker();
        let instance = scene.instances("workers").remove(0);
        scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
        scene.pass(seconds(20)).await;
        assert!(scene.transcript().contains("is cordoned"), "{}", scene.transcript());
        for clocks_ahead in [jump, 0] {
            scene.kill_worker().await;
            scene.clocks_ahead = clocks_ahead;
            scene.start_worker();
            scene.pass(seconds(45)).await;
        }
        scene.until_done(seconds(600)).await;
        assert_eq!((answers(&mut scene), scene.lost()), (1, 0.0), "{}", scene.transcript());
        assert!(outcomes(&scene, "left"), "{}", scene.transcript());
    }
}

/// A worker that is started while the queue dates nothing, and a member of the pool that its group ends.
async fn removal_without_dates(pool: Pool, clocks_ahead: i64) -> Scene {
    let mut scene = scene(pool, clocks_ahead);
    scene.sandbox.with(|world| world.faults.always("sqs.GetQueueAttributes", Some(Injected::Error)));
    scene.start_worker();
    scene.pass(seconds(3)).await;
    let instance = scene.instances("workers").remove(0);
    scene.sandbox.with(|world| world.terminate_in_group(&instance, true)).unwrap();
    scene
}

/// The queue dates nothing at first: what a job remembers by the wrong clock is worth nothing by the right one. A clock that is
/// ahead stays so, and says it.
#[tokio::test(start_paused = true)]
async fn a_clock_is_not_moved_under_a_removal() {
    let hook = Hook { heartbeat_timeout: seconds(60), ..Hook::terminating("offramp") };
    let mut scene =
        removal_without_dates(Pool { hooks: vec![hook], ..Pool::new("workers", 3) }, 240_000).await;
    scene.pass(seconds(20)).await;
    assert_eq!((scene.jobs().await.len(), skew(&scene)), (1, 0), "{}", scene.transcript());
    scene.sandbox.with(|world| world.faults = Faults::default());
    scene.until_done(seconds(600)).await;
    scene.pass(seconds(60)).await;
    let text = scene.transcript();
    assert!(skew(&scene).abs_diff(-240) <= 1, "{}", skew(&scene));
    assert_eq!(text.matches("is not moved while a removal may be at work").count(), 1, "{text}");
    assert!(!text.contains("whose time counts"), "{text}");
    assert_eq!((answers(&mut scene), scene.lost()), (1, 0.0), "{text}");
    assert!(outcomes(&scene, "left"), "{text}");
}

/// Neither is one that is behind: a pod whose grace has just begun would be overdue.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_behind_is_moved_after_the_removal() {
    let mut scene = removal_without_dates(Pool::new("workers", 3), -240_000).await;
    scene.pass(seconds(3)).await;
    scene.sandbox.with(|world| world.faults = Faults::default());
    scene.pass(seconds(120)).await;
    let text = scene.transcript();
    assert_eq!(text.matches("is not moved while a removal may be at work").count(), 1, "{text}");
    assert!(!text.contains("whose time counts"), "{text}");
    scene.until_done(seconds(600)).await;
    scene.pass(seconds(60)).await;
    let text = scene.transcript();
    assert!(text.contains("whose time counts") && skew(&scene).abs_diff(240) <= 1, "{text}");
}

/// It is moved on when nothing is at work.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_behind_is_moved_as_soon_as_the_queue_has_dated_its_answers() {
    let mut scene = scene(Pool::spot("spot", 3), -240_000);
    scene.sandbox.with(|world| world.faults.always("sqs.GetQueueAttributes", Some(Injected::Error)));
    scene.start_worker();
    scene.pass(seconds(20)).await;
    scene.sandbox.with(|world| world.faults = Faults::default());
    scene.pass(seconds(90)).await;
    assert!(scene.transcript().contains("behind the queue's, whose time counts"), "{}", scene.transcript());
    let instance = scene.instances("spot").remove(0);
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(119)).await;
    assert_eq!((scene.lost(), scene.running_pods_on(&instance)), (0.0, 0), "{}", scene.transcript());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_right_is_not_moved() {
    let mut scene = scene(Pool::spot("spot", 3), 900);
    scene.start_worker();
    scene.pass(seconds(300)).await;
    assert_eq!(skew(&scene), 0);
    assert!(!scene.transcript().contains("clock"), "{}", scene.transcript());
}
