//! Reads an execution's input from ConfigMaps and Secrets, and writes its result into one.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use secrecy::{ExposeSecret, SecretSlice};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::answer_memory::{Held, Room};
use crate::api::values::Kind;
use crate::api::{WorkflowExecution, WorkflowExecutionSpec};
use crate::execution::state::input::{Admission, INPUT_LABEL, MAX_INPUT, Source, Sources, wanted};
use crate::execution::state::result::{
    ENCODING, KEY, ObjectOwner, ResultObject, ResultWrite, changed, not_ours, owner, whose,
};
use crate::execution::status::reason;
use crate::json::Json;
use crate::platform::apiserver::{self, Error, call};
use crate::platform::leader::term::Term;
use crate::text::truncate;

/// Attempts to create an object that exists at the create and is gone at the get after it.
const TRIES: usize = 3;

/// Reads the objects that the spec names, each once and only from this namespace. Reserves memory for long values.
///
/// # Errors
/// When the Kubernetes API cannot be used. An object that is missing, too long or forbidden is an answer, not an error.
pub async fn read(
    client: &Client,
    room: &Room,
    namespace: &str,
    spec: &WorkflowExecutionSpec,
    admission: &Admission,
) -> Result<(Sources, Vec<Held>), Error> {
    let (mut sources, mut held, mut bytes) = (Sources::new(), Vec::new(), 0);
    for ((kind, name), keys) in wanted(spec) {
        if kind == Kind::Secret && admission.api_keys.contains(&name) {
            sources.insert((kind, name), Source::ApiKey);
            continue;
        }
        let namespace = Some(namespace);
        let read = match kind {
            Kind::ConfigMap => apiserver::get::<ConfigMap, Holder>(client, room, namespace, &name).await,
            Kind::Secret => apiserver::get::<Secret, Holder>(client, room, namespace, &name).await,
        };
        let source = match read {
            Ok(Some((holder, _))) if kind == Kind::Secret && admission.labelled_only && !holder.is_labelled() => {
                Source::Unlabelled
            }
            Ok(Some((holder, room))) => {
                let source = holder.source(kind, &keys);
                if let Source::Found { values, .. } = &source {
                    let kept = values.values().map(|value| value.expose_secret().len()).sum::<usize>();
                    bytes += kept;
                    held.push(room.cut_to(kept));
                }
                if bytes > MAX_INPUT { Source::TooLarge } else { source }
            }
            Ok(None) => Source::Absent,
            Err(error) if error.is_forbidden() => Source::Forbidden,
            Err(error) => return Err(error),
        };
        sources.insert((kind, name), source);
    }
    Ok((sources, held))
}

/// The fields of a ConfigMap or Secret that are read. The rest is not decoded: `managedFields` may be nested to any
/// depth.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Holder {
    metadata: Version,
    data: Option<BTreeMap<String, Json>>,
    binary_data: Option<BTreeMap<String, Json>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    uid: String,
    resource_version: String,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
}

impl Holder {
    fn is_labelled(&self) -> bool {
        let label = self.metadata.labels.as_ref().and_then(|labels| labels.get(INPUT_LABEL));
        label.is_some_and(|label| label == "true")
    }

    /// The values under these keys.
    pub fn source(self, kind: Kind, keys: &[String]) -> Source {
        let texts = |data: Option<BTreeMap<String, Json>>| {
            let wanted = data.unwrap_or_default().into_iter().filter(|(key, _)| keys.contains(key));
            wanted.collect::<Vec<_>>()
        };
        let text = |(key, text): (String, Json)| Some((key, text.string()?.into_bytes()));
        let decoded = |(key, text): (String, Json)| {
            serde_json::from_str::<ByteString>(text.text()).ok().map(|bytes| (key, bytes.0))
        };
        let values: BTreeMap<_, _> = match kind {
            Kind::ConfigMap => {
                let bytes = texts(self.binary_data).into_iter().filter_map(decoded);
                texts(self.data).into_iter().filter_map(text).chain(bytes).collect()
            }
            Kind::Secret => texts(self.data).into_iter().filter_map(decoded).collect(),
        };
        let values = values.into_iter().map(|(key, value)| (key, SecretSlice::from(value))).collect();
        Source::Found { uid: self.metadata.uid, resource_version: self.metadata.resource_version, values }
    }
}

/// The whole spec of an execution whose cached copy leaves out long fields. None if that execution no longer exists.
///
/// # Errors
/// When the Kubernetes API cannot be used, or the spec cannot be decoded.
pub async fn read_spec(
    client: &Client,
    room: &Room,
    execution: &WorkflowExecution,
) -> Result<Option<(WorkflowExecutionSpec, Held)>, Error> {
    #[derive(Deserialize)]
    struct Object {
        metadata: Version,
        spec: WorkflowExecutionSpec,
    }
    let (namespace, name) = (execution.namespace(), execution.name_any());
    let read = apiserver::get_by_list::<WorkflowExecution, Object>(client, room, namespace.as_deref(), &name).await?;
    Ok(read
        .filter(|(object, _)| Some(&object.metadata.uid) == execution.metadata.uid.as_ref())
        .map(|(object, room)| (object.spec, room)))
}

