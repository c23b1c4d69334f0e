//! Which cluster an instance belongs to. The watches are asked first, without a call; what a hook's
//! metadata says decides only when no watch knows the instance.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use offramp_core::{
    HOOK_AT_MOST, Hook, InstanceId, Job, Node, NodeDoubt, Notice, NoticeKind, Policy, Seen, SpotAction,
    Timestamp, hook_is_ours,
};

use crate::ports::Cluster;

/// The clusters of this worker, in the order of the configuration.
#[derive(Clone)]
pub(crate) struct Clusters(pub(crate) Vec<Arc<dyn Cluster>>);

/// Where a job belongs.
pub(crate) enum Route {
    /// To this cluster: it has the node, or had it, or a hook's metadata names it.
    Here(Arc<dyn Cluster>),
    /// No cluster knows the instance, and a hook that is ours by its name asks for an answer, naming no cluster:
    /// the instance never joined, its node is gone already, or its cluster is out of sync. The hook is kept
    /// alive meanwhile.
    NoNode,
    /// No cluster knows the instance, all of them are sure, and nothing says that it is ours.
    Foreign,
    /// No cluster is known to have the instance, and it does not matter: the hook is somebody else's by its name, or by the
    /// cluster that it names.
    SomebodyElses,
    /// A cluster that might know it is out of sync, or has nodes of which nobody knows what they are.
    Unknown,
}

/// A notice of two minutes counts for one more: then the interruption has come, or does not.
const SPOT: Duration = Duration::from_secs(180);
/// A recommendation leads to a cordon at most, which does not keep a message for an hour.
const REBALANCE: Duration = Duration::from_secs(600);

