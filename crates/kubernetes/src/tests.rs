//! The whole adapter against a server that plays an API server.

mod liveness;
mod server;

use std::sync::Arc;
use std::time::Duration;

use offramp_core::{
    AccountRegion, Cause, Claimant, ClusterName, Entry, Foreign, InstanceId, NodeName, Outcome, PodRef,
    PodUid, Record, Seen, Timestamp, Trigger,
};
use offramp_engine::{
    Announcement, Clock, Cluster, ClusterCall, EventReason, Fault, InWords, Metrics, RECORD_ANNOTATION,
    write_record,
};
use prometheus::Registry;
use serde_json::{Value, json};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;

use crate::nodes::EXCLUDE_LABEL;
use crate::watch::Pace;
use crate::{Access, ClusterOptions, ClusterSource, KubernetesCluster};
use server::{ApiServer, status};

/// For what has to happen; nothing waits that long unless it is broken.
const SOON: Duration = Duration::from_secs(20);

const PACE: Pace = Pace {
    watch_seconds: 3,
    silence: Duration::from_secs(2),
    page: Duration::from_secs(5),
    opening: Duration::from_secs(5),
    settle: Duration::from_millis(50),
    lag: Duration::ZERO,
    credentials: Duration::from_millis(50),
    first_pause: Duration::from_millis(10),
    longest_pause: Duration::from_secs(30),
};

/// A cluster with its watches running.
struct Running {
    cluster: Arc<KubernetesCluster>,
    registry: Registry,
    watches: JoinHandle<()>,
    /// With its kubeconfig.
    _folder: tempfile::TempDir,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.watches.abort();
    }
}

impl Running {
    async fn open(address: &str, selector: Option<&str>) -> Self {
        Self::open_at(address, selector, PACE).await
    }

    async fn open_at(address: &str, selector: Option<&str>, pace: Pace) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        let config = format!(
            "{{apiVersion: v1, kind: Config, current-context: c, clusters: [{{name: c, cluster: {{server: '{address}'}}}}], \
             contexts: [{{name: c, context: {{cluster: c, user: u}}}}], users: [{{name: u, user: {{token: t}}}}]}}"
        );
        std::fs::write(&path, config).unwrap();
        let source =
            ClusterSource { name: "blue".into(), access: Access::Kubeconfig { path, context: None } };
        let options = ClusterOptions { node_selector: selector.map(str::to_owned) };
        let registry = Registry::new();
        let metrics = Metrics::register(&registry, [&ClusterName::new("blue")]).unwrap();
        let (cluster, watches) =
            KubernetesCluster::with_pace(source, &options, Clock::system(), metrics, pace).unwrap();
        let running = Self { cluster, registry, watches: tokio::spawn(watches), _folder: folder };
        timeout(SOON, running.cluster.connection().opened()).await.expect("it opens");
        running
    }

    async fn synced(server: &ApiServer) -> Self {
        let running = Self::open(&server.address, None).await;
        running.until("in sync", KubernetesCluster::in_sync).await;
        running
    }

    /// Waits for something, woken by the channel of instance 1 as a job would be.
    async fn until(&self, what: &str, holds: impl Fn(&KubernetesCluster) -> bool) {
        let mut changes = self.cluster.changes(&instance(1));
        let wait = async {
            while !holds(&self.cluster) {
                changes.changed().await.unwrap();
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    /// Waits for something that no channel tells.
    async fn polled(&self, what: &str, holds: impl Fn(&KubernetesCluster) -> bool) {
        let wait = async {
            while !holds(&self.cluster) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
    }

    async fn perform(&self, call: ClusterCall) -> Result<Outcome, Fault> {
        timeout(SOON, self.cluster.perform(&call)).await.unwrap()
    }

    /// How many requests ended so.
    fn calls(&self, operation: &str, result: &str) -> f64 {
        let families = self.registry.gather();
        let calls = families.iter().find(|family| family.name() == "offramp_calls_total").unwrap();
        let has = |metric: &&prometheus::proto::Metric| {
            let has = |name, value| metric.get_label().iter().any(|l| l.name() == name && l.value() == value);
            has("api", "kubernetes") && has("operation", operation) && has("result", result)
        };
        calls.get_metric().iter().find(has).unwrap().get_counter().get_value()
    }

    /// None while they are not known.
    fn pod_names(&self, node: &str) -> Vec<String> {
        let pods = self.cluster.pods(&NodeName::from(node), &instance(1));
        pods.known().into_iter().flatten().map(|pod| pod.pod.name.clone()).collect()
    }
}

/// A cluster by a kubeconfig that is written later.
fn unopened(folder: &tempfile::TempDir) -> (Arc<KubernetesCluster>, Registry, JoinHandle<()>) {
    let access = Access::Kubeconfig { path: folder.path().join("config"), context: None };
    let source = ClusterSource { name: "blue".into(), access };
    let registry = Registry::new();
    let metrics = Metrics::register(&registry, [&ClusterName::new("blue")]).unwrap();
    let (cluster, watches) =
        KubernetesCluster::with_pace(source, &ClusterOptions::default(), Clock::system(), metrics, PACE)
            .unwrap();
    (cluster, registry, tokio::spawn(watches))
}

fn with_plugin(server: &ApiServer, script: &str) -> String {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{ "name": "c", "cluster": { "server": server.address } }],
        "contexts": [{ "name": "c", "context": { "cluster": "c", "user": "u" } }],
        "users": [{ "name": "u", "user": { "exec": {
            "apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", script],
            "interactiveMode": "Never" } } }],
    })
    .to_string()
}

