//! The admin server: is it alive, is it ready, its metrics, its jobs. Read-only and without secrets, but
//! it names nodes, so it listens on loopback unless told otherwise.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use futures::future::BoxFuture;
use offramp_core::Timestamp;
use offramp_engine::{InWords, JobStatus, Unfinished, goal_name, stage_name, trigger_name};
use prometheus::TextEncoder;
use prometheus::proto::MetricFamily;
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::failure::Failure;

/// The admin server, bound to its address and not serving yet: a port in use is an error at the start.
#[derive(Debug)]
pub(crate) struct Admin {
    listener: TcpListener,
    address: SocketAddr,
}

/// What the admin server shows. A view is asked at each request and must not block.
#[derive(Clone)]
pub(crate) struct Views {
    /// The metrics.
    pub(crate) metrics: View<Vec<MetricFamily>>,
    /// `Err` with the reason where the work does not move on any more, so that a restart would help.
    pub(crate) live: View<Result<(), String>>,
    /// Everything that has to be there before the work can be done.
    pub(crate) readiness: View<Vec<Readiness>>,
    /// The jobs at this moment.
    pub(crate) jobs: View<BoxFuture<'static, Vec<JobView>>>,
}

/// Answers with the state at this moment.
pub(crate) type View<T> = Arc<dyn Fn() -> T + Send + Sync>;

/// One thing that has to be there before the work can be done: the queue, a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Readiness {
    /// Such as `queue` or `cluster blue`.
    pub(crate) name: String,
    /// It is there.
    pub(crate) ready: bool,
    /// Why it is not, or what was seen.
    pub(crate) why: String,
}

/// One job as `/jobs` shows it, or what no job can finish. Times are RFC 3339.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct JobView {
    /// The instance.
    pub(crate) instance: String,
    /// Its node, where one is known.
    pub(crate) node: Option<String>,
    /// Its cluster, where the job is routed already.
    pub(crate) cluster: Option<String>,
    /// What the job is for: leave or return; or none, where there is no job.
    pub(crate) goal: &'static str,
    /// The first stage that is not finished.
    pub(crate) stage: Option<&'static str>,
    /// Why it stands there, in words.
    pub(crate) reason: String,
    /// What asked for it: hook, spot and so on.
    pub(crate) triggers: Vec<&'static str>,
    /// The time of the first event.
    pub(crate) since: String,
    /// When it looks again at the latest; nothing where there is no job.
    pub(crate) wake_at: Option<String>,
    /// When it has to be over, where something says so.
    pub(crate) deadline: Option<String>,
}

impl Admin {
    /// Takes the address.
    pub(crate) async fn bind(listen: SocketAddr) -> Result<Self, Failure> {
        let bound = match TcpListener::bind(listen).await {
            Ok(listener) => listener.local_addr().map(|address| Self { listener, address }),
            Err(error) => Err(error),
        };
        bound.map_err(|error| {
            Failure::runtime(format!("binding the admin server to {listen}: {error}")).hint(
                "another address can be set as admin.listen or OFFRAMP_ADMIN_LISTEN; port 0 takes a free one",
            )
        })
    }

    /// Where it listens, with the port that was chosen where port 0 was asked for.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the token is cancelled; requests that run then are answered.
    pub(crate) async fn serve(self, views: Views, stop: CancellationToken) -> io::Result<()> {
        let routes = Router::new()
            .route("/", get(index))
            .route("/live", get(live))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/jobs", get(jobs))
            .fallback(|| async { (StatusCode::NOT_FOUND, INDEX) })
            .with_state(views);
        axum::serve(self.listener, routes).with_graceful_shutdown(stop.cancelled_owned()).await
    }
}

impl From<JobStatus> for JobView {
    fn from(status: JobStatus) -> Self {
        let JobStatus {
            instance,
            cluster,
            node,
            triggers,
            hooks: _,
            goal,
            stage,
            reason,
            since,
            wake_at,
            deadline,
        } = status;
        Self {
            instance: instance.to_string(),
            node: node.map(|node| node.to_string()),
            cluster: cluster.map(|cluster| cluster.to_string()),
            goal: goal_name(goal),
            stage: stage.map(stage_name),
            reason,
            triggers: triggers.into_iter().map(trigger_name).collect(),
            since: rfc_3339(since),
            wake_at: Some(rfc_3339(wake_at)),
            deadline: deadline.map(rfc_3339),
        }
    }
}

impl From<Unfinished> for JobView {
    fn from(unfinished: Unfinished) -> Self {
        let Unfinished { what, instance, account_region: _, cluster, node, since } = unfinished;
        Self {
            instance: instance.to_string(),
            node: node.map(|node| node.to_string()),
            cluster: cluster.map(|cluster| cluster.to_string()),
            goal: "none",
            stage: None,
            reason: what.in_words(),
            triggers: Vec::new(),
            since: rfc_3339(since),
            wake_at: None,
            deadline: None,
        }
    }
}

impl fmt::Debug for Views {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Views")
    }
}

const INDEX: &str = "\
offramp

/live     200 while the work moves on, else 503 with the reason
/ready    200 when the queue and every cluster can be reached, else 503; says what is missing
/metrics  Prometheus metrics
/jobs     what is being done at this moment, and what no job can finish, as JSON
";

async fn index() -> &'static str {
    INDEX
}

async fn live(State(views): State<Views>) -> Response {
    match (views.live)() {
        Ok(()) => "alive\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

async fn ready(State(views): State<Views>) -> Response {
    let parts = (views.readiness)();
    let status =
        if parts.iter().all(|part| part.ready) { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    json(status, &parts)
}

async fn metrics(State(views): State<Views>) -> Response {
    match TextEncoder::new().encode_to_string(&(views.metrics)()) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            (StatusCode::INTERNAL_SERVER_ERROR, format!("writing the metrics: {error}\n")).into_response()
        }
    }
}

async fn jobs(State(views): State<Views>) -> Response {
    json(StatusCode::OK, &(views.jobs)().await)
}

fn json(status: StatusCode, value: &impl Serialize) -> Response {
    match serde_json::to_string(value) {
        Ok(text) => (status, [(header::CONTENT_TYPE, "application/json")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("writing JSON: {error}\n")).into_response(),
    }
}

fn rfc_3339(time: Timestamp) -> String {
    jiff::Timestamp::from_millisecond(time.as_millis()).map(|time| format!("{time:.3}")).unwrap_or_default()
}

#[cfg(test)]
mod tests;
