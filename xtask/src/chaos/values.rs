//! Inputs composed from ConfigMaps and a Secret, and results written to ConfigMaps.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};

use super::environment::DEFAULT;
use super::perform::{code, patiently};
use crate::demo::Result;

/// The Secret that holds a part of the inputs, and its key.
pub const SECRET: (&str, &str) = ("parts", "token");
/// The Secret's value. Only the run may see it.
pub const TOKEN: &str = "canary-of-the-chaos-4711";
/// The replacement for a redacted value.
const REDACTED: &str = "[redacted]";

/// `spec.inputFrom` of the resource of this name.
pub fn input_from(name: &str) -> Value {
    let (secret, key) = SECRET;
    json!([
        { "configMapKeyRef": { "name": name, "key": "part" }, "path": "/parts/map", "as": "Json" },
        { "secretKeyRef": { "name": secret, "key": key }, "path": "/parts/secret" },
    ])
}

/// `spec.result` of the resource of this name.
pub fn result_to(name: &str) -> Value {
    json!({ "to": { "configMap": { "name": format!("result-{name}") } } })
}

/// The composed input of a run. With `told`, the version that may be shown: the Secret's value is redacted.
pub fn composed(name: &str, spec: &Value, told: bool) -> Value {
    let mut input = spec["input"].clone();
    if spec["inputFrom"].is_array() {
        input["parts"] = json!({ "map": { "of": name }, "secret": if told { REDACTED } else { TOKEN } });
    }
    input
}

/// Creates the ConfigMap that holds a part of the input of the resource of this name.
pub async fn provide(client: Client, name: &str) -> Result<()> {
    let api: Api<ConfigMap> = Api::namespaced(client, DEFAULT);
    let data = json!({ "part": json!({ "of": name }).to_string() });
    let object: ConfigMap = serde_json::from_value(json!({ "metadata": { "name": name }, "data": data }))?;
    match patiently(|| async { api.create(&PostParams::default(), &object).await }).await {
        // The answer to the first attempt got lost.
        Err(error) if code(&error) == Some(409) => Ok(()),
        outcome => Ok(outcome.map(|_| ())?),
    }
}

/// Parses a result. Returns the text itself if no value can hold it.
pub fn result(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|_| json!(text))
}

#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Kept {
    /// UID of the owner.
    pub owner: String,
    pub result: Value,
}

/// The results in ConfigMaps, by the names of the ConfigMaps.
pub async fn results(client: Client) -> Result<BTreeMap<String, Kept>> {
    let api: Api<ConfigMap> = Api::all(client);
    let all = ListParams::default();
    let objects = patiently(|| api.list(&all)).await?.items;
    let kept = objects.into_iter().filter_map(|object| {
        let result = result(object.data.as_ref()?.get("result")?);
        let owner = object.owner_references().first().map(|owner| owner.uid.clone()).unwrap_or_default();
        Some((object.name_any(), Kept { owner, result }))
    });
    Ok(kept.collect())
}
