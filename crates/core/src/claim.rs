//! What a notice claims at one moment: what it is entitled to, what it demands, and by when.

use crate::*;

/// A notice, and what follows from it now. Made by the file of its kind in `triggers/`.
#[derive(Debug)]
pub(crate) struct Claim<'a> {
    pub(crate) notice: &'a Notice,
    pub(crate) entitlement: Entitlement,
    /// All that its trigger asks for where it acts, the cordon alone where it only isolates, else nothing.
    pub(crate) demands: Demands,
    /// When the node has to be empty and the answer given, where something says so.
    pub(crate) until: Option<Deadline>,
}

/// What a notice entitles us to at this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entitlement {
    /// Everything that its trigger demands.
    Acts,
    /// The cordon only: the event is fresh, and the source that owns the fact has not confirmed it.
    Isolates,
    /// The cordon, and the question to AWS whether its action is open: the group shows its Wait state, and some hook that
    /// is not known holds the instance.
    Asks,
    /// AWS took our answer: nothing more but to see it in the group.
    Confirms,
    /// Nothing yet, but it is not over: the group or the node is not known.
    Waits,
    /// The instance has gone for a while (root volume, stop, hibernation), and will be back.
    Returns,
    /// Nothing any more, and what was done stays done.
    Ended(Ended),
    /// Nothing any more, and what was done is undone.
    Undo(UndoReason),
}

/// What a trigger asks for, stage by stage. Those of one job are united: of two the later variant wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Demands {
    /// Of the stage Isolate.
    pub isolate: Isolation,
    /// Of the stage Deregister.
    pub deregister: Deregistration,
    /// Of the stage Drain: every evictable pod has to leave.
    pub drain: bool,
    /// Of the stage Detach.
    pub detach: Detachment,
    /// Of the stage Quiesce: the last request has to be answered.
    pub quiesce: bool,
    /// Of the stage Complete.
    pub at_the_end: AtTheEnd,
}

/// How the node is isolated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// With the cordon; the exclude label follows with the deregistration.
    #[default]
    Cordon,
    /// With cordon and exclude label in one write. AWS is told without them where that write fails once or
    /// is not done within some seconds.
    CordonAndLabel,
}

/// Whether the instance is taken out of its load balancers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Deregistration {
    /// No.
    #[default]
    No,
    /// Yes, when the gate lets it.
    Gated,
    /// Yes, and the gate is not asked.
    AtOnce,
}

/// How the group stops counting on the instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Detachment {
    /// It goes on.
    #[default]
    No,
    /// We tell it, so that the replacement starts before the instance ends.
    ForReplacement,
    /// It has stopped by itself: that is what the notice says.
    ByDefinition,
}

/// What is left when all else is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum AtTheEnd {
    /// What was announced may come or not: it is waited for.
    #[default]
    AwaitInterruption,
    /// The instance comes back with its node as it was.
    AwaitReturn,
    /// Nothing.
    Nothing,
    /// Our hook is answered.
    AnswerHook,
}

/// When a claim has to be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Deadline {
    /// When the pods have to be gone.
    pub(crate) pods: Timestamp,
    /// When the hooks have to be answered at the latest.
    pub(crate) answer: Timestamp,
    /// A heartbeat that has not been tried yet would move it out: force nothing before that.
    pub(crate) provisional: bool,
    /// AWS refuses this hook again and again: beside another of ours that holds the instance it has most likely
    /// timed out, and its end presses nobody. Alone it is all that is known.
    pub(crate) doubtful: bool,
}

impl Demands {
    /// What all of them ask for.
    pub(crate) fn unite(self, other: Self) -> Self {
        Self {
            isolate: self.isolate.max(other.isolate),
            deregister: self.deregister.max(other.deregister),
            drain: self.drain || other.drain,
            detach: self.detach.max(other.detach),
            quiesce: self.quiesce || other.quiesce,
            at_the_end: self.at_the_end.max(other.at_the_end),
        }
    }
}

impl Deadline {
    /// The tightest of these.
    pub(crate) fn tightest(deadlines: impl Iterator<Item = Self> + Clone) -> Option<Self> {
        let sure = deadlines.clone().filter(|deadline| !deadline.doubtful);
        sure.reduce(Self::tighter).or_else(|| deadlines.reduce(Self::tighter))
    }

    fn tighter(self, other: Self) -> Self {
        // A firm end stays firm: what a heartbeat could move out does not loosen it.
        let sooner = if other.pods < self.pods { other } else { self };
        Self { answer: self.answer.min(other.answer), ..sooner }
    }
}

impl<'a> Claim<'a> {
    pub(crate) fn acts(&self) -> bool {
        self.entitlement == Entitlement::Acts
    }

    /// It waits neither for a second try to isolate nor for some seconds.
    pub(crate) fn presses(&self) -> bool {
        self.demands.isolate == Isolation::CordonAndLabel
    }

    /// The node has to be isolated for it.
    pub(crate) fn isolates(&self) -> bool {
        matches!(self.entitlement, Entitlement::Acts | Entitlement::Isolates | Entitlement::Asks)
    }

    /// The hook that it speaks of, where this version serves hooks of its kind.
    pub(crate) fn hook(&self) -> Option<&'a Hook> {
        self.notice.hook().filter(|hook| hook.passage.wait_state().is_some())
    }
}
