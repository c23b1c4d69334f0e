//! ELBv2: target groups, the health of their targets, and where new requests really go.
//!
//! Follows ALB UG and NLB UG `load-balancer-target-groups.html` and `target-group-register-targets.html`.
//! Liberties: a draining target keeps its state for the whole delay and then leaves the list; a
//! terminated instance leaves every list at once; health checks change their verdict after one delay
//! instead of single probes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use offramp_core::{BalancerKind, InstanceId, TargetGroupArn, Timestamp, Zone};

use super::instances::InstanceState;
use super::{Due as WorldDue, World};

/// Every target group.
#[derive(Debug, Default)]
pub struct Balancers {
    groups: BTreeMap<TargetGroupArn, TargetGroup>,
    sequence: u64,
}

/// One target group of type `instance`.
#[derive(Clone, Debug)]
pub struct TargetGroup {
    /// Its ARN.
    pub arn: TargetGroupArn,
    /// Its name.
    pub name: String,
    /// What is in front of it.
    pub kind: BalancerKind,
    /// The port of targets that are registered without one.
    pub port: u16,
    /// A healthy target of another zone can stand in.
    pub cross_zone: bool,
    /// `deregistration_delay.timeout_seconds`.
    pub deregistration_delay: Duration,
    /// Tags.
    pub tags: BTreeMap<String, String>,
    /// Targets by instance and port: two ports of one instance are two targets.
    pub targets: BTreeMap<(InstanceId, u16), Target>,
    /// Deregistered targets that some balancer node has not heard of, and until when.
    still_routed: BTreeMap<(InstanceId, u16), Timestamp>,
}

/// One target.
#[derive(Clone, Debug)]
pub struct Target {
    /// The zone of its instance.
    pub zone: Zone,
    /// Its state as DescribeTargetHealth says it.
    pub state: TargetState,
    /// Whether it answered when that was last looked at.
    answers: bool,
    /// Tells which of several verdicts in the agenda is the newest.
    sequence: u64,
}

/// The state of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetState {
    /// Registered, first checks running.
    Initial,
    /// Passes its checks.
    Healthy,
    /// Fails them.
    Unhealthy,
    /// Deregistered then; its delay is running.
    Draining {
        /// When DeregisterTargets was called.
        since: Timestamp,
    },
}

/// Why ELBv2 refuses.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// TargetGroupNotFound.
    #[error("One or more target groups not found")]
    NoTargetGroup,
    /// InvalidTarget.
    #[error("The following targets are not in a running state and cannot be registered: '{0}'")]
    NotRunning(InstanceId),
    /// InvalidTarget.
    #[error("The instance ID '{0}' is not valid")]
    NoInstance(InstanceId),
}

/// What balancers are waiting for.
#[derive(Clone, Debug)]
pub(crate) enum Due {
    /// The health checks have made up their mind.
    Verdict { group: TargetGroupArn, target: (InstanceId, u16), sequence: u64 },
    /// The last balancer node has heard of a deregistration; nothing but a change of routes.
    Propagated { group: TargetGroupArn },
    /// The deregistration delay is over.
    Drained { group: TargetGroupArn, target: (InstanceId, u16), sequence: u64 },
}

impl Balancers {
    /// One target group.
    pub fn get(&self, arn: &TargetGroupArn) -> Option<&TargetGroup> {
        self.groups.get(arn)
    }

    /// Every target group by ARN.
    pub fn all(&self) -> impl Iterator<Item = &TargetGroup> {
        self.groups.values()
    }

    /// The targets that get new requests at this moment: the healthy ones, or where there is none every
    /// registered one ("fail open": ALB UG and NLB UG, "Target group health"), and for the propagation
    /// time those that were just deregistered (NTH#316, aws/containers-roadmap#470).
    pub fn routes(&self, arn: &TargetGroupArn, now: Timestamp) -> Vec<(InstanceId, u16)> {
        let Some(group) = self.groups.get(arn) else { return Vec::new() };
        let fail_open = !group.targets.values().any(|target| target.state == TargetState::Healthy);
        let registered = group.targets.iter().filter(|(_, target)| match target.state {
            TargetState::Healthy => true,
            TargetState::Initial | TargetState::Unhealthy => fail_open,
            TargetState::Draining { .. } => false,
        });
        let leaving = group.still_routed.iter().filter(|(_, until)| now < **until);
        let routed = registered.map(|(key, _)| key).chain(leaving.map(|(key, _)| key));
        routed.collect::<BTreeSet<_>>().into_iter().cloned().collect()
    }
}

