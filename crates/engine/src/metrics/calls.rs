//! Requests to AWS and Kubernetes: how many, how they ended, how long they took.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use super::Metrics;

/// Declares the calls: one line each, with the name that the API itself gives it.
macro_rules! calls {
    ($($api:literal { $($call:ident = $operation:literal,)* })*) => {
        /// A request that a port makes, as a closed set of labels.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Call {
            $($(#[doc = concat!("`", $operation, "` of ", $api, ".")] $call,)*)*
        }

        impl Call {
            /// Every call.
            pub const ALL: &[Self] = &[$($(Self::$call,)*)*];

            /// The API that it goes to.
            pub const fn api(self) -> &'static str {
                match self {
                    $($(Self::$call)|* => $api,)*
                }
            }

            /// Its name there.
            pub const fn operation(self) -> &'static str {
                match self {
                    $($(Self::$call => $operation,)*)*
                }
            }
        }
    };
}

calls! {
    "sqs" {
        ReceiveMessage = "ReceiveMessage",
        ChangeMessageVisibilityBatch = "ChangeMessageVisibilityBatch",
        DeleteMessageBatch = "DeleteMessageBatch",
        SendMessage = "SendMessage",
        SendMessageBatch = "SendMessageBatch",
        GetQueueAttributes = "GetQueueAttributes",
        GetQueueUrl = "GetQueueUrl",
    }
    "autoscaling" {
        DescribeAutoScalingInstances = "DescribeAutoScalingInstances",
        DescribeAutoScalingGroups = "DescribeAutoScalingGroups",
        DescribeLifecycleHooks = "DescribeLifecycleHooks",
        DescribeScalingActivities = "DescribeScalingActivities",
        RecordLifecycleActionHeartbeat = "RecordLifecycleActionHeartbeat",
        CompleteLifecycleAction = "CompleteLifecycleAction",
        DetachInstances = "DetachInstances",
        TerminateInstanceInAutoScalingGroup = "TerminateInstanceInAutoScalingGroup",
    }
    "elbv2" {
        DescribeTargetGroups = "DescribeTargetGroups",
        DescribeTargetGroupAttributes = "DescribeTargetGroupAttributes",
        DescribeTargetHealth = "DescribeTargetHealth",
        DeregisterTargets = "DeregisterTargets",
        RegisterTargets = "RegisterTargets",
    }
    "kubernetes" {
        ListNodes = "list nodes",
        GetNode = "get node",
        WatchNodes = "watch nodes",
        ListPods = "list pods",
        WatchPods = "watch pods",
        ListServices = "list services",
        WatchServices = "watch services",
        PatchNode = "patch node",
        EvictPod = "evict pod",
        DeletePod = "delete pod",
        CreateEvent = "create event",
        GetVersion = "get version",
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CallResult {
    /// It was answered: done, already so, already gone, or held back by a disruption budget.
    Done,
    /// There are too many requests for now.
    Throttled,
    /// Permissions or credentials have to be mended.
    Denied,
    /// The request is wrong.
    Invalid,
    /// No answer, or one that says to try again later.
    Retry,
}

impl CallResult {
    /// Every result.
    pub const ALL: [Self; 5] = [Self::Done, Self::Throttled, Self::Denied, Self::Invalid, Self::Retry];

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Throttled => "throttled",
            Self::Denied => "denied",
            Self::Invalid => "invalid",
            Self::Retry => "retry",
        }
    }
}

impl Metrics {
    /// Counts one request that has ended.
    pub fn called(&self, call: Call, result: CallResult, took: Duration) {
        let (api, operation) = (call.api(), call.operation());
        self.calls.with_label_values(&[api, operation, result.as_str()]).inc();
        self.call_seconds.with_label_values(&[api, operation]).observe(took.as_secs_f64());
    }

    /// Waits for the answer to one request and counts it. A request that is dropped because nobody waits
    /// any longer counts too, as `retry`: nothing is known about it.
    pub async fn measure<T>(
        &self,
        call: Call,
        request: impl Future<Output = T>,
        result: impl FnOnce(&T) -> CallResult,
    ) -> T {
        let mut pending = Pending { metrics: self, call, result: CallResult::Retry, since: Instant::now() };
        let answer = request.await;
        pending.result = result(&answer);
        answer
    }
}

/// A request on its way; counted when it is dropped.
struct Pending<'a> {
    metrics: &'a Metrics,
    call: Call,
    result: CallResult,
    since: Instant,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        self.metrics.called(self.call, self.result, self.since.elapsed());
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api(), self.operation())
    }
}
