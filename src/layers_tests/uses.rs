//! Which file of this crate uses which other, read from the sources.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// A path from the root of the crate, or a module.
pub type Segments = Vec<String>;

/// The sources of the crate, and what they use.
#[derive(Default)]
pub struct Sources {
    /// The file of each module.
    modules: BTreeMap<Segments, String>,
    /// The names that `use` brings into a module, and what each stands for. The modules below may use them as well.
    imported: BTreeMap<(Segments, String), Segments>,
    /// What each file uses, by the paths in it, outside its tests and in them.
    used: BTreeMap<String, [BTreeSet<Segments>; 2]>,
}

impl Sources {
    /// Reads all sources of the library.
    pub fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        Self::of(texts(&root).into_iter().filter(|(file, _)| file != "main.rs"))
    }

    /// The sources with these names and texts.
    pub fn of(texts: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut all = Self::default();
        let mut parts = Vec::new();
        for (file, text) in texts {
            let module = module(&file);
            let text = without_comments(&text);
            // The module may be visible to others' tests.
            let whole = text.replace("#[cfg(test)]\npub(super) mod tests {", "#[cfg(test)]\nmod tests {");
            let (code, tests) = whole.split_once("#[cfg(test)]\nmod tests {").unwrap_or((&whole, ""));
            let in_tests = [module.clone(), vec!["tests".to_owned()]].concat();
            parts.push((file.clone(), 0, module.clone(), code.to_owned()));
            parts.push((file.clone(), 1, in_tests, tests.to_owned()));
            all.modules.insert(module, file);
        }
        for (file, part, module, text) in &parts {
            for (path, name) in declarations(text).0.into_iter().flat_map(imports) {
                let Some(path) = all.absolute(module, &path) else { continue };
                all.imported.insert((module.clone(), name), path.clone());
                all.used.entry(file.clone()).or_default()[*part].insert(path);
            }
        }
        for (file, part, module, text) in &parts {
            let paths = declarations(text).1.into_iter().flat_map(inline);
            let paths: BTreeSet<_> = paths.filter_map(|path| all.absolute(module, path)).collect();
            all.used.entry(file.clone()).or_default()[*part].extend(paths);
        }
        all
    }

    /// The files, each with the paths from the root that it uses, also in its tests.
    pub fn paths(&self) -> impl Iterator<Item = (&String, impl Iterator<Item = &Segments>)> {
        self.used.iter().map(|(file, used)| (file, used.iter().flatten()))
    }

    /// The files that each file uses. Tests are left out: they may use what is above them.
    pub fn files(&self) -> BTreeMap<&str, BTreeSet<&str>> {
        let is_test = |file: &str| file.split(['/', '.']).any(|part| part == "tests" || part.ends_with("_tests"));
        let others = |file: &str, [code, _]: &'_ [BTreeSet<Segments>; 2]| {
            code.iter().filter_map(|path| self.file(path)).filter(|other| *other != file).collect()
        };
        let files = self.used.iter().filter(|(file, _)| !is_test(file));
        files.map(|(file, used)| (file.as_str(), others(file, used))).collect()
    }

    /// The path from the root of a path in a module; none if it leads out of the crate.
    fn absolute(&self, module: &[String], path: &str) -> Option<Segments> {
        let path: Segments = path.split("::").map(str::to_owned).collect();
        let up = path.iter().take_while(|segment| *segment == "super").count();
        match path[0].as_str() {
            "crate" => Some(path[1..].to_vec()),
            "super" => Some([&module[..module.len().checked_sub(up)?], &path[up..]].concat()),
            "self" => Some([module, &path[1..]].concat()),
            first => {
                let inner = [module, &[first.to_owned()]].concat();
                let is_ours =
                    self.modules.contains_key(&inner) || self.imported.contains_key(&(module.to_vec(), first.into()));
                is_ours.then(|| [module, &path[..]].concat())
            }
        }
    }

    /// The file that defines what a path names. Imports on the way are followed.
    fn file(&self, path: &[String]) -> Option<&str> {
        let within = (0..=path.len()).rev().find(|length| self.modules.contains_key(&path[..*length]))?;
        let (module, rest) = path.split_at(within);
        let imported = rest.first().and_then(|name| self.imported.get(&(module.to_vec(), name.clone())));
        match imported {
            Some(target) if target[..] != *path => self.file(&[target, &rest[1..]].concat()),
            _ => self.modules.get(module).map(String::as_str),
        }
    }
}

