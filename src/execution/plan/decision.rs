//! What the plan answers: one step, or the end of the pass.

use crate::api::WorkflowExecutionStatus as Status;
use crate::execution::claim::Claim;
use crate::execution::state::StopCall;
use crate::platform::events::Notice;
use crate::platform::requeue::Requeue;

/// What a pass does next.
#[derive(Clone, Debug, PartialEq)]
pub enum Decision {
    /// Carry this out, fold the outcome into [`Observed`](crate::execution::state::Observed), and plan again.
    Act(Step),
    /// The pass ends.
    Settle(Box<Settled>),
}

/// One effect or question.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Write the claim and the finalizer, on condition that nobody changed the resource.
    WriteClaim {
        /// What to write.
        claim: Box<Claim>,
        /// Whether our finalizer shall be on the resource then.
        finalizer: bool,
        /// Whether the call of this claim follows in the same pass.
        send: bool,
        /// Whether a person's consent is used up with it.
        consent: bool,
    },
    /// Put our finalizer on the resource, or take it off.
    SetFinalizer(bool),
    /// Take our finalizer off a resource that is being deleted.
    Release {
        /// The run may go on: say so.
        abandoned: bool,
    },
    /// Ask the API whether what is to be run exists.
    Probe,
    /// Ask the API about the run.
    Ask,
    /// Read the ConfigMaps and Secrets that the input comes from.
    ReadInput,
    /// Find out whether the run that was found is what the spec asks for.
    Compare,
    /// Start the run. Only ever follows a claim with `send` in the same pass.
    Start,
    /// Wait for a moment whether the run that was just accepted ends at once: that saves a write.
    Linger,
    /// Read why the run failed.
    ReadFailure,
    /// Write the result into the object that the spec names.
    WriteResult,
    /// Stop the run.
    Stop(StopCall),
    /// Delete the resource, whose time is over.
    Delete,
}

/// The end of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// To be written if it differs from what is there.
    pub status: Status,
    /// To be published.
    pub notices: Vec<Notice>,
    /// When to come back.
    pub requeue: Requeue,
}
