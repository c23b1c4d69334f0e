use std::collections::BTreeSet;
use std::sync::Arc;

use offramp_engine::Sessions as _;

use super::*;
use crate::replay::{Replay, account_region, xml, xml_error};
use crate::sessions::Sessions;

async fn groups(answers: impl IntoIterator<Item = (u16, String)>) -> (Replay, Arc<dyn Groups>) {
    scoped(None, answers).await
}

async fn scoped(
    scope: Option<GroupTag>,
    answers: impl IntoIterator<Item = (u16, String)>,
) -> (Replay, Arc<dyn Groups>) {
    let replay = Replay::of(answers).await;
    let sessions = Sessions::new(replay.access().await, account_region(), scope);
    let groups = sessions.groups(&account_region()).unwrap();
    (replay, groups)
}

fn id(number: usize) -> InstanceId {
    InstanceId::parse(&format!("i-{number:017x}")).unwrap()
}

fn instances_xml(members: &[(usize, &str, &str)], next: Option<&str>) -> (u16, String) {
    let member = |(number, state, health): &(usize, &str, &str)| {
        format!(
            "<member><InstanceId>{}</InstanceId><AutoScalingGroupName>workers</AutoScalingGroupName>\
             <AvailabilityZone>eu-west-1b</AvailabilityZone><LifecycleState>{state}</LifecycleState>\
             <HealthStatus>{health}</HealthStatus><ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>",
            id(*number)
        )
    };
    let members: String = members.iter().map(member).collect();
    let next = next.map_or(String::new(), |token| format!("<NextToken>{token}</NextToken>"));
    let result = format!("<AutoScalingInstances>{members}</AutoScalingInstances>{next}");
    xml("DescribeAutoScalingInstances", &result)
}

#[tokio::test]
async fn instances_are_read_over_all_pages() {
    let answers = [
        instances_xml(&[(1, "InService", "HEALTHY"), (2, "Terminating:Wait", "UNHEALTHY")], Some("more")),
        instances_xml(&[(3, "Quarantined", "Healthy")], None),
        instances_xml(&[(50, "Standby", "Unhealthy")], None),
    ];
    let (replay, groups) = groups(answers).await;
    let ids: Vec<_> = (0..51).map(id).collect();
    let found = groups.instances(&ids).await.unwrap();
    let member = |state: LifecycleState, healthy: bool| Membership {
        group: "workers".into(),
        state,
        healthy,
        pooled: false,
    };
    let expect = BTreeMap::from([
        (id(1), member(LifecycleState::InService, true)),
        (id(2), member(LifecycleState::TerminatingWait, false)),
        (id(3), member(LifecycleState::Other("Quarantined".to_owned()), true)),
        (id(50), member(LifecycleState::Standby, false)),
    ]);
    assert_eq!(found, expect);
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let count = |index: usize| asked[index].keys().filter(|key| key.starts_with("InstanceIds.")).count();
    assert_eq!((count(0), count(1), count(2)), (50, 50, 1));
    assert_eq!((asked[0].get("NextToken"), asked[1]["NextToken"].as_str()), (None, "more"));
    assert_eq!(asked[2]["InstanceIds.member.1"], id(50).to_string());
}

#[test]
fn an_instance_ends_in_the_warm_pool_by_its_state() {
    for state in
        ["Warmed:Terminating", "Warmed:Terminating:Wait", "Warmed:Terminating:Proceed", "Warmed:Terminated"]
    {
        assert!(ends_in_pool(state), "{state}");
    }
    // What comes back into the pool has served.
    for state in ["Terminating:Wait", "Warmed:Pending:Wait", "Warmed:Stopped", "InService", ""] {
        assert!(!ends_in_pool(state), "{state}");
    }
}

#[test]
fn states_are_known_or_other() {
    let check = |text: &str, expect: LifecycleState| assert_eq!(lifecycle_state(text), expect);
    check("InService", LifecycleState::InService);
    check("Standby", LifecycleState::Standby);
    check("Terminating", LifecycleState::Terminating);
    check("Terminating:Wait", LifecycleState::TerminatingWait);
    check("Terminating:Proceed", LifecycleState::TerminatingProceed);
    check("Terminated", LifecycleState::Terminated);
    check("Warmed:Pending:Wait", LifecycleState::WarmedPendingWait);
    check("ReplacingRootVolume:Wait", LifecycleState::ReplacingRootVolumeWait);
    // An instance that ends in the warm pool has the same hooks.
    check("Warmed:Terminating:Wait", LifecycleState::TerminatingWait);
    check("Warmed:Terminated", LifecycleState::Terminated);
    for warmed in ["Warmed:Pending:Proceed", "Warmed:Running", "Warmed:Stopped", "Warmed:Hibernated"] {
        check(warmed, LifecycleState::Warmed);
    }
    for other in ["Pending", "Detaching", "EnteringStandby", "Terminating:Retained", "Warmed:Pending", ""] {
        check(other, LifecycleState::Other(other.to_owned()));
    }
}

