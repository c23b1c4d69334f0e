//! `offramp sandbox`: the servers alone.

use std::io::Write;
use std::time::Duration;

use offramp_engine::Clock;
use offramp_sandbox::fleet::{App, Entrance, Pool};
use offramp_sandbox::{Delays, Fleet, Sandbox};

use crate::cli::{LogArgs, SandboxArgs};
use crate::failure::Failure;
use crate::servers::Servers;
use crate::{shutdown, telemetry};

/// Nothing has to be put in order at the end: there is nothing to keep.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(5);

/// Serves until a signal comes.
pub(crate) async fn run(args: SandboxArgs, log: LogArgs) -> Result<(), Failure> {
    telemetry::start(log.log_format.unwrap_or_default(), log.log_level.unwrap_or_default())?;
    let stop = shutdown::listen(LONGEST_SHUTDOWN)
        .map_err(|error| Failure::runtime(format!("installing the signal handlers: {error}")))?;
    let clock = Clock::system();
    let nodes = usize::from(args.nodes.get());
    let web = App {
        min_available: Some(nodes),
        entrance: Some(Entrance::new(30_080, 100.0)),
        ..App::new("web", nodes * 2)
    };
    // The other way in: a target group that is attached to the Auto Scaling group.
    let shop = App {
        min_available: Some(nodes),
        entrance: Some(Entrance { attached: true, ..Entrance::new(30_081, 100.0) }),
        ..App::new("shop", nodes * 2)
    };
    let world = Fleet::new(clock.now(), Delays::demo(), args.seed)
        .cluster("blue")
        .pool(Pool::new("workers", nodes))
        .app(web)
        .app(shop)
        .build();
    // Those that no Auto Scaling group knows: a worker finds them only in its configuration.
    let services = world.clusters.values().flat_map(|cluster| cluster.services.values());
    let target_group = services.filter_map(|service| service.target_group.as_ref());
    let target_group = target_group.map(ToString::to_string).next().unwrap_or_default();
    let sandbox = Sandbox::new(world, clock);
    let mut servers = Servers::open(&sandbox, args.bind, args.aws_port, args.kubernetes_port).await?;
    let folder = tempfile::Builder::new()
        .prefix("offramp-sandbox-")
        .tempdir()
        .map_err(|error| Failure::runtime(format!("making a folder for the kubeconfig: {error}")))?;
    let kubeconfig = folder.path().join("kubeconfig");
    std::fs::write(&kubeconfig, &servers.kubeconfig)
        .map_err(|error| Failure::runtime(format!("writing {}: {error}", kubeconfig.display())))?;
    let text = format!(
        "export AWS_ENDPOINT_URL={aws}\n\
         export AWS_REGION=eu-west-1\n\
         export AWS_DEFAULT_REGION=eu-west-1\n\
         export AWS_ACCESS_KEY_ID=sandbox\n\
         export AWS_SECRET_ACCESS_KEY=sandbox\n\
         export KUBECONFIG={kubeconfig}\n\
         export OFFRAMP_QUEUE_URL={aws}/111122223333/offramp\n\
         export OFFRAMP_CLUSTER_NAME=blue\n\
         # The target group of the Service `web`: {target_group}\n\
         # Scale the group `workers` in:  aws autoscaling set-desired-capacity \
         --auto-scaling-group-name workers --desired-capacity {fewer}\n\
         # Interrupt a spot instance:     curl -X POST {aws}/_sandbox/spot/INSTANCE\n",
        aws = servers.aws,
        kubeconfig = kubeconfig.display(),
        fewer = nodes.saturating_sub(1),
    );
    std::io::stdout()
        .write_all(text.as_bytes())
        .and_then(|()| std::io::stdout().flush())
        .map_err(|error| Failure::runtime(format!("writing to stdout: {error}")))?;
    tracing::info!(aws = servers.aws, "the sandbox is open until Ctrl-C");
    tokio::select! {
        biased;
        () = stop.cancelled() => Ok(()),
        broken = servers.first_end() => Err(broken),
    }
}