/// A cluster whose kubeconfig comes later than the worker, is wrong at first, and names a plugin.
#[tokio::test]
async fn a_cluster_opens_when_its_kubeconfig_is_there_and_right() {
    let server = ApiServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("config");
    let (cluster, registry, watches) = unopened(&folder);
    let running = Running { cluster, registry, watches, _folder: folder };
    let troubled = |what: &'static str| {
        move |cluster: &KubernetesCluster| cluster.trouble().is_some_and(|text| text.contains(what))
    };
    running.polled("the file is missed", troubled("it cannot be read")).await;
    let delete = ClusterCall::Delete { pod: a_pod(), grace: Duration::from_secs(1) };
    let early = running.perform(delete).await.unwrap_err().to_string();
    assert!(early.starts_with("cluster blue is not open: "), "{early}");
    std::fs::write(&path, "clusters: [").unwrap();
    running.polled("it is broken", troubled("is not what a kubeconfig has there")).await;
    let plugin = r#"echo '{"status":{"token":"t","expirationTimestamp":"2999-01-01T00:00:00Z"}}'"#;
    std::fs::write(&path, with_plugin(&server, plugin)).unwrap();
    running.until("in sync", KubernetesCluster::in_sync).await;
    assert_eq!(running.cluster.trouble(), None);
}

/// A token that is revoked, or rotates without saying when.
#[tokio::test]
async fn credentials_that_are_refused_are_fetched_again() {
    let server = ApiServer::start().await;
    let folder = tempfile::tempdir().unwrap();
    let runs = folder.path().join("runs");
    let plugin = format!(r#"echo run >> {}; echo '{{"status":{{"token":"t"}}}}'"#, runs.display());
    std::fs::write(folder.path().join("config"), with_plugin(&server, &plugin)).unwrap();
    let (cluster, registry, watches) = unopened(&folder);
    let running = Running { cluster, registry, watches, _folder: folder };
    running.until("in sync", KubernetesCluster::in_sync).await;
    let count = || std::fs::read_to_string(&runs).unwrap().lines().count();
    assert_eq!(count(), 1, "a token without an expiry is kept");
    server.refuse("nodes", 401);
    server.cut("nodes");
    running.polled("the plugin is run again", |_| count() > 1).await;
    assert!(running.cluster.trouble().unwrap().contains("does not accept our credentials"));
    server.allow("nodes");
    running.until("in sync again", KubernetesCluster::in_sync).await;
}

fn instance(n: u32) -> InstanceId {
    InstanceId::parse(&format!("i-{n:017x}")).unwrap()
}

fn node(n: u32) -> Value {
    json!({
        "metadata": { "name": format!("n{n}"), "labels": { "pool": if n == 1 { "web" } else { "batch" } } },
        "spec": { "providerID": format!("aws:///eu-west-1b/{}", instance(n)) },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }], "images": [{ "names": ["big"] }] },
    })
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "metadata": { "namespace": "shop", "name": name, "uid": format!("uid-{name}"), "labels": { "app": "web" } },
        "spec": { "nodeName": node, "containers": [{ "name": "main", "env": [{ "name": "PASSWORD", "value": "x" }] }] },
    })
}

