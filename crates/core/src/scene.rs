//! What a stage looks at: the arguments of `step`, and what follows from them once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::case::Case;
use crate::deadline::Deadline;
use crate::eviction;
use crate::{
    BalancerKind, Hook, Node, Notice, NoticeId, NoticeKind, Reason, Record, Seen, SpotAction, Target,
    TargetHealth, TargetKey, Timestamp,
};

/// Everything a stage looks at: the arguments of `step`, and what follows from them once.
#[derive(Debug)]
pub(crate) struct Scene<'a> {
    pub(crate) case: Case<'a>,
    /// Notices that entitle us to everything on their path.
    pub(crate) acting: Vec<&'a Notice>,
    /// Hooks that AWS took our answer for, and that nothing has confirmed yet.
    pub(crate) confirming: Vec<&'a Notice>,
    /// Notices that want the node isolated, the acting ones among them.
    pub(crate) claiming: Vec<&'a Notice>,
    pub(crate) deadline: Option<Deadline>,
    /// The instance has ended already.
    pub(crate) ended: bool,
}

/// Spot goes on without the exclude label when the node could not be written for this long: a third of
/// a second would do on an idle cluster, and 115 s are left.
const SPOT_ISOLATION: Duration = Duration::from_secs(5);

impl<'a> Scene<'a> {
    /// When to read again what no watch tells.
    pub(crate) fn recheck(&self) -> Timestamp {
        self.case.now + self.case.policy.recheck
    }

    /// The acting hooks that end, move or reboot the instance.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = (&'a Notice, &'a Hook)> {
        hooks_of(&self.acting)
    }

    /// Those whose answer waits to be confirmed.
    pub(crate) fn answered_hooks(&self) -> impl Iterator<Item = &'a Hook> {
        hooks_of(&self.confirming).map(|(_, hook)| hook)
    }

    pub(crate) fn hook(&self) -> Option<&'a Hook> {
        self.hooks().map(|(_, hook)| hook).next()
    }

    /// The acting spot notice that ends or stops the instance.
    pub(crate) fn spot(&self) -> Option<&'a Notice> {
        self.acting
            .iter()
            .copied()
            .find(|notice| matches!(notice.kind, NoticeKind::Spot(SpotAction::Terminate | SpotAction::Stop)))
    }

    pub(crate) fn hibernates(&self) -> bool {
        self.acting.iter().any(|notice| notice.kind == NoticeKind::Spot(SpotAction::Hibernate))
    }

    /// A stopped or hibernated instance starts again with the node as it was.
    pub(crate) fn comes_back(&self) -> bool {
        self.hook().is_none() && self.acting.iter().all(|n| n.kind != NoticeKind::Spot(SpotAction::Terminate))
    }

    pub(crate) fn is_isolated(&self, node: &Node) -> bool {
        // A record that cannot be read stays as it is, so our notices never show in it.
        let claims =
            |record: &Record| record.is_foreign() || self.claims().all(|id| record.notices.contains(id));
        node.cordoned && node.record.as_ref().is_some_and(claims) && (self.spot().is_none() || node.excluded)
    }

    fn claims(&self) -> impl Iterator<Item = &'a NoticeId> {
        self.claiming.iter().map(|notice| &notice.id)
    }

    /// The node's record with this job's notices in it.
    pub(crate) fn record(&self, node: &Node) -> Record {
        let mut record = node.record.clone().unwrap_or_else(|| Record::new(self.case.now));
        record.notices.extend(self.claims().cloned());
        record
    }

    /// Whether AWS may be told to end traffic, and if so, whether the node carries our writes. Spot
    /// waits neither for a second try nor longer than [`SPOT_ISOLATION`].
    pub(crate) fn ready_for_writes(&self) -> Option<bool> {
        let memory = &self.case.job.memory;
        let spot = self.spot().is_some_and(|notice| {
            // Where the node is not even known there is nothing to try.
            let tried = match self.case.seen.node {
                Seen::Unknown => notice.at,
                Seen::Known(_) | Seen::Gone => memory.isolation_tried.unwrap_or(self.case.now),
            };
            memory.isolation_failed || self.case.now > tried + SPOT_ISOLATION
        });
        match &self.case.seen.node {
            Seen::Gone => Some(false),
            Seen::Known(node) if self.is_isolated(node) => Some(true),
            Seen::Known(_) | Seen::Unknown => spot.then_some(false),
        }
    }

    /// The targets of the instance, each with its group's deregistration delay.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (TargetKey, &'a Target, Duration)> {
        let groups = self.case.seen.target_groups.known().map_or(&[][..], Vec::as_slice);
        groups.iter().flat_map(|group| {
            let delay = group.deregistration_delay;
            group.targets_of(&self.case.job.instance).map(move |(key, target)| (key, target, delay))
        })
    }

    /// The targets of the instance that are on the lists of their target groups.
    pub(crate) fn registered(&self) -> BTreeSet<TargetKey> {
        self.targets().filter(|(_, target, _)| is_registered(target)).map(|(key, ..)| key).collect()
    }

    /// Until when the balancers may still send new requests, if any does.
    pub(crate) fn traffic_until(&self) -> Option<Timestamp> {
        let groups = self.case.seen.target_groups.known()?;
        groups
            .iter()
            .flat_map(|group| {
                let span = match group.balancer {
                    BalancerKind::Application => self.case.policy.propagation.application,
                    BalancerKind::Network => self.case.policy.propagation.network,
                };
                group.targets_of(&self.case.job.instance).map(move |(key, target)| (key, target, span))
            })
            .filter(|(_, target, _)| !matches!(target.health, TargetHealth::Unused { .. }))
            .map(|(key, _, span)| {
                self.case.job.memory.draining_since.get(&key).copied().unwrap_or(self.case.now) + span
            })
            .max()
    }

    /// No new request reaches the node any more: Deregister is true, and behind a Network Load Balancer
    /// the target is `unused`.
    pub(crate) fn is_quiet(&self, deregistered: bool) -> bool {
        if self.case.seen.unread_target_groups > 0 {
            return false;
        }
        let Some(groups) = self.case.seen.target_groups.known() else { return deregistered };
        let open = |health| matches!(health, TargetHealth::Draining) || health == TargetHealth::Healthy;
        deregistered
            && !groups.iter().any(|group| {
                group.balancer == BalancerKind::Network
                    && group.targets_of(&self.case.job.instance).any(|(_, target)| open(target.health))
            })
    }

    /// AWS has refused the newest calls about this hook.
    pub(crate) fn is_refused(&self, hook: &Hook) -> bool {
        self.case.job.memory.hook(&hook.key).refused.is_some()
    }

    pub(crate) fn given_up(&self) -> Reason {
        let pods = self
            .case
            .seen
            .pods
            .known()
            .map_or(0, |pods| eviction::evictable(pods, self.case.job, self.case.policy).len());
        Reason::DeadlineReached { pods, targets: self.registered().len() }
    }
}

fn hooks_of<'a>(notices: &[&'a Notice]) -> impl Iterator<Item = (&'a Notice, &'a Hook)> {
    notices.iter().filter_map(|notice| match &notice.kind {
        NoticeKind::Hook(hook) => hook.passage.wait_state().map(|_| (*notice, hook)),
        NoticeKind::Spot(_) | NoticeKind::Rebalance => None,
    })
}

/// Still on the list of its target group.
pub(crate) fn is_registered(target: &Target) -> bool {
    !matches!(target.health, TargetHealth::Draining | TargetHealth::Unused { registered: false })
}
