//! Groups whose instances do not end with their hook: they go into a warm pool, or are retained.

use std::time::Duration;

use offramp_core::{ClusterName, GroupName, InstanceId};
use offramp_engine::ClusterCall;
use offramp_sandbox::World;
use offramp_sandbox::fleet::Pool;
use offramp_sandbox::world::groups::{Hook, MemberState};

use super::checks::Checks;
use super::course::Course;
use super::lookups::{member, members};
use super::script::seconds;

/// A group with a warm pool.
pub(crate) const POOLED: &str = "pooled";
/// A group whose other hook is abandoned now and then.
pub(crate) const RETAINED: &str = "retained";

pub(crate) fn retained() -> Pool {
    let other = Hook {
        heartbeat_timeout: seconds(120),
        metadata: Some("arn:aws:codedeploy:deployment/d-3".to_owned()),
        ..Hook::terminating("codedeploy")
    };
    let mut pool = Pool::new(RETAINED, 4);
    pool.hooks.push(other);
    pool
}

/// Longer than the patience of a job: by then it has left the node isolated.
const UNATTENDED: Duration = seconds(4_500);

impl Course {
    /// Somebody looks at what was retained, and ends it: soon, or when a job has long given it up.
    pub(crate) fn end_retained(&mut self, quiet_for: Option<Duration>) {
        let retained: Vec<InstanceId> = self.scene.sandbox.peek(|world| {
            let retained =
                members(world).filter(|(_, _, member)| member.state == MemberState::TerminatingRetained);
            retained.map(|(_, id, _)| id.clone()).collect()
        });
        for id in retained {
            let is_time = match quiet_for {
                None => self.random.u8(0..30) == 0,
                Some(span) => span > UNATTENDED,
            };
            if is_time {
                self.scene.say(&format!("somebody ends {id}, which was retained"));
                self.scene.sandbox.with(|world| world.terminate_in_group(&id, false)).unwrap_or_default();
            }
        }
    }

    pub(crate) fn resize_group(&mut self, name: &str, up: bool) {
        let name = GroupName::new(name);
        self.scene.sandbox.with(|world| {
            let desired = world.groups.get(&name).map_or(0, |group| group.spec.desired);
            let desired = if up { desired + 1 } else { desired.saturating_sub(1) };
            world.set_desired(&name, desired).unwrap_or_default();
        });
    }
}

/// It rests: in service, or in a warm pool.
pub(crate) const fn rests(state: MemberState) -> bool {
    matches!(state, MemberState::InService | MemberState::WarmedStopped)
}

impl Checks {
    pub(crate) fn note_release(&mut self, world: &World, name: &ClusterName, call: &ClusterCall) {
        let ClusterCall::Release { node, .. } = call else { return };
        let node = world.clusters.get(name).and_then(|cluster| cluster.nodes.get(node));
        let Some((group, member)) = node.and_then(|node| member(world, &node.instance)) else { return };
        if world.groups.warm_pools.contains(&group.spec.name) && member.state == MemberState::InService {
            let node = node.map(|node| node.name.to_string()).unwrap_or_default();
            self.notes.push((world.now(), format!("{node} is back from the warm pool, and released")));
        }
    }
}
