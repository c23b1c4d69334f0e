//! What is done again after a call, and by what it is known again. How long it rests until then is the engine's
//! to say: one place for all pauses (docs/decisions/002).

use crate::*;

/// Whether an action is repeated if what it was about stays as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// It worked, and needs no second time.
    Never,
    /// After a pause of this kind, longer each time where the kind says so.
    Again(Pause, Key),
    /// When it is its turn, among all that the same refuses.
    InTurn,
}

/// Why something rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// A write to the node that the API server took, or refused because the node has changed or is gone: a watch has to
    /// show it first (seed 34503: a thousand writes to a deleted node in a moment).
    NodeUnshown,
    /// A write to the node that somebody else's came before, again and again.
    NodeConflict,
    /// A write to the node that was not answered: it may have happened.
    NodeUnanswered,
    /// A write to the node that the API server will not do, or that somebody undoes.
    NodeRefused,
    /// An eviction that was taken: a watch has to show it.
    Eviction,
    /// A deletion that was refused.
    Deletion,
    /// A list of pods that failed, or showed what the watch did not.
    PodList,
    /// A write to AWS that failed.
    Write,
    /// A deregistration that worked: somebody may put the target back.
    Deregistered,
    /// A call about a hook that failed.
    Hook,
    /// A call about a hook that AWS says is not open.
    HookRefused,
    /// An answer to a hook that AWS took: the group has to show it.
    Confirmation,
}

impl Action {
    /// What the action is about.
    pub fn key(&self) -> Key {
        match self {
            Self::Isolate { .. } | Self::Exclude { .. } | Self::WriteRecord { .. } | Self::Release { .. } => {
                Key::Node
            }
            Self::Evict { pod, .. } | Self::Delete { pod, .. } => Key::Pod(pod.uid.clone()),
            Self::ListPods { .. } => Key::PodList,
            Self::Heartbeat(hook) | Self::CompleteHook(hook) => Key::Hook(hook.clone()),
            Self::Deregister(target) => Key::Deregistration(target.clone()),
            Self::Register(target) => Key::Registration(target.clone()),
            Self::Detach { group } | Self::TerminateThroughGroup { group } => Key::Membership(group.clone()),
        }
    }

    /// Of a write to the node: the resourceVersion that it may go over.
    pub fn guard(&self) -> Option<&str> {
        if let Self::Isolate { guard, .. }
        | Self::Exclude { guard, .. }
        | Self::WriteRecord { guard, .. }
        | Self::Release { guard, .. } = self
        {
            Some(guard)
        } else {
            None
        }
    }

    /// Whether it is repeated after this outcome.
    pub fn repeat(&self, outcome: &ActionResult) -> Repeat {
        let worked = matches!(outcome, Ok(Outcome::Done | Outcome::Gone));
        let pause = match self {
            Self::Isolate { .. } | Self::Exclude { .. } | Self::WriteRecord { .. } | Self::Release { .. } => {
                match outcome {
                    Ok(Outcome::Done | Outcome::Changed | Outcome::Gone) => Pause::NodeUnshown,
                    Err(Failure::Retry) => Pause::NodeUnanswered,
                    Ok(Outcome::Blocked { .. } | Outcome::Vetoed { .. })
                    | Err(Failure::Denied | Failure::Invalid) => {
                        return Repeat::Again(Pause::NodeRefused, Key::Unwritten);
                    }
                }
            }
            Self::Delete { .. } if !worked => Pause::Deletion,
            Self::Evict { .. } if !worked => return Repeat::InTurn,
            Self::Evict { .. } | Self::Delete { .. } => Pause::Eviction,
            Self::ListPods { .. } if worked => return Repeat::Never,
            Self::ListPods { .. } => Pause::PodList,
            Self::Heartbeat(_) if *outcome == Ok(Outcome::Done) => return Repeat::Never,
            Self::CompleteHook(_) if *outcome == Ok(Outcome::Done) => Pause::Confirmation,
            Self::Heartbeat(_) | Self::CompleteHook(_) if *outcome == Ok(Outcome::Gone) => Pause::HookRefused,
            Self::Heartbeat(_) | Self::CompleteHook(_) => Pause::Hook,
            Self::Deregister(_) | Self::Detach { .. } | Self::TerminateThroughGroup { .. } if !worked => {
                Pause::Write
            }
            // An instance that was launched a moment ago ELB knows a little later.
            Self::Register(_) if *outcome != Ok(Outcome::Done) => Pause::Write,
            // DescribeTargetHealth may lag behind both.
            Self::Deregister(_) | Self::Register(_) => Pause::Deregistered,
            Self::Detach { .. } | Self::TerminateThroughGroup { .. } => return Repeat::Never,
        };
        Repeat::Again(pause, self.key())
    }
}
