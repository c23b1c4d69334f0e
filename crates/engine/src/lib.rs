//! The loop around the decision: leases, jobs, observe → step → act.
//!
//! Contract: the world is the state and the SQS message is the lease. Nothing about progress is stored
//! here, so a worker may die between any two calls. The engine owns the ports and every retry, batch and
//! cache, knows neither the AWS SDK nor kube, and holds no locks. Dropping [`Engine::run`] stops
//! everything at once, which is how a simulation crashes it.
#![deny(missing_docs)]

mod act;
mod announcement;
mod arrival;
mod batch;
mod buckets;
mod calls;
mod clock;
mod dead_letters;
mod defaults;
mod departures;
mod evictions;
mod fact;
mod gauges;
mod intake;
mod job;
mod jobs;
mod journal;
mod labels;
mod learning;
mod lease;
mod metrics;
mod observe;
mod owner;
mod place;
mod pod_labels;
mod ports;
mod readings;
mod record;
mod retry;
mod routing;
mod skew;
mod stand_ins;
mod sweep;
mod tasks;
mod texts;
mod unfinished;

#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use offramp_core::{AccountRegion, Policy, TargetGroupArn};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub use announcement::{Announcement, EventReason};
pub use clock::Clock;
pub use defaults::default_policy;
pub use fact::Fact;
pub use intake::IntakeHealth;
pub use job::{ForeignMessages, JobStatus};
pub use journal::Journal;
pub use labels::{ConfiguredTargetGroup, JobOutcome, goal_name, stage_name, trigger_name};
pub use learning::{learn_of_observation, learn_of_outcome};
pub use lease::LeaseTimes;
pub use metrics::{Call, CallResult, Metrics};
pub use owner::node_owner;
pub use place::region_of;
pub use pod_labels::labels_hash;
pub use ports::{
    Cluster, ClusterCall, DeletedNode, Depth, Fault, GroupCall, Groups, Held, Message, MessageId,
    NodeSummary, Queue, READ_AGAIN, Receipt, Sessions, TargetCall, TargetGroupSettings, TargetState, Targets,
};
pub use record::{RECORD_ANNOTATION, read_record, write_record};
pub use tasks::Broken;
pub use texts::{InWords, in_words};
pub use unfinished::{Unfinished, UnfinishedKind};

use calls::Calls;
use dead_letters::DeadLetters;
use departures::Departures;
use evictions::Evictions;
use gauges::Gauges;
use intake::Intake;
use job::Shared;
use jobs::{Ask, Jobs};
use lease::Leases;
use observe::Observer;
use routing::Clusters;
use stand_ins::StandIns;
use sweep::{Outbox, Sweep};
use tasks::Tasks;

/// The world as the engine reaches it.
#[derive(Clone)]
pub struct Ports {
    /// The queue.
    pub queue: Arc<dyn Queue>,
    /// Account and Region of the queue: where calls go when an event does not say.
    pub account_region: AccountRegion,
    /// AWS by account and Region.
    pub sessions: Arc<dyn Sessions>,
    /// The clusters.
    pub clusters: Vec<Arc<dyn Cluster>>,
}

/// How the engine runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Receives in flight. One brings ten messages in a few milliseconds, so four fill any worker; more
    /// than one, so that a dead connection does not stop the intake.
    pub receives: usize,
    /// Messages between receipt and first try to isolate. A cordon takes some 10 ms, so 100 at a time
    /// serve 500 notices in a fraction of a second.
    pub permits: usize,
    /// Jobs at a time. A waiting job is some 10 KB.
    pub most_jobs: usize,
    /// Target groups to look into beside those attached to Auto Scaling groups.
    pub target_groups: Vec<TargetGroupArn>,
    /// What becomes of messages about instances of nobody here.
    pub foreign: ForeignMessages,
    /// Timing of the leases.
    pub lease: LeaseTimes,
    /// What the sweep finds is put onto the queue. Off while workers of a version that knows no such messages read it
    /// too: they would hand them back to each other.
    pub messages: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            receives: 4,
            permits: 100,
            most_jobs: 10_000,
            target_groups: Vec::new(),
            // A node joins its cluster within seconds of its instance's start, an event about it comes
            // later than that.
            foreign: ForeignMessages { hold: Duration::from_secs(60), delete: true },
            lease: LeaseTimes::default(),
            messages: true,
        }
    }
}

/// A worker, not yet running.
pub struct Engine {
    ports: Ports,
    policy: Policy,
    settings: Settings,
    clock: Clock,
    journal: Journal,
    intake_health: watch::Sender<IntakeHealth>,
    unfinished: watch::Sender<Vec<Unfinished>>,
    asks: mpsc::Receiver<Ask>,
    handle: Handle,
}

/// A look into a running worker.
#[derive(Clone, Debug)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    intake_health: watch::Receiver<IntakeHealth>,
    unfinished: watch::Receiver<Vec<Unfinished>>,
}

