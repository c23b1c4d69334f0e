//! What is measured.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{Api, EvictParams, Patch, PatchParams, PostParams};
use offramp_core::InstanceId;
use serde_json::json;

use super::aws::{Aws, Fleets, Notice};
use super::cluster::{Asked, Cluster, Machine, counted, each, of, until_async};
use super::seen::Watches;
use super::worker::Worker;
use super::{late_watches, machine};

/// By name; the unit is in it.
pub(crate) type Figures = BTreeMap<&'static str, f64>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    Bare,
    Offramp { replicas: usize },
}

/// Nodes that leave at once.
#[derive(Clone, Copy)]
pub(crate) struct Storm {
    pub(crate) notice: Notice,
    pub(crate) nodes: usize,
    pub(crate) per_node: usize,
    pub(crate) target_groups: u16,
    /// How late the watches of the worker are.
    pub(crate) late: Duration,
}

/// Each keeps every target group healthy.
const STEADY: usize = 5;
/// Of target groups in a storm: what waits for it is no part of what is measured.
const DEREGISTRATION: Duration = Duration::from_secs(15);

pub(crate) async fn storm(cluster: &Cluster, side: Side, storm: Storm) -> Figures {
    let mut fleets = Fleets {
        steady: STEADY,
        target_groups: storm.target_groups,
        deregistration: DEREGISTRATION,
        ..Fleets::default()
    };
    let group = match storm.notice {
        Notice::Spot => {
            fleets.spot = storm.nodes;
            "spot"
        }
        Notice::Hook => {
            fleets.hook = storm.nodes;
            "hook"
        }
    };
    let aws = Aws::open(fleets).await;
    let leaving = aws.members(group);
    let machines = machines(&leaving);
    let steady = self::machines(&aws.members("steady"));
    populate(cluster, &machines, &steady, storm.per_node).await;
    let pods = machines.len() * storm.per_node;
    let seen = watching(cluster, pods).await;
    let workers = workers(cluster, &aws, side, storm.late).await;

    let begun = match side {
        Side::Bare => {
            let begun = Timestamp::now();
            drain_by_hand(cluster, &machines, &names_of_pods(machines.len(), storm.per_node)).await;
            begun
        }
        Side::Offramp { .. } => aws.begin(storm.notice, &instances(&leaving)),
    };
    until_async("every pod is gone", || async { seen.look().pods.is_empty() }).await;
    let mut figures = of_cordons_and_pods(cluster, &seen, begun);
    if storm.notice == Notice::Hook && side != Side::Bare {
        until_async("every hook is answered", || async { aws.answered() == leaving.len() }).await;
        figures.insert("hooks answered", aws.answered() as f64);
        figures.insert("AWS calls", aws.calls() as f64);
    }
    let asked = cluster.asked_since(begun);
    of_writes(&mut figures, &asked, pods);
    let peaks = workers.iter().filter_map(|worker| machine::peak_mib(worker.pid()));
    figures.extend((!workers.is_empty()).then(|| ("worker peak MiB", peaks.fold(0.0, f64::max))));
    figures
}

/// What the real scheduler and the controllers put elsewhere at once: 100 nodes of 220 leave, with 10 pods each.
pub(crate) async fn returning(cluster: &Cluster, side: Side) -> Figures {
    const LEAVING: usize = 100;
    const STAYING: usize = 120;
    const DEPLOYMENTS: usize = 20;
    let aws = Aws::open(Fleets { spot: LEAVING, steady: STAYING, ..Fleets::default() }).await;
    let leaving = aws.members("spot");
    let machines = machines(&leaving);
    cluster.add_nodes(&machines).await;
    cluster.until_ready(LEAVING).await;
    let deployments: Api<Deployment> = Api::namespaced(cluster.admin.clone(), "default");
    let names: Vec<String> = (0..DEPLOYMENTS).map(|number| format!("web{number}")).collect();
    each(&names, |name| {
        let labels = json!({ "app": name });
        let container = json!({ "name": "web", "image": "registry.example.com/web:1" });
        let deployment = of(json!({ "metadata": { "name": name }, "spec": {
            "replicas": LEAVING * 10 / DEPLOYMENTS,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels },
                "spec": { "terminationGracePeriodSeconds": 5, "containers": [container] } },
        } }));
        let deployments = deployments.clone();
        async move { deployments.create(&PostParams::default(), &deployment).await.map(drop) }
    })
    .await;
    let seen = watching(cluster, LEAVING * 10).await;
    cluster.until_pods_run().await;
    let first: Vec<String> = seen.look().pods.iter().cloned().collect();
    let staying = self::machines(&aws.members("steady"));
    cluster.add_nodes(&staying).await;
    cluster.until_ready(LEAVING + STAYING).await;

    let workers = workers(cluster, &aws, side, Duration::ZERO).await;
    let begun = match side {
        Side::Bare => {
            let begun = Timestamp::now();
            drain_by_hand(cluster, &machines, &first).await;
            begun
        }
        Side::Offramp { .. } => aws.begin(Notice::Spot, &instances(&leaving)),
    };
    until_async("the pods are gone", || async {
        let seen = seen.look();
        first.iter().all(|name| seen.gone.contains_key(name))
    })
    .await;
    let mut figures = of_cordons_and_pods(cluster, &seen, begun);
    of_writes(&mut figures, &cluster.asked_since(begun), first.len());
    drop(workers);
    figures
}

