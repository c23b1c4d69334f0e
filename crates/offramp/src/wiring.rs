//! Adapters, engine and views put together. Nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use offramp_aws::{Access, DeadLetterPolicy, OpenError, Options, Sessions, SqsQueue};
use offramp_core::{ClusterName, InstanceId, NodeName, Policy, Timestamp};
use offramp_engine::{Clock, Cluster, Engine, Fact, Handle, Journal, Metrics, Ports};
use offramp_kubernetes::KubernetesCluster;
use prometheus::Registry;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::admin::{JobView, Readiness, Views};
use crate::config::{Config, WithoutDeadLetterQueue};
use crate::failure::Failure;
use crate::target_groups;

/// A worker that has nothing open yet.
pub(crate) struct Worker {
    config: Config,
    clusters: Vec<Arc<dyn Cluster>>,
    /// The only one: what the pages compare was timed by it.
    clock: Clock,
    registry: Registry,
    metrics: Metrics,
    /// Runs the watches; they end with the worker.
    watches: JoinSet<()>,
    progress: watch::Sender<Progress>,
}

/// How far the worker has come.
#[derive(Clone)]
enum Progress {
    /// The queue is not open, and why.
    Opening(String),
    /// The engine runs.
    Running(Handle),
}

/// The intake comes round at least once in this time: a poll of 5 s, or a timeout of 10 s and a pause of
/// at most 19 s, twice over.
const STALLED: Duration = Duration::from_secs(60);
/// The first pause after a queue that does not answer, and the longest.
const REOPEN: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));

/// A removal may last 48 h, and each rollout of three replicas hands it over up to three times, each crash and each lost lease
/// once: half a dozen rollouts, and two to spare. SQS then gives a message up that somebody works on.
const FEWEST_RECEIVES: u32 = 20;

/// What to do where a part of the worker panicked.
const A_BUG: &str = "start it again; the lines above name the place in the code, please report them";

impl Worker {
    /// Asks nobody and waits for nothing, so that the pages can be served before anything else: what does not
    /// open later stands on them.
    pub(crate) fn new(config: Config) -> Result<Self, Failure> {
        let (registry, clock) = (Registry::new(), Clock::system());
        let metrics = register(&registry, &config)
            .map_err(|error| Failure::runtime(format!("registering the metrics: {error}")))?;
        let mut watches = JoinSet::new();
        let mut clusters: Vec<Arc<dyn Cluster>> = Vec::new();
        for (source, options) in &config.clusters {
            let cluster = KubernetesCluster::new(source.clone(), options, clock.clone(), metrics.clone());
            let (cluster, watch) =
                cluster.map_err(|error| Failure::configuration(vec![error.to_string()]))?;
            watches.spawn(watch);
            clusters.push(cluster);
        }
        let progress = watch::Sender::new(Progress::Opening("not asked yet".to_owned()));
        Ok(Self { config, clusters, clock, registry, metrics, watches, progress })
    }

    /// What the admin server shows.
    pub(crate) fn views(&self) -> Views {
        let (live, ready, jobs) =
            (self.progress.subscribe(), self.progress.subscribe(), self.progress.subscribe());
        let (clusters, clock) = (self.clusters.clone(), self.clock.clone());
        let (registry, metrics, watched) =
            (self.registry.clone(), self.metrics.clone(), self.clusters.clone());
        Views {
            // As it is at the moment of the question, with a queue or without.
            metrics: Arc::new(move || {
                for cluster in &watched {
                    metrics.synced(cluster.name(), cluster.in_sync());
                    metrics.unidentified(cluster.name(), cluster.unidentified().len());
                    metrics.twins(cluster.name(), cluster.twins().len());
                }
                registry.gather()
            }),
            live: Arc::new(move || liveness(&live.borrow(), clock.unmoved())),
            readiness: Arc::new(move || {
                let queue = queue_readiness(&ready.borrow());
                std::iter::once(queue).chain(clusters.iter().map(cluster_readiness)).collect()
            }),
            jobs: Arc::new(move || {
                let progress = jobs.borrow().clone();
                async move {
                    match progress {
                        Progress::Running(handle) => {
                            let jobs = handle.jobs().await.into_iter().map(JobView::from);
                            jobs.chain(handle.unfinished().into_iter().map(JobView::from)).collect()
                        }
                        Progress::Opening(_) => Vec::new(),
                    }
                }
                .boxed()
            }),
        }
    }

