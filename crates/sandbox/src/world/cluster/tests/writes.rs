use super::*;
use crate::world::cluster::{Budget, Object, Verb};

fn guarded(replicas: usize, min_available: usize) -> App {
    App { min_available: Some(min_available), ..App::new("web", replicas) }
}

#[test]
fn a_budget_lets_go_of_as_many_pods_as_it_can_spare() {
    let mut scene = Scene::new([guarded(3, 2)]);
    let pods = scene.pods();
    scene.evict(&pods[0].pod).unwrap();
    let refused = scene.evict(&pods[1].pod).unwrap_err();
    let message = "The disruption budget web needs 2 healthy pods and has 2 currently".to_owned();
    assert_eq!(refused, ApiError::TooManyRequests { budget: "web".to_owned(), message });
    // The successor is Ready after its start.
    scene.go(2_000);
    scene.evict(&pods[1].pod).unwrap();
}

#[test]
fn a_pod_that_goes_already_costs_its_budget_nothing() {
    let mut scene = Scene::new([guarded(2, 1)]);
    let pods = scene.pods();
    scene.evict(&pods[0].pod).unwrap();
    scene.evict(&pods[0].pod).unwrap();
    assert!(scene.evict(&pods[1].pod).is_err());
}

#[test]
fn a_pod_that_never_started_is_evicted_whatever_the_budget_says() {
    let mut scene = Scene::new([guarded(2, 2)]);
    let pods = scene.pods();
    scene.delete(&pods[0].pod, None).unwrap();
    scene.go(100);
    let successor = scene.pods().into_iter().find(|pod| !pod.ready && pod.deletion.is_none()).unwrap();
    scene.evict(&successor.pod).unwrap();
}

#[test]
fn two_budgets_for_one_pod_are_an_error_of_the_server() {
    let mut scene = Scene::new([guarded(3, 1)]);
    let everything = Budget {
        namespace: "default".to_owned(),
        name: "everything".to_owned(),
        selector: BTreeMap::new(),
        min_available: 0,
        version: 0,
    };
    scene.world.add_budget(&scene.name, everything);
    let pod = scene.pods()[0].pod.clone();
    assert_eq!(scene.evict(&pod), Err(ApiError::Several));
}

/// kubernetes/kubernetes#93947: the admission plugin NamespaceLifecycle refuses what is created, and lets go what is
/// deleted.
#[test]
fn nobody_is_evicted_in_a_namespace_that_is_being_deleted() {
    let mut scene = Scene::new([App::new("web", 1)]);
    let pod = scene.pods()[0].pod.clone();
    let cluster = scene.world.clusters.get_mut(&scene.name).unwrap();
    cluster.terminating_namespaces.insert("default".to_owned());
    let Err(ApiError::NamespaceTerminating { namespace, message }) = scene.evict(&pod) else { panic!() };
    assert_eq!(namespace, "default");
    assert!(message.ends_with("in namespace default because it is being terminated"), "{message}");
    scene.delete(&pod, None).unwrap();
}

#[test]
fn a_deletion_asks_no_budget() {
    let mut scene = Scene::new([guarded(2, 2)]);
    let pod = scene.pods()[0].pod.clone();
    assert!(scene.evict(&pod).is_err());
    scene.delete(&pod, None).unwrap();
    assert!(scene.pod(&pod).unwrap().deletion.is_some());
}

#[test]
fn a_uid_that_does_not_match_is_a_conflict_and_a_pod_that_is_not_there_is_not_found() {
    let mut scene = Scene::new([App::new("web", 1)]);
    let pod = scene.pods()[0].pod.clone();
    let other = PodRef { uid: offramp_core::PodUid::new("another"), ..pod.clone() };
    assert!(matches!(scene.evict(&other), Err(ApiError::Conflict(_))));
    assert!(matches!(scene.delete(&other, None), Err(ApiError::Conflict(_))));
    let nobody = PodRef { name: "nobody".to_owned(), ..pod };
    assert_eq!(scene.evict(&nobody), Err(ApiError::NotFound));
}

