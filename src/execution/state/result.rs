//! Decides where the result of a run goes: into the status, or into the object that the spec names. Also decides who
//! owns that object.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Resource;
use serde::Deserialize;

use crate::api::conditions::{self, ConditionStatus, READY, RESULT_NOT_WRITTEN};
use crate::api::values::{Kind, ResultRef};
use crate::api::{WorkflowExecution, WorkflowExecutionStatus as Status};
use crate::clock::later;
use crate::execution::plan::backoff::backoff;
use crate::execution::plan::{ClusterStep, Decision, settle};
use crate::execution::state::input::{Redaction, redaction};
use crate::execution::state::{ExecutionState, Remote, Sent};
use crate::execution::status::{self, reason};
use crate::json::{self, Json, Rows};
use crate::mistral::wire::Execution;
use crate::platform::requeue::Requeue;

/// The key under which an object holds a result.
pub const KEY: &str = "result";
/// The annotation that says how the API has encoded a result.
pub const ENCODING: &str = "workflows.mistral.ai/result-encoding";
/// Maximum size of the contents of a Kubernetes object, in bytes.
const MAX_OBJECT: usize = 1 << 20;
/// Consecutive failed writes before the status reports them: most succeed with the next attempt.
const FAILURES_UNTOLD: u32 = 3;
/// How long the garbage collector may take to remove the object of an earlier resource with the same name.
const COLLECTED_WITHIN: SignedDuration = SignedDuration::from_mins(1);

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

/// The object that is to hold a result.
#[derive(Clone, PartialEq)]
pub struct ResultObject {
    /// ConfigMap or Secret.
    pub kind: Kind,
    pub name: String,
    /// What it holds under [`KEY`].
    pub text: String,
    /// How the API has encoded the result, if it has.
    pub encoding: Option<String>,
    /// The name of the run's workflow.
    pub workflow: Option<String>,
}

/// Leaves out the result.
impl std::fmt::Debug for ResultObject {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResultObject").field("kind", &self.kind).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Who owns an existing object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ObjectOwner {
    /// This resource.
    Ours,
    /// An earlier resource with the same kind and name, which is gone. The object will go as well.
    Predecessors,
    /// Somebody else.
    Others,
}

/// What to do with a result.
enum ResultDestination {
    /// There is no result.
    None,
    /// The Secrets that the result may quote have to be read first.
    NotRead,
    /// The result may quote Secrets and cannot be shown, for this reason.
    Withheld(String),
    /// Into the status, if it is short enough. Also holds whether values were redacted.
    Status(Json, bool),
    /// Into an object.
    Object(ResultObject),
}

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
                        "The run completed, but its result cannot be written to {kind} \"{name}\" yet; the operator tries again ({said})."
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

/// The object that this reconcile has to write.
pub fn wanted(state: &ExecutionState) -> Option<ResultObject> {
    let run = match (&state.outcomes.remote, &state.outcomes.sent) {
        (Remote::Found(run), _) | (_, Sent::Accepted(run)) => run,
        _ => return None,
    };
    match destination(state, run) {
        ResultDestination::Object(wanted) => Some(wanted),
        ResultDestination::None
        | ResultDestination::NotRead
        | ResultDestination::Withheld(_)
        | ResultDestination::Status(..) => None,
    }
}

