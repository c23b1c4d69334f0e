//! Which pods go, in which order, and how hard we ask.

use std::time::Duration;

use crate::*;

/// What a pod is to a drain. The order is that of leaving.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PodClass {
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
pub(crate) fn classify(pod: &Pod, policy: &Policy) -> PodClass {
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
pub(crate) fn evictable<'a>(
    pods: &'a [Pod],
    Facts { job, policy, now, .. }: Facts<'_>,
) -> Vec<(PodClass, &'a Pod)> {
    let classes = pods.iter().map(|pod| (classify(pod, policy), pod));
    let goes = |(class, _): &(PodClass, &Pod)| *class != PodClass::Stays;
    classes.filter(goes).filter(|(_, pod)| not_waited_for(job, pod, policy, now).is_none()).collect()
}

/// How many pods that should go are not waited for.
pub(crate) fn left_behind(Facts { job, seen, policy, now }: Facts<'_>) -> usize {
    let pods = seen.pods.known().into_iter().flatten();
    pods.filter(|pod| not_waited_for(job, pod, policy, now).is_some()).count()
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
    /// What refuses one of them: a budget, if any does.
    pub refused_by: Option<Key>,
    /// Those of them that an admission webhook or policy refuses.
    pub vetoed: usize,
    /// Pods that wait for the balancers to be quiet.
    pub awaiting_quiet: usize,
    /// The node cannot be written, so that new pods may come.
    pub uncordoned: bool,
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
pub(crate) fn plan(pods: &[Pod], quiet: bool, deadline: Option<Deadline>, facts: Facts<'_>) -> Eviction {
    let pods = evictable(pods, facts);
    let tier = pods.iter().map(|(class, _)| *class).min();
    let mut plan = Eviction::default();
    for (class, pod) in pods {
        let is_next = Some(class) == tier && !pod.let_finish;
        let needs_quiet = pod.local_traffic || class == PodClass::Ingress;
        match pod.ends_at {
            Some(ends_at) => plan.shorten(pod, ends_at, deadline, facts),
            None => plan.ask(pod, is_next, needs_quiet && !quiet, deadline, facts),
        }
    }
    plan
}

impl Eviction {
    /// A pod whose grace is running: it is cut where it would end too late.
    fn shorten(&mut self, pod: &Pod, ends_at: Timestamp, deadline: Option<Deadline>, facts: Facts<'_>) {
        self.left.ending += 1;
        self.wake_at = earlier(self.wake_at, facts.job.memory.overdue_at(pod));
        let Some(deadline) = deadline else { return };
        let Some(grace) = cut(ends_at, deadline, facts) else { return };
        self.heartbeat_first |= deadline.provisional;
        let memory = &facts.job.memory;
        let rests = memory.pod_rests_until(pod) > facts.now;
        if !deadline.provisional && !memory.answer(pod).cut && !rests {
            self.actions.push(Action::Delete { pod: pod.pod.clone(), grace });
        }
    }

    /// A pod that runs still: it is asked to go, or told.
    fn ask(&mut self, pod: &Pod, is_next: bool, waits: bool, deadline: Option<Deadline>, facts: Facts<'_>) {
        let answer = facts.job.memory.answer(pod);
        let is_refused = answer.refused_by.is_some();
        self.left.running += 1;
        self.left.refused += usize::from(is_refused);
        self.left.vetoed += usize::from(answer.vetoed);
        self.left.refused_by = self.left.refused_by.take().max(answer.refused_by);
        let mut rung = rung(pod, deadline, facts);
        let provisional = deadline.is_some_and(|deadline| deadline.provisional);
        if provisional && matches!(rung, Rung::Force(_)) {
            self.heartbeat_first = true;
            rung = Rung::Ask { until: None };
        }
        let is_forced = matches!(rung, Rung::Force(_));
        let mut is_near = false;
        if let Rung::Ask { until } = rung {
            self.wake_at = earlier(self.wake_at, until);
            let forced_in = until.map(|until| facts.now.until(until));
            self.left.forced_in = earlier(self.left.forced_in, forced_in);
            let ahead = until.filter(|_| !pod.let_finish).map(|until| until - AHEAD);
            is_near = ahead.is_some_and(|ahead| ahead <= facts.now);
            self.wake_at = earlier(self.wake_at, ahead.filter(|ahead| *ahead > facts.now));
        }
        if !is_forced && (waits || !(is_next || is_near)) {
            self.left.awaiting_quiet += usize::from(waits);
            return;
        }
        // A refused eviction goes further when the time has come to delete.
        let goes_further = is_forced && is_refused && !answer.deleted;
        // What was taken is asked for again when a newer view shows the pod as it was.
        let is_shown = is_forced || is_refused || answer.asked_at <= facts.seen.proven;
        let rests_until = facts.job.memory.pod_rests_until(pod);
        self.wake_at = earlier(self.wake_at, Some(rests_until).filter(|until| *until > facts.now));
        if !goes_further && (rests_until > facts.now || !is_shown) {
            return;
        }
        let (pod, origin) = (pod.pod.clone(), pod.origin.clone());
        self.actions.push(match rung {
            Rung::Ask { .. } => Action::Evict { pod, origin, grace: None },
            // The budget is asked once even now: most evictions are not refused. Of two pods that wait on two nodes for the
            // same moment, it keeps one (karpenter#2217).
            Rung::Force(grace) if !is_refused => Action::Evict { pod, origin, grace: Some(grace) },
            Rung::Force(grace) => Action::Delete { pod, grace },
        });
    }
}

/// Before a pod is told to go, its budget is asked for so long, whatever its class: two of the DNS on two nodes do not go in
/// one moment, because the place of the first is taken within 20 to 40 s (karpenter#2217).
const AHEAD: Duration = Duration::from_secs(45);

/// How hard a pod is asked, by the time that is left for its own grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rung {
    /// Through the Eviction API, until then.
    Ask { until: Option<Timestamp> },
    /// By deletion: its own grace fits exactly, or less than it is left.
    Force(Duration),
}

fn rung(pod: &Pod, deadline: Option<Deadline>, facts: Facts<'_>) -> Rung {
    let Some(deadline) = deadline else { return Rung::Ask { until: None } };
    let last_start = deadline.pods - facts.policy.deadline_margin - pod.grace;
    // A tick may come a little late; what is then cut is less than this.
    let slack = Duration::from_secs(2);
    if facts.now < last_start {
        return Rung::Ask { until: Some(last_start) };
    }
    let is_cut = facts.now > last_start + slack;
    Rung::Force(if is_cut { grace_left(deadline, facts).min(pod.grace) } else { pod.grace })
}

/// The grace that a pod which is already ending has to be cut to, if it ends too late.
fn cut(ends_at: Timestamp, deadline: Deadline, facts: Facts<'_>) -> Option<Duration> {
    (ends_at > deadline.pods && facts.now < deadline.pods).then(|| grace_left(deadline, facts))
}

/// What is left until the margin begins, and at least a second: zero would mean "without waiting for
/// the kubelet", and two pods of a StatefulSet could run under one name.
fn grace_left(deadline: Deadline, Facts { policy, now, .. }: Facts<'_>) -> Duration {
    let left = now.until(deadline.pods - policy.deadline_margin);
    Duration::from_secs(left.as_secs().max(1))
}

fn earlier<T: Ord>(a: Option<T>, b: Option<T>) -> Option<T> {
    a.into_iter().chain(b).min()
}
