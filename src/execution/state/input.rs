//! Input from ConfigMaps and Secrets. What is read becomes part of the input, or a message about what is wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::jiff::Timestamp;
use secrecy::{ExposeSecret, SecretSlice};
use serde_json::Value;
use serde_json::value::RawValue;

use crate::api::WorkflowExecutionSpec;
use crate::api::values::{Format, InputFrom, KeyRef, Kind};
use crate::clock::later;
use crate::execution::claim::{InputVersion, TAKE_OVER};
use crate::execution::plan::backoff::blocked_retry;
use crate::execution::plan::blocked::{APPLIED_TOGETHER, blocked};
use crate::execution::plan::start::is_consent;
use crate::execution::plan::{ClusterStep, Decision, settle};
use crate::execution::state::ExecutionState;
use crate::execution::state::ownership::{Ownership, ownership};
use crate::execution::status::{self, reason};
use crate::json::Json;
use crate::mistral::wire::ExecuteRequest;
use crate::mistral::{Client, Redactor};
use crate::platform::requeue::Requeue;

/// The longest input that the API takes, in bytes of compact JSON: the 2 MB of its documentation, read generously.
pub(crate) const MAX_INPUT: usize = 2 << 20;
/// Maximum number of Secret values to search texts for: a search must not take long.
const MAX_SECRET_VALUES: usize = 256;

