//! Door one, the Kubernetes half: the engine's port on one cluster of a world in this process.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use offramp_core::{
    BudgetName, ClusterName, InstanceId, Node, NodeDoubt, NodeName, Outcome, Pod, PodOrigin, PodRef, Record,
    Seen, Timestamp,
};
use offramp_engine::{
    Announcement, Cluster, ClusterCall, DeletedNode, Fault, InWords, READ_AGAIN, RECORD_ANNOTATION,
    labels_hash, node_owner, read_record, write_record,
};
use tokio::sync::watch;

use crate::witness::WorkerCall;
use crate::world::OUT_OF_SCOPE;
use crate::world::cluster::{self, ApiError, EXCLUDE_LABEL, NamedMachine, NodePatch, Subject};
use crate::{Sandbox, World};

/// The kubelet puts it on the API's copy of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Asks that a pod be left to finish by itself.
const LET_FINISH: &str = "offramp.sh/let-finish";

/// One cluster of a sandbox, seen by watches that began when this was made, and are as late as the cluster
/// says ([`cluster::ViewLag`]). While the API server does not answer, nothing is known.
#[derive(Clone, Debug)]
pub struct ClusterDoor {
    sandbox: Sandbox,
    name: ClusterName,
    /// The version at which everything was listed.
    listed: u64,
    /// The newest moment of which it is proven that the watches have shown it.
    proven: watch::Sender<Timestamp>,
}

impl ClusterDoor {
    /// A port for the cluster of this name.
    pub fn new(sandbox: &Sandbox, name: &ClusterName) -> Self {
        let listed = sandbox.peek(|world| world.clusters.get(name).map_or(0, |cluster| cluster.version));
        Self {
            sandbox: sandbox.clone(),
            name: name.clone(),
            listed,
            proven: watch::Sender::new(Timestamp::default()),
        }
    }

    /// Looks at the cluster as far as its API server answers.
    fn look<T>(&self, look: impl FnOnce(&cluster::Cluster) -> Seen<T>) -> Seen<T> {
        self.sandbox.peek(|world| match world.clusters.get(&self.name) {
            Some(cluster) if !cluster.is_away(world.now()) => look(cluster),
            Some(_) | None => Seen::Unknown,
        })
    }

