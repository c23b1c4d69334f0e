use std::time::Instant;

use aws_config::BehaviorVersion;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use offramp_core::Region;
use serde_json::{Value, json};

use super::*;
use crate::replay::{Replay, access, account_region, hangs_up_after, json_error};
use crate::sessions::Options;

const URL: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/notices";
const DEAD: &str = "https://sqs.eu-west-1.amazonaws.com/111122223333/notices-dead";

fn ok(body: Value) -> (u16, String) {
    (200, body.to_string())
}

/// The queue without its start: the answers are for what comes after it.
async fn queue(answers: impl IntoIterator<Item = (u16, String)>) -> (Replay, SqsQueue) {
    let replay = Replay::of(answers).await;
    let opened = Opened {
        installation: "eu-west-1:111122223333:offramp".into(),
        account_region: account_region(),
        visibility: None,
        most_receives: None,
        dead_letter_url: Some(DEAD.to_owned()),
    };
    let access = replay.access().await;
    let queue = SqsQueue { client: access.sqs(), meter: access.meter(), url: URL.to_owned(), opened };
    (replay, queue)
}

fn receipts(count: usize) -> Vec<Receipt> {
    (0..count).map(|index| Receipt(format!("AQEB-{index}"))).collect()
}

fn opened_with(redrive: Option<&str>) -> (u16, String) {
    let mut attributes = json!({
        "QueueArn": "arn:aws:sqs:eu-west-1:111122223333:notices",
        "VisibilityTimeout": "30",
    });
    if let Some(redrive) = redrive {
        attributes["RedrivePolicy"] = json!(redrive);
    }
    ok(json!({ "Attributes": attributes }))
}

const REDRIVE: &str =
    r#"{"deadLetterTargetArn":"arn:aws:sqs:eu-west-1:111122223333:notices-dead","maxReceiveCount":100}"#;

async fn open_with(
    policy: DeadLetterPolicy,
    answers: impl IntoIterator<Item = (u16, String)>,
) -> (Replay, Result<SqsQueue, OpenError>) {
    let replay = Replay::of(answers).await;
    let opened = SqsQueue::open(&replay.access().await, URL, policy).await;
    (replay, opened)
}

#[tokio::test]
async fn opening_reads_the_queue_and_finds_the_dead_letter_queue() {
    let answers = [opened_with(Some(REDRIVE)), ok(json!({ "QueueUrl": DEAD }))];
    let (replay, opened) = open_with(DeadLetterPolicy::Required, answers).await;
    let queue = opened.unwrap();
    assert_eq!(queue.account_region(), &account_region());
    assert_eq!(queue.installation().as_str(), "eu-west-1:111122223333:notices");
    assert_eq!(queue.most_receives(), Some(100));
    assert_eq!(queue.default_visibility(), Some(Duration::from_secs(30)));
    assert_eq!(queue.opened.dead_letter_url.as_deref(), Some(DEAD));
    let asked = replay.asked();
    assert_eq!(asked[0].target, "GetQueueAttributes");
    let names = json!(["QueueArn", "RedrivePolicy", "VisibilityTimeout"]);
    assert_eq!(asked[0].json(), json!({ "QueueUrl": URL, "AttributeNames": names }));
    assert_eq!(asked[1].target, "GetQueueUrl");
    let account = "111122223333";
    assert_eq!(asked[1].json(), json!({ "QueueName": "notices-dead", "QueueOwnerAWSAccountId": account }));
}

#[tokio::test]
async fn where_the_url_may_not_be_asked_for_it_is_made() {
    for refusal in [
        json_error(403, "AccessDenied", "not authorized to perform: sqs:getqueueurl"),
        json_error(400, "UnsupportedOperation", "what is this?"),
    ] {
        let answers = [opened_with(Some(REDRIVE)), refusal];
        let (_replay, opened) = open_with(DeadLetterPolicy::Required, answers).await;
        assert_eq!(opened.unwrap().opened.dead_letter_url.as_deref(), Some(DEAD));
    }
}

