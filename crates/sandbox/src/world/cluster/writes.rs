//! What the API server does for its clients.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{ClusterName, NodeName, PodUid};

use super::index::{key_of, selects};
use super::{Budget, Cluster, Key, Node, Phase, Pod};
use crate::world::World;

/// What a PATCH of a node asks for. `None` as the value of a label or annotation takes it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodePatch {
    /// `spec.unschedulable`.
    pub unschedulable: Option<bool>,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, Option<String>>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, Option<String>>,
    /// `spec.taints` as (key, value, effect), all of them.
    pub taints: Option<Vec<(String, String, String)>>,
    /// `metadata.resourceVersion` as a precondition.
    pub resource_version: Option<u64>,
}

/// Why the API server refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApiError {
    /// 404: there is no such object.
    NotFound,
    /// 409: another UID or resourceVersion than the precondition names.
    Conflict(String),
    /// 429: a disruption budget does not allow the eviction now.
    TooManyRequests {
        /// The budget.
        budget: String,
        /// `details.causes[].message`.
        message: String,
    },
    /// 403: an admission webhook does not allow it.
    Vetoed(String),
    /// 403 with the cause `NamespaceTerminating`: it would be something new in a namespace that is being deleted.
    NamespaceTerminating {
        /// The namespace.
        namespace: String,
        /// The API server's words.
        message: String,
    },
    /// 422: all annotations of an object together may have 256 KiB.
    TooLong(String),
    /// 500: more than one budget matches the pod, which the Eviction API does not support.
    Several,
    /// No answer at all.
    Away,
}

impl World {
    /// PATCH of a node. One that changes nothing makes no new version.
    pub fn patch_node(
        &mut self,
        name: &ClusterName,
        node: &NodeName,
        patch: NodePatch,
    ) -> Result<Node, ApiError> {
        let stored = self.answering(name)?.nodes.get(node).ok_or(ApiError::NotFound)?;
        if let Some(expected) = patch.resource_version.filter(|version| *version != stored.version) {
            return Err(ApiError::Conflict(format!(
                "the object has been modified: resourceVersion is {}, not {expected}",
                stored.version
            )));
        }
        if let Some(words) = self.clusters.get(name).and_then(|cluster| cluster.nodes_vetoed.as_ref()) {
            return Err(ApiError::Vetoed(format!(
                "nodes \"{node}\" is forbidden: ValidatingAdmissionPolicy 'p' with binding 'b' denied request: {words}"
            )));
        }
        let mut changed = stored.clone();
        let strips = self.clusters.get(name).is_some_and(|cluster| cluster.cordons_stripped);
        let unschedulable = patch.unschedulable.filter(|cordons| !(strips && *cordons));
        changed.unschedulable = unschedulable.unwrap_or(stored.unschedulable);
        changed.taints = patch.taints.unwrap_or_else(|| stored.taints.clone());
        merge(&mut changed.labels, patch.labels);
        merge(&mut changed.annotations, patch.annotations);
        let others = self.clusters.get(name).and_then(|cluster| cluster.other_annotations.get(node));
        if bytes_of(&changed.annotations) + others.copied().unwrap_or(0) > ANNOTATIONS {
            return Err(ApiError::TooLong(format!(
                "Node \"{node}\" is invalid: metadata.annotations: Too long: may not be more than {ANNOTATIONS} bytes"
            )));
        }
        let same = changed.unschedulable == stored.unschedulable
            && changed.taints == stored.taints
            && changed.labels == stored.labels
            && changed.annotations == stored.annotations;
        if same {
            return Ok(changed);
        }
        if changed.unschedulable != stored.unschedulable {
            let word = if changed.unschedulable { "cordoned" } else { "uncordoned" };
            self.tell(format!("node {node} is {word}"));
        }
        self.store_node(name, changed);
        let stored = self.clusters.get(name).and_then(|cluster| cluster.nodes.get(node));
        stored.cloned().ok_or(ApiError::NotFound)
    }

    /// POST of an Eviction (policy/v1).
    pub fn evict_pod(
        &mut self,
        name: &ClusterName,
        namespace: &str,
        pod_name: &str,
        uid: Option<&PodUid>,
        grace: Option<Duration>,
    ) -> Result<(), ApiError> {
        let cluster = self.answering(name)?;
        let pod = cluster.find(namespace, pod_name, uid)?;
        cluster.admits_new(namespace, pod_name)?;
        cluster.admits(namespace, pod_name)?;
        // Pods that do not run, or go already, cost a budget nothing (pods/eviction, `canIgnorePDB`).
        let counts = pod.phase == Phase::Running && pod.deletion.is_none();
        let budgets: Vec<&Budget> =
            cluster.budgets.values().filter(|budget| counts && budget.covers(pod)).collect();
        match budgets[..] {
            [] => {}
            [budget] => cluster.allows(budget, pod)?,
            [_, _, ..] => return Err(ApiError::Several),
        }
        self.tell(format!("pod {namespace}/{pod_name} is evicted"));
        self.delete_pod(name, namespace, pod_name, grace, uid)
    }

    /// DELETE of a pod by a client, which admission webhooks see.
    pub fn ask_to_delete_pod(
        &mut self,
        name: &ClusterName,
        namespace: &str,
        pod_name: &str,
        grace: Option<Duration>,
        uid: Option<&PodUid>,
    ) -> Result<(), ApiError> {
        let cluster = self.answering(name)?;
        if cluster.vetoes_deletions {
            cluster.admits(namespace, pod_name)?;
        }
        self.delete_pod(name, namespace, pod_name, grace, uid)
    }

