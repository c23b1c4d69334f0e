//! What fails for a while: an operation or a service, a worker that stands still, settings that change under it.

use std::time::Duration;

use fastrand::Rng;
use offramp_core::{ClusterName, HookName};
use offramp_sandbox::faults::{Injected, Moment};
use offramp_sandbox::world::cluster::Budget;
use offramp_sandbox::world::groups::Hook;

use super::course::{Course, HIDDEN, Next, lock};
use super::plan::{Event, at};
use super::script::seconds;

/// What fails or changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// Calls of one kind, or of one service, for so long.
    Outage(&'static str, How, Duration),
    /// DescribeLifecycleHooks shows none, so many times.
    HooksUnseen(u32),
    /// A worker stands still for so long; whether another one is there.
    Pause(Duration, bool),
    /// Pods get a finalizer that nobody takes away.
    Finalizers,
    /// Disruption budgets allow more or less than before.
    Budgets,
    /// A group gets another hook, which is not ours.
    HookAdded,
    /// A group loses its hook.
    HookDeleted,
    /// The watches of a cluster show nothing new for so long: a worker lists again what is silent for more than a minute.
    Silence(Duration),
    /// Two more workers come, two of the three die at their calls, and one stands still for a minute.
    Team,
}

/// How calls fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum How {
    Fails,
    Denied,
    /// For longer than a worker waits.
    Hangs,
    /// The call works, and its answer never comes.
    Lost,
    /// The call works, and its answer takes seconds.
    Late,
}

/// Operations that fail alone.
const OPERATIONS: &[&str] = &[
    "autoscaling.DescribeAutoScalingInstances",
    "autoscaling.DescribeAutoScalingGroups",
    "autoscaling.DescribeLifecycleHooks",
    "autoscaling.RecordLifecycleActionHeartbeat",
    "autoscaling.CompleteLifecycleAction",
    "elasticloadbalancing.DescribeTargetGroups",
    "elasticloadbalancing.DescribeTargetHealth",
    "elasticloadbalancing.DeregisterTargets",
    "elasticloadbalancing.RegisterTargets",
    "kubernetes.POST eviction",
    "kubernetes.LIST pods",
    "sqs.DeleteMessageBatch",
    "sqs.ChangeMessageVisibilityBatch",
];
/// Services that are away as a whole.
const SERVICES: &[&str] = &["autoscaling", "elasticloadbalancing", "sqs"];

impl Trouble {
    pub(crate) const fn branch(self) -> (&'static str, &'static str) {
        match self {
            Self::Outage(_, How::Fails, _) => {
                ("an operation or a service fails for minutes", "failure (outage)")
            }
            Self::Outage(_, How::Denied, _) => ("one is denied for minutes", "access denied (outage)"),
            Self::Outage(_, How::Hangs, _) => ("one hangs for over ten seconds", "no answer within"),
            Self::Outage(_, How::Lost, _) => {
                ("all its answers are lost for minutes", "answer was lost (outage)")
            }
            Self::Outage(_, How::Late, _) => ("all its answers are late for minutes", ": Late"),
            Self::HooksUnseen(_) => ("the hooks are not shown once", "DescribeLifecycleHooks shows no hook"),
            Self::Pause(..) => ("a worker stands still for a minute", "a message is not in flight any more"),
            Self::Finalizers => ("finalizers hold pods", "is there a minute after its grace"),
            Self::Budgets => ("budgets change in the middle", "refused by disruption budget"),
            Self::HookAdded => ("a foreign hook is added in the middle", "gets a hook of somebody else"),
            Self::HookDeleted => ("the hook is deleted in the middle", "loses its hook"),
            Self::Silence(_) => ("watches are silent", "making sure that it has missed no pod"),
            Self::Team => ("several workers die and stand still", "one of several workers has died"),
        }
    }
}