/// The ConfigMaps and Secrets that the spec names.
#[derive(Clone, Debug, Default)]
pub enum Input {
    /// Not read in this reconcile.
    #[default]
    NotRead,
    Read(Arc<Sources>),
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

/// Why the input is not complete.
#[derive(Debug, PartialEq)]
pub struct InputError {
    /// The reason of the condition.
    pub reason: &'static str,
    /// What is wrong, and what to do. Never contains a value.
    pub message: String,
}

/// Checks the input before a claim. Returns the versions of its objects for the claim, or else the next decision.
pub(crate) fn ready(state: &ExecutionState, now: Timestamp) -> Result<Vec<InputVersion>, Box<Decision>> {
    if state.spec.left_out.is_some() {
        return Err(Box::new(Decision::Act(ClusterStep::ReadInput.into())));
    }
    let wanted = entries(&state.spec);
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    if let Err(conflict) = skeleton(&state.spec) {
        let message = format!("{conflict}; correct the path in a new WorkflowExecution. Nothing was started.");
        let status = status::ended_without_run(state, reason::INPUT_CONFLICT, &message, now);
        return Err(Box::new(settle(state, status, Requeue::OnChange)));
    }
    let Input::Read(sources) = &state.outcomes.input else {
        return Err(Box::new(Decision::Act(ClusterStep::ReadInput.into())));
    };
    if let Err(InputError { reason, message }) = compose(&state.spec, sources) {
        // A manifest may well create the execution before its ConfigMap.
        if reason == reason::INPUT_NOT_FOUND && now < later(state.created, APPLIED_TOGETHER) {
            return Err(Box::new(settle(state, state.status.clone(), Requeue::After(Duration::from_secs(1)))));
        }
        return Err(Box::new(blocked(state, reason, message, blocked_retry(state), now)));
    }
    let present = versions(&state.spec, sources);
    match ownership(state) {
        // A call with other values may have been sent. A call that was definitely refused or never sent does not count.
        // A claim that was lost has lost its versions too, so there is nothing to compare with.
        Ownership::Ours(claim)
            if !state.is_refused(claim)
                && !claim.inputs.is_empty()
                && claim.inputs != present
                && !is_consent(state, claim) =>
        {
            let id = &claim.execution_id;
            let changed = changed(&claim.inputs, &present);
            let message = format!(
                "{changed} was changed after a start with the old content may have been sent, so nothing was started. Create another WorkflowExecution, or, to start this one with the present content, annotate this resource with {TAKE_OVER}={id}."
            );
            Err(Box::new(blocked(state, reason::INPUT_CHANGED, message, Requeue::OnChange, now)))
        }
        _ => Ok(present),
    }
}

/// What has to be read before a run that was found can be compared with the spec, if anything.
pub(crate) fn comparable(state: &ExecutionState) -> Option<Decision> {
    let has_to = state.spec.left_out.is_some() || !entries(&state.spec).is_empty();
    (has_to && matches!(state.outcomes.input, Input::NotRead)).then_some(Decision::Act(ClusterStep::ReadInput.into()))
}

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
pub(crate) fn hiding(state: &ExecutionState) -> Redaction {
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
    Redaction::These(mask(&state.spec, sources))
}

/// Composes the whole input.
///
/// # Errors
/// What is missing or wrong, in words.
pub fn compose(spec: &WorkflowExecutionSpec, sources: &Sources) -> Result<Option<Json>, InputError> {
    let entries = entries(spec);
    if entries.is_empty() {
        return Ok(spec.input.clone());
    }
    let mut input = Part::of(spec.input.as_ref());
    let (mut secret_values, mut secret_bytes) = (0, 0);
    for entry in entries {
        let value = value(entry, sources)?;
        if entry.secret_key_ref.is_some() {
            value.leaves(|leaf| {
                if Redactor::covers(leaf) {
                    (secret_values, secret_bytes) = (secret_values + 1, secret_bytes + leaf.len());
                }
            });
        }
        insert(&mut input, &entry.path, value).map_err(invalid)?;
    }
    if secret_values > MAX_SECRET_VALUES {
        return Err(invalid(format!(
            "spec.inputFrom reads {secret_values} values from Secrets, and the operator can redact at most {MAX_SECRET_VALUES}; read the JSON as a String, or let the workflow read the Secret itself"
        )));
    }
    if secret_bytes > Redactor::MOST {
        return Err(invalid(format!(
            "spec.inputFrom reads {secret_bytes} bytes from Secrets, and the operator can redact at most {}; let the workflow read the Secret itself",
            Redactor::MOST
        )));
    }
    let input = input.json();
    let bytes = input.text().len();
    if bytes > MAX_INPUT {
        return Err(invalid(format!(
            "with the values of spec.inputFrom, the input has {bytes} bytes, and the API takes 2 MB; make it smaller"
        )));
    }
    Ok(Some(input))
}

/// The redaction of Secret values in texts from the API.
pub fn mask(spec: &WorkflowExecutionSpec, sources: &Sources) -> Redactor {
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

/// The call that starts the run. None if a part of its input is missing.
pub fn request(state: &ExecutionState) -> Option<ExecuteRequest> {
    let spec = &state.spec;
    let input = match &state.outcomes.input {
        Input::Read(sources) => compose(spec, sources).ok()?,
        Input::NotRead => compose(spec, &Sources::new()).ok()?,
    };
    Some(ExecuteRequest {
        execution_id: state.execution_id(),
        input,
        deployment_name: spec.deployment_name.clone(),
        custom_tracing_attributes: spec.custom_tracing_attributes.clone(),
        extensions: spec.extensions.clone(),
    })
}

/// A client whose errors quote no Secret value that was read in this reconcile.
pub fn hidden_from(client: &Client, state: &ExecutionState) -> Client {
    match &state.outcomes.input {
        Input::Read(sources) => client.clone().hiding(mask(&state.spec, sources)),
        Input::NotRead => client.clone(),
    }
}

/// The objects that the spec names, each with its keys.
pub fn wanted(spec: &WorkflowExecutionSpec) -> BTreeMap<(Kind, String), Vec<String>> {
    let mut wanted: BTreeMap<_, Vec<String>> = BTreeMap::new();
    for (kind, at) in entries(spec).iter().filter_map(InputFrom::source) {
        wanted.entry((kind, at.name.clone())).or_default().push(at.key.clone());
    }
    wanted
}

fn entries(spec: &WorkflowExecutionSpec) -> &[InputFrom] {
    spec.input_from.as_deref().unwrap_or_default()
}

/// Checks that each path fits into `spec.input`. Only another manifest can resolve a collision.
fn skeleton(spec: &WorkflowExecutionSpec) -> Result<(), String> {
    let mut input = Part::of(spec.input.as_ref());
    let null = Json::from(&Value::Null);
    entries(spec).iter().try_for_each(|entry| insert(&mut input, &entry.path, null.clone()))
}

/// A part of an input that is being composed. Only the paths where values are inserted are parsed. The rest stays text,
/// so numbers keep their spelling and no nesting is too deep.
enum Part {
    Text(Json),
    Object(Vec<(String, Part)>),
}

impl Part {
    /// An input to insert values into. A missing input is an empty object.
    fn of(input: Option<&Json>) -> Self {
        input.map_or_else(|| Self::Object(Vec::new()), |input| Self::Text(input.clone()))
    }

    /// Its fields. None if it is not an object.
    fn fields(&mut self) -> Option<&mut Vec<(String, Part)>> {
        if let Self::Text(json) = self {
            let fields = json.fields()?;
            *self = Self::Object(fields.into_iter().map(|(name, value)| (name, Self::Text(value))).collect());
        }
        match self {
            Self::Object(fields) => Some(fields),
            Self::Text(_) => None,
        }
    }

    fn write(&self, text: &mut String) {
        match self {
            Self::Text(json) => text.push_str(json.text()),
            // Recurses as deep as the longest path, which the CRD limits.
            Self::Object(fields) => {
                text.push('{');
                for (n, (name, part)) in fields.iter().enumerate() {
                    text.push_str(if n == 0 { "" } else { "," });
                    text.push_str(&Value::from(name.as_str()).to_string());
                    text.push(':');
                    part.write(text);
                }
                text.push('}');
            }
        }
    }

    fn json(self) -> Json {
        let mut text = String::new();
        self.write(&mut text);
        // Composed of JSON, the text is JSON.
        Json::from_text(text).unwrap_or_else(|| Json::from(&Value::Null))
    }
}

/// Inserts a value where a JSON Pointer points, and creates the objects on the way.
fn insert(input: &mut Part, path: &str, value: Json) -> Result<(), String> {
    let names = path.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~"));
    let names: Vec<String> = names.collect();
    let mut at = input;
    for (n, name) in names.iter().enumerate() {
        let Some(fields) = at.fields() else {
            return Err(format!("The path {path} of spec.inputFrom leads through a value that is not an object"));
        };
        let there = fields.iter().position(|(field, _)| field == name);
        let is_last = n + 1 == names.len();
        let index = match there {
            Some(_) if is_last => {
                return Err(format!("The path {path} of spec.inputFrom already has a value in spec.input"));
            }
            Some(index) => index,
            None if is_last => {
                fields.push((name.clone(), Part::Text(value)));
                return Ok(());
            }
            None => {
                fields.push((name.clone(), Part::Object(Vec::new())));
                fields.len() - 1
            }
        };
        at = &mut fields[index].1;
    }
    Ok(())
}

/// The value of one entry, as JSON.
fn value(entry: &InputFrom, sources: &Sources) -> Result<Json, InputError> {
    let Some((kind, KeyRef { name, key })) = entry.source() else {
        return Err(invalid("an entry of spec.inputFrom names no source".into()));
    };
    let values = match sources.get(&(kind, name.clone())) {
        Some(Source::Found { values, .. }) => values,
        Some(Source::Absent) | None => {
            let message = format!("There is no {kind} \"{name}\" in this namespace; create it.");
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
                "The operator may not read {kind} \"{name}\" in this namespace; let its service account \"get\" it."
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
        let message = format!("{kind} \"{name}\" has no key \"{key}\"; add it.");
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
                "the key \"{key}\" of {kind} \"{name}\" is not JSON (line {line}, column {column}); correct it, or read it as a String"
            ))
        }),
    }
}

