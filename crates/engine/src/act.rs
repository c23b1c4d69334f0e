//! Performs one action. Actions are independent of each other: a job has many in flight, and goes on meanwhile.

use std::sync::Arc;

use offramp_core::{
    AccountRegion, Action, ActionResult, BalancerKind, Failure, InstanceId, Job, NodeName, Observation,
    Outcome, Pod, PodOrigin, PodUid, Seen, Timestamp,
};

use crate::calls::Calls;
use crate::evictions::{Call, Evictions, Urgency, Wish};
use crate::fact::Fact;
use crate::journal::Journal;
use crate::place;
use crate::ports::{Cluster, ClusterCall, Fault, GroupCall, TargetCall};
use crate::retry::timeout;
use crate::texts::InWords;

/// One action, and what it takes to perform it.
pub(crate) struct Act {
    pub(crate) instance: InstanceId,
    pub(crate) action: Action,
    /// Where its call goes.
    pub(crate) place: AccountRegion,
    /// The kind of load balancer that a deregistration is about.
    pub(crate) balancer: Option<BalancerKind>,
    /// For a notice of two minutes.
    pub(crate) presses: bool,
    /// When the job has to be over.
    pub(crate) deadline: Option<Timestamp>,
    /// Of the pod that an eviction or deletion is about: whether it is ready, and its labels.
    pub(crate) pod_seen: (bool, u64),
    pub(crate) cluster: Option<Arc<dyn Cluster>>,
    pub(crate) evictions: Option<Evictions>,
    pub(crate) calls: Calls,
    pub(crate) journal: Journal,
}

/// A pod of the node, where it is shown.
pub(crate) fn find_pod<'a>(seen: &'a Observation, uid: &PodUid) -> Option<&'a Pod> {
    seen.pods.known()?.iter().find(|pod| pod.pod.uid == *uid)
}

impl Act {
    /// Where the call of an action goes: to `default`, where no notice names an account and Region.
    pub(crate) fn place(action: &Action, job: &Job, default: &AccountRegion) -> AccountRegion {
        match action {
            Action::Heartbeat(hook) | Action::CompleteHook(hook) => place::of_hook(hook, job, default),
            _ => place::of_job(job, default),
        }
    }

    pub(crate) fn balancer(action: &Action, seen: &Observation) -> Option<BalancerKind> {
        let Action::Deregister(target) = action else { return None };
        let groups = seen.target_groups.known()?;
        groups.iter().find(|group| group.arn == target.group).map(|group| group.balancer)
    }

    pub(crate) fn pod_seen(action: &Action, seen: &Observation) -> (bool, u64) {
        let (Action::Evict { pod, .. } | Action::Delete { pod, .. }) = action else { return (true, 0) };
        find_pod(seen, &pod.uid).map_or((true, 0), |pod| (pod.ready, pod.labels_hash))
    }

    /// Performs it, and says what it led to. An eviction that was withdrawn before its turn was not made: nothing is learned.
    pub(crate) async fn perform(self) -> Option<ActionResult> {
        let answer = match (self.wish(), &self.evictions) {
            (Some(wish), Some(evictions)) => evictions.ask(wish).await?,
            _ => self.call().await,
        };
        let outcome = answer.map_err(|fault| self.failed(fault));
        self.journal.record(Fact::Acted {
            instance: self.instance.clone(),
            action: self.action.clone(),
            outcome: outcome.clone(),
            balancer: self.balancer,
        });
        Some(outcome)
    }

    /// An eviction or deletion, which waits for its turn among those of its cluster.
    fn wish(&self) -> Option<Wish> {
        let (pod, origin, call) = match &self.action {
            Action::Evict { pod, origin, grace } => (pod, origin.clone(), Call::Evict { grace: *grace }),
            Action::Delete { pod, grace } => (pod, PodOrigin(String::new()), Call::Delete { grace: *grace }),
            _ => return None,
        };
        let urgency = match call {
            Call::Evict { grace: None } => Urgency::of(self.presses),
            Call::Evict { grace: Some(_) } | Call::Delete { .. } => Urgency::Forced,
        };
        let (instance, pod, deadline) = (self.instance.clone(), pod.clone(), self.deadline);
        let (is_ready, labels_hash) = self.pod_seen;
        Some(Wish { instance, pod, origin, call, urgency, deadline, labels_hash, is_ready })
    }

    async fn call(&self) -> Result<Outcome, Fault> {
        let id = self.instance.clone();
        match &self.action {
            Action::Isolate { exclude, record, guard } => {
                let _first = self.evictions.as_ref().map(|evictions| evictions.isolations.begin());
                let (exclude, record, guard) = (*exclude, record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Isolate { node, exclude, record, guard }).await
            }
            Action::Exclude { record, guard } => {
                self.after_isolations().await;
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Exclude { node, record, guard }).await
            }
            Action::WriteRecord { record, guard } => {
                self.after_isolations().await;
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::WriteRecord { node, record, guard }).await
            }
            Action::Release { record, guard } => {
                let (record, guard) = (record.clone(), guard.clone());
                self.on_node(|node| ClusterCall::Release { node, record, guard }).await
            }
            // In no cluster there is no pod.
            Action::Evict { .. } | Action::Delete { .. } => Ok(Outcome::Gone),
            Action::ListPods { node } => self.in_cluster(ClusterCall::ListPods { node: node.clone() }).await,
            Action::Deregister(target) => {
                self.calls.targets.ask(&self.place, TargetCall::Deregister(target.clone())).await
            }
            Action::Register(target) => {
                self.calls.targets.ask(&self.place, TargetCall::Register(target.clone())).await
            }
            Action::Heartbeat(hook) => {
                self.calls.heartbeats.ask(&self.place, GroupCall::Heartbeat(id, hook.clone())).await
            }
            Action::CompleteHook(hook) => self.in_group(GroupCall::CompleteHook(id, hook.clone())).await,
            Action::Detach { group } => self.in_group(GroupCall::Detach(id, group.clone())).await,
            Action::TerminateThroughGroup { group } => {
                self.in_group(GroupCall::TerminateThroughGroup(id, group.clone())).await
            }
        }
    }

    /// Cordons are first.
    async fn after_isolations(&self) {
        if let Some(evictions) = &self.evictions {
            evictions.isolations.pass().await;
        }
    }

    async fn in_group(&self, call: GroupCall) -> Result<Outcome, Fault> {
        self.calls.group_calls.ask(&self.place, call).await
    }

    async fn on_node(&self, call: impl FnOnce(NodeName) -> ClusterCall) -> Result<Outcome, Fault> {
        match self.cluster.as_ref().map_or(Seen::Gone, |cluster| cluster.node(&self.instance)) {
            Seen::Known(node) => self.in_cluster(call(node.name)).await,
            Seen::Gone => Ok(Outcome::Gone),
            Seen::Unknown => Err(Fault::Retry(
                "its node is not known any more: the cluster is out of sync, or two nodes name the instance"
                    .to_owned(),
            )),
        }
    }

    async fn in_cluster(&self, call: ClusterCall) -> Result<Outcome, Fault> {
        match &self.cluster {
            Some(cluster) => timeout("calling the cluster", cluster.perform(&call)).await,
            None => Ok(Outcome::Gone),
        }
    }

    fn failed(&self, fault: Fault) -> Failure {
        let failure = fault.failure();
        self.journal.record(Fact::Faulted {
            instance: self.instance.clone(),
            doing: self.action.in_words(),
            fault,
        });
        failure
    }
}
