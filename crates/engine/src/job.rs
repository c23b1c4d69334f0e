//! One instance's job: observe → step → act, until nothing is left to do.

mod ending;
mod telling;
mod tick;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use offramp_core::{
    AccountRegion, InstanceId, Job, Key, Policy, Reason, Remainder, Seen, Stage, Timestamp, Trigger, demands,
};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::announcement::EventReason;
use crate::arrival::{Alive, Arrival, Input};
use crate::clock::Clock;
use crate::departures::Departure;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::learning;
use crate::lease::Order;
use crate::metrics::AtWork;
use crate::observe::Observer;
use crate::place;
use crate::ports::{Cluster, MessageId};
use crate::retry::GrowingPauses;
use crate::routing::{Route, ends_unrouted};

use ending::End;
pub use telling::JobStatus;

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

/// A tick has at most four rounds of calls, each with its timeout of ten seconds: the membership, the group,
/// the target groups, and the actions, which may wait for a seat for five more.
const TICK: Duration = Duration::from_secs(45);
/// After a lost lease the next delivery has to come within this time (three visibilities).
const REDELIVERY: Duration = Duration::from_secs(90);
/// How often a job looks whose cluster is not known, beside every change of a watch.
const UNROUTED: Duration = Duration::from_secs(10);

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
    permits: Vec<Arc<OwnedSemaphorePermit>>,
    cluster: Option<Arc<dyn Cluster>>,
    node_seen: bool,
    departure: Departure,
    stage: Option<(Stage, Timestamp)>,
    /// The newest deadline that a step named.
    deadline: Option<Timestamp>,
    /// What was left when a deadline came.
    remainder: Option<Remainder>,
    at_work: AtWork,
    reported_step: Option<(Stage, std::mem::Discriminant<Reason>)>,
    isolated: bool,
    /// What a webhook refuses, and whose pods are not waited for: each is told once.
    reported: BTreeSet<String>,
    /// What the node's Events say of this job.
    announced: BTreeSet<(EventReason, Option<String>)>,
    /// The isolation failed, and is tried again then, whatever is being read meanwhile.
    isolate_again_at: Option<Timestamp>,
    /// What could not be read the last time.
    faults: BTreeSet<String>,
    /// The namespaces in which evictions are refused, and whether their pods have become ready since.
    refusing: BTreeMap<String, watch::Receiver<u64>>,
    pauses: GrowingPauses,
    alive: watch::Sender<Alive>,
    status: watch::Sender<JobStatus>,
}

