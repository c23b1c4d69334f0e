//! `offramp run`: the worker.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::admin::Admin;
use crate::cli::{LogArgs, RunArgs};
use crate::config::{self, Config};
use crate::failure::Failure;
use crate::wiring::{self, Worker};
use crate::{shutdown, telemetry};

/// A running poll (5 s) ends, then the running tick with its calls (10 s), then the messages go back
/// (10 s at most): what takes longer than this is stuck.
const LONGEST_SHUTDOWN: Duration = Duration::from_secs(25);

/// Works until a signal comes.
pub(crate) async fn run(args: RunArgs, log: LogArgs) -> Result<(), Failure> {
    let config = Config::load(args.config.as_deref(), &config::of_this_process())?;
    telemetry::start(log.log_format.unwrap_or(config.log_format), log.log_level.unwrap_or(config.log_level))?;
    let stop = shutdown::listen(LONGEST_SHUTDOWN)
        .map_err(|error| Failure::runtime(format!("installing the signal handlers: {error}")))?;
    let admin = Admin::bind(config.admin_listen).await?;
    tracing::info!(address = %admin.address(), "serving /live, /ready, /metrics and /jobs");
    if !config.overrides.is_empty() {
        tracing::info!(
            variables = config.overrides.join(","),
            "the environment overrides the configuration file"
        );
    }
    let access = wiring::access(&config);
    let worker = Worker::new(config)?;
    let views = worker.views();
    let served = CancellationToken::new();
    let server = admin.serve(views, served.clone());
    let work = async {
        let outcome = Box::pin(worker.run(access, None, stop)).await;
        // The views stay to the end of the work, not longer.
        served.cancel();
        outcome
    };
    let (outcome, served) = tokio::join!(work, server);
    outcome.and(served.map_err(|error| Failure::runtime(format!("serving the admin pages: {error}"))))
}
