//! Decides when the result of a run is written, before the status reports that the run completed.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};

use crate::api::conditions::{self, READY};
use crate::api::reasons::execution as reason;
use crate::clock::later;
use crate::execution::plan::backoff::backoff;
use crate::execution::plan::decision::{ClusterStep, Decision, settle};
use crate::execution::state::ExecutionState;
use crate::execution::state::outcomes::ResultWrite;
use crate::execution::state::result::{MAX_OBJECT, ResultDestination, ResultObject, destination};
use crate::execution::status;
use crate::mistral::wire::Execution;
use crate::platform::requeue::Requeue;
use crate::text::without_stop;

/// Consecutive failed writes before the status reports them: most succeed with the next attempt.
const FAILURES_UNTOLD: u32 = 3;
/// How long the garbage collector may take to remove the object of an earlier resource with the same name.
const COLLECTED_WITHIN: SignedDuration = SignedDuration::from_mins(1);

/// What has to happen before the status reports completion: clients that wait for that must find the result.
pub(crate) fn next(state: &ExecutionState, run: &Execution, now: Timestamp) -> Option<Decision> {
    match destination(state, run) {
        ResultDestination::NotRead => Some(Decision::Act(ClusterStep::ReadInput.into())),
        ResultDestination::Object(wanted) if wanted.text.len() <= MAX_OBJECT => match &state.outcomes.stored {
            ResultWrite::NotTried => Some(Decision::Act(ClusterStep::WriteResult.into())),
            ResultWrite::Predecessors if now < later(ended(state, run), COLLECTED_WITHIN) => {
                Some(settle(state, status::ending(state, run, now), Requeue::After(Duration::from_secs(2))))
            }
            ResultWrite::NotNow(said) => {
                let ready = conditions::find(&state.status.conditions, READY);
                let told = state.memory.retries.in_a_row >= FAILURES_UNTOLD
                    || ready.is_some_and(|ready| ready.reason == reason::RESULT_PENDING);
                let status = if told {
                    let ResultObject { kind, name, .. } = wanted;
                    let message = format!(
                        "The run completed, but its result cannot be written to {kind} \"{name}\" yet ({}). The operator tries again at growing intervals of up to two minutes.",
                        without_stop(said)
                    );
                    status::result_pending(state, run, &message, now)
                } else {
                    status::ending(state, run, now)
                };
                Some(settle(state, status, Requeue::Retry(backoff(state, 2, 120))))
            }
            ResultWrite::Predecessors | ResultWrite::Written | ResultWrite::Refused { .. } => None,
        },
        ResultDestination::Object(_)
        | ResultDestination::None
        | ResultDestination::Withheld(_)
        | ResultDestination::Status(..) => None,
    }
}

/// When the run ended; an earlier time if the API does not say, so that no wait is endless.
fn ended(state: &ExecutionState, run: &Execution) -> Timestamp {
    run.end_time.or(run.start_time).unwrap_or(state.created)
}
