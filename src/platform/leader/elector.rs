//! Carries out what [`plan`](crate::platform::leader::plan) decides.

use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, MicroTime, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::{Api, Client};
use tokio::time::{sleep, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::clock::{CLOCK_SKEW, later};
use crate::platform::apiserver::{Error, call_within};
use crate::platform::health::Health;
use crate::platform::leader::plan::{
    CALL, Candidate, LEASE_DURATION, Lost, NOBODY, Next, RENEW_EVERY, RETRY_PERIOD, Record,
};
use crate::platform::leader::term::Term;
use crate::platform::names::FIELD_MANAGER;

/// The name of the Lease in readiness.
pub const LEASE: &str = "the Lease";

/// The Lease that operators contend for.
#[derive(Clone)]
pub struct LeaseConfig {
    pub name: String,
    pub namespace: String,
    /// Connections for the Lease alone: a renewal must not wait behind the reconciles.
    pub client: Client,
}

/// One process in the election.
pub struct Election {
    api: Api<Lease>,
    config: LeaseConfig,
    me: String,
    candidate: Candidate,
    /// The Lease as last read: the values of others stay in it.
    lease: Lease,
}

impl Election {
    /// Takes part as `me`, a name that no other process has.
    pub fn new(config: LeaseConfig, me: String) -> Self {
        Self {
            api: Api::namespaced(config.client.clone(), &config.namespace),
            config,
            candidate: Candidate::new(me.clone(), Instant::now()),
            me,
            lease: Lease::default(),
        }
    }

    /// Waits until this process leads; none if `stop` is cancelled before.
    pub async fn win(&mut self, stop: &CancellationToken, health: &Health) -> Option<Term> {
        let (lease, mut holder) = (format!("{}/{}", self.config.namespace, self.config.name), None);
        while !stop.is_cancelled() {
            match self.round().await {
                Ok(_) if let Some(until) = self.candidate.until() => {
                    let since = begun(&self.lease);
                    tracing::info!(lease, "this process leads");
                    let term = Term::until(stop.clone(), since, until);
                    return Some(term.written(written_by_us(&self.lease)));
                }
                Ok(_) => {
                    let present = self.candidate.holder();
                    if holder.as_deref() != Some(present) {
                        tracing::info!(lease, holder = present, "standing by until the Lease is free");
                        holder = Some(present.to_owned());
                    }
                    health.done(LEASE);
                    health.stands_by(present);
                }
                Err(error) => health.waits(LEASE, format!("{lease}: {error}")),
            }
            self.candidate.forget();
            stop.run_until_cancelled(sleep(RETRY_PERIOD)).await;
        }
        // A write whose response was lost may have made this process the holder.
        self.release().await;
        None
    }

    /// Renews the Lease until `ended`, and then releases it.
    ///
    /// # Errors
    /// When this process no longer leads.
    pub async fn keep(mut self, term: Term, ended: CancellationToken) -> Result<(), Lost> {
        loop {
            let Some(until) = self.candidate.until() else { return Err(Lost::Late) };
            let rest = if self.candidate.is_fresh() { RENEW_EVERY } else { RETRY_PERIOD };
            if ended.run_until_cancelled(sleep(rest)).await.is_none() {
                // Reconciles that are still ending have no effect from here on.
                term.end();
                self.release().await;
                return Ok(());
            }
            let lost = match timeout_at(until.into(), self.round()).await {
                Ok(Ok(Next::End(lost))) => lost,
                Ok(Ok(_)) => match self.candidate.until() {
                    Some(until) if !term.extend(until) => Lost::Late,
                    _ => continue,
                },
                Ok(Err(error)) => {
                    tracing::warn!(%error, "the operator could not renew the Lease, and tries again");
                    continue;
                }
                Err(_) => Lost::Late,
            };
            term.end();
            return Err(lost);
        }
    }

    /// Reads the Lease if necessary, and writes it if that is the next step. Returns the step that was due.
    async fn round(&mut self) -> Result<Next, Error> {
        if self.candidate.next(Instant::now()) == Next::Look {
            self.look().await?;
        }
        let next = self.candidate.next(Instant::now());
        match next {
            Next::Create => {
                self.candidate.forget();
                match self.put(NOBODY, LEASE_DURATION).await {
                    // Another process was faster. A missing namespace, however, is an error.
                    Err(error) if error.is_conflict() => {}
                    created => drop(created?),
                }
            }
            Next::Write => self.write().await?,
            Next::Look | Next::Wait | Next::End(_) => {}
        }
        Ok(next)
    }

    async fn look(&mut self) -> Result<(), Error> {
        let lease = call_within(CALL, self.api.get_opt(&self.config.name)).await?;
        self.candidate.looked(record(lease.as_ref()), Instant::now());
        self.lease = lease.unwrap_or_default();
        Ok(())
    }

    /// Takes or renews the Lease, provided that it has not changed since it was last read.
    async fn write(&mut self) -> Result<(), Error> {
        let sent = Instant::now();
        self.candidate.forget();
        if let Some(written) = unless_late(self.put(&self.me, LEASE_DURATION).await)? {
            self.candidate.wrote(record(Some(&written)), sent);
            self.lease = written;
        }
        Ok(())
    }

    async fn put(&self, holder: &str, lasts: Duration) -> Result<Lease, Error> {
        let now = MicroTime(Timestamp::now());
        let old = self.lease.spec.clone().unwrap_or_default();
        let renewal = old.holder_identity.as_deref() == Some(holder);
        let takes = !renewal && !holder.is_empty();
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(self.config.name.clone()),
                managed_fields: None,
                ..self.lease.metadata.clone()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(holder.to_owned()),
                lease_duration_seconds: i32::try_from(lasts.as_secs()).ok(),
                renew_time: Some(now.clone()),
                acquire_time: if takes { Some(now) } else { old.acquire_time },
                lease_transitions: Some(old.lease_transitions.unwrap_or(0).saturating_add(i32::from(takes))),
                ..old
            }),
        };
        let parameters = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
        match lease.metadata.resource_version {
            Some(_) => call_within(CALL, self.api.replace(&self.config.name, &parameters, &lease)).await,
            None => call_within(CALL, self.api.create(&parameters, &lease)).await,
        }
    }

    /// Lets the next process take the Lease at once. If that fails, the next process has to wait.
    async fn release(&mut self) {
        let known = self.candidate.is_fresh() || self.look().await.is_ok();
        if !known || self.candidate.holder() != self.me {
            return;
        }
        match self.put("", Duration::from_secs(1)).await {
            Ok(_) => tracing::info!("the Lease is released"),
            Err(error) => tracing::warn!(%error, "the Lease could not be released; the next operator waits for it"),
        }
    }
}