impl World {
    /// Makes a target group with one port, and gives its ARN. Network balancers do not balance across
    /// zones by default, application balancers always do (NLB UG, "Cross-zone load balancing").
    pub fn create_target_group(&mut self, name: &str, kind: BalancerKind, port: u16) -> TargetGroupArn {
        let id = format!("{:016x}", self.random.u64(..));
        let account_region = &self.events;
        let arn = TargetGroupArn::new(format!(
            "arn:aws:elasticloadbalancing:{}:{}:targetgroup/{name}/{id}",
            account_region.region, account_region.account
        ));
        let group = TargetGroup {
            arn: arn.clone(),
            name: name.to_owned(),
            kind,
            port,
            cross_zone: kind == BalancerKind::Application,
            deregistration_delay: self.delays.deregistration,
            tags: BTreeMap::new(),
            targets: BTreeMap::new(),
            still_routed: BTreeMap::new(),
        };
        self.balancers.groups.insert(arn.clone(), group);
        arn
    }

    /// One target group, to change its settings.
    pub fn target_group_mut(&mut self, arn: &TargetGroupArn) -> Option<&mut TargetGroup> {
        self.traffic_changed();
        self.balancers.groups.get_mut(arn)
    }

    /// RegisterTargets. A registered target stays as it is, a draining one starts again.
    pub fn register_targets(
        &mut self,
        arn: &TargetGroupArn,
        targets: &[(InstanceId, u16)],
    ) -> Result<(), Refusal> {
        let group = self.balancers.groups.get(arn).ok_or(Refusal::NoTargetGroup)?;
        let name = group.name.clone();
        self.traffic_changed();
        for (id, _) in targets {
            let instance = self.instances.get(id).ok_or_else(|| Refusal::NoInstance(id.clone()))?;
            if instance.state != InstanceState::Running {
                return Err(Refusal::NotRunning(id.clone()));
            }
        }
        for key in targets {
            let registered = self.balancers.groups.get(arn).and_then(|group| group.targets.get(key));
            if registered.is_some_and(|target| !matches!(target.state, TargetState::Draining { .. })) {
                continue;
            }
            let Some(zone) = self.instances.get(&key.0).map(|instance| instance.zone.clone()) else {
                continue;
            };
            let answers = self.target_answers(&key.0, key.1);
            let target = Target { zone, state: TargetState::Initial, answers, sequence: 0 };
            if let Some(group) = self.balancers.groups.get_mut(arn) {
                group.targets.insert(key.clone(), target);
            }
            self.tell(format!("{} is registered in {name} with port {}", key.0, key.1));
            self.expect_verdict(arn, key, answers);
        }
        Ok(())
    }

    /// DeregisterTargets: "If the specified target does not exist, the action returns successfully"
    /// (ELBv2 API). A draining target goes on draining from its first call.
    pub fn deregister_targets(
        &mut self,
        arn: &TargetGroupArn,
        targets: &[(InstanceId, u16)],
    ) -> Result<(), Refusal> {
        let now = self.now;
        let propagation = {
            let group = self.balancers.groups.get(arn).ok_or(Refusal::NoTargetGroup)?;
            self.propagation(group.kind)
        };
        let failed_checks = self.delays.failed_health_checks;
        let routed: BTreeSet<_> = self.balancers.routes(arn, now).into_iter().collect();
        self.traffic_changed();
        for key in targets {
            let sequence = self.next_verdict();
            let Some(group) = self.balancers.groups.get_mut(arn) else { continue };
            let (delay, name) = (group.deregistration_delay, group.name.clone());
            let Some(target) = group.targets.get_mut(key) else { continue };
            if matches!(target.state, TargetState::Draining { .. }) {
                continue;
            }
            target.state = TargetState::Draining { since: now };
            target.sequence = sequence;
            if routed.contains(key) {
                // One that has stopped answering its checks leaves when they have failed, not later.
                let span = if target.answers { propagation } else { propagation.min(failed_checks) };
                group.still_routed.insert(key.clone(), now + span);
            }
            self.tell(format!("{} is deregistered from {name} with port {}", key.0, key.1));
            let drained = Due::Drained { group: arn.clone(), target: key.clone(), sequence };
            self.after(delay, WorldDue::Balancer(drained));
            self.after(propagation, WorldDue::Balancer(Due::Propagated { group: arn.clone() }));
            self.after(failed_checks, WorldDue::Balancer(Due::Propagated { group: arn.clone() }));
        }
        Ok(())
    }

    /// The targets of a target group that get new requests now: see [`Balancers::routes`].
    pub fn routes(&self, arn: &TargetGroupArn) -> Vec<(InstanceId, u16)> {
        self.balancers.routes(arn, self.now)
    }

