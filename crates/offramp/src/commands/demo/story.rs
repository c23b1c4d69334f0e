//! What happens in the demo's world: two clusters on one queue, a scale-in, a spot storm.

use std::collections::BTreeSet;
use std::time::Duration;

use offramp_core::{BalancerKind, ClusterName, GroupName, InstanceId, SpotAction, Timestamp};
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::groups::MemberState;
use offramp_sandbox::{Delays, Fleet, Sandbox, World};

/// The plan, and how far it has come.
pub(crate) struct Story {
    started: Timestamp,
    fleet: Option<Fleet>,
    next: usize,
    said_what_is_waited_for: bool,
    /// Instances that the groups let go.
    pub(crate) scaled_in: BTreeSet<InstanceId>,
    /// Instances that EC2 takes back.
    pub(crate) interrupted: BTreeSet<InstanceId>,
}

/// When each scene begins, after the start. The spot notices come first: their two minutes decide how
/// long the demo takes.
const SCENES: [(Duration, Scene); 6] = [
    (Duration::from_secs(2), Scene::SpotStorm),
    (Duration::from_secs(6), Scene::ScaleIn),
    (Duration::from_secs(12), Scene::OtherCluster),
    (Duration::from_secs(45), Scene::TightBudget),
    (Duration::from_secs(46), Scene::ScaleInAgain),
    (Duration::from_secs(70), Scene::LooseBudget),
];

#[derive(Clone, Copy)]
enum Scene {
    SpotStorm,
    ScaleIn,
    OtherCluster,
    TightBudget,
    ScaleInAgain,
    LooseBudget,
}

impl Story {
    pub(crate) fn new(started: Timestamp, delays: Delays, seed: u64) -> Self {
        let web = App {
            min_available: Some(9),
            entrance: Some(Entrance::new(30_080, 200.0)),
            ..App::new("web", 12)
        };
        // Traffic reaches these pods only through their own node, so they may go only after it has left.
        let ingress = App {
            min_available: Some(3),
            entrance: Some(Entrance {
                balancer: BalancerKind::Network,
                local: true,
                ..Entrance::new(30_443, 100.0)
            }),
            ..App::new("ingress", 6)
        };
        let shop = App {
            min_available: Some(4),
            entrance: Some(Entrance::new(30_081, 50.0)),
            ..App::new("shop", 6)
        };
        let unhooked = Pool { hooks: Vec::new(), ..Pool::spot("blue-spot-unhooked", 2) };
        let fleet = Fleet::new(started, delays, seed)
            .cluster("blue")
            .pool(Pool::new("blue-workers", 6))
            .pool(Pool::spot("blue-spot", 4))
            .pool(unhooked)
            .app(web)
            .app(ingress)
            .cluster("green")
            .pool(Pool::new("green-workers", 3))
            .app(shop);
        Self {
            started,
            fleet: Some(fleet),
            next: 0,
            said_what_is_waited_for: false,
            scaled_in: BTreeSet::new(),
            interrupted: BTreeSet::new(),
        }
    }

    /// The world at the start. Empty when asked a second time.
    pub(crate) fn build(&mut self) -> World {
        match self.fleet.take() {
            Some(fleet) => fleet.build(),
            None => World::new(self.started, Delays::demo(), 0),
        }
    }

    /// Begins every scene that is due, and says in words what happens.
    pub(crate) fn go_on(&mut self, sandbox: &Sandbox) -> Vec<String> {
        let mut told = Vec::new();
        while let Some((after, scene)) = SCENES.get(self.next) {
            if sandbox.now() < self.started + *after {
                break;
            }
            self.next += 1;
            told.push(match scene {
                Scene::SpotStorm => self.spot_storm(sandbox),
                Scene::ScaleIn => self.scale_in(sandbox, "blue-workers", 2),
                Scene::OtherCluster => self.scale_in(sandbox, "green-workers", 1),
                Scene::TightBudget => {
                    set_budget(sandbox, 12);
                    "the disruption budget of `web` allows nothing from now on".to_owned()
                }
                Scene::ScaleInAgain => self.scale_in(sandbox, "blue-workers", 1),
                Scene::LooseBudget => {
                    set_budget(sandbox, 9);
                    "the disruption budget of `web` gives way".to_owned()
                }
            });
        }
        if !self.said_what_is_waited_for && self.next == SCENES.len() && sandbox.peek(messages) == 0 {
            self.said_what_is_waited_for = true;
            told.push("every notice is served: waiting for EC2 to end the instances".to_owned());
        }
        told
    }

