//! What a watch of our own shows: when each node is cordoned, and when each pod is gone.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use futures::stream::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client};

#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) cordoned: BTreeMap<String, Timestamp>,
    /// Pods in the namespace of the measurement.
    pub(crate) pods: BTreeSet<String>,
    pub(crate) gone: BTreeMap<String, Timestamp>,
}

#[derive(Clone)]
pub(crate) struct Watches(Arc<Mutex<Seen>>);

impl Watches {
    /// Watches until the process ends.
    pub(crate) fn start(client: &Client) -> Self {
        let seen = Self(Arc::default());
        let (nodes, pods) = (seen.clone(), seen.clone());
        let mut changes = watcher(Api::<Node>::all(client.clone()), Config::default()).boxed();
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                if let Ok(Event::Apply(node) | Event::InitApply(node)) = change {
                    nodes.node(node);
                }
            }
        });
        let of_pods = Api::<PartialObjectMeta<Pod>>::namespaced(client.clone(), "default");
        let mut changes = watcher(of_pods, Config::default()).boxed();
        tokio::spawn(async move {
            while let Some(change) = changes.next().await {
                let mut seen = pods.look();
                match change {
                    Ok(Event::Apply(pod) | Event::InitApply(pod)) => {
                        seen.pods.extend(pod.metadata.name);
                    }
                    Ok(Event::Delete(pod)) => {
                        let name = pod.metadata.name.unwrap_or_default();
                        seen.pods.remove(&name);
                        seen.gone.insert(name, Timestamp::now());
                    }
                    Ok(Event::Init | Event::InitDone) | Err(_) => {}
                }
            }
        });
        seen
    }

    pub(crate) fn look(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap()
    }

    fn node(&self, node: Node) {
        let Some(name) = node.metadata.name else { return };
        if node.spec.and_then(|spec| spec.unschedulable) == Some(true) {
            self.look().cordoned.entry(name).or_insert_with(Timestamp::now);
        }
    }
}
