//! Which Events are written: each fact once, and not more than the API server and its readers can take.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU32;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use governor::clock::{Clock, DefaultClock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};

use super::events::Notice;

/// How long the same fact about the same object is not told again.
const REPEAT_AFTER: Duration = Duration::from_secs(3600);
/// Events about one object: so many at once, and one more each time; as the API server's own clients do.
const PER_OBJECT: (u32, Duration) = (25, Duration::from_secs(300));
/// All Events.
const OVERALL: (u32, Duration) = (1000, Duration::from_millis(50));
/// Those that say that all is well. Half of all: when many runs start at once, what goes wrong is still told.
const NORMAL: (u32, Duration) = (500, Duration::from_millis(100));
/// How many decisions are made before what has lapsed is forgotten.
const FORGET_AFTER: u32 = 1000;

/// Why an Event is not written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The fact has been told.
    Repeated,
    /// There are too many about this object.
    Object,
    /// There are too many in all.
    Overall,
}

type Direct<C> = RateLimiter<NotKeyed, InMemoryState, C, NoOpMiddleware<<C as Clock>::Instant>>;
type Keyed<C> = RateLimiter<u64, DefaultKeyedStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Decides. What it remembers is bounded: facts by the overall rate, objects by the time that they take to
/// recover their share.
pub struct Limits<C: Clock = DefaultClock> {
    told: Mutex<Told<C::Instant>>,
    objects: Keyed<C>,
    normal: Direct<C>,
    overall: Direct<C>,
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
            normal: RateLimiter::direct_with_clock(quota(NORMAL), clock.clone()),
            overall: RateLimiter::direct_with_clock(quota(OVERALL), clock.clone()),
            hasher: RandomState::new(),
            clock,
        }
    }

    /// Whether this is to be told about the object with this UID.
    ///
    /// # Errors
    /// Why it is not.
    pub fn check(&self, uid: &str, notice: &Notice) -> Result<(), Refusal> {
        let Notice { type_, reason, note } = notice;
        let now = self.clock.now();
        let fact = self.hasher.hash_one((uid, reason, note));
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
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
        if *type_ == "Normal" {
            self.normal.check().map_err(|_| Refusal::Overall)?;
        }
        self.overall.check().map_err(|_| Refusal::Overall)?;
        // Only now: what was dropped may be told when it happens again.
        told.facts.insert(fact, now);
        Ok(())
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
        assert_eq!(limits.check("another", &facts[0]), Ok(()));
        clock.advance(Duration::from_secs(601));
        assert_eq!(limits.check("uid", &facts[0]), Ok(()));
    }

    #[test]
    fn an_object_with_ever_new_facts_is_cut_short_and_recovers_and_does_not_silence_others() {
        let (limits, clock) = limits();
        let told = (0..100).filter(|n| limits.check("noisy", &warning(*n)).is_ok()).count();
        assert_eq!(told, 25);
        assert_eq!(limits.check("noisy", &warning(100)), Err(Refusal::Object));
        assert_eq!(limits.check("quiet", &warning(100)), Ok(()));
        clock.advance(Duration::from_secs(300));
        assert_eq!(limits.check("noisy", &warning(100)), Ok(()));
        assert_eq!(limits.check("noisy", &warning(101)), Err(Refusal::Object));
    }

    #[test]
    fn a_thousand_starts_at_once_leave_room_for_what_goes_wrong() {
        let (limits, clock) = limits();
        let started = Notice::normal("Started", "The API has accepted the run.");
        let told = (0..1000).filter(|n| limits.check(&format!("run-{n}"), &started).is_ok()).count();
        assert_eq!(told, 500);
        let warned = (0..1000).filter(|n| limits.check(&format!("run-{n}"), &warning(0)).is_ok()).count();
        assert_eq!(warned, 500);
        assert_eq!(limits.check("one-more", &warning(0)), Err(Refusal::Overall));
        // Dropped is not told: it may be as soon as there is room.
        clock.advance(Duration::from_millis(50));
        assert_eq!(limits.check("one-more", &warning(0)), Ok(()));
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