#[tokio::test]
async fn a_queue_without_dead_letter_queue_is_refused_unless_allowed() {
    let (_replay, refused) = open_with(DeadLetterPolicy::Required, [opened_with(None)]).await;
    let refused = refused.unwrap_err();
    assert!(matches!(refused, OpenError::NoDeadLetterQueue(_)), "{refused:?}");
    assert!(refused.to_string().contains("has no redrive policy"), "{refused}");

    let (replay, opened) = open_with(DeadLetterPolicy::Optional, [opened_with(None)]).await;
    // No copy is kept, so no call is made: no further answer is prepared.
    assert_eq!(opened.unwrap().dead_letter(&a_message("{}"), "unreadable").await, Ok(()));
    assert_eq!(replay.asked().len(), 1);

    let gone = json_error(400, "QueueDoesNotExist", "The specified queue does not exist.");
    let (_replay, refused) = open_with(DeadLetterPolicy::Required, [opened_with(Some(REDRIVE)), gone]).await;
    assert!(matches!(refused, Err(OpenError::NoDeadLetterQueue(_))), "{refused:?}");
}

#[tokio::test]
async fn what_stops_the_start_says_what_to_do() {
    let check = async |answer: (u16, String), expect: fn(String) -> OpenError, says: &str| {
        let (_replay, refused) = open_with(DeadLetterPolicy::Required, [answer]).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused, expect(refused.to_string()));
        assert!(refused.to_string().contains(says) && refused.to_string().contains(URL), "{refused}");
    };
    let text = "User: arn:aws:sts::111122223333:assumed-role/offramp is not authorized to perform: \
                sqs:getqueueattributes";
    check(json_error(403, "AccessDenied", text), OpenError::Denied, "sqs:getqueueattributes").await;
    let text = "The security token included in the request is expired";
    check(json_error(403, "ExpiredToken", text), OpenError::Denied, "renew the credentials").await;
    let text = "The specified queue does not exist.";
    check(json_error(400, "NonExistentQueue", text), OpenError::NoQueue, text).await;
    check((500, "oops".to_owned()), OpenError::Unreachable, "HTTP status 500").await;
    check(json_error(400, "RequestThrottled", "slow"), OpenError::Unreachable, "RequestThrottled").await;
    check(ok(json!({ "Attributes": {} })), OpenError::Invalid, "QueueArn").await;
    check(opened_with(Some("not json")), OpenError::NoDeadLetterQueue, "cannot be read").await;
}

#[tokio::test]
async fn a_server_that_is_not_there_is_unreachable() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    let refused = SqsQueue::open(&access(&url).await, URL, DeadLetterPolicy::Required).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Unreachable(text) if text.contains("refused")), "{refused:?}");

    let (url, _server) = hangs_up_after("").await;
    let refused = SqsQueue::open(&access(&url).await, URL, DeadLetterPolicy::Required).await.unwrap_err();
    assert!(matches!(refused, OpenError::Unreachable(_)), "{refused:?}");
}

#[derive(Debug)]
struct Nothing;

impl ProvideCredentials for Nothing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded_no_source()))
    }
}

#[tokio::test]
async fn missing_credentials_are_told_at_once_and_no_call_is_made() {
    let replay = Replay::of([]).await;
    let loader = aws_config::defaults(BehaviorVersion::v2026_01_12()).credentials_provider(Nothing);
    let options = Options { region: Some(Region::new("eu-west-1")), endpoint_url: Some(replay.url.clone()) };
    let access = Access::load_from(loader, &options).await.unwrap();
    let refused = SqsQueue::open(&access, URL, DeadLetterPolicy::Required).await.unwrap_err();
    let expect = "opening queue https://sqs.eu-west-1.amazonaws.com/111122223333/notices: no AWS credentials \
                  were found; give the pod's service account a role (IRSA or EKS Pod Identity), the instance \
                  a profile, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY";
    assert_eq!(refused, OpenError::NoCredentials(expect.to_owned()));
    assert_eq!(replay.asked().len(), 0);
}

