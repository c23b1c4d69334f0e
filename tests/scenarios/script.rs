//! The stage: a world, a worker in it that can be started, killed and stopped, and a transcript.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use offramp_core::{AccountRegion, ClusterName, GroupName, InstanceId, PodRef, PodUid, Policy, Timestamp};
use offramp_engine::{
    Broken, Clock, Cluster, Engine, Fact, Handle, JobStatus, Journal, Metrics, Ports, Settings, Unfinished,
    default_policy,
};
use offramp_sandbox::doors::ports_aws::QueueDoor;
use offramp_sandbox::doors::ports_kubernetes::ClusterDoor;
use offramp_sandbox::world::cluster::{Phase, Pod};
use offramp_sandbox::{Fleet, Sandbox, World};
use prometheus::Registry;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// When every scenario begins: Saturday, 14 March 2026, 09:00 UTC.
pub(crate) const START: Timestamp = Timestamp::from_millis(1_773_478_800_000);

pub(crate) const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) struct Scene {
    pub(crate) sandbox: Sandbox,
    pub(crate) policy: Policy,
    pub(crate) settings: Settings,
    /// How many evictions and deletions go out at a time; as many as there are without.
    /// So many milliseconds the clocks of the workers' machines are ahead when they start.
    pub(crate) clocks_ahead: i64,
    workers: Vec<Worker>,
    /// How long after its receipt a notice led to a cordon, as far as a transcript has been written.
    pub(crate) isolated: Vec<(InstanceId, Duration)>,
    /// So many workers were started.
    started: u32,
    world: JoinSet<()>,
    lines: Vec<(Timestamp, String)>,
    facts: mpsc::UnboundedReceiver<(Timestamp, Fact)>,
    listener: mpsc::UnboundedSender<(Timestamp, Fact)>,
}

struct Worker {
    number: u32,
    tasks: JoinSet<Result<(), Broken>>,
    stop: CancellationToken,
    handle: Handle,
    registry: Registry,
}

impl Scene {
    /// Puts a world on the stage. The worker is not there yet.
    pub(crate) fn new(fleet: Fleet) -> Self {
        let world = fleet.build();
        let clusters = world.clusters.keys().cloned().collect();
        let target_groups = world.balancers.all().map(|group| group.arn.clone()).collect();
        let sandbox = Sandbox::new(world, Clock::starting_at(START));
        let mut tasks = JoinSet::new();
        let running = sandbox.clone();
        tasks.spawn(async move { running.run().await });
        let (listener, facts) = mpsc::unbounded_channel();
        Self {
            sandbox,
            policy: Policy { clusters, ..default_policy() },
            settings: Settings { target_groups, ..Settings::default() },
            clocks_ahead: 0,
            workers: Vec::new(),
            isolated: Vec::new(),
            started: 0,
            world: tasks,
            lines: Vec::new(),
            facts,
            listener,
        }
    }

