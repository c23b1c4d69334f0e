//! Hooks of ours that hold an instance while nobody works on them.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{
    AccountRegion, FRESH, Group, GroupName, Hook, HookKey, HookSpec, InstanceId, Membership, Notice,
    NoticeId, NoticeKind, Passage, Record, Seen, Timestamp, hook_is_ours,
};

use super::found::{Found, What};
use super::{ClusterNode, Findings, Look};
use crate::ports::{Fault, Groups};
use crate::retry::{hash, timeout, timeout_of};

/// For all pages of DescribeAutoScalingGroups: 2,000 groups are twenty, at up to two seconds each, and half as much again.
const LISTING: Duration = Duration::from_secs(60);

impl Look<'_> {
    /// Hooks of ours that hold an instance, and of which neither a job here nor its node's record knows. A group that
    /// cannot be read keeps no other.
    pub(super) async fn waiting_hooks(&self, place: &AccountRegion) -> Findings {
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
            if Passage::held_in(&member.state).is_some() {
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
                // A job may be at work for another hook, or a recommendation, while the event of this one is lost (seed 9034).
                let known = (name.clone(), hook.name.clone());
                let is_known = self.at_work.get(instance).is_some_and(|hooks| hooks.contains(&known));
                if !is_known && !record.is_some_and(looks_after) {
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

    /// The node of an instance that a hook of ours holds, where it has one. Of two that name it the one with a record is
    /// taken, and without one the hook has to be kept open for somebody to look (seed 37665). Nothing where a cluster that
    /// may have it is out of sync; and without a node where no hook of the group names a cluster of ours: by its name alone
    /// it may be a group of another installation, whose clusters we do not see.
    fn node_of(&self, instance: &InstanceId, group_names_us: bool) -> Option<Option<ClusterNode>> {
        match self.sweep.clusters.node(instance) {
            Seen::Unknown => {
                let cluster = self.sweep.clusters.torn(instance)?;
                let recorded = cluster.recorded().into_iter().find(|(named, _)| named == instance);
                let name = cluster.name().clone();
                Some(recorded.map(|(instance, node)| ClusterNode { cluster: name, instance, node }))
            }
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
}
