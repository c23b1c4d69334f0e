//! Pods: what is read of one, and the bodies that end one.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, PodSpec, Toleration};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use offramp_core::{NodeName, Pod, PodOrigin, PodRef, PodUid, Timestamp};
use offramp_engine::labels_hash;
use serde_json::{Value, json};

/// The kubelet puts it on the API's copy of a static pod.
const MIRROR: &str = "kubernetes.io/config.mirror";
/// Set to `"true"` by users on pods that shall be left to finish by themselves.
const LET_FINISH: &str = "offramp.sh/let-finish";
/// The taint of a cordoned node.
const UNSCHEDULABLE: &str = "node.kubernetes.io/unschedulable";
/// The API server's default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE_SECONDS: i64 = 30;

/// What the view keeps of one Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchedPod {
    pub(crate) node: NodeName,
    /// `local_traffic` says here only whether the pod has a hostPort: the Services are asked when the
    /// pod is read, because they change on their own.
    pub(crate) pod: Pod,
    pub(crate) labels: BTreeMap<String, String>,
}

impl WatchedPod {
    /// A disruption budget counts on it.
    pub(crate) const fn is_healthy(&self) -> bool {
        self.pod.ready && self.pod.ends_at.is_none()
    }
}

/// Trims a Pod. One that is bound to no node is none of ours.
pub(crate) fn read(pod: k8s_openapi::api::core::v1::Pod) -> Option<WatchedPod> {
    let meta = pod.metadata;
    let spec = pod.spec?;
    let node = NodeName::new(spec.node_name.clone()?);
    let annotations = meta.annotations.unwrap_or_default();
    let owners = meta.owner_references.unwrap_or_default();
    let controller = owners.into_iter().find(|owner| owner.controller == Some(true));
    let (namespace, name) = (meta.namespace?, meta.name?);
    let origin = match &controller {
        Some(owner) => format!("{namespace} {} {}", owner.kind, owner.name),
        None => format!("{namespace} {name}"),
    };
    let origin = PodOrigin(origin);
    let class = spec.priority_class_name.as_deref();
    let status = pod.status.unwrap_or_default();
    let mut conditions = status.conditions.iter().flatten();
    let ready = conditions.any(|condition| condition.type_ == "Ready" && condition.status == "True");
    let phase = status.phase;
    let labels = meta.labels.unwrap_or_default();
    let grace = spec.termination_grace_period_seconds.unwrap_or(DEFAULT_GRACE_SECONDS);
    Some(WatchedPod {
        node,
        pod: Pod {
            pod: PodRef { namespace, name, uid: PodUid::new(meta.uid?) },
            grace: Duration::from_secs(u64::try_from(grace).unwrap_or(0)),
            finished: matches!(phase.as_deref(), Some("Succeeded" | "Failed")),
            mirror: annotations.contains_key(MIRROR),
            origin,
            daemon_set: controller.filter(|owner| owner.kind == "DaemonSet").map(|owner| owner.name),
            created: meta.creation_timestamp.map_or(Timestamp::from_millis(0), |at| timestamp(&at)),
            tolerates_cordon: spec.tolerations.iter().flatten().any(tolerates_cordon),
            cluster_critical: class == Some("system-cluster-critical"),
            node_critical: class == Some("system-node-critical"),
            local_traffic: has_host_port(&spec),
            let_finish: annotations.get(LET_FINISH).is_some_and(|value| value == "true"),
            // The API server writes the time of the request plus the grace (BeforeDelete in its
            // rest package), so this is the end and not the beginning.
            ends_at: meta.deletion_timestamp.as_ref().map(timestamp),
            deleted_at: meta
                .deletion_timestamp
                .as_ref()
                .zip(meta.deletion_grace_period_seconds)
                .map(|(end, grace)| timestamp(end) - Duration::from_secs(u64::try_from(grace).unwrap_or(0))),
            ready,
            labels_hash: labels_hash(&labels),
        },
        labels,
    })
}

fn timestamp(time: &Time) -> Timestamp {
    Timestamp::from_millis(time.0.as_millisecond())
}

