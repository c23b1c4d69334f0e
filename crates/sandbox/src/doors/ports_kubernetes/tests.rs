use std::collections::BTreeSet;

use offramp_core::{AccountRegion, Cause, Claimant, Entry, TargetGroupArn, TargetKey, Timestamp, Trigger};
use offramp_engine::Clock;

use super::*;
use crate::fleet::{App, Entrance, Fleet, Pool};
use crate::{Delays, Faults};

fn sandbox() -> (Sandbox, ClusterDoor) {
    let start = Timestamp::from_millis(1_774_000_000_000);
    let entrance = Entrance { local: true, ..Entrance::new(30_080, 10.0) };
    let world = Fleet::new(start, Delays::demo(), 1)
        .cluster("blue")
        .pool(Pool::new("web", 2))
        .app(App { min_available: Some(1), ..App::new("api", 2) })
        .app(App { entrance: Some(entrance), ..App::new("web", 2) })
        .build();
    let sandbox = Sandbox::new(world, Clock::starting_at(start));
    let door = ClusterDoor::new(&sandbox, &ClusterName::new("blue"));
    (sandbox, door)
}

fn instance(sandbox: &Sandbox) -> InstanceId {
    sandbox.peek(|world| world.instances.all().next().unwrap().id.clone())
}

fn seen(door: &ClusterDoor, instance: &InstanceId) -> Node {
    door.node(instance).known().unwrap().clone()
}

fn pods(door: &ClusterDoor, node: &Node) -> BTreeMap<String, Pod> {
    let pods = door.pods(&node.name, &instance(&door.sandbox));
    let named = pods.known().unwrap().iter().map(|pod| {
        let app = pod.pod.name.split('-').next().unwrap();
        (app.to_owned(), pod.clone())
    });
    named.collect()
}

