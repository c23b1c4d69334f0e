use std::sync::Arc;

use offramp_engine::Sessions as _;

use super::*;
use crate::replay::{Replay, access, account_region, hangs_up_after, xml, xml_error};
use crate::sessions::Sessions;

const ARN: &str = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/73e2d6bc24d8a067";

async fn targets(answers: impl IntoIterator<Item = (u16, String)>) -> (Replay, Arc<dyn Targets>) {
    let replay = Replay::of(answers).await;
    let targets = replay.sessions().await.targets(&account_region()).unwrap();
    (replay, targets)
}

fn arn() -> TargetGroupArn {
    TargetGroupArn::new(ARN)
}

fn id(number: usize) -> InstanceId {
    InstanceId::parse(&format!("i-{number:017x}")).unwrap()
}

fn group_xml(protocol: &str) -> (u16, String) {
    let protocol = match protocol {
        "" => String::new(),
        protocol => format!("<Protocol>{protocol}</Protocol>"),
    };
    let result = format!(
        "<TargetGroups><member><TargetGroupArn>{ARN}</TargetGroupArn><TargetGroupName>web</TargetGroupName>\
         {protocol}<Port>30080</Port><TargetType>instance</TargetType><LoadBalancerArns/></member></TargetGroups>"
    );
    xml("DescribeTargetGroups", &result)
}

fn attributes_xml(attributes: &[(&str, &str)]) -> (u16, String) {
    let attribute =
        |(key, value): &(&str, &str)| format!("<member><Key>{key}</Key><Value>{value}</Value></member>");
    let attributes: String = attributes.iter().map(attribute).collect();
    xml("DescribeTargetGroupAttributes", &format!("<Attributes>{attributes}</Attributes>"))
}

#[tokio::test]
async fn settings_come_from_protocol_and_attributes() {
    let check = async |protocol: &str, cross_zone: Option<&str>, expect: (BalancerKind, bool)| {
        let mut attributes =
            vec![("stickiness.enabled", "false"), ("deregistration_delay.timeout_seconds", "45")];
        attributes.extend(cross_zone.map(|value| ("load_balancing.cross_zone.enabled", value)));
        let (replay, targets) = targets([group_xml(protocol), attributes_xml(&attributes)]).await;
        let settings = targets.settings(&arn()).await.unwrap().unwrap();
        let (balancer, cross_zone) = expect;
        let deregistration_delay = Duration::from_secs(45);
        assert_eq!(
            settings,
            TargetGroupSettings { balancer, cross_zone, deregistration_delay },
            "{protocol}"
        );
        let asked = replay.asked();
        assert_eq!(asked[0].query()["TargetGroupArns.member.1"], ARN);
        assert_eq!(asked[1].query()["TargetGroupArn"], ARN);
    };
    use BalancerKind::{Application, Network};
    let follow = Some("use_load_balancer_configuration");
    check("HTTP", follow, (Application, true)).await;
    check("HTTPS", Some("false"), (Application, false)).await;
    check("HTTP", None, (Application, true)).await;
    check("", None, (Application, true)).await;
    check("TCP", follow, (Network, false)).await;
    check("TLS", Some("true"), (Network, true)).await;
    for protocol in ["UDP", "TCP_UDP", "QUIC", "TCP_QUIC", "GENEVE", "TO_COME"] {
        check(protocol, None, (Network, false)).await;
    }
}

#[tokio::test]
async fn a_group_without_a_delay_has_the_default() {
    let (_replay, targets) = targets([group_xml("HTTP"), attributes_xml(&[])]).await;
    let settings = targets.settings(&arn()).await.unwrap().unwrap();
    assert_eq!(settings.deregistration_delay, Duration::from_secs(300));
}

fn health_xml(targets: &[(&str, u32, &str, &str, &str)]) -> (u16, String) {
    let target = |(id, port, zone, state, reason): &(&str, u32, &str, &str, &str)| {
        let wrap = |tag: &str, text: &str| match text {
            "" => String::new(),
            text => format!("<{tag}>{text}</{tag}>"),
        };
        format!(
            "<member><Target><Id>{id}</Id><Port>{port}</Port>{}</Target><HealthCheckPort>{port}</HealthCheckPort>\
             <TargetHealth>{}{}</TargetHealth></member>",
            wrap("AvailabilityZone", zone),
            wrap("State", state),
            wrap("Reason", reason),
        )
    };
    let targets: String = targets.iter().map(target).collect();
    let result = format!("<TargetHealthDescriptions>{targets}</TargetHealthDescriptions>");
    xml("DescribeTargetHealth", &result)
}

