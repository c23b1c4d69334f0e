//! All that is known and owed for one instance.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::hook_state::REPEAT;
use crate::notice::HOOK_AT_MOST;
use crate::{
    Action, Evictions, Hook, HookKey, InstanceId, LifecycleState, Notice, NoticeId, NoticeKind, Observation,
    Outcome, PodOrigin, PodUid, Policy, Seen, TargetHealth, TargetKey, Timestamp,
};

/// The merged notices about one instance and what was learned while working on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The instance, key of everything.
    pub instance: InstanceId,
    /// Every notice that joined, in order of arrival, without copies. Never empty.
    pub notices: Vec<Notice>,
    /// How each notice reached this worker, for the first time.
    pub deliveries: BTreeMap<NoticeId, Delivery>,
    /// Results of earlier actions. Cheap to lose.
    pub memory: Memory,
}

/// How a notice reached this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Timestamp,
    /// Its message had been received before, by this worker or another.
    pub redelivered: bool,
}

impl Job {
    /// A job for the instance that the notice speaks of.
    pub fn new(notice: Notice, delivery: Delivery) -> Self {
        Self {
            instance: notice.instance.clone(),
            deliveries: BTreeMap::from([(notice.id.clone(), delivery)]),
            notices: vec![notice],
            memory: Memory::default(),
        }
    }

    /// Merges a notice about the same instance. Obligations are only added, deadlines only tightened,
    /// and nothing that was done is done again. False for a copy of a notice that the job has.
    pub fn join(&mut self, notice: Notice, delivery: Delivery) -> bool {
        let copy = |have: &Notice| {
            have.id == notice.id
                || match (&have.kind, &notice.kind) {
                    (NoticeKind::Hook(a), NoticeKind::Hook(b)) => a.key == b.key && a.key.token.is_some(),
                    (NoticeKind::Hook(_) | NoticeKind::Spot(_) | NoticeKind::Rebalance, _) => false,
                }
        };
        if self.notices.iter().any(copy) {
            return false;
        }
        self.deliveries.insert(notice.id.clone(), delivery);
        self.notices.push(notice);
        true
    }

    /// How a notice of this job reached this worker.
    pub(crate) fn delivery_of(&self, notice: &Notice) -> Delivery {
        let known = self.deliveries.get(&notice.id).copied();
        known.unwrap_or(Delivery { at: notice.at, redelivered: false })
    }

    /// The hooks among the notices.
    pub fn hooks(&self) -> impl Iterator<Item = (&Notice, &Hook)> {
        self.notices.iter().filter_map(|notice| match &notice.kind {
            NoticeKind::Hook(hook) => Some((notice, hook)),
            NoticeKind::Spot(_) | NoticeKind::Rebalance => None,
        })
    }

    /// When it does not matter any more whose the instance is: nothing of the job has a claim by then.
    pub fn ends_unrouted(&self, policy: &Policy) -> Timestamp {
        let ends = self.notices.iter().map(|notice| match notice.kind {
            NoticeKind::Hook(_) => notice.at + HOOK_AT_MOST,
            NoticeKind::Spot(_) | NoticeKind::Rebalance => notice.at + policy.patience,
        });
        ends.max().unwrap_or(Timestamp::from_millis(0))
    }

    /// The earliest time of any notice.
    pub fn since(&self) -> Timestamp {
        let first = self.notices.iter().map(|notice| notice.at).min();
        first.unwrap_or(Timestamp::from_millis(0))
    }
}

/// What earlier ticks learned that an observation does not show. Losing it costs a repeated call or
/// a repeated wait, never a wrong one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// What came of our calls, by hook.
    pub hooks: BTreeMap<HookKey, HookCalls>,
    /// Pods whose end we asked for, and the answer.
    pub asked: BTreeMap<PodUid, Asked>,
    /// The ends that the API server accepted, by what makes such pods again.
    pub evicted: BTreeMap<PodOrigin, Evictions>,
    /// Pods whose grace we have cut already.
    pub cut: BTreeSet<PodUid>,
    /// When a target was first known to be leaving: our call, or the first `draining` seen.
    pub draining_since: BTreeMap<TargetKey, Timestamp>,
    /// A try to isolate failed: spot does not wait for the next.
    pub isolation_failed: bool,
    /// When the first try was made.
    pub isolation_tried: Option<Timestamp>,
    /// What we deregistered.
    pub deregistered: BTreeSet<TargetKey>,
    /// The newest lifecycle state that was read: a later read that fails does not take it back.
    pub last_state: Option<LifecycleState>,
    /// The group took our detach or terminate.
    pub detached: bool,
    /// Our newest write to the node, for the time until a watch shows it.
    pub node_write: Option<NodeWrite>,
    /// AWS writes that failed, and when each may be made again.
    pub rests: Vec<(Action, Timestamp)>,
    /// The group was read, and is in scope.
    pub in_scope: bool,
}

