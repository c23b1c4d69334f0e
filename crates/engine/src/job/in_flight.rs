//! What a job has begun and not seen the end of. It goes on meanwhile: a call that hangs holds up nothing but itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{Action, ActionResult, InstanceId, Key, Observation, PodUid, Remainder, Timestamp};

use crate::act::{Act, find_pod};
use crate::evictions::Evictions;

/// What actions follow from.
pub(super) struct Grounds {
    pub(super) seen: Observation,
    /// What is left if a hook is answered now.
    pub(super) remainder: Option<Remainder>,
    /// The node was open, and leaves.
    pub(super) isolates: bool,
    pub(super) at: Timestamp,
}

/// What is in flight, and where a pod waits for its turn.
struct Begun {
    action: Action,
    grounds: Arc<Grounds>,
    evictions: Option<Evictions>,
}

/// An action that is over.
pub(super) struct Finished {
    pub(super) action: Action,
    /// Nothing, where the call was not made: nothing was learned.
    pub(super) result: Option<ActionResult>,
    pub(super) grounds: Arc<Grounds>,
}

/// The actions in flight: one at a time for each thing that they are about.
#[derive(Default)]
pub(super) struct InFlight {
    acts: FuturesUnordered<BoxFuture<'static, Finished>>,
    begun: BTreeMap<(Key, bool), Begun>,
}

impl InFlight {
    /// Whether nothing is in flight that it has to wait for. One thing is asked of one object at a time.
    pub(super) fn allows(&self, action: &Action, seen: &Observation) -> bool {
        let waits = match action {
            // The record stays on the node until it is known what became of its targets.
            Action::Release { .. } => self.begun.keys().any(|(key, _)| matches!(key, Key::Deregistration(_))),
            // What a budget has refused once, and is deleted for the sake of a deadline, waits for nobody.
            Action::Evict { pod, .. } => self.has_returned(&pod.uid, seen),
            _ => false,
        };
        !(waits || self.begun.contains_key(&about(action)))
    }

    /// The pod came in the place of one whose eviction is not answered yet. What keeps evictions from going on forever counts
    /// answers: without this, one pod was evicted 127 times before the first (seed 64011).
    fn has_returned(&self, uid: &PodUid, seen: &Observation) -> bool {
        let Some(pod) = find_pod(seen, uid) else { return false };
        self.begun.values().any(|Begun { action, grounds, .. }| {
            let (Action::Evict { pod: other, .. } | Action::Delete { pod: other, .. }) = action else {
                return false;
            };
            let is_gone = find_pod(seen, &other.uid).is_none();
            let is_new = find_pod(&grounds.seen, uid).is_none();
            is_gone
                && is_new
                && find_pod(&grounds.seen, &other.uid).is_some_and(|other| other.origin == pod.origin)
        })
    }

    pub(super) fn begin(&mut self, act: Act, action: Action, grounds: &Arc<Grounds>) {
        let begun =
            Begun { action: action.clone(), grounds: Arc::clone(grounds), evictions: act.evictions.clone() };
        self.begun.insert(about(&action), begun);
        let grounds = Arc::clone(grounds);
        self.acts.push(Box::pin(async move { Finished { result: act.perform().await, action, grounds } }));
    }

    /// What waits for its turn, and is not wanted any more, or otherwise, is withdrawn: its pod is gone, or has to be deleted by now.
    pub(super) fn withdraw(&self, instance: &InstanceId, wanted: &[Action]) {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|action| (about(action), action)).collect();
        for (about, Begun { action, evictions, .. }) in &self.begun {
            if let (Action::Evict { pod, .. } | Action::Delete { pod, .. }, Some(evictions)) =
                (action, evictions)
                && !wanted.get(about).is_some_and(|wanted| is_alike(action, wanted))
            {
                evictions.withdraw((instance.clone(), pod.uid.clone()));
            }
        }
    }

    /// Waits for the next to be over. Cancel-safe. Never ends while nothing is in flight.
    pub(super) async fn next(&mut self) -> Finished {
        match self.acts.next().await {
            Some(finished) => {
                self.begun.remove(&about(&finished.action));
                finished
            }
            None => std::future::pending().await,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.acts.is_empty()
    }

    /// The isolation of a node that was open is on its way.
    pub(super) fn isolates(&self) -> bool {
        self.begun.get(&(Key::Node, false)).is_some_and(|begun| begun.grounds.isolates)
    }
}

/// What an action is about, and whether it is a heartbeat: while an answer hangs the hook is kept open (seed 2219). A target is
/// taken out or put back.
fn about(action: &Action) -> (Key, bool) {
    let key = match action {
        Action::Register(target) => Key::Deregistration(target.clone()),
        _ => action.key(),
    };
    (key, matches!(action, Action::Heartbeat(_)))
}

/// What is asked of the pod is the same. A grace that is cut shrinks each second, and keeps its place in the line.
fn is_alike(begun: &Action, wanted: &Action) -> bool {
    match (begun, wanted) {
        (Action::Evict { grace, .. }, Action::Evict { grace: other, .. }) => {
            grace.is_some() == other.is_some()
        }
        (begun, wanted) => std::mem::discriminant(begun) == std::mem::discriminant(wanted),
    }
}

#[cfg(test)]
mod tests {
    use offramp_core::{Pod, PodOrigin, Record, Seen};

    use super::*;
    use crate::learning::tests::world::{pod, target_key, untouched};

    fn showing(pods: Vec<Pod>) -> Observation {
        Observation { pods: Seen::Known(pods), ..untouched() }
    }

    fn evict(pod: &Pod) -> Action {
        Action::Evict { pod: pod.pod.clone(), origin: pod.origin.clone(), grace: None }
    }

    /// In flight, begun on what was seen then.
    fn in_flight(action: Action, seen: Observation) -> InFlight {
        let grounds = Grounds { seen, remainder: None, isolates: false, at: Timestamp::default() };
        let begun = Begun { action: action.clone(), grounds: Arc::new(grounds), evictions: None };
        InFlight { begun: BTreeMap::from([(about(&action), begun)]), ..InFlight::default() }
    }

    #[test]
    fn a_record_stays_until_it_is_known_what_became_of_its_targets() {
        let release = Action::Release { record: Record::default(), guard: "7".to_owned() };
        let leaves = in_flight(Action::Deregister(target_key()), untouched());
        assert!(!leaves.allows(&release, &untouched()));
        assert!(InFlight::default().allows(&release, &untouched()));
    }

    #[test]
    fn a_pod_in_the_place_of_one_whose_eviction_is_not_answered_waits_for_the_answer() {
        let of = |app: &str, name: &str| Pod { origin: PodOrigin(app.to_owned()), ..pod(name) };
        let (first, beside, other) = (of("web", "web-1"), of("web", "web-2"), of("api", "api-1"));
        let returned = of("web", "web-3");
        let leaves = in_flight(evict(&first), showing(vec![first.clone(), beside.clone()]));
        let gone = showing(vec![beside.clone(), other.clone(), returned.clone()]);
        assert!(!leaves.allows(&evict(&returned), &gone));
        assert!(leaves.allows(&evict(&beside), &gone), "it was there before");
        assert!(leaves.allows(&evict(&other), &gone));
        let still_there = showing(vec![first.clone(), returned.clone()]);
        assert!(leaves.allows(&evict(&returned), &still_there), "it is one more, and in nobody's place");
        assert!(!leaves.allows(&evict(&first), &still_there));
    }
}
