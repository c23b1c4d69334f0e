//! What should have been received and was not: a hook of ours that holds an instance while nobody works on it, and a
//! record on a node that nobody looks after. It is found by looking, and put onto the queue as a message of our own, so
//! that a job begins as it does for an event of AWS, at whichever worker receives it.
//!
//! Two workers may find the same. On one of them that is one job, on two they do the same idempotent work.

mod found;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use offramp_core::{
    AccountRegion, ClusterName, Ended, Entry, FRESH, Group, GroupName, Hook, HookKey, HookSpec, InstanceId,
    Membership, Node, Notice, NoticeId, NoticeKind, Observation, Passage, Policy, Record, Seen, Timestamp,
    hook_is_ours,
};
use tokio::sync::watch;

use crate::Handle;
use crate::batch::Calls;
use crate::clock::Clock;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::labels::state_name;
use crate::place;
use crate::ports::{Cluster, Fault, Groups, Sessions};
use crate::retry::{hash, timeout, timeout_of};
use crate::routing::Clusters;
use crate::unfinished::{Unfinished, UnfinishedKind};

pub(crate) use found::Outbox;
use found::{Found, What};

/// By then the watches are in sync, and the messages that a killed worker held have come back, 30 s after its last
/// extension: what they speak of is at work again.
const FIRST: Duration = Duration::from_secs(60);
/// A sweep is one DescribeAutoScalingGroups for each hundred groups, and one DescribeAutoScalingInstances for each fifty
/// nodes with a record. A hook with the common HeartbeatTimeout of 300 s or more is found before it runs out.
const EVERY: Duration = Duration::from_secs(300);
/// So many nodes with a record are looked up at a time: five calls of fifty. A fleet where thousands are left isolated
/// takes nothing from the jobs.
const LOOKED_UP: usize = 250;
/// For everything in one account and Region: a listing, and as much again for the groups that have to be looked into.
const PLACE: Duration = Duration::from_secs(120);
/// For all pages of DescribeAutoScalingGroups: 2,000 groups are twenty, at up to two seconds each, and half as much again.
const LISTING: Duration = Duration::from_secs(60);

/// Looks for what was not received.
pub(crate) struct Sweep {
    pub(crate) sessions: Arc<dyn Sessions>,
    pub(crate) calls: Calls,
    pub(crate) clusters: Clusters,
    pub(crate) policy: Policy,
    /// Of the queue.
    pub(crate) account_region: AccountRegion,
    pub(crate) handle: Handle,
    pub(crate) outbox: Outbox,
    pub(crate) unfinished: watch::Sender<Vec<Unfinished>>,
    pub(crate) clock: Clock,
    pub(crate) journal: Journal,
}

/// A node, and where it is.
#[derive(Clone)]
struct ClusterNode {
    cluster: ClusterName,
    instance: InstanceId,
    node: Node,
}

/// One look at everything.
struct Look<'a> {
    sweep: &'a Sweep,
    now: Timestamp,
    /// Instances that a job here works on.
    at_work: BTreeSet<InstanceId>,
}

/// What one look brought, and what could not be read.
#[derive(Default)]
struct Findings {
    found: Vec<Found>,
    faults: Vec<Fault>,
}

impl Findings {
    fn extend(&mut self, more: Self) {
        self.found.extend(more.found);
        self.faults.extend(more.faults);
    }
}

impl Sweep {
    /// Looks again and again.
    pub(crate) async fn run(mut self) {
        let mut next = self.clock.now() + FIRST;
        loop {
            self.clock.sleep_until(next).await;
            self.sweep().await;
            next = self.clock.now() + EVERY;
        }
    }

