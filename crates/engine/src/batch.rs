//! Calls of many jobs, made together: one call for each account and Region, as many items as the API
//! takes. Reads in flight are shared, and answers live for a short while, so that a hundred jobs behind
//! one target group cost one DescribeTargetHealth. Reads that fail rest, and no service gets more at once than it takes.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{AccountRegion, Timestamp};
use tokio::sync::{mpsc, oneshot};

use crate::buckets::{Bucket, Rate};
use crate::clock::Clock;
use crate::ports::Fault;
use crate::retry::GrowingPauses;
use crate::tasks::Tasks;

/// How long the first request waits for company. An idle notice pays it once; a storm fills the batch.
const WINDOW: Duration = Duration::from_millis(10);
/// For so long an old answer says that a key was read lately.
const LATELY: Duration = Duration::from_secs(60);
/// The longest rest of reads that fail. A job reads once more ten seconds before a deadline (core's `Case::read_by`), which
/// is over by then.
const LONGEST_REST: Duration = Duration::from_secs(8);

/// Calls of a kind in flight, for an account and Region. Auto Scaling and ELB answer in 50 to 100 ms: 500 heartbeats are
/// out in two seconds, and a service that hangs holds up twenty and not five hundred.
const IN_FLIGHT: usize = 20;

pub(crate) type Answers<T> = Vec<Result<T, Fault>>;

/// On which terms a lane makes its calls.
#[derive(Clone, Debug)]
pub(crate) struct Terms {
    /// What it is about, so that lanes that failed together do not come back together.
    pub(crate) name: &'static str,
    /// So long an answer serves the next request too. Zero: never, and two requests are two calls. These are writes, which
    /// are repeated by core's brakes.
    pub(crate) life: Duration,
    /// The distance from the call before, for what was read lately.
    pub(crate) refresh: Duration,
    /// What the service takes of an account and Region.
    pub(crate) rate: Option<Rate>,
}

impl Terms {
    pub(crate) const fn of_reads(name: &'static str, life: Duration) -> Self {
        Self { name, life, refresh: Duration::ZERO, rate: None }
    }

    pub(crate) const fn of_writes(name: &'static str) -> Self {
        Self::of_reads(name, Duration::ZERO)
    }

    pub(crate) const fn within(self, rate: Rate) -> Self {
        Self { rate: Some(rate), ..self }
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
    /// `part`: keys of one part go together, and so many of them at most.
    pub(crate) fn start<P: Ord + Send + 'static>(
        tasks: &mut Tasks,
        clock: &Clock,
        terms: Terms,
        part: impl Fn(&K) -> (P, usize) + Send + 'static,
        call: impl Fn(AccountRegion, Vec<K>) -> BoxFuture<'static, Answers<V>> + Send + 'static,
    ) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let lane = Lane {
            clock: clock.clone(),
            terms,
            part,
            call,
            pending: BTreeMap::new(),
            close_at: clock.now(),
            called_at: Timestamp::from_millis(0),
            asked: BTreeMap::new(),
            answers: BTreeMap::new(),
            paces: BTreeMap::new(),
        };
        tasks.spawn("calls", lane.run(inbox));
        Self { requests }
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

/// Who waits, and for an answer that was asked for at that time or later.
type Replies<V> = Vec<(Timestamp, Reply<V>)>;
type Reply<V> = oneshot::Sender<Result<Dated<V>, Fault>>;
type Keyed<K, T> = BTreeMap<(AccountRegion, K), T>;

struct Lane<K, V, C, D> {
    clock: Clock,
    terms: Terms,
    part: D,
    call: C,
    /// Waiting for the window to close, for a rest to be over or for a place in flight, and since when.
    pending: Keyed<K, (Timestamp, Replies<V>)>,
    /// When to call for what is pending.
    close_at: Timestamp,
    /// The newest call.
    called_at: Timestamp,
    /// In flight, and when the newest call was made.
    asked: Keyed<K, (Timestamp, Replies<V>)>,
    /// Answers of late, and when they were asked for.
    answers: Keyed<K, (Timestamp, V)>,
    paces: BTreeMap<AccountRegion, Pace>,
}

/// How an account and Region takes the calls.
struct Pace {
    in_flight: usize,
    pauses: GrowingPauses,
    rests_until: Timestamp,
    bucket: Bucket,
}

/// What was asked, when, and the answers.
type Returned<K, V> = (AccountRegion, Vec<K>, Timestamp, Answers<V>);

impl<K, V, C, D, P> Lane<K, V, C, D>
where
    K: Clone + Ord + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
    P: Ord,
    C: Fn(AccountRegion, Vec<K>) -> BoxFuture<'static, Answers<V>> + Send + 'static,
    D: Fn(&K) -> (P, usize) + Send + 'static,
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
        let is_read = self.terms.life > Duration::ZERO;
        if let Some((asked_at, replies)) = self.asked.get_mut(&key)
            && is_read
            && *asked_at >= since
        {
            replies.push((since, reply));
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
        self.pending.entry(key).or_insert_with(|| (now, Vec::new())).1.push((since, reply));
    }

