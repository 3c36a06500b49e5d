//! The contents of an execution's status. Each function turns one situation into a whole status.

mod result;

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::{
    self, COMPLETE, ConditionStatus, EDITED, EXPIRED, FAILED, MISSING, Progress, READY, RESULT_NOT_WRITTEN, STARTED,
    Writer,
};
use crate::api::execution::Failure;
use crate::api::reasons::execution as reason;
use crate::api::{Shutdown, WorkflowExecutionStatus as Status};
use crate::clock::{duration_text, moment_text};
use crate::execution::claim::{ClaimAnnotation, StopFor};
use crate::execution::phase::is_started;
use crate::execution::state::{Comparison, ExecutionState, WorkflowRefState};
use crate::mistral::wire::Execution;
use crate::platform::refused::{Cause, Refused};

/// The run has not started: why, and whether it will start without intervention.
pub fn not_started(state: &ExecutionState, wait: Progress, reason: &str, message: String, now: Timestamp) -> Status {
    let started = if state.may_have_started() { ConditionStatus::Unknown } else { ConditionStatus::False };
    let mut status = base(state);
    writer(state, now).set_short(&mut status.conditions, STARTED, started, reason, &message);
    writer(state, now).unready(&mut status.conditions, wait, reason, &message);
    status
}

/// The run has started, but its state cannot be read: why.
pub fn state_unreadable(
    state: &ExecutionState,
    wait: Progress,
    reason: &str,
    message: String,
    now: Timestamp,
) -> Status {
    let mut status = base(state);
    writer(state, now).unready(&mut status.conditions, wait, reason, &message);
    status
}

/// The run is in progress.
pub fn running(state: &ExecutionState, run: &Execution, now: Timestamp) -> Status {
    let mut status = of_run(state, run, now);
    started(&mut status, state, now);
    conditions::remove(&mut status.conditions, MISSING);
    let message = running_message(state, &status);
    writer(state, now).unready(&mut status.conditions, Progress::Working, reason::RUNNING, &message);
    status
}

/// Names the start, the state of the worker and the deadline. It holds no number that grows: each change would cost a
/// write.
fn running_message(state: &ExecutionState, status: &Status) -> String {
    let since = status.start_time.as_ref().map_or_else(
        || "The run goes on".to_owned(),
        |start| format!("The run started at {} and goes on", moment_text(start.0)),
    );
    let mut message = match &state.workflow_ref {
        _ if state.is_read_only() && state.spec.shutdown.is_some() => {
            return format!(
                "{since}; this resource does not own it, so spec.shutdown does not stop it. Stop it at Mistral, or where it was started."
            );
        }
        WorkflowRefState::Ready { active: Some(false), .. } => {
            format!("{since}, or waits: no live worker serves its workflow. Start its worker.")
        }
        WorkflowRefState::Ready { active: Some(true), .. } => format!("{since}. A live worker serves its workflow."),
        _ => format!("{since}. If it makes no progress, check that a worker serves its workflow."),
    };
    if let Some(seconds) = state.spec.active_deadline_seconds.filter(|_| !state.is_read_only()) {
        message += &format!(" The operator stops it once it has taken {seconds} s (spec.activeDeadlineSeconds).");
    }
    message
}

/// The run has ended, but its details are still being read. Clients that wait for the end must not see it earlier.
pub fn ending(state: &ExecutionState, run: &Execution, now: Timestamp) -> Status {
    Status { end_time: None, duration_ms: None, status: state.status.status.clone(), ..running(state, run, now) }
}

/// The run has ended, and its result cannot be written yet.
pub fn result_pending(state: &ExecutionState, run: &Execution, message: &str, now: Timestamp) -> Status {
    let mut status = ending(state, run, now);
    // A different message about the same trouble is no news.
    let old = conditions::find(&state.status.conditions, READY).filter(|ready| ready.reason == reason::RESULT_PENDING);
    let message = old.map_or(message, |ready| &ready.message);
    writer(state, now).unready(&mut status.conditions, Progress::Working, reason::RESULT_PENDING, message);
    status
}

