//! A controller in the cluster keeps target groups filled with the eligible nodes, as the AWS Load
//! Balancer Controller does in instance mode.
//!
//! It looks when the set of eligible nodes has changed. A target that drains counts as absent then, so
//! that an eligible node which somebody else deregistered comes back at its next look. The exclude label
//! makes a node ineligible: the label alone starts the deregistration.

use std::collections::BTreeSet;
use std::time::Duration;

use offramp_core::{ClusterName, InstanceId, TargetGroupArn};
use offramp_engine::InWords;

use super::Due;
use crate::world::World;
use crate::world::balancers::TargetState;

/// From a change of a node to the controller's calls.
const REACTION: Duration = Duration::from_secs(1);

impl World {
    pub(super) fn fill_target_groups_soon(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        let fills = cluster.services.values().any(|service| service.target_group.is_some());
        if fills && !std::mem::replace(&mut cluster.index.filling_is_due, true) {
            self.cluster_after(name, REACTION, Due::BalancerController);
        }
    }

    pub(super) fn fill_target_groups(&mut self, name: &ClusterName) {
        let Some(cluster) = self.clusters.get_mut(name) else { return };
        cluster.index.filling_is_due = false;
        let eligible: BTreeSet<InstanceId> = cluster
            .nodes
            .values()
            .filter(|node| node.is_balanced())
            .map(|node| node.instance.clone())
            .collect();
        let filled: Vec<(TargetGroupArn, u16)> = cluster
            .services
            .values()
            .filter_map(|service| Some((service.target_group.clone()?, service.node_port)))
            .collect();
        for (group, port) in filled {
            let wanted: BTreeSet<(InstanceId, u16)> = eligible.iter().map(|id| (id.clone(), port)).collect();
            let registered = self.registered(&group);
            let surplus: Vec<_> = registered.difference(&wanted).cloned().collect();
            if self.deregister_targets(&group, &surplus).is_err() {
                self.tell(format!("controller of {name}: there is no target group {}", group.in_words()));
                continue;
            }
            // One by one: an instance that ends at this moment must not keep the others out.
            for target in wanted.difference(&registered) {
                if let Err(refusal) = self.register_targets(&group, std::slice::from_ref(target)) {
                    self.tell(format!("controller of {name}: {refusal}"));
                }
            }
        }
    }

    /// The targets of a group that do not drain.
    fn registered(&self, group: &TargetGroupArn) -> BTreeSet<(InstanceId, u16)> {
        let targets = self.balancers.get(group).map(|group| &group.targets);
        let staying = targets
            .into_iter()
            .flatten()
            .filter(|(_, target)| !matches!(target.state, TargetState::Draining { .. }));
        staying.map(|(key, _)| key.clone()).collect()
    }
}
