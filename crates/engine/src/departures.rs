//! Which instances the jobs of this worker take away. The gate has to know of them where no record says so: a node that was
//! deleted, or cannot be written.

use std::collections::BTreeMap;
use std::sync::Arc;

use offramp_core::{InstanceId, Timestamp};
use tokio::sync::watch;

/// Shared by all jobs: since when an instance leaves.
#[derive(Clone)]
pub(crate) struct Departures(Arc<watch::Sender<Told>>);

#[derive(Default)]
struct Told {
    since: BTreeMap<InstanceId, Timestamp>,
    changes: u64,
}

/// What one job says of its instance. It says nothing any more once it is dropped, after a panic too.
pub(crate) struct Departure {
    departures: Departures,
    instance: InstanceId,
}

impl Departures {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::default()))
    }

    /// Since when this instance leaves, as far as its job here knows.
    pub(crate) fn since(&self, instance: &InstanceId) -> Option<Timestamp> {
        self.0.borrow().since.get(instance).copied()
    }

    /// Grows with each change.
    pub(crate) fn version(&self) -> u64 {
        self.0.borrow().changes
    }

    /// For the job of this instance.
    pub(crate) fn of(&self, instance: &InstanceId) -> Departure {
        Departure { departures: self.clone(), instance: instance.clone() }
    }
}

impl Departure {
    /// Since when the instance leaves, or that it does not.
    pub(crate) fn tell(&self, since: Option<Timestamp>) {
        if self.departures.since(&self.instance) == since {
            return;
        }
        self.departures.0.send_modify(|told| {
            match since {
                Some(since) => told.since.insert(self.instance.clone(), since),
                None => told.since.remove(&self.instance),
            };
            told.changes += 1;
        });
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        self.tell(None);
    }
}
