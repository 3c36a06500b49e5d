//! The workflows of GitHub, which cannot run here, are at least well formed, and run only what is pinned.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cluster::{Environment, Error, find_or_build_actionlint};

fn workflows() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../.github/workflows");
    let mut files: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty());
    files
}

#[test]
fn actionlint_finds_nothing_to_complain_about() {
    let actionlint = match find_or_build_actionlint(&Environment::of_process()) {
        Ok(actionlint) => actionlint,
        // KUBEBUILDER_ASSETS serves those who have no Go.
        Err(Error::GoMissing { .. }) if std::env::var_os("CI").is_none() => {
            println!("SKIPPED: there is no Go to build actionlint with.");
            return;
        }
        Err(error) => panic!("{error}"),
    };
    // Without shellcheck and pyflakes, which one machine has and another has not.
    let output = Command::new(actionlint).args(["-shellcheck=", "-pyflakes="]).args(workflows()).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    assert!(output.status.success(), "{text}");
}

#[test]
fn each_action_is_pinned_by_its_commit_and_names_its_version() {
    for file in workflows() {
        let text = fs::read_to_string(&file).unwrap();
        let uses = text.lines().filter_map(|line| line.trim().trim_start_matches("- ").strip_prefix("uses: "));
        for action in uses {
            let (_, pin) = action.split_once('@').unwrap();
            let (commit, version) = pin.split_once(" # v").unwrap_or((pin, ""));
            let is_commit = commit.len() == 40 && commit.chars().all(|c| c.is_ascii_hexdigit());
            assert!(is_commit && !version.is_empty(), "{}: {action}", file.display());
        }
        assert!(text.contains("uses: "), "{}", file.display());
    }
}
