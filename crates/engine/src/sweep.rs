//! What should have been received and was not: a hook of ours that holds an instance while nobody works on it, and a
//! record on a node that nobody looks after. It is found by looking, and put onto the queue as a message of our own, so
//! that a job begins as it does for an event of AWS, at whichever worker receives it.
//!
//! Two workers may find the same. On one of them that is one job, on two they do the same idempotent work.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use offramp_core::{
    AccountRegion, ClusterName, Ended, FRESH, Group, GroupName, Hook, HookKey, HookName, HookSpec,
    InstanceId, Membership, Node, Notice, NoticeId, NoticeKind, Observation, Passage, Policy, Seen,
    Timestamp, hook_is_ours,
};
use offramp_wire::own_message;
use tokio::sync::watch;

use crate::Handle;
use crate::batch::Calls;
use crate::clock::Clock;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::labels::state_name;
use crate::place;
use crate::ports::{Cluster, Fault, Groups, Queue, Sessions};
use crate::retry::{GrowingPauses, hash, timeout};
use crate::routing::Clusters;
use crate::unfinished::{Unfinished, UnfinishedKind};

/// By then the watches are in sync, and the messages that a killed worker held have come back, 30 s after its last
/// extension: what they speak of is at work again.
const FIRST: Duration = Duration::from_secs(60);
/// A sweep is one DescribeAutoScalingGroups for each hundred groups, and one DescribeAutoScalingInstances for each fifty
/// nodes with a record. A hook with the common HeartbeatTimeout of 300 s or more is found before it runs out.
const EVERY: Duration = Duration::from_secs(300);
/// What was sent is not sent again for so long: for an instance without a node nothing else says that it was.
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// After so long a job would have ended it, or shown on the node that it works on it: three sweeps, and twice the
/// deregistration delay of 300 s, for which a job without a node may wait.
const STUCK: Duration = Duration::from_secs(900);
/// With growing pauses between them, some three seconds. The next sweep tries again.
const TRIES: usize = 5;
/// SQS takes ten messages at a time.
const MOST_SENT: usize = 10;

/// Looks for what was not received.
pub(crate) struct Sweep {
    pub(crate) queue: Arc<dyn Queue>,
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) calls: Calls,
    pub(crate) clusters: Clusters,
    pub(crate) policy: Policy,
    /// Of the queue.
    pub(crate) account_region: AccountRegion,
    /// What was found is put onto the queue; otherwise it is only told.
    pub(crate) sends: bool,
    pub(crate) handle: Handle,
    pub(crate) unfinished: watch::Sender<Vec<Unfinished>>,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
    pub(crate) told: BTreeMap<What, Told>,
}

/// What was found, by what stays the same from one sweep to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum What {
    /// A hook holds the instance, since then where that is known: after that it is another action.
    Hook(InstanceId, GroupName, HookName, Option<Timestamp>),
    /// The record of its node is overdue, and the group showed it in this state.
    Record(InstanceId, Option<String>),
}

/// When it was found for the first time, and when it was last sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Told {
    first: Timestamp,
    sent: Timestamp,
}

/// Something that a job should look after.
struct Found {
    what: What,
    notice: Notice,
    node: Option<ClusterNode>,
}

/// A node, and where it is.
#[derive(Clone)]
struct ClusterNode {
    cluster: ClusterName,
    instance: InstanceId,
    node: Node,
}

impl Sweep {
    /// Looks again and again.
    pub(crate) async fn run(mut self) {
        let mut next = self.clock.now() + FIRST;
        loop {
            self.clock.sleep_until(next).await;
            self.look().await;
            next = self.clock.now() + EVERY;
        }
    }

