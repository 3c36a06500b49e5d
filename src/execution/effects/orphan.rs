//! Orphaned runs: their resource disappears while they are being started.
//!
//! The API server checks for finalizers before it deletes. A deletion that arrives at the moment of the claim finds
//! none, and also removes the finalizer that was added meanwhile. Then only the process that started the run can stop
//! it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use tokio::time::Instant;

use crate::api::{DeletionPolicy, WorkflowExecution};
use crate::clock::later;
use crate::execution::claim::{CALL, ClaimAnnotation};
use crate::execution::plan::delete::grace;
use crate::execution::state::{ExecutionState, Sent, StopCall};
use crate::mistral::{Client, Error};
use crate::platform::apiserver::{self, list_metadata};
use crate::platform::leader::term::Term;

/// How long to try in all: as long as a deletion would.
const LIMIT: Duration = Duration::from_secs(300);
/// Wait before the next attempt.
const AGAIN: Duration = Duration::from_secs(5);

/// The end of the time for one orphaned run: to find out whether its resource is gone, and to stop the run.
#[derive(Clone, Copy, Debug)]
struct Deadline(Instant);

impl Deadline {
    fn after(limit: Duration) -> Self {
        Self(Instant::now() + limit)
    }

    fn has_passed(self) -> bool {
        Instant::now() >= self.0
    }

    /// Waits, but no longer than until the deadline.
    async fn sleep(self, wait: Duration) {
        tokio::time::sleep_until((Instant::now() + wait).min(self.0)).await;
    }
}

/// How to stop an orphaned run: its resource was gone when its start was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OrphanedRun {
    id: String,
    calls: Vec<StopCall>,
    grace: Duration,
    /// From then on, a 404 proves that this start left no run.
    outcome_known_by: Timestamp,
    /// From then on, a run with this id may belong to another resource.
    ours_until: Timestamp,
}

impl OrphanedRun {
    /// None if the run is to be left alone.
    pub(crate) fn new(state: &ExecutionState) -> Option<Self> {
        let may_run = matches!(state.outcomes.sent, Sent::Accepted(_) | Sent::Unknown(_)) && !state.is_read_only();
        let calls = match state.spec.deletion_policy {
            DeletionPolicy::Cancel => vec![StopCall::Cancel, StopCall::Terminate],
            DeletionPolicy::Terminate => vec![StopCall::Terminate],
            DeletionPolicy::Orphan => return None,
        };
        let ClaimAnnotation::Claim(claim) = &state.annotation else { return None };
        let outcome_known_by = claim.outcome_known_by();
        // Once a 404 proves that there is no run, another resource with the same explicit id may start its own.
        let ours_until = match &state.outcomes.sent {
            Sent::Unknown(_) if state.spec.execution_id.is_some() => later(outcome_known_by, -CALL),
            _ => Timestamp::MAX,
        };
        may_run.then(|| Self {
            id: state.execution_id(),
            calls,
            grace: grace(state).unsigned_abs(),
            outcome_known_by,
            ours_until,
        })
    }

    /// Stops the run if the resource is gone. Either `known` says so, or the API server is asked until it answers.
    pub(crate) async fn stop_if_gone(
        self,
        known: Option<bool>,
        kubernetes: kube::Client,
        object: ObjectReference,
        client: Client,
        term: Term,
    ) {
        // A list of one: nothing else needs the right to get single executions.
        let this =
            ListParams::default().fields(&format!("metadata.name={}", object.name.as_deref().unwrap_or_default()));
        let (kubernetes, object, this, client, id) = (&kubernetes, &object, &this, &client, self.id.as_str());
        let is_gone = || async move {
            let there = list_metadata::<WorkflowExecution>(kubernetes, object.namespace.as_deref(), this).await;
            // Another resource may have its name by now.
            there.map(|there| !there.items.iter().any(|it| it.metadata.uid == object.uid))
        };
        self.act_if_gone(known, is_gone, |call| send(client, id, call), &term).await;
    }

    /// Finds out whether the resource is gone, and stops the run if so, all before one deadline.
    async fn act_if_gone<G, S>(
        &self,
        known: Option<bool>,
        is_gone: impl Fn() -> G,
        send: impl Fn(StopCall) -> S,
        term: &Term,
    ) where
        G: Future<Output = Result<bool, apiserver::Error>>,
        S: Future<Output = Result<(), Error>>,
    {
        let deadline = Deadline::after(LIMIT);
        let mut gone = known;
        let mut trouble = None;
        while gone.is_none() && !deadline.has_passed() && !term.is_over() {
            match is_gone().await {
                Ok(answer) => gone = Some(answer),
                Err(error) => {
                    trouble = Some(error);
                    deadline.sleep(AGAIN).await;
                }
            }
        }
        match gone {
            Some(true) => self.stop(send, deadline, term).await,
            Some(false) => {}
            None => {
                let error = trouble.map(|error| error.to_string());
                tracing::warn!(
                    execution_id = self.id,
                    error,
                    "it is unknown whether this run's resource still exists; if the resource is gone, stop the run in Mistral's console"
                );
            }
        }
    }

    /// Whether a run with this id may belong to another resource by now.
    pub(crate) fn may_be_anothers(&self, now: Timestamp) -> bool {
        now >= self.ours_until
    }

