//! The kinds of objects that this API server has, and one look at any of them.

use std::collections::BTreeMap;

use offramp_core::{NodeName, Timestamp};

use crate::world::cluster::{Budget, Cluster, Node, Object, Pod, Service, Workload, WorkloadKind};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Pod,
    Service,
    Budget,
    DaemonSet,
}

/// An object, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'a> {
    Node(&'a Node),
    Pod(&'a Pod),
    Service(&'a Service),
    Budget(&'a Budget, Health),
    DaemonSet(&'a Workload, Health),
}

/// An object taken out of the world, to be rendered without holding it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    object: Owned,
    health: Health,
}

#[derive(Clone, Debug)]
enum Owned {
    Watched(Object),
    DaemonSet(Workload),
}

/// What a disruption budget or a workload counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Its pods.
    pub(super) expected: usize,
    /// Those that are healthy.
    pub(super) healthy: usize,
}

impl Kind {
    pub(super) const ALL: [Self; 5] = [Self::Node, Self::Pod, Self::Service, Self::Budget, Self::DaemonSet];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Budget => "PodDisruptionBudget",
            Self::DaemonSet => "DaemonSet",
        }
    }

    pub(super) const fn list_name(self) -> &'static str {
        match self {
            Self::Node => "NodeList",
            Self::Pod => "PodList",
            Self::Service => "ServiceList",
            Self::Budget => "PodDisruptionBudgetList",
            Self::DaemonSet => "DaemonSetList",
        }
    }

    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::Budget => "poddisruptionbudgets",
            Self::DaemonSet => "daemonsets",
        }
    }

    pub(super) const fn singular(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Budget => "poddisruptionbudget",
            Self::DaemonSet => "daemonset",
        }
    }

    pub(super) const fn short_name(self) -> &'static str {
        match self {
            Self::Node => "no",
            Self::Pod => "po",
            Self::Service => "svc",
            Self::Budget => "pdb",
            Self::DaemonSet => "ds",
        }
    }

    /// The API group; the core group has no name.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Node | Self::Pod | Self::Service => "",
            Self::Budget => "policy",
            Self::DaemonSet => "apps",
        }
    }

    pub(super) const fn api_version(self) -> &'static str {
        match self {
            Self::Node | Self::Pod | Self::Service => "v1",
            Self::Budget => "policy/v1",
            Self::DaemonSet => "apps/v1",
        }
    }

    /// Workloads are only read: the world keeps no changes of theirs.
    pub(super) const fn can_be_watched(self) -> bool {
        !matches!(self, Self::DaemonSet)
    }

    pub(super) const fn is_namespaced(self) -> bool {
        !matches!(self, Self::Node)
    }
}

