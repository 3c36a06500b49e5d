//! Writes statuses, each object's at a bounded rate. Two operators that disagree, for example because of other settings
//! or another version, would otherwise rewrite a status as fast as the API server answers.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use governor::RateLimiter;
use governor::clock::{Clock, DefaultClock};
use governor::middleware::NoOpMiddleware;
use governor::state::keyed::DefaultKeyedStateStore;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde::Serialize;

use crate::platform::apiserver::{Error, reference, send_status, status_request};
use crate::platform::events::limits::quota;
use crate::platform::events::{Notice, Publisher};

/// The writes of one object's status that may follow each other at once, and the time per further write. Few
/// objects ever need more than one write per change.
const PER_OBJECT: (u32, Duration) = (30, Duration::from_secs(10));

type Keyed<C> = RateLimiter<u64, DefaultKeyedStateStore<u64>, C, NoOpMiddleware<<C as Clock>::Instant>>;

/// Writes statuses, each object's at a bounded rate.
pub struct StatusWriter {
    client: Client,
    publisher: Arc<Publisher>,
    /// The reason of the Event about an object whose status somebody else keeps changing.
    reason: &'static str,
    rate: Rate<DefaultClock>,
}

impl StatusWriter {
    /// A writer that reports with `reason` that somebody else keeps changing a status.
    pub fn new(client: Client, publisher: Arc<Publisher>, reason: &'static str) -> Self {
        Self { client, publisher, reason, rate: Rate::new(DefaultClock::default()) }
    }

    /// Writes the differences between two statuses, provided that nobody has changed the object since
    /// `resource_version`. Returns the object's new resource version; none if there was nothing to write.
    ///
    /// # Errors
    /// See [`Error`]; a conflict when the object has changed, and [`Error::TooOften`].
    pub async fn write<K, S>(
        &self,
        object: &K,
        resource_version: &str,
        old: Option<&S>,
        new: &S,
    ) -> Result<Option<String>, Error>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        S: Serialize,
    {
        let Some(request) = status_request(object, resource_version, old, new)? else { return Ok(None) };
        if !self.rate.allows(object.meta().uid.as_deref().unwrap_or_default()) {
            let note = format!(
                "Something else keeps changing the status of this resource. If a second operator serves this namespace, perhaps with other settings or of another version, stop one of the two. Until then, this operator writes the status once in {} seconds at most.",
                PER_OBJECT.1.as_secs()
            );
            self.publisher.publish(&reference(object), vec![Notice::warning(self.reason, note)]);
            return Err(Error::TooOften);
        }
        send_status(&self.client, request).await
    }

    /// Forgets the objects that were not written lately.
    pub fn forget(&self) {
        self.rate.objects.retain_recent();
    }
}

/// How often the status of one object is written.
struct Rate<C: Clock> {
    /// By the hash of the UID, which takes less memory.
    objects: Keyed<C>,
    hasher: RandomState,
}

impl<C: Clock> Rate<C> {
    fn new(clock: C) -> Self {
        let objects = RateLimiter::new(quota(PER_OBJECT), DefaultKeyedStateStore::default(), clock);
        Self { objects, hasher: RandomState::new() }
    }

    /// Whether the object with this UID may be written now. If so, the write counts.
    fn allows(&self, uid: &str) -> bool {
        self.objects.check_key(&self.hasher.hash_one(uid)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use governor::clock::FakeRelativeClock;

    use super::*;

    #[test]
    fn a_status_that_is_rewritten_without_end_is_written_once_in_ten_seconds_and_others_at_once() {
        let clock = FakeRelativeClock::default();
        let rate = Rate::new(clock.clone());
        let writes = |uid| (0..1000).filter(|_| rate.allows(uid)).count();
        assert_eq!(writes("contested"), 30);
        assert_eq!(writes("other"), 30);
        clock.advance(Duration::from_secs(100));
        assert_eq!(writes("contested"), 10);
        clock.advance(Duration::from_secs(400));
        rate.objects.retain_recent();
        assert!(rate.objects.is_empty(), "an object that rests takes memory");
    }
}
