//! What the plan returns: one step, or the end of the reconcile.

use crate::api::WorkflowExecutionStatus as Status;
use crate::api::conditions::{self, READY, RESULT_NOT_WRITTEN, STALLED, STARTED};
use crate::api::reasons::execution as reason;
use crate::execution::claim::{CLAIM, Claim};
use crate::execution::finished::mark::Returns;
use crate::execution::phase::is_started;
use crate::execution::state::{ExecutionState, StopCall};
use crate::platform::events::Notice;
use crate::platform::reconcile::{self, sorts_of_steps};
use crate::platform::requeue::Requeue;

/// What a reconcile does next.
pub type Decision = reconcile::Decision<Step, Settled>;

/// One effect or request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Something in the cluster.
    Cluster(ClusterStep),
    /// A call to Mistral's API. It needs a permit.
    Call(Call),
}

impl Step {
    /// The step without its payload: a claim and an input are too long for a log line.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Cluster(ClusterStep::WriteClaim { .. }) => "WriteClaim",
            Self::Cluster(ClusterStep::SetFinalizer(_)) => "SetFinalizer",
            Self::Cluster(ClusterStep::Leave { .. }) => "Leave",
            Self::Cluster(ClusterStep::Release { .. }) => "Release",
            Self::Cluster(ClusterStep::ReadInput) => "ReadInput",
            Self::Cluster(ClusterStep::Linger) => "Linger",
            Self::Cluster(ClusterStep::MayReport) => "MayReport",
            Self::Cluster(ClusterStep::WriteResult) => "WriteResult",
            Self::Cluster(ClusterStep::Delete) => "Delete",
            Self::Call(Call::GetTarget) => "GetTarget",
            Self::Call(Call::GetRun) => "GetRun",
            Self::Call(Call::Compare) => "Compare",
            Self::Call(Call::Start) => "Start",
            Self::Call(Call::ReadFailure) => "ReadFailure",
            Self::Call(Call::Stop(_)) => "Stop",
        }
    }
}

/// A step that does not call Mistral's API.
#[derive(Clone, Debug, PartialEq)]
pub enum ClusterStep {
    /// Write the claim and the finalizer, provided that nobody has changed the resource.
    WriteClaim {
        claim: Box<Claim>,
        /// Whether the operator's finalizer is to be on the resource then.
        finalizer: bool,
        /// Whether the call of this claim follows in the same reconcile.
        send: bool,
        /// Whether this uses up a person's consent.
        consent: bool,
    },
    /// Put the operator's finalizer on the resource, or take it off.
    SetFinalizer(bool),
    /// Mark the finished resource, so that the watch leaves it out, and take the operator's finalizer off.
    Leave {
        /// When the resource comes back.
        returns: Returns,
    },
    /// Take the operator's finalizer off a resource that is being deleted.
    Release {
        /// The run may go on, which is to be reported.
        abandoned: bool,
    },
    /// Read the ConfigMaps and Secrets that the input comes from.
    ReadInput,
    /// Wait briefly for the end of a run that was just accepted. A run that ends in time saves a status write.
    Linger,
    /// Ask whether a status that only says why the execution waits may be written now.
    MayReport,
    /// Write the result into the object that the spec names.
    WriteResult,
    /// Delete the resource: `ttlSecondsAfterFinished` has passed.
    Delete,
}

/// A call to Mistral's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Get the workflow or registration that is to be run.
    GetTarget,
    /// Get the run.
    GetRun,
    /// Check whether the run that was found is the one that the spec asks for.
    Compare,
    /// Start the run. Only ever follows a claim with `send` in the same reconcile.
    Start,
    /// Read why the run failed.
    ReadFailure,
    Stop(StopCall),
}

sorts_of_steps!(Step { Cluster(ClusterStep), Call(Call) });

/// The end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Written if it differs from the current one.
    pub status: Status,
    pub notices: Vec<Notice>,
    pub requeue: Requeue,
}

/// Ends the reconcile. People are notified of what changes in `Ready`.
pub(crate) fn settle(state: &ExecutionState, mut status: Status, requeue: Requeue) -> Decision {
    // An edit that changes nothing here is recorded as seen, too: tools that wait for that read these generations.
    if !status.conditions.is_empty() && state.deleted.is_none() {
        status.observed_generation = state.generation;
        status.conditions.iter_mut().for_each(|condition| condition.observed_generation = state.generation);
    }
    let mut notices = Vec::new();
    if state.copied && state.claim_exists() {
        let note = format!(
            "The annotation {CLAIM} belonged to another resource, or was older than the last one, as in a copied or exported manifest. The operator replaced it."
        );
        notices.push(Notice::warning(reason::CLAIM_IGNORED, note));
    }
    if is_started(&status)
        && !is_started(&state.status)
        && let Some(started) = conditions::find(&status.conditions, STARTED)
    {
        notices.push(Notice::normal(&started.reason, &started.message));
    }
    let old = conditions::find(&state.status.conditions, READY);
    if let Some(new) = conditions::find(&status.conditions, READY)
        && old.is_none_or(|old| old.reason != new.reason)
        && !matches!(new.reason.as_str(), reason::RUNNING | reason::QUEUED)
    {
        // What is missing may still arrive. If it does not, this stays the only Event.
        let warning = conditions::is_true(&status.conditions, STALLED)
            || matches!(
                new.reason.as_str(),
                reason::API_UNAVAILABLE
                    | reason::OUTCOME_UNKNOWN
                    | reason::MISSING
                    | reason::RESULT_PENDING
                    | reason::WORKSPACE_NOT_FOUND
                    | reason::WORKFLOW_NOT_FOUND
            );
        let notice = if warning { Notice::warning } else { Notice::normal };
        notices.push(notice(&new.reason, &new.message));
    }
    if let Some(not_written) = conditions::find(&status.conditions, RESULT_NOT_WRITTEN)
        && conditions::find(&state.status.conditions, RESULT_NOT_WRITTEN).is_none()
    {
        notices.push(Notice::warning(&not_written.reason, &not_written.message));
    }
    Decision::Settle(Box::new(Settled { status, notices, requeue }))
}

/// The reason of `Ready`; none before the first reconcile.
pub(crate) fn ready_reason(status: &Status) -> Option<&str> {
    conditions::find(&status.conditions, READY).map(|ready| ready.reason.as_str())
}
