//! What counts as a failure of a watch that goes on, and what shows that it is over.

use std::time::Duration;

use kube::runtime::watcher::DefaultBackoff;
use tokio::time::Instant;

use crate::watch::Pace;

/// A watch that ends sooner is a failure, whatever it brought, or a broken server would be asked without a pause.
pub(crate) const SHORTEST_WATCH: Duration = Duration::from_secs(1);

/// What one stream has shown of itself.
pub(crate) struct Life {
    pub(crate) opened: Instant,
    /// The version that it began with.
    from: String,
    /// When it is trusted without a bookmark; nothing once it is trusted.
    pub(crate) settles_at: Option<Instant>,
    /// It has brought something that only a living API server can: a version that is new, or anything later than
    /// at once. A cache in between may send the same bookmark each time.
    pub(crate) moved: bool,
}

impl Life {
    pub(crate) fn new(from: &str, settle: Duration) -> Self {
        let opened = Instant::now();
        Self { opened, from: from.to_owned(), settles_at: Some(opened + settle), moved: false }
    }

    pub(crate) fn brought(&mut self, version: &str) {
        self.moved |= version != self.from || self.opened.elapsed() >= SHORTEST_WATCH;
    }

    /// The failures before it are over. To be open is not enough, and neither is to move on: a stream that brings one
    /// event and is cut off, again and again, would be opened again at once each time, and never listed.
    pub(crate) fn proven(&self) -> bool {
        self.moved && self.settles_at.is_none() && self.opened.elapsed() >= SHORTEST_WATCH
    }
}

/// Failures in a row, and how long to pause.
pub(crate) struct Failures {
    pace: Pace,
    pub(crate) count: u32,
    later: DefaultBackoff,
    /// They go on though streams can be opened: to be open proves nothing any more.
    pub(crate) lasting: bool,
    /// Streams in a row that ended without a failure and brought nothing.
    pub(crate) barren: u32,
}

impl Failures {
    pub(crate) fn new(pace: Pace) -> Self {
        Self { pace, count: 0, later: DefaultBackoff::default(), lasting: false, barren: 0 }
    }

    /// One more; gives the pause until the next try.
    pub(crate) fn add(&mut self) -> Duration {
        self.count = self.count.saturating_add(1);
        if self.count == 1 {
            return self.pace.first_pause;
        }
        let longest = self.pace.longest_pause;
        self.later.next().map_or(longest, |pause| pause.min(longest))
    }

    /// It works again.
    pub(crate) fn reset(&mut self) {
        *self = Self::new(self.pace);
    }
}
