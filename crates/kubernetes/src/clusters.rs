//! Opening a cluster: where it is, who we are there, and the clients.

use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD as BASE64;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::core::Selector;
use kube::{Client, Config};
use offramp_core::{ClusterName, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use tokio::runtime::Handle;
use tokio::task::JoinError;

use crate::connection::Clients;
use crate::fault;
use crate::plugin::{self, Credential};
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

impl OpenError {
    /// What is wrong, without the cluster's name.
    pub(crate) fn what(&self) -> &str {
        &self.what
    }
}

/// An open cluster.
pub(crate) struct Opened {
    pub(crate) clients: Clients,
    /// When its credentials run out, where they do and kube does not renew them by itself.
    pub(crate) until: Option<Timestamp>,
}

/// A connection that is not there after this time is tried anew: in one Region it takes milliseconds.
const CONNECT: Duration = Duration::from_secs(5);
/// For a request that the peer does not take.
const WRITE: Duration = Duration::from_secs(10);
/// Catches a peer that has gone silent. Above the length of a watch and its patience, 35 s, which would
/// otherwise end here.
const READ: Duration = Duration::from_secs(60);

/// Reads the configuration of a cluster, runs its credential plugin and makes its clients.
pub(crate) async fn open(source: &ClusterSource) -> Result<Opened, OpenError> {
    let failed = |what: String| OpenError { cluster: source.name.clone(), what };
    let (mut config, place) = read(source).await?;
    let failed_there = |what: &str| failed(format!("{place}: {what}"));
    // kube would panic on it, somewhere else and later.
    if config.cluster_url.scheme().is_none() || config.cluster_url.authority().is_none() {
        // Without a scheme what stands before an `@` is a password, and is not repeated.
        let host = config.cluster_url.host().unwrap_or("HOST");
        return Err(failed_there(&format!(
            "its server is no URL: write https://{host} and, after a colon, its port"
        )));
    }
    let legacy = config.auth_info.auth_provider.as_ref();
    if legacy.is_some_and(|provider| provider.config.contains_key("cmd-path")) {
        // Run by kube, without an end. kubectl has not known it since 1.26.
        return Err(failed_there("its auth-provider runs a command (cmd-path): use an exec plugin instead"));
    }
    let mut until = None;
    if let Some(exec) = config.auth_info.exec.take() {
        let credential = plugin::run(&exec, plugin::LIMIT).await.map_err(|what| failed_there(&what))?;
        let Credential { token, certificate, until: runs_out } = credential;
        if token.is_none() && certificate.is_none() {
            return Err(failed_there("the credential plugin gave neither a token nor a certificate"));
        }
        config.auth_info.token = token.map(Into::into);
        if let Some((certificate, key)) = certificate {
            config.auth_info.client_certificate_data = Some(BASE64.encode(certificate));
            config.auth_info.client_key_data = Some(BASE64.encode(key).into());
        }
        until = runs_out;
    }
    config.auth_info.token = config.auth_info.token.map(header_value).transpose().map_err(failed_there)?;
    // kube would answer a 429 itself, up to fifteen times: an eviction that a budget refuses would hang
    // for minutes. Retries are the engine's.
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT);
    config.write_timeout = Some(WRITE);
    config.read_timeout = Some(READ);
    config.reset_reader_on_write = true;
    let client = || {
        let config = config.clone();
        // It reads files.
        tokio::task::spawn_blocking(move || Client::try_from(config).map_err(|error| unusable(&error)))
    };
    let made = |made: Result<Result<Client, String>, JoinError>| {
        // One text each time, so that it is told once; the panic itself is reported where it happens.
        made.map_err(|_| UNUSABLE.to_owned()).flatten().map_err(|what| failed_there(&what))
    };
    let clients = Clients { general: made(client().await)?, isolation: made(client().await)? };
    Ok(Opened { clients, until })
}

/// A token as a header takes it: tools leave a newline after one, and kube panics on it.
fn header_value(token: SecretString) -> Result<SecretString, &'static str> {
    let token = token.expose_secret().trim();
    if token.bytes().all(|byte| byte.is_ascii_graphic()) {
        Ok(token.into())
    } else {
        Err("its token has characters that no token has, such as blanks")
    }
}

const UNUSABLE: &str = "no client can be made from it";

/// Reads the files, and says in words where the configuration comes from. They may lie on a file system that
/// hangs, which holds up a thread of its own and no other cluster.
async fn read(source: &ClusterSource) -> Result<(Config, String), OpenError> {
    let (source, runtime) = (source.clone(), Handle::current());
    let cluster = source.name.clone();
    let read = tokio::task::spawn_blocking(move || runtime.block_on(read_files(&source)));
    let lost = |error: JoinError| OpenError { cluster, what: format!("reading its configuration: {error}") };
    read.await.map_err(lost)?
}

async fn read_files(source: &ClusterSource) -> Result<(Config, String), OpenError> {
    let failed = |what: String| OpenError { cluster: source.name.clone(), what };
    match &source.access {
        Access::InCluster => {
            let config = Config::incluster().map_err(|error| {
                failed(format!(
                    "reading the service account of this pod: {error}; outside of a cluster name a kubeconfig"
                ))
            })?;
            Ok((config, "the service account of this pod".to_owned()))
        }
        Access::Kubeconfig { path, context } => {
            let place = match context {
                Some(context) => format!("context `{context}` of kubeconfig {}", path.display()),
                None => format!("kubeconfig {}", path.display()),
            };
            let bad = |error: KubeconfigError| failed(format!("{place}: {}", in_words(&error)));
            let file = Kubeconfig::read_from(path).map_err(bad)?;
            let options = KubeConfigOptions { context: context.clone(), ..KubeConfigOptions::default() };
            Ok((Config::from_custom_kubeconfig(file, &options).await.map_err(bad)?, place))
        }
    }
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
        _ => UNUSABLE.to_owned(),
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
