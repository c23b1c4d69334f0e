use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::FutureExt;
use offramp_core::{ClusterName, Goal, InstanceId, Stage, Trigger};
use prometheus::{IntCounter, Registry};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

#[tokio::test]
async fn live_is_503_with_the_reason_once_the_work_stands_still() {
    let server = Server::start().await;
    assert_eq!(server.get("/live").await, (200, "alive\n".to_owned()));
    server.stuck.store(true, Ordering::SeqCst);
    assert_eq!(server.get("/live").await, (503, "no message was asked for since 90s\n".to_owned()));
}

#[tokio::test]
async fn ready_says_what_is_missing_and_why() {
    let server = Server::start().await;
    let (status, body) = server.get("/ready").await;
    assert_eq!(status, 503);
    let parts: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        parts,
        serde_json::json!([
            {"name": "queue", "ready": true, "why": "reachable"},
            {"name": "cluster blue", "ready": false, "why": "listing nodes: forbidden"},
        ])
    );
    server.synced.store(true, Ordering::SeqCst);
    assert_eq!(server.get("/ready").await.0, 200);
}

#[tokio::test]
async fn metrics_are_those_of_the_given_registry() {
    let server = Server::start().await;
    let (status, body) = server.get("/metrics").await;
    assert_eq!(status, 200);
    assert!(body.contains("\nofframp_test_total 3\n"), "{body}");
}

#[tokio::test]
async fn jobs_are_json() {
    let server = Server::start().await;
    let (status, body) = server.get("/jobs").await;
    assert_eq!(status, 200);
    let jobs: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        jobs,
        serde_json::json!([{
            "instance": "i-0b1c2d3e4f5061728",
            "cluster": "blue",
            "node": null,
            "triggers": ["hook", "spot"],
            "goal": "leave",
            "stage": "drain",
            "reason": "2 pods are left",
            "since": "2026-01-02T03:04:05.000Z",
            "wake_at": "2026-01-02T03:04:15.250Z",
            "deadline": "2026-01-02T03:06:05.000Z",
        }])
    );
}

#[tokio::test]
async fn every_served_path_is_in_the_index_and_others_get_it_with_404() {
    let server = Server::start().await;
    let (status, index) = server.get("/").await;
    assert_eq!(status, 200);
    for path in
        index.lines().filter_map(|line| line.split_whitespace().next()).filter(|word| word.starts_with('/'))
    {
        assert_ne!(server.get(path).await.0, 404, "{path}");
    }
    assert_eq!(server.get("/nothing").await, (404, index));
}

#[tokio::test]
async fn a_port_in_use_is_an_error_that_names_the_address() {
    let first = Admin::bind(any_port()).await.unwrap();
    let error = Admin::bind(first.address()).await.unwrap_err();
    let text = format!("{error:?}");
    assert!(text.contains(&format!("binding the admin server to {}", first.address())), "{text}");
    assert!(text.contains("admin.listen"), "{text}");
}

#[tokio::test]
async fn it_stops_when_told_even_with_an_idle_connection_open() {
    let server = Server::start().await;
    let idle = TcpStream::connect(server.address).await.unwrap();
    server.get("/live").await;
    server.stop.cancel();
    server.task.await.unwrap().unwrap();
    drop(idle);
    assert!(TcpStream::connect(server.address).await.is_err());
}

struct Server {
    address: SocketAddr,
    stuck: Arc<AtomicBool>,
    synced: Arc<AtomicBool>,
    stop: CancellationToken,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let (stuck, synced) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let admin = Admin::bind(any_port()).await.unwrap();
        let (address, stop) = (admin.address(), CancellationToken::new());
        let views = views(Arc::clone(&stuck), Arc::clone(&synced));
        let task = tokio::spawn(admin.serve(views, stop.clone()));
        Self { address, stuck, synced, stop, task }
    }

    async fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
    }
}

fn views(stuck: Arc<AtomicBool>, synced: Arc<AtomicBool>) -> Views {
    let registry = Registry::new();
    let counter = IntCounter::new("offramp_test_total", "A counter.").unwrap();
    counter.inc_by(3);
    registry.register(Box::new(counter)).unwrap();
    Views {
        metrics: Arc::new(move || registry.gather()),
        live: Arc::new(move || match stuck.load(Ordering::SeqCst) {
            true => Err("no message was asked for since 90s".to_owned()),
            false => Ok(()),
        }),
        readiness: Arc::new(move || {
            let synced = synced.load(Ordering::SeqCst);
            let why = if synced { "in sync" } else { "listing nodes: forbidden" };
            vec![
                Readiness { name: "queue".to_owned(), ready: true, why: "reachable".to_owned() },
                Readiness { name: "cluster blue".to_owned(), ready: synced, why: why.to_owned() },
            ]
        }),
        jobs: Arc::new(|| {
            async {
                vec![JobView::from(JobStatus {
                    instance: InstanceId::parse("i-0b1c2d3e4f5061728").unwrap(),
                    cluster: Some(ClusterName::new("blue")),
                    node: None,
                    triggers: vec![Trigger::Hook, Trigger::Spot],
                    hooks: std::collections::BTreeSet::new(),
                    goal: Goal::Leave,
                    stage: Some(Stage::Drain),
                    reason: "2 pods are left".to_owned(),
                    since: Timestamp::from_millis(1_767_323_045_000),
                    wake_at: Timestamp::from_millis(1_767_323_055_250),
                    deadline: Some(Timestamp::from_millis(1_767_323_165_000)),
                })]
            }
            .boxed()
        }),
    }
}

fn any_port() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
}
