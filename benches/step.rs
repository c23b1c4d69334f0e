//! `make bench`, its first part: what one decision costs, in nanoseconds and allocations. It prints figures and asserts
//! nothing about them.
//!
//! A *tick* is what a job does with an observation before anything is called: it takes in what the observation
//! shows, decides, and learns what came of the actions. `step` is the decision alone.
#![allow(clippy::unwrap_used, reason = "a measurement that cannot run has failed")]
#![allow(clippy::print_stdout, reason = "its output is what it is for")]

use std::alloc::System;
use std::collections::BTreeSet;
use std::hint::black_box;
use std::time::{Duration, Instant};

use offramp_core::*;
use offramp_engine::{default_policy, learn_of_observation, learn_of_outcome};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const AT: Timestamp = Timestamp::from_millis(1_000_000_000);
/// So often each is repeated; the median of eleven such rounds is printed.
const ROUND: u32 = 2_000;
const ROUNDS: usize = 11;

fn main() {
    println!(
        "{:<34} {:>12} {:>12} {:>12} {:>12}",
        "", "step, ns", "step, allocs", "tick, ns", "tick, allocs"
    );
    for pods in [10, 250] {
        for (name, notices) in
            [("hook", vec![hook()]), ("spot", vec![spot()]), ("both", vec![spot(), hook()])]
        {
            for begun in [false, true] {
                let moment = if begun { "draining" } else { "first look" };
                measure(&format!("{name}, {pods} pods, {moment}"), &World::new(&notices, pods, begun));
            }
        }
    }
}

fn measure(name: &str, world: &World) {
    let World { job, seen, policy } = world;
    let now = AT + Duration::from_secs(40);
    let (step_ns, step_allocations) = timed(|| step(job, seen, policy, now));
    let (tick_ns, tick_allocations) = timed(|| {
        let mut job = job.clone();
        learn_of_observation(&mut job.memory, &job.instance, seen, now);
        let step = step(&job, seen, policy, now);
        for action in &step.actions {
            learn_of_outcome(&mut job.memory, action, &Ok(Outcome::Done), seen, now);
        }
        step
    });
    println!("{name:<34} {step_ns:>12} {step_allocations:>12} {tick_ns:>12} {tick_allocations:>12}");
}

/// The median time of one call in nanoseconds, and its allocations.
fn timed<T>(mut call: impl FnMut() -> T) -> (u128, usize) {
    let counted = Region::new(ALLOCATOR);
    black_box(call());
    let allocations = counted.change().allocations;
    let mut rounds: Vec<u128> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            for _ in 0..ROUND {
                black_box(call());
            }
            began.elapsed().as_nanos() / u128::from(ROUND)
        })
        .collect();
    rounds.sort_unstable();
    (rounds[ROUNDS / 2], allocations)
}

struct World {
    job: Job,
    seen: Observation,
    policy: Policy,
}

impl World {
    /// A node in five target groups. `begun`: isolated, out of its balancers, every other eviction refused.
    fn new(notices: &[Notice], pods: usize, begun: bool) -> Self {
        let delivery = Delivery { at: AT, redelivered: false };
        let mut job = Job::new(notices[0].clone(), delivery);
        for notice in &notices[1..] {
            job.join(notice.clone(), delivery);
        }
        let pods: Vec<Pod> = (0..pods).map(pod).collect();
        let mut seen = Observation {
            proven: offramp_core::Timestamp::default(),
            read_at: None,
            targets_read_at: None,
            doubt: None,
            node: Seen::Known(node(None)),
            pods: Seen::Known(pods.clone()),
            membership: Seen::Known(Membership {
                group: GroupName::new("workers"),
                state: LifecycleState::TerminatingWait,
                healthy: true,
                pooled: false,
            }),
            group: Seen::Known(group()),
            target_groups: Seen::Known(
                (0..5).map(|number| target_group(number, TargetHealth::Healthy)).collect(),
            ),
            unread_target_groups: 0,
            missing_target_groups: BTreeSet::new(),
        };
        if begun {
            let groups: Vec<TargetGroup> =
                (0..5).map(|number| target_group(number, TargetHealth::Draining)).collect();
            let keys =
                groups.iter().flat_map(|group| group.targets_of(&job.instance)).map(|(key, _)| key).collect();
            seen.node = Seen::Known(node(Some((notices, keys))));
            seen.target_groups = Seen::Known(groups);
            learn_of_observation(&mut job.memory, &job.instance, &seen, AT + Duration::from_secs(10));
            for pod in pods.iter().step_by(2) {
                let evict = Action::Evict { pod: pod.pod.clone(), origin: pod.origin.clone(), grace: None };
                let refused = Ok(Outcome::Blocked { budget: None });
                learn_of_outcome(&mut job.memory, &evict, &refused, &seen, AT + Duration::from_secs(38));
            }
        }
        let policy = Policy { hook_names: BTreeSet::from([HookName::new("offramp")]), ..default_policy() };
        Self { job, seen, policy }
    }
}