/// Creates the object that holds the result of this execution.
pub async fn write(client: &Client, execution: &WorkflowExecution, wanted: &ResultObject, term: &Term) -> ResultWrite {
    let (namespace, text) = (execution.namespace().unwrap_or_default(), &wanted.text);
    match wanted.kind {
        Kind::ConfigMap => {
            let api: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
            let object = ConfigMap {
                metadata: metadata(execution, wanted),
                data: Some(BTreeMap::from([(KEY.to_owned(), text.clone())])),
                ..ConfigMap::default()
            };
            let holds = |object: &ConfigMap| object.data.as_ref().and_then(|data| data.get(KEY)) == Some(text);
            put(&api, execution, wanted, &object, holds, term).await
        }
        Kind::Secret => {
            let api: Api<Secret> = Api::namespaced(client.clone(), &namespace);
            let object = Secret {
                metadata: metadata(execution, wanted),
                string_data: Some(BTreeMap::from([(KEY.to_owned(), text.clone())])),
                ..Secret::default()
            };
            let holds = |object: &Secret| {
                object.data.as_ref().and_then(|data| data.get(KEY)).is_some_and(|bytes| bytes.0 == text.as_bytes())
            };
            put(&api, execution, wanted, &object, holds, term).await
        }
    }
}

fn metadata(execution: &WorkflowExecution, wanted: &ResultObject) -> ObjectMeta {
    let manager = ("app.kubernetes.io/managed-by".to_owned(), "mistral-workflows-operator".to_owned());
    ObjectMeta {
        name: Some(wanted.name.clone()),
        labels: Some(BTreeMap::from([manager])),
        annotations: wanted.encoding.as_ref().map(|how| BTreeMap::from([(ENCODING.to_owned(), how.clone())])),
        owner_references: Some(vec![owner(&execution.name_any(), &execution.uid().unwrap_or_default())]),
        ..ObjectMeta::default()
    }
}

/// Creates the object. An existing object counts as written if it belongs to this resource and holds the result, since
/// a process may have ended right after creating it. It is never changed, so the operator needs no right to change
/// objects.
async fn put<K>(
    api: &Api<K>,
    execution: &WorkflowExecution,
    wanted: &ResultObject,
    object: &K,
    holds: impl Fn(&K) -> bool,
    term: &Term,
) -> ResultWrite
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let (kind, name) = (wanted.kind, &wanted.name);
    let mut exists = ResultWrite::NotTried;
    for _ in 0..TRIES {
        if term.is_over() {
            return ResultWrite::NotTried;
        }
        let there = match call(api.create(&PostParams::default(), object)).await {
            Ok(_) => return ResultWrite::Written,
            Err(error) if error.is_conflict() => {
                exists = ResultWrite::NotNow(said(&error));
                call(api.get_opt(name)).await
            }
            Err(error) => return judged(&error, wanted),
        };
        let there = match there {
            Ok(Some(there)) => there,
            Ok(None) => continue,
            Err(error) => return judged(&error, wanted),
        };
        return match whose(there.meta(), &execution.name_any(), &execution.uid().unwrap_or_default()) {
            ObjectOwner::Predecessors => ResultWrite::Predecessors,
            ObjectOwner::Others => {
                ResultWrite::Refused { reason: reason::RESULT_NOT_OURS, message: not_ours(kind, name) }
            }
            ObjectOwner::Ours if holds(&there) => ResultWrite::Written,
            ObjectOwner::Ours => ResultWrite::Refused { reason: reason::RESULT_NOT_OURS, message: changed(kind, name) },
        };
    }
    exists
}

/// The API server's message, or the error of the call itself.
fn said(error: &Error) -> String {
    let mut said = error.refusal().map_or_else(|| error.to_string(), |status| status.message.clone());
    truncate(&mut said, 512);
    said
}

/// Separates permanent refusals from errors that may pass.
fn judged(error: &Error, ResultObject { kind, name, .. }: &ResultObject) -> ResultWrite {
    let said = said(error);
    let reason = match error.refusal() {
        Some(status) if status.code == 403 => reason::RESULT_FORBIDDEN,
        Some(status) if matches!(status.code, 400 | 413 | 422) => reason::RESULT_REFUSED,
        _ => return ResultWrite::NotNow(said),
    };
    let message = match (reason, kind) {
        (reason::RESULT_FORBIDDEN, Kind::Secret) => format!(
            "the operator may not write Secret \"{name}\"; to allow it, set results.secrets=true in the operator's chart ({said})"
        ),
        (reason::RESULT_FORBIDDEN, Kind::ConfigMap) => format!(
            "the operator may not write ConfigMap \"{name}\"; to allow it, set results.configMaps=true in the operator's chart ({said})"
        ),
        _ => format!("the API server refuses {kind} \"{name}\" ({said})"),
    };
    ResultWrite::Refused { reason, message }
}
