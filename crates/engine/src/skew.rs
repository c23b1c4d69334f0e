//! Whether our clock is wrong, by the dates of the queue's own answers.
//!
//! Deadlines count from the times of events, which are AWS's. A machine whose clock is four minutes ahead would take a fresh
//! spot notice for one that is over; one that is behind would count on four minutes that nobody has.

use std::collections::VecDeque;
use std::time::Duration;

use offramp_core::Timestamp;

/// One answer may have been held up on its way, and a proxy may date it: so many have to agree.
pub(crate) const ANSWERS: usize = 5;
/// They have to be of these last minutes: what a clock said an hour ago says nothing of how it runs now.
const RECENT: Duration = Duration::from_secs(120);
/// They agree within this. A `Date` is in whole seconds, and an answer is some milliseconds on its way. Up to a second is
/// left out each time, so that a clock which is moved is behind rather than ahead: ahead of an API server's, a pod that comes
/// back at once looks older than the eviction before it, and is evicted anew.
const AGREEMENT_MILLIS: i64 = 2_000;
/// What the newest answers say of the clock.
#[derive(Debug, Default)]
pub(crate) struct Skew {
    /// When each was heard, and by how many milliseconds its date was ahead, both by the clock as nobody has moved it.
    heard: VecDeque<(Timestamp, i64)>,
}

impl Skew {
    /// Takes an answer in that was dated `date`, and heard when the clock, as nobody has moved it, read `at`. By how many
    /// milliseconds that clock is behind, where enough answers agree.
    pub(crate) fn hear(&mut self, at: Timestamp, date: Timestamp) -> Option<i64> {
        self.heard.truncate(ANSWERS - 1);
        self.heard.push_front((at, date.as_millis() - at.as_millis()));
        self.heard.retain(|(heard_at, _)| at.since(*heard_at) <= RECENT);
        let mut behind: Vec<i64> = self.heard.iter().map(|(_, behind)| *behind).collect();
        behind.sort_unstable();
        let spread = behind.last()? - behind.first()?;
        let agree = behind.len() == ANSWERS && spread <= AGREEMENT_MILLIS;
        agree.then(|| behind[ANSWERS / 2])
    }
}

/// Where a clock should be that was moved by so much. A difference within what the answers themselves differ by is none:
/// it would move the clock to and fro.
pub(crate) fn moved_to(offset: i64, behind: i64) -> Option<i64> {
    (behind.abs_diff(offset) > AGREEMENT_MILLIS.unsigned_abs()).then_some(behind)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers, each heard at this second, with a date so many milliseconds ahead of the clock: what the last one leads to.
    fn check(answers: &[(u64, i64)], expect: Option<i64>) {
        let mut skew = Skew::default();
        let mut last = None;
        for (second, ahead) in answers {
            let at = Timestamp::from_millis(1_773_478_800_000) + Duration::from_secs(*second);
            last = skew.hear(at, Timestamp::from_millis(at.as_millis() + ahead));
        }
        assert_eq!(last, expect, "{answers:?}");
    }

    #[test]
    fn five_answers_of_two_minutes_that_agree_are_believed() {
        check(&[(0, 240_000); 4], None);
        check(&[(0, 240_000); 5], Some(240_000));
        check(
            &[(0, -240_000), (15, -239_000), (30, -238_000), (45, -240_000), (60, -240_000)],
            Some(-240_000),
        );
        check(&[(0, 0), (30, 0), (60, 0), (90, 0), (120, 0)], Some(0));
        // The first is of more than two minutes ago.
        check(&[(0, 0), (31, 0), (62, 0), (93, 0), (124, 0)], None);
    }

    #[test]
    fn one_that_disagrees_is_enough_to_believe_none() {
        let five = |odd: i64| [(0, 1_000), (1, 1_000), (2, odd), (3, 1_000), (4, 1_000)];
        check(&five(3_000), Some(1_000));
        check(&five(3_001), None);
        check(&five(-1_001), None);
        // It is forgotten by and by.
        let later = [(5, 1_000), (6, 1_000)];
        check(&[&five(90_000)[..], &later].concat(), None);
        check(&[&five(90_000)[..], &later, &[(7, 1_000)]].concat(), Some(1_000));
    }

    #[test]
    fn a_clock_is_not_moved_for_what_the_answers_themselves_differ_by() {
        assert_eq!([0, 2_000, -2_000].map(|behind| moved_to(0, behind)), [None; 3]);
        assert_eq!(moved_to(0, 2_001), Some(2_001));
        assert_eq!(moved_to(240_000, 241_000), None);
        assert_eq!(moved_to(240_000, 0), Some(0));
        assert_eq!(moved_to(0, -240_000), Some(-240_000));
    }
}
