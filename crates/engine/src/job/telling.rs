//! What a job tells: its status for people, and to the journal what is new in a step.

use std::collections::BTreeSet;

use offramp_core::{
    Action, ActionResult, ClusterName, Goal, GroupName, HookName, InstanceId, Key, NodeName, Observation,
    Outcome, Reason, Stage, Step, Timestamp, Trigger, not_waited_for,
};

use super::Task;
use super::route::Why;
use crate::announcement::Announcement;
use crate::arrival::Arrival;
use crate::fact::Fact;
use crate::labels::{BY_PRESSURE, action_name, not_waited_for_name};
use crate::ports::Fault;
use crate::texts::InWords;

/// What a step says that is worth a line in the log when it is new: whether a webhook or policy refuses pods, and a budget.
pub(super) type Told = (Stage, std::mem::Discriminant<Reason>, Option<(bool, Option<Key>)>);

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
    /// The hooks among that, by group and name.
    pub hooks: BTreeSet<(GroupName, HookName)>,
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
    /// When it has to be over, where something says so.
    pub deadline: Option<Timestamp>,
}

impl JobStatus {
    pub(crate) fn new(first: &Arrival, now: Timestamp) -> Self {
        Self {
            instance: first.notice.instance.clone(),
            cluster: None,
            node: None,
            triggers: vec![Trigger::of(&first.notice.kind)],
            hooks: BTreeSet::new(),
            goal: Goal::Leave,
            stage: None,
            reason: "new".to_owned(),
            since: first.notice.at,
            wake_at: now,
            deadline: None,
        }
    }

    /// What the job came from, as one label; the hook before the others, because it waits for an answer.
    pub(crate) fn trigger(&self) -> Trigger {
        self.first_of(Trigger::ALL)
    }

    /// Whose deadline it is. A hook that joins a spot notice has an hour; the two minutes are the spot's.
    pub(crate) fn pressed_by(&self) -> Trigger {
        self.first_of(BY_PRESSURE)
    }

    fn first_of(&self, order: impl IntoIterator<Item = Trigger>) -> Trigger {
        let here = |wanted: &Trigger| self.triggers.contains(wanted);
        order.into_iter().find(here).unwrap_or(Trigger::Rebalance)
    }
}

