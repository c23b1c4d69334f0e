//! Nodes: what is read of one, and the patches.

use k8s_openapi::api::core::v1::NodeSystemInfo;
use kube::core::{Selector, SelectorExt};
use offramp_core::{InstanceId, Node, NodeName, Record, Timestamp, Zone};
use offramp_engine::{RECORD_ANNOTATION, node_owner, read_record, write_record};
use serde_json::{Value, json};

/// Cloud controllers and the AWS Load Balancer Controller take a node that has this label out of their
/// balancers (well-known labels, kubernetes.io).
pub(crate) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// What the view keeps of one Node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct WatchedNode {
    pub(crate) machine: Machine,
    /// What the machine's firmware says that it is, where it says so.
    pub(crate) hardware: Option<String>,
    pub(crate) created: Timestamp,
    /// Another machine has taken it over, with the providerID of the one before, which cannot be changed.
    pub(crate) is_reused: bool,
    /// When its kubelet wrote its status for the last time, by the clock of its machine.
    pub(crate) written_at: Timestamp,
    /// When this was read, by ours.
    pub(crate) read_at: Timestamp,
    /// It was read past the watch, which may show older versions of it yet.
    pub(crate) is_read: bool,
    pub(crate) node: Node,
}

/// The machine of a node, as its `spec.providerID` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Machine {
    /// This instance.
    Instance(InstanceId),
    /// None of EC2: Fargate, a hybrid node, another cloud.
    Other,
    /// It does not say: it is empty, or of a kind that names no machine (`k3s://NAME`).
    Unidentified,
}

/// What is known of machines that are none of EC2, beside Fargate: hybrid nodes of EKS, and the cloud providers that
/// Kubernetes has had.
const OTHER_MACHINES: [&str; 12] = [
    "alicloud",
    "azure",
    "digitalocean",
    "eks-hybrid",
    "equinixmetal",
    "gce",
    "hcloud",
    "ibm",
    "linode",
    "oci",
    "openstack",
    "vsphere",
];

impl WatchedNode {
    /// The instance that it names.
    pub(crate) fn instance(&self) -> Option<&InstanceId> {
        if let Machine::Instance(instance) = &self.machine { Some(instance) } else { None }
    }

    /// A status that is new to the watch was written a moment ago, whatever the clock of its machine says: one may be minutes
    /// ahead (kubernetes#6193). Of what is listed, or shown by a watch that was cut off, nobody knows for how long it has been
    /// there.
    ///
    /// A machine that gets the name of one which has ended may get its Node, too (machine-controller-manager#633).
    pub(crate) fn renew(&mut self, before: Option<&Self>, may_be_old: bool) {
        let is_other =
            |before: &Self| before.hardware.as_ref().zip(self.hardware.as_ref()).is_some_and(|(a, b)| a != b);
        let same_node = before.filter(|before| before.created == self.created);
        self.is_reused = same_node.is_some_and(|before| before.is_reused || is_other(before));
        self.node.renewed_at = match before {
            Some(before) if before.written_at == self.written_at => before.node.renewed_at,
            Some(_) if !may_be_old => self.read_at,
            Some(_) | None => self.written_at.min(self.read_at),
        };
    }

    /// It was made after the other one, which is of the same name. Versions are numbers that grow (KEP-5504).
    pub(crate) fn is_newer_than(&self, other: &Self) -> bool {
        let [this, other] = [self, other].map(|watched| watched.node.resource_version.parse::<u64>());
        this.ok().zip(other.ok()).is_some_and(|(this, other)| this > other)
    }

    /// Nothing has changed that a job could care about. The kubelet writes its node's status every few
    /// minutes, which changes the resourceVersion alone.
    pub(crate) fn looks_like(&self, other: &Self) -> bool {
        let never = Timestamp::default();
        let unversioned =
            |node: &Node| Node { resource_version: String::new(), renewed_at: never, ..node.clone() };
        let same = self.machine == other.machine
            && self.hardware == other.hardware
            && self.is_reused == other.is_reused;
        same && unversioned(&self.node) == unversioned(&other.node)
    }
}

