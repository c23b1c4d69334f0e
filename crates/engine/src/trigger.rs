//! What a notice came from: one word for it in metrics, logs and answers.

use offramp_core::NoticeKind;

/// What a notice came from, as a label of metrics and a word of logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Trigger {
    /// An Auto Scaling lifecycle action.
    Hook,
    /// A spot interruption notice.
    Spot,
    /// A rebalance recommendation.
    Rebalance,
}

impl Trigger {
    /// Every trigger.
    pub const ALL: [Self; 3] = [Self::Hook, Self::Spot, Self::Rebalance];

    /// What a notice of this kind came from.
    pub const fn of(kind: &NoticeKind) -> Self {
        match kind {
            NoticeKind::Hook(_) => Self::Hook,
            NoticeKind::Spot(_) => Self::Spot,
            NoticeKind::Rebalance => Self::Rebalance,
        }
    }

    /// The word used for it everywhere.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hook => "hook",
            Self::Spot => "spot",
            Self::Rebalance => "rebalance",
        }
    }
}
