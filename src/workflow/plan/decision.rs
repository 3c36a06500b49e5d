//! What the plan returns: one step, or the end of the reconcile.

use crate::api::WorkflowStatus as Status;
use crate::platform::events::Notice;
use crate::platform::reconcile::{self, sorts_of_steps};
use crate::platform::requeue::Requeue;
use crate::workflow::fields::Field;

/// What a reconcile does next.
pub type Decision = reconcile::Decision<Step, Settled>;

/// One effect or request.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// Something in the cluster.
    Cluster(ClusterStep),
    /// A call to Mistral's API. It needs a permit.
    Call(Call),
    /// Archive the workflow with this UUID, or take it out of the archive: in one call with others, which has a permit of
    /// its own.
    SetArchived(String, bool),
}

/// A step that does not call Mistral's API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClusterStep {
    /// Put the operator's finalizer on the resource, or take it off.
    SetFinalizer(bool),
    /// Take the operator's finalizer off a resource that is being deleted.
    Release {
        /// The workflow may not be archived, which is to be reported.
        abandoned: bool,
    },
}

/// A call to Mistral's API, or the reading of one list.
#[derive(Clone, Debug, PartialEq)]
pub enum Call {
    /// Find the UUID of the workflow with this name.
    Find(String),
    /// Get the workflow.
    Get(String),
    /// Read the versions of the workflow with this UUID.
    ReadRegistrations(String),
    /// Set these fields of the workflow with this UUID.
    Update(String, Vec<Field>),
}

sorts_of_steps!(Step { Cluster(ClusterStep), Call(Call) });

/// The end of a reconcile.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Written if it differs from the current one.
    pub status: Status,
    /// What this reconcile has done: published whether or not the status can be written.
    pub done: Vec<Notice>,
    /// What is new in the status: published once the status is written.
    pub news: Vec<Notice>,
    pub requeue: Requeue,
}
