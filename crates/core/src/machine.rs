//! Whether the machine behind the node still runs.

use std::time::Duration;

use crate::*;

/// A node that is gone, or whose kubelet nobody hears of, for this long. The kubelet's lease runs out after 40 s; a network
/// blip is shorter.
const SILENT: Duration = Duration::from_secs(60);

/// A source that does not own the fact is waited for no longer.
const PASSED_OVER: Duration = Duration::from_secs(600);

/// The instance has already ended: there is nothing to drain, and nobody to wait for. The owners of three facts have to
/// agree, because each is wrong by itself: people delete nodes that serve (autoscaler#6128), a group calls an
/// instance unhealthy that it ends for its load balancer's health check, and a target that drains was healthy before.
pub(crate) fn has_ended(facts: Facts<'_>) -> bool {
    is_gone(facts) && serves_nobody(facts)
}

/// The same where no wait is skipped by it: nobody has to ask the balancers.
pub(crate) fn is_gone(facts: Facts<'_>) -> bool {
    is_given_up(facts) && is_silent(facts, SILENT)
}

/// By the balancers: none of its targets was healthy when it was last on its list. Where they cannot be read for ten minutes
/// they are passed over.
fn serves_nobody(facts: Facts<'_>) -> bool {
    let Facts { job, seen, .. } = facts;
    let asks = job.notices.iter().any(|notice| demands(&notice.kind).deregister != Deregistration::No);
    let read = seen.target_groups.known().is_some() && facts.unread_target_groups() == 0;
    job.memory.sightings.served.is_empty() && (read || !asks || is_silent(facts, PASSED_OVER))
}

/// By the group: it was healthy after the event and is not any more, or it is no member at all.
fn is_given_up(facts: Facts<'_>) -> bool {
    let Facts { job, seen, .. } = facts;
    let event = job.hooks().map(|(notice, _)| notice.at).max().unwrap_or_default();
    match &seen.membership {
        Seen::Known(member) if member.state == LifecycleState::Terminated => true,
        Seen::Known(member) => {
            !member.healthy && job.memory.sightings.healthy_at.is_some_and(|at| at >= event)
        }
        // What we have done ourselves is no witness, and neither is one reading that was empty.
        Seen::Gone => !job.memory.detached && facts.is_unlisted(),
        Seen::Unknown => false,
    }
}

/// By the API server: no kubelet answers for the node.
fn is_silent(Facts { job, seen, now, .. }: Facts<'_>, span: Duration) -> bool {
    let since = match &seen.node {
        Seen::Gone => job.memory.sightings.no_node_since,
        Seen::Known(node) => node.silent.then_some(node.ready_since),
        Seen::Unknown => None,
    };
    since.is_some_and(|since| now.since(since) >= span)
}

/// How long what was on the node is waited for, where there is no node: pods of one that was deleted under us run
/// on, and of one that was never there nobody knows what it runs. In a warm pool that is as it should be (kops#16582).
pub(crate) fn runs_without_node_until(Facts { job, policy, now, .. }: Facts<'_>) -> Timestamp {
    let Sightings { node, no_node_since, longest_grace, pooled, .. } = &job.memory.sightings;
    let unseen = if *pooled { Duration::ZERO } else { policy.no_node };
    no_node_since.unwrap_or(now) + if node.is_some() { *longest_grace } else { unseen }
}

/// Auto Scaling has not listed the instance since a minute after the event at the latest, and its kubelet has written its
/// status after that.
pub(crate) fn lives_outside_its_group(notice: &Notice, Facts { job, seen, .. }: Facts<'_>) -> bool {
    let absent = job.memory.sightings.no_member_since.map(|since| since.max(notice.at + FRESH));
    let node = seen.node.known().filter(|node| node.ready);
    absent.zip(node).is_some_and(|(absent, node)| node.renewed_at > absent)
}
