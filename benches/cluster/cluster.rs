//! The cluster of a measurement: nodes and pods written by a client, and the audit log of its API server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde::Deserialize;
use serde_json::{Value, json};

/// Calls of a client in flight.
pub(crate) const IN_FLIGHT: usize = 64;
/// Whom workers and bare clients are to the API server: somebody from outside, without the seats of the
/// cluster's own parts.
pub(crate) const OUTSIDER: &str = "outsider";
const LONGEST: Duration = Duration::from_mins(10);

/// A way into a cluster.
pub(crate) struct Cluster {
    /// Of whoever may do everything.
    pub(crate) admin: Client,
    /// Of whoever is measured.
    pub(crate) outsider: Client,
    pub(crate) kubeconfig: PathBuf,
    audit: PathBuf,
}

/// A node to be.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) node: String,
    pub(crate) provider_id: String,
    pub(crate) zone: String,
}

/// What the API server has written down about one request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) verb: String,
    pub(crate) object_ref: Option<Object>,
    pub(crate) response_status: Option<Status>,
    pub(crate) request_received_timestamp: Timestamp,
    pub(crate) stage_timestamp: Timestamp,
    user: User,
}

#[derive(Deserialize)]
pub(crate) struct Object {
    pub(crate) resource: String,
    #[serde(default)]
    pub(crate) subresource: String,
    #[serde(default)]
    pub(crate) name: String,
}

#[derive(Deserialize)]
pub(crate) struct Status {
    #[serde(default)]
    pub(crate) code: u16,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

impl Asked {
    /// Such as `patch nodes` or `create pods/eviction`.
    pub(crate) fn what(&self) -> String {
        let Some(object) = &self.object_ref else { return self.verb.clone() };
        let separator = if object.subresource.is_empty() { "" } else { "/" };
        format!("{} {}{separator}{}", self.verb, object.resource, object.subresource)
    }

    pub(crate) fn name(&self) -> &str {
        self.object_ref.as_ref().map_or("", |object| object.name.as_str())
    }

    pub(crate) fn succeeded(&self) -> bool {
        self.response_status.as_ref().is_some_and(|status| (200..300).contains(&status.code))
    }

    pub(crate) fn is_conflict(&self) -> bool {
        self.response_status.as_ref().is_some_and(|status| status.code == 409)
    }
}

impl Cluster {
    /// `kubeconfig` is of whoever is measured.
    pub(crate) async fn open(admin: &Path, kubeconfig: &Path, audit: &Path) -> Self {
        Self {
            admin: client(admin).await,
            outsider: client(kubeconfig).await,
            kubeconfig: kubeconfig.to_owned(),
            audit: audit.to_owned(),
        }
    }

    pub(crate) async fn add_nodes(&self, machines: &[Machine]) {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        each(machines, |machine| {
            let nodes = nodes.clone();
            let node = json!({
                "metadata": { "name": machine.node, "labels": {
                    "kubernetes.io/hostname": machine.node, "topology.kubernetes.io/zone": machine.zone,
                } },
                "spec": { "providerID": machine.provider_id },
            });
            async move { nodes.create(&PostParams::default(), &of(node)).await.map(drop) }
        })
        .await;
    }

    /// kwok looks after the pods of a node as soon as it has its lease, and the controllers take the taint of a node
    /// that was not ready away.
    pub(crate) async fn until_ready(&self, count: usize) {
        let leases: Api<Lease> = Api::namespaced(self.admin.clone(), "kube-node-lease");
        until_async("every node has its lease", || async {
            leases.list_metadata(&ListParams::default()).await.unwrap().items.len() >= count
        })
        .await;
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let is_open =
            |node: &Node| node.spec.as_ref().is_none_or(|spec| spec.taints.iter().flatten().next().is_none());
        until_async("no node has a taint", || async {
            nodes.list(&ListParams::default()).await.unwrap().items.iter().all(is_open)
        })
        .await;
    }

    /// So many pods on each node, named by its place.
    pub(crate) async fn add_pods(&self, machines: &[Machine], per_node: usize, app: &str) {
        let wanted: Vec<(usize, &Machine, usize)> = machines
            .iter()
            .enumerate()
            .flat_map(|(at, machine)| (0..per_node).map(move |number| (at, machine, number)))
            .collect();
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), "default");
        each(&wanted, |(at, machine, number)| {
            let pods = pods.clone();
            let pod = json!({
                "metadata": { "name": format!("{app}-{at}-{number}"), "labels": { "app": app } },
                "spec": {
                    "nodeName": machine.node,
                    "terminationGracePeriodSeconds": 5,
                    "containers": [{ "name": app, "image": "registry.example.com/web:1" }],
                },
            });
            async move { pods.create(&PostParams::default(), &of(pod)).await.map(drop) }
        })
        .await;
    }

    /// Puts the status of pods that run onto all of them, where no kubelet does.
    pub(crate) async fn run_pods(&self, names: &[String]) {
        let pods: Api<Pod> = Api::namespaced(self.admin.clone(), "default");
        each(names, |name| {
            let pods = pods.clone();
            let condition = |kind: &str| json!({ "type": kind, "status": "True" });
            let status = json!({ "status": {
                "phase": "Running", "conditions": [condition("Ready"), condition("ContainersReady")],
            } });
            async move {
                let patch = Patch::Merge(status);
                pods.patch_status(name, &PatchParams::default(), &patch).await.map(drop)
            }
        })
        .await;
    }

    pub(crate) async fn until_pods_run(&self) {
        let pods: Api<Pod> = Api::all(self.admin.clone());
        let others = ListParams::default().fields("status.phase!=Running").limit(1);
        until_async("every pod runs", || async {
            pods.list_metadata(&others).await.unwrap().items.is_empty()
        })
        .await;
    }

    /// What whoever is measured has asked since then, reads left out.
    pub(crate) fn asked_since(&self, since: Timestamp) -> Vec<Asked> {
        let text = std::fs::read_to_string(&self.audit).unwrap();
        let whole = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let asked = whole.map(|line| serde_json::from_str::<Asked>(line).unwrap());
        let ours =
            |asked: &Asked| asked.user.username == OUTSIDER && asked.request_received_timestamp >= since;
        asked.filter(ours).collect()
    }
}

/// How often each thing was asked.
pub(crate) fn counted(asked: &[Asked]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for one in asked {
        *counts.entry(one.what()).or_default() += 1;
    }
    counts
}

pub(crate) async fn client(kubeconfig: &Path) -> Client {
    let file = Kubeconfig::read_from(kubeconfig).unwrap();
    let config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default()).await.unwrap();
    Client::try_from(config).unwrap()
}

pub(crate) fn of<K: serde::de::DeserializeOwned>(object: Value) -> K {
    serde_json::from_value(object).unwrap()
}

/// Does something with each, a few at a time.
pub(crate) async fn each<'a, T, F>(all: &'a [T], mut act: impl FnMut(&'a T) -> F)
where
    F: Future<Output = kube::Result<()>>,
{
    let mut acts = stream::iter(all.iter().map(&mut act)).buffer_unordered(IN_FLIGHT);
    while let Some(done) = acts.next().await {
        done.unwrap();
    }
}

pub(crate) async fn until_async<F: Future<Output = bool>>(what: &str, mut ask: impl FnMut() -> F) {
    let begun = std::time::Instant::now();
    while !ask().await {
        assert!(begun.elapsed() < LONGEST, "not within {LONGEST:?}: {what}");
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}
