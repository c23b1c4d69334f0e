use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

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
    let terms = Terms { most: 50, life: Duration::from_secs(life), refresh: REFRESH };
    let (seen_keys, seen_calls) = (Arc::clone(&keys), Arc::clone(&calls));
    let lane = Batch::start(&mut tasks, &Clock::starting_at(START), terms, move |_, asked: Vec<u32>| {
        seen_keys.fetch_add(asked.len(), Ordering::SeqCst);
        let call = seen_calls.fetch_add(1, Ordering::SeqCst) + 1;
        Box::pin(async move { vec![Ok(call); asked.len()] })
    });
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