#[tokio::test]
async fn receiving_asks_for_what_leases_need() {
    let received = json!({ "Messages": [
        {
            "MessageId": "c8e1",
            "ReceiptHandle": "AQEB-1",
            "MD5OfBody": "99914b932bd37a50b983c5e7c90ae93b",
            "Body": "{}",
            "Attributes": { "ApproximateReceiveCount": "3", "SentTimestamp": "1774684800123" },
        },
        { "MessageId": "c8e2", "ReceiptHandle": "AQEB-2", "Body": "x" },
        { "MessageId": "without a receipt" },
    ] });
    let (replay, queue) = queue([ok(received), ok(json!({}))]).await;
    let (wait, visibility) = (Duration::from_secs(5), Duration::from_millis(29_001));
    let messages = queue.receive(10, wait, visibility).await.unwrap();
    let first = Message {
        id: MessageId("c8e1".to_owned()),
        receipt: Receipt("AQEB-1".to_owned()),
        body: "{}".to_owned(),
        receive_count: 3,
        sent_at: Some(Timestamp::from_millis(1_774_684_800_123)),
    };
    assert_eq!(messages[0], first);
    assert_eq!((messages.len(), messages[1].receive_count, messages[1].sent_at), (2, 1, None));

    // More than SQS takes is cut down to what it takes.
    assert_eq!(queue.receive(50, Duration::from_secs(60), visibility).await.unwrap(), []);
    let asked = replay.asked();
    assert_eq!(asked[0].target, "ReceiveMessage");
    let names = json!(["ApproximateReceiveCount", "SentTimestamp"]);
    let expect = |wait: u32| {
        json!({
            "QueueUrl": URL,
            "MaxNumberOfMessages": 10,
            "WaitTimeSeconds": wait,
            "VisibilityTimeout": 30,
            "MessageSystemAttributeNames": names,
        })
    };
    assert_eq!(asked[0].json(), expect(5));
    assert_eq!(asked[1].json(), expect(20));
}

#[tokio::test]
async fn faults_of_receiving_are_typed_by_what_comes_next() {
    let check = async |answer: (u16, String), expect: fn(String) -> Fault| {
        let (replay, queue) = queue([answer]).await;
        let fault = queue.receive(10, Duration::ZERO, Duration::from_secs(30)).await.unwrap_err();
        assert_eq!(fault, expect(fault.to_string()));
        assert!(fault.to_string().starts_with("receiving messages: "), "{fault}");
        // The engine retries, and nobody else.
        assert_eq!(replay.asked().len(), 1);
    };
    check(json_error(403, "OverLimit", "Too many messages in flight"), Fault::Retry).await;
    check(json_error(400, "RequestThrottled", ""), Fault::Retry).await;
    check(json_error(503, "ServiceUnavailable", ""), Fault::Retry).await;
    check((502, "<html>Bad Gateway</html>".to_owned()), Fault::Retry).await;
    check((200, "{\"Messages\": [".to_owned()), Fault::Retry).await;
    check(json_error(403, "AccessDenied", ""), Fault::Denied).await;
    check(json_error(400, "QueueDoesNotExist", ""), Fault::Denied).await;
    check(json_error(400, "InvalidParameterValue", "Value 11 for parameter"), Fault::Invalid).await;
}

#[tokio::test]
async fn a_cut_answer_is_a_retry() {
    for bytes in ["", "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{\"Messages\":["] {
        let (url, _server) = hangs_up_after(bytes).await;
        let opened = Opened {
            installation: "eu-west-1:111122223333:offramp".into(),
            account_region: account_region(),
            visibility: None,
            most_receives: None,
            dead_letter_url: None,
        };
        let queue = SqsQueue {
            client: access(&url).await.sqs(),
            meter: Meter::default(),
            url: URL.to_owned(),
            opened,
        };
        let fault = queue.receive(1, Duration::ZERO, Duration::from_secs(30)).await.unwrap_err();
        assert!(matches!(&fault, Fault::Retry(text) if text.contains("no answer from AWS")), "{fault:?}");
    }
}

