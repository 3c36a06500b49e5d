//! Registrations: the versions of a workflow.

use serde::{Deserialize, Deserializer};

use super::lenient::lenient_bool;
use crate::json::{self, Json, Rows};

/// A row of the list of registrations without its schemas, which may be far larger than everything else.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct RegistrationRow {
    /// UUID.
    pub id: String,
    /// UUID of its workflow.
    pub workflow_id: String,
}

/// One version of a workflow, as one deployment registered it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Registration {
    /// UUID.
    pub id: String,
    /// UUID of its workflow.
    pub workflow_id: String,
    /// Schemas and handlers, as the worker registered them.
    #[serde(default, deserialize_with = "json::lenient")]
    pub definition: Option<Definition>,
    /// The deployment that registered it.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub deployment_name: Option<String>,
    /// Whether a live worker serves it. Only the response for a single registration has this.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub active: Option<bool>,
}

/// What a worker declares. Schemas have any depth and length, and hold any number and string.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct Definition {
    /// JSON Schema of the input.
    #[serde(default, deserialize_with = "json::any")]
    pub input_schema: Option<Json>,
    /// JSON Schema of the result.
    #[serde(default, deserialize_with = "json::any")]
    pub output_schema: Option<Json>,
    /// Names of the signals that a run takes.
    #[serde(default, deserialize_with = "names")]
    pub signals: Vec<String>,
    /// Names of the queries that a run answers.
    #[serde(default, deserialize_with = "names")]
    pub queries: Vec<String>,
    /// Names of the updates that a run takes.
    #[serde(default, deserialize_with = "names")]
    pub updates: Vec<String>,
    /// How long a run may take, in seconds.
    #[serde(default, deserialize_with = "json::lenient")]
    pub execution_timeout: Option<f64>,
    /// Whether a run acts on behalf of a user.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub on_behalf_of: Option<bool>,
}

/// The names of handlers. Their schemas, which may be anything, are skipped.
fn names<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    struct Handler {
        #[serde(default, deserialize_with = "json::lenient_string")]
        name: Option<String>,
    }
    let handlers: Option<Rows<Handler>> = json::lenient(deserializer)?;
    Ok(handlers.into_iter().flat_map(|handlers| handlers.rows).filter_map(|handler| handler.name).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mistral::wire::lenient::odd;

    #[test]
    fn whatever_a_worker_registers_its_registration_can_be_read() {
        for levels in [0, 119, 1000, 100_000] {
            let odd = odd(levels);
            let text = format!(
                r#"{{"id":"r","workflow_id":"w","deployment_name":{odd},"active":{odd},"new":{odd},"workflow":{odd},"definition":
                {{"input_schema":{odd},"output_schema":{odd},"signals":[{{"name":"stop","input_schema":{odd}}},{odd},7],
                "queries":{odd},"updates":[],"execution_timeout":1e400,"on_behalf_of":{odd},"plugin_metadata":{odd}}}}}"#
            );
            let read: Registration = serde_json::from_str(&text).unwrap();
            assert_eq!((read.id.as_str(), read.deployment_name, read.active), ("r", None, None));
            let definition = read.definition.unwrap();
            assert_eq!(definition.input_schema.unwrap().text(), odd);
            assert_eq!(definition.signals, ["stop"]);
            assert_eq!((definition.execution_timeout, definition.on_behalf_of), (None, None));
        }
        let bare: Registration = serde_json::from_str(r#"{"id":"r","workflow_id":"w","definition":1e400}"#).unwrap();
        assert_eq!(bare.definition, None);
    }
}
