//! Whose turn it is.

use offramp_core::Timestamp;

/// How much a pod's going presses. The order is that of turns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Urgency {
    /// It is deleted, or asked with less than its grace: the end is near.
    Forced,
    /// For a notice of two minutes.
    Pressing,
    /// Nobody has asked yet.
    New,
    /// It was refused before.
    Refused,
}

impl Urgency {
    /// What presses goes on pressing.
    pub(crate) fn once_refused(self) -> Self {
        if self == Self::New { Self::Refused } else { self }
    }
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    urgency: Urgency,
    /// Whoever asked longest ago is next.
    asked_at: Timestamp,
    deadline: Timestamp,
    number: u64,
}

/// Of a job that has none.
const NO_DEADLINE: Timestamp = Timestamp::from_millis(i64::MAX);

impl Turn {
    pub(crate) fn new(urgency: Urgency, deadline: Option<Timestamp>, number: u64) -> Self {
        Self::behind(urgency, Timestamp::default(), deadline, number)
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.urgency == Urgency::Forced
    }

    /// Among those that something refuses.
    pub(crate) fn behind(
        urgency: Urgency,
        asked_at: Timestamp,
        deadline: Option<Timestamp>,
        number: u64,
    ) -> Self {
        Self { urgency, asked_at, deadline: deadline.unwrap_or(NO_DEADLINE), number }
    }
}
