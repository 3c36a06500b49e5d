//! What has to be redacted in texts from the API: they may quote the values of Secrets in the input.

use super::sources::{Input, Source, Sources, entries, value};
use crate::api::WorkflowExecutionSpec;
use crate::api::values::{KeyRef, Kind};
use crate::execution::state::ExecutionState;
use crate::execution::state::ownership::{Ownership, ownership};
use crate::mistral::{Client, Redactor};

/// What has to be redacted in a text from the API.
pub(crate) enum Redaction {
    Nothing,
    These(Redactor),
    /// The Secrets have to be read first.
    NotRead,
    /// The values are not known, for this reason.
    Unknown(String),
}

/// What has to be redacted in a text from the API about this run.
pub(crate) fn redaction(state: &ExecutionState) -> Redaction {
    let secrets: Vec<&KeyRef> = entries(&state.spec).iter().filter_map(|entry| entry.secret_key_ref.as_ref()).collect();
    if secrets.is_empty() {
        return Redaction::Nothing;
    }
    let Input::Read(sources) = &state.outcomes.input else { return Redaction::NotRead };
    let started_with = match ownership(state) {
        Ownership::Ours(claim) => claim.inputs.as_slice(),
        _ => &[],
    };
    for KeyRef { name, .. } in secrets {
        let Some(known) = started_with.iter().find(|input| input.kind == Kind::Secret && input.name == *name) else {
            return Redaction::Unknown(format!(
                "the version of Secret \"{name}\" that the run was started with is not known"
            ));
        };
        match sources.get(&(Kind::Secret, name.clone())) {
            Some(Source::Found { uid, resource_version, .. })
                if known.uid == *uid && known.resource_version == *resource_version => {}
            Some(Source::Found { .. }) => {
                return Redaction::Unknown(format!("Secret \"{name}\" has changed since the start"));
            }
            Some(Source::TooLarge) => {
                return Redaction::Unknown(format!("Secret \"{name}\" is too long to search for"));
            }
            Some(Source::Forbidden) => {
                return Redaction::Unknown(format!("the operator may not read Secret \"{name}\" any more"));
            }
            Some(Source::ApiKey | Source::Unlabelled) => {
                return Redaction::Unknown(format!("Secret \"{name}\" may not be an input any more"));
            }
            Some(Source::Absent) | None => {
                return Redaction::Unknown(format!("Secret \"{name}\" no longer exists"));
            }
        }
    }
    Redaction::These(redactor(&state.spec, sources))
}

/// Redacts the Secret values of these sources.
pub fn redactor(spec: &WorkflowExecutionSpec, sources: &Sources) -> Redactor {
    let mut values = Vec::new();
    for entry in entries(spec).iter().filter(|entry| entry.secret_key_ref.is_some()) {
        if let Ok(value) = value(entry, sources) {
            value.leaves(|leaf| {
                values.push(leaf.to_owned());
                // A workflow may write a number differently from how it was read.
                values.extend(serde_json::from_str::<serde_json::Number>(leaf).map(|number| number.to_string()));
            });
        }
    }
    Redactor::new(values.iter().map(String::as_str))
}

/// A client whose errors quote no Secret value that was read in this reconcile.
pub fn redacting(client: &Client, state: &ExecutionState) -> Client {
    match &state.outcomes.input {
        Input::Read(sources) => client.clone().hiding(redactor(&state.spec, sources)),
        Input::NotRead => client.clone(),
    }
}
