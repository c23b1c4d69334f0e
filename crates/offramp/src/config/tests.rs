use std::collections::BTreeSet;
use std::time::Duration;

use offramp_core::{ClusterName, HookName, IngressDaemonSet, Propagation, RebalancePolicy, TargetGroupArn};
use offramp_engine::{ForeignMessages, LeaseTimes, default_policy};
use offramp_kubernetes::Access;

use super::*;

/// Enough for everything that a test does not speak of.
const BASE: &str =
    "queue: {url: https://sqs.eu-west-1.amazonaws.com/123456789012/offramp}\nclusters: [{name: blue}]\n";

#[test]
fn unknown_fields_name_line_section_and_the_nearest_right_name() {
    check_error("quue:\n  url: x\n", "FILE:1: unknown field \"quue\"; did you mean \"queue\"?");
    check_error(
        "aws:\n  # The Region.\n  regoin: x\n",
        "FILE:3: unknown field \"regoin\" in aws; did you mean \"region\"?",
    );
    check_error(
        "aws:\n  colour: x\n",
        "FILE:2: unknown field \"colour\" in aws; those known are region, endpoint_url",
    );
    check_error(
        "clusters:\n  - name: blue\n    contxt: x\n",
        "FILE:3: unknown field \"contxt\" in clusters[0]; did you mean \"context\"?",
    );
}

#[test]
fn wrong_shapes_name_line_field_and_what_was_expected() {
    let fields = "expected fields, each on a line of its own as NAME: VALUE";
    let list = "expected a list, each item on a line of its own after a dash";
    check_error("queue: hello\n", &format!("FILE:1: queue: {fields}"));
    check_error("- queue\n", &format!("FILE:1: {fields}"));
    check_error("clusters: [blue]\n", &format!("FILE:1: clusters[0]: {fields}"));
    check_error("clusters:\n  name: blue\n", &format!("FILE:2: clusters: {list}"));
    check_error("hooks:\n  names: one\n", &format!("FILE:2: hooks.names: {list}"));
    check_error("queue:\n  url: [a]\n", "FILE:2: queue.url: expected a single value");
    check_error("hooks:\n  names: [~]\n", "FILE:2: hooks.names[0]: expected a single value");
    check_error("queue:\n  url: x\n  url: y\n", "FILE:3: queue: the field \"url\" is given twice");
    check_error("queue: {}\n---\nqueue: {}\n", "FILE:3: expected one YAML document; remove the line ---");
    check_error("queue:\n\turl: x\n", "FILE:2: tabs disallowed within this context (block indentation)");
}

#[test]
fn wrong_values_name_line_field_and_what_they_look_like() {
    check_value(
        "timing: {settle: 5}",
        "timing.settle: \"5\" is no duration; write a number with its unit, such as 30s, 10m or 1h",
    );
    check_value(
        "timing: {settle: -5s}",
        "timing.settle: \"-5s\" is no duration; write a number with its unit, such as 30s, 10m or 1h",
    );
    check_value(
        "timing: {recheck: 10ms}",
        "timing.recheck: must be at least 1s, or AWS throttles the account",
    );
    check_value("intake: {permits: lots}", "intake.permits: \"lots\" is no whole number of at least 1");
    check_value("jobs: {most: 0}", "jobs.most: \"0\" is no whole number of at least 1");
    check_value(
        "rebalance: isolat",
        "rebalance: \"isolat\" is none of automatic, none, isolate; did you mean \"isolate\"?",
    );
    check_value("rebalance: drain", "rebalance: \"drain\" is none of automatic, none, isolate");
    check_value("messages: sometimes", "messages: \"sometimes\" is none of on, off, true, false");
    check_value("foreign_messages: keep", "foreign_messages: \"keep\" is none of delete, leave");
    check_value(
        "log: {format: jsn}",
        "log.format: \"jsn\" is none of auto, human, json; did you mean \"json\"?",
    );
    check_value(
        "log: {level: debg}",
        "log.level: \"debg\" is none of error, warn, info, debug, trace; did you mean \"debug\"?",
    );
    check_value("aws: {region: Ireland}", "aws.region: \"Ireland\" is no Region; it looks like eu-west-1");
    check_value(
        "aws: {endpoint_url: localhost}",
        "aws.endpoint_url: \"localhost\" is no URL that begins with https:// or http://",
    );
    check_value(
        "target_groups: [web]",
        "target_groups[0]: \"web\" is no target group ARN; it looks like arn:aws:elasticloadbalancing:REGION:ACCOUNT:targetgroup/NAME/ID",
    );
    check_value(
        "ingress_daemon_sets: [nginx]",
        "ingress_daemon_sets[0]: \"nginx\" is no DaemonSet; write NAMESPACE/NAME",
    );
    check_value(
        "admin: {listen: localhost}",
        "admin.listen: \"localhost\" is no IP address with a port, such as 127.0.0.1:9090",
    );
    check_value("scope: {group_tag: =x}", "scope.group_tag: \"=x\" is no tag; write KEY or KEY=VALUE");
    check_value("hooks: {names: [\"\"]}", "hooks.names[0]: is empty");
    check_value("lease: {visibility: 5s}", "lease.visibility: must be between 10s and 12h");
    check_value("lease: {visibility: 13h}", "lease.visibility: must be between 10s and 12h");
    check_value(
        "lease: {extend_every: 20s}",
        "lease.extend_every: must be more than 0s and at most half of lease.visibility, which is 30s",
    );
    check_value(
        "lease: {extend_every: 0s}",
        "lease.extend_every: must be more than 0s and at most half of lease.visibility, which is 30s",
    );
}