fn service(policy: &str) -> Value {
    json!({
        "metadata": { "namespace": "shop", "name": "web" },
        "spec": { "type": "LoadBalancer", "externalTrafficPolicy": policy, "selector": { "app": "web" } },
    })
}

fn a_record() -> Record {
    Record {
        since: Timestamp::from_millis(1_774_000_000_000),
        entries: [(a_claimant(), an_entry())].into(),
        cordoned: true,
        excluded: true,
        ..Record::default()
    }
}

fn a_claimant() -> Claimant {
    Claimant { cause: Cause::Trigger(Trigger::Spot), by: None }
}

fn an_entry() -> Entry {
    Entry {
        account_region: AccountRegion::default(),
        at: Timestamp::from_millis(1_774_000_000_000),
        end: Timestamp::from_millis(1_774_000_120_000),
        ended: None,
    }
}

fn a_pod() -> PodRef {
    PodRef { namespace: "shop".to_owned(), name: "web-1".to_owned(), uid: PodUid::from("uid-web-1") }
}

#[tokio::test]
async fn nodes_and_pods_are_found_once_everything_is_listed() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("nodes", node(2));
    server.put("pods", pod("web-1", "n1"));
    let mut unbound = pod("web-2", "n1");
    unbound["spec"]["nodeName"] = Value::Null;
    server.put("pods", unbound);
    server.refuse("services", 503);

    let running = Running::open(&server.address, Some("pool=web")).await;
    assert_eq!(running.cluster.node(&instance(1)), Seen::Unknown);
    running.until("nodes", |cluster| cluster.node(&instance(1)) != Seen::Unknown).await;
    assert!(!running.cluster.in_sync());
    assert_eq!(
        running.cluster.pods(&NodeName::from("n1"), &instance(1)),
        Seen::Unknown,
        "services may bind traffic to it"
    );
    server.allow("services");
    running.until("in sync", KubernetesCluster::in_sync).await;

    let seen = running.cluster.node(&instance(1));
    let seen = seen.known().unwrap();
    assert!(seen.name.as_str() == "n1" && seen.ready && seen.selected && !seen.cordoned);
    assert!(!running.cluster.node(&instance(2)).known().unwrap().selected);
    assert_eq!(running.cluster.node(&instance(3)), Seen::Gone);
    assert_eq!(running.pod_names("n1"), ["web-1"]);
    assert_eq!(running.cluster.pods(&NodeName::from("n2"), &instance(2)), Seen::Known(Vec::new()));
    assert_eq!(running.cluster.pods(&NodeName::from("n2"), &instance(1)), Seen::Gone, "another's by now");
}

#[tokio::test]
async fn long_lists_come_in_pages() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    for n in 0..1_201 {
        server.put("pods", pod(&format!("web-{n}"), "n1"));
    }
    let running = Running::synced(&server).await;
    assert_eq!(running.pod_names("n1").len(), 1_201);
    assert_eq!(server.lists("pods"), 3);
}

#[tokio::test]
async fn what_changes_is_seen_and_told() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let running = Running::synced(&server).await;

    server.put("pods", pod("web-1", "n1"));
    running.until("a pod", |_| running.pod_names("n1") == ["web-1"]).await;
    let mut ending = pod("web-1", "n1");
    ending["metadata"]["deletionTimestamp"] = json!("1970-01-01T00:01:00Z");
    server.put("pods", ending);
    let ends_at = |cluster: &KubernetesCluster| {
        cluster.pods(&NodeName::from("n1"), &instance(1)).known().unwrap()[0].ends_at
    };
    running.until("its end", |cluster| ends_at(cluster) == Some(Timestamp::from_millis(60_000))).await;
    server.remove("pods", "shop/web-1");
    running.until("no pod", |_| running.pod_names("n1").is_empty()).await;

    let mut cordoned = node(1);
    cordoned["spec"]["unschedulable"] = json!(true);
    cordoned["metadata"]["annotations"] = json!({ RECORD_ANNOTATION: write_record(&a_record()).unwrap() });
    cordoned["metadata"]["labels"][EXCLUDE_LABEL] = json!("true");
    server.put("nodes", cordoned);
    running.until("isolation", |cluster| cluster.node(&instance(1)).known().unwrap().cordoned).await;
    let seen = running.cluster.node(&instance(1));
    assert!(seen.known().unwrap().excluded);
    assert_eq!(seen.known().unwrap().record, Some(a_record()));

    server.remove("nodes", "n1");
    running.until("no node", |cluster| cluster.node(&instance(1)) == Seen::Gone).await;
}

