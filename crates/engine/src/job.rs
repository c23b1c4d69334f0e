//! One instance's job: observe → step → act, until nothing is left to do.

mod ending;
mod in_flight;
mod route;
mod telling;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use offramp_core::{
    AccountRegion, ClusterName, InstanceId, Job, Key, Policy, Remainder, Stage, Timestamp, Trigger,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::announcement::EventReason;
use crate::arrival::{Alive, Arrival, Input};
use crate::clock::Clock;
use crate::departures::Departure;
use crate::evictions::Evictions;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::lease::Order;
use crate::metrics::AtWork;
use crate::observe::Observer;
use crate::place;
use crate::ports::{Cluster, MessageId};
use crate::readings::Readings;

use ending::End;
use in_flight::{Finished, InFlight};
use route::Unrouted;
pub use telling::JobStatus;
use telling::Told;
use tick::PERMIT;

/// What every job shares.
pub(crate) struct Shared {
    pub(crate) observer: Observer,
    pub(crate) policy: Policy,
    pub(crate) foreign: ForeignMessages,
    /// Of the queue: where calls go when no event of an instance says where it is.
    pub(crate) account_region: AccountRegion,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) evictions: BTreeMap<ClusterName, Evictions>,
}

/// What becomes of messages about instances that are in no cluster of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignMessages {
    /// So long must every cluster be sure before a message counts as foreign: a node may join a little
    /// after its event.
    pub hold: Duration,
    /// Delete them then; otherwise they are left for another consumer of the queue.
    pub delete: bool,
}

/// A job that is over, and what came too late for it.
pub(crate) struct Ended {
    pub(crate) instance: InstanceId,
    pub(crate) left_over: Vec<Arrival>,
}

/// A call has its timeout of ten seconds, and an eviction may wait for a seat for five more.
const CALLS: Duration = Duration::from_secs(15);
/// After a lost lease the next delivery has to come within this time (three visibilities).
const REDELIVERY: Duration = Duration::from_secs(90);
/// Runs one job to its end.
pub(crate) async fn run(
    shared: Arc<Shared>,
    instance: InstanceId,
    mut inbox: mpsc::UnboundedReceiver<Input>,
    alive: watch::Sender<Alive>,
    status: watch::Sender<JobStatus>,
    stop: CancellationToken,
) -> Ended {
    if let Some(Input::Arrival(first)) = inbox.recv().await {
        let task = Task::new(shared, *first, alive, status);
        // Boxed: it is large, and there are many.
        Box::pin(task.run(&mut inbox, &stop)).await;
    }
    inbox.close();
    let mut left_over = Vec::new();
    while let Ok(input) = inbox.try_recv() {
        if let Input::Arrival(arrival) = input {
            left_over.push(*arrival);
        }
    }
    Ended { instance, left_over }
}

struct Task {
    shared: Arc<Shared>,
    job: Job,
    received_at: Timestamp,
    /// Messages that end with this job, and since when their lease is lost.
    messages: BTreeMap<MessageId, Option<Timestamp>>,
    /// Given back after the first try to isolate, or when that takes too long.
    permits: Vec<Arc<OwnedSemaphorePermit>>,
    permitted_until: Timestamp,
    cluster: Option<Arc<dyn Cluster>>,
    node_seen: bool,
    departure: Departure,
    stage: Option<(Stage, Timestamp)>,
    /// The newest deadline that a step named.
    deadline: Option<Timestamp>,
    /// What was left when a deadline came.
    remainder: Option<Remainder>,
    at_work: AtWork,
    reported_step: Option<Told>,
    isolated: bool,
    /// What a webhook refuses, and whose pods are not waited for: each is told once.
    reported: BTreeSet<String>,
    /// What the node's Events say of this job.
    announced: BTreeSet<(EventReason, Option<String>)>,
    /// What could not be read the last time.
    faults: BTreeSet<String>,
    readings: Readings,
    in_flight: InFlight,
    /// Whether its pods press, and its deadline, as the lane of evictions knows them.
    pressure: (bool, Option<Timestamp>),
    alive: watch::Sender<Alive>,
    status: watch::Sender<JobStatus>,
}

/// Why the wait is over.
enum Woken {
    ToLook,
    ByInput(Input),
    ByEnd(Finished),
    ToStop,
}