impl Task {
    /// Publishes the step, and writes down what is new in it.
    pub(super) fn tell(&mut self, step: &Step, now: Timestamp) {
        self.status.send_modify(|status| {
            status.triggers = self.job.notices.iter().map(|notice| Trigger::of(&notice.kind)).collect();
            let hooks = self.job.hooks().map(|(_, hook)| (hook.key.group.clone(), hook.key.name.clone()));
            status.hooks = hooks.collect();
            status.goal = step.goal;
            status.stage = step.stage;
            status.reason = step.reason.in_words();
            status.wake_at = step.wake_at;
            status.deadline = step.deadline;
        });
        self.deadline = step.deadline.or(self.deadline);
        let Some(stage) = step.stage else { return };
        // What refuses the pods is worth a line of its own.
        let refused_by = match &step.reason {
            Reason::Draining(left) => (left.refused > 0).then(|| (left.vetoed > 0, left.refused_by.clone())),
            _ => None,
        };
        let kind = (stage, std::mem::discriminant(&step.reason), refused_by);
        if self.reported_step.as_ref() == Some(&kind) {
            return;
        }
        self.reported_step = Some(kind);
        let left_stage = match self.stage {
            Some((old, since)) if old != stage => Some((old, now.since(since))),
            Some(_) | None => None,
        };
        let begun = self.stage.is_none_or(|(old, _)| old != stage);
        self.announce(Announcement::of_reason(&step.reason));
        if begun {
            let cluster = self.cluster.as_ref().map(|cluster| cluster.name());
            self.at_work = self.shared.journal.metrics().at_work(cluster, Some(stage));
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
        let (trigger, since_event) = (Trigger::of(&first.kind), now.since(first.at));
        self.announce(Announcement::isolated(trigger, since_event));
        self.shared.journal.record(Fact::Isolated {
            instance: self.job.instance.clone(),
            cluster: self.cluster.as_ref().map(|cluster| cluster.name().clone()),
            trigger,
            since_event,
            since_received: now.since(self.received_at),
        });
    }

    /// Puts an Event on the node, unless this job has said the same before.
    pub(super) fn announce(&mut self, announcement: Option<Announcement>) {
        let (Some(announcement), Some(cluster)) = (announcement, &self.cluster) else { return };
        let node = self.status.borrow().node.clone();
        if let Some(node) = node.filter(|_| self.announced.insert(announcement.key())) {
            cluster.announce(&node, announcement);
        }
    }

    /// What a webhook or policy refuses is told once for the node and each pod, not every few seconds.
    pub(super) fn tell_veto(&mut self, action: &Action, outcome: &ActionResult) {
        let Ok(Outcome::Vetoed { by }) = outcome else { return };
        let object = match action {
            Action::Evict { pod, .. } | Action::Delete { pod, .. } => pod.in_words(),
            _ => String::new(),
        };
        if !self.reported.insert(format!("{} {object}", action_name(action))) {
            return;
        }
        self.announce(Announcement::vetoed(action, by));
        let (instance, action, by) = (self.job.instance.clone(), action.clone(), by.clone());
        self.shared.journal.record(Fact::Vetoed { instance, action, by });
    }

    /// Pods that are not waited for, once for what makes them.
    pub(super) fn tell_not_waited_for(&mut self, seen: &Observation) {
        let now = self.shared.clock.now();
        for pod in seen.pods.known().into_iter().flatten() {
            let Some(why) = not_waited_for(&self.job, pod, &self.shared.policy, now) else { continue };
            if self.reported.insert(format!("{} {}", not_waited_for_name(why), pod.origin.0)) {
                let (instance, pod) = (self.job.instance.clone(), pod.pod.clone());
                self.shared.journal.record(Fact::NotWaitedFor { instance, pod, why });
            }
        }
    }

    /// Nobody knows the instance, or not for sure.
    pub(super) fn tell_waiting(&self, until: Timestamp, why: Why) {
        let doubt = self.shared.observer.clusters.doubt(&self.job, None);
        let reason = match (why, doubt) {
            (Why::MayJoin, _) => "in no cluster of ours, waiting in case its node joins one".to_owned(),
            (Why::NotSure | Why::Unproven, Some(doubt)) => format!("waiting: {}", doubt.in_words()),
            (Why::NotSure, None) => "waiting for every cluster to be in sync".to_owned(),
            (Why::Unproven, None) => {
                "waiting for every cluster to prove that it has no node of it".to_owned()
            }
        };
        self.status.send_modify(|status| {
            status.reason = reason;
            status.wake_at = until;
        });
    }

    /// A read that goes on failing for the same reason is told once.
    pub(super) fn tell_faults(&mut self, faults: Vec<Fault>) {
        let before = std::mem::take(&mut self.faults);
        for fault in faults {
            let text = fault.to_string();
            if !before.contains(&text) && !self.faults.contains(&text) {
                if let Fault::Invalid(_) = &fault {
                    self.announce(Announcement::read_is_invalid());
                }
                let instance = self.job.instance.clone();
                self.shared.journal.record(Fact::Faulted { instance, doing: "observing".to_owned(), fault });
            }
            self.faults.insert(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hook_that_joins_a_spot_notice_does_not_take_its_deadline_over() {
        let check = |triggers: &[Trigger], trigger, pressed_by| {
            let status = JobStatus {
                instance: InstanceId::parse("i-0123456789abcdef0").unwrap(),
                cluster: None,
                node: None,
                triggers: triggers.to_vec(),
                hooks: BTreeSet::new(),
                goal: Goal::Leave,
                stage: None,
                reason: String::new(),
                since: Timestamp::from_millis(0),
                wake_at: Timestamp::from_millis(0),
                deadline: None,
            };
            assert_eq!((status.trigger(), status.pressed_by()), (trigger, pressed_by), "{triggers:?}");
        };
        check(&[Trigger::Hook], Trigger::Hook, Trigger::Hook);
        check(&[Trigger::Spot, Trigger::Hook], Trigger::Hook, Trigger::Spot);
        check(&[Trigger::Rebalance, Trigger::Hook], Trigger::Hook, Trigger::Hook);
    }
}