    async fn look(&mut self) {
        let now = self.clock.now();
        let at_work: BTreeSet<InstanceId> =
            self.handle.jobs().await.into_iter().map(|job| job.instance).collect();
        let mut recorded = self.recorded();
        recorded.retain(|node| !at_work.contains(&node.instance));
        let mut unfinished: Vec<Unfinished> =
            recorded.iter().filter_map(|node| unfinished_record(node, now)).collect();
        let mut places: BTreeSet<AccountRegion> = recorded.iter().map(|node| self.place_of(node)).collect();
        places.insert(self.account_region.clone());
        let mut found = self.overdue_records(recorded, now).await;
        let mut whole = true;
        for place in places {
            match self.waiting_hooks(&place, &at_work, now).await {
                Ok(hooks) => found.extend(hooks),
                Err(fault) => {
                    whole = false;
                    self.journal.record(Fact::SweepFaulted { fault });
                }
            }
        }
        unfinished.extend(self.tell(found, now).await);
        self.journal.metrics().swept(whole, &unfinished);
        self.publish(unfinished);
    }

    /// Every node that has a record, of the clusters that are in sync.
    fn recorded(&self) -> Vec<ClusterNode> {
        let of = |cluster: &Arc<dyn Cluster>| {
            let name = cluster.name().clone();
            let nodes = cluster.recorded().into_iter();
            nodes.map(move |(instance, node)| ClusterNode { cluster: name.clone(), instance, node })
        };
        self.clusters.0.iter().flat_map(of).collect()
    }

    /// Where calls about the instance go: as an entry says, where one does.
    fn place_of(&self, recorded: &ClusterNode) -> AccountRegion {
        let entries = recorded.node.record.iter().flat_map(|record| record.entries.values());
        let mut places = entries.map(|entry| &entry.account_region);
        let named = places.find(|place| place.region.is_some()).cloned().unwrap_or_default();
        place::filled(named, &self.account_region)
    }

    async fn overdue_records(&self, recorded: Vec<ClusterNode>, now: Timestamp) -> Vec<Found> {
        let reads = recorded.into_iter().map(|recorded| async {
            let place = self.place_of(&recorded);
            let read = self.calls.memberships.ask_since(&place, recorded.instance.clone(), now).await;
            (recorded, place, read)
        });
        let mut found = Vec::new();
        for (recorded, place, read) in join_all(reads).await {
            let membership = match read {
                Ok(member) => member.map_or(Seen::Gone, Seen::Known),
                Err(fault) => {
                    self.journal.record(Fact::SweepFaulted { fault });
                    Seen::Unknown
                }
            };
            let state = membership.known().map(|member| state_name(&member.state).to_owned());
            let node = Seen::Known(recorded.node.clone());
            let seen = Observation { node, membership, ..Observation::default() };
            let record = recorded.node.record.as_ref();
            if record.is_some_and(|record| record.is_due(&seen, &self.policy, now)) {
                let what = What::Record(recorded.instance.clone(), state);
                let notice = overdue_record(&recorded.instance, place, now);
                found.push(Found { what, notice, node: Some(recorded) });
            }
        }
        found
    }

    /// Hooks of ours that hold an instance, and of which neither a job here nor its node's record knows.
    async fn waiting_hooks(
        &self,
        place: &AccountRegion,
        at_work: &BTreeSet<InstanceId>,
        now: Timestamp,
    ) -> Result<Vec<Found>, Fault> {
        let groups = self.sessions.groups(place)?;
        let members = timeout("looking for instances that a hook holds", groups.out_of_service()).await?;
        let mut held: BTreeMap<GroupName, Vec<(InstanceId, Membership)>> = BTreeMap::new();
        for (instance, member) in members {
            if Passage::held_in(&member.state).is_some() && !at_work.contains(&instance) {
                held.entry(member.group.clone()).or_default().push((instance, member));
            }
        }
        let mut found = Vec::new();
        for (name, members) in held {
            let Some(group) = self.calls.groups.ask(place, name.clone()).await? else { continue };
            let hooks: Vec<&HookSpec> = self.hooks_of(&group).collect();
            if hooks.is_empty() {
                continue;
            }
            let since = since_when(&*groups, &name).await?;
            for (instance, member) in members {
                let began = since.get(&instance).copied();
                let notice = |hook: &HookSpec| waiting_hook(&instance, &member, hook, began, place, now);
                found.extend(hooks.iter().filter_map(|hook| {
                    let node = self.unattended(&instance, &member, hook, now)?;
                    let what = What::Hook(instance.clone(), name.clone(), hook.name.clone(), began);
                    Some(Found { what, notice: notice(hook)?, node })
                }));
            }
        }
        Ok(found)
    }

