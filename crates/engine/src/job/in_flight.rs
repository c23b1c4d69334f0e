//! What a job has begun and not seen the end of. It goes on meanwhile: a call that hangs holds up nothing but itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::stream::{FuturesUnordered, StreamExt};
use offramp_core::{Action, ActionResult, InstanceId, Key, Observation, Remainder};

use crate::act::Act;
use crate::evictions::Evictions;

/// What actions follow from.
pub(super) struct Grounds {
    pub(super) seen: Observation,
    /// What is left if a hook is answered now.
    pub(super) remainder: Option<Remainder>,
    /// The node was open, and leaves.
    pub(super) isolates: bool,
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
    begun: BTreeMap<(Key, bool), (Action, Arc<Grounds>)>,
}

impl InFlight {
    /// Whether nothing of the kind is in flight, so that it may begin.
    pub(super) fn allows(&self, action: &Action) -> bool {
        !self.begun.contains_key(&about(action))
    }

    pub(super) fn begin(&mut self, act: Act, action: Action, grounds: &Arc<Grounds>) {
        self.begun.insert(about(&action), (action.clone(), Arc::clone(grounds)));
        let grounds = Arc::clone(grounds);
        self.acts.push(Box::pin(async move { Finished { result: act.perform().await, action, grounds } }));
    }

    /// What waits for its turn, and is not wanted any more, or otherwise, is withdrawn: its pod is gone, or has to be deleted by now.
    pub(super) fn withdraw(&self, evictions: &Evictions, instance: &InstanceId, wanted: &[Action]) {
        let wanted: BTreeMap<_, _> = wanted.iter().map(|action| (about(action), action)).collect();
        for (about, (begun, _)) in &self.begun {
            if let Action::Evict { pod, .. } | Action::Delete { pod, .. } = begun
                && wanted.get(about) != Some(&begun)
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
        self.begun.get(&(Key::Node, false)).is_some_and(|(_, grounds)| grounds.isolates)
    }
}

/// What an action is about, and whether it is a heartbeat: while an answer hangs the hook is kept open (seed 2219).
fn about(action: &Action) -> (Key, bool) {
    (action.key(), matches!(action, Action::Heartbeat(_)))
}
