//! Opening a cluster: where it is, who we are there, and the clients.

use std::path::PathBuf;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Selector;
use kube::{Client, Config};
use offramp_core::ClusterName;

use crate::fault;
use crate::selector;

/// A cluster to work on.
#[derive(Clone, Debug)]
pub struct ClusterSource {
    /// Its name in our configuration.
    pub name: ClusterName,
    /// How it is reached.
    pub access: Access,
}

/// How a cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The cluster that offramp itself runs in, by its service account.
    InCluster,
    /// By a kubeconfig file. Credential plugins work, for example `aws eks get-token`.
    Kubeconfig {
        /// The file. Paths inside it are relative to it.
        path: PathBuf,
        /// The context in it; without one, its current context.
        context: Option<String>,
    },
}

/// The operator's choices for a cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterOptions {
    /// Only nodes that match this label selector are ours, for example `pool in (web,api),!legacy`.
    /// Without one, all are.
    pub node_selector: Option<String>,
}

/// Why a cluster could not be opened. Nothing was asked of the cluster itself: that it is down is no
/// reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("opening cluster {cluster}: {what}")]
pub struct OpenError {
    cluster: ClusterName,
    what: String,
}

/// The connections to one cluster.
pub(crate) struct Clients {
    /// Watches, evictions, deletions and whatever is not urgent.
    pub(crate) general: Client,
    /// Isolation alone, so that nothing can queue in front of it.
    pub(crate) isolation: Client,
}

/// A connection that is not there after this time is tried anew: in one Region it takes milliseconds.
const CONNECT: Duration = Duration::from_secs(5);
/// For a request that the peer does not take.
const WRITE: Duration = Duration::from_secs(10);
/// Catches a peer that has gone silent. Above the length of a watch and its patience, 35 s, which would
/// otherwise end here.
const READ: Duration = Duration::from_secs(60);

/// Reads the configuration of a cluster and makes its clients.
pub(crate) async fn open(source: &ClusterSource) -> Result<Clients, OpenError> {
    let failed = |what: String| OpenError { cluster: source.name.clone(), what };
    let (mut config, place) = match &source.access {
        Access::InCluster => {
            let config = Config::incluster().map_err(|error| {
                failed(format!(
                    "reading the service account of this pod: {error}; outside of a cluster name a kubeconfig"
                ))
            })?;
            (config, "the service account of this pod".to_owned())
        }
        Access::Kubeconfig { path, context } => {
            let place = match context {
                Some(context) => format!("context `{context}` of kubeconfig {}", path.display()),
                None => format!("kubeconfig {}", path.display()),
            };
            let bad = |error: KubeconfigError| failed(format!("{place}: {}", in_words(&error)));
            let file = Kubeconfig::read_from(path).map_err(bad)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            (Config::from_custom_kubeconfig(file, &options).await.map_err(bad)?, place)
        }
    };
    // kube would answer a 429 itself, up to fifteen times: an eviction that a budget refuses would hang
    // for minutes. Retries are the engine's.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    let client = || {
        let client = Client::try_from(config.clone());
        client.map_err(|error| failed(format!("{place}: {}", unusable(&error))))
    };
    Ok(Clients { general: client()?, isolation: client()? })
}

/// Reads the node selector of the options.
pub(crate) fn node_selector(
    cluster: &ClusterName,
    options: &ClusterOptions,
) -> Result<Option<Selector>, OpenError> {
    let selector = options.node_selector.as_deref().map(selector::parse).transpose();
    selector
        .map_err(|what| OpenError { cluster: cluster.clone(), what: format!("its node selector: {what}") })
}

/// Why no client can be made. The error of a proxy would show its URL, which may hold a password.
fn unusable(error: &kube::Error) -> String {
    match error {
        kube::Error::Auth(error) => fault::credentials(error),
        kube::Error::InferKubeconfig(error) => in_words(error),
        kube::Error::RustlsTls(error) => format!("its certificates cannot be used: {error}"),
        kube::Error::ProxyProtocolUnsupported { .. } | kube::Error::ProxyProtocolDisabled { .. } => {
            "it would be reached through a proxy (proxy-url in the kubeconfig, or HTTPS_PROXY), which this \
             program cannot do; take the proxy away for it"
                .to_owned()
        }
        _ => "no client can be made from it".to_owned(),
    }
}

/// What is wrong with a kubeconfig, without a word of what it says: kube's own text for a syntax error
/// quotes the lines around it, which may hold a token.
fn in_words(error: &KubeconfigError) -> String {
    match error {
        KubeconfigError::Parse(error) => match error.location() {
            Some(place) => format!("line {} is not what a kubeconfig has there", place.line()),
            None => "it is not a kubeconfig".to_owned(),
        },
        KubeconfigError::ReadConfig(error, _) => format!("it cannot be read: {error}"),
        KubeconfigError::CurrentContextNotSet => "it has no current context; name one".to_owned(),
        KubeconfigError::LoadContext(name) => format!("it has no context `{name}`"),
        KubeconfigError::LoadClusterOfContext(name) => format!("it has no cluster `{name}`"),
        KubeconfigError::MissingClusterUrl => "its cluster has no server".to_owned(),
        KubeconfigError::ParseClusterUrl(error) => format!("the server of its cluster: {error}"),
        KubeconfigError::LoadCertificateAuthority(_) | KubeconfigError::ParseCertificates(_) => {
            "its certificate authority cannot be read".to_owned()
        }
        KubeconfigError::LoadClientCertificate(_) => "its client certificate cannot be read".to_owned(),
        KubeconfigError::LoadClientKey(_) => "its client key cannot be read".to_owned(),
        _ => "it cannot be used".to_owned(),
    }
}

#[cfg(test)]
mod tests;
