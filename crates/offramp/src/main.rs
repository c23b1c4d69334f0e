//! The binary: command line, configuration, wiring, admin server, logs and signals.
//!
//! Contract: only this crate reads files and the environment, and only [`failure::Failure`] decides
//! about exit codes. What should happen to an instance is decided in `offramp-core`, never here.

mod admin;
mod cli;
mod commands;
mod config;
mod failure;
mod nearest;
mod servers;
mod shutdown;
mod target_groups;
mod telemetry;
mod wiring;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match commands::start(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
