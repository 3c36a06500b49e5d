//! Checks every page: links and anchors resolve, tables are well-formed, named files exist.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use super::read;
use crate::demo::Result;

/// The maximum number of lines in the README.
const README: usize = 120;
/// The prefixes of paths that are looked up in the repository.
const FOLDERS: [&str; 8] = ["src/", "tests/", "xtask/", "charts/", "crds/", "examples/", "docs/", ".ci/"];

/// The begin of absolute links to files of the repository, which the chart has where it is published without them.
const REPOSITORY: &str = concat!(env!("CARGO_PKG_REPOSITORY"), "/blob/main/");

/// A page of Markdown.
struct Page {
    path: PathBuf,
    /// Each line outside of code blocks, with its number.
    lines: Vec<(usize, String)>,
    anchors: BTreeSet<String>,
}

/// One sentence for each fault.
pub fn faults(root: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut pages = BTreeMap::new();
    for path in paths(root)? {
        let page = Page::new(path.clone(), &read(root, &path.to_string_lossy())?);
        pages.insert(path, page);
    }
    for page in pages.values() {
        let mut say = |line: usize, what: String| faults.push(format!("{}:{line}: {what}", page.path.display()));
        page.tables(&mut say);
        for (number, line) in &page.lines {
            for target in links(line) {
                if let Err(why) = page.resolve(target, root, &pages) {
                    say(*number, format!("the link to {target} leads nowhere: {why}."));
                }
            }
            // The changelog may name files that no longer exist.
            for path in code(line).filter(|path| is_path(path) && page.path != Path::new("CHANGELOG.md")) {
                if !root.join(path).exists() {
                    say(*number, format!("there is no {path}."));
                }
            }
        }
    }
    let summary = read(root, "docs/SUMMARY.md")?;
    for path in pages.keys().filter_map(|path| path.strip_prefix("docs").ok()) {
        if path != Path::new("SUMMARY.md") && !summary.contains(&format!("({})", path.display())) {
            faults.push(format!("docs/SUMMARY.md lacks {}.", path.display()));
        }
    }
    let length = read(root, "README.md")?.lines().count();
    if length > README {
        faults.push(format!("README.md has {length} lines, and may have {README}: move some of it into docs."));
    }
    Ok(faults)
}

/// The paths of all pages, relative to the repository's root.
fn paths(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages: Vec<PathBuf> = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"].map(PathBuf::from).into();
    let mut folders = vec![PathBuf::from("docs"), PathBuf::from("charts")];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(root.join(&folder)).map_err(|error| format!("{}: {error}.", folder.display()))?;
        for entry in entries {
            let entry = entry.map_err(|error| format!("{}: {error}.", folder.display()))?;
            let path = folder.join(entry.file_name());
            if root.join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    Ok(pages)
}

impl Page {
    fn new(path: PathBuf, text: &str) -> Self {
        let (mut lines, mut anchors, mut in_code) = (Vec::new(), BTreeSet::new(), false);
        for (number, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
                // A code block is not part of a table.
                lines.push((number + 1, String::from("```")));
                continue;
            }
            if in_code {
                continue;
            }
            if line.starts_with('#') {
                let slug = slug(line);
                let used = (1..).map(|count| format!("{slug}-{count}"));
                let free = std::iter::once(slug.clone()).chain(used).find(|anchor| !anchors.contains(anchor));
                anchors.extend(free);
            }
            let named = line.split("<a id=\"").skip(1).filter_map(|rest| rest.split('"').next());
            anchors.extend(named.map(str::to_owned));
            lines.push((number + 1, line.to_owned()));
        }
        Self { path, lines, anchors }
    }

    /// Checks that empty lines surround each table, and that its rows have as many cells as its head.
    fn tables(&self, say: &mut impl FnMut(usize, String)) {
        let mut head = None;
        let mut before = String::new();
        for (number, line) in &self.lines {
            let is_row = line.trim_start().starts_with('|');
            match head {
                None if is_row => {
                    if !before.trim().is_empty() {
                        say(*number, "a table needs an empty line before it.".to_owned());
                    }
                    head = Some(cells(line));
                }
                Some(count) if is_row && cells(line) != count => {
                    say(*number, format!("the row has {} cells, and the table {count}.", cells(line)));
                }
                Some(_) if !is_row => {
                    if !line.trim().is_empty() {
                        say(*number, "a table needs an empty line after it.".to_owned());
                    }
                    head = None;
                }
                None | Some(_) => {}
            }
            before.clone_from(line);
        }
    }

    fn resolve(&self, target: &str, root: &Path, pages: &BTreeMap<PathBuf, Self>) -> std::result::Result<(), String> {
        let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
        let absolute = path.strip_prefix(REPOSITORY);
        let path = match absolute {
            Some(path) => PathBuf::from(path),
            None if path.is_empty() => self.path.clone(),
            None => normal(&self.path.parent().unwrap_or(Path::new("")).join(path)),
        };
        if !root.join(&path).exists() {
            return Err(format!("there is no {}", path.display()));
        }
        if absolute.is_none() && self.path.starts_with("docs") && !path.starts_with("docs") {
            return Err("the site has only what is in docs; name the file instead".to_owned());
        }
        match pages.get(&path) {
            Some(page) if !anchor.is_empty() && !page.anchors.contains(anchor) => {
                Err(format!("{} has no such heading", path.display()))
            }
            _ => Ok(()),
        }
    }
}

/// The targets of a line's links to files of the repository.
fn links(line: &str) -> Vec<&str> {
    let mut targets = Vec::new();
    // Every second part is code.
    for text in line.split('`').step_by(2) {
        let ends = text.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        targets.extend(
            ends.map(|(target, _)| target).filter(|target| !target.contains("://") || target.starts_with(REPOSITORY)),
        );
    }
    // If the text of a link contains code, the link is split there, and its target is in the part after the code.
    targets
}

/// The pieces of code in a line.
fn code(line: &str) -> impl Iterator<Item = &str> {
    line.split('`').skip(1).step_by(2)
}

fn is_path(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    FOLDERS.iter().any(|folder| text.starts_with(folder)) && text.chars().all(plain)
}

fn cells(row: &str) -> usize {
    row.trim().replace("\\|", "").matches('|').count().saturating_sub(1)
}

/// Resolves `.` and `..` in a path.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                normal.pop();
            }
            Component::CurDir => {}
            part => normal.push(part),
        }
    }
    normal
}

/// The anchor of a heading, as GitHub and mdBook generate it.
fn slug(heading: &str) -> String {
    let text = heading.trim_start_matches('#').trim();
    let kept = text.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.flat_map(char::to_lowercase).map(|c| if c == ' ' { '-' } else { c }).collect()
}