#[test]
fn wrong_queue_urls_are_refused() {
    let check = |url: &str, words: &str| {
        check_error(
            &format!("queue:\n  url: {url}\nclusters: [{{name: blue}}]\n"),
            &format!("FILE:2: queue.url: {words}"),
        );
    };
    let shape = "is no queue URL; it looks like https://sqs.REGION.amazonaws.com/ACCOUNT/NAME";
    check(
        "https://sqs.eu-west-1.amazonaws.com/offramp",
        &format!("\"https://sqs.eu-west-1.amazonaws.com/offramp\" {shape}"),
    );
    check("https://sqs.eu-west-1.amazonaws.com", &format!("\"https://sqs.eu-west-1.amazonaws.com\" {shape}"));
    check("offramp", "\"offramp\" is no URL that begins with https:// or http://");
    check(
        "arn:aws:sqs:eu-west-1:123456789012:offramp",
        "\"arn:aws:sqs:eu-west-1:123456789012:offramp\" is no URL that begins with https:// or http://",
    );
}

#[test]
fn every_wrong_value_is_reported_at_once() {
    check_error(
        "queue:\n  url: nowhere\ntiming:\n  settle: 5\n  recheck: soon\n",
        "FILE:2: queue.url: \"nowhere\" is no URL that begins with https:// or http://\n\
         FILE:4: timing.settle: \"5\" is no duration; write a number with its unit, such as 30s, 10m or 1h\n\
         FILE:5: timing.recheck: \"soon\" is no duration; write a number with its unit, such as 30s, 10m or 1h\n\
         FILE: no cluster: set clusters, or OFFRAMP_CLUSTER_NAME for the only one",
    );
}

#[test]
fn what_is_missing_is_said_with_both_ways_to_give_it() {
    let expect = "no queue: set queue.url, or OFFRAMP_QUEUE_URL, to the URL of the SQS queue\n\
                  no cluster: set clusters, or OFFRAMP_CLUSTER_NAME for the only one";
    assert_eq!(load(None, &pod()).unwrap_err(), expect);
    check_error(
        "clusters:\n  - context: x\nqueue: {url: http://127.0.0.1:1/1/q}\n",
        "FILE: clusters[0].name is required: the name that hooks give in NotificationMetadata",
    );
}

#[test]
fn a_password_is_never_repeated() {
    for yaml in [
        "aws: {endpoint_url: https://user:hunter2@proxy.example}",
        "queue: {url: https://user:hunter2@sqs.eu-west-1.amazonaws.com/1/q}",
        "aws:\n  hunter2\n",
        "aws:\n  region: [hunter2]\n",
        "hunter2\n",
        "aws: {region: !!int hunter2}",
        "aws: {region: \"hunter2",
        "# hunter2\naws: {regoin: hunter2}\n# hunter2\n",
    ] {
        let error = load(Some(yaml), &pod()).unwrap_err();
        assert!(!error.is_empty() && !error.contains("hunter2"), "{yaml}: {error}");
    }
}

