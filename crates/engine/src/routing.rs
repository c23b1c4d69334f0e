//! Which cluster an instance belongs to. The watches are asked first, without a call; what a hook's
//! metadata says decides only when no watch knows the instance.

use std::fmt;
use std::sync::Arc;

use offramp_core::{HOOK_AT_MOST, InstanceId, Job, Node, Notice, Policy, Seen, Timestamp, hook_is_ours};

use crate::ports::Cluster;

/// The clusters of this worker, in the order of the configuration.
#[derive(Clone)]
pub(crate) struct Clusters(pub(crate) Vec<Arc<dyn Cluster>>);

/// Where a job belongs.
pub(crate) enum Route {
    /// To this cluster: it has the node, or a hook's metadata names it.
    Here(Arc<dyn Cluster>),
    /// No cluster knows the instance, and a hook that is ours by its name asks for an answer, naming no cluster:
    /// the instance never joined, its node is gone already, or its cluster is out of sync. The hook is kept
    /// alive meanwhile.
    NoNode,
    /// No cluster knows the instance, all of them are in sync, and nothing says that it is ours.
    Foreign,
    /// A cluster that might know it is out of sync.
    Unknown,
}

/// When it does not matter any more whose the instance is: nothing of the job has a claim by then.
pub(crate) fn ends_unrouted(job: &Job, policy: &Policy) -> Timestamp {
    let lasts = |notice: &Notice| if notice.hook().is_some() { HOOK_AT_MOST } else { policy.patience };
    job.notices.iter().map(|notice| notice.at + lasts(notice)).max().unwrap_or_default()
}

impl Clusters {
    /// The cluster that has the node of this instance, and the node. `Unknown`: none of those in sync has it, and another
    /// is out of sync.
    pub(crate) fn node(&self, instance: &InstanceId) -> Seen<(&Arc<dyn Cluster>, Node)> {
        let mut nowhere = Seen::Gone;
        for cluster in &self.0 {
            match cluster.node(instance) {
                Seen::Known(node) => return Seen::Known((cluster, node)),
                Seen::Gone => {}
                Seen::Unknown => nowhere = Seen::Unknown,
            }
        }
        nowhere
    }

    /// A cluster that is out of sync may have the node of this instance.
    pub(crate) fn may_know(&self, instance: &InstanceId) -> bool {
        self.0.iter().any(|cluster| cluster.node(instance) == Seen::Unknown)
    }

    pub(crate) fn route(&self, job: &Job, policy: &Policy) -> Route {
        let unknown = match self.node(&job.instance) {
            Seen::Known((cluster, _)) => return Route::Here(Arc::clone(cluster)),
            Seen::Gone => false,
            Seen::Unknown => true,
        };
        let hints = || job.hooks().filter_map(|(_, hook)| hook.cluster_hint.as_ref());
        let hinted = hints().find_map(|hint| self.0.iter().find(|cluster| cluster.name() == hint));
        if let Some(cluster) = hinted {
            return Route::Here(Arc::clone(cluster));
        }
        // A hook's name may be the same in many clusters: one that names another cluster is not ours.
        let named_elsewhere = hints().next().is_some();
        let ours =
            job.hooks().any(|(_, hook)| hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), policy));
        match (unknown, ours && !named_elsewhere) {
            (_, true) => Route::NoNode,
            (true, false) => Route::Unknown,
            (false, false) => Route::Foreign,
        }
    }
}

impl fmt::Debug for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|cluster| cluster.name())).finish()
    }
}
