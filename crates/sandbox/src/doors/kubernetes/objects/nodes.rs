//! `spec` and `status` of a Node.

use std::borrow::Cow;

use serde::Serialize;

use super::{Condition, Time};
use crate::world::cluster::Node;

/// What the nodes say they run; no client here depends on it.
pub(in crate::doors::kubernetes) const KUBELET_VERSION: &str = "v1.36.3";
pub(in crate::doors::kubernetes) const OS_IMAGE: &str = "offramp sandbox";
pub(in crate::doors::kubernetes) const KERNEL_VERSION: &str = "6.12.0";
pub(in crate::doors::kubernetes) const CONTAINER_RUNTIME: &str = "containerd://2.1.0";

#[derive(Serialize)]
pub(super) struct NodeSpec<'a> {
    #[serde(rename = "providerID")]
    provider_id: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    unschedulable: bool,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    taints: Vec<Taint<'a>>,
}

#[derive(Serialize)]
struct Taint<'a> {
    key: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    value: &'a str,
    effect: &'a str,
}

impl<'a> NodeSpec<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        let taints = node.taints.iter().map(|(key, value, effect)| Taint { key, value, effect });
        Self { provider_id: node.provider_id(), unschedulable: node.unschedulable, taints: taints.collect() }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct NodeStatus<'a> {
    conditions: [Condition<'a>; 1],
    addresses: Vec<Address<'a>>,
    node_info: NodeInfo,
}

#[derive(Serialize)]
struct Address<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    address: Cow<'a, str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NodeInfo {
    architecture: &'static str,
    operating_system: &'static str,
    kubelet_version: &'static str,
    os_image: &'static str,
    kernel_version: &'static str,
    container_runtime_version: &'static str,
}

impl<'a> NodeStatus<'a> {
    pub(super) fn of(node: &'a Node) -> Self {
        // The only way here for a node to be not Ready is a kubelet that is silent.
        let (status, reason) =
            if node.ready { ("True", "KubeletReady") } else { ("Unknown", "NodeStatusUnknown") };
        let ip = internal_ip(node).map(|ip| Address { kind: "InternalIP", address: ip.into() });
        let host = Address { kind: "Hostname", address: node.name.as_str().into() };
        Self {
            conditions: [Condition {
                kind: "Ready",
                status,
                reason: Some(reason),
                last_transition_time: Time(node.ready_since),
            }],
            addresses: ip.into_iter().chain([host]).collect(),
            node_info: NodeInfo {
                architecture: "amd64",
                operating_system: "linux",
                kubelet_version: KUBELET_VERSION,
                os_image: OS_IMAGE,
                kernel_version: KERNEL_VERSION,
                container_runtime_version: CONTAINER_RUNTIME,
            },
        }
    }
}

/// The address inside an EC2 host name such as `ip-10-0-1-2.eu-west-1.compute.internal`.
pub(in crate::doors::kubernetes) fn internal_ip(node: &Node) -> Option<String> {
    let host = node.name.as_str().split('.').next()?;
    let octets: Vec<u8> =
        host.strip_prefix("ip-")?.split('-').map(str::parse).collect::<Result<_, _>>().ok()?;
    match octets[..] {
        [a, b, c, d] => Some(format!("{a}.{b}.{c}.{d}")),
        _ => None,
    }
}
