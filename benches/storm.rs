//! `make bench`: the worker as a process of its own, with the sandbox's HTTP doors as AWS and Kubernetes.
//! It prints figures and asserts nothing about them; only what never finishes fails.
//!
//! The sandbox runs in this process and shares the machine with the worker, so that both show up in the
//! times. Each call takes as long as loopback takes: no network, no TLS, no API server with a database.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot run has failed")]
#![allow(clippy::panic, clippy::print_stdout, reason = "its output is what it is for")]

// Each measurement uses a part of it.
#[allow(dead_code)]
mod machine;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::process;
use std::thread;
use std::time::{Duration, Instant};

use axum::Router;
use offramp_core::{BalancerKind, ClusterName, GroupName, InstanceId, NodeName, SpotAction, Timestamp};
use offramp_engine::Clock;
use offramp_sandbox::doors::aws_router;
use offramp_sandbox::doors::kubernetes::{kubeconfig, kubernetes_router};
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::world::instances::InstanceState;
use offramp_sandbox::{Delays, Fleet, Sandbox, World};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use worker::Worker;

const CLUSTER: &str = "blue";
const SPOT: &str = "spot";

/// The storm: all of these get their notice at the same moment.
const SPOT_NODES: usize = 500;
/// Where their pods find a place: replacements take 90 s to come.
const STEADY_NODES: usize = 60;
const PODS_PER_NODE: usize = 10;
/// Notices one after the other, while nothing else is new.
const SINGLE_NOTICES: usize = 50;

/// What takes longer than this never finishes: notice, shutdown and node together take 170 s.
const LONGEST: Duration = Duration::from_mins(5);

fn main() {
    println!("{}", machine::in_words());
    storm();
    single_notices();
}

/// Five hundred spot notices at once.
fn storm() {
    let pods = (SPOT_NODES + STEADY_NODES) * PODS_PER_NODE / 2;
    let entrance = |kind, port| Some(Entrance { balancer: kind, ..Entrance::new(port, 1_000.0) });
    let web = App { entrance: entrance(BalancerKind::Application, 30_080), ..App::new("web", pods) };
    let api = App { entrance: entrance(BalancerKind::Network, 30_443), ..App::new("api", pods) };
    let scene = Scene::open(|fleet| {
        let pools = fleet.pool(Pool::spot(SPOT, SPOT_NODES)).pool(Pool::new("steady", STEADY_NODES));
        pools
            .app(App { min_available: Some(pods / 2), ..web })
            .app(App { min_available: Some(pods / 2), ..api })
    });
    println!(
        "\nStorm: {SPOT_NODES} spot notices at once, {} pods on {} nodes behind an ALB and an NLB, budgets of 50 %",
        2 * pods,
        SPOT_NODES + STEADY_NODES
    );
    let nodes = scene.spot_nodes();
    let (calls_before, usage_before) = (scene.calls(), scene.usage());
    let began = scene.interrupt(nodes.keys());

    let cordoned = scene.until("every node is cordoned", |world| {
        let cordons = cordons(world, began);
        (cordons.len() == nodes.len()).then_some(cordons)
    });
    print_times("cordoned", cordoned.values());
    let usage_cordoned = scene.usage();

    let mut left: BTreeSet<&NodeName> = nodes.values().collect();
    let mut drained = Vec::new();
    scene.until("every node is drained", |world| {
        let took = world.now().since(began);
        let before = left.len();
        left.retain(|node| holds_evictable_pods(world, node));
        drained.extend(std::iter::repeat_n(took, before - left.len()));
        left.is_empty().then_some(())
    });
    print_times("drained", drained.iter());
    let (calls_drained, usage_drained) = (scene.calls(), scene.usage());

    scene.until("every instance has ended and the queue is empty", |world| {
        let ended = |id| world.instances.is(id, InstanceState::Terminated);
        let (waiting, in_flight) = world.queues.get("offramp").map(|queue| queue.depth(world.now()))?;
        (waiting + in_flight == 0 && nodes.keys().all(ended)).then_some(())
    });
    let usage_end = scene.usage();
    println!("\n  {:<24} {:>12} {:>12} {:>12}", "", "cordoned", "drained", "the end");
    let marks = [usage_cordoned, usage_drained, usage_end];
    let row = |name: &str, of: fn(&Usage) -> f64| {
        let [a, b, c] = marks.map(|mark| of(&mark) - of(&usage_before));
        println!("  {name:<24} {a:>12.2} {b:>12.2} {c:>12.2}");
    };
    row("CPU seconds, worker", |usage| usage.worker_seconds);
    row("CPU seconds, sandbox", |usage| usage.own_seconds);
    let [a, b, c] = marks.map(|mark| mark.worker_peak_mib);
    println!("  {:<24} {a:>12.1} {b:>12.1} {c:>12.1}", "worker, peak RSS in MiB");

    println!("\n  {:<40} {:>9} {:>9}", "calls until", "drained", "the end");
    for (kind, end) in scene.calls() {
        let before = |calls: &BTreeMap<String, u64>| calls.get(&kind).copied().unwrap_or(0);
        let start = before(&calls_before);
        println!("  {kind:<40} {:>9} {:>9}", before(&calls_drained).saturating_sub(start), end - start);
    }
    scene.sandbox.peek(|world| {
        println!("\n  requests lost: {:.1} of {:.0}", world.traffic.lost(), {
            world.traffic.lost() + world.traffic.served()
        });
        for stream in world.traffic.streams() {
            for (cause, lost) in &stream.lost {
                println!("    {}: {lost:.1} {cause}", stream.name);
            }
        }
    });
}

