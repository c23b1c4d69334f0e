//! Calls of many jobs, made together: one call for each account and Region, as many items as the API
//! takes. Reads in flight are shared, and answers live for a short while, so that a hundred jobs behind
//! one target group cost one DescribeTargetHealth.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{
    AccountRegion, Group, GroupName, InstanceId, Membership, Outcome, TargetGroupArn, Timestamp,
};
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::ports::{Fault, GroupCall, Sessions, TargetCall, TargetGroupSettings, TargetState};
use crate::retry::timeout;
use crate::tasks::Tasks;

/// How long the first request waits for company. An idle notice pays it once; a storm fills the batch.
const WINDOW: Duration = Duration::from_millis(10);
/// What was read lately and is only read again keeps this distance from the call before. The jobs of a storm
/// ask for it at any moment: five hundred that ask every five seconds are fifty in half a second, which is one
/// call. A job that is alone waits for nobody.
const REFRESH: Duration = Duration::from_millis(500);
/// However seldom the operator wants to look again, what is acted upon is not older.
const LONGEST_LIFE: Duration = Duration::from_secs(5);
/// For so long an old answer says that a key was read lately.
const LATELY: Duration = Duration::from_secs(60);

/// The AWS calls of all jobs.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) memberships: Batch<InstanceId, Option<Membership>>,
    pub(crate) groups: Batch<GroupName, Option<Arc<Group>>>,
    pub(crate) settings: Batch<TargetGroupArn, Option<TargetGroupSettings>>,
    pub(crate) health: Batch<TargetGroupArn, Option<Arc<Vec<TargetState>>>>,
    pub(crate) targets: Batch<TargetCall, Outcome>,
    pub(crate) group_calls: Batch<GroupCall, Outcome>,
}

impl Calls {
    /// Starts the lanes. `recheck` is how often a job reads again what no watch tells.
    pub(crate) fn start(
        tasks: &mut Tasks,
        sessions: &Arc<dyn Sessions>,
        clock: &Clock,
        recheck: Duration,
    ) -> Self {
        let lane = || Arc::clone(sessions);
        let (memberships, groups, settings, health) = (lane(), lane(), lane(), lane());
        let (targets, group_calls) = (lane(), lane());
        Self {
            // Every change of a pod wakes its job, which looks at everything: for that an answer lives for
            // half of the time after which the job would ask anyway. What was read before the newest event
            // about an instance never counts, so that a hook's state is fresh before anything follows from
            // it, and where it has changed before the hook is answered, AWS itself says so.
            memberships: Batch::start(
                tasks,
                clock,
                Terms { most: 50, life: (recheck / 2).min(LONGEST_LIFE), refresh: REFRESH },
                move |account_region, ids| {
                    Box::pin(read_memberships(Arc::clone(&memberships), account_region, ids))
                },
            ),
            // Hooks and attached target groups change by deployments.
            groups: Batch::one_by_one(tasks, clock, Duration::from_secs(60), move |account_region, name| {
                let groups = Arc::clone(&groups);
                Box::pin(async move {
                    let read = async { groups.groups(&account_region)?.group(&name).await };
                    timeout("describing the Auto Scaling group", read).await.map(|found| found.map(Arc::new))
                })
            }),
            settings: Batch::one_by_one(
                tasks,
                clock,
                Duration::from_secs(300),
                move |account_region, arn| {
                    let settings = Arc::clone(&settings);
                    Box::pin(async move {
                        let read = async { settings.targets(&account_region)?.settings(&arn).await };
                        timeout("describing the target group", read).await
                    })
                },
            ),
            health: Batch::one_by_one(
                tasks,
                clock,
                (recheck / 4).min(LONGEST_LIFE / 2),
                move |account_region, arn| {
                    let health = Arc::clone(&health);
                    Box::pin(async move {
                        let read = async { health.targets(&account_region)?.health(&arn).await };
                        timeout("describing target health", read).await.map(|found| found.map(Arc::new))
                    })
                },
            ),
            // The AWS Load Balancer Controller deregisters 200 at a time.
            targets: Batch::start(tasks, clock, Terms::of_writes(200), move |account_region, calls| {
                Box::pin(change_targets(Arc::clone(&targets), account_region, calls))
            }),
            group_calls: Batch::start(tasks, clock, Terms::of_writes(20), move |account_region, calls| {
                Box::pin(change_groups(Arc::clone(&group_calls), account_region, calls))
            }),
        }
    }
}

type Answers<T> = Vec<Result<T, Fault>>;

async fn read_memberships(
    sessions: Arc<dyn Sessions>,
    account_region: AccountRegion,
    ids: Vec<InstanceId>,
) -> Answers<Option<Membership>> {
    let read = async { sessions.groups(&account_region)?.instances(&ids).await };
    match timeout("describing Auto Scaling instances", read).await {
        Ok(mut found) => ids.iter().map(|id| Ok(found.remove(id))).collect(),
        Err(fault) => same(&fault, ids.len()),
    }
}

