//! Resources that are gone while their run has just been started.
//!
//! The API server looks for finalizers before it deletes: a deletion that arrives in the moment of the claim finds none,
//! and takes the finalizer with it that has come meanwhile. Then nobody is left to stop the run but who started it.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::jiff::SignedDuration;
use kube::{Api, ResourceExt};
use tokio::time::Instant;

use super::deletion::LONGEST_GRACE;
use super::observed::{Observed, Sent, StopCall};
use crate::api::{DeletionPolicy, WorkflowExecution};
use crate::mistral::{Client, Error};
use crate::operator::kubernetes::call;

/// For how long it is tried: as a deletion would be.
const LIMIT: Duration = Duration::from_secs(300);
/// How long to wait before the next try.
const AGAIN: Duration = Duration::from_secs(5);

/// How to stop a run whose resource was gone when its start was to be recorded; none if it is to be left alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Overtaken {
    id: String,
    calls: Vec<StopCall>,
    grace: Duration,
}

impl Overtaken {
    pub(super) fn new(o: &Observed) -> Option<Self> {
        let may_run = matches!(o.sent, Sent::Accepted(_) | Sent::Unknown(_)) && !o.is_reading();
        let calls = match o.spec.deletion_policy {
            DeletionPolicy::Cancel => vec![StopCall::Cancel, StopCall::Terminate],
            DeletionPolicy::Terminate => vec![StopCall::Terminate],
            DeletionPolicy::Orphan => return None,
        };
        let grace = SignedDuration::from_secs(i64::from(o.spec.termination_grace_period_seconds.min(LONGEST_GRACE)));
        may_run.then(|| Self { id: o.execution_id(), calls, grace: grace.unsigned_abs() })
    }

    /// Stops the run if the resource is gone, which `known` says already or the API server is asked, for as long as it
    /// does not tell.
    pub(super) async fn stop_if_gone(
        self,
        known: Option<bool>,
        kubernetes: kube::Client,
        object: ObjectReference,
        client: Client,
    ) {
        let api: Api<WorkflowExecution> = Api::namespaced(kubernetes, object.namespace.as_deref().unwrap_or_default());
        let began = Instant::now();
        let mut gone = known;
        while gone.is_none() && began.elapsed() < LIMIT {
            gone = match call(api.get_metadata(object.name.as_deref().unwrap_or_default())).await {
                // Another one may have its name by now.
                Ok(present) => Some(present.uid() != object.uid),
                Err(error) if error.is_not_found() => Some(true),
                Err(_) => None,
            };
            if gone.is_none() {
                tokio::time::sleep(AGAIN).await;
            }
        }
        if gone == Some(true) {
            self.stop(client).await;
        }
    }

    /// Asks the run to stop, and ends it if it has not. A run that is not known may show later.
    async fn stop(self, client: Client) {
        let Self { id: execution_id, calls, grace } = self;
        tracing::warn!(
            execution_id,
            "the resource was deleted while its run was being started; the run is being stopped"
        );
        let began = Instant::now();
        for (n, call) in calls.into_iter().enumerate() {
            if n > 0 {
                tokio::time::sleep(grace).await;
            }
            loop {
                let outcome = match call {
                    StopCall::Cancel => client.cancel(&execution_id).await,
                    StopCall::Terminate => client.terminate(&execution_id).await,
                };
                match outcome {
                    Ok(()) => break,
                    // It runs no longer.
                    Err(Error::Conflict(_)) => return,
                    Err(_) if began.elapsed() < LIMIT => tokio::time::sleep(AGAIN).await,
                    Err(error) => {
                        tracing::warn!(execution_id, %error, "the run could not be stopped; look after it in Mistral's console");
                        return;
                    }
                }
            }
        }
    }
}