    async fn sweep(&mut self) {
        let now = self.clock.now();
        let at_work = self.handle.jobs().await.into_iter().map(|job| job.instance).collect();
        let look = Look { sweep: self, now, at_work };
        let recorded = look.recorded();
        let mut unfinished: Vec<Unfinished> =
            recorded.iter().filter_map(|node| look.unfinished_record(node)).collect();
        let mut by_place: BTreeMap<AccountRegion, Vec<ClusterNode>> =
            BTreeMap::from([(self.account_region.clone(), Vec::new())]);
        for node in recorded {
            by_place.entry(look.place_of(&node)).or_default().push(node);
        }
        // Side by side: an account that does not answer keeps the others for as long as one place may take, not longer.
        let findings = join_all(by_place.into_iter().map(|(place, nodes)| look.findings(place, nodes))).await;
        let (mut found, mut unread) = (Vec::new(), BTreeSet::new());
        for (place, findings) in findings {
            found.extend(findings.found);
            if !findings.faults.is_empty() {
                unread.insert(place);
            }
            for fault in findings.faults {
                self.journal.record(Fact::SweepFaulted { fault });
            }
        }
        let at_work = look.at_work;
        // What a message is about to end is not told.
        unfinished.retain(|left| !found.iter().any(|one| one.notice.instance == left.instance));
        unfinished.extend(self.outbox.send_new(found, &unread, now).await);
        self.publish(unfinished, &unread, &at_work);
    }

    /// What is in a place or in a cluster that could not be read is there as before.
    fn publish(
        &self,
        mut unfinished: Vec<Unfinished>,
        unread: &BTreeSet<AccountRegion>,
        at_work: &BTreeSet<InstanceId>,
    ) {
        let away: BTreeSet<&ClusterName> = self
            .clusters
            .0
            .iter()
            .filter(|cluster| !cluster.in_sync())
            .map(|cluster| cluster.name())
            .collect();
        let mut known = self.unfinished.borrow().clone();
        for one in &unfinished {
            if !known.iter().any(|old| old.is_same(one)) {
                self.journal.record(Fact::Unfinished { unfinished: one.clone() });
            }
        }
        known.retain(|old| {
            let is_unread = unread.contains(&old.account_region)
                || old.cluster.as_ref().is_some_and(|cluster| away.contains(cluster));
            is_unread && !at_work.contains(&old.instance) && !unfinished.iter().any(|one| one.is_same(old))
        });
        unfinished.extend(known);
        self.journal.metrics().swept(unread.is_empty() && away.is_empty(), &unfinished);
        self.unfinished.send_replace(unfinished);
    }
}

