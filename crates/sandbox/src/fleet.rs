//! Makes worlds for tests, demos and measurements: everything is launched, Ready and healthy when the
//! clock reads the start.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{BalancerKind, ClusterName, GroupName, TargetGroupArn, Timestamp, Zone};

use crate::world::cluster::{Budget, Ending, PodTemplate, Service, Workload, WorkloadKind};
use crate::world::groups::{GroupSpec, Hook, Template};
use crate::world::traffic::Stream;
use crate::{Delays, World};

/// How often a message may be received before it goes to the dead-letter queue: enough for a drain of
/// hours that changes hands.
const MAX_RECEIVE_COUNT: u32 = 100;

/// The plan of a world.
#[derive(Clone, Debug)]
pub struct Fleet {
    start: Timestamp,
    delays: Delays,
    seed: u64,
    queue: String,
    clusters: Vec<Plan>,
}

#[derive(Clone, Debug)]
struct Plan {
    name: ClusterName,
    pools: Vec<Pool>,
    apps: Vec<App>,
}

/// An Auto Scaling group whose instances are nodes of a cluster.
#[derive(Clone, Debug)]
pub struct Pool {
    /// The group's name.
    pub name: GroupName,
    /// Its desired capacity.
    pub nodes: usize,
    /// Its zones.
    pub zones: Vec<Zone>,
    /// Spot instances.
    pub spot: bool,
    /// CapacityRebalance.
    pub capacity_rebalancing: bool,
    /// Its hooks. A terminate hook without metadata gets the cluster's name.
    pub hooks: Vec<Hook>,
    /// Labels of its nodes.
    pub labels: BTreeMap<String, String>,
    /// Tags of the group.
    pub tags: BTreeMap<String, String>,
}

/// A workload with what belongs to it: budget, Service, target group, requests.
#[derive(Clone, Debug)]
pub struct App {
    /// Its namespace.
    pub namespace: String,
    /// Its name, also of its budget and its Service, and the value of its pods' label `app`.
    pub name: String,
    /// What it is, and how many pods it has.
    pub kind: WorkloadKind,
    /// `terminationGracePeriodSeconds`.
    pub grace: Duration,
    /// How its pods end.
    pub ending: Ending,
    /// Annotations of its pods.
    pub annotations: BTreeMap<String, String>,
    /// `priorityClassName`.
    pub priority_class: Option<String>,
    /// A hostPort.
    pub host_port: Option<u16>,
    /// Its pods tolerate everything, a cordon too.
    pub tolerates_all: bool,
    /// `minAvailable` of its disruption budget.
    pub min_available: Option<usize>,
    /// How requests come to it.
    pub entrance: Option<Entrance>,
}

/// A target group in front of a Service, and the requests that come through it.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// The kind of balancer.
    pub balancer: BalancerKind,
    /// The Service's node port.
    pub node_port: u16,
    /// `externalTrafficPolicy: Local`.
    pub local: bool,
    /// Attached to the Auto Scaling groups of the cluster; otherwise a controller in the cluster fills
    /// the target group.
    pub attached: bool,
    /// The target group's own deregistration delay.
    pub deregistration_delay: Option<Duration>,
    /// Requests per second.
    pub rate: f64,
    /// The share of requests that last, and how long.
    pub long: (f64, Duration),
}

impl Fleet {
    /// A world that starts at this moment. The same seed gives the same world.
    pub fn new(start: Timestamp, delays: Delays, seed: u64) -> Self {
        Self { start, delays, seed, queue: "offramp".to_owned(), clusters: Vec::new() }
    }

    /// Another name for the queue that events go to.
    #[must_use]
    pub fn queue(mut self, name: &str) -> Self {
        name.clone_into(&mut self.queue);
        self
    }

    /// Adds a cluster with kube-proxy on every node. What follows belongs to it.
    #[must_use]
    pub fn cluster(mut self, name: &str) -> Self {
        let kube_proxy = App {
            namespace: "kube-system".to_owned(),
            kind: WorkloadKind::DaemonSet,
            priority_class: Some("system-node-critical".to_owned()),
            ..App::new("kube-proxy", 0)
        };
        self.clusters.push(Plan { name: ClusterName::new(name), pools: Vec::new(), apps: vec![kube_proxy] });
        self
    }

    /// Adds nodes to the last cluster.
    #[must_use]
    pub fn pool(mut self, pool: Pool) -> Self {
        if let Some(plan) = self.clusters.last_mut() {
            plan.pools.push(pool);
        }
        self
    }

    /// Adds a workload to the last cluster.
    #[must_use]
    pub fn app(mut self, app: App) -> Self {
        if let Some(plan) = self.clusters.last_mut() {
            plan.apps.push(app);
        }
        self
    }

    /// Makes the world and lets it come up before its start, so that nothing happens by itself any more.
    pub fn build(self) -> World {
        let Self { start, delays, seed, queue, clusters } = self;
        let warm_up = delays.launch
            + delays.first_health_checks
            + delays.pod_start * 2
            + delays.endpoint_slices
            + Duration::from_secs(60);
        let mut world = World::new(start - warm_up, delays, seed);
        world.create_event_queue(&queue, MAX_RECEIVE_COUNT);
        let mut streams = Vec::new();
        for plan in clusters {
            world.add_cluster(&plan.name);
            streams.extend(world.set_up(plan));
        }
        world.advance(start);
        world.story.clear();
        world.calls.clear();
        // Nobody sends requests before there is anything to answer them.
        streams.into_iter().for_each(|stream| world.traffic.add_stream(stream));
        world
    }
}