#[tokio::test]
async fn every_state_of_a_target_is_read() {
    let unused = |registered: bool| TargetHealth::Unused { registered };
    let table = [
        ("initial", "Elb.RegistrationInProgress", TargetHealth::Initial),
        ("healthy", "", TargetHealth::Healthy),
        ("unhealthy", "Target.Timeout", TargetHealth::Unhealthy),
        ("unhealthy.draining", "Target.FailedHealthChecks", TargetHealth::Unhealthy),
        ("draining", "Target.DeregistrationInProgress", TargetHealth::Draining),
        ("unused", "Target.NotRegistered", unused(false)),
        ("unused", "Target.NotInUse", unused(true)),
        ("unused", "Target.InvalidState", unused(true)),
        ("unused", "Target.IpUnusable", unused(true)),
        ("unused", "Target.ToCome", unused(true)),
        ("unused", "", unused(true)),
        ("unavailable", "Elb.InternalError", TargetHealth::Unavailable),
        ("to.come", "", TargetHealth::Unavailable),
        ("", "", TargetHealth::Unavailable),
    ];
    let instance = id(1);
    let rows: Vec<_> =
        table.iter().map(|(state, reason, _)| (instance.as_str(), 30_080, "", *state, *reason)).collect();
    let (replay, targets) = targets([health_xml(&rows)]).await;
    let states = targets.health(&arn()).await.unwrap().unwrap();
    assert_eq!(states.len(), table.len());
    for ((state, reason, expect), read) in table.iter().zip(states) {
        assert_eq!(read.health, *expect, "{state} {reason}");
    }
    let asked = replay.asked()[0].query();
    assert_eq!((asked["TargetGroupArn"].as_str(), asked.len()), (ARN, 2), "all targets, so none is named");
}

#[tokio::test]
async fn only_instances_are_targets_of_ours() {
    let instance = id(1);
    let rows = [
        (instance.as_str(), 30_080, "eu-west-1b", "healthy", ""),
        (instance.as_str(), 30_443, "all", "healthy", ""),
        ("10.0.3.17", 8_080, "eu-west-1b", "healthy", ""),
        ("arn:aws:lambda:eu-west-1:111122223333:function:f", 80, "", "healthy", ""),
        (instance.as_str(), 70_000, "", "healthy", ""),
    ];
    let (_replay, targets) = targets([health_xml(&rows)]).await;
    let state = |port: u16, zone: Option<&str>| TargetState {
        instance: id(1),
        port,
        zone: zone.map(Zone::from),
        health: TargetHealth::Healthy,
    };
    let expect = vec![state(30_080, Some("eu-west-1b")), state(30_443, None)];
    assert_eq!(targets.health(&arn()).await, Ok(Some(expect)));
}

#[tokio::test]
async fn a_target_group_that_is_gone_is_none_and_one_that_cannot_be_read_is_a_fault() {
    let gone = || xml_error(400, "TargetGroupNotFound", "Target groups 'web' not found");
    let (_replay, port) = targets([gone(), gone(), group_xml("HTTP"), gone()]).await;
    assert_eq!(port.health(&arn()).await, Ok(None));
    assert_eq!(port.settings(&arn()).await, Ok(None));
    assert_eq!(port.settings(&arn()).await, Ok(None));

    let check = async |answer: (u16, String), expect: fn(String) -> Fault, says: &str| {
        let (replay, port) = targets([answer]).await;
        let expect = expect(format!("describing target health of web: {says}"));
        assert_eq!(port.health(&arn()).await, Err(expect));
        assert_eq!(replay.asked().len(), 1);
    };
    let answer = xml_error(400, "Throttling", "Rate exceeded");
    check(answer, Fault::Retry, "AWS answered Throttling: Rate exceeded").await;
    check(xml_error(500, "HealthUnavailable", ""), Fault::Retry, "AWS answered HealthUnavailable").await;
    check((500, String::new()), Fault::Retry, "HTTP status 500 without an error code of AWS").await;
    check(xml_error(403, "AccessDenied", "no"), Fault::Denied, "AWS answered AccessDenied: no").await;

    let (url, _server) = hangs_up_after("HTTP/1.1 200 OK\r\ncontent-length: 999\r\n\r\n<Describe").await;
    let port = Sessions::new(access(&url).await, account_region(), None).targets(&account_region()).unwrap();
    assert!(matches!(port.health(&arn()).await, Err(Fault::Retry(_))));
}

