//! Objects as the API server writes them: core/v1 and policy/v1 JSON, with the fields that this world
//! has. Borrowed structures instead of JSON trees, because a storm writes tens of thousands of them.

mod budgets;
mod daemon_sets;
mod nodes;
mod pods;
mod services;

use std::collections::BTreeMap;

use offramp_core::Timestamp;
use serde::{Serialize, Serializer};

use super::kinds::{Kind, View};
use crate::world::cluster::Owner;
use budgets::{BudgetSpec, BudgetStatus};
use daemon_sets::{DaemonSetSpec, DaemonSetStatus};
pub(super) use nodes::{CONTAINER_RUNTIME, KERNEL_VERSION, KUBELET_VERSION, OS_IMAGE, internal_ip};
use nodes::{NodeSpec, NodeStatus};
pub(super) use pods::phase_name;
use pods::{PodSpec, PodStatus};
use services::{LOAD_BALANCER_STATUS, ServiceSpec};
pub(super) use services::{SERVICE_PORT, service_type};

/// A whole object.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rendered<'a> {
    view: View<'a>,
    /// The items of a list do not repeat their kind.
    typed: bool,
}

/// `metadata` of an object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<&'a str>,
    #[serde(serialize_with = "as_text")]
    resource_version: u64,
    creation_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_timestamp: Option<Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deletion_grace_period_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    labels: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<&'a BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    owner_references: Option<[OwnerReference<'a>; 1]>,
}

/// A moment as Kubernetes writes it: RFC 3339 in whole seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Time(pub(super) Timestamp);

impl<'a> Rendered<'a> {
    /// An object that stands alone.
    pub(super) const fn alone(view: View<'a>) -> Self {
        Self { view, typed: true }
    }

    /// An object in a list.
    pub(super) const fn listed(view: View<'a>) -> Self {
        Self { view, typed: false }
    }
}

impl Serialize for Rendered<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let kind = self.typed.then(|| self.view.kind());
        let metadata = Metadata::of(self.view);
        match self.view {
            View::Node(node) => {
                Whole::new(kind, metadata, NodeSpec::of(node), NodeStatus::of(node)).serialize(serializer)
            }
            View::Pod(pod) => {
                Whole::new(kind, metadata, PodSpec::of(pod), PodStatus::of(pod)).serialize(serializer)
            }
            View::Service(service) => {
                Whole::new(kind, metadata, ServiceSpec::of(service), LOAD_BALANCER_STATUS)
                    .serialize(serializer)
            }
            View::DaemonSet(workload, health) => {
                let (spec, status) = (DaemonSetSpec::of(workload), DaemonSetStatus::of(health));
                Whole::new(kind, metadata, spec, status).serialize(serializer)
            }
            View::Budget(budget, health) => {
                Whole::new(kind, metadata, BudgetSpec::of(budget), BudgetStatus::of(budget, health))
                    .serialize(serializer)
            }
        }
    }
}

impl<'a> Metadata<'a> {
    pub(super) fn of(view: View<'a>) -> Self {
        let bare = Self {
            name: view.name(),
            namespace: view.namespace(),
            uid: None,
            resource_version: view.version(),
            creation_timestamp: view.created().map(Time),
            deletion_timestamp: None,
            deletion_grace_period_seconds: None,
            labels: view.labels().filter(|labels| !labels.is_empty()),
            annotations: None,
            owner_references: None,
        };
        match view {
            View::Node(node) => Self { uid: Some(&node.uid), annotations: some(&node.annotations), ..bare },
            View::Pod(pod) => Self {
                uid: Some(pod.pod.uid.as_str()),
                deletion_timestamp: pod.deletion.map(Time),
                deletion_grace_period_seconds: pod.deletion_grace.map(|grace| grace.as_secs()),
                annotations: some(&pod.annotations),
                owner_references: pod.owner.as_ref().map(|owner| [OwnerReference::of(owner)]),
                ..bare
            },
            View::Service(service) => Self { uid: Some(&service.uid), ..bare },
            View::DaemonSet(workload, _) => Self { uid: Some(&workload.uid), ..bare },
            View::Budget(..) => bare,
        }
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let seconds = self.0.as_millis().div_euclid(1000);
        let moment = jiff::Timestamp::from_second(seconds).map_err(serde::ser::Error::custom)?;
        serializer.collect_str(&moment)
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Whole<'a, Spec, Status> {
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_version: Option<&'static str>,
    metadata: Metadata<'a>,
    spec: Spec,
    status: Status,
}

impl<'a, Spec, Status> Whole<'a, Spec, Status> {
    fn new(kind: Option<Kind>, metadata: Metadata<'a>, spec: Spec, status: Status) -> Self {
        Self { kind: kind.map(Kind::name), api_version: kind.map(Kind::api_version), metadata, spec, status }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct OwnerReference<'a> {
    api_version: &'static str,
    kind: &'a str,
    name: &'a str,
    uid: &'a str,
    controller: bool,
}

impl<'a> OwnerReference<'a> {
    fn of(owner: &'a Owner) -> Self {
        let api_version = match owner.kind.as_str() {
            "Node" => "v1",
            "Job" => "batch/v1",
            _ => "apps/v1",
        };
        Self { api_version, kind: &owner.kind, name: &owner.name, uid: &owner.uid, controller: true }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Condition<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    last_transition_time: Time,
}

fn some(map: &BTreeMap<String, String>) -> Option<&BTreeMap<String, String>> {
    (!map.is_empty()).then_some(map)
}

fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}
