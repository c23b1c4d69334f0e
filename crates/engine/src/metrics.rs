//! Every metric, in one place. Labels come from closed sets and are present from the start, so that
//! `rate()` works from the first event on. No instance, pod or token is ever a label.

mod calls;
mod declare;

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{BalancerKind, ClusterName, Goal, NotWaitedFor, Stage, Timestamp, Trigger};
use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::fact::Fact;
use crate::labels::{
    ACTIONS, ConfiguredTargetGroup, FAULTS, JobOutcome, OUTCOMES, action_name, balancer_name, fault_name,
    not_waited_for_name, outcome_name, stage_name, trigger_name,
};
use crate::ports::Depth;
use crate::unfinished::{Unfinished, UnfinishedKind};

pub use calls::{Call, CallResult};
use declare::{Declare, Labels};

/// From a few milliseconds to an hour.
const BUCKETS: &[f64] = &[
    0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0,
];
/// From a read of a cache nearby to the longest timeout; 5 s is a whole long poll.
const CALL_BUCKETS: &[f64] = &[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.5, 10.0, 30.0];
/// What was late is in the bucket of 0. The others follow from spot's two minutes and a hook's hour.
const TIME_LEFT_BUCKETS: &[f64] = &[0.0, 5.0, 15.0, 30.0, 60.0, 90.0, 120.0, 300.0, 600.0, 1800.0, 3600.0];

/// The stage of a job before its first decision.
const NEW: &str = "new";
/// How a sweep went.
const WHOLE: &str = "whole";
const PARTIAL: &str = "partial";
/// The cluster of a job that is not routed.
const UNKNOWN: &str = "unknown";

/// The metrics of one engine.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// The label values of the clusters.
    clusters: Vec<String>,
    received: IntCounterVec,
    message_age: Histogram,
    ignored: IntCounterVec,
    dead_lettered: IntCounter,
    postponed: IntCounter,
    later_version: IntCounter,
    queue_faults: IntCounterVec,
    leases_lost: IntCounter,
    held_back: IntCounter,
    not_waited_for: IntCounterVec,
    notices: IntCounterVec,
    copies: IntCounter,
    isolation: HistogramVec,
    isolation_own: HistogramVec,
    stage_seconds: HistogramVec,
    actions: IntCounterVec,
    deregistrations: IntCounterVec,
    faults: IntCounterVec,
    finished: IntCounterVec,
    job_seconds: HistogramVec,
    time_left: HistogramVec,
    jobs: IntGaugeVec,
    earliest_deadline: IntGaugeVec,
    queue_waiting: IntGauge,
    queue_in_flight: IntGauge,
    dead_letters: IntGauge,
    queue_connected: IntGauge,
    clock_skew: IntGauge,
    cluster_synced: IntGaugeVec,
    unidentified_nodes: IntGaugeVec,
    twins: IntGaugeVec,
    target_groups: IntGaugeVec,
    sweeps: IntCounterVec,
    found: IntCounterVec,
    unfinished: IntGaugeVec,
    calls: IntCounterVec,
    call_seconds: HistogramVec,
}

