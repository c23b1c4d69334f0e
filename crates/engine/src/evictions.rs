//! The evictions of one cluster, those of all jobs in one lane. An API server answers some tens at a time, and what refuses
//! one pod refuses those like it, whichever job asks (docs/decisions/018).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, select_all};
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{
    ActionResult, Cooldown, Failure, InstanceId, Key, Outcome, PodOrigin, PodRef, PodUid, Timestamp,
};
use tokio::sync::{mpsc, oneshot, watch};

use crate::clock::Clock;
use crate::ports::{Cluster, ClusterCall, Fault};
use crate::retry::{eviction_pause, timeout};
use crate::tasks::Tasks;

mod isolations;
#[cfg(test)]
mod tests;
mod turns;

pub(crate) use isolations::Isolations;
use turns::Turn;
pub(crate) use turns::Urgency;

/// Evictions in flight in one cluster. An eviction waits up to 100 ms inside the API server, so that one
/// after the other runs at 10 a second, 16 at 130, 64 at 200 and 256 at 290, without an earlier end; and
/// API priority and fairness gives a caller from outside about 49 seats.
const MOST: usize = 64;
/// So many are in flight when the API server does not answer: it is asked on, and not flooded.
const FEWEST: usize = 4;

/// Where jobs hand in what they want evicted, or deleted.
#[derive(Clone)]
pub(crate) struct Evictions {
    requests: mpsc::UnboundedSender<Request>,
    pub(crate) isolations: Isolations,
}

/// A pod that should go, and for whom.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    pub(crate) instance: InstanceId,
    pub(crate) pod: PodRef,
    pub(crate) origin: PodOrigin,
    pub(crate) call: Call,
    pub(crate) urgency: Urgency,
    /// When the job has to be over.
    pub(crate) deadline: Option<Timestamp>,
    /// What a budget that refuses it would see of it.
    pub(crate) labels_hash: u64,
    pub(crate) is_ready: bool,
}

/// How the pod is asked to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Call {
    Evict { grace: Option<Duration> },
    Delete { grace: Duration },
}

/// Who wants it: a pod may be on the list of two jobs while a node is claimed twice.
type Who = (InstanceId, PodUid);
type Answer = Result<Outcome, Fault>;

enum Request {
    Ask(Wish, oneshot::Sender<Answer>),
    Withdraw(Who),
    Hurry(InstanceId, bool, Option<Timestamp>),
}

impl Evictions {
    /// Starts the lane of a cluster.
    pub(crate) fn start(tasks: &mut Tasks, cluster: &Arc<dyn Cluster>, clock: &Clock) -> Self {
        let (requests, inbox) = mpsc::unbounded_channel();
        let isolations = Isolations::new(clock.clone());
        let lane = Lane::new(Arc::clone(cluster), clock.clone(), isolations.clone());
        tasks.spawn("evictions", lane.run(inbox));
        Self { requests, isolations }
    }

    /// Waits for the pod's turn, asks, and gives the answer. `None`: it was withdrawn before its turn.
    pub(crate) async fn ask(&self, wish: Wish) -> Option<Answer> {
        let (reply, answer) = oneshot::channel();
        if self.requests.send(Request::Ask(wish, reply)).is_err() {
            // Where the lane has ended, so does the worker. Nobody asks again and again until then.
            return Some(Err(Fault::Retry("the worker is stopping".to_owned())));
        }
        answer.await.ok()
    }

    /// The pods of an instance press more than before, or their job has another deadline: those that wait take other turns.
    pub(crate) fn hurry(&self, instance: InstanceId, presses: bool, deadline: Option<Timestamp>) {
        self.requests.send(Request::Hurry(instance, presses, deadline)).unwrap_or_default();
    }

    /// The job has something else in mind for the pod, or it is gone. What is in flight already is answered.
    pub(crate) fn withdraw(&self, who: Who) {
        self.requests.send(Request::Withdraw(who)).unwrap_or_default();
    }
}

/// A wish that waits.
struct Waiting {
    wish: Wish,
    reply: oneshot::Sender<Answer>,
    /// What has refused it, or those like it.
    behind: Option<Key>,
}

/// Where a wish is.
enum Place {
    /// It goes as soon as there is room.
    Next(Turn),
    /// Behind what refuses it.
    Held(Key, Turn),
    InFlight,
}

/// What refuses pods, and whom.
struct Refusal {
    rest: Cooldown,
    /// So many ask at once: one, twice as many after each that was let go.
    window: usize,
    asking: usize,
    waiting: BTreeMap<Turn, Waiting>,
    /// They take turns: a budget lets a pod go that is not ready when it keeps those that are (kubernetes#80389), and a webhook
    /// may judge each by itself.
    asked_at: BTreeMap<PodUid, Timestamp>,
}

