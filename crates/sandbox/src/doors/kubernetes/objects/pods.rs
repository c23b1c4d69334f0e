//! `spec` and `status` of a Pod.

use std::time::Duration;

use serde::Serialize;

use super::{Condition, Time};
use crate::world::cluster::{Phase, Pod};

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodSpec<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    node_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority_class_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    termination_grace_period_seconds: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    tolerations: Option<[Toleration; 1]>,
    containers: [Container; 1],
}

/// Without a key and with `Exists` it tolerates every taint.
#[derive(Serialize)]
struct Toleration {
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'static str>,
    operator: &'static str,
}

#[derive(Serialize)]
struct Container {
    name: &'static str,
    image: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    ports: Option<[ContainerPort; 1]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lifecycle: Option<Lifecycle>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerPort {
    container_port: u16,
    host_port: u16,
    protocol: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Lifecycle {
    pre_stop: PreStop,
}

#[derive(Serialize)]
struct PreStop {
    sleep: Sleep,
}

#[derive(Serialize)]
struct Sleep {
    seconds: u64,
}

const CONTAINER: &str = "app";
const IMAGE: &str = "offramp.sandbox/app";

impl<'a> PodSpec<'a> {
    pub(super) fn of(pod: &'a Pod) -> Self {
        // The priority admission plugin resolves the two classes that every cluster has.
        let priority = match pod.priority_class.as_deref() {
            Some("system-node-critical") => Some(2_000_001_000),
            Some("system-cluster-critical") => Some(2_000_000_000),
            Some(_) => None,
            None => Some(0),
        };
        let ports = pod
            .host_port
            .map(|port| [ContainerPort { container_port: port, host_port: port, protocol: "TCP" }]);
        let sleeps = pod.ending.pre_stop;
        let lifecycle = (sleeps > Duration::ZERO)
            .then_some(Lifecycle { pre_stop: PreStop { sleep: Sleep { seconds: sleeps.as_secs() } } });
        Self {
            node_name: pod.node.as_ref().map(|node| node.as_str()),
            priority_class_name: pod.priority_class.as_deref(),
            priority,
            termination_grace_period_seconds: pod.grace.as_secs(),
            tolerations: tolerations(pod),
            containers: [Container { name: CONTAINER, image: IMAGE, ports, lifecycle }],
        }
    }
}

/// The DaemonSet controller lets its pods tolerate the cordon.
fn tolerations(pod: &Pod) -> Option<[Toleration; 1]> {
    let of_daemon_set = pod.owner.as_ref().is_some_and(|owner| owner.kind == "DaemonSet");
    let key = (!pod.tolerates_all).then_some("node.kubernetes.io/unschedulable");
    (pod.tolerates_all || of_daemon_set).then_some([Toleration { key, operator: "Exists" }])
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PodStatus<'a> {
    phase: &'static str,
    conditions: [Condition<'a>; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    container_statuses: Option<[ContainerStatus; 1]>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerStatus {
    name: &'static str,
    image: &'static str,
    #[serde(rename = "imageID")]
    image_id: &'static str,
    ready: bool,
    restart_count: u32,
}

impl PodStatus<'_> {
    pub(super) fn of(pod: &Pod) -> Self {
        let status = if pod.ready { "True" } else { "False" };
        Self {
            phase: phase_name(pod.phase),
            conditions: [Condition {
                kind: "Ready",
                status,
                reason: None,
                last_transition_time: Time(pod.ready_since),
            }],
            container_statuses: pod.node.is_some().then_some([ContainerStatus {
                name: CONTAINER,
                image: IMAGE,
                image_id: "",
                ready: pod.ready,
                restart_count: 0,
            }]),
        }
    }
}

/// `status.phase`.
pub(in crate::doors::kubernetes) const fn phase_name(phase: Phase) -> &'static str {
    match phase {
        Phase::Pending => "Pending",
        Phase::Running => "Running",
        Phase::Succeeded => "Succeeded",
        Phase::Failed => "Failed",
    }
}
