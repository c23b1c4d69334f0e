//! The figures at the end of the demo.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, LineStyle, Table, TableStyle};
use offramp_core::{Action, InstanceId, Outcome};
use offramp_engine::{Fact, JobOutcome};
use offramp_sandbox::Sandbox;
use serde_json::{Value, json};

use super::live::print;
use super::story::Story;
use crate::failure::Failure;

/// What was counted on the way, and at the end.
pub(crate) struct Report {
    isolated: BTreeMap<InstanceId, Duration>,
    moved: BTreeMap<InstanceId, u64>,
    answered: BTreeMap<InstanceId, u64>,
    left: BTreeSet<InstanceId>,
    parts: Vec<Part>,
    requests: Requests,
    messages_left: u64,
    took: Duration,
}

/// One of the two halves of the demo.
struct Part {
    name: &'static str,
    instances: usize,
    removed: usize,
    isolation: Vec<Duration>,
    pods_moved: u64,
    hooks_completed: u64,
    lost: BTreeMap<String, f64>,
}

/// Requests over all.
#[derive(Default)]
struct Requests {
    served: f64,
    /// By cause, where no instance was at fault.
    lost_by_nobody: f64,
}

impl Report {
    pub(crate) const fn new() -> Self {
        Self {
            isolated: BTreeMap::new(),
            moved: BTreeMap::new(),
            answered: BTreeMap::new(),
            left: BTreeSet::new(),
            parts: Vec::new(),
            requests: Requests { served: 0.0, lost_by_nobody: 0.0 },
            messages_left: 0,
            took: Duration::ZERO,
        }
    }

    /// Counts what the worker did.
    pub(crate) fn take(&mut self, fact: &Fact) {
        match fact {
            Fact::Isolated { instance, since_received, .. } => {
                self.isolated.insert(instance.clone(), *since_received);
            }
            Fact::Acted { instance, action, outcome: Ok(Outcome::Done), .. } => match action {
                Action::Evict { .. } | Action::Delete { .. } => {
                    *self.moved.entry(instance.clone()).or_default() += 1;
                }
                Action::CompleteHook(_) => *self.answered.entry(instance.clone()).or_default() += 1,
                _ => {}
            },
            Fact::Finished { instance, outcome: JobOutcome::Left, .. } => {
                self.left.insert(instance.clone());
            }
            _ => {}
        }
    }

    /// Reads the world at the end.
    pub(crate) fn close(&mut self, sandbox: &Sandbox, story: &Story, took: Duration) {
        self.took = took;
        self.parts = vec![
            self.part("scale-in", &story.scaled_in, sandbox),
            self.part("spot", &story.interrupted, sandbox),
        ];
        sandbox.peek(|world| {
            let attributed: f64 = self.parts.iter().map(|part| part.lost.values().sum::<f64>()).sum();
            self.requests = Requests {
                served: world.traffic.served(),
                lost_by_nobody: (world.traffic.lost() - attributed).max(0.0),
            };
            self.messages_left = world.queues.get("offramp").map_or(0, |queue| {
                let (waiting, in_flight) = queue.depth(world.now());
                waiting + in_flight
            });
        });
    }

    fn part(&self, name: &'static str, instances: &BTreeSet<InstanceId>, sandbox: &Sandbox) -> Part {
        let mut isolation: Vec<Duration> =
            instances.iter().filter_map(|id| self.isolated.get(id)).copied().collect();
        isolation.sort();
        let sum = |of: &BTreeMap<InstanceId, u64>| instances.iter().filter_map(|id| of.get(id)).sum();
        let mut lost: BTreeMap<String, f64> = BTreeMap::new();
        sandbox.peek(|world| {
            for stream in world.traffic.streams() {
                for (id, causes) in &stream.lost_by_instance {
                    for (cause, count) in causes.iter().filter(|_| instances.contains(id)) {
                        *lost.entry(cause.to_string()).or_default() += count;
                    }
                }
            }
        });
        Part {
            name,
            instances: instances.len(),
            removed: instances.intersection(&self.left).count(),
            isolation,
            pods_moved: sum(&self.moved),
            hooks_completed: sum(&self.answered),
            lost,
        }
    }

