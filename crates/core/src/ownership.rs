//! Which notices have a claim: what is ours, what is too late, what is over.

use std::time::Duration;

use crate::case::Case;
use crate::deadline::{SPOT_LEAD, ended};
use crate::hook_state::{closes_at, hook_state, is_past};
use crate::notice::HOOK_AT_MOST;
use crate::{
    ClusterName, Hook, HookName, LeftAlone, LifecycleState, NodeOwner, Notice, NoticeKind, Observation, Over,
    Passage, Policy, RebalancePolicy, Seen, SpotAction,
};

/// For this long a hook's event alone allows the cordon, and another state of the group counts as not
/// known yet: DescribeAutoScalingInstances may lag behind the event (by how much, only a live account
/// could tell). A cordon can be undone, so a minute is generous.
pub(crate) const FRESH: Duration = Duration::from_secs(60);

/// A spot instance whose node is still Ready this long after its end was not taken back.
const SPOT_STALE: Duration = Duration::from_secs(60);

/// What a notice entitles us to at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Everything that its path asks for.
    Acts,
    /// The cordon only: the event is fresh, the group has not confirmed it.
    Isolates,
    /// AWS took our answer: nothing more but to see it in the group.
    Confirms,
    /// Nothing yet, but it is not over: the group or the node is not known.
    Waits,
    /// The instance has gone for a while (root volume, stop, hibernation), and will be back.
    Returns,
    /// Nothing any more.
    Over(Over),
}

/// Whether a hook is ours: its name is configured, or its metadata names a cluster of ours. EKS's,
/// CodeDeploy's and anybody else's hooks are never answered.
pub fn hook_is_ours(name: &HookName, cluster_hint: Option<&ClusterName>, policy: &Policy) -> bool {
    policy.hook_names.contains(name) || cluster_hint.is_some_and(|hint| policy.clusters.contains(hint))
}

/// Why the instance is not to be touched, if so. The node decides about the cordon; the group, once
/// read, about everything else.
pub fn left_alone(seen: &Observation, policy: &Policy) -> Option<LeftAlone> {
    let by_node = seen.node.known().and_then(|node| match node.owner {
        NodeOwner::Karpenter => Some(LeftAlone::Karpenter),
        NodeOwner::AutoMode => Some(LeftAlone::AutoMode),
        NodeOwner::SelfManaged | NodeOwner::ManagedNodeGroup => {
            (!node.selected).then_some(LeftAlone::NotSelected)
        }
    });
    let in_scope = match &seen.group {
        Seen::Known(group) => group.in_scope,
        Seen::Gone => !policy.scoped,
        Seen::Unknown => true,
    };
    by_node.or_else(|| (!in_scope).then_some(LeftAlone::GroupOutOfScope))
}

/// What one notice of the job entitles us to now.
pub(crate) fn standing(notice: &Notice, case: Case<'_>) -> Standing {
    let Case { job, seen, policy, .. } = case;
    if let NoticeKind::Hook(hook) = &notice.kind
        && !hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), policy)
    {
        return Standing::Over(Over::NotOurs);
    }
    if let Some(why) = left_alone(seen, policy) {
        return Standing::Over(Over::LeftAlone(why));
    }
    let standing = match &notice.kind {
        NoticeKind::Hook(hook) => of_hook(notice, hook, case),
        NoticeKind::Spot(_) => of_spot(notice, case),
        NoticeKind::Rebalance => of_rebalance(notice, case),
    };
    let unread = policy.scoped && !job.memory.in_scope;
    if unread && standing == Standing::Acts { Standing::Isolates } else { standing }
}

