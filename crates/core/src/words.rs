//! Spans and counts as people write them.

use std::time::Duration;

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

/// `1 pod`, `2 pods`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn one_is_not_many() {
        assert_eq!([0, 1, 2].map(|count| counted(count, "pod")), ["0 pods", "1 pod", "2 pods"]);
    }
}
