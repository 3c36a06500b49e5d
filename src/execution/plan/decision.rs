//! The plan's answer: one step, or the end of the reconcile.

use crate::api::WorkflowExecutionStatus as Status;
use crate::execution::claim::Claim;
use crate::execution::state::StopCall;
use crate::platform::events::Notice;
use crate::platform::requeue::Requeue;

/// What a reconcile does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Carry this out, fold the outcome into [`Observed`](crate::execution::state::Observed), and plan again.
    Act(Step),
    /// The reconcile ends.
    Settle(Box<Settled>),
}

/// One effect or request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the claim and the finalizer, provided that nobody has changed the resource.
    WriteClaim {
        claim: Box<Claim>,
        /// Whether the resource has our finalizer afterwards.
        finalizer: bool,
        /// Whether the call of this claim follows in the same reconcile.
        send: bool,
        /// Whether this write uses up a person's consent.
        consent: bool,
    },
    /// Add our finalizer to the resource, or remove it.
    SetFinalizer(bool),
    /// Remove our finalizer from a resource that is being deleted.
    Release {
        /// The run may go on, which is to be reported.
        abandoned: bool,
    },
    /// Check whether the workflow or registration to run exists at the API.
    Probe,
    /// Get the run from the API.
    Ask,
    /// Read the ConfigMaps and Secrets that the input comes from.
    ReadInput,
    /// Check whether the run that was found is the one that the spec asks for.
    Compare,
    /// Start the run. This only ever follows a claim with `send` in the same reconcile.
    Start,
    /// Wait a moment in case the run that was just accepted ends at once: that saves a write.
    Linger,
    /// Read why the run failed.
    ReadFailure,
    /// Write the result into the object that the spec names.
    WriteResult,
    Stop(StopCall),
    /// Delete the expired resource.
    Delete,
}

/// The end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Written if it differs from the current one.
    pub status: Status,
    pub notices: Vec<Notice>,
    pub requeue: Requeue,
}
