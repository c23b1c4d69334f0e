//! All jobs: one task for each instance, which every notice about it joins.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use offramp_core::InstanceId;
use tokio::sync::mpsc::error::SendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{Id, JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::arrival::{Alive, Arrival, Input};
use crate::fact::Fact;
use crate::job::{self, Ended, JobStatus, Shared};
use crate::labels::JobOutcome;
use crate::lease::Order;

/// Somebody who wants to know what every job is doing.
pub(crate) type Ask = oneshot::Sender<Vec<JobStatus>>;

/// How often the earliest deadlines are looked for: a look at ten thousand jobs takes some milliseconds, and
/// the shortest deadline, that of spot, is two minutes.
const DEADLINES: Duration = Duration::from_secs(5);

pub(crate) struct Jobs {
    shared: Arc<Shared>,
    /// No more jobs than this: beyond it messages wait in the queue.
    most: usize,
    running: BTreeMap<InstanceId, Running>,
    /// Only to learn whose task panicked.
    instances: HashMap<Id, InstanceId>,
    tasks: JoinSet<Ended>,
    /// Arrivals for jobs that are ending.
    late: Vec<Arrival>,
}

struct Running {
    inbox: mpsc::UnboundedSender<Input>,
    alive: watch::Receiver<Alive>,
    status: watch::Receiver<JobStatus>,
}

impl Jobs {
    pub(crate) fn new(shared: Arc<Shared>, most: usize) -> Self {
        Self {
            shared,
            most,
            running: BTreeMap::new(),
            instances: HashMap::new(),
            tasks: JoinSet::new(),
            late: Vec::new(),
        }
    }

    /// Runs until the intakes have ended and every job has.
    pub(crate) async fn run(
        mut self,
        mut arrivals: mpsc::Receiver<Arrival>,
        mut asks: mpsc::Receiver<Ask>,
        stop: CancellationToken,
    ) {
        let mut open = true;
        let mut told = false;
        let mut deadlines_at = self.shared.clock.now();
        while open || !self.tasks.is_empty() {
            tokio::select! {
                biased;
                () = stop.cancelled(), if !told => {
                    told = true;
                    self.shared.journal.record(Fact::Stopping { jobs: self.running.len() });
                }
                Some(ended) = self.tasks.join_next_with_id(), if !self.tasks.is_empty() => {
                    self.on_end(ended, &stop);
                }
                Some(ask) = asks.recv() => {
                    let all = self.running.values().map(|job| job.status.borrow().clone()).collect();
                    // Whoever asked may have gone.
                    ask.send(all).unwrap_or_default();
                }
                arrival = arrivals.recv(), if open => match arrival {
                    Some(arrival) => self.on_arrival(arrival, &stop),
                    None => open = false,
                },
                () = self.shared.clock.sleep_until(deadlines_at) => {
                    deadlines_at = self.shared.clock.now() + DEADLINES;
                    self.tell_deadlines();
                }
            }
        }
    }

    fn tell_deadlines(&self) {
        let deadlines = self.running.values().filter_map(|job| {
            let status = job.status.borrow();
            Some((status.cluster.clone(), status.pressed_by(), status.deadline?))
        });
        self.shared.journal.metrics().deadlines(deadlines);
    }

    fn on_arrival(&mut self, mut arrival: Arrival, stop: &CancellationToken) {
        let instance = arrival.notice.instance.clone();
        let first = !self.running.contains_key(&instance);
        if first {
            if self.running.len() >= self.most {
                // It is not held, so it comes back when its visibility ends.
                self.shared.journal.record(Fact::TooManyJobs { instance });
                return;
            }
            self.start(&arrival, stop);
        }
        let Some(job) = self.running.get(&instance) else { return };
        if !first {
            // The job may be in the middle of slow calls: that shall not hold up the notices of others.
            arrival.permit = None;
        }
        // The lease is taken before the job sees the notice, so that it can delete the message.
        let order = Order::Hold {
            message: arrival.message.clone(),
            receipt: arrival.receipt.clone(),
            alive: job.alive.clone(),
            job: job.inbox.clone(),
        };
        self.shared.orders.send(order).unwrap_or_default();
        // A job that is ending gives it back in what it leaves over, or has closed its inbox already.
        if let Err(SendError(Input::Arrival(late))) = job.inbox.send(Input::Arrival(Box::new(arrival))) {
            self.late.push(*late);
        }
    }

    fn start(&mut self, first: &Arrival, stop: &CancellationToken) {
        let (inbox, input) = mpsc::unbounded_channel();
        let now = self.shared.clock.now();
        let (alive_sender, alive) = watch::channel(Alive { looks_again_by: now });
        let (status_sender, status) = watch::channel(JobStatus::new(first, now));
        let instance = first.notice.instance.clone();
        let task = job::run(
            Arc::clone(&self.shared),
            instance.clone(),
            input,
            alive_sender,
            status_sender,
            stop.clone(),
        );
        let id = self.tasks.spawn(task).id();
        self.instances.insert(id, instance.clone());
        self.running.insert(instance, Running { inbox, alive, status });
    }

    fn on_end(&mut self, ended: Result<(Id, Ended), JoinError>, stop: &CancellationToken) {
        let (instance, left_over) = match ended {
            Ok((id, Ended { instance, left_over })) => {
                self.instances.remove(&id);
                (instance, left_over)
            }
            Err(error) => {
                let Some(instance) = self.instances.remove(&error.id()) else { return };
                let Some(job) = self.running.get(&instance) else { return };
                let status = job.status.borrow().clone();
                self.shared.journal.record(Fact::Finished {
                    instance: instance.clone(),
                    trigger: status.trigger(),
                    cluster: status.cluster,
                    outcome: JobOutcome::Panicked,
                    reason: format!("a bug: {error}; its messages come back"),
                    took: self.shared.clock.now().since(status.since),
                    left_stage: None,
                    time_left: None,
                });
                (instance, Vec::new())
            }
        };
        self.running.remove(&instance);
        let late: Vec<Arrival> = self.late.extract_if(.., |late| late.notice.instance == instance).collect();
        for arrival in left_over.into_iter().chain(late) {
            self.on_arrival(arrival, stop);
        }
    }
}