fn instance(number: usize) -> InstanceId {
    InstanceId::parse(&format!("i-{number:017x}")).unwrap()
}

fn notice(id: &str, kind: NoticeKind) -> Notice {
    Notice {
        id: NoticeId::new(id),
        instance: instance(0),
        at: AT,
        account_region: AccountRegion::default(),
        kind,
    }
}

fn hook() -> Notice {
    let key = HookKey {
        group: GroupName::new("workers"),
        name: HookName::new("offramp"),
        token: Some(HookToken::new("87654321-4321-4321-4321-210987654321")),
    };
    notice("hook", NoticeKind::Hook(Hook { key, cluster_hint: None, passage: Passage::Ending }))
}

fn spot() -> Notice {
    notice("spot", NoticeKind::Spot(SpotAction::Terminate))
}

fn node(record: Option<(&[Notice], BTreeSet<TargetKey>)>) -> Node {
    let begun = record.is_some();
    let record = record.map(|(notices, targets)| Record {
        entries: notices.iter().map(entry).collect(),
        cordoned: true,
        excluded: true,
        targets,
        ..Record::new(AT)
    });
    Node {
        name: NodeName::new("ip-10-0-0-1.eu-west-1.compute.internal"),
        zone: Some(Zone::new("eu-west-1a")),
        ready: true,
        unready_for_pods: false,
        silent: false,
        ready_since: AT - Duration::from_secs(86_400),
        renewed_at: AT - Duration::from_secs(200),
        cordoned: begun,
        excluded: begun,
        record,
        owner: NodeOwner::SelfManaged,
        selected: true,
        resource_version: "1234567".to_owned(),
    }
}

fn entry(notice: &Notice) -> (Claimant, Entry) {
    let (end, account_region) = (AT + Duration::from_secs(3_600), AccountRegion::default());
    (Claimant::of(notice, &default_policy()), Entry { at: AT, end, account_region, ended: None })
}

fn group() -> Group {
    let spec = HookSpec {
        name: HookName::new("offramp"),
        heartbeat_timeout: Duration::from_secs(300),
        global_timeout: Duration::from_secs(30_000),
        cluster_hint: None,
    };
    Group {
        name: GroupName::new("workers"),
        terminate_hooks: vec![spec],
        capacity_rebalancing: false,
        managed: false,
        in_scope: true,
        target_groups: Vec::new(),
        leaving: std::collections::BTreeSet::new(),
    }
}

/// Twenty targets, the first of which is the instance's own.
fn target_group(number: usize, own: TargetHealth) -> TargetGroup {
    let target = |other: usize| Target {
        instance: instance(other),
        port: 30_080,
        zone: Some(Zone::new("eu-west-1a")),
        health: if other == 0 { own } else { TargetHealth::Healthy },
        set_aside: false,
        leaving_since: None,
    };
    TargetGroup {
        arn: TargetGroupArn::new(format!(
            "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web-{number}/0123456789abcdef"
        )),
        balancer: BalancerKind::Application,
        cross_zone: true,
        fails_open: false,
        deregistration_delay: Duration::from_secs(300),
        targets: (0..20).map(target).collect(),
    }
}

fn pod(number: usize) -> Pod {
    let name = format!("web-7d4b9c6f5-{number:05}");
    Pod {
        pod: PodRef { namespace: "shop".to_owned(), uid: PodUid::new(format!("uid-of-{name}")), name },
        grace: Duration::from_secs(30),
        finished: false,
        mirror: false,
        daemon_set: None,
        origin: PodOrigin(format!("shop ReplicaSet web-{}", number / 10)),
        created: AT - Duration::from_secs(86_400),
        tolerates_cordon: false,
        cluster_critical: false,
        node_critical: false,
        local_traffic: false,
        let_finish: false,
        ends_at: None,
        deleted_at: None,
        ready: true,
        labels_hash: 0,
    }
}