fn invalid(what: String) -> InputError {
    InputError { reason: reason::INPUT_INVALID, message: format!("The input cannot be put together: {what}.") }
}

/// The versions of all objects that exist, in the order of their names.
fn versions(spec: &WorkflowExecutionSpec, sources: &Sources) -> Vec<InputVersion> {
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
fn changed(before: &[InputVersion], now: &[InputVersion]) -> String {
    let other = now.iter().find(|input| !before.contains(input));
    other.map_or_else(|| "The input".into(), |input| format!("{} \"{}\"", input.kind, input.name))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Kind, name and contents.
    type Object<'a> = (Kind, &'a str, &'a [(&'a str, &'a [u8])]);

    fn spec(input: Value, from: Value) -> WorkflowExecutionSpec {
        serde_json::from_value(json!({ "workflowIdentifier": "w", "input": input, "inputFrom": from })).unwrap()
    }

    fn sources(objects: &[Object<'_>]) -> Sources {
        let source = |(kind, name, values): &Object<'_>| {
            let values = values.iter().map(|(key, value)| ((*key).to_owned(), SecretSlice::from(value.to_vec())));
            let source =
                Source::Found { uid: format!("uid-{name}"), resource_version: "1".into(), values: values.collect() };
            ((*kind, (*name).to_owned()), source)
        };
        objects.iter().map(source).collect()
    }

    fn config(path: &str, key: &str, format: &str) -> Value {
        json!({ "configMapKeyRef": { "name": "c", "key": key }, "path": path, "as": format })
    }

    fn secret(path: &str, key: &str, format: &str) -> Value {
        json!({ "secretKeyRef": { "name": "s", "key": key }, "path": path, "as": format })
    }

    #[test]
    fn each_value_goes_where_its_path_points_and_objects_on_the_way_are_made() {
        let sources = sources(&[
            (Kind::ConfigMap, "c", &[("text", b"a\nb"), ("json", b" {\"x\": [1, null]} ")]),
            (Kind::Secret, "s", &[("token", b"t0ken"), ("number", b"7")]),
        ]);
        let from = json!([
            config("/text", "text", "String"),
            config("/deep/er/json", "json", "Json"),
            secret("/deep/a~1b~0c", "token", "String"),
            secret("/kept/n", "number", "Json"),
            secret("/kept/0", "number", "String"),
        ]);
        let composed = compose(&spec(json!({ "kept": { "m": null } }), from), &sources).unwrap();
        let expected = json!({
            "text": "a\nb", "deep": { "er": { "json": { "x": [1, null] } }, "a/b~c": "t0ken" },
            "kept": { "m": null, "n": 7, "0": "7" },
        });
        assert_eq!(serde_json::from_str::<Value>(composed.unwrap().text()).unwrap(), expected);
        let none = spec(json!(null), json!(null));
        assert_eq!(compose(&none, &Sources::new()).unwrap(), None);
    }

    #[test]
    fn a_path_that_meets_a_value_of_the_spec_is_refused() {
        for (input, path, words) in [
            (json!({ "a": 1 }), "/a", "already has a value in spec.input"),
            (json!({ "a": null }), "/a", "already has a value in spec.input"),
            (json!({ "a": { "b": {} } }), "/a/b", "already has a value in spec.input"),
            (json!({ "a": 1 }), "/a/b", "leads through a value that is not an object"),
            (json!({ "a": [{}] }), "/a/0", "leads through a value that is not an object"),
            (json!({ "a": null }), "/a/b", "leads through a value that is not an object"),
        ] {
            let refused = skeleton(&spec(input, json!([config(path, "k", "String")]))).unwrap_err();
            assert!(refused.contains(path) && refused.contains(words), "{path}: {refused}");
        }
        assert_eq!(skeleton(&spec(json!({ "a": {} }), json!([config("/a/b", "k", "Json")]))), Ok(()));
    }

    #[test]
    fn what_is_missing_or_wrong_is_named_and_no_value_is() {
        let there = sources(&[(
            Kind::Secret,
            "s",
            &[("bytes", &[0xff, 0xfe]), ("words", b"pa55word"), ("long", &[b'x'; Redactor::MOST + 1])],
        )]);
        let large = sources(&[(Kind::ConfigMap, "c", &[("long", &[b'x'; MAX_INPUT])])]);
        let forbidden = Sources::from([((Kind::Secret, "s".to_owned()), Source::Forbidden)]);
        for (from, sources, reason, words) in [
            (config("/a", "k", "String"), &there, reason::INPUT_NOT_FOUND, "There is no ConfigMap \"c\""),
            (secret("/a", "k", "String"), &there, reason::INPUT_NOT_FOUND, "Secret \"s\" has no key \"k\""),
            (secret("/a", "k", "String"), &forbidden, reason::INPUT_FORBIDDEN, "may not read Secret \"s\""),
            (secret("/a", "bytes", "String"), &there, reason::INPUT_INVALID, "is not UTF-8"),
            (secret("/a", "words", "Json"), &there, reason::INPUT_INVALID, "is not JSON (line 1, column 1)"),
            (secret("/a", "long", "String"), &there, reason::INPUT_INVALID, "redact at most 65536"),
            (config("/a", "long", "String"), &large, reason::INPUT_INVALID, "the API takes 2 MB"),
        ] {
            let lacking = compose(&spec(json!(null), json!([from])), sources).unwrap_err();
            assert_eq!(lacking.reason, reason);
            assert!(lacking.message.contains(words) && !lacking.message.contains("pa55"), "{}", lacking.message);
        }
    }

    #[test]
    fn values_of_secrets_are_masked_one_by_one_and_those_of_config_maps_are_not() {
        let sources = sources(&[
            (Kind::ConfigMap, "c", &[("k", b"config-value")]),
            (
                Kind::Secret,
                "s",
                &[("k", b"s3cret-one\n"), ("j", br#"{"a":["s3cret-two",7654321,true],"s3cret-key":1}"#)],
            ),
        ]);
        let from = json!([config("/a", "k", "String"), secret("/b", "k", "String"), secret("/c", "j", "Json")]);
        let spec = spec(json!(null), from);
        let text = "config-value s3cret-one s3cret-two 7654321 true";
        assert_eq!(mask(&spec, &sources).text(text), "config-value [redacted] [redacted] [redacted] true");
        assert!(!format!("{:?}", Input::Read(Arc::new(sources))).contains("115"), "the bytes of a value");
    }

    #[test]
    fn more_values_of_secrets_than_can_be_hidden_are_refused() {
        let many: Vec<String> = (0..=MAX_SECRET_VALUES).map(|n| format!("value-{n}")).collect();
        let json = json!(many).to_string();
        let there = sources(&[
            (Kind::Secret, "s", &[("k", json.as_bytes())]),
            (Kind::ConfigMap, "c", &[("k", json.as_bytes())]),
        ]);
        let of = |entry: Value| compose(&spec(json!(null), json!([entry])), &there);
        assert!(of(secret("/a", "k", "Json")).unwrap_err().message.contains("257 values"));
        assert!(of(secret("/a", "k", "String")).is_ok());
        assert!(of(config("/a", "k", "Json")).is_ok());
    }
}
