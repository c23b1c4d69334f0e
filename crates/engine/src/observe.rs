//! Reads the world for one job: the node and its pods from the watches, the rest by shared calls.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use offramp_core::{
    AccountRegion, Deregistration, GroupName, InstanceId, Job, Node, Observation, Seen, Target, TargetGroup,
    TargetGroupArn, TargetHealth, Timestamp, demands,
};

use crate::batch::Calls;
use crate::departures::Departures;
use crate::place::region_of;
use crate::ports::{Cluster, Fault, NodeSummary, TargetState};
use crate::routing::Clusters;

/// A reading may be empty, and lives for a minute: core wants one from the end of that.
const SECOND_READING: Duration = Duration::from_secs(55);

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

    /// Everything, and what could not be read. A read that fails leaves its field `Unknown`, and never
    /// looks like "gone".
    pub(crate) async fn observe(
        &self,
        job: &Job,
        account_region: &AccountRegion,
        cluster: Option<&Arc<dyn Cluster>>,
        absence_is_proven: bool,
        now: Timestamp,
    ) -> (Observation, Vec<Fault>) {
        let mut faults = Vec::new();
        // What a notice says has to be confirmed by what was read after it, and so has what came of our calls.
        let read_after = job
            .notices
            .iter()
            .map(|notice| notice.at)
            .chain(job.memory.hooks.values().map(|calls| calls.newest))
            .max();
        let read_after = read_after.unwrap_or(job.since());
        let membership =
            self.calls.memberships.ask_since(account_region, job.instance.clone(), read_after).await;
        let membership = seen(membership, &mut faults);
        let named = membership.known().map(|member| member.group.clone());
        let group = match named.or_else(|| hook_group(job)) {
            Some(name) => {
                // Whether a hook whose call was refused is still there, and who else leaves: no older reading tells.
                let refused = job.memory.hooks.values().filter_map(|calls| calls.refused);
                // A hook that is missing has to be missing in a second reading.
                let missing =
                    job.memory.sightings.missing_hooks.values().map(|since| *since + SECOND_READING);
                let missing = missing.filter(|again| *again <= now);
                let read_after = refused.chain(missing).chain(job.hooks().map(|(notice, _)| notice.at)).max();
                let group =
                    self.calls.groups.ask_since(account_region, name, read_after.unwrap_or_default()).await;
                seen(group.map(|group| group.map(|group| (*group).clone())), &mut faults)
            }
            // In no group and named by none.
            None if membership == Seen::Gone => Seen::Gone,
            None => Seen::Unknown,
        };
        let deregistered = match cluster.map_or(Seen::Gone, |cluster| cluster.node(&job.instance)) {
            Seen::Known(Node { record: Some(record), .. }) => record.targets,
            Seen::Known(_) | Seen::Gone | Seen::Unknown => BTreeSet::new(),
        };
        let (target_groups, unread_target_groups, missing_target_groups) =
            if ends_traffic(job) || !deregistered.is_empty() {
                let mut attached = group.known().map_or_else(Vec::new, |group| group.target_groups.clone());
                // What we deregistered has to be seen even where nothing else leads there any more.
                attached.extend(deregistered.into_iter().map(|key| key.group));
                let leaving = group.known().map(|group| &group.leaving);
                let context = Context { job, cluster, leaving };
                attached.sort();
                attached.dedup();
                let (groups, mut unread, missing) =
                    self.target_groups(context, account_region, &attached, &mut faults).await;
                // Those that are attached to it. What is configured or recorded does not wait for them.
                unread += usize::from(group == Seen::Unknown);
                (groups, unread, missing)
            } else {
                (Seen::Unknown, 0, BTreeSet::new())
            };
        // The watches are read last: they are the freshest, and evictions follow at once.
        let watched = self.read_watches(job, cluster, absence_is_proven);
        faults.extend(watched.node.known().filter(|node| has_foreign_record(node)).map(unreadable_record));
        let seen = Observation {
            aws_was_asked: true,
            membership,
            group,
            target_groups,
            unread_target_groups,
            missing_target_groups,
            ..watched
        };
        (seen, faults)
    }

    async fn target_groups(
        &self,
        context: Context<'_>,
        account_region: &AccountRegion,
        attached: &[TargetGroupArn],
        faults: &mut Vec<Fault>,
    ) -> (Seen<Vec<TargetGroup>>, usize, BTreeSet<TargetGroupArn>) {
        let here = |arn: &&TargetGroupArn| {
            account_region.region.as_ref().is_none_or(|region| region_of(arn) == Some(region.as_str()))
        };
        let mut arns: Vec<&TargetGroupArn> = attached.iter().collect();
        arns.extend(self.target_groups.iter().filter(here).filter(|arn| !attached.contains(arn)));
        let reads = arns.into_iter().map(|arn| async move {
            let settings = self.calls.settings.ask(account_region, arn.clone());
            let health = self.calls.health.ask(account_region, arn.clone());
            let (settings, health) = futures::join!(settings, health);
            (arn, settings, health)
        });
        let (mut groups, mut unread, mut missing) = (Vec::new(), 0, BTreeSet::new());
        for (arn, settings, health) in futures::future::join_all(reads).await {
            match (seen(settings, faults), seen(health, faults)) {
                (Seen::Known(settings), Seen::Known(health)) => {
                    let mut group = TargetGroup {
                        arn: arn.clone(),
                        balancer: settings.balancer,
                        cross_zone: settings.cross_zone,
                        deregistration_delay: settings.deregistration_delay,
                        fails_open: !health.iter().any(|target| target.health == TargetHealth::Healthy),
                        targets: Vec::new(),
                    };
                    group.targets = self.targets(context, &group, &health);
                    groups.push(group);
                }
                (Seen::Gone, _) | (_, Seen::Gone) => {
                    missing.insert(arn.clone());
                }
                (Seen::Unknown, _) | (_, Seen::Unknown) => unread += 1,
            }
        }
        (Seen::Known(groups), unread, missing)
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

fn seen<T>(answer: Result<Option<T>, Fault>, faults: &mut Vec<Fault>) -> Seen<T> {
    match answer {
        Ok(Some(value)) => Seen::Known(value),
        Ok(None) => Seen::Gone,
        Err(fault) => {
            faults.push(fault);
            Seen::Unknown
        }
    }
}

/// Some notice asks for the target groups. A rebalance recommendation alone never touches one.
fn ends_traffic(job: &Job) -> bool {
    job.notices.iter().any(|notice| demands(&notice.kind).deregister != Deregistration::No)
}

fn hook_group(job: &Job) -> Option<GroupName> {
    job.hooks().map(|(_, hook)| hook.key.group.clone()).next()
}
