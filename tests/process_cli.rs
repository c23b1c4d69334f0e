//! The binary as a process: what it prints, where, and with which exit code, when it is asked for
//! something that cannot be.
#![allow(clippy::unwrap_used, reason = "a test that cannot run its process has failed")]

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

#[test]
fn help_goes_to_stdout_and_is_no_error() {
    for words in
        [&["--help"][..], &["run", "--help"], &["demo", "--help"], &["sandbox", "--help"], &["--version"]]
    {
        let output = offramp(words, &[]);
        assert_eq!(output.status.code(), Some(0), "{words:?}");
        assert!(!output.stdout.is_empty() && output.stderr.is_empty(), "{words:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_and_names_the_nearest_right_word() {
    let output = offramp(&["demoo"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("'demo'"), "{}", stderr(&output));
}

#[test]
fn a_wrong_configuration_is_one_line_for_each_error_and_exit_code_2() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offramp.yaml");
    let check = |yaml: &str, expect: &str| {
        fs::write(&file, yaml).unwrap();
        let output = offramp(&["run", "--config", &shown(&file)], &[]);
        assert_eq!(stderr(&output), expect.replace("FILE", &shown(&file)));
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(2), &b""[..]));
    };
    check(
        "# secret\naws:\n  regoin: eu-west-1\n",
        "offramp: error: FILE:3: unknown field \"regoin\" in aws; did you mean \"region\"?\n",
    );
    check(
        "queue:\n  url: offramp\n",
        "offramp: error: FILE:2: queue.url: \"offramp\" is no URL that begins with https:// or http://\n\
         offramp: error: FILE: no cluster: set clusters, or OFFRAMP_CLUSTER_NAME for the only one\n",
    );
}

#[test]
fn the_file_can_be_named_by_a_variable() {
    let output = offramp(&["run"], &[("OFFRAMP_CONFIG", "/nowhere/offramp.yaml")]);
    let text = stderr(&output);
    assert!(
        text.starts_with("offramp: error: reading the configuration /nowhere/offramp.yaml: No such file"),
        "{text}"
    );
    assert!(text.contains("\nhint: "), "{text}");
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn a_mistyped_variable_is_an_error() {
    let output = offramp(
        &["run"],
        &[
            ("OFFRAMP_QUEUE_ULR", "https://sqs.eu-west-1.amazonaws.com/123456789012/offramp"),
            ("OFFRAMP_CLUSTER_NAME", "blue"),
            ("KUBERNETES_SERVICE_HOST", "10.100.0.1"),
        ],
    );
    assert_eq!(
        stderr(&output),
        "offramp: error: unknown environment variable OFFRAMP_QUEUE_ULR; did you mean OFFRAMP_QUEUE_URL?\n\
         offramp: error: no queue: set queue.url, or OFFRAMP_QUEUE_URL, to the URL of the SQS queue\n"
    );
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn nothing_panics_when_nobody_reads() {
    let mut child = command(&["run"], &[])
        .stderr(fs::OpenOptions::new().write(true).open("/dev/full").unwrap())
        .spawn()
        .unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(2));
}

fn offramp(words: &[&str], variables: &[(&str, &str)]) -> Output {
    command(words, variables).output().unwrap()
}

/// With an environment of its own, so that that of the test run changes nothing.
fn command(words: &[&str], variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_offramp"));
    command.args(words).env_clear().envs(variables.iter().copied());
    command
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn shown(path: &Path) -> String {
    path.display().to_string()
}
