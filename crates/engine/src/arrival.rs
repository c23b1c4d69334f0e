//! What reaches a job from outside, and its sign of life in return.

use std::sync::Arc;

use offramp_core::{Delivery, Notice, Timestamp};
use tokio::sync::OwnedSemaphorePermit;

use crate::ports::{MessageId, Receipt};

/// One notice on its way to its job.
pub(crate) struct Arrival {
    pub(crate) notice: Notice,
    pub(crate) message: MessageId,
    pub(crate) receipt: Receipt,
    pub(crate) delivery: Delivery,
    /// Held until the first try to isolate.
    pub(crate) permit: Option<Arc<OwnedSemaphorePermit>>,
}

/// What a job is told while it runs.
pub(crate) enum Input {
    Arrival(Box<Arrival>),
    /// The receipt of this message is worth nothing any more.
    LeaseLost(MessageId),
}

/// A job's sign of life: its messages are held as long as it keeps its promise.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Alive {
    /// When it will have looked again.
    pub(crate) looks_again_by: Timestamp,
}
