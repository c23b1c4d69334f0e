//! `spec` and `status` of a Service.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::world::cluster::Service;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceSpec<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    selector: &'a BTreeMap<String, String>,
    ports: [ServicePort; 1],
    external_traffic_policy: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ServicePort {
    port: u16,
    node_port: u16,
    protocol: &'static str,
}

/// The port of every Service here; the world has only node ports.
pub(in crate::doors::kubernetes) const SERVICE_PORT: u16 = 80;

/// `spec.type`: with a target group a controller made a load balancer for it.
pub(in crate::doors::kubernetes) const fn service_type(service: &Service) -> &'static str {
    if service.target_group.is_some() { "LoadBalancer" } else { "NodePort" }
}

impl<'a> ServiceSpec<'a> {
    pub(super) const fn of(service: &'a Service) -> Self {
        Self {
            kind: service_type(service),
            selector: &service.selector,
            ports: [ServicePort { port: SERVICE_PORT, node_port: service.node_port, protocol: "TCP" }],
            external_traffic_policy: if service.local { "Local" } else { "Cluster" },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServiceStatus {
    load_balancer: Empty,
}

#[derive(Serialize)]
struct Empty {}

pub(super) const LOAD_BALANCER_STATUS: ServiceStatus = ServiceStatus { load_balancer: Empty {} };
