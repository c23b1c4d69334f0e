//! Where requests of one target group come in, and behind which port of which cluster they end.

use std::collections::BTreeMap;

use offramp_core::{ClusterName, InstanceId, NodeName, TargetGroupArn};

use super::backends::service_with;
use crate::world::World;

/// The targets that get new requests, for as long as neither they nor machines change.
#[derive(Clone, Debug, Default)]
pub(super) struct Paths {
    /// How many targets get the requests, each the same share.
    pub(super) targets: usize,
    /// Those on machines that have ended.
    pub(super) dead: Vec<InstanceId>,
    /// Those that are reached.
    pub(super) reached: Vec<InstanceId>,
    /// What is behind them, each with its targets. Behind `externalTrafficPolicy: Cluster` it is the same
    /// on every node; else the node is named.
    pub(super) ports: BTreeMap<(ClusterName, u16, Option<NodeName>), Vec<InstanceId>>,
}

impl World {
    /// The paths of requests to a target group now.
    pub(super) fn paths(&self, group: &TargetGroupArn) -> Paths {
        let mut paths = Paths::default();
        for (instance, port) in self.balancers.routes(group, self.now) {
            paths.targets += 1;
            match self.node_of_instance(&instance) {
                Some((cluster, node)) if node.powered => {
                    let shared = service_with(cluster, port).is_some_and(|(_, service)| !service.local);
                    let node = (!shared).then(|| node.name.clone());
                    let targets = paths.ports.entry((cluster.name.clone(), port, node)).or_default();
                    targets.push(instance.clone());
                    paths.reached.push(instance);
                }
                None if self.answers_by_itself(&instance) => paths.reached.push(instance),
                Some(_) | None => paths.dead.push(instance),
            }
        }
        paths
    }
}
