//! Short forms of `cargo xtask chaos`: on a fixed seed, on a random seed, and without safeguards.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::process::Command;

/// Runs the command. Returns whether it succeeded, and its output.
fn chaos(arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.arg("chaos").args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // libtest hides printed output, but not what is written to the handle itself: the seed must always show.
    let seed = text.lines().find(|line| line.starts_with("Seed ")).unwrap_or_default();
    writeln!(std::io::stderr().lock(), "chaos: {seed}").unwrap();
    (output.status.success(), text)
}

/// The number before this name in the final table.
fn counted(text: &str, name: &str) -> u64 {
    let row = text.lines().find_map(|line| line.trim().strip_suffix(name)?.trim().parse().ok());
    row.unwrap_or_else(|| panic!("the table has no {name}:\n{text}"))
}

fn each_runs_exactly_once(arguments: &[&str]) {
    let (is_well, text) = chaos(arguments);
    assert!(is_well, "{text}");
    // Shown by `cargo test -- --nocapture`.
    println!("{text}");
    assert_eq!((counted(&text, "duplicates"), counted(&text, "losses")), (0, 0), "{text}");
    assert!(counted(&text, "starts") > 30, "{text}");
}

#[test]
fn each_execution_runs_exactly_once_whatever_is_killed_and_fails() {
    each_runs_exactly_once(&["--executions", "60", "--seed", "1"]);
}

#[test]
fn each_execution_runs_exactly_once_on_a_random_seed_too() {
    each_runs_exactly_once(&["--executions", "60"]);
}

#[test]
#[ignore = "minutes, for the proof: cargo test --package xtask --test chaos -- --ignored --nocapture"]
fn without_a_safeguard_duplicates_are_found() {
    for safeguard in ["no-get-first", "unconditional-claim"] {
        let (is_well, text) = chaos(&["--seed", "1", "--without", safeguard]);
        let duplicates = counted(&text, "duplicates");
        println!("{safeguard}: {duplicates} duplicates");
        assert!(!is_well && duplicates > 0, "{text}");
    }
}
