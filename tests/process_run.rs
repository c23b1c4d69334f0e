//! `offramp run` as a process, with a queue and a cluster that nobody answers for: it starts, says what
//! is missing, and ends when told to.
#![allow(clippy::unwrap_used, reason = "a test that cannot run its process has failed")]

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, ChildStderr, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

#[test]
fn it_is_alive_and_not_ready_while_nothing_answers_and_ends_at_sigterm() {
    for signal in ["TERM", "INT"] {
        let mut run = Run::start(&[("OFFRAMP_ADMIN_LISTEN", "127.0.0.1:0"), KEY_ID, SECRET_KEY]);
        let address: SocketAddr = run.line_with("serving")["address"].as_str().unwrap().parse().unwrap();
        run.line_with("it will be tried again");

        assert_eq!(get(address, "/live").0, 200);
        let (status, parts) = get(address, "/ready");
        assert_eq!(status, 503);
        let parts: Value = serde_json::from_str(&parts).unwrap();
        assert_eq!((&parts[0]["name"], &parts[0]["ready"]), (&"queue".into(), &false.into()));
        assert_eq!((&parts[1]["name"], &parts[1]["ready"]), (&"cluster blue".into(), &false.into()));
        assert!(get(address, "/metrics").1.contains("offramp_"));
        assert_eq!(get(address, "/jobs"), (200, "[]".to_owned()));

        let told = Instant::now();
        run.signal(signal);
        assert_eq!(run.line_with("stopping")["signal"], format!("SIG{signal}"));
        assert_eq!(run.child.wait().unwrap().code(), Some(0));
        assert!(told.elapsed() < Duration::from_secs(15), "{:?}", told.elapsed());
    }
}

#[test]
fn a_port_in_use_is_an_error_at_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let mut run = Run::start(&[("OFFRAMP_ADMIN_LISTEN", &address), KEY_ID, SECRET_KEY]);
    let text = run.rest();
    assert!(text.contains(&format!("offramp: error: binding the admin server to {address}: ")), "{text}");
    assert_eq!(run.child.wait().unwrap().code(), Some(1));
}

const KEY_ID: (&str, &str) = ("AWS_ACCESS_KEY_ID", "test");
const SECRET_KEY: (&str, &str) = ("AWS_SECRET_ACCESS_KEY", "test");

/// A running worker; it is killed when the test ends early.
struct Run {
    child: Child,
    stderr: BufReader<ChildStderr>,
    _folder: TempDir,
}

impl Run {
    fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        fs::write(&kubeconfig, KUBECONFIG).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_offramp"))
            .args(["run", "--log-format", "json"])
            .env_clear()
            .env("HOME", folder.path())
            .env("KUBECONFIG", &kubeconfig)
            .env("AWS_REGION", "eu-west-1")
            .env("AWS_ENDPOINT_URL", NOBODY)
            .env("OFFRAMP_QUEUE_URL", format!("{NOBODY}/123456789012/offramp"))
            .env("OFFRAMP_CLUSTER_NAME", "blue")
            .envs(variables.iter().copied())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        Self { child, stderr, _folder: folder }
    }

    /// The next log line whose message holds these words.
    fn line_with(&mut self, words: &str) -> Value {
        let mut seen = String::new();
        loop {
            let start = seen.len();
            assert_ne!(self.stderr.read_line(&mut seen).unwrap(), 0, "no line with {words:?} in:\n{seen}");
            let line: Value = serde_json::from_str(&seen[start..]).unwrap_or_default();
            if line["message"].as_str().is_some_and(|message| message.contains(words)) {
                return line;
            }
        }
    }

    fn rest(&mut self) -> String {
        let mut text = String::new();
        self.stderr.read_to_string(&mut text).unwrap();
        text
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Port 1 of loopback: nobody listens there, and nobody can without being root.
const NOBODY: &str = "http://127.0.0.1:1";
const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
clusters: [{name: nobody, cluster: {server: 'http://127.0.0.1:1'}}]
users: [{name: nobody, user: {}}]
contexts: [{name: nobody, context: {cluster: nobody, user: nobody}}]
current-context: nobody
";

fn get(address: SocketAddr, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), body.to_owned())
}
