//! What the plan answers: one step, or the end of the reconcile.

use crate::api::WorkflowExecutionStatus as Status;
use crate::execution::claim::Claim;
use crate::execution::finished::mark::Returns;
use crate::execution::state::StopCall;
use crate::platform::events::Notice;
use crate::platform::reconcile;
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

impl From<ClusterStep> for Step {
    fn from(step: ClusterStep) -> Self {
        Self::Cluster(step)
    }
}

impl From<Call> for Step {
    fn from(call: Call) -> Self {
        Self::Call(call)
    }
}

/// The end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Written if it differs from the current one.
    pub status: Status,
    pub notices: Vec<Notice>,
    pub requeue: Requeue,
}
