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
    order: Order,
    number: u64,
}

/// Among what presses alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Order {
    /// By deadline, and of one deadline whoever asked longest ago.
    ByDeadline(Timestamp, Timestamp),
    /// Whoever asked longest ago, and of those by deadline.
    Around(Timestamp, Timestamp),
}

/// Of a job that has none.
const NO_DEADLINE: Timestamp = Timestamp::from_millis(i64::MAX);

impl Turn {
    pub(crate) fn new(urgency: Urgency, deadline: Option<Timestamp>, number: u64) -> Self {
        Self::behind_budget(urgency, Timestamp::default(), deadline, number)
    }

    pub(crate) fn is_forced(&self) -> bool {
        self.urgency == Urgency::Forced
    }

    /// Among those that a budget refuses: it lets any of them go, and whoever has least time is next. Whoever comes later would
    /// go before otherwise, and the first would be forced (machine-controller-manager#52).
    pub(crate) fn behind_budget(
        urgency: Urgency,
        asked_at: Timestamp,
        deadline: Option<Timestamp>,
        number: u64,
    ) -> Self {
        Self { urgency, order: Order::ByDeadline(deadline.unwrap_or(NO_DEADLINE), asked_at), number }
    }

    /// Among those that something else refuses, such as a webhook: it may judge each by itself.
    pub(crate) fn behind_judge(
        urgency: Urgency,
        asked_at: Timestamp,
        deadline: Option<Timestamp>,
        number: u64,
    ) -> Self {
        Self { urgency, order: Order::Around(asked_at, deadline.unwrap_or(NO_DEADLINE)), number }
    }
}