#[test]
fn clusters_that_cannot_be_told_apart_are_refused() {
    let check = |clusters: &str, expect: &str| {
        let folder = tempfile::tempdir().unwrap();
        let kubeconfig = folder.path().join("kubeconfig");
        std::fs::write(&kubeconfig, "").unwrap();
        let kubeconfig = kubeconfig.display().to_string();
        let yaml = format!(
            "queue: {{url: http://127.0.0.1:1/1/q}}\nclusters:\n{}",
            clusters.replace("KUBECONFIG", &kubeconfig)
        );
        assert_eq!(load(Some(&yaml), &pod()).unwrap_err(), expect.replace("KUBECONFIG", &kubeconfig));
    };
    check(
        "  - {name: blue}\n  - {name: blue, kubeconfig: KUBECONFIG}\n",
        "FILE:4: clusters[1].name: clusters[0] has this name already",
    );
    check(
        "  - {name: blue}\n  - {name: green}\n",
        "FILE:4: clusters[1]: \"green\" is reached the same way as clusters[0]; give each its kubeconfig or context",
    );
    check(
        "  - {name: blue, in_cluster: true, kubeconfig: KUBECONFIG}\n",
        "FILE:3: clusters[0].in_cluster: cannot be true beside kubeconfig or context",
    );
}

/// One that is mounted late, or never, stops no other cluster: its own task says what is wrong.
#[test]
fn a_kubeconfig_need_not_be_there_yet() {
    let yaml = BASE.replace("name: blue", "name: blue, kubeconfig: /nowhere/config");
    let config = load(Some(&yaml), &variables(&[])).unwrap();
    let expect = Access::Kubeconfig { path: "/nowhere/config".into(), context: None };
    assert_eq!(config.clusters[0].0.access, expect);
}

#[test]
fn a_cluster_without_a_way_in_is_an_error_at_once() {
    let check = |environment: &[(&str, &str)], expect: &str| {
        assert_eq!(
            load(Some(BASE), &variables(environment)).unwrap_err(),
            format!("FILE:2: clusters[0]: {expect}")
        );
    };
    check(&[], "no way in: this is no pod, KUBECONFIG is not set and ~/.kube/config does not exist");
    check(
        &[("KUBECONFIG", "/nowhere/a:/nowhere/b")],
        "no way in: KUBECONFIG names no file that exists (/nowhere/a:/nowhere/b)",
    );
    let yaml = BASE.replace("name: blue", "name: blue, in_cluster: true");
    assert_eq!(
        load(Some(&yaml), &variables(&[])).unwrap_err(),
        "FILE:2: clusters[0]: in_cluster is true, but this is no pod: KUBERNETES_SERVICE_HOST is not set"
    );
}

#[test]
fn outside_a_pod_the_kubeconfig_is_found_as_kubectl_finds_it() {
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir(home.path().join(".kube")).unwrap();
    let file = home.path().join(".kube/config");
    std::fs::write(&file, "").unwrap();
    let expect = Access::Kubeconfig { path: file.clone(), context: None };
    for (name, value) in [("HOME", home.path()), ("KUBECONFIG", &file)] {
        let config = load(Some(BASE), &variables(&[(name, value.to_str().unwrap())])).unwrap();
        assert_eq!(config.clusters[0].0.access, expect);
    }
    assert_eq!(load(Some(BASE), &pod()).unwrap().clusters[0].0.access, Access::InCluster);
}

#[test]
fn the_environment_alone_configures_the_simple_case_and_goes_before_the_file() {
    let mut environment = pod();
    environment.extend(variables(&[
        ("OFFRAMP_QUEUE_URL", "https://sqs.us-gov-west-1.amazonaws.com/123456789012/other"),
        ("OFFRAMP_CLUSTER_NAME", "green"),
        ("OFFRAMP_HOOK_NAMES", "one, two,"),
        ("OFFRAMP_REBALANCE", "isolate"),
        ("OFFRAMP_ADMIN_LISTEN", "0.0.0.0:8080"),
        ("OFFRAMP_CONFIG", "read with the command line"),
    ]));
    let full = format!("{BASE}hooks: {{names: [three]}}\nrebalance: none\nadmin: {{listen: 127.0.0.1:1}}\n");
    for yaml in [None, Some(full.as_str())] {
        let config = load(yaml, &environment).unwrap();
        assert_eq!(config.queue.url, "https://sqs.us-gov-west-1.amazonaws.com/123456789012/other");
        assert_eq!(config.aws.region, Some(Region::new("us-gov-west-1")));
        assert_eq!(config.clusters.len(), 1);
        assert_eq!(config.clusters[0].0.name, ClusterName::new("green"));
        assert_eq!(config.policy.hook_names, BTreeSet::from([HookName::new("one"), HookName::new("two")]));
        assert_eq!(config.policy.rebalance, RebalancePolicy::Isolate);
        assert_eq!(config.admin_listen, "0.0.0.0:8080".parse().unwrap());
        let overrides =
            ["OFFRAMP_QUEUE_URL", "OFFRAMP_CLUSTER_NAME", "OFFRAMP_HOOK_NAMES", "OFFRAMP_REBALANCE"];
        let expect =
            if yaml.is_some() { [&overrides[..], &["OFFRAMP_ADMIN_LISTEN"]].concat() } else { vec![] };
        assert_eq!(config.overrides, expect);
    }
}

