//! Ports that panic: a bug may end one job or the whole worker, but never goes unnoticed.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use offramp_core::{
    ClusterName, Group, GroupName, InstanceId, Membership, Node, NodeDoubt, NodeName, Outcome, Pod, Seen,
    Timestamp,
};
use prometheus::{Registry, TextEncoder};

use super::*;

mod routes;
pub(crate) mod stubs;

/// 14 March 2026, 09:00:05 UTC: five seconds after the event.
const NOW: Timestamp = Timestamp::from_millis(1_773_478_805_000);

/// One notice, and a bug in one place.
struct World {
    bug: &'static str,
    extended: AtomicUsize,
}

impl World {
    fn reach(&self, place: &str) {
        assert_ne!(self.bug, place, "a bug in {place}");
    }
}

#[async_trait]
impl Queue for World {
    async fn receive(&self, _: usize, wait: Duration, _: Duration) -> Result<Vec<Message>, Fault> {
        self.reach("receive");
        // The one message is delivered once every poll.
        tokio::time::sleep(wait).await;
        let body = r#"{"version": "0", "id": "7bf73129-1428-4cd3-a780-95db273d1602",
            "detail-type": "EC2 Spot Instance Interruption Warning", "source": "aws.ec2",
            "account": "111122223333", "time": "2026-03-14T09:00:00Z", "region": "eu-west-1", "resources": [],
            "detail": {"instance-id": "i-0b1c2d3e4f5061728", "instance-action": "terminate"}}"#;
        Ok(vec![Message {
            id: MessageId("1".to_owned()),
            receipt: Receipt("r".to_owned()),
            body: body.to_owned(),
            receive_count: 1,
            sent_at: None,
        }])
    }

    async fn extend(&self, receipts: &[Receipt], visibility: Duration) -> Vec<Result<Held, Fault>> {
        self.reach("extend");
        if visibility > Duration::ZERO {
            self.extended.fetch_add(receipts.len(), Ordering::Relaxed);
        }
        vec![Ok(Held::Extended); receipts.len()]
    }

    async fn delete(&self, receipts: &[Receipt]) -> Vec<Result<(), Fault>> {
        vec![Ok(()); receipts.len()]
    }

    async fn dead_letter(&self, _: &Message, _: &str) -> Result<(), Fault> {
        Ok(())
    }

    async fn send(&self, bodies: &[String]) -> Vec<Result<(), Fault>> {
        vec![Ok(()); bodies.len()]
    }

    async fn depth(&self) -> Result<Depth, Fault> {
        self.reach("depth");
        Ok(Depth::default())
    }

    async fn dead_letters(&self) -> Result<u64, Fault> {
        Ok(0)
    }
}

#[async_trait]
impl Groups for World {
    async fn instances(&self, _: &[InstanceId]) -> Result<BTreeMap<InstanceId, Membership>, Fault> {
        self.reach("instances");
        Err(Fault::Retry("describing Auto Scaling instances: not now".to_owned()))
    }

    async fn group(&self, _: &GroupName) -> Result<Option<Group>, Fault> {
        Ok(None)
    }

    async fn out_of_service(&self) -> Result<Vec<(InstanceId, Membership)>, Fault> {
        Ok(Vec::new())
    }

    async fn terminations(&self, _: &GroupName) -> Result<BTreeMap<InstanceId, Timestamp>, Fault> {
        Ok(BTreeMap::new())
    }

    async fn perform(&self, calls: &[GroupCall]) -> Vec<Result<Outcome, Fault>> {
        vec![Ok(Outcome::Done); calls.len()]
    }
}

/// The sessions and the cluster of the same world.
struct Shared(Arc<World>);

impl Sessions for Shared {
    fn groups(&self, _: &AccountRegion) -> Result<Arc<dyn Groups>, Fault> {
        Ok(self.0.clone())
    }

    fn targets(&self, _: &AccountRegion) -> Result<Arc<dyn Targets>, Fault> {
        Err(Fault::Denied("no load balancers here".to_owned()))
    }
}

struct Blue(Arc<World>, ClusterName);

#[async_trait]
impl Cluster for Blue {
    stubs::knows_of_nothing!();

    fn name(&self) -> &ClusterName {
        &self.1
    }

