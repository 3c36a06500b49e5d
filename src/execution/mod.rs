//! `WorkflowExecution`: from a resource to a run at the Mistral API, exactly once, and back to the resource's status.
//!
//! One run, step by step:
//!
//! 1. The watch stores the resource without the long fields that no reconcile reads ([`cache`]). A resource that this
//!    version cannot decode is skipped, but can still be deleted ([`undecodable`]).
//! 2. A reconcile begins ([`controller::reconcile`]). [`state::ExecutionState`] holds what is known without a call: the
//!    resource, its claim, and what this process remembers of them.
//! 3. [`plan::plan`] does no I/O. It returns one step, or the status that ends the reconcile. The controller carries
//!    out the step, adds the outcome to `ExecutionState` and plans again.
//! 4. The first steps read the input ([`state::input`]) and take a permit to call the API. Without a permit the
//!    reconcile ends, and the queue wakes the resource later. The API is also asked whether the run exists, except for
//!    a resource without an explicit id that this process has seen from its creation.
//! 5. The reconcile writes the [`claim`], an annotation that says that a run may exist. The write depends on the
//!    resource version, so only one operator succeeds.
//! 6. The same reconcile sends the call that starts the run, within 15 seconds ([`state::start_answer`] reads the
//!    answer). If the outcome is unknown, the call is repeated only once no earlier call can be in flight and the API
//!    shows no run.
//! 7. If the workflow is not known for long runs, the reconcile waits up to three seconds for the end
//!    (`run_durations`). One write of the [`status`] then reports both start and end.
//! 8. The [`tracker`] polls all other runs, by Workspace, and wakes a resource whose run may have ended. The reconcile
//!    gets the run, writes the result where the spec wants it ([`effects::result_object`]), and sets `Complete` or
//!    `Failed`.
//! 9. A finished run is never polled again. About two minutes later the resource loses its finalizer and leaves the
//!    watch ([`finished`]). It is deleted once `spec.ttlSecondsAfterFinished` has passed.
//!
//! If the resource is deleted earlier, its finalizer holds it until the run has stopped, for five minutes at most.
//! [`effects::orphan`] stops a run whose resource disappeared during the start.

pub mod cache;
pub mod claim;
pub mod controller;
pub mod effects;
pub mod finished;
pub mod metrics;
pub mod phase;
pub mod plan;
mod report_turns;
mod run_durations;
pub mod state;
pub mod status;
pub mod tracker;
pub mod undecodable;

use crate::api::WorkflowExecution;
use crate::platform::decoded::Decoded;

/// An execution from the watch. One that cannot be decoded must not block the others.
pub type Guarded = Decoded<WorkflowExecution>;