/// The run has ended.
pub fn ended(state: &ExecutionState, run: &Execution, failure_text: Option<&str>, now: Timestamp) -> Status {
    let mut status = of_run(state, run, now);
    started(&mut status, state, now);
    conditions::remove(&mut status.conditions, MISSING);
    status.end_time = Some(Time(run.end_time.unwrap_or(now)));
    status.duration = duration(&status).map(duration_text);
    if run.status.as_deref() == Some("COMPLETED") {
        let mut message = result::keep(&mut status, state, run, now);
        // A client that waits for this condition alone must learn that the run is not this resource's own.
        if let Some(adopted) =
            conditions::find(&status.conditions, STARTED).filter(|started| started.reason == reason::ADOPTED)
        {
            message = format!("{message} {}", adopted.message);
        }
        let reason = reason::COMPLETED;
        writer(state, now).set(&mut status.conditions, COMPLETE, ConditionStatus::True, reason, &message);
        writer(state, now).ready(&mut status.conditions, reason, &message);
        return status;
    }
    let stopped = matches!(run.status.as_deref(), Some("CANCELED" | "TERMINATED"));
    let asked = stopped && stopped_for(state) == Some(StopFor::Shutdown);
    let (reason, what) = match run.status.as_deref() {
        Some("CANCELED" | "TERMINATED") if stopped_for(state) == Some(StopFor::Deadline) => {
            (reason::DEADLINE_EXCEEDED, stopped_by(state, run))
        }
        Some("CANCELED") => (reason::CANCELED, stopped_by(state, run)),
        Some("TERMINATED") => (reason::TERMINATED, stopped_by(state, run)),
        Some("TIMED_OUT") => (
            reason::TIMED_OUT,
            "The run exceeded its execution timeout. Raise it in the worker's code if the run needs longer.".to_owned(),
        ),
        _ => (
            reason::WORKFLOW_FAILED,
            "The run failed, and the API has no text that says why. Look at its trace in Mistral's console.".to_owned(),
        ),
    };
    let status = failed(status, state, reason, failure_text.unwrap_or(&what), now);
    if asked { as_requested(status, state, now) } else { status }
}

/// Who stopped the run, and how.
fn stopped_by(state: &ExecutionState, run: &Execution) -> String {
    let terminated = run.status.as_deref() == Some("TERMINATED");
    let grace = state.spec.termination_grace_period_seconds;
    let seconds = state.spec.active_deadline_seconds.unwrap_or_default();
    let ignored =
        format!("did not stop within the {grace} s of spec.terminationGracePeriodSeconds, and was terminated");
    match (stopped_for(state), terminated) {
        (Some(StopFor::Deadline), false) => {
            format!(
                "The run took longer than the {seconds} s of spec.activeDeadlineSeconds, and the operator canceled it."
            )
        }
        (Some(StopFor::Deadline), true) => {
            format!("The run took longer than the {seconds} s of spec.activeDeadlineSeconds, {ignored}.")
        }
        (Some(StopFor::Shutdown), false) => "The run was canceled, as spec.shutdown asked.".to_owned(),
        (Some(StopFor::Shutdown), true) if state.spec.shutdown == Some(Shutdown::Terminate) => {
            "The run was terminated, as spec.shutdown asked.".to_owned()
        }
        (Some(StopFor::Shutdown), true) => format!("The run was to be canceled (spec.shutdown), {ignored}."),
        (None, _) => {
            let what = if terminated { "terminated" } else { "canceled" };
            format!(
                "The run was {what} at Mistral, not by this operator. To run the workflow again, create another WorkflowExecution."
            )
        }
    }
}

/// The spec asked for this end, so nobody has to act: kstatus treats a resource that is not `Ready` as failed, or as in
/// progress for ever.
fn as_requested(mut status: Status, state: &ExecutionState, now: Timestamp) -> Status {
    if let Some(Failure { reason, message }) = status.failure.clone() {
        writer(state, now).ready(&mut status.conditions, &reason, &message);
    }
    status
}

/// The execution was stopped, as its spec asks, before there was a run.
pub fn stopped_before_start(state: &ExecutionState, reason: &str, message: &str, now: Timestamp) -> Status {
    as_requested(ended_without_run(state, reason, message, now), state, now)
}

/// The run has ended. Its result is written once the API server accepts a status again.
pub fn end_pending(state: &ExecutionState, ended: &Status, now: Timestamp) -> Status {
    let mut status = Status {
        execution_id: ended.execution_id.clone(),
        root_execution_id: ended.root_execution_id.clone(),
        run_id: ended.run_id.clone(),
        workflow_name: ended.workflow_name.clone(),
        start_time: ended.start_time.clone(),
        ..base(state)
    };
    started(&mut status, state, now);
    conditions::remove(&mut status.conditions, MISSING);
    let message = "The run has ended; the operator writes its end and its result next.";
    writer(state, now).unready(&mut status.conditions, Progress::Working, reason::RESULT_PENDING, message);
    status
}

