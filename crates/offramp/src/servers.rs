//! A world behind its HTTP doors: one address for AWS, one for each cluster.

use std::net::{IpAddr, SocketAddr};

use axum::Router;
use axum::serve::ListenerExt;
use offramp_core::ClusterName;
use offramp_sandbox::Sandbox;
use offramp_sandbox::doors::aws_router;
use offramp_sandbox::doors::kubernetes::{kubeconfig, kubernetes_router};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::failure::Failure;

/// Doors that are open. They close when this is dropped.
pub(crate) struct Servers {
    /// Where SQS, Auto Scaling and ELB answer.
    pub(crate) aws: String,
    /// A kubeconfig with a context for each cluster, named like it.
    pub(crate) kubeconfig: String,
    tasks: JoinSet<()>,
}

impl Servers {
    /// Opens the doors and lets the world's time run. Port 0 takes a free one; the clusters have the
    /// ports from `kubernetes_port` on.
    pub(crate) async fn open(
        sandbox: &Sandbox,
        bind: IpAddr,
        aws_port: u16,
        kubernetes_port: u16,
    ) -> Result<Self, Failure> {
        let mut tasks = JoinSet::new();
        let world = sandbox.clone();
        tasks.spawn(async move { world.run().await });
        let aws = serve(&mut tasks, SocketAddr::new(bind, aws_port), aws_router(sandbox.clone())).await?;
        let names: Vec<ClusterName> = sandbox.peek(|world| world.clusters.keys().cloned().collect());
        let mut clusters = Vec::new();
        for (offset, name) in names.into_iter().enumerate() {
            let port = match kubernetes_port {
                0 => 0,
                first => first.saturating_add(u16::try_from(offset).unwrap_or(u16::MAX)),
            };
            let router = kubernetes_router(sandbox.clone(), name.clone());
            clusters.push((name, serve(&mut tasks, SocketAddr::new(bind, port), router).await?));
        }
        Ok(Self { aws, kubeconfig: kubeconfig(&clusters), tasks })
    }

    /// Waits until a door closes by itself or the world stands still: a bug, since both go on for ever.
    pub(crate) async fn first_end(&mut self) -> Failure {
        let why = match self.tasks.join_next().await {
            Some(Err(error)) => error.to_string(),
            Some(Ok(())) | None => "one of its servers ended by itself".to_owned(),
        };
        Failure::runtime(format!("the sandbox hit a bug: {why}"))
    }
}

async fn serve(tasks: &mut JoinSet<()>, address: SocketAddr, router: Router) -> Result<String, Failure> {
    let fault = |error: std::io::Error| {
        Failure::runtime(format!("listening on {address}: {error}")).hint("port 0 takes a free one")
    };
    let listener = TcpListener::bind(address).await.map_err(fault)?;
    let bound = listener.local_addr().map_err(fault)?;
    tasks.spawn(async move {
        // Small answers go out at once.
        let listener = listener.tap_io(|stream| {
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("setting TCP_NODELAY: {error}");
            }
        });
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("serving on {address}: {error}");
        }
    });
    Ok(format!("http://{bound}"))
}
