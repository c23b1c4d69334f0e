//! The AWS of a measurement, which is the sandbox, and the workers that serve it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::Request;
use axum::middleware::{self, Next};
use jiff::Timestamp;
use offramp_core::{GroupName, InstanceId, SpotAction};
use offramp_engine::Clock;
use offramp_sandbox::doors::aws_router;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::{Delays, Fleet, Sandbox, World};
use tempfile::TempDir;
use tokio::net::TcpListener;

use super::cluster::{Machine, until_async};
use super::worker::Worker;

/// What leaves has a notice of this kind.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Notice {
    Spot,
    Hook,
}

/// So many of each.
#[derive(Clone, Copy, Default)]
pub(crate) struct Fleets {
    pub(crate) spot: usize,
    pub(crate) hook: usize,
    /// They stay, and keep every target group healthy.
    pub(crate) steady: usize,
    pub(crate) target_groups: u16,
    /// Of the target groups.
    pub(crate) deregistration: Duration,
}

pub(crate) struct Aws {
    pub(crate) sandbox: Sandbox,
    url: String,
    /// Milliseconds that Auto Scaling and ELB take for each answer.
    answers_in: Arc<AtomicU64>,
    folder: TempDir,
}

impl Aws {
    pub(crate) async fn open(fleets: Fleets) -> Self {
        let clock = Clock::system();
        // What is measured begins with the messages in the queue.
        let delays = Delays {
            event: Duration::ZERO,
            group_reaction: Duration::ZERO,
            deregistration: fleets.deregistration,
            ..Delays::aws()
        };
        let mut fleet = Fleet::new(clock.now(), delays, 1)
            .cluster("blue")
            .pool(Pool { hooks: Vec::new(), ..Pool::spot("spot", fleets.spot) })
            .pool(Pool::new("hook", fleets.hook))
            .pool(Pool::new("steady", fleets.steady));
        for number in 0..fleets.target_groups {
            let entrance = Some(Entrance::new(30_080 + number, 1.0));
            fleet = fleet.app(App { entrance, ..App::new(&format!("web{number}"), 10) });
        }
        let mut world = fleet.build();
        // Its own cluster sees no removal, and its controller would put every target back.
        for cluster in world.clusters.values_mut() {
            cluster.services.values_mut().for_each(|service| service.target_group = None);
        }
        let sandbox = Sandbox::new(world, clock);
        let running = sandbox.clone();
        tokio::spawn(async move { running.run().await });

        let answers_in = Arc::new(AtomicU64::new(0));
        let millis = Arc::clone(&answers_in);
        let slow = middleware::from_fn(move |request: Request, next: Next| {
            // SQS alone names its operation in a header.
            let of_queue = request.headers().contains_key("x-amz-target");
            let pause = Duration::from_millis(if of_queue { 0 } else { millis.load(Ordering::Relaxed) });
            async move {
                tokio::time::sleep(pause).await;
                next.run(request).await
            }
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let router = aws_router(sandbox.clone()).layer(slow);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { sandbox, url, answers_in, folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn answers_in(&self, span: Duration) {
        self.answers_in.store(span.as_millis().try_into().unwrap(), Ordering::Relaxed);
    }

    /// The instances of a group, and the nodes that they are to be.
    pub(crate) fn members(&self, group: &str) -> Vec<(InstanceId, Machine)> {
        self.sandbox.peek(|world| {
            let members = &world.groups.get(&GroupName::new(group)).unwrap().members;
            let nodes = world.clusters.values().flat_map(|cluster| cluster.nodes.values());
            let nodes = nodes.filter(|node| members.contains_key(&node.instance));
            nodes
                .map(|node| {
                    let zone = world.instances.get(&node.instance).unwrap().zone.to_string();
                    let provider_id = format!("aws:///{zone}/{}", node.instance);
                    (node.instance.clone(), Machine { node: node.name.to_string(), provider_id, zone })
                })
                .collect()
        })
    }

    /// Sends the notices, and gives the moment when their messages are in the queue.
    pub(crate) fn begin(&self, notice: Notice, instances: &[InstanceId]) -> Timestamp {
        self.sandbox.with(|world| {
            for instance in instances {
                match notice {
                    Notice::Spot => assert!(world.spot_interrupt(instance, SpotAction::Terminate)),
                    Notice::Hook => world.terminate_in_group(instance, true).unwrap(),
                }
            }
            let now = world.now();
            world.advance(now);
        });
        Timestamp::now()
    }

    /// Hooks that were answered.
    pub(crate) fn answered(&self) -> usize {
        let is_answer = |line: &str| line.contains(" is answered with CONTINUE");
        self.sandbox.peek(|world| world.story.iter().filter(|(_, line)| is_answer(line)).count())
    }

    /// Calls so far, those of the queue left out.
    pub(crate) fn calls(&self) -> usize {
        let all = self.sandbox.peek(|world| world.calls.clone());
        let others = all.iter().filter(|(call, _)| !call.starts_with("sqs."));
        others.map(|(_, count)| usize::try_from(*count).unwrap()).sum()
    }

    /// Starts the binary, and waits until it is ready.
    pub(crate) async fn worker(&self, name: &str, kubeconfig: &Path) -> Worker {
        let start =
            |world: &World| Worker::start(self.folder.path(), name, &self.url, ("blue", kubeconfig), world);
        let worker = self.sandbox.peek(start);
        until_async("the worker is ready", || async { worker.is_ready() }).await;
        worker
    }
}
