//! How much a worker may ask of others, and how long it may take to isolate a node. Calm worlds keep the bounds, all
//! others three times as much.

use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{ClusterName, HookKey, HookName, HookToken, InstanceId, PodRef, Record, Timestamp};
use offramp_engine::{ClusterCall, GroupCall, TargetCall, write_record};
use offramp_sandbox::World;
use offramp_sandbox::witness::WorkerCall;
use offramp_sandbox::world::cluster::{Budget, Cluster, Phase};

use super::checks::Checks;
use super::lookups::{is_daemon, member, pod_in};
use super::plan::Mood;
use super::script::seconds;

/// What was asked for the sake of one instance.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    kubernetes: usize,
    /// The first of these calls, and the newest.
    span: Option<(Timestamp, Timestamp)>,
    /// Evictions that a budget refuses, by what makes such pods.
    refused: BTreeMap<String, Vec<Timestamp>>,
    /// The most pods that its node had at a time.
    pods: usize,
    /// Beside heartbeats.
    aws: Vec<Timestamp>,
    heartbeats: BTreeMap<HookKey, Vec<Timestamp>>,
}

/// Beside two calls for each pod; again for each worker that begins after the first call, because it knows nothing of what
/// was refused (seed 34795).
const KUBERNETES: usize = 20;
/// In an hour, beside heartbeats. What is read for many jobs at once is nobody's call.
const AWS: usize = 40;
const HOUR: Duration = seconds(3_600);
/// Of all jobs of a world together, which has some dozens of nodes.
const AT_ONE_MOMENT: usize = 1_000;
/// In one HeartbeatTimeout.
const HEARTBEATS: usize = 3;
/// Beside one for each pod, in an hour: a rest of 40 s that nothing ends is 90.
const REFUSED: usize = 100;
/// Of a record, in bytes.
const RECORD: usize = 64 * 1024;
/// From receipt to cordon.
pub(crate) const ISOLATED: Duration = seconds(1);

/// The largest of their kind: what it is, and how much of its bound it takes, in percent.
pub(crate) type Figures = BTreeMap<&'static str, usize>;

impl Mood {
    pub(crate) const fn allows(self, bound: usize) -> usize {
        match self {
            Self::Calm => bound,
            Self::Wild => 3 * bound,
        }
    }
}

impl Checks {
    /// Counts a call before it is done.
    pub(crate) fn count(&mut self, world: &World, call: WorkerCall<'_>) {
        let now = world.now();
        match call {
            WorkerCall::Group(GroupCall::Heartbeat(id, key)) => {
                let tally = self.tallies.entry(id.clone()).or_default();
                // What AWS refuses keeps nothing open (seed 11188: a hook of another token).
                let is_open = member(world, id).is_some_and(|(_, member)| {
                    let is_it = |token: &HookToken| key.token.as_ref().is_none_or(|asked| asked == token);
                    member.actions.iter().any(|action| action.hook == key.name && is_it(&action.token))
                });
                // What is lost is repeated.
                let is_lost = self.unheard.iter().any(|(from, until)| *from <= now && now < *until);
                if is_open && !is_lost {
                    tally.heartbeats.entry(key.clone()).or_default().push(now);
                } else {
                    tally.aws.push(now);
                }
            }
            WorkerCall::Group(
                GroupCall::CompleteHook(id, _)
                | GroupCall::Detach(id, _)
                | GroupCall::TerminateThroughGroup(id, _),
            ) => self.tallies.entry(id.clone()).or_default().aws.push(now),
            WorkerCall::Target(TargetCall::Deregister(target) | TargetCall::Register(target)) => {
                self.tallies.entry(target.instance.clone()).or_default().aws.push(now);
            }
            WorkerCall::Cluster(name, call) => {
                self.stop_at_a_loop(world);
                self.count_in_cluster(world, name, call);
            }
            WorkerCall::Delete(_) => {}
        }
    }

    /// A loop without a pause would hang the run, because the time of a world stands still while anybody is busy: it becomes
    /// a bug of that job. Calls to AWS are made by tasks that all jobs share, and in batches.
    fn stop_at_a_loop(&mut self, world: &World) {
        let (at, count) = self.at_this_moment;
        self.at_this_moment = (world.now(), if at == world.now() { count + 1 } else { 1 });
        if count >= AT_ONE_MOMENT {
            self.break_it(world, "18 repeating needs progress", format!("{count} calls at one moment"));
            panic!("{count} calls at one moment");
        }
    }

    fn count_in_cluster(&mut self, world: &World, name: &ClusterName, call: &ClusterCall) {
        let now = world.now();
        let node = match call {
            ClusterCall::Isolate { node, record, .. }
            | ClusterCall::Exclude { node, record, .. }
            | ClusterCall::WriteRecord { node, record, .. } => {
                self.weigh(world, record);
                Some(node)
            }
            ClusterCall::Release { node, .. } | ClusterCall::ListPods { node } => Some(node),
            ClusterCall::Evict { pod, .. } | ClusterCall::Delete { pod, .. } => {
                pod_in(world, name, pod).map(|(node, _)| &node.name)
            }
        };
        let Some(cluster) = world.clusters.get(name) else { return };
        let Some(node) = node.and_then(|node| cluster.nodes.get(node)) else { return };
        if let ClusterCall::Evict { pod, .. } = call
            && is_refused(cluster, pod)
        {
            let origin =
                cluster.pod(&pod.uid).and_then(|pod| pod.owner.as_ref()).map(|owner| owner.uid.clone());
            let tally = self.tallies.entry(node.instance.clone()).or_default();
            tally.refused.entry(origin.unwrap_or_else(|| pod.name.clone())).or_default().push(now);
            return;
        }
        let pods = cluster.pods_of_node(&node.name).filter(|pod| !is_daemon(pod)).count();
        let tally = self.tallies.entry(node.instance.clone()).or_default();
        tally.kubernetes += 1;
        tally.span.get_or_insert((now, now)).1 = now;
        tally.pods = tally.pods.max(pods);
    }