    /// The nodes that say that they are this instance.
    fn claimants<'a>(&self, cluster: &'a cluster::Cluster, instance: &InstanceId) -> Vec<&'a cluster::Node> {
        let view = cluster.view(self.listed);
        if !cluster.misnamed {
            return view.node_of(instance).into_iter().collect();
        }
        let shown = cluster.nodes.values().filter_map(|stored| view.node_of(&stored.instance));
        shown.filter(|shown| shown.claims(instance)).collect()
    }

    fn watch(&self, subject: Subject) -> watch::Receiver<u64> {
        let watch =
            |world: &mut World| world.clusters.get_mut(&self.name).map(|cluster| cluster.watch(subject));
        // A cluster that does not exist never changes.
        self.sandbox.read(watch).unwrap_or_else(|| watch::channel(0).1)
    }

    fn nameless(&self, cluster: &cluster::Cluster) -> Vec<NodeName> {
        let nameless = cluster.nodes.values().filter(|stored| stored.names == NamedMachine::None);
        nameless.filter(|_| cluster.misnamed).map(|stored| stored.name.clone()).collect()
    }

    fn refused(&self, what: &str, error: &ApiError) -> Fault {
        let cluster = &self.name;
        match error {
            ApiError::Away => Fault::Retry(format!("{what} in {cluster}: the API server does not answer")),
            ApiError::Several => Fault::Retry(format!(
                "{what} in {cluster}: several disruption budgets match the pod; leave one of them"
            )),
            ApiError::Conflict(text) => Fault::Retry(format!("{what} in {cluster}: {text}")),
            ApiError::TooManyRequests { message, .. } | ApiError::NamespaceTerminating { message, .. } => {
                Fault::Retry(format!("{what} in {cluster}: {message}"))
            }
            ApiError::Vetoed(words) => Fault::Denied(format!("{what} in {cluster}: {words}")),
            ApiError::TooLong(text) => Fault::Invalid(format!("{what} in {cluster}: {text}")),
            ApiError::NotFound => Fault::Invalid(format!("{what} in {cluster}: not found")),
        }
    }

    async fn patch(&self, call: &ClusterCall, node: &NodeName, patch: NodePatch) -> Result<Outcome, Fault> {
        let effect = |world: &mut World| {
            world.show(WorkerCall::Cluster(&self.name, call));
            world.patch_node(&self.name, node, patch)
        };
        match self.sandbox.call("kubernetes.PATCH node", true, effect).await? {
            Ok(_) => Ok(Outcome::Done),
            Err(ApiError::NotFound) => Ok(Outcome::Gone),
            Err(ApiError::Conflict(_)) => {
                self.read_node(node).await;
                Ok(Outcome::Changed)
            }
            Err(ApiError::Vetoed(by)) => Ok(Outcome::Vetoed { by }),
            Err(error) => Err(self.refused(&format!("patching node {node}"), &error)),
        }
    }

    /// Reads a node as it is. From then on this view shows it so, as the adapter for real clusters does.
    async fn read_node(&self, node: &NodeName) {
        let effect = |world: &mut World| {
            let now = world.now();
            let cluster = world.clusters.get_mut(&self.name).filter(|cluster| !cluster.is_away(now));
            cluster.into_iter().for_each(|cluster| cluster.show_node(node));
        };
        let call = self.sandbox.call("kubernetes.GET node", false, effect);
        drop(tokio::time::timeout(READ_AGAIN, call).await);
    }

    async fn evict(
        &self,
        call: &ClusterCall,
        pod: &PodRef,
        grace: Option<Duration>,
    ) -> Result<Outcome, Fault> {
        let effect = |world: &mut World| {
            world.show(WorkerCall::Cluster(&self.name, call));
            world.evict_pod(&self.name, &pod.namespace, &pod.name, Some(&pod.uid), grace)
        };
        let answer = self.sandbox.call("kubernetes.POST eviction", true, effect).await?;
        self.settled(&format!("evicting pod {}", pod.in_words()), answer)
    }

    async fn delete(&self, call: &ClusterCall, pod: &PodRef, grace: Duration) -> Result<Outcome, Fault> {
        let effect = |world: &mut World| {
            world.show(WorkerCall::Cluster(&self.name, call));
            world.ask_to_delete_pod(&self.name, &pod.namespace, &pod.name, Some(grace), Some(&pod.uid))
        };
        let answer = self.sandbox.call("kubernetes.DELETE pod", true, effect).await?;
        self.settled(&format!("deleting pod {}", pod.in_words()), answer)
    }

    /// Reads the pods as they are. From then on this view shows what it lacked.
    async fn list_pods(&self, call: &ClusterCall, node: &NodeName) -> Result<Outcome, Fault> {
        let effect = |world: &mut World| {
            world.show(WorkerCall::Cluster(&self.name, call));
            let now = world.now();
            let cluster = world.clusters.get_mut(&self.name).filter(|cluster| !cluster.is_away(now));
            cluster.map(|cluster| cluster.show_pods_of(node, self.listed)).ok_or(ApiError::Away)
        };
        match self.sandbox.call("kubernetes.LIST pods", false, effect).await? {
            Ok(true) => Ok(Outcome::Changed),
            Ok(false) => Ok(Outcome::Done),
            Err(error) => Err(self.refused(&format!("listing the pods of {node}"), &error)),
        }
    }

    fn settled(&self, what: &str, answer: Result<(), ApiError>) -> Result<Outcome, Fault> {
        match answer {
            Ok(()) => Ok(Outcome::Done),
            // Another pod of the same name: the one that was meant is gone.
            Err(ApiError::NotFound | ApiError::Conflict(_)) => Ok(Outcome::Gone),
            Err(ApiError::TooManyRequests { budget, .. }) => {
                Ok(Outcome::Blocked { budget: Some(BudgetName(budget)) })
            }
            Err(ApiError::Vetoed(by)) => Ok(Outcome::Vetoed { by }),
            Err(
                error @ (ApiError::Several
                | ApiError::NamespaceTerminating { .. }
                | ApiError::TooLong(_)
                | ApiError::Away),
            ) => Err(self.refused(what, &error)),
        }
    }
}

#[async_trait]
impl Cluster for ClusterDoor {
    fn name(&self) -> &ClusterName {
        &self.name
    }

    fn node(&self, instance: &InstanceId) -> Seen<Node> {
        let now = self.sandbox.now();
        self.look(|cluster| match &self.claimants(cluster, instance)[..] {
            [] => Seen::Gone,
            [only] => Seen::Known(node(only, now)),
            several => match several.iter().filter(|claimant| claimant.ready).collect::<Vec<_>>()[..] {
                [ready] => Seen::Known(node(ready, now)),
                [] => Seen::Known(node(several[0], now)),
                [_, _, ..] => Seen::Unknown,
            },
        })
    }

    fn doubt(&self, instance: &InstanceId) -> Option<NodeDoubt> {
        let doubt = self.look(|cluster| {
            let claimants = self.claimants(cluster, instance);
            let (ready, unidentified) =
                (claimants.iter().filter(|claimant| claimant.ready).count(), self.nameless(cluster).len());
            Seen::Known(match (ready, unidentified) {
                (2.., _) => Some(NodeDoubt::Twins { nodes: ready }),
                (_, 1..) if claimants.is_empty() => Some(NodeDoubt::Unidentified { nodes: unidentified }),
                _ => None,
            })
        });
        doubt.known().copied().flatten()
    }

