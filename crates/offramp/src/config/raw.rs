//! The configuration file as it is typed. These fields, their documentation and their defaults are the
//! reference; `docs/samples/offramp.yaml` shows each of them.
//!
//! Every value is text with the place it came from, and is read in `validate.rs`: so all wrong values are
//! reported at once. Only what is no value (an unknown field, broken YAML) is found while parsing.

use serde::{Deserialize, Deserializer};
use serde_saphyr::Spanned;

/// A value, and where it was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Given {
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// Where a value was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// This line of the file.
    Line(u64),
    /// This environment variable.
    Variable(&'static str),
}

impl<'de> Deserialize<'de> for Given {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Spanned { value, referenced, .. } = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { text: value, origin: Origin::Line(referenced.line()) })
    }
}

/// The whole file. A section that is left out, or empty, has its defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawConfig {
    /// Where the notices come from.
    pub(super) queue: Option<RawQueue>,
    /// How AWS is reached.
    pub(super) aws: Option<RawAws>,
    /// The clusters whose nodes are served. At least one.
    pub(super) clusters: Option<Vec<RawCluster>>,
    /// Which lifecycle hooks are ours.
    pub(super) hooks: Option<RawHooks>,
    /// Target groups to take nodes out of, by ARN, beside those attached to their Auto Scaling groups
    /// (which are found without being named). Default: none. Name here what a controller registers nodes
    /// with, since AWS offers no way to ask for it.
    pub(super) target_groups: Option<Vec<Given>>,
    /// What a rebalance recommendation leads to: `none`, `isolate` (cordon, so that the node gets no new
    /// pods), or `automatic`. Default: `automatic`, which is `none` where the group has Capacity
    /// Rebalancing, because that replaces the instance by itself and its hook follows, else `isolate`.
    pub(super) rebalance: Option<Given>,
    /// How long things may take.
    pub(super) timing: Option<RawTiming>,
    /// DaemonSets that bring traffic in, as `NAMESPACE/NAME`. Default: none. Their pods are moved last,
    /// after the load balancers are quiet; pods of other DaemonSets stay.
    pub(super) ingress_daemon_sets: Option<Vec<Given>>,
    /// What happens to messages that are not about our nodes: `delete` or `leave` (for another reader of
    /// the same queue). Default: `delete`, because a message that nobody takes comes back until it fills
    /// the dead-letter queue.
    pub(super) foreign_messages: Option<Given>,
    /// How long a notice about an instance that no cluster knows is kept before it counts as foreign.
    /// Default: 60s. An instance can be announced before its node has joined or a watch has caught up.
    pub(super) foreign_hold: Option<Given>,
    /// Whether the worker puts messages of its own onto the queue, about hooks and records that no message speaks of:
    /// `on` or `off`. Default: `on`. `off` while workers of version 0.1 read the same queue: they cannot read such
    /// messages, and hand them back again and again.
    pub(super) messages: Option<Given>,
    /// How the queue is read.
    pub(super) intake: Option<RawIntake>,
    /// How many removals run at the same time.
    pub(super) jobs: Option<RawJobs>,
    /// How messages are held while they are worked on.
    pub(super) lease: Option<RawLease>,
    /// The admin server: /live, /ready, /metrics, /jobs.
    pub(super) admin: Option<RawAdmin>,
    /// Logs.
    pub(super) log: Option<RawLog>,
    /// Which instances are ours to touch.
    pub(super) scope: Option<RawScope>,
}

/// Where the notices come from.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawQueue {
    /// The URL of the SQS queue that EventBridge feeds. Required.
    pub(super) url: Option<Given>,
    /// What to do where the queue has no dead-letter queue: `refuse` to start, or `allow`, and then
    /// messages that cannot be read are deleted. Default: `refuse`, because such a message may be a notice
    /// in a form we do not know yet.
    pub(super) without_dead_letter_queue: Option<Given>,
}

/// How AWS is reached.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAws {
    /// The Region. Default: the one in the queue's URL, else what the AWS SDK finds (AWS_REGION, profile).
    pub(super) region: Option<Given>,
    /// One endpoint for every AWS service, for tests and sandboxes. Default: AWS's own. Single services
    /// can be pointed elsewhere by AWS_ENDPOINT_URL_SQS and so on. Must not hold a user or password.
    pub(super) endpoint_url: Option<Given>,
}