/// A write to the node that the API server took, refused because the node had changed, or left unanswered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeWrite {
    /// The resourceVersion that it went over.
    pub over: String,
    /// When.
    pub at: Timestamp,
    /// There was an answer. Without one the write may have happened or not.
    pub answered: bool,
}

/// The newest answer to an eviction or deletion of one pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// A budget, a webhook or a policy refuses, or the call failed.
    pub refused: bool,
    /// It is a webhook or a policy.
    pub vetoed: bool,
    /// It was a deletion that was asked for.
    pub deleted: bool,
    /// Not before then again. After a success this covers the time until a watch shows it.
    pub again_at: Timestamp,
}

/// What came of our calls about one hook.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HookCalls {
    /// The newest call.
    pub newest: Timestamp,
    /// The newest heartbeat that AWS took.
    pub heard: Option<Timestamp>,
    /// When AWS took our CONTINUE for the first time.
    pub continued: Option<Timestamp>,
    /// When AWS said that there is no active action, and has taken no call since.
    pub refused: Option<Timestamp>,
    /// No answer came to a CONTINUE: AWS may have taken it.
    pub lost: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Not before then again.
    pub again_at: Timestamp,
}

/// How long a refused eviction rests. kubectl drain and the Eviction API's own advice are 5 s; a
/// budget opens when another pod becomes ready, which takes longer than that.
const EVICTION_PAUSE: Duration = Duration::from_secs(5);
/// How long a deletion rests that was refused: at the end seconds count, and a webhook that refuses all of them would
/// otherwise be asked some hundred times a second.
const DELETION_PAUSE: Duration = Duration::from_secs(2);
/// A watch was up to 3.4 s late in a storm on a busy API server. Past that, a write that changed nothing
/// (an admission webhook took it back) is made again.
const WATCH_LAG: Duration = Duration::from_secs(5);
/// What the watch has not shown is looked for this often: a new resourceVersion alone wakes nobody.
const UNSHOWN: Duration = Duration::from_millis(200);
/// How long a failed AWS write rests, whatever wakes the job meanwhile. ELB grants an account ten calls a
/// second; calls of many jobs go out together.
const WRITE_PAUSE: Duration = Duration::from_secs(3);
/// How long a hook rests after a failed call: a tenth of the shortest HeartbeatTimeout (30 s), and twice
/// as long each time, up to 24 s. All calls to Auto Scaling share one bucket for each account.
const HOOK_PAUSE: Duration = Duration::from_secs(3);
const HOOK_PAUSE_DOUBLINGS: u32 = 3;

impl Memory {
    /// What came of our calls about this hook so far.
    pub(crate) fn hook(&self, hook: &HookKey) -> HookCalls {
        self.hooks.get(hook).copied().unwrap_or_default()
    }

    /// When the newest call about any hook was made: what was read before it says nothing of what came of it.
    pub fn hooks_called_at(&self) -> Option<Timestamp> {
        self.hooks.values().map(|calls| calls.newest).max()
    }

    /// Takes in what an action led to that followed from `seen`.
    pub fn learn(&mut self, action: &Action, outcome: &Outcome, seen: &Observation, now: Timestamp) {
        let worked = matches!(outcome, Outcome::Done | Outcome::Gone);
        if let (Some(guard), Outcome::Done | Outcome::Changed | Outcome::Retry) = (action.guard(), outcome) {
            let answered = *outcome != Outcome::Retry;
            self.node_write = Some(NodeWrite { over: guard.to_owned(), at: now, answered });
        }
        match action {
            Action::Isolate { .. } => {
                self.isolation_failed = !worked && *outcome != Outcome::Changed;
                self.isolation_tried.get_or_insert(now);
            }
            Action::Evict { pod, .. } | Action::Delete { pod, .. } => {
                let (refused, vetoed) = (!worked, matches!(outcome, Outcome::Vetoed { .. }));
                let deleted = matches!(action, Action::Delete { .. });
                let pause = if deleted && refused { DELETION_PAUSE } else { EVICTION_PAUSE };
                let asked = Asked { refused, vetoed, deleted, again_at: now + pause };
                self.asked.insert(pod.uid.clone(), asked);
                let seen_pod = seen.pods.known().into_iter().flatten().find(|seen| seen.pod.uid == pod.uid);
                if let (true, Some(pod)) = (worked, seen_pod) {
                    self.evicted(pod, now);
                }
                if worked && deleted {
                    self.cut.insert(pod.uid.clone());
                }
            }
            Action::Deregister(target) => {
                self.pause(action, worked, now);
                if worked {
                    self.draining_since.entry(target.clone()).or_insert(now);
                    self.deregistered.insert(target.clone());
                }
            }
            Action::Heartbeat(hook) | Action::CompleteHook(hook) => {
                let completes = matches!(action, Action::CompleteHook(_));
                self.hooks.entry(hook.clone()).or_default().learn(completes, outcome, now);
            }
            Action::Detach { .. } | Action::TerminateThroughGroup { .. } => {
                self.pause(action, worked, now);
                self.detached |= worked;
            }
            Action::Register(_) => self.pause(action, worked, now),
            Action::Exclude { .. } | Action::Release { .. } => {}
        }
    }

