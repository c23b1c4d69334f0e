use std::time::Duration;

use offramp_core::{ClusterName, GroupName, NodeName};

use super::*;
use crate::fleet::{App, Entrance, Fleet, Pool};
use crate::world::cluster::{EXCLUDE_LABEL, Ending, NodePatch, WorkloadKind};
use crate::world::groups::{ActionResult, Answer, MemberState};
use crate::{Delays, World};

const RATE: f64 = 100.0;

fn seconds(seconds: f64) -> Duration {
    Duration::from_secs_f64(seconds)
}

/// Exits on SIGTERM at once, and gets it at once.
fn hasty() -> Ending {
    Ending { pre_stop: Duration::ZERO, takes: Some(Duration::ZERO), stuck: false }
}

/// A cluster of four nodes with four pods behind one target group, one on each.
struct Scene {
    world: World,
    cluster: ClusterName,
}

impl Scene {
    fn new(app: App) -> Self {
        let cluster = ClusterName::new("blue");
        let start = Timestamp::from_millis(1_774_000_000_000);
        let fleet = Fleet::new(start, Delays::demo(), 1).cluster("blue").pool(Pool::new("web", 4));
        Self { world: fleet.app(app).build(), cluster }
    }

    fn web(ending: Ending, entrance: Entrance) -> Self {
        Self::new(App { ending, entrance: Some(entrance), ..App::new("web", 4) })
    }

    fn leaving(&self) -> (NodeName, InstanceId) {
        let node = self.world.clusters[&self.cluster].nodes.values().next().unwrap();
        (node.name.clone(), node.instance.clone())
    }

    fn go(&mut self, span: f64) {
        self.world.advance(self.world.now() + seconds(span));
    }

    fn cordon(&mut self, exclude: bool) {
        let label = exclude.then(|| (EXCLUDE_LABEL.to_owned(), Some("true".to_owned())));
        let labels = label.into_iter().collect();
        let patch = NodePatch { unschedulable: Some(true), labels, ..NodePatch::default() };
        self.world.patch_node(&self.cluster, &self.leaving().0, patch).unwrap();
    }

    fn evict(&mut self) {
        let pods: Vec<_> = self.world.clusters[&self.cluster]
            .pods_of_node(&self.leaving().0)
            .filter(|pod| pod.pod.namespace == "default")
            .map(|pod| pod.pod.clone())
            .collect();
        assert_eq!(pods.len(), 1);
        for pod in pods {
            self.world.evict_pod(&self.cluster, &pod.namespace, &pod.name, Some(&pod.uid), None).unwrap();
        }
    }

    fn terminate(&mut self) {
        let instance = self.leaving().1;
        assert!(self.world.terminate_instance(&instance));
    }

    fn lost(&self) -> BTreeMap<Loss, f64> {
        self.world.traffic.streams()[0].lost.clone()
    }

    /// What was served and lost is what was sent.
    fn check_sum(&self, span: f64) {
        let sum = self.world.traffic.served() + self.world.traffic.lost();
        assert!((sum - RATE * span).abs() < 1e-6, "{sum}");
    }
}

#[test]
fn nothing_is_lost_when_traffic_leaves_first_then_pods_then_the_instance() {
    let download = (0.1, seconds(5.0));
    for local in [false, true] {
        let entrance = Entrance { local, long: download, ..Entrance::new(30_080, RATE) };
        let mut scene = Scene::web(App::new("web", 0).ending, entrance);
        scene.cordon(true);
        // The controller's second, and the delay of 10 s.
        scene.go(11.0);
        scene.evict();
        // preStop of 5 s and a second to end.
        scene.go(7.0);
        scene.terminate();
        scene.go(60.0);
        assert_eq!(scene.lost(), BTreeMap::new(), "local: {local}");
        scene.check_sum(78.0);
    }
}

