//! What the demo shows while it runs: a line for each node that redraws itself, or plain lines.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use offramp_core::InstanceId;
use offramp_engine::{Fact, in_words};
use offramp_sandbox::{Delays, Sandbox};

use crate::cli::DemoArgs;
use crate::failure::Failure;

/// The view.
pub(crate) enum Live {
    /// One line for each thing that happens.
    Plain(Plain),
    /// One line for each node, and one for the requests.
    Picture(Picture),
    /// Nothing: only the figures at the end are wanted.
    Silent,
}

pub(crate) struct Plain {
    nodes: BTreeMap<InstanceId, String>,
}

pub(crate) struct Picture {
    board: MultiProgress,
    requests: ProgressBar,
    lines: BTreeMap<InstanceId, ProgressBar>,
    nodes: BTreeMap<InstanceId, String>,
}

impl Live {
    pub(crate) fn new(args: &DemoArgs, delays: &Delays) -> Result<Self, Failure> {
        if args.json {
            return Ok(Self::Silent);
        }
        print(&introduction(delays))?;
        if args.plain || !io::stdout().is_terminal() {
            return Ok(Self::Plain(Plain { nodes: BTreeMap::new() }));
        }
        let board = MultiProgress::with_draw_target(ProgressDrawTarget::stdout());
        let requests = board.add(line());
        Ok(Self::Picture(Picture { board, requests, lines: BTreeMap::new(), nodes: BTreeMap::new() }))
    }

    /// Something happens in the story.
    pub(crate) fn scene(&mut self, after: Duration, text: &str) -> Result<(), Failure> {
        match self {
            Self::Plain(_) => print(&format!("{:>6.1} s  {text}\n", after.as_secs_f64())),
            Self::Picture(picture) => {
                let text = format!("{:>6.1} s  {text}", after.as_secs_f64());
                picture.board.println(text).map_err(|error| lost(&error))
            }
            Self::Silent => Ok(()),
        }
    }

    /// The worker did or saw something.
    pub(crate) fn fact(&mut self, after: Duration, fact: &Fact) -> Result<(), Failure> {
        match self {
            Self::Plain(plain) => plain.fact(after, fact),
            Self::Picture(picture) => {
                picture.fact(after, fact);
                Ok(())
            }
            Self::Silent => Ok(()),
        }
    }

    /// The world as it is.
    pub(crate) fn world(&mut self, sandbox: &Sandbox) -> Result<(), Failure> {
        if let Self::Picture(picture) = self {
            let (served, lost) = sandbox.peek(|world| (world.traffic.served(), world.traffic.lost()));
            picture.requests.set_message(format!("requests  {served:>8.0} served  {lost:>5.0} lost"));
        }
        Ok(())
    }

    pub(crate) fn close(&mut self) -> Result<(), Failure> {
        if let Self::Picture(picture) = self {
            picture.requests.finish();
            picture.lines.values().for_each(ProgressBar::abandon);
            print("\n")?;
        }
        Ok(())
    }
}

impl Plain {
    fn fact(&mut self, after: Duration, fact: &Fact) -> Result<(), Failure> {
        if let Fact::Routed { instance, node: Some(node), cluster } = fact {
            self.nodes.insert(instance.clone(), format!("{cluster}/{}", short(node.as_str())));
        }
        let Some((instance, text)) = told(fact) else { return Ok(()) };
        let name = self.nodes.get(instance).map_or(instance.as_str(), String::as_str);
        print(&format!("{:>6.1} s  {name:<18} {text}\n", after.as_secs_f64()))
    }
}

impl Picture {
    fn fact(&mut self, after: Duration, fact: &Fact) {
        if let Fact::Routed { instance, node: Some(node), cluster } = fact {
            self.nodes.insert(instance.clone(), format!("{cluster}/{}", short(node.as_str())));
        }
        let Some((instance, text)) = told(fact) else { return };
        let name = self.nodes.get(instance).map_or(instance.as_str(), String::as_str);
        let bar = self.lines.entry(instance.clone()).or_insert_with(|| self.board.add(line()));
        bar.set_message(format!("{name:<18} {:>6.1} s  {text}", after.as_secs_f64()));
    }
}

/// What people want to read of a fact.
fn told(fact: &Fact) -> Option<(&InstanceId, String)> {
    match fact {
        Fact::Joined { instance, copy: false, .. }
        | Fact::Stepped { instance, .. }
        | Fact::Isolated { instance, .. }
        | Fact::Faulted { instance, .. }
        | Fact::Vetoed { instance, .. }
        | Fact::NotWaitedFor { instance, .. }
        | Fact::Found { instance, .. }
        | Fact::Finished { instance, .. } => Some((instance, fact.to_string())),
        Fact::Received { .. }
        | Fact::Ignored { .. }
        | Fact::DeadLettered { .. }
        | Fact::QueueFaulted { .. }
        | Fact::DeadLetterPostponed { .. }
        | Fact::LaterVersion { .. }
        | Fact::ClockWrong { .. }
        | Fact::LeaseLost { .. }
        | Fact::Joined { copy: true, .. }
        | Fact::Routed { .. }
        | Fact::Acted { .. }
        | Fact::TooManyJobs { .. }
        | Fact::SweepFaulted { .. }
        | Fact::Unfinished { .. }
        | Fact::Stopping { .. } => None,
    }
}

fn introduction(delays: &Delays) -> String {
    let mut text = String::from(
        "Two clusters, fifteen nodes, one queue. Everything below is the real worker at work over HTTP, against a\n\
         sandbox of AWS and Kubernetes in this process. To end in about two minutes, the sandbox is quicker than\n\
         AWS; the two minutes of a spot notice stay.\n\n  delay                                     on AWS      here\n",
    );
    for (what, aws, here) in delays.rows() {
        text.push_str(&format!("  {what:<38} {:>9} {:>9}\n", in_words(aws), in_words(here)));
    }
    text.push('\n');
    text
}

/// A node's name without its domain.
fn short(node: &str) -> &str {
    node.split('.').next().unwrap_or(node)
}

fn line() -> ProgressBar {
    let bar = ProgressBar::new_spinner();
    // The template is a constant of ours; a wrong one would show the default style.
    if let Ok(style) = ProgressStyle::with_template("{wide_msg}") {
        bar.set_style(style);
    }
    bar
}

pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| lost(&error))
}

fn lost(error: &io::Error) -> Failure {
    Failure::runtime(format!("writing to stdout: {error}"))
}
