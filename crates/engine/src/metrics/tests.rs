use offramp_core::{Action, GroupName, Outcome, PodOrigin, PodRef, PodUid, Trigger};
use prometheus::TextEncoder;

use super::*;

fn metrics() -> (Registry, Metrics) {
    let registry = Registry::new();
    let clusters = ["blue".into(), "green".into()];
    let metrics = Metrics::register(&registry, &clusters).unwrap();
    (registry, metrics)
}

fn series(registry: &Registry) -> BTreeMap<String, String> {
    let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, value)| (name.into(), value.into())).collect()
}

#[test]
fn every_kind_of_action_is_a_label_from_the_start() {
    let pod = PodRef { namespace: "a".to_owned(), name: "b".to_owned(), uid: PodUid::new("c") };
    let group = GroupName::new("workers");
    for action in [
        Action::Evict { pod: pod.clone(), origin: PodOrigin("a b".to_owned()), grace: None },
        Action::Delete { pod, grace: Duration::ZERO },
        Action::Detach { group: group.clone() },
        Action::TerminateThroughGroup { group },
    ] {
        assert!(ACTIONS.contains(&action_name(&action)), "{action:?}");
    }
}

#[test]
fn every_series_is_there_from_the_start() {
    let (registry, metrics) = metrics();
    let before = series(&registry);
    let place = metrics.at_work(Some(&"green".into()), Some(Stage::Quiesce));
    metrics.called(Call::EvictPod, CallResult::Throttled, Duration::from_millis(3));
    metrics.deadlines([(None, Trigger::Spot, Timestamp::from_millis(7_500))].into_iter());
    metrics.dead_letters(3);
    let after = series(&registry);
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    for (name, value) in [
        (r#"offramp_jobs{cluster="green",stage="quiesce"}"#, "1"),
        (r#"offramp_jobs{cluster="unknown",stage="new"}"#, "0"),
        (r#"offramp_calls_total{api="kubernetes",operation="evict pod",result="throttled"}"#, "1"),
        (r#"offramp_call_seconds_bucket{api="kubernetes",operation="evict pod",le="0.005"}"#, "1"),
        (r#"offramp_earliest_deadline_timestamp_seconds{cluster="unknown",trigger="spot"}"#, "7"),
        (r#"offramp_earliest_deadline_timestamp_seconds{cluster="blue",trigger="spot"}"#, "0"),
        ("offramp_dead_letter_queue_messages", "3"),
        (&format!(r#"offramp_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION")), "1"),
    ] {
        assert_eq!(after.get(name).map(String::as_str), Some(value), "{name}");
    }
    drop(place);
    assert_eq!(series(&registry)[r#"offramp_jobs{cluster="green",stage="quiesce"}"#], "0");
}

#[test]
fn every_action_of_a_late_removal_is_counted() {
    let (registry, metrics) = metrics();
    let instance = offramp_core::InstanceId::parse("i-0b1c2d3e4f5061728").unwrap();
    let group = offramp_core::TargetGroupArn::new("arn:aws:elasticloadbalancing:a:1:targetgroup/web/1");
    let target = offramp_core::TargetKey { group, instance: instance.clone(), port: 80 };
    metrics.count(&Fact::Acted {
        instance: instance.clone(),
        action: Action::Deregister(target),
        outcome: Ok(Outcome::Gone),
        balancer: Some(BalancerKind::Network),
    });
    metrics.count(&Fact::Finished {
        instance,
        cluster: Some("blue".into()),
        trigger: Trigger::Hook,
        outcome: JobOutcome::Left,
        reason: String::new(),
        took: Duration::from_secs(70),
        left_stage: Some((Stage::Complete, Duration::from_secs(2))),
        time_left: Some(Duration::ZERO),
    });
    let series = series(&registry);
    for name in [
        r#"offramp_actions_total{action="deregister",outcome="gone"}"#,
        r#"offramp_deregistrations_total{balancer="network",outcome="gone"}"#,
        r#"offramp_jobs_finished_total{cluster="blue",outcome="left",trigger="hook"}"#,
        r#"offramp_job_seconds_count{outcome="left"}"#,
        r#"offramp_stage_seconds_sum{stage="complete"}"#,
        r#"offramp_time_left_seconds_bucket{cluster="blue",trigger="hook",le="0"}"#,
    ] {
        assert_ne!(series.get(name).map_or("missing", String::as_str), "0", "{name}");
        assert!(series.contains_key(name), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_nobody_waits_for_any_more_counts() {
    let (registry, metrics) = metrics();
    let never = metrics.measure(Call::SendMessage, std::future::pending::<()>(), |()| CallResult::Done);
    tokio::time::timeout(Duration::from_secs(10), never).await.unwrap_err();
    let done = metrics.measure(Call::SendMessage, async { 5 }, |_| CallResult::Done).await;
    assert_eq!(done, 5);
    let series = series(&registry);
    for result in ["retry", "done"] {
        let name = format!(r#"offramp_calls_total{{api="sqs",operation="SendMessage",result="{result}"}}"#);
        assert_eq!(series[&name], "1");
    }
    assert_eq!(series[r#"offramp_call_seconds_sum{api="sqs",operation="SendMessage"}"#], "10");
}
