//! From the start of a run to its end, as the status reports it.

use super::decision::{Call, ClusterStep, Decision};
use super::stop;
use super::{ready_reason, settle};
use crate::api::conditions::{self, MISSING, Wait};
use crate::clock::later;
use crate::execution::claim::{Claim, TAKE_OVER, VISIBILITY};
use crate::execution::plan::backoff::backoff;
use crate::execution::plan::blocked::{
    blocked, is_taken, is_unresolved, taken, taken_with_other_input, troubled, unresolved,
};
use crate::execution::plan::refused_writes::Write;
use crate::execution::state::input::{self, Hiding};
use crate::execution::state::result;
use crate::execution::state::{Comparison, FailureText, Observed, Remote};
use crate::execution::status::{self, is_started, reason};
use crate::mistral::wire::{Execution, is_terminal};
use crate::mistral::{Trouble, TroubleKind};
use crate::platform::requeue::Requeue;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How often the events of a failed run are read until they have a text: events lag by seconds.
const READS_OF_A_FAILURE: u32 = 5;

/// Consecutive polls without an answer after which the status reports it.
const SILENCE: u32 = 5;

/// How long a run stays missing before it is given up.
const LOST_AFTER: SignedDuration = SignedDuration::from_hours(24);

/// The run is somebody else's: reads it and changes nothing.
pub(crate) fn read(o: &Observed, claim: &Claim, foreign: bool, now: Timestamp) -> Decision {
    if is_started(&o.status) {
        return running(o, now);
    }
    match &o.remote {
        Remote::NotAsked => Decision::Act(Call::GetRun.into()),
        Remote::Found(_) if is_unresolved(o) => {
            unresolved(o, now).unwrap_or_else(|| settle(o, o.status.clone(), Requeue::OnChange))
        }
        Remote::Found(run) if is_taken(o, run) => taken(o, run.workflow_name.as_deref(), now),
        Remote::Found(run) if !foreign && o.spec.execution_id.is_some() => compared(o, run, now),
        Remote::Found(run) => observe(o, run, now),
        Remote::Unknown(trouble) => troubled(o, trouble, now),
        Remote::Absent => {
            if let Some(decision) = stop::barred(o, now) {
                return decision;
            }
            let id = &claim.execution_id;
            let whose = if foreign {
                format!("a resource of namespace \"{}\" in another place", claim.owner.namespace)
            } else {
                "someone else".to_owned()
            };
            let message = format!(
                "Run \"{id}\" is claimed by {whose}, and the API does not know it, so nothing is started; to start it from here, annotate this resource with {TAKE_OVER}={id}."
            );
            blocked(o, reason::FOREIGN_CLAIM, message, Requeue::Retry(backoff(o, 60, 300)), now)
        }
    }
}

/// A run was found under an explicit id. If the spec asks for another workflow or input, the status says so and shows
/// no result.
pub(crate) fn compared(o: &Observed, run: &Execution, now: Timestamp) -> Decision {
    match &o.comparison {
        Comparison::NotTried => input::comparable(o).unwrap_or(Decision::Act(Call::Compare.into())),
        Comparison::Same | Comparison::Unknown(_) => observe(o, run, now),
        Comparison::OtherWorkflow(name) => taken(o, Some(name), now),
        Comparison::OtherInput(how) => taken_with_other_input(o, how, now),
    }
}