/// One call for each target group and direction.
async fn change_targets(
    sessions: Arc<dyn Sessions>,
    account_region: AccountRegion,
    calls: Vec<TargetCall>,
) -> Answers<Outcome> {
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
            let (sessions, account_region) = (&sessions, &account_region);
            async move {
                let change = async {
                    let targets = sessions.targets(account_region)?;
                    Ok(targets.perform(&these).await)
                };
                let count = indices.len();
                let answers = timeout("changing targets", change).await;
                (indices, answers.unwrap_or_else(|fault| same(&fault, count)))
            }
        })
        .collect();
    in_order(calls.len(), requests).await
}

/// Detaches of one group go together; every other call stands alone.
async fn change_groups(
    sessions: Arc<dyn Sessions>,
    account_region: AccountRegion,
    calls: Vec<GroupCall>,
) -> Answers<Outcome> {
    let mut together: BTreeMap<(Option<GroupName>, usize), Vec<usize>> = BTreeMap::new();
    for (index, call) in calls.iter().enumerate() {
        let place = match call {
            GroupCall::Detach(_, group) => (Some(group.clone()), 0),
            GroupCall::Heartbeat(..) | GroupCall::CompleteHook(..) | GroupCall::TerminateThroughGroup(..) => {
                (None, index)
            }
        };
        together.entry(place).or_default().push(index);
    }
    let requests: FuturesUnordered<_> = together
        .into_values()
        .map(|indices| {
            let these: Vec<GroupCall> = indices.iter().map(|index| calls[*index].clone()).collect();
            let (sessions, account_region) = (&sessions, &account_region);
            async move {
                let change = async {
                    let groups = sessions.groups(account_region)?;
                    Ok(groups.perform(&these).await)
                };
                let count = indices.len();
                let answers = timeout("calling Auto Scaling", change).await;
                (indices, answers.unwrap_or_else(|fault| same(&fault, count)))
            }
        })
        .collect();
    in_order(calls.len(), requests).await
}

async fn in_order<F>(count: usize, mut requests: FuturesUnordered<F>) -> Answers<Outcome>
where
    F: Future<Output = (Vec<usize>, Answers<Outcome>)>,
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

/// On which terms a lane makes its calls.
#[derive(Clone, Copy)]
struct Terms {
    /// So many keys in a call.
    most: usize,
    /// So long an answer serves the next request too. Zero: never, and two requests are two calls.
    life: Duration,
    /// The distance from the call before, for what was read lately.
    refresh: Duration,
}

impl Terms {
    const fn of_writes(most: usize) -> Self {
        Self { most, life: Duration::ZERO, refresh: Duration::ZERO }
    }
}

/// One lane: keys in, answers out, many at a time.
pub(crate) struct Batch<K, V> {
    requests: mpsc::UnboundedSender<Request<K, V>>,
}

struct Request<K, V> {
    key: (AccountRegion, K),
    /// An answer that was read before does not do.
    since: Timestamp,
    reply: oneshot::Sender<Result<Dated<V>, Fault>>,
}

/// An answer, and when its call was made.
#[derive(Clone, Debug)]
pub(crate) struct Dated<V> {
    pub(crate) read_at: Timestamp,
    pub(crate) value: V,
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
    fn start(
        tasks: &mut Tasks,
        clock: &Clock,
        terms: Terms,
        call: impl Fn(AccountRegion, Vec<K>) -> BoxFuture<'static, Answers<V>> + Send + 'static,
    ) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let lane = Lane {
            clock: clock.clone(),
            terms,
            call,
            pending: BTreeMap::new(),
            close_at: clock.now(),
            called_at: Timestamp::from_millis(0),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
        };
        tasks.spawn("calls", lane.run(inbox));
        Self { requests }
    }

    /// A lane of reads that take one key each, and whose answers live for so long.
    fn one_by_one(
        tasks: &mut Tasks,
        clock: &Clock,
        life: Duration,
        read: impl Fn(AccountRegion, K) -> BoxFuture<'static, Result<V, Fault>> + Send + 'static,
    ) -> Self {
        Self::start(
            tasks,
            clock,
            Terms { most: 1, life, refresh: Duration::ZERO },
            move |account_region, keys| {
                Box::pin(join_all(keys.into_iter().map(|key| read(account_region.clone(), key))))
            },
        )
    }

    /// Asks for one key, and waits for the answer.
    pub(crate) async fn ask(&self, account_region: &AccountRegion, key: K) -> Result<V, Fault> {
        self.ask_since(account_region, key, Timestamp::from_millis(0)).await.map(|answer| answer.value)
    }

    /// Asks for one key, and waits for an answer that was read at that time or later.
    pub(crate) async fn ask_since(
        &self,
        account_region: &AccountRegion,
        key: K,
        since: Timestamp,
    ) -> Result<Dated<V>, Fault> {
        let (reply, answer) = oneshot::channel();
        let request = Request { key: (account_region.clone(), key), since, reply };
        let stopped = || Fault::Retry("the worker is stopping".to_owned());
        self.requests.send(request).map_err(|_| stopped())?;
        answer.await.unwrap_or_else(|_| Err(stopped()))
    }
}

