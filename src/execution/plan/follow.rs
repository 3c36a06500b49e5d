//! From the start of a run to its end, as the status reports it.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, MISSING, Progress};
use crate::api::reasons::execution as reason;
use crate::clock::later;
use crate::execution::claim::{Claim, Owner, TAKE_OVER, VISIBILITY};
use crate::execution::phase::is_started;
use crate::execution::plan::backoff::backoff;
use crate::execution::plan::blocked::{
    blocked, is_taken, is_unresolved, taken, taken_with_other_input, troubled, unresolved,
};
use crate::execution::plan::decision::{Call, ClusterStep, Decision, ready_reason, settle};
use crate::execution::plan::{input, result, stop};
use crate::execution::state::input::{Redaction, redaction};
use crate::execution::state::refusals::Write;
use crate::execution::state::{Comparison, ExecutionState, FailureText, Remote};
use crate::execution::status;
use crate::mistral::wire::{Execution, is_terminal};
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::requeue::Requeue;
use crate::text::without_stop;

/// How often the events of a failed run are read until they have a text: events lag by seconds.
const READS_OF_A_FAILURE: u32 = 5;

/// Consecutive polls without an answer after which the status reports it.
const SILENCE: u32 = 5;

/// How long a run stays missing before it is given up.
const LOST_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// The run is somebody else's: reads it and changes nothing.
pub(crate) fn read(state: &ExecutionState, claim: &Claim, foreign: bool, now: Timestamp) -> Decision {
    if is_started(&state.status) {
        return running(state, now);
    }
    match &state.outcomes.remote {
        Remote::NotFetched => Decision::Act(Call::GetRun.into()),
        Remote::Found(_) if is_unresolved(state) => {
            unresolved(state, now).unwrap_or_else(|| settle(state, state.status.clone(), Requeue::OnChange))
        }
        Remote::Found(run) if is_taken(state, run) => taken(state, run.workflow_name.as_deref(), now),
        Remote::Found(run) if !foreign && state.spec.execution_id.is_some() => compared(state, run, now),
        Remote::Found(run) => observe(state, run, now),
        Remote::Unknown(trouble) => troubled(state, trouble, now),
        Remote::Absent => {
            if let Some(decision) = stop::start_forbidden(state, now) {
                return decision;
            }
            let id = &claim.execution_id;
            let message = format!(
                "Run \"{id}\" is claimed by {}, and the API does not know it, so nothing is started. To start it from here, annotate this resource with {TAKE_OVER}={id}. The operator looks for the run again within 5 minutes.",
                if foreign { claimant(state, claim) } else { "someone else".to_owned() }
            );
            blocked(state, reason::FOREIGN_CLAIM, message, Requeue::Retry(backoff(state, 60, 300)), now)
        }
    }
}

/// The resource elsewhere that a claim speaks of.
fn claimant(state: &ExecutionState, claim: &Claim) -> String {
    let Owner { cluster, namespace, name } = &claim.owner;
    let place = if *cluster == state.owner.cluster {
        "of this cluster".to_owned()
    } else {
        format!("of another cluster (that whose namespace kube-system has the UID {cluster})")
    };
    format!("WorkflowExecution \"{name}\" in namespace \"{namespace}\" {place}")
}

/// A run was found under an explicit id. If the spec asks for another workflow or input, the status says so and shows
/// no result.
pub(crate) fn compared(state: &ExecutionState, run: &Execution, now: Timestamp) -> Decision {
    match &state.outcomes.comparison {
        Comparison::NotTried => input::comparable(state).unwrap_or(Decision::Act(Call::Compare.into())),
        Comparison::Same | Comparison::Unknown(_) => observe(state, run, now),
        Comparison::OtherWorkflow(name) => taken(state, Some(name), now),
        Comparison::OtherInput(how) => taken_with_other_input(state, how, now),
    }
}

