//! What a job has begun and not seen the end of. It goes on meanwhile: a call that hangs holds up nothing but itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{Action, ActionResult, InstanceId, Key, Observation, Remainder, Timestamp};

use crate::act::Act;
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
    /// Whether nothing of the kind is in flight, so that it may begin.
    /// The record stays on the node until it is known what became of its targets.
    pub(super) fn allows(&self, action: &Action) -> bool {
        let of_target = |(key, _): &(Key, bool)| matches!(key, Key::Deregistration(_));
        let releases = matches!(action, Action::Release { .. });
        !(self.begun.contains_key(&about(action)) || releases && self.begun.keys().any(of_target))
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
