//! What earlier ticks learned that an observation does not show. The engine writes it, from what came of the
//! actions (its `learning.rs`); the decision reads it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::*;

/// Losing it costs a repeated call or a repeated wait: what a conclusion needs is seen anew, usually after the same wait again.
/// What nobody can see any more is not recovered, such as the grace of pods whose node has gone: there the hook is held for
/// longer, and ends under another name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What came of our calls, by hook.
    pub hooks: BTreeMap<HookKey, HookCalls>,
    /// The newest answer to an eviction or deletion, by pod.
    pub pods: BTreeMap<PodUid, PodAnswer>,
    /// Pods whose eviction or deletion failed, or was not answered: it may have happened, as a watch will show.
    pub unanswered: BTreeMap<PodUid, (Pod, Timestamp)>,
    /// The ends that the API server accepted, by what makes such pods again.
    pub evicted: BTreeMap<PodOrigin, Evictions>,
    /// When a target was first known to be leaving: our call, or the first `draining` seen.
    pub draining_since: BTreeMap<TargetKey, Timestamp>,
    /// What was seen of the machine earlier.
    pub sightings: Sightings,
    /// A try to isolate failed: spot does not wait for the next.
    pub isolation_failed: bool,
    /// When the first try was made.
    pub isolation_tried: Option<Timestamp>,
    /// Since when ELB has not found these target groups.
    pub missing_since: BTreeMap<TargetGroupArn, Timestamp>,
    /// What we deregistered.
    pub deregistered: BTreeSet<TargetKey>,
    /// The newest lifecycle state that was read: a later read that fails does not take it back.
    pub last_state: Option<LifecycleState>,
    /// The group as it was read for the last time; with its hooks, if it ever had any.
    pub group: Option<Group>,
    /// The group took our detach or terminate.
    pub detached: bool,
    /// Our newest write to the node, for the time until a watch shows it.
    pub node_write: Option<NodeWrite>,
    /// The node's cordon, label or record could not be written, and has not been since.
    pub unwritten: Option<Unwritten>,
    /// When a list of the node's pods last showed what its watch shows.
    pub pods_listed: Option<Timestamp>,
    /// How often the record alone was written, or tried.
    pub record_writes: u32,
    /// The group was read, and is in scope.
    pub in_scope: bool,
    /// The node was seen, and the selector matched.
    pub selected: bool,
    /// How often ELB said of a registration that it cannot be: the instance or the target group is gone.
    pub unregistrable: BTreeMap<TargetKey, u32>,
    /// Since when what was done is being undone.
    pub returning_since: Option<Timestamp>,
    /// Since when something waits for AWS to be read at once.
    pub reading_since: Option<Timestamp>,
    /// What rests, and until when.
    pub cooldowns: BTreeMap<Key, Cooldown>,
}

/// What earlier observations showed and a later one may not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sightings {
    /// The node was there, under this name.
    pub node: Option<NodeName>,
    /// Our newest record on the node: somebody may have taken it off since.
    pub recorded: Option<Record>,
    /// What we have written was there when the node was seen for the last time after that.
    pub lasts: bool,
    /// Since when the node is seen to take no new pods: it has our cordon, or is gone.
    pub closed_at: Option<Timestamp>,
    /// Since when the node is seen without what we have written to it, or tried to write.
    pub open_since: Option<Timestamp>,
    /// Since when it is sure that there is no node.
    pub no_node_since: Option<Timestamp>,
    /// Several Ready nodes named the instance. One of them may be gone since, and nobody knows which was right.
    pub twins: Option<NodeDoubt>,
    /// The longest grace of the pods that were on the node, when it was there for the last time.
    pub longest_grace: Duration,
    /// Since when it is no member of a group, by each reading.
    pub no_member_since: Option<Timestamp>,
    /// When the group last said that the instance is healthy.
    pub healthy_at: Option<Timestamp>,
    /// The newest that the group said of the instance's health is that it is unhealthy.
    pub unhealthy: bool,
    /// The pods on the node that are ending.
    pub ending: BTreeMap<PodUid, Ending>,
    /// Since when these hooks are missing in their group, by each reading.
    pub missing_hooks: BTreeMap<HookKey, Timestamp>,
    /// The newest that the group said of the instance is that it ends in the warm pool.
    pub pooled: bool,
    /// The group said that a hook holds the instance.
    pub held: bool,
    /// The targets that were healthy when they were last on the list of their target group.
    pub served: BTreeSet<TargetKey>,
}

/// How a pod ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Since when it is known to end as it does now, by our clock: a grace that is cut begins anew.
    pub since: Timestamp,
    /// When its grace ends, by the API server's.
    pub ends_at: Option<Timestamp>,
}

/// A write to the node that the API server took, refused because the node had changed or was gone, or left unanswered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWrite {
    /// The resourceVersion that it went over.
    pub over: String,
    /// When.
    pub at: Timestamp,
    /// The API server said that a cordon or a label is on, and no watch has come as far yet.
    pub has_to_last: bool,
}

/// Writes to a node in a row that came to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unwritten {
    /// The first.
    pub since: Timestamp,
    /// The newest.
    pub newest: Timestamp,
    /// The first and the newest that the API server will not do: permissions, a webhook, a policy.
    pub refused: Option<(Timestamp, Timestamp)>,
}