    fn hooks_of<'a>(&'a self, group: &'a Group) -> impl Iterator<Item = &'a HookSpec> {
        let is_ours = |hook: &&HookSpec| hook_is_ours(&hook.name, hook.cluster_hint.as_ref(), &self.policy);
        group.terminate_hooks.iter().filter(is_ours)
    }

    /// The node of a hook that nobody looks after, where there is one. Nothing where the node's record names the hook, or
    /// where a cluster that may have the node is out of sync.
    fn unattended(
        &self,
        instance: &InstanceId,
        member: &Membership,
        hook: &HookSpec,
        now: Timestamp,
    ) -> Option<Option<ClusterNode>> {
        let (cluster, node) = match self.clusters.node(instance) {
            Seen::Unknown => return None,
            Seen::Gone => return Some(None),
            Seen::Known(found) => found,
        };
        let named = node
            .record
            .as_ref()
            .is_some_and(|record| record.looks_after(&member.group, &hook.name, &member.state, now));
        let node = ClusterNode { cluster: cluster.name().clone(), instance: instance.clone(), node };
        (!named).then_some(Some(node))
    }

    /// Sends what is new, and says what a message of an earlier sweep did not end.
    async fn tell(&mut self, found: Vec<Found>, now: Timestamp) -> Vec<Unfinished> {
        let known: BTreeSet<What> = found.iter().map(|one| one.what.clone()).collect();
        self.told.retain(|what, told| known.contains(what) || now.since(told.sent) < REMEMBERED);
        let stuck = found.iter().filter_map(|one| {
            let first = self.told.get(&one.what)?.first;
            (now.since(first) >= STUCK).then(|| one.unfinished(first))
        });
        let unfinished = stuck.collect();
        let lately =
            |one: &Found| self.told.get(&one.what).is_some_and(|told| now.since(told.sent) < REMEMBERED);
        let new = found.into_iter().filter(|one| !lately(one)).collect();
        for one in self.send(new).await {
            let (instance, what, sent) = (one.notice.instance.clone(), one.kind(), self.sends);
            self.journal.record(Fact::Found { instance, what, sent });
            self.told.entry(one.what).or_insert(Told { first: now, sent: now }).sent = now;
        }
        unfinished
    }

