//! The worker dies between every two calls, before and after the effect of each, and another one goes on
//! with nothing but the world to look at.

use offramp_core::{GroupName, InstanceId, SpotAction};
use offramp_sandbox::faults::Moment;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::groups::MemberState;
use offramp_sandbox::{Delays, Fleet, World};

use super::script::{START, Scene, seconds};

fn fleet() -> Fleet {
    let web =
        App { min_available: Some(4), entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 6) };
    Fleet::new(START, Delays::aws(), 11).cluster("blue").pool(Pool::new("workers", 3)).app(web)
}

/// What must be true in the end, whatever happened on the way.
fn check(scene: &mut Scene, instance: &InstanceId, what: &str) {
    let story = scene.transcript();
    assert_eq!(scene.lost(), 0.0, "requests were lost: {what}\n{story}");
    let answered = story.matches("is answered with CONTINUE").count();
    assert_eq!(answered, 1, "the hook was answered {answered} times: {what}\n{story}");
    assert_eq!(scene.running_pods_on(instance), 0, "answered with pods left: {what}\n{story}");
    assert!(!story.contains("has timed out"), "the hook timed out: {what}\n{story}");
}

/// The member that the group has just decided to let go.
pub(crate) fn leaving(world: &World) -> Option<InstanceId> {
    let group = world.groups.get(&GroupName::new("workers"))?;
    let chosen = group.members.iter().find(|(_, member)| member.state != MemberState::InService);
    chosen.map(|(id, _)| id.clone())
}

#[tokio::test(start_paused = true)]
async fn a_scale_in_survives_a_crash_between_every_two_calls() {
    let mut crashes = 0;
    for moment in [Moment::BeforeEffect, Moment::AfterEffect] {
        for nth in 1.. {
            let mut scene = Scene::new(fleet());
            scene.sandbox.with(|world| world.faults.crash_at(nth, moment));
            scene.start_worker();
            scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
            let instance = scene.sandbox.peek(leaving).expect("an instance that leaves");
            let crashed = scene.crash_within(seconds(400)).await;
            if !crashed {
                break;
            }
            crashes += 1;
            scene.pass(seconds(3)).await;
            scene.start_worker();
            scene.until_done(seconds(2_000)).await;
            check(&mut scene, &instance, &format!("killed at call {nth}, {moment:?}"));
        }
    }
    // Receive, cordon, label, evictions, deregistration, extensions, heartbeats, answer, delete.
    assert!(crashes >= 2 * 10, "only {crashes} moments to die at");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_dies_again_and_again_gets_there() {
    let mut scene = Scene::new(fleet());
    scene.start_worker();
    scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
    let instance = scene.sandbox.peek(leaving).expect("an instance that leaves");
    for life in [2, 3, 5, 7, 11, 13, 17, 19, 23, 29] {
        scene.pass(seconds(life)).await;
        scene.kill_worker().await;
        scene.pass(seconds(1)).await;
        scene.start_worker();
    }
    scene.until_done(seconds(2_000)).await;
    check(&mut scene, &instance, "killed ten times");
}

#[tokio::test(start_paused = true)]
async fn a_spot_notice_survives_a_crash_between_every_two_calls() {
    for moment in [Moment::BeforeEffect, Moment::AfterEffect] {
        for nth in 1.. {
            let pool = Pool { hooks: Vec::new(), ..Pool::spot("workers", 3) };
            let web = App {
                min_available: Some(4),
                entrance: Some(Entrance::new(30_080, 100.0)),
                ..App::new("web", 6)
            };
            let mut scene =
                Scene::new(Fleet::new(START, Delays::aws(), 12).cluster("blue").pool(pool).app(web));
            scene.sandbox.with(|world| world.faults.crash_at(nth, moment));
            scene.start_worker();
            let instance = scene.instances("workers")[0].clone();
            scene.sandbox.with(|world| world.spot_interrupt(&instance, SpotAction::Terminate));
            if !scene.crash_within(seconds(100)).await {
                break;
            }
            scene.pass(seconds(1)).await;
            scene.start_worker();
            scene.until_done(seconds(300)).await;
            let (at, story) = (scene.sandbox.now().since(START), scene.transcript());
            let what = format!("killed at call {nth}, {moment:?}, done at {at:?}\n{story}");
            assert_eq!(scene.running_pods_on(&instance), 0, "pods are left: {what}");
            scene.pass(seconds(200)).await;
            assert_eq!(scene.lost(), 0.0, "requests were lost: {what}");
        }
    }
}