/// Pods that a budget cannot tell apart: namespace, controller and labels. One that is not ready is asked on its own: a budget
/// may let it go whatever those that are ready wait for (karpenter#454).
type Alike = (String, PodOrigin, u64, Option<PodUid>);
type Returned = (Waiting, Answer);

struct Lane {
    cluster: Arc<dyn Cluster>,
    clock: Clock,
    isolations: Isolations,
    next: BTreeMap<Turn, Waiting>,
    places: BTreeMap<Who, Place>,
    refusals: BTreeMap<Key, Refusal>,
    /// What refused the pods of this origin lately: the next of them need not find out.
    of_origin: BTreeMap<Alike, Key>,
    /// Pods of these namespaces are refused: one that becomes ready may change it.
    readiness: BTreeMap<String, watch::Receiver<u64>>,
    most: usize,
    count: u64,
}

impl Lane {
    fn new(cluster: Arc<dyn Cluster>, clock: Clock, isolations: Isolations) -> Self {
        Self {
            cluster,
            clock,
            isolations,
            next: BTreeMap::new(),
            places: BTreeMap::new(),
            refusals: BTreeMap::new(),
            of_origin: BTreeMap::new(),
            readiness: BTreeMap::new(),
            most: MOST,
            count: 0,
        }
    }

    async fn run(mut self, mut inbox: mpsc::UnboundedReceiver<Request>) {
        let mut in_flight: FuturesUnordered<BoxFuture<'static, Returned>> = FuturesUnordered::new();
        loop {
            while let Ok(request) = inbox.try_recv() {
                self.on_request(request);
            }
            let now = self.clock.now();
            self.let_ask(now);
            let held_until = self.isolations.until(now);
            while let Some(next) = self.next.first_entry() {
                // Evictions that hang do not keep what comes at a deadline.
                let most = if next.key().is_forced() { self.most + MOST } else { self.most };
                if held_until.is_some() || in_flight.len() >= most {
                    break;
                }
                let waiting = next.remove();
                in_flight.push(self.call(waiting));
            }
            let wake_at = self.wakes_at().into_iter().chain(held_until).min();
            let mut isolations = self.isolations.changes();
            let clock = self.clock.clone();
            tokio::select! {
                biased;
                Some((waiting, answer)) = in_flight.next(), if !in_flight.is_empty() => self.on_answer(waiting, answer),
                request = inbox.recv() => match request {
                    Some(request) => self.on_request(request),
                    None => return,
                },
                namespace = any_ready(&self.readiness) => self.on_ready(&namespace),
                _ = isolations.changed(), if held_until.is_some() => {}
                () = clock.sleep_until(wake_at.unwrap_or(now)), if wake_at.is_some() => {}
            }
        }
    }