    /// Every instance has ended, its replacement is in service, and the queue is empty.
    pub(crate) fn is_over(&self, sandbox: &Sandbox) -> bool {
        self.next == SCENES.len() && self.open(sandbox).is_empty()
    }

    /// What has not come to its end, in words.
    pub(crate) fn open(&self, sandbox: &Sandbox) -> String {
        sandbox.peek(|world| {
            let mut open: Vec<String> = Vec::new();
            let ended = |id: &&InstanceId| {
                world.instances.get(id).is_none_or(|instance| {
                    instance.state == offramp_sandbox::world::instances::InstanceState::Terminated
                })
            };
            let alive = self.leaving().filter(|id| !ended(id)).count();
            if alive > 0 {
                open.push(format!("{alive} instances have not ended"));
            }
            let left = messages(world);
            if left > 0 {
                open.push(format!("{left} messages are left"));
            }
            open.join(", ")
        })
    }

    fn leaving(&self) -> impl Iterator<Item = &InstanceId> {
        self.scaled_in.iter().chain(&self.interrupted)
    }

    fn spot_storm(&mut self, sandbox: &Sandbox) -> String {
        let doomed: Vec<InstanceId> = members(sandbox, "blue-spot")
            .into_iter()
            .take(3)
            .chain(members(sandbox, "blue-spot-unhooked").into_iter().take(1))
            .collect();
        sandbox.with(|world| {
            for id in &doomed {
                world.spot_interrupt(id, SpotAction::Terminate);
            }
        });
        let count = doomed.len();
        self.interrupted.extend(doomed);
        format!("EC2 takes {count} spot instances of cluster blue back, in two minutes")
    }

    fn scale_in(&mut self, sandbox: &Sandbox, group: &str, fewer: usize) -> String {
        let refused = sandbox.with(|world| world.scale_in(&GroupName::new(group), fewer)).err();
        let leaving = sandbox.peek(|world| {
            let members = world.groups.get(&GroupName::new(group)).map(|group| &group.members);
            let leaving = members.into_iter().flatten().filter(|(_, m)| m.state != MemberState::InService);
            leaving.map(|(id, _)| id.clone()).collect::<Vec<_>>()
        });
        self.scaled_in.extend(leaving);
        match refused {
            None => format!("the group {group} is scaled in by {fewer}"),
            Some(refusal) => format!("the group {group} cannot be scaled in: {refusal}"),
        }
    }
}

/// Messages that wait or are in flight.
fn messages(world: &World) -> u64 {
    let depth = world.queues.get("offramp").map(|queue| queue.depth(world.now()));
    depth.map_or(0, |(waiting, in_flight)| waiting + in_flight)
}

/// Sets how many pods of `web` have to stay.
fn set_budget(sandbox: &Sandbox, min_available: usize) {
    sandbox.with(|world| {
        let blue = world.clusters.get_mut(&ClusterName::new("blue"));
        let budgets = blue.into_iter().flat_map(|blue| blue.budgets.values_mut());
        budgets.filter(|budget| budget.name == "web").for_each(|budget| budget.min_available = min_available);
    });
}

fn members(sandbox: &Sandbox, group: &str) -> Vec<InstanceId> {
    sandbox.peek(|world| {
        let group = world.groups.get(&GroupName::new(group));
        group.map(|group| group.members.keys().cloned().collect()).unwrap_or_default()
    })
}
