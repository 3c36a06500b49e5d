//! When to retry: later each time, and not all resources at once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::Resource;
use kube::runtime::controller::Action;

use crate::clock::later;
use crate::platform::apiserver::Error;
use crate::platform::refused::Refused;
use crate::sync;

/// Delays, in seconds, of a write that the API server refuses: from five seconds to five minutes.
const REFUSED: (u64, u64) = (5, 300);
/// Delays while the API server does not answer. When it returns, all objects can go on, so delays stay short.
const AWAY: (u64, u64) = (5, 30);
/// Delays after a conflict: the newer version is on its way.
const CONFLICT: (u64, u64) = (1, 15);
/// Delays of a status that somebody else keeps changing.
const TOO_OFTEN: (u64, u64) = (10, 60);
/// Delays after a panic.
const PANICKED: (u64, u64) = (60, 300);
/// Tolerance: a reconcile may check a wait by the time at which it began, but the wait begins with the write at its
/// end.
const ONE_PASS: Duration = Duration::from_secs(60);
/// How long the failures of an object are remembered: longer than any retry is put off.
const REMEMBERED: Duration = Duration::from_secs(900);

/// When the next reconcile is due, if no change triggers one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// Something will trigger it: a change of this or another object, or a poll.
    OnChange,
    /// Something will trigger it. Otherwise this time does, and then the API need not be polled.
    AtLatest(Duration),
    /// After this time.
    After(Duration),
    /// After this time, which grows with each consecutive retry, and not before: the operator's own writes trigger the
    /// resource too.
    Retry(Duration),
    /// When the retry that was put off is due.
    Hold(Duration),
}

impl Requeue {
    /// The action for kube's controller runtime.
    pub fn action(self) -> Action {
        match self {
            Self::OnChange => Action::await_change(),
            Self::AtLatest(wait) | Self::After(wait) | Self::Retry(wait) | Self::Hold(wait) => Action::requeue(wait),
        }
    }

    /// The same, but due after `limit` at the latest.
    #[must_use]
    pub fn within(self, limit: Duration) -> Self {
        match self {
            Self::OnChange => Self::AtLatest(limit),
            Self::AtLatest(wait) => Self::AtLatest(wait.min(limit)),
            Self::After(wait) => Self::After(wait.min(limit)),
            Self::Retry(wait) => Self::Retry(wait.min(limit)),
            Self::Hold(wait) => Self::Hold(wait.min(limit)),
        }
    }
}

/// What is remembered of a resource's retries. `C` is what the retries depend on besides the resource. When that
/// changes, a retry that was put off is due at once.
#[derive(Clone, Debug, PartialEq)]
pub struct Retries<C> {
    /// Consecutive reconciles that ended with [`Requeue::Retry`].
    pub in_a_row: u32,
    /// Until when the next retry is put off.
    pub hold: Option<Hold<C>>,
}

impl<C> Default for Retries<C> {
    fn default() -> Self {
        Self { in_a_row: 0, hold: None }
    }
}

impl<C: Clone + PartialEq> Retries<C> {
    /// How long the next retry is put off; none if it is due.
    pub fn held(&self, generation: Option<i64>, connection: &C, now: Timestamp) -> Option<Duration> {
        self.hold.as_ref()?.left(generation, connection, now)
    }

    /// Records the end of a reconcile. `connection` is the connection that the reconcile had, if any.
    pub fn settled(&mut self, requeue: Requeue, connection: Option<&C>, generation: Option<i64>, now: Timestamp) {
        match (requeue, connection) {
            (Requeue::Hold(_), _) => {}
            (Requeue::Retry(wait), Some(connection)) => {
                self.in_a_row = self.in_a_row.saturating_add(1);
                let until = later(now, wait);
                self.hold = Some(Hold { until, wait, generation, connection: connection.clone() });
            }
            (Requeue::OnChange | Requeue::AtLatest(_) | Requeue::After(_) | Requeue::Retry(_), _) => {
                *self = Self::default();
            }
        }
    }
}

/// A retry that is put off until a time, or until something that it failed with has changed.
#[derive(Clone, Debug, PartialEq)]
pub struct Hold<C> {
    /// When the retry is due.
    pub until: Timestamp,
    /// The delay when it was set: a clock that is set back makes no wait longer.
    pub wait: Duration,
    /// The generation of the spec that failed.
    pub generation: Option<i64>,
    /// The connection with which the reconcile failed.
    pub connection: C,
}

