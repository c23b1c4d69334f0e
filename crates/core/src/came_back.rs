//! Pods that come back to the node that they were evicted from: the scheduler puts a pod that tolerates the
//! cordon there again (cilium/cilium#28549), and a DaemonSet's controller puts one on every node. To evict
//! them again would never end.

use crate::*;

/// The ends that the API server accepted for pods of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evictions {
    /// The first of all.
    pub first: AcceptedEnd,
    /// The first for a pod that had come back.
    pub again: Option<AcceptedEnd>,
}

/// The end of a pod that the API server accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedEnd {
    /// The pod.
    pub pod: PodUid,
    /// By our clock, until the pod's deletion shows the time of the API server's.
    pub at: Timestamp,
}

impl Memory {
    /// It is neither waited for nor evicted nor deleted any more: it was made after an accepted end of a pod
    /// of the same origin. One that tolerates the cordon will come back each time, so that once is enough.
    /// Any other was put there by somebody who may stop, hence twice.
    pub fn came_back(&self, pod: &Pod) -> bool {
        // Nearly always: it spares every pod of every tick the search.
        if self.evicted.is_empty() {
            return false;
        }
        let Some(ends) = self.evicted.get(&pod.origin) else { return false };
        let end = if pod.tolerates_cordon { Some(&ends.first) } else { ends.again.as_ref() };
        end.is_some_and(|end| end.is_before(pod))
    }
}

impl AcceptedEnd {
    /// Whether it came before this pod was made. The API server writes whole seconds.
    pub fn is_before(&self, pod: &Pod) -> bool {
        pod.pod.uid != self.pod && pod.created >= self.at.whole_second()
    }
}
