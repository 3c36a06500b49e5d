//! How fast calls may leave: a token bucket that slows down when the API says so, and recovers. No I/O here.

use std::time::{Duration, Instant};

/// A second's worth of calls over this may leave at once.
const BURST_PART: f64 = 5.0;
/// The slowest that an API's refusals make it, in calls a second.
const FLOOR: f64 = 0.5;
/// How long it takes from nothing back to the limit: the limit of the API is not known, and to run into it again
/// at once would be no better than before.
const RECOVERY: Duration = Duration::from_secs(300);
/// How long nothing is sent after a refusal that does not say.
const PAUSE: Duration = Duration::from_secs(1);
/// What is lost in computing with fractions.
const EPSILON: f64 = 1e-6;

/// Tokens: one for each call.
#[derive(Debug)]
pub(super) struct Bucket {
    /// Calls a second at best.
    limit: f64,
    /// Calls a second now.
    rate: f64,
    /// Below zero: calls that were made before their time.
    tokens: f64,
    /// Up to when it has been filled.
    at: Instant,
    paused_until: Option<Instant>,
    slowed_since: Option<Instant>,
}

impl Bucket {
    /// A full one.
    pub fn new(limit: f64, now: Instant) -> Self {
        let mut bucket = Self { limit, rate: limit, tokens: 0.0, at: now, paused_until: None, slowed_since: None };
        bucket.tokens = bucket.burst();
        bucket
    }

    /// From now on so many calls a second at best.
    pub fn set_limit(&mut self, limit: f64, now: Instant) {
        self.advance(now);
        self.limit = limit;
        self.rate = if self.slowed_since.is_some() { self.rate.min(limit) } else { limit };
        self.tokens = self.tokens.min(self.burst());
    }

    /// Calls a second at best.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// Takes one token.
    ///
    /// # Errors
    /// With the time at which there will be one.
    pub fn take(&mut self, now: Instant) -> Result<(), Instant> {
        self.advance(now);
        if let Some(until) = self.paused_until {
            return Err(until);
        }
        let missing = 1.0 - self.tokens;
        if missing > EPSILON {
            return Err(now + Duration::from_secs_f64(missing / self.rate));
        }
        self.tokens -= 1.0;
        Ok(())
    }

    /// Takes one token that may not be there yet: those who come later wait for it.
    pub fn borrow(&mut self, now: Instant) {
        self.advance(now);
        self.tokens -= 1.0;
    }

    /// A token was not used.
    pub fn put_back(&mut self, now: Instant) {
        self.advance(now);
        self.tokens = (self.tokens + 1.0).min(self.burst());
    }

