//! Logs: lines for people, or JSON for machines, always on stderr.

use std::fmt;
use std::io::{self, IsTerminal};
use std::panic::{self, PanicHookInfo};

use jiff::Timestamp;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::FormatTime;
use tracing_subscriber::fmt::{self as lines, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::{LogFormat, LogLevel};
use crate::failure::Failure;

/// Sets up the logs of this process. From here on a panic is one log line as well.
pub(crate) fn start(format: LogFormat, level: LogLevel) -> Result<(), Failure> {
    let on_terminal = io::stderr().is_terminal();
    let shape = match format {
        LogFormat::Json => Shape::Json,
        LogFormat::Auto if !on_terminal => Shape::Json,
        // https://no-color.org: any value that is not empty turns colours off.
        LogFormat::Auto | LogFormat::Human => Shape::Human {
            colours: on_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        },
    };
    subscriber(shape, level, io::stderr)
        .try_init()
        .map_err(|error| Failure::runtime(format!("setting up the logs: {error}")))?;
    panic::set_hook(Box::new(log_panic));
    Ok(())
}

#[derive(Clone, Copy)]
enum Shape {
    Human { colours: bool },
    Json,
}

/// Our crates at `level`; dependencies only warn, whatever the level, because the HTTP and cloud clients
/// write whole requests at `debug`, and those hold tokens.
fn subscriber<W>(shape: Shape, level: LogLevel, writer: W) -> Box<dyn Subscriber + Send + Sync>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let level = match level {
        LogLevel::Error => Level::ERROR,
        LogLevel::Warn => Level::WARN,
        LogLevel::Info => Level::INFO,
        LogLevel::Debug => Level::DEBUG,
        LogLevel::Trace => Level::TRACE,
    };
    let others = LevelFilter::WARN.min(LevelFilter::from_level(level));
    // The prefix matches `offramp`, `offramp_engine` and so on. kube's client writes an error for every
    // request that fails, without saying in which cluster: our own line about it says that, and once.
    let filter = Targets::new()
        .with_default(others)
        .with_target("kube_client::client::builder", LevelFilter::OFF)
        .with_target("aws_config::meta::credentials", LevelFilter::OFF)
        .with_target("offramp", level);
    let layer = lines::layer::<Registry>().with_writer(writer).with_timer(Utc);
    let layer = match shape {
        Shape::Human { colours } => layer.compact().with_target(false).with_ansi(colours).boxed(),
        Shape::Json => layer
            .json()
            .flatten_event(true)
            .with_current_span(false)
            .with_span_list(false)
            .with_ansi(false)
            .boxed(),
    };
    Box::new(Registry::default().with(layer.with_filter(filter)))
}

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let words = panic.payload_as_str().unwrap_or("no message").lines().next().unwrap_or_default();
    tracing::error!(place, "a defect in offramp, please report it: {words}");
}

/// RFC 3339 in UTC with milliseconds.
struct Utc;

impl FormatTime for Utc {
    fn format_time(&self, line: &mut Writer<'_>) -> fmt::Result {
        write!(line, "{:.3}", Timestamp::now())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[test]
    fn a_json_line_is_flat_and_carries_an_rfc_3339_time() {
        let written = written(Shape::Json, LogLevel::Info, || {
            tracing::info!(target: "offramp_engine", instance = "i-1a2b3c4d", left = 3, "evicting pods");
        });
        assert_eq!(written.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(line["level"], "INFO");
        assert_eq!(line["message"], "evicting pods");
        assert_eq!(line["instance"], "i-1a2b3c4d");
        assert_eq!(line["left"], 3);
        let time = line["timestamp"].as_str().unwrap();
        assert!(
            time.parse::<Timestamp>().is_ok() && time.len() == "2026-01-02T03:04:05.678Z".len(),
            "{time}"
        );
    }

    #[test]
    fn a_human_line_reads_as_one_and_has_no_colours_off_a_terminal() {
        let written = written(Shape::Human { colours: false }, LogLevel::Info, || {
            tracing::warn!(target: "offramp_engine", cluster = "blue", "cluster is not in sync");
        });
        let (time, rest) = written.split_once(' ').unwrap();
        assert!(time.parse::<Timestamp>().is_ok(), "{time}");
        assert_eq!(rest.trim_start(), "WARN cluster is not in sync cluster=\"blue\"\n");
    }

    #[test]
    fn dependencies_only_warn_whatever_our_level_is() {
        let written = written(Shape::Json, LogLevel::Trace, || {
            tracing::debug!(target: "kube_client", "a whole request");
            tracing::info!(target: "hyper", "a connection");
            tracing::warn!(target: "aws_config", "a warning");
            tracing::trace!(target: "offramp_core", "a detail");
        });
        let targets: Vec<_> = written
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["target"].clone())
            .collect();
        assert_eq!(targets, ["aws_config", "offramp_core"]);
    }

    #[test]
    fn dependencies_do_not_repeat_what_we_say() {
        let written = written(Shape::Json, LogLevel::Info, || {
            tracing::error!(target: "kube_client::client::builder", "failed with error client error");
            tracing::warn!(target: "aws_config::meta::credentials::chain", "provider failed");
        });
        assert_eq!(written, "");
    }

    #[test]
    fn at_level_error_nobody_warns() {
        let written = written(Shape::Json, LogLevel::Error, || {
            tracing::warn!(target: "aws_config", "a warning");
            tracing::warn!(target: "offramp", "a warning");
        });
        assert_eq!(written, "");
    }

    fn written(shape: Shape, level: LogLevel, act: impl FnOnce()) -> String {
        let sink = Sink::default();
        let copy = sink.clone();
        tracing::subscriber::with_default(subscriber(shape, level, move || copy.clone()), act);
        String::from_utf8(sink.0.lock().unwrap().clone()).unwrap()
    }

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