impl Task {
    fn new(
        shared: Arc<Shared>,
        first: Arrival,
        alive: watch::Sender<Alive>,
        status: watch::Sender<JobStatus>,
    ) -> Self {
        let Arrival { notice, message, receipt: _, delivery, permit } = first;
        shared.journal.record(Fact::Joined {
            instance: notice.instance.clone(),
            trigger: Trigger::of(&notice.kind),
            copy: false,
        });
        let departure = shared.observer.departures.of(&notice.instance);
        let job = Job::new(notice, delivery);
        let place = place::of_job(&job, &shared.account_region);
        Self {
            readings: Readings::new(shared.observer.calls.clone(), shared.clock.clone(), place),
            in_flight: InFlight::default(),
            pressure: (false, None),
            job,
            received_at: delivery.at,
            messages: BTreeMap::from([(message, None)]),
            permits: permit.into_iter().collect(),
            permitted_until: delivery.at + PERMIT,
            cluster: None,
            node_seen: false,
            departure,
            stage: None,
            deadline: None,
            remainder: None,
            at_work: shared.journal.metrics().at_work(None, None),
            reported_step: None,
            isolated: false,
            reported: BTreeSet::new(),
            announced: BTreeSet::new(),
            faults: BTreeSet::new(),
            shared,
            alive,
            status,
        }
    }

    async fn run(mut self, inbox: &mut mpsc::UnboundedReceiver<Input>, stop: &CancellationToken) {
        let end = loop {
            while let Ok(input) = inbox.try_recv() {
                self.take(input);
            }
            if stop.is_cancelled() {
                break End::Stopped;
            }
            let now = self.shared.clock.now();
            if self.lost_for_good(now) {
                break End::HandedOver;
            }
            let unshown = self.unshown(now);
            let changes = self.changes(unshown);
            let until = match self.route(now) {
                Ok(()) => match self.tick(unshown, now) {
                    Ok(until) => until,
                    Err(over) => break End::Done(over),
                },
                Err(Unrouted::Foreign) => break End::Foreign,
                Err(Unrouted::GivenUp) => break End::GivenUp,
                Err(Unrouted::Waiting(until, why)) => {
                    self.permits.clear();
                    self.tell_waiting(until, why);
                    until
                }
            };
            self.looks_again_by(until);
            match self.wait(until, changes, inbox, stop).await {
                Woken::ToLook => {}
                Woken::ByInput(input) => self.take(input),
                Woken::ByEnd(finished) => self.learn(finished),
                Woken::ToStop => break End::Stopped,
            }
        };
        // What was begun may happen yet: the message of a removal is not given up before. What waits for its turn does not.
        self.withdraw(&[]);
        self.looks_again_by(self.shared.clock.now() + CALLS);
        while !self.in_flight.is_empty() {
            let finished = self.in_flight.next().await;
            self.learn(finished);
        }
        self.end(end, stop).await;
    }

    /// Takes in what arrived.
    fn take(&mut self, input: Input) {
        match input {
            Input::LeaseLost(message) => {
                let now = self.shared.clock.now();
                self.messages.entry(message).and_modify(|lost| *lost = Some(now));
            }
            Input::Arrival(arrival) => {
                let Arrival { notice, message, receipt: _, delivery, permit } = *arrival;
                self.messages.insert(message, None);
                let (instance, trigger) = (notice.instance.clone(), Trigger::of(&notice.kind));
                let copy = !self.job.join(notice, delivery);
                if !copy {
                    // A spot notice may join a removal whose targets a controller keeps putting back.
                    self.job.memory.cooldowns.retain(|key, _| !matches!(key, Key::Deregistration(_)));
                }
                self.permits.extend(permit.filter(|_| !copy));
                self.shared.journal.record(Fact::Joined { instance, trigger, copy });
            }
        }
    }

    async fn wait(
        &mut self,
        until: Timestamp,
        changes: Vec<BoxFuture<'static, ()>>,
        inbox: &mut mpsc::UnboundedReceiver<Input>,
        stop: &CancellationToken,
    ) -> Woken {
        let clock = self.shared.clock.clone();
        let changed = async {
            let never = std::future::pending::<()>().boxed();
            select_all(changes.into_iter().chain([never])).await;
        };
        // Every branch is cancel-safe.
        tokio::select! {
            biased;
            () = stop.cancelled() => Woken::ToStop,
            Some(input) = inbox.recv() => Woken::ByInput(input),
            finished = self.in_flight.next() => Woken::ByEnd(finished),
            () = self.readings.next() => Woken::ToLook,
            () = changed => Woken::ToLook,
            () = clock.sleep_until(until) => Woken::ToLook,
        }
    }

    fn looks_again_by(&self, then: Timestamp) {
        self.alive.send_replace(Alive { looks_again_by: then });
    }

    /// Every message has been out of flight for too long: somebody else has them.
    fn lost_for_good(&self, now: Timestamp) -> bool {
        self.messages.values().all(|lost| lost.is_some_and(|since| now >= since + REDELIVERY))
    }
}
