//! Every metric, in one place. Labels come from closed sets and are present from the start, so that
//! `rate()` works from the first event on. No instance, pod or token is ever a label.

use offramp_core::{Goal, Outcome, Stage, Trigger};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::fact::{Fact, JobOutcome};
use crate::ports::Fault;

/// From a few milliseconds to an hour.
const BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];

const OUTCOMES: [&str; 7] = ["done", "gone", "changed", "blocked", "retry", "denied", "invalid"];
/// Every value of `Action::name`; a test holds the two together.
const ACTIONS: [&str; 11] = [
    "isolate",
    "exclude",
    "deregister",
    "evict",
    "delete",
    "heartbeat",
    "complete_hook",
    "detach",
    "terminate_through_group",
    "register",
    "release",
];
const FAULTS: [&str; 3] = ["retry", "denied", "invalid"];

/// The metrics of one engine.
#[derive(Clone, Debug)]
pub struct Metrics {
    received: IntCounterVec,
    message_age: Histogram,
    ignored: IntCounterVec,
    dead_lettered: IntCounter,
    queue_faults: IntCounterVec,
    leases_lost: IntCounter,
    held_back: IntCounter,
    notices: IntCounterVec,
    copies: IntCounter,
    isolation: HistogramVec,
    isolation_own: HistogramVec,
    stage_seconds: HistogramVec,
    actions: IntCounterVec,
    faults: IntCounterVec,
    finished: IntCounterVec,
    job_seconds: HistogramVec,
    jobs: IntGauge,
    jobs_by_stage: IntGaugeVec,
    queue_waiting: IntGauge,
    queue_in_flight: IntGauge,
    cluster_synced: IntGaugeVec,
}

impl Metrics {
    /// Makes the metrics and registers them. Fails only where the registry has them already.
    pub fn register(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counter =
            |name: &str, help: &str, label: &str| IntCounterVec::new(Opts::new(name, help), &[label]);
        let plain = |name: &str, help: &str| IntCounter::with_opts(Opts::new(name, help));
        let histogram = |name: &str, help: &str, label: &str| {
            HistogramVec::new(HistogramOpts::new(name, help).buckets(BUCKETS.to_vec()), &[label])
        };
        let metrics = Self {
            received: counter(
                "offramp_messages_received_total",
                "Messages received and understood, by trigger.",
                "trigger",
            )?,
            message_age: Histogram::with_opts(
                HistogramOpts::new(
                    "offramp_message_age_seconds",
                    "Age of an event when its message is received, from the event's own time.",
                )
                .buckets(BUCKETS.to_vec()),
            )?,
            ignored: counter(
                "offramp_messages_ignored_total",
                "Messages that are well formed and ask for nothing, by reason.",
                "reason",
            )?,
            dead_lettered: plain(
                "offramp_messages_dead_lettered_total",
                "Messages that could not be parsed and were sent to the dead-letter queue.",
            )?,
            queue_faults: counter(
                "offramp_queue_faults_total",
                "Failed SQS calls, by kind of fault.",
                "fault",
            )?,
            leases_lost: plain(
                "offramp_leases_lost_total",
                "Messages that went out of flight while their job was running.",
            )?,
            held_back: plain(
                "offramp_messages_held_back_total",
                "Messages that went back to the queue because there were as many jobs as allowed.",
            )?,
            notices: counter(
                "offramp_notices_total",
                "Notices that began or joined a job, by trigger.",
                "trigger",
            )?,
            copies: plain("offramp_notice_copies_total", "Copies of notices that a job already had.")?,
            isolation: histogram(
                "offramp_isolation_seconds",
                "From the event's own time to the isolated node, by trigger.",
                "trigger",
            )?,
            isolation_own: histogram(
                "offramp_isolation_after_receive_seconds",
                "From the receipt of the message to the isolated node, by trigger.",
                "trigger",
            )?,
            stage_seconds: histogram(
                "offramp_stage_seconds",
                "Time that jobs spend in each stage.",
                "stage",
            )?,
            actions: IntCounterVec::new(
                Opts::new("offramp_actions_total", "Actions on Kubernetes and AWS, by kind and outcome."),
                &["action", "outcome"],
            )?,
            faults: counter("offramp_faults_total", "Failed reads and actions, by kind of fault.", "fault")?,
            finished: counter("offramp_jobs_finished_total", "Jobs that ended, by outcome.", "outcome")?,
            job_seconds: histogram(
                "offramp_job_seconds",
                "From the first notice of a job to its end, by outcome.",
                "outcome",
            )?,
            jobs: IntGauge::with_opts(Opts::new("offramp_jobs", "Jobs at work."))?,
            jobs_by_stage: IntGaugeVec::new(
                Opts::new("offramp_jobs_in_stage", "Jobs at work, by their first unfinished stage."),
                &["stage"],
            )?,
            queue_waiting: IntGauge::with_opts(Opts::new(
                "offramp_queue_messages_waiting",
                "Messages in the queue that nobody has received, about.",
            ))?,
            queue_in_flight: IntGauge::with_opts(Opts::new(
                "offramp_queue_messages_in_flight",
                "Messages that are received and not deleted, about.",
            ))?,
            cluster_synced: IntGaugeVec::new(
                Opts::new("offramp_cluster_synced", "1 while the watches of the cluster are in sync."),
                &["cluster"],
            )?,
        };
        metrics.add_to(registry)?;
        metrics.present_from_the_start();
        Ok(metrics)
    }

