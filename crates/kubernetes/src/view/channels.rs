//! Who wants to know when something changes, by instance.

use std::collections::{BTreeMap, BTreeSet};

use offramp_core::InstanceId;
use tokio::sync::watch;

/// Whom a piece of news concerns.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Touched {
    Nobody,
    Some(BTreeSet<InstanceId>),
    Everybody,
}

#[derive(Debug, Default)]
pub(super) struct Channels {
    pub(super) by_instance: BTreeMap<InstanceId, watch::Sender<u64>>,
    /// At this size the channels that nobody listens to are looked for.
    sweep_at: usize,
}

impl Touched {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Nobody, other) | (other, Self::Nobody) => other,
            (Self::Some(one), Self::Some(other)) => Self::Some(one.into_iter().chain(other).collect()),
            (Self::Everybody, _) | (_, Self::Everybody) => Self::Everybody,
        }
    }
}

impl Channels {
    pub(super) fn subscribe(&mut self, instance: &InstanceId) -> watch::Receiver<u64> {
        if let Some(channel) = self.by_instance.get(instance) {
            return channel.subscribe();
        }
        // Doubling keeps the sweeps cheap on average, however many channels are asked for at once.
        if self.by_instance.len() >= self.sweep_at {
            self.by_instance.retain(|_, channel| channel.receiver_count() > 0);
            self.sweep_at = (2 * self.by_instance.len()).max(64);
        }
        let (channel, changes) = watch::channel(0);
        self.by_instance.insert(instance.clone(), channel);
        changes
    }

    pub(super) fn wake(&mut self, touched: &Touched) {
        match touched {
            Touched::Nobody => {}
            Touched::Some(instances) => {
                for instance in instances {
                    let Some(channel) = self.by_instance.get(instance) else { continue };
                    if channel.receiver_count() == 0 {
                        self.by_instance.remove(instance);
                    } else {
                        channel.send_modify(|count| *count += 1);
                    }
                }
            }
            Touched::Everybody => self.by_instance.retain(|_, channel| {
                channel.send_modify(|count| *count += 1);
                channel.receiver_count() > 0
            }),
        }
    }
}