#[tokio::test]
async fn extensions_are_answered_one_by_one() {
    let cap = "Value 30 for parameter VisibilityTimeout is invalid. Reason: Total VisibilityTimeout for the \
               message is beyond the limit [43200 seconds].";
    let failed = |id: &str, code: &str, message: &str, sender: bool| json!({ "Id": id, "Code": code, "Message": message, "SenderFault": sender });
    let first = json!({
        "Successful": [{ "Id": "0" }, { "Id": "6" }, { "Id": "7" }, { "Id": "8" }, { "Id": "9" }],
        "Failed": [
            failed("4", "InternalError", "", false),
            failed("1", "AWS.SimpleQueueService.MessageNotInflight", "", true),
            failed("2", "ReceiptHandleIsInvalid", "The input receipt handle \"AQEB-2\" is bad", true),
            failed("3", "InvalidParameterValue", cap, true),
        ],
    });
    let second = json!({ "Successful": [{ "Id": "0" }] });
    let (replay, queue) = queue([ok(first), ok(second)]).await;
    let answers = queue.extend(&receipts(11), Duration::from_secs(30)).await;
    let retry = |why: &str| Err(Fault::Retry(format!("extending messages: {why}")));
    let extended = Ok(Held::Extended);
    let expect = vec![
        extended.clone(),
        Ok(Held::Lost),
        Ok(Held::Lost),
        Ok(Held::Lost),
        retry("AWS answered InternalError"),
        retry("the answer leaves a message out"),
        extended.clone(),
        extended.clone(),
        extended.clone(),
        extended.clone(),
        extended,
    ];
    assert_eq!(answers, expect);
    let asked = replay.asked();
    let sizes: Vec<_> = asked.iter().map(|asked| asked.json()["Entries"].as_array().unwrap().len()).collect();
    assert_eq!(sizes, [10, 1]);
    assert_eq!(asked[0].target, "ChangeMessageVisibilityBatch");
    let last = json!({ "Id": "0", "ReceiptHandle": "AQEB-10", "VisibilityTimeout": 30 });
    assert_eq!(asked[1].json()["Entries"], json!([last]));
}

#[tokio::test]
async fn deletions_are_answered_one_by_one_and_quote_no_receipt() {
    let message = "The input receipt handle \"AQEB-1\" is not a valid receipt handle.";
    let failed =
        json!({ "Id": "1", "Code": "ReceiptHandleIsInvalid", "Message": message, "SenderFault": true });
    let answer = json!({ "Successful": [{ "Id": "0" }], "Failed": [failed] });
    let denied = json_error(403, "AccessDenied", "not for AQEB-0");
    let (replay, queue) = queue([ok(answer), denied]).await;
    let invalid = Fault::Invalid("deleting messages: AWS answered ReceiptHandleIsInvalid".to_owned());
    assert_eq!(queue.delete(&receipts(2)).await, [Ok(()), Err(invalid)]);
    let denied = Fault::Denied("deleting messages: AWS answered AccessDenied: not for …".to_owned());
    assert_eq!(queue.delete(&receipts(1)).await, [Err(denied)]);
    let asked = replay.asked();
    assert_eq!(asked[0].target, "DeleteMessageBatch");
    let entries = json!([{ "Id": "0", "ReceiptHandle": "AQEB-0" }, { "Id": "1", "ReceiptHandle": "AQEB-1" }]);
    assert_eq!(asked[0].json(), json!({ "QueueUrl": URL, "Entries": entries }));
}

fn a_message(body: &str) -> Message {
    Message {
        id: MessageId("c8e1".to_owned()),
        receipt: Receipt("AQEB-1".to_owned()),
        body: body.to_owned(),
        receive_count: 1,
        sent_at: None,
    }
}

