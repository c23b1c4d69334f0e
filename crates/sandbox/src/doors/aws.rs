//! Door two, the AWS half: one URL for all services, told apart as AWS SDKs mark their requests.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;

use super::{control, query, sqs};
use crate::Sandbox;

/// SQS (AWS JSON 1.0), Auto Scaling and ELBv2 (Query), and the sandbox's own controls under
/// `/_sandbox/`. Any credentials will do. What is not modelled answers 501 with its name.
pub fn aws_router(sandbox: Sandbox) -> Router {
    let control = control::router(sandbox.clone());
    Router::new()
        .route("/", any(service))
        .route("/{account}/{queue}", any(service))
        .with_state(sandbox)
        .nest("/_sandbox", control)
}

/// SQS clients name the operation in a header, Query clients in the body.
async fn service(State(sandbox): State<Sandbox>, headers: HeaderMap, body: Bytes) -> Response {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    match text("x-amz-target").split_once('.') {
        Some(("AmazonSQS", operation)) => {
            let host = text(header::HOST.as_str());
            sqs::answer(&sandbox, operation, host, &body).await
        }
        Some((service, operation)) => {
            let text = format!("the sandbox does not know {service}.{operation}");
            (StatusCode::NOT_IMPLEMENTED, text).into_response()
        }
        None => query::answer(&sandbox, &body),
    }
}

#[cfg(test)]
mod tests;