/// The balancer's nodes hear of a deregistration late, and of failed health checks in time.
#[test]
fn a_deregistered_local_target_without_pods_leaves_by_its_health_checks() {
    let slow = Delays { application_propagation: seconds(60.0), ..Delays::demo() };
    let checks = slow.failed_health_checks.as_secs_f64();
    assert!(checks < 30.0, "the checks are the quicker way");
    let entrance = Entrance { local: true, ..Entrance::new(30_080, RATE) };
    let app = App { ending: hasty(), entrance: Some(entrance), ..App::new("web", 4) };
    let start = Timestamp::from_millis(1_774_000_000_000);
    let fleet = Fleet::new(start, slow, 1).cluster("blue").pool(Pool::new("web", 4)).app(app);
    let mut scene = Scene { world: fleet.build(), cluster: ClusterName::new("blue") };
    scene.cordon(true);
    scene.go(2.0);
    scene.evict();
    scene.go(70.0);
    let lost = scene.lost().get(&Loss::NoLocalEndpoint).copied().unwrap_or_default();
    // A quarter of the requests, for as long as the checks take to fail, and not for the minute.
    let most = RATE / 4.0 * (checks + 2.0);
    assert!(lost > 0.0 && lost <= most, "{lost} lost, at most {most} expected");
}

#[test]
fn nothing_is_routed_to_a_machine_that_is_gone() {
    let slow = Delays { application_propagation: seconds(300.0), ..Delays::demo() };
    let start = Timestamp::from_millis(1_774_000_000_000);
    let app = App { entrance: Some(Entrance::new(30_080, RATE)), ..App::new("web", 4) };
    let fleet = Fleet::new(start, slow, 1).cluster("blue").pool(Pool::new("web", 4)).app(app);
    let mut scene = Scene { world: fleet.build(), cluster: ClusterName::new("blue") };
    scene.cordon(true);
    scene.evict();
    scene.go(30.0);
    let instance = scene.leaving().1;
    scene.terminate();
    scene.go(60.0);
    assert!(!scene.world.instances.is(&instance, crate::world::instances::InstanceState::Running));
    let before = scene.world.traffic.lost();
    scene.go(120.0);
    assert_eq!(scene.world.traffic.lost(), before, "the deregistration has not come through yet");
}

#[test]
fn behind_cluster_policy_eviction_beside_deregistration_loses_nothing() {
    let mut scene = Scene::web(App::new("web", 0).ending, Entrance::new(30_080, RATE));
    scene.cordon(true);
    scene.evict();
    scene.go(11.0);
    scene.terminate();
    scene.go(60.0);
    assert_eq!(scene.lost(), BTreeMap::new());
}

#[test]
fn a_pod_that_exits_on_sigterm_without_pre_stop_loses_what_endpoint_slices_still_send_it() {
    let mut scene = Scene::web(hasty(), Entrance::new(30_080, RATE));
    let instance = scene.leaving().1;
    scene.cordon(false);
    scene.evict();
    scene.go(60.0);
    // One pod of four, for half a second.
    let lost = BTreeMap::from([(Loss::PodGone, RATE / 4.0 * 0.5)]);
    assert_eq!(scene.lost(), lost);
    assert_eq!(scene.world.traffic.streams()[0].lost_by_instance, BTreeMap::from([(instance, lost)]));
    scene.check_sum(60.0);
}

#[test]
fn pre_stop_has_to_last_as_long_as_endpoint_slices_take() {
    for (pre_stop, lost) in [(0.5, 0.0), (0.4, RATE / 4.0 * 0.1)] {
        let ending = Ending { pre_stop: seconds(pre_stop), ..hasty() };
        let mut scene = Scene::web(ending, Entrance::new(30_080, RATE));
        scene.cordon(false);
        scene.evict();
        scene.go(60.0);
        assert!((scene.world.traffic.lost() - lost).abs() < 1e-9, "{pre_stop}: {:?}", scene.lost());
    }
}