    /// Starts a worker with nothing but its configuration: the first, or another one beside it.
    pub(crate) fn start_worker(&mut self) {
        self.started += 1;
        let clock = self.sandbox.clock().of_another_machine(self.clocks_ahead);
        let number = self.started;
        let sandbox = self.sandbox.for_worker(number);
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, &self.policy.clusters).unwrap();
        let journal = Journal::new(clock.clone(), metrics).with_listener(self.listener.clone());
        let names: Vec<ClusterName> = self.sandbox.peek(|world| world.clusters.keys().cloned().collect());
        let clusters = names
            .iter()
            .filter(|name| self.policy.clusters.contains(name))
            .map(|name| Arc::new(ClusterDoor::new(&sandbox, name)) as Arc<dyn Cluster>);
        let ports = Ports {
            queue: Arc::new(QueueDoor::new(&sandbox, "offramp")),
            account_region: AccountRegion {
                account: Some("111122223333".into()),
                region: Some("eu-west-1".into()),
            },
            sessions: Arc::new(sandbox.clone()),
            clusters: clusters.collect(),
        };
        let (engine, handle) = Engine::new(ports, self.policy.clone(), self.settings.clone(), clock, journal);
        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(engine.run(stop.clone()));
        self.workers.push(Worker { number, tasks, stop, handle, registry });
    }

    /// The metrics of the oldest worker, as Prometheus reads them.
    pub(crate) fn metrics(&self) -> String {
        let families = self.workers[0].registry.gather();
        prometheus::TextEncoder::new().encode_to_string(&families).unwrap()
    }

    /// The oldest worker dies on the spot: everything that it knew is gone.
    pub(crate) async fn kill_worker(&mut self) {
        self.kill(0).await;
    }

    async fn kill(&mut self, place: usize) {
        assert!(place < self.workers.len(), "no worker to kill");
        let mut worker = self.workers.remove(place);
        worker.tasks.shutdown().await;
        self.say("the worker is killed");
    }

    /// No call of the oldest worker takes effect for so long, and then they go on.
    pub(crate) fn pause_worker(&mut self, span: Duration) {
        let Some(worker) = self.workers.first() else { return };
        let number = worker.number;
        self.say(&format!("worker {number} stands still for {span:?}"));
        let until = self.sandbox.now() + span;
        self.sandbox.with(|world| world.faults.pause(number, until));
    }

    /// The oldest worker is told to stop, and does. Says how long it took.
    pub(crate) async fn stop_worker(&mut self) -> Duration {
        self.say("the worker is told to stop");
        let begun = self.sandbox.now();
        assert!(!self.workers.is_empty(), "no worker to stop");
        let mut worker = self.workers.remove(0);
        worker.stop.cancel();
        while let Some(ended) = worker.tasks.join_next().await {
            ended.unwrap().unwrap();
        }
        let took = self.sandbox.now().since(begun);
        self.say("the worker has stopped");
        took
    }

    /// Waits for a planned crash to happen, kills what is left, and says whether it came in time.
    pub(crate) async fn crash_within(&mut self, limit: Duration) -> bool {
        let mut crashed = self.sandbox.peek(|world| world.faults.crashed());
        let came = tokio::time::timeout(limit, crashed.wait_for(|crashed| *crashed)).await.is_ok();
        if came {
            let victim = self.sandbox.peek(|world| world.faults.victim());
            let place = self.workers.iter().position(|worker| worker.number == victim);
            self.kill(place.unwrap_or(0)).await;
        }
        came
    }

    /// Lets the time pass.
    pub(crate) async fn pass(&mut self, span: Duration) {
        let until = self.sandbox.now() + span;
        self.sandbox.clock().sleep_until(until).await;
        // Whatever is due at this very moment happens first.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }

    /// Waits until something is true of the world, and fails with the transcript when it never is.
    pub(crate) async fn until(&mut self, what: &str, limit: Duration, mut holds: impl FnMut(&World) -> bool) {
        let deadline = self.sandbox.now() + limit;
        let mut changes = self.sandbox.changes();
        while !self.sandbox.peek(&mut holds) {
            if self.sandbox.now() >= deadline {
                panic!("never came true: {what}\n{}", self.transcript());
            }
            let clock = self.sandbox.clock();
            tokio::select! {
                biased;
                _ = changes.changed() => {}
                () = clock.sleep_until(deadline) => {}
            }
        }
    }

    /// Waits until the queue is empty and no job is left.
    pub(crate) async fn until_done(&mut self, limit: Duration) {
        let idle = |world: &World| {
            let queue = world.queues.get("offramp").unwrap();
            queue.messages().count() == 0
        };
        self.until("the queue is empty", limit, idle).await;
        self.pass(seconds(1)).await;
        let jobs = self.jobs().await;
        assert!(jobs.is_empty(), "jobs are left: {jobs:#?}");
    }

    /// What every job of every worker is doing.
    pub(crate) async fn jobs(&self) -> Vec<JobStatus> {
        let mut jobs = Vec::new();
        for worker in &self.workers {
            jobs.extend(worker.handle.jobs().await);
        }
        jobs
    }

    /// Writes a line of our own.
    pub(crate) fn say(&mut self, line: &str) {
        self.say_at(self.sandbox.now(), line);
    }

    /// Writes a line of our own about an earlier moment.
    pub(crate) fn say_at(&mut self, at: Timestamp, line: &str) {
        self.lines.push((at, format!("stage   {line}")));
    }

    /// The instances of a group, oldest first.
    pub(crate) fn instances(&self, group: &str) -> Vec<InstanceId> {
        self.sandbox.peek(|world| {
            let group = world.groups.get(&GroupName::new(group)).unwrap();
            group.members.keys().cloned().collect()
        })
    }

    /// Requests lost so far.
    pub(crate) fn lost(&self) -> f64 {
        self.sandbox.peek(|world| world.traffic.lost())
    }

    /// Binds a pod to a node, past the scheduler: like one of `web`, and of no workload.
    pub(crate) fn add_pod(&mut self, instance: &InstanceId, namespace: &str, name: &str) -> PodUid {
        let uid = PodUid::new(format!("of-{name}"));
        self.sandbox.with(|world| {
            let cluster = &world.clusters[&"blue".into()];
            let node = &cluster.node_of(instance).unwrap().name;
            let like = cluster.pods_of_node(node).find(|pod| pod.labels["app"] == "web").unwrap();
            assert_eq!(like.deletion, None);
            let pod = Pod {
                pod: PodRef { namespace: namespace.to_owned(), name: name.to_owned(), uid: uid.clone() },
                labels: BTreeMap::from([("app".to_owned(), name.to_owned())]),
                owner: None,
                created: world.now(),
                ..like.clone()
            };
            world.add_pod(&"blue".into(), pod);
        });
        uid
    }

    /// Evictable pods that an instance took down with it, so far.
    pub(crate) fn running_pods_on(&self, instance: &InstanceId) -> usize {
        self.sandbox.peek(|world| {
            let cluster = world.clusters.values().find(|cluster| cluster.node_of(instance).is_some());
            let Some((cluster, node)) =
                cluster.and_then(|cluster| Some((cluster, cluster.node_of(instance)?)))
            else {
                return 0;
            };
            let stays = |kind: &str| kind == "DaemonSet";
            cluster
                .pods_of_node(&node.name)
                .filter(|pod| pod.phase == Phase::Running)
                .filter(|pod| !pod.owner.as_ref().is_some_and(|owner| stays(&owner.kind)))
                .count()
        })
    }

    /// Everything that happened, in order, with short names for instances.
    pub(crate) fn transcript(&mut self) -> String {
        while let Ok((at, fact)) = self.facts.try_recv() {
            if let Fact::Isolated { instance, since_received, .. } = &fact {
                self.isolated.push((instance.clone(), *since_received));
            }
            if let Some(line) = line_of(&fact) {
                self.lines.push((at, line));
            }
        }
        let mut lines = self.lines.clone();
        let story = self.sandbox.peek(|world| world.story.clone());
        lines.extend(story.into_iter().map(|(at, line)| (at, format!("world   {line}"))));
        lines.sort_by_key(|(at, _)| *at);
        let mut text = String::new();
        let mut refusals = BTreeSet::new();
        // A budget that refuses every five seconds is told once.
        lines.retain(|(_, line)| !line.contains("refused by") || refusals.insert(line.clone()));
        for (at, line) in lines {
            let millis = at.since(START).as_millis();
            writeln!(text, "{:>5}.{:03}  {line}", millis / 1000, millis % 1000).unwrap();
        }
        shorten(&text)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.world.abort_all();
    }
}

