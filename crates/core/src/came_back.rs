//! Pods that come back to the node that they were evicted from: the scheduler puts a pod that tolerates the
//! cordon there again (cilium/cilium#28549), and a DaemonSet's controller puts one on every node. To evict
//! them again would never end.

use crate::*;

/// The ends that the API server accepted for pods of one origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evictions {
    first: Accepted,
    /// The first for a pod that had come back.
    again: Option<Accepted>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Accepted {
    pod: PodUid,
    /// By our clock, until the pod's deletion shows the time of the API server's.
    at: Timestamp,
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

    /// Takes in that the API server accepted the end of a pod.
    pub fn evicted(&mut self, pod: &Pod, now: Timestamp) {
        let end = Accepted { pod: pod.pod.uid.clone(), at: now };
        match self.evicted.get_mut(&pod.origin) {
            None => drop(self.evicted.insert(pod.origin.clone(), Evictions { first: end, again: None })),
            Some(ends) if ends.again.is_none() && ends.first.is_before(pod) => ends.again = Some(end),
            Some(_) => {}
        }
    }

    /// Takes the API server's own times of these ends, so that a clock of ours that is ahead does not make
    /// pods that come back look like older ones.
    pub fn take_server_times(&mut self, pods: &[Pod]) {
        for ends in self.evicted.values_mut() {
            for end in [Some(&mut ends.first), ends.again.as_mut()].into_iter().flatten() {
                let ending = pods.iter().find(|pod| pod.pod.uid == end.pod);
                end.at = ending.and_then(|pod| pod.deleted_at).unwrap_or(end.at);
            }
        }
    }
}

impl Accepted {
    /// The API server writes whole seconds.
    fn is_before(&self, pod: &Pod) -> bool {
        pod.pod.uid != self.pod && pod.created >= self.at.whole_second()
    }
}
