//! The proof that the watches of a cluster live. A watch that is silent looks like one that has died, and a bookmark that
//! was buffered proves nothing about now. So the API server is asked which resourceVersion there is at this moment, by a
//! consistent list of one object, and what the watch shows is believed when it has come as far (resource versions
//! are comparable since Kubernetes 1.35, KEP-5504, and were integers before).

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::ListParams;
use offramp_core::Timestamp;
use offramp_engine::{Call, Metrics};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};

use crate::connection::Connection;
use crate::fault;

/// One question a second serves all jobs.
const PAUSE: Duration = Duration::from_secs(1);
/// A watch ends after 30 s, with a bookmark; one that has not come as far after twice that is listed again.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is asked and what is proven of one cluster.
#[derive(Debug)]
pub(crate) struct Proofs {
    asked: watch::Sender<Timestamp>,
    proven: watch::Sender<Timestamp>,
    pub(crate) nodes: Arc<Progress>,
    pub(crate) pods: Arc<Progress>,
}

/// How far one watch has come.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    version: watch::Sender<u64>,
    /// It does not come as far as it should: everything has to be listed.
    pub(crate) distrusted: Notify,
}

impl Progress {
    /// It has shown everything up to this version.
    pub(crate) fn reached(&self, version: &str) {
        if let Ok(version) = version.parse() {
            self.version.send_replace(version);
        }
    }

    fn shown(&self) -> u64 {
        *self.version.borrow()
    }

    /// Whether it shows this version in time. Where not, a list begins, and the question has to be asked again. The same
    /// goes for a version older than one it has already shown: the API server was restored from a backup, and a watch from a version
    /// that is to come shows nothing (kubernetes#107457).
    async fn reaches(&self, version: u64, shown_before: u64) -> bool {
        if version < shown_before {
            self.version.send_replace(0);
            self.distrusted.notify_one();
            return false;
        }
        let mut shown = self.version.subscribe();
        let reached = timeout(PATIENCE, shown.wait_for(|shown| *shown >= version)).await.is_ok();
        if !reached {
            self.distrusted.notify_one();
        }
        reached
    }
}

impl Proofs {
    pub(crate) fn new() -> Self {
        let never = Timestamp::from_millis(0);
        Self {
            asked: watch::Sender::new(never),
            proven: watch::Sender::new(never),
            nodes: Arc::default(),
            pods: Arc::default(),
        }
    }

    /// Asks for a proof of what was there at this moment, which is now or was before.
    pub(crate) fn ask(&self, at: Timestamp) {
        self.asked.send_if_modified(|asked| {
            let newer = at > *asked;
            *asked = at.max(*asked);
            newer
        });
    }

    /// The newest moment that is proven.
    pub(crate) fn proven(&self) -> watch::Receiver<Timestamp> {
        self.proven.subscribe()
    }

    /// Answers for ever.
    pub(crate) async fn answer(&self, connection: &Connection, metrics: &Metrics, page: Duration) {
        let mut asked = self.asked.subscribe();
        while asked.changed().await.is_ok() {
            loop {
                let at = *asked.borrow_and_update();
                let (nodes_shown, pods_shown) = (self.nodes.shown(), self.pods.shown());
                if let Some((nodes, pods)) = question(connection, metrics, page).await
                    && let (nodes, pods) =
                        (self.nodes.reaches(nodes, nodes_shown), self.pods.reaches(pods, pods_shown))
                    && tokio::join!(nodes, pods) == (true, true)
                {
                    self.proven.send_replace(at);
                    break;
                }
                sleep(PAUSE).await;
            }
            sleep(PAUSE).await;
        }
    }
}

/// The versions that there are at this moment.
async fn question(connection: &Connection, metrics: &Metrics, page: Duration) -> Option<(u64, u64)> {
    let client = connection.opened().await.general;
    // Without a resourceVersion the list is as new as the newest write.
    let params = ListParams::default().limit(1);
    let (nodes, pods) = (Api::<Node>::all(client.clone()), Api::<Pod>::all(client));
    let nodes = metrics.measure(Call::ListNodes, nodes.list_metadata(&params), fault::result);
    let pods = metrics.measure(Call::ListPods, pods.list_metadata(&params), fault::result);
    let (nodes, pods) = tokio::join!(timeout(page, nodes), timeout(page, pods));
    let version = |version: Option<String>| version?.parse().ok();
    Some((
        version(nodes.ok()?.ok()?.metadata.resource_version)?,
        version(pods.ok()?.ok()?.metadata.resource_version)?,
    ))
}
