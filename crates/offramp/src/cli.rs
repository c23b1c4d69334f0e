//! The command line: what can be typed, and the words that explain it.

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroU16;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What was typed.
#[derive(Debug, Parser)]
#[command(
    name = "offramp",
    version,
    max_term_width = 100,
    about = "Takes Kubernetes nodes on AWS out of service without anybody noticing.",
    long_about = "Takes Kubernetes nodes on AWS out of service without anybody noticing.\n\n\
        When Auto Scaling or a spot interruption takes an instance away, offramp moves the traffic off its \
        node first, then the pods, and only then lets the instance go.",
    after_help = "Start here:\n  \
        offramp demo                       see it work, without an AWS account and without a cluster\n  \
        offramp run --config offramp.yaml  do it for real\n\n\
        `offramp COMMAND --help` explains one command in full, with examples.",
    disable_help_subcommand = true,
    subcommand_required = true,
    arg_required_else_help = true
)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) log: LogArgs,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// How to log; valid with every command.
#[derive(Args, Clone, Copy, Debug)]
#[command(next_help_heading = "Logs (on stderr; also OFFRAMP_LOG_FORMAT, OFFRAMP_LOG_LEVEL)")]
pub(crate) struct LogArgs {
    /// How log lines look: auto, human or json
    ///
    /// `human` is for people, `json` for machines; `auto`, the default, is human on a terminal and JSON
    /// elsewhere.
    #[arg(long, global = true, value_enum, value_name = "FORMAT", env = "OFFRAMP_LOG_FORMAT")]
    #[arg(hide_env = true, hide_possible_values = true)]
    pub(crate) log_format: Option<LogFormat>,

    /// How much to log: error, warn, info, debug or trace
    ///
    /// The default is `info`. Libraries log nothing, because their debug lines may hold
    /// credentials.
    #[arg(long, global = true, value_enum, value_name = "LEVEL", env = "OFFRAMP_LOG_LEVEL")]
    #[arg(hide_env = true, hide_possible_values = true)]
    pub(crate) log_level: Option<LogLevel>,
}

/// What log lines look like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// Human on a terminal, JSON elsewhere.
    #[default]
    Auto,
    /// One readable line for each event.
    Human,
    /// One JSON object on a line for each event.
    Json,
}

/// The least important events that are logged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    /// Something is wrong and needs somebody.
    Error,
    /// Something is odd and is being dealt with.
    Warn,
    /// What is done, and why.
    #[default]
    Info,
    /// Every step of every job.
    Debug,
    /// Everything.
    Trace,
}

/// One command.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Watch a queue and take nodes out of service, for real
    #[command(long_about = RUN_ABOUT, after_long_help = RUN_EXAMPLES)]
    Run(RunArgs),
    /// Watch a made-up fleet lose nodes, with nothing installed
    #[command(long_about = DEMO_ABOUT, after_long_help = DEMO_EXAMPLES)]
    Demo(DemoArgs),
    /// Serve a made-up AWS and a made-up cluster on this machine
    #[command(long_about = SANDBOX_ABOUT, after_long_help = SANDBOX_EXAMPLES)]
    Sandbox(SandboxArgs),
}

/// `offramp run`.
#[derive(Args, Debug)]
pub(crate) struct RunArgs {
    /// The configuration, a YAML file; not needed where the variables below say enough
    #[arg(long, short, value_name = "FILE", env = "OFFRAMP_CONFIG", hide_env_values = true)]
    pub(crate) config: Option<PathBuf>,
}

/// `offramp demo`.
#[derive(Args, Debug)]
pub(crate) struct DemoArgs {
    /// Print one line for each thing that happens, in place of a picture that redraws itself; this is
    /// also what happens where stdout is not a terminal
    #[arg(long)]
    pub(crate) plain: bool,

    /// The number that decides everything random in the made-up world: the same seed, the same world
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,

    /// Print the final figures as one JSON object on stdout, and nothing else there
    #[arg(long)]
    pub(crate) json: bool,