    /// Cancels the run, and terminates it if it has not stopped. A run that the API does not know may appear later.
    /// Each call is tried at least once, also where the deadline leaves no time for a retry or for the grace period.
    async fn stop<S>(&self, send: impl Fn(StopCall) -> S, deadline: Deadline, term: &Term)
    where
        S: Future<Output = Result<(), Error>>,
    {
        let Self { id: execution_id, calls, grace, outcome_known_by, .. } = self;
        tracing::warn!(execution_id, "the resource was deleted while its run was starting; the operator stops the run");
        let mut failed = None;
        for (n, call) in calls.iter().enumerate() {
            if n > 0 {
                deadline.sleep(*grace).await;
            }
            failed = loop {
                // Another process may lead by now, and may have started a run with this id for a new resource.
                if term.is_over() {
                    tracing::warn!(
                        execution_id,
                        "this process may no longer act and could not stop the run before; stop it in Mistral's console"
                    );
                    return;
                }
                if self.may_be_anothers(Timestamp::now()) {
                    tracing::warn!(
                        execution_id,
                        "the run could not be stopped, and another resource may own a run of this id by now; check the run in Mistral's console"
                    );
                    return;
                }
                let sent = Timestamp::now();
                match send(*call).await {
                    Ok(()) => break None,
                    // The run has already ended.
                    Err(Error::Conflict(_)) => return,
                    // There is no such run.
                    Err(Error::NotFound(said)) if said.is_no_execution() && sent >= *outcome_known_by => return,
                    Err(_) if !deadline.has_passed() => deadline.sleep(AGAIN).await,
                    Err(error) => break Some(error),
                }
            };
        }
        if let Some(error) = failed {
            tracing::warn!(execution_id, %error, "the run could not be stopped; stop it in Mistral's console");
        }
    }
}

async fn send(client: &Client, execution_id: &str, call: StopCall) -> Result<(), Error> {
    match call {
        StopCall::Cancel => client.cancel(execution_id).await,
        StopCall::Terminate => client.terminate(execution_id).await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::execution::plan::delete::LONGEST_GRACE;
    use secrecy::SecretString;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    fn orphaned_run(grace: Duration) -> OrphanedRun {
        OrphanedRun {
            id: "run".into(),
            calls: vec![StopCall::Cancel, StopCall::Terminate],
            grace,
            outcome_known_by: Timestamp::MAX,
            ours_until: Timestamp::MAX,
        }
    }

    /// Counts the calls that reach the API while a process stops a run and its term ends after `calls` of them.
    async fn calls_in_a_term_of(calls: usize) -> usize {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", api.local_addr().unwrap());
        let client = Client::new(url.parse().unwrap(), SecretString::from("key")).unwrap();
        let term = Term::unlimited(CancellationToken::new(), Timestamp::now());
        let orphaned_run = orphaned_run(Duration::from_millis(10));
        let mut arrived = 0;
        if calls == 0 {
            term.end();
        }
        let serve = async {
            loop {
                let (mut connection, _) = api.accept().await.unwrap();
                let _ = connection.read(&mut [0; 4096]).await.unwrap();
                arrived += 1;
                if arrived == calls {
                    term.end();
                }
                let answer = b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n";
                connection.write_all(answer).await.unwrap();
            }
        };
        tokio::select! {
            never = serve => never,
            () = orphaned_run.stop(|call| send(&client, "run", call), Deadline::after(LIMIT), &term) => {}
        }
        arrived
    }

    #[tokio::test]
    async fn a_run_whose_resource_is_gone_is_stopped_only_by_a_process_that_may_still_act() {
        assert_eq!(calls_in_a_term_of(usize::MAX).await, 2);
        assert_eq!(calls_in_a_term_of(1).await, 1);
        assert_eq!(calls_in_a_term_of(0).await, 0);
    }

    /// The calls that are made if the API server tells after `found_out` that the resource is gone, and the API
    /// answers as `accepts` says: each with the time since the attempts began.
    async fn calls(
        found_out: Duration,
        grace: Duration,
        accepts: impl Fn(StopCall) -> bool,
    ) -> Vec<(StopCall, Duration)> {
        let (began, made) = (Instant::now(), Mutex::new(Vec::new()));
        let is_gone = || async { if began.elapsed() < found_out { Err(apiserver::Error::Panicked) } else { Ok(true) } };
        let send = |call| {
            made.lock().unwrap().push((call, began.elapsed()));
            let away = Error::Transient { message: "away".into(), retry_after: None };
            let answer = if accepts(call) { Ok(()) } else { Err(away) };
            async { answer }
        };
        let term = Term::unlimited(CancellationToken::new(), Timestamp::now());
        orphaned_run(grace).act_if_gone(None, is_gone, send, &term).await;
        made.into_inner().unwrap()
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[tokio::test(start_paused = true)]
    async fn finding_out_and_stopping_together_take_no_longer_than_a_deletion() {
        for found_out in [0, 200, 290] {
            let calls = calls(seconds(found_out), seconds(30), |_| false).await;
            let (last, at) = calls.last().unwrap();
            assert_eq!(
                (*last, *at),
                (StopCall::Terminate, LIMIT),
                "the resource was known to be gone at {found_out} s"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_grace_period_that_ends_after_the_deadline_still_ends_with_a_terminate() {
        let (cancel, terminate) = (StopCall::Cancel, StopCall::Terminate);
        let longest = seconds(u64::from(LONGEST_GRACE));
        assert_eq!(calls(seconds(0), longest, |_| true).await, [(cancel, seconds(0)), (terminate, longest)]);
        assert_eq!(calls(seconds(200), longest, |_| true).await, [(cancel, seconds(200)), (terminate, LIMIT)]);
        assert!(calls(LIMIT, longest, |_| true).await.is_empty(), "nobody knows that the resource is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn a_run_whose_cancel_the_api_does_not_take_is_terminated_at_the_deadline() {
        let calls = calls(seconds(0), seconds(30), |call| call == StopCall::Terminate).await;
        let terminates: Vec<_> = calls.iter().filter(|(call, _)| *call == StopCall::Terminate).collect();
        assert_eq!(terminates, [&(StopCall::Terminate, LIMIT)]);
    }
}
