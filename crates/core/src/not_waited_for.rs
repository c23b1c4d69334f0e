//! Pods that are on the node and need not be waited for.
//!
//! Some come back to the node that they were evicted from: the scheduler puts a pod that tolerates the cordon there
//! again (cilium/cilium#28549), and a DaemonSet's controller puts one on every node. To evict them again would never
//! end. Others do not end: a finalizer keeps the object, or their kubelet is dead (autoscaler#2930).

use std::time::Duration;

use crate::*;

/// A pod that is there for this long after its grace does not end by itself. A kubelet takes seconds to kill what is left,
/// and to let its volumes go.
const OVERDUE: Duration = Duration::from_secs(60);

/// By the API server's clock it is overdue so much later. AWS refuses a call that is signed by a clock five minutes off, so
/// that ours is right within that, and the API server's mostly is, too.
const CLOCKS: Duration = Duration::from_secs(600);

/// More pods than a node has room for (110 by the kubelet's default, 250 at the most on EKS) came back, whatever clocks say: while
/// ours is ahead of the API server's, a pod that comes back at once looks older than the end before (seed 149).
const NODEFUL: u32 = 250;

/// Why a pod is neither waited for nor evicted nor deleted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum NotWaitedFor {
    /// It was made after an accepted end of a pod of the same origin.
    CameBack,
    /// Its grace is over, and it is still there.
    Overdue,
}

impl NotWaitedFor {
    /// Every reason.
    pub const ALL: [Self; 2] = [Self::CameBack, Self::Overdue];
}

/// The ends that the API server accepted for pods of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evictions {
    /// The first of all.
    pub first: AcceptedEnd,
    /// The first for a pod that had come back.
    pub again: Option<AcceptedEnd>,
    /// How many there were.
    pub accepted: u32,
}

/// The end of a pod that the API server accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedEnd {
    /// The pod.
    pub pod: PodUid,
    /// By our clock, until the pod's deletion shows the time of the API server's.
    pub at: Timestamp,
    /// It is by the API server's.
    pub is_servers: bool,
}

/// Whether a pod that has to go need not be waited for, and why.
pub fn not_waited_for(job: &Job, pod: &Pod, policy: &Policy, now: Timestamp) -> Option<NotWaitedFor> {
    if eviction::classify(pod, policy) == eviction::PodClass::Stays {
        return None;
    }
    if job.memory.came_back(pod) {
        return Some(NotWaitedFor::CameBack);
    }
    let overdue = job.memory.overdue_at(pod).is_some_and(|at| at <= now);
    overdue.then_some(NotWaitedFor::Overdue)
}

impl Memory {
    /// When a pod that ends is overdue. Its grace counts from when this job first saw that it ends, by our own clock: what the
    /// API server wrote is of another one. But what it says ended hours ago has (cluster-api#10706), unless the grace was cut:
    /// that counts from the first deletion there (BeforeDelete in its rest package), and from the cut for the kubelet.
    pub(crate) fn overdue_at(&self, pod: &Pod) -> Option<Timestamp> {
        let Ending { since, .. } = self.sightings.ending.get(&pod.pod.uid)?;
        let granted = pod.ends_at.zip(pod.deleted_at).map(|(end, asked)| end.since(asked));
        let by_us = *since + granted.unwrap_or(pod.grace);
        let by_the_server = pod.ends_at.filter(|_| granted == Some(pod.grace)).map(|end| end + CLOCKS);
        Some(by_the_server.map_or(by_us, |end| end.min(by_us)) + OVERDUE)
    }

    /// It was made after an accepted end of a pod of the same origin. One that tolerates the cordon will come back each
    /// time, so that once is enough. Any other was put there by somebody who may stop, hence twice.
    fn came_back(&self, pod: &Pod) -> bool {
        let Some(ends) = self.evicted.get(&pod.origin) else { return false };
        let once = pod.tolerates_cordon && ends.accepted > 0 && ends.first.is_surely_before(pod);
        once || ends.accepted >= NODEFUL || ends.again.as_ref().is_some_and(|end| end.is_before(pod))
    }
}

impl AcceptedEnd {
    /// Whether it came before this pod was made. The API server writes whole seconds.
    pub fn is_before(&self, pod: &Pod) -> bool {
        pod.pod.uid != self.pod && pod.created >= self.at.whole_second()
    }

    /// Of two in the same second nobody knows which was first, and a pod that was there before has to be waited for.
    fn is_surely_before(&self, pod: &Pod) -> bool {
        self.is_before(pod) && pod.created > self.at
    }
}