    /// Calls for what is pending, whoever waits longest first, as far as its account and Region takes it.
    fn flush(&mut self, in_flight: &mut FuturesUnordered<BoxFuture<'static, Returned<K, V>>>) {
        let now = self.clock.now();
        self.called_at = now;
        // An answer makes room.
        self.close_at = now + LONGEST_REST;
        for (place, keys) in self.together() {
            if let Err(then) = self.may_call(&place, now) {
                self.close_at = self.close_at.min(then);
                continue;
            }
            for key in &keys {
                let key = (place.clone(), key.clone());
                let waiting = self.pending.remove(&key).map(|(_, replies)| replies).unwrap_or_default();
                let (asked_at, replies) = self.asked.entry(key).or_insert_with(|| (now, Vec::new()));
                *asked_at = now;
                replies.extend(waiting);
            }
            let call = (self.call)(place.clone(), keys.clone());
            in_flight.push(Box::pin(async move { (place, keys, now, call.await) }));
        }
    }

    /// The calls that would be made for all that is pending.
    fn together(&self) -> Vec<(AccountRegion, Vec<K>)> {
        let mut parts: BTreeMap<(&AccountRegion, P), (Timestamp, usize, Vec<K>)> = BTreeMap::new();
        for ((place, key), (since, _)) in &self.pending {
            let (part, most) = (self.part)(key);
            let (oldest, _, keys) = parts.entry((place, part)).or_insert_with(|| (*since, most, Vec::new()));
            *oldest = (*since).min(*oldest);
            keys.push(key.clone());
        }
        let mut parts: Vec<_> = parts.into_iter().map(|((place, _), part)| (place.clone(), part)).collect();
        parts.sort_by_key(|(_, (oldest, _, _))| *oldest);
        let chunks = parts.into_iter().flat_map(|(place, (_, most, keys))| {
            let chunks: Vec<Vec<K>> = keys.chunks(most).map(<[K]>::to_vec).collect();
            chunks.into_iter().map(move |keys| (place.clone(), keys))
        });
        chunks.collect()
    }

    /// Takes a place in flight, or says when to ask again.
    fn may_call(&mut self, place: &AccountRegion, now: Timestamp) -> Result<(), Timestamp> {
        let name = self.terms.name;
        let pace = self.paces.entry(place.clone()).or_insert_with(|| Pace {
            in_flight: 0,
            pauses: GrowingPauses::new(&format!("{name} {place:?}")),
            rests_until: now,
            bucket: Bucket::default(),
        });
        if pace.rests_until > now {
            return Err(pace.rests_until);
        }
        if pace.in_flight >= IN_FLIGHT {
            return Err(now + LONGEST_REST);
        }
        if let Some(rate) = self.terms.rate {
            rate.take(&mut pace.bucket, now)?;
        }
        pace.in_flight += 1;
        Ok(())
    }

    fn on_answer(&mut self, (account_region, keys, asked_at, answers): Returned<K, V>) {
        let now = self.clock.now();
        let is_read = self.terms.life > Duration::ZERO;
        if let Some(pace) = self.paces.get_mut(&account_region) {
            let was_full = pace.in_flight >= IN_FLIGHT;
            pace.in_flight -= 1;
            if is_read && answers.iter().all(Result::is_err) {
                pace.rests_until = now + pace.pauses.next().min(LONGEST_REST);
            } else {
                pace.pauses.reset();
                pace.rests_until = now;
            }
            if was_full {
                self.close_at = now;
            }
        }
        let kept = self.terms.life.max(LATELY);
        self.answers.retain(|_, (asked_at, _)| now.since(*asked_at) < kept);
        for (key, answer) in keys.into_iter().zip(answers) {
            let key = (account_region.clone(), key);
            for reply in self.waiting_for(&key, asked_at) {
                let dated = answer.clone().map(|value| Dated { read_at: asked_at, value });
                reply.send(dated).unwrap_or_default();
            }
            // A call that was made later may have been faster.
            let is_newest = self.answers.get(&key).is_none_or(|(newest, _)| *newest <= asked_at);
            if let (Ok(value), true) = (answer, is_read && is_newest) {
                self.answers.insert(key, (asked_at, value));
            }
        }
    }

    /// Whoever a call does that was made at this time. Those that ask about an event after it wait for the next one: the
    /// answer may have taken longer than the event.
    fn waiting_for(&mut self, key: &(AccountRegion, K), asked_at: Timestamp) -> Vec<Reply<V>> {
        let Some((newest, replies)) = self.asked.remove(key) else { return Vec::new() };
        let (does, later): (Replies<V>, Replies<V>) =
            replies.into_iter().partition(|(since, _)| *since <= asked_at);
        if newest > asked_at {
            self.asked.insert(key.clone(), (newest, later));
        }
        does.into_iter().map(|(_, reply)| reply).collect()
    }
}

#[cfg(test)]
mod tests;
