use std::fs;

use super::*;

const SECRET: &str = "k8s-aws-v1.c2VjcmV0";

fn kubeconfig(user: &str) -> String {
    format!(
        "apiVersion: v1
kind: Config
current-context: blue
clusters:
- name: blue
  cluster: {{ server: 'http://127.0.0.1:9' }}
contexts:
- name: blue
  context: {{ cluster: blue, user: me }}
- name: lost
  context: {{ cluster: nowhere, user: me }}
users:
- name: me
  user:
    {user}
"
    )
}

async fn opening(text: &str, context: Option<&str>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    fs::write(&path, text).unwrap();
    let access = Access::Kubeconfig { path, context: context.map(str::to_owned) };
    let result = open(&ClusterSource { name: ClusterName::from("blue"), access }).await;
    result.map(|_| ()).map_err(|error| {
        let text = error.to_string();
        assert!(!text.contains(SECRET), "{text}");
        text.replace(&folder.path().display().to_string(), "/tmp")
    })
}

#[tokio::test]
async fn a_cluster_that_does_not_answer_can_be_opened() {
    assert_eq!(opening(&kubeconfig(&format!("token: {SECRET}")), None).await, Ok(()));
    // As `$(cat token)` does not leave it, and many a script does (kubernetes/kubernetes#52919).
    assert_eq!(opening(&kubeconfig(&format!("token: \"{SECRET}\\n\"")), None).await, Ok(()));
}

#[tokio::test]
async fn what_is_wrong_with_a_kubeconfig_is_told_without_secrets() {
    let token = kubeconfig(&format!("token: {SECRET}"));
    let check = async |text: &str, context: Option<&str>, expect: &str| {
        assert_eq!(opening(text, context).await, Err(format!("opening cluster blue: {expect}")));
    };
    let file = "kubeconfig /tmp/config";
    check(&token, Some("green"), &format!("context `green` of {file}: it has no context `green`")).await;
    check(&token, Some("lost"), &format!("context `lost` of {file}: it has no cluster `nowhere`")).await;
    let expect =
        format!("{file}: its server is no URL: write https://127.0.0.1 and, after a colon, its port");
    for server in ["127.0.0.1:9", &format!("admin:{SECRET}@127.0.0.1:9")] {
        check(&token.replace("http://127.0.0.1:9", server), None, &expect).await;
    }
    let split = kubeconfig(&format!("token: \"{SECRET}\\nX\""));
    check(&split, None, &format!("{file}: its token has characters that no token has, such as blanks")).await;
    let legacy = kubeconfig(&format!("auth-provider: {{ name: gcp, config: {{ cmd-path: /{SECRET} }} }}"));
    let expect = format!("{file}: its auth-provider runs a command (cmd-path): use an exec plugin instead");
    check(&legacy, None, &expect).await;
    let bad = token.replace("http://127.0.0.1:9", "");
    check(&bad, None, &format!("{file}: the server of its cluster: empty string")).await;
    let broken = kubeconfig(&format!("token: [{SECRET}"));
    check(&broken, None, &format!("{file}: line 15 is not what a kubeconfig has there")).await;
    let wrong = kubeconfig(&format!("exec: {SECRET}"));
    check(&wrong, None, &format!("{file}: line 15 is not what a kubeconfig has there")).await;
    let key = kubeconfig(&format!("{{ client-certificate-data: 'IQ==', client-key-data: '{SECRET}' }}"));
    check(&key, None, &format!("{file}: its client key cannot be read")).await;
    let proxied = token.replace("server:", &format!("proxy-url: 'ftp://me:{SECRET}@proxy', server:"));
    assert!(opening(&proxied, None).await.unwrap_err().contains("through a proxy"));
}

#[tokio::test]
async fn a_credential_plugin_that_fails_does_not_spill() {
    let plugin = |command: &str, args: &str| {
        kubeconfig(&format!(
            "exec: {{ apiVersion: client.authentication.k8s.io/v1, interactiveMode: Never, \
             command: {command}, args: {args} }}"
        ))
    };
    let spilling = plugin("sh", &format!("['-c', 'echo {SECRET}; echo {SECRET} >&2; exit 3']"));
    let text = opening(&spilling, None).await.unwrap_err();
    assert!(text.ends_with("the credential plugin failed with exit status: 3"), "{text}");
    let text = opening(&plugin("/nowhere/plugin", "[]"), None).await.unwrap_err();
    assert!(text.contains("the credential plugin cannot be started: "), "{text}");
}

#[tokio::test]
async fn a_file_that_is_not_there_is_named() {
    let access = Access::Kubeconfig { path: "/nowhere/config".into(), context: None };
    let error = open(&ClusterSource { name: ClusterName::from("blue"), access }).await.err().unwrap();
    let text = error.to_string();
    assert!(
        text.starts_with("opening cluster blue: kubeconfig /nowhere/config: it cannot be read: "),
        "{text}"
    );
}

#[test]
fn a_bad_node_selector_is_refused() {
    let options = ClusterOptions { node_selector: Some("pool in web".to_owned()) };
    let error = node_selector(&ClusterName::from("blue"), &options).unwrap_err();
    assert!(error.to_string().starts_with("opening cluster blue: its node selector: `pool in web` is not"));
}
