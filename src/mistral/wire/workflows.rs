//! Workflows: what the API says about one, a row of their list, and changes.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::{Deserialize, Serialize};

use super::lenient::{lenient_bool, lenient_strings, readable};
use crate::json;

/// How many characters of a description are read, shown and compared.
pub const MAX_DESCRIPTION: usize = 16_384;

/// A workflow. Rows of the list lack most fields. Only the response for a single workflow has `active`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Workflow {
    /// UUID.
    pub id: String,
    /// The name under which workers register it.
    pub name: String,
    /// The name that people see; equal to `name` when unset.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub display_name: Option<String>,
    /// Free text. The live API sends `""` when it is unset.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub description: Option<String>,
    /// `code`, or a kind that this version does not know.
    #[serde(default, rename = "type", deserialize_with = "json::lenient_string")]
    pub type_: Option<String>,
    /// UUID of the organization.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub customer_id: Option<String>,
    /// UUID of the Mistral workspace.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub workspace_id: Option<String>,
    /// Set when another workspace shares the workflow into this one.
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub shared_namespace: Option<String>,
    /// Whether the chat assistant offers it.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub available_in_chat_assistant: Option<bool>,
    /// Registered by the SDK for its own use.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub is_technical: Option<bool>,
    /// Archived workflows stay listed.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub archived: Option<bool>,
    /// Whether a live worker serves it.
    #[serde(default, deserialize_with = "lenient_bool")]
    pub active: Option<bool>,
    /// In the order given.
    #[serde(default, deserialize_with = "lenient_strings")]
    pub tags: Option<Vec<String>>,
    /// Rows of the list have this instead of `shared_namespace`.
    #[serde(default, deserialize_with = "json::lenient")]
    pub metadata: Option<WorkflowMetadata>,
}

/// Additional data in the rows of the list of workflows.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct WorkflowMetadata {
    /// See [`Workflow::shared_namespace`].
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub shared_namespace: Option<String>,
}

impl Workflow {
    /// Whether the SDK has registered the workflow for its own use. Rows of the list show this only by the name:
    /// `__parallel_execution__`.
    pub fn is_internal(&self) -> bool {
        is_internal(self.is_technical, &self.name)
    }

    /// Whether another Mistral workspace shares the workflow. Rows of the list say so in `metadata`.
    pub fn is_shared(&self) -> bool {
        let listed = self.metadata.as_ref().and_then(|metadata| metadata.shared_namespace.as_deref());
        self.shared_namespace.as_deref().or(listed).is_some_and(|namespace| !namespace.is_empty())
    }
}

fn is_internal(is_technical: Option<bool>, name: &str) -> bool {
    is_technical == Some(true) || name.starts_with("__")
}

/// A row of the list of workflows. There may be fifty thousand, so texts of any length are kept only as a fingerprint.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(from = "Described")]
pub struct WorkflowRow {
    /// See [`Workflow`] for all of these fields.
    pub id: String,
    /// The name under which workers register it.
    pub name: String,
    /// Registered by the SDK for its own use.
    pub is_technical: Option<bool>,
    /// Archived workflows stay listed.
    pub archived: Option<bool>,
    /// Fingerprint of its texts: see [`fingerprint`].
    pub texts: u64,
}

/// A row as the API sends it.
#[derive(Deserialize)]
struct Described {
    id: String,
    name: String,
    #[serde(default, deserialize_with = "json::lenient_string")]
    display_name: Option<String>,
    #[serde(default, deserialize_with = "json::lenient_string")]
    description: Option<String>,
    #[serde(default, deserialize_with = "lenient_bool")]
    is_technical: Option<bool>,
    #[serde(default, deserialize_with = "lenient_bool")]
    archived: Option<bool>,
    #[serde(default, deserialize_with = "lenient_strings")]
    tags: Option<Vec<String>>,
}

impl From<Described> for WorkflowRow {
    fn from(row: Described) -> Self {
        let Described { id, name, display_name, description, is_technical, archived, tags } = row;
        let texts = fingerprint(display_name.as_deref(), description.as_deref(), tags.as_deref());
        Self { id, name, is_technical, archived, texts }
    }
}

