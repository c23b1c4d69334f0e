//! What a stage looks at: the facts, the claims of the job, and what follows from them once.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::*;

/// Everything a stage looks at.
#[derive(Debug)]
pub(crate) struct Case<'a> {
    pub(crate) facts: Facts<'a>,
    /// One for each notice, in their order.
    pub(crate) claims: Vec<Claim<'a>>,
    /// What the acting claims demand together.
    pub(crate) demands: Demands,
    /// The tightest of the acting claims.
    pub(crate) deadline: Option<Deadline>,
    pub(crate) machine_ended: bool,
    /// What has to be done goes on without cordon, label and record.
    pub(crate) unwritable: bool,
}

/// Spot goes on without the exclude label when the node could not be written for this long: a third of
/// a second would do on an idle cluster, and 115 s are left.
const SPOT_ISOLATION: Duration = Duration::from_secs(5);

/// Before a deadline AWS is read once more: an answer takes ten seconds at most.
const LAST_READING: Duration = Duration::from_secs(10);

/// So long an API server says that it will not write the node, until a hook's removal goes on without: a webhook that is
/// rolled out is away for some seconds (kubernetes/kubectl#1568).
const REFUSED: Duration = Duration::from_secs(30);
/// So long the writes fail in any other way, while the watches work. Hooks have an hour.
const FAILED: Duration = Duration::from_secs(300);

/// So long a write that was taken is not seen, until a spot removal goes on without: watches were ten seconds late at the
/// most, and 105 s are left.
const UNSEEN_IN_A_HURRY: Duration = Duration::from_secs(15);
/// A person takes a cordon off once, or twice. Whoever does it three times is a controller, and goes on.
const REOPENED: u32 = 3;

impl<'a> Case<'a> {
    pub(crate) fn new(facts: Facts<'a>) -> Self {
        let claims: Vec<Claim<'a>> =
            facts.job.notices.iter().map(|notice| triggers::claim(notice, facts)).collect();
        let acting = || claims.iter().filter(|claim| claim.acts());
        let unwritable = is_unwritable(facts, acting().any(Claim::presses));
        Self {
            facts,
            unwritable,
            demands: acting().map(|claim| claim.demands).fold(Demands::default(), Demands::unite),
            deadline: Deadline::tightest(acting().filter_map(|claim| claim.until)),
            machine_ended: machine::has_ended(facts),
            claims,
        }
    }

