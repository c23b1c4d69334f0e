//! From notices to claims: one file for each kind of notice, with what it is entitled to, what it demands, and
//! by when. What holds for all of them is here: what is ours to touch.

mod capacity_reservation;
pub(crate) mod hook;
mod rebalance;
pub(crate) mod record;
mod spot;

use std::time::Duration;

use crate::*;

/// For this long a hook's event alone allows the cordon, and another state of the group counts as not
/// known yet: DescribeAutoScalingInstances may lag behind the event (by how much, only a live account
/// could tell). A cordon can be undone, so a minute is generous.
pub const FRESH: Duration = Duration::from_secs(60);

/// What a notice says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeKind {
    /// A lifecycle action waits for an answer.
    Hook(Hook),
    /// EC2 takes a spot instance back; at [`Notice::at`] + 120 s it *begins* to.
    Spot(SpotAction),
    /// EC2 takes back what runs in a reservation or block of capacity; at [`Notice::at`] + 120 s it begins to.
    CapacityReservation,
    /// EC2 sees an elevated risk of interruption. The interruption may never follow.
    Rebalance,
    /// Seen, not received: the node's record names a claim that nobody looks after.
    Record,
}

/// What a notice came from. Of several in one job the first names it: a hook waits for an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// An Auto Scaling lifecycle action.
    Hook,
    /// A spot interruption notice.
    Spot,
    /// The warning that an instance of a capacity reservation or block is taken back.
    CapacityReservation,
    /// A rebalance recommendation.
    Rebalance,
    /// Our record on the node, found by the sweep.
    Record,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 5] =
        [Self::Hook, Self::Spot, Self::CapacityReservation, Self::Rebalance, Self::Record];

    /// What a notice of this kind came from.
    pub const fn of(kind: &NoticeKind) -> Self {
        row(kind).trigger
    }
}

/// One trigger: what a notice of its kind means.
pub(crate) struct Row {
    pub(crate) trigger: Trigger,
    /// How long after its event a notice has a claim, by the operator's limits.
    pub(crate) lasts: fn(&Policy) -> Duration,
    /// What such a notice is entitled to, where the instance is ours to touch.
    pub(crate) entitlement: fn(&Notice, Facts<'_>) -> Entitlement,
    /// What it demands where it acts.
    pub(crate) demands: Demands,
    /// When it has to be served, where it acts.
    pub(crate) until: fn(&Notice, Facts<'_>) -> Option<Deadline>,
}

/// The table. ARCHITECTURE.md has it in words, and is held to it by a test.
pub(crate) const fn row(kind: &NoticeKind) -> Row {
    match kind {
        NoticeKind::Hook(_) => hook::ROW,
        NoticeKind::Spot(SpotAction::Terminate) => spot::TERMINATE,
        NoticeKind::Spot(SpotAction::Stop) => spot::STOP,
        NoticeKind::Spot(SpotAction::Hibernate) => spot::HIBERNATE,
        NoticeKind::CapacityReservation => capacity_reservation::ROW,
        NoticeKind::Rebalance => rebalance::ROW,
        NoticeKind::Record => record::ROW,
    }
}

/// What a notice of this kind demands where it acts.
pub const fn demands(kind: &NoticeKind) -> Demands {
    row(kind).demands
}

/// What a record names for a notice.
pub(crate) fn cause(notice: &Notice) -> Cause {
    let of_hook = |hook: &Hook| Cause::Hook(hook.key.group.clone(), hook.key.name.clone());
    notice.hook().map_or(Cause::Trigger(Trigger::of(&notice.kind)), of_hook)
}

/// When a notice should have no claim any more, by the operator's limits. What cannot be read may hold it longer.
pub(crate) fn expected_end(notice: &Notice, policy: &Policy) -> Timestamp {
    notice.at + (row(&notice.kind).lasts)(policy)
}

/// What one notice of the job claims now.
pub(crate) fn claim<'a>(notice: &'a Notice, facts: Facts<'a>) -> Claim<'a> {
    let row = row(&notice.kind);
    let entitlement = entitlement(&row, notice, facts);
    let acts = entitlement == Entitlement::Acts;
    let demands = if acts { row.demands } else { Demands::default() };
    let until = if acts { (row.until)(notice, facts) } else { None };
    Claim { notice, entitlement, demands, until }
}

fn entitlement(row: &Row, notice: &Notice, facts: Facts<'_>) -> Entitlement {
    let Facts { job, policy, .. } = facts;
    let is_ours = |hook: &Hook| hook_is_ours(&hook.key.name, hook.cluster_hint.as_ref(), policy);
    if notice.hook().is_some_and(|hook| !is_ours(hook)) {
        return Entitlement::Undo(UndoReason::NotOurs);
    }
    if let Some(why) = left_alone(facts) {
        return Entitlement::Undo(UndoReason::LeftAlone(why));
    }
    let entitlement = (row.entitlement)(notice, facts);
    let unread = policy.scoped && !job.memory.in_scope;
    let writes = matches!(entitlement, Entitlement::Acts | Entitlement::Asks);
    if unread && writes { Entitlement::Isolates } else { entitlement }
}

/// Whether a hook is ours: its name is configured, or its metadata names a cluster of ours. EKS's,
/// CodeDeploy's and anybody else's hooks are never answered.
pub fn hook_is_ours(name: &HookName, cluster_hint: Option<&ClusterName>, policy: &Policy) -> bool {
    policy.hook_names.contains(name) || cluster_hint.is_some_and(|hint| policy.clusters.contains(hint))
}

/// Why the instance is not to be touched, if so. The node decides about the cordon; the group, once
/// read, about everything else. What was in scope once stays so: a node that its kubelet has made anew lacks labels for a
/// while (kubernetes#60479), and an instance that was detached, by us too, has no group.
pub(crate) fn left_alone(facts: Facts<'_>) -> Option<LeftAlone> {
    let Facts { job, seen, policy, .. } = facts;
    let by_node = seen.node.known().and_then(|node| match node.owner {
        NodeOwner::Karpenter => Some(LeftAlone::Karpenter),
        NodeOwner::AutoMode => Some(LeftAlone::AutoMode),
        NodeOwner::SelfManaged | NodeOwner::ManagedNodeGroup => {
            (!node.selected && !job.memory.selected).then_some(LeftAlone::NotSelected)
        }
    });
    let in_scope = match &seen.group {
        Seen::Known(group) => group.in_scope,
        Seen::Gone => {
            !policy.scoped || job.memory.in_scope || has_taken_targets_out(seen) || !facts.is_unlisted()
        }
        Seen::Unknown => true,
    };
    by_node.or_else(|| (!in_scope).then_some(LeftAlone::GroupOutOfScope))
}

/// A worker that has done so knew the group, before it was started anew.
fn has_taken_targets_out(seen: &Observation) -> bool {
    let record = seen.node.known().and_then(|node| node.record.as_ref());
    record.is_some_and(|record| !record.targets.is_empty())
}
