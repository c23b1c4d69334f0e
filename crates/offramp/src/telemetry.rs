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

/// Our crates at `level`, and no library at any: kube's client writes a whole answer at WARN that does not parse,
/// pods with their environment included, and others write whole requests at DEBUG, tokens included. What a
/// library has to say reaches our own lines as an error, bounded.
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
    // The prefix matches `offramp`, `offramp_engine` and so on.
    let filter = Targets::new().with_default(LevelFilter::OFF).with_target("offramp", level);
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

/// So much of a panic's message is repeated.
const MOST_PANIC_CHARS: usize = 300;

fn log_panic(panic: &PanicHookInfo<'_>) {
    let place = panic.location().map_or_else(|| "unknown".to_owned(), ToString::to_string);
    let words = panic.payload_as_str().unwrap_or("no message").lines().next().unwrap_or_default();
    // It may quote a value.
    let words: String = words.chars().take(MOST_PANIC_CHARS).collect();
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
    fn libraries_say_nothing_whatever_our_level_is() {
        let written = written(Shape::Json, LogLevel::Trace, || {
            tracing::warn!(target: "kube_client::client", "{{\"spec\":{{\"env\":\"a password\"}}}}, missing field");
            tracing::error!(target: "kube_client::client::builder", "failed with error client error");
            tracing::warn!(target: "aws_config::meta::credentials::chain", "provider failed");
            tracing::debug!(target: "hyper", "a whole request");
            tracing::trace!(target: "offramp_core", "a detail");
        });
        let targets: Vec<_> = written
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["target"].clone())
            .collect();
        assert_eq!(targets, ["offramp_core"]);
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
