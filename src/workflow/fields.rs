//! The five fields of a workflow that a resource may manage, and how they compare.

use serde_json::{Value, json};

use crate::api::{WorkflowSpec, WorkflowStatus};
use crate::mistral::wire::{UpdateRequest, Workflow};
use crate::text::truncate;

/// Bytes of a value in a sentence, at most.
const MAX_VALUE: usize = 80;

/// A managed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    DisplayName,
    Description,
    Tags,
    AvailableInChatAssistant,
    Archived,
}

/// All managed fields, in the order of the spec.
pub const ALL: [Field; 5] =
    [Field::DisplayName, Field::Description, Field::Tags, Field::AvailableInChatAssistant, Field::Archived];

impl Field {
    /// Its name in the spec and in the status.
    pub fn name(self) -> &'static str {
        match self {
            Self::DisplayName => "displayName",
            Self::Description => "description",
            Self::Tags => "tags",
            Self::AvailableInChatAssistant => "availableInChatAssistant",
            Self::Archived => "archived",
        }
    }

    /// What the spec asks for; none if it leaves the field alone.
    pub fn wanted(self, spec: &WorkflowSpec) -> Option<Value> {
        match self {
            Self::DisplayName => spec.display_name.as_deref().map(text),
            Self::Description => spec.description.as_deref().map(text),
            Self::Tags => spec.tags.as_deref().map(|tags| json!(normal_tags(tags))),
            Self::AvailableInChatAssistant => spec.available_in_chat_assistant.map(Value::Bool),
            Self::Archived => spec.archived.map(Value::Bool),
        }
    }

    pub fn at_the_api(self, workflow: &Workflow) -> Value {
        match self {
            Self::DisplayName => text(workflow.display_name.as_deref().unwrap_or(&workflow.name)),
            Self::Description => text(workflow.description.as_deref().unwrap_or_default()),
            Self::Tags => json!(normal_tags(workflow.tags.as_deref().unwrap_or_default())),
            Self::AvailableInChatAssistant => Value::Bool(workflow.available_in_chat_assistant == Some(true)),
            Self::Archived => Value::Bool(workflow.archived == Some(true)),
        }
    }

    /// The value at the API when the status was written; none if it was not known.
    pub fn last_seen(self, status: &WorkflowStatus) -> Option<Value> {
        let name = status.name.as_deref()?;
        Some(match self {
            Self::DisplayName => text(status.display_name.as_deref().unwrap_or(name)),
            Self::Description => text(status.description.as_deref().unwrap_or_default()),
            Self::Tags => json!(normal_tags(status.tags.as_deref().unwrap_or_default())),
            Self::AvailableInChatAssistant => Value::Bool(status.available_in_chat_assistant == Some(true)),
            Self::Archived => Value::Bool(status.archived == Some(true)),
        })
    }
}

/// The fields whose value at the API differs from the spec.
pub fn differing(spec: &WorkflowSpec, workflow: &Workflow) -> Vec<Field> {
    let differs = |field: &Field| field.wanted(spec).is_some_and(|wanted| wanted != field.at_the_api(workflow));
    ALL.into_iter().filter(differs).collect()
}

/// The update that sets these fields; `archived` has calls of its own.
pub fn update(spec: &WorkflowSpec, fields: &[Field]) -> UpdateRequest {
    let has = |field| fields.contains(&field);
    UpdateRequest {
        display_name: spec.display_name.clone().filter(|_| has(Field::DisplayName)),
        description: spec.description.clone().filter(|_| has(Field::Description)),
        available_in_chat_assistant: spec.available_in_chat_assistant.filter(|_| has(Field::AvailableInChatAssistant)),
        tags: spec.tags.as_deref().map(normal_tags).filter(|_| has(Field::Tags)),
    }
}

/// The fields' names, for a sentence.
pub fn names(fields: &[Field]) -> String {
    fields.iter().map(|field| field.name()).collect::<Vec<_>>().join(", ")
}

/// A value, shortened for a sentence.
pub fn brief(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > MAX_VALUE {
        truncate(&mut text, MAX_VALUE);
        text.push('…');
    }
    text
}

/// White space at the ends may or may not survive at the API, and nobody sees it, so it is trimmed.
fn text(value: &str) -> Value {
    Value::String(value.trim().to_owned())
}

/// Tags as the API stores them: trimmed, each once, in order. A tag that the API would refuse is left for it to refuse.
fn normal_tags(tags: &[String]) -> Vec<String> {
    let mut normal: Vec<String> = Vec::with_capacity(tags.len());
    for tag in tags.iter().map(|tag| tag.trim().to_owned()) {
        if !normal.contains(&tag) {
            normal.push(tag);
        }
    }
    normal
}