    fn prove(&self, at: Timestamp) {
        let now = self.sandbox.now();
        self.sandbox.read(|world| {
            if let Some(cluster) = world.clusters.get_mut(&self.name) {
                cluster.prove(now, self.listed, at, &self.proven);
            }
        });
    }

    fn proven(&self) -> watch::Receiver<Timestamp> {
        self.proven.subscribe()
    }

    fn unidentified(&self) -> Vec<NodeName> {
        self.look(|cluster| Seen::Known(self.nameless(cluster))).known().cloned().unwrap_or_default()
    }

    fn twins(&self) -> Vec<(InstanceId, Vec<NodeName>)> {
        let twins = self.look(|cluster| {
            let view = cluster.view(self.listed);
            let nodes = cluster.nodes.values().filter_map(|stored| view.node_of(&stored.instance));
            let mut named: BTreeMap<InstanceId, Vec<NodeName>> = BTreeMap::new();
            for stored in nodes.filter(|stored| stored.ready) {
                if let Some(instance) = stored.named_instance() {
                    named.entry(instance.clone()).or_default().push(stored.name.clone());
                }
            }
            named.retain(|_, nodes| nodes.len() > 1);
            Seen::Known(named.into_iter().collect::<Vec<_>>())
        });
        twins.known().cloned().unwrap_or_default()
    }

    fn deleted(&self, instance: &InstanceId) -> Option<DeletedNode> {
        let deleted = self.look(|cluster| {
            let had = cluster.deleted.get(instance).filter(|_| self.claimants(cluster, instance).is_empty());
            let seen = had.filter(|(version, ..)| *version > self.listed);
            Seen::Known(
                seen.map(|(_, name, grace)| DeletedNode { name: name.clone(), longest_grace: *grace }),
            )
        });
        deleted.known().cloned().flatten()
    }

    fn recorded(&self) -> Vec<(InstanceId, Node)> {
        let now = self.sandbox.now();
        let nodes = self.look(|cluster| {
            let view = cluster.view(self.listed);
            let nodes = cluster.nodes.values().filter_map(|stored| view.node_of(&stored.instance));
            let recorded = nodes.filter(|stored| stored.annotations.contains_key(RECORD_ANNOTATION));
            let named = |stored: &cluster::Node| Some((stored.named_instance()?.clone(), node(stored, now)));
            Seen::Known(recorded.filter_map(named).collect::<Vec<_>>())
        });
        nodes.known().cloned().unwrap_or_default()
    }

    fn pods(&self, node: &NodeName, instance: &InstanceId) -> Seen<Vec<Pod>> {
        self.look(|cluster| {
            let view = cluster.view(self.listed);
            if view.instance_of(node).is_some_and(|owner| owner != *instance) {
                return Seen::Gone;
            }
            let pods = view.pods_of_node(node);
            Seen::Known(pods.into_iter().map(|stored| pod(cluster, stored)).collect())
        })
    }

    /// Nobody counts while the API server does not answer.
    fn summaries_version(&self) -> Option<u64> {
        self.look(|cluster| Seen::Known(cluster.view(self.listed).nodes_version())).known().copied()
    }

    fn in_sync(&self) -> bool {
        self.look(|_| Seen::Known(())) == Seen::Known(())
    }

    fn changes(&self, instance: &InstanceId) -> watch::Receiver<u64> {
        self.watch(Subject::Instance(instance.clone()))
    }

    fn readiness(&self, namespace: &str) -> watch::Receiver<u64> {
        self.watch(Subject::Readiness(namespace.to_owned()))
    }

    /// Stored at once. It moves nothing in the world, so nobody is woken.
    fn announce(&self, node: &NodeName, announcement: Announcement) {
        let Announcement { reason, text } = announcement;
        let (name, at) = (node.as_str().to_owned(), self.sandbox.now());
        let event = cluster::Event {
            name: format!("{name}.{}", at.as_millis()),
            namespace: "default".to_owned(),
            at,
            kind: if reason.is_warning() { "Warning" } else { "Normal" }.to_owned(),
            reason: reason.as_str().to_owned(),
            note: text,
            regarding: cluster::Regarding {
                kind: "Node".to_owned(),
                uid: name.clone(),
                name,
                namespace: String::new(),
            },
            reported_by: "offramp".to_owned(),
        };
        if let Some(cluster) = self.sandbox.lock().clusters.get_mut(&self.name) {
            cluster.put_event(event);
        }
    }

