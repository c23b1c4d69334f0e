//! Watches that look alive, and are not.

use super::server::Script;
use super::*;

/// Five failures in a row take up to half a minute with the pauses of a worker.
const QUICK: Pace = Pace { longest_pause: Duration::from_millis(100), ..PACE };

fn at_once(lines: Vec<Value>) -> Script {
    Script { wait: Duration::ZERO, lines, ends: true }
}

fn error(code: u16, message: &str) -> Value {
    let mut status: Value = serde_json::from_str(&status(code, "InternalError", json!({}))).unwrap();
    status["message"] = json!(message);
    json!({ "type": "ERROR", "object": status })
}

/// How often the nodes are watched until they are listed again, and what is complained of then.
async fn watches_until_listed(script: Script) -> (usize, Option<String>) {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let running = Running::open_at(&server.address, None, QUICK).await;
    running.until("in sync", KubernetesCluster::in_sync).await;
    timeout(SOON, server.watched("nodes", 1)).await.unwrap();
    server.script("nodes", script);
    timeout(SOON, server.listed("nodes", 2)).await.expect("they are listed again");
    let found = (server.watches("nodes") - 1, running.cluster.trouble());
    server.unscript("nodes");
    running.polled("in sync again", KubernetesCluster::in_sync).await;
    running.polled("that nothing is wrong", |cluster| cluster.trouble().is_none()).await;
    found
}

/// Cut by a proxy; the bookmark looked like the proof that all is well. The first cut ends the stream that works.
#[tokio::test]
async fn streams_that_are_cut_at_once_are_told_and_lead_to_a_list() {
    let bookmark = json!({ "type": "BOOKMARK", "object": {
        "kind": "Node", "apiVersion": "v1", "metadata": { "resourceVersion": "1" } } });
    let (watches, trouble) = watches_until_listed(at_once(vec![bookmark])).await;
    assert!((4..=5).contains(&watches), "{watches} and no pause");
    assert_eq!(trouble.as_deref(), Some("watching nodes: it ended at once"));
}

/// The events are real, so that the version moves on each time.
#[tokio::test]
async fn streams_that_bring_an_event_and_are_cut_at_once_lead_to_a_list() {
    let mut changed = node(1);
    changed["metadata"]["resourceVersion"] = json!("9");
    let bookmark = json!({ "type": "BOOKMARK", "object": {
        "kind": "Node", "apiVersion": "v1", "metadata": { "resourceVersion": "10" } } });
    let lines = vec![json!({ "type": "MODIFIED", "object": changed }), bookmark];
    let (watches, trouble) = watches_until_listed(at_once(lines)).await;
    assert!((4..=5).contains(&watches), "{watches} and no pause");
    assert_eq!(trouble.as_deref(), Some("watching nodes: it ended at once"));
}

/// It is open for long enough to be trusted, each time.
#[tokio::test]
async fn streams_that_fail_once_they_are_trusted_lead_to_a_list() {
    let script =
        Script { wait: 2 * PACE.settle, lines: vec![error(500, "storage is (re)initializing")], ends: true };
    let (watches, trouble) = watches_until_listed(script).await;
    assert!((4..=5).contains(&watches), "{watches} and no pause");
    assert_eq!(trouble.as_deref(), Some("watching nodes: 500: storage is (re)initializing"));
}

/// Each ends as it should, a little after the second that a watch has to last.
#[tokio::test]
async fn streams_that_end_early_and_bring_nothing_lead_to_a_list() {
    let script = Script { wait: Duration::from_millis(1_100), lines: Vec::new(), ends: true };
    let (watches, trouble) = watches_until_listed(script).await;
    assert!((4..=5).contains(&watches), "{watches}");
    assert_eq!(trouble.as_deref(), Some("watching nodes: it ends again and again, and brings nothing"),);
}

#[tokio::test]
async fn a_version_that_is_too_old_in_other_words_leads_to_a_list() {
    let too_old = error(500, "too old resource version: 1 (7)");
    let (watches, _) = watches_until_listed(at_once(vec![too_old])).await;
    assert!(watches <= 2, "{watches}: at the first answer, not at the fifth");
}

