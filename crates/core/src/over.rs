//! How a notice comes to its end.

/// How a notice came to an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Over {
    /// The hook is answered, by us or by anybody.
    Answered,
    /// The hook's action cannot be open any more, and it was not our answer that ended it.
    EndedWithoutUs,
    /// The same for a message that an earlier worker had: it has probably answered.
    WasNotOpen,
    /// The group never said that the instance stays, so that nothing may be undone; and never that it goes.
    LeftIsolated,
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
    /// The ends after which nothing of what was done is undone: the instance is on its way, or nobody knows.
    /// Of several the first counts, because somebody should look at it.
    pub(crate) const FINAL: [Self; 5] =
        [Self::EndedWithoutUs, Self::Answered, Self::Ended, Self::WasNotOpen, Self::LeftIsolated];
}
