//! The layers of the sources, enforced by a test: each module may use only what is below it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the bottom up. Modules of one layer do not know each other.
const LAYERS: [&[&str]; 8] = [
    // Texts and bytes.
    &["clock", "json", "answer_memory", "sync", "text"],
    // The budget of an API key.
    &["throttle"],
    // The resources; the Mistral API, without Kubernetes; what any controller needs, whatever it works on.
    &["api", "mistral", "platform"],
    // The kinds: each may use those before it.
    &["workspace"],
    &["workflow"],
    &["execution"],
    // The assembly, and the command line that starts it.
    &["operator"],
    &["cli"],
];

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|modules| modules.contains(&module))
}

fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

/// The top-level modules of this crate that a source names by `crate::`, alone or in braces.
fn used(source: &str) -> BTreeSet<String> {
    let mut modules = BTreeSet::new();
    for (at, _) in source.match_indices("crate::") {
        let rest = &source[at + "crate::".len()..];
        let names = rest.strip_prefix('{').and_then(|rest| rest.split_once('}')).map_or(rest, |(names, _)| names);
        let is_group = rest.starts_with('{');
        for name in names.split(',').take(if is_group { usize::MAX } else { 1 }) {
            let name = name.trim().trim_start_matches('{');
            let end = name.find(|c: char| !c.is_ascii_lowercase() && c != '_').unwrap_or(name.len());
            modules.insert(name[..end].to_owned());
        }
    }
    modules
}

/// The sources in this folder: their paths in it, and their texts.
fn sources(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    files(folder, &mut all);
    let read = |path: PathBuf| {
        let file = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        (file, fs::read_to_string(path).unwrap())
    };
    all.into_iter().map(read).collect()
}

#[test]
fn each_module_uses_only_what_is_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let all = sources(&root);
    assert!(all.len() > 50, "the sources are not where they are looked for");
    let mut wrong = Vec::new();
    for (file, text) in all {
        let module = file.split(['/', '.']).next().unwrap();
        if ["lib", "main", "layers_tests"].contains(&module) {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer"));
        for name in used(&text) {
            let is_below = layer(&name).is_none_or(|theirs| theirs < own);
            if name != module && !is_below {
                wrong.push(format!("{file} uses crate::{name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn another_operator_that_takes_the_platform_changes_only_its_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/platform");
    for (file, text) in sources(&folder).into_iter().filter(|(file, _)| file != "names.rs") {
        for word in ["mistral", "workspace", "workflow"] {
            assert!(!text.to_lowercase().contains(word), "platform/{file} says \"{word}\"");
        }
    }
}