    fn weigh(&mut self, world: &World, record: &Record) {
        let bytes = write_record(record).map_or(0, |text| text.len());
        if bytes > self.mood.allows(RECORD) {
            self.break_it(world, "22 everything is bounded", format!("a record has {bytes} bytes"));
        }
    }

    /// Looks at what was counted.
    pub(crate) fn look_at_bounds(&mut self, world: &World) -> Figures {
        let mut figures = Figures::new();
        // Half an hour of sweeps is in it as well, so that this is told and not checked.
        let reads = |call: &&String| {
            call.starts_with("autoscaling.Desc") || call.starts_with("elasticloadbalancing.Desc")
        };
        let reads: u64 = world.calls.iter().filter(|(call, _)| reads(call)).map(|(_, count)| count).sum();
        let reads = usize::try_from(reads).unwrap_or(usize::MAX) / self.tallies.len().max(1);
        figures.insert("reads of AWS in a world for each job (calls of a job in an hour)", reads * 100 / AWS);
        for (id, tally) in std::mem::take(&mut self.tallies) {
            let workers = self
                .starts
                .iter()
                .filter(|start| tally.span.is_some_and(|(first, last)| first < **start && **start <= last));
            let kubernetes = (tally.kubernetes, 2 * tally.pods + KUBERNETES * (1 + workers.count()));
            for times in tally.refused.values() {
                let refused = (most_within(times, HOUR), tally.pods + REFUSED);
                self.keep(world, &mut figures, "refused evictions of pods alike in an hour", &id, refused);
            }
            let aws = (most_within(&tally.aws, HOUR), AWS);
            self.keep(world, &mut figures, "calls to the API server for one job", &id, kubernetes);
            self.keep(world, &mut figures, "calls to AWS for one job in an hour", &id, aws);
            for (key, times) in tally.heartbeats {
                let Some(timeout) = self.timeout_of_hook(world, &key) else { continue };
                let beats = (most_within(&times, timeout), self.heartbeats_within(timeout));
                self.keep(world, &mut figures, "heartbeats in one HeartbeatTimeout", &id, beats);
            }
        }
        figures
    }

    /// The last two heartbeats that may have been heard of: the answer to the last one got lost perhaps.
    pub(crate) fn may_be_last_heard(&self, id: &InstanceId, hook: &HookName) -> Vec<Timestamp> {
        let is_lost = |at: &&Timestamp| self.unheard.iter().any(|(from, until)| from <= *at && *at < until);
        let mut heard: Vec<Timestamp> =
            self.heartbeats_of(id, hook.as_str()).filter(|at| !is_lost(at)).copied().collect();
        heard.sort_unstable();
        heard.split_off(heard.len().saturating_sub(2))
    }

    /// Those that AWS refused as well.
    pub(crate) fn heartbeats_between(
        &self,
        id: &InstanceId,
        hook: &str,
        from: Timestamp,
        until: Timestamp,
    ) -> usize {
        self.heartbeats_of(id, hook).filter(|at| from < **at && **at <= until).count()
    }

    fn heartbeats_of(&self, id: &InstanceId, hook: &str) -> impl Iterator<Item = &Timestamp> {
        let heartbeats = self.tallies.get(id).into_iter().flat_map(|tally| &tally.heartbeats);
        heartbeats.filter(move |(key, _)| key.name.as_str() == hook).flat_map(|(_, times)| times)
    }

    /// While no timeout could be read there is one every 15 s, half of the shortest (seed 1109), and one by each of two workers
    /// when the second takes over (seed 38281).
    fn heartbeats_within(&self, timeout: Duration) -> usize {
        let every_15_s = usize::try_from(timeout.as_secs() / 15).unwrap_or(usize::MAX);
        match self.mood {
            Mood::Calm => HEARTBEATS,
            Mood::Wild => HEARTBEATS.max(every_15_s.div_ceil(3) + 1),
        }
    }

    fn timeout_of_hook(&self, world: &World, key: &HookKey) -> Option<Duration> {
        let hooks = &world.groups.get(&key.group)?.spec.hooks;
        hooks.iter().find(|hook| hook.name == key.name).map(|hook| hook.heartbeat_timeout)
    }

    pub(crate) fn keep(
        &mut self,
        world: &World,
        figures: &mut Figures,
        what: &'static str,
        id: &InstanceId,
        (taken, bound): (usize, usize),
    ) {
        let percent = taken * 100 / bound.max(1);
        let most = figures.entry(what).or_default();
        *most = percent.max(*most);
        if taken > self.mood.allows(bound) {
            let text = format!("{what}: {taken} for {id}, the bound is {}", self.mood.allows(bound));
            self.break_it(world, "18 repeating needs progress", text);
        }
    }
}

/// A disruption budget has nothing left for this pod.
fn is_refused(cluster: &Cluster, pod: &PodRef) -> bool {
    let Some(pod) = cluster.pod(&pod.uid) else { return false };
    let counts = pod.phase == Phase::Running && pod.deletion.is_none();
    let exhausted =
        |budget: &&Budget| budget.covers(pod) && cluster.healthy_pods(budget) <= budget.min_available;
    counts && cluster.budgets.values().any(|budget| exhausted(&budget))
}

/// The most that came within a span.
fn most_within(times: &[Timestamp], span: Duration) -> usize {
    let from = |(place, first): (usize, &Timestamp)| {
        times[place..].iter().take_while(|time| time.since(*first) < span).count()
    };
    times.iter().enumerate().map(from).max().unwrap_or(0)
}
