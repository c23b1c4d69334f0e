//! What a seed stands for: a fleet, a policy, and what happens when.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use offramp_core::{BalancerKind, ClusterName, HookName, Policy, RebalancePolicy, SpotAction};
use offramp_sandbox::faults::Moment;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::ViewLag;
use offramp_sandbox::world::events::Route;
use offramp_sandbox::world::groups::Hook;
use offramp_sandbox::{Delays, Fleet};

use super::contradictions::{Contradiction, contradictions};
use super::outages::{Trouble, troubles};
use super::people::{Hand, hands};
use super::script::{START, seconds};
use super::shapes::{Shape, route, shapes};
use super::wild::{wild_app, wild_event, wild_pool};

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mood {
    /// Time is enough and nothing fails: no request may be lost.
    Calm,
    /// Everything at once.
    Wild,
}

impl Mood {
    /// Every fourth seed is a calm one.
    pub(crate) const fn of(seed: u64) -> Self {
        if seed.is_multiple_of(4) { Self::Calm } else { Self::Wild }
    }
}

/// What happens to the fleet, to the queue, to the ports and to the worker.
#[derive(Clone, Debug)]
pub(crate) enum Event {
    ScaleIn,
    ScaleOut,
    /// The group of this name, by one: up, or down.
    Resize(&'static str, bool),
    Spot(SpotAction),
    Rebalance,
    /// And so much later the interruption.
    RebalanceThenSpot(Duration),
    ConsoleTerminate,
    /// So many messages are delivered again while they are hidden.
    DeliverAgain(u32),
    /// So many events are sent as two messages.
    SendTwice(u32),
    Garbage,
    /// About an instance that nobody has.
    Unknown,
    /// A copy of an older message, long after it.
    LateCopy,
    /// A hook message for an instance in service: the group disagrees.
    FalseHook,
    /// Somebody cordons a node.
    Cordon,
    /// Controllers write to every node again and again for so long.
    Relabel {
        every: Duration,
        span: Duration,
    },
    Faults {
        per_mille: u32,
        span: Duration,
    },
    Outage(Duration),
    /// DescribeAutoScalingInstances is so much behind from now on.
    Lag(Duration),
    /// A worker is killed; the next one starts so much later.
    Kill(Duration),
    /// A worker dies at its next writing calls.
    Crash {
        nth: u64,
        moment: Moment,
        pause: Duration,
    },
    /// Auto Scaling refuses so many calls about open lifecycle actions.
    Refusals(u32),
    /// A worker is told to stop; the next one starts so much later.
    Stop(Duration),
    /// Two workers at once for so long.
    SecondWorker(Duration),
    /// So many of the next events never reach the queue.
    LoseEvents(u32),
    /// Every message is lost, those too that a worker holds.
    LoseMessages,
    /// A source says what another one contradicts.
    Contradiction(Contradiction),
    /// Somebody else works on a node that a worker has taken out.
    Hand(Hand),
    /// A part of what the worker needs fails for a while.
    Trouble(Trouble),
    /// Events come to the queue another way from now on.
    Route(Route),
}

/// A world before it begins.
pub(crate) struct Plan {
    pub(crate) fleet: Fleet,
    pub(crate) policy: Policy,
    pub(crate) events: Vec<(Duration, Event)>,
    /// How late the watches may be.
    pub(crate) view_lag: ViewLag,
    /// What is other than by default.
    pub(crate) shapes: Vec<Shape>,
}

/// Notices come during the first twenty minutes.
pub(crate) const BUSY: Duration = seconds(1_200);

impl Event {
    /// Where it is a switch: its name, and what the transcript says where the branch was taken that it is there for.
    const fn branch(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Contradiction(contradiction) => Some(contradiction.branch()),
            Self::Hand(hand) => Some(hand.branch()),
            Self::Trouble(trouble) => Some(trouble.branch()),
            Self::Route(Route::Queue) => {
                Some(("hooks notify the queue", "hook itself: EC2 Instance-terminate"))
            }
            Self::Route(Route::Topic) => {
                Some(("hooks notify a topic", "through a topic: EC2 Instance-terminate"))
            }
            _ => None,
        }
    }
}