    /// The API has refused a call because there are too many.
    pub fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.advance(now);
        // Calls that were under way together are refused together: that is one refusal.
        if self.paused_until.is_none() {
            self.rate = (self.rate / 2.0).max(FLOOR.min(self.limit));
        }
        self.slowed_since.get_or_insert(now);
        let until = now + retry_after.unwrap_or_default().max(PAUSE);
        self.paused_until = self.paused_until.max(Some(until));
        self.tokens = self.tokens.min(0.0);
    }

    /// How much longer nothing may be sent; none if something may.
    pub fn pause_left(&mut self, now: Instant) -> Option<Duration> {
        self.advance(now);
        self.paused_until.map(|until| until.duration_since(now))
    }

    /// Since when it is slower than its limit for the API's sake.
    pub fn slowed_since(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        self.slowed_since
    }

    fn burst(&self) -> f64 {
        (self.rate / BURST_PART).max(1.0)
    }

    fn advance(&mut self, now: Instant) {
        let from = self.paused_until.map_or(self.at, |until| until.max(self.at));
        self.at = self.at.max(now);
        if from > now {
            return;
        }
        self.paused_until = None;
        let seconds = now.duration_since(from).as_secs_f64();
        self.tokens = (self.tokens + self.rate * seconds).min(self.burst().max(self.tokens));
        if self.slowed_since.is_some() {
            self.rate = (self.rate + self.limit * seconds / RECOVERY.as_secs_f64()).min(self.limit);
            if self.limit - self.rate < EPSILON {
                self.rate = self.limit;
                self.slowed_since = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// How many are to be had at this moment.
    fn all(bucket: &mut Bucket, now: Instant) -> usize {
        std::iter::from_fn(|| bucket.take(now).ok()).count()
    }

    #[test]
    fn a_fifth_of_a_second_leaves_at_once_and_then_one_after_the_other() {
        let start = Instant::now();
        for (limit, burst) in [(1.0, 1), (4.0, 1), (50.0, 10), (1000.0, 200)] {
            let mut bucket = Bucket::new(limit, start);
            assert_eq!(all(&mut bucket, start), burst, "at {limit}");
            let next = bucket.take(start).unwrap_err();
            assert!(next.duration_since(start).abs_diff(seconds(1.0 / limit)) < seconds(0.001), "at {limit}");
            assert_eq!(all(&mut bucket, next), 1, "at {limit}");
            // An hour's rest is worth no more than a moment's.
            assert_eq!(all(&mut bucket, start + seconds(3600.0)), burst, "at {limit}");
        }
    }

    #[test]
    fn what_was_borrowed_is_waited_for_and_what_was_not_used_comes_back() {
        let start = Instant::now();
        let mut bucket = Bucket::new(10.0, start);
        assert_eq!(all(&mut bucket, start), 2);
        (0..10).for_each(|_| bucket.borrow(start));
        let next = bucket.take(start).unwrap_err();
        assert!(next.duration_since(start).abs_diff(seconds(1.1)) < seconds(0.001));
        (0..11).for_each(|_| bucket.put_back(start));
        assert_eq!(all(&mut bucket, start), 1);
        (0..11).for_each(|_| bucket.put_back(start));
        assert_eq!(all(&mut bucket, start), 2, "more came back than it holds");
    }

    #[test]
    fn nothing_leaves_before_retry_after_and_then_half_as_much_which_recovers() {
        let start = Instant::now();
        let mut bucket = Bucket::new(40.0, start);
        // Forty calls under way are refused together.
        (0..40).for_each(|_| bucket.refused(Some(seconds(10.0)), start));
        bucket.refused(None, start);
        for at in [0.0, 5.0, 9.99] {
            assert_eq!(bucket.take(start + seconds(at)), Err(start + seconds(10.0)));
        }
        assert_eq!(bucket.pause_left(start + seconds(4.0)), Some(seconds(6.0)));
        assert_eq!(all(&mut bucket, start + seconds(10.0)), 0, "a burst after the pause");
        let counted = |bucket: &mut Bucket, from: f64, to: f64| {
            let steps = ((to - from) * 100.0) as u32;
            (0..steps).map(|step| all(bucket, start + seconds(from + f64::from(step) / 100.0))).sum::<usize>()
        };
        let first = counted(&mut bucket, 10.0, 11.0);
        assert!((18..=21).contains(&first), "{first} in the first second");
        assert_eq!(bucket.slowed_since(start + seconds(11.0)), Some(start));
        let later = counted(&mut bucket, 80.0, 81.0);
        assert!((27..=38).contains(&later), "{later} a second a minute later");
        assert_eq!(bucket.slowed_since(start + seconds(161.0)), None);
        let last = counted(&mut bucket, 200.0, 201.0);
        assert!((40..=48).contains(&last), "{last} a second at the end");
    }

    #[test]
    fn refusal_after_refusal_goes_down_to_a_call_in_two_seconds() {
        let start = Instant::now();
        let mut bucket = Bucket::new(50.0, start);
        (0..20).for_each(|n| bucket.refused(None, start + seconds(f64::from(n) * 1.001)));
        let now = start + seconds(21.0);
        assert!((FLOOR..1.0).contains(&bucket.rate), "{}", bucket.rate);
        assert!(bucket.take(now).is_err());
        let mut slow = Bucket::new(1.0, start);
        (0..20).for_each(|n| slow.refused(None, start + seconds(f64::from(n) * 1.001)));
        assert!((FLOOR..1.0).contains(&slow.rate), "{}", slow.rate);
    }

    #[test]
    fn another_limit_holds_at_once() {
        let start = Instant::now();
        let mut bucket = Bucket::new(50.0, start);
        bucket.set_limit(5.0, start);
        assert_eq!(all(&mut bucket, start), 1);
        bucket.set_limit(50.0, start);
        assert_eq!(all(&mut bucket, start + seconds(1.0)), 10);
        bucket.refused(None, start + seconds(1.0));
        bucket.set_limit(100.0, start + seconds(1.0));
        assert!((bucket.rate - 25.0).abs() < EPSILON, "what the API asked for was forgotten");
    }
}