    fn call(&mut self, waiting: Waiting) -> BoxFuture<'static, Returned> {
        self.places.insert(who(&waiting.wish), Place::InFlight);
        let (cluster, pod) = (Arc::clone(&self.cluster), waiting.wish.pod.clone());
        let call = match waiting.wish.call {
            Call::Evict { grace } => ClusterCall::Evict { pod, grace },
            Call::Delete { grace } => ClusterCall::Delete { pod, grace },
        };
        Box::pin(async move {
            let answer = timeout("calling the cluster", cluster.perform(&call)).await;
            (waiting, answer)
        })
    }

    fn on_request(&mut self, request: Request) {
        match request {
            Request::Ask(wish, reply) => self.put(Waiting { wish, reply, behind: None }),
            Request::Withdraw(who) => self.withdraw(&who),
            Request::Hurry(instance, presses, deadline) => self.hurry(&instance, presses, deadline),
        }
    }

    fn hurry(&mut self, instance: &InstanceId, presses: bool, deadline: Option<Timestamp>) {
        let is_own = |(owner, _): &&Who| owner == instance;
        let own: Vec<Who> = self.places.keys().filter(is_own).cloned().collect();
        for who in own {
            let Some((mut waiting, was_held)) = self.take_out(&who) else { continue };
            waiting.wish.deadline = deadline;
            if waiting.wish.urgency != Urgency::Forced {
                waiting.wish.urgency = Urgency::of(presses);
            }
            // One that asks for all counts among those that ask, and one that is held is put behind what refuses it by now.
            if was_held { self.put(Waiting { behind: None, ..waiting }) } else { self.line_up(waiting) }
        }
    }

    /// Takes a wish out of the line, and says whether something held it. What is in flight stays.
    fn take_out(&mut self, who: &Who) -> Option<(Waiting, bool)> {
        let taken = match self.places.get(who)? {
            Place::Next(turn) => (self.next.remove(turn)?, false),
            Place::Held(key, turn) => (self.refusals.get_mut(key)?.waiting.remove(turn)?, true),
            Place::InFlight => return None,
        };
        self.places.remove(who);
        Some(taken)
    }

    /// Where the wish waits: behind what has refused it, or pods like it; or for room alone.
    fn put(&mut self, mut waiting: Waiting) {
        let wish = &waiting.wish;
        let is_asked_once = wish.call != Call::Evict { grace: None };
        let of_origin = self.of_origin.get(&alike(wish));
        let own = Key::Pod(wish.pod.uid.clone());
        let key = if self.refusals.contains_key(&own) { Some(own) } else { of_origin.cloned() };
        let refusal =
            key.filter(|_| !is_asked_once).and_then(|key| Some((self.refusals.get_mut(&key)?, key)));
        self.count += 1;
        match refusal {
            Some((refusal, key)) => {
                let asked_at = refusal.asked_at.get(&wish.pod.uid).copied().unwrap_or_default();
                let turn = Turn::behind(&key, wish.urgency, asked_at, wish.deadline, self.count);
                self.places.insert(who(wish), Place::Held(key.clone(), turn));
                waiting.behind = Some(key);
                refusal.waiting.insert(turn, waiting);
            }
            None => self.line_up(waiting),
        }
    }

    fn line_up(&mut self, waiting: Waiting) {
        let wish = &waiting.wish;
        let urgency = if waiting.behind.is_some() { wish.urgency.once_refused() } else { wish.urgency };
        self.count += 1;
        let turn = Turn::new(urgency, wish.deadline, self.count);
        self.places.insert(who(wish), Place::Next(turn));
        self.next.insert(turn, waiting);
    }

    fn withdraw(&mut self, who: &Who) {
        let Some((Waiting { behind, .. }, false)) = self.take_out(who) else { return };
        if let Some(refusal) = behind.and_then(|key| self.refusals.get_mut(&key)) {
            refusal.asking -= 1;
        }
    }

    /// Behind what has rested, one asks for all; and what nobody is refused by any more is forgotten.
    fn let_ask(&mut self, now: Timestamp) {
        let mut asking = Vec::new();
        for refusal in self.refusals.values_mut().filter(|refusal| refusal.rest.until <= now) {
            while refusal.asking < refusal.window {
                let Some((_, waiting)) = refusal.waiting.pop_first() else { break };
                refusal.asking += 1;
                asking.push(waiting);
            }
        }
        asking.into_iter().for_each(|waiting| self.line_up(waiting));
        let is_over = |refusal: &Refusal| {
            refusal.rest.until <= now && refusal.asking == 0 && refusal.waiting.is_empty()
        };
        self.refusals.retain(|_, refusal| !is_over(refusal));
        let refusals = &self.refusals;
        self.of_origin.retain(|_, key| refusals.contains_key(key));
        let refuses =
            |namespace: &String| refusals.keys().any(|key| refusing_namespace(key) == Some(namespace));
        self.readiness.retain(|namespace, _| refuses(namespace));
    }

    fn on_answer(&mut self, waiting: Waiting, answer: Answer) {
        let now = self.clock.now();
        let Waiting { wish, reply, behind } = waiting;
        self.places.remove(&who(&wish));
        // A pod that fails each time, such as one with two budgets (karpenter#2361), says nothing of the API server.
        let fails_again = matches!(behind, Some(Key::Pod(_)));
        self.most = match &answer {
            Err(Fault::Retry(_)) if fails_again => self.most,
            Err(Fault::Retry(_)) => (self.most / 2).max(FEWEST),
            _ => (self.most + 1).min(MOST),
        };
        let outcome: ActionResult = answer.clone().map_err(|fault| fault.failure());
        let refusal = behind.and_then(|key| self.refusals.get_mut(&key));
        let is_let_go = matches!(outcome, Ok(Outcome::Done | Outcome::Gone));
        if let Some(refusal) = refusal {
            refusal.asking -= 1;
            if is_let_go {
                let window = (refusal.window * 2).min(MOST);
                (refusal.window, refusal.rest.until, refusal.rest.times) = (window, now, 0);
            }
        }
        if !is_let_go && matches!(wish.call, Call::Evict { .. }) {
            self.refuse(&wish, refused_by(&wish.pod, &wish.origin, &outcome), now);
        }
        // The job may be gone.
        reply.send(answer).unwrap_or_default();
    }

    fn refuse(&mut self, wish: &Wish, key: Key, now: Timestamp) {
        let refusal = self.refusals.entry(key.clone()).or_default();
        // What was refused in the same moment by the same budget is one refusal.
        if now >= refusal.rest.until {
            refusal.rest.times += 1;
            (refusal.rest.since, refusal.rest.until) = (now, now + eviction_pause(refusal.rest.times));
        }
        refusal.window = 1;
        refusal.asked_at.insert(wish.pod.uid.clone(), now);
        let Some(namespace) = refusing_namespace(&key) else { return };
        if !self.readiness.contains_key(namespace) {
            let mut readiness = self.cluster.readiness(namespace);
            readiness.mark_unchanged();
            self.readiness.insert(namespace.to_owned(), readiness);
        }
        let own = alike(wish);
        if self.of_origin.insert(own.clone(), key.clone()).as_ref() == Some(&key) {
            return;
        }
        // The others that are like it wait with it.
        let is_alike =
            |Waiting { wish, .. }: &Waiting| wish.call == Call::Evict { grace: None } && alike(wish) == own;
        let alike: Vec<Turn> = self
            .next
            .iter()
            .filter(|(_, waiting)| waiting.behind.is_none() && is_alike(waiting))
            .map(|(turn, _)| *turn)
            .collect();
        for turn in alike {
            if let Some(waiting) = self.next.remove(&turn) {
                self.put(waiting);
            }
        }
    }

    /// A pod has become ready: a budget may have opened. It is asked again after a quarter of its rest, because the pod may be
    /// of a workload that crashes and comes back all day; and not in the same moment: the disruption controller counts first.
    fn on_ready(&mut self, namespace: &str) {
        if let Some(readiness) = self.readiness.get_mut(namespace) {
            readiness.mark_unchanged();
        }
        let now = self.clock.now();
        let here = self.refusals.iter_mut().filter(|(key, _)| refusing_namespace(key) == Some(namespace));
        for (_, refusal) in here {
            let quarter = refusal.rest.until.since(refusal.rest.since) / 4;
            let earliest = refusal.rest.since + quarter.max(eviction_pause(1));
            refusal.rest.until = refusal.rest.until.min(earliest.max(now + COUNTED));
        }
    }

    fn wakes_at(&self) -> Option<Timestamp> {
        let waits = |refusal: &&Refusal| !refusal.waiting.is_empty() && refusal.asking < refusal.window;
        self.refusals.values().filter(waits).map(|refusal| refusal.rest.until).min()
    }
}

