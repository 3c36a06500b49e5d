//! Writes that the API server refuses for good: how the plan goes on without them, reports them and retries them.
//!
//! Each kind of write has its own backoff. It grows to five minutes and ends when somebody else changes the resource.
//! Until then a step that would write is answered from memory.
//!
//! - A claim whose call would follow: nothing is started, and the condition says why.
//! - Any other claim records what has already happened. This process acts on the claim anyway, and writes it when the
//!   retry is due. So a stop that cannot be recorded is sent: somebody wants the run to end, and a second request does
//!   no harm. A restart loses when the stop began, so the grace period starts again, and loses a stop whose request was
//!   withdrawn. Only a run of somebody else is not reported as started before its claim is recorded: a restart would
//!   take it for ours.
//! - The finalizer: the run goes on without it. A resource that is being deleted waits for this write and nothing else.
//! - The deletion of an expired resource: the resource stays, and a condition says why.
//! - The status: a smaller one is written, and if that is refused too, Events. A run that has ended is not polled until
//!   the API server accepts a status again.

use std::time::Duration;

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{self, Progress, READY};
use crate::api::reasons::execution as reason;
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::execution::phase::{is_finished, is_started};
use crate::execution::plan::blocked::blocked;
use crate::execution::plan::claim::write;
use crate::execution::plan::decision::{Decision, Settled, settle};
use crate::execution::plan::stop;
use crate::execution::state::ExecutionState;
use crate::execution::state::refusals::{End, Write};
use crate::execution::status;
use crate::platform::events::Notice;
use crate::platform::refused::{Cause, Refused};
use crate::platform::requeue::{Refusal, Requeue};
use crate::text::truncate;

/// Bytes of each text in a smaller status, at most.
const SHORT: usize = 300;

impl ExecutionState {
    /// The refusal that holds this write back, and for how much longer; none if the write may be tried.
    pub fn refusal(&self, write: Write, now: Timestamp) -> Option<(&Refusal, Duration)> {
        let refusals = &self.memory.refusals;
        let refusal = match write {
            Write::Claim => refusals.claim.as_deref(),
            Write::Finalizer => refusals.finalizer.as_deref(),
            Write::Status => refusals.status.as_deref(),
            Write::Deletion => refusals.deletion.as_deref(),
            Write::Label => refusals.label.as_deref(),
        }?;
        Some((refusal, refusal.left(&self.version, now)?))
    }

    /// Whether the claim that this process acts on is not on the resource.
    pub(crate) fn is_unrecorded(&self) -> bool {
        matches!(self.memory.refusals.unrecorded.as_deref(), Some((_, over)) if *over == self.recorded)
    }

    /// The status cannot be written. Returns what to publish in Events instead, once for each reason.
    pub fn untold(&mut self, settled: &Settled, now: Timestamp) -> Vec<Notice> {
        if is_finished(&settled.status) && !is_finished(&self.status) {
            let end = match &settled.status.result {
                // The result may be long: it is read from the API again once it can be written.
                Some(_) => status::end_pending(self, &settled.status, now),
                None => settled.status.clone(),
            };
            let (over, generation) = (self.annotation.clone(), self.generation);
            self.memory.refusals.end = Some(Box::new(End { status: end, over, generation }));
        }
        let Some(refused) = self.memory.refusals.status.as_ref().map(|it| it.refused.clone()) else {
            return Vec::new();
        };
        let unsaid = conditions::find(&settled.status.conditions, READY);
        let word = unsaid.map(|ready| ready.reason.clone()).unwrap_or_default();
        let first = self.memory.refusals.told.is_none();
        if self.memory.refusals.told.replace(word.clone()).is_some_and(|told| told == word) {
            return Vec::new();
        }
        let refusal = first.then(|| refused.status(reason::STATUS_REFUSED, unsaid));
        refusal.into_iter().chain(settled.notices.iter().cloned()).collect()
    }
}

/// The Event about a refused claim that nothing waits for.
pub(crate) fn unrecorded(refused: &Refused) -> Notice {
    let note = format!(
        "The API server refuses to record the state of the run on this resource. Until the operator restarts, it acts from memory: it still stops a run that has to stop. {} The operator tries again at growing intervals of up to 5 minutes, and at once when the resource changes. The API server said: {}",
        advice(refused),
        refused.said
    );
    Notice::warning(reason::CLAIM_REFUSED, note)
}

/// Writes the claim that could not be recorded, once that is due. Until then, reports the refusal if the execution waits
/// for the claim; none if the plan goes on.
pub(crate) fn claim_pending(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    match &state.annotation {
        ClaimAnnotation::Claim(claim) if state.is_unrecorded() && state.refusal(Write::Claim, now).is_none() => {
            Some(write(state, Claim::clone(claim), false))
        }
        _ if waits_for_claim(state) => claim_refused(state, now),
        _ => None,
    }
}

