//! Inputs from ConfigMaps and Secrets, and results in them.
//!
//! The Secrets of these tests hold canaries: each test ends with a search for them in logs, Events, metadata, status
//! and metrics.

mod inputs;
mod redaction;
mod results;

use std::time::Duration;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const CLAIM: &str = "workflows.mistral.ai/claim";
/// Allows for the 90 s in which the outcome of a start stays unknown, the delay of a retry, and a busy machine.
const AFTER_DOUBT: Duration = Duration::from_secs(180);
/// Hard to redact: has characters that JSON and Python escape.
const TOKEN: &str = "canary-in\"put'-é-\\-42";

fn config_maps(world: &World) -> Api<ConfigMap> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

async fn config_map(world: &World, name: &str, data: Value) {
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    config_maps(world).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
}

fn from_config_map(name: &str, key: &str, path: &str) -> Value {
    json!({ "configMapKeyRef": { "name": name, "key": key }, "path": path })
}

fn from_secret(name: &str, key: &str, path: &str) -> Value {
    json!({ "secretKeyRef": { "name": name, "key": key }, "path": path })
}

fn as_json(mut entry: Value) -> Value {
    entry["as"] = json!("Json");
    entry
}

fn message<'a>(object: &'a WorkflowExecution, type_: &str) -> &'a str {
    &condition(object, type_).unwrap().message
}

fn claim(object: &WorkflowExecution) -> Value {
    serde_json::from_str(&object.annotations()[CLAIM]).unwrap()
}

fn result_to(kind: &str, name: &str) -> Value {
    json!({ "to": { kind: { "name": name } } })
}

async fn result_in_config_map(world: &World, name: &str) -> Value {
    let object = config_maps(world).get(name).await.unwrap();
    serde_json::from_str(&object.data.unwrap_or_default()["result"]).unwrap()
}

async fn result_in_secret(world: &World, name: &str) -> Value {
    let ByteString(bytes) = secrets(world).get(name).await.unwrap().data.unwrap_or_default()["result"].clone();
    serde_json::from_slice(&bytes).unwrap()
}