/// Those of a seed, each in every twenty-fourth world, drawn apart from all else.
pub(crate) fn troubles(seed: u64) -> Vec<(Duration, Trouble)> {
    let random = &mut Rng::with_seed(seed ^ 0x0f7a);
    let outage = |random: &mut Rng, how: How| {
        let calls = if random.u8(0..4) == 0 { SERVICES } else { OPERATIONS };
        Trouble::Outage(calls[random.usize(0..calls.len())], how, seconds(random.u64(60..420)))
    };
    let all = [
        outage(random, How::Fails),
        outage(random, How::Denied),
        outage(random, How::Hangs),
        outage(random, How::Lost),
        Trouble::HooksUnseen(random.u32(1..=2)),
        Trouble::Pause(seconds(random.u64(40..80)), random.bool()),
        Trouble::Finalizers,
        Trouble::Budgets,
        Trouble::HookAdded,
        Trouble::HookDeleted,
    ];
    let mut events = Vec::new();
    let mut draw = |random: &mut Rng, trouble: Trouble| {
        if random.u8(0..24) == 0 {
            events.extend((0..random.usize(1..=3)).map(|_| (at(random), trouble)));
        }
    };
    all.into_iter().for_each(|trouble| draw(random, trouble));
    // Those that came later have a source of their own: a seed goes on to stand for its world.
    let random = &mut Rng::with_seed(seed ^ 0x7ea3);
    let later = [Trouble::Silence(seconds(random.u64(20..75))), Trouble::Team];
    later.into_iter().for_each(|trouble| draw(random, trouble));
    let random = &mut Rng::with_seed(seed ^ 0x1a7e);
    let late = outage(random, How::Late);
    draw(random, late);
    events
}

impl Course {
    pub(crate) fn trouble(&mut self, trouble: Trouble) {
        match trouble {
            Trouble::Outage(calls, how, span) => self.break_calls(calls, how, span),
            Trouble::HooksUnseen(times) => {
                self.scene.sandbox.with(|world| world.groups.hooks_unseen += times);
            }
            Trouble::Pause(span, helped) => self.pause(span, helped),
            Trouble::Finalizers => self.add_finalizers(),
            Trouble::Budgets => self.change_budgets(),
            Trouble::HookAdded => self.add_hook(),
            Trouble::HookDeleted => self.delete_hook(),
            Trouble::Silence(span) => self.silence(span),
            Trouble::Team => self.call_a_team(),
        }
    }

    fn break_calls(&mut self, calls: &'static str, how: How, span: Duration) {
        let now = self.scene.sandbox.now();
        self.scene.say(&format!("{calls} goes wrong for {span:?}: {how:?}"));
        let injected = match how {
            How::Fails => Injected::Error,
            How::Denied => Injected::Denied,
            How::Hangs => Injected::Delay(seconds(self.random.u64(11..40))),
            How::Lost => Injected::LostAnswer,
            How::Late => Injected::LateAnswer(Duration::from_millis(self.random.u64(100..9_500))),
        };
        self.scene.sandbox.with(|world| world.faults.always(calls, Some(injected)));
        self.plan(now + span, Next::Works(calls));
        lock(&self.checks).faulty = true;
        self.faulty.push((now, now + span));
        if how == How::Lost && "autoscaling.RecordLifecycleActionHeartbeat".starts_with(calls) {
            lock(&self.checks).unheard.push((now, now + span));
        }
        // Without these no hook is heard of, kept alive, or answered.
        let needed = ["autoscaling", "autoscaling.RecordLifecycleActionHeartbeat", "sqs"];
        // Nothing is written about what may be out of scope (seed 38729).
        let unread = lock(&self.checks).policy.scoped && calls.starts_with("autoscaling.DescribeAutoScaling");
        // To keep a hook open that may never be answered would hold every instance for an hour (seed 51235).
        let denied = calls == "autoscaling.CompleteLifecycleAction" && how == How::Denied;
        if needed.contains(&calls) || calls.starts_with("sqs.") || unread || denied {
            self.away.push((now, now + span + HIDDEN));
        }
    }

