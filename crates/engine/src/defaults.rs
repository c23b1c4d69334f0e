//! What applies where the operator has chosen nothing. Every figure carries its arithmetic.

use std::collections::BTreeSet;
use std::time::Duration;

use offramp_core::{Policy, Propagation, RebalancePolicy};

/// The policy of an operator who has chosen nothing: no cluster is served, and no hook is ours.
pub fn default_policy() -> Policy {
    Policy {
        installation: "".into(),
        hook_names: BTreeSet::new(),
        scoped: false,
        clusters: BTreeSet::new(),
        rebalance: RebalancePolicy::Automatic,
        // Notices may lead by 108 s in place of 120 (runs-on#277): 12 s, and 3 s for our calls.
        deadline_margin: Duration::from_secs(15),
        // Before Kubernetes 1.34, AL2023 AMIs had no graceful shutdown (amazon-eks-ami#2390).
        node_shutdown_grace: Duration::ZERO,
        // The longest common grace (15 min), two PDB-bound rounds of it, and as much again.
        hook_limit: Duration::from_secs(3600),
        patience: Duration::from_secs(3600),
        // As long as a launch is given: a node that joins by then is drained. Longer than any usual grace, for a
        // node that is in a cluster which the kubeconfig does not name.
        no_node: Duration::from_secs(600),
        // Launch (3 to 5 min), registration and first health checks (up to 2 min), twice over.
        gate_limit: Duration::from_secs(600),
        propagation: Propagation {
            // "Some seconds to tens of seconds" (aws-load-balancer-controller#2366).
            application: Duration::from_secs(30),
            // About two minutes, and a quarter more (aws-node-termination-handler#316).
            network: Duration::from_secs(150),
        },
        // The scheduler's binding cycle, and a watch event: each well under a second when idle,
        // seconds in a storm. Karpenter drains for at least as long.
        settle: Duration::from_secs(5),
        // One DescribeTargetHealth for each target group, shared for a quarter of this by all jobs: 20 groups
        // use 2 calls a second for one job, and 8 for many, of the 10 that ELB grants an account.
        recheck: Duration::from_secs(10),
        ingress_daemon_sets: BTreeSet::new(),
    }
}
