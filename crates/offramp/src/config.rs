//! The configuration: one YAML file, and environment variables for the simple case.
//!
//! `raw.rs` is what was typed and the reference of every field; [`Config`] is what it means, checked.

mod environment;
mod parse;
mod raw;
mod syntax;
mod validate;

use std::net::SocketAddr;
use std::path::Path;

pub(crate) use offramp_aws::GroupTag;
use offramp_core::{Policy, Region};
use offramp_engine::Settings;
use offramp_kubernetes::{ClusterOptions, ClusterSource};

use crate::cli::{LogFormat, LogLevel};
use crate::failure::Failure;

pub(crate) use environment::{Environment, of_this_process};

/// What the operator chose, checked and with every default filled in. It holds no secret.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    /// Where the notices come from.
    pub(crate) queue: Queue,
    /// How AWS is reached.
    pub(crate) aws: Aws,
    /// At least one; names and ways in are all different.
    pub(crate) clusters: Vec<(ClusterSource, ClusterOptions)>,
    /// What applies to one job.
    pub(crate) policy: Policy,
    /// How the engine runs.
    pub(crate) engine: Settings,
    /// Where the admin server listens.
    pub(crate) admin_listen: SocketAddr,
    /// What log lines look like.
    pub(crate) log_format: LogFormat,
    /// The least important events that are logged.
    pub(crate) log_level: LogLevel,
    /// Only instances of groups with this tag are ours; `None`: no tag is needed.
    pub(crate) group_tag: Option<GroupTag>,
    /// Environment variables that stand over a field of the file.
    pub(crate) overrides: Vec<&'static str>,
}

/// The SQS queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    /// Its URL.
    pub(crate) url: String,
    /// What to do where it has no dead-letter queue.
    pub(crate) without_dead_letter_queue: WithoutDeadLetterQueue,
}

/// What to do where the queue has no dead-letter queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WithoutDeadLetterQueue {
    /// Do not start.
    Refuse,
    /// Start, and delete what cannot be read.
    Allow,
}

/// How AWS is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Aws {
    /// As configured, else as the queue's URL says; `None`: what the SDK finds.
    pub(crate) region: Option<Region>,
    /// One endpoint for every service.
    pub(crate) endpoint_url: Option<String>,
}

impl Config {
    /// Reads the file, where one is given, and the environment, and checks everything. Of wrong values all
    /// are reported, of unknown fields and broken YAML the first.
    pub(crate) fn load(file: Option<&Path>, environment: &Environment) -> Result<Self, Failure> {
        let mut raw = match file {
            None => raw::RawConfig::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path).map_err(|error| unreadable(path, &error))?;
                parse::parse(path, &text).map_err(|error| Failure::configuration(vec![error]))?
            }
        };
        let environment::Overlaid { mut errors, overrides } = environment::overlay(&mut raw, environment);
        match validate::validate(raw, file, environment) {
            Ok(config) if errors.is_empty() => Ok(Self { overrides, ..config }),
            Ok(_) => Err(Failure::configuration(errors)),
            Err(wrong) => {
                errors.extend(wrong);
                Err(Failure::configuration(errors))
            }
        }
    }
}

fn unreadable(path: &Path, error: &std::io::Error) -> Failure {
    Failure::configuration(vec![format!("reading the configuration {}: {error}", path.display())]).hint(
        "name the file with --config or OFFRAMP_CONFIG, or configure by variables alone: offramp run --help",
    )
}

#[cfg(test)]
mod tests;