impl<C: PartialEq> Hold<C> {
    /// How long the retry is still put off; none if it is due.
    fn left(&self, generation: Option<i64>, connection: &C, now: Timestamp) -> Option<Duration> {
        if self.generation != generation || self.connection != *connection {
            return None;
        }
        left(self.until, self.wait, now)
    }
}

/// What is left of a wait; none if it is over, or far longer than it ever was because the clock was set back.
fn left(until: Timestamp, wait: Duration, now: Timestamp) -> Option<Duration> {
    Duration::try_from(until.duration_since(now)).ok().filter(|left| !left.is_zero() && *left <= wait + ONE_PASS)
}

/// A write that the API server refuses for good. It is retried less and less often, and at once when the object
/// changes.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// What the API server said.
    pub refused: Refused,
    /// Consecutive refusals before this one.
    before: u32,
    /// When the write is due again.
    until: Timestamp,
    /// The delay when it was set.
    wait: Duration,
    /// The resource version that was refused, or that the operator's own later writes have made of it.
    version: String,
}

impl Refusal {
    /// Records a refusal; `last` is the previous one.
    pub fn once_more(last: Option<&Self>, refused: Refused, version: &str, uid: &str, now: Timestamp) -> Self {
        let before = last.map_or(0, |last| last.before.saturating_add(1));
        let wait = backoff(before, uid, REFUSED.0, REFUSED.1);
        let until = later(now, wait);
        Self { refused, before, until, wait, version: version.to_owned() }
    }

    /// How long the write is put off; none if it is due, or if somebody else has changed the object.
    pub fn left(&self, version: &str, now: Timestamp) -> Option<Duration> {
        if self.version != version {
            return None;
        }
        left(self.until, self.wait, now)
    }

    /// Whether this is the first of consecutive refusals: only the first one is reported to a person.
    pub fn is_first(&self) -> bool {
        self.before == 0
    }

    /// Makes the write due now, but keeps the count of refusals.
    pub fn make_due(&mut self) {
        self.until = Timestamp::MIN;
    }

    /// Records a change by the operator itself, which is no reason to retry.
    pub fn follow(&mut self, from: &str, to: &str) {
        if self.version == from {
            to.clone_into(&mut self.version);
        }
    }
}

/// Consecutive failed reconciles, by the UID of their object. A successful reconcile removes the entry.
#[derive(Debug, Default)]
pub struct Failures(Mutex<HashMap<String, (u32, Instant)>>);

impl Failures {
    /// What to do after a failed reconcile: the same for all kinds, and later with each consecutive failure.
    pub fn after<K: Resource>(&self, object: &K, error: &Error) -> Action {
        let uid = object.meta().uid.as_deref().unwrap_or_default();
        self.wait(uid, error).map_or_else(Action::await_change, Action::requeue)
    }

    /// How long the next reconcile is put off; none if only a change triggers one.
    fn wait(&self, uid: &str, error: &Error) -> Option<Duration> {
        let (first, last) = match error {
            error if error.is_not_found() => {
                self.lock().remove(uid);
                return None;
            }
            // The newer version is on its way here, and will trigger a reconcile.
            error if error.is_conflict() => CONFLICT,
            error if Refused::of(error).is_some() => REFUSED,
            Error::Kube(_) | Error::Timeout(_) => AWAY,
            Error::TooOften => TOO_OFTEN,
            Error::Panicked => PANICKED,
        };
        let mut failed = self.lock();
        let (in_a_row, at) = failed.entry(uid.to_owned()).or_insert_with(|| (0, Instant::now()));
        let wait = backoff(*in_a_row, uid, first, last);
        (*in_a_row, *at) = (in_a_row.saturating_add(1), Instant::now());
        Some(wait)
    }

    /// Runs a reconcile of this object. If it succeeds, earlier failures no longer count.
    ///
    /// # Errors
    /// Those of the reconcile.
    pub async fn of<K: Resource>(
        &self,
        object: &K,
        reconcile: impl Future<Output = Result<Action, Error>>,
    ) -> Result<Action, Error> {
        let ended = reconcile.await;
        if ended.is_ok() {
            self.lock().remove(object.meta().uid.as_deref().unwrap_or_default());
        }
        ended
    }