/// As the scheduler matches it with `node.kubernetes.io/unschedulable:NoSchedule`, which stands for
/// `spec.unschedulable`: no key is every key, no effect every effect, and `Equal`, the default, compares with
/// the taint's empty value.
fn tolerates_cordon(toleration: &Toleration) -> bool {
    let key = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = exists || toleration.value.as_deref().unwrap_or_default().is_empty();
    let effect = toleration.effect.as_deref().unwrap_or_default();
    (key == UNSCHEDULABLE && value || key.is_empty() && exists) && matches!(effect, "" | "NoSchedule")
}

/// The body of an eviction. kube's own `Api::evict` writes `delete_options` where the API wants
/// `deleteOptions`, and the API server would drop the precondition without a word.
pub(crate) fn eviction(pod: &PodRef, grace: Option<Duration>) -> Value {
    let mut options = json!({ "preconditions": { "uid": pod.uid.as_str() } });
    if let Some(grace) = grace {
        options["gracePeriodSeconds"] = json!(whole_seconds(grace));
    }
    json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": { "namespace": pod.namespace, "name": pod.name },
        "deleteOptions": options,
    })
}

/// A grace for the API. Zero would take the pod out of the API without waiting for the kubelet, and two
/// pods of a StatefulSet could run under one name.
pub(crate) fn whole_seconds(grace: Duration) -> u32 {
    u32::try_from(grace.as_secs()).unwrap_or(u32::MAX).max(1)
}

