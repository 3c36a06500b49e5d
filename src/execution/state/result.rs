//! Where the result of a run belongs: into the status, or into the object that the spec names. Also who owns that object.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::Resource;
use serde::Deserialize;

use crate::api::WorkflowExecution;
use crate::api::values::Kind;
use crate::execution::state::input::{Redaction, redaction};
use crate::execution::state::{ExecutionState, Remote, Sent};
use crate::json::{self, Json, Rows};
use crate::mistral::wire::Execution;

/// The key under which an object holds a result.
pub const KEY: &str = "result";
/// The annotation that says how the API has encoded a result.
pub const ENCODING: &str = "workflows.mistral.ai/result-encoding";
/// Maximum size of the contents of a Kubernetes object, in bytes.
pub(crate) const MAX_OBJECT: usize = 1 << 20;
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

/// Where a result belongs.
pub(crate) enum ResultDestination {
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

/// Where the result of this run belongs.
pub(crate) fn destination(state: &ExecutionState, run: &Execution) -> ResultDestination {
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
            workflow: run.workflow_name.clone().or_else(|| state.workflow_of_spec()),
        }),
        None => ResultDestination::Status(shown, redacted),
    }
}

/// The result of a run that has one.
pub(crate) fn result(run: &Execution) -> Option<&Json> {
    run.result.as_ref().filter(|_| run.status.as_deref() == Some("COMPLETED"))
}

/// How the API has encoded a result: `encrypted`, `offloaded`, …; none if it is plain.
pub(crate) fn encoding(result: &Json) -> Option<String> {
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