#[tokio::test]
async fn dead_letters_carry_body_and_reason() {
    let sent = || ok(json!({ "MessageId": "d1" }));
    let (replay, mut queue) = queue([sent(), sent(), sent()]).await;
    let reason = format!("bell \u{7} {}", "é".repeat(300));
    assert_eq!(queue.dead_letter(&a_message("{\"not\": ours}"), &reason).await, Ok(()));
    // Body and attributes together stay within what a queue takes; characters stay whole.
    assert_eq!(queue.dead_letter(&a_message(&"é".repeat(200_000)), "").await, Ok(()));
    queue.opened.dead_letter_url = Some(format!("{DEAD}.fifo"));
    assert_eq!(queue.dead_letter(&a_message("x"), "r").await, Ok(()));

    let asked = replay.asked();
    let first = asked[0].json();
    assert_eq!((asked[0].target.as_str(), &first["QueueUrl"]), ("SendMessage", &json!(DEAD)));
    assert_eq!((&first["MessageBody"], &first["MessageGroupId"]), (&json!("{\"not\": ours}"), &Value::Null));
    let attributes = &first["MessageAttributes"];
    let text = |value: &str| json!({ "DataType": "String", "StringValue": value });
    assert_eq!(attributes["offramp.message_id"], text("c8e1"));
    assert_eq!(attributes["offramp.reason"], text(&format!("bell \u{FFFD} {}", "é".repeat(249))));

    let second = asked[1].json();
    assert_eq!(second["MessageAttributes"].as_object().unwrap().len(), 1);
    let bytes = second["MessageBody"].as_str().unwrap().len();
    assert_eq!(bytes + "offramp.message_id".len() + "String".len() + "c8e1".len(), MOST_BYTES);

    let third = asked[2].json();
    assert_eq!(
        (&third["MessageGroupId"], &third["MessageDeduplicationId"]),
        (&json!("offramp"), &json!("c8e1"))
    );
}

#[tokio::test]
async fn messages_of_our_own_go_onto_the_queue_itself() {
    let part = json!({
        "Successful": [{ "Id": "0", "MessageId": "s1", "MD5OfMessageBody": "" }],
        "Failed": [{ "Id": "1", "Code": "InternalError", "SenderFault": false }],
    });
    let refused = json_error(403, "AccessDeniedException", "not authorized to perform: sqs:sendmessage");
    let busy = json_error(400, "RequestThrottled", "Rate exceeded");
    let (replay, queue) = queue([ok(part), refused, busy]).await;
    let bodies = [r#"{"held": "ü"}"#, "b", "c"].map(str::to_owned);
    let sent = queue.send(&bodies).await;
    assert!(matches!(sent[..], [Ok(()), Err(Fault::Retry(_)), Err(Fault::Retry(_))]), "{sent:?}");
    let text = "sending messages to the queue: AWS answered AccessDeniedException: not authorized to perform: \
                sqs:sendmessage";
    assert_eq!(queue.send(&bodies[..2]).await, vec![Err(Fault::Denied(text.to_owned())); 2]);
    let throttled = queue.send(&bodies[..1]).await;
    assert!(matches!(throttled[..], [Err(Fault::Retry(_))]), "once only: no retry of its own");
    let asked = replay.asked();
    assert_eq!(asked[0].target, "SendMessageBatch");
    let entries: Vec<_> = bodies
        .iter()
        .enumerate()
        .map(|(index, body)| json!({ "Id": index.to_string(), "MessageBody": body }))
        .collect();
    assert_eq!(asked[0].json(), json!({ "QueueUrl": URL, "Entries": entries }));
    assert_eq!(asked.len(), 3);
}

#[tokio::test]
async fn the_depth_is_read_or_unknown() {
    let numbers = json!({ "ApproximateNumberOfMessages": "7", "ApproximateNumberOfMessagesNotVisible": "3" });
    let (_replay, queue) = queue([ok(json!({ "Attributes": numbers })), ok(json!({}))]).await;
    let Depth { waiting, in_flight, date } = queue.depth().await.unwrap();
    assert_eq!((waiting, in_flight), (7, 3));
    // hyper, like every server, dates its answers.
    assert!(date.is_some_and(|date| date.as_millis() > 1_773_478_800_000), "{date:?}");
    assert!(matches!(queue.depth().await, Err(Fault::Retry(_))));
}

/// A server that answers nothing must not hold up the start, and a dead poll must end by itself.
#[tokio::test(start_paused = true)]
async fn nothing_waits_for_ever() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let access = access(&url).await;
    let (real, start) = (Instant::now(), tokio::time::Instant::now());
    let refused = SqsQueue::open(&access, URL, DeadLetterPolicy::Required).await.unwrap_err();
    assert!(matches!(&refused, OpenError::Unreachable(text) if text.contains("too long")), "{refused:?}");
    assert!(start.elapsed() <= Duration::from_secs(11), "{:?}", start.elapsed());
    assert!(real.elapsed() < Duration::from_secs(5));
}