/// Reads a node's `spec.providerID`: `aws:///ZONE/INSTANCE`, also with a Local Zone.
fn machine_of(provider_id: &str) -> Machine {
    let (kind, path) = provider_id.split_once("://").unwrap_or(("", provider_id));
    let name = path.rsplit('/').next().unwrap_or_default();
    match (kind, InstanceId::parse(name)) {
        ("aws", Some(instance)) => Machine::Instance(instance),
        ("aws", None) if name.starts_with("fargate-") => Machine::Other,
        (kind, _) if OTHER_MACHINES.contains(&kind) => Machine::Other,
        _ => Machine::Unidentified,
    }
}

/// The UUID that a machine's firmware gives: EC2 makes one for each instance, which an image cannot carry. Older
/// kernels write it in capitals. Its byte order depends on the distribution, but is the same under two names of one
/// machine. Where the firmware has none, the kubelet takes the machine ID, which is in a file of the image: two
/// machines can have the same, so that it proves nothing.
fn hardware(info: &NodeSystemInfo) -> Option<String> {
    let plain = |id: &str| id.trim().replace('-', "").to_ascii_lowercase();
    let uuid = plain(&info.system_uuid);
    (!uuid.is_empty() && uuid != plain(&info.machine_id)).then_some(uuid)
}

/// Taints of the Node Readiness Controller, which it takes away when what a node's pods need is there.
const READINESS: &str = "readiness.k8s.io/";

/// Trims a Node.
pub(crate) fn read(
    node: k8s_openapi::api::core::v1::Node,
    selector: Option<&Selector>,
    read_at: Timestamp,
) -> Option<WatchedNode> {
    let spec = node.spec.unwrap_or_default();
    let created = node.metadata.creation_timestamp.clone();
    let labels = node.metadata.labels.unwrap_or_default();
    let annotations = node.metadata.annotations.unwrap_or_default();
    let taints = spec.taints.unwrap_or_default();
    let status = node.status.unwrap_or_default();
    let conditions = status.conditions.unwrap_or_default();
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready");
    let written = ready.and_then(|ready| ready.last_heartbeat_time.as_ref());
    let written_at = Timestamp::from_millis(written.map_or(0, |at| at.0.as_millisecond()));
    // A node that has just registered has no condition yet: it is not Ready since it was made.
    let since = ready.and_then(|ready| ready.last_transition_time.clone());
    let since = since.or(node.metadata.creation_timestamp);
    Some(WatchedNode {
        machine: machine_of(spec.provider_id.as_deref().unwrap_or_default()),
        hardware: status.node_info.as_ref().and_then(hardware),
        created: Timestamp::from_millis(created.map_or(0, |at| at.0.as_millisecond())),
        is_reused: false,
        written_at,
        read_at,
        is_read: false,
        node: Node {
            name: NodeName::new(node.metadata.name?),
            zone: labels.get("topology.kubernetes.io/zone").map(|zone| Zone::new(zone.as_str())),
            ready: ready.is_some_and(|ready| ready.status == "True"),
            silent: ready.is_none_or(|ready| ready.status == "Unknown"),
            unready_for_pods: taints.iter().any(|taint| taint.key.starts_with(READINESS)),
            ready_since: Timestamp::from_millis(since.map_or(0, |since| since.0.as_millisecond())),
            renewed_at: written_at.min(read_at),
            cordoned: spec.unschedulable.unwrap_or(false),
            // The key counts: controllers differ in what they make of a value such as `false`.
            excluded: labels.contains_key(EXCLUDE_LABEL),
            record: annotations.get(RECORD_ANNOTATION).map(|text| read_record(text)),
            owner: node_owner(&labels),
            selected: selector.is_none_or(|selector| selector.matches(&labels)),
            resource_version: node.metadata.resource_version.unwrap_or_default(),
        },
    })
}