impl Handle {
    /// What every job is doing; empty where the worker has ended.
    pub async fn jobs(&self) -> Vec<JobStatus> {
        let (ask, answer) = oneshot::channel();
        match self.asks.send(ask).await {
            Ok(()) => answer.await.unwrap_or_default(),
            Err(_) => Vec::new(),
        }
    }

    /// What no job can finish, as the newest sweep found it.
    pub fn unfinished(&self) -> Vec<Unfinished> {
        self.unfinished.borrow().clone()
    }

    /// How the intake is doing.
    pub fn intake_health(&self) -> IntakeHealth {
        self.intake_health.borrow().clone()
    }
}

impl Engine {
    /// A worker and a handle on it.
    pub fn new(
        ports: Ports,
        policy: Policy,
        settings: Settings,
        clock: Clock,
        journal: Journal,
    ) -> (Self, Handle) {
        let (asks_sender, asks) = mpsc::channel(16);
        let (intake_health, intake_health_receiver) =
            watch::channel(IntakeHealth { at: clock.unmoved(), fault: None, connected: false });
        let (unfinished, unfinished_receiver) = watch::channel(Vec::new());
        let handle = Handle {
            asks: asks_sender,
            intake_health: intake_health_receiver,
            unfinished: unfinished_receiver,
        };
        let own = handle.clone();
        let engine =
            Self { ports, policy, settings, clock, journal, intake_health, unfinished, asks, handle: own };
        (engine, handle)
    }

    /// Works until `stop`, then finishes the tick, hands the messages back and returns: seconds, not the
    /// length of a drain.
    ///
    /// # Errors
    ///
    /// A task that all jobs depend on hit a bug: nothing can be done any more, and the caller should end
    /// the process, so that it is started again. A bug in one job ends that job alone.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Broken> {
        let Self { ports, policy, settings, clock, journal, intake_health, unfinished, asks, handle } = self;
        let Ports { queue, account_region, sessions, clusters } = ports;
        // Those that serve the others run until nobody needs them; they are not waited for at the end.
        let mut lanes = Tasks::default();
        let mut tasks = Tasks::default();
        let calls = Calls::start(&mut lanes, &sessions, &clock, policy.recheck);
        let (gauges, clock_is_measured) =
            Gauges::new(Arc::clone(&queue), clock.clone(), journal.clone(), handle.clone());
        lanes.spawn("gauges", gauges.run());
        let sweep = Sweep {
            sessions,
            calls: calls.clone(),
            clusters: Clusters(clusters.clone()),
            policy: policy.clone(),
            account_region: account_region.clone(),
            handle,
            outbox: Outbox::new(Arc::clone(&queue), settings.messages, clock.clone(), journal.clone()),
            unfinished,
            clock: clock.clone(),
            journal: journal.clone(),
        };
        lanes.spawn("sweep", sweep.run());

        let (orders, inbox) = mpsc::unbounded_channel();
        let leases = Leases::new(Arc::clone(&queue), clock.clone(), settings.lease, journal.clone());
        tasks.spawn("leases", leases.run(inbox));

        let (arrivals, arrivals_inbox) = mpsc::channel(settings.permits.max(1));
        let lane = |cluster: &Arc<dyn Cluster>| {
            (cluster.name().clone(), Evictions::start(&mut lanes, cluster, &clock))
        };
        let evictions = clusters.iter().map(lane).collect();
        let observer = Observer {
            calls,
            clusters: Clusters(clusters),
            target_groups: settings.target_groups,
            departures: Departures::new(),
            stand_ins: StandIns::default(),
        };
        let shared = Shared {
            observer,
            policy,
            foreign: settings.foreign,
            account_region,
            clock: clock.clone(),
            journal: journal.clone(),
            orders: orders.clone(),
            evictions,
        };
        let jobs = Jobs::new(Arc::new(shared), settings.most_jobs);
        tasks.spawn("jobs", jobs.run(arrivals_inbox, asks, stop.clone()));

        let (dead_letters, dead_letters_inbox) = mpsc::channel(1);
        let lane = DeadLetters::new(Arc::clone(&queue), orders.clone(), journal.clone());
        tasks.spawn("dead letters", lane.run(dead_letters_inbox, stop.clone()));

        let intake = Intake {
            queue,
            permits: Arc::new(Semaphore::new(settings.permits.max(1))),
            arrivals,
            dead_letters,
            orders,
            lease: settings.lease,
            intake_health,
            journal,
            clock,
            clock_is_measured,
        };
        for number in 0..settings.receives.max(1) {
            tasks.spawn("intake", intake.clone().run(number, stop.clone()));
        }
        drop(intake);
        // The intakes end, then the jobs, then the leases, each when nobody needs it any more.
        loop {
            tokio::select! {
                biased;
                Some(ended) = lanes.next() => ended?,
                ended = tasks.next() => match ended {
                    Some(ended) => ended?,
                    None => return Ok(()),
                },
            }
        }
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Ports {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ports").field("account_region", &self.account_region).finish_non_exhaustive()
    }
}
