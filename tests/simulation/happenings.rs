//! What happens to the fleet, the queue, the ports and the workers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use offramp_core::{ClusterName, GroupName, InstanceId, SpotAction, Timestamp};
use offramp_sandbox::faults::Moment;
use offramp_sandbox::world::cluster::{NodePatch, ViewLag};
use offramp_sandbox::world::events::{REBALANCE, SPOT_WARNING, TERMINATE_ACTION};
use offramp_sandbox::world::groups::{ActionResult, Answer, MemberState};
use offramp_sandbox::world::instances::InstanceState;
use offramp_sandbox::world::queue::Queue;
use serde_json::json;

use super::checks::QUEUE;
use super::course::{Course, HIDDEN, Next, lock};
use super::lookups::{bodies, members, record};
use super::plan::Event;
use super::script::seconds;

impl Course {
    pub(crate) async fn happen(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::ScaleIn => self.resize(|desired| desired.saturating_sub(1)),
            Event::ScaleOut => self.resize(|desired| desired + 1),
            Event::Resize(group, up) => self.resize_group(group, up),
            Event::Spot(action) => {
                if let Some(id) = self.running(true) {
                    self.interrupt(&id, action);
                }
            }
            Event::Rebalance => {
                if let Some(id) = self.running(true) {
                    self.scene.sandbox.with(|world| world.rebalance_recommend(&id));
                }
            }
            Event::RebalanceThenSpot(later) => {
                if let Some(id) = self.running(true) {
                    self.scene.sandbox.with(|world| world.rebalance_recommend(&id));
                    self.plan(now + later, Next::Interrupt(id));
                }
            }
            Event::ConsoleTerminate => {
                if let Some(id) = self.running(false) {
                    self.scene.say("somebody terminates an instance in the console");
                    self.scene.sandbox.with(|world| world.terminate_instance(&id));
                }
            }
            Event::DeliverAgain(count) => {
                self.scene.sandbox.with(|world| world.queues.duplicate_next = count)
            }
            Event::SendTwice(count) => self.scene.sandbox.with(|world| world.events.repeat_next = count),
            Event::Garbage => self.send_garbage(),
            Event::Unknown => self.send_unknown(),
            Event::LateCopy => self.send_late_copy(),
            Event::FalseHook => self.send_false_hook(),
            Event::Cordon => self.cordon(),
            Event::Relabel { every, span } => {
                self.scene.say(&format!("controllers write to every node, every {every:?}"));
                (0..span.as_secs() / every.as_secs())
                    .for_each(|nth| self.plan(now + every * u32::try_from(nth).unwrap(), Next::Relabel));
            }
            Event::Faults { per_mille, span } => {
                self.scene.say(&format!("{per_mille} of 1000 calls fail"));
                let seed = self.random.u64(..);
                self.scene.sandbox.with(|world| world.faults.at_random(per_mille, seed));
                let mut checks = lock(&self.checks);
                checks.faulty = true;
                // Some answers are lost, and nobody knows which.
                checks.unheard.push((now, now + span));
                drop(checks);
                self.faulty.push((now, now + span));
                self.plan(now + span, Next::NoFaults);
            }
            Event::Refusals(count) => {
                self.scene.say(&format!("{count} calls about lifecycle actions will be refused"));
                self.scene.sandbox.with(|world| world.groups.refused_calls += count);
                lock(&self.checks).faulty = true;
                // They hit the next calls, whenever those come; a timeout of half a minute has room for four tries.
                self.faulty.push((now, now + seconds(900)));
            }
            Event::Outage(span) => self.take_api_server_away(span),
            Event::Lag(lag) => {
                self.scene.say(&format!("describes lag {lag:?} behind"));
                self.scene.sandbox.with(|world| world.groups.describe_lag = lag);
            }
            Event::Kill(pause) => {
                if self.workers > 0 {
                    self.kill_worker().await;
                    self.plan(now + pause, Next::StartWorker);
                }
            }
            Event::Crash { nth, moment, pause } => self.crash(nth, moment, pause).await,
            Event::Stop(pause) => {
                if self.workers > 0 {
                    self.stop_worker().await;
                    self.plan(self.scene.sandbox.now() + pause, Next::StartWorker);
                }
            }
            Event::LoseEvents(count) => {
                self.scene.sandbox.with(|world| world.queues.lose_next += count);
                lock(&self.checks).lost_events = true;
            }
            Event::LoseMessages => {
                self.scene.say("every message is lost");
                let lost = self.scene.sandbox.with(|world| {
                    let lost = bodies(world, QUEUE);
                    world.queues.get_mut(QUEUE).into_iter().for_each(Queue::purge);
                    lost
                });
                let mut checks = lock(&self.checks);
                checks.lost_bodies.extend(lost);
                checks.lost_messages = true;
                drop(checks);
                self.messages_lost.push(now);
            }
            Event::Contradiction(contradiction) => self.contradict(contradiction),
            Event::Hand(hand) => self.lay_hands_on(hand),
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::Route(route) => self.scene.sandbox.with(|world| world.events.route = route),
            Event::SecondWorker(span) => {
                self.start_worker();
                self.plan(now + span, Next::KillWorker);
            }
        }
    }

    fn resize(&mut self, change: impl Fn(usize) -> usize) {
        let groups: Vec<GroupName> = self
            .scene
            .sandbox
            .peek(|world| world.groups.all().map(|group| group.spec.name.clone()).collect());
        let Some(name) = self.random.choice(groups) else { return };
        self.scene.sandbox.with(|world| {
            let desired = world.groups.get(&name).map_or(0, |group| group.spec.desired);
            // More than its maximum is refused, which changes nothing.
            world.set_desired(&name, change(desired)).unwrap_or_default();
        });
    }

    pub(crate) fn interrupt(&mut self, id: &InstanceId, action: SpotAction) {
        self.scene.sandbox.with(|world| world.spot_interrupt(id, action));
    }

    /// An instance that runs; every second time one that something has happened to already.
    fn running(&mut self, spot: bool) -> Option<InstanceId> {
        let mut all: Vec<InstanceId> = self.scene.sandbox.peek(|world| {
            let running = world
                .instances
                .all()
                .filter(|instance| instance.state == InstanceState::Running && (instance.spot || !spot));
            running.map(|instance| instance.id.clone()).collect()
        });
        let known: Vec<InstanceId> = all
            .iter()
            .filter(|id| self.sent.iter().any(|body| body.contains(id.as_str())))
            .cloned()
            .collect();
        if !known.is_empty() && self.random.u8(0..3) == 0 {
            all = known;
        }
        self.random.choice(all)
    }

    fn send_garbage(&mut self) {
        let number = self.random.u16(..);
        let body = match self.random.u8(0..4) {
            0 => format!("not JSON at all {number}"),
            1 => format!(
                r#"{{"source":"aws.ec2","detail-type":"{SPOT_WARNING}","detail":{{}},"id":"{number}"}}"#
            ),
            2 => format!(r#"["{number}"]"#),
            _ => format!(
                r#"{{"detail-type":"{TERMINATE_ACTION}","source":"aws.autoscaling","id":"{number}"}}"#
            ),
        };
        lock(&self.checks).garbage.insert(body.clone());
        self.send(&body);
    }

    fn send(&mut self, body: &str) {
        self.scene.sandbox.with(|world| {
            world.send_message(QUEUE, body, BTreeMap::new(), Duration::ZERO).expect("the queue is there");
        });
    }

    fn send_unknown(&mut self) {
        let id = format!("i-0{:016x}", self.random.u64(..));
        let detail = json!({ "instance-id": id, "instance-action": "terminate" });
        let hook = self.hook_detail(&id, "gone-group", "offramp", "blue");
        let choice = self.random.u8(0..3);
        self.scene.sandbox.with(|world| match choice {
            0 => world.emit_event("aws.ec2", SPOT_WARNING, &[], &detail),
            1 => world.emit_event("aws.ec2", REBALANCE, &[], &detail),
            _ => world.emit_event("aws.autoscaling", TERMINATE_ACTION, &[], &hook),
        });
    }

    /// Time has passed since: a copy of a spot notice from its second minute could still be true.
    fn send_late_copy(&mut self) {
        if let Some(body) = self.random.choice(self.sent.clone()) {
            self.scene.say("an old message comes again");
            self.send(&body);
        }
    }

    fn send_false_hook(&mut self) {
        let found = self.scene.sandbox.peek(|world| {
            let served = &self.scene.policy.clusters;
            let mut in_service = members(world)
                .filter(|(_, _, member)| member.state == MemberState::InService)
                .filter_map(|(group, id, _)| {
                    let cluster = group.spec.template.cluster.clone().filter(|name| served.contains(name))?;
                    Some((group.spec.name.clone(), id.clone(), cluster))
                });
            in_service.next()
        });
        let Some((group, id, cluster)) = found else { return };
        self.scene.say(&format!("a hook message for {id}, which is in service"));
        lock(&self.checks).false_hooks.insert(id.clone());
        let detail = self.hook_detail(id.as_str(), group.as_str(), "offramp", cluster.as_str());
        self.scene.sandbox.with(|world| {
            world.emit_event("aws.autoscaling", TERMINATE_ACTION, &[], &detail);
        });
    }

    fn hook_detail(&mut self, id: &str, group: &str, hook: &str, metadata: &str) -> serde_json::Value {
        let number = self.random.u64(0..1 << 48);
        json!({
            "LifecycleActionToken": format!("00000000-0000-4000-8000-{number:012x}"),
            "AutoScalingGroupName": group,
            "LifecycleHookName": hook,
            "EC2InstanceId": id,
            "LifecycleTransition": "autoscaling:EC2_INSTANCE_TERMINATING",
            "NotificationMetadata": metadata,
            "Origin": "AutoScalingGroup",
            "Destination": "EC2",
        })
    }

    /// Somebody cordons a node that the worker has not cordoned.
    fn cordon(&mut self) {
        let free: Vec<_> = self.scene.sandbox.peek(|world| {
            let nodes = world
                .clusters
                .values()
                .flat_map(|cluster| cluster.nodes.values().map(move |node| (cluster.name.clone(), node)));
            // Of a cordon that takes the place of ours nobody can tell whose it is (seed 19277).
            let free = nodes.filter(|(_, node)| !node.unschedulable && node.ready && record(node).is_none());
            free.map(|(cluster, node)| (cluster, node.name.clone())).collect()
        });
        let Some((cluster, node)) = self.random.choice(free) else { return };
        let patch = NodePatch { unschedulable: Some(true), ..NodePatch::default() };
        let patched = self.scene.sandbox.with(|world| world.patch_node(&cluster, &node, patch));
        let cordoned = patched.is_ok_and(|node| node.unschedulable);
        if cordoned {
            self.scene.say(&format!("somebody cordons {node}"));
            lock(&self.checks).cordoned_by_hand.insert(node);
        }
    }

    /// What a worker does not care about makes a new resourceVersion too.
    pub(crate) fn relabel(&mut self, now: Timestamp) {
        let seen = BTreeMap::from([("example.com/seen-at".to_owned(), Some(now.as_millis().to_string()))]);
        let patch = NodePatch { labels: seen, ..NodePatch::default() };
        self.scene.sandbox.with(|world| {
            let nodes = world.clusters.values().flat_map(|cluster| {
                cluster.nodes.keys().map(|node| (cluster.name.clone(), node.clone())).collect::<Vec<_>>()
            });
            for (cluster, node) in nodes.collect::<Vec<_>>() {
                // An API server that is away takes nothing.
                world.patch_node(&cluster, &node, patch.clone()).map(drop).unwrap_or_default();
            }
        });
    }

    /// The watches are now earlier, now later, each cluster's for itself.
    pub(crate) fn draw_view_lag(&mut self) {
        let most = self.view_lag;
        let random = &mut self.random;
        let mut up_to = |most: Duration| most.mul_f64(random.f64());
        self.scene.sandbox.with(|world| {
            for cluster in world.clusters.values_mut() {
                cluster.view_lag = ViewLag { nodes: up_to(most.nodes), pods: up_to(most.pods) };
            }
        });
    }

    fn take_api_server_away(&mut self, span: Duration) {
        let names: Vec<ClusterName> =
            self.scene.sandbox.peek(|world| world.clusters.keys().cloned().collect());
        let Some(name) = self.random.choice(names) else { return };
        self.scene.say(&format!("the API server of {name} is away for {span:?}"));
        self.scene.sandbox.with(|world| world.take_api_server_away(&name, span));
        lock(&self.checks).were_away.insert(name);
    }

    /// Whoever owns the other hooks answers them some day.
    pub(crate) fn foreign_owners_answer(&mut self) {
        let checks = Arc::clone(&self.checks);
        let open: Vec<Answer> = self.scene.sandbox.peek(|world| {
            let checks = lock(&checks);
            let actions = members(world)
                .flat_map(|(group, id, member)| member.actions.iter().map(move |action| (group, id, action)));
            let foreign = actions.filter(|(group, _, action)| !checks.action_is_ours(group, action));
            foreign
                .map(|(group, id, action)| Answer {
                    group: group.spec.name.clone(),
                    hook: action.hook.clone(),
                    token: None,
                    instance: Some(id.clone()),
                })
                .collect()
        });
        for answer in open {
            if self.random.u8(0..6) == 0 {
                let result = if self.random.bool() { ActionResult::Continue } else { ActionResult::Abandon };
                self.scene.sandbox.with(|world| world.complete_action(&answer, result)).unwrap_or_default();
            }
        }
    }

    async fn crash(&mut self, nth: u64, moment: Moment, pause: Duration) {
        if self.workers == 0 {
            return;
        }
        self.scene.sandbox.with(|world| world.faults.crash_at(nth, moment));
        if self.scene.crash_within(seconds(45)).await {
            if self.workers > 1 {
                self.scene.say("one of several workers has died at a call");
            }
            self.worker_has_gone();
            let now = self.scene.sandbox.now();
            self.away.push((now, now + HIDDEN));
            self.plan(now + pause, Next::StartWorker);
        } else {
            self.scene.sandbox.with(|world| world.faults.crash_at(u64::MAX / 2, moment));
        }
    }

    pub(crate) fn remember_bodies(&mut self) {
        let seen = self.scene.sandbox.peek(|world| bodies(world, QUEUE));
        for body in seen {
            let garbage = lock(&self.checks).garbage.contains(&body);
            if !garbage && !self.sent.contains(&body) {
                self.sent.push(body);
            }
        }
    }
}