    /// Until when an action has to wait that failed a moment ago, or that would write over a state of the
    /// node that has changed since, by ourselves or by others, as the watch is about to show.
    pub(crate) fn held_until(&self, action: &Action, now: Timestamp) -> Option<Timestamp> {
        let rest = self.rests.iter().find(|(rested, _)| rested == action).map(|(_, at)| *at);
        let over = |write: &&NodeWrite| action.guard() == Some(&write.over);
        let write = self.node_write.as_ref().filter(over).and_then(|write| match write.answered {
            true if now.since(write.at) < WATCH_LAG => Some(now + UNSHOWN),
            true => None,
            false => Some(write.at + UNSHOWN),
        });
        rest.or(write).filter(|at| *at > now)
    }

    /// How long ago our newest write went over this state of the node, or may have.
    pub(crate) fn written_over(&self, resource_version: &str, now: Timestamp) -> Option<Duration> {
        let write = self.node_write.as_ref().filter(|write| write.over == resource_version);
        write.map(|write| now.since(write.at))
    }

    fn pause(&mut self, action: &Action, worked: bool, now: Timestamp) {
        self.rests.retain(|(rested, at)| rested != action && *at > now);
        if !worked {
            self.rests.push((action.clone(), now + WRITE_PAUSE));
        }
    }

    /// Takes in what an observation shows and a later one may not: a target that drains without our call,
    /// the state of the instance in its group.
    pub fn notice(&mut self, instance: &InstanceId, seen: &Observation, now: Timestamp) {
        if let Seen::Known(member) = &seen.membership {
            self.last_state = Some(member.state.clone());
        }
        self.in_scope |= seen.group.known().is_some_and(|group| group.in_scope);
        self.take_server_times(seen.pods.known().map_or(&[], Vec::as_slice));
        let Seen::Known(groups) = &seen.target_groups else { return };
        for (key, target) in groups.iter().flat_map(|group| group.targets_of(instance)) {
            match target.health {
                TargetHealth::Draining => {
                    self.draining_since.entry(key).or_insert(now);
                }
                // Registered again behind our back: its time starts anew at the next call.
                TargetHealth::Healthy
                | TargetHealth::Initial
                | TargetHealth::Unhealthy
                | TargetHealth::Unavailable => {
                    let called = self.draining_since.get(&key);
                    if called.is_some_and(|since| now.since(*since) > REGISTERED_AGAIN) {
                        self.draining_since.remove(&key);
                    }
                }
                TargetHealth::Unused { .. } => {}
            }
        }
    }
}

impl HookCalls {
    /// When AWS took a call for the last time.
    pub(crate) fn taken_at(&self) -> Option<Timestamp> {
        self.heard.max(self.continued)
    }

    fn learn(&mut self, completes: bool, outcome: &Outcome, now: Timestamp) {
        self.newest = now;
        self.lost |= completes && *outcome == Outcome::Retry;
        let (taken, refused) = (*outcome == Outcome::Done, *outcome == Outcome::Gone);
        if taken && !completes {
            *self = Self { newest: now, heard: Some(now), continued: self.continued, ..Self::default() };
            return;
        }
        if taken && self.continued.is_none() {
            (self.continued, self.failures) = (Some(now), 0);
        }
        self.refused = if refused { Some(now) } else { self.refused };
        self.rest(if taken { REPEAT } else { HOOK_PAUSE }, now);
    }

    fn rest(&mut self, first: Duration, now: Timestamp) {
        self.failures += 1;
        self.again_at = now + first * 2_u32.pow((self.failures - 1).min(HOOK_PAUSE_DOUBLINGS));
    }
}

/// DescribeTargetHealth may lag behind DeregisterTargets by a few seconds; a target still shown healthy
/// after this was registered again.
const REGISTERED_AGAIN: Duration = Duration::from_secs(15);
