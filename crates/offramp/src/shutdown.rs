//! Signals: the first one ends the work in good order, the second one at once.

use std::io;
use std::process;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Installs the signal handlers and gives the token that SIGTERM or SIGINT cancels.
///
/// The handlers are installed explicitly because the kernel drops signals for process 1 that have none.
/// A second signal, or `longest` gone by, exits with the shell's code for the first one: nothing is lost
/// by that, since the messages come back when their visibility ends.
pub(crate) fn listen(longest: Duration) -> io::Result<CancellationToken> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    let token = CancellationToken::new();
    let cancelled = token.clone();
    tokio::spawn(async move {
        let first = signals.next().await;
        let seconds = longest.as_secs();
        tracing::info!(
            signal = first.name,
            "stopping: the running steps end and the messages are handed back, which takes at most \
             {seconds} s; a second signal exits at once"
        );
        cancelled.cancel();
        tokio::select! {
            biased;
            second = signals.next() => {
                tracing::warn!(signal = second.name, "second signal: exiting at once");
                process::exit(second.exit_code);
            }
            () = tokio::time::sleep(longest) => {
                tracing::error!("still not stopped after {seconds} s: exiting");
                process::exit(first.exit_code);
            }
        }
    });
    Ok(token)
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

struct Received {
    name: &'static str,
    exit_code: i32,
}

impl Signals {
    async fn next(&mut self) -> Received {
        tokio::select! {
            biased;
            _ = self.terminate.recv() => Received { name: "SIGTERM", exit_code: 143 },
            _ = self.interrupt.recv() => Received { name: "SIGINT", exit_code: 130 },
        }
    }
}