#[test]
fn a_second_deletion_only_shortens_the_grace() {
    let mut scene = Scene::new([App { ending: ending(0, None), ..App::new("web", 1) }]);
    let pod = scene.pods()[0].pod.clone();
    let began = scene.world.now();
    let ends = |scene: &Scene| scene.pod(&pod).unwrap().deletion.unwrap().since(began).as_secs();
    scene.delete(&pod, None).unwrap();
    assert_eq!(ends(&scene), 30);
    scene.go(5_000);
    for (grace, then) in [(None, 30), (Some(40), 30), (Some(20), 20), (Some(25), 20)] {
        scene.delete(&pod, grace).unwrap();
        assert_eq!(ends(&scene), then, "{grace:?}");
    }
    // The kubelet counts the cut grace from the second deletion.
    scene.go(19_900);
    assert!(scene.pod(&pod).is_some());
    scene.go(100);
    assert!(scene.pod(&pod).is_none());
}

#[test]
fn a_grace_of_zero_takes_the_object_away_at_once() {
    let stuck = Ending { stuck: true, ..ending(0, None) };
    let mut scene = Scene::new([App { ending: stuck, ..App::new("web", 1) }]);
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, Some(0)).unwrap();
    assert!(scene.pod(&pod).is_none());
}

#[test]
fn a_patch_holds_only_for_the_version_that_it_names() {
    let mut scene = Scene::new([]);
    let (node, _) = scene.node(0);
    let version = scene.cluster().nodes[&node].version;
    let patch = |unschedulable, resource_version| NodePatch {
        unschedulable: Some(unschedulable),
        resource_version,
        ..NodePatch::default()
    };
    let stored = scene.world.patch_node(&scene.name, &node, patch(true, Some(version))).unwrap();
    assert!(stored.unschedulable && stored.version > version);
    let late = scene.world.patch_node(&scene.name, &node, patch(false, Some(version)));
    assert!(matches!(late, Err(ApiError::Conflict(_))));
    // Nothing to change: no new version, nothing for a watch.
    let changes = scene.cluster().changes.len();
    let again = scene.world.patch_node(&scene.name, &node, patch(true, None)).unwrap();
    assert_eq!((again.version, scene.cluster().changes.len()), (stored.version, changes));
    let missing = scene.world.patch_node(&scene.name, &NodeName::new("nobody"), patch(true, None));
    assert_eq!(missing.unwrap_err(), ApiError::NotFound);
}

#[test]
fn labels_and_annotations_are_merged_and_null_takes_one_away() {
    let mut scene = Scene::new([]);
    let (node, _) = scene.node(0);
    let zone = scene.cluster().nodes[&node].labels["topology.kubernetes.io/zone"].clone();
    scene.label(0, "a", Some("1"));
    scene.label(0, "b", Some("2"));
    scene.label(0, "a", None);
    let labels = &scene.cluster().nodes[&node].labels;
    assert_eq!(labels.get("a"), None);
    assert_eq!(labels["b"], "2");
    assert_eq!(labels["topology.kubernetes.io/zone"], zone);
}

#[test]
fn every_change_makes_a_version_and_a_line_for_watches() {
    let mut scene = Scene::new([App::new("web", 1)]);
    let seen = scene.cluster().version;
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    scene.go(10_000);
    let changes: Vec<_> = scene.cluster().changes.iter().filter(|change| change.version > seen).collect();
    let versions: Vec<u64> = changes.iter().map(|change| change.version).collect();
    assert_eq!(versions, (seen + 1..=scene.cluster().version).collect::<Vec<_>>());
    let of_pod = changes.iter().filter_map(|change| match &change.object {
        Object::Pod(changed) if changed.pod == pod => Some(change.verb),
        _ => None,
    });
    // Its deletion, its SIGTERM, its end.
    assert_eq!(of_pod.collect::<Vec<_>>(), [Verb::Modified, Verb::Modified, Verb::Deleted]);
}

#[test]
fn an_api_server_that_is_away_answers_nothing_while_everything_else_goes_on() {
    let mut scene = Scene::new([App::new("web", 1)]);
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    scene.world.take_api_server_away(&scene.name, Duration::from_secs(60));
    assert_eq!(scene.evict(&pod), Err(ApiError::Away));
    scene.go(59_000);
    assert_eq!(scene.evict(&pod), Err(ApiError::Away));
    assert!(scene.pod(&pod).is_none());
    scene.go(1_000);
    assert_eq!(scene.evict(&pod), Err(ApiError::NotFound));
}