/// The newest answer to an eviction or deletion of one pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodAnswer {
    /// What refuses: a budget, a webhook or a policy; or the pod itself, where the call failed.
    pub refused_by: Option<Key>,
    /// When that was.
    pub asked_at: Timestamp,
    /// It is a webhook or a policy.
    pub vetoed: bool,
    /// It was a deletion that was asked for.
    pub deleted: bool,
    /// A deletion was accepted once: its grace is cut already.
    pub cut: bool,
}

/// What stays the same from one try to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// The node's labels, cordon and record.
    Node,
    /// That they cannot be written, whatever the node looks like by now.
    Unwritten,
    /// That somebody else had written the node first.
    Conflict,
    /// That the node was seen without what had been on it: somebody takes the cordon or the label off.
    Reopened,
    /// A pod.
    Pod(PodUid),
    /// All pods of the node, read anew.
    PodList,
    /// The action of a hook.
    Hook(HookKey),
    /// That a target leaves its group.
    Deregistration(TargetKey),
    /// That it comes back.
    Registration(TargetKey),
    /// The instance's place in its group.
    Membership(GroupName),
    /// The evictions that are refused without a budget: most likely for the sake of what makes the pod.
    Origin(String, PodOrigin),
    /// The evictions that this disruption budget refuses.
    Budget(String, BudgetName),
}

/// How something rests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cooldown {
    /// How often in a row it was done in vain.
    pub times: u32,
    /// When it was done for the last time.
    pub since: Timestamp,
    /// Not before then again.
    pub until: Timestamp,
}

/// What came of our calls about one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCalls {
    /// The newest call.
    pub newest: Timestamp,
    /// The newest heartbeat that AWS took.
    pub heard: Option<Timestamp>,
    /// The newest heartbeat that was not answered: AWS may have taken it.
    pub unheard: Option<Timestamp>,
    /// When AWS took our CONTINUE for the first time.
    pub continued: Option<Timestamp>,
    /// When AWS said that there is no active action, and has taken no call since.
    pub refused: Option<Timestamp>,
    /// How often in a row AWS said so.
    pub refusals: u32,
    /// No answer came to a CONTINUE: AWS may have taken it.
    pub lost: bool,
}

/// What the watch has not shown is looked for this often: a new resourceVersion alone wakes nobody.
const UNSHOWN: Duration = Duration::from_millis(200);

impl Memory {
    /// What came of our calls about this hook so far.
    pub(crate) fn hook(&self, hook: &HookKey) -> HookCalls {
        self.hooks.get(hook).copied().unwrap_or_default()
    }

    /// What was bound to the node by then has to have been shown before the node counts as empty.
    pub fn closed_at(&self) -> Option<Timestamp> {
        // A node that cannot be written is never closed, and neither is one on which no cordon lasts, or shows (seed 51198).
        let tried = self.isolation_tried.filter(|_| self.sightings.open_since.is_some());
        self.sightings.closed_at.or(self.unwritten.map(|unwritten| unwritten.since)).or(tried)
    }

    /// The newest answer about a pod.
    pub(crate) fn answer(&self, pod: &Pod) -> PodAnswer {
        self.pods.get(&pod.pod.uid).cloned().unwrap_or_default()
    }

    /// Until when the pod rests, whatever else does. Nearly always none has been asked yet: that spares every pod of every
    /// tick a key of its own.
    pub(crate) fn pod_rests_until(&self, pod: &Pod) -> Timestamp {
        let asked = (!self.pods.is_empty()).then(|| self.cooldown(&Key::Pod(pod.pod.uid.clone())).until);
        asked.unwrap_or_default()
    }

    /// How this rests, if it does.
    pub fn cooldown(&self, key: &Key) -> Cooldown {
        self.cooldowns.get(key).copied().unwrap_or_default()
    }

    /// Until when an action has to wait that failed a moment ago, or that would write over a state of the
    /// node that has changed since, by ourselves or by others, as the watch is about to show.
    pub(crate) fn held_until(&self, action: &Action, now: Timestamp) -> Option<Timestamp> {
        // What is refused as an eviction may go further, to a deletion: the drain asks by itself. Calls about hooks rest by
        // what is left of them.
        if let Action::Evict { .. } | Action::Delete { .. } | Action::Heartbeat(_) | Action::CompleteHook(_) =
            action
        {
            return None;
        }
        let rests = |key: &Key| Some(self.cooldown(key).until).filter(|until| *until > now);
        let brakes = [Key::Unwritten, Key::Reopened, Key::Conflict];
        let refused = action.guard().and_then(|_| brakes.iter().filter_map(rests).max());
        let until = rests(&action.key()).or(refused)?;
        match action.guard() {
            Some(_) if refused.is_some() => refused,
            Some(guard) => self.written_over(guard, now).map(|_| until.min(now + UNSHOWN)),
            None => Some(until),
        }
    }

    /// How long ago our newest write went over this state of the node, or may have.
    pub(crate) fn written_over(&self, resource_version: &str, now: Timestamp) -> Option<Duration> {
        Some(now.since(self.node_write.as_ref().filter(|write| write.over == resource_version)?.at))
    }
}
