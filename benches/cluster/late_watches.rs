//! A proxy before an API server, behind which every watch is late.

use std::path::Path;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use futures::stream::StreamExt;
use kube::Client;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

/// Makes a kubeconfig whose server is the proxy. `client` is whoever it asks as.
pub(crate) async fn open(client: Client, late: Duration, kubeconfig: &Path) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().fallback(pass).with_state((client, late));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let file = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "late",
        "clusters": [{ "name": "late", "cluster": { "server": server } }],
        "users": [{ "name": "late", "user": {} }],
        "contexts": [{ "name": "late", "context": { "cluster": "late", "user": "late" } }],
    });
    // JSON is YAML.
    std::fs::write(kubeconfig, file.to_string()).unwrap();
}

async fn pass(State((client, late)): State<(Client, Duration)>, request: Request) -> Response {
    let query = request.uri().query().unwrap_or_default();
    let watches = query.split('&').any(|part| part == "watch=true");
    let (mut parts, body) = request.into_parts();
    // The connection to the API server is another one, and so are its credentials.
    for header in ["host", "content-length", "authorization", "accept-encoding"] {
        parts.headers.remove(header);
    }
    let body = to_bytes(body, usize::MAX).await.unwrap_or_default();
    let asked = axum::http::Request::from_parts(parts, kube::client::Body::from(body.to_vec()));
    let Ok(answer) = client.send(asked).await else { return StatusCode::BAD_GATEWAY.into_response() };
    let (mut parts, body) = answer.into_parts();
    parts.headers.remove("transfer-encoding");
    let chunks = Body::new(body).into_data_stream();
    let body = if watches { delayed(chunks, late) } else { Body::from_stream(chunks) };
    Response::from_parts(parts, body)
}

/// Each chunk so much later than it came; what comes meanwhile waits in its own place.
fn delayed(mut chunks: axum::body::BodyDataStream, late: Duration) -> Body {
    let (into, out) = mpsc::unbounded_channel::<(Instant, Result<Bytes, axum::Error>)>();
    tokio::spawn(async move {
        while let Some(chunk) = chunks.next().await {
            if into.send((Instant::now() + late, chunk)).is_err() {
                return;
            }
        }
    });
    Body::from_stream(futures::stream::unfold(out, |mut out| async {
        let (then, chunk) = out.recv().await?;
        sleep_until(then).await;
        Some((chunk, out))
    }))
}
