//! Requests, served and lost: rate times time, exactly, because between two events nothing changes.
//!
//! A request goes to a target that its balancer routes to, each with an equal share. There kube-proxy, as
//! far as it has heard, sends it to a pod. It is lost where the machine, the pod's process or every pod is
//! gone by then. Health checks, propagation and draining are the balancer's; preStop and SIGTERM are the
//! pod's; what lies between is the time that EndpointSlices take.
//!
//! Time was enough where every pod serves on (preStop) for as long as EndpointSlices take, and every
//! machine lives until its targets get nothing new and their long requests are over. Then losses are
//! exactly zero: they are only ever added where something goes wrong.
//!
//! Liberties: clients do not retry; a request for which a pod was chosen while it took requests is served,
//! however long it takes, unless the machine that it came in through ends before.

mod backends;
mod paths;

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use offramp_core::{InstanceId, TargetGroupArn, Timestamp};

use super::World;
use paths::Paths;

/// Every stream of requests.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    streams: Vec<Stream>,
    /// Changes with everything that decides about a request, from the targets to the pods.
    version: u64,
    /// Changes with all of that but pods.
    paths_version: u64,
}

/// Requests from clients through one target group, and what became of them.
#[derive(Clone, Debug)]
pub struct Stream {
    /// For people.
    pub name: String,
    /// The target group that they come through.
    pub target_group: TargetGroupArn,
    /// Requests per second.
    pub rate: f64,
    /// The share of them that hold a connection for [`Stream::lasting`]: downloads, long polls, streams.
    pub long: f64,
    /// How long those take.
    pub lasting: Duration,
    /// How many were answered.
    pub served: f64,
    /// How many were not, by cause.
    pub lost: BTreeMap<Loss, f64>,
    /// The same, by the instance that was at fault.
    pub lost_by_instance: BTreeMap<InstanceId, BTreeMap<Loss, f64>>,
    /// What each live target gets, or got until then.
    flows: BTreeMap<InstanceId, Flow>,
    /// Where requests went when that was last worked out.
    way: Option<Way>,
}

#[derive(Clone, Copy, Debug)]
struct Flow {
    /// Requests per second.
    rate: f64,
    /// Since when it gets nothing any more.
    until: Option<Timestamp>,
}

/// What becomes of a stream's requests, for as long as nothing changes.
#[derive(Clone, Debug)]
struct Way {
    version: u64,
    paths_version: u64,
    paths: Paths,
    /// The shares of the requests that are lost.
    lost: Losses,
}

type Losses = BTreeMap<(Loss, Option<InstanceId>), f64>;

/// Why a request was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Loss {
    /// The balancer had nowhere to send it.
    NoTarget,
    /// The balancer sent it to a machine that had ended.
    NodeGone,
    /// The node had no pod for it that kube-proxy may use.
    NoLocalEndpoint,
    /// The pod had ended, or was ending, and kube-proxy had not heard of that yet.
    PodGone,
    /// The machine ended while the request was under way.
    ConnectionCut,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoTarget => "no target was registered",
            Self::NodeGone => "sent to a node that had ended",
            Self::NoLocalEndpoint => "no pod left on the node",
            Self::PodGone => "sent to a pod that had stopped serving",
            Self::ConnectionCut => "cut when the node ended",
        })
    }
}

impl Stream {
    /// A stream of short requests.
    pub fn new(name: impl Into<String>, target_group: TargetGroupArn, rate: f64) -> Self {
        Self {
            name: name.into(),
            target_group,
            rate,
            long: 0.0,
            lasting: Duration::ZERO,
            served: 0.0,
            lost: BTreeMap::new(),
            lost_by_instance: BTreeMap::new(),
            flows: BTreeMap::new(),
            way: None,
        }
    }

    /// With a share of requests that take so long.
    #[must_use]
    pub fn with_long(mut self, share: f64, lasting: Duration) -> Self {
        self.long = share;
        self.lasting = lasting;
        self
    }

    /// All losses together.
    pub fn lost_in_all(&self) -> f64 {
        // The sum of no floats is -0.0.
        self.lost.values().fold(0.0, |sum, lost| sum + lost)
    }

    /// Requests come in at other targets from now on.
    fn take_paths(&mut self, paths: &Paths, now: Timestamp) {
        for flow in self.flows.values_mut() {
            flow.until = flow.until.or(Some(now));
        }
        let rate = self.rate / paths.targets as f64;
        for instance in &paths.reached {
            self.flows.insert(instance.clone(), Flow { rate, until: None });
        }
    }

    fn account(&mut self, span: Duration) {
        let Some(way) = self.way.take() else { return };
        let requests = self.rate * span.as_secs_f64();
        let mut served = requests;
        for ((loss, instance), share) in &way.lost {
            self.lose(*loss, instance.as_ref(), requests * share);
            served -= requests * share;
        }
        self.served += served;
        self.way = Some(way);
    }