/// The sources in this folder: their paths in it, and their texts.
pub fn texts(folder: &Path) -> Vec<(String, String)> {
    let mut all = Vec::new();
    paths(folder, &mut all);
    let read = |path: PathBuf| {
        let file = path.strip_prefix(folder).unwrap().to_str().unwrap().to_owned();
        (file, fs::read_to_string(path).unwrap())
    };
    all.into_iter().map(read).collect()
}

fn paths(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            paths(&path, all);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            all.push(path);
        }
    }
}

/// The module of a file.
fn module(file: &str) -> Segments {
    let path = file.strip_suffix(".rs").unwrap();
    let path = path.strip_suffix("mod").map_or(path, |folder| folder.trim_end_matches('/'));
    path.split('/').filter(|segment| *segment != "lib").map(str::to_owned).collect()
}

/// The text without comments. Two slashes after a colon belong to an address.
fn without_comments(text: &str) -> String {
    let code = |line: &str| {
        let comment = line.match_indices("//").find(|(at, _)| !line[..*at].ends_with(':'));
        line[..comment.map_or(line.len(), |(at, _)| at)].to_owned()
    };
    text.lines().map(code).collect::<Vec<_>>().join("\n")
}

/// The trees of the `use` declarations, and the code between them.
fn declarations(code: &str) -> (Vec<&str>, Vec<&str>) {
    let (mut trees, mut others) = (Vec::new(), Vec::new());
    let mut rest = code;
    while let Some((before, after)) = rest.split_once("use ") {
        others.push(before);
        rest = after;
        let line = before.rsplit('\n').next().unwrap_or_default().trim();
        if line.is_empty() || line == "pub" || (line.starts_with("pub(") && line.ends_with(')')) {
            let (tree, after) = after.split_once(';').unwrap_or((after, ""));
            trees.push(tree);
            rest = after;
        }
    }
    others.push(rest);
    (trees, others)
}

/// The paths of a `use` declaration, without braces, each with the name that it brings.
fn imports(tree: &str) -> impl Iterator<Item = (String, String)> {
    let tree = tree.split_whitespace().collect::<Vec<_>>().join(" ");
    leaves(&tree).into_iter().map(|leaf| {
        let (path, alias) = leaf.split_once(" as ").map_or((leaf.as_str(), None), |(path, it)| (path, Some(it)));
        let path = path.strip_suffix("::self").unwrap_or(path);
        let name = alias.unwrap_or_else(|| path.rsplit("::").next().unwrap_or_default());
        (path.to_owned(), name.to_owned())
    })
}

/// The paths of one tree: `a::{b, c::{d}}` has two.
fn leaves(tree: &str) -> Vec<String> {
    let Some((stem, branches)) = tree.split_once('{') else { return vec![tree.trim().to_owned()] };
    let branches = branches.rsplit_once('}').map_or(branches, |(branches, _)| branches);
    let mut depth = 0;
    let branches = branches.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    let branches = branches.map(str::trim).filter(|branch| !branch.is_empty());
    branches.flat_map(|branch| leaves(&format!("{}{branch}", stem.trim_start()))).collect()
}

/// The paths in the code itself.
fn inline(code: &str) -> impl Iterator<Item = &str> {
    let words = code.split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':');
    words.map(|word| word.trim_end_matches(':')).filter(|word| word.contains("::") && !word.starts_with(':'))
}