/// Three hundred nodes whose budget allows nothing, and twenty with spot notices beside them.
pub(crate) async fn blocked(cluster: &Cluster) -> Figures {
    const BLOCKED: usize = 300;
    const SPOT: usize = 20;
    const PER_NODE: usize = 4;
    let aws = Aws::open(Fleets { spot: SPOT, hook: BLOCKED, steady: STEADY, ..Fleets::default() }).await;
    let (spot, hook) = (aws.members("spot"), aws.members("hook"));
    let (spots, hooks) = (machines(&spot), machines(&hook));
    let both: Vec<Machine> = spots.iter().chain(&hooks).cloned().collect();
    cluster.add_nodes(&both).await;
    cluster.until_ready(both.len()).await;
    cluster.add_pods(&spots, PER_NODE, "web").await;
    cluster.add_pods(&hooks, PER_NODE, "held").await;
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(cluster.admin.clone(), "default");
    let spec =
        json!({ "minAvailable": BLOCKED * PER_NODE, "selector": { "matchLabels": { "app": "held" } } });
    let budget = of(json!({ "metadata": { "name": "held" }, "spec": spec }));
    budgets.create(&PostParams::default(), &budget).await.unwrap();
    cluster.until_pods_run().await;
    until_async("the budget is counted", || async {
        let status = budgets.get_status("held").await.unwrap().status.unwrap_or_default();
        status.current_healthy.and_then(|count| usize::try_from(count).ok()) == Some(BLOCKED * PER_NODE)
    })
    .await;
    let seen = watching(cluster, both.len() * PER_NODE).await;
    let _workers = workers(cluster, &aws, Side::Offramp { replicas: 1 }, Duration::ZERO).await;

    let hooks_begun = aws.begin(Notice::Hook, &instances(&hook));
    tokio::time::sleep(Duration::from_secs(20)).await;
    let begun = aws.begin(Notice::Spot, &instances(&spot));
    let gone = || seen.look().gone.keys().filter(|name| name.starts_with("web-")).count();
    until_async("the spot nodes are empty", || async { gone() == SPOT * PER_NODE }).await;
    let asked = cluster.asked_since(hooks_begun);
    let firsts: Vec<f64> =
        (0..SPOT).map(|at| seconds(begun, first_eviction(&asked, &format!("web-{at}-")).unwrap())).collect();
    let refused = asked.iter().filter(|one| one.what() == "create pods/eviction" && !one.succeeded()).count();
    Figures::from([
        ("spot: first eviction p50 s", at(&firsts, 0.5)),
        ("spot: first eviction max s", at(&firsts, 1.0)),
        ("evictions refused", refused as f64),
        ("seconds", seconds(hooks_begun, Timestamp::now())),
    ])
}

/// One spot notice after the other.
pub(crate) async fn lone(cluster: &Cluster, notices: usize, answers_in: Duration) -> Figures {
    const PER_NODE: usize = 2;
    let aws = Aws::open(Fleets {
        spot: notices,
        steady: STEADY,
        target_groups: 2,
        deregistration: DEREGISTRATION,
        ..Fleets::default()
    })
    .await;
    let spot = aws.members("spot");
    let (spots, steady) = (machines(&spot), machines(&aws.members("steady")));
    populate(cluster, &spots, &steady, PER_NODE).await;
    let seen = watching(cluster, notices * PER_NODE).await;
    aws.answers_in(answers_in);
    let _workers = workers(cluster, &aws, Side::Offramp { replicas: 1 }, Duration::ZERO).await;
    let mut begun = Vec::new();
    for (number, (instance, _)) in spot.iter().enumerate() {
        // Not in step with anything that is periodic.
        tokio::time::sleep(Duration::from_millis(800 + 137 * number as u64 % 1_000)).await;
        begun.push(aws.begin(Notice::Spot, std::slice::from_ref(instance)));
        let prefix = format!("web-{number}-");
        until_async("its pods are gone", || async {
            !seen.look().pods.iter().any(|name| name.starts_with(&prefix))
        })
        .await;
    }
    let asked = cluster.asked_since(begun[0]);
    let mut cordons = Vec::new();
    let mut evictions = Vec::new();
    for (number, (since, machine)) in begun.iter().zip(&spots).enumerate() {
        cordons.push(1_000.0 * seconds(*since, seen.look().cordoned[&machine.node]));
        let first = first_eviction(&asked, &format!("web-{number}-")).unwrap();
        evictions.push(1_000.0 * seconds(*since, first));
    }
    Figures::from([
        ("cordon seen p50 ms", at(&cordons, 0.5)),
        ("cordon seen max ms", at(&cordons, 1.0)),
        ("first eviction p50 ms", at(&evictions, 0.5)),
        ("first eviction max ms", at(&evictions, 1.0)),
    ])
}