#[test]
fn wrong_variables_are_named_with_the_nearest_right_one() {
    let check = |name: &str, value: &str, expect: &str| {
        let mut environment = pod();
        environment.extend(variables(&[(name, value)]));
        assert_eq!(load(Some(BASE), &environment).unwrap_err(), expect, "{name}");
    };
    check(
        "OFFRAMP_QUEUE_ULR",
        "x",
        "unknown environment variable OFFRAMP_QUEUE_ULR; did you mean OFFRAMP_QUEUE_URL?",
    );
    check(
        "OFFRAMP_CLUSTERNAME",
        "x",
        "unknown environment variable OFFRAMP_CLUSTERNAME; did you mean OFFRAMP_CLUSTER_NAME?",
    );
    check(
        "OFFRAMP_NEVER_HEARD_OF_SUCH_A_THING",
        "x",
        "unknown environment variable OFFRAMP_NEVER_HEARD_OF_SUCH_A_THING; those known are OFFRAMP_QUEUE_URL, \
         OFFRAMP_CLUSTER_NAME, OFFRAMP_HOOK_NAMES, OFFRAMP_REBALANCE, OFFRAMP_ADMIN_LISTEN, OFFRAMP_CONFIG, \
         OFFRAMP_LOG_FORMAT, OFFRAMP_LOG_LEVEL",
    );
    check(
        "OFFRAMP_REBALANCE",
        "replace",
        "OFFRAMP_REBALANCE: \"replace\" is none of automatic, none, isolate",
    );
    check(
        "OFFRAMP_QUEUE_URL",
        "x",
        "OFFRAMP_QUEUE_URL: \"x\" is no URL that begins with https:// or http://",
    );
}

#[test]
fn one_name_does_not_fit_several_clusters() {
    let yaml = BASE.replace("[{name: blue}]", "[{name: blue}, {name: green, context: green}]");
    let mut environment = pod();
    environment
        .extend(variables(&[("OFFRAMP_CLUSTER_NAME", "red"), ("KUBECONFIG", env!("CARGO_MANIFEST_PATH"))]));
    assert_eq!(
        load(Some(&yaml), &environment).unwrap_err(),
        "OFFRAMP_CLUSTER_NAME names one cluster, but the file lists 2; unset it"
    );
}

/// Kubernetes sets them for every Service named `offramp` or `offramp-admin`.
#[test]
fn service_links_are_not_mistyped_variables() {
    let mut environment = pod();
    for name in [
        "OFFRAMP_SERVICE_HOST",
        "OFFRAMP_SERVICE_PORT",
        "OFFRAMP_SERVICE_PORT_METRICS",
        "OFFRAMP_PORT",
        "OFFRAMP_PORT_9090_TCP",
        "OFFRAMP_PORT_9090_TCP_PROTO",
        "OFFRAMP_PORT_9090_TCP_PORT",
        "OFFRAMP_PORT_9090_TCP_ADDR",
        "OFFRAMP_ADMIN_SERVICE_HOST",
        "OFFRAMP_ADMIN_PORT_53_UDP",
    ] {
        environment.insert(name.to_owned(), "x".to_owned());
    }
    load(Some(BASE), &environment).unwrap();
}

#[test]
fn durations_are_read_as_people_write_them() {
    let check = |text: &str, expect: Option<u64>| {
        assert_eq!(syntax::duration(text).ok(), expect.map(Duration::from_millis), "{text}");
    };
    check("30s", Some(30_000));
    check("10m", Some(600_000));
    check("1h30m", Some(5_400_000));
    check("1h 30m", Some(5_400_000));
    check("1.5s", Some(1_500));
    check("250ms", Some(250));
    check("0s", Some(0));
    check("30", None);
    check("-1s", None);
    check("1 fortnight", None);
    check("", None);
}