/// The run has started.
pub(crate) fn running(state: &ExecutionState, now: Timestamp) -> Decision {
    let wants = state.wants_finalizer() && !state.is_read_only();
    if state.finalizer != wants && state.refusal(Write::Finalizer, now).is_none() {
        return Decision::Act(ClusterStep::SetFinalizer(wants).into());
    }
    match &state.outcomes.remote {
        // The status may be outdated for reasons other than the run's own progress.
        Remote::NotFetched
            if state.refresh || ready_reason(&state.status) != Some(reason::RUNNING) || stop::is_due(state, now) =>
        {
            Decision::Act(Call::GetRun.into())
        }
        Remote::NotFetched => settle(state, state.status.clone(), Requeue::OnChange),
        Remote::Found(run) => observe(state, run, now),
        Remote::Absent => gone(state, now),
        Remote::Unknown(trouble) if let Some(run) = unreadable_end(state, trouble) => observe(state, &run, now),
        // Stopping a run needs no answer about it.
        Remote::Unknown(trouble)
            if trouble.kind != TroubleKind::Unauthorized
                && let Some(decision) = stop::stop(state, &unread(state), now) =>
        {
            decision
        }
        Remote::Unknown(trouble) => match trouble.kind {
            // The tracker polls again, less often. The Workspace's condition reports a flapping API.
            TroubleKind::Unavailable if state.memory.unanswered < SILENCE => {
                settle(state, state.status.clone(), Requeue::OnChange)
            }
            TroubleKind::Unavailable => {
                let message = format!(
                    "The run has started, but its state cannot be read: {}. The operator asks again at growing intervals of up to 15 minutes. The run itself is not affected.",
                    without_stop(&trouble.message)
                );
                settle(
                    state,
                    status::state_unreadable(state, Progress::Working, reason::API_UNAVAILABLE, message, now),
                    Requeue::OnChange,
                )
            }
            TroubleKind::Unauthorized | TroubleKind::Refused => troubled(state, trouble, now),
        },
    }
}

/// The end of a run according to the list of runs, while the API gives no usable answer about the run itself. Perhaps
/// nobody can read its result, and clients that wait for the end must not wait forever.
pub(crate) fn unreadable_end(state: &ExecutionState, trouble: &Trouble) -> Option<Execution> {
    let enough = trouble.kind != TroubleKind::Unauthorized && state.memory.unanswered >= SILENCE;
    let row = state.memory.listed_end.as_deref().filter(|row| enough && is_terminal(row.status.as_deref()))?;
    (!is_taken(state, row)).then(|| Execution { result_unread: Some(trouble.message.clone()), ..row.clone() })
}

/// Puts the API's answer about the run into the status.
pub(crate) fn observe(state: &ExecutionState, run: &Execution, now: Timestamp) -> Decision {
    if !is_terminal(run.status.as_deref()) {
        return stop::stop(state, run, now)
            .unwrap_or_else(|| settle(state, status::running(state, run, now), Requeue::OnChange));
    }
    if let Some(decision) = result::next(state, run, now) {
        return decision;
    }
    if run.status.as_deref() != Some("FAILED") {
        return settle(state, status::ended(state, run, None, now), Requeue::OnChange);
    }
    match &state.outcomes.failure {
        FailureText::NotFetched => Decision::Act(Call::ReadFailure.into()),
        FailureText::Read(None) if state.memory.failure_reads < READS_OF_A_FAILURE => {
            // Being woken does not shorten this wait: lists go on reporting the end.
            settle(state, status::ending(state, run, now), Requeue::Retry(Duration::from_secs(2)))
        }
        FailureText::Read(text) => {
            let text = match (text, redaction(state)) {
                (Some(_), Redaction::NotRead) => return Decision::Act(ClusterStep::ReadInput.into()),
                (Some(text), Redaction::These(redactor)) => Some(redactor.text(text).into_owned()),
                (Some(_), Redaction::Unknown(why)) => Some(status::withheld_failure(&why)),
                (text, _) => text.clone(),
            };
            settle(state, status::ended(state, run, text.as_deref(), now), Requeue::OnChange)
        }
    }
}

/// The API no longer knows a run that had started.
pub(crate) fn gone(state: &ExecutionState, now: Timestamp) -> Decision {
    let started = state.status.start_time.as_ref().map_or(state.created, |time| time.0);
    if state.began < later(started, VISIBILITY) {
        return settle(state, state.status.clone(), Requeue::OnChange);
    }
    match conditions::find(&state.status.conditions, MISSING) {
        Some(since) if later(since.last_transition_time.0, LOST_AFTER) < now => {
            let message = "The API has not known this run for a day, so its outcome is unknown. It was not started again. Look it up in Mistral's console before you create another WorkflowExecution.";
            settle(state, status::ended_without_run(state, reason::LOST, message, now), Requeue::OnChange)
        }
        _ => settle(state, status::missing(state, now), Requeue::OnChange),
    }
}

/// Stands for a run about which the API reports nothing.
pub(crate) fn unread(state: &ExecutionState) -> Execution {
    Execution { execution_id: state.execution_id(), ..Execution::default() }
}