    fn node(&self, _: &InstanceId) -> Seen<Node> {
        Seen::Known(Node {
            name: NodeName::new("n1"),
            ready: true,
            unready_for_pods: false,
            silent: false,
            ready_since: Timestamp::from_millis(0),
            renewed_at: Timestamp::from_millis(0),
            zone: None,
            cordoned: false,
            excluded: false,
            record: None,
            owner: offramp_core::NodeOwner::SelfManaged,
            selected: true,
            resource_version: "1".to_owned(),
        })
    }

    fn doubt(&self, _: &InstanceId) -> Option<NodeDoubt> {
        None
    }

    fn proven(&self) -> watch::Receiver<Timestamp> {
        watch::channel(NOW).1
    }

    fn pods(&self, _: &NodeName, _: &InstanceId) -> Seen<Vec<Pod>> {
        self.0.reach("pods");
        Seen::Unknown
    }

    fn readiness(&self, _: &str) -> watch::Receiver<u64> {
        watch::channel(0).1
    }

    async fn perform(&self, _: &ClusterCall) -> Result<Outcome, Fault> {
        self.0.reach("perform");
        Ok(Outcome::Done)
    }
}

fn worker(bug: &'static str) -> (Engine, Registry, Arc<World>) {
    let world = Arc::new(World { bug, extended: AtomicUsize::new(0) });
    let blue = ClusterName::new("blue");
    let ports = Ports {
        queue: world.clone(),
        account_region: AccountRegion::default(),
        sessions: Arc::new(Shared(world.clone())),
        clusters: vec![Arc::new(Blue(world.clone(), blue.clone()))],
    };
    let (clock, registry) = (Clock::starting_at(NOW), Registry::new());
    let journal = Journal::new(clock.clone(), Metrics::register(&registry, [&blue]).unwrap());
    let policy = Policy { clusters: [blue].into(), ..default_policy() };
    let (engine, _) = Engine::new(ports, policy, Settings::default(), clock, journal);
    (engine, registry, world)
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_task_that_all_depend_on_ends_the_worker() {
    for (bug, task) in
        [("receive", "intake"), ("extend", "leases"), ("depth", "gauges"), ("instances", "calls")]
    {
        let (engine, ..) = worker(bug);
        let run = tokio::time::timeout(Duration::from_secs(60), engine.run(CancellationToken::new()));
        let broken = run.await.unwrap_or_else(|_| panic!("a bug in {bug} leaves a worker that does nothing"));
        let text = broken.unwrap_err().to_string();
        assert!(text.contains(&format!("the {task} task")), "{text}");
        assert!(text.contains(&format!("a bug in {bug}")), "{text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_a_job_is_counted_and_leaves_no_job_behind() {
    for bug in ["pods", "perform"] {
        let (engine, registry, world) = worker(bug);
        let stop = CancellationToken::new();
        let stopped = async {
            tokio::time::sleep(Duration::from_secs(12)).await;
            stop.cancel();
        };
        let (worked, ()) = tokio::join!(engine.run(stop.clone()), stopped);
        worked.unwrap();
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let finished = |labels: &str| {
            let name = format!("offramp_jobs_finished_total{{{labels}}} ");
            text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse::<u64>().unwrap()
        };
        let panicked = finished(r#"cluster="blue",outcome="panicked",trigger="spot""#);
        assert!(panicked >= 2, "each delivery begins a job anew: {text}");
        let extended = world.extended.load(Ordering::Relaxed);
        assert_eq!(extended, 0, "nobody holds what a job that is gone was working on");
        for line in text.lines().filter(|line| line.starts_with("offramp_jobs{")) {
            assert!(line.ends_with(" 0"), "{line}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_bug_the_worker_ends_when_it_is_told_to() {
    let (engine, registry, world) = worker("nothing");
    let stop = CancellationToken::new();
    let stopped = async {
        tokio::time::sleep(Duration::from_secs(12)).await;
        let text = TextEncoder::new().encode_to_string(&registry.gather()).unwrap();
        let isolating = r#"offramp_jobs{cluster="blue",stage="isolate"} 1"#;
        assert!(text.lines().any(|line| line == isolating), "{text}");
        let deadline =
            r#"offramp_earliest_deadline_timestamp_seconds{cluster="blue",trigger="spot"} 1773478920"#;
        assert!(text.lines().any(|line| line == deadline), "{text}");
        assert!(world.extended.load(Ordering::Relaxed) > 0, "its message is held");
        stop.cancel();
    };
    let (worked, ()) = tokio::join!(engine.run(stop.clone()), stopped);
    worked.unwrap();
}