    /// Drops entries of no more use, such as those of deleted objects.
    pub fn forget(&self) {
        self.lock().retain(|_, (_, at)| at.elapsed() < REMEMBERED);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, (u32, Instant)>> {
        sync::lock(&self.0)
    }
}

/// The delay after this number of retries. Doubles from `first` to `last` seconds, varied by up to a tenth per
/// resource.
pub fn backoff(retries: u32, uid: &str, first: u64, last: u64) -> Duration {
    let seconds = first.saturating_mul(1 << retries.min(16)).min(last);
    Duration::from_millis(seconds * u64::from(900 + jitter(uid) % 200))
}

/// Spreads resources evenly. A resource always gets the same value.
pub fn jitter(uid: &str) -> u32 {
    uid.bytes().fold(0, |hash: u32, byte| hash.wrapping_mul(31).wrapping_add(u32::from(byte)))
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::jiff::SignedDuration;
    use kube::core::{ObjectMeta, Status};

    use crate::platform::apiserver::RECONSTRUCTED;

    use super::*;

    fn api(code: u16, message: &str) -> Error {
        Error::Kube(Box::new(kube::Error::Api(Box::new(Status::failure(message, "Invalid").with_code(code)))))
    }

    fn object(uid: &str) -> ConfigMap {
        ConfigMap { metadata: ObjectMeta { uid: Some(uid.into()), ..ObjectMeta::default() }, ..ConfigMap::default() }
    }

    #[tokio::test]
    async fn failures_of_one_object_are_retried_less_and_less_often_and_of_others_quickly() {
        let failures = Failures::default();
        let wait = |uid: &str, error: &Error| failures.wait(uid, error).unwrap().as_secs();
        let away = Error::Timeout(Duration::from_secs(15));
        let waits: Vec<u64> = (0..6).map(|_| wait("one", &away)).collect();
        assert!(waits[0] <= 6 && waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert!((27..=33).contains(&waits[5]), "{waits:?}");
        assert!(wait("other", &away) <= 6);
        failures.of(&object("one"), async { Ok(Action::await_change()) }).await.unwrap();
        assert!(wait("one", &away) <= 6);
        let refused = api(422, "annotations: Too long");
        let waits: Vec<u64> = (0..9).map(|_| wait("other", &refused)).collect();
        assert!((270..=330).contains(&waits[8]), "{waits:?}");
        assert!(wait("third", &api(409, "conflict")) <= 2);
        assert_eq!(failures.after(&object("other"), &api(404, "gone")), Action::await_change());
        let page = Status::failure("404 page not found", RECONSTRUCTED).with_code(404);
        let of_a_proxy = Error::Kube(Box::new(kube::Error::Api(Box::new(page))));
        assert!(wait("proxied", &of_a_proxy) <= 6, "the object may well be there");
        assert!(!failures.lock().contains_key("other"));
    }

    #[test]
    fn a_refused_write_is_due_later_each_time_and_at_once_when_somebody_changes_the_object() {
        let now = Timestamp::UNIX_EPOCH;
        let refused = Refused::of(&api(422, "no")).unwrap();
        let mut last: Option<Refusal> = None;
        let mut waits = Vec::new();
        for _ in 0..8 {
            let next = Refusal::once_more(last.as_ref(), refused.clone(), "7", "uid", now);
            assert_eq!(next.is_first(), last.is_none());
            waits.push(next.left("7", now).unwrap().as_secs());
            last = Some(next);
        }
        assert!(waits[0] <= 5 && waits.windows(2).all(|pair| pair[0] <= pair[1]), "{waits:?}");
        assert!((270..=330).contains(&waits[7]), "{waits:?}");
        let mut last = last.unwrap();
        assert_eq!(last.left("8", now), None, "somebody else has changed it");
        last.follow("7", "8");
        assert!(last.left("8", now).is_some(), "it was the operator itself");
        assert_eq!(last.left("8", now + SignedDuration::from_secs(331)), None);
        last.make_due();
        assert_eq!(last.left("8", now), None);
    }
}
