//! Performs the actions of one step, all at once: they are independent of each other.

use std::sync::Arc;

use futures::future::join_all;
use offramp_core::{Action, Home, InstanceId, NodeName, Outcome, Seen};

use crate::batch::Calls;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::ports::{Cluster, ClusterCall, Fault, GroupCall, Settled, TargetCall};
use crate::retry::answer;

/// What acting needs beside the actions.
pub(crate) struct Actor<'a> {
    pub(crate) instance: &'a InstanceId,
    pub(crate) home: &'a Home,
    pub(crate) cluster: Option<&'a Arc<dyn Cluster>>,
    pub(crate) calls: &'a Calls,
    pub(crate) journal: &'a Journal,
}

impl Actor<'_> {
    /// Performs every action and says what each led to, in the same order.
    pub(crate) async fn act(&self, actions: Vec<Action>) -> Vec<(Action, Outcome)> {
        join_all(actions.into_iter().map(|action| async {
            let outcome = match self.perform(&action).await {
                Ok(Settled::Done) => Outcome::Done,
                Ok(Settled::Gone) => Outcome::Gone,
                Ok(Settled::Changed) => Outcome::Changed,
                Ok(Settled::Blocked { budget }) => Outcome::Blocked { budget },
                Err(fault) => self.outcome_of(&action, fault),
            };
            self.journal.record(Fact::Acted {
                instance: self.instance.clone(),
                action: action.clone(),
                outcome: outcome.clone(),
            });
            (action, outcome)
        }))
        .await
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
            Action::Release { record, resource_version } => {
                let (record, resource_version) = (record.clone(), resource_version.clone());
                self.on_node(|node| ClusterCall::Release { node, record, resource_version }).await
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

    fn outcome_of(&self, action: &Action, fault: Fault) -> Outcome {
        let outcome = match fault {
            Fault::Retry(_) => Outcome::Retry,
            Fault::Denied(_) => Outcome::Denied,
            Fault::Invalid(_) => Outcome::Invalid,
        };
        self.journal.record(Fact::Faulted {
            instance: self.instance.clone(),
            doing: action.to_string(),
            fault,
        });
        outcome
    }
}