/// The body that cordons, records and, where asked, excludes in one PATCH.
pub(crate) fn isolation(record: &Record, exclude: bool, guard: &str) -> Value {
    let mut body = recorded(record, guard);
    body["spec"] = json!({ "unschedulable": true });
    if exclude {
        body["metadata"]["labels"] = json!({ EXCLUDE_LABEL: "true" });
    }
    body
}

/// The body that excludes and records in one PATCH. Its value is `"true"`, because the AWS cloud
/// controller reads `"false"` as *included*.
pub(crate) fn exclusion(record: &Record, guard: &str) -> Value {
    let mut body = recorded(record, guard);
    body["metadata"]["labels"] = json!({ EXCLUDE_LABEL: "true" });
    body
}

/// The body that takes away what the record names, and the record. The resourceVersion in it makes the
/// API server refuse the PATCH when the node has changed since.
pub(crate) fn release(record: &Record, guard: &str) -> Value {
    let mut body = json!({
        "metadata": {
            "resourceVersion": guard,
            "annotations": { RECORD_ANNOTATION: null },
        },
    });
    if record.excluded {
        body["metadata"]["labels"] = json!({ EXCLUDE_LABEL: null });
    }
    if record.cordoned {
        body["spec"] = json!({ "unschedulable": null });
    }
    body
}