impl<'a> View<'a> {
    /// Every object of a kind, in the order of the API server's store.
    pub(super) fn all(cluster: &'a Cluster, kind: Kind) -> Box<dyn Iterator<Item = Self> + 'a> {
        match kind {
            Kind::Node => Box::new(cluster.nodes.values().map(View::Node)),
            Kind::Pod => Box::new(cluster.pods.values().map(View::Pod)),
            Kind::Service => Box::new(cluster.services.values().map(View::Service)),
            Kind::Budget => Box::new(
                cluster.budgets.values().map(|budget| View::Budget(budget, Health::of(budget, cluster))),
            ),
            Kind::DaemonSet => Box::new(
                cluster.workloads.values().filter_map(|workload| View::daemon_set(workload, cluster)),
            ),
        }
    }

    /// One object.
    pub(super) fn find(
        cluster: &'a Cluster,
        kind: Kind,
        namespace: Option<&str>,
        name: &str,
    ) -> Option<Self> {
        let key = || (namespace.unwrap_or_default().to_owned(), name.to_owned());
        match kind {
            Kind::Node => cluster.nodes.get(&NodeName::new(name)).map(View::Node),
            Kind::Pod => cluster.pods.get(&key()).map(View::Pod),
            Kind::Service => cluster.services.get(&key()).map(View::Service),
            Kind::Budget => {
                cluster.budgets.get(&key()).map(|budget| View::Budget(budget, Health::of(budget, cluster)))
            }
            Kind::DaemonSet => {
                cluster.workloads.get(&key()).and_then(|workload| View::daemon_set(workload, cluster))
            }
        }
    }

    /// An object of a change. A budget shows what it counts now, which the world does not remember.
    pub(super) fn of(object: &'a Object, cluster: &Cluster) -> Self {
        match object {
            Object::Node(node) => Self::Node(node),
            Object::Pod(pod) => Self::Pod(pod),
            Object::Service(service) => Self::Service(service),
            Object::Budget(budget) => Self::Budget(budget, Health::of(budget, cluster)),
        }
    }

    fn daemon_set(workload: &'a Workload, cluster: &Cluster) -> Option<Self> {
        (workload.kind == WorkloadKind::DaemonSet)
            .then(|| Self::DaemonSet(workload, Health::of_workload(workload, cluster)))
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Budget(..) => Kind::Budget,
            Self::DaemonSet(..) => Kind::DaemonSet,
        }
    }

    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Node(node) => node.name.as_str(),
            Self::Pod(pod) => &pod.pod.name,
            Self::Service(service) => &service.name,
            Self::Budget(budget, _) => &budget.name,
            Self::DaemonSet(workload, _) => &workload.name,
        }
    }

    pub(super) fn namespace(self) -> Option<&'a str> {
        match self {
            Self::Node(_) => None,
            Self::Pod(pod) => Some(&pod.pod.namespace),
            Self::Service(service) => Some(&service.namespace),
            Self::Budget(budget, _) => Some(&budget.namespace),
            Self::DaemonSet(workload, _) => Some(&workload.namespace),
        }
    }

    /// Labels, of the kinds that have some here.
    pub(super) const fn labels(self) -> Option<&'a BTreeMap<String, String>> {
        match self {
            Self::Node(node) => Some(&node.labels),
            Self::Pod(pod) => Some(&pod.labels),
            Self::Service(_) | Self::Budget(..) | Self::DaemonSet(..) => None,
        }
    }

    pub(super) const fn created(self) -> Option<Timestamp> {
        match self {
            Self::Node(node) => Some(node.created),
            Self::Pod(pod) => Some(pod.created),
            Self::Service(_) | Self::Budget(..) | Self::DaemonSet(..) => None,
        }
    }

    /// `metadata.resourceVersion`. A workload never changes.
    pub(super) const fn version(self) -> u64 {
        match self {
            Self::Node(node) => node.version,
            Self::Pod(pod) => pod.version,
            Self::Service(service) => service.version,
            Self::Budget(budget, _) => budget.version,
            Self::DaemonSet(..) => 1,
        }
    }

    pub(super) fn to_item(self) -> Item {
        let (object, health) = match self {
            Self::Node(node) => (Object::Node(node.clone()), Health::default()),
            Self::Pod(pod) => (Object::Pod(pod.clone()), Health::default()),
            Self::Service(service) => (Object::Service(service.clone()), Health::default()),
            Self::Budget(budget, health) => (Object::Budget(budget.clone()), health),
            Self::DaemonSet(workload, health) => {
                return Item { object: Owned::DaemonSet(workload.clone()), health };
            }
        };
        Item { object: Owned::Watched(object), health }
    }
}

impl Item {
    pub(super) const fn view(&self) -> View<'_> {
        match &self.object {
            Owned::Watched(Object::Node(node)) => View::Node(node),
            Owned::Watched(Object::Pod(pod)) => View::Pod(pod),
            Owned::Watched(Object::Service(service)) => View::Service(service),
            Owned::Watched(Object::Budget(budget)) => View::Budget(budget, self.health),
            Owned::DaemonSet(workload) => View::DaemonSet(workload, self.health),
        }
    }
}

impl Health {
    fn of(budget: &Budget, cluster: &Cluster) -> Self {
        let expected = cluster.pods.values().filter(|pod| budget.covers(pod)).count();
        Self { expected, healthy: cluster.healthy_pods(budget) }
    }

    fn of_workload(workload: &Workload, cluster: &Cluster) -> Self {
        let is_its_own = |pod: &&Pod| pod.owner.as_ref().is_some_and(|owner| owner.uid == workload.uid);
        let pods = cluster.pods.values().filter(is_its_own);
        pods.fold(Self::default(), |sum, pod| Self {
            expected: sum.expected + 1,
            healthy: sum.healthy + usize::from(pod.ready),
        })
    }

    /// How many evictions the budget allows now.
    pub(super) const fn allowed(self, budget: &Budget) -> usize {
        self.healthy.saturating_sub(budget.min_available)
    }
}