    /// A pod is deleted. Without a grace it gets its own.
    pub fn delete_pod(
        &mut self,
        name: &ClusterName,
        namespace: &str,
        pod_name: &str,
        grace: Option<Duration>,
        uid: Option<&PodUid>,
    ) -> Result<(), ApiError> {
        let mut pod = self.answering(name)?.find(namespace, pod_name, uid)?.clone();
        let Some(requested) = pod.requested_grace(grace) else { return Ok(()) };
        let began = match (pod.deletion, pod.deletion_grace) {
            (Some(deletion), Some(before)) => deletion - before,
            _ => self.now,
        };
        let bound = pod.node.is_some() && pod.phase != Phase::Succeeded && pod.phase != Phase::Failed;
        if requested == Duration::ZERO || !bound {
            self.remove_pod(name, &key_of(&pod));
            return Ok(());
        }
        // A shorter grace moves deletionTimestamp as if it had been asked for at first (apimachinery,
        // `rest.BeforeDelete`), while the kubelet starts to count anew.
        pod.deletion = Some(began + requested);
        pod.deletion_grace = Some(requested);
        let served = self.has_kubelet(name, &pod);
        if served {
            self.kubelet_ends(name, &mut pod, requested);
        }
        self.store_pod(name, pod);
        Ok(())
    }

    fn has_kubelet(&self, name: &ClusterName, pod: &Pod) -> bool {
        let cluster = self.clusters.get(name);
        let node = cluster.zip(pod.node.as_ref()).and_then(|(cluster, node)| cluster.machine(node));
        node.is_some_and(|node| node.powered && !node.kubelet_dead)
    }

    fn answering(&self, name: &ClusterName) -> Result<&Cluster, ApiError> {
        let cluster = self.clusters.get(name).ok_or(ApiError::Away)?;
        if cluster.is_away(self.now) { Err(ApiError::Away) } else { Ok(cluster) }
    }
}

impl Cluster {
    fn find(&self, namespace: &str, name: &str, uid: Option<&PodUid>) -> Result<&Pod, ApiError> {
        let key: Key = (namespace.to_owned(), name.to_owned());
        let pod = self.pods.get(&key).ok_or(ApiError::NotFound)?;
        match uid {
            Some(uid) if *uid != pod.pod.uid => Err(ApiError::Conflict(format!(
                "the UID in the precondition ({uid}) does not match the UID in record ({})",
                pod.pod.uid
            ))),
            Some(_) | None => Ok(pod),
        }
    }

    /// The admission plugin NamespaceLifecycle: an Eviction is created, so it is refused like every other object. The
    /// words are those of kube-apiserver 1.36.
    fn admits_new(&self, namespace: &str, pod_name: &str) -> Result<(), ApiError> {
        if !self.terminating_namespaces.contains(namespace) {
            return Ok(());
        }
        let message = format!(
            "pods \"{pod_name}\" is forbidden: unable to create new content in namespace {namespace} because it is \
             being terminated"
        );
        Err(ApiError::NamespaceTerminating { namespace: namespace.to_owned(), message })
    }

    fn admits(&self, namespace: &str, pod_name: &str) -> Result<(), ApiError> {
        let words = self.vetoes.get(&(namespace.to_owned(), pod_name.to_owned()));
        words.map_or(Ok(()), |words| {
            let says = format!("admission webhook \"drain.example.com\" denied the request: {words}");
            Err(ApiError::Vetoed(says))
        })
    }

    fn allows(&self, budget: &Budget, pod: &Pod) -> Result<(), ApiError> {
        let healthy = self.healthy_pods(budget);
        // A pod that is not ready takes nothing away while the others are enough
        // (`unhealthyPodEvictionPolicy: IfHealthyBudget`, the default).
        let allowed =
            if pod.ready { healthy > budget.min_available } else { healthy >= budget.min_available.max(1) };
        if allowed {
            return Ok(());
        }
        Err(ApiError::TooManyRequests {
            budget: budget.name.clone(),
            message: format!(
                "The disruption budget {} needs {} healthy pods and has {healthy} currently",
                budget.name, budget.min_available
            ),
        })
    }
}

impl Budget {
    /// Whether it speaks of this pod. An empty selector takes the whole namespace (policy/v1).
    pub fn covers(&self, pod: &Pod) -> bool {
        self.namespace == pod.pod.namespace && selects(&self.selector, &pod.labels)
    }
}

impl Pod {
    /// The grace that a deletion leads to; `None` where it changes nothing, because a second deletion can
    /// only shorten the first one's grace.
    fn requested_grace(&self, asked: Option<Duration>) -> Option<Duration> {
        match (self.deletion_grace, asked) {
            (None, asked) => Some(asked.unwrap_or(self.grace)),
            (Some(running), Some(asked)) => (asked < running).then_some(asked),
            (Some(_), None) => None,
        }
    }
}

/// `TotalAnnotationSizeLimitB` of apimachinery.
pub const ANNOTATIONS: usize = 256 * 1024;

/// As the API server counts: keys and values.
fn bytes_of(annotations: &BTreeMap<String, String>) -> usize {
    annotations.iter().map(|(key, value)| key.len() + value.len()).sum()
}

fn merge(stored: &mut BTreeMap<String, String>, patch: BTreeMap<String, Option<String>>) {
    for (key, value) in patch {
        match value {
            Some(value) => {
                stored.insert(key, value);
            }
            None => {
                stored.remove(&key);
            }
        }
    }
}
