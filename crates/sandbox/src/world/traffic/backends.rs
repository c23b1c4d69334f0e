//! Where a node sends what comes in at one of its ports, as far as its kube-proxy has heard.

use std::collections::BTreeMap;

use offramp_core::{ClusterName, InstanceId, NodeName, Timestamp};

use crate::world::World;
use crate::world::cluster::{Cluster, Endpoint, EndpointState, Key, Service};
use crate::world::instances::InstanceState;

/// What is behind one port.
#[derive(Clone, Debug, Default)]
pub(super) struct Backend {
    /// The pods that it chooses among.
    pub(super) pods: usize,
    /// Those of them that take nothing any more, by instance.
    pub(super) gone: Vec<(Option<InstanceId>, usize)>,
}

impl World {
    /// What is behind a port of a cluster: of one node where that decides, else of any.
    pub(super) fn backend(&self, cluster: &ClusterName, port: u16, node: Option<&NodeName>) -> Backend {
        let Some(cluster) = self.clusters.get(cluster) else { return Backend::default() };
        match (service_with(cluster, port), node) {
            (Some((key, _)), node) => behind_service(cluster, key, node, self.now),
            (None, Some(node)) => behind_host_port(cluster, node, port, self.now),
            (None, None) => Backend::default(),
        }
    }

    /// Whether a health check of this target is answered. With `externalTrafficPolicy: Cluster` any node
    /// answers as long as its kube-proxy works (KEP-3836); with `Local` one needs a ready pod of its own,
    /// a terminating one does not count for the check (KEP-1669).
    pub fn target_answers(&self, instance: &InstanceId, port: u16) -> bool {
        let Some((cluster, node)) = self.node_of_instance(instance) else {
            return self.answers_by_itself(instance);
        };
        if !node.powered {
            return false;
        }
        match service_with(cluster, port) {
            Some((_, service)) if !service.local => true,
            Some((key, _)) => cluster.endpoints(key).is_some_and(|endpoints| {
                endpoints.on_node(&node.name).any(|endpoint| endpoint.state == EndpointState::Ready)
            }),
            None => behind_host_port(cluster, &node.name, port, self.now).pods > 0,
        }
    }

    /// An instance of no cluster serves as long as it runs.
    pub(super) fn answers_by_itself(&self, instance: &InstanceId) -> bool {
        let found = self.instances.get(instance);
        found.is_some_and(|found| found.cluster.is_none() && found.state == InstanceState::Running)
    }
}

/// The ready endpoints, or where there is none those that are terminating and still serve (KEP-1669).
fn behind_service(cluster: &Cluster, service: &Key, only: Option<&NodeName>, now: Timestamp) -> Backend {
    let Some(endpoints) = cluster.endpoints(service) else { return Backend::default() };
    let count = |state: EndpointState| match only {
        None => endpoints.count(state),
        Some(node) => endpoints.on_node(node).filter(|endpoint| endpoint.state == state).count(),
    };
    let (state, pods) = match count(EndpointState::Ready) {
        0 => (EndpointState::Terminating, count(EndpointState::Terminating)),
        ready => (EndpointState::Ready, ready),
    };
    let mut gone: BTreeMap<Option<InstanceId>, usize> = BTreeMap::new();
    let mut look = |endpoint: &Endpoint| {
        let accepts = || cluster.pod(&endpoint.uid).is_some_and(|pod| pod.accepts(now));
        if endpoint.state == state && !accepts() {
            let node = cluster.machine(&endpoint.node);
            *gone.entry(node.map(|node| node.instance.clone())).or_default() += 1;
        }
    };
    match only {
        None => endpoints.fading().for_each(&mut look),
        Some(node) => endpoints.on_node(node).for_each(&mut look),
    }
    Backend { pods, gone: gone.into_iter().collect() }
}

/// A hostPort leads to the pod on the node itself, and is closed where there is none.
fn behind_host_port(cluster: &Cluster, node: &NodeName, port: u16, now: Timestamp) -> Backend {
    let mut pods = cluster.pods_of_node(node);
    let open = pods.any(|pod| pod.host_port == Some(port) && pod.accepts(now));
    Backend { pods: usize::from(open), ..Backend::default() }
}

pub(super) fn service_with(cluster: &Cluster, port: u16) -> Option<(&Key, &Service)> {
    cluster.services.iter().find(|(_, service)| service.node_port == port)
}
