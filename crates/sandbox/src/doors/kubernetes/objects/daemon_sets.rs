//! `spec` and `status` of a DaemonSet: as much as `kubectl drain` and `kubectl get` read.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::doors::kubernetes::kinds::Health;
use crate::world::cluster::Workload;

#[derive(Serialize)]
pub(super) struct DaemonSetSpec<'a> {
    selector: MatchLabels<'a>,
    template: Template<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MatchLabels<'a> {
    match_labels: &'a BTreeMap<String, String>,
}

#[derive(Serialize)]
struct Template<'a> {
    metadata: Labels<'a>,
}

#[derive(Serialize)]
struct Labels<'a> {
    labels: &'a BTreeMap<String, String>,
}

impl<'a> DaemonSetSpec<'a> {
    pub(super) const fn of(workload: &'a Workload) -> Self {
        let labels = &workload.template.labels;
        Self {
            selector: MatchLabels { match_labels: labels },
            template: Template { metadata: Labels { labels } },
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct DaemonSetStatus {
    desired_number_scheduled: usize,
    current_number_scheduled: usize,
    updated_number_scheduled: usize,
    number_misscheduled: usize,
    number_ready: usize,
    number_available: usize,
}

impl DaemonSetStatus {
    pub(super) const fn of(health: Health) -> Self {
        Self {
            desired_number_scheduled: health.expected,
            current_number_scheduled: health.expected,
            updated_number_scheduled: health.expected,
            number_misscheduled: 0,
            number_ready: health.healthy,
            number_available: health.healthy,
        }
    }
}
