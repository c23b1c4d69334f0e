//! Values to build worlds of. The engine includes this file too, for tests that learn.

use std::collections::BTreeSet;
use std::time::Duration;

use offramp_core::*;

pub(crate) const AT: Timestamp = Timestamp::from_millis(1_000_000_000);
/// Whatever the time is in a test: what AWS says is as new.
pub(crate) const JUST_NOW: Timestamp = Timestamp::from_millis(i64::MAX);

/// At once, and for the first time.
pub(crate) const DELIVERED: Delivery = Delivery { at: AT, redelivered: false };

pub(crate) fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

pub(crate) fn own() -> InstanceId {
    InstanceId::parse("i-0000000000000000a").unwrap()
}

pub(crate) fn other() -> InstanceId {
    InstanceId::parse("i-0000000000000000b").unwrap()
}

pub(crate) fn policy() -> Policy {
    Policy {
        installation: "eu-west-1:111122223333:offramp".into(),
        hook_names: BTreeSet::from([HookName::new("offramp")]),
        scoped: false,
        clusters: BTreeSet::from([ClusterName::new("blue")]),
        rebalance: RebalancePolicy::Automatic,
        deadline_margin: seconds(15),
        node_shutdown_grace: Duration::ZERO,
        hook_limit: seconds(3_600),
        patience: seconds(3_600),
        no_node: seconds(600),
        gate_limit: seconds(600),
        propagation: Propagation { application: seconds(30), network: seconds(150) },
        settle: seconds(5),
        recheck: seconds(10),
        ingress_daemon_sets: BTreeSet::new(),
    }
}

pub(crate) fn notice(id: &str, kind: NoticeKind) -> Notice {
    Notice { id: NoticeId::new(id), instance: own(), at: AT, account_region: AccountRegion::default(), kind }
}

pub(crate) fn hook_of(name: &str, passage: Passage) -> Notice {
    let key = HookKey {
        group: GroupName::new("workers"),
        name: HookName::new(name),
        token: Some(HookToken::new(format!("token-of-{name}"))),
    };
    notice(name, NoticeKind::Hook(Hook { key, cluster_hint: None, passage }))
}

pub(crate) fn hook() -> Notice {
    hook_of("offramp", Passage::Ending)
}

pub(crate) fn hook_key() -> HookKey {
    let notice = hook();
    let NoticeKind::Hook(hook) = notice.kind else { unreachable!() };
    hook.key
}

/// A heartbeat that AWS took.
pub(crate) fn heard(after: u64) -> HookCalls {
    HookCalls { newest: AT + seconds(after), heard: Some(AT + seconds(after)), ..HookCalls::default() }
}

pub(crate) fn spot() -> Notice {
    notice("spot", NoticeKind::Spot(SpotAction::Terminate))
}

pub(crate) fn rebalance() -> Notice {
    notice("rebalance", NoticeKind::Rebalance)
}

pub(crate) fn job(notices: impl IntoIterator<Item = Notice>) -> Job {
    let mut notices = notices.into_iter();
    let mut job = Job::new(notices.next().unwrap(), DELIVERED);
    for notice in notices {
        job.join(notice, DELIVERED);
    }
    job
}

pub(crate) fn node() -> Node {
    Node {
        name: NodeName::new("ip-10-0-0-1"),
        zone: Some(Zone::new("eu-west-1a")),
        ready: true,
        unready_for_pods: false,
        silent: false,
        ready_since: AT - seconds(86_400),
        renewed_at: AT - seconds(200),
        cordoned: false,
        excluded: false,
        record: None,
        owner: NodeOwner::SelfManaged,
        selected: true,
        resource_version: "7".to_owned(),
    }
}

/// The node after an isolation at `AT` for these notices.
pub(crate) fn isolated(ids: &[&str], excluded: bool, targets: &[TargetKey]) -> Node {
    let record = Record {
        since: AT,
        entries: ids.iter().map(|id| (claimant_of(id), entry(id))).collect(),
        cordoned: true,
        excluded,
        targets: targets.iter().cloned().collect(),
        ..Record::default()
    };
    Node { cordoned: true, excluded, record: Some(record), ..node() }
}

/// A record that cannot be read.
pub(crate) fn foreign_record() -> Record {
    Record { foreign: Some(Foreign { until: None }), ..Record::new(AT) }
}