/// Why the wait is over.
enum Woken {
    ToLook,
    ByInput(Input),
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
        Self {
            pauses: GrowingPauses::new(notice.instance.as_str()),
            job: Job::new(notice, delivery),
            received_at: delivery.at,
            messages: BTreeMap::from([(message, None)]),
            permits: permit.into_iter().collect(),
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
            isolate_again_at: None,
            faults: BTreeSet::new(),
            refusing: BTreeMap::new(),
            shared,
            alive,
            status,
        }
    }

    async fn run(mut self, inbox: &mut mpsc::UnboundedReceiver<Input>, stop: &CancellationToken) {
        // The first look uses the watches alone: nothing stands between a notice and its cordon.
        let mut from_watches = true;
        let end = loop {
            while let Ok(input) = inbox.try_recv() {
                from_watches |= self.take(input);
            }
            if stop.is_cancelled() {
                break End::Stopped;
            }
            let now = self.shared.clock.now();
            from_watches |= self.isolate_again_at.take_if(|at| *at <= now).is_some();
            self.looks_again_by(now + TICK);
            if self.lost_for_good(now) {
                break End::HandedOver;
            }
            self.learn_of_readiness(now);
            let changes = self.changes();
            let until = match self.route(now) {
                Ok(()) => {
                    let absence_is_proven = self.absence_is_proven(now);
                    let (clock, again) = (self.shared.clock.clone(), self.isolate_again_at);
                    let seen = if from_watches {
                        self.shared.observer.read_watches(&self.job, self.cluster.as_ref(), absence_is_proven)
                    } else {
                        let place = place::of_job(&self.job, &self.shared.account_region);
                        let read = self.shared.observer.observe(
                            &self.job,
                            &place,
                            self.cluster.as_ref(),
                            absence_is_proven,
                            now,
                        );
                        let (seen, faults) = tokio::select! {
                            biased;
                            () = stop.cancelled() => break End::Stopped,
                            Some(input) = inbox.recv() => {
                                from_watches |= self.take(input);
                                continue;
                            }
                            read = read => read,
                            () = clock.sleep_until(again.unwrap_or(now)), if again.is_some() => continue,
                        };
                        self.tell_faults(faults);
                        seen
                    };
                    let (step, again_at) = self.tick_with_permit(&seen).await;
                    if step.stage.is_none() {
                        break End::Done(step.reason);
                    }
                    if std::mem::take(&mut from_watches) {
                        continue;
                    }
                    again_at
                }
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
                Woken::ByInput(input) => from_watches |= self.take(input),
                Woken::ToStop => break End::Stopped,
            }
        };
        self.end(end, stop).await;
    }

    /// Takes in what arrived. Says whether something new may have to be isolated for.
    fn take(&mut self, input: Input) -> bool {
        match input {
            Input::LeaseLost(message) => {
                let now = self.shared.clock.now();
                self.messages.entry(message).and_modify(|lost| *lost = Some(now));
                false
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
                !copy
            }
        }
    }

    fn route(&mut self, now: Timestamp) -> Result<(), Unrouted> {
        let ForeignMessages { hold, .. } = self.shared.foreign;
        let over = ends_unrouted(&self.job, &self.shared.policy);
        let cluster = match self.shared.observer.clusters.route(&self.job, &self.shared.policy) {
            Route::Here(cluster) => Some(cluster),
            Route::NoNode => None,
            // Out of sync for now, or its node has gone: what was known of its cluster holds.
            Route::Unknown | Route::Foreign | Route::SomebodyElses if self.cluster.is_some() => None,
            // A worker that has just started has not seen its clusters yet.
            Route::Unknown if now >= over.max(self.received_at + hold) => return Err(Unrouted::GivenUp),
            Route::Unknown => return Err(Unrouted::Waiting(now + UNROUTED, Why::NotSure)),
            Route::Foreign | Route::SomebodyElses if now < self.received_at + hold => {
                return Err(Unrouted::Waiting(self.received_at + hold, Why::MayJoin));
            }
            Route::SomebodyElses => return Err(Unrouted::Foreign),
            Route::Foreign if self.absence_is_proven(now) => return Err(Unrouted::Foreign),
            // A cluster whose watches do not prove that they live is as good as one that is out of sync.
            Route::Foreign if now >= over => return Err(Unrouted::GivenUp),
            Route::Foreign => return Err(Unrouted::Waiting(now + UNROUTED, Why::Unproven)),
        };
        let node = cluster.as_ref().map_or(Seen::Gone, |cluster| cluster.node(&self.job.instance));
        let node = node.known().map(|node| node.name.clone());
        self.node_seen |= node.is_some();
        if let (None, None, Some(cluster)) = (&self.cluster, &node, &cluster)
            && let Some(deleted) = cluster.deleted(&self.job.instance)
        {
            self.node_seen = true;
            learning::learn_of_deleted_node(&mut self.job.memory, deleted);
        }
        if let (None, Some(cluster)) = (&self.cluster, &cluster) {
            self.shared.journal.record(Fact::Routed {
                instance: self.job.instance.clone(),
                cluster: cluster.name().clone(),
                node: node.clone(),
            });
            let stage = self.stage.map(|(stage, _)| stage);
            self.at_work = self.shared.journal.metrics().at_work(Some(cluster.name()), stage);
            self.status.send_modify(|status| status.cluster = Some(cluster.name().clone()));
        }
        // A cluster that was out of sync shows it later.
        if node.is_some() {
            self.status.send_modify(|status| status.node = node);
        }
        // A node that has gone keeps its cluster: it was ours.
        self.cluster = cluster.or_else(|| self.cluster.take());
        Ok(())
    }

    /// Whether "no node" is to be believed: it was there once, or the time is over in which it could join, and the watches
    /// of every cluster where it may be have shown what there was by then.
    fn absence_is_proven(&self, now: Timestamp) -> bool {
        let (clusters, by) = (&self.shared.observer.clusters, self.received_at + self.shared.foreign.hold);
        self.node_seen
            || (now >= by && !clusters.may_know(&self.job) && clusters.have_proven(&self.job, by, now))
    }

    /// The cluster whose watches still have to show what was on the node when it was closed, and when that was.
    fn unproven(&self) -> Option<(&Arc<dyn Cluster>, Timestamp)> {
        let drains = self.job.notices.iter().any(|notice| demands(&notice.kind).drain);
        let at = self.job.memory.closed_at().filter(|_| drains)?;
        let cluster = self.cluster.as_ref()?;
        (*cluster.proven().borrow() < at).then_some((cluster, at))
    }

    /// Woken by these: the own cluster, or any, while none is known; and while there is no node, by proofs of that.
    fn changes(&self) -> Vec<BoxFuture<'static, ()>> {
        let clusters = &self.shared.observer.clusters.0;
        let own = clusters
            .iter()
            .filter(|cluster| self.cluster.as_ref().is_none_or(|own| own.name() == cluster.name()));
        let mut changes: Vec<_> =
            own.map(|cluster| change_of(cluster.changes(&self.job.instance)).boxed()).collect();
        changes.extend(self.refusing.values().cloned().map(|readiness| next_of(readiness).boxed()));
        if let Some((cluster, _)) = self.unproven() {
            changes.push(change_of(cluster.proven()).boxed());
        } else if !self.node_seen {
            changes.extend(clusters.iter().map(|cluster| change_of(cluster.proven()).boxed()));
        }
        changes
    }

    async fn wait(
        &self,
        until: Timestamp,
        changes: Vec<BoxFuture<'static, ()>>,
        inbox: &mut mpsc::UnboundedReceiver<Input>,
        stop: &CancellationToken,
    ) -> Woken {
        let changed = async {
            let never = std::future::pending::<()>().boxed();
            select_all(changes.into_iter().chain([never])).await;
        };
        // Every branch is cancel-safe.
        tokio::select! {
            biased;
            () = stop.cancelled() => Woken::ToStop,
            Some(input) = inbox.recv() => Woken::ByInput(input),
            () = changed => Woken::ToLook,
            () = self.shared.clock.sleep_until(until) => Woken::ToLook,
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

/// Waits for a change from now on.
fn change_of<T: Send + Sync + 'static>(mut changes: watch::Receiver<T>) -> impl Future<Output = ()> + Send {
    changes.mark_unchanged();
    next_of(changes)
}

/// Waits for a change that was not taken in yet.
async fn next_of<T: Send + Sync + 'static>(mut changes: watch::Receiver<T>) {
    if changes.changed().await.is_err() {
        // Its cluster is gone, and so are its changes.
        std::future::pending::<()>().await;
    }
}

enum Unrouted {
    Waiting(Timestamp, Why),
    GivenUp,
    Foreign,
}

/// Why nobody knows yet where a job belongs.
#[derive(Clone, Copy)]
enum Why {
    /// A cluster that may have the node is not sure.
    NotSure,
    /// No cluster has it, and it may join one yet.
    MayJoin,
    /// No cluster has it, as far as their watches show.
    Unproven,
}