    /// Opens the queue, however long that takes, and works until told to stop.
    pub(crate) async fn run(
        mut self,
        access: impl Future<Output = Result<Access, Failure>>,
        listener: Option<mpsc::UnboundedSender<(Timestamp, Fact)>>,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let mut watches = std::mem::take(&mut self.watches);
        let worked = tokio::select! {
            biased;
            broken = first_end(&mut watches) => Err(broken),
            worked = self.work(access, listener, stop) => worked,
        };
        watches.shutdown().await;
        worked
    }

    async fn work(
        &mut self,
        access: impl Future<Output = Result<Access, Failure>>,
        listener: Option<mpsc::UnboundedSender<(Timestamp, Fact)>>,
        stop: CancellationToken,
    ) -> Result<(), Failure> {
        let access = tokio::select! {
            biased;
            () = stop.cancelled() => return Ok(()),
            access = access => access?.measured_by(self.metrics.clone()),
        };
        let Some(queue) = self.open_queue(&access, &stop).await? else { return Ok(()) };
        let (account_region, installation) = (queue.account_region().clone(), queue.installation().clone());
        tracing::info!(
            queue = self.config.queue.url,
            account = account_region.account.as_ref().map(|account| account.as_str()),
            region = account_region.region.as_ref().map(|region| region.as_str()),
            clusters = self.clusters.len(),
            "working"
        );
        if let Some(max_receive_count) = queue.most_receives().filter(|count| *count < FEWEST_RECEIVES) {
            tracing::warn!(
                max_receive_count,
                "its redrive policy gives a message up after {max_receive_count} receives, and every hand-over from \
                 one worker to the next is one; set maxReceiveCount to 100"
            );
        }
        let scope = self.config.group_tag.take();
        let sessions = Arc::new(Sessions::new(access, account_region.clone(), scope));
        let ports = Ports {
            queue: Arc::new(queue),
            sessions: Arc::clone(&sessions) as Arc<dyn offramp_engine::Sessions>,
            account_region: account_region.clone(),
            clusters: self.clusters.clone(),
        };
        let clock = self.clock.clone();
        let journal = Journal::new(clock.clone(), self.metrics.clone());
        let journal = match listener {
            Some(listener) => journal.with_listener(listener),
            None => journal,
        };
        let policy = Policy { installation, ..self.config.policy.clone() };
        let settings = self.config.engine.clone();
        let (engine, handle) = Engine::new(ports, policy, settings, clock, journal);
        self.progress.send_replace(Progress::Running(handle));
        let configured = &self.config.engine.target_groups;
        let looked = async {
            target_groups::check(&*sessions, &account_region, configured, &self.metrics).await;
            std::future::pending().await
        };
        let worked = tokio::select! {
            biased;
            worked = engine.run(stop) => worked,
            never = looked => never,
        };
        worked.map_err(|broken| Failure::runtime(broken.to_string()).hint(A_BUG))?;
        tracing::info!("stopped: what was in work comes back to the next worker");
        Ok(())
    }

