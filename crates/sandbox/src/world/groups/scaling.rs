//! What a group does to have as many members as it wants: launch, terminate, replace, let go.

use std::cmp::Reverse;
use std::time::Duration;

use offramp_core::{GroupName, InstanceId, Zone};

use super::{Due, Group, Member, MemberState, Refusal};
use crate::world::instances::{InstanceState, Launch};
use crate::world::{Due as WorldDue, World};

impl World {
    /// SetDesiredCapacity: the group launches or terminates by itself.
    pub fn set_desired(&mut self, group: &GroupName, desired: usize) -> Result<(), Refusal> {
        let spec = &mut self.group_mut(group)?.spec;
        if desired > spec.max {
            return Err(Refusal::AboveMaximum(desired, spec.max));
        }
        if desired < spec.min {
            return Err(Refusal::UnderMinimum(desired, spec.min));
        }
        spec.desired = desired;
        self.tell(format!("{group} wants {desired} instances"));
        self.reconcile_group(group);
        Ok(())
    }

    /// UpdateAutoScalingGroup, the sizes. A desired capacity outside of new limits moves to the limit.
    pub fn resize(
        &mut self,
        group: &GroupName,
        min: Option<usize>,
        max: Option<usize>,
        desired: Option<usize>,
    ) -> Result<(), Refusal> {
        let spec = &mut self.group_mut(group)?.spec;
        let (new_min, new_max) = (min.unwrap_or(spec.min), max.unwrap_or(spec.max));
        if new_min > new_max {
            return Err(Refusal::MinimumAboveMaximum(new_min, new_max));
        }
        (spec.min, spec.max) = (new_min, new_max);
        let desired = desired.unwrap_or(spec.desired.clamp(new_min, new_max));
        self.set_desired(group, desired)
    }

    /// So many instances less.
    pub fn scale_in(&mut self, group: &GroupName, fewer: usize) -> Result<(), Refusal> {
        let desired = self.group_mut(group)?.spec.desired;
        self.set_desired(group, desired.saturating_sub(fewer))
    }

    /// TerminateInstanceInAutoScalingGroup. Asking again for one that is on its way changes nothing
    /// (what AWS answers then is not documented).
    pub fn terminate_in_group(&mut self, id: &InstanceId, decrement: bool) -> Result<(), Refusal> {
        let group = self.group_of(id).ok_or_else(|| Refusal::NoMember(id.clone()))?;
        match self.groups.member(&group, id) {
            Some(member) if member.is_alive() => {}
            Some(member) if member.state == MemberState::TerminatingRetained => {
                self.proceed(&group, id);
                return Ok(());
            }
            Some(_) | None => return Ok(()),
        }
        self.decrement(&group, decrement)?;
        self.terminate_member(&group, id);
        self.reconcile_group(&group);
        Ok(())
    }

    /// DetachInstances: only members in service, no hooks, and the group waits for its attached target
    /// groups (ASG UG `ec2-auto-scaling-detach-attach-instances.html`). All or none.
    pub fn detach(&mut self, group: &GroupName, ids: &[InstanceId], decrement: bool) -> Result<(), Refusal> {
        let members = &self.groups.get(group).ok_or_else(|| Refusal::NoGroup(group.clone()))?.members;
        for id in ids {
            let member = members.get(id).ok_or_else(|| Refusal::NotPartOf(id.clone(), group.clone()))?;
            if member.state != MemberState::InService {
                return Err(Refusal::NotInService(id.clone()));
            }
        }
        for id in ids {
            self.decrement(group, decrement)?;
            self.change_member(group, id, |member| member.state = MemberState::Detaching);
            let wait = self.deregister_attached(group, id);
            self.after(wait, WorldDue::Group(Due::Detached(group.clone(), id.clone())));
        }
        self.reconcile_group(group);
        Ok(())
    }

    /// Launches what is missing and terminates what is too much. With Capacity Rebalancing, members at
    /// risk go as soon as enough others are in service.
    pub(super) fn reconcile_group(&mut self, name: &GroupName) {
        loop {
            let Some(group) = self.groups.get(name) else { return };
            let counted = group.members.values().filter(|member| member.counts()).count();
            let desired = group.spec.desired;
            if counted < desired {
                if !self.recall_member(name) {
                    self.launch_member(name);
                }
            } else if counted > desired
                && let Some(victim) = victim(group)
            {
                self.dismiss_member(name, &victim);
            } else {
                break;
            }
        }
        self.end_members_at_risk(name);
    }