    /// Looks again whether the targets of an instance answer. To be called whenever what is behind them
    /// changes: the checks themselves are not simulated one by one.
    pub(crate) fn recheck_targets(&mut self, id: &InstanceId) {
        let keys: Vec<(TargetGroupArn, u16)> = self
            .balancers
            .groups
            .values()
            .flat_map(|group| group.targets.keys().map(|key| (group.arn.clone(), key)))
            .filter(|(_, (instance, _))| instance == id)
            .map(|(arn, (_, port))| (arn, *port))
            .collect();
        for (arn, port) in keys {
            let answers = self.target_answers(id, port);
            let key = (id.clone(), port);
            let group = self.balancers.groups.get_mut(&arn);
            let Some(target) = group.and_then(|group| group.targets.get_mut(&key)) else { continue };
            if target.answers == answers {
                continue;
            }
            target.answers = answers;
            if matches!(target.state, TargetState::Draining { .. }) {
                self.leave_by_failed_checks(&arn, &key, answers);
                continue;
            }
            self.expect_verdict(&arn, &key, answers);
        }
    }

    /// A deregistered target that does not answer its checks any more, such as one behind a Local Service whose
    /// last pod has gone, gets nothing new as soon as they have failed, however long the deregistration takes
    /// to reach every node of the balancer.
    fn leave_by_failed_checks(&mut self, arn: &TargetGroupArn, key: &(InstanceId, u16), answers: bool) {
        let failed = self.now + self.delays.failed_health_checks;
        let group = self.balancers.groups.get_mut(arn);
        let Some(until) = group.and_then(|group| group.still_routed.get_mut(key)) else { return };
        if !answers && failed < *until {
            *until = failed;
            let due = Due::Propagated { group: arn.clone() };
            self.after(self.delays.failed_health_checks, WorldDue::Balancer(due));
        }
    }

    /// A terminated instance is no target any more, and nothing is routed to it: its address is nobody's.
    pub(crate) fn forget_targets(&mut self, id: &InstanceId) {
        self.traffic_changed();
        for group in self.balancers.groups.values_mut() {
            group.targets.retain(|(instance, _), _| instance != id);
            group.still_routed.retain(|(instance, _), _| instance != id);
        }
    }

    pub(crate) fn balancer_due(&mut self, due: Due) {
        self.traffic_changed();
        match due {
            Due::Propagated { group } => {
                let now = self.now;
                if let Some(group) = self.balancers.groups.get_mut(&group) {
                    group.still_routed.retain(|_, until| *until > now);
                }
            }
            Due::Verdict { group, target: key, sequence } => {
                let Some(group) = self.balancers.groups.get_mut(&group) else { return };
                let Some(target) = group.targets.get_mut(&key) else { return };
                if target.sequence != sequence {
                    return;
                }
                let verdict = if target.answers { TargetState::Healthy } else { TargetState::Unhealthy };
                if target.state != verdict {
                    target.state = verdict;
                    let word = if verdict == TargetState::Healthy { "healthy" } else { "unhealthy" };
                    let line = format!("{} is {word} in {} with port {}", key.0, group.name, key.1);
                    self.tell(line);
                }
            }
            Due::Drained { group, target: key, sequence } => {
                let Some(group) = self.balancers.groups.get_mut(&group) else { return };
                if group.targets.get(&key).is_some_and(|target| target.sequence == sequence) {
                    group.targets.remove(&key);
                    let line = format!("{} has drained from {} with port {}", key.0, group.name, key.1);
                    self.tell(line);
                }
            }
        }
    }

    /// For how long some target of an instance still drains.
    pub(crate) fn draining_for(&self, arn: &TargetGroupArn, id: &InstanceId) -> Duration {
        let Some(group) = self.balancers.groups.get(arn) else { return Duration::ZERO };
        let targets = group.targets.iter().filter(|((instance, _), _)| instance == id);
        let ends = targets.filter_map(|(_, target)| match target.state {
            TargetState::Draining { since } => Some(since + group.deregistration_delay),
            TargetState::Initial | TargetState::Healthy | TargetState::Unhealthy => None,
        });
        ends.max().map_or(Duration::ZERO, |end| self.now.until(end))
    }

    /// How long balancers of a kind go on sending after a deregistration.
    pub(crate) const fn propagation(&self, kind: BalancerKind) -> Duration {
        match kind {
            BalancerKind::Application => self.delays.application_propagation,
            BalancerKind::Network => self.delays.network_propagation,
        }
    }

    /// The checks need their time; a newer look makes an older one void.
    fn expect_verdict(&mut self, arn: &TargetGroupArn, key: &(InstanceId, u16), answers: bool) {
        let sequence = self.next_verdict();
        let group = self.balancers.groups.get_mut(arn);
        let Some(target) = group.and_then(|group| group.targets.get_mut(key)) else { return };
        target.sequence = sequence;
        let delay = if answers { self.delays.first_health_checks } else { self.delays.failed_health_checks };
        let due = Due::Verdict { group: arn.clone(), target: key.clone(), sequence };
        self.after(delay, WorldDue::Balancer(due));
    }

    const fn next_verdict(&mut self) -> u64 {
        self.balancers.sequence += 1;
        self.balancers.sequence
    }
}

#[cfg(test)]
mod tests;