    /// Tries until the queue answers. A role that may not read it yet, or a queue that is not there yet, is tried again, too: a
    /// new permission takes IAM a minute to spread. What is wrong with the queue or the configuration ends the worker at
    /// once. `None`: told to stop meanwhile.
    async fn open_queue(
        &self,
        access: &Access,
        stop: &CancellationToken,
    ) -> Result<Option<SqsQueue>, Failure> {
        let dead_letters = match self.config.queue.without_dead_letter_queue {
            WithoutDeadLetterQueue::Refuse => DeadLetterPolicy::Required,
            WithoutDeadLetterQueue::Allow => DeadLetterPolicy::Optional,
        };
        let (mut pause, longest) = REOPEN;
        loop {
            let open = SqsQueue::open(access, &self.config.queue.url, dead_letters);
            let opened = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                opened = open => opened,
            };
            match opened {
                Ok(queue) => return Ok(Some(queue)),
                Err(error) if !may_pass(&error) => return Err(refused(&error)),
                Err(error) => {
                    tracing::warn!(
                        again_in_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                        "{error}; it will be tried again: {}",
                        remedy(&error).unwrap_or_default()
                    );
                    self.progress.send_replace(Progress::Opening(error.to_string()));
                }
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(None),
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(longest),
            }
        }
    }
}

/// The worker's metrics, and those of its process where the system shows them.
fn register(registry: &Registry, config: &Config) -> Result<Metrics, prometheus::Error> {
    #[cfg(target_os = "linux")]
    registry.register(Box::new(prometheus::process_collector::ProcessCollector::for_self()))?;
    Metrics::register(registry, config.clusters.iter().map(|(source, _)| &source.name))
}

/// The watches run for ever: one that ends would leave a view that looks in sync and never changes.
/// Cancel-safe.
async fn first_end(watches: &mut JoinSet<()>) -> Failure {
    let why = match watches.join_next().await {
        Some(Err(error)) => error.to_string(),
        Some(Ok(())) => "it ended by itself".to_owned(),
        // There is none, and so nothing to end.
        None => return std::future::pending().await,
    };
    Failure::runtime(format!("the watches of a cluster hit a bug: {why}")).hint(A_BUG)
}

/// The way to AWS that the configuration and the environment describe.
pub(crate) fn access(config: &Config) -> impl Future<Output = Result<Access, Failure>> + use<> {
    let options =
        Options { region: config.aws.region.clone(), endpoint_url: config.aws.endpoint_url.clone() };
    async move { Access::load(&options).await.map_err(|error| refused(&error)) }
}

/// Without anybody who changes the configuration.
const fn may_pass(error: &OpenError) -> bool {
    matches!(error, OpenError::Unreachable(_) | OpenError::Denied(_) | OpenError::NoQueue(_))
}

fn refused(error: &OpenError) -> Failure {
    let failure = Failure::runtime(error.to_string());
    match remedy(error) {
        Some(remedy) => failure.hint(remedy),
        None => failure,
    }
}

/// What the operator can do.
const fn remedy(error: &OpenError) -> Option<&'static str> {
    match error {
        OpenError::NoCredentials(_) => Some(
            "give it credentials the way the AWS CLI takes them: EKS Pod Identity or IRSA in a cluster, \
             AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY elsewhere; for the role of the instance, \
             switch its metadata service on, and for a pod give it a hop limit of 2",
        ),
        OpenError::Denied(_) => Some(
            "the role needs sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility, \
             sqs:SendMessage and sqs:GetQueueAttributes on the queue, and sqs:SendMessage, sqs:GetQueueUrl and \
             sqs:GetQueueAttributes on its dead-letter queue",
        ),
        OpenError::NoQueue(_) => Some("compare queue.url with `aws sqs list-queues`"),
        OpenError::Unreachable(_) => Some("check the network and queue.url"),
        OpenError::NoDeadLetterQueue(_) | OpenError::Invalid(_) => None,
    }
}

fn liveness(progress: &Progress, now: Timestamp) -> Result<(), String> {
    let Progress::Running(handle) = progress else { return Ok(()) };
    let quiet = now.since(handle.intake_health().at);
    if quiet > STALLED {
        return Err(format!("no receive has come back for {} s", quiet.as_secs()));
    }
    Ok(())
}