type Replies<V> = Vec<oneshot::Sender<Result<Dated<V>, Fault>>>;

struct Lane<K, V, C> {
    clock: Clock,
    terms: Terms,
    call: C,
    /// Waiting for the window to close.
    pending: BTreeMap<(AccountRegion, K), Replies<V>>,
    /// When it does.
    close_at: Timestamp,
    /// The newest call.
    called_at: Timestamp,
    /// In flight.
    asked: BTreeMap<(AccountRegion, K), Replies<V>>,
    /// Answers of late, and when they were asked for.
    answers: BTreeMap<(AccountRegion, K), (Timestamp, V)>,
}

/// What was asked, when, and the answers.
type Returned<K, V> = (AccountRegion, Vec<K>, Timestamp, Answers<V>);

impl<K, V, C> Lane<K, V, C>
where
    K: Clone + Ord + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    C: Fn(AccountRegion, Vec<K>) -> BoxFuture<'static, Answers<V>> + Send + 'static,
{
    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request<K, V>>) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Returned<K, V>>> = FuturesUnordered::new();
        loop {
            tokio::select! {
                biased;
                // Cancel-safe: an answer stays in the set until it is taken.
                Some(returned) = in_flight.next(), if !in_flight.is_empty() => self.on_answer(returned),
                request = inbox.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return,
                },
                () = self.clock.sleep_until(self.close_at), if !self.pending.is_empty() => {
                    self.flush(&mut in_flight);
                }
            }
        }
    }

    fn on_request(&mut self, Request { key, since, reply }: Request<K, V>) {
        let now = self.clock.now();
        // An event may come from a clock that is ahead of ours.
        let since = since.min(now);
        // The clock may have been moved back since: what was asked in the future is of nobody knows when.
        let known = self.answers.get(&key).filter(|(asked_at, _)| *asked_at <= now);
        if let Some((asked_at, value)) = known
            && now.since(*asked_at) < self.terms.life
            && *asked_at >= since
        {
            // Nobody waits any more when sending fails: the job was stopped.
            reply.send(Ok(Dated { read_at: *asked_at, value: value.clone() })).unwrap_or_default();
            return;
        }
        // Whenever it was asked: a call is answered sooner than an event reaches us.
        let shared = self.terms.life > Duration::ZERO;
        if let Some(replies) = self.asked.get_mut(&key).filter(|_| shared) {
            replies.push(reply);
            return;
        }
        // An event that is newer than the answer is no mere refresh.
        let close_at = match known {
            Some((asked_at, _)) if *asked_at >= since => {
                (self.called_at.min(now) + self.terms.refresh).max(now + WINDOW)
            }
            Some(_) | None => now + WINDOW,
        };
        self.close_at = if self.pending.is_empty() { close_at } else { self.close_at.min(close_at) };
        self.pending.entry(key).or_default().push(reply);
    }

    fn flush(&mut self, in_flight: &mut FuturesUnordered<BoxFuture<'static, Returned<K, V>>>) {
        let now = self.clock.now();
        self.called_at = now;
        let mut by_account_region: BTreeMap<AccountRegion, Vec<K>> = BTreeMap::new();
        for ((account_region, key), replies) in std::mem::take(&mut self.pending) {
            by_account_region.entry(account_region.clone()).or_default().push(key.clone());
            self.asked.entry((account_region, key)).or_default().extend(replies);
        }
        for (account_region, keys) in by_account_region {
            for keys in keys.chunks(self.terms.most) {
                let (account_region, keys) = (account_region.clone(), keys.to_vec());
                let call = (self.call)(account_region.clone(), keys.clone());
                in_flight.push(Box::pin(async move { (account_region, keys, now, call.await) }));
            }
        }
    }

    fn on_answer(&mut self, (account_region, keys, asked_at, answers): Returned<K, V>) {
        let now = self.clock.now();
        let kept = self.terms.life.max(LATELY);
        self.answers.retain(|_, (asked_at, _)| now.since(*asked_at) < kept);
        for (key, answer) in keys.into_iter().zip(answers) {
            let key = (account_region.clone(), key);
            for reply in self.asked.remove(&key).unwrap_or_default() {
                let dated = answer.clone().map(|value| Dated { read_at: asked_at, value });
                reply.send(dated).unwrap_or_default();
            }
            if let (Ok(value), true) = (answer, self.terms.life > Duration::ZERO) {
                self.answers.insert(key, (asked_at, value));
            }
        }
    }
}

#[cfg(test)]
mod tests;
