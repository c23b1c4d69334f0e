//! Warm pools to which a scale-in gives instances back: they are held by the terminate hooks, stopped, and started again by
//! the next scale-out (ASG UG `ec2-auto-scaling-warm-pools.html`, `warm-pool-instance-lifecycle.html`).

use offramp_core::{GroupName, InstanceId};

use super::{Due, Group, Member, MemberState};
use crate::world::{Due as WorldDue, World};

impl World {
    /// A scale-in takes a member out of service: into the warm pool, where the group has one, or out of the group.
    pub(super) fn dismiss_member(&mut self, group: &GroupName, id: &InstanceId) {
        if !self.groups.warm_pools.contains(group) {
            return self.terminate_member(group, id);
        }
        self.change_member(group, id, |member| member.state = MemberState::WarmedPending);
        let wait = self.deregister_attached(group, id);
        self.after(wait, WorldDue::Group(Due::Deregistered(group.clone(), id.clone())));
    }

    /// A scale-out takes what is in the warm pool first. Says whether there was anything.
    pub(super) fn recall_member(&mut self, name: &GroupName) -> bool {
        let Some(id) = self.groups.get(name).and_then(pooled) else { return false };
        self.change_member(name, &id, |member| member.state = MemberState::Pending);
        self.start_instance(&id);
        true
    }
}

fn pooled(group: &Group) -> Option<InstanceId> {
    let is_pooled = |(_, member): &(&InstanceId, &Member)| member.state == MemberState::WarmedStopped;
    group.members.iter().find(is_pooled).map(|(id, _)| id.clone())
}
