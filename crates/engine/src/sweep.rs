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
    AccountRegion, ClusterName, Ended, FRESH, Group, GroupName, Hook, HookKey, HookSpec, InstanceId,
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
use crate::retry::{hash, timeout};
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
        let left: Vec<Unfinished> = recorded.iter().filter_map(|node| unfinished_record(node, now)).collect();
        let mut places: BTreeSet<AccountRegion> = recorded.iter().map(|node| look.place_of(node)).collect();
        places.insert(self.account_region.clone());
        let hooks = join_all(places.iter().map(|place| look.waiting_hooks(place)));
        let (records, hooks) = futures::join!(look.overdue_records(recorded), hooks);
        let mut findings = records;
        for one in hooks {
            findings.found.extend(one.found);
            findings.faults.extend(one.faults);
        }
        let whole = findings.faults.is_empty() && self.clusters.0.iter().all(|cluster| cluster.in_sync());
        for fault in findings.faults {
            self.journal.record(Fact::SweepFaulted { fault });
        }
        let unfinished = [left, self.outbox.send_new(findings.found, now).await].concat();
        self.journal.metrics().swept(whole, &unfinished);
        self.publish(unfinished);
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

    /// Where calls about the instance go: as an entry says, where one does.
    fn place_of(&self, recorded: &ClusterNode) -> AccountRegion {
        let entries = recorded.node.record.iter().flat_map(|record| record.entries.values());
        let mut places = entries.map(|entry| &entry.account_region);
        let named = places.find(|place| place.region.is_some()).cloned().unwrap_or_default();
        place::filled(named, &self.sweep.account_region)
    }

    async fn overdue_records(&self, recorded: Vec<ClusterNode>) -> Findings {
        let mut findings = Findings::default();
        for nodes in recorded.chunks(LOOKED_UP) {
            let reads = nodes.iter().map(|node| async move {
                let place = self.place_of(node);
                let memberships = &self.sweep.calls.memberships;
                let read = memberships.ask_since(&place, node.instance.clone(), self.now).await;
                (node, place, read)
            });
            for (node, place, read) in join_all(reads).await {
                match read {
                    Ok(member) => findings.found.extend(self.overdue_record(node, place, member)),
                    Err(fault) => findings.faults.push(fault),
                }
            }
        }
        findings
    }

    fn overdue_record(
        &self,
        node: &ClusterNode,
        account_region: AccountRegion,
        member: Option<Membership>,
    ) -> Option<Found> {
        let state = member.as_ref().map(|member| state_name(&member.state).to_owned());
        let membership = member.map_or(Seen::Gone, Seen::Known);
        let seen = Observation { node: Seen::Known(node.node.clone()), membership, ..Observation::default() };
        let record = node.node.record.as_ref()?;
        record.is_due(&seen, &self.sweep.policy, self.now).then(|| Found {
            what: What::Record(node.instance.clone(), state),
            notice: Notice {
                id: NoticeId::new(format!("record/{}/{}", node.instance, self.now.as_millis())),
                instance: node.instance.clone(),
                at: self.now,
                account_region,
                kind: NoticeKind::Record,
            },
            node: Some(node.clone()),
        })
    }

    /// Hooks of ours that hold an instance, and of which neither a job here nor its node's record knows. A group that
    /// cannot be read keeps no other.
    async fn waiting_hooks(&self, place: &AccountRegion) -> Findings {
        let mut findings = Findings::default();
        let members = async {
            let groups = self.sweep.sessions.groups(place)?;
            let read = timeout("looking for instances that a hook holds", groups.out_of_service()).await;
            Ok((groups, read?))
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
                Ok(found) => findings.found.extend(found),
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
    ) -> Result<Vec<Found>, Fault> {
        let Some(group) = self.sweep.calls.groups.ask(place, name.clone()).await? else {
            return Ok(Vec::new());
        };
        let hooks = self.hooks_of(&group);
        if hooks.is_empty() {
            return Ok(Vec::new());
        }
        let read = groups.terminations(name);
        let since = timeout("reading since when instances leave their group", read).await?;
        let mut found = Vec::new();
        for (instance, member) in &members {
            let began = since.get(instance).copied();
            found.extend(hooks.iter().filter_map(|hook| {
                let node = self.unattended(instance, member, hook)?;
                let notice = waiting_hook(instance, member, hook, began, place, self.now)?;
                let what = What::Hook(instance.clone(), name.clone(), hook.name.clone(), began);
                Some(Found { what, notice, node })
            }));
        }
        Ok(found)
    }

    fn hooks_of<'a>(&self, group: &'a Group) -> Vec<&'a HookSpec> {
        let is_ours =
            |hook: &&HookSpec| hook_is_ours(&hook.name, hook.cluster_hint.as_ref(), &self.sweep.policy);
        group.terminate_hooks.iter().filter(is_ours).collect()
    }

    /// The node of a hook that nobody looks after, where there is one. Nothing where the node's record names the hook, or
    /// where a cluster that may have the node is out of sync.
    fn unattended(
        &self,
        instance: &InstanceId,
        member: &Membership,
        hook: &HookSpec,
    ) -> Option<Option<ClusterNode>> {
        let (cluster, node) = match self.sweep.clusters.node(instance) {
            Seen::Unknown => return None,
            Seen::Gone => return Some(None),
            Seen::Known(found) => found,
        };
        let looks_after =
            |record: &Record| record.looks_after(&member.group, &hook.name, &member.state, self.now);
        let named = node.record.as_ref().is_some_and(looks_after);
        let node = ClusterNode { cluster: cluster.name().clone(), instance: instance.clone(), node };
        (!named).then_some(Some(node))
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
            (UnfinishedKind::UnreadableRecord, Some(until).filter(|until| now >= *until + found::STUCK)?)
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
