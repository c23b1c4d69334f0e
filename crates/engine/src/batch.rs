//! Calls of many jobs, made together: one call for each account and Region, as many items as the API
//! takes. Reads in flight are shared, and answers live for a short while, so that a hundred jobs behind
//! one target group cost one DescribeTargetHealth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{Group, GroupName, Home, InstanceId, Membership, TargetGroupArn, Timestamp};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;

use crate::clock::Clock;
use crate::ports::{Fault, GroupCall, Sessions, Settled, TargetCall, TargetGroupSettings, TargetState};
use crate::retry::answer;

/// How long the first request waits for company. An idle notice pays it once; a storm fills the batch.
const WINDOW: Duration = Duration::from_millis(10);

/// The AWS calls of all jobs.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) memberships: Batch<InstanceId, Option<Membership>>,
    pub(crate) groups: Batch<GroupName, Option<Arc<Group>>>,
    pub(crate) settings: Batch<TargetGroupArn, Option<TargetGroupSettings>>,
    pub(crate) health: Batch<TargetGroupArn, Option<Arc<Vec<TargetState>>>>,
    pub(crate) targets: Batch<TargetCall, Settled>,
    pub(crate) group_calls: Batch<GroupCall, Settled>,
}

impl Calls {
    /// Starts the lanes. `recheck` is how often a job reads target health again: an answer lives for a
    /// quarter of it.
    pub(crate) fn start(
        tasks: &mut JoinSet<()>,
        sessions: &Arc<dyn Sessions>,
        clock: Clock,
        recheck: Duration,
    ) -> Self {
        let lane = |sessions: &Arc<dyn Sessions>| Arc::clone(sessions);
        let (memberships, groups, settings, health, targets, group_calls) =
            (lane(sessions), lane(sessions), lane(sessions), lane(sessions), lane(sessions), lane(sessions));
        let second = Duration::from_secs(1);
        Self {
            // A hook's state has to be fresh; a second old serves every job of the same storm.
            memberships: Batch::start(tasks, clock, 50, second, move |home, ids| {
                Box::pin(read_memberships(Arc::clone(&memberships), home, ids))
            }),
            // Hooks and attached target groups change by deployments.
            groups: Batch::start(tasks, clock, 1, Duration::from_secs(60), move |home, names| {
                Box::pin(read_group(Arc::clone(&groups), home, names))
            }),
            settings: Batch::start(tasks, clock, 1, Duration::from_secs(300), move |home, arns| {
                Box::pin(read_settings(Arc::clone(&settings), home, arns))
            }),
            health: Batch::start(tasks, clock, 1, recheck / 4, move |home, arns| {
                Box::pin(read_health(Arc::clone(&health), home, arns))
            }),
            // The AWS Load Balancer Controller deregisters 200 at a time.
            targets: Batch::start(tasks, clock, 200, Duration::ZERO, move |home, calls| {
                Box::pin(change_targets(Arc::clone(&targets), home, calls))
            }),
            group_calls: Batch::start(tasks, clock, 20, Duration::ZERO, move |home, calls| {
                Box::pin(change_groups(Arc::clone(&group_calls), home, calls))
            }),
        }
    }
}

type Answers<T> = Vec<Result<T, Fault>>;

async fn read_memberships(
    sessions: Arc<dyn Sessions>,
    home: Home,
    ids: Vec<InstanceId>,
) -> Answers<Option<Membership>> {
    let read = async { sessions.groups(&home)?.instances(&ids).await };
    match answer("describing Auto Scaling instances", read).await {
        Ok(mut found) => ids.iter().map(|id| Ok(found.remove(id))).collect(),
        Err(fault) => same(&fault, ids.len()),
    }
}

async fn read_group(
    sessions: Arc<dyn Sessions>,
    home: Home,
    names: Vec<GroupName>,
) -> Answers<Option<Arc<Group>>> {
    let mut answers = Vec::with_capacity(names.len());
    for name in &names {
        let read = async { sessions.groups(&home)?.group(name).await };
        answers
            .push(answer("describing the Auto Scaling group", read).await.map(|found| found.map(Arc::new)));
    }
    answers
}

