//! What is known of the world for one job: the node and its pods by the watches, the rest by what AWS has said.

use std::collections::BTreeSet;
use std::sync::Arc;

use offramp_core::{
    AccountRegion, Deregistration, Group, Job, Membership, Node, Notice, Observation, Seen, Target,
    TargetGroup, TargetGroupArn, TargetHealth, TargetKey, Timestamp, demands,
};

use crate::calls::Calls;
use crate::departures::Departures;
use crate::place::region_of;
use crate::ports::{Cluster, Fault, NodeSummary, TargetState};
use crate::readings::{Questions, Readings, map};
use crate::routing::Clusters;
use crate::stand_ins::{Basis, StandIns};

/// What an observation needs beside the job.
pub(crate) struct Observer {
    pub(crate) calls: Calls,
    pub(crate) clusters: Clusters,
    /// Target groups that the configuration names, beside those attached to a group.
    pub(crate) target_groups: Vec<TargetGroupArn>,
    pub(crate) departures: Departures,
    pub(crate) stand_ins: StandIns,
}

/// For whom a target group is read, and who knows about the nodes behind its targets.
#[derive(Clone, Copy)]
struct Context<'a> {
    job: &'a Job,
    cluster: Option<&'a Arc<dyn Cluster>>,
    /// Of the job: it says which of its members it ends.
    group: Option<&'a Arc<Group>>,
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
        let context = Context { job, cluster, group: group.known().copied() };
        let mut seen = Observation {
            read_at: readings.read_at(),
            targets_read_at: readings.targets_read_at(),
            membership: map(readings.membership(job), Membership::clone),
            group: map(group, |group| Group::clone(group)),
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
        for (arn, reading, read_at) in readings.target_groups() {
            match reading {
                Seen::Known((settings, health)) => {
                    let mut group = TargetGroup {
                        arn: arn.clone(),
                        balancer: settings.balancer,
                        cross_zone: settings.cross_zone,
                        deregistration_delay: settings.deregistration_delay,
                        fails_open: !health.iter().any(|target| target.health == TargetHealth::Healthy),
                        targets: Arc::default(),
                    };
                    group.targets = self.targets(context, &group, (health, read_at));
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
    fn targets(
        &self,
        context: Context<'_>,
        group: &TargetGroup,
        (health, read_at): (&Arc<Vec<TargetState>>, Timestamp),
    ) -> Arc<[Target]> {
        let own = own_targets(context.job, &group.arn, health, read_at);
        let all =
            |targets: &[TargetState]| targets.iter().map(|target| self.target(context, target)).collect();
        if !own.iter().any(|target| group.sends_to(target.health)) {
            return all(&own);
        }
        let Some(basis) = self.basis(context, health) else { return all(health) };
        let found = self.stand_ins.find(&basis, || all(health));
        let holds = || self.basis(context, health).is_some_and(|now| now.is(&basis));
        debug_assert!(found == all(health) || !holds(), "a change of a node or a job was not counted");
        found
    }

    /// What the targets of a group follow from, where every cluster counts its changes.
    fn basis(
        &self,
        Context { cluster, group, .. }: Context<'_>,
        health: &Arc<Vec<TargetState>>,
    ) -> Option<Basis> {
        let of_clusters = self.clusters.0.iter().map(|cluster| cluster.summaries_version());
        Some(Basis {
            health: Arc::clone(health),
            group: group.cloned(),
            cluster: cluster.map(|cluster| cluster.name().clone()),
            versions: of_clusters.chain([Some(self.departures.version())]).collect::<Option<_>>()?,
        })
    }

    /// A target with what is known of the node behind it, which the gate counts on: by the watches, by the group, and by
    /// the other jobs. Where the watch of its cluster is out of sync, nobody knows.
    fn target(&self, Context { cluster, group, .. }: Context<'_>, target: &TargetState) -> Target {
        let clusters = &self.clusters.0;
        let is_unknown = |cluster: &Arc<dyn Cluster>| cluster.node(&target.instance) == Seen::Unknown;
        let is_ended = group.is_some_and(|group| group.leaving.contains(&target.instance));
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

/// The targets of the job's instance. What it has taken out since they were read drains by now.
fn own_targets(
    job: &Job,
    group: &TargetGroupArn,
    health: &[TargetState],
    read_at: Timestamp,
) -> Vec<TargetState> {
    let drains = |target: &TargetState| {
        let (group, instance, port) = (group.clone(), target.instance.clone(), target.port);
        let key = TargetKey { group, instance, port };
        let is_taken_out = job.memory.draining_since.get(&key).is_some_and(|since| *since > read_at);
        is_taken_out && !matches!(target.health, TargetHealth::Unused { .. })
    };
    let own = health.iter().filter(|target| target.instance == job.instance);
    own.cloned()
        .map(|target| match drains(&target) {
            true => TargetState { health: TargetHealth::Draining, ..target },
            false => target,
        })
        .collect()
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

#[cfg(test)]
mod tests {
    use offramp_core::TargetHealth::{Draining, Healthy, Unused};

    use super::*;
    use crate::learning::tests::world::{AT, hook, job, other, own, seconds, target_key};

    #[test]
    fn a_target_that_was_taken_out_since_it_was_read_drains() {
        let mut job = job([hook()]);
        let TargetKey { group, port, .. } = target_key();
        let state = |instance, health| TargetState { instance, port, zone: None, health };
        let health = [state(own(), Healthy), state(other(), Healthy)];
        let read = |job: &Job, health: &[TargetState], after: u64| -> Vec<TargetHealth> {
            own_targets(job, &group, health, AT + seconds(after)).iter().map(|target| target.health).collect()
        };
        assert_eq!(read(&job, &health, 0), [Healthy]);
        job.memory.draining_since.insert(target_key(), AT + seconds(5));
        assert_eq!(read(&job, &health, 4), [Draining]);
        assert_eq!(read(&job, &health, 5), [Healthy], "it was put back, or is not shown yet");
        let gone = [state(own(), Unused { registered: false })];
        assert_eq!(read(&job, &gone, 4), [Unused { registered: false }]);
    }
}