fn record(instance: &InstanceId) -> Record {
    let group = TargetGroupArn::new("arn:aws:elasticloadbalancing:eu-west-1:1:targetgroup/web/1");
    Record {
        since: Timestamp::from_millis(1_774_000_000_123),
        entries: BTreeMap::from([(
            Claimant { cause: Cause::Trigger(Trigger::Spot), by: None },
            Entry {
                account_region: AccountRegion::default(),
                at: Timestamp::from_millis(1_774_000_000_123),
                end: Timestamp::from_millis(1_774_000_120_123),
                ended: None,
            },
        )]),
        cordoned: true,
        excluded: true,
        targets: BTreeSet::from([TargetKey { group, instance: instance.clone(), port: 30_080 }]),
        ..Record::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_node_is_isolated_drained_and_released_through_the_port() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let mut changes = door.changes(&instance);
    let before = seen(&door, &instance);
    assert!(before.ready && !before.cordoned && before.record.is_none() && door.in_sync());

    let record = record(&instance);
    let isolate = ClusterCall::Isolate {
        node: before.name.clone(),
        exclude: true,
        record: record.clone(),
        guard: before.resource_version.clone(),
    };
    assert_eq!(door.perform(&isolate).await, Ok(Outcome::Done));
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    let node = seen(&door, &instance);
    assert!(node.cordoned && node.excluded);
    assert_eq!(node.record, Some(record.clone()));

    let here = pods(&door, &node);
    assert_eq!(here.keys().collect::<Vec<_>>(), ["api", "kube", "web"]);
    assert!(here["web"].local_traffic && !here["api"].local_traffic);
    assert_eq!(here["kube"].daemon_set.as_deref(), Some("kube-proxy"));
    assert!(here["kube"].node_critical && !here["api"].node_critical);

    let evict = ClusterCall::Evict { pod: here["api"].pod.clone(), grace: None };
    assert_eq!(door.perform(&evict).await, Ok(Outcome::Done));
    assert!(changes.has_changed().unwrap());
    assert_eq!(pods(&door, &node)["api"].ends_at, Some(sandbox.now() + Duration::from_secs(30)));
    let other = sandbox.peek(|world| {
        let pods = world.clusters[&door.name].pods.values();
        let api = pods.filter(|pod| pod.labels["app"] == "api" && pod.ready && pod.deletion.is_none());
        api.map(|pod| pod.pod.clone()).next().unwrap()
    });
    let blocked = Outcome::Blocked { budget: Some(BudgetName("api".to_owned())) };
    let evict_other = ClusterCall::Evict { pod: other, grace: None };
    assert_eq!(door.perform(&evict_other).await, Ok(blocked));

    let delete = ClusterCall::Delete { pod: here["web"].pod.clone(), grace: Duration::from_secs(3) };
    assert_eq!(door.perform(&delete).await, Ok(Outcome::Done));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pods(&door, &node).len(), 1);
    assert_eq!(door.perform(&evict).await, Ok(Outcome::Gone));

    let version = before.resource_version.clone();
    let release = |guard| ClusterCall::Release { node: node.name.clone(), record: record.clone(), guard };
    assert_eq!(door.perform(&release(version)).await, Ok(Outcome::Changed));
    let version = seen(&door, &instance).resource_version;
    assert_eq!(door.perform(&release(version)).await, Ok(Outcome::Done));
    let after = seen(&door, &instance);
    assert!(!after.cordoned && !after.excluded && after.record.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_gone_only_while_the_api_server_answers() {
    let (sandbox, door) = sandbox();
    let (instance, nobody) = (instance(&sandbox), InstanceId::parse("i-00000000").unwrap());
    let node = seen(&door, &instance);
    assert_eq!(door.node(&nobody), Seen::Gone);
    assert_eq!(door.pods(&NodeName::new("nobody"), &nobody), Seen::Known(Vec::new()));
    assert_eq!(door.pods(&node.name, &nobody), Seen::Gone, "it is another's");
    let changes = door.changes(&instance);
    sandbox.with(|world| world.take_api_server_away(&door.name, Duration::from_secs(5)));
    assert!(changes.has_changed().unwrap());
    assert_eq!(door.node(&nobody), Seen::Unknown);
    assert_eq!(door.node(&instance), Seen::Unknown);
    assert_eq!(door.pods(&node.name, &instance), Seen::Unknown);
    assert!(!door.in_sync());
    let call = ClusterCall::Exclude {
        node: node.name.clone(),
        record: record(&instance),
        guard: node.resource_version.clone(),
    };
    assert!(matches!(door.perform(&call).await, Err(Fault::Retry(_))));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(door.in_sync());
    assert_eq!(door.perform(&call).await, Ok(Outcome::Done));
}

#[tokio::test(start_paused = true)]
async fn a_waiter_wakes_when_a_pod_ends() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let node = seen(&door, &instance);
    let pod = pods(&door, &node)["api"].pod.clone();
    door.perform(&ClusterCall::Evict { pod: pod.clone(), grace: None }).await.unwrap();
    let mut changes = door.changes(&instance);
    let began = sandbox.now();
    let wait = async {
        while door.pods(&node.name, &instance).known().unwrap().iter().any(|other| other.pod == pod) {
            changes.changed().await.unwrap();
        }
    };
    tokio::select! {
        () = wait => {}
        () = sandbox.run() => {}
    }
    // preStop and the second that it takes.
    assert_eq!(sandbox.now().since(began), Duration::from_secs(6));
}

#[tokio::test(start_paused = true)]
async fn calls_are_counted_and_go_wrong_as_planned() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let node = seen(&door, &instance);
    let mut faults = Faults::default();
    faults.inject("kubernetes.PATCH node", 1, crate::faults::Injected::Error);
    sandbox.with(|world| world.faults = faults);
    let call =
        ClusterCall::Exclude { node: node.name, record: record(&instance), guard: node.resource_version };
    assert!(matches!(door.perform(&call).await, Err(Fault::Retry(_))));
    assert!(!seen(&door, &instance).excluded);
    assert_eq!(door.perform(&call).await, Ok(Outcome::Done));
    assert!(seen(&door, &instance).excluded);
    sandbox.peek(|world| assert_eq!(world.calls["kubernetes.PATCH node"], 2));
}

/// Lets the time pass, with whatever happens by itself.
async fn pass(sandbox: &Sandbox, millis: u64) {
    tokio::select! {
        () = tokio::time::sleep(Duration::from_millis(millis)) => {}
        () = sandbox.run() => {}
    }
    sandbox.with(|_| ());
}

fn late(sandbox: &Sandbox, nodes: u64, pods: u64) {
    let view_lag =
        cluster::ViewLag { nodes: Duration::from_millis(nodes), pods: Duration::from_millis(pods) };
    sandbox.with(|world| world.clusters.values_mut().for_each(|cluster| cluster.view_lag = view_lag));
}

