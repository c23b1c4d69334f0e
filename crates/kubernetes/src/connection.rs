//! The way to one cluster: opened by itself, for as long as that takes, and opened again before its credentials
//! run out. What is wrong with one cluster so holds up no other, and is mended without a restart.

use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use kube::Client;
use offramp_core::Timestamp;
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::clusters::{self, ClusterSource, OpenError, Opened};
use crate::failures::Failures;
use crate::watch::{Complaints, Pace};

/// The connections to one cluster.
#[derive(Clone)]
pub(crate) struct Clients {
    /// Watches, evictions, deletions and whatever is not urgent.
    pub(crate) general: Client,
    /// Isolation alone, so that nothing can queue in front of it.
    pub(crate) isolation: Client,
}

/// The clients of a cluster, as soon as there are any.
pub(crate) struct Connection {
    clients: watch::Sender<Option<Clients>>,
    /// The API server does not accept our credentials any more.
    refused: Notify,
}

/// New credentials are fetched so long before the old ones run out: a plugin takes up to 20 s, twice over, and
/// what is being asked with the old ones is answered by then.
const BEFORE_EXPIRY: Duration = Duration::from_secs(60);
/// A plugin is ended after 20 s; reading files and making clients takes milliseconds.
const OPENING_TAKES: Duration = Duration::from_secs(30);

impl Connection {
    pub(crate) fn new() -> Self {
        Self { clients: watch::Sender::new(None), refused: Notify::new() }
    }

    /// The clients of this moment; nothing before the cluster is open.
    pub(crate) fn clients(&self) -> Option<Clients> {
        self.clients.borrow().clone()
    }

    /// Waits until the cluster is open.
    pub(crate) async fn opened(&self) -> Clients {
        let mut clients = self.clients.subscribe();
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

    /// The API server does not accept our credentials. They were revoked, or they rotate without saying when: the
    /// plugin is run and the kubeconfig is read again.
    pub(crate) fn refuse(&self) {
        self.refused.notify_one();
    }

    /// Opens the cluster, and again when its credentials are about to run out, for ever. A failure leaves the
    /// old clients as they are, and is told.
    pub(crate) async fn keep_open(&self, source: &ClusterSource, pace: Pace, complaints: &Arc<Complaints>) {
        let cluster = source.name.as_str();
        let mut failures = Failures::new(pace);
        loop {
            let opening = pin!(clusters::open(source));
            let pause = match opened_at_last(opening, cluster, complaints).await {
                Ok(Opened { clients, until }) => {
                    self.clients.send_replace(Some(clients));
                    failures = Failures::new(pace);
                    if complaints.settle(OPENING) {
                        tracing::info!(cluster, "opened");
                    }
                    self.worn_out(until, pace).await;
                    continue;
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

    /// Waits until the credentials are about to run out, or are refused.
    async fn worn_out(&self, until: Option<Timestamp>, pace: Pace) {
        sleep(pace.credentials).await;
        let runs_out = async {
            match until {
                Some(until) => sleep(now().until(until - BEFORE_EXPIRY)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = self.refused.notified() => {}
            () = runs_out => {}
        }
    }
}

/// Waits for an opening however long it takes, because a thread that hangs cannot be ended, and says that it does.
async fn opened_at_last(
    mut opening: Pin<&mut impl Future<Output = Result<Opened, OpenError>>>,
    cluster: &str,
    complaints: &Complaints,
) -> Result<Opened, OpenError> {
    if let Ok(opened) = timeout(OPENING_TAKES, &mut opening).await {
        return opened;
    }
    let text = format!(
        "its configuration is not read after {} s: the file system of its kubeconfig may hang",
        OPENING_TAKES.as_secs()
    );
    if complaints.add(OPENING, &text) {
        tracing::warn!(cluster, "cannot be opened: {text}");
    }
    opening.await
}

/// Stands for opening among the complaints of the watches.
const OPENING: &str = "connection";

fn now() -> Timestamp {
    Timestamp::from_millis(jiff::Timestamp::now().as_millisecond())
}
