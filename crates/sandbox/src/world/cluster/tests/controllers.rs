use super::*;
use crate::fleet::Entrance;
use crate::world::balancers::TargetState;
use crate::world::cluster::controllers::free_name;
use crate::world::cluster::{EXCLUDE_LABEL, Subject, WorkloadKind};

#[test]
fn pods_go_to_the_node_with_the_fewest_and_never_to_a_cordoned_one() {
    let mut scene = Scene::new([App::new("web", 3)]);
    let nodes: std::collections::BTreeSet<_> = scene.pods().iter().map(|pod| pod.node.clone()).collect();
    assert_eq!(nodes.len(), 3);
    scene.cordon(0);
    let (cordoned, _) = scene.node(0);
    for pod in scene.pods() {
        scene.delete(&pod.pod, None).unwrap();
    }
    scene.go(20_000);
    assert!(scene.pods().iter().all(|pod| pod.ready && pod.node.as_ref() != Some(&cordoned)));
}

#[test]
fn without_a_node_a_pod_waits_for_one() {
    let mut scene = Scene::new([App::new("web", 1)]);
    (0..3).for_each(|index| scene.cordon(index));
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    scene.go(60_000);
    assert!(scene.pods()[0].node.is_none());
    let patch = NodePatch { unschedulable: Some(false), ..NodePatch::default() };
    scene.world.patch_node(&scene.name, &scene.node(1).0, patch).unwrap();
    scene.go(3_000);
    assert!(scene.pods()[0].ready);
}

#[test]
fn a_deployment_replaces_a_pod_while_it_ends() {
    let mut scene = Scene::new([App::new("web", 2)]);
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    scene.go(0);
    assert_eq!(scene.pods().len(), 3);
    assert_eq!(scene.pods()[0].owner.as_ref().unwrap().kind, "ReplicaSet");
    scene.go(30_000);
    assert_eq!(scene.pods().len(), 2);
}

#[test]
fn a_stateful_set_brings_the_name_back_when_the_old_pod_is_gone() {
    let app = App { kind: WorkloadKind::StatefulSet { replicas: 2 }, ..App::new("db", 0) };
    let mut scene = Scene::new([app]);
    let pod = scene.pods()[0].pod.clone();
    assert_eq!(pod.name, "db-0");
    scene.delete(&pod, None).unwrap();
    scene.go(5_900);
    assert_eq!(scene.pods().len(), 2);
    assert!(scene.pod(&pod).is_some());
    scene.go(100);
    let successor = scene.pods()[0].pod.clone();
    assert_eq!(successor.name, "db-0");
    assert_ne!(successor.uid, pod.uid);
}

#[test]
fn a_daemon_set_runs_on_every_ready_node_cordoned_or_not() {
    let app = App { kind: WorkloadKind::DaemonSet, ..App::new("agent", 0) };
    let mut scene = Scene::new([app]);
    assert_eq!(scene.pods().len(), 3);
    scene.cordon(0);
    let pod = scene.pods().into_iter().find(|pod| pod.node == Some(scene.node(0).0)).unwrap();
    scene.delete(&pod.pod, None).unwrap();
    scene.go(10_000);
    let back = scene.pods().into_iter().find(|pod| pod.node == Some(scene.node(0).0)).unwrap();
    assert!(back.ready && back.pod.uid != pod.pod.uid);
}

/// The states of the first node's targets, with a target group that a controller fills.
fn targets(scene: &Scene) -> Vec<TargetState> {
    let instance = scene.node(0).1;
    let group = scene.world.balancers.all().next().unwrap();
    let targets = group.targets.iter().filter(|((id, port), _)| *id == instance && *port == 30_080);
    targets.map(|(_, target)| target.state).collect()
}

fn filled() -> Scene {
    Scene::new([App { entrance: Some(Entrance::new(30_080, 0.0)), ..App::new("web", 3) }])
}

#[test]
fn the_controller_takes_out_a_node_with_the_exclude_label_and_never_looks_at_the_cordon() {
    let mut scene = filled();
    scene.cordon(0);
    scene.go(60_000);
    assert_eq!(targets(&scene), [TargetState::Healthy]);
    let labelled = scene.world.now();
    scene.label(0, EXCLUDE_LABEL, Some("true"));
    scene.go(999);
    assert_eq!(targets(&scene), [TargetState::Healthy]);
    scene.go(1);
    assert_eq!(targets(&scene), [TargetState::Draining { since: labelled + Duration::from_secs(1) }]);
    scene.go(10_000);
    assert_eq!(targets(&scene), []);
    scene.label(0, EXCLUDE_LABEL, None);
    scene.go(60_000);
    assert_eq!(targets(&scene), [TargetState::Healthy]);
}

#[test]
fn the_controller_registers_an_eligible_node_again_when_its_node_set_next_changes() {
    let mut scene = filled();
    let (group, instance) = (scene.world.balancers.all().next().unwrap().arn.clone(), scene.node(0).1);
    scene.world.deregister_targets(&group, &[(instance, 30_080)]).unwrap();
    scene.go(5_000);
    assert!(matches!(targets(&scene)[..], [TargetState::Draining { .. }]));
    scene.label(1, EXCLUDE_LABEL, Some("true"));
    scene.go(1_000);
    assert_eq!(targets(&scene), [TargetState::Initial]);
}

#[test]
fn a_node_that_is_not_ready_is_not_eligible() {
    let mut scene = filled();
    let instance = scene.node(0).1;
    assert!(scene.cluster().node_of(&instance).unwrap().is_balanced());
    assert!(scene.world.terminate_instance(&instance));
    scene.go(2_500);
    assert!(!scene.cluster().node_of(&instance).unwrap().is_balanced());
}

#[test]
fn the_watch_of_an_instance_wakes_for_its_node_and_its_pods_only() {
    let mut scene = Scene::new([App::new("web", 3)]);
    let (node, instance) = scene.node(0);
    let mut watch =
        scene.world.clusters.get_mut(&scene.name).unwrap().watch(Subject::Instance(instance.clone()));
    let mut woke = |scene: &mut Scene| {
        scene.go(0);
        let changed = watch.has_changed().unwrap();
        watch.mark_unchanged();
        changed
    };
    assert!(!woke(&mut scene));
    scene.cordon(1);
    assert!(!woke(&mut scene));
    scene.cordon(0);
    assert!(woke(&mut scene));
    let pods = scene.pods();
    let (here, elsewhere): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| pod.node.as_ref() == Some(&node));
    // Its successor goes to the third node.
    scene.delete(&elsewhere[0].pod, None).unwrap();
    assert!(!woke(&mut scene));
    scene.delete(&here[0].pod, None).unwrap();
    assert!(woke(&mut scene));
    scene.world.take_api_server_away(&scene.name, Duration::from_secs(1));
    assert!(woke(&mut scene));
    assert!(!woke(&mut scene));
    scene.go(1_000);
    assert!(woke(&mut scene));
}

/// Five characters are 14 million names: among ten thousand pods some name comes up twice.
#[test]
fn no_pod_takes_the_name_of_another() {
    let mut suffixes = ["bbbbb", "ccccc"].map(str::to_owned).into_iter();
    assert_eq!(free_name("web", || suffixes.next().unwrap(), |name| name == "web-bbbbb"), "web-ccccc");
}
