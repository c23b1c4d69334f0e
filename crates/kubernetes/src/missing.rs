//! Objects that the API server does not have, while the view goes on showing them (kubernetes/kubernetes#56261). A watch
//! can miss an end without a failure of its own; the answer to a write shows it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use offramp_core::PodRef;
use offramp_engine::ClusterCall;
use tokio::time::Instant;

use crate::proof::Proofs;

/// A job that still sees the object has asked again by then.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);
/// Of a view that is all wrong, one object is enough.
const MOST: usize = 1_024;

/// When an object was first answered to be gone.
#[derive(Debug)]
pub(crate) struct Missing {
    /// How long a watch may lag behind the answer.
    lag: Duration,
    first: Mutex<BTreeMap<Object, Instant>>,
}

/// As a job saw it in the view. One that was made anew has another version, or another UID.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Object {
    Node { name: String, version: String },
    Pod(PodRef),
}

impl Object {
    fn of(call: &ClusterCall) -> Option<Self> {
        Some(match call {
            ClusterCall::Isolate { node, guard, .. }
            | ClusterCall::Exclude { node, guard, .. }
            | ClusterCall::WriteRecord { node, guard, .. }
            | ClusterCall::Release { node, guard, .. } => {
                Self::Node { name: node.as_str().to_owned(), version: guard.clone() }
            }
            ClusterCall::Evict { pod, .. } | ClusterCall::Delete { pod, .. } => Self::Pod(pod.clone()),
            ClusterCall::ListPods { .. } => return None,
        })
    }
}

impl Missing {
    pub(crate) fn new(lag: Duration) -> Self {
        Self { lag, first: Mutex::default() }
    }

    /// This call was answered with "gone". Who makes it has read the object from the view, so that the second one
    /// says what the view shows by then; without a second one, nobody is misled.
    pub(crate) fn answered(&self, call: &ClusterCall, now: Instant, proofs: &Proofs) {
        let Some(object) = Object::of(call) else { return };
        if self.is_still_held(&object, now) {
            let watch = if matches!(object, Object::Pod(_)) { &proofs.pods } else { &proofs.nodes };
            watch.distrusted.notify_one();
        }
    }

    fn is_still_held(&self, object: &Object, now: Instant) -> bool {
        let mut first = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        first.retain(|_, at| now.duration_since(*at) < FORGOTTEN_AFTER);
        match first.get(object) {
            Some(at) if now.duration_since(*at) >= self.lag => {
                // The list answers for all others, too: each of them would ask for one more.
                first.clear();
                true
            }
            Some(_) => false,
            None if first.len() >= MOST => false,
            None => {
                first.insert(object.clone(), now);
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use offramp_core::PodUid;

    use super::*;

    fn pod(n: usize) -> Object {
        let (namespace, name) = ("shop".to_owned(), format!("web-{n}"));
        Object::Pod(PodRef { namespace, name, uid: PodUid::from("uid") })
    }

    fn node(version: &str) -> Object {
        Object::Node { name: "n1".to_owned(), version: version.to_owned() }
    }

    #[test]
    fn an_object_is_missing_when_it_is_gone_and_held_for_longer_than_a_watch_lags() {
        let missing = Missing::new(Duration::from_secs(10));
        let begin = Instant::now();
        let check = |object: &Object, after: u64, expect: bool| {
            let found = missing.is_still_held(object, begin + Duration::from_secs(after));
            assert_eq!(found, expect, "{object:?} after {after} s");
        };
        check(&node("7"), 0, false);
        check(&node("7"), 9, false);
        check(&node("8"), 11, false);
        check(&node("7"), 12, true);
        // One list is asked for, and what it shows counts anew.
        check(&node("7"), 13, false);
        check(&node("8"), 23, false);
        check(&node("7"), 23, true);
        // What nobody asks for again is forgotten.
        check(&node("9"), 30, false);
        check(&node("9"), 631, false);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let missing = Missing::new(Duration::from_secs(10));
        let now = Instant::now();
        for n in 0..3 * MOST {
            assert!(!missing.is_still_held(&pod(n), now));
        }
        assert_eq!(missing.first.lock().unwrap().len(), MOST);
        assert!(missing.is_still_held(&pod(0), now + Duration::from_secs(10)));
    }
}
