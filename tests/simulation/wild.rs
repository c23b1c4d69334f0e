//! The parts of a world in which everything goes wrong at once.

use fastrand::Rng;
use offramp_core::{BalancerKind, SpotAction};
use offramp_sandbox::faults::Moment;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::{Ending, WorkloadKind};
use offramp_sandbox::world::groups::{ActionResult, Hook};

use super::plan::{BY_NAME, Event, pick};
use super::script::seconds;

pub(crate) fn wild_pool(random: &mut Rng, name: &str) -> Pool {
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

pub(crate) fn wild_app(random: &mut Rng, name: &str, port: u16) -> App {
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

pub(crate) fn wild_event(random: &mut Rng) -> Event {
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
