//! What can happen in the engine, as values.

use std::fmt;
use std::time::Duration;

use offramp_core::{
    Action, ActionResult, BalancerKind, ClusterName, Failure, InstanceId, NodeName, NotWaitedFor, Outcome,
    PodRef, Reason, Stage, Trigger,
};

use crate::labels::{JobOutcome, stage_name, trigger_name};
use crate::ports::{Fault, MessageId};
use crate::texts::{InWords, in_words};
use crate::unfinished::{Unfinished, UnfinishedKind};

/// Something that happened in the engine.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A delivery arrived from the queue and was understood.
    Received {
        /// The instance it speaks of.
        instance: InstanceId,
        /// What it came from.
        trigger: Trigger,
        /// How old the event was.
        age: Duration,
    },
    /// A message that is well formed and asks for nothing.
    Ignored {
        /// Its name in `wire`.
        why: &'static str,
    },
    /// A message that cannot be parsed went to the dead-letter queue.
    DeadLettered {
        /// The message.
        message: MessageId,
        /// What is wrong with it.
        why: String,
    },
    /// As many messages wait for the dead-letter queue as may: this one stays in its queue for a while.
    DeadLetterPostponed {
        /// The message.
        message: MessageId,
    },
    /// A message of a later version of offramp: it comes back until a worker takes it that knows it.
    LaterVersion {
        /// The message.
        message: MessageId,
    },
    /// The queue refused a call.
    QueueFaulted {
        /// Why.
        fault: Fault,
    },
    /// The machine's clock differs from the queue's.
    ClockWrong {
        /// By how many milliseconds it is behind; negative: ahead.
        behind: i64,
        /// The worker's own clock has been moved to the queue's.
        moved: bool,
    },
    /// A message is not ours any more.
    LeaseLost {
        /// The message.
        message: MessageId,
    },
    /// A notice began a job, or joined one.
    Joined {
        /// The instance.
        instance: InstanceId,
        /// What the notice came from.
        trigger: Trigger,
        /// It is a copy of one that the job has.
        copy: bool,
    },
    /// The job knows its cluster.
    Routed {
        /// The instance.
        instance: InstanceId,
        /// The cluster.
        cluster: ClusterName,
        /// The node, where the cluster has one.
        node: Option<NodeName>,
    },
    /// The job is at another stage, or for another reason.
    Stepped {
        /// The instance.
        instance: InstanceId,
        /// The first unfinished stage.
        stage: Stage,
        /// Why.
        reason: Reason,
        /// How long the previous stage took, when this is a new one.
        left_stage: Option<(Stage, Duration)>,
    },
    /// An action led to an answer.
    Acted {
        /// The instance.
        instance: InstanceId,
        /// The action.
        action: Action,
        /// Its outcome.
        outcome: ActionResult,
        /// Of a deregistration: the kind of load balancer.
        balancer: Option<BalancerKind>,
    },
    /// An action or a read failed.
    Faulted {
        /// The instance.
        instance: InstanceId,
        /// What was being done.
        doing: String,
        /// Why it failed.
        fault: Fault,
    },
    /// An admission webhook or policy refuses an action, for the first time in this job and in these words.
    Vetoed {
        /// The instance.
        instance: InstanceId,
        /// The action.
        action: Action,
        /// Its words.
        by: String,
    },
    /// A pod on the node is not waited for.
    NotWaitedFor {
        /// The instance.
        instance: InstanceId,
        /// The pod.
        pod: PodRef,
        /// Why.
        why: NotWaitedFor,
    },
    /// The node is isolated, for the first time by this worker.
    Isolated {
        /// The instance.
        instance: InstanceId,
        /// The cluster.
        cluster: Option<ClusterName>,
        /// The trigger that asked for it first.
        trigger: Trigger,
        /// Since the event's own time.
        since_event: Duration,
        /// Since the message reached us.
        since_received: Duration,
    },
    /// The job is over.
    Finished {
        /// The instance.
        instance: InstanceId,
        /// Its cluster, if it was ever known.
        cluster: Option<ClusterName>,
        /// What it came from; the hook before the others, because it waits for an answer.
        trigger: Trigger,
        /// How it ended.
        outcome: JobOutcome,
        /// In words.
        reason: String,
        /// From the first notice to the end.
        took: Duration,
        /// How long its last stage took, where the job came to its end by itself.
        left_stage: Option<(Stage, Duration)>,
        /// Time left before the deadline, where the node left and had one. Zero: it was late.
        time_left: Option<Duration>,
    },
    /// There are as many jobs as allowed: the message goes back for a while.
    TooManyJobs {
        /// The instance it speaks of.
        instance: InstanceId,
    },
    /// The sweep found what no message speaks of.
    Found {
        /// The instance.
        instance: InstanceId,
        /// What it found.
        what: UnfinishedKind,
        /// A message of our own is on the queue now; otherwise `messages` is off, or the queue takes none.
        sent: bool,
    },
    /// The sweep could not look at everything.
    SweepFaulted {
        /// Why.
        fault: Fault,
    },
    /// No job can finish this: somebody should look. Told once.
    Unfinished {
        /// What it is.
        unfinished: Unfinished,
    },
    /// The worker was told to stop.
    Stopping {
        /// Jobs that are handed back.
        jobs: usize,
    },
}

