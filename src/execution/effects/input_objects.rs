//! Reads the ConfigMaps and Secrets that hold parts of an execution's input, and a spec that is too long for the cache.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Client, ResourceExt};
use secrecy::{ExposeSecret, SecretSlice};
use serde::Deserialize;

use crate::answer_memory::{Held, Room};
use crate::api::values::Kind;
use crate::api::{WorkflowExecution, WorkflowExecutionSpec};
use crate::execution::state::input::{Admission, INPUT_LABEL, MAX_INPUT, Source, Sources, wanted};
use crate::json::Json;
use crate::platform::apiserver::{self, Error};

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