impl Plan {
    /// The switches that are on, each with the words of its branch.
    pub(crate) fn branches(&self) -> BTreeSet<(&'static str, &'static str)> {
        let of_events = self.events.iter().filter_map(|(_, event)| event.branch());
        of_events.chain(self.shapes.iter().map(|shape| shape.branch())).collect()
    }

    pub(crate) fn of(seed: u64) -> Self {
        let random = &mut Rng::with_seed(seed);
        match Mood::of(seed) {
            Mood::Calm => Self::calm(seed, random),
            Mood::Wild => Self::wild(seed, random),
        }
    }

    /// Enough nodes, pods that serve on for as long as EndpointSlices take, budgets that give way, and
    /// never more leaving than can be missed.
    fn calm(seed: u64, random: &mut Rng) -> Self {
        let mut fleet = Fleet::new(START, Delays::aws(), seed);
        let names = clusters(random.usize(1..=2));
        // Without a hook only the interruption says beforehand that an instance goes.
        let hookless = random.u8(0..4) == 0;
        let mut fewest = usize::MAX;
        let mut port = 30_080;
        for name in &names {
            let nodes = random.usize(4..=6);
            fewest = fewest.min(nodes);
            let spot = hookless || random.bool();
            let pool = if spot { Pool::spot(name, nodes) } else { Pool::new(name, nodes) };
            let heartbeat_timeout = pick(random, &[120, 300, 900, 3_600]);
            let hooks = vec![Hook { heartbeat_timeout, ..Hook::terminating("offramp") }];
            fleet = fleet.cluster(name).pool(Pool {
                capacity_rebalancing: !hookless && spot && random.bool(),
                hooks: if hookless { Vec::new() } else { hooks },
                ..pool
            });
            for number in 0..random.usize(1..=2) {
                let replicas = random.usize(nodes..=nodes + 4);
                let mut entrance = Entrance {
                    attached: random.u8(0..4) == 0,
                    long: (0.05, pick(random, &[0, 5, 30, 60])),
                    ..Entrance::new(port, 50.0)
                };
                if random.bool() {
                    entrance.balancer = BalancerKind::Network;
                    // Two minutes are less than an NLB needs to be quiet.
                    entrance.local = !spot && random.bool();
                    if spot {
                        entrance.long = (0.0, Duration::ZERO);
                    }
                }
                port += 1;
                fleet = fleet.app(App {
                    min_available: Some(replicas - 1),
                    entrance: Some(entrance),
                    ..App::new(&format!("web{number}"), replicas)
                });
            }
        }
        let leaving = random.usize(1..=fewest - 3);
        let mut events = Vec::new();
        for _ in 0..leaving {
            let event = match random.u8(0..8) {
                0..=2 if !hookless => Event::ScaleIn,
                0..=4 => Event::Spot(SpotAction::Terminate),
                5 => Event::Rebalance,
                6 => Event::RebalanceThenSpot(seconds(random.u64(5..900))),
                _ => Event::FalseHook,
            };
            events.push((at(random), event));
        }
        for _ in 0..random.usize(0..4) {
            let event = match random.u8(0..4) {
                0 => Event::Garbage,
                1 => Event::Unknown,
                2 => Event::DeliverAgain(random.u32(1..4)),
                _ => Event::SendTwice(random.u32(1..4)),
            };
            events.push((at(random), event));
        }
        let policy = policy(random, &names, &names);
        Self { fleet, policy, events, view_lag: view_lag(random, Mood::Calm), shapes: Vec::new() }
    }

