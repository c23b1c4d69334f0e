//! `offramp run` where something is missing or goes away: what it says, what it goes on with, and how it
//! ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, reason = "tests")]

// Each test binary uses a part of it.
#[allow(dead_code)]
#[path = "processes/stage.rs"]
mod stage;

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::StatusCode;
use offramp_engine::Clock;
use offramp_sandbox::Fleet;
use offramp_sandbox::fleet::Pool;
use stage::{Stage, Start, Worker, blue, delays, is_ready, timed, web};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_does_not_answer_is_tried_again_until_it_does() {
    let mut stage = Stage::new(blue(1));
    stage.open_cluster("blue");
    let mut worker = Worker::start(&stage);
    worker
        .ready_when("that only the queue is missing, and why", |status, parts| {
            let why = parts[0]["why"].as_str().unwrap();
            let said = why.contains("opening queue http://127.0.0.1:") && why.contains("no answer from AWS");
            status == 503 && said && !is_ready(parts, "queue") && is_ready(parts, "cluster blue")
        })
        .await;
    let tries = "it will be tried again: check the network and queue.url";
    stage.until("it has tried three times", || worker.lines_with(tries).len() >= 3).await;
    let pauses: Vec<u64> =
        worker.lines_with(tries).iter().take(3).map(|line| line["again_in_ms"].as_u64().unwrap()).collect();
    assert!(pauses.windows(2).all(|pair| pair[0] < pair[1]), "no back-off: {pauses:?}");
    assert!(!worker.log().contains("ERROR"), "{}", worker.log());

    stage.open_aws();
    worker.ready_when("that all is well", |status, _| status == 200).await;
    stage.scale_in("workers");
    stage.until("the hook is answered", || stage.answers() == 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_does_not_answer_is_named_once_with_what_to_do() {
    let mut stage = Stage::new(blue(2));
    stage.open_aws();
    let mut worker = Worker::start(&stage);
    worker
        .ready_when("that only the cluster is missing, and why", |status, parts| {
            let said = parts[1]["why"].as_str().unwrap().contains("Connection refused");
            status == 503 && is_ready(parts, "queue") && parts[1]["name"] == "cluster blue" && said
        })
        .await;
    let said = worker.lines_with("out of sync");
    assert_eq!(said.len(), 1, "{}", worker.log());
    let message = said[0]["message"].as_str().unwrap();
    assert_eq!(said[0]["cluster"], "blue");
    assert!(message.contains("Connection refused") && message.contains("kubeconfig"), "{message}");
    // Nobody else writes about it, and nobody repeats it while it is tried again and again.
    let complaints =
        worker.log().lines().filter(|line| line.contains("ERROR") || line.contains("WARN")).count();
    assert_eq!(complaints, 1, "{}", worker.log());
}

#[tokio::test]
async fn missing_credentials_end_it_at_once_and_say_what_to_do() {
    let stage = Stage::new(blue(3));
    let folder = stage.folder.path();
    let config = folder.join("offramp.yaml");
    fs::write(&config, stage.config(&Start::default())).unwrap();
    let empty = folder.join("empty");
    fs::write(&empty, "").unwrap();
    let empty = empty.to_str().unwrap();
    let files = [("AWS_CONFIG_FILE", empty), ("AWS_SHARED_CREDENTIALS_FILE", empty)];
    let mut worker = Worker::start_with(folder, &config, &[], &files);
    let (status, took) = timed(worker.ended()).await;
    assert_eq!(status.code(), Some(1));
    assert!(took < Duration::from_secs(10), "{took:?}");
    let (error, hint) = last_words(&worker);
    assert!(error.starts_with("offramp: error: opening queue ") && error.contains("credentials"), "{error}");
    assert!(hint.contains("AWS_ACCESS_KEY_ID") && hint.contains("EKS Pod Identity"), "{hint}");
}

/// Report 14, awslabs/aws-sdk-rust#760, #540, kubernetes/autoscaler#3592, kubernetes-sigs/aws-load-balancer-controller#2231:
/// a pod without a role of its own asks the metadata service of its instance. It takes the question and never answers,
/// because the answer may make one hop; or it is off; or the instance has no role. The start ends within seconds, and
/// says what to give.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_metadata_service_that_gives_nothing_ends_it_within_seconds() {
    for (token, last_question) in [
        (None, "PUT /latest/api/token"),
        (Some(StatusCode::FORBIDDEN), "PUT /latest/api/token"),
        (Some(StatusCode::OK), "GET /latest/meta-data/iam/security-credentials/"),
    ] {
        let (url, asked, _tasks) = metadata_service(token).await;
        let stage = Stage::new(blue(9));
        let folder = stage.folder.path();
        let config = folder.join("offramp.yaml");
        fs::write(&config, stage.config(&Start::default())).unwrap();
        let variables = [("AWS_EC2_METADATA_DISABLED", "false"), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", &url)];
        let mut worker = Worker::start_with(folder, &config, &[], &variables);
        let (status, took) = timed(worker.ended()).await;
        assert_eq!(status.code(), Some(1), "{token:?}: {}", worker.log());
        assert!(took < Duration::from_secs(10), "{token:?}: {took:?}\n{}", worker.log());
        assert_eq!(asked.lock().unwrap().last().map(String::as_str), Some(last_question), "{token:?}");
        let (error, hint) = last_words(&worker);
        assert!(
            error.contains("no AWS credentials were found; give the pod's service account a role"),
            "{error}"
        );
        assert!(hint.contains("EKS Pod Identity") && hint.contains("hop limit of 2"), "{hint}");
    }
}

/// A metadata service that answers the request for a token like this, or not at all, and knows of no role. What it was
/// asked is written down.
async fn metadata_service(token: Option<StatusCode>) -> (String, Arc<Mutex<Vec<String>>>, JoinSet<()>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let notes = Arc::clone(&asked);
    let answer = move |request: Request| {
        let put = request.method() == "PUT";
        notes.lock().unwrap().push(format!("{} {}", request.method(), request.uri().path()));
        async move {
            match token {
                None => std::future::pending().await,
                Some(status) if put => (status, [("x-aws-ec2-metadata-token-ttl-seconds", "21600")], "token"),
                Some(_) => (StatusCode::NOT_FOUND, [("content-type", "text/plain")], ""),
            }
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let mut tasks = JoinSet::new();
    tasks.spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    (url, asked, tasks)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_without_a_dead_letter_queue_is_refused() {
    let stage = Stage::open(blue(4));
    stage.sandbox.with(|world| world.queues.get_mut("offramp").unwrap().redrive = None);
    let mut worker = Worker::start(&stage);
    assert_eq!(worker.ended().await.code(), Some(1));
    let (_, words) = last_words(&worker);
    assert!(
        words.starts_with("offramp: error: opening queue ") && words.contains("no redrive policy"),
        "{words}"
    );
    assert!(words.contains("give it a dead-letter queue, or set queue.without_dead_letter_queue"), "{words}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_gives_messages_up_early_is_warned_about() {
    let stage = Stage::open(blue(4));
    stage.sandbox.with(|world| {
        let redrive = world.queues.get_mut("offramp").unwrap().redrive.as_mut();
        redrive.unwrap().max_receive_count = 3;
    });
    let mut worker = Worker::start(&stage);
    let line = worker.line_with("its redrive policy").await;
    assert_eq!((&line["level"], &line["max_receive_count"]), (&"WARN".into(), &3.into()), "{line}");
}

/// The world's clock is four minutes ahead of this machine's, which is all that the worker has.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_whose_clock_is_wrong_comes_to_the_right_end() {
    let now = Clock::system().now() + Duration::from_secs(240);
    let fleet = Fleet::new(now, delays(), 6).cluster("blue").pool(Pool::new("workers", 3)).app(web(30_080));
    let mut stage = Stage::by_the_clock(fleet, Clock::starting_at(now));
    stage.open_all();
    let answered = stage.watch_answers();
    let instance = stage.scale_in("workers");
    let mut worker = Worker::start(&stage);
    let line = worker.line_with("the machine's clock is ").await;
    assert_eq!(line["level"], "WARN", "{line}");
    assert!(line["message"].as_str().unwrap().contains(" behind the queue's"), "{line}");
    stage.until("the hook is answered", || stage.answers() > 0 && stage.is_empty()).await;
    let answered = answered.lock().unwrap().clone();
    assert!(answered.iter().all(|answer| answer.instance == instance && answer.pods == 0), "{answered:?}");
    assert_eq!(stage.sandbox.peek(|world| world.traffic.lost()), 0.0, "{}", stage.story().join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_queue_that_is_made_after_the_worker_has_started_is_waited_for() {
    let stage = Stage::open(blue(5));
    let mut worker = Worker::start_as(&stage, &Start { queue: "offramp-late", ..Start::default() });
    let line = worker.line_with("/offramp-late: ").await;
    let words = line["message"].as_str().unwrap();
    assert!(words.contains("does not exist"), "{words}");
    assert!(
        words.ends_with("it will be tried again: compare queue.url with `aws sqs list-queues`"),
        "{words}"
    );
    worker
        .ready_when("that the queue is missing", |status, parts| {
            status == 503 && parts[0]["why"].as_str().unwrap().contains("does not exist")
        })
        .await;
    stage.sandbox.with(|world| world.create_event_queue("offramp-late", 100));
    worker.line_with("working").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_that_nobody_can_read_goes_to_the_dead_letter_queue_with_the_reason() {
    let stage = Stage::open(blue(6));
    let body =
        r#"{"source": "aws.ec2", "detail-type": "EC2 Spot Instance Interruption Warning", "detail": {}}"#;
    let send = |world: &mut offramp_sandbox::World| {
        world.send_message("offramp", body, BTreeMap::new(), Duration::ZERO).unwrap()
    };
    let id = stage.sandbox.with(send);
    let worker = Worker::start(&stage);
    stage.until("the message has moved", || stage.is_empty() && stage.depth("offramp-dlq") == (1, 0)).await;
    stage.sandbox.peek(|world| {
        let message = world.queues.get("offramp-dlq").unwrap().messages().next().unwrap();
        assert_eq!(message.body, body);
        assert_eq!(message.attributes["offramp.message_id"].value, id);
        let reason = &message.attributes["offramp.reason"];
        assert_eq!(reason.data_type, "String");
        assert!(reason.value.contains("instance-id"), "{reason:?}");
        let said = worker.lines_with("dead-lettered a message");
        assert_eq!(said.len(), 1);
        assert!(said[0]["message"].as_str().unwrap().ends_with(&reason.value), "{said:?}");
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_in_a_drain_hands_the_message_back() {
    hands_the_message_back(&[]).await;
}

/// The kernel drops signals for process 1 that it has not asked for, and in a container it is process 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_reaches_it_as_process_1() {
    let unprivileged: &[&str] =
        &["unshare", "--user", "--map-root-user", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let privileged: &[&str] = &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let permitted = |words: &&&[&str]| {
        let tried = Command::new(words[0]).args(&words[1..]).arg("true").output();
        tried.is_ok_and(|output| output.status.success())
    };
    match [privileged, unprivileged].iter().find(permitted) {
        Some(words) => hands_the_message_back(words).await,
        None => println!("NOT CHECKED: no process namespaces here (unshare --pid is not permitted)"),
    }
}

async fn hands_the_message_back(wrapper: &[&str]) {
    let stage = Stage::open(blue(7));
    let start = Start { wrapper, ..Start::default() };
    let mut worker = Worker::start_as(&stage, &start);
    stage.scale_in("workers");
    let evicted = || stage.story().iter().any(|line| line.ends_with(" is evicted"));
    stage.until("the drain has begun", evicted).await;
    worker.signal("TERM");
    let (status, took) = timed(worker.ended()).await;
    assert_eq!(status.code(), Some(0), "{}", worker.log());
    assert!(took < Duration::from_secs(10), "{took:?}\n{}", worker.log());
    assert_eq!(stage.depth("offramp"), (1, 0), "not visible at once: {:?}\n{}", stage.story(), worker.log());
    assert_eq!(stage.answers(), 0, "{:?}", stage.story());

    let mut next = Worker::start_as(&stage, &start);
    stage.until("the next one has answered the hook", || stage.answers() == 1 && stage.is_empty()).await;
    assert!(!next.line_with("hook notice taken on").await.is_null());
    assert_eq!(stage.depth("offramp-dlq"), (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once() {
    let stage = Stage::open(blue(8));
    let mut worker = Worker::start(&stage);
    worker.line_with("working").await;
    // A running poll is never dropped, so the first signal takes up to five seconds from here.
    let polls = || stage.sandbox.peek(|world| world.calls.get("sqs.ReceiveMessage").copied().unwrap_or(0));
    let before = polls();
    stage.until("a poll has begun", || polls() > before).await;
    let told = Instant::now();
    worker.signal("TERM");
    worker.line_with("a second signal exits at once").await;
    worker.signal("INT");
    let status = worker.ended().await;
    assert_eq!(status.code(), Some(130), "{}", worker.log());
    assert!(told.elapsed() < Duration::from_secs(4), "{:?}", told.elapsed());
    assert!(!worker.lines_with("second signal: exiting at once").is_empty(), "{}", worker.log());
}

/// The last two lines that it has written.
fn last_words(worker: &Worker) -> (String, String) {
    let text = worker.log();
    let mut lines = text.lines().rev().map(str::to_owned);
    let last = lines.next().unwrap();
    (lines.next().unwrap_or_default(), last)
}
