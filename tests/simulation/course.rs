//! One simulated world from its seed to its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use offramp_core::{ClusterName, GroupName, InstanceId, SpotAction, Timestamp};
use offramp_sandbox::World;
use offramp_sandbox::faults::Moment;
use offramp_sandbox::witness::Witness;
use offramp_sandbox::world::cluster::NodePatch;
use offramp_sandbox::world::events::{REBALANCE, SPOT_WARNING, TERMINATE_ACTION};
use offramp_sandbox::world::groups::{ActionResult, Answer, MemberState};
use offramp_sandbox::world::instances::InstanceState;
use serde_json::json;

use super::checks::{Broken, Checks, QUEUE, bodies, members};
use super::plan::{BUSY, Event, Mood, Plan};
use super::script::{START, Scene, seconds};

/// How one world went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) broken: Vec<Broken>,
    pub(crate) transcript: String,
    /// Calls through the ports, by kind.
    pub(crate) calls: BTreeMap<String, u64>,
}

/// Plays the world of a seed.
pub(crate) async fn play(seed: u64) -> Report {
    let plan = Plan::of(seed);
    let mut scene = Scene::new(plan.fleet);
    scene.policy = plan.policy.clone();
    let checks = Arc::new(Mutex::new(Checks::new(plan.policy)));
    let watching = Arc::clone(&checks);
    scene.sandbox.with(|world| {
        world.witness = Witness::new(move |world, deed| lock(&watching).saw(world, deed));
    });
    let mut course = Course {
        scene,
        checks,
        random: Rng::with_seed(seed ^ 0x5eed),
        agenda: BTreeMap::new(),
        sequence: 0,
        workers: 0,
        away: Vec::new(),
        faulty: Vec::new(),
        sent: Vec::new(),
        told: 0,
    };
    course.start_worker();
    for (at, event) in plan.events {
        course.plan(START + at, Next::Event(event));
    }
    for look in 1..=BUSY.as_secs() / 20 {
        course.plan(START + seconds(look * 20), Next::Look);
    }
    course.be_busy().await;
    course.be_quiet().await;
    course.end(seed).await
}

/// Something that is bound to happen.
#[derive(Debug)]
enum Next {
    Event(Event),
    Interrupt(InstanceId),
    StartWorker,
    KillWorker,
    NoFaults,
    /// A look at what nobody else looks at.
    Look,
}

struct Course {
    scene: Scene,
    checks: Arc<Mutex<Checks>>,
    random: Rng,
    agenda: BTreeMap<(Timestamp, u64), Next>,
    sequence: u64,
    workers: usize,
    /// When no worker was there, or its messages could not be had.
    away: Vec<(Timestamp, Timestamp)>,
    /// When ports failed at random.
    faulty: Vec<(Timestamp, Timestamp)>,
    /// Bodies of messages that were seen in the queue.
    sent: Vec<String>,
    /// So many lines of the story have been read.
    told: usize,
}

/// The messages of a worker that died cannot be had for so long, not even by another worker.
const HIDDEN: Duration = seconds(31);

/// No worker has come back yet.
const NEVER: Timestamp = Timestamp::from_millis(i64::MAX);

/// The longest that anything may take after the last notice: patience twice over, and a quarter.
const QUIET: Duration = seconds(9_000);