fn target(number: usize, port: u16) -> TargetKey {
    TargetKey { group: arn(), instance: id(number), port }
}

#[tokio::test]
async fn targets_are_named_by_id_and_port_in_one_call() {
    let (replay, targets) = targets([xml("DeregisterTargets", ""), xml("RegisterTargets", "")]).await;
    let out = [
        TargetCall::Deregister(target(1, 30_080)),
        TargetCall::Deregister(target(1, 30_443)),
        TargetCall::Deregister(target(2, 30_080)),
    ];
    assert_eq!(targets.perform(&out).await, vec![Ok(Outcome::Done); 3]);
    assert_eq!(targets.perform(&[TargetCall::Register(target(1, 30_080))]).await, [Ok(Outcome::Done)]);
    assert_eq!(targets.perform(&[]).await, []);
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let member = |index: usize| {
        let value = |field: &str| asked[0][&format!("Targets.member.{index}.{field}")].clone();
        (value("Id"), value("Port"))
    };
    assert_eq!(
        (asked[0]["Action"].as_str(), asked[0]["TargetGroupArn"].as_str()),
        ("DeregisterTargets", ARN)
    );
    assert_eq!(member(1), (id(1).to_string(), "30080".to_owned()));
    assert_eq!(member(2), (id(1).to_string(), "30443".to_owned()));
    assert_eq!(member(3), (id(2).to_string(), "30080".to_owned()));
    assert_eq!(
        (asked[1]["Action"].as_str(), asked[1]["Targets.member.1.Port"].as_str()),
        ("RegisterTargets", "30080")
    );
}

#[tokio::test]
async fn refused_changes_are_gone_or_faults() {
    let check = async |answer: (u16, String), expect: Result<Outcome, fn(String) -> Fault>| {
        for (call, doing) in [
            (TargetCall::Deregister(target(1, 80)), "deregistering 1 targets of web"),
            (TargetCall::Register(target(1, 80)), "registering 1 targets of web"),
        ] {
            let (_replay, targets) = targets([answer.clone()]).await;
            match (targets.perform(&[call]).await.remove(0), &expect) {
                (Err(fault), Err(expect)) => {
                    assert_eq!(fault, expect(fault.to_string()));
                    assert!(fault.to_string().starts_with(doing), "{fault}");
                }
                (answer, expect) => assert_eq!(answer.ok(), expect.clone().ok()),
            }
        }
    };
    check(xml_error(400, "TargetGroupNotFound", ""), Ok(Outcome::Gone)).await;
    check(xml_error(400, "InvalidTarget", "not in a running state"), Ok(Outcome::Gone)).await;
    check(xml_error(400, "Throttling", "Rate exceeded"), Err(Fault::Retry)).await;
    check(xml_error(403, "AccessDenied", ""), Err(Fault::Denied)).await;
    check(xml_error(400, "TooManyTargets", ""), Err(Fault::Invalid)).await;
}

#[tokio::test]
async fn one_target_that_is_gone_does_not_keep_the_others() {
    let gone = || xml_error(400, "InvalidTarget", "i-1 does not exist");
    let done = || xml("DeregisterTargets", "");
    // All three; the first; the other two; of them one and the other.
    let (replay, targets) = targets([gone(), done(), gone(), gone(), done()]).await;
    let calls: Vec<_> = (0..3).map(|number| TargetCall::Deregister(target(number, 80))).collect();
    let expect = [Ok(Outcome::Done), Ok(Outcome::Gone), Ok(Outcome::Done)];
    assert_eq!(targets.perform(&calls).await, expect);
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let firsts: Vec<_> = asked.iter().map(|asked| asked["Targets.member.1.Id"].clone()).collect();
    assert_eq!(firsts, [id(0), id(0), id(1), id(1), id(2)].map(|id| id.to_string()));
}
