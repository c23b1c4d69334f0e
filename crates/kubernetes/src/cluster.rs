//! One cluster as the engine sees it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use k8s_openapi::api::core::v1 as api;
use k8s_openapi::apimachinery::pkg::version::Info;
use kube::api::{Api, DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::{Request as Path, Selector};
use kube::{Client, Resource};
use offramp_core::{
    ClusterName, InstanceId, Node, NodeDoubt, NodeName, Outcome, Pod, PodRef, Seen, Timestamp,
};
use offramp_engine::{
    Announcement, Call, Clock, Cluster, ClusterCall, DeletedNode, Fault, InWords, Metrics, NodeSummary,
    READ_AGAIN,
};
use serde_json::Value;
use tokio::sync::{OnceCell, Semaphore, watch};
use tokio::time::Instant;

use crate::clusters::{self, ClusterOptions, ClusterSource, OpenError};
use crate::connection::{Clients, Connection};
use crate::events::{self, Announcer};
use crate::fault::{self, Kind};
use crate::missing::Missing;
use crate::proof::Proofs;
use crate::view::View;
use crate::watch::{Complaints, Pace, Watch};
use crate::{nodes, pods, services};

/// Lists of the pods of one node in flight in one cluster. Each is a search of the API server's cache for some 100 KB.
const POD_LISTS_IN_FLIGHT: usize = 8;
/// From this minor version of Kubernetes 1 on a consistent list comes from the API server's cache (KEP-2340, on by default);
/// before, it reads every pod of the cluster from etcd.
const FIRST_LISTED_FROM_CACHE: u32 = 31;

/// One Kubernetes cluster.
pub struct KubernetesCluster {
    name: ClusterName,
    selector: Option<Selector>,
    connection: Arc<Connection>,
    view: Arc<View>,
    complaints: Arc<Complaints>,
    proofs: Arc<Proofs>,
    missing: Missing,
    pod_lists: Semaphore,
    /// The API server reads such a list from its cache. It is asked once.
    lists_cheaply: OnceCell<bool>,
    announcer: Announcer,
    clock: Clock,
    metrics: Metrics,
}

impl KubernetesCluster {
    /// A cluster that is not open yet. The second value opens it, follows it and sends its Events: it runs for
    /// ever, tries again by itself, and has to be spawned by the caller, inside a Tokio runtime. The cluster is
    /// out of sync until its watches have listed everything. Neither it nor its kubeconfig has to be there.
    ///
    /// # Errors
    ///
    /// The node selector is none.
    pub fn new(
        source: ClusterSource,
        options: &ClusterOptions,
        clock: Clock,
        metrics: Metrics,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + 'static), OpenError> {
        Self::with_pace(source, options, clock, metrics, Pace::DEFAULT)
    }

    pub(crate) fn with_pace(
        source: ClusterSource,
        options: &ClusterOptions,
        clock: Clock,
        metrics: Metrics,
        pace: Pace,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + 'static), OpenError> {
        let selector = clusters::node_selector(&source.name, options)?;
        let (view, complaints) = (Arc::new(View::default()), Arc::new(Complaints::default()));
        let connection = Arc::new(Connection::new());
        let proofs = Arc::new(Proofs::new());
        let name = source.name.as_str().to_owned();
        let (announcer, events) = events::open(name.clone(), Arc::clone(&connection), metrics.clone());
        let cluster = Self {
            name: source.name.clone(),
            selector: selector.clone(),
            connection: Arc::clone(&connection),
            view: Arc::clone(&view),
            complaints: Arc::clone(&complaints),
            proofs: Arc::clone(&proofs),
            missing: Missing::new(pace.lag),
            pod_lists: Semaphore::new(POD_LISTS_IN_FLIGHT),
            lists_cheaply: OnceCell::new(),
            announcer,
            clock: clock.clone(),
            metrics: metrics.clone(),
        };
        let dates = clock;
        let runs = async move {
            let nodes = Watch {
                cluster: name.clone(),
                resource: "nodes",
                calls: (Call::ListNodes, Call::WatchNodes),
                metrics: metrics.clone(),
                connection: Arc::clone(&connection),
                pace,
                read: |node| nodes::read(node, selector.as_ref(), dates.now()),
                tell: |news| view.on_nodes(news),
                complaints: Arc::clone(&complaints),
                progress: Arc::clone(&proofs.nodes),
            };
            let pods = Watch {
                cluster: name.clone(),
                resource: "pods",
                calls: (Call::ListPods, Call::WatchPods),
                metrics: metrics.clone(),
                connection: Arc::clone(&connection),
                pace,
                read: pods::read,
                tell: |news| view.on_pods(news),
                complaints: Arc::clone(&complaints),
                progress: Arc::clone(&proofs.pods),
            };
            let services = Watch {
                cluster: name,
                resource: "services",
                calls: (Call::ListServices, Call::WatchServices),
                metrics: metrics.clone(),
                connection: Arc::clone(&connection),
                pace,
                read: services::read,
                tell: |news| view.on_services(news),
                complaints: Arc::clone(&complaints),
                // Nobody asks: a Service changes rarely, and decides about no wait.
                progress: Arc::default(),
            };
            tokio::join!(
                connection.keep_open(&source, pace, &complaints),
                nodes.follow(),
                pods.follow(),
                services.follow(),
                proofs.answer(&connection, &metrics, pace.page),
                events.send()
            );
        };
        Ok((Arc::new(cluster), runs))
    }

    #[cfg(test)]
    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn clients(&self) -> Result<Clients, Fault> {
        self.connection.clients().ok_or_else(|| {
            let why = self.complaints.first().unwrap_or_else(|| "it is being opened".to_owned());
            Fault::Retry(format!("cluster {} is not open: {why}", self.name))
        })
    }

    async fn patch_node(
        &self,
        client: &Client,
        kind: Kind,
        node: &NodeName,
        body: Value,
    ) -> Result<Outcome, Fault> {
        let object = format!("node {node}");
        let request = self.request(kind, node.as_str(), &object);
        // Only the metadata is asked for in return: a Node lists every image that it holds.
        let path = Path::new(api::Node::url_path(&(), None));
        let patch = path.patch_metadata(node.as_str(), &PatchParams::default(), &Patch::Merge(body));
        let answer = async { client.request_text(patch.map_err(kube::Error::BuildRequest)?).await };
        let outcome = self.settled(Call::PatchNode, request, answer).await;
        if outcome == Ok(Outcome::Changed) {
            self.read_node(client.clone(), node).await;
        }
        outcome
    }

    /// Reads a node past the watch, which has not shown yet what a write was refused over: it may be silent for a minute. A GET
    /// reads etcd; a LIST waits until the API server's cache is as new, which took longer than two seconds in a storm.
    async fn read_node(&self, client: Client, node: &NodeName) {
        let api: Api<api::Node> = Api::all(client);
        let read = self.metrics.measure(Call::GetNode, api.get(node.as_str()), fault::result);
        // Where this fails the watch tells. What takes long makes a failure of a write that was answered.
        if let Ok(Ok(read)) = tokio::time::timeout(READ_AGAIN, read).await {
            let read = nodes::read(read, self.selector.as_ref(), self.clock.now());
            read.into_iter().for_each(|node| self.view.on_read(node));
        }
    }

    /// Reads the pods of a node past the watch, and shows what that has missed. Where the API server would read all pods
    /// from etcd for that, the watch alone decides.
    async fn list_pods(&self, node: &NodeName) -> Result<Outcome, Fault> {
        let client = self.clients()?.general;
        let object = format!("pods of node {node}");
        let request = self.request(Kind::ListPods, node.as_str(), &object);
        let lists_cheaply = self.lists_cheaply.get_or_try_init(|| async {
            let version = client.apiserver_version();
            let version = self.metrics.measure(Call::GetVersion, version, fault::result).await?;
            Ok(is_at_least(FIRST_LISTED_FROM_CACHE, &version))
        });
        match lists_cheaply.await {
            Ok(true) => {}
            Ok(false) => return Ok(Outcome::Done),
            Err(error) => return fault::read(request, &error),
        }
        // It is never closed.
        let _seat = self.pod_lists.acquire().await.ok();
        // Without a resourceVersion it is as new as the newest write.
        let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
        let api: Api<api::Pod> = Api::all(client);
        let listed = self.metrics.measure(Call::ListPods, api.list(&params), fault::result).await;
        let pods = match listed {
            Ok(list) => list.items.into_iter().filter_map(pods::read),
            Err(error) => return fault::read(request, &error),
        };
        let missed = self.view.on_listed(node, pods);
        if missed {
            self.proofs.pods.distrusted.notify_one();
        }
        Ok(if missed { Outcome::Changed } else { Outcome::Done })
    }

    async fn evict(&self, pod: &PodRef, body: &Value) -> Result<Outcome, Fault> {
        let object = format!("pod {}", pod.in_words());
        let request = self.request(Kind::Evict, &pod.name, &object);
        let path = format!("{}/{}/eviction", api::Pod::url_path(&(), Some(&pod.namespace)), pod.name);
        let eviction = Path::new(path).create(&PostParams::default(), body.to_string().into_bytes());
        let client = self.clients()?.general;
        let answer = async { client.request_text(eviction.map_err(kube::Error::BuildRequest)?).await };
        self.settled(Call::EvictPod, request, answer).await
    }

    async fn delete(&self, pod: &PodRef, grace_seconds: u32) -> Result<Outcome, Fault> {
        let object = format!("pod {}", pod.in_words());
        let request = self.request(Kind::Delete, &pod.name, &object);
        let preconditions =
            Preconditions { uid: Some(pod.uid.as_str().to_owned()), ..Preconditions::default() };
        let options = DeleteParams {
            grace_period_seconds: Some(grace_seconds),
            preconditions: Some(preconditions),
            ..DeleteParams::default()
        };
        let deletion = Path::new(api::Pod::url_path(&(), Some(&pod.namespace))).delete(&pod.name, &options);
        let client = self.clients()?.general;
        let answer = async { client.request_text(deletion.map_err(kube::Error::BuildRequest)?).await };
        self.settled(Call::DeletePod, request, answer).await
    }

    /// Waits for an answer and reads it. What a success says is of no interest: the watch shows it.
    async fn settled(
        &self,
        call: Call,
        request: fault::Request<'_>,
        answer: impl Future<Output = Result<String, kube::Error>>,
    ) -> Result<Outcome, Fault> {
        let answer = self.metrics.measure(call, answer, |answer| fault::result_of(request, answer)).await;
        if matches!(&answer, Err(kube::Error::Api(status)) if status.code == 401) {
            self.connection.refuse();
        }
        answer.map_or_else(|error| fault::read(request, &error), |_| Ok(Outcome::Done))
    }

    fn request<'a>(&'a self, kind: Kind, name: &'a str, object: &'a str) -> fault::Request<'a> {
        fault::Request { cluster: self.name.as_str(), kind, object, name }
    }
}