/// Reports that nothing is started because the API server refuses the claim; none if the claim may be written.
pub(crate) fn claim_refused(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    let (refusal, left) = state.refusal(Write::Claim, now)?;
    let refused = &refusal.refused;
    let so = if state.is_unrecorded() {
        format!(
            "The API server refuses to record run \"{}\" on this resource, so the run's state is not reported and nothing was started",
            state.execution_id()
        )
    } else {
        "Nothing was started: the API server refuses the claim that this resource needs before the start".to_owned()
    };
    // The first sentence is repeated where a deadline ends the wait.
    let message = format!(
        "{so} ({}). {} The operator tries again at growing intervals of up to 5 minutes, and at once when the resource changes.",
        refused.said,
        advice(refused)
    );
    Some(blocked(state, reason::CLAIM_REFUSED, message, Requeue::After(left), now))
}

fn advice(refused: &Refused) -> &'static str {
    match refused.cause {
        Cause::Annotations => {
            "Its annotations are too long: create it with kubectl create, or kubectl apply --server-side, which keep no copy of the manifest in an annotation."
        }
        Cause::Size => "The resource is too large: create one with a smaller input.",
        Cause::Rule => "Change the policy, webhook or right that refuses it.",
    }
}

/// Pauses polling while the status is refused: its answers could not be reported. A stop goes on.
pub(crate) fn status_refused(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    // Without a claim, the plan finds the end again from the resource alone; and the claim may have been lost since.
    let end = state.memory.refusals.end.as_deref().filter(|_| state.claim_exists());
    let end =
        end.filter(|end| end.over == state.annotation && end.generation == state.generation).map(|end| &end.status);
    if let Some((_, left)) = state.refusal(Write::Status, now)
        && (end.is_some() || (state.may_have_started() && !stop::is_due(state, now)))
    {
        return Some(settle(state, state.status.clone(), Requeue::Hold(left)));
    }
    end.map(|end| {
        let requeue = if is_finished(end) { Requeue::OnChange } else { Requeue::After(Duration::ZERO) };
        settle(state, end.clone(), requeue)
    })
}

/// Reports a deletion that waits only for the finalizer, which the API server refuses to remove; none if that may be
/// tried.
pub(crate) fn release_refused(state: &ExecutionState, now: Timestamp) -> Option<Decision> {
    let (refusal, left) = state.refusal(Write::Finalizer, now)?;
    let status = if is_finished(&state.status) {
        state.status.clone()
    } else {
        let message = format!(
            "The deletion waits only for the finalizer, which the API server does not let the operator remove. {} The operator tries again at growing intervals of up to 5 minutes. The API server said: {}",
            advice(&refusal.refused),
            refusal.refused.said
        );
        status::state_unreadable(state, Progress::Stalled, reason::FINALIZER_REFUSED, message, now)
    };
    Some(settle(state, status, Requeue::After(left)))
}

/// How long until a write that nothing waits for is due again; none if there is no such write.
pub(crate) fn next_retry(state: &ExecutionState, now: Timestamp) -> Option<Duration> {
    let claim = state.refusal(Write::Claim, now).filter(|_| state.is_unrecorded());
    let finalizer = state.refusal(Write::Finalizer, now);
    claim.into_iter().chain(finalizer).map(|(_, left)| left).min()
}

/// The same settlement with shorter texts and without the result; none if that changes nothing.
pub fn smaller(state: &ExecutionState, settled: &Settled, refused: &Refused, now: Timestamp) -> Option<Settled> {
    let mut status = settled.status.clone();
    for condition in &mut status.conditions {
        shorten(&mut condition.message);
    }
    if let Some(failure) = &mut status.failure {
        shorten(&mut failure.message);
    }
    if status.result.take().is_some() {
        status::result_left_out(&mut status, state, refused, now);
    }
    if status == settled.status {
        return None;
    }
    match settle(state, status, settled.requeue) {
        Decision::Settle(settled) => Some(*settled),
        Decision::Act(_) => None,
    }
}

fn shorten(text: &mut String) {
    if text.len() > SHORT {
        truncate(text, SHORT - '…'.len_utf8());
        text.push('…');
    }
}

/// Whether the execution waits until the API server accepts the claim: for a start, or to report that somebody else's
/// run was found.
fn waits_for_claim(state: &ExecutionState) -> bool {
    !is_started(&state.status) && (!state.is_unrecorded() || state.is_read_only())
}