impl fmt::Display for Fact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Received { trigger, age, .. } => {
                write!(f, "received a {} notice, {} old", trigger_name(*trigger), in_words(*age))
            }
            Self::Ignored { why } => write!(f, "ignored a message: {why}"),
            Self::DeadLettered { why, .. } => write!(f, "dead-lettered a message: {why}"),
            Self::DeadLetterPostponed { .. } => {
                f.write_str("the dead-letter queue is slow, a message that cannot be read stays in its queue")
            }
            Self::LaterVersion { .. } => {
                f.write_str("a message of a later version of offramp is left for a worker that knows it")
            }
            Self::QueueFaulted { fault } => write!(f, "queue: {fault}"),
            Self::ClockWrong { behind, moved } => {
                let by = in_words(Duration::from_millis(behind.unsigned_abs()));
                let side = if *behind < 0 { "ahead of" } else { "behind" };
                let but = if *moved {
                    "whose time counts; set it right"
                } else {
                    "and is not moved while a removal may be at work; set it right and start the worker again"
                };
                write!(f, "the machine's clock is {by} {side} the queue's, {but}")
            }
            Self::LeaseLost { .. } => {
                f.write_str("a message is not in flight any more, waiting for its next delivery")
            }
            Self::Joined { trigger, copy: false, .. } => {
                write!(f, "{} notice taken on", trigger_name(*trigger))
            }
            Self::Joined { trigger, copy: true, .. } => {
                write!(f, "copy of a {} notice", trigger_name(*trigger))
            }
            Self::Routed { cluster, node: Some(node), .. } => write!(f, "node {node} of cluster {cluster}"),
            Self::Routed { cluster, node: None, .. } => write!(f, "cluster {cluster}, no node"),
            Self::Stepped { stage, reason, .. } => write!(f, "{}: {}", stage_name(*stage), reason.in_words()),
            Self::Acted { action, outcome, .. } => {
                let is_hook_call = matches!(action, Action::Heartbeat(_) | Action::CompleteHook(_));
                let action = action.in_words();
                match outcome {
                    Ok(Outcome::Done) => write!(f, "{action}"),
                    Ok(Outcome::Gone) if is_hook_call => write!(f, "{action}: refused, no active action"),
                    Ok(Outcome::Gone) => write!(f, "{action}: already gone"),
                    Ok(Outcome::Changed) => write!(f, "{action}: it has changed, looking again"),
                    Ok(Outcome::Blocked { budget: Some(budget) }) => {
                        write!(f, "{action}: refused by disruption budget {}", budget.0)
                    }
                    Ok(Outcome::Blocked { budget: None }) => {
                        write!(f, "{action}: refused by a disruption budget")
                    }
                    Ok(Outcome::Vetoed { by }) => {
                        write!(f, "{action}: refused by an admission webhook or policy: {by}")
                    }
                    Err(Failure::Retry) => write!(f, "{action}: failed, will be tried again"),
                    Err(Failure::Denied) => write!(f, "{action}: denied"),
                    Err(Failure::Invalid) => write!(f, "{action}: refused as invalid"),
                }
            }
            Self::Faulted { doing, fault, .. } => write!(f, "{doing}: {fault}"),
            Self::Vetoed { action, by, .. } => write!(
                f,
                "{}: an admission webhook or policy refuses; asked again until it agrees, the object is gone, or \
                 the deadline comes: {by}",
                action.in_words()
            ),
            Self::NotWaitedFor { pod, why, .. } => write!(f, "pod {} {}", pod.in_words(), why.in_words()),
            Self::Isolated { since_event, .. } => {
                write!(f, "isolated {} after the event", in_words(*since_event))
            }
            Self::Finished { outcome, reason, took, .. } => {
                write!(f, "{} after {}: {reason}", outcome.as_str(), in_words(*took))
            }
            Self::TooManyJobs { .. } => f.write_str("too many jobs: the message waits in the queue"),
            Self::Found { what, sent, .. } => {
                let done =
                    if *sent { "a message of our own speaks of it now" } else { "no message could be sent" };
                write!(f, "found without a message: {}; {done}", what.in_words())
            }
            Self::SweepFaulted { fault } => write!(f, "looking for what was not received: {fault}"),
            Self::Unfinished { unfinished } => {
                write!(f, "no job can finish this: {}", unfinished.what.in_words())
            }
            Self::Stopping { jobs } => write!(f, "stopping: {jobs} jobs are handed back"),
        }
    }
}
