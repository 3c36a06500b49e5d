//! The writes that the API server refuses, as far as this process remembers.
//!
//! How the plan goes on without them is decided in [`refused_writes`](crate::execution::plan::refused_writes).

use crate::api::WorkflowExecutionStatus as Status;
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::platform::requeue::Refusal;

/// The refused writes of one resource.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Refusals {
    pub claim: Option<Box<Refusal>>,
    pub finalizer: Option<Box<Refusal>>,
    pub status: Option<Box<Refusal>>,
    pub deletion: Option<Box<Refusal>>,
    pub label: Option<Box<Refusal>>,
    /// The claim that could not be recorded, and the annotation at that time.
    pub unrecorded: Option<Box<(Claim, ClaimAnnotation)>>,
    /// The end that the status could not report.
    pub end: Option<Box<End>>,
    /// The reason last reported in an Event because the status could not be written.
    pub(crate) told: Option<String>,
}

/// An end that the status could not report.
#[derive(Clone, Debug, PartialEq)]
pub struct End {
    /// The status to write next.
    pub(crate) status: Status,
    /// The claim that this process acted on then: under another claim a run may have started since.
    pub(crate) over: ClaimAnnotation,
    /// Generation of the spec at that end.
    pub(crate) generation: Option<i64>,
}

/// A write that may be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Write {
    Claim,
    Finalizer,
    Status,
    /// The deletion of an expired resource.
    Deletion,
    /// The label of a finished resource.
    Label,
}

impl Refusals {
    /// The claim that this process acts on: the unrecorded one, unless the annotation has changed since.
    pub(crate) fn annotation(&self, recorded: &ClaimAnnotation) -> ClaimAnnotation {
        match self.unrecorded.as_deref() {
            Some((claim, over)) if over == recorded => ClaimAnnotation::Claim(Box::new(claim.clone())),
            Some(_) | None => recorded.clone(),
        }
    }

    /// Drops the unrecorded claim once the annotation has changed. If the annotation changes back later, a claim that was
    /// there meanwhile is the newer one.
    pub(super) fn forget_outdated(&mut self, recorded: &ClaimAnnotation) {
        self.unrecorded.take_if(|unrecorded| unrecorded.1 != *recorded);
    }

    pub(super) fn of(&mut self, write: Write) -> &mut Option<Box<Refusal>> {
        match write {
            Write::Claim => &mut self.claim,
            Write::Finalizer => &mut self.finalizer,
            Write::Status => &mut self.status,
            Write::Deletion => &mut self.deletion,
            Write::Label => &mut self.label,
        }
    }
}
