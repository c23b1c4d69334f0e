//! How a notice comes to its end.

/// How a notice came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The hook is answered, by us or by anybody.
    Answered,
    /// The hook is somebody else's.
    NotOurs,
    /// The group says that the instance is not held by this hook.
    Disagrees,
    /// The spot notice's time is over and the node still works.
    Stale,
    /// The spot notice's time is over.
    Ended,
    /// The node or the group is not ours to touch.
    LeftAlone(LeftAlone),
    /// The policy asks for nothing.
    ByPolicy,
    /// What was expected never came.
    PatienceOver,
    /// The instance is back in service.
    Reprieved,
    /// A launch hook: this version does not let instances in.
    NotServed,
}

/// Why a node or group is not touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeftAlone {
    /// A node of Karpenter.
    Karpenter,
    /// A node of EKS Auto Mode.
    AutoMode,
    /// The node selector does not match.
    NotSelected,
    /// The group is out of scope by its tags.
    GroupOutOfScope,
}

impl Over {
    /// The instance is really on its way: nothing of what was done is to be undone.
    pub(crate) const fn is_departure(self) -> bool {
        match self {
            Self::Answered | Self::Ended => true,
            Self::NotOurs
            | Self::Disagrees
            | Self::Stale
            | Self::LeftAlone(_)
            | Self::ByPolicy
            | Self::PatienceOver
            | Self::Reprieved
            | Self::NotServed => false,
        }
    }
}
