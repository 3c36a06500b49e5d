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

/// Uses that still go up or across: the file, and the module that it names. The list may only get shorter.
const EXCEPTIONS: [(&str, &str); 3] =
    [("api/workspace.rs", "platform"), ("platform/decoded.rs", "api"), ("platform/watch/mod.rs", "api")];

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

#[test]
fn each_module_uses_only_what_is_below_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut all = Vec::new();
    files(&root, &mut all);
    assert!(all.len() > 50, "the sources are not where they are looked for");
    let mut exceptions: BTreeSet<(String, String)> =
        EXCEPTIONS.iter().map(|(file, module)| ((*file).to_owned(), (*module).to_owned())).collect();
    let mut wrong = Vec::new();
    for path in all {
        let file = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        let module = file.split(['/', '.']).next().unwrap();
        if ["lib", "main", "layers_tests"].contains(&module) {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer"));
        for name in used(&fs::read_to_string(&path).unwrap()) {
            let is_below = layer(&name).is_none_or(|theirs| theirs < own);
            if name != module && !is_below && !exceptions.remove(&(file.clone(), name.clone())) {
                wrong.push(format!("{file} uses crate::{name}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(exceptions.is_empty(), "these are no exceptions any more: {exceptions:?}");
}
