//! Whether the machine behind the node still runs.

use std::time::Duration;

use crate::*;

/// A node that has not been Ready for this long, of an instance that its group gave up, has ended. The
/// kubelet's lease runs out after 40 s; a network blip is shorter.
const NOT_READY: Duration = Duration::from_secs(60);

/// The instance has already ended: there is nothing to drain and nobody to wait for.
pub(crate) fn has_ended(seen: &Observation, now: Timestamp) -> bool {
    let given_up = match &seen.membership {
        Seen::Known(member) => !member.healthy || member.state == LifecycleState::Terminated,
        Seen::Gone => true,
        Seen::Unknown => false,
    };
    match &seen.node {
        Seen::Gone => true,
        Seen::Known(node) => given_up && !node.ready && now.since(node.ready_since) >= NOT_READY,
        Seen::Unknown => false,
    }
}
