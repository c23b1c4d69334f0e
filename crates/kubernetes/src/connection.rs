//! The way to one cluster: opened by itself, for as long as that takes, and opened again before its credentials
//! run out. What is wrong with one cluster so holds up no other, and is mended without a restart.

use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use offramp_core::Timestamp;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::clusters::{self, ClusterSource, Opened};
use crate::watch::{Complaints, Failures, Pace};

/// The connections to one cluster.
#[derive(Clone)]
pub(crate) struct Clients {
    /// Watches, evictions, deletions and whatever is not urgent.
    pub(crate) general: Client,
    /// Isolation alone, so that nothing can queue in front of it.
    pub(crate) isolation: Client,
}

/// The clients of a cluster, as soon as there are any.
pub(crate) struct Connection(watch::Sender<Option<Clients>>);

/// New credentials are fetched so long before the old ones run out: a plugin takes up to 20 s, twice over, and
/// what is being asked with the old ones is answered by then.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);
/// Credentials that live shorter than that are fetched no more often than this.
const SHORTEST_LIFE: Duration = Duration::from_secs(10);

impl Connection {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    /// The clients of this moment; nothing before the cluster is open.
    pub(crate) fn clients(&self) -> Option<Clients> {
        self.0.borrow().clone()
    }

    /// Waits until the cluster is open.
    pub(crate) async fn opened(&self) -> Clients {
        let mut clients = self.0.subscribe();
        loop {
            if let Some(clients) = clients.borrow_and_update().clone() {
                return clients;
            }
            if clients.changed().await.is_err() {
                // The sender is this very connection, so it is there.
                std::future::pending::<()>().await;
            }
        }
    }

    /// Opens the cluster, and again when its credentials are about to run out, for ever. A failure leaves the
    /// old clients as they are, and is told.
    pub(crate) async fn keep_open(&self, source: &ClusterSource, pace: Pace, complaints: &Arc<Complaints>) {
        let cluster = source.name.as_str();
        let mut failures = Failures::new(pace.first_pause);
        loop {
            let pause = match clusters::open(source).await {
                Ok(Opened { clients, until }) => {
                    self.0.send_replace(Some(clients));
                    failures = Failures::new(pace.first_pause);
                    if complaints.settle(OPENING) {
                        tracing::info!(cluster, "opened");
                    }
                    match until {
                        None => return std::future::pending().await,
                        Some(until) => (now().until(until - BEFORE_EXPIRY)).max(SHORTEST_LIFE),
                    }
                }
                Err(error) => {
                    let text = error.what();
                    if complaints.add(OPENING, text) {
                        tracing::warn!(cluster, "cannot be opened, tried again: {text}");
                    }
                    failures.add()
                }
            };
            sleep(pause).await;
        }
    }
}

/// Stands for opening among the complaints of the watches.
const OPENING: &str = "connection";

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
