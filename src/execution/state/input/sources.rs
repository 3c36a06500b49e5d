//! Where the values of an input come from: ConfigMaps and Secrets, as they were found, or why they cannot be used.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use secrecy::{ExposeSecret, SecretSlice};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::WorkflowExecutionSpec;
use crate::api::reasons::execution as reason;
use crate::api::values::{Format, InputFrom, KeyRef, Kind};
use crate::execution::claim::InputVersion;
use crate::json::Json;

/// The longest input that the API takes, in bytes of compact JSON: the 2 MB of its documentation, read generously.
pub(crate) const MAX_INPUT: usize = 2 << 20;

/// The ConfigMaps and Secrets that the spec names.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// Not read in this reconcile.
    #[default]
    NotRead,
    Read(Arc<Sources>),
}

/// Why the input is not complete.
#[derive(Debug, PartialEq)]
pub struct InputError {
    /// The reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do. Never contains a value.
    pub message: String,
}

/// The objects that the spec names, as they were found.
pub type Sources = BTreeMap<(Kind, String), Source>;

/// A ConfigMap or Secret, as it was found.
#[derive(Debug)]
pub enum Source {
    Found {
        uid: String,
        resource_version: String,
        /// The values under the keys that the spec names. Those of ConfigMaps are held like those of Secrets.
        values: BTreeMap<String, SecretSlice<u8>>,
    },
    Absent,
    /// The operator may not read it.
    Forbidden,
    /// It holds a Workspace's API key, and was not read.
    ApiKey,
    /// It lacks the label that the operator requires.
    Unlabelled,
    /// With its values, the input would be longer than the API takes.
    TooLarge,
}

/// The label that a Secret needs to be an input, if the operator requires one. Its value has to be `true`.
pub const INPUT_LABEL: &str = "workflows.mistral.ai/input";

/// Which Secrets may be inputs: anyone who can create executions can read them through a workflow's result.
#[derive(Clone, Debug, Default)]
pub struct Admission {
    /// Secrets that hold API keys of Workspaces. None of them may be an input.
    pub api_keys: BTreeSet<String>,
    /// Whether only Secrets with [`INPUT_LABEL`] may be inputs.
    pub labelled_only: bool,
}

/// The entries of `spec.inputFrom`.
pub(crate) fn entries(spec: &WorkflowExecutionSpec) -> &[InputFrom] {
    spec.input_from.as_deref().unwrap_or_default()
}

pub(super) fn invalid(what: String) -> InputError {
    InputError { reason: reason::INPUT_INVALID, message: format!("The input cannot be put together: {what}.") }
}

/// The objects that the spec names, each with its keys.
pub fn wanted(spec: &WorkflowExecutionSpec) -> BTreeMap<(Kind, String), Vec<String>> {
    let mut wanted: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (kind, at) in entries(spec).iter().filter_map(InputFrom::source) {
        wanted.entry((kind, at.name.clone())).or_default().push(at.key.clone());
    }
    wanted
}

/// The value of one entry, as JSON.
pub(super) fn value(entry: &InputFrom, sources: &Sources) -> Result<Json, InputError> {
    let Some((kind, KeyRef { name, key })) = entry.source() else {
        return Err(invalid("an entry of spec.inputFrom names no source".into()));
    };
    let values = match sources.get(&(kind, name.clone())) {
        Some(Source::Found { values, .. }) => values,
        Some(Source::Absent) | None => {
            let message = format!(
                "There is no {kind} \"{name}\" in this namespace. Create it, or name another in a new WorkflowExecution."
            );
            return Err(InputError { reason: reason::INPUT_NOT_FOUND, message });
        }
        Some(Source::TooLarge) => {
            let message = format!(
                "with {kind} \"{name}\", the values that spec.inputFrom reads are longer than {MAX_INPUT} bytes, and the API takes 2 MB; make them smaller"
            );
            return Err(invalid(message));
        }
        Some(Source::Forbidden) => {
            let message = format!(
                "The operator's service account may not get {kind} \"{name}\" in this namespace (HTTP 403). Restore its Role, or, for a Secret, add the name to rbac.secretNames of the chart."
            );
            return Err(InputError { reason: reason::INPUT_FORBIDDEN, message });
        }
        Some(Source::ApiKey) => {
            let message = format!(
                "{kind} \"{name}\" holds the API key of a Workspace in this namespace, which may not be sent to a workflow; put what this workflow needs into a Secret of its own, and name that Secret in a new WorkflowExecution."
            );
            return Err(InputError { reason: reason::INPUT_FORBIDDEN, message });
        }
        Some(Source::Unlabelled) => {
            let message = format!(
                "The operator takes input only from Secrets with the label {INPUT_LABEL}=true, which Secret \"{name}\" lacks; add the label if its values may be sent to workflows."
            );
            return Err(InputError { reason: reason::INPUT_FORBIDDEN, message });
        }
    };
    let Some(value) = values.get(key) else {
        let message =
            format!("{kind} \"{name}\" has no key \"{key}\". Add it, or name another in a new WorkflowExecution.");
        return Err(InputError { reason: reason::INPUT_NOT_FOUND, message });
    };
    let Ok(text) = std::str::from_utf8(value.expose_secret()) else {
        return Err(invalid(format!(
            "the key \"{key}\" of {kind} \"{name}\" is not UTF-8 text; encode it, for example in Base64"
        )));
    };
    match entry.format {
        Format::String => Ok(Json::from(&Value::from(text))),
        // Reports only the position: the parser's message could quote the value.
        Format::Json => serde_json::from_str::<&RawValue>(text).map(|raw| Json::from(raw.to_owned())).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            invalid(format!(
                "the key \"{key}\" of {kind} \"{name}\" is not JSON (line {line}, column {column}); correct it, or read it as a String in a new WorkflowExecution"
            ))
        }),
    }
}

/// The versions of all objects that exist, in the order of their names.
pub(crate) fn versions(spec: &WorkflowExecutionSpec, sources: &Sources) -> Vec<InputVersion> {
    let found = |(kind, name): (Kind, String)| match sources.get(&(kind, name.clone())) {
        Some(Source::Found { uid, resource_version, .. }) => {
            Some(InputVersion { kind, name, uid: uid.clone(), resource_version: resource_version.clone() })
        }
        Some(Source::Absent | Source::Forbidden | Source::ApiKey | Source::Unlabelled | Source::TooLarge) | None => {
            None
        }
    };
    wanted(spec).into_keys().filter_map(found).collect()
}

/// Names the first object that differs from before.
pub(crate) fn changed(before: &[InputVersion], now: &[InputVersion]) -> String {
    let other = now.iter().find(|input| !before.contains(input));
    other.map_or_else(|| "The input".into(), |input| format!("{} \"{}\"", input.kind, input.name))
}
