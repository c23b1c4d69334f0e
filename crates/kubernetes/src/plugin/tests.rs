use std::fs;
use std::path::Path;

use super::*;

const SECRET: &str = "k8s-aws-v1.c2VjcmV0";
const QUICK: Duration = Duration::from_millis(500);

fn shell(script: &str) -> ExecConfig {
    let exec = json!({
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": "sh",
        "args": ["-c", script],
        "env": [{ "name": "GREETING", "value": "hello" }],
        "interactiveMode": "IfAvailable",
    });
    serde_json::from_value(exec).unwrap()
}

async fn refusal(script: &str) -> String {
    let text = run(&shell(script), QUICK).await.err().unwrap();
    assert!(!text.contains(SECRET), "{text}");
    text
}

fn runs(pid_file: &Path) -> bool {
    let pid = fs::read_to_string(pid_file).unwrap();
    // A zombie has no command line; whoever adopts it takes it away sooner or later.
    fs::read(format!("/proc/{}/cmdline", pid.trim())).is_ok_and(|words| !words.is_empty())
}

#[tokio::test]
async fn a_token_with_its_expiry_is_read() {
    let script = format!(
        r#"echo '{{"kind":"ExecCredential","status":{{"token":"{SECRET}","expirationTimestamp":"1970-01-01T00:01:00Z"}}}}'"#
    );
    let credential = run(&shell(&script), LIMIT).await.ok().unwrap();
    assert_eq!(credential.token.as_deref(), Some(SECRET));
    assert_eq!(credential.until, Some(Timestamp::from_millis(60_000)));
    assert!(credential.certificate.is_none());
}

#[tokio::test]
async fn a_certificate_is_read_with_its_key() {
    let script = r#"echo '{"status":{"clientCertificateData":"a","clientKeyData":"b"}}'"#;
    let credential = run(&shell(script), LIMIT).await.ok().unwrap();
    assert_eq!(credential.certificate, Some(("a".to_owned(), "b".to_owned())));
    assert_eq!((credential.token, credential.until), (None, None));
}

/// What kubectl takes as well: YAML (meta-pytorch/monarch#4916), and a certificate that is there and empty.
#[tokio::test]
async fn yaml_and_empty_fields_are_read() {
    let script = "printf 'kind: ExecCredential\\nstatus:\\n  token: abc\\n  clientCertificateData: \"\"\\n  clientKeyData: \"\"\\n'";
    let credential = run(&shell(script), LIMIT).await.ok().unwrap();
    assert_eq!((credential.token.as_deref(), credential.certificate), (Some("abc"), None));
}

#[tokio::test]
async fn a_plugin_gets_its_variables_and_is_told_that_nobody_listens() {
    let script = r#"echo "{\"status\":{\"token\":\"$GREETING\"}}"; echo "$KUBERNETES_EXEC_INFO" | grep -q '"interactive":false'"#;
    assert_eq!(run(&shell(script), LIMIT).await.ok().unwrap().token.as_deref(), Some("hello"));
}

#[tokio::test]
async fn what_is_wrong_is_told_without_what_was_printed() {
    assert_eq!(
        refusal(&format!("echo {SECRET}; echo {SECRET} >&2; exit 3")).await,
        "the credential plugin failed with exit status: 3"
    );
    assert_eq!(
        refusal(&format!("echo {SECRET}")).await,
        "the credential plugin did not print an ExecCredential with a status"
    );
    let expiry = format!(r#"echo '{{"status":{{"token":"{SECRET}","expirationTimestamp":"soon"}}}}'"#);
    assert_eq!(refusal(&expiry).await, "the credential plugin gave an expiry that is no time");
    let nowhere = ExecConfig { command: Some("/nowhere/plugin".to_owned()), ..shell("") };
    let text = run(&nowhere, QUICK).await.err().unwrap();
    assert!(text.starts_with("the credential plugin cannot be started: "), "{text}");
}

#[tokio::test]
async fn one_that_hangs_is_ended_with_its_children() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    // The child holds the pipe, so that even the end of the script would not be the end of its output.
    let script = format!("sleep 3600 & echo $! > {}; wait", pid_file.display());
    let text = refusal(&script).await;
    assert!(text.starts_with("the credential plugin has not answered within 0 s and was ended"), "{text}");
    let ended = async {
        while runs(&pid_file) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), ended).await.expect("the child of the script is ended");
}

#[tokio::test]
async fn output_without_end_is_cut_and_refused() {
    assert_eq!(refusal("yes").await, "the credential plugin printed more than 256 KiB");
}
