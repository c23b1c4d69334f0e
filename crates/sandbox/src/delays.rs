//! How long things take: the one table of what the demo shortens against AWS.

use offramp_engine::default_policy;
use std::time::Duration;

use offramp_core::{Policy, Propagation};

/// Delays of the modelled services. The worker's policy is shortened from the same table, so that both
/// sides of the demo agree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delays {
    /// From an AWS event to its message in the queue. EventBridge to SQS: about half a second.
    pub event: Duration,
    /// From a group's decision to launch to a Ready node.
    pub launch: Duration,
    /// For how long an Application Load Balancer goes on sending new requests after DeregisterTargets.
    pub application_propagation: Duration,
    /// The same for a Network Load Balancer.
    pub network_propagation: Duration,
    /// `deregistration_delay.timeout_seconds` of the demo's target groups.
    pub deregistration: Duration,
    /// From registration to the first healthy verdict: interval times healthy threshold.
    pub first_health_checks: Duration,
    /// From a dead target to `unhealthy`: interval times unhealthy threshold.
    pub failed_health_checks: Duration,
    /// From a pod's change to the last kube-proxy that knows it.
    pub endpoint_slices: Duration,
    /// From a pod bound to a pod ready.
    pub pod_start: Duration,
    /// From the group's decision to terminate to its hook event, where no target group is attached.
    pub group_reaction: Duration,
    /// How long EC2 takes to shut an instance down once it has begun.
    pub shutdown: Duration,
    /// From an instance's end to a Node that is gone (cloud controller).
    pub node_deletion: Duration,
    /// How often the worker reads target health while it waits for it.
    pub recheck: Duration,
}

impl Delays {
    /// As on AWS.
    pub const fn aws() -> Self {
        Self {
            event: Duration::from_millis(500),
            launch: Duration::from_secs(90),
            application_propagation: Duration::from_secs(20),
            network_propagation: Duration::from_secs(120),
            deregistration: Duration::from_secs(300),
            first_health_checks: Duration::from_secs(50),
            failed_health_checks: Duration::from_secs(20),
            endpoint_slices: Duration::from_secs(1),
            pod_start: Duration::from_secs(3),
            group_reaction: Duration::from_secs(1),
            shutdown: Duration::from_secs(20),
            node_deletion: Duration::from_secs(30),
            recheck: Duration::from_secs(10),
        }
    }

    /// As in the demo, which has to end in two minutes. The two minutes of a spot notice stay.
    pub const fn demo() -> Self {
        Self {
            event: Duration::from_millis(100),
            launch: Duration::from_secs(8),
            application_propagation: Duration::from_secs(4),
            network_propagation: Duration::from_secs(8),
            deregistration: Duration::from_secs(10),
            first_health_checks: Duration::from_secs(3),
            failed_health_checks: Duration::from_secs(6),
            endpoint_slices: Duration::from_millis(500),
            pod_start: Duration::from_secs(2),
            group_reaction: Duration::from_millis(200),
            shutdown: Duration::from_secs(5),
            node_deletion: Duration::from_secs(5),
            recheck: Duration::from_secs(2),
        }
    }

    /// The worker's policy for a world with these delays: what it waits for keeps its proportion to what
    /// the world takes.
    pub fn policy(&self) -> Policy {
        let (aws, usual) = (Self::aws(), default_policy());
        let scaled = |usual: Duration, here: Duration, there: Duration| {
            usual.mul_f64(here.as_secs_f64() / there.as_secs_f64())
        };
        Policy {
            propagation: Propagation {
                application: scaled(
                    usual.propagation.application,
                    self.application_propagation,
                    aws.application_propagation,
                ),
                network: scaled(usual.propagation.network, self.network_propagation, aws.network_propagation),
            },
            recheck: scaled(usual.recheck, self.recheck, aws.recheck),
            ..usual
        }
    }

    /// One row for each delay: what it is, on AWS, here.
    pub fn rows(&self) -> Vec<(&'static str, Duration, Duration)> {
        let aws = Self::aws();
        let (policy_aws, policy) = (aws.policy(), self.policy());
        let Self {
            event,
            launch,
            application_propagation,
            network_propagation,
            deregistration,
            first_health_checks,
            failed_health_checks,
            endpoint_slices,
            pod_start,
            group_reaction,
            shutdown,
            node_deletion,
            recheck,
        } = self;
        vec![
            ("event to message", aws.event, *event),
            ("launch to Ready node", aws.launch, *launch),
            ("ALB sends on after deregistration", aws.application_propagation, *application_propagation),
            ("NLB sends on after deregistration", aws.network_propagation, *network_propagation),
            ("deregistration delay", aws.deregistration, *deregistration),
            ("registration to healthy", aws.first_health_checks, *first_health_checks),
            ("dead target to unhealthy", aws.failed_health_checks, *failed_health_checks),
            ("pod change to every kube-proxy", aws.endpoint_slices, *endpoint_slices),
            ("pod bound to ready", aws.pod_start, *pod_start),
            ("decision to hook event", aws.group_reaction, *group_reaction),
            ("shutdown of an instance", aws.shutdown, *shutdown),
            ("instance gone to node gone", aws.node_deletion, *node_deletion),
            ("the worker reads target health every", aws.recheck, *recheck),
            (
                "the worker waits for an ALB",
                policy_aws.propagation.application,
                policy.propagation.application,
            ),
            ("the worker waits for an NLB", policy_aws.propagation.network, policy.propagation.network),
        ]
    }
}