fn line_of(fact: &Fact) -> Option<String> {
    let about = match fact {
        Fact::Received { .. } => return None,
        Fact::Ignored { .. }
        | Fact::DeadLettered { .. }
        | Fact::QueueFaulted { .. }
        | Fact::DeadLetterPostponed { .. }
        | Fact::LaterVersion { .. }
        | Fact::ClockWrong { .. }
        | Fact::LeaseLost { .. }
        | Fact::SweepFaulted { .. }
        | Fact::Stopping { .. } => return Some(format!("worker  {fact}")),
        Fact::Joined { instance, .. }
        | Fact::Routed { instance, .. }
        | Fact::Stepped { instance, .. }
        | Fact::Acted { instance, .. }
        | Fact::Faulted { instance, .. }
        | Fact::Vetoed { instance, .. }
        | Fact::NotWaitedFor { instance, .. }
        | Fact::Found { instance, .. }
        | Fact::Unfinished { unfinished: Unfinished { instance, .. } }
        | Fact::TooManyJobs { instance }
        | Fact::Isolated { instance, .. }
        | Fact::Finished { instance, .. } => instance,
    };
    Some(format!("worker  {about}  {fact}"))
}

/// Instance ids are long and random: in a transcript they are i-a, i-b … by order of appearance.
fn shorten(text: &str) -> String {
    let mut names: BTreeMap<String, String> = BTreeMap::new();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("i-") {
        let (before, from) = rest.split_at(at);
        out.push_str(before);
        let end = from[2..].find(|c: char| !c.is_ascii_hexdigit()).map_or(from.len(), |end| end + 2);
        let id = &from[..end];
        if InstanceId::parse(id).is_some() {
            let (round, place) = (names.len() / 26, names.len() % 26);
            let letter = char::from(b'a' + u8::try_from(place).unwrap());
            let round = if round == 0 { String::new() } else { round.to_string() };
            out.push_str(names.entry(id.to_owned()).or_insert_with(|| format!("i-{letter}{round}")));
        } else {
            out.push_str(id);
        }
        rest = &from[end..];
    }
    out + rest
}