#[tokio::test]
async fn traffic_is_local_while_a_service_says_so() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("pods", pod("web-1", "n1"));
    let mut elsewhere = pod("other", "n1");
    elsewhere["metadata"]["namespace"] = json!("bank");
    server.put("pods", elsewhere);
    let running = Running::synced(&server).await;
    let local = |cluster: &KubernetesCluster| -> Vec<String> {
        let pods = cluster.pods(&NodeName::from("n1"), &instance(1));
        pods.known().unwrap().iter().filter(|pod| pod.local_traffic).map(|pod| pod.pod.in_words()).collect()
    };
    assert!(local(&running.cluster).is_empty());
    server.put("services", service("Local"));
    running.until("local", |cluster| local(cluster) == ["shop/web-1"]).await;
    server.put("services", service("Cluster"));
    running.until("not local", |cluster| local(cluster).is_empty()).await;
    server.put("services", service("Local"));
    running.until("local again", |cluster| local(cluster) == ["shop/web-1"]).await;
    server.remove("services", "shop/web");
    running.until("no service", |cluster| local(cluster).is_empty()).await;
}

#[tokio::test]
async fn only_who_is_concerned_is_woken() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("nodes", node(2));
    let running = Running::synced(&server).await;
    let other = running.cluster.changes(&instance(2));
    server.put("pods", pod("web-1", "n1"));
    running.until("a pod", |_| running.pod_names("n1") == ["web-1"]).await;
    assert!(!other.has_changed().unwrap());
}

#[tokio::test]
async fn a_watch_that_is_cut_off_knows_nothing_until_it_has_caught_up() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("pods", pod("web-1", "n1"));
    let running = Running::synced(&server).await;

    server.refuse("nodes", 503);
    server.cut("nodes");
    running.until("out of sync", |cluster| !cluster.in_sync()).await;
    assert_eq!(running.cluster.node(&instance(1)), Seen::Unknown);
    assert_eq!(running.cluster.node(&instance(2)), Seen::Unknown);
    assert_eq!(running.pod_names("n1"), ["web-1"], "the other watches go on");
    running.until("the reason", |cluster| cluster.trouble().is_some_and(|text| text.contains("503"))).await;

    server.put("nodes", node(2));
    server.allow("nodes");
    running.until("in sync again", KubernetesCluster::in_sync).await;
    running.until("that nothing is wrong", |cluster| cluster.trouble().is_none()).await;
    assert!(running.cluster.node(&instance(1)).known().is_some());
    assert!(running.cluster.node(&instance(2)).known().is_some());
    assert_eq!(server.lists("nodes"), 1, "it went on where it was cut off");
}

#[tokio::test]
async fn what_one_watch_complains_of_stays_when_another_one_has_recovered() {
    let server = ApiServer::start().await;
    let running = Running::synced(&server).await;
    for resource in ["nodes", "pods"] {
        server.refuse(resource, 503);
        server.cut(resource);
    }
    let complains = |of: &'static str| {
        move |cluster: &KubernetesCluster| cluster.trouble().is_some_and(|text| text.contains(of))
    };
    running.until("the first of both", complains("nodes")).await;
    server.allow("nodes");
    running.until("the one that is left", complains("pods")).await;
    server.allow("pods");
    running.until("that nothing is wrong", |cluster| cluster.trouble().is_none()).await;
}

#[tokio::test]
async fn a_bookmark_says_that_a_watch_has_caught_up_and_where_it_is() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let patient = Pace { settle: Duration::from_secs(3_600), watch_seconds: 60, ..PACE };
    let running = Running::open_at(&server.address, None, patient).await;
    running.until("in sync", KubernetesCluster::in_sync).await;
    timeout(SOON, server.watched("nodes", 1)).await.unwrap();

    server.refuse("nodes", 503);
    server.cut("nodes");
    running.until("out of sync", |cluster| !cluster.in_sync()).await;
    server.put("pods", pod("web-1", "n1"));
    server.allow("nodes");
    timeout(SOON, server.watched("nodes", 2)).await.unwrap();
    assert!(!running.cluster.in_sync());
    server.bookmark("nodes");
    running.until("in sync again", KubernetesCluster::in_sync).await;

    // Only the bookmark's version is not too old now.
    server.expire("nodes", false, |_| ());
    timeout(SOON, server.watched("nodes", 3)).await.unwrap();
    assert_eq!(server.lists("nodes"), 1);
}

