//! Somebody who sees what the worker does at door one, each call at the moment before it takes effect,
//! with the whole world as it is then. A simulation checks its invariants there.

use std::fmt;

use offramp_core::ClusterName;
use offramp_engine::{ClusterCall, GroupCall, TargetCall};

use crate::World;
use crate::world::queue::Stored;

/// One thing that the worker is about to change.
#[derive(Clone, Copy, Debug)]
pub enum WorkerCall<'a> {
    /// In Auto Scaling.
    Group(&'a GroupCall),
    /// In a target group.
    Target(&'a TargetCall),
    /// In a cluster. Its API server may still refuse.
    Cluster(&'a ClusterName, &'a ClusterCall),
    /// This message will be gone.
    Delete(&'a Stored),
}

/// Who watches, if anybody.
#[derive(Default)]
pub struct Witness(Option<Box<Sees>>);

type Sees = dyn FnMut(&World, WorkerCall<'_>) + Send;

impl Witness {
    /// Shows every call from now on.
    pub fn new(sees: impl FnMut(&World, WorkerCall<'_>) + Send + 'static) -> Self {
        Self(Some(Box::new(sees)))
    }
}

impl fmt::Debug for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Witness").field(&self.0.is_some()).finish()
    }
}

impl World {
    /// Shows a call to whoever watches.
    pub(crate) fn show(&mut self, call: WorkerCall<'_>) {
        if let Some(mut sees) = self.witness.0.take() {
            sees(self, call);
            self.witness.0 = Some(sees);
        }
    }

    /// Shows that a message is about to be deleted, where this receipt does delete one.
    pub(crate) fn show_delete(&mut self, queue: &str, receipt: &str) {
        let message = self.queues.get(queue).and_then(|queue| queue.delivered_as(receipt)).cloned();
        if let Some(message) = message {
            self.show(WorkerCall::Delete(&message));
        }
    }
}