/// A resource with a creation timestamp from this time on was created after this write of the Lease. The creation
/// timestamps of resources and the times of managed fields are the API server's time, cut to seconds. Several API
/// servers may differ by up to [`CLOCK_SKEW`]. If the Lease has no time, no resource counts as new.
pub fn begun(lease: &Lease) -> Timestamp {
    written(lease).map_or(Timestamp::MAX, |written| later(written, SignedDuration::from_secs(1) + CLOCK_SKEW))
}

/// When the Lease was last written, by the API server's clock.
fn written(lease: &Lease) -> Option<Timestamp> {
    let times = lease.metadata.managed_fields.iter().flatten().filter_map(|entry| entry.time.as_ref());
    times.map(|time| time.0).max()
}

/// When an operator last wrote the Lease, by the API server's clock. The writes of others do not count: that clock may
/// have been ahead then.
pub(super) fn written_by_us(lease: &Lease) -> Option<Timestamp> {
    let ours = |entry: &&ManagedFieldsEntry| entry.manager.as_deref() == Some(FIELD_MANAGER);
    let mut ours = lease.metadata.managed_fields.iter().flatten().filter(ours);
    ours.next().and_then(|entry| entry.time.as_ref()).map(|time| time.0)
}

/// None if another process was faster, or if it was this process and the response was lost: the next read will show.
fn unless_late(written: Result<Lease, Error>) -> Result<Option<Lease>, Error> {
    match written {
        Err(error) if error.is_conflict() || error.is_not_found() => Ok(None),
        written => written.map(Some),
    }
}

/// The part of the Lease that [`plan`](crate::platform::leader::plan) judges; the default if there is no Lease.
pub fn record(lease: Option<&Lease>) -> Record {
    let Some(Lease { metadata, spec }) = lease else { return Record::default() };
    let spec = spec.clone().unwrap_or_default();
    let lasts = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Record {
        version: metadata.resource_version.clone(),
        holder: spec.holder_identity.unwrap_or_default(),
        lasts: lasts.map(Duration::from_secs),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    #[test]
    fn a_term_begins_by_the_api_servers_clock_and_without_that_nothing_is_new() {
        let mut lease = Lease::default();
        assert_eq!(begun(&lease), Timestamp::MAX);
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        let entry = |seconds| ManagedFieldsEntry { time: Some(Time(at(seconds))), ..ManagedFieldsEntry::default() };
        lease.metadata.managed_fields = Some(vec![entry(1000), entry(900)]);
        assert_eq!(begun(&lease), at(1016));
        assert_eq!(written_by_us(&lease), None);
        let ours = ManagedFieldsEntry { manager: Some(FIELD_MANAGER.to_owned()), ..entry(900) };
        lease.metadata.managed_fields = Some(vec![entry(1000), ours]);
        assert_eq!(written_by_us(&lease), Some(at(900)), "whatever the others have written");
    }
}
