//! A worker with a bug: it panics whenever it would change something in its cluster. For tests of what a bug
//! looks like from outside, because nothing makes the worker that we ship panic. It serves its metrics, and
//! the AWS of its sandbox with the controls, until it is ended.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot begin has failed, and the panic is the bug"
)]
#![allow(clippy::print_stdout, reason = "who starts it reads there where it serves")]

use std::sync::Arc;

use async_trait::async_trait;
use axum::routing::get;
use offramp_core::{
    AccountRegion, ClusterName, InstanceId, Node, NodeDoubt, NodeName, Outcome, Pod, Policy, Seen, Timestamp,
};
use offramp_engine::{
    Announcement, Clock, Cluster, ClusterCall, Engine, Fault, Journal, Metrics, Ports, Settings,
    default_policy,
};
use offramp_sandbox::doors::aws_router;
use offramp_sandbox::doors::ports_aws::QueueDoor;
use offramp_sandbox::doors::ports_kubernetes::ClusterDoor;
use offramp_sandbox::fleet::Pool;
use offramp_sandbox::{Delays, Fleet, Sandbox};
use prometheus::process_collector::ProcessCollector;
use prometheus::{Registry, TextEncoder};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A cluster that can be looked at, and panics when something is to be done in it.
struct WithABug(ClusterDoor);

#[async_trait]
impl Cluster for WithABug {
    fn name(&self) -> &ClusterName {
        self.0.name()
    }

    fn node(&self, instance: &InstanceId) -> Seen<Node> {
        self.0.node(instance)
    }

    fn doubt(&self, instance: &InstanceId) -> Option<NodeDoubt> {
        self.0.doubt(instance)
    }

    fn prove(&self, at: Timestamp) {
        self.0.prove(at);
    }

    fn proven(&self) -> watch::Receiver<Timestamp> {
        self.0.proven()
    }

    fn twins(&self) -> Vec<(InstanceId, Vec<NodeName>)> {
        self.0.twins()
    }

    fn unidentified(&self) -> Vec<NodeName> {
        self.0.unidentified()
    }

    fn recorded(&self) -> Vec<(InstanceId, Node)> {
        self.0.recorded()
    }

    fn pods(&self, node: &NodeName, instance: &InstanceId) -> Seen<Vec<Pod>> {
        self.0.pods(node, instance)
    }

    fn in_sync(&self) -> bool {
        self.0.in_sync()
    }

    fn changes(&self, instance: &InstanceId) -> watch::Receiver<u64> {
        self.0.changes(instance)
    }

    fn readiness(&self, namespace: &str) -> watch::Receiver<u64> {
        self.0.readiness(namespace)
    }

    async fn perform(&self, call: &ClusterCall) -> Result<Outcome, Fault> {
        panic!("a bug, at {call:?}");
    }

    fn announce(&self, node: &NodeName, announcement: Announcement) {
        self.0.announce(node, announcement);
    }
}

#[tokio::main]
async fn main() {
    let (clock, blue) = (Clock::system(), ClusterName::new("blue"));
    let fleet = Fleet::new(clock.now(), Delays::demo(), 1).cluster("blue").pool(Pool::spot("workers", 2));
    let sandbox = Sandbox::new(fleet.build(), clock.clone());

    let registry = Registry::new();
    registry.register(Box::new(ProcessCollector::for_self())).unwrap();
    let metrics = Metrics::register(&registry, [&blue]).unwrap();
    metrics.synced(&blue, true);
    let journal = Journal::new(clock.clone(), metrics);
    let ports = Ports {
        queue: Arc::new(QueueDoor::new(&sandbox, "offramp")),
        account_region: AccountRegion {
            account: Some("111122223333".into()),
            region: Some("eu-west-1".into()),
        },
        sessions: Arc::new(sandbox.clone()),
        clusters: vec![Arc::new(WithABug(ClusterDoor::new(&sandbox, &blue)))],
    };
    let policy = Policy { clusters: [blue].into(), ..default_policy() };
    let (engine, _) = Engine::new(ports, policy, Settings::default(), clock, journal);

    let page = move || async move { TextEncoder::new().encode_to_string(&registry.gather()).unwrap() };
    let routes = aws_router(sandbox.clone()).route("/metrics", get(page));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    println!("serving http://{}/metrics", listener.local_addr().unwrap());
    tokio::select! {
        ended = engine.run(CancellationToken::new()) => ended.unwrap(),
        () = sandbox.run() => {}
        served = async { axum::serve(listener, routes).await } => served.unwrap(),
    }
}
