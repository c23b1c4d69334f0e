use super::*;
use crate::world::cluster::Phase;

/// When a pod is told to end, when it stops to be Ready and when it is gone, in milliseconds.
fn life_after_deletion(ending: Ending, grace: u64) -> (Option<u64>, Option<u64>) {
    let app = App { ending, grace: Duration::from_secs(grace), ..App::new("web", 1) };
    let mut scene = Scene::new([app]);
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    let (mut unready, mut gone) = (None, None);
    for tenth in 1..1_000 {
        scene.go(100);
        let stored = scene.pod(&pod);
        if unready.is_none() && stored.as_ref().is_none_or(|pod| !pod.ready) {
            unready = Some(tenth * 100);
        }
        if gone.is_none() && stored.is_none() {
            gone = Some(tenth * 100);
        }
    }
    (unready, gone)
}

#[test]
fn a_pod_ends_after_pre_stop_and_its_own_time_and_at_the_latest_with_its_grace() {
    let check = |pre_stop, takes, grace, unready, gone| {
        let life = life_after_deletion(ending(pre_stop, takes), grace);
        assert_eq!(life, (Some(unready), Some(gone)), "{pre_stop} {takes:?} {grace}");
    };
    check(5, Some(1), 30, 5_000, 6_000);
    check(0, Some(3), 30, 100, 3_000);
    check(5, None, 30, 5_000, 30_000);
    check(5, Some(60), 30, 5_000, 30_000);
    check(60, Some(1), 30, 30_000, 30_000);
}

#[test]
fn a_stuck_pod_outlives_its_grace() {
    let stuck = Ending { stuck: true, ..ending(0, None) };
    assert_eq!(life_after_deletion(stuck, 10), (Some(100), None));
}

#[test]
fn a_stuck_pod_ends_with_its_node() {
    let stuck = Ending { stuck: true, ..ending(0, None) };
    let mut scene = Scene::new([App { ending: stuck, ..App::new("web", 1) }]);
    let pod = scene.pods()[0].clone();
    scene.delete(&pod.pod, None).unwrap();
    let instance = scene.cluster().nodes[&pod.node.clone().unwrap()].instance.clone();
    assert!(scene.world.terminate_instance(&instance));
    scene.go(9_900);
    assert!(scene.pod(&pod.pod).is_some());
    // Shutdown (5 s) and the cloud controller (5 s).
    scene.go(100);
    assert!(scene.pod(&pod.pod).is_none());
}

#[test]
fn a_bound_pod_is_ready_after_its_start() {
    let mut scene = Scene::new([App::new("web", 1)]);
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    scene.go(0);
    let successor = scene.pods().into_iter().find(|other| other.pod != pod).unwrap();
    assert!(successor.node.is_some());
    assert_eq!((successor.phase, successor.ready), (Phase::Pending, false));
    scene.go(1_999);
    assert!(!scene.pod(&successor.pod).unwrap().ready);
    scene.go(1);
    let successor = scene.pod(&successor.pod).unwrap();
    assert_eq!((successor.phase, successor.ready), (Phase::Running, true));
}

#[test]
fn a_pod_deleted_before_its_start_ends_at_once() {
    let mut scene = Scene::new([App::new("web", 1)]);
    let pod = scene.pods()[0].pod.clone();
    scene.delete(&pod, None).unwrap();
    scene.go(0);
    let successor = scene.pods().into_iter().find(|other| other.pod != pod).unwrap().pod;
    scene.delete(&successor, None).unwrap();
    scene.go(0);
    assert!(scene.pod(&successor).is_none());
}

#[test]
fn a_node_is_not_ready_when_its_machine_ends_and_gone_a_while_after_the_instance() {
    let mut scene = Scene::new([App::new("web", 3)]);
    let (node, instance) = scene.node(0);
    assert!(scene.world.terminate_instance(&instance));
    scene.go(2_400);
    assert!(scene.cluster().nodes[&node].ready);
    scene.go(100);
    assert!(!scene.cluster().nodes[&node].ready);
    assert!(scene.cluster().pods_of_node(&node).all(|pod| !pod.ready && !pod.accepts(scene.world.now())));
    // Their objects stay until the node's does.
    assert_eq!(scene.cluster().pods_of_node(&node).count(), 2);
    scene.go(7_499);
    assert!(scene.cluster().node_of(&instance).is_some());
    scene.go(1);
    assert!(scene.cluster().node_of(&instance).is_none());
    assert_eq!(scene.cluster().pods_on(&node).len(), 0);
    scene.go(2_500);
    assert_eq!(scene.pods().iter().filter(|pod| pod.ready).count(), 3);
}

#[test]
fn a_node_carries_the_labels_of_its_zone_and_its_pool() {
    let pool = Pool { labels: BTreeMap::from([("pool".to_owned(), "a".to_owned())]), ..Pool::new("a", 1) };
    let start = Timestamp::from_millis(0);
    let world = Fleet::new(start, Delays::demo(), 1).cluster("blue").pool(pool).build();
    let node = world.clusters[&ClusterName::new("blue")].nodes.values().next().unwrap().clone();
    assert_eq!(node.labels["topology.kubernetes.io/zone"], node.zone.as_str());
    assert_eq!(node.labels["topology.kubernetes.io/region"], "eu-west-1");
    assert_eq!(node.labels["kubernetes.io/hostname"], node.name.as_str());
    assert_eq!(node.labels["pool"], "a");
    assert!(node.labels.contains_key("node.kubernetes.io/instance-type"));
}