#[test]
fn the_region_is_read_from_the_queue_url() {
    let check = |url: &str, expect: Option<&str>| {
        assert_eq!(syntax::region_of_queue(url).as_ref().map(Region::as_str), expect, "{url}");
    };
    check("https://sqs.eu-west-1.amazonaws.com/123456789012/q", Some("eu-west-1"));
    check("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/q", Some("cn-north-1"));
    check("https://sqs-fips.us-gov-west-1.amazonaws.com/123456789012/q", Some("us-gov-west-1"));
    check("https://eu-west-1.queue.amazonaws.com/123456789012/q", Some("eu-west-1"));
    check("https://vpce-0a.sqs.eu-west-1.vpce.amazonaws.com/123456789012/q", Some("eu-west-1"));
    check("http://127.0.0.1:4566/000000000000/q", None);
}

#[test]
fn a_configured_region_goes_before_that_of_the_queue() {
    let region = |yaml: &str| load(Some(yaml), &pod()).unwrap().aws.region;
    assert_eq!(region(BASE), Some(Region::new("eu-west-1")));
    assert_eq!(region(&format!("{BASE}aws: {{region: eu-north-1}}\n")), Some(Region::new("eu-north-1")));
    assert_eq!(region(&BASE.replace("sqs.eu-west-1.amazonaws.com", "localhost:4566")), None);
}

#[test]
fn an_empty_section_has_its_defaults_and_so_has_the_policy() {
    let config = load(Some(&format!("{BASE}timing:\nlog:\naws:\n")), &pod()).unwrap();
    let expect = Policy { clusters: BTreeSet::from([ClusterName::new("blue")]), ..default_policy() };
    assert_eq!(config.policy, expect);
    assert!(config.admin_listen.ip().is_loopback());
    assert_eq!(config.engine, Settings::default());
}

#[test]
fn what_is_configured_reaches_policy_and_engine() {
    let group = "arn:aws:elasticloadbalancing:eu-west-1:123456789012:targetgroup/web/0123456789abcdef";
    let yaml = format!(
        "{BASE}hooks: {{names: [bye]}}\nrebalance: none\ningress_daemon_sets: [web/nginx]\ntiming:\n  \
         deadline_margin: 1s\n  node_shutdown_grace: 2s\n  hook_limit: 3s\n  patience: 4s\n  no_node: 14s\n  gate_limit: 5s\n  \
         application_propagation: 6s\n  network_propagation: 7s\n  settle: 8s\n  recheck: 9s\n\
         target_groups: [\"{group}\"]\nforeign_messages: leave\nforeign_hold: 10s\nmessages: off\n\
         intake: {{receives_in_flight: 11, permits: 12}}\njobs: {{most: 13}}\n\
         lease: {{visibility: 40s, extend_every: 15s}}\nscope: {{group_tag: ours}}\n"
    );
    let seconds = Duration::from_secs;
    let policy = Policy {
        installation: "".into(),
        hook_names: BTreeSet::from([HookName::new("bye")]),
        scoped: true,
        clusters: BTreeSet::from([ClusterName::new("blue")]),
        rebalance: RebalancePolicy::None,
        deadline_margin: seconds(1),
        node_shutdown_grace: seconds(2),
        hook_limit: seconds(3),
        patience: seconds(4),
        no_node: seconds(14),
        gate_limit: seconds(5),
        propagation: Propagation { application: seconds(6), network: seconds(7) },
        settle: seconds(8),
        recheck: seconds(9),
        ingress_daemon_sets: BTreeSet::from([IngressDaemonSet {
            namespace: "web".to_owned(),
            name: "nginx".to_owned(),
        }]),
    };
    let engine = Settings {
        receives: 11,
        permits: 12,
        most_jobs: 13,
        target_groups: vec![TargetGroupArn::new(group)],
        foreign: ForeignMessages { hold: seconds(10), delete: false },
        lease: LeaseTimes { visibility: seconds(40), extend_every: seconds(15) },
        messages: false,
    };
    let config = load(Some(&yaml), &pod()).unwrap();
    assert_eq!(config.policy, policy);
    assert_eq!(config.engine, engine);
}