    /// Takes a member out of service: its attached target groups first, then the hooks ("the instance is
    /// deregistered before lifecycle hooks run", ASG UG `ec2-auto-scaling-lifecycle.html`).
    pub(super) fn terminate_member(&mut self, group: &GroupName, id: &InstanceId) {
        self.change_member(group, id, |member| member.state = MemberState::Terminating);
        self.begin_activity(group, id);
        let wait = self.deregister_attached(group, id);
        self.after(wait, WorldDue::Group(Due::Deregistered(group.clone(), id.clone())));
    }

    /// The hooks are answered: the instance ends, or has already.
    pub(super) fn end_member(&mut self, group: &GroupName, id: &InstanceId) {
        let into_pool = |member: &Member| member.state == MemberState::WarmedPendingProceed;
        if self.instances.is(id, InstanceState::Terminated) {
            self.drop_member(group, id);
        } else if self.groups.member(group, id).is_some_and(into_pool) {
            if self.instances.is(id, InstanceState::Running) {
                self.change_member(group, id, |member| member.state = MemberState::WarmedStopped);
                self.stop_instance(id);
            } else {
                self.proceed(group, id);
            }
        } else {
            self.terminate_instance(id);
        }
    }

    /// A member has ended without being asked to: it is unhealthy, gets replaced, and its hook runs late
    /// (`aws.md` 1.7: EC2 terminates first, the group runs the hook when it notices).
    pub(super) fn replace_lost(&mut self, id: &InstanceId) {
        let Some(group) = self.group_of(id) else { return };
        let Some(member) = self.groups.member(&group, id) else { return };
        if member.state == MemberState::TerminatingProceed {
            return;
        }
        let alive = member.is_alive();
        self.change_member(&group, id, |member| member.healthy = false);
        if alive {
            self.terminate_member(&group, id);
            self.reconcile_group(&group);
        }
    }

    /// The instance runs, so its member comes into service and into the attached target groups.
    pub(crate) fn group_hears_of_start(&mut self, id: &InstanceId) {
        let Some(group) = self.group_of(id) else { return };
        if self.groups.member(&group, id).is_none_or(|member| member.state != MemberState::Pending) {
            return;
        }
        self.change_member(&group, id, |member| member.state = MemberState::InService);
        let attached = self.groups.get(&group).map(|g| g.spec.target_groups.clone()).unwrap_or_default();
        for arn in attached {
            let Some(port) = self.balancers.get(&arn).map(|target_group| target_group.port) else { continue };
            if let Err(refusal) = self.register_targets(&arn, &[(id.clone(), port)]) {
                self.tell(format!("{group} cannot register {id}: {refusal}"));
            }
        }
        self.end_members_at_risk(&group);
    }

    /// "The group ignores the recommendation" without Capacity Rebalancing; with it, a replacement is
    /// launched first, which may exceed the maximum (ASG UG `ec2-auto-scaling-capacity-rebalancing.html`).
    pub(crate) fn group_hears_of_risk(&mut self, id: &InstanceId) {
        let Some(group) = self.rebalancing_group_of(id) else { return };
        self.change_member(&group, id, |member| member.at_risk = true);
        self.after(self.delays.group_reaction, WorldDue::Group(Due::Reconcile(group)));
    }

    /// "If a notice comes before the replacement is there: the hook at once, the replacement in parallel",
    /// with Capacity Rebalancing only.
    pub(crate) fn group_hears_of_interruption(&mut self, id: &InstanceId) {
        let Some(group) = self.rebalancing_group_of(id) else { return };
        self.terminate_member(&group, id);
        self.after(self.delays.group_reaction, WorldDue::Group(Due::Reconcile(group)));
    }

    pub(crate) fn group_hears_of_shutdown(&mut self, id: &InstanceId) {
        self.after(self.delays.group_reaction, WorldDue::Group(Due::Lost(id.clone())));
    }

    pub(crate) fn group_hears_of_end(&mut self, id: &InstanceId) {
        let Some(group) = self.group_of(id) else { return };
        let proceeds = |member: &Member| member.state == MemberState::TerminatingProceed;
        if self.groups.member(&group, id).is_some_and(proceeds) {
            self.drop_member(&group, id);
        }
    }