    /// Serve /live, /ready, /metrics and /jobs on this address meanwhile, such as 127.0.0.1:9090; anybody
    /// who can reach it can read them. Port 0 takes a free one and says which
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) admin_listen: Option<SocketAddr>,
}

/// `offramp sandbox`.
#[derive(Args, Debug)]
pub(crate) struct SandboxArgs {
    /// The address to listen on; anybody who can reach it can use the sandbox
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    pub(crate) bind: IpAddr,

    /// The port of the made-up AWS; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) aws_port: u16,

    /// The port of the made-up Kubernetes API; 0 takes a free one
    #[arg(long, value_name = "PORT", default_value_t = 0)]
    pub(crate) kubernetes_port: u16,

    /// How many nodes the made-up cluster starts with
    #[arg(long, value_name = "COUNT", default_value = "6")]
    pub(crate) nodes: NonZeroU16,

    /// The number that decides everything random in the made-up world
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    pub(crate) seed: u64,
}

const RUN_ABOUT: &str = "\
Watch a queue and take nodes out of service, for real.

Receives what Auto Scaling and EC2 announce (through EventBridge and SQS) and, for each instance that is \
about to go: cordons its node, takes it out of its load balancers, moves its pods elsewhere, answers the \
lifecycle hook, and deletes the message last. It keeps no state of its own: stop it, kill it or run several \
of it at any time.

It needs a queue, at least one cluster, AWS credentials (found the way the AWS CLI finds them) and access to \
the clusters (a service account in the pod, or a kubeconfig). It prints log lines on stderr and serves \
/live, /ready, /metrics and /jobs on 127.0.0.1:9090.";

const RUN_EXAMPLES: &str = "\
Without a file, these variables configure the simple case of one queue and one cluster. They take \
precedence over the file:
  OFFRAMP_QUEUE_URL     the queue that EventBridge feeds
  OFFRAMP_CLUSTER_NAME  the cluster's name; it is reached from inside the pod, or by KUBECONFIG
  OFFRAMP_HOOK_NAMES    names of lifecycle hooks to answer, separated by commas
  OFFRAMP_REBALANCE     automatic, none or isolate: what a rebalance recommendation leads to
  OFFRAMP_ADMIN_LISTEN  where /live, /ready, /metrics and /jobs are served

Examples:
  offramp run --config offramp.yaml
  OFFRAMP_QUEUE_URL=https://sqs.eu-west-1.amazonaws.com/123456789012/nodes \\
    OFFRAMP_CLUSTER_NAME=blue offramp run

SIGTERM or Ctrl-C stops it within seconds and loses nothing; a second one stops it at once.
Exit codes: 0 stopped as asked, 1 something did not work, 2 wrong configuration or usage.";

const DEMO_ABOUT: &str = "\
Watch a made-up fleet lose nodes, with nothing installed.

Starts a sandbox (AWS and a Kubernetes cluster in memory, with load balancers, pods and traffic) and the real \
worker in one process. The group shrinks, spot instances are interrupted, and you see node by node what the \
worker does and why. At the end it prints how many requests were lost and how long everything took.

It needs nothing: no AWS account, no cluster, no network. It takes about two minutes.";

const DEMO_EXAMPLES: &str = "\
Examples:
  offramp demo
  offramp demo --plain --seed 7
  offramp demo --json > figures.json
  offramp demo --admin-listen 127.0.0.1:9090   and meanwhile: curl 127.0.0.1:9090/metrics";

const SANDBOX_ABOUT: &str = "\
Serve a made-up AWS and a made-up cluster on this machine.

Starts two HTTP servers over one world in memory: one answers as SQS, Auto Scaling and Elastic Load \
Balancing do, the other as the part of the Kubernetes API that deals with nodes and pods. Point the AWS CLI, \
kubectl or `offramp run` at them to try things out.

It needs nothing, prints the variables to export on stdout, and runs until Ctrl-C. Nothing is stored.";

const SANDBOX_EXAMPLES: &str = "\
Examples:
  offramp sandbox
  offramp sandbox --aws-port 4566 --kubernetes-port 6443 --nodes 12";

#[cfg(test)]
mod tests;
