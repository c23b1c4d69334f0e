//! Whose turn it is.

use offramp_core::{Key, Timestamp};

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
    /// Of an eviction that respects budgets and grace.
    pub(crate) const fn of(presses: bool) -> Self {
        if presses { Self::Pressing } else { Self::New }
    }

    /// What presses goes on pressing.
    pub(crate) fn once_refused(self) -> Self {
        if self == Self::New { Self::Refused } else { self }
    }
}

/// A place in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Turn {
    urgency: Urgency,
    /// Deadline and when it was asked for the last time, in the order in which they count.
    order: [Timestamp; 2],
    number: u64,
}

/// Of a job that has none.
const NO_DEADLINE: Timestamp = Timestamp::from_millis(i64::MAX);

impl Turn {
    pub(crate) fn new(urgency: Urgency, deadline: Option<Timestamp>, number: u64) -> Self {
        Self { urgency, order: [deadline.unwrap_or(NO_DEADLINE), Timestamp::default()], number }
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.urgency == Urgency::Forced
    }

    /// Among those that something refuses. A budget lets any of them go, and whoever has least time is next: whoever comes later
    /// would go before otherwise, and the first would be forced (machine-controller-manager#52). Anything else, such as a
    /// webhook, may judge each by itself: there the one that was asked longest ago is next.
    pub(crate) fn behind(
        key: &Key,
        urgency: Urgency,
        asked_at: Timestamp,
        deadline: Option<Timestamp>,
        number: u64,
    ) -> Self {
        let deadline = deadline.unwrap_or(NO_DEADLINE);
        let by_deadline = matches!(key, Key::Budget(..));
        Self { urgency, order: if by_deadline { [deadline, asked_at] } else { [asked_at, deadline] }, number }
    }
}