#[tokio::test]
async fn a_watch_that_ends_as_asked_goes_on_in_sync() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let running = Running::synced(&server).await;
    let changes = running.cluster.changes(&instance(1));
    timeout(SOON, server.watched("services", 3)).await.unwrap();
    assert!(running.cluster.in_sync() && !changes.has_changed().unwrap());
    assert_eq!(server.lists("services"), 1);
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_not_trusted() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.never_end();
    let running = Running::synced(&server).await;
    running.until("out of sync", |cluster| !cluster.in_sync()).await;
    running.until("in sync", KubernetesCluster::in_sync).await;
}

#[tokio::test]
async fn a_version_that_is_too_old_means_listing_again() {
    for in_the_stream in [true, false] {
        let server = ApiServer::start().await;
        server.put("nodes", node(1));
        server.put("nodes", node(2));
        let running = Running::synced(&server).await;
        server.expire("nodes", in_the_stream, |server| server.remove("nodes", "n2"));
        running.until("listed again", |cluster| cluster.node(&instance(2)) == Seen::Gone).await;
        running.until("in sync again", KubernetesCluster::in_sync).await;
        assert!(running.cluster.node(&instance(1)).known().is_some());
        assert_eq!(server.lists("nodes"), 2);
    }
}

#[tokio::test]
async fn a_cluster_that_is_down_at_the_start_is_found_later() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let running = Running::open(&address, None).await;
    assert!(!running.cluster.in_sync());
    let server = ApiServer::serve(listener);
    server.put("nodes", node(1));
    running.until("in sync", KubernetesCluster::in_sync).await;
    assert!(running.cluster.node(&instance(1)).known().is_some());
}

#[tokio::test]
async fn each_call_is_one_request() {
    let server = ApiServer::start().await;
    let running = Running::open(&server.address, None).await;
    let check = async |call: ClusterCall, expect: Value| {
        assert_eq!(running.perform(call).await, Ok(Outcome::Done));
        assert_eq!(server.writes(), [expect]);
    };
    let node = NodeName::from("n1");
    let record = a_record();
    let annotations = json!({ RECORD_ANNOTATION: write_record(&record).unwrap() });
    let patch = |body: Value| {
        json!({
            "method": "PATCH", "path": "/api/v1/nodes/n1", "type": "application/merge-patch+json", "body": body,
        })
    };
    check(
        ClusterCall::Isolate {
            node: node.clone(),
            exclude: false,
            record: record.clone(),
            guard: "7".to_owned(),
        },
        patch(json!({
            "metadata": { "resourceVersion": "7", "annotations": annotations },
            "spec": { "unschedulable": true },
        })),
    )
    .await;
    let labels = json!({ EXCLUDE_LABEL: "true" });
    check(
        ClusterCall::Isolate {
            node: node.clone(),
            exclude: true,
            record: record.clone(),
            guard: "7".to_owned(),
        },
        patch(json!({
            "metadata": { "resourceVersion": "7", "annotations": annotations, "labels": labels },
            "spec": { "unschedulable": true },
        })),
    )
    .await;
    check(
        ClusterCall::Exclude { node: node.clone(), record: record.clone(), guard: "7".to_owned() },
        patch(json!({
            "metadata": { "resourceVersion": "7", "annotations": annotations, "labels": labels },
        })),
    )
    .await;
    check(
        ClusterCall::WriteRecord { node: node.clone(), record: record.clone(), guard: "7".to_owned() },
        patch(json!({ "metadata": { "resourceVersion": "7", "annotations": annotations } })),
    )
    .await;
    for (cordoned, excluded) in [(true, true), (true, false), (false, true), (false, false)] {
        let mut body =
            json!({ "metadata": { "resourceVersion": "7", "annotations": { RECORD_ANNOTATION: null } } });
        if excluded {
            body["metadata"]["labels"] = json!({ EXCLUDE_LABEL: null });
        }
        if cordoned {
            body["spec"] = json!({ "unschedulable": null });
        }
        let record = Record { cordoned, excluded, ..record.clone() };
        let guard = "7".to_owned();
        check(ClusterCall::Release { node: node.clone(), record, guard }, patch(body)).await;
    }
    let evict = |options: Value| {
        json!({
            "method": "POST", "path": "/api/v1/namespaces/shop/pods/web-1/eviction", "type": "application/json",
            "body": {
                "apiVersion": "policy/v1", "kind": "Eviction",
                "metadata": { "namespace": "shop", "name": "web-1" }, "deleteOptions": options,
            },
        })
    };
    let preconditions = json!({ "uid": "uid-web-1" });
    check(ClusterCall::Evict { pod: a_pod(), grace: None }, evict(json!({ "preconditions": preconditions })))
        .await;
    for (grace, seconds) in [(20_900, 20), (300, 1), (0, 1)] {
        let options = json!({ "preconditions": preconditions, "gracePeriodSeconds": seconds });
        let grace = Duration::from_millis(grace);
        check(ClusterCall::Evict { pod: a_pod(), grace: Some(grace) }, evict(options.clone())).await;
        let delete = json!({
            "method": "DELETE", "path": "/api/v1/namespaces/shop/pods/web-1", "type": "application/json",
            "body": options,
        });
        check(ClusterCall::Delete { pod: a_pod(), grace }, delete).await;
    }
}