/// It opens, says nothing and never ends, each time: to be open proves nothing, and settles no complaint.
#[tokio::test]
async fn streams_that_are_silent_past_their_end_are_listed_again_each_time() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let pace = Pace { watch_seconds: 1, silence: Duration::from_millis(100), ..QUICK };
    let running = Running::open_at(&server.address, None, pace).await;
    running.until("in sync", KubernetesCluster::in_sync).await;
    timeout(SOON, server.watched("nodes", 1)).await.unwrap();
    server.script("nodes", Script { wait: Duration::ZERO, lines: Vec::new(), ends: false });
    for lists in 2..=4 {
        timeout(SOON, server.listed("nodes", lists)).await.expect("they are listed again");
        let trouble = running.cluster.trouble();
        assert!(trouble.is_some_and(|text| text.starts_with("watching nodes: nothing came any more")));
    }
    running.polled("the list counts", KubernetesCluster::in_sync).await;
    assert!(running.cluster.trouble().is_some(), "nothing has proved that the watch lives");
    server.unscript("nodes");
    running.polled("that nothing is wrong", |cluster| cluster.trouble().is_none()).await;
}

fn event(kind: &str, object: &Value) -> Value {
    let mut object = object.clone();
    object["metadata"]["resourceVersion"] = json!("1000");
    json!({ "type": kind, "object": object })
}

/// The same event comes again from the same version: only a list leads on.
#[tokio::test]
async fn an_event_that_cannot_be_read_leads_to_a_list() {
    let mut odd = node(1);
    odd["metadata"]["labels"] = json!("pool=web");
    let mut nameless = node(1);
    nameless["metadata"]["name"] = Value::Null;
    for (object, expect) in [
        (odd, "watching nodes: the answer is not what an API server sends; check"),
        (nameless, "watching nodes: an event is about an object without a name"),
    ] {
        let script = Script { wait: Duration::ZERO, lines: vec![event("MODIFIED", &object)], ends: false };
        let (watches, trouble) = watches_until_listed(script).await;
        assert!(watches <= 2, "{watches}: at the first event");
        let trouble = trouble.expect("it is complained of");
        assert!(trouble.starts_with(expect) && !trouble.contains("pool"), "{trouble}");
    }
}

#[tokio::test]
async fn an_object_that_cannot_be_read_is_complained_of_until_it_can() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let running = Running::open_at(&server.address, None, QUICK).await;
    running.until("in sync", KubernetesCluster::in_sync).await;
    timeout(SOON, server.watched("nodes", 1)).await.unwrap();
    let mut odd = node(2);
    odd["spec"]["unschedulable"] = json!("yes");
    server.put("nodes", odd);
    let expect = "listing nodes: the answer is not what an API server sends";
    let complains =
        |cluster: &KubernetesCluster| cluster.trouble().is_some_and(|text| text.starts_with(expect));
    running.polled("the resource is named", complains).await;
    assert_eq!(running.cluster.node(&instance(1)), Seen::Unknown);
    server.put("nodes", node(2));
    running.polled("in sync again", KubernetesCluster::in_sync).await;
    assert!(running.cluster.node(&instance(2)).known().is_some());
}

/// It was a pod of this node, and is none of any node now, or cannot be told from one.
#[tokio::test]
async fn an_object_that_reads_as_none_of_ours_leaves_the_view() {
    for kind in ["MODIFIED", "DELETED"] {
        let server = ApiServer::start().await;
        server.put("nodes", node(1));
        for name in ["web-1", "web-10"] {
            server.put("pods", pod(name, "n1"));
        }
        let running = Running::synced(&server).await;
        timeout(SOON, server.watched("pods", 1)).await.unwrap();
        let mut bare = pod("web-1", "n1");
        bare["spec"] = Value::Null;
        let lines = vec![event(kind, &bare)];
        server.script("pods", Script { wait: Duration::ZERO, lines, ends: false });
        let only_the_other = |cluster: &KubernetesCluster| {
            let pods = cluster.pods(&NodeName::from("n1"), &instance(1));
            pods.known().is_some_and(|pods| pods.len() == 1 && pods[0].pod.name == "web-10")
        };
        running.polled("it is gone", only_the_other).await;
        assert_eq!(server.lists("pods"), 1);
    }
}

impl Running {
    /// Makes a call twice, as a job does that still sees the object; the server answers that it is gone.
    async fn insist(&self, server: &ApiServer, call: &ClusterCall, name: &str) {
        for _ in 0..2 {
            server.answer(404, status(404, "NotFound", json!({ "name": name })));
            assert_eq!(self.cluster.perform(call).await, Ok(Outcome::Gone));
        }
    }
}