#[async_trait]
impl Cluster for KubernetesCluster {
    fn name(&self) -> &ClusterName {
        &self.name
    }

    fn node(&self, instance: &InstanceId) -> Seen<Node> {
        self.view.node(instance)
    }

    fn doubt(&self, instance: &InstanceId) -> Option<NodeDoubt> {
        self.view.doubt(instance, self.clock.now())
    }

    fn prove(&self, at: Timestamp) {
        self.proofs.ask(at);
    }

    fn proven(&self) -> watch::Receiver<Timestamp> {
        self.proofs.proven()
    }

    fn unidentified(&self) -> Vec<NodeName> {
        self.view.unidentified(self.clock.now())
    }

    fn twins(&self) -> Vec<(InstanceId, Vec<NodeName>)> {
        self.view.twins()
    }

    fn deleted(&self, instance: &InstanceId) -> Option<DeletedNode> {
        self.view.deleted(instance)
    }

    fn summary(&self, instance: &InstanceId) -> Option<NodeSummary> {
        self.view.summary(instance)
    }

    fn summaries_version(&self) -> Option<u64> {
        Some(self.view.nodes_version())
    }

    fn recorded(&self) -> Vec<(InstanceId, Node)> {
        self.view.recorded()
    }

    fn pods(&self, node: &NodeName, instance: &InstanceId) -> Seen<Vec<Pod>> {
        self.view.pods(node, instance)
    }