fn label(sandbox: &Sandbox, door: &ClusterDoor, node: &NodeName, value: &str) {
    let labels = BTreeMap::from([("team".to_owned(), Some(value.to_owned()))]);
    let patch = NodePatch { labels, ..NodePatch::default() };
    sandbox.with(|world| world.patch_node(&door.name, node, patch)).unwrap();
}

fn isolate(seen: &Node, instance: &InstanceId) -> ClusterCall {
    let (node, guard) = (seen.name.clone(), seen.resource_version.clone());
    ClusterCall::Isolate { node, exclude: true, record: record(instance), guard }
}

/// As the adapter for real clusters does: it reads the node over which a write was refused.
#[tokio::test(start_paused = true)]
async fn a_write_over_what_has_changed_shows_the_node_as_it_is() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let before = seen(&door, &instance);
    late(&sandbox, 60_000, 0);
    let changes = door.changes(&instance);
    label(&sandbox, &door, &before.name, "red");
    assert_eq!(seen(&door, &instance), before);
    assert_eq!(door.perform(&isolate(&before, &instance)).await, Ok(Outcome::Changed));
    assert!(changes.has_changed().unwrap());
    let read = seen(&door, &instance);
    assert_eq!(door.perform(&isolate(&read, &instance)).await, Ok(Outcome::Done));
    assert_eq!(seen(&door, &instance), read, "the watch is as late as before");
    // That it cannot be read takes nothing from the answer.
    let slow = crate::faults::Injected::Delay(Duration::from_secs(60));
    sandbox.with(|world| world.faults.always("kubernetes.GET node", Some(slow)));
    let isolate = isolate(&read, &instance);
    let refused = tokio::time::timeout(Duration::from_secs(3), door.perform(&isolate)).await;
    assert_eq!(refused, Ok(Ok(Outcome::Changed)));
}

#[tokio::test(start_paused = true)]
async fn a_late_watch_shows_the_past() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let before = seen(&door, &instance);
    late(&sandbox, 3_000, 1_000);
    let mut changes = door.changes(&instance);
    assert_eq!(door.perform(&isolate(&before, &instance)).await, Ok(Outcome::Done));
    assert_eq!(seen(&door, &instance), before);

    let api = pods(&door, &before)["api"].clone();
    let evict = ClusterCall::Evict { pod: api.pod.clone(), grace: None };
    assert_eq!(door.perform(&evict).await, Ok(Outcome::Done));
    assert_eq!(pods(&door, &before)["api"], api);
    pass(&sandbox, 999).await;
    assert!(!changes.has_changed().unwrap());
    pass(&sandbox, 1).await;
    assert!(changes.has_changed().unwrap());
    changes.mark_unchanged();
    assert!(pods(&door, &before)["api"].ends_at.is_some());
    assert_eq!(seen(&door, &instance), before);

    pass(&sandbox, 2_000).await;
    assert!(changes.has_changed().unwrap());
    let after = seen(&door, &instance);
    assert!(after.cordoned && after.record.is_some() && after.resource_version != before.resource_version);
    // Its process takes six seconds to end, and the watch one more to say so.
    pass(&sandbox, 3_000).await;
    assert_eq!(door.perform(&evict).await, Ok(Outcome::Gone));
    assert!(pods(&door, &before).contains_key("api"));
    pass(&sandbox, 1_000).await;
    assert!(!pods(&door, &before).contains_key("api"));
}

#[tokio::test(start_paused = true)]
async fn a_late_watch_shows_every_version_in_order_and_never_goes_back() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let name = seen(&door, &instance).name;
    let mut random = fastrand::Rng::with_seed(7);
    let (mut stored, mut shown) = (Vec::new(), Vec::new());
    for step in 0..400 {
        if random.u8(0..4) == 0 {
            late(&sandbox, random.u64(0..3_000), 0);
        }
        if random.u8(0..3) == 0 {
            label(&sandbox, &door, &name, &step.to_string());
        }
        let version = sandbox.peek(|world| world.clusters[&door.name].nodes[&name].version);
        stored.push((sandbox.now(), version));
        shown.push((sandbox.now(), seen(&door, &instance).resource_version.parse::<u64>().unwrap()));
        pass(&sandbox, random.u64(0..500)).await;
    }
    assert!(shown.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{shown:?}");
    for (at, version) in &shown {
        let of_late = stored.iter().filter(|(then, _)| then <= at);
        let (since, _) = of_late.clone().find(|(_, other)| other == version).unwrap();
        let next = of_late.clone().find(|(then, other)| then >= since && other > version);
        // What came after it is younger than the longest lag.
        assert!(next.is_none_or(|(then, _)| at.since(*then) < Duration::from_secs(3)), "{at:?} {version}");
    }
    assert!(shown.iter().zip(&stored).any(|(shown, stored)| shown.1 < stored.1), "it was never late");
    late(&sandbox, 0, 0);
    pass(&sandbox, 3_000).await;
    assert_eq!(seen(&door, &instance).resource_version, stored.last().unwrap().1.to_string());
}