/// The API server fills in `hostPort` for ports of pods on the host's network. Init containers only
/// serve while the pod runs if they restart always, as sidecars.
fn has_host_port(spec: &PodSpec) -> bool {
    let open = |container: &Container| {
        container.ports.iter().flatten().any(|port| port.host_port.is_some_and(|port| port > 0))
    };
    let sidecars = spec.init_containers.iter().flatten();
    let mut sidecars = sidecars.filter(|container| container.restart_policy.as_deref() == Some("Always"));
    spec.containers.iter().any(open) || sidecars.any(open)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A pod with `patch` laid over it.
    fn pod(patch: &Value) -> Option<WatchedPod> {
        let mut pod = json!({
            "metadata": { "namespace": "shop", "name": "web-1", "uid": "u1" },
            "spec": { "nodeName": "n1", "containers": [] },
        });
        for part in ["metadata", "spec", "status"] {
            for (key, value) in patch[part].as_object().into_iter().flatten() {
                pod[part][key] = value.clone();
            }
        }
        read(serde_json::from_value(pod).unwrap())
    }

    fn plain() -> Pod {
        Pod {
            pod: PodRef { namespace: "shop".to_owned(), name: "web-1".to_owned(), uid: PodUid::from("u1") },
            grace: Duration::from_secs(30),
            finished: false,
            mirror: false,
            daemon_set: None,
            origin: PodOrigin("shop web-1".to_owned()),
            created: Timestamp::from_millis(0),
            tolerates_cordon: false,
            cluster_critical: false,
            node_critical: false,
            local_traffic: false,
            let_finish: false,
            ends_at: None,
            deleted_at: None,
            ready: false,
            labels_hash: labels_hash(&BTreeMap::new()),
        }
    }

    #[test]
    fn each_field_is_read() {
        let check = |patch: Value, expect: Pod| assert_eq!(pod(&patch).unwrap().pod, expect, "{patch}");
        check(json!({}), plain());
        check(
            json!({ "spec": { "terminationGracePeriodSeconds": 90 } }),
            Pod { grace: Duration::from_secs(90), ..plain() },
        );
        for (phase, finished) in [("Running", false), ("Succeeded", true), ("Failed", true)] {
            check(json!({ "status": { "phase": phase } }), Pod { finished, ..plain() });
        }
        check(
            json!({ "metadata": { "annotations": { "kubernetes.io/config.mirror": "abc" } } }),
            Pod { mirror: true, ..plain() },
        );
        let owner = |kind: &str, controller: bool| {
            let owner = json!({ "apiVersion": "apps/v1", "kind": kind, "name": "o", "uid": "x", "controller": controller });
            json!({ "metadata": { "ownerReferences": [owner] } })
        };
        let owned = |kind: &str| Pod { origin: PodOrigin(format!("shop {kind} o")), ..plain() };
        check(owner("DaemonSet", true), Pod { daemon_set: Some("o".to_owned()), ..owned("DaemonSet") });
        check(owner("DaemonSet", false), plain());
        check(owner("ReplicaSet", true), owned("ReplicaSet"));
        check(
            json!({ "metadata": { "creationTimestamp": "1970-01-01T00:00:07Z" } }),
            Pod { created: Timestamp::from_millis(7_000), ..plain() },
        );
        check(
            json!({ "spec": { "priorityClassName": "system-cluster-critical" } }),
            Pod { cluster_critical: true, ..plain() },
        );
        check(
            json!({ "spec": { "priorityClassName": "system-node-critical" } }),
            Pod { node_critical: true, ..plain() },
        );
        for (value, let_finish) in [("true", true), ("false", false)] {
            let annotations = json!({ "offramp.sh/let-finish": value });
            check(json!({ "metadata": { "annotations": annotations } }), Pod { let_finish, ..plain() });
        }
        check(
            json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:01:00Z" } }),
            Pod { ends_at: Some(Timestamp::from_millis(60_000)), ..plain() },
        );
        check(
            json!({ "metadata": { "deletionTimestamp": "1970-01-01T00:01:00Z", "deletionGracePeriodSeconds": 20 } }),
            Pod {
                ends_at: Some(Timestamp::from_millis(60_000)),
                deleted_at: Some(Timestamp::from_millis(40_000)),
                ..plain()
            },
        );
    }

    /// Report 08, openkruise/kruise#1831, deckhouse/deckhouse#5142: DaemonSets of other API groups put one pod on each
    /// node as well, and put it there again when it is evicted.
    #[test]
    fn the_daemon_set_of_another_api_group_is_one() {
        let owner = json!({
            "apiVersion": "apps.kruise.io/v1alpha1", "kind": "DaemonSet", "name": "nginx", "uid": "x",
            "controller": true,
        });
        let read = pod(&json!({ "metadata": { "ownerReferences": [owner] } })).unwrap().pod;
        let origin = PodOrigin("shop DaemonSet nginx".to_owned());
        assert_eq!(read, Pod { daemon_set: Some("nginx".to_owned()), origin, ..plain() });
    }

    #[test]
    fn some_tolerations_are_of_the_cordon() {
        let check = |toleration: Value, expect: bool| {
            let pod = pod(&json!({ "spec": { "tolerations": [toleration] } })).unwrap();
            assert_eq!(pod.pod.tolerates_cordon, expect, "{toleration}");
        };
        let key = "node.kubernetes.io/unschedulable";
        check(json!({ "operator": "Exists" }), true);
        check(json!({ "operator": "Exists", "effect": "NoSchedule" }), true);
        check(json!({ "operator": "Exists", "effect": "NoExecute" }), false);
        check(json!({ "key": key, "operator": "Exists" }), true);
        check(json!({ "key": key, "operator": "Exists", "effect": "NoSchedule" }), true);
        check(json!({ "key": key }), true);
        check(json!({ "key": key, "operator": "Equal", "value": "true" }), false);
        check(json!({ "key": "dedicated", "operator": "Exists" }), false);
    }

    #[test]
    fn a_host_port_is_local_traffic() {
        let check = |spec: Value, expect: bool| {
            assert_eq!(pod(&json!({ "spec": spec })).unwrap().pod.local_traffic, expect, "{spec}");
        };
        let ports = json!([{ "containerPort": 80, "hostPort": 8080 }]);
        check(json!({ "containers": [{ "name": "a" }, { "name": "b", "ports": ports }] }), true);
        check(json!({ "containers": [{ "name": "a", "ports": [{ "containerPort": 80 }] }] }), false);
        check(json!({ "initContainers": [{ "name": "a", "ports": ports }] }), false);
        check(
            json!({ "initContainers": [{ "name": "a", "ports": ports, "restartPolicy": "Always" }] }),
            true,
        );
    }

    #[test]
    fn a_pod_without_a_node_is_none_of_ours() {
        assert_eq!(pod(&json!({ "spec": { "nodeName": null } })), None);
    }
}