/// One spot notice after the other, each when the node before is cordoned.
fn single_notices() {
    let scene = Scene::open(|fleet| {
        let web = App { entrance: Some(Entrance::new(30_080, 100.0)), ..App::new("web", 2 * SINGLE_NOTICES) };
        fleet.pool(Pool::spot(SPOT, SINGLE_NOTICES)).pool(Pool::new("steady", 10)).app(web)
    });
    println!("\nIdle: {SINGLE_NOTICES} spot notices one after the other, {} nodes", SINGLE_NOTICES + 10);
    let mut times = Vec::new();
    for (number, (instance, node)) in scene.spot_nodes().into_iter().enumerate() {
        // Not in step with anything that is periodic.
        thread::sleep(Duration::from_millis(150 + 37 * number as u64 % 100));
        let began = scene.interrupt([&instance].into_iter());
        times.push(scene.until("the node is cordoned", |world| cordons(world, began).remove(&node)));
    }
    print_times("cordoned", times.iter());
}

/// A world with its doors open, and a worker that is ready.
struct Scene {
    sandbox: Sandbox,
    worker: Worker,
    _folder: TempDir,
    _doors: Runtime,
}

impl Scene {
    fn open(plan: impl FnOnce(Fleet) -> Fleet) -> Self {
        let clock = Clock::system();
        let mut world = plan(Fleet::new(clock.now(), Delays::aws(), 1).cluster(CLUSTER)).build();
        // Measured is from the moment when the messages are in the queue.
        world.delays.event = Duration::ZERO;
        let sandbox = Sandbox::new(world, clock);

        let doors = Runtime::new().unwrap();
        let running = sandbox.clone();
        doors.spawn(async move { running.run().await });
        let aws = serve(&doors, aws_router(sandbox.clone()));
        let cluster = ClusterName::new(CLUSTER);
        let server = serve(&doors, kubernetes_router(sandbox.clone(), cluster.clone()));

        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("kubeconfig");
        fs::write(&file, kubeconfig(&[(cluster, server)])).unwrap();
        let start = |world: &World| Worker::start(folder.path(), "worker", &aws, (CLUSTER, &file), world);
        let worker = sandbox.peek(start);
        let scene = Self { sandbox, worker, _folder: folder, _doors: doors };
        scene.wait("the worker is ready", || scene.worker.is_ready().then_some(()));
        scene
    }

