//! Everything there is, as plain data, and what happens next, in order.

pub mod balancers;
pub mod cluster;
pub mod events;
pub mod groups;
pub mod instances;
pub mod queue;
pub mod traffic;

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{ClusterName, InstanceId, Timestamp};

use crate::delays::Delays;
use crate::faults::Faults;
use crate::witness::Witness;

/// As a label of a node: no node selector of an installation matches it. As a tag of a group: none has it in its scope.
pub const OUT_OF_SCOPE: &str = "sandbox/out-of-scope";

/// One world: an account with its Region, and the clusters in it.
#[derive(Debug)]
pub struct World {
    now: Timestamp,
    agenda: BTreeMap<(Timestamp, u64), Due>,
    sequence: u64,
    /// Makes every token, receipt and choice: a world repeats to the byte.
    pub(crate) random: fastrand::Rng,
    /// How long things take.
    pub delays: Delays,
    /// EventBridge: which events go where.
    pub events: events::Events,
    /// SQS.
    pub queues: queue::Queues,
    /// Auto Scaling.
    pub groups: groups::Groups,
    /// ELBv2.
    pub balancers: balancers::Balancers,
    /// EC2.
    pub instances: instances::Instances,
    /// Kubernetes.
    pub clusters: BTreeMap<ClusterName, cluster::Cluster>,
    /// Requests, served and lost.
    pub traffic: traffic::Traffic,
    /// What goes wrong at door one.
    pub faults: Faults,
    /// Who sees what the worker does.
    pub witness: Witness,
    /// How many calls of each kind came through both doors: `sqs.ReceiveMessage`.
    pub calls: BTreeMap<String, u64>,
    /// What happened, for people and for golden transcripts.
    pub story: Vec<(Timestamp, String)>,
}

/// Something that is bound to happen.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    Queue(queue::Due),
    Group(groups::Due),
    Balancer(balancers::Due),
    Instance(instances::Due),
    Cluster(ClusterName, cluster::Due),
}

impl World {
    /// An empty world at a moment. The same seed gives the same world.
    pub fn new(now: Timestamp, delays: Delays, seed: u64) -> Self {
        Self {
            now,
            agenda: BTreeMap::new(),
            sequence: 0,
            random: fastrand::Rng::with_seed(seed),
            delays,
            events: events::Events::default(),
            queues: queue::Queues::default(),
            groups: groups::Groups::default(),
            balancers: balancers::Balancers::default(),
            instances: instances::Instances::default(),
            clusters: BTreeMap::new(),
            traffic: traffic::Traffic::default(),
            faults: Faults::default(),
            witness: Witness::default(),
            calls: BTreeMap::new(),
            story: Vec::new(),
        }
    }

    /// The world's own time.
    pub const fn now(&self) -> Timestamp {
        self.now
    }

    /// Lets everything happen that is due until `then`. Says whether anything did.
    pub fn advance(&mut self, then: Timestamp) -> bool {
        let mut moved = false;
        while let Some(entry) = self.agenda.first_entry() {
            let (at, _) = *entry.key();
            if at > then {
                break;
            }
            let due = entry.remove();
            self.account_traffic(at);
            self.now = self.now.max(at);
            moved = true;
            match due {
                Due::Queue(due) => self.queue_due(due),
                Due::Group(due) => self.group_due(due),
                Due::Balancer(due) => self.balancer_due(due),
                Due::Instance(due) => self.instance_due(due),
                Due::Cluster(name, due) => self.cluster_due(&name, due),
            }
        }
        self.account_traffic(then);
        self.now = self.now.max(then);
        moved
    }

    /// When the next thing happens by itself.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.agenda.keys().next().map(|(at, _)| *at)
    }

    pub(crate) fn after(&mut self, delay: Duration, due: Due) {
        self.sequence += 1;
        self.agenda.insert((self.now + delay, self.sequence), due);
    }

    /// Writes a line into the story: what happened in the world, in the words of AWS and Kubernetes.
    pub(crate) fn tell(&mut self, line: impl Into<String>) {
        self.story.push((self.now, line.into()));
    }

    /// A fresh UUID, as tokens, receipts and UIDs have it (36 characters).
    pub(crate) fn uuid(&mut self) -> String {
        let (a, b) = (self.random.u64(..), self.random.u64(..));
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
            a >> 32,
            (a >> 16) & 0xffff,
            a & 0xfff,
            b >> 52,
            b & 0xffff_ffff_ffff
        )
    }

    /// A fresh instance id.
    pub(crate) fn instance_id(&mut self) -> InstanceId {
        loop {
            let text = format!("i-0{:016x}", self.random.u64(..));
            if let Some(id) = InstanceId::parse(&text).filter(|id| !self.instances.exists(id)) {
                return id;
            }
        }
    }
}
