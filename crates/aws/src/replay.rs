//! A server on 127.0.0.1 that gives prepared answers in turn and remembers what it was asked.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use aws_config::BehaviorVersion;
use aws_credential_types::Credentials;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use offramp_core::{AccountRegion, Region};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::sessions::{Access, Options, Sessions};

/// The server. It stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Replay {
    pub(crate) url: String,
    script: Arc<Mutex<Script>>,
    _server: JoinSet<()>,
}

#[derive(Debug, Default)]
struct Script {
    answers: Vec<(u16, String)>,
    asked: Vec<Asked>,
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// `X-Amz-Target` of SQS's JSON protocol, without the service.
    pub(crate) target: String,
    pub(crate) authorization: String,
    body: String,
}

impl Asked {
    /// The body of a JSON request.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap()
    }

    /// The parameters of a query request, but for `Version`.
    pub(crate) fn query(&self) -> BTreeMap<String, String> {
        let pairs = form_urlencoded::parse(self.body.as_bytes()).into_owned();
        pairs.filter(|(key, _)| key != "Version").collect()
    }
}

impl Replay {
    pub(crate) async fn of(answers: impl IntoIterator<Item = (u16, String)>) -> Self {
        let mut answers: Vec<_> = answers.into_iter().collect();
        answers.reverse();
        let script = Arc::new(Mutex::new(Script { answers, asked: Vec::new() }));
        let router = Router::new().fallback(answer).with_state(Arc::clone(&script));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut server = JoinSet::new();
        server.spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, script, _server: server }
    }

    /// Everything that was asked. Fails where prepared answers are left over.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        let script = self.script.lock().unwrap();
        assert_eq!(script.answers.len(), 0, "answers are left over");
        script.asked.clone()
    }

    pub(crate) async fn access(&self) -> Access {
        access(&self.url).await
    }

    pub(crate) async fn sessions(&self) -> Sessions {
        Sessions::new(self.access().await, account_region(), None)
    }
}

pub(crate) fn account_region() -> AccountRegion {
    AccountRegion { account: Some("111122223333".into()), region: Some("eu-west-1".into()) }
}

pub(crate) async fn access(url: &str) -> Access {
    let credentials = Credentials::new("AKIDEXAMPLE", "secret", None, None, "test");
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).credentials_provider(credentials);
    let options = Options { region: Some(Region::new("eu-west-1")), endpoint_url: Some(url.to_owned()) };
    Access::load_from(loader, &options).await.unwrap()
}

async fn answer(State(script): State<Arc<Mutex<Script>>>, headers: HeaderMap, body: String) -> Response {
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let target = header("x-amz-target").rsplit('.').next().unwrap_or_default().to_owned();
    let mut script = script.lock().unwrap();
    script.asked.push(Asked { target, authorization: header("authorization"), body });
    let (status, body) = script.answers.pop().unwrap_or((418, "nothing is prepared".to_owned()));
    (StatusCode::from_u16(status).unwrap(), body).into_response()
}

/// A server that reads a request, writes these bytes and hangs up, again and again.
pub(crate) async fn hangs_up_after(bytes: &'static str) -> (String, JoinSet<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut server = JoinSet::new();
    server.spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 64 * 1024];
            let read = stream.read(&mut request).await.unwrap();
            assert!(read > 0);
            stream.write_all(bytes.as_bytes()).await.unwrap();
        }
    });
    (url, server)
}

/// An answer of the query protocol.
pub(crate) fn xml(action: &str, result: &str) -> (u16, String) {
    let id = "<ResponseMetadata><RequestId>7a62c49f</RequestId></ResponseMetadata>";
    (200, format!("<{action}Response><{action}Result>{result}</{action}Result>{id}</{action}Response>"))
}

/// A refusal of the query protocol.
pub(crate) fn xml_error(status: u16, code: &str, message: &str) -> (u16, String) {
    let error = format!("<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>");
    (status, format!("<ErrorResponse>{error}<RequestId>7a62c49f</RequestId></ErrorResponse>"))
}

/// A refusal of the JSON protocol.
pub(crate) fn json_error(status: u16, code: &str, message: &str) -> (u16, String) {
    let kind = format!("com.amazonaws.sqs#{code}");
    (status, serde_json::json!({ "__type": kind, "message": message }).to_string())
}
