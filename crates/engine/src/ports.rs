//! What the engine needs of the world. Small traits in domain types: a view and a `perform` over values,
//! so that they stay small while actions grow. "Already so" is a success everywhere.
//!
//! No port retries by itself, none logs, none caches: retries, batches and caches are the engine's, so
//! that the simulation sees them. A port returns after at most the timeout that its caller sets.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use offramp_core::{
    AccountRegion, BalancerKind, ClusterName, Failure, Group, GroupName, HookKey, InstanceId, Membership,
    Node, NodeDoubt, NodeName, Outcome, Pod, PodRef, Record, Seen, TargetGroupArn, TargetHealth, TargetKey,
    Timestamp, Zone,
};
use tokio::sync::watch;

use crate::announcement::Announcement;

/// So long a port may take to read a node over which a write was refused with [`Outcome::Changed`]. It takes milliseconds,
/// and the whole of it has the ten seconds of one call.
pub const READ_AGAIN: Duration = Duration::from_secs(2);

/// Why a call failed, typed by what the caller does next. The text says what was being done, to what,
/// and carries no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It may work later: throttled, timed out, cut off, a server error. Nothing is known.
    #[error("{0}")]
    Retry(String),
    /// It will not work until somebody mends permissions or configuration.
    #[error("{0}")]
    Denied(String),
    /// The request is wrong; repeating it is useless.
    #[error("{0}")]
    Invalid(String),
}

impl Fault {
    /// What the caller does next.
    pub const fn failure(&self) -> Failure {
        match self {
            Self::Retry(_) => Failure::Retry,
            Self::Denied(_) => Failure::Denied,
            Self::Invalid(_) => Failure::Invalid,
        }
    }
}

/// One delivery of one message.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// Stays the same over all deliveries.
    pub id: MessageId,
    /// Names this delivery; only the newest one counts.
    pub receipt: Receipt,
    /// The body as it came.
    pub body: String,
    /// How often it was received, this time included.
    pub receive_count: u32,
    /// When it entered the queue.
    pub sent_at: Option<Timestamp>,
}

/// A message's identity in its queue.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub String);

/// A receipt handle: whoever has it can delete the message. Never printed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt(pub String);

/// Whether a message is still ours after an extension.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// Until now + the visibility asked for.
    Extended,
    /// Not in flight any more, or past SQS's 12 hours: this receipt is worth nothing.
    Lost,
}

/// How many messages there are, about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Waiting to be received.
    pub waiting: u64,
    /// Received and not deleted.
    pub in_flight: u64,
    /// When the service answered, by its own clock, cut to the second; nothing where it does not say.
    pub date: Option<Timestamp>,
}

/// One SQS queue with its dead-letter queue.
#[async_trait]
pub trait Queue: Send + Sync {
    /// Long-polls for at most `most` (1 to 10) messages, hidden for `visibility` from then on.
    async fn receive(&self, most: usize, wait: Duration, visibility: Duration)
    -> Result<Vec<Message>, Fault>;

    /// Sets the visibility of up to 10 messages; zero hands a message back. One result each.
    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Vec<Result<Held, Fault>>;

    /// Deletes up to 10 messages. One result each.
    async fn delete(&self, receipts: &[Receipt]) -> Vec<Result<(), Fault>>;

    /// Sends a copy of the message to the dead-letter queue, with the reason as the message attribute
    /// `offramp.reason`. The original has to be deleted afterwards.
    async fn dead_letter(&self, message: &Message, reason: &str) -> Result<(), Fault>;

    /// Sends up to 10 new messages onto the queue itself, to be received like any other. One result each.
    async fn send(&self, bodies: &[String]) -> Vec<Result<(), Fault>>;

    /// The approximate number of messages.
    async fn depth(&self) -> Result<Depth, Fault>;

    /// The approximate number of messages in the dead-letter queue; zero where there is none.
    async fn dead_letters(&self) -> Result<u64, Fault>;
}

/// A call that changes something in Auto Scaling.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum GroupCall {
    /// RecordLifecycleActionHeartbeat, by token, else by instance.
    Heartbeat(InstanceId, HookKey),
    /// CompleteLifecycleAction with CONTINUE, by token, else by instance.
    CompleteHook(InstanceId, HookKey),
    /// DetachInstances, decrement = false.
    Detach(InstanceId, GroupName),
    /// TerminateInstanceInAutoScalingGroup, decrement = false.
    TerminateThroughGroup(InstanceId, GroupName),
}

