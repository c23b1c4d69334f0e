//! What a job tells: its status for people, and to the journal what is new in a step.

use offramp_core::{ClusterName, Goal, InstanceId, NodeName, Stage, Step, Timestamp, Trigger};

use super::Task;
use crate::arrival::Arrival;
use crate::fact::Fact;
use crate::ports::Fault;

/// What a job is doing, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobStatus {
    /// The instance.
    pub instance: InstanceId,
    /// Its cluster, once known.
    pub cluster: Option<ClusterName>,
    /// Its node, once known.
    pub node: Option<NodeName>,
    /// What asked for it.
    pub triggers: Vec<Trigger>,
    /// What the job is for.
    pub goal: Goal,
    /// The first unfinished stage.
    pub stage: Option<Stage>,
    /// Why.
    pub reason: String,
    /// Time of the first event.
    pub since: Timestamp,
    /// When it looks again at the latest.
    pub wake_at: Timestamp,
}

impl JobStatus {
    pub(crate) fn new(first: &Arrival, now: Timestamp) -> Self {
        Self {
            instance: first.notice.instance.clone(),
            cluster: None,
            node: None,
            triggers: vec![first.notice.kind.trigger()],
            goal: Goal::Leave,
            stage: None,
            reason: "new".to_owned(),
            since: first.notice.at,
            wake_at: now,
        }
    }
}

impl Task {
    /// Publishes the step, and writes down what is new in it.
    pub(super) fn tell(&mut self, step: &Step, now: Timestamp) {
        self.status.send_modify(|status| {
            status.triggers = self.job.notices.iter().map(|notice| notice.kind.trigger()).collect();
            status.goal = step.goal;
            status.stage = step.stage;
            status.reason = step.reason.to_string();
            status.wake_at = step.wake_at;
        });
        let Some(stage) = step.stage else { return };
        let kind = (stage, std::mem::discriminant(&step.reason));
        if self.told == Some(kind) {
            return;
        }
        self.told = Some(kind);
        let left_stage = match self.stage {
            Some((old, since)) if old != stage => Some((old, now.since(since))),
            Some(_) | None => None,
        };
        if self.stage.is_none_or(|(old, _)| old != stage) {
            self.shared.journal.metrics().moved(self.stage.map(|(old, _)| old), Some(stage));
            self.stage = Some((stage, now));
        }
        self.shared.journal.record(Fact::Stepped {
            instance: self.job.instance.clone(),
            stage,
            reason: step.reason.clone(),
            left_stage,
        });
    }

    /// The node is isolated: how long that took is what counts most.
    pub(super) fn tell_isolated(&mut self, now: Timestamp) {
        let (false, Some(first)) = (self.isolated, self.job.notices.first()) else { return };
        self.isolated = true;
        self.shared.journal.record(Fact::Isolated {
            instance: self.job.instance.clone(),
            trigger: first.kind.trigger(),
            since_event: now.since(first.at),
            since_received: now.since(self.received_at),
        });
    }

    /// Nobody knows the instance, and not every cluster could be asked.
    pub(super) fn tell_waiting(&self, until: Timestamp) {
        self.status.send_modify(|status| {
            "waiting until every cluster is in sync or the node joins one".clone_into(&mut status.reason);
            status.wake_at = until;
        });
    }

    /// A read that goes on failing for the same reason is told once.
    pub(super) fn tell_faults(&mut self, faults: Vec<Fault>) {
        let before = std::mem::take(&mut self.faults);
        for fault in faults {
            let text = fault.to_string();
            if !before.contains(&text) && !self.faults.contains(&text) {
                let instance = self.job.instance.clone();
                self.shared.journal.record(Fact::Faulted { instance, doing: "observing".to_owned(), fault });
            }
            self.faults.insert(text);
        }
    }
}