    fn add_to(&self, registry: &Registry) -> Result<(), prometheus::Error> {
        let Self {
            received,
            message_age,
            ignored,
            dead_lettered,
            queue_faults,
            leases_lost,
            held_back,
            notices,
            copies,
            isolation,
            isolation_own,
            stage_seconds,
            actions,
            faults,
            finished,
            job_seconds,
            jobs,
            jobs_by_stage,
            queue_waiting,
            queue_in_flight,
            cluster_synced,
        } = self;
        registry.register(Box::new(received.clone()))?;
        registry.register(Box::new(message_age.clone()))?;
        registry.register(Box::new(ignored.clone()))?;
        registry.register(Box::new(dead_lettered.clone()))?;
        registry.register(Box::new(queue_faults.clone()))?;
        registry.register(Box::new(leases_lost.clone()))?;
        registry.register(Box::new(held_back.clone()))?;
        registry.register(Box::new(notices.clone()))?;
        registry.register(Box::new(copies.clone()))?;
        registry.register(Box::new(isolation.clone()))?;
        registry.register(Box::new(isolation_own.clone()))?;
        registry.register(Box::new(stage_seconds.clone()))?;
        registry.register(Box::new(actions.clone()))?;
        registry.register(Box::new(faults.clone()))?;
        registry.register(Box::new(finished.clone()))?;
        registry.register(Box::new(job_seconds.clone()))?;
        registry.register(Box::new(jobs.clone()))?;
        registry.register(Box::new(jobs_by_stage.clone()))?;
        registry.register(Box::new(queue_waiting.clone()))?;
        registry.register(Box::new(queue_in_flight.clone()))?;
        registry.register(Box::new(cluster_synced.clone()))
    }

    fn present_from_the_start(&self) {
        for trigger in Trigger::ALL.map(Trigger::as_str) {
            self.received.with_label_values(&[trigger]);
            self.notices.with_label_values(&[trigger]);
            self.isolation.with_label_values(&[trigger]);
            self.isolation_own.with_label_values(&[trigger]);
        }
        for reason in offramp_wire::Ignored::ALL.map(offramp_wire::Ignored::as_str) {
            self.ignored.with_label_values(&[reason]);
        }
        for fault in FAULTS {
            self.queue_faults.with_label_values(&[fault]);
            self.faults.with_label_values(&[fault]);
        }
        for stage in Goal::ALL.into_iter().flat_map(Goal::stages).map(|stage| stage.as_str()) {
            self.stage_seconds.with_label_values(&[stage]);
            self.jobs_by_stage.with_label_values(&[stage]);
        }
        for action in ACTIONS {
            for outcome in OUTCOMES {
                self.actions.with_label_values(&[action, outcome]);
            }
        }
        for outcome in JobOutcome::ALL.map(JobOutcome::as_str) {
            self.finished.with_label_values(&[outcome]);
            self.job_seconds.with_label_values(&[outcome]);
        }
    }

