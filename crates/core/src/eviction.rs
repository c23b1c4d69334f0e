//! Which pods go, in which order, and how hard we ask.

use std::time::Duration;

use crate::case::Case;
use crate::deadline::Deadline;
use crate::{Action, IngressDaemonSet, Job, Pod, Policy, Timestamp};

/// What a pod is to a drain. The order is that of leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PodClass {
    /// Goes first. Bare pods, Jobs and pods with emptyDir are ordinary too.
    Ordinary,
    /// `system-cluster-critical`: after the ordinary ones.
    ClusterCritical,
    /// `system-node-critical` but of no DaemonSet: after those.
    NodeCritical,
    /// Of a DaemonSet that brings traffic in: last, when the balancers are quiet.
    Ingress,
    /// Stays: of any other DaemonSet (kube-proxy and CNI are), a mirror pod, or finished.
    Stays,
}

/// The class of a pod.
pub fn classify(pod: &Pod, policy: &Policy) -> PodClass {
    if pod.mirror || pod.finished {
        return PodClass::Stays;
    }
    match &pod.daemon_set {
        Some(name) => {
            let named = IngressDaemonSet { namespace: pod.pod.namespace.clone(), name: name.clone() };
            if policy.ingress_daemon_sets.contains(&named) { PodClass::Ingress } else { PodClass::Stays }
        }
        None if pod.node_critical => PodClass::NodeCritical,
        None if pod.cluster_critical => PodClass::ClusterCritical,
        None => PodClass::Ordinary,
    }
}

/// The pods that have to go before the node is empty.
pub(crate) fn evictable<'a>(pods: &'a [Pod], job: &Job, policy: &Policy) -> Vec<(PodClass, &'a Pod)> {
    let classes = pods.iter().map(|pod| (classify(pod, policy), pod));
    classes.filter(|(class, pod)| *class != PodClass::Stays && !job.memory.came_back(pod)).collect()
}

/// What is left of a drain, in words for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Pods that run still.
    pub running: usize,
    /// Pods whose grace is running.
    pub ending: usize,
    /// Pods whose eviction a budget, a webhook or a policy refuses, or failed.
    pub refused: usize,
    /// Those of them that an admission webhook or policy refuses.
    pub vetoed: usize,
    /// Pods that wait for the balancers to be quiet.
    pub awaiting_quiet: usize,
    /// How long until the first pod is forced.
    pub forced_in: Option<Duration>,
}

/// The part of a drain that one tick does.
#[derive(Debug, Default)]
pub(crate) struct Eviction {
    pub(crate) actions: Vec<Action>,
    pub(crate) wake_at: Option<Timestamp>,
    pub(crate) left: Left,
    /// Something would be forced if the hook's end were firm: a heartbeat goes first.
    pub(crate) heartbeat_first: bool,
}

/// Plans the evictions of one tick. `quiet`: no new request reaches the node any more.
pub(crate) fn plan(pods: &[Pod], quiet: bool, deadline: Option<Deadline>, case: Case<'_>) -> Eviction {
    let Case { job, policy, now, .. } = case;
    let pods = evictable(pods, job, policy);
    let tier = pods.iter().map(|(class, _)| *class).min();
    let provisional = deadline.is_some_and(|deadline| deadline.provisional);
    let mut plan = Eviction::default();
    for (class, pod) in pods {
        if let Some(ends_at) = pod.ends_at {
            plan.left.ending += 1;
            let Some(grace) = cut(ends_at, deadline, policy, now) else { continue };
            plan.heartbeat_first |= provisional;
            if !provisional && !job.memory.cut.contains(&pod.pod.uid) && may_try(pod, job, now) {
                plan.actions.push(Action::Delete { pod: pod.pod.clone(), grace });
            }
            continue;
        }
        plan.left.running += 1;
        let asked = job.memory.asked.get(&pod.pod.uid);
        let refused = asked.is_some_and(|asked| asked.refused);
        plan.left.refused += usize::from(refused);
        plan.left.vetoed += usize::from(asked.is_some_and(|asked| asked.vetoed));
        let mut rung = rung(pod, deadline, policy, now);
        if provisional && !matches!(rung, Rung::Ask { .. }) {
            plan.heartbeat_first = true;
            rung = Rung::Ask { until: None };
        }
        let forced = !matches!(rung, Rung::Ask { .. });
        if let Rung::Ask { until } = rung {
            plan.wake(until);
            plan.left.forced_in = earlier(plan.left.forced_in, until.map(|until| now.until(until)));
        }
        let needs_quiet = pod.local_traffic || class == PodClass::Ingress;
        if needs_quiet && !quiet && !forced {
            plan.left.awaiting_quiet += 1;
            continue;
        }
        if (Some(class) != tier || pod.let_finish) && !forced {
            continue;
        }
        // A refused eviction rests for a while, but not when the time has come to delete.
        let goes_further = forced && asked.is_some_and(|asked| asked.refused && !asked.deleted);
        if !may_try(pod, job, now) && !goes_further {
            plan.wake(asked.map(|asked| asked.again_at));
            continue;
        }
        plan.actions.push(match rung {
            Rung::Ask { .. } => Action::Evict { pod: pod.pod.clone(), grace: None },
            // The budget is asked once even now: most evictions are not refused.
            Rung::Cut { grace } if !refused => Action::Evict { pod: pod.pod.clone(), grace: Some(grace) },
            Rung::Cut { grace } | Rung::Force { grace } => Action::Delete { pod: pod.pod.clone(), grace },
        });
    }
    plan
}

impl Eviction {
    fn wake(&mut self, at: Option<Timestamp>) {
        self.wake_at = earlier(self.wake_at, at);
    }
}

/// How hard a pod is asked, by the time that is left for its own grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// Through the Eviction API, until then.
    Ask { until: Option<Timestamp> },
    /// Its own grace still fits exactly: delete.
    Force { grace: Duration },
    /// Less than its grace is left.
    Cut { grace: Duration },
}

fn rung(pod: &Pod, deadline: Option<Deadline>, policy: &Policy, now: Timestamp) -> Rung {
    let Some(deadline) = deadline else { return Rung::Ask { until: None } };
    let last_start = deadline.pods - policy.deadline_margin - pod.grace;
    // A tick may come a little late; what is then cut is less than this.
    let slack = Duration::from_secs(2);
    if now < last_start {
        Rung::Ask { until: Some(last_start) }
    } else if now <= last_start + slack {
        Rung::Force { grace: pod.grace }
    } else {
        Rung::Cut { grace: grace_left(deadline, policy, now).min(pod.grace) }
    }
}

/// The grace that a pod which is already ending has to be cut to, if it ends too late.
fn cut(ends_at: Timestamp, deadline: Option<Deadline>, policy: &Policy, now: Timestamp) -> Option<Duration> {
    let deadline = deadline?;
    (ends_at > deadline.pods && now < deadline.pods).then(|| grace_left(deadline, policy, now))
}

/// What is left until the margin begins, and at least a second: zero would mean "without waiting for
/// the kubelet", and two pods of a StatefulSet could run under one name.
fn grace_left(deadline: Deadline, policy: &Policy, now: Timestamp) -> Duration {
    let left = now.until(deadline.pods - policy.deadline_margin);
    Duration::from_secs(left.as_secs().max(1))
}

fn may_try(pod: &Pod, job: &Job, now: Timestamp) -> bool {
    job.memory.asked.get(&pod.pod.uid).is_none_or(|asked| asked.again_at <= now)
}

fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}