impl Pool {
    /// A group with so many nodes in three zones and a terminate hook `offramp` of 300 s.
    pub fn new(name: &str, nodes: usize) -> Self {
        let hook = Hook { heartbeat_timeout: Duration::from_secs(300), ..Hook::terminating("offramp") };
        Self {
            name: GroupName::new(name),
            nodes,
            zones: ["eu-west-1a", "eu-west-1b", "eu-west-1c"].map(Zone::new).to_vec(),
            spot: false,
            capacity_rebalancing: false,
            hooks: vec![hook],
            labels: BTreeMap::new(),
            tags: BTreeMap::new(),
        }
    }

    /// The same with spot instances.
    pub fn spot(name: &str, nodes: usize) -> Self {
        Self { spot: true, ..Self::new(name, nodes) }
    }

    fn spec(self, cluster: &ClusterName, target_groups: Vec<TargetGroupArn>) -> GroupSpec {
        let name_cluster = |hook: Hook| {
            let metadata = hook.metadata.or_else(|| Some(cluster.to_string()));
            Hook { metadata, ..hook }
        };
        GroupSpec {
            name: self.name,
            min: 0,
            // Room for replacements that come before what they replace has gone.
            max: self.nodes * 2 + 10,
            desired: self.nodes,
            hooks: self.hooks.into_iter().map(name_cluster).collect(),
            tags: self.tags,
            target_groups,
            capacity_rebalancing: self.capacity_rebalancing,
            template: Template {
                zones: self.zones,
                spot: self.spot,
                cluster: Some(cluster.clone()),
                labels: self.labels,
            },
        }
    }
}

impl App {
    /// A Deployment in the namespace `default`: a grace of 30 s, five seconds of preStop, and a second
    /// from SIGTERM to the end.
    pub fn new(name: &str, replicas: usize) -> Self {
        Self {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            kind: WorkloadKind::Deployment { replicas },
            grace: Duration::from_secs(30),
            ending: Ending {
                pre_stop: Duration::from_secs(5),
                takes: Some(Duration::from_secs(1)),
                stuck: false,
            },
            annotations: BTreeMap::new(),
            priority_class: None,
            host_port: None,
            tolerates_all: false,
            min_available: None,
            entrance: None,
        }
    }

    fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([("app".to_owned(), self.name.clone())])
    }

    fn template(&self) -> PodTemplate {
        PodTemplate {
            labels: self.labels(),
            annotations: self.annotations.clone(),
            priority_class: self.priority_class.clone(),
            grace: self.grace,
            host_port: self.host_port,
            tolerates_all: self.tolerates_all,
            ending: self.ending.clone(),
        }
    }
}

impl Entrance {
    /// An Application Load Balancer whose target group a controller fills.
    pub fn new(node_port: u16, rate: f64) -> Self {
        Self {
            balancer: BalancerKind::Application,
            node_port,
            local: false,
            attached: false,
            deregistration_delay: None,
            rate,
            long: (0.0, Duration::ZERO),
        }
    }
}

impl World {
    fn set_up(&mut self, plan: Plan) -> Vec<Stream> {
        let Plan { name, pools, apps } = plan;
        let mut attached = Vec::new();
        let mut streams = Vec::new();
        for app in apps {
            let (labels, template) = (app.labels(), app.template());
            let App { namespace, name: app_name, kind, min_available, entrance, .. } = app;
            let uid = self.uuid();
            let workload =
                Workload { namespace: namespace.clone(), name: app_name.clone(), uid, kind, template };
            self.add_workload(&name, workload);
            if let Some(min_available) = min_available {
                let budget = Budget {
                    namespace: namespace.clone(),
                    name: app_name.clone(),
                    selector: labels.clone(),
                    min_available,
                    version: 0,
                };
                self.add_budget(&name, budget);
            }
            let Some(entrance) = entrance else { continue };
            let arn = self.open(&name, &app_name, &entrance);
            attached.extend(entrance.attached.then(|| arn.clone()));
            let service = Service {
                namespace,
                name: app_name.clone(),
                uid: self.uuid(),
                selector: labels,
                node_port: entrance.node_port,
                local: entrance.local,
                target_group: (!entrance.attached).then(|| arn.clone()),
                version: 0,
            };
            self.add_service(&name, service);
            let stream = Stream::new(format!("{name}/{app_name}"), arn, entrance.rate);
            streams.push(stream.with_long(entrance.long.0, entrance.long.1));
        }
        for pool in pools {
            self.create_group(pool.spec(&name, attached.clone()));
        }
        streams
    }

    fn open(&mut self, cluster: &ClusterName, app: &str, entrance: &Entrance) -> TargetGroupArn {
        let arn =
            self.create_target_group(&format!("{cluster}-{app}"), entrance.balancer, entrance.node_port);
        if let Some(group) = self.target_group_mut(&arn) {
            // Where the AWS Load Balancer Controller says to whom a target group belongs.
            group.tags.insert("elbv2.k8s.aws/cluster".to_owned(), cluster.to_string());
            if let Some(delay) = entrance.deregistration_delay {
                group.deregistration_delay = delay;
            }
        }
        arn
    }
}

#[cfg(test)]
mod tests;
