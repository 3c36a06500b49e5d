//! Generates the API reference from the CRDs.

use serde_json::{Map, Value};

use super::cell;
use crate::demo::Result;

const INTRODUCTION: &str = "# API

<!-- Made by `cargo xtask docs` from crds/workflows.mistral.ai.yaml. Do not edit. -->

Every field of the three kinds, as `kubectl explain` shows them. All kinds are of the group `workflows.mistral.ai`, version
`v1alpha1`, namespaced, and in the category `mistral`: `kubectl get mistral` lists them all.
[The kinds](kinds.md) has annotated examples.
";

pub fn page(crds: &str) -> Result<String> {
    let mut page = INTRODUCTION.to_owned();
    for crd in crds.split("---\n").filter(|crd| !crd.trim().is_empty()) {
        let crd: Value = serde_saphyr::from_str(crd).map_err(|error| format!("A CRD cannot be read: {error}."))?;
        kind(&crd, &mut page);
    }
    Ok(page)
}

fn kind(crd: &Value, page: &mut String) {
    let names = &crd["spec"]["names"];
    let version = &crd["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"];
    let kind = text(&names["kind"]);
    let short: Vec<String> = list(&names["shortNames"]).map(|name| format!("`{}`", text(name))).collect();
    let columns = |wide: bool| {
        let shown = list(&version["additionalPrinterColumns"]).filter(|column| column["priority"].is_number() == wide);
        shown.map(|column| text(&column["name"]).to_owned()).collect::<Vec<_>>().join(", ")
    };
    *page += &format!(
        "\n## {kind}\n\n{}\n\nPlural `{}`, short name {}. `kubectl get` shows: {}; with `-o wide` also: {}.\n",
        text(&schema["description"]),
        text(&names["plural"]),
        short.join(", "),
        columns(false),
        columns(true),
    );
    let selectable: Vec<String> = list(&version["selectableFields"])
        .map(|field| format!("`{}`", text(&field["jsonPath"]).trim_start_matches('.')))
        .collect();
    if !selectable.is_empty() {
        *page += &format!("`--field-selector` takes: {}.\n", selectable.join(", "));
    }
    let mut rules = rules_of("the resource", schema);
    for part in ["spec", "status"] {
        let mut rows = Vec::new();
        rules.extend(rules_of(&format!("the {part}"), &schema["properties"][part]));
        fields(&schema["properties"][part], "", &mut rows, &mut rules);
        *page += &format!("\n### {kind} {part}\n\n| Field | Type | Default | Meaning |\n|---|---|---|---|\n");
        *page += &rows.concat();
    }
    // A rule about one of several values of a field occurs once per value.
    rules.dedup();
    if !rules.is_empty() {
        *page +=
            &format!("\n### {kind} rules\n\nThe API server refuses a resource that breaks a rule, in these words:\n\n");
        *page += &rules.concat();
    }
}

/// Adds a row for each field of an object, and for each nested field.
fn fields(object: &Value, path: &str, rows: &mut Vec<String>, rules: &mut Vec<String>) {
    let empty = Map::new();
    let required: Vec<&str> = list(&object["required"]).map(text).collect();
    for (name, field) in object["properties"].as_object().unwrap_or(&empty) {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        let default = match field.get("default") {
            _ if required.contains(&name.as_str()) => "required".to_owned(),
            Some(default) => format!("`{default}`").replace('"', ""),
            None => String::new(),
        };
        let meaning = [text(&field["description"]).to_owned(), bounds(field)].join(" ");
        rows.push(format!("| `{path}` | {} | {default} | {} |\n", type_of(field), cell(&meaning)));
        rules.extend(rules_of(&format!("`{path}`"), field));
        // The fields of a condition are defined by Kubernetes.
        if name == "conditions" {
            continue;
        }
        fields(field, &path, rows, rules);
        rules.extend(rules_of(&format!("each of `{path}`"), &field["items"]));
        fields(&field["items"], &format!("{path}[]"), rows, rules);
    }
}

fn rules_of(of: &str, schema: &Value) -> Vec<String> {
    let messages = list(&schema["x-kubernetes-validations"]).map(|rule| text(&rule["message"]));
    messages.filter(|message| !message.is_empty()).map(|message| format!("- {of}: {message}\n")).collect()
}

fn type_of(field: &Value) -> String {
    match text(&field["type"]) {
        "array" => format!("[]{}", type_of(&field["items"])),
        "object" if field["additionalProperties"].is_object() => {
            format!("map of {}", type_of(&field["additionalProperties"]))
        }
        "" => "any".to_owned(),
        type_ => type_.to_owned(),
    }
}

/// The constraints on a value besides its type.
fn bounds(field: &Value) -> String {
    let mut said = Vec::new();
    let values: Vec<String> =
        list(&field["enum"]).filter_map(Value::as_str).map(|value| format!("`{value}`")).collect();
    if !values.is_empty() {
        said.push(format!("One of {}.", values.join(", ")));
    }
    for (least, most, what) in
        [("minimum", "maximum", ""), ("minLength", "maxLength", " characters"), ("minItems", "maxItems", " items")]
    {
        match (field[least].as_f64(), field[most].as_f64()) {
            (Some(least), Some(most)) => said.push(format!("From {least} to {most}{what}.")),
            (Some(least), None) => said.push(format!("At least {least}{what}.")),
            (None, Some(most)) => said.push(format!("At most {most}{what}.")),
            (None, None) => {}
        }
    }
    if let Some(pattern) = field["pattern"].as_str() {
        said.push(format!("Matches `{pattern}`."));
    }
    said.join(" ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}
