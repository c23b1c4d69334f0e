//! What the sweep found, on its way to the queue, and for people when that did not help.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use offramp_core::{AccountRegion, GroupName, HookName, InstanceId, Notice, Timestamp};
use offramp_wire::own_message;

use super::ClusterNode;
use crate::clock::Clock;
use crate::fact::Fact;
use crate::journal::Journal;
use crate::ports::{Fault, Queue};
use crate::retry::{GrowingPauses, timeout};
use crate::unfinished::{Unfinished, UnfinishedKind};

/// What was sent is not sent again for so long: for an instance without a node nothing else says that it was.
const REMEMBERED: Duration = Duration::from_secs(3_600);
/// After so long a job would have ended it, or shown on the node that it works on it: three sweeps, and three times the
/// deregistration delay of 300 s, for which a job without a node may wait.
pub(super) const STUCK: Duration = Duration::from_secs(900);
/// With growing pauses between them, some three seconds. The next sweep tries again.
const TRIES: usize = 5;
/// SQS takes ten messages at a time.
const MOST_SENT: usize = 10;

/// Something that a job should look after.
pub(super) struct Found {
    pub(super) what: What,
    pub(super) notice: Notice,
    /// Its node, where there is one.
    pub(super) node: Option<ClusterNode>,
    /// If it stays, it is certain that nobody has looked after it.
    pub(super) is_sure: bool,
}

/// What was found, by what stays the same from one sweep to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum What {
    /// A hook holds the instance, since then where that is known: a later action is another one.
    Hook(InstanceId, GroupName, HookName, Option<Timestamp>),
    /// The record of its node is overdue: the group showed the instance in this state, and the newest entry was written
    /// then. One that goes and comes back within an hour is another one.
    Record(InstanceId, Option<String>, Option<Timestamp>),
}

/// Sends what is found, each thing once an hour.
pub(crate) struct Outbox {
    queue: Arc<dyn Queue>,
    /// What is found is put onto the queue; otherwise it is only told.
    sends: bool,
    clock: Clock,
    journal: Journal,
    sent: BTreeMap<What, Sent>,
}

/// When something was found for the first time, and when it was last sent, if it could be.
#[derive(Clone, Debug)]
struct Sent {
    first: Timestamp,
    last: Option<Timestamp>,
    account_region: AccountRegion,
}

impl Outbox {
    pub(crate) fn new(queue: Arc<dyn Queue>, sends: bool, clock: Clock, journal: Journal) -> Self {
        Self { queue, sends, clock, journal, sent: BTreeMap::new() }
    }

    /// Sends what is new, and says what has been found for so long that no message helps. Of places that could not be
    /// read nothing is forgotten.
    pub(super) async fn send_new(
        &mut self,
        found: Vec<Found>,
        unread: &BTreeSet<AccountRegion>,
        now: Timestamp,
    ) -> Vec<Unfinished> {
        let lately = |sent: &Sent| sent.last.is_some_and(|last| now.since(last) < REMEMBERED);
        let still: BTreeSet<What> = found.iter().map(|one| one.what.clone()).collect();
        self.sent.retain(|what, sent| {
            still.contains(what) || lately(sent) || unread.contains(&sent.account_region)
        });
        let mut unfinished = Vec::new();
        let mut new = Vec::new();
        for one in found {
            let account_region = one.notice.account_region.clone();
            let new_one = Sent { first: now, last: None, account_region };
            let sent = self.sent.entry(one.what.clone()).or_insert(new_one);
            if one.is_sure && now.since(sent.first) >= STUCK {
                unfinished.push(one.unfinished(sent.first));
            }
            if !lately(sent) {
                new.push(one);
            }
        }
        let all: Vec<What> = new.iter().map(|one| one.what.clone()).collect();
        let on_the_queue = if self.sends { self.send(new).await } else { BTreeSet::new() };
        for what in all {
            let Some(record) = self.sent.get_mut(&what) else { continue };
            let sent = on_the_queue.contains(&what);
            // What the queue does not take is tried again with the next sweep, and told once.
            if sent || record.first == now {
                let (instance, what) = (what.instance().clone(), what.kind());
                self.journal.record(Fact::Found { instance, what, sent });
            }
            record.last = (sent || !self.sends).then_some(now);
        }
        unfinished
    }

    /// Those that are on the queue now.
    async fn send(&self, mut waiting: Vec<Found>) -> BTreeSet<What> {
        let mut sent = BTreeSet::new();
        let mut pauses = GrowingPauses::new("sweep");
        for _ in 0..TRIES {
            let mut again = Vec::new();
            // A queue that takes nothing of ten messages takes none of the others.
            while !waiting.is_empty() && again.len() < MOST_SENT {
                let some = waiting.split_off(waiting.len().saturating_sub(MOST_SENT));
                let answers = self.send_some(&some).await;
                for (found, answer) in some.into_iter().zip(answers) {
                    match answer {
                        Ok(()) => {
                            sent.insert(found.what);
                        }
                        Err(fault) => {
                            again.extend(matches!(fault, Fault::Retry(_)).then_some(found));
                            self.journal.record(Fact::QueueFaulted { fault });
                        }
                    }
                }
            }
            waiting.extend(again);
            if waiting.is_empty() {
                break;
            }
            self.clock.sleep_until(self.clock.now() + pauses.next()).await;
        }
        sent
    }

    async fn send_some(&self, found: &[Found]) -> Vec<Result<(), Fault>> {
        let unwritable = || Fault::Invalid("writing a message of our own: its time has no form".to_owned());
        let bodies = found.iter().map(|found| own_message(&found.notice).ok_or_else(unwritable));
        let send = async {
            let bodies = bodies.collect::<Result<Vec<String>, Fault>>()?;
            Ok(self.queue.send(&bodies).await)
        };
        let sent = timeout("sending messages to the queue", send).await;
        sent.unwrap_or_else(|fault| vec![Err(fault); found.len()])
    }
}

impl What {
    pub(super) fn instance(&self) -> &InstanceId {
        match self {
            Self::Hook(instance, ..) | Self::Record(instance, ..) => instance,
        }
    }

    fn kind(&self) -> UnfinishedKind {
        match self {
            Self::Hook(..) => UnfinishedKind::WaitingHook,
            Self::Record(..) => UnfinishedKind::OverdueRecord,
        }
    }
}

impl Found {
    fn unfinished(&self, since: Timestamp) -> Unfinished {
        Unfinished {
            what: self.what.kind(),
            instance: self.what.instance().clone(),
            account_region: self.notice.account_region.clone(),
            cluster: self.node.as_ref().map(|node| node.cluster.clone()),
            node: self.node.as_ref().map(|node| node.node.name.clone()),
            since,
        }
    }
}
