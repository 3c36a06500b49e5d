//! The values that an execution reads from, and writes into, ConfigMaps and Secrets of its own
//! namespace.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::schema::unchanged;

/// One value of the input, from a ConfigMap or Secret.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMapKeyRef) != has(self.secretKeyRef)")
        .message("name exactly one source: configMapKeyRef or secretKeyRef")
)]
pub struct InputFrom {
    /// A key of a ConfigMap. Set exactly one of configMapKeyRef and secretKeyRef.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map_key_ref: Option<KeyRef>,
    /// A key of a Secret. Set exactly one of configMapKeyRef and secretKeyRef.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_key_ref: Option<KeyRef>,
    /// Where the value goes in the input: a JSON Pointer (RFC 6901), such as /customer/token. The
    /// operator creates missing objects on the path. In a name, ~1 stands for a slash and ~0 for a
    /// tilde.
    #[schemars(length(max = 256))]
    // Rules and not a pattern, which the API server would quote instead of saying what is wrong.
    #[x_kube(
        validation = Rule::new("self.startsWith('/')").message("path must start with /, such as /customer/token"),
        validation = Rule::new("!self.startsWith('/') || self.matches('^(/([^/~]|~[01])+)+$')")
            .message("path must have a name after each /, and a ~ in a name only as ~0 or ~1")
    )]
    pub path: String,
    /// How to read the value: String takes it as text, Json parses it as JSON. Defaults to String.
    #[serde(default, rename = "as")]
    pub format: Format,
}

/// How to read a value.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Takes the value as text.
    #[default]
    String,
    /// Parses the value as JSON.
    Json,
}

/// One key of a ConfigMap or Secret in the resource's own namespace.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct KeyRef {
    /// Name of the ConfigMap or Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
    /// Key in the object.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[-._a-zA-Z0-9]+$"))]
    pub key: String,
}

/// Where to store a result.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.configMap) != has(self.secret)")
        .message("name exactly one place for the result: configMap or secret"),
    validation = Rule::new(unchanged("configMap")).message("result is immutable: create another WorkflowExecution for another run"),
    validation = Rule::new(unchanged("secret")).message("result is immutable: create another WorkflowExecution for another run")
)]
pub struct ResultTo {
    /// A ConfigMap. Set exactly one of configMap and secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ResultObject>,
    /// A Secret. Set exactly one of configMap and secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<ResultObject>,
}

/// The object that holds a result, as compact JSON under the key `result`.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ResultObject {
    /// Name of the object. The operator does not change an existing object that does not belong to
    /// this resource.
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub name: String,
}

/// A kind of object that holds values.
#[derive(Serialize, Deserialize, JsonSchema, Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A ConfigMap.
    ConfigMap,
    /// A Secret.
    Secret,
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ConfigMap => "ConfigMap",
            Self::Secret => "Secret",
        })
    }
}

/// The object that holds a result.
#[derive(KubeSchema, Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct ResultRef {
    /// ConfigMap or Secret.
    pub kind: Kind,
    /// Name of the object, in this namespace.
    pub name: String,
}

impl InputFrom {
    /// The kind of the object, and the key in it. The API server has checked that exactly one
    /// source is set.
    pub fn source(&self) -> Option<(Kind, &KeyRef)> {
        let config_map = self.config_map_key_ref.as_ref().map(|at| (Kind::ConfigMap, at));
        config_map.or(self.secret_key_ref.as_ref().map(|at| (Kind::Secret, at)))
    }
}

impl ResultTo {
    /// The kind and name of the object.
    pub fn object(&self) -> Option<(Kind, &str)> {
        let config_map = self.config_map.as_ref().map(|object| (Kind::ConfigMap, object.name.as_str()));
        config_map.or(self.secret.as_ref().map(|object| (Kind::Secret, object.name.as_str())))
    }
}
