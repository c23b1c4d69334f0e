use std::time::Duration;

use offramp_core::Timestamp;
use offramp_engine::Clock;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::*;
use crate::fleet::{App, Entrance, Fleet, Pool};
use crate::{Delays, world::cluster::NodePatch};

const TABLE: &str = "Accept: application/json;as=Table;v=v1;g=meta.k8s.io,application/json\r\n";
const STRATEGIC: &str = "Content-Type: application/strategic-merge-patch+json\r\n";
const EXCLUDE: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// A cluster of three nodes behind HTTP.
struct Server {
    sandbox: Sandbox,
    address: std::net::SocketAddr,
}

/// An answer: its status code, and its body where it has one.
type Answer = (u16, Value);

impl Server {
    async fn start() -> Self {
        let start = Timestamp::from_millis(1_774_000_000_000);
        let world = Fleet::new(start, Delays::demo(), 1)
            .cluster("blue")
            .pool(Pool::new("pool", 3))
            .app(App {
                min_available: Some(3),
                entrance: Some(Entrance::new(30_080, 1.0)),
                ..App::new("web", 3)
            })
            .app(App::new("batch", 2))
            .build();
        let sandbox = Sandbox::new(world, Clock::starting_at(start));
        let router = kubernetes_router(sandbox.clone(), ClusterName::new("blue"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { sandbox, address }
    }

    async fn send(&self, method: &str, uri: &str, headers: &str, body: &str) -> BufReader<TcpStream> {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let length = body.len();
        let request = format!(
            "{method} {uri} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        BufReader::new(stream)
    }

    async fn call(&self, method: &str, uri: &str, headers: &str, body: &str) -> Answer {
        let mut text = String::new();
        self.send(method, uri, headers, body).await.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let code = head.split(' ').nth(1).unwrap().parse().unwrap();
        (code, serde_json::from_str(body).unwrap_or_default())
    }

    async fn get(&self, uri: &str) -> Value {
        let (code, body) = self.call("GET", uri, "", "").await;
        assert_eq!(code, 200, "{uri}: {body}");
        body
    }

    async fn table(&self, uri: &str) -> Vec<Vec<String>> {
        let (code, table) = self.call("GET", uri, TABLE, "").await;
        assert_eq!((code, &table["kind"]), (200, &Value::from("Table")));
        let columns = texts(&table["columnDefinitions"], |column| &column["name"]);
        let rows = table["rows"].as_array().unwrap();
        std::iter::once(columns).chain(rows.iter().map(|row| texts(&row["cells"], |cell| cell))).collect()
    }

    async fn patch(&self, node: &str, body: &str) -> Answer {
        self.call("PATCH", &format!("/api/v1/nodes/{node}"), STRATEGIC, body).await
    }

    async fn watch(&self, query: &str) -> Events {
        Events(self.send("GET", &format!("/api/v1/{query}"), "", "").await)
    }

    /// The names of the nodes, and of the pods in the namespace `default`.
    async fn names(&self, plural: &str) -> Vec<String> {
        let items = self.get(&format!("/api/v1/{plural}")).await["items"].take();
        texts(&items, |item| &item["metadata"]["name"])
    }

    fn cordon(&self, node: &str) {
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        self.sandbox.with(|world| world.patch_node(&"blue".into(), &node.into(), patch)).unwrap();
    }

    fn calls(&self, name: &str) -> u64 {
        self.sandbox.peek(|world| world.calls.get(name).copied().unwrap_or_default())
    }
}

/// A running watch.
struct Events(BufReader<TcpStream>);

impl Events {
    /// The next event; `None` where the server ended the watch.
    async fn next(&mut self) -> Option<Value> {
        loop {
            let mut line = String::new();
            let read =
                timeout(Duration::from_secs(20), self.0.read_line(&mut line)).await.expect("no event came");
            if read.unwrap_or(0) == 0 {
                return None;
            }
            if line.starts_with('{') {
                return Some(serde_json::from_str(&line).unwrap());
            }
        }
    }

    /// Its type and the name of its object.
    async fn heard(&mut self) -> (String, String) {
        let event = self.next().await.unwrap();
        (
            event["type"].as_str().unwrap().to_owned(),
            event["object"]["metadata"]["name"].as_str().unwrap().to_owned(),
        )
    }
}

fn texts(list: &Value, pick: impl Fn(&Value) -> &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    list.as_array().unwrap().iter().map(|value| text(pick(value))).collect()
}

#[tokio::test]
async fn clients_discover_what_there_is() {
    let server = Server::start().await;
    assert_eq!(server.get("/api").await["versions"], json!(["v1"]));
    let groups = server.get("/apis").await;
    assert_eq!(
        texts(&groups["groups"], |group| &group["preferredVersion"]["groupVersion"]),
        ["policy/v1", "apps/v1"]
    );
    let core = server.get("/api/v1?timeout=32s").await;
    assert_eq!(
        texts(&core["resources"], |resource| &resource["name"]),
        ["nodes", "pods", "pods/eviction", "services", "events"]
    );
    assert_eq!(server.get("/apis/policy/v1").await["resources"][0]["shortNames"], json!(["pdb"]));
    assert_eq!(server.get("/apis/apps/v1").await["resources"][0]["verbs"], json!(["get", "list"]));
    assert_eq!(server.get("/version").await["minor"], "36");
    assert_eq!(server.calls("kubernetes.GET discovery"), 6);
}

#[tokio::test]
async fn objects_have_what_clients_read() {
    let server = Server::start().await;
    let nodes = server.get("/api/v1/nodes").await;
    assert_eq!((&nodes["kind"], nodes["items"].as_array().unwrap().len()), (&"NodeList".into(), 3));
    let name = nodes["items"][0]["metadata"]["name"].as_str().unwrap().to_owned();
    let node = server.get(&format!("/api/v1/nodes/{name}")).await;
    assert_eq!((&node["kind"], &node["apiVersion"]), (&"Node".into(), &"v1".into()));
    assert!(node["spec"]["providerID"].as_str().unwrap().starts_with("aws:///eu-west-1"));
    assert_eq!(node["status"]["conditions"][0]["status"], "True");
    assert!(node["metadata"]["creationTimestamp"].as_str().unwrap().ends_with('Z'));

    let pods = server.get(&format!("/api/v1/pods?fieldSelector=spec.nodeName%3D{name}")).await;
    assert!(!pods["items"].as_array().unwrap().is_empty());
    for pod in pods["items"].as_array().unwrap() {
        assert_eq!(pod["spec"]["nodeName"], *name);
    }
    let pods = server.get("/api/v1/namespaces/default/pods?labelSelector=app%3Dweb").await;
    assert_eq!(pods["items"].as_array().unwrap().len(), 3);
    let pod = &pods["items"][0];
    assert_eq!(pod["metadata"]["ownerReferences"][0]["kind"], "ReplicaSet");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 30);
    assert_eq!(pod["spec"]["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"], 5);
    assert_eq!((&pod["status"]["phase"], &pod["kind"]), (&"Running".into(), &Value::Null));

    let budget = server.get("/apis/policy/v1/namespaces/default/poddisruptionbudgets/web").await;
    let expect =
        json!({ "expectedPods": 3, "currentHealthy": 3, "desiredHealthy": 3, "disruptionsAllowed": 0 });
    assert_eq!(budget["status"], expect);
    let proxy = server.get("/apis/apps/v1/namespaces/kube-system/daemonsets/kube-proxy").await;
    assert_eq!((&proxy["kind"], &proxy["status"]["numberReady"]), (&"DaemonSet".into(), &3.into()));
    let service = server.get("/api/v1/namespaces/default/services/web").await;
    assert_eq!(service["spec"]["ports"][0]["nodePort"], 30_080);
}

#[tokio::test]
async fn people_get_tables() {
    let server = Server::start().await;
    let name = server.names("nodes").await.remove(0);
    server.cordon(&name);
    let table = server.table("/api/v1/nodes?limit=500").await;
    assert_eq!(table[0][..5], ["Name", "Status", "Roles", "Age", "Version"]);
    assert_eq!(table[1][..3], [name.as_str(), "Ready,SchedulingDisabled", "<none>"]);
    assert_eq!(table[2][1], "Ready");
    assert_eq!(server.table(&format!("/api/v1/nodes/{name}")).await.len(), 2);

    let pod = server.names("namespaces/default/pods").await.remove(0);
    let uri = format!("/api/v1/namespaces/default/pods/{pod}");
    assert_eq!(server.table(&uri).await[1][1..4], ["1/1", "Running", "0"]);
    assert_eq!(server.call("DELETE", &uri, "", "").await.0, 200);
    assert_eq!(server.table(&uri).await[1][2], "Terminating");
    let budgets = server.table("/apis/policy/v1/poddisruptionbudgets").await;
    assert_eq!(budgets[1], ["web", "3", "N/A", "0", "<unknown>"]);
    let services = server.table("/api/v1/services").await;
    assert_eq!(
        services[1],
        ["web", "LoadBalancer", "<none>", "<none>", "80:30080/TCP", "<unknown>", "app=web"]
    );
}

#[tokio::test]
async fn a_node_is_patched_under_its_preconditions() {
    let server = Server::start().await;
    let name = server.names("nodes").await.remove(0);
    let before = server.get(&format!("/api/v1/nodes/{name}")).await;
    let version = before["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    let patch = json!({
        "metadata": {
            "labels": { EXCLUDE: "true", "kubernetes.io/os": null },
            "annotations": { "a": "b" },
            "resourceVersion": version,
            "uid": before["metadata"]["uid"],
        },
        "spec": { "unschedulable": true, "taints": [{ "key": "k", "effect": "NoSchedule" }] },
    });
    let (code, node) = server.patch(&name, &patch.to_string()).await;
    assert_eq!(code, 200, "{node}");
    assert_eq!(node["metadata"]["labels"][EXCLUDE], "true");
    assert_eq!(node["metadata"]["labels"]["kubernetes.io/os"], Value::Null);
    assert_eq!(node["metadata"]["annotations"], json!({ "a": "b" }));
    assert_eq!(node["spec"]["unschedulable"], true);
    assert_eq!(node["spec"]["taints"], json!([{ "key": "k", "effect": "NoSchedule" }]));
    assert_ne!(node["metadata"]["resourceVersion"], *version);

    let (code, status) = server.patch(&name, &patch.to_string()).await;
    assert_eq!((code, &status["reason"]), (409, &"Conflict".into()), "the same resourceVersion is old now");
    let (code, status) = server.patch(&name, r#"{"metadata":{"uid":"another"}}"#).await;
    assert_eq!((code, &status["reason"]), (409, &"Conflict".into()));
    let (code, node) = server.patch(&name, r#"{"spec":{"unschedulable":null,"taints":null}}"#).await;
    assert_eq!(
        (code, &node["spec"]["unschedulable"], &node["spec"]["taints"]),
        (200, &Value::Null, &Value::Null)
    );
    assert_eq!(server.calls("kubernetes.PATCH node"), 4);

    let (code, status) = server.patch("nobody", "{}").await;
    assert_eq!((code, &status["details"]["kind"]), (404, &"nodes".into()));
}

#[tokio::test]
async fn what_is_not_there_is_refused_by_name() {
    let server = Server::start().await;
    let name = server.names("nodes").await.remove(0);
    let node = format!("/api/v1/nodes/{name}");
    let refused = async |method: &str, uri: &str, headers: &str, body: &str, expect: (u16, &str)| {
        let (code, status) = server.call(method, uri, headers, body).await;
        assert_eq!((code, status["kind"].as_str()), (expect.0, Some("Status")), "{method} {uri}: {status}");
        assert!(status["message"].as_str().unwrap().contains(expect.1), "{method} {uri}: {status}");
    };
    refused("GET", "/api/v1/configmaps", "", "", (501, "GET /api/v1/configmaps")).await;
    refused("PUT", &node, "", "{}", (501, "PUT /api/v1/nodes/")).await;
    refused("PATCH", &node, STRATEGIC, r#"{"spec":{"podCIDR":"x"}}"#, (501, "spec.podCIDR")).await;
    refused("PATCH", &node, STRATEGIC, r#"{"metadata":{"labels":null}}"#, (400, "metadata.labels")).await;
    refused("PATCH", &node, "Content-Type: application/json-patch+json\r\n", "[]", (501, "JSON patches"))
        .await;
    refused("PATCH", &node, "Content-Type: application/apply-patch+yaml\r\n", "", (415, "apply-patch")).await;
    refused("PATCH", &format!("{node}?dryRun=All"), STRATEGIC, "{}", (501, "dryRun")).await;
    refused("GET", "/api/v1/pods?fieldSelector=spec.color%3Dred", "", "", (400, "spec.color")).await;
    refused("GET", "/api/v1/pods?labelSelector=a+in+(b)", "", "", (501, "label selector")).await;
    refused(
        "GET",
        "/api/v1/pods?resourceVersion=1&resourceVersionMatch=Exact",
        "",
        "",
        (410, "resourceVersion 1"),
    )
    .await;
    refused("GET", "/api/v1/pods?resourceVersion=999999", "", "", (504, "Too large")).await;
    refused("GET", "/api/v1/namespaces/default/pods/nobody", "", "", (404, "pods \"nobody\" not found"))
        .await;
}

#[tokio::test]
async fn pods_are_evicted_within_their_budgets() {
    let server = Server::start().await;
    let evict = async |name: &str, options: Value| {
        let uri = format!("/api/v1/namespaces/default/pods/{name}/eviction");
        let body = json!({ "apiVersion": "policy/v1", "kind": "Eviction", "metadata": { "name": name },
                           "deleteOptions": options });
        server.call("POST", &uri, "Content-Type: application/json\r\n", &body.to_string()).await
    };
    let names = server.names("namespaces/default/pods").await;
    let web = names.iter().find(|name| name.starts_with("web")).unwrap();
    let (code, status) = evict(web, Value::Null).await;
    assert_eq!(code, 429);
    let cause = "The disruption budget web needs 3 healthy pods and has 3 currently";
    assert_eq!(status["details"]["causes"], json!([{ "reason": "DisruptionBudget", "message": cause }]));

    let batch = names.iter().find(|name| name.starts_with("batch")).unwrap();
    let (code, status) = evict(batch, json!({ "preconditions": { "uid": "another" } })).await;
    assert_eq!((code, &status["reason"]), (409, &"Conflict".into()));
    let (code, _) = evict(batch, json!({ "preconditions": { "resourceVersion": "1" } })).await;
    assert_eq!(code, 409);
    let (code, status) = evict(batch, json!({ "gracePeriodSeconds": 12 })).await;
    assert_eq!((code, &status["status"]), (201, &"Success".into()));
    let pod = server.get(&format!("/api/v1/namespaces/default/pods/{batch}")).await;
    assert_eq!(pod["metadata"]["deletionGracePeriodSeconds"], 12);
    assert_eq!(evict("nobody", Value::Null).await.0, 404);
    assert_eq!(server.calls("kubernetes.POST eviction"), 5);
}

#[tokio::test]
async fn a_pod_is_deleted_with_the_grace_of_body_or_query() {
    let server = Server::start().await;
    let names = server.names("namespaces/default/pods").await;
    let uri = |name: &str| format!("/api/v1/namespaces/default/pods/{name}");
    let (code, pod) =
        server.call("DELETE", &format!("{}?gracePeriodSeconds=7", uri(&names[0])), "", "").await;
    assert_eq!((code, &pod["metadata"]["deletionGracePeriodSeconds"]), (200, &7.into()));
    let body = r#"{"gracePeriodSeconds":0,"propagationPolicy":"Background"}"#;
    let (code, pod) =
        server.call("DELETE", &uri(&names[1]), "Content-Type: application/json\r\n", body).await;
    assert_eq!((code, &pod["metadata"]["name"]), (200, &names[1].as_str().into()));
    assert_eq!(
        server.call("GET", &uri(&names[1]), "", "").await.0,
        404,
        "a grace of zero takes it away at once"
    );
    let body = r#"{"gracePeriodSeconds":-5}"#;
    assert_eq!(
        server.call("DELETE", &uri(&names[2]), "Content-Type: application/json\r\n", body).await.0,
        400
    );
}

#[tokio::test]
async fn a_watch_tells_every_change_after_a_version() {
    let server = Server::start().await;
    let names = server.names("nodes").await;
    let version =
        server.get("/api/v1/nodes").await["metadata"]["resourceVersion"].as_str().unwrap().to_owned();
    server.cordon(&names[0]);
    let mut all = server.watch(&format!("nodes?watch=true&resourceVersion={version}")).await;
    let only =
        format!("nodes?watch=true&resourceVersion={version}&fieldSelector=metadata.name%3D{}", names[1]);
    let mut one = server.watch(&only).await;
    assert_eq!(all.heard().await, ("MODIFIED".into(), names[0].clone()), "a change before the watch began");
    server.cordon(&names[1]);
    let event = all.next().await.unwrap();
    assert_eq!(event["object"]["spec"]["unschedulable"], true);
    assert_eq!(
        (&event["object"]["kind"], &event["object"]["metadata"]["name"]),
        (&"Node".into(), &names[1].as_str().into())
    );
    assert_eq!(one.heard().await, ("MODIFIED".into(), names[1].clone()));
    assert_eq!(server.calls("kubernetes.WATCH nodes"), 2);
}

#[tokio::test]
async fn a_watch_that_catches_up_gets_everything_in_order() {
    let server = Server::start().await;
    let name = server.names("nodes").await.remove(0);
    let version = server.get("/api/v1/nodes").await["metadata"]["resourceVersion"].clone();
    let version: u64 = version.as_str().unwrap().parse().unwrap();
    for number in 0..5_000 {
        let annotations = [("number".to_owned(), Some(number.to_string()))].into();
        let patch = NodePatch { annotations, ..NodePatch::default() };
        server.sandbox.with(|world| world.patch_node(&"blue".into(), &name.as_str().into(), patch)).unwrap();
    }
    let mut watch = server.watch(&format!("nodes?watch=true&resourceVersion={version}")).await;
    for number in 0..5_000 {
        let event = watch.next().await.unwrap();
        assert_eq!(event["object"]["metadata"]["annotations"]["number"], number.to_string());
    }
}

#[tokio::test]
async fn a_watch_shows_objects_that_come_to_match_and_cease_to() {
    let server = Server::start().await;
    let names = server.names("nodes").await;
    let mut watch = server.watch("nodes?watch=true&labelSelector=team%3Dred").await;
    let label = async |name: &str, value: Value| {
        let patch = json!({ "metadata": { "labels": { "team": value } } });
        assert_eq!(server.patch(name, &patch.to_string()).await.0, 200);
    };
    label(&names[0], "blue".into()).await;
    label(&names[0], "red".into()).await;
    assert_eq!(watch.heard().await, ("ADDED".into(), names[0].clone()));
    server.cordon(&names[0]);
    assert_eq!(watch.heard().await, ("MODIFIED".into(), names[0].clone()));
    label(&names[0], Value::Null).await;
    assert_eq!(watch.heard().await, ("DELETED".into(), names[0].clone()));
    server.cordon(&names[1]);
    label(&names[1], "red".into()).await;
    assert_eq!(
        watch.heard().await,
        ("ADDED".into(), names[1].clone()),
        "nothing came of the node without the label"
    );
}

#[tokio::test]
async fn a_watch_without_a_version_begins_with_what_there_is() {
    let server = Server::start().await;
    let names = server.names("nodes").await;
    let query =
        "nodes?watch=true&sendInitialEvents=true&allowWatchBookmarks=true&resourceVersionMatch=NotOlderThan";
    let mut watch = server.watch(query).await;
    for name in &names {
        assert_eq!(watch.heard().await, ("ADDED".into(), name.clone()));
    }
    let bookmark = watch.next().await.unwrap();
    assert_eq!(bookmark["type"], "BOOKMARK");
    assert_eq!(bookmark["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    server.cordon(&names[2]);
    assert_eq!(watch.heard().await, ("MODIFIED".into(), names[2].clone()));
}

#[tokio::test]
async fn a_watch_ends_with_a_bookmark_after_its_time() {
    let server = Server::start().await;
    let version = server.get("/api/v1/nodes").await["metadata"]["resourceVersion"].clone();
    let query = format!(
        "nodes?watch=true&resourceVersion={}&timeoutSeconds=1&allowWatchBookmarks=true",
        version.as_str().unwrap()
    );
    let mut watch = server.watch(&query).await;
    let bookmark = watch.next().await.unwrap();
    assert_eq!(
        (&bookmark["type"], &bookmark["object"]["metadata"]["resourceVersion"]),
        (&"BOOKMARK".into(), &version)
    );
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_is_told_so() {
    let server = Server::start().await;
    server.sandbox.with(|world| world.clusters.get_mut(&"blue".into()).unwrap().changes.clear());
    let mut watch = server.watch("nodes?watch=true&resourceVersion=2").await;
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["code"]), (&"ERROR".into(), &410.into()));
    assert_eq!(event["object"]["reason"], "Expired");
    assert_eq!(watch.next().await, None);
}

#[tokio::test]
async fn tables_are_watched_with_columns_once() {
    let server = Server::start().await;
    let names = server.names("nodes").await;
    let mut watch = Events(server.send("GET", "/api/v1/nodes?watch=true", TABLE, "").await);
    let first = watch.next().await.unwrap();
    assert_eq!(first["object"]["columnDefinitions"][1]["name"], "Status");
    watch.next().await.unwrap();
    watch.next().await.unwrap();
    server.cordon(&names[0]);
    let event = watch.next().await.unwrap();
    assert_eq!((&event["type"], &event["object"]["columnDefinitions"]), (&"MODIFIED".into(), &json!([])));
    assert_eq!(event["object"]["rows"][0]["cells"][1], "Ready,SchedulingDisabled");
    assert_eq!(event["object"]["rows"][0]["object"]["kind"], "PartialObjectMetadata");
}

#[tokio::test]
async fn events_are_taken_and_listed_for_their_object() {
    const POST: &str = "/apis/events.k8s.io/v1/namespaces/default/events";
    let server = Server::start().await;
    let event = |node: &str, uid: &str| {
        json!({
            "metadata": { "name": format!("{node}.1"), "namespace": "default" },
            "eventTime": "2026-03-14T09:00:00.000001Z", "type": "Warning", "reason": "HeldBack",
            "action": "TakeOutOfService", "note": "Holding back.", "reportingController": "offramp",
            "reportingInstance": "offramp", "regarding": { "kind": "Node", "name": node, "uid": uid },
        })
    };
    let post = async |event: Value| server.call("POST", POST, "", &event.to_string()).await;
    let (code, answer) = post(event("n1", "n1")).await;
    assert_eq!((code, &answer["reason"]), (201, &json!("HeldBack")));
    post(event("n2", "n2")).await;
    assert_eq!(server.sandbox.peek(|world| world.calls["kubernetes.POST event"]), 2);

    // What `kubectl describe node n1` asks for, the second time.
    let selector =
        "involvedObject.kind=Node,involvedObject.name=n1,involvedObject.namespace=,involvedObject.uid=";
    let selected = |uid: &str| format!("/api/v1/events?fieldSelector={selector}{uid}&limit=500");
    let list = server.get(&selected("n1")).await;
    assert_eq!(texts(&list["items"], |event| &event["message"]), ["Holding back."]);
    assert_eq!(list["items"][0]["involvedObject"]["name"], "n1");
    assert_eq!(list["items"][0]["eventTime"], "2026-03-14T09:00:00.000000Z");
    assert_eq!(server.get(&selected("another")).await["items"], json!([]));
    let all = server.get("/api/v1/namespaces/default/events").await;
    assert_eq!(texts(&all["items"], |event| &event["metadata"]["name"]), ["n1.1", "n2.1"]);
    assert_eq!(server.get("/api/v1/namespaces/shop/events").await["items"], json!([]));

    // What a real API server refuses: an object of another namespace, an unknown type, nobody to say so.
    let mut elsewhere = event("n1", "n1");
    elsewhere["regarding"]["namespace"] = json!("shop");
    let mut odd = event("n1", "n1");
    odd["type"] = json!("Odd");
    let mut anonymous = event("n1", "n1");
    anonymous["reportingInstance"] = json!("");
    let mut endless = event("n1", "n1");
    endless["note"] = json!("x".repeat(1025));
    for event in [elsewhere, odd, anonymous, endless] {
        assert_eq!(post(event).await.0, 400);
    }
}

#[tokio::test]
async fn nobody_answers_while_the_api_server_is_away() {
    let server = Server::start().await;
    let mut watch = server.watch("nodes?watch=true").await;
    for _ in 0..3 {
        watch.next().await.unwrap();
    }
    server.sandbox.with(|world| world.take_api_server_away(&"blue".into(), Duration::from_secs(3_600)));
    assert_eq!(watch.next().await, None, "the watch is cut");
    let mut answer = Vec::new();
    let read = server.send("GET", "/api/v1/nodes", "", "").await.read_to_end(&mut answer).await;
    assert!(answer.is_empty(), "an answer came: {}", String::from_utf8_lossy(&answer));
    assert!(read.is_err() || answer.is_empty());
    server.sandbox.with(|world| world.clusters.get_mut(&"blue".into()).unwrap().away_until = None);
    server.get("/api/v1/nodes").await;
}

#[test]
fn a_kubeconfig_has_a_context_for_each_cluster() {
    let text = kubeconfig(&[
        ("blue".into(), "http://127.0.0.1:1".into()),
        ("green".into(), "http://127.0.0.1:2".into()),
    ]);
    let config: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(config["current-context"], "blue");
    assert_eq!(texts(&config["contexts"], |context| &context["context"]["cluster"]), ["blue", "green"]);
    assert_eq!(
        texts(&config["clusters"], |cluster| &cluster["cluster"]["server"]),
        ["http://127.0.0.1:1", "http://127.0.0.1:2"]
    );
}
