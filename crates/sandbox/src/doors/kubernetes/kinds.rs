//! The kinds of objects that this API server has, and one look at any of them.

use std::collections::BTreeMap;

use offramp_core::{NodeName, Timestamp};

use crate::world::cluster::{Budget, Cluster, Node, Object, Pod, Service};

/// A kind of objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Node,
    Pod,
    Service,
    Budget,
}

/// An object, borrowed.
#[derive(Clone, Copy, Debug)]
pub(super) enum View<'a> {
    Node(&'a Node),
    Pod(&'a Pod),
    Service(&'a Service),
    Budget(&'a Budget, Health),
}

/// An object taken out of the world, to be rendered without holding it.
#[derive(Clone, Debug)]
pub(super) struct Item {
    object: Object,
    health: Health,
}

/// What a disruption budget counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Health {
    /// Pods that it covers.
    pub(super) expected: usize,
    /// Those that are healthy.
    pub(super) healthy: usize,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Node, Self::Pod, Self::Service, Self::Budget];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Node => "Node",
            Self::Pod => "Pod",
            Self::Service => "Service",
            Self::Budget => "PodDisruptionBudget",
        }
    }

    pub(super) const fn list_name(self) -> &'static str {
        match self {
            Self::Node => "NodeList",
            Self::Pod => "PodList",
            Self::Service => "ServiceList",
            Self::Budget => "PodDisruptionBudgetList",
        }
    }

    pub(super) const fn plural(self) -> &'static str {
        match self {
            Self::Node => "nodes",
            Self::Pod => "pods",
            Self::Service => "services",
            Self::Budget => "poddisruptionbudgets",
        }
    }

    pub(super) const fn singular(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Budget => "poddisruptionbudget",
        }
    }

    pub(super) const fn short_name(self) -> &'static str {
        match self {
            Self::Node => "no",
            Self::Pod => "po",
            Self::Service => "svc",
            Self::Budget => "pdb",
        }
    }

    /// The API group; the core group has no name.
    pub(super) const fn group(self) -> &'static str {
        match self {
            Self::Node | Self::Pod | Self::Service => "",
            Self::Budget => "policy",
        }
    }

    pub(super) const fn api_version(self) -> &'static str {
        match self {
            Self::Node | Self::Pod | Self::Service => "v1",
            Self::Budget => "policy/v1",
        }
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

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::Node(_) => Kind::Node,
            Self::Pod(_) => Kind::Pod,
            Self::Service(_) => Kind::Service,
            Self::Budget(..) => Kind::Budget,
        }
    }

    pub(super) fn name(self) -> &'a str {
        match self {
            Self::Node(node) => node.name.as_str(),
            Self::Pod(pod) => &pod.pod.name,
            Self::Service(service) => &service.name,
            Self::Budget(budget, _) => &budget.name,
        }
    }

    pub(super) fn namespace(self) -> Option<&'a str> {
        match self {
            Self::Node(_) => None,
            Self::Pod(pod) => Some(&pod.pod.namespace),
            Self::Service(service) => Some(&service.namespace),
            Self::Budget(budget, _) => Some(&budget.namespace),
        }
    }

    /// Labels, of the kinds that have some here.
    pub(super) const fn labels(self) -> Option<&'a BTreeMap<String, String>> {
        match self {
            Self::Node(node) => Some(&node.labels),
            Self::Pod(pod) => Some(&pod.labels),
            Self::Service(_) | Self::Budget(..) => None,
        }
    }

    pub(super) const fn created(self) -> Option<Timestamp> {
        match self {
            Self::Node(node) => Some(node.created),
            Self::Pod(pod) => Some(pod.created),
            Self::Service(_) | Self::Budget(..) => None,
        }
    }

    /// `metadata.resourceVersion`.
    pub(super) const fn version(self) -> u64 {
        match self {
            Self::Node(node) => node.version,
            Self::Pod(pod) => pod.version,
            Self::Service(service) => service.version,
            Self::Budget(budget, _) => budget.version,
        }
    }

    pub(super) fn to_item(self) -> Item {
        let (object, health) = match self {
            Self::Node(node) => (Object::Node(node.clone()), Health::default()),
            Self::Pod(pod) => (Object::Pod(pod.clone()), Health::default()),
            Self::Service(service) => (Object::Service(service.clone()), Health::default()),
            Self::Budget(budget, health) => (Object::Budget(budget.clone()), health),
        };
        Item { object, health }
    }
}

impl Item {
    pub(super) const fn view(&self) -> View<'_> {
        match &self.object {
            Object::Node(node) => View::Node(node),
            Object::Pod(pod) => View::Pod(pod),
            Object::Service(service) => View::Service(service),
            Object::Budget(budget) => View::Budget(budget, self.health),
        }
    }
}

impl Health {
    fn of(budget: &Budget, cluster: &Cluster) -> Self {
        let expected = cluster.pods.values().filter(|pod| budget.covers(pod)).count();
        Self { expected, healthy: cluster.healthy_pods(budget) }
    }

    /// How many evictions the budget allows now.
    pub(super) const fn allowed(self, budget: &Budget) -> usize {
        self.healthy.saturating_sub(budget.min_available)
    }
}
