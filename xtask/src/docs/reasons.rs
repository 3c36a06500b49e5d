//! Generates the reference of conditions and reasons from the comments of the constants.

use super::cell;
use crate::demo::Result;

const INTRODUCTION: &str = "# Conditions and reasons

<!-- Made by `cargo xtask docs` from src/api/reasons.rs. Do not edit. -->

Every reason of a condition or an Event, what it means, and what to do about it. Reasons are part of the API: scripts and
alerts may match on them. The message of the condition says more.

- `Started`, `Reconciling` and `Stalled` repeat the reason of `Ready`. `Reconciling` means that the operator is at work, and
  `Stalled` that it needs a person.
- An Event reports each change of the reason of `Ready`, except to `Running` and `Updating`.
- [The kinds](kinds.md) lists the types of conditions; [troubleshooting](../how-to/troubleshooting.md) covers what has no
  reason.
";

/// The modules of the file, and their names on the page.
const KINDS: [(&str, &str); 4] =
    [("workspace", "Workspace"), ("workflow", "Workflow"), ("execution", "WorkflowExecution"), ("any", "Every kind")];

/// A reason and its comment.
struct Reason {
    module: String,
    name: String,
    meaning: String,
    on: String,
    what_to_do: String,
}

pub fn page(source: &str) -> Result<String> {
    let reasons = parse(source)?;
    let mut page = INTRODUCTION.to_owned();
    for (module, title) in KINDS {
        page += &format!("\n## {title}\n\n| Reason | On | Meaning | What to do |\n|---|---|---|---|\n");
        for reason in reasons.iter().filter(|reason| reason.module == module) {
            let Reason { name, meaning, on, what_to_do, .. } = reason;
            let anchor = format!("{title}-{name}").to_lowercase().replace(' ', "-");
            let [meaning, on, what_to_do] = [meaning, on, what_to_do].map(|text| cell(text));
            page += &format!("| <a id=\"{anchor}\"></a>`{name}` | {on} | {meaning} | {} |\n", capital(&what_to_do));
        }
    }
    match reasons.iter().find(|reason| KINDS.iter().all(|(module, _)| reason.module != *module)) {
        Some(reason) => Err(format!("The module {} of the reasons has no place on the page.", reason.module).into()),
        None => Ok(page),
    }
}

fn parse(source: &str) -> Result<Vec<Reason>> {
    let (mut reasons, mut module, mut comment) = (Vec::new(), String::new(), Vec::new());
    for line in source.lines() {
        let line = line.trim();
        if let Some(text) = line.strip_prefix("///") {
            comment.push(text.trim());
            continue;
        }
        if let Some(name) = line.strip_prefix("pub mod ") {
            name.trim_end_matches(" {").clone_into(&mut module);
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
            reasons.push(Reason { module: module.clone(), name, meaning, on, what_to_do });
        }
        comment.clear();
    }
    Ok(reasons)
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map(|first| first.to_uppercase().chain(letters).collect()).unwrap_or_default()
}
