//! One simulated world from its seed to its end.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use fastrand::Rng;
use offramp_core::{ClusterName, InstanceId, SpotAction, Timestamp};
use offramp_sandbox::World;
use offramp_sandbox::witness::Witness;
use offramp_sandbox::world::cluster::ViewLag;
use offramp_sandbox::world::instances::InstanceState;

use super::bounds::{Figures, ISOLATED};
use super::checks::{Broken, Checks, QUEUE};
use super::lookups::{bodies, instance, members, nodes, record, stays_in_service};
use super::plan::{BUSY, BY_NAME, Event, Mood, Plan};
use super::pools::rests;
use super::remains::waits_for_twins;
use super::script::{START, Scene, seconds};

/// How one world went.
#[derive(Debug)]
pub(crate) struct Report {
    pub(crate) seed: u64,
    pub(crate) broken: Vec<Broken>,
    pub(crate) transcript: String,
    /// Calls through the ports, by kind.
    pub(crate) calls: BTreeMap<String, u64>,
    /// The switches of this world, and how often each led to the branch that it is there for.
    pub(crate) branches: Vec<(&'static str, usize)>,
    /// How much of its bounds the worker took, in percent.
    pub(crate) figures: Figures,
}

/// Plays the world of a seed.
pub(crate) async fn play(seed: u64) -> Report {
    let plan = Plan::of(seed);
    let branches = plan.branches();
    let mut scene = Scene::new(plan.fleet);
    scene.policy = plan.policy.clone();
    let checks = Arc::new(Mutex::new(Checks::new(plan.policy, Mood::of(seed))));
    let watching = Arc::clone(&checks);
    scene.sandbox.with(|world| {
        world.witness = Witness::new(move |world, call| lock(&watching).saw(world, call));
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
        events_lost: Vec::new(),
        hooks_unseen: Vec::new(),
        messages_lost: Vec::new(),
        sent: Vec::new(),
        told: 0,
        view_lag: plan.view_lag,
    };
    plan.shapes.iter().for_each(|shape| shape.begin(&mut course));
    course.scene.say(&format!("watches are late by up to {:?}", plan.view_lag));
    course.draw_view_lag();
    course.start_worker();
    // The next ones run on other machines: where nothing can be read at its start, a worker keeps the clock that it has.
    course.scene.clocks_ahead = 0;
    for (at, event) in plan.events {
        course.plan(START + at, Next::Event(event));
    }
    for look in 1..=BUSY.as_secs() / 20 {
        course.plan(START + seconds(look * 20), Next::Look);
    }
    course.be_busy().await;
    course.be_quiet().await;
    let mut report = course.end(seed).await;
    let taken = |(name, text): (&'static str, &str)| (name, report.transcript.matches(text).count());
    report.branches = branches.into_iter().map(taken).collect();
    report
}

/// Something that is bound to happen.
#[derive(Debug)]
pub(crate) enum Next {
    Event(Event),
    Interrupt(InstanceId),
    StartWorker,
    KillWorker,
    NoFaults,
    NodesAllowed(ClusterName),
    CordonsLast(ClusterName),
    /// Calls of this kind or service work again.
    Works(&'static str),
    Relabel,
    /// A look at what nobody else looks at.
    Look,
}

pub(crate) struct Course {
    pub(crate) scene: Scene,
    pub(crate) checks: Arc<Mutex<Checks>>,
    pub(crate) random: Rng,
    pub(crate) agenda: BTreeMap<(Timestamp, u64), Next>,
    pub(crate) sequence: u64,
    pub(crate) workers: usize,
    /// When no worker was there, or its messages could not be had.
    pub(crate) away: Vec<(Timestamp, Timestamp)>,
    /// When ports failed at random.
    pub(crate) faulty: Vec<(Timestamp, Timestamp)>,
    /// When an event never reached the queue.
    pub(crate) events_lost: Vec<Timestamp>,
    /// When a group showed no hook that it has.
    pub(crate) hooks_unseen: Vec<Timestamp>,
    /// When every message was lost.
    pub(crate) messages_lost: Vec<Timestamp>,
    /// Bodies of messages that were seen in the queue.
    pub(crate) sent: Vec<String>,
    /// So many lines of the story have been read.
    pub(crate) told: usize,
    /// How late the watches may be.
    pub(crate) view_lag: ViewLag,
}

/// The messages of a worker that died cannot be had for so long, not even by another worker.
pub(crate) const HIDDEN: Duration = seconds(31);

/// From one sweep to the next.
const SWEEP: Duration = seconds(300);
/// Two sweeps, and the time to serve what they find.
const SWEEPS: Duration = seconds(2 * SWEEP.as_secs() + 60);
/// A record is looked after for this long, and its hook with it: `hook_limit`, ten minutes, and two sweeps.
const RECORDED: Duration = seconds(3_600 + 600 + 600);

/// A worker that called so often within one HeartbeatTimeout did what it could.
const TRIES: usize = 5;
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
            world.queues.lose_next = 0;
        });
        if self.workers == 0 {
            self.start_worker();
        }
        self.scene.say("nothing new happens from now on");
        let begun = self.scene.sandbox.now();
        let until = begun + QUIET;
        loop {
            self.scene.pass(seconds(60)).await;
            self.look();
            self.others_receive();
            self.end_retained(Some(self.scene.sandbox.now().since(begun)));
            let lost = !self.messages_lost.is_empty();
            let settled = self.scene.sandbox.peek(|world| {
                let swept = lost || !world.groups.warm_pools.is_empty();
                is_settled(world) && !(swept && has_remains(world))
            });
            let jobs = self.scene.jobs().await;
            if settled && jobs.is_empty() {
                // Instances end, nodes go, targets become healthy, and what ends may begin another job.
                self.scene.pass(seconds(400)).await;
                if self.scene.sandbox.peek(is_settled) && self.scene.jobs().await.is_empty() {
                    break;
                }
            }
            if self.scene.sandbox.now() > until {
                if self.scene.sandbox.peek(waits_for_twins) {
                    break;
                }
                let bodies = self.scene.sandbox.peek(|world| bodies(world, QUEUE));
                let text = format!("jobs {jobs:#?}, messages {bodies:#?}");
                self.broken("5 every job ends", text);
                break;
            }
        }
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
        let figures = self.look_at_bounds();
        let notes = std::mem::take(&mut lock(&self.checks).notes);
        notes.into_iter().for_each(|(at, note)| self.scene.say_at(at, &note));
        let mut broken = lock(&self.checks).broken.clone();
        broken.sort_by_key(|broken| broken.at);
        for Broken { at, invariant, what } in &broken {
            self.scene.say_at(*at, &format!("BROKEN  {invariant}: {what}"));
        }
        let calls = self.scene.sandbox.peek(|world| world.calls.clone());
        let transcript = self.scene.transcript();
        Report { seed, broken, transcript, calls, branches: Vec::new(), figures }
    }