/// The run has started.
pub(crate) fn running(o: &Observed, now: Timestamp) -> Decision {
    let wants = o.wants_finalizer() && !o.is_reading();
    if o.finalizer != wants && o.refusal(Write::Finalizer, now).is_none() {
        return Decision::Act(ClusterStep::SetFinalizer(wants).into());
    }
    match &o.remote {
        // The status may be outdated for reasons other than the run's own progress.
        Remote::NotAsked if o.look || ready_reason(&o.status) != Some(reason::RUNNING) || stop::is_due(o, now) => {
            Decision::Act(Call::GetRun.into())
        }
        Remote::NotAsked => settle(o, o.status.clone(), Requeue::OnChange),
        Remote::Found(run) => observe(o, run, now),
        Remote::Absent => gone(o, now),
        Remote::Unknown(trouble) if let Some(run) = unreadable_end(o, trouble) => observe(o, &run, now),
        // Stopping a run needs no answer about it.
        Remote::Unknown(trouble)
            if trouble.kind != TroubleKind::Unauthorized
                && let Some(decision) = stop::stop(o, &unread(o), now) =>
        {
            decision
        }
        Remote::Unknown(trouble) => match trouble.kind {
            // The tracker polls again, less often. The Workspace's condition reports a flapping API.
            TroubleKind::Unavailable if o.memory.unanswered < SILENCE => settle(o, o.status.clone(), Requeue::OnChange),
            TroubleKind::Unavailable => {
                let message = format!("The run has started, and its state cannot be read: {}", trouble.message);
                settle(o, status::blind(o, Wait::Working, reason::API_UNAVAILABLE, message, now), Requeue::OnChange)
            }
            TroubleKind::Unauthorized | TroubleKind::Refused => troubled(o, trouble, now),
        },
    }
}

/// The end of a run according to the list of runs, while the API gives no usable answer about the run itself. Perhaps
/// nobody can read its result, and clients that wait for the end must not wait forever.
pub(crate) fn unreadable_end(o: &Observed, trouble: &Trouble) -> Option<Execution> {
    let enough = trouble.kind != TroubleKind::Unauthorized && o.memory.unanswered >= SILENCE;
    let row = o.memory.listed_end.as_deref().filter(|row| enough && is_terminal(row.status.as_deref()))?;
    (!is_taken(o, row)).then(|| Execution { result_unread: Some(trouble.message.clone()), ..row.clone() })
}

/// Puts the API's answer about the run into the status.
pub(crate) fn observe(o: &Observed, run: &Execution, now: Timestamp) -> Decision {
    if !is_terminal(run.status.as_deref()) {
        return stop::stop(o, run, now).unwrap_or_else(|| settle(o, status::running(o, run, now), Requeue::OnChange));
    }
    if let Some(decision) = result::next(o, run, now) {
        return decision;
    }
    if run.status.as_deref() != Some("FAILED") {
        return settle(o, status::ended(o, run, None, now), Requeue::OnChange);
    }
    match &o.failure {
        FailureText::NotAsked => Decision::Act(Call::ReadFailure.into()),
        FailureText::Read(None) if o.memory.failure_reads < READS_OF_A_FAILURE => {
            // Being woken does not shorten this wait: lists go on reporting the end.
            settle(o, status::ending(o, run, now), Requeue::Retry(Duration::from_secs(2)))
        }
        FailureText::Read(text) => {
            let text = match (text, input::hiding(o)) {
                (Some(_), Hiding::NotRead) => return Decision::Act(ClusterStep::ReadInput.into()),
                (Some(text), Hiding::These(mask)) => Some(mask.text(text).into_owned()),
                (Some(_), Hiding::Unknown(why)) => Some(status::withheld_failure(&why)),
                (text, _) => text.clone(),
            };
            settle(o, status::ended(o, run, text.as_deref(), now), Requeue::OnChange)
        }
    }
}

/// The API no longer knows a run that had started.
pub(crate) fn gone(o: &Observed, now: Timestamp) -> Decision {
    let started = o.status.start_time.as_ref().map_or(o.created, |time| time.0);
    if o.began < later(started, VISIBILITY) {
        return settle(o, o.status.clone(), Requeue::OnChange);
    }
    match conditions::find(&o.status.conditions, MISSING) {
        Some(since) if later(since.last_transition_time.0, LOST_AFTER) < now => {
            let message =
                "The API has not known this run for a day, so its outcome cannot be told. It was not started again.";
            settle(o, status::ended_without_run(o, reason::LOST, message, now), Requeue::OnChange)
        }
        _ => settle(o, status::missing(o, now), Requeue::OnChange),
    }
}

/// Stands for a run about which the API reports nothing.
pub(crate) fn unread(o: &Observed) -> Execution {
    Execution { execution_id: o.execution_id(), ..Execution::default() }
}