fn queue_readiness(progress: &Progress) -> Readiness {
    let (ready, why) = match progress {
        Progress::Opening(why) => (false, why.clone()),
        Progress::Running(handle) => match handle.intake_health() {
            intake_health if intake_health.fault.is_some() => {
                (false, intake_health.fault.map(|fault| fault.to_string()).unwrap_or_default())
            }
            intake_health if intake_health.connected => (true, "receives".to_owned()),
            _ => (false, "no receive has come back yet".to_owned()),
        },
    };
    Readiness { name: "queue".to_owned(), ready, why }
}

fn cluster_readiness(cluster: &Arc<dyn Cluster>) -> Readiness {
    let ready = cluster.in_sync();
    let why = match cluster.trouble() {
        _ if ready => in_sync(cluster.name(), &cluster.unidentified(), &cluster.twins()),
        Some(trouble) => format!("out of sync: {trouble}"),
        None => "its watches have not caught up yet".to_owned(),
    };
    Readiness { name: format!("cluster {}", cluster.name()), ready, why }
}

/// In sync, and which nodes are left alone nevertheless. One of each is named: there may be hundreds.
fn in_sync(
    cluster: &ClusterName,
    unidentified: &[NodeName],
    twins: &[(InstanceId, Vec<NodeName>)],
) -> String {
    let mut text = "in sync".to_owned();
    if let Some(node) = unidentified.first() {
        let count = unidentified.len();
        text.push_str(&format!(
            "; {count} nodes of cluster {cluster} have no instance in their providerID, among them {node}"
        ));
    }
    if let Some((instance, nodes)) = twins.first() {
        let (count, nodes): (_, Vec<&str>) = (twins.len(), nodes.iter().map(NodeName::as_str).collect());
        text.push_str(&format!(
            "; {count} instances are named by several Ready nodes of cluster {cluster}, none of which is touched, \
             among them {instance} by {}",
            nodes.join(" and ")
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cluster_in_sync_names_the_nodes_that_are_left_alone() {
        let blue = ClusterName::new("blue");
        let check = |unidentified: &[NodeName], twins: &[(InstanceId, Vec<NodeName>)], expect: &str| {
            assert_eq!(in_sync(&blue, unidentified, twins), expect);
        };
        let instance = InstanceId::parse("i-0123456789abcdef0").unwrap();
        let twins = [(instance, vec!["n1".into(), "n2".into()])];
        let nameless = "in sync; 1 nodes of cluster blue have no instance in their providerID, among them n3";
        let twice = "; 1 instances are named by several Ready nodes of cluster blue, none of which is touched, \
                     among them i-0123456789abcdef0 by n1 and n2";
        check(&[], &[], "in sync");
        check(&["n3".into()], &[], nameless);
        check(&[], &twins, &format!("in sync{twice}"));
        check(&["n3".into()], &twins, &format!("{nameless}{twice}"));
    }

    #[tokio::test]
    async fn a_watch_that_ends_ends_the_worker() {
        let mut watches = JoinSet::new();
        watches.spawn(std::future::pending());
        watches.spawn(async { assert_eq!(1, 2, "a bug") });
        let failure = first_end(&mut watches).await;
        assert!(failure.errors()[0].contains("the watches of a cluster hit a bug: "), "{failure:?}");
        assert!(failure.errors()[0].contains("a bug"), "{failure:?}");
        watches.spawn(async {});
        let failure = first_end(&mut watches).await;
        assert!(failure.errors()[0].ends_with("it ended by itself"), "{failure:?}");
    }

    #[tokio::test]
    async fn a_worker_without_clusters_waits_for_none_of_their_watches() {
        let mut watches = JoinSet::new();
        let end = first_end(&mut watches);
        assert!(futures::poll!(std::pin::pin!(end)).is_pending());
    }
}