fn group_xml(tags: &[(&str, &str)]) -> (u16, String) {
    let tag = |(key, value): &(&str, &str)| {
        format!(
            "<member><ResourceId>workers</ResourceId><ResourceType>auto-scaling-group</ResourceType>\
             <Key>{key}</Key><Value>{value}</Value><PropagateAtLaunch>true</PropagateAtLaunch></member>"
        )
    };
    let tags: String = tags.iter().map(tag).collect();
    let arn = "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/73e2d6bc24d8a067";
    let result = format!(
        "<AutoScalingGroups><member><AutoScalingGroupName>workers</AutoScalingGroupName><MinSize>1</MinSize>\
         <MaxSize>9</MaxSize><DesiredCapacity>3</DesiredCapacity><DefaultCooldown>300</DefaultCooldown>\
         <AvailabilityZones><member>eu-west-1b</member></AvailabilityZones><Instances>\
         <member><InstanceId>i-0b1c2d3e4f5061728</InstanceId><LifecycleState>Terminating:Wait</LifecycleState></member>\
         <member><InstanceId>i-0b1c2d3e4f5061729</InstanceId><LifecycleState>InService</LifecycleState></member>\
         </Instances>\
         <HealthCheckType>EC2</HealthCheckType><CreatedTime>2026-03-01T08:00:00Z</CreatedTime>\
         <CapacityRebalance>true</CapacityRebalance><Tags>{tags}</Tags>\
         <TargetGroupARNs><member>{arn}</member></TargetGroupARNs></member></AutoScalingGroups>"
    );
    xml("DescribeAutoScalingGroups", &result)
}

fn hooks_xml() -> (u16, String) {
    let hook = |name: &str, transition: &str, more: &str| {
        format!(
            "<member><LifecycleHookName>{name}</LifecycleHookName>\
             <AutoScalingGroupName>workers</AutoScalingGroupName>\
             <LifecycleTransition>autoscaling:{transition}</LifecycleTransition>\
             <DefaultResult>CONTINUE</DefaultResult>{more}</member>"
        )
    };
    let times = "<HeartbeatTimeout>300</HeartbeatTimeout><GlobalTimeout>30000</GlobalTimeout>\
                 <NotificationMetadata>{\"cluster\":\"blue\"}</NotificationMetadata>";
    let hooks = [
        hook("drain", "EC2_INSTANCE_TERMINATING", times),
        hook("bare", "EC2_INSTANCE_TERMINATING", ""),
        hook("warm", "EC2_INSTANCE_LAUNCHING", times),
    ]
    .concat();
    xml("DescribeLifecycleHooks", &format!("<LifecycleHooks>{hooks}</LifecycleHooks>"))
}

#[tokio::test]
async fn a_group_is_read_with_its_terminate_hooks() {
    let (replay, groups) = groups([group_xml(&[("Name", "w")]), hooks_xml()]).await;
    let group = groups.group(&"workers".into()).await.unwrap().unwrap();
    let expect = Group {
        name: "workers".into(),
        terminate_hooks: vec![
            HookSpec {
                name: "drain".into(),
                heartbeat_timeout: Duration::from_secs(300),
                global_timeout: Duration::from_secs(30_000),
                cluster_hint: Some("blue".into()),
            },
            HookSpec {
                name: "bare".into(),
                heartbeat_timeout: Duration::from_secs(3_600),
                global_timeout: Duration::from_secs(48 * 3_600),
                cluster_hint: None,
            },
        ],
        capacity_rebalancing: true,
        managed: false,
        in_scope: true,
        target_groups: vec![TargetGroupArn::new(
            "arn:aws:elasticloadbalancing:eu-west-1:111122223333:targetgroup/web/73e2d6bc24d8a067",
        )],
        leaving: BTreeSet::from([InstanceId::parse("i-0b1c2d3e4f5061728").unwrap()]),
    };
    assert_eq!(group, expect);
    let asked = replay.asked();
    assert_eq!(asked[0].query()["AutoScalingGroupNames.member.1"], "workers");
    let expect = [("Action", "DescribeLifecycleHooks"), ("AutoScalingGroupName", "workers")];
    assert_eq!(asked[1].query(), expect.map(|(key, value)| (key.to_owned(), value.to_owned())).into());
}