/// Auto Scaling in one account and Region.
#[async_trait]
pub trait Groups: Send + Sync {
    /// The memberships of at most 50 instances. An instance that is missing in the answer is in no
    /// group.
    async fn instances(&self, ids: &[InstanceId]) -> Result<BTreeMap<InstanceId, Membership>, Fault>;

    /// One group with its terminate hooks and attached target groups, or `None` where there is none.
    async fn group(&self, name: &GroupName) -> Result<Option<Group>, Fault>;

    /// Every instance that a group in scope lists in another state than InService. Read anew in each call, and as
    /// a whole or not at all. A group does not list the instances of its warm pool (ASG API,
    /// DescribeAutoScalingGroups): they are not among these.
    async fn out_of_service(&self) -> Result<Vec<(InstanceId, Membership)>, Fault>;

    /// Since when a group is terminating each instance that it is still terminating, or moving into its warm pool.
    /// One that is missing may be on its way out nevertheless: only the newest activities are read, and the
    /// instance stands in their text alone. Nothing where there is no such group.
    async fn terminations(&self, group: &GroupName) -> Result<BTreeMap<InstanceId, Timestamp>, Fault>;

    /// Performs the calls, one result each. "No active Lifecycle Action" is [`Outcome::Gone`].
    async fn perform(&self, calls: &[GroupCall]) -> Vec<Result<Outcome, Fault>>;
}

/// What changes rarely about a target group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetGroupSettings {
    /// The kind of balancer in front of it.
    pub balancer: BalancerKind,
    /// A healthy target of another zone can stand in.
    pub cross_zone: bool,
    /// How long a target drains.
    pub deregistration_delay: Duration,
}

/// One target as DescribeTargetHealth lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetState {
    /// The instance.
    pub instance: InstanceId,
    /// Its port.
    pub port: u16,
    /// Its zone, where listed.
    pub zone: Option<Zone>,
    /// Its health.
    pub health: TargetHealth,
}

/// A call that changes the targets of one target group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetCall {
    /// DeregisterTargets with id and port.
    Deregister(TargetKey),
    /// RegisterTargets with id and port.
    Register(TargetKey),
}

/// Elastic Load Balancing (v2) in one account and Region.
#[async_trait]
pub trait Targets: Send + Sync {
    /// The settings of one target group, or `None` where there is none.
    async fn settings(&self, group: &TargetGroupArn) -> Result<Option<TargetGroupSettings>, Fault>;

    /// Every instance target of one target group, or `None` where there is none.
    async fn health(&self, group: &TargetGroupArn) -> Result<Option<Vec<TargetState>>, Fault>;

    /// Performs calls that are all for one target group and of one kind. One result each.
    async fn perform(&self, calls: &[TargetCall]) -> Vec<Result<Outcome, Fault>>;
}

/// A call that changes something in a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClusterCall {
    /// Cordon, record and, for spot, exclude label: one PATCH on a lane of its own.
    Isolate {
        /// The node.
        node: NodeName,
        /// With the exclude label.
        exclude: bool,
        /// The annotation.
        record: Record,
        /// The resourceVersion that was seen: where it has changed, the answer is [`Outcome::Changed`], and the node is read
        /// past the watch, as after every write over what has changed.
        guard: String,
    },
    /// Exclude label and record: one PATCH.
    Exclude {
        /// The node.
        node: NodeName,
        /// The annotation.
        record: Record,
        /// The resourceVersion that was seen: where it has changed, the answer is [`Outcome::Changed`].
        guard: String,
    },
    /// The record alone: one PATCH.
    WriteRecord {
        /// The node.
        node: NodeName,
        /// The annotation.
        record: Record,
        /// As for [`ClusterCall::Isolate`].
        guard: String,
    },
    /// policy/v1 Eviction with the UID as precondition.
    Evict {
        /// The pod.
        pod: PodRef,
        /// A shorter grace than its own.
        grace: Option<Duration>,
    },
    /// Deletion with the UID as precondition.
    Delete {
        /// The pod.
        pod: PodRef,
        /// Its grace, at least one second.
        grace: Duration,
    },
    /// Reads the pods of a node anew, past the watch. [`Outcome::Changed`] where the watch has missed some: from then on it
    /// shows them.
    ListPods {
        /// The node, which may be gone.
        node: NodeName,
    },
    /// Takes away what the record names, and the record. Where the resourceVersion has changed, the answer
    /// is [`Outcome::Changed`].
    Release {
        /// The node.
        node: NodeName,
        /// What to undo.
        record: Record,
        /// As for [`ClusterCall::Isolate`].
        guard: String,
    },
}

