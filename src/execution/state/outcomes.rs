//! What the steps of one reconcile have found out.

use k8s_openapi::jiff::Timestamp;

use super::input::sources::Input;
use super::start_answer::Sent;
use crate::mistral::wire::{Event, Execution};
use crate::mistral::{Error, Trouble};
use crate::throttle::Place;

/// What the steps of this reconcile have found out.
#[derive(Clone, Debug, Default)]
pub struct Outcomes {
    /// Until when the call of a conflicting claim (another resource, same explicit id) may be in flight.
    pub conflicting_claim_until: Option<Timestamp>,
    /// The claim was written in this reconcile, so its call may be sent in it.
    pub claimed_this_reconcile: bool,
    /// Whether a status that only says why the execution waits may be written.
    pub report: Report,
    /// The outcome of the call that starts the run.
    pub sent: Sent,
    /// The reconcile has already waited for the accepted run to end.
    pub lingered: bool,
    pub remote: Remote,
    pub target: Target,
    pub input: Input,
    pub failure: FailureText,
    pub stored: ResultWrite,
    /// The answer to the call that stops the run.
    pub stopped: Option<Result<(), Error>>,
    pub comparison: Comparison,
}

/// Whether a status that only says why the execution waits may be written.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Report {
    /// Not asked in this reconcile.
    #[default]
    NotAsked,
    Allowed,
    /// It may, and the execution waits in the queue of its API key.
    Queued(Place),
}

/// What the API knows about the run. Unknown is not the same as absent.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Remote {
    /// Not fetched in this reconcile.
    #[default]
    NotFetched,
    /// The run exists.
    Found(Box<Execution>),
    /// The API says that there is no such run.
    Absent,
    /// No answer was conclusive.
    Unknown(Trouble),
}

/// Whether a run found under an explicit id is what the spec asks for.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Comparison {
    /// Not compared in this reconcile.
    #[default]
    NotTried,
    /// The run matches the spec.
    Same,
    /// The run is of this other workflow.
    OtherWorkflow(String),
    /// The input of the run differs at this place.
    OtherInput(String),
    /// The input of the run is not known, for this reason.
    Unknown(String),
}

/// Whether the workflow or registration to be run exists.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Target {
    /// Not checked in this reconcile.
    #[default]
    NotFetched,
    /// It exists, and so does the deployment that the spec names, if it names one.
    Exists,
    /// The workflow exists. Whether a live worker of the deployment that the spec names serves it is not known.
    DeploymentUnknown,
    /// The workflow exists, and no live worker of the deployment that the spec names serves it.
    NoDeployment {
        /// The deployments whose live workers serve the workflow.
        active: Vec<String>,
    },
    Absent,
    /// No answer was conclusive.
    Unknown(Trouble),
}

/// The text of a failure.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum FailureText {
    /// Not read in this reconcile.
    #[default]
    NotFetched,
    /// What the events say, if anything.
    Read(Option<String>),
}

/// How to stop a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopCall {
    /// Ask the run to stop.
    Cancel,
    /// End the run.
    Terminate,
}

/// The outcome of writing the object for the result.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum ResultWrite {
    /// Nothing was tried in this reconcile.
    #[default]
    NotTried,
    /// The object holds the result.
    Written,
    /// The object belongs to an earlier resource with the same name, and is about to go.
    Predecessors,
    /// The object cannot be written now, but perhaps later. Holds the API server's message.
    NotNow(String),
    /// The object cannot be written, and another attempt will not help.
    Refused {
        /// The reason of the condition.
        reason: &'static str,
        /// What is wrong, and what to do.
        message: String,
    },
}

/// The workflow's failure message, followed by that of the last failed activity unless it contains it: a workflow may
/// only say that an activity failed.
pub fn failure_text(events: &[Event]) -> Option<String> {
    let last = |event_type: &str| {
        events
            .iter()
            .filter(|event| event.event_type == event_type)
            .max_by_key(|event| event.event_timestamp)
            .and_then(|event| event.attributes.as_ref()?.failure.as_ref()?.message.as_deref())
            .filter(|text| !text.trim().is_empty())
    };
    match (last("WORKFLOW_EXECUTION_FAILED"), last("ACTIVITY_TASK_FAILED")) {
        (Some(workflow), Some(activity)) if !workflow.contains(activity) => Some(format!("{workflow}: {activity}")),
        (Some(text), _) | (None, Some(text)) => Some(text.to_owned()),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn event(event_type: &str, at: i64, message: &str) -> Event {
        let event = json!({
            "event_type": event_type, "event_timestamp": at, "attributes": { "failure": { "message": message } },
        });
        serde_json::from_value(event).unwrap()
    }

    #[test]
    fn a_failure_is_told_in_the_words_of_the_workflow_and_of_the_last_activity() {
        let events = [
            event("ACTIVITY_TASK_FAILED", 3, "card declined"),
            event("ACTIVITY_TASK_FAILED", 1, "first try"),
            event("WORKFLOW_EXECUTION_FAILED", 4, "Activity task failed"),
        ];
        assert_eq!(failure_text(&events).as_deref(), Some("Activity task failed: card declined"));
        assert_eq!(failure_text(&events[..1]).as_deref(), Some("card declined"));
        assert_eq!(failure_text(&[event("WORKFLOW_EXECUTION_FAILED", 4, " ")]), None);
        assert_eq!(failure_text(&[]), None);
    }
}
