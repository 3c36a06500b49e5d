//! The step that writes a claim, and the consent of a person that it may use up.

use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::execution::plan::decision::{ClusterStep, Decision};
use crate::execution::state::ExecutionState;

/// Writes the claim. `send` if its call follows in this reconcile.
pub(crate) fn write(state: &ExecutionState, claim: Claim, send: bool) -> Decision {
    let finalizer = state.deleted.is_some() || (state.wants_finalizer() && !claim.read_only);
    // The new revision is above all that were written on this resource. Claims of another resource of this name count
    // as older, whatever their revision.
    let there = match &state.annotation {
        ClaimAnnotation::Claim(claim) if !state.names_another_uid(claim) => claim.revision,
        ClaimAnnotation::Claim(_) | ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => 0,
    };
    let revision = state.memory.claim.as_ref().map_or(there, |known| known.revision.max(there)).saturating_add(1);
    let consent = is_consent(state, &claim) && !claim.read_only && !claim.refused;
    let claim = Claim { revision, uid: Some(state.uid.clone()), ..claim };
    Decision::Act(ClusterStep::WriteClaim { claim: Box::new(claim), finalizer, send, consent }.into())
}

/// Whether a person lets this resource take over the run of this claim.
pub(crate) fn is_consent(state: &ExecutionState, claim: &Claim) -> bool {
    state.take_over.as_ref() == Some(&claim.execution_id)
}