/// Whom the record names for the notices of these tests.
pub(crate) fn claimant_of(id: &str) -> Claimant {
    let ours = |cause| Claimant { cause, by: Some(policy().installation) };
    match id {
        "spot" => ours(Cause::Trigger(Trigger::Spot)),
        "rebalance" | "again" => ours(Cause::Trigger(Trigger::Rebalance)),
        "offramp" | "other-hook" | "somebody-elses" => {
            ours(Cause::Hook(GroupName::new("workers"), HookName::new(id)))
        }
        other => Claimant { cause: Cause::Notice(NoticeId::new(other)), by: None },
    }
}

/// What it says of them.
pub(crate) fn entry(id: &str) -> Entry {
    // A second recommendation came later.
    entry_at(if id == "again" { AT + seconds(100) } else { AT })
}

/// An entry for an event of this time.
pub(crate) fn entry_at(at: Timestamp) -> Entry {
    Entry { at, end: at + seconds(3_600), account_region: AccountRegion::default(), ended: None }
}

pub(crate) fn pod(name: &str) -> Pod {
    Pod {
        pod: PodRef {
            namespace: "default".to_owned(),
            name: name.to_owned(),
            uid: PodUid::new(format!("uid-{name}")),
        },
        grace: seconds(30),
        finished: false,
        mirror: false,
        daemon_set: None,
        origin: PodOrigin(format!("default {name}")),
        created: AT - seconds(86_400),
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

pub(crate) fn member(state: LifecycleState) -> Seen<Membership> {
    Seen::Known(Membership { group: GroupName::new("workers"), state, healthy: true, pooled: false })
}

pub(crate) fn group(hooks: &[&str]) -> Group {
    let spec = |name: &&str| HookSpec {
        name: HookName::new(*name),
        heartbeat_timeout: seconds(300),
        global_timeout: seconds(30_000),
        cluster_hint: None,
    };
    Group {
        name: GroupName::new("workers"),
        terminate_hooks: hooks.iter().map(spec).collect(),
        capacity_rebalancing: false,
        managed: false,
        in_scope: true,
        target_groups: Vec::new(),
        leaving: BTreeSet::new(),
    }
}

pub(crate) fn target_key() -> TargetKey {
    TargetKey { group: arn(), instance: own(), port: 30_080 }
}

fn arn() -> TargetGroupArn {
    TargetGroupArn::new(
        "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/0123456789abcdef",
    )
}

pub(crate) fn target_group(own_health: Option<TargetHealth>, others: &[TargetHealth]) -> TargetGroup {
    let target = |instance: InstanceId, health| Target {
        instance,
        port: 30_080,
        zone: Some(Zone::new("eu-west-1a")),
        health,
        set_aside: false,
        leaving_since: None,
    };
    let own = own_health.map(|health| target(own(), health));
    TargetGroup {
        arn: arn(),
        balancer: BalancerKind::Application,
        cross_zone: true,
        deregistration_delay: seconds(300),
        fails_open: false,
        targets: own.into_iter().chain(others.iter().map(|health| target(other(), *health))).collect(),
    }
}

/// A hook's world in which everything is known and nothing has been done.
pub(crate) fn untouched() -> Observation {
    Observation {
        doubt: None,
        node: Seen::Known(node()),
        pods: Seen::Known(vec![pod("web-1"), pod("web-2")]),
        proven: Timestamp::default(),
        read_at: Some(JUST_NOW),
        targets_read_at: Some(JUST_NOW),
        membership: member(LifecycleState::TerminatingWait),
        group: Seen::Known(group(&["offramp"])),
        target_groups: Seen::Known(vec![target_group(Some(TargetHealth::Healthy), &[TargetHealth::Healthy])]),
        unread_target_groups: 0,
        missing_target_groups: BTreeSet::new(),
    }
}

/// A hook's world in which the node is isolated, labelled, and its target is out.
pub(crate) fn ready_to_drain(pods: Vec<Pod>) -> Observation {
    Observation {
        node: Seen::Known(isolated(&["offramp", "spot"], true, &[target_key()])),
        pods: Seen::Known(pods),
        target_groups: Seen::Known(vec![target_group(None, &[TargetHealth::Healthy])]),
        ..untouched()
    }
}