impl Metrics {
    /// Makes the metrics and registers them, for these clusters. Fails only where the registry has them
    /// already.
    pub fn register<'a>(
        registry: &Registry,
        clusters: impl IntoIterator<Item = &'a ClusterName>,
    ) -> Result<Self, prometheus::Error> {
        let configured: Vec<String> = clusters.into_iter().map(ToString::to_string).collect();
        let clusters = [&configured[..], &[UNKNOWN.to_owned()]].concat();
        let stages = Goal::ALL.into_iter().flat_map(Goal::stages).map(stage_name);

        let trigger = Labels::one("trigger", Trigger::ALL.map(trigger_name));
        let fault = Labels::one("fault", FAULTS);
        let not_waited_for = Labels::one("why", NotWaitedFor::ALL.map(not_waited_for_name));
        let cluster = Labels::one("cluster", clusters.iter().cloned());
        let stage = Labels::one("stage", stages.clone());
        let job_stage = Labels::one("stage", stages.chain([NEW]));
        let outcome = Labels::one("outcome", OUTCOMES);
        let job_outcome = Labels::one("outcome", JobOutcome::ALL.map(JobOutcome::as_str));
        let balancer =
            Labels::one("balancer", [BalancerKind::Application, BalancerKind::Network].map(balancer_name));
        let call = Call::ALL.iter().map(|call| [call.api(), call.operation()]);
        let call = Labels::rows(["api", "operation"], call);
        let result = Labels::one("result", CallResult::ALL.map(CallResult::as_str));

        let declare = Declare(registry);
        let version = Labels::one("version", [env!("CARGO_PKG_VERSION")]);
        let info = "The version of this worker; the value is always 1.";
        let build_info = declare.gauges("offramp_build_info", info, &version)?;
        build_info.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);

        Ok(Self {
            received: declare.counters(
                "offramp_messages_received_total",
                "Messages received and understood, by trigger.",
                &trigger,
            )?,
            message_age: declare.histogram(
                "offramp_message_age_seconds",
                "Age of an event when its message is received, from the event's own time.",
                BUCKETS,
            )?,
            ignored: declare.counters(
                "offramp_messages_ignored_total",
                "Messages that are well formed and ask for nothing, by reason.",
                &Labels::one("reason", offramp_wire::Ignored::ALL.map(offramp_wire::Ignored::as_str)),
            )?,
            dead_lettered: declare.counter(
                "offramp_messages_dead_lettered_total",
                "Messages that could not be parsed and were sent to the dead-letter queue.",
            )?,
            postponed: declare.counter(
                "offramp_dead_letters_postponed_total",
                "Messages left in the queue because as many wait for the dead-letter queue as may.",
            )?,
            later_version: declare.counter(
                "offramp_messages_of_later_version_total",
                "Deliveries of messages of a later version of offramp, which come back until one knows them.",
            )?,
            queue_faults: declare.counters(
                "offramp_queue_faults_total",
                "Failed SQS calls, by kind of fault.",
                &fault,
            )?,
            leases_lost: declare.counter(
                "offramp_leases_lost_total",
                "Messages that went out of flight while their job was running.",
            )?,
            held_back: declare.counter(
                "offramp_messages_held_back_total",
                "Messages that went back to the queue because there were as many jobs as allowed.",
            )?,
            not_waited_for: declare.counters(
                "offramp_pods_not_waited_for_total",
                "Controllers whose pods on a node that leaves are not waited for, counted once a removal, by reason.",
                &not_waited_for,
            )?,
            notices: declare.counters(
                "offramp_notices_total",
                "Notices that began or joined a job, by trigger.",
                &trigger,
            )?,
            copies: declare
                .counter("offramp_notice_copies_total", "Copies of notices that a job already had.")?,
            isolation: declare.histograms(
                "offramp_isolation_seconds",
                "From the event's own time to the isolated node, by cluster and trigger.",
                BUCKETS,
                &cluster.by(&trigger),
            )?,
            isolation_own: declare.histograms(
                "offramp_isolation_after_receive_seconds",
                "From the receipt of the message to the isolated node, by cluster and trigger.",
                BUCKETS,
                &cluster.by(&trigger),
            )?,
            stage_seconds: declare.histograms(
                "offramp_stage_seconds",
                "Time that jobs spend in each stage.",
                BUCKETS,
                &stage,
            )?,
            actions: declare.counters(
                "offramp_actions_total",
                "Actions on Kubernetes and AWS, by kind and outcome.",
                &Labels::one("action", ACTIONS).by(&outcome),
            )?,
            deregistrations: declare.counters(
                "offramp_deregistrations_total",
                "Deregistrations of targets, by kind of load balancer and outcome.",
                &balancer.by(&outcome),
            )?,
            faults: declare.counters(
                "offramp_faults_total",
                "Failed reads and actions, by kind of fault.",
                &fault,
            )?,
            finished: declare.counters(
                "offramp_jobs_finished_total",
                "Jobs that ended, by cluster, trigger and outcome.",
                &cluster.by(&trigger).by(&job_outcome),
            )?,
            job_seconds: declare.histograms(
                "offramp_job_seconds",
                "From the first notice of a job to its end, by outcome.",
                BUCKETS,
                &job_outcome,
            )?,
            time_left: declare.histograms(
                "offramp_time_left_seconds",
                "Time left before the deadline when a removal was finished; 0 is late.",
                TIME_LEFT_BUCKETS,
                &cluster.by(&trigger),
            )?,
            jobs: declare.gauges(
                "offramp_jobs",
                "Jobs at work, by cluster and first unfinished stage.",
                &cluster.by(&job_stage),
            )?,
            earliest_deadline: declare.gauges(
                "offramp_earliest_deadline_timestamp_seconds",
                "Unix time of the earliest deadline of the jobs at work, 0 where there is none.",
                &cluster.by(&trigger),
            )?,
            queue_waiting: declare.gauge(
                "offramp_queue_messages_waiting",
                "Messages in the queue that nobody has received, about.",
            )?,
            queue_in_flight: declare.gauge(
                "offramp_queue_messages_in_flight",
                "Messages that are received and not deleted, about.",
            )?,
            dead_letters: declare.gauge(
                "offramp_dead_letter_queue_messages",
                "Messages in the dead-letter queue, about; 0 where there is none.",
            )?,
            queue_connected: declare.gauge(
                "offramp_queue_connected",
                "1 while receives from the queue come back without a fault.",
            )?,
            clock_skew: declare.gauge(
                "offramp_clock_skew_seconds",
                "Seconds that the machine's clock is behind the queue's, whose time counts; negative: ahead.",
            )?,
            unidentified_nodes: declare.gauges(
                "offramp_unidentified_nodes",
                "Nodes of the cluster that have no instance in their providerID, nor another machine.",
                &cluster,
            )?,
            twins: declare.gauges(
                "offramp_twins",
                "Instances that several Ready nodes of the cluster name: none of these nodes is touched.",
                &cluster,
            )?,
            cluster_synced: declare.gauges(
                "offramp_cluster_synced",
                "1 while the watches of the cluster are in sync.",
                &Labels::one("cluster", configured),
            )?,
            target_groups: declare.gauges(
                "offramp_configured_target_groups",
                "Target groups of the configuration, by what a look at the start found.",
                &Labels::one("state", ConfiguredTargetGroup::ALL.map(ConfiguredTargetGroup::as_str)),
            )?,
            sweeps: declare.counters(
                "offramp_sweeps_total",
                "Looks for what was not received; partial: something could not be read.",
                &Labels::one("result", [WHOLE, PARTIAL]),
            )?,
            found: declare.counters(
                "offramp_sweep_found_total",
                "What the sweep found without a message.",
                &Labels::one(
                    "what",
                    [UnfinishedKind::WaitingHook, UnfinishedKind::OverdueRecord].map(UnfinishedKind::as_str),
                ),
            )?,
            unfinished: declare.gauges(
                "offramp_unfinished",
                "What no job can finish, as the newest sweep found it: somebody should look.",
                &Labels::one("what", UnfinishedKind::ALL.map(UnfinishedKind::as_str)),
            )?,
            calls: declare.counters(
                "offramp_calls_total",
                "Requests to AWS and Kubernetes, by API, operation and result.",
                &call.by(&result),
            )?,
            call_seconds: declare.histograms(
                "offramp_call_seconds",
                "How long requests to AWS and Kubernetes took; ReceiveMessage includes its long poll.",
                CALL_BUCKETS,
                &call,
            )?,
            clusters,
        })
    }

    /// Takes a fact into the metrics.
    pub(crate) fn count(&self, fact: &Fact) {
        match fact {
            Fact::Received { trigger, age, .. } => {
                self.received.with_label_values(&[trigger_name(*trigger)]).inc();
                self.message_age.observe(age.as_secs_f64());
            }
            Fact::Ignored { why } => self.ignored.with_label_values(&[why]).inc(),
            Fact::DeadLettered { .. } => self.dead_lettered.inc(),
            Fact::DeadLetterPostponed { .. } => self.postponed.inc(),
            Fact::LaterVersion { .. } => self.later_version.inc(),
            Fact::QueueFaulted { fault } => self.queue_faults.with_label_values(&[fault_name(fault)]).inc(),
            Fact::LeaseLost { .. } => self.leases_lost.inc(),
            Fact::Joined { copy: true, .. } => self.copies.inc(),
            Fact::Joined { trigger, .. } => self.notices.with_label_values(&[trigger_name(*trigger)]).inc(),
            Fact::Stepped { left_stage, .. } => self.left(*left_stage),
            Fact::Acted { action, outcome, balancer, .. } => {
                let outcome = outcome_name(outcome);
                self.actions.with_label_values(&[action_name(action), outcome]).inc();
                if let Some(balancer) = balancer {
                    self.deregistrations.with_label_values(&[balancer_name(*balancer), outcome]).inc();
                }
            }
            Fact::Faulted { fault, .. } => self.faults.with_label_values(&[fault_name(fault)]).inc(),
            Fact::Isolated { cluster, trigger, since_event, since_received, .. } => {
                let labels = [label(cluster.as_ref()), trigger_name(*trigger)];
                self.isolation.with_label_values(&labels).observe(since_event.as_secs_f64());
                self.isolation_own.with_label_values(&labels).observe(since_received.as_secs_f64());
            }
            Fact::Finished { cluster, trigger, outcome, took, left_stage, time_left, .. } => {
                let (cluster, trigger) = (label(cluster.as_ref()), trigger_name(*trigger));
                self.left(*left_stage);
                self.finished.with_label_values(&[cluster, trigger, outcome.as_str()]).inc();
                self.job_seconds.with_label_values(&[outcome.as_str()]).observe(took.as_secs_f64());
                if let Some(left) = time_left {
                    self.time_left.with_label_values(&[cluster, trigger]).observe(left.as_secs_f64());
                }
            }
            Fact::TooManyJobs { .. } => self.held_back.inc(),
            Fact::NotWaitedFor { why, .. } => {
                self.not_waited_for.with_label_values(&[not_waited_for_name(*why)]).inc();
            }
            Fact::Found { what, .. } => self.found.with_label_values(&[what.as_str()]).inc(),
            Fact::SweepFaulted { fault } => self.faults.with_label_values(&[fault_name(fault)]).inc(),
            Fact::ClockWrong { .. }
            | Fact::Vetoed { .. }
            | Fact::Routed { .. }
            | Fact::Unfinished { .. }
            | Fact::Stopping { .. } => {}
        }
    }

    fn left(&self, stage: Option<(Stage, Duration)>) {
        if let Some((stage, took)) = stage {
            self.stage_seconds.with_label_values(&[stage_name(stage)]).observe(took.as_secs_f64());
        }
    }

    /// Puts a job among the jobs at work. `None`: not routed yet; before its first decision.
    pub(crate) fn at_work(&self, cluster: Option<&ClusterName>, stage: Option<Stage>) -> AtWork {
        let stage = stage.map_or(NEW, stage_name);
        let jobs = self.jobs.with_label_values(&[label(cluster), stage]);
        jobs.inc();
        AtWork(jobs)
    }

    /// The deadlines of all jobs at work.
    pub(crate) fn deadlines(&self, jobs: impl Iterator<Item = (Option<ClusterName>, Trigger, Timestamp)>) {
        let mut earliest = BTreeMap::new();
        for (cluster, trigger, deadline) in jobs {
            let earliest = earliest.entry((label(cluster.as_ref()).to_owned(), trigger)).or_insert(deadline);
            *earliest = deadline.min(*earliest);
        }
        for (cluster, trigger) in self.clusters.iter().flat_map(|c| Trigger::ALL.map(|trigger| (c, trigger)))
        {
            let at = earliest.get(&(cluster.clone(), trigger));
            let unix_seconds = at.map_or(0, |at| at.as_millis() / 1000);
            self.earliest_deadline.with_label_values(&[cluster, trigger_name(trigger)]).set(unix_seconds);
        }
    }

    pub(crate) fn depth(&self, depth: Depth) {
        self.queue_waiting.set(i64::try_from(depth.waiting).unwrap_or(i64::MAX));
        self.queue_in_flight.set(i64::try_from(depth.in_flight).unwrap_or(i64::MAX));
    }

    pub(crate) fn dead_letters(&self, count: u64) {
        self.dead_letters.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// By how many milliseconds the machine's clock is behind the queue's.
    pub(crate) fn skew(&self, behind: i64) {
        self.clock_skew.set(behind / 1_000);
    }

    pub(crate) fn connected(&self, connected: bool) {
        self.queue_connected.set(i64::from(connected));
    }

    /// A sweep is over: it saw everything or not, and this is what no job can finish.
    pub(crate) fn swept(&self, whole: bool, unfinished: &[Unfinished]) {
        self.sweeps.with_label_values(&[if whole { WHOLE } else { PARTIAL }]).inc();
        for what in UnfinishedKind::ALL {
            let count = unfinished.iter().filter(|one| one.what == what).count();
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.unfinished.with_label_values(&[what.as_str()]).set(count);
        }
    }

    /// How many of the configured target groups are in this state.
    pub fn configured_target_groups(&self, state: ConfiguredTargetGroup, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.target_groups.with_label_values(&[state.as_str()]).set(count);
    }

    /// How many nodes of the cluster nobody can tell apart.
    pub fn unidentified(&self, cluster: &ClusterName, nodes: usize) {
        let nodes = i64::try_from(nodes).unwrap_or(i64::MAX);
        self.unidentified_nodes.with_label_values(&[cluster.as_str()]).set(nodes);
    }

    /// How many instances several Ready nodes of the cluster name.
    pub fn twins(&self, cluster: &ClusterName, instances: usize) {
        let instances = i64::try_from(instances).unwrap_or(i64::MAX);
        self.twins.with_label_values(&[cluster.as_str()]).set(instances);
    }

    /// Whether the watches of a cluster are in sync. Not the engine's to tell: it is so before there is a queue.
    pub fn synced(&self, cluster: &ClusterName, synced: bool) {
        self.cluster_synced.with_label_values(&[cluster.as_str()]).set(i64::from(synced));
    }
}

/// One job in the gauge of jobs at work. Dropping it takes the job out, however the job ends: a panic and
/// an aborted task too.
#[derive(Debug)]
pub(crate) struct AtWork(IntGauge);

impl Drop for AtWork {
    fn drop(&mut self) {
        self.0.dec();
    }
}

fn label(cluster: Option<&ClusterName>) -> &str {
    cluster.map_or(UNKNOWN, ClusterName::as_str)
}

#[cfg(test)]
mod tests;
