//! The lane on a cluster that answers as the test says.

use std::collections::BTreeMap;

use async_trait::async_trait;
use offramp_core::{BudgetName, ClusterName, Node, NodeDoubt, NodeName, Pod, Seen};

use super::*;
use crate::ports::{DeletedNode, NodeSummary};

const START: Timestamp = Timestamp::from_millis(1_773_478_800_000);

/// Each call is handed to the test, which answers it.
struct Scripted {
    name: ClusterName,
    calls: mpsc::UnboundedSender<(String, oneshot::Sender<Answer>)>,
    readiness: watch::Sender<u64>,
}

#[async_trait]
impl Cluster for Scripted {
    crate::tests::stubs::knows_of_nothing!();

    fn name(&self) -> &ClusterName {
        &self.name
    }
    fn node(&self, _: &InstanceId) -> Seen<Node> {
        Seen::Unknown
    }
    fn doubt(&self, _: &InstanceId) -> Option<NodeDoubt> {
        None
    }
    fn proven(&self) -> watch::Receiver<Timestamp> {
        watch::channel(START).1
    }
    fn deleted(&self, _: &InstanceId) -> Option<DeletedNode> {
        None
    }
    fn summary(&self, _: &InstanceId) -> Option<NodeSummary> {
        None
    }
    fn pods(&self, _: &NodeName, _: &InstanceId) -> Seen<Vec<Pod>> {
        Seen::Unknown
    }
    fn readiness(&self, _: &str) -> watch::Receiver<u64> {
        self.readiness.subscribe()
    }
    async fn perform(&self, call: &ClusterCall) -> Result<Outcome, Fault> {
        let (ClusterCall::Evict { pod, .. } | ClusterCall::Delete { pod, .. }) = call else {
            return Ok(Outcome::Done);
        };
        let (answer, answered) = oneshot::channel();
        self.calls.send((pod.name.clone(), answer)).unwrap();
        answered.await.unwrap()
    }
}

struct Stage {
    lane: Evictions,
    clock: Clock,
    calls: mpsc::UnboundedReceiver<(String, oneshot::Sender<Answer>)>,
    readiness: watch::Sender<u64>,
    /// Pods that go on asking until they are let go, as jobs do.
    pods: tokio::task::JoinSet<String>,
    _tasks: Tasks,
}

impl Stage {
    fn new() -> Self {
        let (sender, calls) = mpsc::unbounded_channel();
        let (readiness, clock, mut tasks) =
            (watch::Sender::new(0), Clock::starting_at(START), Tasks::default());
        let cluster = Scripted { name: "blue".into(), calls: sender, readiness: readiness.clone() };
        let cluster: Arc<dyn Cluster> = Arc::new(cluster);
        let lane = Evictions::start(&mut tasks, &cluster, &clock);
        Self { lane, clock, calls, readiness, pods: tokio::task::JoinSet::new(), _tasks: tasks }
    }

    fn wants(&mut self, app: &str, name: &str, urgency: Urgency) {
        let (lane, wish) = (self.lane.clone(), wish(app, name, urgency));
        self.pods.spawn(async move {
            while !matches!(lane.ask(wish.clone()).await, Some(Ok(Outcome::Done)) | None) {}
            wish.pod.name
        });
    }

    /// The names of the pods for which a call comes within this time, each with this answer.
    async fn answer(&mut self, within: u64, answer: &Answer) -> Vec<String> {
        let until = self.clock.now() + Duration::from_millis(within);
        let mut names = Vec::new();
        loop {
            tokio::select! {
                biased;
                Some((name, reply)) = self.calls.recv() => {
                    names.push(name);
                    reply.send(answer.clone()).unwrap();
                }
                () = self.clock.sleep_until(until) => return names,
            }
        }
    }
}

fn wish(app: &str, name: &str, urgency: Urgency) -> Wish {
    Wish {
        instance: InstanceId::parse("i-0b1c2d3e4f5061728").unwrap(),
        pod: PodRef { namespace: "default".to_owned(), name: name.to_owned(), uid: PodUid::from(name) },
        origin: PodOrigin(app.to_owned()),
        call: Call::Evict { grace: None },
        urgency,
        deadline: None,
        labels_hash: 0,
        is_ready: true,
    }
}

fn refused() -> Answer {
    Ok(Outcome::Blocked { budget: Some(BudgetName("web".to_owned())) })
}

#[tokio::test(start_paused = true)]
async fn one_pod_asks_a_budget_for_all_of_them() {
    let mut stage = Stage::new();
    for number in 0..6 {
        stage.wants("web", &format!("web-{number}"), Urgency::New);
    }
    // Nothing is known of a budget yet.
    assert_eq!(stage.answer(1, &refused()).await.len(), 6);
    // One that nobody has asked for is of the same kind.
    stage.wants("web", "web-6", Urgency::New);
    let probes = stage.answer(199_000, &refused()).await;
    assert_eq!(probes.len(), 7, "5, 10, 20 and then every 40 s");
    assert_eq!(probes.iter().collect::<std::collections::BTreeSet<_>>().len(), 7, "they take turns");
    // It opens: one, then two, then four.
    let opened = stage.answer(40_000, &Ok(Outcome::Done)).await;
    assert_eq!(opened.len(), 7);
}

