//! Where a job belongs, whether what its cluster does not show is believed, and what it is woken by.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use offramp_core::{Seen, Timestamp, demands};
use tokio::sync::watch;

use super::{ForeignMessages, Task};
use crate::fact::Fact;
use crate::learning::{self, unshown_since};
use crate::ports::Cluster;
use crate::routing::{Route, ends_unrouted};

/// How often a job looks whose cluster is not known, beside every change of a watch.
const UNROUTED: Duration = Duration::from_secs(10);

/// Nothing can be done for the job yet, or nothing has to be.
pub(super) enum Unrouted {
    Waiting(Timestamp, Why),
    GivenUp,
    Foreign,
}

/// Why nobody knows yet where a job belongs.
#[derive(Clone, Copy)]
pub(super) enum Why {
    /// A cluster that may have the node is not sure.
    NotSure,
    /// No cluster has it, and it may join one yet.
    MayJoin,
    /// No cluster has it, as far as their watches show.
    Unproven,
}

impl Task {
    pub(super) fn route(&mut self, now: Timestamp) -> Result<(), Unrouted> {
        let ForeignMessages { hold, .. } = self.shared.foreign;
        let over = ends_unrouted(&self.job, &self.shared.policy);
        let cluster = match self.shared.observer.clusters.route(&self.job, &self.shared.policy) {
            Route::Here(cluster) => Some(cluster),
            Route::NoNode => None,
            // Out of sync for now, or its node has gone: what was known of its cluster holds.
            Route::Unknown | Route::Foreign | Route::SomebodyElses if self.cluster.is_some() => None,
            // A worker that has just started has not seen its clusters yet.
            Route::Unknown if now >= over.max(self.received_at + hold) => return Err(Unrouted::GivenUp),
            Route::Unknown => return Err(Unrouted::Waiting(now + UNROUTED, Why::NotSure)),
            Route::Foreign | Route::SomebodyElses if now < self.received_at + hold => {
                return Err(Unrouted::Waiting(self.received_at + hold, Why::MayJoin));
            }
            Route::SomebodyElses => return Err(Unrouted::Foreign),
            Route::Foreign if self.absence_is_proven(now) => return Err(Unrouted::Foreign),
            // A cluster whose watches do not prove that they live is as good as one that is out of sync.
            Route::Foreign if now >= over => return Err(Unrouted::GivenUp),
            Route::Foreign => return Err(Unrouted::Waiting(now + UNROUTED, Why::Unproven)),
        };
        let node = cluster.as_ref().map_or(Seen::Gone, |cluster| cluster.node(&self.job.instance));
        let node = node.known().map(|node| node.name.clone());
        self.node_seen |= node.is_some();
        if let (None, None, Some(cluster)) = (&self.cluster, &node, &cluster)
            && let Some(deleted) = cluster.deleted(&self.job.instance)
        {
            self.node_seen = true;
            learning::learn_of_deleted_node(&mut self.job.memory, deleted);
        }
        if let (None, Some(cluster)) = (&self.cluster, &cluster) {
            self.shared.journal.record(Fact::Routed {
                instance: self.job.instance.clone(),
                cluster: cluster.name().clone(),
                node: node.clone(),
            });
            let stage = self.stage.map(|(stage, _)| stage);
            self.at_work = self.shared.journal.metrics().at_work(Some(cluster.name()), stage);
            self.status.send_modify(|status| status.cluster = Some(cluster.name().clone()));
        }
        // A cluster that was out of sync shows it later.
        if node.is_some() {
            self.status.send_modify(|status| status.node = node);
        }
        // A node that has gone keeps its cluster: it was ours.
        self.cluster = cluster.or_else(|| self.cluster.take());
        Ok(())
    }

    /// Whether "no node" is to be believed: it was there once, or the time is over in which it could join, and the watches
    /// of every cluster where it may be have shown what there was by then.
    pub(super) fn absence_is_proven(&self, now: Timestamp) -> bool {
        let (clusters, by) = (&self.shared.observer.clusters, self.received_at + self.shared.foreign.hold);
        self.node_seen
            || (now >= by && !clusters.may_know(&self.job) && clusters.have_proven(&self.job, by, now))
    }

    /// When the newest eviction was taken that no watch has shown yet.
    pub(super) fn unshown(&self, now: Timestamp) -> Option<Timestamp> {
        let (cluster, memory) = (self.cluster.as_ref()?, &self.job.memory);
        let node = memory.sightings.node.as_ref().filter(|_| !memory.pods.is_empty())?;
        unshown_since(memory, cluster.pods(node, &self.job.instance).known()?, now)
    }

    /// The cluster whose watches still have to show something, and from when: what was on the node when it was closed, or what
    /// an eviction has led to.
    pub(super) fn unproven(&self, unshown: Option<Timestamp>) -> Option<(&Arc<dyn Cluster>, Timestamp)> {
        let drains = self.job.notices.iter().any(|notice| demands(&notice.kind).drain);
        let cluster = self.cluster.as_ref().filter(|_| drains)?;
        let at = self.job.memory.closed_at().max(unshown)?;
        (*cluster.proven().borrow() < at).then_some((cluster, at))
    }

    /// Woken by these: the own cluster, or any, while none is known; and while there is no node, by proofs of that.
    pub(super) fn changes(&self, unshown: Option<Timestamp>) -> Vec<BoxFuture<'static, ()>> {
        let clusters = &self.shared.observer.clusters.0;
        let own = clusters
            .iter()
            .filter(|cluster| self.cluster.as_ref().is_none_or(|own| own.name() == cluster.name()));
        let mut changes: Vec<_> =
            own.map(|cluster| change_of(cluster.changes(&self.job.instance)).boxed()).collect();
        if let Some((cluster, _)) = self.unproven(unshown) {
            changes.push(change_of(cluster.proven()).boxed());
        } else if !self.node_seen {
            changes.extend(clusters.iter().map(|cluster| change_of(cluster.proven()).boxed()));
        }
        changes
    }
}

/// Waits for a change from now on.
fn change_of<T: Send + Sync + 'static>(mut changes: watch::Receiver<T>) -> impl Future<Output = ()> + Send {
    changes.mark_unchanged();
    async move {
        if changes.changed().await.is_err() {
            // Its cluster is gone, and so are its changes.
            std::future::pending::<()>().await;
        }
    }
}
