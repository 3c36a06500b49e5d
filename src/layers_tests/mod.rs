//! The layers of the sources, enforced by tests: each module uses only what is below it, and no files use each other in a
//! circle.

mod uses;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use uses::{Sources, texts};

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

#[test]
fn each_module_uses_only_what_is_below_it() {
    let sources = Sources::read();
    assert!(sources.paths().count() > 50, "the sources are not where they are looked for");
    let mut wrong = Vec::new();
    for (file, paths) in sources.paths() {
        let module = file.split(['/', '.']).next().unwrap();
        if ["lib", "layers_tests"].contains(&module) {
            continue;
        }
        let own = layer(module).unwrap_or_else(|| panic!("{module} has no layer"));
        for path in paths {
            let Some(name) = path.first().filter(|name| *name != module) else { continue };
            if layer(name).is_some_and(|theirs| theirs >= own) {
                wrong.push(format!("{file} uses crate::{}", path.join("::")));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// The files that a file uses, directly or through others.
fn reached<'a>(uses: &BTreeMap<&'a str, BTreeSet<&'a str>>, from: &'a str) -> BTreeSet<&'a str> {
    let (mut reached, mut next) = (BTreeSet::new(), vec![from]);
    while let Some(file) = next.pop() {
        next.extend(uses.get(file).into_iter().flatten().copied().filter(|used| reached.insert(*used)));
    }
    reached
}

/// The files that use each other, directly or through others: circle by circle, each with who uses whom.
fn circles(uses: &BTreeMap<&str, BTreeSet<&str>>) -> BTreeSet<Vec<String>> {
    let reached: BTreeMap<&str, BTreeSet<&str>> = uses.keys().map(|file| (*file, reached(uses, file))).collect();
    let together = |a: &str, b: &str| reached[a].contains(b) && reached.get(b).is_some_and(|used| used.contains(a));
    let circle = |file: &&str| {
        let others = |of: &str| uses[of].iter().filter(|other| together(file, other)).copied().collect::<Vec<_>>();
        let members = uses.keys().filter(|other| together(file, other));
        members.map(|member| format!("{member} uses {}", others(member).join(", "))).collect()
    };
    uses.keys().filter(|file| together(file, file)).map(circle).collect()
}

/// A path counts as a use of the file that defines what it names. So a `mod.rs` that only declares and re-exports is in no
/// circle, and whoever takes something through it uses the file below. What a `mod.rs` defines itself counts as in any
/// other file, and so do its own imports: its children must not use it if it uses them. A method that is called needs no
/// path, so `impl` blocks of one type may stand in several files.
#[test]
fn no_files_use_each_other_in_a_circle() {
    let sources = Sources::read();
    let uses = sources.files();
    let (tracker, clock) = ("execution/tracker/mod.rs", "clock.rs");
    assert!(uses[tracker].contains(clock), "nothing is found in the sources");
    let circles = circles(&uses);
    assert!(circles.is_empty(), "move what is misplaced: {circles:#?}");
}

#[test]
fn a_circle_is_found_however_it_is_written_and_a_re_export_is_none() {
    let read = |texts: &[(&str, &str)]| {
        let sources = Sources::of(texts.iter().map(|(file, text)| ((*file).to_owned(), (*text).to_owned())));
        circles(&sources.files()).into_iter().collect::<Vec<_>>()
    };
    for (a, b) in [
        ("use crate::b::B;", "use super::a::{self, A};"),
        ("fn a() -> crate::b::B {}", "use crate::{\n    a::{A, C},\n    d,\n};"),
        ("use crate::b;\nfn a() { b::make() }", "#[serde(with = \"super::a::text\")]"),
        ("pub use crate::c::B;", "use crate::a::A;"),
    ] {
        let c = ("c/mod.rs", "mod inner;\npub use crate::b::B;");
        let inner = ("c/inner.rs", "use super::B;");
        assert_eq!(read(&[("a.rs", a), ("b.rs", b), c, inner]), [["a.rs uses b.rs", "b.rs uses a.rs"]], "{a} {b}");
    }
    let (one, two) = (("c/one.rs", "pub struct One;"), ("c/two.rs", "use super::One;\n// use crate::d::D;"));
    assert!(read(&[("c/mod.rs", "mod one;\nmod two;\npub use one::One;\npub use two::Two;"), one, two]).is_empty());
    let own = ("c/mod.rs", "mod two;\nuse two::Two;\npub struct One(Two);");
    assert_eq!(read(&[own, two]), [["c/mod.rs uses c/two.rs", "c/two.rs uses c/mod.rs"]]);
    let tests = "#[cfg(test)]\nmod tests {\n    use crate::b::B;\n}";
    assert!(read(&[("a.rs", tests), ("b.rs", "use crate::a::A;")]).is_empty());
}

#[test]
fn another_operator_that_takes_the_platform_changes_only_its_names() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/platform");
    for (file, text) in texts(&folder).into_iter().filter(|(file, _)| file != "names.rs") {
        for word in ["mistral", "workspace", "workflow"] {
            assert!(!text.to_lowercase().contains(word), "platform/{file} says \"{word}\"");
        }
    }
}
