//! What the kube-proxies know about the pods behind each Service.

use std::collections::{BTreeMap, BTreeSet};

use offramp_core::{InstanceId, NodeName, PodUid};

use super::{Cluster, Due, Key, Phase, Pod, Service};

/// The endpoints of one Service, with lookups beside them.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    by_pod: BTreeMap<PodUid, Endpoint>,
    by_node: BTreeMap<NodeName, BTreeSet<PodUid>>,
    /// So many of them are Ready.
    ready: usize,
    /// Those whose pod does not run for good: it has begun to end, or is gone. All others take requests.
    fading: BTreeSet<PodUid>,
}

/// A pod as the kube-proxies know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The pod.
    pub uid: PodUid,
    /// Its node.
    pub node: NodeName,
    /// Its conditions.
    pub state: EndpointState,
}

/// The conditions of an endpoint, as far as kube-proxy cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointState {
    /// Ready.
    Ready,
    /// Serving and terminating: used where nothing is ready (KEP-1669).
    Terminating,
}

/// What became of a pod, on its way to every kube-proxy.
#[derive(Clone, Debug)]
pub(crate) struct Spread {
    pod: PodUid,
    node: Option<NodeName>,
    services: Vec<Key>,
    /// `None`: it is no endpoint any more.
    endpoint: Option<Endpoint>,
}

impl Endpoints {
    /// How many there are in this state.
    pub(crate) fn count(&self, state: EndpointState) -> usize {
        match state {
            EndpointState::Ready => self.ready,
            EndpointState::Terminating => self.by_pod.len() - self.ready,
        }
    }

    /// Those on a node.
    pub(crate) fn on_node(&self, node: &NodeName) -> impl Iterator<Item = &Endpoint> {
        self.by_node.get(node).into_iter().flatten().filter_map(|uid| self.by_pod.get(uid))
    }

    /// All of them.
    #[cfg(test)]
    pub(crate) fn all(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_pod.values()
    }

    /// Those whose pod may not take requests.
    pub(crate) fn fading(&self) -> impl Iterator<Item = &Endpoint> {
        self.fading.iter().filter_map(|uid| self.by_pod.get(uid))
    }

    fn put(&mut self, endpoint: Endpoint, runs: bool) {
        self.remove(&endpoint.uid);
        self.ready += usize::from(endpoint.state == EndpointState::Ready);
        self.by_node.entry(endpoint.node.clone()).or_default().insert(endpoint.uid.clone());
        if !runs {
            self.fading.insert(endpoint.uid.clone());
        }
        self.by_pod.insert(endpoint.uid.clone(), endpoint);
    }

    fn remove(&mut self, uid: &PodUid) {
        let Some(endpoint) = self.by_pod.remove(uid) else { return };
        self.ready -= usize::from(endpoint.state == EndpointState::Ready);
        self.fading.remove(uid);
        if let Some(pods) = self.by_node.get_mut(&endpoint.node) {
            pods.remove(uid);
            if pods.is_empty() {
                self.by_node.remove(&endpoint.node);
            }
        }
    }

    fn check(&mut self, uid: &PodUid, runs: bool) {
        if runs || !self.by_pod.contains_key(uid) {
            self.fading.remove(uid);
        } else {
            self.fading.insert(uid.clone());
        }
    }
}

impl Cluster {
    /// What the kube-proxies know about a Service.
    pub(crate) fn endpoints(&self, service: &Key) -> Option<&Endpoints> {
        self.index.endpoints.get(service)
    }

    /// What became of a pod, to be known by the kube-proxies a little later.
    pub(super) fn spread(&self, pod: &Pod, endpoint: Option<Endpoint>) -> Due {
        let services = self.services.values().filter(|service| service.selects(pod));
        Due::EndpointsSpread(Spread {
            pod: pod.pod.uid.clone(),
            node: pod.node.clone(),
            services: services.map(|service| (service.namespace.clone(), service.name.clone())).collect(),
            endpoint,
        })
    }

    /// The kube-proxies take over what became of a pod. Gives the instance of its node where that one's
    /// health check may answer differently now, because traffic policy is Local.
    pub(super) fn take_over(&mut self, spread: Spread) -> Option<InstanceId> {
        let Spread { pod, node, services, endpoint } = spread;
        let runs = self.pod(&pod).is_some_and(runs);
        let mut local = false;
        for service in services {
            local |= self.services.get(&service).is_some_and(|service| service.local);
            let Some(known) = self.index.endpoints.get_mut(&service) else { continue };
            match &endpoint {
                Some(endpoint) => known.put(endpoint.clone(), runs),
                None => known.remove(&pod),
            }
        }
        let node = node.filter(|_| local).and_then(|node| self.machine(&node))?;
        Some(node.instance.clone())
    }

    /// The endpoints of a new Service: every kube-proxy knows them.
    pub(super) fn endpoints_at_once(&self, service: &Service) -> Endpoints {
        let mut endpoints = Endpoints::default();
        for pod in self.pods.values().filter(|pod| service.selects(pod)) {
            if let Some(endpoint) = endpoint_of(pod) {
                endpoints.put(endpoint, runs(pod));
            }
        }
        endpoints
    }

    /// A pod has changed or gone, and no kube-proxy knows yet.
    pub(super) fn check_endpoints_of(&mut self, uid: &PodUid) {
        let runs = self.pod(uid).is_some_and(runs);
        self.index.endpoints.values_mut().for_each(|endpoints| endpoints.check(uid, runs));
    }
}

/// What a pod is to an EndpointSlice. A pod that is being deleted is not ready there from that moment on,
/// and serving as long as its own Ready condition holds (EndpointSlice conditions, KEP-1672).
pub(super) fn endpoint_of(pod: &Pod) -> Option<Endpoint> {
    let node = pod.node.clone()?;
    if !pod.ready || pod.phase != Phase::Running {
        return None;
    }
    let state = if pod.deletion.is_some() { EndpointState::Terminating } else { EndpointState::Ready };
    Some(Endpoint { uid: pod.pod.uid.clone(), node, state })
}

/// Whether a pod takes requests, and no moment is set from which on it does not.
fn runs(pod: &Pod) -> bool {
    pod.phase == Phase::Running && pod.sigterm.is_none() && pod.ends.is_none()
}