    /// Those that are on the queue now, or that would be if anything were sent.
    async fn send(&self, mut waiting: Vec<Found>) -> Vec<Found> {
        if !self.sends {
            return waiting;
        }
        let mut sent = Vec::new();
        let mut pauses = GrowingPauses::new("sweep");
        for _ in 0..TRIES {
            let mut again = Vec::new();
            while !waiting.is_empty() {
                let some = waiting.split_off(waiting.len().saturating_sub(MOST_SENT));
                let answers = self.send_some(&some).await;
                for (found, answer) in some.into_iter().zip(answers) {
                    match answer {
                        Ok(()) => sent.push(found),
                        Err(fault) => {
                            again.extend(matches!(fault, Fault::Retry(_)).then_some(found));
                            self.journal.record(Fact::QueueFaulted { fault });
                        }
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            waiting = again;
            self.clock.sleep_until(self.clock.now() + pauses.next()).await;
        }
        sent
    }

    async fn send_some(&self, found: &[Found]) -> Vec<Result<(), Fault>> {
        let unwritable = || Fault::Invalid("writing a message of our own: its time has no form".to_owned());
        let bodies = found.iter().map(|found| own_message(&found.notice).ok_or_else(unwritable));
        let send = async {
            let bodies = bodies.collect::<Result<Vec<String>, Fault>>()?;
            Ok(self.queue.send(&bodies).await)
        };
        let sent = timeout("sending messages to the queue", send).await;
        sent.unwrap_or_else(|fault| vec![Err(fault); found.len()])
    }

    fn publish(&self, unfinished: Vec<Unfinished>) {
        let known = self.unfinished.borrow().clone();
        for one in &unfinished {
            if !known.iter().any(|old| (old.what, &old.instance) == (one.what, &one.instance)) {
                self.journal.record(Fact::Unfinished { unfinished: one.clone() });
            }
        }
        self.unfinished.send_replace(unfinished);
    }
}

impl Found {
    fn kind(&self) -> UnfinishedKind {
        match self.what {
            What::Hook(..) => UnfinishedKind::WaitingHook,
            What::Record(..) => UnfinishedKind::OverdueRecord,
        }
    }

    fn unfinished(&self, since: Timestamp) -> Unfinished {
        Unfinished {
            what: self.kind(),
            instance: self.notice.instance.clone(),
            cluster: self.node.as_ref().map(|node| node.cluster.clone()),
            node: self.node.as_ref().map(|node| node.node.name.clone()),
            since,
        }
    }
}

async fn since_when(
    groups: &dyn Groups,
    group: &GroupName,
) -> Result<BTreeMap<InstanceId, Timestamp>, Fault> {
    timeout("reading since when instances leave their group", groups.terminations(group)).await
}

fn overdue_record(instance: &InstanceId, account_region: AccountRegion, now: Timestamp) -> Notice {
    Notice {
        id: NoticeId::new(format!("record/{instance}/{}", now.as_millis())),
        instance: instance.clone(),
        at: now,
        account_region,
        kind: NoticeKind::Record,
    }
}

/// The notice of a hook that holds an instance. Nothing where its event is likely to be on its way, and where a launch
/// hook may be what holds it: `Warmed:Pending:Wait` is the state of both, and only an activity tells them apart.
fn waiting_hook(
    instance: &InstanceId,
    member: &Membership,
    hook: &HookSpec,
    began: Option<Timestamp>,
    place: &AccountRegion,
    now: Timestamp,
) -> Option<Notice> {
    let passage = Passage::held_in(&member.state)?;
    let at = match began {
        Some(began) if now.since(began) < FRESH => return None,
        Some(began) => began,
        None if passage == Passage::ToWarmPool => return None,
        // Nobody knows how much of its timeout is left: one timeout ago means that a heartbeat goes out at once.
        None => now - hook.heartbeat_timeout,
    };
    let name = format!("{}/{}", member.group, hook.name);
    let key = HookKey { group: member.group.clone(), name: hook.name.clone(), token: None };
    Some(Notice {
        // Names may have 255 characters each, an id as much in all.
        id: NoticeId::new(format!("hook/{instance}/{:08x}/{}", hash(&name), at.as_millis())),
        instance: instance.clone(),
        at,
        account_region: place.clone(),
        kind: NoticeKind::Hook(Hook { key, cluster_hint: hook.cluster_hint.clone(), passage }),
    })
}

/// A record that no job can end: it cannot be read and its time is over, or a job has left the node isolated.
fn unfinished_record(node: &ClusterNode, now: Timestamp) -> Option<Unfinished> {
    let record = node.node.record.as_ref()?;
    let (what, since) = match record.foreign {
        Some(foreign) => {
            let until = foreign.until.unwrap_or(record.since);
            (UnfinishedKind::UnreadableRecord, Some(until).filter(|until| now >= *until + STUCK)?)
        }
        None => {
            let mut ends = record.entries.values().filter_map(|entry| entry.ended.as_ref());
            (UnfinishedKind::LeftIsolated, ends.find(|end| end.outcome == Ended::LeftIsolated)?.at)
        }
    };
    Some(Unfinished {
        what,
        instance: node.instance.clone(),
        cluster: Some(node.cluster.clone()),
        node: Some(node.node.name.clone()),
        since,
    })
}
