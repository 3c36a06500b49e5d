//! Generates the tables of chart values from values.yaml and its comments.

use super::cell;
use crate::demo::Result;

const INTRODUCTION: &str = "# Chart values

<!-- Made by `cargo xtask docs` from charts/mistral-workflows-operator/values.yaml. Do not edit. -->

Every value of the chart with its default. The chart refuses a name that is not here. The chart's own README maps common
wishes to values, and [install](../how-to/install.md) explains the larger choices.

";

/// Where the table stands in the chart's README.
const BEGIN: &str = "<!-- Made by `cargo xtask docs` from values.yaml. Do not edit. -->\n\n";
const END: &str = "\n<!-- End of the table. -->\n";

/// The page of the reference.
pub fn page(yaml: &str) -> Result<String> {
    Ok(INTRODUCTION.to_owned() + &table(yaml)?)
}

/// The chart's README with a fresh table.
pub fn readme(readme: &str, yaml: &str) -> Result<String> {
    let parts = readme.split_once(BEGIN).and_then(|(before, rest)| Some((before, rest.split_once(END)?.1)));
    let (before, after) = parts.ok_or("The chart's README has no place for the table of values.")?;
    Ok(before.to_owned() + BEGIN + &table(yaml)? + END + after)
}

fn table(yaml: &str) -> Result<String> {
    let mut table = "| Value | Default | Meaning |\n|---|---|---|\n".to_owned();
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
        if !value.is_empty() && comment.is_empty() {
            return Err(format!("values.yaml does not say what {} is.", path.join(".")).into());
        }
        if !value.is_empty() || !comment.is_empty() {
            let default = if value.is_empty() { String::new() } else { format!("`{value}`") };
            table += &format!("| `{}` | {} | {} |\n", path.join("."), cell(&default), cell(&comment.join(" ")));
        }
        if value.is_empty() {
            parents.push((indent, name));
        }
        comment.clear();
    }
    Ok(table)
}