/// The disruption controller counts within some 100 ms on a quiet cluster.
const COUNTED: Duration = Duration::from_secs(1);

impl Default for Refusal {
    fn default() -> Self {
        Self {
            rest: Cooldown::default(),
            window: 1,
            asking: 0,
            waiting: BTreeMap::new(),
            asked_at: BTreeMap::new(),
        }
    }
}

/// What refuses this eviction will refuse the next one like it. A pod's UID is new each time, so that only a call that
/// failed goes by it: it says nothing about other pods.
pub(crate) fn refused_by(pod: &PodRef, origin: &PodOrigin, outcome: &ActionResult) -> Key {
    let namespace = pod.namespace.clone();
    match outcome {
        Ok(Outcome::Blocked { budget: Some(budget) }) => Key::Budget(namespace, budget.clone()),
        Err(Failure::Retry) => Key::Pod(pod.uid.clone()),
        Ok(_) | Err(Failure::Denied | Failure::Invalid) => Key::Origin(namespace, origin.clone()),
    }
}

/// Where evictions are refused by this: a pod there that becomes ready may change it.
fn refusing_namespace(key: &Key) -> Option<&str> {
    let (Key::Budget(namespace, _) | Key::Origin(namespace, _)) = key else { return None };
    Some(namespace)
}

fn alike(wish: &Wish) -> Alike {
    let alone = (!wish.is_ready).then(|| wish.pod.uid.clone());
    (wish.pod.namespace.clone(), wish.origin.clone(), wish.labels_hash, alone)
}

fn who(wish: &Wish) -> Who {
    (wish.instance.clone(), wish.pod.uid.clone())
}

/// The first of these namespaces in which a pod becomes ready.
async fn any_ready(readiness: &BTreeMap<String, watch::Receiver<u64>>) -> String {
    let changes = readiness.iter().map(|(namespace, receiver)| {
        let (namespace, mut receiver) = (namespace.clone(), receiver.clone());
        async move {
            match receiver.changed().await {
                Ok(()) => namespace,
                // Its cluster is gone, and so are its changes.
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    });
    select_all(changes.chain([std::future::pending().boxed()])).await.0
}
