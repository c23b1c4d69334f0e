//! Whatever happens, the lookups say what the objects say.

use std::collections::BTreeSet;

use super::*;
use crate::fleet::Entrance;
use crate::world::cluster::endpoints::endpoint_of;
use crate::world::cluster::index::key_of;
use crate::world::cluster::{Endpoint, EndpointState, WorkloadKind};

fn check(scene: &Scene, quiet: bool) {
    let cluster = scene.cluster();
    for node in cluster.nodes.values() {
        let bound = cluster.pods.values().filter(|pod| pod.node.as_ref() == Some(&node.name));
        let uids: BTreeSet<_> = bound.map(|pod| pod.pod.uid.clone()).collect();
        assert_eq!(cluster.pods_on(&node.name), uids);
        assert_eq!(cluster.node_of(&node.instance).unwrap().name, node.name);
    }
    for budget in cluster.budgets.values() {
        let covered = cluster.pods.values().filter(|pod| budget.covers(pod));
        let healthy = covered.filter(|pod| pod.ready && pod.deletion.is_none()).count();
        assert_eq!(cluster.healthy_pods(budget), healthy);
    }
    for pod in cluster.pods.values() {
        assert_eq!(cluster.pod(&pod.pod.uid).map(key_of), Some(key_of(pod)));
    }
    for key in cluster.services.keys() {
        let endpoints = cluster.endpoints(key).unwrap();
        let ready = |endpoint: &&Endpoint| endpoint.state == EndpointState::Ready;
        assert_eq!(endpoints.count(EndpointState::Ready), endpoints.all().filter(ready).count());
        let fading: BTreeSet<_> = endpoints.fading().map(|endpoint| endpoint.uid.clone()).collect();
        for endpoint in endpoints.all().filter(|endpoint| !fading.contains(&endpoint.uid)) {
            assert!(cluster.pod(&endpoint.uid).unwrap().accepts(scene.world.now()));
            assert!(endpoints.on_node(&endpoint.node).any(|other| other == endpoint));
        }
    }
    for (key, service) in cluster.services.iter().filter(|_| quiet) {
        let mut known: Vec<_> = cluster.endpoints(key).unwrap().all().cloned().collect();
        let selected = cluster.pods.values().filter(|pod| service.selects(pod));
        let mut expected: Vec<_> = selected.filter_map(endpoint_of).collect();
        known.sort_by(|a, b| a.uid.cmp(&b.uid));
        expected.sort_by(|a, b| a.uid.cmp(&b.uid));
        assert_eq!(known, expected);
    }
}

fn something(scene: &mut Scene, random: &mut fastrand::Rng) {
    let pods: Vec<_> = scene.cluster().pods.values().map(|pod| pod.pod.clone()).collect();
    let nodes: Vec<_> = scene.cluster().nodes.values().cloned().collect();
    let (Some(pod), Some(node)) = (random.choice(&pods), random.choice(&nodes)) else { return };
    match random.u8(0..8) {
        0..=2 => match scene.evict(pod) {
            Ok(()) | Err(ApiError::TooManyRequests { .. }) => {}
            Err(error) => panic!("{error:?}"),
        },
        3 => scene.delete(pod, random.choice([None, Some(0), Some(1), Some(5)]).flatten()).unwrap(),
        4 | 5 => {
            let patch = NodePatch { unschedulable: Some(random.bool()), ..NodePatch::default() };
            scene.world.patch_node(&scene.name, &node.name, patch).unwrap();
        }
        6 => scene.world.take_api_server_away(&scene.name, Duration::ZERO),
        _ => {
            scene.world.terminate_instance(&node.instance);
        }
    }
}

#[test]
fn lookups_agree_with_the_objects_whatever_happens() {
    let sent = |scene: &Scene| scene.world.traffic.served() + scene.world.traffic.lost();
    for seed in 0..20 {
        let mut random = fastrand::Rng::with_seed(seed);
        let stateful = WorkloadKind::StatefulSet { replicas: 3 };
        let mut scene = Scene::new([
            App { min_available: Some(2), entrance: Some(Entrance::new(30_080, 10.0)), ..App::new("web", 4) },
            App { min_available: Some(1), kind: stateful, ..App::new("db", 0) },
        ]);
        let began = scene.world.now();
        for _ in 0..300 {
            something(&mut scene, &mut random);
            scene.go(random.u64(0..3_000));
            check(&scene, false);
        }
        scene.go(600_000);
        check(&scene, true);
        assert!(scene.cluster().nodes.values().all(|node| node.ready));
        let span = scene.world.now().since(began).as_secs_f64();
        assert!((sent(&scene) - 10.0 * span).abs() < 1e-3, "seed {seed}");
    }
}
