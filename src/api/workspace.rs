//! `Workspace`: the address of the Mistral API, and the key to call it with.

#![allow(rustdoc::bare_urls, reason = "kubectl explain shows the descriptions as they are written")]
#![expect(clippy::duplicated_attributes, reason = "each printer column has the same attributes")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::core::Duration;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

/// The address of the Mistral API, and the key to call it with. One API key belongs to one Mistral
/// workspace.
#[derive(CustomResource, KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[kube(
    group = "workflows.mistral.ai",
    version = "v1alpha1",
    kind = "Workspace",
    plural = "workspaces",
    shortname = "mws",
    category = "mistral",
    namespaced,
    status = "WorkspaceStatus",
    doc = "A connection to one Mistral workspace: the API's address and the Secret that holds the API key.",
    derive = "PartialEq",
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.baseURL", priority = 1),
    printcolumn(name = "Workflows", type_ = "integer", json_path = ".status.workflowCount", priority = 1),
    printcolumn(name = "Workspace ID", type_ = "string", json_path = ".status.workspaceId", priority = 1),
    // Last, since a sentence would push other columns out of sight.
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    )
)]
pub struct WorkspaceSpec {
    /// Address of the Mistral API: scheme, host and optional port, without a path. The operator
    /// calls only addresses that its --allow-base-url flag lists. Defaults to https://api.mistral.ai.
    /// Immutable.
    #[serde(rename = "baseURL", default = "default_base_url")]
    #[schemars(length(min = 8, max = 256))]
    #[x_kube(
        validation = Rule::new("self == oldSelf").message("baseURL is immutable: create another Workspace for another address"),
        validation = Rule::new("self.matches('^https?://[A-Za-z0-9.:-]+/?$') || self.matches('^https?://[[][0-9a-fA-F:.]+[]](:[0-9]+)?/?$')")
            .message("baseURL must be a scheme (https or http), a host and an optional port, such as https://api.mistral.ai: no path, user, query or fragment")
    )]
    pub base_url: String,

    /// How the operator authenticates to the API.
    pub auth: Auth,

    /// How often the operator checks the Workflows of this Workspace for changes made in Mistral. From
    /// 5s to 24h, such as 10m or 1h30m. Defaults to 5m.
    #[serde(default = "default_resync_interval", deserialize_with = "interval")]
    #[schemars(length(max = 16), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"), extend("default" = "5m"))]
    #[x_kube(
        validation = Rule::new("duration(self) >= duration('5s') && duration(self) <= duration('24h')")
            .message("resyncInterval must be from 5s to 24h")
    )]
    pub resync_interval: Duration,

    /// The maximum number of calls per second, from 1 to 1000. If absent or higher, the operator's
    /// --max-requests-per-second applies, which is 50 by default. Workspaces with the same key share
    /// one budget, and the lowest of their rates applies. After an answer with status 429 (too many
    /// requests), the operator sends fewer calls for a while.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000), extend("format" = "int32"))]
    pub requests_per_second: Option<u32>,

    /// Observe creates a Workflow for each workflow of the Mistral workspace that has none in this
    /// namespace. Such a Workflow is read-only (managementPolicy Observe). The operator deletes it
    /// once the workflow is gone, unless somebody has changed the resource. Setting this field back
    /// to Disabled keeps these Workflows as they are. Defaults to Disabled.
    #[serde(default)]
    pub discovery: Discovery,
}

/// Whether the operator creates Workflows for existing workflows.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// The operator creates no Workflows.
    #[default]
    Disabled,
    /// The operator creates a read-only Workflow for each workflow.
    Observe,
}

/// How the operator authenticates to the API.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Auth {
    /// The key of a Secret in this namespace that holds the Mistral API key. The operator reads the
    /// Secret at least once a minute, so a corrected or rotated key takes effect without a restart.
    pub api_key_secret_ref: SecretKeyRef,
}

/// One key of a Secret in the resource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct SecretKeyRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Key in the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// What the operator found when it last used the connection.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, Default, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceStatus {
    /// `Ready`, `Reconciling` and `Stalled`. `Throttled` while calls have to wait long.
    /// `DiscoveryIncomplete` while discovery cannot create or delete a Workflow, or cannot read the
    /// list of workflows. `DriftUnseen` while the operator cannot see changes made in Mistral.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "super::schema::conditions_schema")]
    pub conditions: Vec<Condition>,
    /// The Mistral workspace that the key belongs to, if the API reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace_id: Option<String>,
    /// The Mistral organization that the key belongs to, if the API reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<String>,
    /// Number of workflows in the Mistral workspace when the operator last read their lists. It
    /// reads them only if Workflows refer to this Workspace or if discovery is on. This number may
    /// lag behind by up to a minute.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow_count: Option<i64>,
    /// The generation of the spec that this status describes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
}

impl WorkspaceSpec {
    /// How often to check for changes made in Mistral. Clamped to the bounds of the CRD's rule, because the object may
    /// have been stored before that rule existed.
    pub fn resync(&self) -> std::time::Duration {
        let (least, most) = (std::time::Duration::from_secs(5), std::time::Duration::from_secs(86_400));
        std::time::Duration::from(self.resync_interval).clamp(least, most)
    }
}

/// Reads an interval that the CRD's pattern lets through. kube panics on an interval that overflows or is negative, and
/// a panic in a watch ends the operator. Such an object must be undecodable instead.
fn interval<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    let is_bounded = text.len() <= 64 && text.split(|c: char| !c.is_ascii_digit()).all(|digits| digits.len() <= 15);
    if text.contains('-') || !is_bounded {
        return Err(D::Error::custom("resyncInterval must be from 5s to 24h"));
    }
    text.parse().map_err(D::Error::custom)
}

fn default_resync_interval() -> Duration {
    std::time::Duration::from_secs(300).into()
}

fn default_base_url() -> String {
    "https://api.mistral.ai".into()
}

/// Names a Workspace in the same namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct WorkspaceRef {
    /// Name of the Workspace. Defaults to default.
    #[serde(default = "default_workspace")]
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

fn default_workspace() -> String {
    "default".into()
}

impl Default for WorkspaceRef {
    fn default() -> Self {
        Self { name: default_workspace() }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn no_interval_ends_the_operator() {
        let read = |interval: &str| {
            let auth = r#"{"apiKeySecretRef":{"name":"s","key":"k"}}"#;
            let object =
                format!(r#"{{"metadata":{{"name":"w"}},"spec":{{"auth":{auth},"resyncInterval":"{interval}"}}}}"#);
            serde_json::from_str::<Workspace>(&object).ok().map(|workspace| workspace.spec.resync())
        };
        for odd in ["99999999999999999999h", "1s-5s", "-1h", "NaN", "1e400s", "infh", &"999999999999999h".repeat(6)] {
            assert_eq!(read(odd), None, "{odd}");
        }
        // Objects stored before the rule existed.
        for (interval, seconds) in
            [("1h30m", 5400), ("0s", 5), ("1ms", 5), ("999999999999999h", 86_400), ("5m0.5s", 300)]
        {
            assert_eq!(read(interval).map(|it| it.as_secs()), Some(seconds), "{interval}");
        }
        assert_eq!(read("500ms"), Some(Duration::from_secs(5)));
    }
}