    async fn perform(&self, call: &ClusterCall) -> Result<Outcome, Fault> {
        match call {
            ClusterCall::Isolate { node, exclude, record, guard } => {
                let patch = NodePatch { unschedulable: Some(true), ..recorded(record, *exclude, guard)? };
                self.patch(call, node, patch).await
            }
            ClusterCall::Exclude { node, record, guard } => {
                self.patch(call, node, recorded(record, true, guard)?).await
            }
            ClusterCall::WriteRecord { node, record, guard } => {
                self.patch(call, node, recorded(record, false, guard)?).await
            }
            ClusterCall::Release { node, record, guard } => {
                self.patch(call, node, released(record, guard)?).await
            }
            ClusterCall::ListPods { node } => self.list_pods(call, node).await,
            ClusterCall::Evict { pod, grace } => self.evict(call, pod, *grace).await,
            ClusterCall::Delete { pod, grace } => self.delete(call, pod, *grace).await,
        }
    }
}

fn recorded(record: &Record, exclude: bool, guard: &str) -> Result<NodePatch, Fault> {
    let text = write_record(record);
    let label = exclude.then(|| (EXCLUDE_LABEL.to_owned(), Some("true".to_owned())));
    Ok(NodePatch {
        labels: label.into_iter().collect(),
        annotations: text.into_iter().map(|text| (RECORD_ANNOTATION.to_owned(), Some(text))).collect(),
        resource_version: Some(version(guard)?),
        ..NodePatch::default()
    })
}

fn released(record: &Record, guard: &str) -> Result<NodePatch, Fault> {
    let label = record.excluded.then(|| (EXCLUDE_LABEL.to_owned(), None));
    Ok(NodePatch {
        unschedulable: record.cordoned.then_some(false),
        labels: label.into_iter().collect(),
        annotations: BTreeMap::from([(RECORD_ANNOTATION.to_owned(), None)]),
        resource_version: Some(version(guard)?),
        ..NodePatch::default()
    })
}

fn version(text: &str) -> Result<u64, Fault> {
    text.parse().map_err(|error| Fault::Invalid(format!("reading resourceVersion {text:?}: {error}")))
}

/// A kubelet writes its status every five minutes (`nodeStatusReportFrequency`).
fn renewed_at(stored: &cluster::Node, now: Timestamp) -> Timestamp {
    const EVERY: Duration = Duration::from_secs(300);
    let until = if stored.ready { now } else { stored.ready_since };
    let periods = until.since(stored.created).as_secs() / EVERY.as_secs();
    stored.created + EVERY * u32::try_from(periods).unwrap_or(u32::MAX)
}

fn node(stored: &cluster::Node, now: Timestamp) -> Node {
    Node {
        name: stored.name.clone(),
        ready: stored.ready,
        unready_for_pods: false,
        zone: Some(stored.zone.clone()),
        // The only way here for a node to be not Ready.
        silent: !stored.ready,
        ready_since: stored.ready_since,
        renewed_at: renewed_at(stored, now),
        cordoned: stored.unschedulable,
        excluded: stored.labels.contains_key(EXCLUDE_LABEL),
        record: stored.annotations.get(RECORD_ANNOTATION).map(|text| read_record(text)),
        owner: node_owner(&stored.labels),
        selected: !stored.labels.contains_key(OUT_OF_SCOPE),
        resource_version: stored.version.to_string(),
    }
}

fn pod(cluster: &cluster::Cluster, stored: &cluster::Pod) -> Pod {
    let class = stored.priority_class.as_deref();
    let owner = stored.owner.as_ref().filter(|owner| owner.kind != "Node");
    let of_daemon_set = owner.is_some_and(|owner| owner.kind == "DaemonSet");
    Pod {
        pod: stored.pod.clone(),
        grace: stored.grace,
        finished: matches!(stored.phase, cluster::Phase::Succeeded | cluster::Phase::Failed),
        mirror: stored.annotations.contains_key(MIRROR),
        daemon_set: owner.filter(|_| of_daemon_set).map(|owner| owner.name.clone()),
        origin: PodOrigin(owner.map_or_else(
            || format!("{} {}", stored.pod.namespace, stored.pod.name),
            |owner| format!("{} {} {}", stored.pod.namespace, owner.kind, owner.name),
        )),
        created: stored.created.whole_second(),
        // The DaemonSet controller gives its pods this toleration.
        tolerates_cordon: stored.tolerates_all || of_daemon_set,
        cluster_critical: class == Some("system-cluster-critical"),
        node_critical: class == Some("system-node-critical"),
        local_traffic: stored.host_port.is_some()
            || cluster.services.values().any(|service| service.local && service.selects(stored)),
        let_finish: stored.annotations.get(LET_FINISH).is_some_and(|value| value == "true"),
        ends_at: stored.deletion,
        deleted_at: stored
            .deletion
            .zip(stored.deletion_grace)
            .map(|(end, grace)| (end - grace).whole_second()),
        ready: stored.ready,
        labels_hash: labels_hash(&stored.labels),
    }
}

#[cfg(test)]
mod tests;