async fn read_settings(
    sessions: Arc<dyn Sessions>,
    home: Home,
    arns: Vec<TargetGroupArn>,
) -> Answers<Option<TargetGroupSettings>> {
    let mut answers = Vec::with_capacity(arns.len());
    for arn in &arns {
        let read = async { sessions.targets(&home)?.settings(arn).await };
        answers.push(answer("describing the target group", read).await);
    }
    answers
}

async fn read_health(
    sessions: Arc<dyn Sessions>,
    home: Home,
    arns: Vec<TargetGroupArn>,
) -> Answers<Option<Arc<Vec<TargetState>>>> {
    let mut answers = Vec::with_capacity(arns.len());
    for arn in &arns {
        let read = async { sessions.targets(&home)?.health(arn).await };
        answers.push(answer("describing target health", read).await.map(|found| found.map(Arc::new)));
    }
    answers
}

/// One call for each target group and direction.
async fn change_targets(sessions: Arc<dyn Sessions>, home: Home, calls: Vec<TargetCall>) -> Answers<Settled> {
    let place = |call: &TargetCall| match call {
        TargetCall::Deregister(key) => (key.group.clone(), false),
        TargetCall::Register(key) => (key.group.clone(), true),
    };
    let mut together: BTreeMap<_, Vec<usize>> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        together.entry(place(call)).or_default().push(index);
    }
    let requests: FuturesUnordered<_> = together
        .into_values()
        .map(|indices| {
            let these: Vec<TargetCall> = indices.iter().map(|index| calls[*index].clone()).collect();
            let (sessions, home) = (&sessions, &home);
            async move {
                let change = async {
                    let targets = sessions.targets(home)?;
                    Ok(targets.perform(&these).await)
                };
                let count = indices.len();
                let answers = answer("changing targets", change).await;
                (indices, answers.unwrap_or_else(|fault| same(&fault, count)))
            }
        })
        .collect();
    in_order(calls.len(), requests).await
}

/// Detaches of one group go together; every other call stands alone.
async fn change_groups(sessions: Arc<dyn Sessions>, home: Home, calls: Vec<GroupCall>) -> Answers<Settled> {
    let mut together: BTreeMap<(Option<GroupName>, usize), Vec<usize>> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        let place = match call {
            GroupCall::Detach(_, group) => (Some(group.clone()), 0),
            GroupCall::Heartbeat(..) | GroupCall::Complete(..) | GroupCall::Terminate(..) => (None, index),
        };
        together.entry(place).or_default().push(index);
    }
    let requests: FuturesUnordered<_> = together
        .into_values()
        .map(|indices| {
            let these: Vec<GroupCall> = indices.iter().map(|index| calls[*index].clone()).collect();
            let (sessions, home) = (&sessions, &home);
            async move {
                let change = async {
                    let groups = sessions.groups(home)?;
                    Ok(groups.perform(&these).await)
                };
                let count = indices.len();
                let answers = answer("calling Auto Scaling", change).await;
                (indices, answers.unwrap_or_else(|fault| same(&fault, count)))
            }
        })
        .collect();
    in_order(calls.len(), requests).await
}

async fn in_order<F>(count: usize, mut requests: FuturesUnordered<F>) -> Answers<Settled>
where
    F: Future<Output = (Vec<usize>, Answers<Settled>)>,
{
    let mut answers = same(&Fault::Retry("the answer left this item out".to_owned()), count);
    while let Some((indices, these)) = requests.next().await {
        for (index, one) in indices.into_iter().zip(these) {
            answers[index] = one;
        }
    }
    answers
}

fn same<T>(fault: &Fault, count: usize) -> Answers<T> {
    (0..count).map(|_| Err(fault.clone())).collect()
}

/// One lane: keys in, answers out, many at a time.
pub(crate) struct Batch<K, V> {
    requests: mpsc::UnboundedSender<Request<K, V>>,
}

struct Request<K, V> {
    key: (Home, K),
    reply: oneshot::Sender<Result<V, Fault>>,
}

impl<K, V> Clone for Batch<K, V> {
    fn clone(&self) -> Self {
        Self { requests: self.requests.clone() }
    }
}