/// The run completed, and the API server refuses its result in the status.
pub fn result_left_out(status: &mut Status, state: &ExecutionState, refused: &Refused, now: Timestamp) {
    let bytes = status.result_bytes.unwrap_or_default();
    let (reason, why) = match refused.cause {
        Cause::Size => (reason::RESULT_TOO_LARGE, "this resource has no room for it beside its input"),
        Cause::Annotations | Cause::Rule => (reason::RESULT_REFUSED, "the API server refuses it in this resource"),
    };
    let message = format!(
        "The run completed; its result of {bytes} bytes stays at the API: {why} ({}); spec.result.to writes results into an object of their own.",
        refused.said
    );
    writer(state, now).set(&mut status.conditions, RESULT_NOT_WRITTEN, ConditionStatus::True, reason, &message);
    writer(state, now).set(&mut status.conditions, COMPLETE, ConditionStatus::True, reason::COMPLETED, &message);
    writer(state, now).ready(&mut status.conditions, reason::COMPLETED, &message);
}

/// The execution ended without a run that could be read: nothing ran, or the outcome is unknown.
pub fn ended_without_run(state: &ExecutionState, reason: &str, message: &str, now: Timestamp) -> Status {
    let mut status = base(state);
    status.end_time = Some(Time(now));
    if !is_started(&state.status) {
        writer(state, now).set_short(&mut status.conditions, STARTED, ConditionStatus::False, reason, message);
    }
    failed(status, state, reason, message, now)
}

/// The API no longer knows a run that had started, but may know it again later.
pub fn missing(state: &ExecutionState, now: Timestamp) -> Status {
    let mut status = base(state);
    started(&mut status, state, now);
    let message = "The API no longer knows this run. The operator goes on looking for it for a day, and then the execution fails as Lost. The run is never started again. Ask Mistral.";
    writer(state, now).set(&mut status.conditions, MISSING, ConditionStatus::True, reason::MISSING, message);
    writer(state, now).unready(&mut status.conditions, Progress::Working, reason::MISSING, message);
    status
}

/// The run is being stopped, and the resource stays.
pub fn stopping(state: &ExecutionState, running: Status, message: &str, now: Timestamp) -> Status {
    let mut status = running;
    writer(state, now).unready(&mut status.conditions, Progress::Working, reason::STOPPING, message);
    status
}

/// The execution has finished and its TTL has passed, but it must not be deleted.
pub fn expired(state: &ExecutionState, who: &str, now: Timestamp) -> Status {
    let mut status = state.status.clone();
    let message = format!(
        "spec.ttlSecondsAfterFinished has passed, but the resource is kept: {who} tracks it and would create it again, so it would run again. Remove it there."
    );
    writer(state, now).set(&mut status.conditions, EXPIRED, ConditionStatus::True, reason::TRACKED, &message);
    status
}

/// The execution has finished and its TTL has passed, but the API server refuses the deletion.
pub fn deletion_refused(state: &ExecutionState, refused: &Refused, now: Timestamp) -> Status {
    let mut status = state.status.clone();
    let message = format!(
        "spec.ttlSecondsAfterFinished has passed, but the API server does not let the operator delete the resource; change the policy, webhook or right that refuses it. The operator tries again at growing intervals of up to 5 minutes, and at once when the resource changes. The API server said: {}",
        refused.said
    );
    writer(state, now).set(&mut status.conditions, EXPIRED, ConditionStatus::True, reason::DELETION_REFUSED, &message);
    status
}

/// The execution has finished, and its TTL, if any, has not passed.
pub fn not_expired(state: &ExecutionState) -> Status {
    let mut status = state.status.clone();
    conditions::remove(&mut status.conditions, EXPIRED);
    status
}

/// When the run ended, by the later of two clocks: the API's, and that of the operator that wrote the end.
pub fn known_end(status: &Status) -> Option<Timestamp> {
    let conditions = [COMPLETE, FAILED].into_iter().filter_map(|type_| conditions::find(&status.conditions, type_));
    let written = conditions.map(|condition| condition.last_transition_time.0).max();
    status.end_time.as_ref().map(|time| time.0).max(written)
}

fn stopped_for(state: &ExecutionState) -> Option<StopFor> {
    match &state.annotation {
        ClaimAnnotation::Claim(claim) if !state.is_read_only() => claim.stop_for,
        ClaimAnnotation::Claim(_) | ClaimAnnotation::Absent | ClaimAnnotation::Unreadable => None,
    }
}

