//! How many calls an account and Region takes: a bucket that is full at first and refills, as AWS counts.

use std::time::Duration;

use offramp_core::Timestamp;

/// What a bucket holds, and how fast it refills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    pub(crate) burst: u32,
    pub(crate) per_second: u32,
}

/// The bucket of one kind of call in one account and Region.
#[derive(Debug, Default)]
pub(crate) struct Bucket {
    /// When it is full again.
    full_at: Timestamp,
}

impl Rate {
    /// Takes one call out, or says when there will be one.
    pub(crate) fn take(self, bucket: &mut Bucket, now: Timestamp) -> Result<(), Timestamp> {
        let (one, all) = (self.refill(1), self.refill(self.burst));
        // The clock may have been moved back: nothing is fuller than full, or emptier than empty.
        bucket.full_at = bucket.full_at.max(now).min(now + all);
        let after = bucket.full_at + one;
        if after > now + all {
            return Err(after - all);
        }
        bucket.full_at = after;
        Ok(())
    }

    fn refill(self, calls: u32) -> Duration {
        Duration::from_millis(u64::from(calls) * 1_000 / u64::from(self.per_second))
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
        let (rate, mut bucket) = (Rate { burst: 3, per_second: 2 }, Bucket::default());
        let mut take = |now| rate.take(&mut bucket, now);
        assert_eq!([START; 4].map(&mut take), [Ok(()), Ok(()), Ok(()), Err(after(500))]);
        let next = [after(499), after(500), after(500)].map(&mut take);
        assert_eq!(next, [Err(after(500)), Ok(()), Err(after(1_000))]);
        assert_eq!([after(9_000); 4].map(&mut take), [Ok(()), Ok(()), Ok(()), Err(after(9_500))]);
    }

    #[test]
    fn a_clock_that_is_moved_back_empties_nothing_for_long() {
        let (rate, mut bucket) = (Rate { burst: 2, per_second: 1 }, Bucket::default());
        let mut take = |now| rate.take(&mut bucket, now);
        assert_eq!(take(after(3_600_000)), Ok(()));
        assert_eq!(take(START), Err(after(1_000)));
        assert_eq!(take(after(1_000)), Ok(()));
    }
}
