//! How a claim comes to its end: what was done stays done, or it is undone.

/// How a claim ended after which nothing is undone: the instance is on its way, or nobody knows. Of several in one
/// job the first counts: somebody should look at it, or it says most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ended {
    /// The hook's action cannot be open any more, and it was not our answer that ended it.
    WithoutOurAnswer,
    /// We answered the hook, and no node of its living instance was ever seen.
    AnsweredUnseen,
    /// Several Ready nodes name the instance, so that none of them was touched.
    Twins,
    /// All else was done for a node that could not be written.
    Unisolated,
    /// The hook is answered, by us or by anybody.
    Answered,
    /// What was announced has happened: the time of the notice is over, and its node has gone or answers no more.
    InstanceEnded,
    /// The hook's action cannot be open any more; an earlier worker had its message and has probably answered.
    WasNotOpen,
    /// The group never said that the instance stays, so that nothing may be undone; and never that it goes.
    LeftIsolated,
}

/// Why a claim is no more, so that what was done for it is undone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndoReason {
    /// The hook is somebody else's.
    NotOurs,
    /// The group says that the instance is in service.
    InService,
    /// Auto Scaling does not list the instance, and its kubelet works on.
    NotAMember,
    /// The spot notice's time is over and the node still works.
    Stale,
    /// The node or the group is not ours to touch.
    LeftAlone(LeftAlone),
    /// The policy asks for nothing.
    ByPolicy,
    /// What was expected never came.
    PatienceOver,
    /// The instance is back in service.
    Reprieved,
    /// Its time was over long ago, nobody worked on it any more, and the instance is in service.
    Overdue,
    /// Somebody has looked after it meanwhile.
    LookedAfter,
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