/// Two hooks one after the other, each behind two target groups that take their five minutes.
pub(crate) async fn removal(cluster: &Cluster) -> Figures {
    const PER_NODE: usize = 5;
    let aws = Aws::open(Fleets {
        hook: 2,
        steady: STEADY,
        target_groups: 2,
        deregistration: Duration::from_mins(5),
        ..Fleets::default()
    })
    .await;
    let hook = aws.members("hook");
    let steady = machines(&aws.members("steady"));
    populate(cluster, &machines(&hook), &steady, PER_NODE).await;
    let _workers = workers(cluster, &aws, Side::Offramp { replicas: 1 }, Duration::ZERO).await;
    let mut figures = Figures::new();
    for (number, (instance, _)) in hook.iter().enumerate() {
        let before = aws.calls();
        let begun = aws.begin(Notice::Hook, std::slice::from_ref(instance));
        until_async("the hook is answered", || async { aws.answered() == number + 1 }).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        let (calls, writes) = (aws.calls() - before, cluster.asked_since(begun));
        let (of_aws, of_cluster) = [
            ("cold: AWS calls", "cold: Kubernetes writes beside pods"),
            ("warm: AWS calls", "warm: Kubernetes writes beside pods"),
        ][number];
        figures.insert(of_aws, calls as f64);
        figures.insert(of_cluster, writes.len() as f64 - PER_NODE as f64);
    }
    figures
}

/// Nothing happens: what a worker holds of 5,000 nodes and 100,000 pods.
pub(crate) async fn watched(cluster: &Cluster) -> Figures {
    const NODES: usize = 5_000;
    const PER_NODE: usize = 20;
    let aws = Aws::open(Fleets { steady: STEADY, ..Fleets::default() }).await;
    let machines: Vec<Machine> = (0..NODES)
        .map(|number| Machine {
            node: format!("ip-10-{}-{}.eu-west-1.compute.internal", number / 250, number % 250),
            provider_id: format!("aws:///eu-west-1a/i-{number:017x}"),
            zone: "eu-west-1a".to_owned(),
        })
        .collect();
    cluster.add_nodes(&machines).await;
    let one = Side::Offramp { replicas: 1 };
    let before = workers(cluster, &aws, one, Duration::ZERO).await;
    settle().await;
    let without = machine::resident_mib(before[0].pid()).unwrap();
    cluster.add_pods(&machines, PER_NODE, "web").await;
    cluster.run_pods(&names_of_pods(NODES, PER_NODE)).await;
    settle().await;
    let grown = machine::resident_mib(before[0].pid()).unwrap();
    drop(before);
    let after = workers(cluster, &aws, one, Duration::ZERO).await;
    settle().await;
    let pid = after[0].pid();
    let (with, peak) = (machine::resident_mib(pid).unwrap(), machine::peak_mib(pid).unwrap());
    let for_a_pod = |mib: f64| (mib - without) * 1024.0 / (NODES * PER_NODE) as f64;
    Figures::from([
        ("5,000 nodes MiB", without),
        ("and 100,000 pods, watched as they came MiB", grown),
        ("and 100,000 pods, listed at the start MiB", with),
        ("peak MiB", peak),
        ("for a pod, watched as it came KiB", for_a_pod(grown)),
        ("for a pod, listed at the start KiB", for_a_pod(with)),
    ])
}

/// What was begun is over, and its memory given back.
async fn settle() {
    tokio::time::sleep(Duration::from_secs(20)).await;
}

