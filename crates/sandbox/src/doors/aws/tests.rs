use std::collections::BTreeMap;
use std::time::Duration;

use offramp_core::{BalancerKind, GroupName, Timestamp, Zone};
use offramp_engine::Clock;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::world::groups::{GroupSpec, Hook, Template};
use crate::{Delays, World};

/// A server on loopback with a group of two members, a hook and an attached target group. Delays are
/// short, because there is no virtual time on a socket.
async fn serve() -> (Sandbox, String) {
    let now = Clock::system().now();
    let delays = Delays {
        deregistration: Duration::from_millis(300),
        group_reaction: Duration::from_millis(50),
        event: Duration::from_millis(50),
        first_health_checks: Duration::from_millis(100),
        ..Delays::demo()
    };
    let mut world = World::new(now - Duration::from_secs(600), delays, 7);
    world.create_event_queue("offramp", 100);
    let arn = world.create_target_group("web", BalancerKind::Application, 30_080);
    world.create_target_group("other", BalancerKind::Network, 30_443);
    world.create_group(GroupSpec {
        name: GroupName::new("workers-blue"),
        min: 0,
        max: 5,
        desired: 2,
        hooks: vec![Hook {
            metadata: Some("{\"cluster\":\"blue\"}".to_owned()),
            ..Hook::terminating("drain")
        }],
        tags: BTreeMap::from([("team".to_owned(), "web & shop".to_owned())]),
        target_groups: vec![arn],
        capacity_rebalancing: false,
        template: Template {
            zones: vec![Zone::new("eu-west-1a"), Zone::new("eu-west-1b")],
            spot: true,
            cluster: None,
            labels: BTreeMap::new(),
        },
    });
    world.advance(now);
    let sandbox = Sandbox::new(world, Clock::system());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (router, running) = (aws_router(sandbox.clone()), sandbox.clone());
    tokio::spawn(async move {
        tokio::select! {
            served = axum::serve(listener, router) => served.unwrap(),
            () = running.run() => {}
        }
    });
    (sandbox, address)
}