#[test]
fn an_instance_that_ends_with_its_target_registered_loses_requests() {
    let entrance = Entrance { long: (0.1, seconds(5.0)), ..Entrance::new(30_080, RATE) };
    let mut scene = Scene::web(App::new("web", 0).ending, entrance);
    scene.cordon(false);
    scene.evict();
    scene.go(10.0);
    assert_eq!(scene.lost(), BTreeMap::new());
    scene.terminate();
    scene.go(60.0);
    let lost = scene.lost();
    // A tenth of its 25 requests per second had 5 s to go.
    assert_eq!(lost[&Loss::ConnectionCut], 12.5);
    assert!(lost[&Loss::NodeGone] > 0.0, "{lost:?}");
    assert_eq!(lost.len(), 2, "{lost:?}");
    scene.check_sum(70.0);
}

#[test]
fn what_is_under_way_is_cut_only_as_far_as_it_is_not_over() {
    // The propagation of 4 s after the controller's second; the machine ends 2.5 s into its shutdown.
    for (wait, cut) in [(4.5, 0.1 * 25.0 * 3.0), (7.5, 0.0), (20.0, 0.0)] {
        let entrance = Entrance { long: (0.1, seconds(5.0)), ..Entrance::new(30_080, RATE) };
        let mut scene = Scene::web(App::new("web", 0).ending, entrance);
        scene.cordon(true);
        scene.evict();
        scene.go(wait);
        scene.terminate();
        scene.go(60.0);
        assert_eq!(scene.world.traffic.lost(), cut, "{wait}: {:?}", scene.lost());
    }
}

#[test]
fn behind_local_policy_eviction_before_deregistration_loses_requests() {
    let entrance = Entrance { local: true, ..Entrance::new(30_080, RATE) };
    let mut scene = Scene::web(hasty(), entrance);
    scene.cordon(false);
    scene.evict();
    scene.go(60.0);
    let lost = scene.lost();
    // Half a second until kube-proxy hears of it, then as long as the health check takes to fail.
    assert_eq!(lost[&Loss::PodGone], RATE / 4.0 * 0.5);
    assert_eq!(lost[&Loss::NoLocalEndpoint], RATE / 4.0 * 6.0);
    scene.check_sum(60.0);
}

#[test]
fn behind_local_policy_a_terminating_pod_serves_on_while_the_health_check_fails_already() {
    let entrance = Entrance { local: true, ..Entrance::new(30_080, RATE) };
    let ending = Ending { pre_stop: seconds(7.0), ..hasty() };
    let mut scene = Scene::web(ending, entrance);
    scene.cordon(false);
    scene.evict();
    scene.go(60.0);
    assert_eq!(scene.lost(), BTreeMap::new());
}

#[test]
fn terminating_pods_are_used_where_nothing_is_ready() {
    let ending = Ending { pre_stop: seconds(10.0), ..hasty() };
    let app = App { ending, entrance: Some(Entrance::new(30_080, RATE)), ..App::new("web", 1) };
    let mut scene = Scene::new(app);
    let pods = scene.world.clusters[&scene.cluster].pods.values();
    let pod = pods.map(|pod| pod.pod.clone()).find(|pod| pod.namespace == "default").unwrap();
    scene.world.delete_pod(&scene.cluster, &pod.namespace, &pod.name, None, None).unwrap();
    scene.go(60.0);
    assert_eq!(scene.lost(), BTreeMap::new());
}

#[test]
fn without_a_target_everything_is_lost() {
    let entrance = Entrance { attached: true, ..Entrance::new(30_080, RATE) };
    let mut scene = Scene::web(hasty(), entrance);
    let group = scene.world.traffic.streams()[0].target_group.clone();
    let targets: Vec<_> = scene.world.balancers.get(&group).unwrap().targets.keys().cloned().collect();
    scene.world.deregister_targets(&group, &targets).unwrap();
    scene.go(10.0);
    // Four seconds of propagation, in which it is served as before.
    assert_eq!(scene.lost(), BTreeMap::from([(Loss::NoTarget, RATE * 6.0)]));
}