/// The run is being stopped before the resource goes.
pub fn deleting(state: &ExecutionState, now: Timestamp) -> Status {
    let mut status = base(state);
    let message = "The resource is being deleted, and the operator stops its run first. The resource goes after 5 minutes at the latest.";
    writer(state, now).unready(&mut status.conditions, Progress::Working, reason::STOPPING, message);
    status
}

/// The status so far, for the current generation of the spec.
fn base(state: &ExecutionState) -> Status {
    let mut status = state.status.clone();
    status.observed_generation = state.generation;
    if state.claim_exists() {
        status.execution_id = Some(state.execution_id());
    }
    // Only if the status has none: a better name is not worth a write.
    status.workflow_name = status.workflow_name.or_else(|| state.workflow_of_spec());
    status
}

/// How long the run took.
fn duration(status: &Status) -> Option<Duration> {
    let told = status.duration_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    told.or_else(|| {
        let (start, end) = (status.start_time.as_ref()?.0, status.end_time.as_ref()?.0);
        Duration::try_from(end.duration_since(start)).ok()
    })
}

/// The status, updated with what the API says about the run.
fn of_run(state: &ExecutionState, run: &Execution, now: Timestamp) -> Status {
    let mut status = base(state);
    status.execution_id = Some(run.execution_id.clone());
    let known = |new: &Option<String>, old: Option<String>| new.clone().or(old);
    status.root_execution_id = known(&run.root_execution_id, status.root_execution_id);
    status.run_id = known(&run.run_id, state.memory.run_id.clone().or(status.run_id));
    status.workflow_name = known(&run.workflow_name, status.workflow_name);
    status.status = known(&run.status, status.status);
    status.start_time = run.start_time.map(Time).or(status.start_time);
    status.end_time = run.end_time.map(Time);
    #[expect(clippy::cast_possible_truncation, reason = "a float beyond i64 saturates, which is as good as any")]
    {
        status.duration_ms = run.total_duration_ms.map(|ms| ms as i64).or(status.duration_ms);
    }
    if state.is_edited() {
        let message = "The spec was edited after the run was claimed. The run follows the claim, not the present spec.";
        writer(state, now).set(&mut status.conditions, EDITED, ConditionStatus::True, reason::EDITED, message);
    }
    status
}

/// Replaces a failure message that may quote Secret values.
pub fn withheld_failure(why: &str) -> String {
    format!(
        "The run failed. Its message is withheld, since it may quote values of a Secret: {why}. Look at its trace in Mistral's console."
    )
}

fn started(status: &mut Status, state: &ExecutionState, now: Timestamp) {
    let owned = |status: &mut Status, message: &str| {
        writer(state, now).set(&mut status.conditions, STARTED, ConditionStatus::True, reason::STARTED, message);
    };
    if is_started(status) {
        // Only consent makes an adopted run this resource's own; a restart changes nothing.
        if state.memory.consented && !state.is_read_only() {
            owned(status, "The run was found under this id, and a person has let this resource own it.");
        }
        return;
    }
    if !state.is_read_only() {
        return owned(status, "The API has accepted the run.");
    }
    let input = match &state.outcomes.comparison {
        Comparison::Same => "; it was started with the same input".to_owned(),
        Comparison::Unknown(why) => format!("; whether it was started with the same input is not known: {why}"),
        Comparison::NotTried | Comparison::OtherInput(_) | Comparison::OtherWorkflow(_) => String::new(),
    };
    let message = format!(
        "The run was found under this id, not started by this resource{input}. Deleting the resource does not stop the run."
    );
    writer(state, now).set(&mut status.conditions, STARTED, ConditionStatus::True, reason::ADOPTED, &message);
}

fn failed(mut status: Status, state: &ExecutionState, reason: &str, message: &str, now: Timestamp) -> Status {
    let mut message = message.to_owned();
    crate::text::truncate(&mut message, 4096);
    writer(state, now).set(&mut status.conditions, FAILED, ConditionStatus::True, reason, &message);
    writer(state, now).unready(&mut status.conditions, Progress::Stalled, reason, &message);
    status.failure = Some(Failure { reason: reason.into(), message });
    status
}

pub(crate) fn writer(state: &ExecutionState, now: Timestamp) -> Writer {
    Writer { generation: state.generation, now }
}
