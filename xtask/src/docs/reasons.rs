//! Generates the reference of conditions and reasons from the comments of the constants.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::cell;
use crate::demo::Result;

const INTRODUCTION: &str = "# Conditions and reasons

<!-- Made by `cargo xtask docs` from src/api/reasons. Do not edit. -->

Every reason of a condition or an Event, what it means, and what to do about it. Reasons are part of the API: scripts and
alerts may match on them. The message of the condition says more.

- `Started`, `Reconciling` and `Stalled` repeat the reason of `Ready` and the first sentence of its message, of 200 characters at
  most. `Reconciling` means that the operator is at work, and `Stalled` that it needs a person.
- An Event reports each change of the reason of `Ready`, except to `Running`, `Queued` and `Updating`.
- Each reason has an anchor on this page: its kind and its name in lower case, such as
  `#workflowexecution-outcomeunknown`.
- [The kinds](kinds.md) lists the types of conditions; [troubleshooting](../how-to/troubleshooting.md) covers what has no
  reason.
";

/// The files of the reasons, and their names on the page.
const KINDS: [(&str, &str); 4] =
    [("workspace", "Workspace"), ("workflow", "Workflow"), ("execution", "WorkflowExecution"), ("any", "Every kind")];

/// A reason and its comment.
struct Reason {
    name: String,
    meaning: String,
    on: String,
    what_to_do: String,
}

/// Makes the page from the sources in this folder.
pub fn page(folder: &Path) -> Result<String> {
    let mut sources = BTreeMap::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let module = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        sources.insert(module, fs::read_to_string(&path)?);
    }
    sources.remove("mod");
    let mut page = INTRODUCTION.to_owned();
    for (module, title) in KINDS {
        let source = sources.remove(module).ok_or_else(|| format!("There is no file {module}.rs of reasons."))?;
        page += &format!("\n## {title}\n\n| Reason | On | Meaning | What to do |\n|---|---|---|---|\n");
        for Reason { name, meaning, on, what_to_do } in parse(&source)? {
            let anchor = format!("{title}-{name}").to_lowercase().replace(' ', "-");
            let [meaning, on, what_to_do] = [meaning, on, what_to_do].map(|text| cell(&text));
            page += &format!("| <a id=\"{anchor}\"></a>`{name}` | {on} | {meaning} | {} |\n", capital(&what_to_do));
        }
    }
    match sources.keys().next() {
        Some(module) => Err(format!("The module {module} of the reasons has no place on the page.").into()),
        None => Ok(page),
    }
}

fn parse(source: &str) -> Result<Vec<Reason>> {
    let (mut reasons, mut comment) = (Vec::new(), Vec::new());
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
            continue;
        }
        if let Some((_, value)) = line.split_once(": &str = \"") {
            let name = value.trim_end_matches("\";").to_owned();
            let comment = comment.join("\n");
            let parts: Vec<&str> = comment.split("\n\n").collect();
            let [meaning, on, what_to_do] = parts[..] else {
                return Err(format!("The comment of the reason {name} needs a meaning, `On:` and `Do:`.").into());
            };
            let (Some(on), Some(what_to_do)) = (on.strip_prefix("On: "), what_to_do.strip_prefix("Do: ")) else {
                return Err(format!("The comment of the reason {name} needs `On:` and then `Do:`.").into());
            };
            let [meaning, on, what_to_do] = [meaning, on, what_to_do].map(str::to_owned);
            reasons.push(Reason { name, meaning, on, what_to_do });
        }
        comment.clear();
    }
    Ok(reasons)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
