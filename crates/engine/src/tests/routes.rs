//! Whose an instance is: who is not sure is never taken for a no.

use std::sync::Arc;

use async_trait::async_trait;
use offramp_core::{
    ClusterName, InstanceId, Job, Node, NodeDoubt, NodeName, Notice, NoticeKind, Outcome, Pod, Seen,
    Timestamp,
};
use tokio::sync::watch;

use crate::ports::{Cluster, ClusterCall, Fault};
use crate::routing::{Clusters, Route};

#[allow(dead_code, clippy::duplicate_mod, reason = "core's own tests use all of it, those of learning some")]
#[path = "../../../core/src/tests/world.rs"]
mod world;
use world::*;

/// What the watches of one cluster say.
struct Watched {
    name: ClusterName,
    node: Seen<Node>,
    doubt: Option<NodeDoubt>,
    proven: watch::Sender<Timestamp>,
}

#[async_trait]
impl Cluster for Watched {
    super::stubs::knows_of_nothing!();

    fn name(&self) -> &ClusterName {
        &self.name
    }

    fn node(&self, _: &InstanceId) -> Seen<Node> {
        self.node.clone()
    }

    fn doubt(&self, _: &InstanceId) -> Option<NodeDoubt> {
        self.doubt
    }

    fn proven(&self) -> watch::Receiver<Timestamp> {
        self.proven.subscribe()
    }

    fn pods(&self, _: &NodeName, _: &InstanceId) -> Seen<Vec<Pod>> {
        Seen::Unknown
    }

    fn readiness(&self, _: &str) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn perform(&self, _: &ClusterCall) -> Result<Outcome, Fault> {
        Ok(Outcome::Done)
    }
}

fn watched(name: &str, node: Seen<Node>) -> Watched {
    Watched { name: ClusterName::new(name), node, doubt: None, proven: watch::channel(AT).0 }
}

fn clusters(all: impl IntoIterator<Item = Watched>) -> Clusters {
    Clusters(all.into_iter().map(|cluster| Arc::new(cluster) as Arc<dyn Cluster>).collect())
}

fn spot_job() -> Job {
    job([spot()])
}

/// A hook whose metadata names this cluster.
fn hook_in(cluster: &str) -> Notice {
    let mut notice = hook();
    let NoticeKind::Hook(hook) = &mut notice.kind else { unreachable!() };
    hook.cluster_hint = Some(ClusterName::new(cluster));
    notice
}

#[test]
fn an_instance_is_foreign_when_every_cluster_is_sure() {
    let route = |other: Watched| clusters([watched("blue", Seen::Gone), other]).route(&spot_job(), &policy());
    assert!(matches!(route(watched("green", Seen::Gone)), Route::Foreign));
    assert!(matches!(route(watched("green", Seen::Unknown)), Route::Unknown), "out of sync");
    let doubt = Some(NodeDoubt::Unidentified { nodes: 1 });
    let nameless = Watched { doubt, ..watched("green", Seen::Gone) };
    assert!(matches!(route(nameless), Route::Unknown), "it may be any of its nodes");
}

#[test]
fn two_clusters_that_have_the_instance_are_one_doubt_unless_its_hook_names_one() {
    let both = clusters([watched("blue", Seen::Known(node())), watched("green", Seen::Known(node()))]);
    assert_eq!(both.doubt(&spot_job(), None), Some(NodeDoubt::Twins { nodes: 2 }));
    assert_eq!(both.doubt(&job([hook_in("green")]), None), None);
    // Of one of them the kubelet is dead.
    let dead = Node { ready: false, ..node() };
    let one = clusters([watched("blue", Seen::Known(node())), watched("green", Seen::Known(dead))]);
    assert_eq!(one.doubt(&spot_job(), None), None);
}

#[test]
fn of_two_clusters_that_have_the_instance_what_was_done_is_undone_where_it_was_done() {
    let recorded = isolated(&["offramp"], false, &[]);
    let both =
        |green: Node| clusters([watched("blue", Seen::Known(node())), watched("green", Seen::Known(green))]);
    let undo = job([Notice { kind: NoticeKind::Record, ..spot() }]);
    let route = both(recorded.clone()).route(&undo, &policy());
    assert!(matches!(route, Route::Here(cluster) if cluster.name().as_str() == "green"));
    assert_eq!(both(recorded.clone()).doubt(&undo, None), None);
    let twins = Some(NodeDoubt::Twins { nodes: 2 });
    assert_eq!(both(node()).doubt(&undo, None), twins, "there is no record");
    assert_eq!(both(recorded).doubt(&spot_job(), None), twins, "it may be of an earlier mistake");
}

#[test]
fn an_absence_is_proven_when_every_cluster_has_proven_it() {
    let late = Watched { proven: watch::channel(AT - seconds(1)).0, ..watched("green", Seen::Gone) };
    let all = clusters([watched("blue", Seen::Gone), late]);
    assert!(all.have_proven(&spot_job(), AT - seconds(1), AT));
    assert!(!all.have_proven(&spot_job(), AT, AT));
    // A hook that names its cluster waits for no other.
    assert!(all.have_proven(&job([hook_in("blue")]), AT, AT));
}