    pub(crate) fn acting(&self) -> impl Iterator<Item = &Claim<'a>> {
        self.claims.iter().filter(|claim| claim.acts())
    }

    /// The acting hooks: they end, move or reboot the instance.
    pub(crate) fn hooks(&self) -> impl Iterator<Item = (&'a Notice, &'a Hook)> {
        self.acting().filter_map(|claim| Some((claim.notice, claim.hook()?)))
    }

    /// The hooks whose answer AWS took and that nothing has confirmed yet.
    pub(crate) fn answered_hooks(&self) -> impl Iterator<Item = &'a Hook> {
        let confirming = self.claims.iter().filter(|claim| claim.entitlement == Entitlement::Confirms);
        confirming.filter_map(Claim::hook)
    }

    /// Why what was done is undone, when no claim is left: the first reason counts.
    pub(crate) fn undo_reason(&self) -> UndoReason {
        let reason = |claim: &Claim<'_>| {
            if let Entitlement::Undo(reason) = claim.entitlement { Some(reason) } else { None }
        };
        self.claims.iter().find_map(reason).unwrap_or(UndoReason::NotOurs)
    }

    /// The claim that waits neither for a second try to isolate nor longer than [`SPOT_ISOLATION`].
    fn pressing(&self) -> Option<&Claim<'a>> {
        self.acting().find(|claim| claim.presses())
    }

    pub(crate) fn is_isolated(&self, node: &Node) -> bool {
        let policy = self.facts.policy;
        let holds = |record: &Record| self.isolating().all(|notice| record.holds(notice, policy));
        let labelled = self.demands.isolate == Isolation::Cordon || node.excluded;
        node.cordoned && node.record.as_ref().is_some_and(holds) && labelled && !self.is_released(node)
    }

    /// No new pod comes, and the record says for which of this job's acting claims. A notice that joins waits for a PATCH
    /// and its watch; what is being drained does not.
    pub(crate) fn is_closed(&self, node: &Node) -> bool {
        let names =
            |record: &Record| self.acting().any(|claim| record.holds(claim.notice, self.facts.policy));
        node.cordoned && node.record.as_ref().is_some_and(names) && !self.is_released(node)
    }

    /// What a watch still shows is ours no more: we have just taken it away (seed 8568).
    fn is_released(&self, node: &Node) -> bool {
        let Facts { job: Job { memory, .. }, now, .. } = self.facts;
        let is_gone = node.record.is_some() && memory.sightings.recorded.is_none();
        is_gone && memory.written_over(&node.resource_version, now).is_some()
    }

    fn isolating(&self) -> impl Iterator<Item = &'a Notice> {
        self.claims.iter().filter(|claim| claim.isolates()).map(|claim| claim.notice)
    }

    /// Our record, or what it said before somebody took it off, as far as that is still there: a network plugin that is
    /// installed replaces all annotations (kube-ovn#376), and the cordon would be nobody's.
    pub(crate) fn own_record(&self, node: &Node) -> Option<Record> {
        let newest = node.record.as_ref().or(self.facts.job.memory.sightings.recorded.as_ref())?;
        let (cordoned, excluded) = (newest.cordoned && node.cordoned, newest.excluded && node.excluded);
        Some(Record { cordoned, excluded, ..newest.clone() })
    }

    /// The node's record with this job's claims in it.
    pub(crate) fn record(&self, node: &Node) -> Record {
        let mut record = self.own_record(node).unwrap_or_else(|| Record::new(self.facts.now));
        self.isolating().for_each(|notice| record.add(notice, self.facts.policy));
        record
    }

    /// The record without this job's claims. A hook that is not ours has never had one.
    pub(crate) fn others(&self, record: &Record) -> Record {
        use UndoReason::{NotOurs, NotServed};
        let mut others = record.clone();
        let is_foreign =
            |claim: &&Claim<'_>| matches!(claim.entitlement, Entitlement::Undo(NotOurs | NotServed));
        for claim in self.claims.iter().filter(|claim| !is_foreign(claim)) {
            others.remove(claim.notice, self.facts);
        }
        others
    }

    /// The record with how this job's claims ended, where the node outlives them: the group neither ends the
    /// instance nor has done so, or nobody knows.
    pub(crate) fn with_ends(&self, record: &Record) -> Record {
        let state = self.facts.state();
        let mut with_ends = record.clone();
        for claim in &self.claims {
            let Entitlement::Ended(outcome) = claim.entitlement else { continue };
            let nobody_knows = self.facts.seen.membership == Seen::Unknown;
            if outcome == Ended::LeftIsolated || state.map_or(nobody_knows, |state| !state.is_unheld()) {
                let end = EntryEnd { outcome, state: state.cloned(), at: self.facts.now };
                with_ends.end(claim.notice, &end, self.facts);
            }
        }
        with_ends
    }

    /// Whether AWS may be told to end traffic, and if so, whether the node carries our writes.
    pub(crate) fn ready_for_writes(&self) -> Option<bool> {
        let Facts { job, seen, now, .. } = self.facts;
        let goes_on = self.pressing().is_some_and(|claim| {
            // Where the node is not even known there is nothing to try.
            let tried = match seen.node {
                Seen::Unknown => claim.notice.at,
                Seen::Known(_) | Seen::Gone => job.memory.isolation_tried.unwrap_or(now),
            };
            job.memory.isolation_failed || now > tried + SPOT_ISOLATION
        });
        match &seen.node {
            Seen::Gone => Some(false),
            Seen::Known(_) if self.unwritable => Some(false),
            Seen::Known(node) if self.is_isolated(node) => Some(true),
            Seen::Known(_) | Seen::Unknown => goes_on.then_some(false),
        }
    }

    /// What AWS says has to be as new as this, whatever the stages wait for.
    pub(crate) fn read_by(&self) -> Option<Timestamp> {
        // The group may have given the machine up, and a controller put its targets back.
        let silent = self.facts.seen.node.known().is_none_or(|node| node.silent);
        let unseen = (self.unwritable || silent) && self.acting().next().is_some();
        // What is left at the end is told as it is.
        let end = self.deadline.map(|deadline| deadline.answer - LAST_READING);
        let end = end.filter(|end| *end > self.facts.as_of());
        end.into_iter().chain(unseen.then(|| self.facts.reread())).min()
    }

    /// The targets of the instance, each with its target group.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (TargetKey, &'a Target, &'a TargetGroup)> {
        let groups = self.facts.seen.target_groups.known().map_or(&[][..], Vec::as_slice);
        let own = |group: &'a TargetGroup| {
            group.targets_of(&self.facts.job.instance).map(move |(key, target)| (key, target, group))
        };
        groups.iter().flat_map(own)
    }

    /// The targets of the instance that are on the lists of their target groups.
    pub(crate) fn registered(&self) -> BTreeSet<TargetKey> {
        self.targets().filter(|(_, target, _)| is_registered(target)).map(|(key, ..)| key).collect()
    }

    /// Those of them that nobody is known to have taken out: our call may be newer than the reading.
    pub(crate) fn staying(&self) -> BTreeSet<TargetKey> {
        let leaving = &self.facts.job.memory.draining_since;
        self.registered().into_iter().filter(|key| !leaving.contains_key(key)).collect()
    }

    /// What is left of the instance's pods and targets.
    pub(crate) fn remainder(&self) -> Remainder {
        let seen = self.facts.seen;
        let nothing_read =
            seen.target_groups == Seen::Unknown && self.demands.deregister != Deregistration::No;
        Remainder {
            pods: seen.pods.known().map_or(0, |pods| eviction::evictable(pods, self.facts).len()),
            targets: self.staying().len(),
            unread_target_groups: self.facts.unread_target_groups().max(usize::from(nothing_read)),
        }
    }

    /// Until when the balancers may still send new requests, if any does.
    pub(crate) fn traffic_until(&self) -> Option<Timestamp> {
        let Facts { job, policy, now, .. } = self.facts;
        let until = |(key, _, group): (TargetKey, &Target, &TargetGroup)| {
            let span = match group.balancer {
                BalancerKind::Application => policy.propagation.application,
                BalancerKind::Network => policy.propagation.network,
            };
            job.memory.draining_since.get(&key).copied().unwrap_or(now) + span
        };
        let in_use = |target: &Target| !matches!(target.health, TargetHealth::Unused { .. });
        self.targets().filter(|(_, target, _)| in_use(target)).map(until).max()
    }

    /// No new request reaches the node any more: Deregister is true, and behind a Network Load Balancer
    /// the target is `unused`.
    pub(crate) fn is_quiet(&self, deregistered: bool) -> bool {
        let open = |(_, target, group): (TargetKey, &Target, &TargetGroup)| {
            group.balancer == BalancerKind::Network
                && matches!(target.health, TargetHealth::Draining | TargetHealth::Healthy)
        };
        deregistered && self.facts.unread_target_groups() == 0 && !self.targets().any(open)
    }
}

/// The node is there, and what is written to it again and again is not taken, or does not last. One try that failed long ago
/// proves nothing.
fn is_unwritable(Facts { job, seen, now, .. }: Facts<'_>, presses: bool) -> bool {
    let Memory { unwritten, sightings, .. } = &job.memory;
    let refused = if presses { SPOT_ISOLATION } else { REFUSED };
    let is_refused = unwritten.is_some_and(|Unwritten { since, newest, refused: refusals }| {
        newest >= since + FAILED || refusals.is_some_and(|(first, last)| last >= first + refused)
    });
    // A webhook takes out what the API server then says is done; a controller takes every cordon off (gpu-operator#536), or
    // every label (deckhouse#1218).
    let is_undone = sightings.open_since.is_some_and(|since| {
        let unseen = if presses { UNSEEN_IN_A_HURRY } else { FAILED };
        now >= since + unseen || job.memory.cooldown(&Key::Reopened).times >= REOPENED
    });
    seen.node.known().is_some() && (is_refused || is_undone)
}

/// Still on the list of its target group.
pub(crate) fn is_registered(target: &Target) -> bool {
    !matches!(target.health, TargetHealth::Draining | TargetHealth::Unused { registered: false })
}