#[tokio::test]
async fn tags_say_who_owns_a_group_and_whether_it_is_in_scope() {
    let check =
        async |scope: Option<(&str, Option<&str>)>, tags: &[(&str, &str)], managed: bool, in_scope: bool| {
            let scope = scope
                .map(|(key, value)| GroupTag { key: key.to_owned(), value: value.map(ToOwned::to_owned) });
            let (_replay, groups) = scoped(scope, [group_xml(tags), hooks_xml()]).await;
            let group = groups.group(&"workers".into()).await.unwrap().unwrap();
            assert_eq!((group.managed, group.in_scope), (managed, in_scope), "{tags:?}");
        };
    check(None, &[], false, true).await;
    check(None, &[("eks:nodegroup-name", "ng-1")], true, true).await;
    check(Some(("offramp", None)), &[], false, false).await;
    check(Some(("offramp", None)), &[("offramp", "")], false, true).await;
    check(Some(("offramp", Some("on"))), &[("offramp", "on")], false, true).await;
    check(Some(("offramp", Some("on"))), &[("offramp", "off"), ("other", "on")], false, false).await;
}

#[tokio::test]
async fn a_group_that_is_not_there_is_none_and_one_that_cannot_be_read_is_a_fault() {
    let none = xml("DescribeAutoScalingGroups", "<AutoScalingGroups/>");
    let (_replay, port) = groups([none]).await;
    assert_eq!(port.group(&"workers".into()).await, Ok(None));

    let text = "AutoScalingGroup name not found - AutoScalingGroup 'workers' not found";
    let (_replay, port) = groups([group_xml(&[]), xml_error(400, "ValidationError", text)]).await;
    assert_eq!(port.group(&"workers".into()).await, Ok(None));

    let (_replay, port) = groups([xml_error(400, "Throttling", "Rate exceeded")]).await;
    let fault = "describing Auto Scaling group workers: AWS answered Throttling: Rate exceeded";
    assert_eq!(port.group(&"workers".into()).await, Err(Fault::Retry(fault.to_owned())));

    let (_replay, port) = groups([xml_error(403, "AccessDenied", "not authorized")]).await;
    let fault = "describing Auto Scaling instances: AWS answered AccessDenied: not authorized";
    assert_eq!(port.instances(&[id(1)]).await, Err(Fault::Denied(fault.to_owned())));
}

const TOKEN: &str = "87654321-4321-4321-4321-210987654321";

fn hook(token: Option<&str>) -> HookKey {
    HookKey { group: "workers".into(), name: "drain".into(), token: token.map(HookToken::new) }
}

#[tokio::test]
async fn hooks_are_answered_by_token_else_by_instance() {
    let done = |action: &str| xml(action, "");
    let (replay, groups) =
        groups([done("RecordLifecycleActionHeartbeat"), done("CompleteLifecycleAction")]).await;
    let calls = [GroupCall::Heartbeat(id(1), hook(Some(TOKEN))), GroupCall::CompleteHook(id(2), hook(None))];
    assert_eq!(groups.perform(&calls).await, [Ok(Outcome::Done), Ok(Outcome::Done)]);
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let expect = pairs(&[
        ("Action", "RecordLifecycleActionHeartbeat"),
        ("AutoScalingGroupName", "workers"),
        ("LifecycleHookName", "drain"),
        ("LifecycleActionToken", TOKEN),
    ]);
    assert_eq!(asked[0], expect);
    let expect = pairs(&[
        ("Action", "CompleteLifecycleAction"),
        ("AutoScalingGroupName", "workers"),
        ("LifecycleHookName", "drain"),
        ("LifecycleActionResult", "CONTINUE"),
        ("InstanceId", id(2).as_str()),
    ]);
    assert_eq!(asked[1], expect);
}

