//! All that is known and owed for one instance.

use std::collections::BTreeMap;

use crate::*;

/// The merged notices about one instance and what was learned while working on them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job {
    /// The instance, key of everything.
    pub instance: InstanceId,
    /// Every notice that joined, in order of arrival, without copies. Never empty.
    pub notices: Vec<Notice>,
    /// How each notice reached this worker, for the first time.
    pub deliveries: BTreeMap<NoticeId, Delivery>,
    /// Results of earlier actions. Cheap to lose.
    pub memory: Memory,
}

/// How a notice reached this worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// When.
    pub at: Timestamp,
    /// Its message had been received before, by this worker or another.
    pub redelivered: bool,
}

impl Job {
    /// A job for the instance that the notice speaks of.
    pub fn new(notice: Notice, delivery: Delivery) -> Self {
        Self {
            instance: notice.instance.clone(),
            deliveries: BTreeMap::from([(notice.id.clone(), delivery)]),
            notices: vec![notice],
            memory: Memory::default(),
        }
    }

    /// Merges a notice about the same instance. Obligations are only added, deadlines only tightened,
    /// and nothing that was done is done again. False for a copy of a notice that the job has.
    pub fn join(&mut self, notice: Notice, delivery: Delivery) -> bool {
        // What was seen and is refused is over: an event tells of a later action.
        let memory = &self.memory;
        let is_over = |have: &Notice| {
            have.is_seen() && have.hook().is_some_and(|hook| memory.hook(&hook.key).refused.is_some())
        };
        let copy = |have: &Notice| have.id == notice.id || is_same(have, &notice) && !is_over(have);
        if let Some(have) = self.notices.iter_mut().find(|have| copy(have)) {
            // Of what was seen nobody knew more than when the group began; the event says when its hook did.
            if have.hook().is_some() && have.is_seen() && !notice.is_seen() {
                have.at = have.at.max(notice.at);
            }
            // By another route it may name the Region that the first delivery did not.
            if have.account_region.region.is_none() {
                have.account_region = notice.account_region;
            }
            return false;
        }
        self.deliveries.insert(notice.id.clone(), delivery);
        self.notices.push(notice);
        true
    }

    /// How a notice of this job reached this worker.
    pub(crate) fn delivery_of(&self, notice: &Notice) -> Delivery {
        self.deliveries.get(&notice.id).copied().unwrap_or(Delivery { at: notice.at, redelivered: false })
    }

    /// A worker may have served it before: it had the message, or saw what this one has seen.
    pub(crate) fn is_redelivered(&self, notice: &Notice) -> bool {
        self.delivery_of(notice).redelivered || notice.is_seen()
    }

    /// The hooks among the notices.
    pub fn hooks(&self) -> impl Iterator<Item = (&Notice, &Hook)> {
        self.notices.iter().filter_map(|notice| Some((notice, notice.hook()?)))
    }

    /// The earliest time of any notice.
    pub fn since(&self) -> Timestamp {
        self.notices.iter().map(|notice| notice.at).min().unwrap_or_default()
    }
}

/// Two notices say the same, though their ids differ.
fn is_same(a: &Notice, b: &Notice) -> bool {
    let (NoticeKind::Hook(one), NoticeKind::Hook(other)) = (&a.kind, &b.kind) else {
        return a.kind == NoticeKind::Record && b.kind == NoticeKind::Record;
    };
    let without_token =
        |hook: &Hook| Hook { key: HookKey { token: None, ..hook.key.clone() }, ..hook.clone() };
    match (one.key.token.is_some(), other.key.token.is_some()) {
        (true, true) => one.key == other.key,
        _ if without_token(one) != without_token(other) => false,
        // What was seen has the time at which the group began to end the instance. The event comes after that, by as
        // much as the group waits for its target groups; a later action begins later than the event of this one.
        (false, true) => a.at <= b.at + FRESH,
        (true, false) => b.at <= a.at + FRESH,
        (false, false) => a.at <= b.at + FRESH && b.at <= a.at + FRESH,
    }
}