/// One cluster.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawCluster {
    /// Its name, as hooks give it in their NotificationMetadata. Required.
    pub(super) name: Option<Given>,
    /// The kubeconfig file. Default: the pod's service account inside a cluster, else KUBECONFIG, else
    /// ~/.kube/config.
    pub(super) kubeconfig: Option<Given>,
    /// The context inside the kubeconfig. Default: its current one.
    pub(super) context: Option<Given>,
    /// `true`: by the pod's service account, for the cluster that offramp itself runs in. Default: `true`
    /// inside a cluster where neither `kubeconfig` nor `context` is given.
    pub(super) in_cluster: Option<Given>,
    /// Only nodes with these labels are served, as `kubectl --selector` takes it. Default: all.
    pub(super) node_selector: Option<Given>,
}

/// Which lifecycle hooks are ours.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawHooks {
    /// Names of hooks to answer, beside those whose NotificationMetadata names one of our clusters.
    /// Default: none. Hooks of EKS, CodeDeploy and others are never answered.
    pub(super) names: Option<Vec<Given>>,
}

/// How long things may take.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawTiming {
    /// The end is planned this much before the deadline. Default: 15s. Spot notices may come 12 s late,
    /// and 3 s are for our own calls.
    pub(super) deadline_margin: Option<Given>,
    /// How long the kubelet's graceful shutdown goes on after EC2 begins to shut the instance down.
    /// Default: 0s, since many node images have none; with it, its `shutdownGracePeriod` less its
    /// `shutdownGracePeriodCriticalPods`.
    pub(super) node_shutdown_grace: Option<Given>,
    /// A hook is answered after this long, however often a heartbeat could extend it. Default: 1h, which
    /// is two rounds of the longest common grace (15 min) and as much again.
    pub(super) hook_limit: Option<Given>,
    /// What has no deadline of its own is given up after this long. Default: 1h.
    pub(super) patience: Option<Given>,
    /// How long the hook of an instance that runs is held where no cluster has a node for it. Default: 10m, as long as a
    /// launch is given.
    pub(super) no_node: Option<Given>,
    /// How long a removal may be held back because no other healthy target is there to take the traffic.
    /// Default: 10m: launch, registration and first health checks of a replacement, twice over.
    pub(super) gate_limit: Option<Given>,
    /// How long an Application Load Balancer may go on sending new requests after a deregistration.
    /// Default: 30s; seconds to tens of seconds were seen.
    pub(super) application_propagation: Option<Given>,
    /// The same for a Network Load Balancer. Default: 150s; about two minutes were seen.
    pub(super) network_propagation: Option<Given>,
    /// How long after the cordon a pod may still appear that was bound just before. Default: 5s.
    pub(super) settle: Option<Given>,
    /// How often target health and group state are read again while something waits for them. Default:
    /// 10s; with 20 target groups that is 2 calls a second for one removal and 8 for many, of the 10 that ELB
    /// grants an account.
    pub(super) recheck: Option<Given>,
}

/// How the queue is read.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawIntake {
    /// How many receive calls wait at the same time. Default: 4, which is 40 messages at once.
    pub(super) receives_in_flight: Option<Given>,
    /// How many messages may be between received and isolated. Default: 100, which is a zone of spot
    /// instances interrupted together.
    pub(super) permits: Option<Given>,
}

/// How many removals run at the same time.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawJobs {
    /// At most this many; further notices wait in the queue. Default: 10000, which bounds the memory.
    pub(super) most: Option<Given>,
}

/// How messages are held while they are worked on.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLease {
    /// For how long a message is hidden at a time. Default: 30s: so soon another replica takes over from
    /// one that died.
    pub(super) visibility: Option<Given>,
    /// How often that is extended. Default: 10s, so that two extensions may fail. At most half of
    /// `visibility`.
    pub(super) extend_every: Option<Given>,
}

/// The admin server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawAdmin {
    /// IP address and port. Default: 127.0.0.1:9090, because /jobs names nodes. In a pod it has to be
    /// 0.0.0.0:9090 for the kubelet's probes and for Prometheus. Port 0 takes a free one.
    pub(super) listen: Option<Given>,
}

/// Logs. `--log-format` and `--log-level` take precedence over these.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawLog {
    /// `human`, `json`, or `auto`. Default: `auto`: human on a terminal, JSON elsewhere.
    pub(super) format: Option<Given>,
    /// `error`, `warn`, `info`, `debug` or `trace`. Default: `info`.
    pub(super) level: Option<Given>,
}

/// Which instances are ours to touch.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RawScope {
    /// Only instances of Auto Scaling groups with this tag, as `KEY` or `KEY=VALUE`. Default: all groups
    /// whose nodes are in our clusters.
    pub(super) group_tag: Option<Given>,
}