#[tokio::test]
async fn refused_answers_to_hooks_are_gone_only_when_they_are() {
    let check = async |answers: Vec<(u16, String)>, expect: Result<Outcome, Fault>| {
        for call in [
            GroupCall::Heartbeat(id(1), hook(Some(TOKEN))),
            GroupCall::CompleteHook(id(1), hook(Some(TOKEN))),
        ] {
            let (replay, groups) = groups(answers.clone()).await;
            let answer = groups.perform(&[call]).await.remove(0);
            let same = match (&answer, &expect) {
                (Err(fault), Err(expect)) => std::mem::discriminant(fault) == std::mem::discriminant(expect),
                (answer, expect) => answer == expect,
            };
            assert!(same, "{answer:?} instead of {expect:?}");
            assert!(!format!("{answer:?}").contains(TOKEN), "{answer:?}");
            replay.asked();
        }
    };
    let refused = |text: &str| xml_error(400, "ValidationError", text);
    let late = format!("No active Lifecycle Action found with token {TOKEN}");
    check(vec![refused(&late)], Ok(Outcome::Gone)).await;
    check(vec![refused("AutoScalingGroup name not found - null")], Ok(Outcome::Gone)).await;

    // Words that say nothing certain: the hooks of the group decide.
    let unclear = || refused(&format!("something about {TOKEN}"));
    let denied = || Err(Fault::Denied(String::new()));
    let retry = || Err(Fault::Retry(String::new()));
    check(vec![unclear(), hooks_xml()], denied()).await;
    check(vec![unclear(), xml("DescribeLifecycleHooks", "<LifecycleHooks/>")], Ok(Outcome::Gone)).await;
    check(vec![unclear(), refused("AutoScalingGroup name not found - null")], Ok(Outcome::Gone)).await;
    check(vec![unclear(), xml_error(400, "Throttling", "Rate exceeded")], retry()).await;

    check(vec![xml_error(500, "ResourceContention", "busy")], retry()).await;
    check(vec![(503, String::new())], retry()).await;
    check(vec![xml_error(403, "ExpiredToken", "The security token is expired")], denied()).await;
}

#[tokio::test]
async fn detaches_of_one_group_go_together_up_to_twenty() {
    let done = || xml("DetachInstances", "<Activities/>");
    let (replay, groups) = groups([done(), done(), done()]).await;
    let mut calls: Vec<_> = (0..21).map(|number| GroupCall::Detach(id(number), "workers".into())).collect();
    calls.push(GroupCall::Detach(id(21), "others".into()));
    assert_eq!(groups.perform(&calls).await, vec![Ok(Outcome::Done); 22]);
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let ids = |index: usize| asked[index].keys().filter(|key| key.starts_with("InstanceIds.")).count();
    assert_eq!((ids(0), ids(1), ids(2)), (20, 1, 1));
    assert_eq!(asked[1]["InstanceIds.member.1"], id(20).to_string());
    assert_eq!(
        (asked[1]["AutoScalingGroupName"].as_str(), asked[2]["AutoScalingGroupName"].as_str()),
        ("workers", "others")
    );
    assert!(asked.iter().all(|asked| asked["ShouldDecrementDesiredCapacity"] == "false"));
}

#[tokio::test]
async fn one_instance_that_cannot_be_detached_does_not_keep_the_others() {
    let left = format!("The instance {} is not part of Auto Scaling group workers.", id(1));
    let refused = || xml_error(400, "ValidationError", &left);
    let done = || xml("DetachInstances", "<Activities/>");
    // All four; the first half; of it one and the other; the second half.
    let (replay, groups) = groups([refused(), refused(), done(), refused(), done()]).await;
    let calls: Vec<_> = (0..4).map(|number| GroupCall::Detach(id(number), "workers".into())).collect();
    assert_eq!(groups.perform(&calls).await, vec![Ok(Outcome::Done); 4]);
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let firsts: Vec<_> = asked.iter().map(|asked| asked["InstanceIds.member.1"].clone()).collect();
    assert_eq!(firsts, [id(0), id(0), id(0), id(1), id(2)].map(|id| id.to_string()));
}

