//! Decides which Events are written: each fact once, and not too many about one object. The queue limits how many are
//! written in all, and decides whose are next: see [`events`](crate::platform::events).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::platform::events::notice::Notice;
use crate::sync;

/// How long the same fact about the same object is not reported again.
const REPEAT_AFTER: Duration = Duration::from_secs(3600);
/// Limit of Events about one object, as in the API server's own clients: the burst, and the time per further Event.
const PER_OBJECT: (u32, Duration) = (25, Duration::from_secs(300));
/// Number of decisions after which expired entries are dropped.
const FORGET_AFTER: u32 = 1000;

/// Why an Event is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The fact was reported already.
    Repeated,
    /// There are too many Events about this object.
    Object,
}

/// A fact about an object, as a hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact(u64);

type Keyed<C> = RateLimiter<u64, DefaultKeyedStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Decides which Events are written. Its memory is bounded: for facts by the rate of written Events, for objects by the
/// time until their quota recovers.
pub struct Limits<C: Clock = DefaultClock> {
    told: Mutex<Told<C::Instant>>,
    objects: Keyed<C>,
    hasher: RandomState,
    clock: C,
}

struct Told<I> {
    facts: HashMap<u64, I>,
    decisions: u32,
}

impl<C: Clock + Clone> Limits<C> {
    /// Limits that have no fact on record.
    pub fn new(clock: C) -> Self {
        Self {
            told: Mutex::new(Told { facts: HashMap::new(), decisions: 0 }),
            objects: RateLimiter::new(quota(PER_OBJECT), DefaultKeyedStateStore::default(), clock.clone()),
            hasher: RandomState::new(),
            clock,
        }
    }

    /// Decides whether to report this notice about the object with this UID. A fact that is dropped later has to be
    /// [forgotten](Self::forget): it may be reported when it happens again.
    ///
    /// # Errors
    /// Why the notice is not to be reported.
    pub fn check(&self, uid: &str, notice: &Notice) -> Result<Fact, Refusal> {
        let Notice { reason, note, .. } = notice;
        let now = self.clock.now();
        let fact = self.hasher.hash_one((uid, reason, note));
        let mut told = sync::lock(&self.told);
        let lasts = |at: C::Instant| Duration::from(now.duration_since(at)) < REPEAT_AFTER;
        told.decisions += 1;
        if told.decisions >= FORGET_AFTER {
            told.decisions = 0;
            told.facts.retain(|_, at| lasts(*at));
            self.objects.retain_recent();
        }
        if told.facts.get(&fact).is_some_and(|at| lasts(*at)) {
            return Err(Refusal::Repeated);
        }
        self.objects.check_key(&self.hasher.hash_one(uid)).map_err(|_| Refusal::Object)?;
        told.facts.insert(fact, now);
        Ok(Fact(fact))
    }

    /// Takes back a fact that was not reported.
    pub fn forget(&self, Fact(fact): Fact) {
        sync::lock(&self.told).facts.remove(&fact);
    }
}

/// A burst of events, and the time per further one.
pub(in crate::platform) fn quota((burst, one_per): (u32, Duration)) -> Quota {
    let burst = NonZeroU32::new(burst).unwrap_or(NonZeroU32::MIN);
    Quota::with_period(one_per).unwrap_or(Quota::per_second(burst)).allow_burst(burst)
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    fn limits() -> (Limits<FakeRelativeClock>, FakeRelativeClock) {
        let clock = FakeRelativeClock::default();
        (Limits::new(clock.clone()), clock)
    }

    fn warning(note: usize) -> Notice {
        Notice::warning("Trouble", format!("number {note}"))
    }

    #[test]
    fn a_fact_that_flaps_is_told_once_an_hour() {
        let (limits, clock) = limits();
        let facts = [Notice::warning("APIUnavailable", "down"), Notice::normal("Connected", "up")];
        let mut told = 0;
        for _ in 0..1000 {
            told += facts.iter().filter(|fact| limits.check("uid", fact).is_ok()).count();
            clock.advance(Duration::from_secs(3));
        }
        assert_eq!(told, 2, "in {} s", 1000 * 3);
        assert_eq!(limits.check("uid", &facts[0]), Err(Refusal::Repeated));
        assert!(limits.check("another", &facts[0]).is_ok());
        clock.advance(Duration::from_secs(601));
        assert!(limits.check("uid", &facts[0]).is_ok());
    }

    #[test]
    fn an_object_with_ever_new_facts_is_cut_short_and_recovers_and_does_not_silence_others() {
        let (limits, clock) = limits();
        let told = (0..100).filter(|n| limits.check("noisy", &warning(*n)).is_ok()).count();
        assert_eq!(told, 25);
        assert_eq!(limits.check("noisy", &warning(100)), Err(Refusal::Object));
        assert!(limits.check("quiet", &warning(100)).is_ok());
        clock.advance(Duration::from_secs(300));
        assert!(limits.check("noisy", &warning(100)).is_ok());
        assert_eq!(limits.check("noisy", &warning(101)), Err(Refusal::Object));
    }

    #[test]
    fn what_was_dropped_may_be_told_when_it_happens_again() {
        let (limits, _) = limits();
        let fact = limits.check("uid", &warning(0)).unwrap();
        assert_eq!(limits.check("uid", &warning(0)), Err(Refusal::Repeated));
        limits.forget(fact);
        assert!(limits.check("uid", &warning(0)).is_ok());
    }

    #[test]
    fn what_has_lapsed_is_forgotten() {
        let (limits, clock) = limits();
        for n in 0..100_000 {
            let _ = limits.check(&format!("run-{n}"), &warning(n));
            clock.advance(Duration::from_secs(1));
        }
        let facts = limits.told.lock().unwrap().facts.len();
        assert!(facts <= 3600 + FORGET_AFTER as usize, "{facts} facts");
        assert!(limits.objects.len() <= 300 + FORGET_AFTER as usize, "{} objects", limits.objects.len());
    }
}
