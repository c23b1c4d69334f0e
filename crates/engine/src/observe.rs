//! What is known of the world for one job: the node and its pods by the watches, the rest by what AWS has said.

use std::collections::BTreeSet;
use std::sync::Arc;

use offramp_core::{
    AccountRegion, Deregistration, Group, InstanceId, Job, Membership, Node, Notice, Observation, Seen,
    Target, TargetGroup, TargetGroupArn, TargetHealth, TargetKey, Timestamp, demands,
};

use crate::calls::Calls;
use crate::departures::Departures;
use crate::place::region_of;
use crate::ports::{Cluster, Fault, NodeSummary, TargetState};
use crate::readings::{Questions, Readings, map};
use crate::routing::Clusters;

/// What an observation needs beside the job.
pub(crate) struct Observer {
    pub(crate) calls: Calls,
    pub(crate) clusters: Clusters,
    /// Target groups that the configuration names, beside those attached to a group.
    pub(crate) target_groups: Vec<TargetGroupArn>,
    pub(crate) departures: Departures,
}

/// For whom a target group is read, and who knows about the nodes behind its targets.
#[derive(Clone, Copy)]
struct Context<'a> {
    job: &'a Job,
    cluster: Option<&'a Arc<dyn Cluster>>,
    /// Members that the group of the job ends.
    leaving: Option<&'a BTreeSet<InstanceId>>,
}

impl Observer {
    /// What the watches know, without a call: enough to isolate. `absence_is_proven` says that "not there" is to be
    /// believed: no other cluster may have the node, and it will not join a little later.
    pub(crate) fn read_watches(
        &self,
        job: &Job,
        cluster: Option<&Arc<dyn Cluster>>,
        absence_is_proven: bool,
    ) -> Observation {
        let twins = job.memory.sightings.twins;
        let node = match cluster.map_or(Seen::Gone, |cluster| cluster.node(&job.instance)) {
            Seen::Gone if !absence_is_proven => Seen::Unknown,
            Seen::Known(_) if twins.is_some() || self.clusters.is_claimed_twice(job) => Seen::Unknown,
            node => node,
        };
        let pods = match (&node, cluster) {
            (Seen::Known(node), Some(cluster)) => cluster.pods(&node.name, &job.instance),
            (Seen::Gone, Some(cluster)) => {
                let name = job.memory.sightings.node.as_ref();
                name.map_or(Seen::Gone, |name| cluster.pods(name, &job.instance))
            }
            (Seen::Gone, None) => Seen::Gone,
            (Seen::Known(_), None) | (Seen::Unknown, _) => Seen::Unknown,
        };
        let doubt = match node {
            Seen::Unknown => twins.or_else(|| self.clusters.doubt(job, cluster)),
            Seen::Known(_) | Seen::Gone => None,
        };
        let proven = cluster.map_or_else(Timestamp::default, |cluster| *cluster.proven().borrow());
        Observation { node, doubt, pods, proven, ..Observation::default() }
    }

    /// Everything that is known by now: what could not be read, or has not arrived, is `Unknown`, and never looks like "gone".
    pub(crate) fn observe(
        &self,
        job: &Job,
        (questions, readings): (&Questions, &Readings),
        cluster: Option<&Arc<dyn Cluster>>,
        absence_is_proven: bool,
        now: Timestamp,
    ) -> Observation {
        let watched = self.read_watches(job, cluster, absence_is_proven);
        let group = readings.group(job, now);
        let leaving = group.known().map(|group| &group.leaving);
        let context = Context { job, cluster, leaving };
        let mut seen = Observation {
            read_at: readings.read_at(),
            targets_read_at: readings.targets_read_at(),
            membership: map(readings.membership(job), Membership::clone),
            group: map(group, Group::clone),
            ..watched
        };
        if questions.end_traffic {
            self.add_target_groups(&mut seen, context, readings);
        }
        seen
    }

    fn add_target_groups(&self, seen: &mut Observation, context: Context<'_>, readings: &Readings) {
        let mut groups = Vec::new();
        // Those that are attached to it. What is configured or recorded does not wait for them.
        seen.unread_target_groups = usize::from(seen.group == Seen::Unknown);
        for (arn, reading) in readings.target_groups() {
            match reading {
                Seen::Known((settings, health)) => {
                    let mut group = TargetGroup {
                        arn: arn.clone(),
                        balancer: settings.balancer,
                        cross_zone: settings.cross_zone,
                        deregistration_delay: settings.deregistration_delay,
                        fails_open: !health.iter().any(|target| target.health == TargetHealth::Healthy),
                        targets: Vec::new(),
                    };
                    group.targets = self.targets(context, &group, health);
                    groups.push(group);
                }
                Seen::Gone => {
                    seen.missing_target_groups.insert(arn.clone());
                }
                Seen::Unknown => seen.unread_target_groups += 1,
            }
        }
        seen.target_groups = Seen::Known(groups);
    }