async fn populate(cluster: &Cluster, machines: &[Machine], steady: &[Machine], per_node: usize) {
    let both: Vec<Machine> = machines.iter().chain(steady).cloned().collect();
    cluster.add_nodes(&both).await;
    cluster.until_ready(both.len()).await;
    cluster.add_pods(machines, per_node, "web").await;
    cluster.until_pods_run().await;
}

/// Watches that have shown every pod.
async fn watching(cluster: &Cluster, pods: usize) -> Watches {
    let seen = Watches::start(&cluster.admin);
    until_async("every pod is seen", || async { seen.look().pods.len() >= pods }).await;
    seen
}

async fn workers(cluster: &Cluster, aws: &Aws, side: Side, late: Duration) -> Vec<Worker> {
    let Side::Offramp { replicas } = side else { return Vec::new() };
    let behind = cluster.kubeconfig.with_extension("late");
    let kubeconfig = if late.is_zero() { &cluster.kubeconfig } else { &behind };
    if !late.is_zero() {
        late_watches::open(cluster.outsider.clone(), late, kubeconfig).await;
    }
    let names: Vec<String> = (0..replicas).map(|number| format!("worker{number}")).collect();
    join_all(names.iter().map(|name| aws.worker(name, kubeconfig))).await
}

/// What a worker has to do at least, by somebody who is handed the names.
async fn drain_by_hand(cluster: &Cluster, machines: &[Machine], names: &[String]) {
    let nodes: Api<Node> = Api::all(cluster.outsider.clone());
    each(machines, |machine| {
        let patch = Patch::Merge(json!({ "spec": { "unschedulable": true } }));
        let nodes = nodes.clone();
        async move { nodes.patch_metadata(&machine.node, &PatchParams::default(), &patch).await.map(drop) }
    })
    .await;
    let pods: Api<Pod> = Api::namespaced(cluster.outsider.clone(), "default");
    each(names, |name| {
        let pods = pods.clone();
        async move { pods.evict(name, &EvictParams::default()).await.map(drop) }
    })
    .await;
}

fn of_cordons_and_pods(cluster: &Cluster, seen: &Watches, begun: Timestamp) -> Figures {
    let mut answered = BTreeMap::new();
    for one in cluster.asked_since(begun) {
        if one.what() == "patch nodes" && one.succeeded() {
            answered.entry(one.name().to_owned()).or_insert(one.stage_timestamp);
        }
    }
    let answered: Vec<f64> = answered.values().map(|then| seconds(begun, *then)).collect();
    let seen = seen.look();
    let cordoned: Vec<f64> = seen.cordoned.values().map(|then| seconds(begun, *then)).collect();
    let gone = seen.gone.values().max().map_or(0.0, |then| seconds(begun, *then));
    Figures::from([
        ("cordons", answered.len() as f64),
        ("cordons answered p50 s", at(&answered, 0.5)),
        ("cordons answered p99 s", at(&answered, 0.99)),
        ("cordons answered max s", at(&answered, 1.0)),
        ("cordons seen max s", at(&cordoned, 1.0)),
        ("last pod gone s", gone),
    ])
}

fn of_writes(figures: &mut Figures, asked: &[Asked], pods: usize) {
    let counts = counted(asked);
    let count = |what: &str| counts.get(what).copied().unwrap_or(0) as f64;
    let conflicts = asked.iter().filter(|one| one.is_conflict()).count();
    figures.insert("PATCHes", count("patch nodes"));
    figures.insert("refused with 409", conflicts as f64);
    figures.insert("Events", count("create events"));
    figures.insert("evictions per pod", count("create pods/eviction") / pods as f64);
}

fn first_eviction(asked: &[Asked], prefix: &str) -> Option<Timestamp> {
    let evictions = asked.iter().filter(|one| one.what() == "create pods/eviction");
    let ours = evictions.filter(|one| one.name().starts_with(prefix));
    ours.map(|one| one.request_received_timestamp).min()
}

fn machines(members: &[(InstanceId, Machine)]) -> Vec<Machine> {
    members.iter().map(|(_, machine)| machine.clone()).collect()
}

fn instances(members: &[(InstanceId, Machine)]) -> Vec<InstanceId> {
    members.iter().map(|(instance, _)| instance.clone()).collect()
}

fn names_of_pods(nodes: usize, per_node: usize) -> Vec<String> {
    (0..nodes).flat_map(|at| (0..per_node).map(move |number| format!("web-{at}-{number}"))).collect()
}

fn seconds(since: Timestamp, then: Timestamp) -> f64 {
    (then - since).total(jiff::Unit::Second).unwrap()
}

fn at(values: &[f64], share: f64) -> f64 {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    values.get(((values.len().max(1) - 1) as f64 * share).round() as usize).copied().unwrap_or(f64::NAN)
}
