//! Who wants to know when something changes, by what it is about.

use std::collections::{BTreeMap, BTreeSet};

use offramp_core::InstanceId;
use tokio::sync::watch;

/// What somebody wants to hear of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Subject {
    /// The node of an instance, and its pods.
    Instance(InstanceId),
    /// Pods of a namespace become ready.
    Readiness(String),
}

/// What a piece of news is about.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Nothing,
    Some(BTreeSet<Subject>),
    Everything,
}

#[derive(Debug, Default)]
pub(super) struct Channels {
    pub(super) by_subject: BTreeMap<Subject, watch::Sender<u64>>,
    /// At this size the channels that nobody listens to are looked for.
    sweep_at: usize,
}

impl Touched {
    pub(super) fn of(subject: Subject) -> Self {
        Self::Some(BTreeSet::from([subject]))
    }

    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nothing, other) | (other, Self::Nothing) => other,
            (Self::Some(one), Self::Some(other)) => Self::Some(one.into_iter().chain(other).collect()),
            (Self::Everything, _) | (_, Self::Everything) => Self::Everything,
        }
    }
}

impl Channels {
    pub(super) fn subscribe(&mut self, subject: &Subject) -> watch::Receiver<u64> {
        if let Some(channel) = self.by_subject.get(subject) {
            return channel.subscribe();
        }
        // Doubling keeps the sweeps cheap on average, however many channels are asked for at once.
        if self.by_subject.len() >= self.sweep_at {
            self.by_subject.retain(|_, channel| channel.receiver_count() > 0);
            self.sweep_at = (2 * self.by_subject.len()).max(64);
        }
        let (channel, changes) = watch::channel(0);
        self.by_subject.insert(subject.clone(), channel);
        changes
    }

    pub(super) fn wake(&mut self, touched: &Touched) {
        match touched {
            Touched::Nothing => {}
            Touched::Some(subjects) => {
                for subject in subjects {
                    let Some(channel) = self.by_subject.get(subject) else { continue };
                    if channel.receiver_count() == 0 {
                        self.by_subject.remove(subject);
                    } else {
                        channel.send_modify(|count| *count += 1);
                    }
                }
            }
            Touched::Everything => self.by_subject.retain(|_, channel| {
                channel.send_modify(|count| *count += 1);
                channel.receiver_count() > 0
            }),
        }
    }
}