impl<K, V> Batch<K, V>
where
    K: Clone + Ord + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    /// Starts a lane. An answer younger than `max_age` serves the next request too.
    fn start(
        tasks: &mut JoinSet<()>,
        clock: Clock,
        most: usize,
        max_age: Duration,
        call: impl Fn(Home, Vec<K>) -> BoxFuture<'static, Answers<V>> + Send + 'static,
    ) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let lane = Lane {
            clock,
            most,
            max_age,
            call,
            pending: BTreeMap::new(),
            asked: BTreeMap::new(),
            fresh: BTreeMap::new(),
        };
        tasks.spawn(lane.run(inbox));
        Self { requests }
    }

    /// Asks for one key, and waits for the answer.
    pub(crate) async fn ask(&self, home: &Home, key: K) -> Result<V, Fault> {
        let (reply, answer) = oneshot::channel();
        let request = Request { key: (home.clone(), key), reply };
        let stopped = || Fault::Retry("the worker is stopping".to_owned());
        self.requests.send(request).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

type Replies<V> = Vec<oneshot::Sender<Result<V, Fault>>>;

struct Lane<K, V, C> {
    clock: Clock,
    most: usize,
    max_age: Duration,
    call: C,
    /// Waiting for the window to close.
    pending: BTreeMap<(Home, K), Replies<V>>,
    /// In flight.
    asked: BTreeMap<(Home, K), Replies<V>>,
    /// Answers of late.
    fresh: BTreeMap<(Home, K), (Timestamp, V)>,
}

type Returned<K, V> = (Home, Vec<K>, Answers<V>);

impl<K, V, C> Lane<K, V, C>
where
    K: Clone + Ord + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    C: Fn(Home, Vec<K>) -> BoxFuture<'static, Answers<V>> + Send + 'static,
{
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request<K, V>>) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Returned<K, V>>> = FuturesUnordered::new();
        let mut close_at = self.clock.now();
        loop {
            tokio::select! {
                biased;
                // Cancel-safe: an answer stays in the set until it is taken.
                Some(returned) = in_flight.next(), if !in_flight.is_empty() => self.on_answer(returned),
                request = inbox.recv() => match request {
                    Some(request) => {
                        if self.pending.is_empty() {
                            close_at = self.clock.now() + WINDOW;
                        }
                        self.on_request(request);
                    }
                    None => return,
                },
                () = self.clock.sleep_until(close_at), if !self.pending.is_empty() => {
                    self.flush(&mut in_flight);
                }
            }
        }
    }

    fn on_request(&mut self, Request { key, reply }: Request<K, V>) {
        let now = self.clock.now();
        match self.fresh.get(&key) {
            // Nobody waits any more when sending fails: the job was stopped.
            Some((read_at, value)) if now.since(*read_at) < self.max_age => {
                reply.send(Ok(value.clone())).unwrap_or_default();
            }
            _ => {
                let shared = self.max_age > Duration::ZERO;
                match self.asked.get_mut(&key).filter(|_| shared) {
                    Some(replies) => replies.push(reply),
                    None => self.pending.entry(key).or_default().push(reply),
                }
            }
        }
    }

    fn flush(&mut self, in_flight: &mut FuturesUnordered<BoxFuture<'static, Returned<K, V>>>) {
        let mut by_home: BTreeMap<Home, Vec<K>> = BTreeMap::new();
        for ((home, key), replies) in std::mem::take(&mut self.pending) {
            by_home.entry(home.clone()).or_default().push(key.clone());
            self.asked.entry((home, key)).or_default().extend(replies);
        }
        for (home, keys) in by_home {
            for keys in keys.chunks(self.most) {
                let (home, keys) = (home.clone(), keys.to_vec());
                let call = (self.call)(home.clone(), keys.clone());
                in_flight.push(Box::pin(async move { (home, keys, call.await) }));
            }
        }
    }

    fn on_answer(&mut self, (home, keys, answers): Returned<K, V>) {
        let now = self.clock.now();
        self.fresh.retain(|_, (read_at, _)| now.since(*read_at) < self.max_age);
        for (key, answer) in keys.into_iter().zip(answers) {
            let key = (home.clone(), key);
            for reply in self.asked.remove(&key).unwrap_or_default() {
                reply.send(answer.clone()).unwrap_or_default();
            }
            if let (Ok(value), true) = (answer, self.max_age > Duration::ZERO) {
                self.fresh.insert(key, (now, value));
            }
        }
    }
}