impl Course {
    async fn be_busy(&mut self) {
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            let next = entry.remove();
            let now = self.scene.sandbox.now();
            if at > now {
                self.scene.pass(now.until(at)).await;
            }
            self.take(next).await;
        }
    }

    /// Nothing new happens, one worker is there, and everything comes to its end.
    async fn be_quiet(&mut self) {
        self.scene.sandbox.with(|world| {
            world.faults.at_random(0, 0);
            world.groups.describe_lag = Duration::ZERO;
        });
        if self.workers == 0 {
            self.start_worker();
        }
        self.scene.say("nothing new happens from now on");
        let until = self.scene.sandbox.now() + QUIET;
        loop {
            self.scene.pass(seconds(60)).await;
            self.look();
            let settled = self.scene.sandbox.peek(is_settled);
            let jobs = self.scene.jobs().await;
            if settled && jobs.is_empty() {
                break;
            }
            if self.scene.sandbox.now() > until {
                let bodies = self.scene.sandbox.peek(|world| bodies(world, QUEUE));
                let text = format!("jobs {jobs:#?}, messages {bodies:#?}");
                self.broken("5 every job ends", text);
                break;
            }
        }
        // Instances end, nodes go, targets become healthy.
        self.scene.pass(seconds(400)).await;
        self.look();
    }

    async fn end(mut self, seed: u64) -> Report {
        let checks = Arc::clone(&self.checks);
        self.scene.sandbox.peek(|world| lock(&checks).look_at_the_end(world));
        let lost = self.scene.lost();
        if Mood::of(seed) == Mood::Calm && lost > 0.0 {
            self.broken("nobody notices", format!("{lost} requests were lost"));
        }
        for _ in 0..self.workers {
            self.stop_worker().await;
        }
        let mut broken = lock(&self.checks).broken.clone();
        broken.sort_by_key(|broken| broken.at);
        for Broken { at, invariant, what } in &broken {
            self.scene.say_at(*at, &format!("BROKEN  {invariant}: {what}"));
        }
        let calls = self.scene.sandbox.peek(|world| world.calls.clone());
        Report { seed, broken, transcript: self.scene.transcript(), calls }
    }

    async fn take(&mut self, next: Next) {
        let now = self.scene.sandbox.now();
        match next {
            Next::Event(event) => {
                self.remember_bodies();
                self.happen(event, now).await;
            }
            Next::Interrupt(id) => self.interrupt(&id, SpotAction::Terminate),
            Next::StartWorker => self.start_worker(),
            Next::KillWorker => self.kill_worker().await,
            Next::NoFaults => {
                self.scene.say("the ports work again");
                self.scene.sandbox.with(|world| world.faults.at_random(0, 0));
            }
            Next::Look => {
                self.remember_bodies();
                self.look();
                self.foreign_owners_answer();
            }
        }
    }

    async fn happen(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::ScaleIn => self.resize(|desired| desired.saturating_sub(1)),
            Event::ScaleOut => self.resize(|desired| desired + 1),
            Event::Spot(action) => {
                if let Some(id) = self.running(true) {
                    self.interrupt(&id, action);
                }
            }
            Event::Rebalance => {
                if let Some(id) = self.running(true) {
                    self.scene.sandbox.with(|world| world.rebalance_recommend(&id));
                }
            }
            Event::RebalanceThenSpot(later) => {
                if let Some(id) = self.running(true) {
                    self.scene.sandbox.with(|world| world.rebalance_recommend(&id));
                    self.plan(now + later, Next::Interrupt(id));
                }
            }
            Event::ConsoleTerminate => {
                if let Some(id) = self.running(false) {
                    self.scene.say("somebody terminates an instance in the console");
                    self.scene.sandbox.with(|world| world.terminate_instance(&id));
                }
            }
            Event::DeliverAgain(count) => {
                self.scene.sandbox.with(|world| world.queues.duplicate_next = count)
            }
            Event::SendTwice(count) => self.scene.sandbox.with(|world| world.events.repeat_next = count),
            Event::Garbage => self.send_garbage(),
            Event::Unknown => self.send_unknown(),
            Event::LateCopy => self.send_late_copy(),
            Event::FalseHook => self.send_false_hook(),
            Event::Cordon => self.cordon(),
            Event::Faults { per_mille, span } => {
                self.scene.say(&format!("{per_mille} of 1000 calls fail"));
                let seed = self.random.u64(..);
                self.scene.sandbox.with(|world| world.faults.at_random(per_mille, seed));
                lock(&self.checks).faulty = true;
                self.faulty.push((now, now + span));
                self.plan(now + span, Next::NoFaults);
            }
            Event::Outage(span) => self.take_api_server_away(span),
            Event::Lag(lag) => {
                self.scene.say(&format!("describes lag {lag:?} behind"));
                self.scene.sandbox.with(|world| world.groups.describe_lag = lag);
            }
            Event::Kill(pause) => {
                if self.workers > 0 {
                    self.kill_worker().await;
                    self.plan(now + pause, Next::StartWorker);
                }
            }
            Event::Crash { nth, moment, pause } => self.crash(nth, moment, pause).await,
            Event::Stop(pause) => {
                if self.workers > 0 {
                    self.stop_worker().await;
                    self.plan(self.scene.sandbox.now() + pause, Next::StartWorker);
                }
            }
            Event::SecondWorker(span) => {
                self.start_worker();
                self.plan(now + span, Next::KillWorker);
            }
        }
    }

    fn resize(&mut self, change: impl Fn(usize) -> usize) {
        let groups: Vec<GroupName> = self
            .scene
            .sandbox
            .peek(|world| world.groups.all().map(|group| group.spec.name.clone()).collect());
        let Some(name) = self.random.choice(groups) else { return };
        self.scene.sandbox.with(|world| {
            let desired = world.groups.get(&name).map_or(0, |group| group.spec.desired);
            // More than its maximum is refused, which changes nothing.
            world.set_desired(&name, change(desired)).unwrap_or_default();
        });
    }

    fn interrupt(&mut self, id: &InstanceId, action: SpotAction) {
        self.scene.sandbox.with(|world| world.spot_interrupt(id, action));
    }

    /// An instance that runs; every second time one that something has happened to already.
    fn running(&mut self, spot: bool) -> Option<InstanceId> {
        let mut all: Vec<InstanceId> = self.scene.sandbox.peek(|world| {
            let running = world
                .instances
                .all()
                .filter(|instance| instance.state == InstanceState::Running && (instance.spot || !spot));
            running.map(|instance| instance.id.clone()).collect()
        });
        let known: Vec<InstanceId> = all
            .iter()
            .filter(|id| self.sent.iter().any(|body| body.contains(id.as_str())))
            .cloned()
            .collect();
        if !known.is_empty() && self.random.u8(0..3) == 0 {
            all = known;
        }
        self.random.choice(all)
    }

    fn send_garbage(&mut self) {
        let number = self.random.u16(..);
        let body = match self.random.u8(0..4) {
            0 => format!("not JSON at all {number}"),
            1 => format!(
                r#"{{"source":"aws.ec2","detail-type":"{SPOT_WARNING}","detail":{{}},"id":"{number}"}}"#
            ),
            2 => format!(r#"["{number}"]"#),
            _ => format!(
                r#"{{"detail-type":"{TERMINATE_ACTION}","source":"aws.autoscaling","id":"{number}"}}"#
            ),
        };
        lock(&self.checks).garbage.insert(body.clone());
        self.send(&body);
    }

    fn send(&mut self, body: &str) {
        self.scene.sandbox.with(|world| {
            world.send_message(QUEUE, body, BTreeMap::new(), Duration::ZERO).expect("the queue is there");
        });
    }

    fn send_unknown(&mut self) {
        let id = format!("i-0{:016x}", self.random.u64(..));
        let detail = json!({ "instance-id": id, "instance-action": "terminate" });
        let hook = self.hook_detail(&id, "gone-group", "offramp", "blue");
        let choice = self.random.u8(0..3);
        self.scene.sandbox.with(|world| match choice {
            0 => world.emit_event("aws.ec2", SPOT_WARNING, &[], &detail),
            1 => world.emit_event("aws.ec2", REBALANCE, &[], &detail),
            _ => world.emit_event("aws.autoscaling", TERMINATE_ACTION, &[], &hook),
        });
    }

    /// Time has passed since: a copy of a spot notice from its second minute could still be true.
    fn send_late_copy(&mut self) {
        if let Some(body) = self.random.choice(self.sent.clone()) {
            self.scene.say("an old message comes again");
            self.send(&body);
        }
    }

    fn send_false_hook(&mut self) {
        let found = self.scene.sandbox.peek(|world| {
            let served = &self.scene.policy.clusters;
            let mut in_service = members(world)
                .filter(|(_, _, member)| member.state == MemberState::InService)
                .filter_map(|(group, id, _)| {
                    let cluster = group.spec.template.cluster.clone().filter(|name| served.contains(name))?;
                    Some((group.spec.name.clone(), id.clone(), cluster))
                });
            in_service.next()
        });
        let Some((group, id, cluster)) = found else { return };
        self.scene.say(&format!("a hook message for {id}, which is in service"));
        let detail = self.hook_detail(id.as_str(), group.as_str(), "offramp", cluster.as_str());
        self.scene.sandbox.with(|world| {
            world.emit_event("aws.autoscaling", TERMINATE_ACTION, &[], &detail);
        });
    }

    fn hook_detail(&mut self, id: &str, group: &str, hook: &str, metadata: &str) -> serde_json::Value {
        let number = self.random.u64(0..1 << 48);
        json!({
            "LifecycleActionToken": format!("00000000-0000-4000-8000-{number:012x}"),
            "AutoScalingGroupName": group,
            "LifecycleHookName": hook,
            "EC2InstanceId": id,
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "NotificationMetadata": metadata,
            "Origin": "AutoScalingGroup",
            "Destination": "EC2",
        })
    }

    /// Somebody cordons a node that the worker has not cordoned.
    fn cordon(&mut self) {
        let free: Vec<_> = self.scene.sandbox.peek(|world| {
            let nodes = world
                .clusters
                .values()
                .flat_map(|cluster| cluster.nodes.values().map(move |node| (cluster.name.clone(), node)));
            let free = nodes.filter(|(_, node)| !node.unschedulable && node.ready);
            free.map(|(cluster, node)| (cluster, node.name.clone())).collect()
        });
        let Some((cluster, node)) = self.random.choice(free) else { return };
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        let cordoned = self.scene.sandbox.with(|world| world.patch_node(&cluster, &node, patch).is_ok());
        if cordoned {
            self.scene.say(&format!("somebody cordons {node}"));
            lock(&self.checks).cordoned_by_hand.insert(node);
        }
    }

    fn take_api_server_away(&mut self, span: Duration) {
        let names: Vec<ClusterName> =
            self.scene.sandbox.peek(|world| world.clusters.keys().cloned().collect());
        let Some(name) = self.random.choice(names) else { return };
        self.scene.say(&format!("the API server of {name} is away for {span:?}"));
        self.scene.sandbox.with(|world| world.take_api_server_away(&name, span));
    }

    /// Whoever owns the other hooks answers them some day.
    fn foreign_owners_answer(&mut self) {
        let checks = Arc::clone(&self.checks);
        let open: Vec<Answer> = self.scene.sandbox.peek(|world| {
            let checks = lock(&checks);
            let actions = members(world)
                .flat_map(|(group, id, member)| member.actions.iter().map(move |action| (group, id, action)));
            let foreign = actions.filter(|(group, _, action)| !checks.action_is_ours(group, action));
            foreign
                .map(|(group, id, action)| Answer {
                    group: group.spec.name.clone(),
                    hook: action.hook.clone(),
                    token: None,
                    instance: Some(id.clone()),
                })
                .collect()
        });
        for answer in open {
            if self.random.u8(0..6) == 0 {
                let result = if self.random.bool() { ActionResult::Continue } else { ActionResult::Abandon };
                self.scene.sandbox.with(|world| world.complete_action(&answer, result)).unwrap_or_default();
            }
        }
    }

    async fn crash(&mut self, nth: u64, moment: Moment, pause: Duration) {
        // With two workers nobody could say which of them made the call.
        if self.workers != 1 {
            return;
        }
        self.scene.sandbox.with(|world| world.faults.crash_at(nth, moment));
        if self.scene.crash_within(seconds(45)).await {
            self.workers = 0;
            let now = self.scene.sandbox.now();
            self.away.extend([(now, NEVER), (now, now + HIDDEN)]);
            self.plan(now + pause, Next::StartWorker);
        } else {
            self.scene.sandbox.with(|world| world.faults.crash_at(u64::MAX / 2, moment));
        }
    }

    fn start_worker(&mut self) {
        self.scene.say("a worker starts");
        self.scene.start_worker();
        self.workers += 1;
        let now = self.scene.sandbox.now();
        for (_, until) in &mut self.away {
            if *until == NEVER {
                *until = now;
            }
        }
    }

    async fn kill_worker(&mut self) {
        if self.workers > 0 {
            self.scene.kill_worker().await;
            self.worker_has_gone();
            let now = self.scene.sandbox.now();
            self.away.push((now, now + HIDDEN));
        }
    }

    async fn stop_worker(&mut self) {
        let took = self.scene.stop_worker().await;
        // A long poll of 5 s, and two calls that may each take 10 s to fail.
        if took > seconds(25) {
            self.broken("13 shutdown takes seconds", format!("it took {took:?}"));
        }
        self.worker_has_gone();
    }

    fn worker_has_gone(&mut self) {
        self.workers -= 1;
        if self.workers == 0 {
            self.away.push((self.scene.sandbox.now(), NEVER));
        }
    }

    /// A hook of ours times out only where no worker could keep it alive.
    fn look(&mut self) {
        let checks = Arc::clone(&self.checks);
        let (away, faulty, told) = (&self.away, &self.faulty, self.told);
        self.told = self.scene.sandbox.peek(|world| {
            for (at, line) in &world.story[told..] {
                let Some((hook, id)) = timed_out(line) else { continue };
                let Some(timeout) = lock(&checks).timeout_of(world, hook, &id, *at) else { continue };
                let since = *at - timeout - seconds(40);
                let overlaps = |spans: &[(Timestamp, Timestamp)]| {
                    spans.iter().any(|(from, until)| from < at && *until > since)
                };
                // A message whose receipt got lost is hidden for half a minute, perhaps twice.
                let unlucky = timeout < seconds(300) && overlaps(faulty);
                if !overlaps(away) && !unlucky {
                    let text = format!("at {at:?}: {line}");
                    lock(&checks).break_it(world, "5 a hook of ours is answered in time", text);
                }
            }
            world.story.len()
        });
    }

    fn remember_bodies(&mut self) {
        let seen = self.scene.sandbox.peek(|world| bodies(world, QUEUE));
        for body in seen {
            let garbage = lock(&self.checks).garbage.contains(&body);
            if !garbage && !self.sent.contains(&body) {
                self.sent.push(body);
            }
        }
    }

    fn broken(&mut self, invariant: &'static str, what: String) {
        let checks = Arc::clone(&self.checks);
        self.scene.sandbox.peek(|world| lock(&checks).break_it(world, invariant, what));
    }

    fn plan(&mut self, at: Timestamp, next: Next) {
        self.sequence += 1;
        self.agenda.insert((at, self.sequence), next);
    }
}

