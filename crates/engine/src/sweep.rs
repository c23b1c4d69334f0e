//! What should have been received and was not: a hook of ours that holds an instance while nobody works on it, and a
//! record on a node that nobody looks after. It is found by looking, and put onto the queue as a message of our own, so
//! that a job begins as it does for an event of AWS, at whichever worker receives it.
//!
//! Two workers may find the same. On one of them that is one job, on two they do the same idempotent work.

mod found;
mod hooks;
mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use offramp_core::{AccountRegion, ClusterName, GroupName, HookName, InstanceId, Node, Policy, Timestamp};
use tokio::sync::watch;

use crate::Handle;
use crate::calls::Calls;
use crate::clock::Clock;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::ports::{Fault, Sessions};
use crate::retry::timeout_of;
use crate::routing::Clusters;
use crate::unfinished::Unfinished;

use found::Found;
pub(crate) use found::Outbox;

/// By then the watches are in sync, and the messages that a killed worker held have come back, 30 s after its last
/// extension: what they speak of is at work again.
const FIRST: Duration = Duration::from_secs(60);
/// A sweep is one DescribeAutoScalingGroups for each hundred groups, and one DescribeAutoScalingInstances for each fifty
/// nodes with a record. A hook with the common HeartbeatTimeout of 300 s or more is found before it runs out.
const EVERY: Duration = Duration::from_secs(300);
/// For everything in one account and Region: a listing, and as much again for the groups that have to be looked into.
const PLACE: Duration = Duration::from_secs(120);

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

type AtWork = BTreeMap<InstanceId, BTreeSet<(GroupName, HookName)>>;

/// One look at everything.
struct Look<'a> {
    sweep: &'a Sweep,
    now: Timestamp,
    /// What jobs here work on, with the hooks that they know.
    at_work: AtWork,
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
        let at_work = self.handle.jobs().await.into_iter().map(|job| (job.instance, job.hooks)).collect();
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
        unfinished.retain(|left| !found.iter().any(|one| *one.what.instance() == left.instance));
        unfinished.extend(self.outbox.send_new(found, &unread, now).await);
        self.publish(unfinished, &unread, &at_work);
    }

    /// What is in a place or in a cluster that could not be read is there as before.
    fn publish(&self, mut unfinished: Vec<Unfinished>, unread: &BTreeSet<AccountRegion>, at_work: &AtWork) {
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
            is_unread
                && !at_work.contains_key(&old.instance)
                && !unfinished.iter().any(|one| one.is_same(old))
        });
        unfinished.extend(known);
        self.journal.metrics().swept(unread.is_empty() && away.is_empty(), &unfinished);
        self.unfinished.send_replace(unfinished);
    }
}

impl Look<'_> {
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
}
