//! The AWS calls of all jobs: what is read and written together, how long an answer lives, and how many calls an account
//! and Region takes.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::{BoxFuture, OptionFuture};
use offramp_core::{AccountRegion, Group, GroupName, InstanceId, Membership, Outcome, TargetGroupArn};

use crate::batch::{Answers, Batch, Terms};
use crate::buckets::Rate;
use crate::clock::Clock;
use crate::ports::{Fault, GroupCall, Sessions, TargetCall, TargetGroupSettings, TargetState};
use crate::retry::{CALL_TIMEOUT, timeout, timeout_of};
use crate::tasks::Tasks;

/// What was read lately and is only read again keeps this distance from the call before. The jobs of a storm
/// ask for it at any moment: five hundred that ask every five seconds are fifty in half a second, which is one
/// call. A job that is alone waits for nobody.
pub(crate) const REFRESH: Duration = Duration::from_millis(500);
/// However seldom the operator wants to look again, what is acted upon is not older.
const LONGEST_LIFE: Duration = Duration::from_secs(5);
/// ELB takes 40 Describe calls at once and ten a second of an account and Region, from all of its tools together. With the settings
/// this is the whole of the burst, once, and six of the ten: twenty target groups are read every five seconds.
const HEALTH: Rate = Rate { burst: 20, per_second: 4 };
/// The settings of a target group live for five minutes, and are two calls.
const SETTINGS: Rate = Rate { burst: 10, per_second: 1 };
/// The AWS Load Balancer Controller keeps to four a second, and each takes 200 targets: two hundred nodes behind forty
/// target groups leave at once.
const TARGET_CHANGES: Rate = Rate { burst: 40, per_second: 4 };

/// The AWS calls of all jobs.
#[derive(Clone)]
pub(crate) struct Calls {
    pub(crate) memberships: Batch<InstanceId, Option<Membership>>,
    pub(crate) groups: Batch<GroupName, Option<Arc<Group>>>,
    pub(crate) settings: Batch<TargetGroupArn, Option<TargetGroupSettings>>,
    pub(crate) health: Batch<TargetGroupArn, Option<Arc<Vec<TargetState>>>>,
    pub(crate) targets: Batch<TargetCall, Outcome>,
    /// By itself, so that no answer or detach that hangs stands before a heartbeat.
    pub(crate) heartbeats: Batch<GroupCall, Outcome>,
    pub(crate) group_calls: Batch<GroupCall, Outcome>,
}

impl Calls {
    /// Starts the lanes. `recheck` is how often a job reads again what no watch tells.
    pub(crate) fn start(
        tasks: &mut Tasks,
        sessions: &Arc<dyn Sessions>,
        clock: &Clock,
        recheck: Duration,
    ) -> Self {
        let lane = || Arc::clone(sessions);
        let (memberships, groups, settings, health) = (lane(), lane(), lane(), lane());
        Self {
            // Every change of a pod wakes its job, which looks at everything: for that an answer lives for
            // half of the time after which the job would ask anyway. What was read before the newest event
            // about an instance never counts, so that a hook's state is fresh before anything follows from
            // it, and where it has changed before the hook is answered, AWS itself says so.
            memberships: Batch::start(
                tasks,
                clock,
                Terms { refresh: REFRESH, ..Terms::of_reads("memberships", (recheck / 2).min(LONGEST_LIFE)) },
                |_| ((), MEMBERSHIPS),
                move |place, ids| Box::pin(read_memberships(Arc::clone(&memberships), place, ids)),
            ),
            // Hooks and attached target groups change by deployments. The group and its hooks are two calls.
            groups: Batch::start(
                tasks,
                clock,
                Terms::of_reads("groups", Duration::from_secs(60)),
                |name: &GroupName| (name.clone(), 1),
                move |place, names| {
                    let groups = Arc::clone(&groups);
                    one(names, move |name| async move {
                        let read = async { groups.groups(&place)?.group(&name).await };
                        timeout_of(CALL_TIMEOUT * 2, "describing the Auto Scaling group", read)
                            .await
                            .map(|found| found.map(Arc::new))
                    })
                },
            ),
            settings: Batch::start(
                tasks,
                clock,
                Terms::of_reads("settings", Duration::from_secs(300)).within(SETTINGS),
                |arn: &TargetGroupArn| (arn.clone(), 1),
                move |place, arns| {
                    let settings = Arc::clone(&settings);
                    one(arns, move |arn| async move {
                        let read = async { settings.targets(&place)?.settings(&arn).await };
                        timeout("describing the target group", read).await
                    })
                },
            ),
            health: Batch::start(
                tasks,
                clock,
                Terms::of_reads("health", (recheck / 4).min(LONGEST_LIFE / 2)).within(HEALTH),
                |arn: &TargetGroupArn| (arn.clone(), 1),
                move |place, arns| {
                    let health = Arc::clone(&health);
                    one(arns, move |arn| async move {
                        let read = async { health.targets(&place)?.health(&arn).await };
                        timeout("describing target health", read).await.map(|found| found.map(Arc::new))
                    })
                },
            ),
            targets: targets(tasks, sessions, clock),
            heartbeats: group_calls(tasks, sessions, clock),
            group_calls: group_calls(tasks, sessions, clock),
        }
    }
}