/// Puts the result, or a reference to it, into the status. Returns a message that says where it is.
pub(crate) fn keep(status: &mut Status, state: &ExecutionState, run: &Execution, now: Timestamp) -> String {
    if let Some(why) = &run.result_unread {
        let message = format!(
            "The run completed, according to the list of runs. The API's answer about the run itself cannot be used, so its result, if any, stays at the API: {why}"
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
            "The run completed; its result of {bytes} bytes is longer than spec.result.maxBytes ({max_bytes}) and stays at the API.{encoded}"
        )),
        ResultDestination::Status(shown, _) if let Err(why) = shown.is_keepable() => {
            let problem = format!("it {why}; spec.result.to takes results as they are");
            Err((reason::RESULT_NOT_KEEPABLE, problem))
        }
        ResultDestination::Status(shown, redacted) => {
            status.result = Some(shown);
            let redacted = if redacted { ", where values of Secrets read [redacted]" } else { "" };
            Ok(format!("The run completed; its result is in status.result{redacted}.{encoded}"))
        }
        ResultDestination::Object(wanted) if wanted.text.len() > MAX_OBJECT => {
            let problem = format!("a {} holds {MAX_OBJECT} bytes at most", wanted.kind);
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
    status::writer(state, now).set(conditions, RESULT_NOT_WRITTEN, ConditionStatus::True, reason, &message);
    message
}

/// Who owns an object, by its metadata.
pub fn whose(object: &ObjectMeta, name: &str, uid: &str) -> ObjectOwner {
    let owners = object.owner_references.as_deref().unwrap_or_default();
    match owners.iter().find(|owner| owner.controller == Some(true)) {
        Some(owner) if owner.uid == uid => ObjectOwner::Ours,
        // Only one resource can have a name at a time, so the owner is gone.
        Some(owner)
            if owner.kind == WorkflowExecution::kind(&())
                && owner.name == name
                && owner.api_version.starts_with(&format!("{}/", WorkflowExecution::group(&()))) =>
        {
            ObjectOwner::Predecessors
        }
        _ => ObjectOwner::Others,
    }
}

/// The owner reference by which the object belongs to this resource and is deleted with it.
pub fn owner(name: &str, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: WorkflowExecution::api_version(&()).into_owned(),
        kind: WorkflowExecution::kind(&()).into_owned(),
        name: name.to_owned(),
        uid: uid.to_owned(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// The message about an object that belongs to somebody else.
pub fn not_ours(kind: Kind, name: &str) -> String {
    format!(
        "{kind} \"{name}\" does not belong to this resource and was left alone; name another in spec.result.to of the next WorkflowExecution"
    )
}

/// The message about an object that belongs to this resource, and that somebody has changed.
pub fn changed(kind: Kind, name: &str) -> String {
    format!(
        "{kind} \"{name}\" belongs to this resource but does not hold the result, and the operator changes no existing object; name another in spec.result.to of the next WorkflowExecution"
    )
}

fn destination(state: &ExecutionState, run: &Execution) -> ResultDestination {
    let Some(result) = result(run) else { return ResultDestination::None };
    let to = state.spec.result.to.as_ref().and_then(|to| to.object());
    let shown = match to {
        Some((Kind::Secret, _)) => None,
        Some((Kind::ConfigMap, _)) | None => match redaction(state) {
            Redaction::Nothing => None,
            Redaction::NotRead => return ResultDestination::NotRead,
            Redaction::Unknown(why) => return ResultDestination::Withheld(why),
            // A result in Base64 or compressed cannot be searched for values, but anybody can read it.
            Redaction::These(_) if encoding(result).is_some_and(|how| !how.split(',').any(|it| it == "encrypted")) => {
                return ResultDestination::Withheld("the API has encoded it".into());
            }
            Redaction::These(redactor) => Some(redactor.json(result)).filter(|shown| shown != result),
        },
    };
    let redacted = shown.is_some();
    let shown = shown.as_ref().unwrap_or(result).compact();
    match to {
        Some((kind, name)) => ResultDestination::Object(ResultObject {
            kind,
            name: name.to_owned(),
            text: shown.text().to_owned(),
            encoding: encoding(result),
            workflow: run.workflow_name.clone().or_else(|| status::named_by_spec(state)),
        }),
        None => ResultDestination::Status(shown, redacted),
    }
}

/// The result of a run that has one.
fn result(run: &Execution) -> Option<&Json> {
    run.result.as_ref().filter(|_| run.status.as_deref() == Some("COMPLETED"))
}

/// How the API has encoded a result: `encrypted`, `offloaded`, …; none if it is plain.
fn encoding(result: &Json) -> Option<String> {
    #[derive(Deserialize)]
    struct Encoded {
        #[serde(default, deserialize_with = "json::lenient_string")]
        b64payload: Option<String>,
        #[serde(default, deserialize_with = "json::lenient")]
        encoding_options: Option<Rows<String>>,
    }
    let encoded: Encoded = serde_json::from_str(result.text()).ok()?;
    encoded.b64payload?;
    let options = encoded.encoding_options?.rows;
    Some(if options.is_empty() { "base64".to_owned() } else { options.join(",") })
}