/// What counts about a node that is another job's or nobody's: whether its targets may stand in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSummary {
    /// Its zone, where known.
    pub zone: Option<Zone>,
    /// Cordoned, or excluded from load balancers.
    pub set_aside: bool,
    /// It has our record, since then, and has not passed the gate: that is the label's to say, because a record may be older
    /// than the write that brought it.
    pub leaving_since: Option<Timestamp>,
}

impl From<&Node> for NodeSummary {
    fn from(node: &Node) -> Self {
        Self {
            zone: node.zone.clone(),
            set_aside: node.cordoned || node.excluded,
            leaving_since: node.record.as_ref().filter(|_| !node.excluded).map(|record| record.since),
        }
    }
}

/// The Node of an instance that was deleted: by a person, or by a tool that then ends the instance (kops#17230).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletedNode {
    /// Its name.
    pub name: NodeName,
    /// The longest grace of the pods that were on it, DaemonSets' and kubelets' own aside.
    pub longest_grace: Duration,
}

/// One Kubernetes cluster. The views are memory reads of a watch; only `perform` and `announce` call.
#[async_trait]
pub trait Cluster: Send + Sync {
    /// Its name in the configuration.
    fn name(&self) -> &ClusterName;

    /// The node of an instance. `Gone` only while the watch is in sync. Of several the Ready one; `Unknown` where two are.
    fn node(&self, instance: &InstanceId) -> Seen<Node>;

    /// Why [`Cluster::node`] is not sure of this instance, where its watch is in sync.
    fn doubt(&self, instance: &InstanceId) -> Option<NodeDoubt>;

    /// Asks for a proof that its watches have shown what was there at this moment, which is now or was before. Returns at
    /// once: [`Cluster::proven`] tells.
    fn prove(&self, at: Timestamp);

    /// The newest moment whose proof has come.
    fn proven(&self) -> watch::Receiver<Timestamp>;

    /// Nodes that name no instance and no other machine, after the time in which a cloud controller names it.
    fn unidentified(&self) -> Vec<NodeName>;

    /// Instances that several Ready nodes name, with those nodes: none of them is touched.
    fn twins(&self) -> Vec<(InstanceId, Vec<NodeName>)>;

    /// The same in short. It is asked for every target of a target group, where a copy of the whole
    /// node would be most of the work of a storm.
    fn summary(&self, instance: &InstanceId) -> Option<NodeSummary> {
        self.node(instance).known().map(NodeSummary::from)
    }

    /// Grows whenever a summary may have changed. `None`: nobody counts, and every summary is asked for anew.
    fn summaries_version(&self) -> Option<u64> {
        None
    }

    /// The node that the instance had, while it has none. Only deletions that the watch saw are known, and only the newest.
    fn deleted(&self, instance: &InstanceId) -> Option<DeletedNode> {
        let _ = instance;
        None
    }

    /// Every node with a record on it; none while the watch is not in sync.
    fn recorded(&self) -> Vec<(InstanceId, Node)>;

    /// The pods bound to the node of an instance, by its name, also when that Node was deleted: they may run on. `Gone`
    /// where the name is another instance's by now.
    fn pods(&self, node: &NodeName, instance: &InstanceId) -> Seen<Vec<Pod>>;

    /// The watches are in sync.
    fn in_sync(&self) -> bool;

    /// What keeps them from it, in words, where that is known.
    fn trouble(&self) -> Option<String> {
        None
    }

    /// Changes its value whenever the node of this instance, a pod on it, or the sync state changes.
    fn changes(&self, instance: &InstanceId) -> watch::Receiver<u64>;

    /// Changes its value whenever a pod of this namespace becomes ready: a disruption budget may have opened.
    fn readiness(&self, namespace: &str) -> watch::Receiver<u64>;

    /// Performs one call.
    async fn perform(&self, call: &ClusterCall) -> Result<Outcome, Fault>;

    /// Puts an Event on a node, sooner or later. Never waits, and nothing comes of a failure: a removal
    /// depends on no Event.
    fn announce(&self, node: &NodeName, announcement: Announcement);
}

/// AWS ports by account and Region.
pub trait Sessions: Send + Sync {
    /// Auto Scaling there. `Denied` where no credentials are configured for the account.
    fn groups(&self, account_region: &AccountRegion) -> Result<Arc<dyn Groups>, Fault>;

    /// Load balancing there.
    fn targets(&self, account_region: &AccountRegion) -> Result<Arc<dyn Targets>, Fault>;
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("id", &self.id)
            .field("bytes", &self.body.len())
            .field("receive_count", &self.receive_count)
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for Receipt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Receipt(…)")
    }
}