/// DescribeAutoScalingInstances takes so many.
const MEMBERSHIPS: usize = 50;
/// The AWS Load Balancer Controller deregisters so many at a time.
const TARGETS: usize = 200;
/// DetachInstances takes so many.
const DETACHES: usize = 20;

/// One call for each target group and direction.
fn targets(tasks: &mut Tasks, sessions: &Arc<dyn Sessions>, clock: &Clock) -> Batch<TargetCall, Outcome> {
    let sessions = Arc::clone(sessions);
    let part = |call: &TargetCall| match call {
        TargetCall::Deregister(key) => ((key.group.clone(), false), TARGETS),
        TargetCall::Register(key) => ((key.group.clone(), true), TARGETS),
    };
    let terms = Terms::of_writes("targets").within(TARGET_CHANGES);
    Batch::start(tasks, clock, terms, part, move |place, calls: Vec<TargetCall>| {
        let sessions = Arc::clone(&sessions);
        Box::pin(async move {
            let change = async { Ok(sessions.targets(&place)?.perform(&calls).await) };
            answers(calls.len(), timeout("changing targets", change).await)
        })
    })
}

/// Detaches of one group go together; every other call stands alone.
fn group_calls(tasks: &mut Tasks, sessions: &Arc<dyn Sessions>, clock: &Clock) -> Batch<GroupCall, Outcome> {
    let sessions = Arc::clone(sessions);
    let part = |call: &GroupCall| match call {
        GroupCall::Detach(_, group) => (Ok(group.clone()), DETACHES),
        GroupCall::Heartbeat(..) | GroupCall::CompleteHook(..) | GroupCall::TerminateThroughGroup(..) => {
            (Err(call.clone()), 1)
        }
    };
    Batch::start(tasks, clock, Terms::of_writes("group calls"), part, move |place, calls: Vec<GroupCall>| {
        let sessions = Arc::clone(&sessions);
        Box::pin(async move {
            let change = async { Ok(sessions.groups(&place)?.perform(&calls).await) };
            answers(calls.len(), timeout("calling Auto Scaling", change).await)
        })
    })
}

async fn read_memberships(
    sessions: Arc<dyn Sessions>,
    account_region: AccountRegion,
    ids: Vec<InstanceId>,
) -> Answers<Option<Membership>> {
    let read = async { sessions.groups(&account_region)?.instances(&ids).await };
    match timeout("describing Auto Scaling instances", read).await {
        Ok(mut found) => ids.iter().map(|id| Ok(found.remove(id))).collect(),
        Err(fault) => same(&fault, ids.len()),
    }
}

/// The call of a lane whose calls have one key each.
fn one<K, V, F>(keys: Vec<K>, read: impl FnOnce(K) -> F) -> BoxFuture<'static, Answers<V>>
where
    F: Future<Output = Result<V, Fault>> + Send + 'static,
    V: Send + 'static,
{
    let read = OptionFuture::from(keys.into_iter().next().map(read));
    Box::pin(read.map(|answer| answer.into_iter().collect()))
}

/// As many as there were items, whatever an adapter gives.
fn answers(count: usize, given: Result<Answers<Outcome>, Fault>) -> Answers<Outcome> {
    let mut answers = given.unwrap_or_else(|fault| same(&fault, count));
    answers.resize_with(count, || Err(Fault::Retry("the answer left this item out".to_owned())));
    answers
}

fn same<T>(fault: &Fault, count: usize) -> Answers<T> {
    (0..count).map(|_| Err(fault.clone())).collect()
}