    /// What it has received comes to another one when its leases are over.
    fn pause(&mut self, span: Duration, helped: bool) {
        if self.workers == 0 {
            return;
        }
        let now = self.scene.sandbox.now();
        self.scene.pause_worker(span);
        lock(&self.checks).paused.push((now, now + span));
        self.away.push((now, now + span + HIDDEN));
        if helped && self.workers == 1 {
            self.start_worker();
            self.plan(now + span * 3, Next::KillWorker);
        }
    }

    fn silence(&mut self, span: Duration) {
        let names: Vec<ClusterName> =
            self.scene.sandbox.peek(|world| world.clusters.keys().cloned().collect());
        let Some(name) = self.random.choice(names) else { return };
        self.scene.say(&format!("the watches of {name} are silent for {span:?}"));
        self.scene.sandbox.with(|world| world.silence_watches(&name, span));
    }

    fn call_a_team(&mut self) {
        self.start_worker();
        self.start_worker();
        let now = self.scene.sandbox.now();
        let mut later = |span: std::ops::Range<u64>| now + seconds(self.random.u64(span));
        let (first, second, pause) = (later(0..120), later(120..300), later(0..300));
        for at in [first, second] {
            let (nth, moment) = (self.random.u64(1..12), Moment::AfterEffect);
            let crash = Event::Crash { nth, moment, pause: seconds(self.random.u64(0..90)) };
            self.plan(at, Next::Event(crash));
        }
        self.plan(pause, Next::Event(Event::Trouble(Trouble::Pause(seconds(60), false))));
        self.plan(now + seconds(600), Next::KillWorker);
        self.plan(now + seconds(610), Next::KillWorker);
    }

    fn add_finalizers(&mut self) {
        let chosen = self.random.u64(..);
        self.scene.say("a finalizer holds every second pod from now on");
        self.scene.sandbox.with(|world| {
            let pods = world.clusters.values_mut().flat_map(|cluster| cluster.pods.values_mut());
            let every_second = pods.enumerate().filter(|(place, _)| chosen >> (place % 64) & 1 == 1);
            every_second.for_each(|(_, pod)| pod.ending.stuck = true);
        });
    }

    fn change_budgets(&mut self) {
        self.scene.say("budgets change");
        let Self { scene, random, .. } = self;
        scene.sandbox.with(|world| {
            let names: Vec<_> = world.clusters.keys().cloned().collect();
            for name in names {
                let budgets: Vec<Budget> = world.clusters[&name].budgets.values().cloned().collect();
                for budget in budgets {
                    let min_available = random.usize(0..=budget.min_available + 1);
                    world.add_budget(&name, Budget { min_available, ..budget });
                }
            }
        });
    }

    fn add_hook(&mut self) {
        let Some(group) = self.some_group() else { return };
        self.scene.say(&format!("{group} gets a hook of somebody else"));
        let hook = Hook {
            heartbeat_timeout: seconds(120),
            metadata: Some("arn:aws:codedeploy:deployment/d-2".to_owned()),
            ..Hook::terminating("codedeploy-2")
        };
        self.scene.sandbox.with(|world| world.put_hook(&group, hook).unwrap_or_default());
    }

    fn delete_hook(&mut self) {
        let Some(group) = self.some_group() else { return };
        self.scene.say(&format!("{group} loses its hook"));
        let name = HookName::new("offramp");
        self.scene.sandbox.with(|world| world.delete_hook(&group, &name).unwrap_or_default());
    }

    fn some_group(&mut self) -> Option<offramp_core::GroupName> {
        let names: Vec<_> = self
            .scene
            .sandbox
            .peek(|world| world.groups.all().map(|group| group.spec.name.clone()).collect());
        self.random.choice(names)
    }
}
