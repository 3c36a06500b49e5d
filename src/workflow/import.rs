//! Manifests for the workflows that a Mistral workspace has: applying them changes nothing.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::discovery::safe_name;
use super::lists::read_workflows;
use crate::mistral::wire::{Id, Workflow};
use crate::mistral::{Client, Error, WorkflowFilter};

/// Which workflows.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// With all of these tags.
    pub tags: Vec<String>,
    /// With this text in the name or display name, in whichever case.
    pub name: Option<String>,
    /// Only archived ones, or only others.
    pub archived: Option<bool>,
}

/// What to write into the manifests.
#[derive(Clone, Debug)]
pub struct Target {
    /// The Workspace that the resources refer to.
    pub workspace: String,
    /// The namespace of the resources; none to leave it to whoever applies them.
    pub namespace: Option<String>,
}

/// The manifests, and what is to be said about them.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Names of the resources, and the resources.
    pub manifests: Vec<(String, Value)>,
    /// What was left out, and why: a sentence each.
    pub remarks: Vec<String>,
}

/// Reads the lists, and nothing else, and makes a manifest for each workflow that is wanted.
///
/// # Errors
/// See [`Error`].
pub async fn import(client: &Client, wanted: &Wanted, target: &Target) -> Result<Imported, Error> {
    let all = WorkflowFilter { archived: wanted.archived, tags: wanted.tags.clone(), ..Default::default() };
    let (mut rows, mut in_chat) = (Vec::<Workflow>::new(), HashSet::new());
    let gap = read_workflows(client, "workflows", &all, &mut 0, |row| rows.push(row)).await?;
    let of_chat = WorkflowFilter { available_in_chat_assistant: Some(true), ..all };
    let name = "workflows in the chat assistant";
    let chat_gap = read_workflows(client, name, &of_chat, &mut 0, |row: Id| in_chat.extend([row.id])).await?;
    let mut imported = Imported::default();
    imported.remarks.extend(gap.map(|gap| format!("Mistral's list of workflows {}: others may be missing.", gap.why)));
    imported.remarks.extend(
        chat_gap
            .as_ref()
            .map(|gap| format!("Mistral's list of {name} {}: availableInChatAssistant is left out.", gap.why)),
    );
    let chat_is_known = chat_gap.is_none();
    for row in rows.iter().filter(|row| is_wanted(row, wanted)) {
        if row.is_internal() || row.is_shared() {
            let whose = if row.is_internal() { "the SDK's own" } else { "shared by another workspace" };
            imported.remarks.push(format!("{}: left out, it is {whose} and cannot be changed from here.", row.name));
            continue;
        }
        let (name, manifest) = {
            let in_chat = chat_is_known.then(|| in_chat.contains(&row.id));
            manifest(row, in_chat, target, &mut imported.remarks)
        };
        imported.manifests.push((name, manifest));
    }
    imported.manifests.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(imported)
}

fn is_wanted(row: &Workflow, wanted: &Wanted) -> bool {
    let Some(text) = wanted.name.as_ref().map(|text| text.to_lowercase()) else { return true };
    let has = |name: &str| name.to_lowercase().contains(&text);
    has(&row.name) || row.display_name.as_deref().is_some_and(has)
}

/// The manifest for one workflow, and the name of its resource. `in_chat` is none where the list does not tell.
pub fn manifest(row: &Workflow, in_chat: Option<bool>, target: &Target, remarks: &mut Vec<String>) -> (String, Value) {
    let mut spec = json!({ "archived": row.archived == Some(true) });
    if let Some(in_chat) = in_chat {
        spec["availableInChatAssistant"] = json!(in_chat);
    }
    if target.workspace != "default" {
        spec["workspaceRef"] = json!({ "name": target.workspace });
    }
    let name = if is_resource_name(&row.name) {
        row.name.clone()
    } else {
        spec["identifier"] = json!(row.name);
        safe_name(&row.name, &row.id)
    };
    let mut set = |field: &str, value: Value, fits: bool, limit: &str| {
        if fits {
            spec[field] = value;
        } else {
            remarks.push(format!("{}: its {field} is left out, a Workflow takes {limit}.", row.name));
        }
    };
    let text = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if let Some(display) = text(&row.display_name).filter(|display| *display != row.name) {
        let fits = !display.trim().is_empty() && display.chars().count() <= 128;
        set("displayName", json!(display), fits, "at most 128 characters that are not all blank");
    }
    if let Some(description) = text(&row.description) {
        let fits = description.chars().count() <= 16_384;
        set("description", json!(description), fits, "at most 16384 characters");
    }
    if let Some(tags) = row.tags.clone().filter(|tags| !tags.is_empty()) {
        let fits = |tag: &String| !tag.trim().is_empty() && tag.chars().count() <= 100;
        let all_fit = tags.len() <= 64 && tags.iter().all(fits);
        set("tags", json!(tags), all_fit, "at most 64 of at most 100 characters each");
    }
    let mut metadata = json!({ "name": name });
    if let Some(namespace) = &target.namespace {
        metadata["namespace"] = json!(namespace);
    }
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow", "metadata": metadata, "spec": spec,
    });
    (name, object)
}

/// Whether a resource may have this name and, without an identifier, mean the workflow of this name.
fn is_resource_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=128).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}