#[tokio::test]
async fn refused_detaches_and_terminations_are_read_by_their_words() {
    let check = async |call: GroupCall, answer: (u16, String), expect: &Result<Outcome, Fault>| {
        let (replay, groups) = groups([answer]).await;
        assert_eq!(&groups.perform(&[call]).await[0], expect);
        let action = &replay.asked()[0].query()["Action"];
        assert!(action == "DetachInstances" || action == "TerminateInstanceInAutoScalingGroup", "{action}");
    };
    let refused = |text: &str| xml_error(400, "ValidationError", text);
    let detach = || GroupCall::Detach(id(1), "workers".into());
    let terminate = || GroupCall::TerminateThroughGroup(id(1), "workers".into());
    let moving = format!("The instance {} is not in InService or Standby.", id(1));
    let left = format!("The instance {} is not part of Auto Scaling group workers.", id(1));
    let detaching = format!("detaching {} from group workers: AWS answered", id(1));
    let terminating = format!("terminating {} through group workers: AWS answered", id(1));

    check(detach(), refused(&moving), &Ok(Outcome::Done)).await;
    check(detach(), refused(&left), &Ok(Outcome::Done)).await;
    check(detach(), refused("AutoScalingGroup name not found - null"), &Ok(Outcome::Gone)).await;
    let answer = Fault::Invalid(format!("{detaching} ValidationError: what?"));
    check(detach(), refused("what?"), &Err(answer)).await;
    let answer = Fault::Retry(format!("{detaching} ResourceContention: busy"));
    check(detach(), xml_error(500, "ResourceContention", "busy"), &Err(answer)).await;

    let answer = Fault::Retry(format!("{terminating} ScalingActivityInProgress: busy"));
    check(terminate(), xml_error(400, "ScalingActivityInProgress", "busy"), &Err(answer)).await;
    let gone = "Instance Id not found - No managed instance found for instance ID i-1";
    check(terminate(), refused(gone), &Ok(Outcome::Gone)).await;
}

#[tokio::test]
async fn terminating_keeps_the_desired_capacity() {
    let (replay, groups) = groups([xml("TerminateInstanceInAutoScalingGroup", "")]).await;
    assert_eq!(
        groups.perform(&[GroupCall::TerminateThroughGroup(id(1), "workers".into())]).await,
        [Ok(Outcome::Done)]
    );
    let asked = replay.asked()[0].query();
    assert_eq!(asked["InstanceId"], id(1).to_string());
    assert_eq!(asked["ShouldDecrementDesiredCapacity"], "false");
}

/// A group by name, with its tags and with its instances and their states.
type Listed<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a [(&'a str, &'a str)]);

fn groups_xml(groups: &[Listed<'_>], next: Option<&str>) -> (u16, String) {
    let member = |(id, state): &(&str, &str)| {
        format!(
            "<member><InstanceId>{id}</InstanceId><AvailabilityZone>eu-west-1b</AvailabilityZone>\
             <LifecycleState>{state}</LifecycleState><HealthStatus>Unhealthy</HealthStatus>\
             <ProtectedFromScaleIn>false</ProtectedFromScaleIn></member>"
        )
    };
    let tag =
        |(key, value): &(&str, &str)| format!("<member><Key>{key}</Key><Value>{value}</Value></member>");
    let group = |(name, tags, members): &Listed<'_>| {
        let members: String = members.iter().map(member).collect();
        let tags: String = tags.iter().map(tag).collect();
        format!(
            "<member><AutoScalingGroupName>{name}</AutoScalingGroupName><Instances>{members}</Instances>\
             <Tags>{tags}</Tags></member>"
        )
    };
    let groups: String = groups.iter().map(group).collect();
    let next = next.map_or(String::new(), |token| format!("<NextToken>{token}</NextToken>"));
    xml("DescribeAutoScalingGroups", &format!("<AutoScalingGroups>{groups}</AutoScalingGroups>{next}"))
}

#[tokio::test]
async fn instances_out_of_service_are_read_over_all_pages_of_groups() {
    let (one, two, three) = (id(1).to_string(), id(2).to_string(), id(3).to_string());
    let first =
        [(one.as_str(), "InService"), (two.as_str(), "Terminating:Wait"), ("mi-1", "Terminating:Wait")];
    let second = [(three.as_str(), "SomethingNew")];
    let answers = [
        groups_xml(&[("workers", &[], &first), ("empty", &[], &[])], Some("more")),
        groups_xml(&[("others", &[], &second)], None),
    ];
    let (replay, port) = groups(answers).await;
    let member =
        |group: &str, state| Membership { group: group.into(), state, healthy: false, pooled: false };
    let expect = vec![
        (id(2), member("workers", LifecycleState::TerminatingWait)),
        (id(3), member("others", LifecycleState::Other("SomethingNew".to_owned()))),
    ];
    assert_eq!(port.out_of_service().await, Ok(expect));
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    assert_eq!(asked[0], pairs(&[("Action", "DescribeAutoScalingGroups"), ("MaxRecords", "100")]));
    assert_eq!(asked[1]["NextToken"], "more");

    let answers =
        [groups_xml(&[("workers", &[], &first)], Some("more")), xml_error(400, "Throttling", "slow")];
    let (_replay, port) = groups(answers).await;
    let fault = "describing Auto Scaling groups: AWS answered Throttling: slow";
    assert_eq!(port.out_of_service().await, Err(Fault::Retry(fault.to_owned())), "half an answer is none");
}

