//! Which Events are written: each fact once, and not too many about one object. How many in all, and whose are next, is
//! for the queue that they wait in: see [`events`](crate::platform::events).

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Mutex;
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::{Quota, RateLimiter};

use crate::platform::events::Notice;
use crate::sync;

/// How long the same fact about the same object is not told again.
const REPEAT_AFTER: Duration = Duration::from_secs(3600);
/// Events about one object: so many at once, and one more each time; as the API server's own clients do.
const PER_OBJECT: (u32, Duration) = (25, Duration::from_secs(300));
/// How many decisions are made before what has lapsed is forgotten.
const FORGET_AFTER: u32 = 1000;

/// Why an Event is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The fact has been told.
    Repeated,
    /// There are too many about this object.
    Object,
}

/// A fact about an object, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fact(u64);

type Keyed<C> = RateLimiter<u64, DefaultKeyedStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Decides. What it remembers is bounded: facts by the pace at which Events are written, objects by the time
/// that they take to recover their share.
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
    /// Nothing told yet.
    pub fn new(clock: C) -> Self {
        Self {
            told: Mutex::new(Told { facts: HashMap::new(), decisions: 0 }),
            objects: RateLimiter::new(quota(PER_OBJECT), DefaultKeyedStateStore::default(), clock.clone()),
            hasher: RandomState::new(),
            clock,
        }
    }

    /// Whether this is to be told about the object with this UID. What is dropped after all is to be
    /// [forgotten](Self::forget): it may be told when it happens again.
    ///
    /// # Errors
    /// Why it is not.
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

    /// This was not told.
    pub fn forget(&self, Fact(fact): Fact) {
        sync::lock(&self.told).facts.remove(&fact);
    }
}

fn quota((burst, one_per): (u32, Duration)) -> Quota {
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