const FULL_SAMPLE: &str = include_str!("../../../../docs/samples/offramp.yaml");
const MINIMAL_SAMPLE: &str = include_str!("../../../../docs/samples/minimal.yaml");

#[test]
fn the_samples_are_valid() {
    let folder = tempfile::tempdir().unwrap();
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, "").unwrap();
    let full = FULL_SAMPLE.replace("/etc/offramp/green.kubeconfig", kubeconfig.to_str().unwrap());
    let config = load(Some(&full), &pod()).unwrap();
    assert_eq!(config.clusters.len(), 2);
    assert_eq!(
        config.group_tag,
        Some(GroupTag { key: "offramp.sh/enabled".to_owned(), value: Some("true".to_owned()) })
    );
    load(Some(MINIMAL_SAMPLE), &pod()).unwrap();
}

/// What the sample calls a default is one: the minimal sample means the same.
#[test]
fn the_defaults_in_the_sample_are_the_defaults() {
    let only_defaults: String = FULL_SAMPLE
        .lines()
        .filter(|line| line.ends_with("# default") || (line.ends_with(':') && !line.starts_with(['#', ' '])))
        .filter(|line| !["clusters:", "hooks:", "target_groups:", "ingress_daemon_sets:"].contains(line))
        .map(|line| format!("{line}\n"))
        .collect();
    assert!(only_defaults.lines().count() > 20, "{only_defaults}");
    let mut environment = pod();
    environment.extend(variables(&[
        ("OFFRAMP_QUEUE_URL", "https://sqs.eu-west-1.amazonaws.com/123456789012/offramp"),
        ("OFFRAMP_CLUSTER_NAME", "blue"),
    ]));
    let [all, none] = [load(Some(&only_defaults), &environment), load(Some(MINIMAL_SAMPLE), &pod())];
    assert_eq!(format!("{:?}", all.unwrap()), format!("{:?}", none.unwrap()));
}

/// The parser itself is asked for the fields that it knows in each section.
#[test]
fn the_full_sample_shows_every_field() {
    let sample: serde_json::Value = serde_saphyr::from_str(FULL_SAMPLE).unwrap();
    let clusters = sample["clusters"].as_array().unwrap();
    let mut sections = vec![("{nope: 1}".to_owned(), fields_of(&sample))];
    for (name, section) in sample.as_object().unwrap().iter().filter(|(_, section)| section.is_object()) {
        sections.push((format!("{name}: {{nope: 1}}"), fields_of(section)));
    }
    sections.push(("clusters: [{nope: 1}]".to_owned(), clusters.iter().flat_map(fields_of).collect()));
    assert!(sections.len() > 10);
    for (yaml, shown) in sections {
        let error = serde_saphyr::from_str::<raw::RawConfig>(&yaml).unwrap_err();
        let serde_saphyr::Error::SerdeUnknownField { expected, .. } = error.without_snippet() else {
            panic!("{yaml}: {error}")
        };
        assert_eq!(expected.iter().map(ToString::to_string).collect::<BTreeSet<_>>(), shown, "{yaml}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let failure = Config::load(Some(Path::new("/nowhere/offramp.yaml")), &pod()).unwrap_err();
    let text = format!("{failure:?}");
    assert!(text.contains("reading the configuration /nowhere/offramp.yaml: No such file"), "{text}");
}

fn check_error(yaml: &str, expect: &str) {
    assert_eq!(load(Some(yaml), &pod()).unwrap_err(), expect, "{yaml}");
}

/// One wrong value in a third line.
fn check_value(yaml: &str, expect: &str) {
    check_error(&format!("{BASE}{yaml}\n"), &format!("FILE:3: {expect}"));
}

/// Loads from a real file; in errors its name is `FILE`.
fn load(yaml: Option<&str>, environment: &Environment) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("offramp.yaml");
    if let Some(yaml) = yaml {
        std::fs::write(&file, yaml).unwrap();
    }
    Config::load(yaml.map(|_| file.as_path()), environment)
        .map_err(|failure| failure.errors().join("\n").replace(file.to_str().unwrap(), "FILE"))
}

fn pod() -> Environment {
    variables(&[("KUBERNETES_SERVICE_HOST", "10.100.0.1")])
}

fn variables(pairs: &[(&str, &str)]) -> Environment {
    pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn fields_of(section: &serde_json::Value) -> BTreeSet<String> {
    section.as_object().unwrap().keys().cloned().collect()
}