    /// Takes a fact into the metrics.
    pub(crate) fn count(&self, fact: &Fact) {
        match fact {
            Fact::Received { trigger, age, .. } => {
                self.received.with_label_values(&[trigger.as_str()]).inc();
                self.message_age.observe(age.as_secs_f64());
            }
            Fact::Ignored { why } => self.ignored.with_label_values(&[why]).inc(),
            Fact::DeadLettered { .. } => self.dead_lettered.inc(),
            Fact::QueueFaulted { fault } => self.queue_faults.with_label_values(&[fault_name(fault)]).inc(),
            Fact::LeaseLost { .. } => self.leases_lost.inc(),
            Fact::Joined { copy: true, .. } => self.copies.inc(),
            Fact::Joined { trigger, .. } => self.notices.with_label_values(&[trigger.as_str()]).inc(),
            Fact::Stepped { left_stage: Some((stage, took)), .. } => {
                self.stage_seconds.with_label_values(&[stage.as_str()]).observe(took.as_secs_f64());
            }
            Fact::Acted { action, outcome, .. } => {
                self.actions.with_label_values(&[action.name(), outcome_name(outcome)]).inc();
            }
            Fact::Faulted { fault, .. } => self.faults.with_label_values(&[fault_name(fault)]).inc(),
            Fact::Isolated { trigger, since_event, since_received, .. } => {
                let trigger = &[trigger.as_str()];
                self.isolation.with_label_values(trigger).observe(since_event.as_secs_f64());
                self.isolation_own.with_label_values(trigger).observe(since_received.as_secs_f64());
            }
            Fact::Finished { outcome, took, .. } => {
                self.finished.with_label_values(&[outcome.as_str()]).inc();
                self.job_seconds.with_label_values(&[outcome.as_str()]).observe(took.as_secs_f64());
            }
            Fact::TooManyJobs { .. } => self.held_back.inc(),
            Fact::Stepped { left_stage: None, .. } | Fact::Routed { .. } | Fact::Stopping { .. } => {}
        }
    }

    pub(crate) fn jobs(&self, count: usize) {
        self.jobs.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A job moved from one stage to another; `None` is before its first and after its last.
    pub(crate) fn moved(&self, from: Option<Stage>, to: Option<Stage>) {
        if let Some(stage) = from {
            self.jobs_by_stage.with_label_values(&[stage.as_str()]).dec();
        }
        if let Some(stage) = to {
            self.jobs_by_stage.with_label_values(&[stage.as_str()]).inc();
        }
    }

    pub(crate) fn depth(&self, depth: crate::ports::Depth) {
        self.queue_waiting.set(i64::try_from(depth.waiting).unwrap_or(i64::MAX));
        self.queue_in_flight.set(i64::try_from(depth.in_flight).unwrap_or(i64::MAX));
    }

    pub(crate) fn synced(&self, cluster: &str, synced: bool) {
        self.cluster_synced.with_label_values(&[cluster]).set(i64::from(synced));
    }
}

const fn fault_name(fault: &Fault) -> &'static str {
    match fault {
        Fault::Retry(_) => "retry",
        Fault::Denied(_) => "denied",
        Fault::Invalid(_) => "invalid",
    }
}

const fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Gone => "gone",
        Outcome::Changed => "changed",
        Outcome::Blocked { .. } => "blocked",
        Outcome::Retry => "retry",
        Outcome::Denied => "denied",
        Outcome::Invalid => "invalid",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use offramp_core::{Action, GroupName, PodRef, PodUid};

    use super::*;

    #[test]
    fn every_kind_of_action_is_a_label_from_the_start() {
        let pod = PodRef { namespace: "a".to_owned(), name: "b".to_owned(), uid: PodUid::new("c") };
        let group = GroupName::new("workers");
        for action in [
            Action::Evict { pod: pod.clone(), grace: None },
            Action::Delete { pod, grace: Duration::ZERO },
            Action::Detach { group: group.clone() },
            Action::TerminateThroughGroup { group },
        ] {
            assert!(ACTIONS.contains(&action.name()), "{}", action.name());
        }
    }
}