    fn in_sync(&self) -> bool {
        self.view.in_sync()
    }

    fn trouble(&self) -> Option<String> {
        self.complaints.first()
    }

    fn changes(&self, instance: &InstanceId) -> watch::Receiver<u64> {
        self.view.changes(instance)
    }

    fn readiness(&self, namespace: &str) -> watch::Receiver<u64> {
        self.view.readiness(namespace)
    }

    async fn perform(&self, call: &ClusterCall) -> Result<Outcome, Fault> {
        let Clients { general, isolation } = &self.clients()?;
        let answer = match call {
            ClusterCall::Isolate { node, exclude, record, guard } => {
                let body = nodes::isolation(record, *exclude, guard);
                self.patch_node(isolation, Kind::Isolate, node, body).await
            }
            ClusterCall::Exclude { node, record, guard } => {
                let body = nodes::exclusion(record, guard);
                self.patch_node(general, Kind::Exclude, node, body).await
            }
            ClusterCall::WriteRecord { node, record, guard } => {
                self.patch_node(general, Kind::WriteRecord, node, nodes::recorded(record, guard)).await
            }
            ClusterCall::Release { node, record, guard } => {
                let body = nodes::release(record, guard);
                self.patch_node(general, Kind::Release, node, body).await
            }
            ClusterCall::ListPods { node } => self.list_pods(node).await,
            ClusterCall::Evict { pod, grace } => self.evict(pod, &pods::eviction(pod, *grace)).await,
            ClusterCall::Delete { pod, grace } => self.delete(pod, pods::whole_seconds(*grace)).await,
        };
        if answer == Ok(Outcome::Gone) {
            self.missing.answered(call, Instant::now(), &self.proofs);
        }
        answer
    }

    fn announce(&self, node: &NodeName, announcement: Announcement) {
        self.announcer.announce(node, announcement);
    }
}

/// Of Kubernetes 1: EKS writes its minor version as `31+`. What cannot be read counts as new.
fn is_at_least(minor: u32, version: &Info) -> bool {
    let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().map_or(true, |found: u32| found >= minor)
}

impl fmt::Debug for KubernetesCluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KubernetesCluster").field("name", &self.name).finish_non_exhaustive()
    }
}