/// The body that writes the record. One of another version, or that is damaged, stays on the node as it is.
pub(crate) fn recorded(record: &Record, guard: &str) -> Value {
    let mut body = json!({ "metadata": { "resourceVersion": guard } });
    if let Some(text) = write_record(record) {
        body["metadata"]["annotations"] = json!({ RECORD_ANNOTATION: text });
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(spec: Value, labels: Value, conditions: Value) -> Option<WatchedNode> {
        let node = json!({
            "metadata": {
                "name": "n1", "resourceVersion": "7", "labels": labels,
                "creationTimestamp": "1970-01-01T00:00:05Z",
            },
            "spec": spec,
            "status": { "conditions": conditions },
        });
        let selector = crate::selector::parse("pool=web").unwrap();
        read(serde_json::from_value(node).unwrap(), Some(&selector), Timestamp::from_millis(130_000))
    }

    #[test]
    fn a_node_is_trimmed() {
        let read = node(
            json!({ "providerID": "aws:///eu-west-1b/i-0b1c2d3e4f5061728", "unschedulable": true }),
            json!({ "pool": "web", EXCLUDE_LABEL: "false", "topology.kubernetes.io/zone": "eu-west-1b" }),
            json!([
                { "type": "MemoryPressure", "status": "False" },
                { "type": "Ready", "status": "True", "lastTransitionTime": "1970-01-01T00:01:00Z",
                  "lastHeartbeatTime": "1970-01-01T00:02:00Z" },
            ]),
        );
        let expect = Node {
            name: NodeName::from("n1"),
            zone: Some("eu-west-1b".into()),
            ready: true,
            unready_for_pods: false,
            silent: false,
            ready_since: Timestamp::from_millis(60_000),
            renewed_at: Timestamp::from_millis(120_000),
            cordoned: true,
            excluded: true,
            record: None,
            owner: offramp_core::NodeOwner::SelfManaged,
            selected: true,
            resource_version: "7".to_owned(),
        };
        let machine = Machine::Instance(InstanceId::parse("i-0b1c2d3e4f5061728").unwrap());
        let created = Timestamp::from_millis(5_000);
        let (written_at, read_at) = (Timestamp::from_millis(120_000), Timestamp::from_millis(130_000));
        let expect = WatchedNode {
            machine,
            hardware: None,
            created,
            is_reused: false,
            written_at,
            read_at,
            is_read: false,
            node: expect,
        };
        assert_eq!(read, Some(expect));
    }

    #[test]
    fn a_node_without_condition_is_not_ready_since_it_was_made() {
        let read =
            node(json!({ "providerID": "aws:///a/i-0b1c2d3e4f5061728" }), json!({}), json!([])).unwrap();
        assert!(!read.node.ready && read.node.silent && !read.node.selected);
        assert_eq!(read.node.ready_since, Timestamp::from_millis(5_000));
    }

    #[test]
    fn a_kubelet_that_says_not_ready_is_not_silent() {
        let says = |status: &str| {
            let provider = json!({ "providerID": "aws:///a/i-0b1c2d3e4f5061728" });
            let node =
                node(provider, json!({}), json!([{ "type": "Ready", "status": status }])).unwrap().node;
            (node.ready, node.silent)
        };
        assert_eq!(
            [says("True"), says("False"), says("Unknown")],
            [(true, false), (false, false), (false, true)]
        );
    }

    #[test]
    fn a_node_that_lacks_what_its_pods_need_says_so_by_a_taint() {
        let lacks = |key: &str| {
            let taints = json!([{ "key": key, "effect": "NoSchedule" }]);
            node(json!({ "taints": taints }), json!({}), json!([])).unwrap().node.unready_for_pods
        };
        assert!(lacks("readiness.k8s.io/cni-ready") && lacks("readiness.k8s.io/x"));
        assert!(!lacks("node.kubernetes.io/not-ready") && !lacks("readiness.k8s.io.example.com/x"));
    }

    #[test]
    fn the_hardware_of_a_node_is_what_no_image_can_carry() {
        let read = |system: &str, machine: &str| {
            hardware(&NodeSystemInfo {
                system_uuid: system.to_owned(),
                machine_id: machine.to_owned(),
                ..NodeSystemInfo::default()
            })
        };
        let machine = "8e3772fbcfa3dd6f330a12ff5df5a63b";
        let expect = Some("ec2e191690997caffd21012345abcdef".to_owned());
        assert_eq!(read("EC2E1916-9099-7CAF-FD21-012345ABCDEF", machine), expect);
        assert_eq!(read("ec2e1916-9099-7caf-fd21-012345abcdef", machine), expect);
        assert_eq!(read("", machine), None);
        assert_eq!(read(machine, machine), None);
        assert_eq!(read("8e3772fb-cfa3-dd6f-330a-12ff5df5a63b", machine), None);
    }

    /// Report 21 (aws-node-termination-handler#618, Local Zones, Wavelength, hybrid nodes) and 02 (k3s#935).
    #[test]
    fn the_provider_id_says_which_machine_a_node_is() {
        let instance = || Machine::Instance(InstanceId::parse("i-0b1c2d3e4f5061728").unwrap());
        for text in [
            "aws:///eu-west-1b/i-0b1c2d3e4f5061728",
            "aws:///us-west-2-lax-1a/i-0b1c2d3e4f5061728",
            "aws:///us-east-1-wl1-bos-wlz-1/i-0b1c2d3e4f5061728",
            "aws:///i-0b1c2d3e4f5061728",
            "aws://eu-west-1/eu-west-1a/i-0b1c2d3e4f5061728",
        ] {
            assert_eq!(machine_of(text), instance(), "{text}");
        }
        for text in [
            "aws:///eu-west-1b/0a1b2c3d4e-5f60/fargate-ip-10-0-1-2.internal",
            "eks-hybrid:///eu-west-1/blue/mi-0b1c2d3e4f5061728",
            "gce://project/europe-west1-b/node-1",
        ] {
            assert_eq!(machine_of(text), Machine::Other, "{text}");
        }
        for text in ["", "k3s://ip-172-31-38-104", "aws:///eu-west-1b/worker-b", "i-0b1c2d3e4f5061728"] {
            assert_eq!(machine_of(text), Machine::Unidentified, "{text}");
        }
    }
}
