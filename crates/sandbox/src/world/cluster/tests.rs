mod consistency;
mod controllers;
mod pods;
mod writes;

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{ClusterName, InstanceId, NodeName, PodRef, Timestamp};

use super::{ApiError, Cluster, Ending, NodePatch, Pod};
use crate::fleet::{App, Fleet, Pool};
use crate::{Delays, World};

/// A cluster of three nodes with the workloads of a test.
pub(super) struct Scene {
    pub(super) world: World,
    pub(super) name: ClusterName,
}

impl Scene {
    pub(super) fn new(apps: impl IntoIterator<Item = App>) -> Self {
        let start = Timestamp::from_millis(1_774_000_000_000);
        let fleet = Fleet::new(start, Delays::demo(), 1).cluster("blue").pool(Pool::new("pool", 3));
        Self { world: apps.into_iter().fold(fleet, Fleet::app).build(), name: ClusterName::new("blue") }
    }

    pub(super) fn cluster(&self) -> &Cluster {
        &self.world.clusters[&self.name]
    }

    pub(super) fn pods(&self) -> Vec<Pod> {
        self.cluster().pods.values().filter(|pod| pod.pod.namespace == "default").cloned().collect()
    }

    pub(super) fn pod(&self, pod: &PodRef) -> Option<Pod> {
        self.cluster().pod(&pod.uid).cloned()
    }

    pub(super) fn node(&self, index: usize) -> (NodeName, InstanceId) {
        let node = self.cluster().nodes.values().nth(index).unwrap();
        (node.name.clone(), node.instance.clone())
    }

    pub(super) fn go(&mut self, millis: u64) {
        self.world.advance(self.world.now() + Duration::from_millis(millis));
    }

    pub(super) fn evict(&mut self, pod: &PodRef) -> Result<(), ApiError> {
        self.world.evict_pod(&self.name, &pod.namespace, &pod.name, Some(&pod.uid), None)
    }

    pub(super) fn delete(&mut self, pod: &PodRef, grace: Option<u64>) -> Result<(), ApiError> {
        let grace = grace.map(Duration::from_secs);
        self.world.delete_pod(&self.name, &pod.namespace, &pod.name, grace, Some(&pod.uid))
    }

    pub(super) fn label(&mut self, index: usize, key: &str, value: Option<&str>) {
        let labels = BTreeMap::from([(key.to_owned(), value.map(str::to_owned))]);
        let patch = NodePatch { labels, ..NodePatch::default() };
        self.world.patch_node(&self.name, &self.node(index).0, patch).unwrap();
    }

    pub(super) fn cordon(&mut self, index: usize) {
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        self.world.patch_node(&self.name, &self.node(index).0, patch).unwrap();
    }
}

pub(super) fn ending(pre_stop: u64, takes: Option<u64>) -> Ending {
    let takes = takes.map(Duration::from_secs);
    Ending { pre_stop: Duration::from_secs(pre_stop), takes, stuck: false }
}
