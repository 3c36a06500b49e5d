//! The rate of calls: a token bucket that slows down when the API refuses calls, and recovers. No I/O here.

use std::time::{Duration, Instant};

/// The burst is the calls of one second, divided by this.
const BURST_PART: f64 = 5.0;
/// The lowest rate that refusals may cause, in calls per second.
const FLOOR: f64 = 0.5;
/// The part of the rate that is left after a refusal.
const REFUSED: f64 = 0.5;
/// How fast the rate recovers, in calls per second per cubic second. Like the congestion window of CUBIC (RFC 9438),
/// the rate soon returns to where it was refused, stays there for a while, and only then grows further. From one half,
/// 50 calls per second are back after 11 s and 10 after 6 s. Even growth over minutes never gets far where one call in
/// a hundred is refused for reasons that are not ours.
const CURVE: f64 = 0.02;
/// The pause after a refusal, if the API does not ask for a longer one.
const PAUSE: Duration = Duration::from_secs(1);
/// The tolerance for floating-point errors.
const EPSILON: f64 = 1e-6;

/// Tokens. Each call takes one.
#[derive(Debug)]
pub(super) struct Bucket {
    /// The highest rate, in calls per second.
    limit: f64,
    /// The current rate, in calls per second.
    rate: f64,
    /// Negative if calls have borrowed tokens.
    tokens: f64,
    /// The time up to which tokens have been added.
    at: Instant,
    paused_until: Option<Instant>,
    slowed: Option<Slowed>,
}

/// What is known about a limit of the API.
#[derive(Debug)]
struct Slowed {
    /// When the first call was refused.
    since: Instant,
    /// The rate at the last refusal.
    refused_at: f64,
    /// How long calls have been sent since then, without pauses.
    sending: Duration,
}

impl Slowed {
    /// The rate by now, in calls per second.
    fn rate(&self) -> f64 {
        let plateau = (self.refused_at * (1.0 - REFUSED) / CURVE).cbrt();
        self.refused_at + CURVE * (self.sending.as_secs_f64() - plateau).powi(3)
    }
}

impl Bucket {
    /// A full bucket.
    pub fn new(limit: f64, now: Instant) -> Self {
        let mut bucket = Self { limit, rate: limit, tokens: 0.0, at: now, paused_until: None, slowed: None };
        bucket.tokens = bucket.burst();
        bucket
    }

    /// Changes the highest rate, in calls per second.
    pub fn set_limit(&mut self, limit: f64, now: Instant) {
        self.advance(now);
        self.limit = limit;
        self.rate = if self.slowed.is_some() { self.rate.min(limit) } else { limit };
        self.tokens = self.tokens.min(self.burst());
    }

    /// The highest rate, in calls per second.
    pub fn limit(&self) -> f64 {
        self.limit
    }

    /// The current rate, in calls per second: lower than the limit after the API has refused calls.
    pub fn rate(&mut self, now: Instant) -> f64 {
        self.advance(now);
        self.rate
    }

    /// Takes one token.
    ///
    /// # Errors
    /// If there is no token, with the time at which there will be one.
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

    /// Takes one token, even if there is none yet. Later calls wait until it is repaid.
    pub fn borrow(&mut self, now: Instant) {
        self.advance(now);
        self.tokens -= 1.0;
    }

    /// Returns an unused token.
    pub fn put_back(&mut self, now: Instant) {
        self.advance(now);
        self.tokens = (self.tokens + 1.0).min(self.burst());
    }

    /// Records that the API refused a call because there were too many.
    pub fn refused(&mut self, retry_after: Option<Duration>, now: Instant) {
        self.advance(now);
        // Calls that were in flight together are refused together. They count as one refusal.
        if self.paused_until.is_none() {
            let since = self.slowed.as_ref().map_or(now, |slowed| slowed.since);
            self.slowed = Some(Slowed { since, refused_at: self.rate, sending: Duration::ZERO });
            self.rate = (self.rate * REFUSED).max(FLOOR.min(self.limit));
        }
        let until = now + retry_after.unwrap_or_default().max(PAUSE);
        self.paused_until = self.paused_until.max(Some(until));
        self.tokens = self.tokens.min(0.0);
    }