fn isolate(version: &str) -> ClusterCall {
    let (node, guard) = (NodeName::from("n1"), version.to_owned());
    ClusterCall::Isolate { node, exclude: false, record: a_record(), guard }
}

/// kubernetes/kubernetes#56261: the watch missed an end, and nothing failed.
#[tokio::test]
async fn what_is_gone_and_still_held_is_listed_again() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("pods", pod("web-1", "n1"));
    let running = Running::synced(&server).await;
    server.lose("pods", "shop/web-1");
    running.insist(&server, &ClusterCall::Evict { pod: a_pod(), grace: None }, "web-1").await;
    let pods = |cluster: &KubernetesCluster| cluster.pods(&NodeName::from("n1"), &instance(1));
    running.polled("no pod", |cluster| pods(cluster) == Seen::Known(Vec::new())).await;
    assert_eq!((server.lists("pods"), server.lists("nodes")), (2, 1));

    server.lose("nodes", "n1");
    let version = running.cluster.node(&instance(1)).known().unwrap().resource_version.clone();
    running.insist(&server, &isolate(&version), "n1").await;
    running.polled("no node", |cluster| cluster.node(&instance(1)) == Seen::Gone).await;
    assert_eq!((server.lists("pods"), server.lists("nodes")), (2, 2));
}

/// A watch that is silent does not show over what a write would go.
#[tokio::test]
async fn a_node_over_which_a_write_was_refused_is_read() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    server.put("nodes", node(2));
    let running = Running::synced(&server).await;
    let version = |n: u32| running.cluster.node(&instance(n)).known().unwrap().resource_version.clone();
    let before = [1, 2].map(version);
    timeout(SOON, server.watched("nodes", 1)).await.unwrap();
    let mut cordoned = node(1);
    cordoned["spec"]["unschedulable"] = json!(true);
    server.put_unseen("nodes", cordoned);
    server.put_unseen("nodes", node(2));
    let (lists, conflict) = (server.lists("nodes"), status(409, "Conflict", json!({ "name": "n1" })));
    server.answer(409, conflict.clone());
    assert_eq!(running.perform(isolate(&before[0])).await, Ok(Outcome::Changed));
    assert_eq!((version(1).as_str(), version(2)), ("3", before[1].clone()), "one node is read");
    assert_eq!((server.lists("nodes"), server.nodes_read()), (lists, 1));
    // That this fails changes nothing.
    server.refuse("nodes", 500);
    server.answer(409, conflict);
    assert_eq!(running.perform(isolate(&version(1))).await, Ok(Outcome::Changed));
}

/// What is distrusted while no watch runs is neither lost nor asked for twice.
#[tokio::test]
async fn a_list_that_is_to_come_is_all_that_distrust_asks_for() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    let running = Running::open_at(&server.address, None, QUICK).await;
    running.until("in sync", KubernetesCluster::in_sync).await;
    server.refuse("nodes", 410);
    server.cut("nodes");
    running.until("out of sync", |cluster| !cluster.in_sync()).await;
    // A watch, and then a list.
    timeout(SOON, server.refusals(2)).await.unwrap();
    running.insist(&server, &isolate("1"), "n1").await;
    server.allow("nodes");
    running.until("in sync again", KubernetesCluster::in_sync).await;
    // The stream after the list lives to its end.
    let watches = server.watches("nodes");
    timeout(SOON, server.watched("nodes", watches + 2)).await.unwrap();
    assert_eq!(server.lists("nodes"), 2);
}

/// kubernetes/kubernetes#107457: etcd was restored from a backup, its versions went back, and a watch from a version that
/// is not there yet shows nothing of what came since. That it has "come as far" is no proof.
#[tokio::test]
async fn a_version_that_went_back_is_no_proof() {
    let server = ApiServer::start().await;
    server.put("nodes", node(1));
    (0..10).for_each(|_| server.put("services", service("Cluster")));
    let running = Running::synced(&server).await;
    server.go_back_to(1);
    server.put_unseen("nodes", node(2));
    let mut proven = running.cluster.proven();
    let at = Timestamp::from_millis(5);
    running.cluster.prove(at);
    timeout(SOON, proven.wait_for(|proven| *proven >= at)).await.expect("the proof comes").unwrap();
    assert!(running.cluster.node(&instance(2)).known().is_some(), "a proof shows what there is");
}
