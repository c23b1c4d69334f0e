//! Records on nodes: which a job should look after, and which no job can end.

use std::sync::Arc;

use futures::future::join_all;
use offramp_core::{
    AccountRegion, Ended, Entry, Membership, Notice, NoticeId, NoticeKind, Observation, Seen, Timestamp,
};

use super::found::{Found, STUCK, What};
use super::{ClusterNode, Findings, Look};
use crate::labels::state_name;
use crate::place;
use crate::ports::Cluster;
use crate::unfinished::{Unfinished, UnfinishedKind};

/// So many nodes with a record are looked up at a time: five calls of fifty. A fleet where thousands are left isolated
/// takes nothing from the jobs.
const LOOKED_UP: usize = 250;

impl Look<'_> {
    /// Every node with a record that no job here works on, of the clusters that are in sync.
    pub(super) fn recorded(&self) -> Vec<ClusterNode> {
        let of = |cluster: &Arc<dyn Cluster>| {
            let name = cluster.name().clone();
            let nodes = cluster.recorded().into_iter();
            nodes.map(move |(instance, node)| ClusterNode { cluster: name.clone(), instance, node })
        };
        let all = self.sweep.clusters.0.iter().flat_map(of);
        all.filter(|node| !self.at_work.contains_key(&node.instance)).collect()
    }

    /// Where calls about the instance go: as an entry of ours says, where one does.
    pub(super) fn place_of(&self, recorded: &ClusterNode) -> AccountRegion {
        let policy = &self.sweep.policy;
        let entries = recorded.node.record.iter().flat_map(|record| record.own_entries(policy));
        let mut places = entries.map(|entry| &entry.account_region);
        let named = places.find(|place| place.region.is_some()).cloned().unwrap_or_default();
        place::filled(named, &self.sweep.account_region)
    }

    /// Where the first answers fail the others are not asked for: the next sweep is.
    pub(super) async fn overdue_records(
        &self,
        place: &AccountRegion,
        mut recorded: Vec<ClusterNode>,
    ) -> Findings {
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
                    Ok(member) => findings.found.extend(self.overdue_record(node, place, member.value)),
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

    /// A record that no job can end: it cannot be read and its time is over, a job has left the node isolated, or it is
    /// another installation's, which does not look after it.
    pub(super) fn unfinished_record(&self, node: &ClusterNode) -> Option<Unfinished> {
        let (policy, now) = (&self.sweep.policy, self.now);
        let record = node.node.record.as_ref()?;
        let (what, since) = match record.foreign {
            Some(foreign) => {
                let until = foreign.until.unwrap_or(record.since);
                (UnfinishedKind::UnreadableRecord, Some(until).filter(|until| now >= *until + STUCK)?)
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