    /// Why something is not known.
    pub(crate) fn faults(seen: &Observation, readings: &Readings) -> Vec<Fault> {
        let unreadable = seen.node.known().filter(|node| has_foreign_record(node)).map(unreadable_record);
        readings.faults().into_iter().chain(unreadable).collect()
    }

    /// What has to be asked of AWS for this job.
    pub(crate) fn questions(
        &self,
        job: &Job,
        place: AccountRegion,
        cluster: Option<&Arc<dyn Cluster>>,
    ) -> Questions {
        let here = |arn: &&TargetGroupArn| {
            place.region.as_ref().is_none_or(|region| region_of(arn) == Some(region.as_str()))
        };
        let mut others: BTreeSet<TargetGroupArn> = self.target_groups.iter().filter(here).cloned().collect();
        // What we deregistered has to be seen even where nothing else leads there any more.
        let recorded = recorded(job, cluster);
        let asks = |notice: &Notice| demands(&notice.kind).deregister != Deregistration::No;
        let end_traffic = job.notices.iter().any(asks) || !recorded.is_empty();
        others.extend(recorded.into_iter().map(|key| key.group));
        Questions { place, end_traffic, others }
    }

    /// The targets of the instance, and while one of them serves, those of the others: who could stand
    /// in matters only as long as there is traffic to take over. In a storm most jobs have their target
    /// draining for minutes, and each would look at hundreds of nodes at every change of a pod.
    fn targets(&self, context: Context<'_>, group: &TargetGroup, health: &[TargetState]) -> Vec<Target> {
        let own = |target: &TargetState| target.instance == context.job.instance;
        let serves = health.iter().any(|target| own(target) && group.sends_to(target.health));
        let listed = health.iter().filter(|target| serves || own(target));
        listed.map(|target| self.target(context, target)).collect()
    }

    /// A target with what is known of the node behind it, which the gate counts on: by the watches, by the group, and by
    /// the other jobs. Where the watch of its cluster is out of sync, nobody knows.
    fn target(&self, Context { cluster, leaving, .. }: Context<'_>, target: &TargetState) -> Target {
        let clusters = &self.clusters.0;
        let is_unknown = |cluster: &Arc<dyn Cluster>| cluster.node(&target.instance) == Seen::Unknown;
        let is_ended = leaving.is_some_and(|leaving| leaving.contains(&target.instance));
        let node = clusters.iter().find_map(|cluster| cluster.summary(&target.instance));
        let node = node.unwrap_or_else(|| NodeSummary {
            zone: None,
            set_aside: cluster.map_or_else(|| clusters.iter().any(is_unknown), is_unknown),
            leaving_since: None,
        });
        // Whoever has its label on has passed the gate.
        let departure = || self.departures.since(&target.instance).filter(|_| !node.set_aside);
        Target {
            instance: target.instance.clone(),
            port: target.port,
            zone: target.zone.clone().or(node.zone),
            health: target.health,
            set_aside: node.set_aside || is_ended,
            leaving_since: node.leaving_since.or_else(departure),
        }
    }
}

fn has_foreign_record(node: &Node) -> bool {
    node.record.as_ref().is_some_and(|record| record.foreign.is_some())
}

fn unreadable_record(node: &Node) -> Fault {
    let until = node.record.as_ref().and_then(|record| record.foreign?.until);
    let whose = match until {
        Some(_) => "is of a later version of offramp, which still has to end its work on it",
        None => "is damaged or of another version of offramp",
    };
    Fault::Invalid(format!(
        "the record on node {} {whose}: it is left as it is, and nothing of this node will be undone by this \
         version; if it stays in service, uncordon it and take the annotation {} away by hand",
        node.name,
        crate::record::RECORD_ANNOTATION
    ))
}

/// What the node's record says that we deregistered.
fn recorded(job: &Job, cluster: Option<&Arc<dyn Cluster>>) -> BTreeSet<TargetKey> {
    match cluster.map_or(Seen::Gone, |cluster| cluster.node(&job.instance)) {
        Seen::Known(Node { record: Some(record), .. }) => record.targets,
        Seen::Known(_) | Seen::Gone | Seen::Unknown => BTreeSet::new(),
    }
}
