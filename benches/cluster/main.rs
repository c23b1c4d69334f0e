//! `make bench-cluster`: one measurement on a real API server, on a cluster that is there and empty. Prints its
//! figures as one JSON object and asserts nothing about them; only what never finishes fails.
//!
//! The AWS is the sandbox in this process. API server, etcd, controllers, kubelets (kwok), sandbox and workers
//! share the machine, and so does a bare client, which does by hand what a worker has to do at least.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a measurement that cannot run has failed")]
#![allow(clippy::panic, clippy::print_stdout, reason = "its output is what it is for")]

mod aws;
mod cluster;
mod late_watches;
// Each measurement uses a part of it.
#[allow(dead_code)]
#[path = "../machine.rs"]
mod machine;
mod seen;
mod stories;
#[path = "../worker.rs"]
mod worker;

use std::path::PathBuf;
use std::time::Duration;

use aws::Notice;
use cluster::Cluster;
use stories::{Side, Storm};

/// STORY SIDE ADMIN_KUBECONFIG OUTSIDER_KUBECONFIG AUDIT_LOG
#[tokio::main]
async fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let [story, side, files @ ..] = &words[..] else {
        // `cargo bench` without more: what it is for has to be set up around it.
        println!("run `make bench-cluster`");
        return;
    };
    let [admin, outsider, audit] = [0, 1, 2].map(|at| PathBuf::from(&files[at]));
    let cluster = Cluster::open(&admin, &outsider, &audit).await;
    let side = if side == "bare" { Side::Bare } else { Side::Offramp { replicas: 1 } };
    let storm =
        Storm { notice: Notice::Spot, nodes: 500, per_node: 10, target_groups: 0, late: Duration::ZERO };
    let hooks = Storm { notice: Notice::Hook, target_groups: 5, ..storm };
    let figures = match story.as_str() {
        "spot" => stories::storm(&cluster, side, storm).await,
        "hooks" => stories::storm(&cluster, side, hooks).await,
        "dense" => stories::storm(&cluster, side, Storm { nodes: 200, per_node: 30, ..storm }).await,
        "late3" => stories::storm(&cluster, side, Storm { late: Duration::from_secs(3), ..storm }).await,
        "late6" => stories::storm(&cluster, side, Storm { late: Duration::from_secs(6), ..storm }).await,
        "replicas" => stories::storm(&cluster, Side::Offramp { replicas: 3 }, hooks).await,
        "returning" => stories::returning(&cluster, side).await,
        "blocked" => stories::blocked(&cluster).await,
        "lone" => stories::lone(&cluster, 50, Duration::from_millis(50)).await,
        "slow" => stories::lone(&cluster, 10, Duration::from_secs(8)).await,
        "removal" => stories::removal(&cluster).await,
        "watched" => stories::watched(&cluster).await,
        "machine" => {
            println!("{}", machine::in_words());
            return;
        }
        other => panic!("no story {other}"),
    };
    println!("{}", serde_json::to_string(&figures).unwrap());
}