impl WorkflowRow {
    /// See [`Workflow::is_internal`].
    pub fn is_internal(&self) -> bool {
        is_internal(self.is_technical, &self.name)
    }
}

/// Fingerprint of a workflow's display name, description and tags. An absent value counts as empty.
pub fn fingerprint(display_name: Option<&str>, description: Option<&str>, tags: Option<&[String]>) -> u64 {
    let text = |text: Option<&str>| text.unwrap_or_default().chars().take(MAX_DESCRIPTION).collect::<String>();
    let mut hasher = DefaultHasher::new();
    (text(display_name), text(description), tags.unwrap_or_default()).hash(&mut hasher);
    hasher.finish()
}

/// Body of an update. A field that is left out stays unchanged; null is never sent.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct UpdateRequest {
    /// At most 128 characters, not blank.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// `""` clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Whether the chat assistant offers it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub available_in_chat_assistant: Option<bool>,
    /// Replaces the whole list.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

/// Answer to a bulk archive or unarchive.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
pub struct BulkOutcome {
    /// Workflows that are now in the requested state, including those that already were.
    #[serde(default, alias = "archived", alias = "unarchived", deserialize_with = "readable")]
    pub done: Vec<Option<Workflow>>,
    /// Workflows that are not in the requested state.
    #[serde(default, deserialize_with = "readable")]
    pub errored: Vec<BulkError>,
}

/// One workflow that a bulk call left unchanged.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct BulkError {
    /// UUID.
    pub workflow_id: String,
    #[serde(default, deserialize_with = "json::lenient_string")]
    pub message: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mistral::wire::lenient::odd;

    #[test]
    fn an_archived_flag_may_be_a_string() {
        let workflow: Workflow =
            serde_json::from_str(r#"{"id":"1","name":"n","archived":"false","active":"true"}"#).unwrap();
        assert_eq!((workflow.archived, workflow.active), (Some(false), Some(true)));
    }

    #[test]
    fn a_list_of_a_bulk_answer_that_is_no_list_costs_only_itself() {
        let workflow = r#"{"id":"1","name":"n"}"#;
        let error = r#"{"workflow_id":"2","message":"shared"}"#;
        for odd in ["null", "7", "{}", &odd(1000)] {
            let text = format!(r#"{{"archived":[{workflow},null],"errored":{odd}}}"#);
            let outcome: BulkOutcome = serde_json::from_str(&text).unwrap();
            assert_eq!((outcome.done.len(), outcome.errored.len()), (2, 0), "{odd:.40}");
            let text = format!(r#"{{"unarchived":{odd},"errored":[{error},{odd}]}}"#);
            let outcome: BulkOutcome = serde_json::from_str(&text).unwrap();
            assert_eq!((outcome.done.len(), outcome.errored.len()), (0, 1), "{odd:.40}");
        }
    }

    #[test]
    fn a_field_of_another_type_than_promised_is_as_good_as_absent() {
        let odd = odd(1000);
        let text = format!(
            r#"{{"id":"1","name":"n","display_name":7,"description":"caf\udce9","type":{odd},"tags":["a",{odd},"b\ud83d"],
            "archived":"true","active":{odd},"shared_namespace":{odd},"metadata":{{"shared_namespace":"s","x":{odd}}}}}"#
        );
        let workflow: Workflow = serde_json::from_str(&text).unwrap();
        assert_eq!((workflow.display_name.as_deref(), workflow.description.as_deref()), (None, Some("caf\u{fffd}")));
        assert_eq!(workflow.tags, Some(vec!["a".to_owned(), "b\u{fffd}".to_owned()]));
        assert_eq!((workflow.archived, workflow.active, workflow.is_shared()), (Some(true), None, true));
        let row: WorkflowRow = serde_json::from_str(&text).unwrap();
        let texts = fingerprint(None, workflow.description.as_deref(), workflow.tags.as_deref());
        assert_eq!((row.archived, row.texts), (Some(true), texts));
    }
}
