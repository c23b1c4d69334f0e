//! One module for each command.

mod demo;
mod run;
mod sandbox;

use std::time::Duration;

use crate::cli::{Cli, Command};
use crate::failure::Failure;

/// Runs the command that was typed, on a runtime of its own.
pub(crate) fn start(cli: Cli) -> Result<(), Failure> {
    let Cli { log, command } = cli;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::runtime(format!("starting the runtime: {error}")))?;
    let outcome = runtime.block_on(async {
        match command {
            Command::Run(args) => Box::pin(run::run(args, log)).await,
            Command::Demo(args) => Box::pin(demo::run(args, log)).await,
            Command::Sandbox(args) => Box::pin(sandbox::run(args, log)).await,
        }
    });
    // A name lookup that hangs in a blocking thread must not hold the exit back.
    runtime.shutdown_timeout(Duration::from_secs(1));
    outcome
}