impl Report {
    /// Everything that a person needs who looks into a failure.
    pub(crate) fn failure(&self) -> String {
        let mut text = format!("seed {} breaks {} invariants:\n", self.seed, self.broken.len());
        for Broken { at, invariant, what } in &self.broken {
            let after = at.since(START).as_secs();
            writeln!(text, "  {after} s  {invariant}: {what}").unwrap();
        }
        text
    }
}

/// Nothing waits, and nobody is on the way in or out.
fn is_settled(world: &World) -> bool {
    let empty = world.queues.get(QUEUE).is_some_and(|queue| queue.messages().next().is_none());
    let still = members(world).all(|(_, _, member)| member.state == MemberState::InService);
    let ends = |instance: &offramp_sandbox::world::instances::Instance| {
        instance.state == InstanceState::Running && instance.interrupted_at.is_some()
    };
    empty && still && !world.instances.all().any(ends)
}

/// `offramp of i-0123 has timed out: ABANDON`.
fn timed_out(line: &str) -> Option<(&str, InstanceId)> {
    let (hook, rest) = line.split_once(" of ")?;
    let (id, rest) = rest.split_once(' ')?;
    rest.starts_with("has timed out").then_some((hook, InstanceId::parse(id)?))
}

fn lock(checks: &Mutex<Checks>) -> MutexGuard<'_, Checks> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}