#[tokio::test]
async fn a_failed_call_is_made_once() {
    let server = ApiServer::start().await;
    let running = Running::open(&server.address, None).await;
    let evict = || ClusterCall::Evict { pod: a_pod(), grace: None };
    let isolate = || ClusterCall::Isolate {
        node: NodeName::from("n1"),
        exclude: false,
        record: a_record(),
        guard: "7".to_owned(),
    };

    server.answer(429, status(429, "TooManyRequests", json!({
        "causes": [{ "reason": "DisruptionBudget", "message": "The disruption budget web needs 2 healthy pods and has 2 currently" }],
    })));
    let blocked = running.perform(evict()).await.unwrap();
    assert_eq!(blocked, Outcome::Blocked { budget: Some(offramp_core::BudgetName("web".to_owned())) });
    assert_eq!(server.writes().len(), 1);

    server.answer(429, status(429, "TooManyRequests", json!({ "retryAfterSeconds": 1 })));
    assert!(matches!(running.perform(evict()).await, Err(Fault::Retry(_))));
    assert_eq!(server.writes().len(), 1);

    server.answer(404, status(404, "NotFound", json!({ "name": "n1", "kind": "nodes" })));
    assert_eq!(running.perform(isolate()).await, Ok(Outcome::Gone));
    server.answer(404, "404 page not found".to_owned());
    assert!(matches!(running.perform(isolate()).await, Err(Fault::Retry(_))));
    server.answer(403, status(403, "Forbidden", json!({})));
    assert!(matches!(running.perform(isolate()).await, Err(Fault::Denied(_))));
}

#[tokio::test]
async fn nobody_there_is_no_answer() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let running = Running::open(&address, None).await;
    let call = ClusterCall::Evict { pod: a_pod(), grace: None };
    let Err(Fault::Retry(text)) = running.perform(call).await else { panic!("not a retry") };
    assert!(text.starts_with("evicting pod shop/web-1 in cluster blue: no answer: "), "{text}");
    assert!(text.to_lowercase().contains("connection refused"), "{text}");
}

#[tokio::test]
async fn evictions_that_hang_hold_nothing_else_up() {
    let server = ApiServer::start().await;
    let running = Running::open(&server.address, None).await;
    server.hold_evictions();
    let mut evictions = JoinSet::new();
    for n in 0..64 {
        let cluster = Arc::clone(&running.cluster);
        let pod = PodRef { name: format!("web-{n}"), ..a_pod() };
        evictions.spawn(async move { cluster.perform(&ClusterCall::Evict { pod, grace: None }).await });
    }
    timeout(SOON, server.held_evictions(64)).await.unwrap();

    let isolate = ClusterCall::Isolate {
        node: NodeName::from("n1"),
        exclude: true,
        record: a_record(),
        guard: "7".to_owned(),
    };
    assert_eq!(running.perform(isolate).await, Ok(Outcome::Done));
    let delete = ClusterCall::Delete { pod: a_pod(), grace: Duration::from_secs(5) };
    assert_eq!(running.perform(delete).await, Ok(Outcome::Done));

    server.release_evictions();
    while let Some(result) = timeout(SOON, evictions.join_next()).await.unwrap() {
        assert_eq!(result.unwrap(), Ok(Outcome::Done));
    }
}

