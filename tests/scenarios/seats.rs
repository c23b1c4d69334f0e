//! Evictions and deletions go out so many at a time. Waiting for a turn is not a failure.

use std::sync::Arc;
use std::time::Duration;

use offramp_core::SpotAction;
use offramp_engine::Seats;
use offramp_sandbox::fleet::{App, Pool};
use offramp_sandbox::world::cluster::Ending;
use offramp_sandbox::{Delays, Fleet};
use tokio::sync::Semaphore;

use super::script::{START, Scene, seconds};

/// A spot instance with pods whose grace of two minutes does not fit into the two minutes of the notice:
/// they are asked to go with less of it at once, and a refusal would mean that they are deleted.
fn long_grace() -> Scene {
    let ending = Ending { pre_stop: Duration::ZERO, takes: Some(seconds(5)), stuck: false };
    let app = App { grace: seconds(120), ending, ..App::new("patient", 6) };
    let fleet = Fleet::new(START, Delays::aws(), 5).cluster("blue").pool(Pool::spot("spot", 3)).app(app);
    let mut scene = Scene::new(fleet);
    scene.seats = Some(Arc::new(Seats { evictions: Semaphore::new(1), deletions: Semaphore::new(64) }));
    scene
}

#[tokio::test(start_paused = true)]
async fn an_eviction_that_waits_for_a_seat_is_not_a_failure() {
    let mut scene = long_grace();
    let seats = scene.seats.clone().unwrap();
    // Another job has the only seat for longer than a call may take.
    let taken = seats.evictions.acquire().await.unwrap();
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(12)).await;
    let story = scene.transcript();
    assert!(story.contains("isolated") && !story.contains("evict"), "{story}");
    drop(taken);
    scene.pass(seconds(20)).await;
    let story = scene.transcript();
    assert!(story.contains("evict default/patient"), "{story}");
    assert!(!story.contains("failed") && !story.contains("delete default/"), "{story}");
    assert_eq!(scene.running_pods_on(&instance), 0, "{story}");
}

#[tokio::test(start_paused = true)]
async fn without_a_seat_to_the_last_a_pod_is_deleted_while_it_has_time_to_end() {
    let mut scene = long_grace();
    let seats = scene.seats.clone().unwrap();
    let _taken = seats.evictions.acquire().await.unwrap();
    scene.start_worker();
    let instance = scene.instances("spot")[0].clone();
    scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
    scene.pass(seconds(70)).await;
    assert!(!scene.transcript().contains("delete default/"), "it is asked for as long as there is time");
    scene.pass(seconds(48)).await;
    let story = scene.transcript();
    assert!(story.contains("delete default/patient"), "{story}");
    assert_eq!(scene.running_pods_on(&instance), 0, "the pods had the time to end\n{story}");
}
