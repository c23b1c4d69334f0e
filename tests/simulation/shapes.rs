//! Worlds and policies other than the usual ones, from the beginning.

use std::time::Duration;

use fastrand::Rng;
use offramp_core::{IngressDaemonSet, Policy};
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::cluster::WorkloadKind;
use offramp_sandbox::world::events::Route;

use super::course::{Course, lock};
use super::others::Owner;
use super::plan::{Event, at};
use super::pools::{POOLED, RETAINED, retained};
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
    /// Some nodes are not the worker's to touch.
    LeftAlone(Owner),
    /// Messages about instances of others are left in the queue, which another consumer reads too.
    Leave,
    /// A controller of another kind keeps a pod on every node.
    OtherDaemons,
    /// A group gives what it scales in to its warm pool, and takes it out again.
    WarmPool,
    /// Groups retain what is abandoned.
    Retention,
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
            Self::LeftAlone(Owner::Karpenter) => ("nodes are Karpenter's", "left alone: Karpenter removes"),
            Self::LeftAlone(Owner::Unselected) => ("nodes are not selected", "left alone: the node selector"),
            Self::LeftAlone(Owner::Untagged) => {
                ("a group has no tag", "left alone: the group is out of scope")
            }
            Self::Leave => ("messages of others are left", "another consumer takes the message"),
            Self::OtherDaemons => ("another DaemonSet's pods come back", "evict default/agent-"),
            Self::WarmPool => ("a scale-in fills a warm pool", "is back from the warm pool, and released"),
            Self::Retention => ("what is abandoned is retained", "neither that the instance goes nor"),
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
            Self::LeftAlone(owner) => {
                policy.scoped |= owner == Owner::Untagged;
                return fleet.pool(owner.pool());
            }
            Self::OtherDaemons => {
                let kind = WorkloadKind::OtherDaemonSet;
                return fleet.app(App { kind, tolerates_all: true, ..App::new("agent", 0) });
            }
            Self::WarmPool => return fleet.pool(Pool::new(POOLED, 3)),
            Self::Retention => return fleet.pool(retained()),
            Self::Leave | Self::WrongClock => {}
        }
        fleet
    }

    /// Before the first worker starts.
    pub(crate) fn begin(self, course: &mut Course) {
        match self {
            Self::Leave => {
                course.scene.settings.foreign.delete = false;
                lock(&course.checks).leaves = true;
            }
            Self::WrongClock => {
                course.scene.clocks_ahead = if course.random.bool() { 240_000 } else { -240_000 }
            }
            Self::WarmPool => {
                course.scene.sandbox.with(|world| world.groups.warm_pools.insert(POOLED.into()));
            }
            Self::Retention => course.scene.sandbox.with(|world| world.groups.retains_abandoned = true),
            Self::Tolerant
            | Self::Ingress
            | Self::ShortGate
            | Self::ShutdownGrace
            | Self::Scoped
            | Self::LeftAlone(_)
            | Self::OtherDaemons => {}
        }
    }

    /// What happens because of it.
    pub(crate) fn events(self, seed: u64) -> Vec<(Duration, Event)> {
        let random = &mut Rng::with_seed(seed ^ 0x9001);
        match self {
            Self::WarmPool => {
                let mut events = vec![(seconds(random.u64(0..300)), Event::Resize(POOLED, false))];
                events.extend((0..2).map(|_| (at(random), Event::Resize(POOLED, false))));
                events.extend((0..3).map(|_| (seconds(random.u64(600..1_200)), Event::Resize(POOLED, true))));
                events
            }
            Self::Retention => (0..2).map(|_| (at(random), Event::Resize(RETAINED, false))).collect(),
            Self::Tolerant
            | Self::Ingress
            | Self::ShortGate
            | Self::ShutdownGrace
            | Self::Scoped
            | Self::LeftAlone(_)
            | Self::Leave
            | Self::OtherDaemons
            | Self::WrongClock => Vec::new(),
        }
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
        Shape::LeftAlone(Owner::Karpenter),
        Shape::LeftAlone(Owner::Unselected),
        Shape::LeftAlone(Owner::Untagged),
        Shape::Leave,
        Shape::OtherDaemons,
        Shape::WarmPool,
        Shape::Retention,
    ];
    all.into_iter().filter(|_| random.u8(0..24) == 0).collect()
}

/// How events come to the queue, where it is not by a rule.
pub(crate) fn route(seed: u64) -> Option<Route> {
    match Rng::with_seed(seed ^ 0x2075).u8(0..24) {
        0 => Some(Route::Queue),
        1 => Some(Route::Topic),
        _ => None,
    }
}