#[test]
fn a_host_port_is_closed_when_its_pod_ends() {
    let app = App {
        kind: WorkloadKind::DaemonSet,
        host_port: Some(8080),
        ending: hasty(),
        entrance: Some(Entrance { local: true, attached: true, ..Entrance::new(8080, RATE) }),
        ..App::new("ingress", 0)
    };
    let mut scene = Scene::new(app);
    // No Service stands in between.
    scene.world.clusters.get_mut(&scene.cluster).unwrap().services.clear();
    scene.go(10.0);
    assert_eq!(scene.lost(), BTreeMap::new());
    let instance = scene.leaving().1;
    assert!(scene.world.target_answers(&instance, 8080));
    scene.evict();
    assert!(!scene.world.target_answers(&instance, 8080));
    scene.go(1.0);
    assert_eq!(scene.lost(), BTreeMap::from([(Loss::NoLocalEndpoint, RATE / 4.0)]));
}

#[test]
fn a_health_check_of_a_local_service_wants_a_ready_pod_on_the_node() {
    for (local, answers) in [(true, false), (false, true)] {
        let entrance = Entrance { local, ..Entrance::new(30_080, RATE) };
        let mut scene = Scene::web(hasty(), entrance);
        let instance = scene.leaving().1;
        assert!(scene.world.target_answers(&instance, 30_080));
        scene.cordon(false);
        scene.evict();
        scene.go(1.0);
        assert_eq!(scene.world.target_answers(&instance, 30_080), answers);
    }
}

/// The group takes one instance: its target drains, the hook holds it, and then somebody drains the node
/// or nobody does.
fn scale_in(drain: bool) -> Scene {
    let entrance = Entrance { attached: true, ..Entrance::new(30_080, RATE) };
    let mut scene = Scene::web(App::new("web", 0).ending, entrance);
    let group = GroupName::new("web");
    scene.world.scale_in(&group, 1).unwrap();
    scene.go(30.0);
    let members = &scene.world.groups.get(&group).unwrap().members;
    let held = members.iter().filter(|(_, member)| member.state == MemberState::TerminatingWait);
    let (instance, member) = held.map(|(id, member)| (id.clone(), member.clone())).next().unwrap();
    let node = scene.world.clusters[&scene.cluster].node_of(&instance).unwrap().name.clone();
    if drain {
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        scene.world.patch_node(&scene.cluster, &node, patch).unwrap();
        for uid in scene.world.clusters[&scene.cluster].pods_on(&node) {
            let pod = scene.world.clusters[&scene.cluster].pod(&uid).unwrap().pod.clone();
            scene.world.evict_pod(&scene.cluster, &pod.namespace, &pod.name, None, None).unwrap();
        }
        scene.go(10.0);
    }
    let hook = member.actions[0].hook.clone();
    let answer = Answer { group, hook, token: Some(member.actions[0].token.clone()), instance: None };
    scene.world.complete_action(&answer, ActionResult::Continue).unwrap();
    scene.go(60.0);
    scene
}

#[test]
fn a_scale_in_loses_nothing_when_the_node_is_drained_before_the_hook_is_answered() {
    assert_eq!(scale_in(true).lost(), BTreeMap::new());
}

#[test]
fn a_scale_in_without_a_drain_loses_what_its_pods_are_still_sent() {
    // The target is out in time, but the pods end with their machine.
    assert_eq!(scale_in(false).lost(), BTreeMap::from([(Loss::PodGone, RATE / 4.0 * 0.5)]));
}

#[test]
fn the_story_says_when_requests_begin_to_be_lost_and_why() {
    let mut scene = Scene::web(hasty(), Entrance::new(30_080, RATE));
    let instance = scene.leaving().1;
    scene.cordon(false);
    scene.evict();
    scene.go(60.0);
    let lines = scene.world.story.iter().map(|(_, line)| line.as_str());
    let lost: Vec<&str> = lines.filter(|line| line.contains("lost")).collect();
    assert_eq!(
        lost,
        [format!("requests of blue/web are lost: sent to a pod that had stopped serving ({instance})")]
    );
}
