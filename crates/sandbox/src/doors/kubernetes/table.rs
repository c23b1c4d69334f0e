//! Objects as rows for people: the `meta.k8s.io/v1` Table that kubectl prints.

use std::time::Duration;

use offramp_core::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};

use super::kinds::{Kind, View};
use super::objects::{self, Metadata, Rendered, phase_name};
use crate::world::cluster::{Node, Phase, Pod, Service};

/// What a row carries beside its cells (`includeObject`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carry {
    Nothing,
    Metadata,
    Object,
}

/// A Table.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Table<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: TableMetadata,
    column_definitions: Vec<Column>,
    rows: Vec<Row<'a>>,
}

/// One row of a Table.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    cells: Vec<Value>,
    object: Carried<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TableMetadata {
    resource_version: String,
}

#[derive(Serialize)]
struct Column {
    name: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    format: &'static str,
    description: &'static str,
    /// Above zero: only for `-o wide`.
    priority: u8,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Carried<'a> {
    Nothing,
    Metadata(Partial<'a>),
    Object(Rendered<'a>),
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Partial<'a> {
    kind: &'static str,
    api_version: &'static str,
    metadata: Metadata<'a>,
}

impl<'a> Table<'a> {
    /// A table with its columns; the later events of a watch leave them out.
    pub(super) fn new(kind: Kind, version: u64, with_columns: bool, rows: Vec<Row<'a>>) -> Self {
        let column_definitions = if with_columns { columns(kind) } else { Vec::new() };
        Self {
            kind: "Table",
            api_version: "meta.k8s.io/v1",
            metadata: TableMetadata { resource_version: version.to_string() },
            column_definitions,
            rows,
        }
    }
}

impl<'a> Row<'a> {
    pub(super) fn of(view: View<'a>, carry: Carry, now: Timestamp) -> Self {
        let object = match carry {
            Carry::Nothing => Carried::Nothing,
            Carry::Metadata => Carried::Metadata(Partial {
                kind: "PartialObjectMetadata",
                api_version: "meta.k8s.io/v1",
                metadata: Metadata::of(view),
            }),
            Carry::Object => Carried::Object(Rendered::alone(view)),
        };
        Self { cells: cells(view, now), object }
    }
}

const NONE: &str = "<none>";

/// The columns as `kubectl` users know them: (name, priority).
fn columns(kind: Kind) -> Vec<Column> {
    let names: &[(&'static str, u8)] = match kind {
        Kind::Node => &[
            ("Name", 0),
            ("Status", 0),
            ("Roles", 0),
            ("Age", 0),
            ("Version", 0),
            ("Internal-IP", 1),
            ("External-IP", 1),
            ("OS-Image", 1),
            ("Kernel-Version", 1),
            ("Container-Runtime", 1),
        ],
        Kind::Pod => &[
            ("Name", 0),
            ("Ready", 0),
            ("Status", 0),
            ("Restarts", 0),
            ("Age", 0),
            ("IP", 1),
            ("Node", 1),
            ("Nominated Node", 1),
            ("Readiness Gates", 1),
        ],
        Kind::Service => &[
            ("Name", 0),
            ("Type", 0),
            ("Cluster-IP", 0),
            ("External-IP", 0),
            ("Port(s)", 0),
            ("Age", 0),
            ("Selector", 1),
        ],
        Kind::DaemonSet => &[
            ("Name", 0),
            ("Desired", 0),
            ("Current", 0),
            ("Ready", 0),
            ("Up-to-date", 0),
            ("Available", 0),
            ("Node Selector", 0),
            ("Age", 0),
        ],
        Kind::Budget => &[
            ("Name", 0),
            ("Min Available", 0),
            ("Max Unavailable", 0),
            ("Allowed Disruptions", 0),
            ("Age", 0),
        ],
    };
    let column = |&(name, priority): &(&'static str, u8)| Column {
        name,
        kind: match name {
            "Allowed Disruptions" | "Desired" | "Current" | "Up-to-date" | "Available" => "integer",
            "Ready" if kind == Kind::DaemonSet => "integer",
            _ => "string",
        },
        format: if name == "Name" { "name" } else { "" },
        description: "",
        priority,
    };
    names.iter().map(column).collect()
}

fn cells(view: View<'_>, now: Timestamp) -> Vec<Value> {
    let name = json!(view.name());
    let age = json!(view.created().map_or_else(|| "<unknown>".to_owned(), |created| age(now.since(created))));
    match view {
        View::Node(node) => vec![
            name,
            json!(node_status(node)),
            json!(roles(node)),
            age,
            json!(objects::KUBELET_VERSION),
            json!(objects::internal_ip(node).unwrap_or_else(|| NONE.to_owned())),
            json!(NONE),
            json!(objects::OS_IMAGE),
            json!(objects::KERNEL_VERSION),
            json!(objects::CONTAINER_RUNTIME),
        ],
        View::Pod(pod) => vec![
            name,
            json!(if pod.ready { "1/1" } else { "0/1" }),
            json!(pod_status(pod)),
            json!("0"),
            age,
            json!(NONE),
            json!(pod.node.as_ref().map_or(NONE, |node| node.as_str())),
            json!(NONE),
            json!(NONE),
        ],
        View::Service(service) => vec![
            name,
            json!(objects::service_type(service)),
            json!(NONE),
            json!(NONE),
            json!(format!("{}:{}/TCP", objects::SERVICE_PORT, service.node_port)),
            age,
            json!(selector(service)),
        ],
        View::DaemonSet(_, health) => vec![
            name,
            json!(health.expected),
            json!(health.expected),
            json!(health.healthy),
            json!(health.expected),
            json!(health.healthy),
            json!(NONE),
            age,
        ],
        View::Budget(budget, health) => {
            vec![
                name,
                json!(budget.min_available.to_string()),
                json!("N/A"),
                json!(health.allowed(budget)),
                age,
            ]
        }
    }
}

fn node_status(node: &Node) -> String {
    let ready = if node.ready { "Ready" } else { "NotReady" };
    let cordoned = if node.unschedulable { ",SchedulingDisabled" } else { "" };
    format!("{ready}{cordoned}")
}

fn roles(node: &Node) -> String {
    let roles: Vec<&str> =
        node.labels.keys().filter_map(|label| label.strip_prefix("node-role.kubernetes.io/")).collect();
    if roles.is_empty() { NONE.to_owned() } else { roles.join(",") }
}

const fn pod_status(pod: &Pod) -> &'static str {
    match (pod.deletion.is_some(), pod.phase) {
        (true, Phase::Pending | Phase::Running) => "Terminating",
        (_, Phase::Succeeded) => "Completed",
        (_, Phase::Failed) => "Error",
        (false, Phase::Pending) if pod.node.is_some() => "ContainerCreating",
        (false, Phase::Pending | Phase::Running) => phase_name(pod.phase),
    }
}

fn selector(service: &Service) -> String {
    let terms: Vec<String> = service.selector.iter().map(|(key, value)| format!("{key}={value}")).collect();
    if terms.is_empty() { NONE.to_owned() } else { terms.join(",") }
}

/// An age with one or two units, the finer one only while it says something.
fn age(span: Duration) -> String {
    let seconds = span.as_secs();
    let (minutes, hours, days) = (seconds / 60, seconds / 3_600, seconds / 86_400);
    let two = |large: u64, large_unit: &str, small: u64, small_unit: &str| match small {
        0 => format!("{large}{large_unit}"),
        small => format!("{large}{large_unit}{small}{small_unit}"),
    };
    match seconds {
        0..120 => format!("{seconds}s"),
        120..600 => two(minutes, "m", seconds % 60, "s"),
        600..10_800 => format!("{minutes}m"),
        10_800..28_800 => two(hours, "h", minutes % 60, "m"),
        28_800..172_800 => format!("{hours}h"),
        172_800..691_200 => two(days, "d", hours % 24, "h"),
        691_200.. => format!("{days}d"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_at_most_two_units() {
        let check = |seconds: u64, expect: &str| assert_eq!(age(Duration::from_secs(seconds)), expect);
        check(0, "0s");
        check(119, "119s");
        check(125, "2m5s");
        check(180, "3m");
        check(3_600, "60m");
        check(3 * 3_600, "3h");
        check(5 * 3_600 + 60, "5h1m");
        check(47 * 3_600, "47h");
        check(75 * 3_600, "3d3h");
        check(30 * 86_400, "30d");
    }
}