    fn group_of(&self, id: &InstanceId) -> Option<GroupName> {
        self.instances.get(id)?.group.clone()
    }

    fn group_mut(&mut self, name: &GroupName) -> Result<&mut Group, Refusal> {
        self.groups.groups.get_mut(name).ok_or_else(|| Refusal::NoGroup(name.clone()))
    }

    /// The group, where it has Capacity Rebalancing and counts on this spot instance.
    fn rebalancing_group_of(&self, id: &InstanceId) -> Option<GroupName> {
        let group = self.instances.get(id).filter(|instance| instance.spot)?.group.clone()?;
        let rebalances = self.groups.get(&group)?.spec.capacity_rebalancing;
        let in_service = self.groups.member(&group, id)?.state == MemberState::InService;
        (rebalances && in_service).then_some(group)
    }

    fn decrement(&mut self, group: &GroupName, decrement: bool) -> Result<(), Refusal> {
        let spec = &mut self.group_mut(group)?.spec;
        if decrement && spec.desired <= spec.min {
            return Err(Refusal::BelowMinimum(spec.min));
        }
        spec.desired -= usize::from(decrement);
        Ok(())
    }

    fn launch_member(&mut self, name: &GroupName) {
        let Some(group) = self.groups.get(name) else { return };
        let template = group.spec.template.clone();
        let zone = emptiest_zone(group);
        let id = self.launch(Launch {
            zone: zone.clone(),
            spot: template.spot,
            group: Some(name.clone()),
            cluster: template.cluster,
            labels: template.labels,
        });
        let member = Member {
            zone,
            state: MemberState::Pending,
            healthy: true,
            launched: self.now,
            at_risk: false,
            actions: Vec::new(),
        };
        self.remember(name, &id, Some(&member));
        if let Some(group) = self.groups.groups.get_mut(name) {
            group.members.insert(id, member);
        }
    }

    fn end_members_at_risk(&mut self, name: &GroupName) {
        let Some(group) = self.groups.get(name) else { return };
        let in_service = |member: &&Member| member.counts() && member.state == MemberState::InService;
        if group.members.values().filter(in_service).count() < group.spec.desired {
            return;
        }
        let at_risk: Vec<InstanceId> = group
            .members
            .iter()
            .filter(|(_, member)| member.at_risk && member.state == MemberState::InService)
            .map(|(id, _)| id.clone())
            .collect();
        for id in at_risk {
            self.terminate_member(name, &id);
        }
    }

    /// Deregisters a member from the attached target groups and says how long the group waits for it:
    /// until all of them have drained, and its own reaction.
    pub(super) fn deregister_attached(&mut self, group: &GroupName, id: &InstanceId) -> Duration {
        let mut wait = Duration::ZERO;
        for (arn, port) in self.attached_targets(group, id) {
            // The target group was just found, and a target that is not there is a success.
            if self.deregister_targets(&arn, &[(id.clone(), port)]).is_ok() {
                wait = wait.max(self.draining_for(&arn, id));
            }
        }
        wait + self.delays.group_reaction
    }
}

impl Member {
    /// Not on its way out.
    const fn is_alive(&self) -> bool {
        matches!(self.state, MemberState::Pending | MemberState::InService)
    }
}

/// The default termination policy picks from the zone with the most instances; among those, the oldest
/// one (ASG UG `ec2-auto-scaling-termination-policies.html`, without launch templates and billing hours).
fn victim(group: &Group) -> Option<InstanceId> {
    let counted = group.members.iter().filter(|(_, member)| member.counts());
    counted
        .min_by_key(|(id, member)| {
            (Reverse(in_zone(group, &member.zone)), member.zone.clone(), member.launched, (*id).clone())
        })
        .map(|(id, _)| id.clone())
}

/// Groups balance over their zones (ASG UG `ec2-auto-scaling-availability-zone-balanced.html`).
fn emptiest_zone(group: &Group) -> Zone {
    let zones = &group.spec.template.zones;
    let emptiest = zones.iter().min_by_key(|zone| in_zone(group, zone));
    emptiest.cloned().unwrap_or_else(|| Zone::new("eu-west-1a"))
}

fn in_zone(group: &Group, zone: &Zone) -> usize {
    group.members.values().filter(|member| member.counts() && member.zone == *zone).count()
}