    /// How much longer nothing may be sent; `None` if calls may be sent.
    pub fn pause_left(&mut self, now: Instant) -> Option<Duration> {
        self.advance(now);
        self.paused_until.map(|until| until.duration_since(now))
    }

    /// Since when refusals have kept the rate below its limit.
    pub fn slowed_since(&mut self, now: Instant) -> Option<Instant> {
        self.advance(now);
        self.slowed.as_ref().map(|slowed| slowed.since)
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
        let passed = now.duration_since(from);
        self.tokens = (self.tokens + self.rate * passed.as_secs_f64()).min(self.burst().max(self.tokens));
        let Some(slowed) = &mut self.slowed else { return };
        slowed.sending += passed;
        let rate = slowed.rate();
        self.rate = rate.clamp(FLOOR.min(self.limit), self.limit);
        // The slowdown ends only when the rate is back where it was refused: the limit may have been lowered since, and
        // may be raised again.
        if rate >= self.limit.max(slowed.refused_at) - EPSILON {
            self.rate = self.limit;
            self.slowed = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds)
    }

    /// How many tokens are available at this moment.
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
            // An hour of rest is worth no more than a moment.
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
        // Forty calls in flight are refused together.
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
        assert!((20..=25).contains(&first), "{first} in the first second");
        assert_eq!(bucket.slowed_since(start + seconds(11.0)), Some(start));
        let later = counted(&mut bucket, 14.0, 15.0);
        assert!((34..=47).contains(&later), "{later} a second after five");
        assert_eq!(bucket.slowed_since(start + seconds(20.1)), None);
        let last = counted(&mut bucket, 200.0, 201.0);
        assert!((40..=48).contains(&last), "{last} a second at the end");
    }

    /// How many calls the API accepts and refuses in a minute of constant demand, after a minute to settle.
    fn a_minute(limit: f64, mut refuses: impl FnMut(Duration) -> bool) -> (u32, u32) {
        let start = Instant::now();
        let mut bucket = Bucket::new(limit, start);
        let (mut accepted, mut refused) = (0, 0);
        for ms in 0..120_000 {
            let since = Duration::from_millis(ms);
            while bucket.take(start + since).is_ok() {
                let is_refused = refuses(since);
                if is_refused {
                    bucket.refused(None, start + since);
                }
                if ms >= 60_000 {
                    *(if is_refused { &mut refused } else { &mut accepted }) += 1;
                }
            }
        }
        (accepted, refused)
    }

    #[test]
    fn one_refusal_in_a_hundred_leaves_a_quarter_of_the_rate_and_a_real_limit_is_found_and_kept_to() {
        let mut calls = 0;
        let (accepted, _) = a_minute(50.0, |_| {
            calls += 1;
            calls % 100 == 0
        });
        assert!(accepted >= 60 * 50 / 4, "{accepted} in a minute where one in a hundred is refused");
        // An API that accepts ten calls per second, with a burst of ten.
        let (mut left, mut at) = (10.0, Duration::ZERO);
        let (accepted, refused) = a_minute(50.0, |since| {
            left = f64::min(10.0, left + 10.0 * (since - at).as_secs_f64()) - 1.0;
            at = since;
            let is_refused = left < 0.0;
            left = left.max(0.0);
            is_refused
        });
        assert!(accepted >= 60 * 7, "{accepted} a minute of the six hundred that may be had");
        assert!(refused * 50 <= accepted, "{refused} refused of {accepted}");
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
        bucket.set_limit(5.0, start + seconds(2.5));
        bucket.set_limit(50.0, start + seconds(3.0));
        assert!(bucket.slowed.is_some(), "a lower limit for a moment has made it forget");
    }
}
