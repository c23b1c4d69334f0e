//! How many calls an account and Region takes: a bucket that is full at first and refills, as AWS counts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use offramp_core::{AccountRegion, Timestamp};

/// What a bucket holds, and how fast it refills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// The buckets of an operation, or of several that AWS counts together. Clones share them.
#[derive(Clone, Debug)]
pub(crate) struct Buckets {
    rate: Rate,
    /// When each is full again: one call takes as long to refill.
    full_at: Arc<Mutex<BTreeMap<AccountRegion, Timestamp>>>,
}

impl Buckets {
    pub(crate) fn new(rate: Rate) -> Self {
        Self { rate, full_at: Arc::default() }
    }

    /// Takes one call out, or says when there will be one.
    pub(crate) fn take(&self, place: &AccountRegion, now: Timestamp) -> Result<(), Timestamp> {
        let (one, all) = (self.refill(1), self.refill(self.rate.burst));
        let mut buckets = self.full_at.lock().unwrap_or_else(PoisonError::into_inner);
        // The clock may have been moved back: nothing is fuller than full, or emptier than empty.
        let full_at = buckets.get(place).copied().unwrap_or(now).max(now).min(now + all);
        let after = full_at + one;
        let is_there = after <= now + all;
        buckets.insert(place.clone(), if is_there { after } else { full_at });
        if is_there { Ok(()) } else { Err(after - all) }
    }

    fn refill(&self, calls: u32) -> Duration {
        Duration::from_millis(u64::from(calls) * 1_000 / u64::from(self.rate.per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Timestamp = Timestamp::from_millis(1_773_478_800_000);

    fn after(millis: u64) -> Timestamp {
        START + Duration::from_millis(millis)
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let buckets = Buckets::new(Rate { burst: 3, per_second: 2 });
        let take = |now| buckets.take(&AccountRegion::default(), now);
        assert_eq!([START; 4].map(take), [Ok(()), Ok(()), Ok(()), Err(after(500))]);
        assert_eq!(
            [after(499), after(500), after(500)].map(take),
            [Err(after(500)), Ok(()), Err(after(1_000))]
        );
        assert_eq!([after(9_000); 4].map(take), [Ok(()), Ok(()), Ok(()), Err(after(9_500))]);
    }

    #[test]
    fn what_shares_a_bucket_shares_its_calls_and_accounts_share_nothing() {
        let buckets = Buckets::new(Rate { burst: 1, per_second: 1 });
        let other = AccountRegion { account: Some("444455556666".into()), region: None };
        assert_eq!(buckets.take(&AccountRegion::default(), START), Ok(()));
        assert_eq!(buckets.clone().take(&AccountRegion::default(), START), Err(after(1_000)));
        assert_eq!(buckets.take(&other, START), Ok(()));
    }

    #[test]
    fn a_clock_that_is_moved_back_empties_nothing_for_long() {
        let buckets = Buckets::new(Rate { burst: 2, per_second: 1 });
        let take = |now| buckets.take(&AccountRegion::default(), now);
        assert_eq!(take(after(3_600_000)), Ok(()));
        assert_eq!(take(START), Err(after(1_000)));
        assert_eq!(take(after(1_000)), Ok(()));
    }
}
