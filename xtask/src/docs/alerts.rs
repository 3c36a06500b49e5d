//! Generates the table of alerts from the chart's rules.

use serde::Deserialize;

use super::cell;
use crate::demo::Result;

/// Where the table stands on the page.
const BEGIN: &str =
    "<!-- Made by `cargo xtask docs` from charts/mistral-workflows-operator/files/alerts.yaml. Do not edit. -->\n\n";
const END: &str = "\n<!-- End of the table. -->\n";

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Alert>,
}

#[derive(Deserialize)]
struct Alert {
    alert: String,
    #[serde(default, rename = "for")]
    after: Option<String>,
    labels: Labels,
    annotations: Annotations,
}

#[derive(Deserialize)]
struct Labels {
    severity: String,
}

#[derive(Deserialize)]
struct Annotations {
    summary: String,
}

/// The page with a fresh table. Each alert links to its section, which the check of links misses if it is not there.
pub fn page(page: &str, yaml: &str) -> Result<String> {
    let parts = page.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or("The page of alerts has no place for the table.")?;
    let rules: Rules = serde_saphyr::from_str(yaml).map_err(|error| format!("The alerts cannot be read: {error}."))?;
    let mut table = "| Alert | Severity | After | Says |\n|---|---|---|---|\n".to_owned();
    for Alert { alert, after, labels, annotations } in rules.groups.into_iter().flat_map(|group| group.rules) {
        let (anchor, after) = (alert.to_lowercase(), after.as_deref().unwrap_or("at once"));
        let says = cell(&without_templates(&annotations.summary));
        table += &format!("| [{alert}](#{anchor}) | {} | {after} | {says} |\n", labels.severity);
    }
    Ok(before.to_owned() + BEGIN + &table + END + after)
}

/// A text for people, with `…` for what Prometheus fills in.
fn without_templates(text: &str) -> String {
    let mut parts = text.split("{{");
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "…" + part.split_once("}}").map_or("", |(_, rest)| rest))
}
