//! Performs the actions of one step, all at once: they are independent of each other.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use offramp_core::{
    AccountRegion, Action, ActionResult, BalancerKind, Failure, HookKey, Job, NodeName, Observation, Outcome,
    Seen,
};
use tokio::sync::Semaphore;

use crate::batch::Calls;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::place;
use crate::ports::{Cluster, ClusterCall, Fault, GroupCall, TargetCall};
use crate::retry::timeout;
use crate::texts::InWords;

/// For so long a tick waits for a seat. A heartbeat is due at half of its hook's timeout, 15 s before the end
/// of the shortest: that has to hold this wait and the 10 s of one call.
const SEAT: Duration = Duration::from_secs(5);
const NO_SEAT: &str = "no seat: the cluster is busy with evictions that take long";
/// With less time left than this, the default grace of a pod, an eviction without a seat counts as failed,
/// and a deletion follows. Until then it is asked for again.
const PRESSING: Duration = Duration::from_secs(30);

/// Only a deletion could still give the pod a grace worth the name.
fn is_pressing(action: &Action) -> bool {
    matches!(action, Action::Evict { grace: Some(left), .. } if *left < PRESSING)
}

/// What acting needs beside the actions.
pub(crate) struct Actor<'a> {
    pub(crate) job: &'a Job,
    /// Where calls go that no notice names an account and Region for.
    pub(crate) default_place: &'a AccountRegion,
    /// What the actions follow from.
    pub(crate) seen: &'a Observation,
    pub(crate) cluster: Option<&'a Arc<dyn Cluster>>,
    pub(crate) calls: &'a Calls,
    pub(crate) journal: &'a Journal,
}

impl Actor<'_> {
    /// Performs every action and says what each led to, in the same order. One that finds no seat in time
    /// is left out: it was not made, nothing was learned, and the next tick decides again.
    pub(crate) async fn act(&self, actions: Vec<Action>) -> Vec<(Action, ActionResult)> {
        let acted = join_all(actions.into_iter().map(|action| async {
            let seat = match self.seats(&action) {
                Some(seats) => tokio::time::timeout(SEAT, seats.acquire()).await.map(Some),
                None => Ok(None),
            };
            let answer = match seat {
                Ok(_seat) => self.perform(&action).await,
                Err(_) if is_pressing(&action) => Err(Fault::Retry(NO_SEAT.to_owned())),
                Err(_) => return None,
            };
            let outcome = answer.map_err(|fault| self.failed(&action, fault));
            self.journal.record(Fact::Acted {
                instance: self.job.instance.clone(),
                action: action.clone(),
                outcome: outcome.clone(),
                balancer: self.balancer(&action),
            });
            Some((action, outcome))
        }));
        acted.await.into_iter().flatten().collect()
    }

    /// Where the action has to wait for its turn.
    fn seats(&self, action: &Action) -> Option<&Semaphore> {
        let seats = self.cluster?.seats()?;
        match action {
            Action::Evict { .. } => Some(&seats.evictions),
            Action::Delete { .. } => Some(&seats.deletions),
            Action::Isolate { .. }
            | Action::Exclude { .. }
            | Action::WriteRecord { .. }
            | Action::Release { .. }
            | Action::ListPods { .. }
            | Action::Deregister(_)
            | Action::Register(_)
            | Action::Heartbeat(_)
            | Action::CompleteHook(_)
            | Action::Detach { .. }
            | Action::TerminateThroughGroup { .. } => None,
        }
    }

    async fn perform(&self, action: &Action) -> Result<Outcome, Fault> {
        let id = self.job.instance.clone();
        match action {
            Action::Isolate { exclude, record, guard } => {
                let (exclude, record, guard) = (*exclude, record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Isolate { node, exclude, record, guard }).await
            }
            Action::Exclude { record, guard } => {
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Exclude { node, record, guard }).await
            }
            Action::WriteRecord { record, guard } => {
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::WriteRecord { node, record, guard }).await
            }
            Action::Release { record, guard } => {
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Release { node, record, guard }).await
            }
            Action::Evict { pod, grace, .. } => {
                self.in_cluster(ClusterCall::Evict { pod: pod.clone(), grace: *grace }).await
            }
            Action::Delete { pod, grace } => {
                self.in_cluster(ClusterCall::Delete { pod: pod.clone(), grace: *grace }).await
            }
            Action::ListPods { node } => self.in_cluster(ClusterCall::ListPods { node: node.clone() }).await,
            Action::Deregister(target) => {
                self.calls.targets.ask(&self.place(), TargetCall::Deregister(target.clone())).await
            }
            Action::Register(target) => {
                self.calls.targets.ask(&self.place(), TargetCall::Register(target.clone())).await
            }
            Action::Heartbeat(hook) => {
                self.in_group(&self.place_of(hook), GroupCall::Heartbeat(id, hook.clone())).await
            }
            Action::CompleteHook(hook) => {
                self.in_group(&self.place_of(hook), GroupCall::CompleteHook(id, hook.clone())).await
            }
            Action::Detach { group } => {
                self.in_group(&self.place(), GroupCall::Detach(id, group.clone())).await
            }
            Action::TerminateThroughGroup { group } => {
                self.in_group(&self.place(), GroupCall::TerminateThroughGroup(id, group.clone())).await
            }
        }
    }

    fn place(&self) -> AccountRegion {
        place::of_job(self.job, self.default_place)
    }

    fn place_of(&self, hook: &HookKey) -> AccountRegion {
        place::of_hook(hook, self.job, self.default_place)
    }

    async fn in_group(&self, place: &AccountRegion, call: GroupCall) -> Result<Outcome, Fault> {
        self.calls.group_calls.ask(place, call).await
    }

    async fn on_node(&self, call: impl FnOnce(NodeName) -> ClusterCall) -> Result<Outcome, Fault> {
        match self.cluster.map_or(Seen::Gone, |cluster| cluster.node(&self.job.instance)) {
            Seen::Known(node) => self.in_cluster(call(node.name)).await,
            Seen::Gone => Ok(Outcome::Gone),
            Seen::Unknown => Err(Fault::Retry(
                "its node is not known any more: the cluster is out of sync, or two nodes name the instance"
                    .to_owned(),
            )),
        }
    }

    async fn in_cluster(&self, call: ClusterCall) -> Result<Outcome, Fault> {
        match self.cluster {
            Some(cluster) => timeout("calling the cluster", cluster.perform(&call)).await,
            None => Ok(Outcome::Gone),
        }
    }

    /// The kind of load balancer that a deregistration is about.
    fn balancer(&self, action: &Action) -> Option<BalancerKind> {
        let Action::Deregister(target) = action else { return None };
        let groups = self.seen.target_groups.known()?;
        groups.iter().find(|group| group.arn == target.group).map(|group| group.balancer)
    }

    fn failed(&self, action: &Action, fault: Fault) -> Failure {
        let failure = fault.failure();
        self.journal.record(Fact::Faulted {
            instance: self.job.instance.clone(),
            doing: action.in_words(),
            fault,
        });
        failure
    }
}