    /// Polls the world until there is an answer.
    fn until<T>(&self, what: &str, mut look: impl FnMut(&World) -> Option<T>) -> T {
        self.wait(what, || self.sandbox.peek(&mut look))
    }

    fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let began = Instant::now();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if began.elapsed() > LONGEST {
                let log = self.worker.log();
                let end: Vec<&str> = log.lines().rev().take(20).collect();
                panic!("not within {} s: {what}; the end of the log:\n{}", LONGEST.as_secs(), end.join("\n"));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sends the notices, and gives the moment when their messages are in the queue.
    fn interrupt<'a>(&self, instances: impl Iterator<Item = &'a InstanceId>) -> Timestamp {
        self.sandbox.with(|world| {
            for instance in instances {
                assert!(world.spot_interrupt(instance, SpotAction::Terminate), "{instance} is running");
            }
            let now = world.now();
            world.advance(now);
            now
        })
    }

    fn spot_nodes(&self) -> BTreeMap<InstanceId, NodeName> {
        self.sandbox.peek(|world| {
            let members = &world.groups.get(&GroupName::new(SPOT)).unwrap().members;
            let nodes = world.clusters[&ClusterName::new(CLUSTER)].nodes.values();
            let spot = nodes.filter(|node| members.contains_key(&node.instance));
            spot.map(|node| (node.instance.clone(), node.name.clone())).collect()
        })
    }

    fn calls(&self) -> BTreeMap<String, u64> {
        self.sandbox.peek(|world| world.calls.clone())
    }

    fn usage(&self) -> Usage {
        let worker = self.worker.pid();
        Usage {
            worker_seconds: machine::cpu_seconds(worker).unwrap_or(f64::NAN),
            worker_peak_mib: machine::peak_mib(worker).unwrap_or(f64::NAN),
            own_seconds: machine::cpu_seconds(process::id()).unwrap_or(f64::NAN),
        }
    }
}

/// Processor time and memory since the start of a process.
#[derive(Clone, Copy)]
struct Usage {
    worker_seconds: f64,
    worker_peak_mib: f64,
    own_seconds: f64,
}

fn serve(runtime: &Runtime, router: Router) -> String {
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    runtime.spawn(async move { axum::serve(listener, router).await });
    format!("http://{address}")
}

/// How long each node's cordon took, by the world's own clock.
fn cordons(world: &World, since: Timestamp) -> BTreeMap<NodeName, Duration> {
    let lines = world.story.iter().rev().take_while(|(at, _)| *at >= since);
    let cordoned = lines.filter_map(|(at, line)| {
        let node = line.strip_prefix("node ")?.strip_suffix(" is cordoned")?;
        Some((NodeName::new(node), at.since(since)))
    });
    cordoned.collect()
}

/// Whether a pod is left on a node that is not of a DaemonSet.
fn holds_evictable_pods(world: &World, node: &NodeName) -> bool {
    let cluster = &world.clusters[&ClusterName::new(CLUSTER)];
    let of_daemon_set = |owner: &offramp_sandbox::world::cluster::Owner| owner.kind == "DaemonSet";
    cluster.pods_of_node(node).any(|pod| !pod.owner.as_ref().is_some_and(of_daemon_set))
}

fn print_times<'a>(what: &str, times: impl Iterator<Item = &'a Duration>) {
    let mut times: Vec<Duration> = times.copied().collect();
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).round() as usize].as_millis();
    println!(
        "  {what:<12} {:>4} nodes   p50 {:>7} ms   p99 {:>7} ms   max {:>7} ms",
        times.len(),
        at(0.5),
        at(0.99),
        at(1.0)
    );
}