#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_is_not_written_over() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let name = seen(&door, &instance).name;
    let newer = r#"{"v":3,"since":"2026-03-20T09:46:40Z"}"#;
    let annotations = BTreeMap::from([(RECORD_ANNOTATION.to_owned(), Some(newer.to_owned()))]);
    let patch = NodePatch { annotations, ..NodePatch::default() };
    sandbox.with(|world| world.patch_node(&door.name, &name, patch)).unwrap();
    let before = seen(&door, &instance);
    let record = before.record.unwrap();
    assert!(record.foreign.is_some());
    let guard = before.resource_version;
    door.perform(&ClusterCall::Isolate { node: name.clone(), exclude: true, record, guard }).await.unwrap();
    let after = seen(&door, &instance);
    assert!(after.cordoned && after.excluded);
    let annotations = sandbox.peek(|world| world.clusters[&door.name].nodes[&name].annotations.clone());
    assert_eq!(annotations[RECORD_ANNOTATION], newer);
}

#[tokio::test(start_paused = true)]
async fn whoever_lists_anew_sees_what_another_watch_has_yet_to_show() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let node = seen(&door, &instance);
    late(&sandbox, 3_000, 3_000);
    let pod = pods(&door, &node)["api"].pod.clone();
    label(&sandbox, &door, &node.name, "red");
    door.perform(&ClusterCall::Delete { pod, grace: Duration::from_secs(9) }).await.unwrap();
    let fresh = ClusterDoor::new(&sandbox, &door.name);
    label(&sandbox, &door, &node.name, "blue");
    let truth = sandbox.peek(|world| world.clusters[&door.name].nodes[&node.name].version.to_string());
    let versions: Vec<String> = [&door, &fresh].map(|door| seen(door, &instance).resource_version).into();
    assert!(versions[0] == node.resource_version && versions[1] != versions[0] && versions[1] != truth);
    assert!(pods(&door, &node)["api"].ends_at.is_none());
    assert!(pods(&fresh, &node)["api"].ends_at.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_new_or_gone_is_so_a_little_later() {
    let (sandbox, door) = sandbox();
    let old = instance(&sandbox);
    let node = seen(&door, &old);
    late(&sandbox, 2_000, 0);
    sandbox.with(|world| world.terminate_instance(&old));
    // The other one is launched for it, in eight seconds.
    let (mut joined, mut left) = (None, None);
    for _ in 0..400 {
        pass(&sandbox, 100).await;
        sandbox.peek(|world| {
            let nodes = &world.clusters[&door.name].nodes;
            let there = nodes.values().find(|other| other.created > node.ready_since);
            joined = joined.take().or(there.map(|new| (new.instance.clone(), world.now())));
            left = left.or((!nodes.contains_key(&node.name)).then(|| world.now()));
        });
        let shows = |at: offramp_core::Timestamp| sandbox.now().since(at) >= Duration::from_secs(2);
        if let Some((new, at)) = &joined {
            assert_eq!(door.node(new).known().is_some(), shows(*at));
        }
        assert_eq!(door.node(&old) == Seen::Gone, left.is_some_and(shows));
    }
    assert!(joined.is_some() && left.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_new_version_alone_wakes_nobody_and_is_shown() {
    let (sandbox, door) = sandbox();
    let instance = instance(&sandbox);
    let before = seen(&door, &instance);
    for lag in [0, 2_000] {
        late(&sandbox, lag, 0);
        let changes = door.changes(&instance);
        label(&sandbox, &door, &before.name, &lag.to_string());
        pass(&sandbox, lag).await;
        let now = sandbox.peek(|world| world.clusters[&door.name].nodes[&before.name].version);
        assert_eq!(seen(&door, &instance).resource_version, now.to_string());
        assert!(!changes.has_changed().unwrap());
    }
}