/// A notice may be a day old, so it authorises nothing by itself but a fresh cordon: the group has to
/// report the matching Wait state.
fn of_hook(notice: &Notice, hook: &Hook, case: Case<'_>) -> Standing {
    let Case { job, seen, policy, now } = case;
    // A message that is older than the patience is read for a while, too: its first reading may be a bad one.
    let patient = now < (notice.at + policy.patience).max(job.delivery_of(notice).at + FRESH);
    let Some(wait_state) = hook.passage.wait_state() else { return Standing::Over(Over::NotServed) };
    let fresh = now <= notice.at + FRESH;
    match hook_state(notice, hook, case) {
        // The instance comes back, whoever answered.
        Some(Standing::Over(_)) if hook.passage == Passage::RootVolume => {
            return of_rebooting(seen, patient);
        }
        Some(Standing::Confirms) if !fresh && is_in_service(seen) => return Standing::Over(Over::Disagrees),
        Some(standing) => return standing,
        None => {}
    }
    // Nothing but `InService` says that the instance stays: an absence, and a state that is neither, prove
    // nothing, and what was done stays done until somebody has looked.
    // Where the group said before that the hook holds it, the hook's own end is waited for.
    let confirmed = job.memory.last_state.as_ref() == Some(&wait_state);
    let undecided = match (fresh, patient || confirmed && now < closes_at(notice, hook, case)) {
        (true, _) => Standing::Isolates,
        (false, true) => Standing::Waits,
        (false, false) => Standing::Over(Over::LeftIsolated),
    };
    match &seen.membership {
        Seen::Known(_) if is_past(hook.passage, false, seen) => Standing::Over(Over::Answered),
        Seen::Known(member) if member.state == wait_state => Standing::Acts,
        Seen::Known(_) if !fresh && is_in_service(seen) => Standing::Over(Over::Disagrees),
        Seen::Known(_) => undecided,
        // What is described may lag behind the launch, too.
        Seen::Gone if !fresh && ended(seen, now) => Standing::Over(Over::Answered),
        Seen::Gone => undecided,
        // It was confirmed: a read that fails later does not take that back.
        Seen::Unknown if confirmed => Standing::Acts,
        Seen::Unknown if fresh => Standing::Isolates,
        // AWS ends every hook by its global timeout, 48 h at most: so does the wait for an answer.
        Seen::Unknown if now < notice.at + HOOK_AT_MOST => Standing::Waits,
        Seen::Unknown => Standing::Over(Over::LeftIsolated),
    }
}

fn is_in_service(seen: &Observation) -> bool {
    seen.membership.known().is_some_and(|member| member.state == LifecycleState::InService)
}

fn of_rebooting(seen: &Observation, patient: bool) -> Standing {
    match &seen.node {
        Seen::Known(node) if node.ready && is_in_service(seen) => Standing::Over(Over::Reprieved),
        Seen::Gone if seen.membership == Seen::Gone => Standing::Over(Over::Answered),
        Seen::Known(_) | Seen::Gone | Seen::Unknown if patient => Standing::Returns,
        Seen::Known(_) | Seen::Gone | Seen::Unknown => Standing::Over(Over::LeftIsolated),
    }
}

fn of_spot(notice: &Notice, Case { seen, policy, now, .. }: Case<'_>) -> Standing {
    let patient = now < notice.at + policy.patience;
    if now <= notice.at + SPOT_LEAD + SPOT_STALE {
        return Standing::Acts;
    }
    match &seen.node {
        Seen::Known(node) if node.ready => Standing::Over(Over::Stale),
        // Stopped or hibernated: with its node, the cordon and the label would come back.
        Seen::Known(_) if notice.kind != NoticeKind::Spot(SpotAction::Terminate) && patient => {
            Standing::Returns
        }
        Seen::Known(_) | Seen::Gone => Standing::Over(Over::Ended),
        Seen::Unknown if patient => Standing::Waits,
        Seen::Unknown => Standing::Over(Over::PatienceOver),
    }
}

fn of_rebalance(notice: &Notice, Case { seen, policy, now, .. }: Case<'_>) -> Standing {
    if seen.node == Seen::Gone {
        return Standing::Over(Over::Ended);
    }
    if now >= notice.at + policy.patience {
        return Standing::Over(Over::PatienceOver);
    }
    match (policy.rebalance, &seen.group) {
        (RebalancePolicy::None, _) => Standing::Over(Over::ByPolicy),
        (RebalancePolicy::Isolate, _) | (RebalancePolicy::Automatic, Seen::Gone) => Standing::Acts,
        (RebalancePolicy::Automatic, Seen::Known(group)) if group.capacity_rebalancing => {
            Standing::Over(Over::ByPolicy)
        }
        (RebalancePolicy::Automatic, Seen::Known(_)) => Standing::Acts,
        (RebalancePolicy::Automatic, Seen::Unknown) => Standing::Waits,
    }
}
