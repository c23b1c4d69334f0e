use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures::future::join_all;

use super::*;
use crate::buckets::Rate;
use crate::calls::REFRESH;

const START: Timestamp = Timestamp::from_millis(1_773_478_800_000);

/// A lane whose answers are the number of the call, and the sizes of its calls.
struct Counted {
    lane: Batch<u32, usize>,
    keys: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    _tasks: Tasks,
}

fn lane(life: u64) -> Counted {
    let (keys, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Tasks::default();
    let terms = Terms { refresh: REFRESH, ..Terms::of_reads("numbers", Duration::from_secs(life)) };
    let (seen_keys, seen_calls) = (Arc::clone(&keys), Arc::clone(&calls));
    let lane = Batch::start(
        &mut tasks,
        &Clock::starting_at(START),
        terms,
        |_| ((), 50),
        move |_, asked: Vec<u32>| {
            seen_keys.fetch_add(asked.len(), Ordering::SeqCst);
            let call = seen_calls.fetch_add(1, Ordering::SeqCst) + 1;
            Box::pin(async move { vec![Ok(call); asked.len()] })
        },
    );
    Counted { lane, keys, calls, _tasks: tasks }
}

impl Counted {
    async fn ask_all(&self, keys: std::ops::Range<u32>) -> Vec<usize> {
        let asks =
            keys.map(|key| async move { self.lane.ask(&AccountRegion::default(), key).await.unwrap() });
        join_all(asks).await
    }
}

async fn pass(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

#[tokio::test(start_paused = true)]
async fn requests_of_one_moment_share_full_calls() {
    let counted = lane(5);
    counted.ask_all(0..120).await;
    assert_eq!(counted.calls.load(Ordering::SeqCst), 3);
    // Fresh: no call at all.
    pass(4_000).await;
    counted.ask_all(0..120).await;
    assert_eq!(counted.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test(start_paused = true)]
async fn what_was_read_lately_is_read_again_in_company() {
    let counted = lane(5);
    counted.ask_all(0..50).await;
    pass(6_000).await;
    // The first of them waits for nobody.
    assert_eq!(counted.ask_all(0..1).await, [2]);
    // Fifty that ask one after the other, eight milliseconds apart: one call, not fifty.
    let began = tokio::time::Instant::now();
    let late = (1..50_u32).map(|key| {
        let counted = &counted;
        async move {
            pass(u64::from(key) * 8).await;
            counted.lane.ask(&AccountRegion::default(), key).await.unwrap()
        }
    });
    assert_eq!(join_all(late).await, vec![3; 49]);
    assert_eq!(began.elapsed(), REFRESH);
    // Nor does somebody new, who takes along whoever waits.
    pass(6_000).await;
    counted.ask_all(0..1).await;
    let began = tokio::time::Instant::now();
    counted.ask_all(40..60).await;
    assert_eq!(began.elapsed(), WINDOW);
    assert_eq!((counted.calls.load(Ordering::SeqCst), counted.keys.load(Ordering::SeqCst)), (5, 121));
}

#[tokio::test(start_paused = true)]
async fn an_answer_from_before_an_event_does_not_do() {
    let counted = lane(5);
    let ask = |since: u64| {
        let (counted, since) = (&counted, START + Duration::from_millis(since));
        async move { counted.lane.ask_since(&AccountRegion::default(), 1, since).await.unwrap().value }
    };
    assert_eq!(ask(0).await, 1);
    pass(990).await;
    assert_eq!(ask(5).await, 1, "read after the event");
    let began = tokio::time::Instant::now();
    assert_eq!(ask(900).await, 2, "read before it");
    assert_eq!(began.elapsed(), WINDOW, "an event is in a hurry");
    assert_eq!(ask(900).await, 2);
}

#[tokio::test(start_paused = true)]
async fn writes_are_never_shared_with_an_earlier_answer() {
    let counted = lane(0);
    assert_eq!(counted.ask_all(0..1).await, [1]);
    assert_eq!(counted.ask_all(0..1).await, [2]);
}

/// A lane of reads, one key each, whose calls take so long and end like this.
fn reads(
    rate: Option<Rate>,
    takes: Duration,
    answer: impl Fn(usize) -> Result<usize, Fault> + Send + Sync + 'static,
) -> Counted {
    let (keys, calls) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let mut tasks = Tasks::default();
    let terms = Terms { rate, ..Terms::of_reads("numbers", Duration::from_millis(1)) };
    let (counted, answer) = (Arc::clone(&calls), Arc::new(answer));
    let clock = Clock::starting_at(START);
    let lane = Batch::start(
        &mut tasks,
        &clock,
        terms,
        |key: &u32| (*key, 1),
        move |_, _| {
            let (call, answer) = (counted.fetch_add(1, Ordering::SeqCst) + 1, Arc::clone(&answer));
            Box::pin(async move {
                tokio::time::sleep(takes).await;
                vec![answer(call)]
            })
        },
    );
    Counted { lane, keys, calls, _tasks: tasks }
}

/// keikoproj/upgrade-manager#142: whatever fails is asked for again by every job, at every change of a pod.
#[tokio::test(start_paused = true)]
async fn reads_that_fail_rest_longer_each_time_and_are_made_at_once_when_one_works() {
    let counted = reads(None, Duration::ZERO, |call| match call {
        100.. => Ok(call),
        _ => Err(Fault::Retry("throttled".to_owned())),
    });
    let place = AccountRegion::default();
    let ask = |key| counted.lane.ask(&place, key);
    let began = tokio::time::Instant::now();
    while began.elapsed() < Duration::from_secs(300) {
        ask(1).await.unwrap_err();
    }
    let calls = counted.calls.load(Ordering::SeqCst);
    assert!((40..=50).contains(&calls), "{calls} calls in five minutes");
    // Another account is another matter.
    let other = AccountRegion { account: Some("444455556666".into()), region: None };
    let began = tokio::time::Instant::now();
    counted.lane.ask(&other, 1).await.unwrap_err();
    assert_eq!(began.elapsed(), WINDOW);

    counted.calls.store(99, Ordering::SeqCst);
    assert_eq!(ask(1).await, Ok(100));
    let began = tokio::time::Instant::now();
    assert_eq!(ask(2).await, Ok(101));
    assert_eq!(began.elapsed(), WINDOW);
}

#[tokio::test(start_paused = true)]
async fn no_more_are_in_flight_than_a_service_is_given_at_once() {
    let counted = reads(None, Duration::from_secs(1), Ok);
    let began = tokio::time::Instant::now();
    let all: Vec<u32> = (0..50).collect();
    let place = AccountRegion::default();
    join_all(all.iter().map(|key| counted.lane.ask(&place, *key))).await;
    assert_eq!(began.elapsed().as_millis(), 3_010, "twenty, twenty and ten");
}

#[tokio::test(start_paused = true)]
async fn a_bucket_is_never_overdrawn() {
    let counted = reads(Some(Rate { burst: 10, per_second: 2 }), Duration::ZERO, Ok);
    let all: Vec<u32> = (0..14).collect();
    let began = tokio::time::Instant::now();
    let place = AccountRegion::default();
    join_all(all.iter().map(|key| counted.lane.ask(&place, *key))).await;
    assert_eq!(began.elapsed().as_millis(), 2_010);
}

/// The answer to a read that was asked before an event may come after it, and says how things were before.
#[tokio::test(start_paused = true)]
async fn an_answer_that_was_under_way_before_an_event_does_not_do() {
    let counted = reads(None, Duration::from_secs(5), Ok);
    let place = AccountRegion::default();
    let before = counted.lane.ask(&place, 1);
    let after = async {
        pass(2_000).await;
        let dated = counted.lane.ask_since(&place, 1, START + Duration::from_secs(1)).await.unwrap();
        (dated.value, dated.read_at)
    };
    let (before, after) = futures::join!(before, after);
    assert_eq!((before, after), (Ok(1), (2, START + Duration::from_millis(2_010))));
}
