//! Points in time as values: the decision has no clock.

use std::ops::{Add, Sub};
use std::time::Duration;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

impl Timestamp {
    /// From milliseconds since the Unix epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// How long ago `earlier` was, or zero where it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }

    /// How long until `later`, or zero where it is over.
    pub fn until(self, later: Self) -> Duration {
        later.since(self)
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;

    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(millis(span)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;

    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(millis(span)))
    }
}

/// A span as people write it: `2m5s`, `300ms`, `0s`.
pub fn in_words(span: Duration) -> String {
    let seconds = span.as_secs();
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, 0) if span.subsec_millis() > 0 => format!("{}ms", span.subsec_millis()),
        (0, 0, s) => format!("{s}s"),
        (0, m, 0) => format!("{m}m"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, 0, 0) => format!("{h}h"),
        (h, m, _) => format!("{h}h{m}m"),
    }
}

fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        let t = Timestamp::from_millis(5_000);
        assert_eq!(t + Duration::from_secs(2), Timestamp::from_millis(7_000));
        assert_eq!(t.since(Timestamp::from_millis(9_000)), Duration::ZERO);
        assert_eq!(t.until(Timestamp::from_millis(9_000)), Duration::from_secs(4));
        assert_eq!(t + Duration::MAX, Timestamp::from_millis(i64::MAX));
    }

    #[test]
    fn spans_read_like_words() {
        let check = |millis: u64, expect: &str| assert_eq!(in_words(Duration::from_millis(millis)), expect);
        check(0, "0s");
        check(300, "300ms");
        check(5_900, "5s");
        check(125_000, "2m5s");
        check(120_000, "2m");
        check(3_600_000, "1h");
        check(5_400_000, "1h30m");
    }
}
