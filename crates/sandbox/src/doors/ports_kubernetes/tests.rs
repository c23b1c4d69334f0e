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
    let pods = door.pods(&node.name);
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
        notices: BTreeSet::from([NoticeId::new("one")]),
        cordoned: true,
        excluded: true,
        targets: BTreeSet::from([TargetKey { group, instance: instance.clone(), port: 30_080 }]),
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
    assert_eq!(door.perform(&isolate).await, Ok(Settled::Done));
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
    assert_eq!(door.perform(&evict).await, Ok(Settled::Done));
    assert!(changes.has_changed().unwrap());
    assert_eq!(pods(&door, &node)["api"].ends_at, Some(sandbox.now() + Duration::from_secs(30)));
    let other = sandbox.peek(|world| {
        let pods = world.clusters[&door.name].pods.values();
        let api = pods.filter(|pod| pod.labels["app"] == "api" && pod.ready && pod.deletion.is_none());
        api.map(|pod| pod.pod.clone()).next().unwrap()
    });
    let blocked = Settled::Blocked { budget: Some(BudgetName("api".to_owned())) };
    let evict_other = ClusterCall::Evict { pod: other, grace: None };
    assert_eq!(door.perform(&evict_other).await, Ok(blocked));

    let delete = ClusterCall::Delete { pod: here["web"].pod.clone(), grace: Duration::from_secs(3) };
    assert_eq!(door.perform(&delete).await, Ok(Settled::Done));
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(pods(&door, &node).len(), 1);
    assert_eq!(door.perform(&evict).await, Ok(Settled::Gone));

    let version = before.resource_version.clone();
    let release = |resource_version| ClusterCall::Release {
        node: node.name.clone(),
        record: record.clone(),
        resource_version,
    };
    assert_eq!(door.perform(&release(version)).await, Ok(Settled::Changed));
    let version = seen(&door, &instance).resource_version;
    assert_eq!(door.perform(&release(version)).await, Ok(Settled::Done));
    let after = seen(&door, &instance);
    assert!(!after.cordoned && !after.excluded && after.record.is_none());
}

#[tokio::test(start_paused = true)]
async fn what_is_not_there_is_gone_only_while_the_api_server_answers() {
    let (sandbox, door) = sandbox();
    let (instance, nobody) = (instance(&sandbox), InstanceId::parse("i-00000000").unwrap());
    let node = seen(&door, &instance);
    assert_eq!(door.node(&nobody), Seen::Gone);
    assert_eq!(door.pods(&NodeName::new("nobody")), Seen::Gone);
    let changes = door.changes(&instance);
    sandbox.with(|world| world.take_api_server_away(&door.name, Duration::from_secs(5)));
    assert!(changes.has_changed().unwrap());
    assert_eq!(door.node(&nobody), Seen::Unknown);
    assert_eq!(door.node(&instance), Seen::Unknown);
    assert_eq!(door.pods(&node.name), Seen::Unknown);
    assert!(!door.in_sync());
    let call = ClusterCall::Exclude {
        node: node.name.clone(),
        record: record(&instance),
        guard: node.resource_version.clone(),
    };
    assert!(matches!(door.perform(&call).await, Err(Fault::Retry(_))));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(door.in_sync());
    assert_eq!(door.perform(&call).await, Ok(Settled::Done));
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
        while door.pods(&node.name).known().unwrap().iter().any(|other| other.pod == pod) {
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
    assert_eq!(door.perform(&call).await, Ok(Settled::Done));
    assert!(seen(&door, &instance).excluded);
    sandbox.peek(|world| assert_eq!(world.calls["kubernetes.PATCH node"], 2));
}