#[tokio::test]
async fn a_record_of_another_version_stays_as_it_is() {
    let server = ApiServer::start().await;
    let newer = r#"{"v":3,"since":"2026-03-20T09:46:40Z","changed":["cordon"]}"#;
    let mut upgraded = node(1);
    upgraded["metadata"]["annotations"] = json!({ RECORD_ANNOTATION: newer });
    server.put("nodes", upgraded);
    let running = Running::synced(&server).await;
    let seen = running.cluster.node(&instance(1)).known().unwrap().clone();
    let mut record = seen.record.unwrap();
    let since = Timestamp::from_millis(1_774_000_000_000);
    assert_eq!(record, Record { foreign: Some(Foreign { until: None }), ..Record::new(since) });

    // What a job then writes has its own notice in it.
    record.entries.insert(a_claimant(), an_entry());
    let (node, guard) = (seen.name, seen.resource_version);
    let isolate = ClusterCall::Isolate {
        node: node.clone(),
        exclude: true,
        record: record.clone(),
        guard: guard.clone(),
    };
    let labels = json!({ EXCLUDE_LABEL: "true" });
    for (call, body) in [
        (
            isolate,
            json!({
                "metadata": { "resourceVersion": guard, "labels": labels }, "spec": { "unschedulable": true },
            }),
        ),
        (
            ClusterCall::Exclude { node, record, guard: guard.clone() },
            json!({ "metadata": { "resourceVersion": guard, "labels": labels } }),
        ),
    ] {
        assert_eq!(running.perform(call).await, Ok(Outcome::Done));
        assert_eq!(server.writes()[0]["body"], body);
    }
}

#[tokio::test]
async fn every_request_is_counted_with_its_result() {
    let server = ApiServer::start().await;
    let running = Running::synced(&server).await;
    // By the second watch, the first has been open and is over.
    timeout(SOON, server.watched("nodes", 2)).await.unwrap();
    for call in ["list nodes", "list pods", "list services", "watch nodes"] {
        assert!(running.calls(call, "done") >= 1.0, "{call}");
    }
    let evict = || ClusterCall::Evict { pod: a_pod(), grace: None };
    running.perform(evict()).await.unwrap();
    let budget =
        json!({ "causes": [{ "reason": "DisruptionBudget", "message": "The disruption budget web …" }] });
    server.answer(429, status(429, "TooManyRequests", budget));
    running.perform(evict()).await.unwrap();
    server.answer(404, status(404, "NotFound", json!({ "name": "web-1", "kind": "pods" })));
    running.perform(evict()).await.unwrap();
    assert_eq!(running.calls("evict pod", "done"), 3.0, "an answer is an answer");
    server.answer(429, status(429, "TooManyRequests", json!({})));
    running.perform(evict()).await.unwrap_err();
    assert_eq!(running.calls("evict pod", "throttled"), 1.0);
    server.answer(403, status(403, "Forbidden", json!({})));
    running.perform(ClusterCall::Delete { pod: a_pod(), grace: SOON }).await.unwrap_err();
    assert_eq!(running.calls("delete pod", "denied"), 1.0);
    let node = NodeName::from("n1");
    let isolate = ClusterCall::Isolate { node, exclude: true, record: a_record(), guard: "7".to_owned() };
    server.answer(500, status(500, "InternalError", json!({})));
    running.perform(isolate).await.unwrap_err();
    assert_eq!(running.calls("patch node", "retry"), 1.0);

    server.hold_evictions();
    timeout(Duration::from_millis(50), running.cluster.perform(&evict())).await.unwrap_err();
    assert_eq!(running.calls("evict pod", "retry"), 1.0, "nobody waited for the answer");
}

#[tokio::test]
async fn announcements_become_events_of_the_node() {
    let server = ApiServer::start().await;
    let running = Running::open(&server.address, None).await;
    let announce = |reason, text: &str| {
        running.cluster.announce(&NodeName::from("n1"), Announcement { reason, text: text.to_owned() });
    };
    announce(EventReason::Isolated, "5 pods left.");
    let written = timeout(SOON, server.write()).await.unwrap();
    assert_eq!(written["path"], "/apis/events.k8s.io/v1/namespaces/default/events");
    let event = &written["body"];
    let expect = [
        ("type", json!("Normal")),
        ("reason", json!("Isolated")),
        ("note", json!("5 pods left.")),
        ("reportingController", json!("offramp")),
        ("reportingInstance", json!("offramp")),
        ("action", json!("TakeOutOfService")),
        // Without a namespace, and with the name for the UID: that is what `kubectl describe` looks for.
        ("regarding", json!({ "apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1" })),
    ];
    for (field, value) in expect {
        assert_eq!(event[field], value, "{field}");
    }
    assert_eq!(event["metadata"]["namespace"], "default");
    assert!(event["metadata"]["name"].as_str().unwrap().starts_with("n1."));
    assert!(event["eventTime"].is_string());
    announce(EventReason::HeldBack, "Holding back.");
    assert_eq!(timeout(SOON, server.write()).await.unwrap()["body"]["type"], "Warning");
}