    fn wild(seed: u64, random: &mut Rng) -> Self {
        let mut fleet = Fleet::new(START, Delays::aws(), seed);
        let names = clusters(random.usize(1..=3));
        let unserved = names.len() > 1 && random.u8(0..3) == 0;
        let served = if unserved { &names[..names.len() - 1] } else { &names[..] };
        let mut port = 30_080;
        for name in &names {
            fleet = fleet.cluster(name);
            for number in 0..random.usize(1..=2) {
                fleet = fleet.pool(wild_pool(random, &format!("{name}-{number}")));
            }
            for number in 0..random.usize(1..=4) {
                port += 1;
                fleet = fleet.app(wild_app(random, &format!("app{number}"), port));
            }
        }
        let mut events: Vec<_> =
            (0..random.usize(3..=14)).map(|_| (at(random), wild_event(random))).collect();
        let mut policy = policy(random, &names, served);
        let view_lag = view_lag(random, Mood::Wild);
        events.extend(losses(&mut Rng::with_seed(seed ^ 0x1057)));
        let contradictions = contradictions(seed).into_iter();
        events.extend(contradictions.map(|(at, contradiction)| (at, Event::Contradiction(contradiction))));
        events.extend(hands(seed).into_iter().map(|(at, hand)| (at, Event::Hand(hand))));
        events.extend(troubles(seed).into_iter().map(|(at, trouble)| (at, Event::Trouble(trouble))));
        events.extend(route(seed).map(|route| (Duration::ZERO, Event::Route(route))));
        let shapes = shapes(seed);
        events.extend(shapes.iter().flat_map(|shape| shape.events(seed)));
        for shape in &shapes {
            fleet = shape.give(fleet, &mut policy);
        }
        Self { fleet, policy, events, view_lag, shapes }
    }
}

/// Drawn apart from the rest, so that a seed stands for the world that it stood for before there were losses.
fn losses(random: &mut Rng) -> Vec<(Duration, Event)> {
    let loss = |random: &mut Rng| match random.u8(0..4) {
        0 => Event::LoseMessages,
        _ => Event::LoseEvents(random.u32(1..4)),
    };
    let count = if random.u8(0..3) == 0 { random.usize(1..=3) } else { 0 };
    (0..count).map(|_| (at(random), loss(random))).collect()
}

fn clusters(count: usize) -> Vec<&'static str> {
    ["blue", "green", "red"].into_iter().take(count).collect()
}

pub(crate) fn at(random: &mut Rng) -> Duration {
    Duration::from_millis(random.u64(0..1_200_000))
}

/// Nothing; or up to somewhat more than was measured under a storm (1.5 to 3.4 s); or, where things may go
/// wrong, so much that the worker has long stopped to wait for what it has written itself.
fn view_lag(random: &mut Rng, mood: Mood) -> ViewLag {
    let mut watch = || match (random.u8(0..8), mood) {
        (0..=2, _) => Duration::ZERO,
        (3, Mood::Wild) => Duration::from_millis(random.u64(4_000..15_000)),
        (3.., _) => Duration::from_millis(random.u64(1..4_000)),
    };
    ViewLag { nodes: watch(), pods: watch() }
}

pub(crate) fn pick(random: &mut Rng, choices: &[u64]) -> Duration {
    seconds(random.choice(choices).copied().unwrap_or_default())
}

fn policy(random: &mut Rng, all: &[&str], served: &[&str]) -> Policy {
    let hook_names = if all == served { BTreeSet::from([HookName::new(BY_NAME)]) } else { BTreeSet::new() };
    Policy {
        clusters: served.iter().map(|name| ClusterName::new(*name)).collect(),
        hook_names,
        rebalance: match random.u8(0..4) {
            0 => RebalancePolicy::None,
            1 => RebalancePolicy::Isolate,
            _ => RebalancePolicy::Automatic,
        },
        hook_limit: pick(random, &[1_200, 3_600]),
        ..offramp_engine::default_policy()
    }
}

/// A hook that is ours by its name and says nothing about a cluster.
pub(crate) const BY_NAME: &str = "drain";