    /// Prints the figures, as a table or as one JSON object.
    pub(crate) fn print(&self, as_json: bool) -> Result<(), Failure> {
        if as_json {
            return print(&format!("{:#}\n", self.json()));
        }
        let mut table = Table::new();
        table.load_style(STYLE);
        let header = std::iter::once(String::new()).chain(self.parts.iter().map(|part| part.name.to_owned()));
        table.set_header(header);
        let mut row = |what: &str, of: &dyn Fn(&Part) -> String| {
            let cells = self.parts.iter().map(|part| Cell::new(of(part)).set_alignment(CellAlignment::Right));
            table.add_row(std::iter::once(Cell::new(what)).chain(cells));
        };
        row("nodes removed", &|part| format!("{} of {}", part.removed, part.instances));
        row("message to isolated, p50", &|part| millis(percentile(&part.isolation, 50)));
        row("message to isolated, p99", &|part| millis(percentile(&part.isolation, 99)));
        row("pods moved", &|part| part.pods_moved.to_string());
        row("hooks completed", &|part| part.hooks_completed.to_string());
        row("requests lost", &|part| count(part.lost.values().sum()));
        let causes: BTreeSet<&String> = self.parts.iter().flat_map(|part| part.lost.keys()).collect();
        for cause in causes {
            row(&format!("  {cause}"), &|part| count(part.lost.get(cause).copied().unwrap_or_default()));
        }
        let requests = &self.requests;
        print(&format!(
            "\n{table}\n\n{} requests served, {} lost for other reasons, {} messages left in the queue, {:.0} s in all\n",
            count(requests.served),
            count(requests.lost_by_nobody),
            self.messages_left,
            self.took.as_secs_f64()
        ))
    }

    /// The demo fails where it shows something that must not happen.
    pub(crate) fn verdict(&self) -> Result<(), Failure> {
        let stayed: usize = self.parts.iter().map(|part| part.instances - part.removed).sum();
        let lost: f64 =
            self.parts.iter().filter(|p| p.name == "scale-in").flat_map(|p| p.lost.values()).sum();
        if stayed > 0 || self.messages_left > 0 || lost > 0.0 {
            return Err(Failure::runtime(format!(
                "the demo went wrong: {stayed} nodes were not removed, {} messages are left, {lost:.1} requests \
                 were lost on the scale-in",
                self.messages_left
            )));
        }
        Ok(())
    }

    fn json(&self) -> Value {
        let part = |part: &Part| {
            json!({
                "name": part.name,
                "nodes": part.instances,
                "nodes_removed": part.removed,
                "isolated_p50_ms": percentile(&part.isolation, 50).map(|span| span.as_secs_f64() * 1e3),
                "isolated_p99_ms": percentile(&part.isolation, 99).map(|span| span.as_secs_f64() * 1e3),
                "pods_moved": part.pods_moved,
                "hooks_completed": part.hooks_completed,
                "requests_lost": part.lost,
            })
        };
        json!({
            "parts": self.parts.iter().map(part).collect::<Vec<_>>(),
            "requests_served": self.requests.served,
            "requests_lost_for_other_reasons": self.requests.lost_by_nobody,
            "messages_left": self.messages_left,
            "seconds": self.took.as_secs_f64(),
        })
    }
}

const RULE: LineStyle = LineStyle::none().fill('─').junction('─');
const STYLE: TableStyle = TableStyle::new().top_border(RULE).header_separator(RULE).bottom_border(RULE);

fn percentile(sorted: &[Duration], percent: usize) -> Option<Duration> {
    let last = sorted.len().checked_sub(1)?;
    sorted.get((last * percent).div_ceil(100)).copied()
}

/// Whole requests, and no "-0".
fn count(requests: f64) -> String {
    format!("{:.0}", requests.abs())
}

fn millis(span: Option<Duration>) -> String {
    span.map_or_else(|| "-".to_owned(), |span| format!("{:.0} ms", span.as_secs_f64() * 1e3))
}
