//! The life of a pod on its node: start, SIGTERM, end.

use std::time::Duration;

use offramp_core::{ClusterName, NodeName, PodUid};
use offramp_engine::InWords;

use super::index::key_of;
use super::{Due, Phase, Pod};
use crate::world::World;

impl World {
    /// A pod gets its node, and the kubelet starts it.
    pub(super) fn bind(&mut self, name: &ClusterName, mut pod: Pod, node: NodeName) {
        let uid = pod.pod.uid.clone();
        pod.node = Some(node);
        self.store_pod(name, pod);
        self.cluster_after(name, self.delays.pod_start, Due::PodReady(uid));
    }

    pub(super) fn pod_ready(&mut self, name: &ClusterName, uid: &PodUid) {
        let Some(mut pod) = self.pod_on_live_node(name, uid) else { return };
        if pod.deletion.is_some() || pod.phase != Phase::Pending {
            return;
        }
        pod.phase = Phase::Running;
        pod.ready = true;
        pod.ready_since = self.now;
        self.store_pod(name, pod);
    }

    /// The kubelet ends a pod whose deletion was asked for: preStop, SIGTERM, and SIGKILL at the end of
    /// the grace, which counts from now (Kubernetes docs, "Termination of Pods").
    pub(super) fn kubelet_ends(&mut self, name: &ClusterName, pod: &mut Pod, grace: Duration) {
        let now = self.now;
        let uid = pod.pod.uid.clone();
        if pod.phase != Phase::Running {
            pod.ends = Some(now);
            self.cluster_after(name, Duration::ZERO, Due::PodEnds(uid));
            return;
        }
        let killed = now + grace;
        // A grace that was cut does not begin preStop anew, and moves nothing out.
        let sigterm = pod.sigterm.unwrap_or(now + pod.ending.pre_stop).min(killed);
        let ends = pod.ending.takes.map_or(killed, |takes| (sigterm + takes).min(killed));
        if pod.sigterm != Some(sigterm) {
            pod.sigterm = Some(sigterm);
            self.cluster_after(name, sigterm.since(now), Due::Sigterm(uid.clone()));
        }
        if !pod.ending.stuck && pod.ends.is_none_or(|before| ends < before) {
            pod.ends = Some(ends);
            self.cluster_after(name, ends.since(now), Due::PodEnds(uid));
        }
    }

    /// The process was told to end: it is not Ready from now on.
    pub(super) fn pod_sigterm(&mut self, name: &ClusterName, uid: &PodUid) {
        let now = self.now;
        let Some(mut pod) = self.pod_on_live_node(name, uid) else { return };
        self.backends_changed();
        if pod.ready && pod.sigterm.is_some_and(|at| at <= now) {
            pod.ready = false;
            pod.ready_since = now;
            self.store_pod(name, pod);
        }
    }

    /// The process has ended, and the kubelet lets the object go.
    pub(super) fn pod_ends(&mut self, name: &ClusterName, uid: &PodUid) {
        let now = self.now;
        let Some(pod) = self.pod_on_live_node(name, uid) else { return };
        if pod.ends.is_some_and(|at| at <= now) {
            self.tell(format!("pod {} has ended", pod.pod.in_words()));
            self.remove_pod(name, &key_of(&pod));
        }
    }

    /// A dead node's kubelet does nothing any more.
    fn pod_on_live_node(&self, name: &ClusterName, uid: &PodUid) -> Option<Pod> {
        let cluster = self.clusters.get(name)?;
        let pod = cluster.pod(uid)?;
        let node = cluster.machine(pod.node.as_ref()?)?;
        (node.powered && !node.kubelet_dead).then(|| pod.clone())
    }
}