impl Look<'_> {
    /// Every node with a record that no job here works on, of the clusters that are in sync.
    fn recorded(&self) -> Vec<ClusterNode> {
        let of = |cluster: &Arc<dyn Cluster>| {
            let name = cluster.name().clone();
            let nodes = cluster.recorded().into_iter();
            nodes.map(move |(instance, node)| ClusterNode { cluster: name.clone(), instance, node })
        };
        let all = self.sweep.clusters.0.iter().flat_map(of);
        all.filter(|node| !self.at_work.contains(&node.instance)).collect()
    }

    /// Where calls about the instance go: as an entry of ours says, where one does.
    fn place_of(&self, recorded: &ClusterNode) -> AccountRegion {
        let policy = &self.sweep.policy;
        let entries = recorded.node.record.iter().flat_map(|record| record.own_entries(policy));
        let mut places = entries.map(|entry| &entry.account_region);
        let named = places.find(|place| place.region.is_some()).cloned().unwrap_or_default();
        place::filled(named, &self.sweep.account_region)
    }

    /// In one account and Region.
    async fn findings(&self, place: AccountRegion, recorded: Vec<ClusterNode>) -> (AccountRegion, Findings) {
        let look = async {
            let (mut findings, hooks) =
                futures::join!(self.overdue_records(&place, recorded), self.waiting_hooks(&place));
            findings.extend(hooks);
            Ok(findings)
        };
        let findings = timeout_of(PLACE, "everything in one account and Region", look).await;
        let findings = findings.unwrap_or_else(|fault| Findings { found: Vec::new(), faults: vec![fault] });
        (place, findings)
    }

    /// Where the first answers fail the others are not asked for: the next sweep is.
    async fn overdue_records(&self, place: &AccountRegion, mut recorded: Vec<ClusterNode>) -> Findings {
        let may_be_due = |node: &ClusterNode| {
            let record = node.node.record.as_ref();
            record.is_some_and(|record| record.may_be_due(&self.sweep.policy, self.now))
        };
        recorded.retain(may_be_due);
        let mut findings = Findings::default();
        for nodes in recorded.chunks(LOOKED_UP) {
            let memberships = &self.sweep.calls.memberships;
            let reads =
                nodes.iter().map(|node| memberships.ask_since(place, node.instance.clone(), self.now));
            for (node, read) in nodes.iter().zip(join_all(reads).await) {
                match read {
                    Ok(member) => findings.found.extend(self.overdue_record(node, place, member)),
                    Err(fault) if findings.faults.is_empty() => findings.faults.push(fault),
                    Err(_) => {}
                }
            }
            if !findings.faults.is_empty() {
                break;
            }
        }
        findings
    }

    fn overdue_record(
        &self,
        node: &ClusterNode,
        place: &AccountRegion,
        member: Option<Membership>,
    ) -> Option<Found> {
        let state = member.as_ref().map(|member| state_name(&member.state).to_owned());
        let membership = member.map_or(Seen::Gone, Seen::Known);
        let seen = Observation { node: Seen::Known(node.node.clone()), membership, ..Observation::default() };
        let record = node.node.record.as_ref()?;
        let newest = record.own_entries(&self.sweep.policy).map(newest_time).max();
        record.is_due(&seen, &self.sweep.policy, self.now).then(|| Found {
            what: What::Record(node.instance.clone(), state, newest),
            notice: Notice {
                id: NoticeId::new(format!("record/{}/{}", node.instance, self.now.as_millis())),
                instance: node.instance.clone(),
                at: self.now,
                account_region: place.clone(),
                kind: NoticeKind::Record,
            },
            node: Some(node.clone()),
            is_sure: true,
        })
    }

    /// Hooks of ours that hold an instance, and of which neither a job here nor its node's record knows. A group that
    /// cannot be read keeps no other.
    async fn waiting_hooks(&self, place: &AccountRegion) -> Findings {
        let mut findings = Findings::default();
        let members = async {
            let groups = self.sweep.sessions.groups(place)?;
            let read = groups.out_of_service();
            let members = timeout_of(LISTING, "looking for instances that a hook holds", read).await?;
            Ok((groups, members))
        };
        let (groups, members) = match members.await {
            Ok(read) => read,
            Err(fault) => {
                findings.faults.push(fault);
                return findings;
            }
        };
        let mut held: BTreeMap<GroupName, Vec<(InstanceId, Membership)>> = BTreeMap::new();
        for (instance, member) in members {
            if Passage::held_in(&member.state).is_some() && !self.at_work.contains(&instance) {
                held.entry(member.group.clone()).or_default().push((instance, member));
            }
        }
        for (name, members) in held {
            match self.waiting_in(&*groups, &name, place, members).await {
                Ok(more) => findings.extend(more),
                Err(fault) => findings.faults.push(fault),
            }
        }
        findings
    }

    async fn waiting_in(
        &self,
        groups: &dyn Groups,
        name: &GroupName,
        place: &AccountRegion,
        members: Vec<(InstanceId, Membership)>,
    ) -> Result<Findings, Fault> {
        let Some(group) = self.sweep.calls.groups.ask(place, name.clone()).await? else {
            return Ok(Findings::default());
        };
        let (hooks, is_named) = (self.hooks_of(&group), self.names_us(&group));
        // Without a node nobody knows which of the group's hooks holds the instance, where not all of them are ours.
        let is_sure = hooks.len() == group.terminate_hooks.len();
        let mut unattended = Vec::new();
        for (instance, member) in &members {
            let Some(node) = self.node_of(instance, is_named) else { continue };
            let record = node.as_ref().and_then(|node| node.node.record.as_ref());
            for hook in &hooks {
                let looks_after =
                    |record: &Record| record.looks_after(name, &hook.name, &member.state, self.now);
                if !record.is_some_and(looks_after) {
                    unattended.push((instance, member, *hook, node.clone()));
                }
            }
        }
        if unattended.is_empty() {
            return Ok(Findings::default());
        }
        // Without an answer it is not known since when, and nothing more.
        let read = timeout("reading since when instances leave their group", groups.terminations(name)).await;
        let (since, faults) =
            read.map_or_else(|fault| (BTreeMap::new(), vec![fault]), |since| (since, Vec::new()));
        let found = unattended.into_iter().filter_map(|(instance, member, hook, node)| {
            let began = since.get(instance).copied();
            let notice = self.waiting_hook(instance, member, hook, began, place)?;
            let what = What::Hook(instance.clone(), name.clone(), hook.name.clone(), began);
            Some(Found { what, notice, is_sure: is_sure || node.is_some(), node })
        });
        Ok(Findings { found: found.collect(), faults })
    }

    fn hooks_of<'a>(&self, group: &'a Group) -> Vec<&'a HookSpec> {
        let is_ours =
            |hook: &&HookSpec| hook_is_ours(&hook.name, hook.cluster_hint.as_ref(), &self.sweep.policy);
        group.terminate_hooks.iter().filter(is_ours).collect()
    }

    /// A hook of the group names a cluster of ours.
    fn names_us(&self, group: &Group) -> bool {
        let mut hints = group.terminate_hooks.iter().filter_map(|hook| hook.cluster_hint.as_ref());
        hints.any(|hint| self.sweep.policy.clusters.contains(hint))
    }

    /// The node of an instance that a hook of ours holds, where it has one. Nothing where a cluster that may have it is
    /// out of sync; and without a node where no hook of the group names a cluster of ours: by its name alone it may be a
    /// group of another installation, whose clusters we do not see.
    fn node_of(&self, instance: &InstanceId, group_names_us: bool) -> Option<Option<ClusterNode>> {
        match self.sweep.clusters.node(instance) {
            Seen::Unknown => None,
            Seen::Gone => group_names_us.then_some(None),
            Seen::Known((cluster, node)) => {
                let (cluster, instance) = (cluster.name().clone(), instance.clone());
                Some(Some(ClusterNode { cluster, instance, node }))
            }
        }
    }

    /// The notice of a hook that holds an instance. Nothing where its event is likely to be on its way.
    fn waiting_hook(
        &self,
        instance: &InstanceId,
        member: &Membership,
        hook: &HookSpec,
        began: Option<Timestamp>,
        place: &AccountRegion,
    ) -> Option<Notice> {
        if began.is_some_and(|began| self.now.since(began) < FRESH) {
            return None;
        }
        let passage = Passage::held_in(&member.state)?;
        // Nobody has begun to drain it: half of the limit is left for that, however long ago it began.
        let latest = self.now - self.sweep.policy.hook_limit / 2;
        let key = HookKey { group: member.group.clone(), name: hook.name.clone(), token: None };
        // Names may have 255 characters each, an id as much in all.
        let (name, since) = (format!("{}/{}", key.group, key.name), began.map_or(0, Timestamp::as_millis));
        Some(Notice {
            id: NoticeId::new(format!("hook/{instance}/{:08x}/{since}", hash(&name))),
            instance: instance.clone(),
            at: began.map_or(self.now, |began| began.max(latest)),
            account_region: place.clone(),
            kind: NoticeKind::Hook(Hook { key, cluster_hint: hook.cluster_hint.clone(), passage }),
        })
    }

    /// A record that no job can end: it cannot be read and its time is over, a job has left the node isolated, or it is
    /// another installation's, which does not look after it.
    fn unfinished_record(&self, node: &ClusterNode) -> Option<Unfinished> {
        let (policy, now) = (&self.sweep.policy, self.now);
        let record = node.node.record.as_ref()?;
        let (what, since) = match record.foreign {
            Some(foreign) => {
                let until = foreign.until.unwrap_or(record.since);
                (UnfinishedKind::UnreadableRecord, Some(until).filter(|until| now >= *until + found::STUCK)?)
            }
            None => {
                let mut ends = record.own_entries(policy).filter_map(|entry| entry.ended.as_ref());
                let left = ends.find(|end| end.outcome == Ended::LeftIsolated);
                let left = left.map(|end| (UnfinishedKind::LeftIsolated, end.at));
                left.or_else(|| {
                    Some((UnfinishedKind::AbandonedRecord, record.abandoned_since(policy, now)?))
                })?
            }
        };
        Some(Unfinished {
            what,
            instance: node.instance.clone(),
            account_region: self.place_of(node),
            cluster: Some(node.cluster.clone()),
            node: Some(node.node.name.clone()),
            since,
        })
    }
}

/// When something was last written into an entry.
fn newest_time(entry: &Entry) -> Timestamp {
    entry.ended.as_ref().map_or(entry.at, |end| end.at)
}
