//! Generates the reference of chart values from values.yaml and its comments.

use super::cell;

const INTRODUCTION: &str = "# Chart values

<!-- Made by `cargo xtask docs` from charts/mistral-workflows-operator/values.yaml. Do not edit. -->

Every value of the chart with its default. The chart refuses a name that is not here. The chart's own README maps common
wishes to values, and [install](../how-to/install.md) explains the larger choices.

| Value | Default | Meaning |
|---|---|---|
";

pub fn page(yaml: &str) -> String {
    let mut page = INTRODUCTION.to_owned();
    let (mut parents, mut comment): (Vec<(usize, &str)>, Vec<&str>) = (Vec::new(), Vec::new());
    for line in yaml.lines() {
        let indent = line.len() - line.trim_start().len();
        let text = line.trim();
        if let Some(words) = text.strip_prefix('#') {
            comment.push(words.trim());
            continue;
        }
        // A comment that is followed by an empty line describes the file.
        let Some((name, value)) = text.split_once(':') else {
            comment.clear();
            continue;
        };
        parents.retain(|(of, _)| *of < indent);
        let path: Vec<&str> = parents.iter().map(|(_, name)| *name).chain([name]).collect();
        let value = value.trim();
        if !value.is_empty() || !comment.is_empty() {
            let default = if value.is_empty() { String::new() } else { format!("`{value}`") };
            page += &format!("| `{}` | {} | {} |\n", path.join("."), cell(&default), cell(&comment.join(" ")));
        }
        if value.is_empty() {
            parents.push((indent, name));
        }
        comment.clear();
    }
    page
}