#[tokio::test(start_paused = true)]
async fn what_is_let_go_is_followed_by_twice_as_many() {
    let mut stage = Stage::new();
    for number in 0..20 {
        stage.wants("web", &format!("web-{number:02}"), Urgency::New);
    }
    stage.answer(1, &refused()).await;
    let mut in_flight = Vec::new();
    let mut counts = Vec::new();
    for _ in 0..3 {
        let (_, reply) = stage.calls.recv().await.unwrap();
        in_flight.push(reply);
        tokio::time::sleep(Duration::from_millis(1)).await;
        while let Ok((_, reply)) = stage.calls.try_recv() {
            in_flight.push(reply);
        }
        counts.push(in_flight.len());
        // The first answer alone allows as many again.
        in_flight.drain(..).for_each(|reply| reply.send(Ok(Outcome::Done)).unwrap());
    }
    assert_eq!(counts, [1, 2, 8], "a success doubles, two double twice");
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_shuts_again_refuses_no_more_than_are_in_flight_at_most() {
    let mut stage = Stage::new();
    for number in 0..300 {
        stage.wants("web", &format!("web-{number:03}"), Urgency::New);
    }
    stage.answer(1, &refused()).await;
    // It opens for twelve, each of which allows twice as many as before.
    for _ in 0..12 {
        stage.calls.recv().await.unwrap().1.send(Ok(Outcome::Done)).unwrap();
    }
    assert_eq!(stage.answer(1, &refused()).await.len(), MOST);
}

#[tokio::test(start_paused = true)]
async fn what_one_budget_refuses_keeps_nobody_else() {
    let mut stage = Stage::new();
    for number in 0..300 {
        stage.wants("web", &format!("web-{number}"), Urgency::New);
    }
    // The first are in flight when they are refused; those behind them do not find out for themselves.
    assert_eq!(stage.answer(1, &refused()).await.len(), MOST);
    stage.wants("api", "api-0", Urgency::Pressing);
    assert_eq!(stage.answer(1, &Ok(Outcome::Done)).await, ["api-0"]);
}

#[tokio::test(start_paused = true)]
async fn a_pod_that_becomes_ready_ends_the_rest_of_a_budget() {
    let mut stage = Stage::new();
    stage.wants("web", "web-0", Urgency::New);
    assert_eq!(stage.answer(35_500, &refused()).await.len(), 4, "at 0, 5, 15 and 35 s");
    stage.readiness.send_modify(|count| *count += 1);
    assert_eq!(
        stage.answer(9_400, &refused()).await.len(),
        0,
        "a quarter of its rest of 40 s passes in any case"
    );
    assert_eq!(stage.answer(200, &refused()).await.len(), 1);
    stage.answer(20_000, &refused()).await;
    stage.readiness.send_modify(|count| *count += 1);
    assert_eq!(stage.answer(900, &refused()).await.len(), 0, "the controller counts first");
    assert_eq!(stage.answer(200, &refused()).await.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn what_is_withdrawn_in_time_is_not_asked() {
    let mut stage = Stage::new();
    stage.wants("web", "web-0", Urgency::New);
    stage.answer(1, &refused()).await;
    let who = who(&wish("web", "web-0", Urgency::New));
    stage.lane.withdraw(who);
    assert_eq!(stage.answer(60_000, &Ok(Outcome::Done)).await, Vec::<String>::new());
    assert_eq!(stage.pods.join_next().await.unwrap().unwrap(), "web-0", "whoever asked is told");
}

#[tokio::test(start_paused = true)]
async fn cordons_that_are_known_go_first_for_a_second() {
    let mut stage = Stage::new();
    let (first, second) = (stage.lane.isolations.begin(), stage.lane.isolations.begin());
    stage.wants("web", "web-0", Urgency::New);
    drop(first);
    assert!(stage.answer(500, &Ok(Outcome::Done)).await.is_empty());
    drop(second);
    assert_eq!(stage.answer(1, &Ok(Outcome::Done)).await, ["web-0"]);
    // One that hangs holds nobody for longer.
    let _hangs = stage.lane.isolations.begin();
    stage.wants("web", "web-1", Urgency::New);
    assert!(stage.answer(990, &Ok(Outcome::Done)).await.is_empty());
    assert_eq!(stage.answer(20, &Ok(Outcome::Done)).await, ["web-1"]);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_answer_is_not_flooded_and_holds_no_deadline() {
    let mut stage = Stage::new();
    for number in 0..200 {
        stage.wants(&format!("app-{number}"), &format!("pod-{number}"), Urgency::New);
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Sixty-four hang, and one whose time has come goes all the same.
    stage.wants("late", "late", Urgency::Forced);
    let mut hanging = BTreeMap::new();
    tokio::time::sleep(Duration::from_millis(1)).await;
    while let Ok((name, reply)) = stage.calls.try_recv() {
        hanging.insert(name, reply);
    }
    assert!(hanging.len() == MOST + 1 && hanging.contains_key("late"), "{:?}", hanging.keys());
    let failed = || Err(Fault::Retry("no answer".to_owned()));
    hanging.into_values().for_each(|reply| reply.send(failed()).unwrap());
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut next = 0;
    while stage.calls.try_recv().is_ok() {
        next += 1;
    }
    assert!(next <= FEWEST, "{next} at once");
}
