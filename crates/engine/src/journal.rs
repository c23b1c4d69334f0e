//! What happened, told once: each fact makes exactly one log event, its metrics, and a line for whoever
//! listens. The loops contain neither logging nor counting.

use std::fmt;

use offramp_core::{Failure, Outcome, Timestamp};
use tokio::sync::mpsc;

use crate::clock::Clock;
use crate::fact::Fact;
use crate::labels::{JobOutcome, action_name, stage_name, trigger_name};
use crate::metrics::Metrics;
use crate::unfinished::Unfinished;

/// A clock that nobody keeps in step drifts by seconds a week; one that is wrong by more than this was never set. AWS refuses
/// what is signed five minutes before or after, and other clocks of the machine's node are wrong with it.
const REPORTED_SKEW_MILLIS: u64 = 30_000;

/// Writes facts down.
#[derive(Clone)]
pub struct Journal {
    clock: Clock,
    metrics: Metrics,
    listener: Option<mpsc::UnboundedSender<(Timestamp, Fact)>>,
}

impl Journal {
    /// A journal on a set of metrics.
    pub fn new(clock: Clock, metrics: Metrics) -> Self {
        Self { clock, metrics, listener: None }
    }

    /// The same journal with somebody who listens to every fact: a live view, or a transcript.
    #[must_use]
    pub fn with_listener(mut self, listener: mpsc::UnboundedSender<(Timestamp, Fact)>) -> Self {
        self.listener = Some(listener);
        self
    }

    /// Writes one fact down.
    pub(crate) fn record(&self, fact: Fact) {
        self.metrics.count(&fact);
        log(&fact);
        if let Some(listener) = &self.listener {
            // A listener that has gone misses nothing it wants.
            listener.send((self.clock.now(), fact)).unwrap_or_default();
        }
    }

    pub(crate) const fn metrics(&self) -> &Metrics {
        &self.metrics
    }
}

impl fmt::Debug for Journal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal").field("listened_to", &self.listener.is_some()).finish_non_exhaustive()
    }
}

fn log(fact: &Fact) {
    match fact {
        Fact::Received { instance, trigger, .. } => {
            tracing::debug!(%instance, trigger = trigger_name(*trigger), "{fact}");
        }
        Fact::Ignored { .. } | Fact::DeadLetterPostponed { .. } | Fact::LaterVersion { .. } => {
            tracing::debug!("{fact}");
        }
        Fact::DeadLettered { .. } | Fact::QueueFaulted { .. } | Fact::LeaseLost { .. } => {
            tracing::warn!("{fact}");
        }
        Fact::ClockWrong { behind, .. } => {
            let seconds = behind / 1_000;
            if behind.unsigned_abs() > REPORTED_SKEW_MILLIS {
                tracing::warn!(seconds, "{fact}");
            } else {
                tracing::info!(seconds, "{fact}");
            }
        }
        Fact::Joined { instance, copy, .. } => {
            if *copy {
                tracing::debug!(%instance, "{fact}");
            } else {
                tracing::info!(%instance, "{fact}");
            }
        }
        Fact::Routed { instance, cluster, .. } => tracing::debug!(%instance, %cluster, "{fact}"),
        Fact::Stepped { instance, stage, .. } => {
            tracing::info!(%instance, stage = stage_name(*stage), "{fact}");
        }
        Fact::Acted { instance, action, outcome, .. } => match outcome {
            Ok(Outcome::Done | Outcome::Gone) => {
                tracing::info!(%instance, action = action_name(action), "{fact}");
            }
            Ok(Outcome::Changed | Outcome::Blocked { .. } | Outcome::Vetoed { .. }) | Err(Failure::Retry) => {
                tracing::debug!(%instance, action = action_name(action), "{fact}");
            }
            Err(Failure::Denied | Failure::Invalid) => {
                tracing::warn!(%instance, action = action_name(action), "{fact}");
            }
        },
        Fact::Faulted { instance, .. }
        | Fact::Vetoed { instance, .. }
        | Fact::NotWaitedFor { instance, .. } => {
            tracing::warn!(%instance, "{fact}")
        }
        Fact::Isolated { instance, .. } => tracing::info!(%instance, "{fact}"),
        Fact::Finished { instance, outcome, cluster, took, trigger, .. } => {
            let cluster = cluster.as_ref().map_or("", |cluster| cluster.as_str());
            let (word, seconds) = (outcome.as_str(), took.as_secs_f64());
            match outcome {
                JobOutcome::Panicked => {
                    tracing::error!(%instance, cluster, outcome = word, seconds, "{fact}")
                }
                outcome if outcome.warns(*trigger) => {
                    tracing::warn!(%instance, cluster, outcome = word, seconds, "{fact}")
                }
                _ => tracing::info!(%instance, cluster, outcome = word, seconds, "{fact}"),
            }
        }
        Fact::TooManyJobs { instance } | Fact::Found { instance, .. } => tracing::warn!(%instance, "{fact}"),
        Fact::SweepFaulted { .. } => tracing::warn!("{fact}"),
        Fact::Unfinished { unfinished: Unfinished { what, instance, cluster, node, .. } } => {
            let cluster = cluster.as_ref().map_or("", |cluster| cluster.as_str());
            let node = node.as_ref().map_or("", |node| node.as_str());
            tracing::warn!(%instance, cluster, node, what = what.as_str(), "{fact}");
        }
        Fact::Stopping { .. } => tracing::info!("{fact}"),
    }
}
