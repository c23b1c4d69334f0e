//! Worlds and policies other than the usual ones, from the beginning.

use fastrand::Rng;
use offramp_core::{IngressDaemonSet, Policy};
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::{App, Entrance};
use offramp_sandbox::world::cluster::WorkloadKind;
use offramp_sandbox::world::events::Route;

use super::script::seconds;

/// What is other than usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// Pods tolerate the cordon, so that the scheduler puts them on the node again.
    Tolerant,
    /// A DaemonSet brings traffic in, and the policy names it.
    Ingress,
    /// The gate holds nothing back for longer than some seconds.
    ShortGate,
    /// Kubelets shut their pods down gracefully, and the policy counts on that.
    ShutdownGrace,
    /// The policy has a tag that a group must have.
    Scoped,
    /// The clock of the first worker's machine is four minutes ahead, or behind.
    WrongClock,
}

impl Shape {
    pub(crate) const fn branch(self) -> (&'static str, &'static str) {
        match self {
            Self::Tolerant => ("pods tolerate the cordon and come back", "came back to the node"),
            Self::Ingress => ("the policy names an ingress DaemonSet", "evict default/ingress-"),
            Self::ShortGate => ("the gate holds back for seconds only", "last healthy target"),
            Self::ShutdownGrace => ("kubelets shut down gracefully", "spot notice taken on"),
            Self::Scoped => ("groups need a tag", "waiting for Auto Scaling to say"),
            Self::WrongClock => ("the clock of a machine is wrong", "the machine's clock is"),
        }
    }

    /// Gives a world this shape. The last cluster gets what is in a cluster.
    pub(crate) fn give(self, fleet: Fleet, policy: &mut Policy) -> Fleet {
        match self {
            Self::Tolerant => {
                return fleet.app(App { tolerates_all: true, ..App::new("tolerant", 4) });
            }
            Self::Ingress => {
                let (namespace, name) = ("default".to_owned(), "ingress".to_owned());
                policy.ingress_daemon_sets.insert(IngressDaemonSet { namespace, name });
                let entrance = Entrance { local: true, ..Entrance::new(31_000, 20.0) };
                let kind = WorkloadKind::DaemonSet;
                return fleet.app(App { kind, entrance: Some(entrance), ..App::new("ingress", 0) });
            }
            Self::ShortGate => policy.gate_limit = seconds(7),
            Self::ShutdownGrace => policy.node_shutdown_grace = seconds(120),
            Self::Scoped => policy.scoped = true,
            Self::WrongClock => {}
        }
        fleet
    }
}

/// Those of a seed, each in every twenty-fourth world, drawn apart from all else.
pub(crate) fn shapes(seed: u64) -> Vec<Shape> {
    let random = &mut Rng::with_seed(seed ^ 0x5a9e);
    let all = [
        Shape::Tolerant,
        Shape::Ingress,
        Shape::ShortGate,
        Shape::ShutdownGrace,
        Shape::Scoped,
        Shape::WrongClock,
    ];
    all.into_iter().filter(|_| random.u8(0..24) == 0).collect()
}

/// By how many milliseconds the clock of the first worker's machine is ahead.
pub(crate) fn clocks_ahead(seed: u64, shapes: &[Shape]) -> i64 {
    let ahead = if seed.is_multiple_of(2) { 240_000 } else { -240_000 };
    if shapes.contains(&Shape::WrongClock) { ahead } else { 0 }
}

/// How events come to the queue, where it is not by a rule.
pub(crate) fn route(seed: u64) -> Option<Route> {
    match Rng::with_seed(seed ^ 0x2075).u8(0..24) {
        0 => Some(Route::Queue),
        1 => Some(Route::Topic),
        _ => None,
    }
}