    fn lose(&mut self, loss: Loss, instance: Option<&InstanceId>, requests: f64) {
        *self.lost.entry(loss).or_default() += requests;
        if let Some(instance) = instance {
            let by_cause = self.lost_by_instance.entry(instance.clone()).or_default();
            *by_cause.entry(loss).or_default() += requests;
        }
    }
}

impl Traffic {
    /// Lets requests flow from now on.
    pub fn add_stream(&mut self, stream: Stream) {
        self.streams.push(stream);
    }

    /// Every stream with its totals.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// A stream by name.
    pub fn stream(&self, name: &str) -> Option<&Stream> {
        self.streams.iter().find(|stream| stream.name == name)
    }

    /// What was served in all.
    pub fn served(&self) -> f64 {
        self.streams.iter().fold(0.0, |sum, stream| sum + stream.served)
    }

    /// What was lost in all.
    pub fn lost(&self) -> f64 {
        self.streams.iter().fold(0.0, |sum, stream| sum + stream.lost_in_all())
    }
}

impl World {
    /// Counts the requests from now until then, a span in which nothing changes.
    pub(super) fn account_traffic(&mut self, until: Timestamp) {
        let span = self.now.until(until);
        if span == Duration::ZERO || self.traffic.streams.is_empty() {
            return;
        }
        let mut streams = std::mem::take(&mut self.traffic.streams);
        for stream in &mut streams {
            if stream.way.as_ref().is_none_or(|way| way.version != self.traffic.version) {
                self.find_way(stream);
            }
            stream.account(span);
        }
        self.traffic.streams = streams;
    }

    /// Something that decides about requests is not as it was.
    pub(super) const fn traffic_changed(&mut self) {
        self.traffic.version += 1;
        self.traffic.paths_version += 1;
    }

    /// Something about pods is not as it was: in a storm that is so every millisecond.
    pub(super) const fn backends_changed(&mut self) {
        self.traffic.version += 1;
    }

    fn find_way(&mut self, stream: &mut Stream) {
        let Traffic { version, paths_version, .. } = self.traffic;
        let (paths, before) = match stream.way.take() {
            Some(way) if way.paths_version == paths_version => (way.paths, way.lost),
            way => {
                let paths = self.paths(&stream.target_group);
                stream.take_paths(&paths, self.now);
                (paths, way.map(|way| way.lost).unwrap_or_default())
            }
        };
        let lost = self.losses(&paths);
        self.tell_losses(&stream.name, &before, &lost);
        stream.way = Some(Way { version, paths_version, paths, lost });
    }

    fn tell_losses(&mut self, stream: &str, before: &Losses, lost: &Losses) {
        for (loss, instance) in lost.keys().filter(|cause| !before.contains_key(cause)) {
            let whose = instance.as_ref().map(|id| format!(" ({id})")).unwrap_or_default();
            self.tell(format!("requests of {stream} are lost: {loss}{whose}"));
        }
    }

    fn losses(&self, paths: &Paths) -> Losses {
        let mut lost = Losses::new();
        let share = 1.0 / paths.targets as f64;
        if paths.targets == 0 {
            lost.insert((Loss::NoTarget, None), 1.0);
        }
        for instance in &paths.dead {
            *lost.entry((Loss::NodeGone, Some(instance.clone()))).or_default() += share;
        }
        for ((cluster, port, node), targets) in &paths.ports {
            let backend = self.backend(cluster, *port, node.as_ref());
            for instance in targets.iter().filter(|_| backend.pods == 0) {
                *lost.entry((Loss::NoLocalEndpoint, Some(instance.clone()))).or_default() += share;
            }
            let each = share * targets.len() as f64 / backend.pods as f64;
            for (instance, pods) in backend.gone {
                *lost.entry((Loss::PodGone, instance)).or_default() += each * pods as f64;
            }
        }
        lost
    }

    /// The machine of an instance ends: what it had under way is cut. Requests that began when a target
    /// last had its share are under way for [`Stream::lasting`] after that.
    pub(super) fn cut_connections(&mut self, instance: &InstanceId) {
        let now = self.now;
        for stream in &mut self.traffic.streams {
            let Some(flow) = stream.flows.remove(instance) else { continue };
            let over = flow.until.map_or(Duration::ZERO, |until| now.since(until));
            let left = stream.lasting.saturating_sub(over);
            let cut = flow.rate * stream.long * left.as_secs_f64();
            if cut > 0.0 {
                self.story.push((
                    now,
                    format!("requests of {} are lost: {} ({instance})", stream.name, Loss::ConnectionCut),
                ));
                // They were counted as served when they began.
                stream.served -= cut;
                stream.lose(Loss::ConnectionCut, Some(instance), cut);
            }
        }
    }
}

#[cfg(test)]
mod tests;
