//! `offramp demo`: a sandbox and the worker in one process, over the real HTTP doors.

mod live;
mod report;
mod story;

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use offramp_core::Timestamp;
use offramp_engine::{Clock, Fact, Settings};
use offramp_kubernetes::{Access, ClusterOptions, ClusterSource};
use offramp_sandbox::{Delays, Sandbox};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::cli::{DemoArgs, LogArgs, LogFormat, LogLevel};
use crate::config::{Aws, Config, Queue, WithoutDeadLetterQueue};
use crate::failure::Failure;
use crate::servers::Servers;
use crate::wiring::Worker;
use crate::{shutdown, telemetry};

use live::Live;
use report::Report;
use story::Story;

/// The worker is in the middle of nothing when the demo ends; this is for a Ctrl-C before that.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(10);
/// What does not come to an end by itself is an error, and the demo says so.
const LONGEST: Duration = Duration::from_secs(240);

/// Runs the demo to its end.
pub(crate) async fn run(args: DemoArgs, log: LogArgs) -> Result<(), Failure> {
    // The picture tells what the log would; whoever asks for a log gets it beside.
    let level = log.log_level.unwrap_or(LogLevel::Error);
    telemetry::start(log.log_format.unwrap_or(LogFormat::Human), level)?;
    let interrupted = shutdown::listen(LONGEST_SHUTDOWN)
        .map_err(|error| Failure::runtime(format!("installing the signal handlers: {error}")))?;
    let delays = Delays::demo();
    let clock = Clock::system();
    let mut story = Story::new(clock.now(), delays.clone(), args.seed);
    let sandbox = Sandbox::new(story.build(), clock);
    let servers = Servers::open(&sandbox, IpAddr::V4(Ipv4Addr::LOCALHOST), 0, 0).await?;
    let folder = tempfile::Builder::new()
        .prefix("offramp-demo-")
        .tempdir()
        .map_err(|error| Failure::runtime(format!("making a folder for the kubeconfig: {error}")))?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, &servers.kubeconfig)
        .map_err(|error| Failure::runtime(format!("writing {}: {error}", kubeconfig.display())))?;

    let (listener, facts) = mpsc::unbounded_channel();
    let stop = CancellationToken::new();
    let access = offramp_aws::Access::sandbox(&servers.aws, &"eu-west-1".into());
    let worker = Worker::new(config(&sandbox, &servers, &kubeconfig, &delays))?;
    let admin = match args.admin_listen {
        Some(address) => Some(Admin::bind(address).await?),
        None => None,
    };
    let mut view = Live::new(&args, &delays)?;
    if let Some(admin) = &admin {
        view.scene(Duration::ZERO, &format!("serving http://{}/metrics", admin.address()))?;
    }
    let views = worker.views();
    let served = async {
        match admin {
            Some(admin) => admin.serve(views, stop.clone()).await,
            None => Ok(()),
        }
    };
    let watched = async {
        let outcome = watch(&sandbox, &mut story, view, facts, &interrupted).await;
        stop.cancel();
        outcome
    };
    let (worked, served, report) =
        tokio::join!(worker.run(async { Ok(access) }, Some(listener), stop.clone()), served, watched);
    worked?;
    served.map_err(|error| Failure::runtime(format!("serving the admin pages: {error}")))?;
    let Some(report) = report? else { return Err(Failure::runtime("interrupted before the end")) };
    report.print(args.json)?;
    report.verdict()
}

/// Drives the story and shows what happens until everything has come to its end. `None`: interrupted.
async fn watch(
    sandbox: &Sandbox,
    story: &mut Story,
    mut view: Live,
    mut facts: mpsc::UnboundedReceiver<(Timestamp, Fact)>,
    interrupted: &CancellationToken,
) -> Result<Option<Report>, Failure> {
    let started = sandbox.now();
    let mut report = Report::new();
    let mut ticks = tokio::time::interval(Duration::from_millis(250));
    loop {
        tokio::select! {
            biased;
            () = interrupted.cancelled() => return Ok(None),
            Some((at, fact)) = facts.recv() => {
                view.fact(at.since(started), &fact)?;
                report.take(&fact);
            }
            _ = ticks.tick() => {
                for line in story.go_on(sandbox) {
                    view.scene(sandbox.now().since(started), &line)?;
                }
                view.world(sandbox)?;
                if story.is_over(sandbox) {
                    break;
                }
                if sandbox.now().since(started) > LONGEST {
                    return Err(Failure::runtime(format!("the demo did not end by itself: {}", story.open(sandbox))));
                }
            }
        }
    }
    view.close()?;
    report.close(sandbox, story, sandbox.now().since(started));
    Ok(Some(report))
}

/// The worker's configuration, as a file would have it.
fn config(sandbox: &Sandbox, servers: &Servers, kubeconfig: &std::path::Path, delays: &Delays) -> Config {
    let (names, target_groups) = sandbox.peek(|world| {
        let names: Vec<_> = world.clusters.keys().cloned().collect();
        (names, world.balancers.all().map(|group| group.arn.clone()).collect())
    });
    let source = |name: &offramp_core::ClusterName| ClusterSource {
        name: name.clone(),
        access: Access::Kubeconfig { path: kubeconfig.to_owned(), context: Some(name.as_str().to_owned()) },
    };
    Config {
        queue: Queue {
            url: format!("{}/111122223333/offramp", servers.aws),
            without_dead_letter_queue: WithoutDeadLetterQueue::Refuse,
        },
        aws: Aws { region: None, endpoint_url: None },
        clusters: names.iter().map(|name| (source(name), ClusterOptions::default())).collect(),
        policy: offramp_core::Policy { clusters: names.into_iter().collect(), ..delays.policy() },
        engine: Settings { target_groups, ..Settings::default() },
        admin_listen: (Ipv4Addr::LOCALHOST, 0).into(),
        log_format: LogFormat::Human,
        log_level: LogLevel::Error,
        group_tag: None,
        overrides: Vec::new(),
    }
}