/// Status, headers and body of one request on a connection of its own.
async fn send(address: &str, method: &str, path: &str, headers: &str, body: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

async fn sqs(address: &str, operation: &str, body: &str) -> (u16, String, serde_json::Value) {
    let headers = format!("x-amz-target: AmazonSQS.{operation}\r\n");
    let (status, head, body) = send(address, "POST", "/", &headers, body).await;
    (status, head, serde_json::from_str(&body).unwrap())
}

async fn query(address: &str, version: &str, form: &str) -> (u16, String) {
    let (status, _, body) = send(address, "POST", "/", "", &format!("Version={version}&Action={form}")).await;
    (status, body)
}

const URL: &str = "http://x/111122223333/offramp";

#[tokio::test]
async fn sqs_errors_have_the_shape_of_aws() {
    let (_, address) = serve().await;
    let (status, head, body) =
        sqs(&address, "ReceiveMessage", r#"{"QueueUrl":"http://x/111122223333/none"}"#).await;
    assert_eq!(status, 400);
    assert!(head.contains("x-amzn-query-error: aws.simplequeueservice.nonexistentqueue;sender"), "{head}");
    assert!(head.contains("content-type: application/x-amz-json-1.0"), "{head}");
    assert_eq!(body["__type"], "com.amazonaws.sqs#QueueDoesNotExist");
    assert_eq!(body["message"], "The specified queue does not exist.");
    let check = async |operation: &str, more: &str, message: &str| {
        let request = format!("{{\"QueueUrl\":{URL:?},{more}}}");
        let (status, _, body) = sqs(&address, operation, &request).await;
        assert_eq!((status, body["message"].as_str()), (400, Some(message)));
    };
    check(
        "ReceiveMessage",
        "\"MaxNumberOfMessages\":11",
        "Value 11 for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.",
    )
    .await;
    check(
        "ReceiveMessage",
        "\"WaitTimeSeconds\":-1",
        "Value -1 for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided.",
    )
    .await;
    let entries: Vec<String> =
        (0..20).map(|id| format!("{{\"Id\":\"{id}\",\"ReceiptHandle\":\"x\"}}")).collect();
    check(
        "DeleteMessageBatch",
        &format!("\"Entries\":[{}]", entries.join(",")),
        "Maximum number of entries per request are 10. You have sent 20.",
    )
    .await;
    let (status, _, body) = sqs(&address, "TagQueue", "{}").await;
    assert_eq!((status, body["message"].as_str()), (501, Some("the sandbox does not know TagQueue")));
}

#[tokio::test]
async fn sqs_digests_are_those_that_clients_compute() {
    let (_, address) = serve().await;
    let request = format!(
        "{{\"QueueUrl\":{URL:?},\"MessageBody\":\"hello\",\"MessageAttributes\":{{\"a\":{{\"DataType\":\"String\",\"StringValue\":\"b\"}}}}}}"
    );
    let (_, _, sent) = sqs(&address, "SendMessage", &request).await;
    // md5 of "hello", and md5 of 00000001 'a' 00000006 'String' 01 00000001 'b', by coreutils' md5sum.
    assert_eq!(sent["MD5OfMessageBody"], "5d41402abc4b2a76b9719d911017c592");
    assert_eq!(sent["MD5OfMessageAttributes"], "bef8bf215374a0a228d67533b1a488be");
}

#[tokio::test]
async fn a_closed_connection_swallows_no_message() {
    let (sandbox, address) = serve().await;
    let body = format!("{{\"QueueUrl\":{URL:?},\"WaitTimeSeconds\":20}}");
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let length = body.len();
    let request = format!(
        "POST / HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\nx-amz-target: AmazonSQS.ReceiveMessage\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    // The clock's task and the poll wait for changes; the poll is over when only the first is left.
    let waiting = async |count: usize| {
        let open = || sandbox.waiting.lock().unwrap().iter().filter(|one| !one.is_closed()).count();
        while open() != count {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), async {
        waiting(2).await;
        drop(stream);
        waiting(1).await;
    })
    .await
    .unwrap();
    let send = format!("{{\"QueueUrl\":{URL:?},\"MessageBody\":\"a\"}}");
    assert_eq!(sqs(&address, "SendMessage", &send).await.0, 200);
    assert_eq!(sandbox.peek(|world| world.queues.get("offramp").unwrap().depth(world.now())), (1, 0));
}

#[tokio::test]
async fn pages_have_tokens() {
    let (_, address) = serve().await;
    let (_, first) = query(&address, "2011-01-01", "DescribeAutoScalingInstances&MaxRecords=1").await;
    let token = first.split("<NextToken>").nth(1).unwrap().split('<').next().unwrap();
    let form = format!("DescribeAutoScalingInstances&MaxRecords=1&NextToken={token}");
    let (_, second) = query(&address, "2011-01-01", &form).await;
    assert!(second.contains(&format!("<InstanceId>{token}</InstanceId>")) && !second.contains("NextToken"));
    let (_, first) = query(&address, "2015-12-01", "DescribeTargetGroups&PageSize=1").await;
    let marker = first.split("<NextMarker>").nth(1).unwrap().split('<').next().unwrap();
    assert!(marker.starts_with("arn:aws:elasticloadbalancing:"), "{marker}");
}

/// What stands between the tags of this name.
fn texts<'a>(body: &'a str, name: &str) -> Vec<&'a str> {
    let open = format!("<{name}>");
    body.split(open.as_str()).skip(1).map(|rest| rest.split('<').next().unwrap()).collect()
}

#[tokio::test]
async fn groups_are_filtered_by_their_tags() {
    let (_, address) = serve().await;
    let check = async |filters: &[(&str, &str)], found: bool| {
        let mut form = "DescribeAutoScalingGroups".to_owned();
        for (index, (name, values)) in filters.iter().enumerate() {
            let prefix = format!("&Filters.member.{}", index + 1);
            form += &format!("{prefix}.Name={name}");
            for (index, value) in values.split(',').enumerate() {
                form += &format!("{prefix}.Values.member.{}={value}", index + 1);
            }
        }
        let (status, body) = query(&address, "2011-01-01", &form).await;
        assert_eq!((status, body.contains("workers-blue")), (200, found), "{filters:?}");
    };
    check(&[("tag-key", "team")], true).await;
    check(&[("tag-key", "Team")], false).await;
    check(&[("tag-key", "other,team")], true).await;
    check(&[("tag-value", "web %26 shop")], true).await;
    check(&[("tag:team", "web %26 shop")], true).await;
    check(&[("tag:team", "web")], false).await;
    check(&[("tag:other", "web %26 shop")], false).await;
    check(&[("tag-key", "team"), ("tag-value", "none")], false).await;
    let (status, body) =
        query(&address, "2011-01-01", "DescribeAutoScalingGroups&Filters.member.1.Name=size").await;
    assert_eq!(status, 501);
    assert!(body.contains("the filter size"), "{body}");
    let (status, _) =
        query(&address, "2011-01-01", "DescribeAutoScalingInstances&Filters.member.1.Name=tag-key").await;
    assert_eq!(status, 501);
}

#[tokio::test]
async fn scaling_activities_come_page_by_page_the_newest_first() {
    let (sandbox, address) = serve().await;
    let ids: Vec<_> =
        sandbox.peek(|world| world.instances.all().map(|instance| instance.id.clone()).collect());
    let mut told = Vec::new();
    for id in &ids {
        let form = format!(
            "TerminateInstanceInAutoScalingGroup&InstanceId={id}&ShouldDecrementDesiredCapacity=true"
        );
        let (_, body) = query(&address, "2011-01-01", &form).await;
        told.push(texts(&body, "ActivityId")[0].to_owned());
    }
    let form = "DescribeScalingActivities&AutoScalingGroupName=workers-blue&MaxRecords=1";
    let (_, first) = query(&address, "2011-01-01", form).await;
    let description = format!("Terminating EC2 instance: {}", ids[1]);
    assert_eq!(texts(&first, "Description"), [description]);
    assert_eq!(texts(&first, "ActivityId"), [told[1].as_str()], "the one that was told");
    assert!(
        ["InProgress", "MidTerminatingLifecycleAction"].contains(&texts(&first, "StatusCode")[0]),
        "{first}"
    );
    let token = texts(&first, "NextToken")[0].to_owned();
    let (_, second) = query(&address, "2011-01-01", &format!("{form}&NextToken={token}")).await;
    assert_eq!(texts(&second, "ActivityId"), [told[0].as_str()]);
    assert!(!second.contains("NextToken"), "{second}");

    let (status, body) =
        query(&address, "2011-01-01", "DescribeScalingActivities&AutoScalingGroupName=none").await;
    assert_eq!(status, 400);
    assert!(body.contains("AutoScalingGroup name not found"), "{body}");
    let (status, body) =
        query(&address, "2011-01-01", "DescribeScalingActivities&IncludeDeletedGroups=true").await;
    assert_eq!(status, 501);
    assert!(body.contains("IncludeDeletedGroups"), "{body}");
}

#[tokio::test]
async fn query_errors_and_text_are_well_formed() {
    let (_, address) = serve().await;
    let (status, body) = query(&address, "2011-01-01", "DescribeAutoScalingGroups").await;
    assert_eq!(status, 200);
    assert!(body.contains("<Value>web &amp; shop</Value>"), "{body}");
    let (status, body) = query(
        &address,
        "2011-01-01",
        "CompleteLifecycleAction&AutoScalingGroupName=workers-blue&LifecycleHookName=drain&LifecycleActionResult=CONTINUE&InstanceId=i-0b1c2d3e4f5061728",
    )
    .await;
    assert_eq!(status, 400);
    assert!(body.contains("<Code>ValidationError</Code>"), "{body}");
    let text = "<Message>No active Lifecycle Action found with instance ID i-0b1c2d3e4f5061728</Message>";
    assert!(body.contains(text), "{body}");
    let (status, body) = query(&address, "2011-01-01", "CreateAutoScalingGroup").await;
    assert_eq!(status, 501);
    assert!(body.contains("CreateAutoScalingGroup"), "{body}");
    let (status, body) = query(&address, "2016-11-15", "DescribeInstances").await;
    assert_eq!(status, 501);
    assert!(body.contains("DescribeInstances"), "{body}");
}

#[tokio::test]
async fn controls_change_the_world() {
    let (sandbox, address) = serve().await;
    let id = sandbox.peek(|world| world.instances.all().next().unwrap().id.clone());
    let (status, _, _) = send(&address, "POST", &format!("/_sandbox/rebalance/{id}"), "", "").await;
    assert_eq!(status, 200);
    let (status, _, _) = send(&address, "POST", &format!("/_sandbox/spot/{id}"), "", "").await;
    assert_eq!(status, 200);
    let (status, _, _) = send(&address, "POST", &format!("/_sandbox/spot/{id}"), "", "").await;
    assert_eq!(status, 400, "only once");
    let (status, _, _) = send(&address, "POST", "/_sandbox/desired/workers-blue?capacity=3", "", "").await;
    assert_eq!(status, 200);
    let (_, _, state) = send(&address, "GET", "/_sandbox/state", "", "").await;
    let state: serde_json::Value = serde_json::from_str(&state).unwrap();
    assert_eq!(state["groups"]["workers-blue"]["desired"], 3);
    assert_eq!(state["instances"][id.as_str()]["state"], "running");
}

#[test]
fn events_carry_whole_seconds() {
    let at = Timestamp::from_millis(1_773_480_413_904);
    assert_eq!(crate::world::events::seconds(at), "2026-03-14T09:26:53Z");
    assert_eq!(crate::world::events::millis(at), "2026-03-14T09:26:53.904Z");
}
