//! Writes the result of a run into the ConfigMap or Secret that the spec names.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client, Resource, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::api::reasons::execution as reason;
use crate::api::values::Kind;
use crate::api::{WorkflowExecution, labels};
use crate::execution::state::outcomes::ResultWrite;
use crate::execution::state::result::{ENCODING, KEY, ObjectOwner, ResultObject, changed, not_ours, owner, whose};
use crate::platform::apiserver::{Error, call};
use crate::platform::leader::term::Term;
use crate::platform::names::PROGRAM;
use crate::platform::watch::MANAGED_BY;
use crate::text::truncate;

/// Attempts to create an object that exists at the create and is gone at the get after it.
const TRIES: usize = 3;

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
    let mut labels = labels::of(wanted.workflow.as_deref(), &execution.spec.workspace_ref.name);
    labels.insert(MANAGED_BY.to_owned(), PROGRAM.to_owned());
    ObjectMeta {
        name: Some(wanted.name.clone()),
        labels: Some(labels),
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