#[tokio::test]
async fn events_that_are_refused_or_hang_hold_nothing_up() {
    let server = ApiServer::start().await;
    let running = Running::open(&server.address, None).await;
    let announce = |text: String| {
        running.cluster.announce(&NodeName::from("n1"), Announcement { reason: EventReason::Isolated, text });
    };
    server.answer(403, status(403, "Forbidden", json!({})));
    announce("refused".to_owned());
    timeout(SOON, server.write()).await.unwrap();
    // It was not sent again: the next one is the next.
    announce("taken".to_owned());
    assert_eq!(timeout(SOON, server.write()).await.unwrap()["body"]["note"], "taken");

    server.hold_events();
    for n in 0..10_000 {
        announce(format!("waiting {n}"));
    }
    let evict = ClusterCall::Evict { pod: a_pod(), grace: None };
    assert_eq!(running.perform(evict).await, Ok(Outcome::Done));
    let node = NodeName::from("n1");
    let isolate = ClusterCall::Isolate { node, exclude: true, record: a_record(), guard: "7".to_owned() };
    assert_eq!(running.perform(isolate).await, Ok(Outcome::Done));
    assert_eq!(running.calls("create event", "denied"), 1.0);
}

#[tokio::test]
async fn a_proof_comes_when_the_watches_have_come_as_far_as_the_api_server() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let running = Running::synced(&server).await;
    let mut proven = running.cluster.proven();
    assert_eq!(*proven.borrow(), Timestamp::from_millis(0), "nobody has asked");
    let mut prove = async |at: i64| {
        running.cluster.prove(Timestamp::from_millis(at));
        let wait = proven.wait_for(|proven| *proven >= Timestamp::from_millis(at));
        timeout(SOON, wait).await.expect("the proof comes").unwrap();
    };
    // A Service makes a new version that no watch of nodes or pods shows before its next bookmark.
    server.put("services", service("Cluster"));
    let lists = server.lists("nodes");
    server.bookmark("nodes");
    server.bookmark("pods");
    prove(5).await;
    assert_eq!(server.lists("nodes"), lists + 1, "one question");
    prove(5).await;
    assert_eq!(server.lists("nodes"), lists + 1, "what is proven is not asked again");
    prove(6).await;
}

#[tokio::test]
async fn a_list_shows_the_pods_that_the_watch_has_missed() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("pods", pod("web-1", "n1"));
    let running = Running::synced(&server).await;
    let list_pods = || running.perform(ClusterCall::ListPods { node: NodeName::from("n1") });
    assert_eq!(list_pods().await, Ok(Outcome::Done));
    server.put_unseen("pods", pod("web-2", "n1"));
    server.put_unseen("pods", pod("elsewhere", "n2"));
    let watched = server.lists("pods");
    assert_eq!(running.pod_names("n1"), ["web-1"]);
    assert_eq!(list_pods().await, Ok(Outcome::Changed));
    // What it has missed on other nodes only a list of everything tells. Until that has come nothing is known.
    running.until("the missed pod is shown", |_| running.pod_names("n1") == ["web-1", "web-2"]).await;
    running.polled("everything is listed", |_| server.lists("pods") == watched + 2).await;
    running.until("the others are shown", |_| running.pod_names("n2") == ["elsewhere"]).await;
    assert_eq!(list_pods().await, Ok(Outcome::Done));
    assert_eq!(running.calls("get version", "done"), 1.0, "it is asked once");
}

#[tokio::test]
async fn an_api_server_that_would_read_all_pods_from_etcd_is_spared() {
    let server = ApiServer::start().await;
    server.become_minor("30+");
    let running = Running::synced(&server).await;
    let lists = server.lists("pods");
    assert_eq!(
        running.perform(ClusterCall::ListPods { node: NodeName::from("n1") }).await,
        Ok(Outcome::Done)
    );
    assert_eq!(server.lists("pods"), lists);
}
