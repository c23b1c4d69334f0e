//! What `kubectl describe node` tells of a removal.

use offramp_core::{GroupName, InstanceId};
use offramp_sandbox::faults::Injected;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::{Delays, Fleet};

use super::crashes::leaving;
use super::script::{START, Scene, seconds};
use super::transcripts::web;

/// The Events about the node of an instance, as (type, reason, note).
fn events(scene: &Scene, node: &str) -> Vec<(String, String, String)> {
    scene.sandbox.peek(|world| {
        let events = world.clusters.values().flat_map(|cluster| &cluster.events);
        let events = events.filter(|event| event.regarding.name == node);
        events.map(|event| (event.kind.clone(), event.reason.clone(), event.note.clone())).collect()
    })
}

fn node_of(scene: &Scene, instance: &InstanceId) -> String {
    scene.sandbox.peek(|world| {
        let mut clusters = world.clusters.values();
        clusters.find_map(|cluster| cluster.node_of(instance)).unwrap().name.to_string()
    })
}

/// The Events of a node that leaves by its hook, to the end.
async fn told_of_a_scale_in(scene: &mut Scene) -> Vec<(String, String, String)> {
    scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
    let instance = scene.sandbox.peek(leaving).unwrap();
    let node = node_of(scene, &instance);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(900)).await;
    events(scene, &node)
}

#[tokio::test(start_paused = true)]
async fn a_scale_in_tells_its_beginning_and_its_end() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    let told = told_of_a_scale_in(&mut scene).await;
    let reasons: Vec<&str> = told.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["Isolated", "Removed"], "{told:#?}");
    assert!(told.iter().all(|(kind, _, _)| kind == "Normal"), "{told:#?}");
    assert!(told[0].2.starts_with("Cordoned for a hook notice, "), "{}", told[0].2);
    for (_, _, note) in &told {
        assert!(note.ends_with('.') && note.starts_with(|first: char| first.is_uppercase()), "{note}");
    }
}

/// The API server shows a cordon to the watch before it answers the PATCH. What follows from the cordon is not told before it.
#[tokio::test(start_paused = true)]
async fn a_cordon_whose_answer_is_late_is_told_when_it_shows() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    let late = Injected::LateAnswer(seconds(2));
    scene.sandbox.with(|world| world.faults.inject("kubernetes.PATCH node", 1, late));
    let told = told_of_a_scale_in(&mut scene).await;
    let reasons: Vec<&str> = told.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["Isolated", "Removed"], "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_takes_over_tells_the_end_alone() {
    let mut scene = Scene::new(web());
    scene.start_worker();
    scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
    let instance = scene.sandbox.peek(leaving).unwrap();
    let node = node_of(&scene, &instance);
    scene.pass(seconds(20)).await;
    scene.kill_worker().await;
    scene.start_worker();
    scene.until_done(seconds(900)).await;
    let told = events(&scene, &node);
    let reasons: Vec<&str> = told.iter().map(|(_, reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["Isolated", "Removed"], "{told:#?}");
}

#[tokio::test(start_paused = true)]
async fn the_last_healthy_target_and_a_pod_that_is_deleted_are_warnings() {
    // One node, which is the last target, and a budget that allows nothing.
    let entrance = Entrance::new(30_080, 10.0);
    let app = App { min_available: Some(1), entrance: Some(entrance), ..App::new("web", 1) };
    let mut scene = Scene::new(
        Fleet::new(START, Delays::aws(), 3).cluster("blue").pool(Pool::new("workers", 1)).app(app),
    );
    scene.policy.hook_limit = seconds(700);
    scene.start_worker();
    scene.sandbox.with(|world| world.scale_in(&GroupName::new("workers"), 1)).unwrap();
    let instance = scene.sandbox.peek(leaving).unwrap();
    let node = node_of(&scene, &instance);
    scene.pass(seconds(5)).await;
    scene.until_done(seconds(1_500)).await;
    let told = events(&scene, &node);
    let warnings: Vec<&str> =
        told.iter().filter(|(kind, _, _)| kind == "Warning").map(|(_, reason, _)| reason.as_str()).collect();
    assert!(warnings.starts_with(&["HeldBack", "PodDeleted"]), "{told:#?}");
}
