//! `offramp sandbox` as a process, and clients that nobody here wrote: boto3 against its AWS half, kubectl
//! against its cluster. The wire level is right when they work.
//!
//! `cargo test` alone leaves this out, since a Rust tool chain brings neither. `make clients` fetches both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;
use std::env;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

const CLIENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/clients");

#[test]
fn boto3_works_against_the_sandbox() {
    let python = program("E2E_PYTHON", "python3", &["-c", "import boto3"]);
    let sandbox = Sandbox::start();
    let mut client = Command::new(python);
    client.arg(format!("{CLIENTS}/boto3_client.py")).arg(&sandbox.exports["AWS_ENDPOINT_URL"]);
    passes(&mut client);
}

#[test]
fn kubectl_works_against_the_sandbox() {
    let kubectl = program("E2E_KUBECTL", "kubectl", &["version", "--client"]);
    let sandbox = Sandbox::start();
    let mut client = Command::new("sh");
    client.arg(format!("{CLIENTS}/kubectl.sh")).arg(kubectl);
    passes(client.env("KUBECONFIG", &sandbox.exports["KUBECONFIG"]));
}

/// `offramp sandbox`, killed when this is dropped, and the variables that it says to export.
struct Sandbox {
    child: Child,
    exports: BTreeMap<String, String>,
    _folder: TempDir,
}

impl Sandbox {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_offramp"))
            .args(["sandbox", "--log-level", "warn"])
            .env_clear()
            .env("TMPDIR", folder.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let mut sandbox = Self { child, exports: BTreeMap::new(), _folder: folder };
        // The variables come first, and comments after them.
        while let Some(export) = lines.next().expect("more lines").strip_prefix("export ") {
            let (name, value) = export.split_once('=').unwrap();
            sandbox.exports.insert(name.to_owned(), value.to_owned());
        }
        sandbox
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// The program that a variable names, or else the usual one. It has to be there and to work.
fn program(variable: &str, usual: &str, probe: &[&str]) -> String {
    let name = env::var(variable).ok().filter(|name| !name.is_empty()).unwrap_or_else(|| usual.to_owned());
    match Command::new(&name).args(probe).output() {
        Ok(output) if output.status.success() => name,
        Ok(output) => panic!(
            "`{name} {}` does not work, so there is nothing to test with; set {variable}, or use `make clients`:\n{}",
            probe.join(" "),
            String::from_utf8_lossy(&output.stderr)
        ),
        Err(error) => panic!("{name} cannot be started ({error}); set {variable}, or use `make clients`"),
    }
}

/// Both scripts end with success, and with a count of what they have checked.
fn passes(client: &mut Command) {
    let output = client.stdin(Stdio::null()).output().unwrap();
    let (text, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}\n{errors}");
    assert!(text.trim_end().ends_with(" checks passed"), "{text}\n{errors}");
}
