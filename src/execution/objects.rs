//! Reads what an execution wants from ConfigMaps and Secrets, and writes its result into one.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use secrecy::SecretSlice;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use super::input::{Source, Sources, wanted};
use super::report::reason;
use super::result::{ENCODING, KEY, Stored, Wanted, Whose, not_ours, owner, whose};
use crate::api::conditions::truncate;
use crate::api::values::Kind;
use crate::api::{WorkflowExecution, WorkflowExecutionSpec};
use crate::operator::kubernetes::{Error, call};
use crate::operator::lease::Term;

/// How often a write is tried that somebody else was in the way of.
const TRIES: usize = 3;

/// Reads the objects that the spec names, each once and only of this namespace.
///
/// # Errors
/// When the Kubernetes API cannot be used. That an object is missing or may not be read is an answer.
pub async fn read(client: &Client, namespace: &str, spec: &WorkflowExecutionSpec) -> Result<Sources, Error> {
    let mut sources = Sources::new();
    for ((kind, name), keys) in wanted(spec) {
        let source = match kind {
            Kind::ConfigMap => {
                let values = |object: ConfigMap| {
                    let texts = object.data.unwrap_or_default().into_iter().map(|(key, text)| (key, text.into_bytes()));
                    let bytes = object.binary_data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0));
                    only(&keys, texts.chain(bytes))
                };
                get(client, namespace, &name, values).await?
            }
            Kind::Secret => {
                let values = |object: Secret| {
                    only(&keys, object.data.unwrap_or_default().into_iter().map(|(key, bytes)| (key, bytes.0)))
                };
                get(client, namespace, &name, values).await?
            }
        };
        sources.insert((kind, name), source);
    }
    Ok(sources)
}

fn only(keys: &[String], values: impl Iterator<Item = (String, Vec<u8>)>) -> BTreeMap<String, SecretSlice<u8>> {
    values.filter(|(key, _)| keys.contains(key)).map(|(key, value)| (key, SecretSlice::from(value))).collect()
}

async fn get<K>(
    client: &Client,
    namespace: &str,
    name: &str,
    values: impl FnOnce(K) -> BTreeMap<String, SecretSlice<u8>>,
) -> Result<Source, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    match call(api.get_opt(name)).await {
        Ok(Some(object)) => Ok(Source::Found {
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version().unwrap_or_default(),
            values: values(object),
        }),
        Ok(None) => Ok(Source::Absent),
        Err(error) if error.is_forbidden() => Ok(Source::Forbidden),
        Err(error) => Err(error),
    }
}

/// Writes the result of this execution.
pub async fn write(client: &Client, execution: &WorkflowExecution, wanted: &Wanted, term: &Term) -> Stored {
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

fn metadata(execution: &WorkflowExecution, wanted: &Wanted) -> ObjectMeta {
    let manager = ("app.kubernetes.io/managed-by".to_owned(), "mistral-workflows-operator".to_owned());
    ObjectMeta {
        name: Some(wanted.name.clone()),
        labels: Some(BTreeMap::from([manager])),
        annotations: wanted.encoding.as_ref().map(|how| BTreeMap::from([(ENCODING.to_owned(), how.clone())])),
        owner_references: Some(vec![owner(&execution.name_any(), &execution.uid().unwrap_or_default())]),
        ..ObjectMeta::default()
    }
}

/// Creates the object, or changes the one that is this resource's already.
async fn put<K>(
    api: &Api<K>,
    execution: &WorkflowExecution,
    wanted: &Wanted,
    object: &K,
    holds: impl Fn(&K) -> bool,
    term: &Term,
) -> Stored
where
    K: Resource<DynamicType = ()> + Clone + Serialize + DeserializeOwned + std::fmt::Debug,
{
    let (kind, name) = (wanted.kind, &wanted.name);
    let mut conflict = Stored::NotTried;
    for _ in 0..TRIES {
        if term.is_over() {
            return Stored::NotTried;
        }
        let there = match call(api.create(&PostParams::default(), object)).await {
            Ok(_) => return Stored::Written,
            Err(error) if error.is_conflict() => {
                conflict = Stored::NotNow(said(&error));
                call(api.get_opt(name)).await
            }
            Err(error) => return judged(&error, wanted),
        };
        let there = match there {
            Ok(Some(there)) => there,
            Ok(None) => continue,
            Err(error) => return judged(&error, wanted),
        };
        match whose(there.meta(), &execution.name_any(), &execution.uid().unwrap_or_default()) {
            Whose::Predecessors => return Stored::Predecessors,
            Whose::Others => {
                return Stored::Refused { reason: reason::RESULT_NOT_OURS, message: not_ours(kind, name) };
            }
            Whose::Ours if holds(&there) => return Stored::Written,
            Whose::Ours => {}
        }
        if term.is_over() {
            return Stored::NotTried;
        }
        let mut patch = json!(object);
        patch["metadata"]["resourceVersion"] = json!(there.resource_version());
        match call(api.patch(name, &PatchParams::default(), &Patch::Merge(patch))).await {
            Ok(_) => return Stored::Written,
            Err(error) if error.is_conflict() || error.is_not_found() => conflict = Stored::NotNow(said(&error)),
            Err(error) => return judged(&error, wanted),
        }
    }
    conflict
}

/// The API server's words, or what happened to the call.
fn said(error: &Error) -> String {
    let mut said = error.refusal().map_or_else(|| error.to_string(), |status| status.message.clone());
    truncate(&mut said, 512);
    said
}

/// What will not go better another time, and what may.
fn judged(error: &Error, Wanted { kind, name, .. }: &Wanted) -> Stored {
    let said = said(error);
    let reason = match error.refusal() {
        Some(status) if status.code == 403 => reason::RESULT_FORBIDDEN,
        Some(status) if matches!(status.code, 400 | 413 | 422) => reason::RESULT_REFUSED,
        _ => return Stored::NotNow(said),
    };
    let message = match (reason, kind) {
        (reason::RESULT_FORBIDDEN, Kind::Secret) => format!(
            "the operator may not write Secret \"{name}\"; whoever installed it can let it, by results.secrets=true in the chart ({said})"
        ),
        (reason::RESULT_FORBIDDEN, Kind::ConfigMap) => format!(
            "the operator may not write ConfigMap \"{name}\"; whoever installed it can let it, by results.configMaps=true in the chart ({said})"
        ),
        _ => format!("the API server refuses {kind} \"{name}\" ({said})"),
    };
    Stored::Refused { reason, message }
}
