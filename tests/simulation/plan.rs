//! What a seed stands for: a fleet, a policy, and what happens when.

use std::collections::BTreeSet;
use std::time::Duration;

use fastrand::Rng;
use offramp_core::{BalancerKind, ClusterName, HookName, Policy, RebalancePolicy, SpotAction};
use offramp_sandbox::faults::Moment;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{Ending, ViewLag, WorkloadKind};
use offramp_sandbox::world::groups::{ActionResult, Hook};
use offramp_sandbox::{Delays, Fleet};

use super::contradictions::{Contradiction, contradictions};
use super::script::{START, seconds};

/// How much goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

/// A world before it begins.
pub(crate) struct Plan {
    pub(crate) fleet: Fleet,
    pub(crate) policy: Policy,
    pub(crate) events: Vec<(Duration, Event)>,
    /// How late the watches may be.
    pub(crate) view_lag: ViewLag,
}

/// Notices come during the first twenty minutes.
pub(crate) const BUSY: Duration = seconds(1_200);

impl Event {
    /// Where it is a switch: its name, and what the transcript says where the branch was taken that it is there for.
    const fn branch(&self) -> Option<(&'static str, &'static str)> {
        match self {
            Self::Contradiction(contradiction) => Some(contradiction.branch()),
            _ => None,
        }
    }
}

impl Plan {
    /// The switches that are on, each with the words of its branch.
    pub(crate) fn branches(&self) -> BTreeSet<(&'static str, &'static str)> {
        self.events.iter().filter_map(|(_, event)| event.branch()).collect()
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
        Self { fleet, policy, events, view_lag: view_lag(random, Mood::Calm) }
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
        let policy = policy(random, &names, served);
        let view_lag = view_lag(random, Mood::Wild);
        events.extend(losses(&mut Rng::with_seed(seed ^ 0x1057)));
        let contradictions = contradictions(seed).into_iter();
        events.extend(contradictions.map(|(at, contradiction)| (at, Event::Contradiction(contradiction))));
        Self { fleet, policy, events, view_lag }
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

fn pick(random: &mut Rng, choices: &[u64]) -> Duration {
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

fn wild_pool(random: &mut Rng, name: &str) -> Pool {
    let spot = random.bool();
    let nodes = random.usize(1..=5);
    let pool = if spot { Pool::spot(name, nodes) } else { Pool::new(name, nodes) };
    let default_result = if random.bool() { ActionResult::Continue } else { ActionResult::Abandon };
    let ours = Hook {
        heartbeat_timeout: pick(random, &[30, 60, 120, 300, 900, 3_600]),
        default_result,
        ..Hook::terminating("offramp")
    };
    let by_name = Hook {
        heartbeat_timeout: pick(random, &[60, 300, 1_800]),
        metadata: Some("owned by team 7".to_owned()),
        ..Hook::terminating(BY_NAME)
    };
    let foreign = Hook {
        heartbeat_timeout: pick(random, &[60, 300, 600]),
        default_result,
        metadata: Some("arn:aws:codedeploy:deployment/d-1".to_owned()),
        ..Hook::terminating("codedeploy")
    };
    let hooks = match random.u8(0..8) {
        0..=2 => vec![ours],
        3 => Vec::new(),
        4 => vec![ours, foreign],
        5 => vec![foreign],
        6 => vec![by_name],
        _ => vec![ours, by_name],
    };
    let mut pool = Pool { capacity_rebalancing: spot && random.bool(), hooks, ..pool };
    if random.u8(0..8) == 0 {
        pool.tags.insert("eks:nodegroup-name".to_owned(), name.to_owned());
        pool.labels.insert("eks.amazonaws.com/nodegroup".to_owned(), name.to_owned());
    }
    pool
}

fn wild_app(random: &mut Rng, name: &str, port: u16) -> App {
    let replicas = random.usize(1..=6);
    let kind = match random.u8(0..8) {
        0 => WorkloadKind::DaemonSet,
        1 => WorkloadKind::StatefulSet { replicas },
        _ => WorkloadKind::Deployment { replicas },
    };
    let min_available = match random.u8(0..6) {
        // It never gives way.
        0 => Some(replicas),
        1..=3 => Some(replicas - 1),
        _ => None,
    };
    let entrance = random.bool().then(|| {
        let network = random.bool();
        Entrance {
            balancer: if network { BalancerKind::Network } else { BalancerKind::Application },
            local: random.u8(0..3) == 0,
            attached: random.u8(0..3) == 0,
            deregistration_delay: Some(pick(random, &[0, 15, 60, 300])),
            long: (0.1, pick(random, &[0, 60])),
            ..Entrance::new(port, 20.0)
        }
    });
    let app = App {
        kind,
        grace: pick(random, &[0, 10, 30, 120, 900]),
        ending: Ending {
            pre_stop: pick(random, &[0, 5, 20]),
            takes: (random.u8(0..4) > 0).then(|| pick(random, &[0, 1, 10])),
            stuck: random.u8(0..12) == 0,
        },
        priority_class: match random.u8(0..10) {
            0 => Some("system-cluster-critical".to_owned()),
            1 => Some("system-node-critical".to_owned()),
            _ => None,
        },
        host_port: (random.u8(0..8) == 0).then_some(port),
        tolerates_all: random.u8(0..12) == 0,
        min_available,
        entrance,
        ..App::new(name, replicas)
    };
    if random.u8(0..10) > 0 {
        return app;
    }
    let let_finish = [("offramp.sh/let-finish".to_owned(), "true".to_owned())];
    App { annotations: let_finish.into(), ..app }
}

fn wild_event(random: &mut Rng) -> Event {
    match random.u8(0..28) {
        0..=2 => Event::ScaleIn,
        3 => Event::ScaleOut,
        4..=5 => Event::Spot(SpotAction::Terminate),
        6 => Event::Spot(if random.bool() { SpotAction::Stop } else { SpotAction::Hibernate }),
        7..=8 => Event::Rebalance,
        9..=10 => Event::RebalanceThenSpot(seconds(random.u64(1..900))),
        11 => Event::ConsoleTerminate,
        12 => Event::DeliverAgain(random.u32(1..6)),
        13 => Event::SendTwice(random.u32(1..4)),
        14 => Event::Garbage,
        15 => Event::Unknown,
        16 => Event::LateCopy,
        17 => Event::FalseHook,
        18 => Event::Cordon,
        19 => Event::Faults { per_mille: random.u32(1..150), span: seconds(random.u64(10..600)) },
        20 => Event::Outage(seconds(random.u64(5..240))),
        21 => Event::Lag(seconds(random.u64(0..20))),
        22 => Event::Kill(seconds(random.u64(0..90))),
        23 => Event::Crash {
            nth: random.u64(1..12),
            moment: if random.bool() { Moment::BeforeEffect } else { Moment::AfterEffect },
            pause: seconds(random.u64(0..90)),
        },
        24 => Event::Relabel { every: seconds(random.u64(10..60)), span: seconds(random.u64(60..600)) },
        25 => Event::Stop(seconds(random.u64(0..60))),
        26 => Event::Refusals(random.u32(1..5)),
        _ => Event::SecondWorker(seconds(random.u64(5..400))),
    }
}
