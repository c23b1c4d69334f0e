//! Credential plugins of a kubeconfig, such as `aws eks get-token`: run by us, because kube waits for one for
//! ever, and a plugin that hangs would keep its cluster from ever being opened again.
//!
//! Page: <https://kubernetes.io/docs/reference/access-authn-authz/authentication/#client-go-credential-plugins>.
//! What a plugin prints is a secret, on stderr too: nothing of it is ever repeated.

use std::process::Stdio;
use std::time::Duration;

use kube::config::{ExecConfig, ExecInteractiveMode};
use offramp_core::Timestamp;
use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::fault;

/// `aws eks get-token` takes one to three seconds, and ten where a Python is started on a busy CPU or STS is
/// asked again. One that takes twice that will not answer.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);
/// A token has some kilobytes, a certificate with its key ten.
const LONGEST_OUTPUT: u64 = 256 * 1024;

/// What a plugin gave.
pub(crate) struct Credential {
    pub(crate) token: Option<String>,
    /// A client certificate and its key, both PEM.
    pub(crate) certificate: Option<(String, String)>,
    /// When it has to be asked again; without one never.
    pub(crate) until: Option<Timestamp>,
}

#[derive(Deserialize)]
struct ExecCredential {
    status: Option<Status>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    expiration_timestamp: Option<String>,
    token: Option<String>,
    client_certificate_data: Option<String>,
    client_key_data: Option<String>,
}

/// Runs a plugin to its end, for at most `limit`, and then ends it with everything that it started.
pub(crate) async fn run(exec: &ExecConfig, limit: Duration) -> Result<Credential, String> {
    let child = Group(command(exec)?.spawn().map_err(|error| {
        let hint = exec.install_hint.as_deref();
        let hint = hint.map(|hint| format!(" ({})", fault::bounded(hint))).unwrap_or_default();
        format!("the credential plugin cannot be started: {error}{hint}")
    })?);
    let output = timeout(limit, output_of(child)).await.map_err(|_| {
        format!(
            "the credential plugin has not answered within {} s and was ended; run it by hand to see what it \
             waits for",
            limit.as_secs()
        )
    })??;
    read(&output)
}

fn command(exec: &ExecConfig) -> Result<Command, String> {
    let program = exec.command.as_deref().ok_or("the credential plugin has no command")?;
    if exec.interactive_mode == Some(ExecInteractiveMode::Always) {
        return Err("the credential plugin wants to talk to a person (interactiveMode: Always)".to_owned());
    }
    let mut command = Command::new(program);
    command.args(exec.args.iter().flatten());
    for variable in exec.env.iter().flatten() {
        if let (Some(name), Some(value)) = (variable.get("name"), variable.get("value")) {
            command.env(name, value);
        }
    }
    let mut spec = json!({ "interactive": false });
    if let Some(cluster) = exec.cluster.as_ref().filter(|_| exec.provide_cluster_info) {
        spec["cluster"] = serde_json::to_value(cluster).map_err(|error| error.to_string())?;
    }
    let info = json!({ "apiVersion": exec.api_version, "kind": "ExecCredential", "spec": spec });
    command.env("KUBERNETES_EXEC_INFO", info.to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // A group of its own, so that a child of a script is ended with it.
    command.process_group(0).kill_on_drop(true);
    Ok(command)
}

async fn output_of(mut child: Group) -> Result<Vec<u8>, String> {
    let mut output = Vec::new();
    if let Some(stdout) = child.0.stdout.take() {
        let read = stdout.take(LONGEST_OUTPUT + 1).read_to_end(&mut output).await;
        let length =
            read.map_err(|error| format!("the output of the credential plugin cannot be read: {error}"))?;
        if length as u64 > LONGEST_OUTPUT {
            return Err(format!("the credential plugin printed more than {} KiB", LONGEST_OUTPUT / 1024));
        }
    }
    let ended = child.0.wait().await;
    let status = ended.map_err(|error| format!("the credential plugin cannot be waited for: {error}"))?;
    if status.success() { Ok(output) } else { Err(format!("the credential plugin failed with {status}")) }
}

fn read(output: &[u8]) -> Result<Credential, String> {
    // The error would quote the output. JSON is YAML, which kubectl takes as well.
    let parsed =
        str::from_utf8(output).ok().and_then(|text| serde_saphyr::from_str::<ExecCredential>(text).ok());
    let status = parsed.and_then(|credential| credential.status);
    let status = status.ok_or("the credential plugin did not print an ExecCredential with a status")?;
    let until = status.expiration_timestamp.map(|text| {
        let time: Result<jiff::Timestamp, _> = text.parse();
        time.map(|time| Timestamp::from_millis(time.as_millisecond()))
    });
    let given = |text: Option<String>| text.filter(|text| !text.is_empty());
    Ok(Credential {
        token: given(status.token),
        certificate: given(status.client_certificate_data).zip(given(status.client_key_data)),
        until: until.transpose().map_err(|_| "the credential plugin gave an expiry that is no time")?,
    })
}

/// A child with its process group. What is left of it when this is dropped is ended.
struct Group(Child);

impl Drop for Group {
    fn drop(&mut self) {
        // Waited for already: the number may be another's by now.
        let Some(id) = self.0.id().and_then(|id| Pid::from_raw(id.try_into().ok()?)) else { return };
        // Where it has just ended there is nothing to end.
        kill_process_group(id, Signal::KILL).unwrap_or_default();
    }
}

#[cfg(test)]
mod tests;
