//! Manifests for the workflows of a Mistral workspace: applying them changes nothing.

use std::collections::HashSet;

use serde_json::{Value, json};

use super::discovery::safe_name;
use super::lists::read_workflows;
use crate::mistral::wire::{Id, Workflow};
use crate::mistral::{Client, Error, WorkflowFilter};

/// Which workflows to import.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// With all of these tags.
    pub tags: Vec<String>,
    /// With this text in the name or display name, ignoring case.
    pub name: Option<String>,
    /// Only archived workflows, or only others.
    pub archived: Option<bool>,
}

/// What to write into the manifests.
#[derive(Clone, Debug)]
pub struct Target {
    /// The Workspace that the resources refer to.
    pub workspace: String,
    /// The namespace of the resources; none to leave it open until they are applied.
    pub namespace: Option<String>,
}

/// The manifests, and remarks about them.
#[derive(Clone, Debug, Default)]
pub struct Imported {
    /// Name and content of each resource.
    pub manifests: Vec<(String, Value)>,
    /// What was left out and why, one sentence each.
    pub remarks: Vec<String>,
}

/// Makes a manifest for each wanted workflow. This only reads lists.
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
            imported
                .remarks
                .push(format!("{}: left out, because it is {whose} and the operator cannot change it.", row.name));
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

/// The manifest for one workflow, and the name of its resource. `in_chat` is none if the list does not show it.
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
            remarks.push(format!("{}: its {field} is left out, because a Workflow takes {limit}.", row.name));
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

/// The manifest as YAML that every parser reads in the same way.
///
/// kubectl's parser refuses block scalars that others accept, such as one that begins with a blank line with a tab, and
/// takes more characters for line breaks. So a text that is not plain is written in quotes, as in JSON.
pub fn yaml(manifest: &Value) -> String {
    // The mark that replaces a text must not occur in another text.
    let (all, mut mark) = (manifest.to_string(), "quoted".to_owned());
    while all.contains(&mark) {
        mark.push('q');
    }
    let (mut marked, mut quoted) = (manifest.clone(), Vec::new());
    take_out(&mut marked, &mark, &mut quoted);
    let written = serde_saphyr::to_string(&marked).map(|text| put_back(&text, &mark, &quoted));
    match written {
        Ok(text) if serde_saphyr::from_str::<Value>(&text).is_ok_and(|read| read == *manifest) => text,
        // JSON is YAML, too.
        Ok(_) | Err(_) => format!("{manifest:#}\n"),
    }
}

/// Replaces all texts that are not plain by marks.
fn take_out(value: &mut Value, mark: &str, quoted: &mut Vec<String>) {
    match value {
        Value::String(text) if !is_plain(text) => {
            quoted.push(in_quotes(text));
            *text = format!("{mark}{}", quoted.len());
        }
        Value::Array(items) => items.iter_mut().for_each(|item| take_out(item, mark, quoted)),
        Value::Object(fields) => fields.values_mut().for_each(|field| take_out(field, mark, quoted)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn put_back(text: &str, mark: &str, quoted: &[String]) -> String {
    let mut parts = text.split(mark);
    let mut whole = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let digits = part.bytes().take_while(u8::is_ascii_digit).count();
        let number = part[..digits].parse::<usize>().unwrap_or_default();
        whole.push_str(quoted.get(number.wrapping_sub(1)).map_or("", String::as_str));
        whole.push_str(&part[digits..]);
    }
    whole
}

/// Whether all YAML writers and parsers agree on a text: it has only printable characters and line breaks, no white
/// space where lines begin and end, and no empty line where it begins or ends.
fn is_plain(text: &str) -> bool {
    let whole = text.strip_suffix('\n').unwrap_or(text);
    let blank = whole.is_empty() || whole.starts_with('\n') || whole.ends_with('\n');
    !blank && whole.split('\n').all(|line| line.trim() == line) && text.chars().all(|c| c == '\n' || is_printable(c))
}

/// Whether YAML allows the character unescaped and no parser takes it for a line break.
fn is_printable(c: char) -> bool {
    !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

fn in_quotes(text: &str) -> String {
    let json = Value::from(text).to_string();
    let escaped = json.chars().map(|c| match c {
        c if is_printable(c) => c.to_string(),
        // JSON's writer does not escape those beyond ASCII; all are in the Basic Multilingual Plane.
        c => format!("\\u{:04x}", u32::from(c)),
    });
    escaped.collect()
}

/// Whether a resource can have this name and needs no identifier to refer to the workflow of this name.
fn is_resource_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=128).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('-') && !name.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(text: &str) -> Value {
        let spec = json!({ "description": text, "displayName": text, "tags": [text, "quoted1"] });
        json!({ "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow", "metadata": { "name": "w" }, "spec": spec })
    }

    #[test]
    fn texts_that_are_hard_to_write_are_quoted_and_others_stay_readable() {
        for (text, written) in [
            ("\t\nfirst", r#"description: "\t\nfirst""#),
            ("\n\tsecond", r#"description: "\n\tsecond""#),
            ("a\u{85}b\u{2028}c", r#"description: "a\u0085b\u2028c""#),
            ("\u{feff}a\u{7f}", r#"description: "\ufeffa\u007f""#),
            ("  a\n b", r#"description: "  a\n b""#),
            ("one\ntwo\n", "description: |\n    one\n    two\n"),
            ("what it does", "description: what it does\n"),
        ] {
            let yaml = yaml(&of(text));
            assert!(yaml.contains(written), "{text:?}: {yaml}");
            assert!(yaml.starts_with("apiVersion: "), "{yaml}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_as_it_was(text in "([ \t\n\r]|[-:#'\"|>%@&*!?{}\\[\\],\\\\~=]|quoted[0-9]|yes|null|0x1f|1e3|é|\u{85}|\u{2028}|\u{feff}|\u{7f}|\u{0}|\u{1b}|\u{1f600}|a|\\PC){0,12}") {
            let manifest = of(&text);
            let yaml = yaml(&manifest);
            prop_assert_eq!(serde_saphyr::from_str::<Value>(&yaml).unwrap(), manifest);
            // The fallback to JSON was not needed.
            prop_assert!(yaml.starts_with("apiVersion: "), "{}", yaml);
        }
    }
}