/// When it does not matter any more whose the instance is: nothing of the job has a claim by then.
pub(crate) fn ends_unrouted(job: &Job, policy: &Policy) -> Timestamp {
    let lasts = |notice: &Notice| match &notice.kind {
        NoticeKind::Hook(hook) if may_be_ours(hook, policy) => HOOK_AT_MOST,
        NoticeKind::Hook(_) => Duration::ZERO,
        NoticeKind::Spot(SpotAction::Terminate) | NoticeKind::CapacityReservation => SPOT,
        // Its undo may be owed for as long.
        NoticeKind::Spot(SpotAction::Stop | SpotAction::Hibernate) | NoticeKind::Record => policy.patience,
        NoticeKind::Rebalance => REBALANCE,
    };
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

    /// Where the node may be: in the cluster that a hook of ours names, else in any.
    fn candidates(&self, job: &Job) -> impl Iterator<Item = &Arc<dyn Cluster>> {
        let hinted = self.hinted(job).map(|cluster| cluster.name());
        self.0.iter().filter(move |cluster| hinted.is_none_or(|hinted| hinted == cluster.name()))
    }

    fn hinted(&self, job: &Job) -> Option<&Arc<dyn Cluster>> {
        let hints = job.hooks().filter_map(|(_, hook)| hook.cluster_hint.as_ref());
        let named = hints.filter_map(|hint| self.0.iter().find(|cluster| cluster.name() == hint)).next();
        named.or_else(|| self.recorded(job))
    }

    /// Where what is only to be undone was done. A node of another cluster may name the same instance (seed 39730).
    fn recorded(&self, job: &Job) -> Option<&Arc<dyn Cluster>> {
        let undoes = job.notices.iter().all(|notice| notice.kind == NoticeKind::Record);
        // The job has taken the record away itself.
        let is_written = |node: &Node| {
            job.memory.node_write.is_some() && job.memory.sightings.node.as_ref() == Some(&node.name)
        };
        let has_record = |cluster: &&Arc<dyn Cluster>| {
            let node = cluster.node(&job.instance);
            node.known().is_some_and(|node| node.record.is_some() || is_written(node))
        };
        let mut recorded = self.0.iter().filter(|_| undoes).filter(has_record);
        recorded.next().filter(|_| recorded.next().is_none())
    }

    /// A cluster that is out of sync, or has nodes of which nobody knows what they are, may have the node of this job.
    pub(crate) fn may_know(&self, job: &Job) -> bool {
        let may_know = |cluster: &Arc<dyn Cluster>| {
            cluster.node(&job.instance) == Seen::Unknown || cluster.doubt(&job.instance).is_some()
        };
        self.candidates(job).any(may_know)
    }

    /// Every cluster where the node may be has proven that its watches show what was there at this moment. Where one has not,
    /// it is asked to.
    pub(crate) fn have_proven(&self, job: &Job, at: Timestamp, now: Timestamp) -> bool {
        let mut proven = true;
        for cluster in self.candidates(job).filter(|cluster| *cluster.proven().borrow() < at) {
            cluster.prove(now);
            proven &= *cluster.proven().borrow() >= at;
        }
        proven
    }

    /// Why nobody can say which node the job's is, where the watches are in sync.
    pub(crate) fn doubt(&self, job: &Job, cluster: Option<&Arc<dyn Cluster>>) -> Option<NodeDoubt> {
        if self.is_claimed_twice(job) {
            return Some(NodeDoubt::Twins { nodes: self.ready_nodes(&job.instance) });
        }
        let own = cluster.and_then(|cluster| cluster.doubt(&job.instance));
        own.or_else(|| self.candidates(job).find_map(|cluster| cluster.doubt(&job.instance)))
    }

    /// The cluster in which several Ready nodes name this instance.
    pub(crate) fn torn(&self, instance: &InstanceId) -> Option<&Arc<dyn Cluster>> {
        self.0.iter().find(|cluster| cluster.doubt(instance).is_some_and(|doubt| doubt.is_twins()))
    }

    /// Two clusters have a Ready node for it, and neither a hook nor what is to be undone says which of them is right.
    pub(crate) fn is_claimed_twice(&self, job: &Job) -> bool {
        self.0.len() > 1 && self.hinted(job).is_none() && self.ready_nodes(&job.instance) > 1
    }

    fn ready_nodes(&self, instance: &InstanceId) -> usize {
        let ready =
            |cluster: &&Arc<dyn Cluster>| cluster.node(instance).known().is_some_and(|node| node.ready);
        self.0.iter().filter(ready).count()
    }

    pub(crate) fn route(&self, job: &Job, policy: &Policy) -> Route {
        let has_node = |cluster: &&Arc<dyn Cluster>| cluster.node(&job.instance).known().is_some();
        let hinted = self.hinted(job);
        let here = hinted.filter(has_node).or_else(|| self.0.iter().find(has_node)).or(hinted);
        let had_node = |cluster: &&Arc<dyn Cluster>| cluster.deleted(&job.instance).is_some();
        let here = here.or_else(|| self.torn(&job.instance)).or_else(|| self.0.iter().find(had_node));
        if let Some(cluster) = here {
            return Route::Here(Arc::clone(cluster));
        }
        if job.notices.iter().all(|notice| notice.hook().is_some_and(|hook| !may_be_ours(hook, policy))) {
            return Route::SomebodyElses;
        }
        let unknown = self.may_know(job);
        // A hook's name may be the same in many clusters: one that names another cluster is not ours. What the hooks of
        // others name says nothing.
        let is_ours = |hook: &&Hook| hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), policy);
        let mut ours = job.hooks().map(|(_, hook)| hook).filter(is_ours).peekable();
        let named_by_us = ours.peek().is_some() && ours.all(|hook| hook.cluster_hint.is_none());
        match (unknown, named_by_us) {
            (_, true) => Route::NoNode,
            (true, false) => Route::Unknown,
            (false, false) => Route::Foreign,
        }
    }
}

/// A hook of our name that names a cluster which is not ours is another installation's.
fn may_be_ours(hook: &Hook, policy: &Policy) -> bool {
    let hint = hook.cluster_hint.as_ref();
    hook_is_ours(&hook.key.name, hint, policy) && hint.is_none_or(|hint| policy.clusters.contains(hint))
}

impl fmt::Debug for Clusters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|cluster| cluster.name())).finish()
    }
}