    fn look_at_bounds(&mut self) -> Figures {
        self.scene.transcript();
        let isolated = std::mem::take(&mut self.scene.isolated);
        let checks = Arc::clone(&self.checks);
        self.scene.sandbox.peek(|world| {
            let checks = &mut lock(&checks);
            let mut figures = checks.look_at_bounds(world);
            // Where calls fail, and API servers are away, no time can be kept.
            let timed = if checks.mood == Mood::Calm { isolated } else { Vec::new() };
            for (id, took) in &timed {
                let millis = |span: Duration| usize::try_from(span.as_millis()).unwrap();
                let taken = (millis(*took), millis(ISOLATED));
                checks.keep(world, &mut figures, "from receipt to cordon", id, taken);
            }
            figures
        })
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
            Next::NodesAllowed(cluster) => self.refuse_nodes(&cluster, None),
            Next::CordonsLast(cluster) => self.strip_cordons(&cluster, false),
            Next::Works(calls) => {
                self.scene.say(&format!("{calls} works again"));
                self.scene.sandbox.with(|world| world.faults.always(calls, None));
            }
            Next::Relabel => self.relabel(now),
            Next::Look => {
                self.draw_view_lag();
                self.remember_bodies();
                self.look();
                self.foreign_owners_answer();
                self.others_receive();
                self.end_retained(None);
            }
        }
    }

    pub(crate) fn start_worker(&mut self) {
        self.scene.say("a worker starts");
        let now = self.scene.sandbox.now();
        let mut checks = lock(&self.checks);
        checks.restarted |= self.told > 0;
        checks.starts.push(now);
        drop(checks);
        self.scene.start_worker();
        self.workers += 1;
        for (_, until) in &mut self.away {
            if *until == NEVER {
                *until = now;
            }
        }
    }

    pub(crate) async fn kill_worker(&mut self) {
        if self.workers > 0 {
            self.scene.kill_worker().await;
            self.worker_has_gone();
            let now = self.scene.sandbox.now();
            self.away.push((now, now + HIDDEN));
        }
    }

    pub(crate) async fn stop_worker(&mut self) {
        let took = self.scene.stop_worker().await;
        // A long poll of 5 s, and two calls that may each take 10 s to fail.
        if took > seconds(25) {
            self.broken("13 shutdown takes seconds", format!("it took {took:?}"));
        }
        self.worker_has_gone();
    }

    pub(crate) fn worker_has_gone(&mut self) {
        self.workers -= 1;
        let now = self.scene.sandbox.now();
        lock(&self.checks).ends.push(now);
        if self.workers == 0 {
            self.away.push((self.scene.sandbox.now(), NEVER));
        }
    }

    /// A hook of ours times out only where no worker could keep it alive.
    fn look(&mut self) {
        let checks = Arc::clone(&self.checks);
        let (away, faulty, told) = (&self.away, &self.faulty, self.told);
        let (events_lost, messages_lost) = (&mut self.events_lost, &self.messages_lost);
        let hooks_unseen = &mut self.hooks_unseen;
        self.told = self.scene.sandbox.peek(|world| {
            for (at, line) in &world.story[told..] {
                events_lost.extend(line.ends_with("is lost").then_some(*at));
                hooks_unseen.extend(line.contains("shows no hook of").then_some(*at));
                let Some((hook, id)) = timed_out(line) else { continue };
                let Some(timeout) = lock(&checks).timeout_of(world, hook, &id, *at) else { continue };
                let since = *at - timeout - seconds(40);
                let overlaps = |spans: &[(Timestamp, Timestamp)]| {
                    spans.iter().any(|(from, until)| from < at && *until > since)
                };
                // A message whose receipt got lost is hidden for half a minute, perhaps twice.
                let unlucky = timeout < seconds(300) && overlaps(faulty);
                // The sweep finds it, though not in time for every hook; a record without a message has to be overdue.
                let within = |times: &[Timestamp], span: Duration| {
                    times.iter().any(|lost| lost <= at && *lost + span >= *at)
                };
                // Without a node, a hook that names no cluster may be anybody's.
                let nameless = hook == BY_NAME;
                // A sweep that is shown no hook finds none (seed 689).
                let blind = hooks_unseen.iter().filter(|unseen| **unseen >= since).count();
                let sweeps = SWEEPS + SWEEP * u32::try_from(blind).unwrap();
                let unseen = within(events_lost, timeout + sweeps) && (timeout <= sweeps || nameless)
                    || within(messages_lost, timeout + RECORDED);
                // The record names a hook whose message is of another action, and the event of the open one was lost (seed 19439).
                let mistaken = !events_lost.is_empty() && lock(&checks).false_hooks.contains(&id);
                // AWS refused one call after the other, as far as the worker can tell because the hook is not open (seed 47342).
                let beats = |from: Timestamp| lock(&checks).heartbeats_between(&id, hook, from, *at);
                let tried = beats(*at - timeout) >= TRIES && beats(*at - timeout / 2) > 0;
                if !overlaps(away) && !unlucky && !unseen && !mistaken && !tried {
                    let text = format!("at {at:?}: {line}");
                    lock(&checks).break_it(world, "5 a hook of ours is answered in time", text);
                }
            }
            world.story.len()
        });
    }

    pub(crate) fn broken(&mut self, invariant: &'static str, what: String) {
        let checks = Arc::clone(&self.checks);
        self.scene.sandbox.peek(|world| lock(&checks).break_it(world, invariant, what));
    }

    pub(crate) fn plan(&mut self, at: Timestamp, next: Next) {
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
    let still = members(world).all(|(_, _, member)| rests(member.state));
    let ends = |instance: &offramp_sandbox::world::instances::Instance| {
        instance.state == InstanceState::Running && instance.interrupted_at.is_some()
    };
    empty && still && !world.instances.all().any(ends)
}

/// A node that stays has a record that nobody has undone yet.
fn has_remains(world: &World) -> bool {
    nodes(world).any(|(_, node)| {
        // One whose kubelet is dead is left isolated, and so is one that names another machine.
        let is_seen = node.ready && node.claims(&node.instance);
        is_seen && record(node).is_some() && instance(world, &node.instance).is_some_and(stays_in_service)
    })
}

/// `offramp of i-0123 has timed out: ABANDON`.
fn timed_out(line: &str) -> Option<(&str, InstanceId)> {
    let (hook, rest) = line.split_once(" of ")?;
    let (id, rest) = rest.split_once(' ')?;
    rest.starts_with("has timed out").then_some((hook, InstanceId::parse(id)?))
}

pub(crate) fn lock(checks: &Mutex<Checks>) -> MutexGuard<'_, Checks> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}