#[tokio::test]
async fn only_groups_with_the_tag_are_asked_for() {
    let check = async |value: Option<&str>, name: &str, values: &str| {
        let scope = GroupTag { key: "offramp".to_owned(), value: value.map(ToOwned::to_owned) };
        let held = id(1).to_string();
        let held = [(held.as_str(), "Terminating:Wait")];
        // The filter is ignored by this server: what is not in scope is left out all the same.
        let (on, off, none): (&[_], &[_], &[_]) = (&[("offramp", "on")], &[("offramp", "off")], &[]);
        let all = [("on", on, &held[..]), ("off", off, &held), ("none", none, &held)];
        let (replay, port) = scoped(Some(scope), [groups_xml(&all, None)]).await;
        let found = port.out_of_service().await.unwrap();
        let asked = replay.asked()[0].query();
        assert_eq!(
            (asked["Filters.member.1.Name"].as_str(), asked["Filters.member.1.Values.member.1"].as_str()),
            (name, values)
        );
        found.into_iter().map(|(_, member)| member.group.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(check(Some("on"), "tag:offramp", "on").await, ["on"]);
    assert_eq!(check(None, "tag-key", "offramp").await, ["on", "off"]);
}

fn activities_xml(activities: &[(usize, &str, &str)], next: Option<&str>) -> (u16, String) {
    let activity = |(number, start, status): &(usize, &str, &str)| {
        format!(
            "<member><ActivityId>a</ActivityId><AutoScalingGroupName>workers</AutoScalingGroupName>\
             <Description>Terminating EC2 instance: {}</Description><Cause>At some time</Cause>\
             <StartTime>2026-03-14T09:{start}Z</StartTime><StatusCode>{status}</StatusCode>\
             <Progress>60</Progress></member>",
            id(*number)
        )
    };
    let activities: String = activities.iter().map(activity).collect();
    let next = next.map_or(String::new(), |token| format!("<NextToken>{token}</NextToken>"));
    xml("DescribeScalingActivities", &format!("<Activities>{activities}</Activities>{next}"))
}

#[tokio::test]
async fn terminations_are_read_from_two_pages_of_activities() {
    let answers = [
        activities_xml(
            &[
                (1, "30:00.250", "MidTerminatingLifecycleAction"),
                (2, "29:00", "Successful"),
                (3, "28:00", "InProgress"),
            ],
            Some("second"),
        ),
        activities_xml(&[(3, "27:00", "InProgress"), (4, "26:00", "InProgress")], Some("third")),
    ];
    let (replay, port) = groups(answers).await;
    // 2026-03-14T09:00:00Z.
    let nine = 1_773_478_800_000;
    let at = |minute: i64, millis: i64| Timestamp::from_millis(nine + minute * 60_000 + millis);
    let expect = BTreeMap::from([(id(1), at(30, 250)), (id(3), at(28, 0)), (id(4), at(26, 0))]);
    assert_eq!(port.terminations(&"workers".into()).await, Ok(expect));
    let asked: Vec<_> = replay.asked().iter().map(|asked| asked.query()).collect();
    assert_eq!(
        (asked[0]["AutoScalingGroupName"].as_str(), asked[0]["MaxRecords"].as_str()),
        ("workers", "100")
    );
    assert_eq!((asked.len(), asked[1]["NextToken"].as_str()), (2, "second"), "the third page is not read");
}

#[tokio::test]
async fn terminations_of_a_group_that_is_gone_are_none_and_half_an_answer_is_a_fault() {
    let text = "AutoScalingGroup name not found - AutoScalingGroup 'workers' not found";
    let (_replay, port) = groups([xml_error(400, "ValidationError", text)]).await;
    assert_eq!(port.terminations(&"workers".into()).await, Ok(BTreeMap::new()));

    let first = activities_xml(&[(1, "30:00", "InProgress")], Some("second"));
    let (_replay, port) = groups([first, xml_error(403, "AccessDenied", "no")]).await;
    let fault = "describing the scaling activities of group workers: AWS answered AccessDenied: no";
    assert_eq!(port.terminations(&"workers".into()).await, Err(Fault::Denied(fault.to_owned())));
}
