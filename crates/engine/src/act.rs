//! Performs the actions of one step, all at once: they are independent of each other.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use offramp_core::{Action, BalancerKind, Home, InstanceId, NodeName, Observation, Outcome, Seen};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::batch::Calls;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::ports::{Cluster, ClusterCall, Fault, GroupCall, Settled, TargetCall};
use crate::retry::answer;
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
    pub(crate) instance: &'a InstanceId,
    pub(crate) home: &'a Home,
    /// What the actions follow from.
    pub(crate) seen: &'a Observation,
    pub(crate) cluster: Option<&'a Arc<dyn Cluster>>,
    pub(crate) calls: &'a Calls,
    pub(crate) journal: &'a Journal,
}

impl Actor<'_> {
    /// Performs every action and says what each led to, in the same order. One that finds no seat in time
    /// is left out: it was not made, nothing was learned, and the next tick decides again.
    pub(crate) async fn act(&self, actions: Vec<Action>) -> Vec<(Action, Outcome)> {
        let acted = join_all(actions.into_iter().map(|action| async {
            let seat = match self.seats(&action) {
                Some(seats) => timeout(SEAT, seats.acquire()).await.map(Some),
                None => Ok(None),
            };
            let answer = match seat {
                Ok(_seat) => self.perform(&action).await,
                Err(_) if is_pressing(&action) => Err(Fault::Retry(NO_SEAT.to_owned())),
                Err(_) => return None,
            };
            let outcome = match answer {
                Ok(Settled::Done) => Outcome::Done,
                Ok(Settled::Gone) => Outcome::Gone,
                Ok(Settled::Changed) => Outcome::Changed,
                Ok(Settled::Blocked { budget }) => Outcome::Blocked { budget },
                Ok(Settled::Vetoed { by }) => Outcome::Vetoed { by },
                Err(fault) => self.outcome_of(&action, fault),
            };
            self.journal.record(Fact::Acted {
                instance: self.instance.clone(),
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
            | Action::Release { .. }
            | Action::Deregister(_)
            | Action::Register(_)
            | Action::Heartbeat(_)
            | Action::CompleteHook(_)
            | Action::Detach { .. }
            | Action::TerminateThroughGroup { .. } => None,
        }
    }

    async fn perform(&self, action: &Action) -> Result<Settled, Fault> {
        let id = self.instance.clone();
        match action {
            Action::Isolate { exclude, record, guard } => {
                let (exclude, record, guard) = (*exclude, record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Isolate { node, exclude, record, guard }).await
            }
            Action::Exclude { record, guard } => {
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Exclude { node, record, guard }).await
            }
            Action::Release { record, guard } => {
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Release { node, record, resource_version: guard }).await
            }
            Action::Evict { pod, grace } => {
                self.in_cluster(ClusterCall::Evict { pod: pod.clone(), grace: *grace }).await
            }
            Action::Delete { pod, grace } => {
                self.in_cluster(ClusterCall::Delete { pod: pod.clone(), grace: *grace }).await
            }
            Action::Deregister(target) => {
                self.calls.targets.ask(self.home, TargetCall::Deregister(target.clone())).await
            }
            Action::Register(target) => {
                self.calls.targets.ask(self.home, TargetCall::Register(target.clone())).await
            }
            Action::Heartbeat(hook) => {
                self.calls.group_calls.ask(self.home, GroupCall::Heartbeat(id, hook.clone())).await
            }
            Action::CompleteHook(hook) => {
                self.calls.group_calls.ask(self.home, GroupCall::Complete(id, hook.clone())).await
            }
            Action::Detach { group } => {
                self.calls.group_calls.ask(self.home, GroupCall::Detach(id, group.clone())).await
            }
            Action::TerminateThroughGroup { group } => {
                self.calls.group_calls.ask(self.home, GroupCall::Terminate(id, group.clone())).await
            }
        }
    }

    async fn on_node(&self, call: impl FnOnce(NodeName) -> ClusterCall) -> Result<Settled, Fault> {
        match self.cluster.map_or(Seen::Gone, |cluster| cluster.node(self.instance)) {
            Seen::Known(node) => self.in_cluster(call(node.name)).await,
            Seen::Gone => Ok(Settled::Gone),
            Seen::Unknown => Err(Fault::Retry("the cluster is out of sync".to_owned())),
        }
    }

    async fn in_cluster(&self, call: ClusterCall) -> Result<Settled, Fault> {
        match self.cluster {
            Some(cluster) => answer("calling the cluster", cluster.perform(&call)).await,
            None => Ok(Settled::Gone),
        }
    }

    /// The kind of load balancer that a deregistration is about.
    fn balancer(&self, action: &Action) -> Option<BalancerKind> {
        let Action::Deregister(target) = action else { return None };
        let groups = self.seen.target_groups.known()?;
        groups.iter().find(|group| group.arn == target.group).map(|group| group.balancer)
    }

    fn outcome_of(&self, action: &Action, fault: Fault) -> Outcome {
        let outcome = match fault {
            Fault::Retry(_) => Outcome::Retry,
            Fault::Denied(_) => Outcome::Denied,
            Fault::Invalid(_) => Outcome::Invalid,
        };
        self.journal.record(Fact::Faulted {
            instance: self.instance.clone(),
            doing: action.in_words(),
            fault,
        });
        outcome
    }
}
