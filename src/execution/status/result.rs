//! What the status says about the result of a run: the result itself, where it is, or why it stays at the API.

use k8s_openapi::jiff::Timestamp;

use crate::api::WorkflowExecutionStatus as Status;
use crate::api::conditions::{ConditionStatus, RESULT_NOT_WRITTEN, Writer};
use crate::api::reasons::execution as reason;
use crate::api::values::ResultRef;
use crate::execution::state::ExecutionState;
use crate::execution::state::outcomes::ResultWrite;
use crate::execution::state::result::{
    KEY, MAX_OBJECT, ResultDestination, ResultObject, destination, encoding, not_ours, result,
};
use crate::mistral::wire::Execution;
use crate::text::without_stop;

/// Puts the result, or a reference to it, into the status. Returns a message that says where it is.
pub(crate) fn keep(status: &mut Status, state: &ExecutionState, run: &Execution, now: Timestamp) -> String {
    if let Some(why) = &run.result_unread {
        let message = format!(
            "The run completed, according to the list of runs, but its result cannot be read: {}. Look the result up in Mistral's console.",
            without_stop(why)
        );
        return not_written(status, state, reason::RESULT_UNREADABLE, message, now);
    }
    let Some(result) = result(run) else { return "The run completed; it has no result.".into() };
    let result = result.compact();
    let bytes = result.text().len();
    status.result_bytes = i64::try_from(bytes).ok();
    let encoded = encoding(&result).map_or_else(String::new, |how| {
        format!(" The API has encoded it ({how}), and it was not decoded; the holder of the key can.")
    });
    match place(status, state, destination(state, run), bytes, &encoded) {
        Ok(message) => message,
        Err((reason, problem)) => {
            let message =
                format!("The run completed; its result of {bytes} bytes stays at the API: {problem}.{encoded}");
            not_written(status, state, reason, message, now)
        }
    }
}

/// Puts the result where it goes. Returns a message that says where it is.
///
/// # Errors
/// The reason why the result stays at the API, and what to do.
fn place(
    status: &mut Status,
    state: &ExecutionState,
    destination: ResultDestination,
    bytes: usize,
    encoded: &str,
) -> Result<String, (&'static str, String)> {
    let max_bytes = state.spec.result.max_bytes;
    match destination {
        ResultDestination::Status(..) if bytes > max_bytes as usize => Ok(format!(
            "The run completed; its result of {bytes} bytes is longer than spec.result.maxBytes ({max_bytes}) and stays at the API. Set spec.result.to in the next WorkflowExecution to keep such a result here.{encoded}"
        )),
        ResultDestination::Status(shown, _) if let Err(why) = shown.is_keepable() => {
            let problem =
                format!("it {why}; set spec.result.to, which stores any result, in the next WorkflowExecution");
            Err((reason::RESULT_NOT_KEEPABLE, problem))
        }
        ResultDestination::Status(shown, redacted) => {
            status.result = Some(shown);
            let redacted = if redacted { ", where values of Secrets read [redacted]" } else { "" };
            Ok(format!("The run completed; its result is in status.result{redacted}.{encoded}"))
        }
        ResultDestination::Object(wanted) if wanted.text.len() > MAX_OBJECT => {
            let problem = format!(
                "a {} holds {MAX_OBJECT} bytes at most; let the workflow store the result elsewhere and return its location",
                wanted.kind
            );
            Err((reason::RESULT_TOO_LARGE, problem))
        }
        ResultDestination::Object(ResultObject { kind, name, .. }) => match &state.outcomes.stored {
            ResultWrite::Written => {
                let message =
                    format!("The run completed; its result is in {kind} \"{name}\", under the key {KEY}.{encoded}");
                status.result_ref = Some(ResultRef { kind, name });
                Ok(message)
            }
            ResultWrite::Refused { reason, message } => Err((*reason, message.clone())),
            ResultWrite::Predecessors | ResultWrite::NotTried | ResultWrite::NotNow(_) => {
                Err((reason::RESULT_NOT_OURS, not_ours(kind, &name)))
            }
        },
        ResultDestination::Withheld(why) => {
            let problem = format!(
                "it may hold values of a Secret, which cannot be redacted: {why}; spec.result.to.secret takes results as they are"
            );
            Err((reason::RESULT_WITHHELD, problem))
        }
        ResultDestination::None | ResultDestination::NotRead => Ok("The run completed.".into()),
    }
}

/// Reports that the result is not where the spec wants it. Returns the message.
fn not_written(status: &mut Status, state: &ExecutionState, reason: &str, message: String, now: Timestamp) -> String {
    let conditions = &mut status.conditions;
    Writer { generation: state.generation, now }.set(
        conditions,
        RESULT_NOT_WRITTEN,
        ConditionStatus::True,
        reason,
        &message,
    );
    message
}
