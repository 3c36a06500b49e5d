//! Short forms of `cargo xtask fuzz`: on a fixed seed and on a random one.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::io::Write;
use std::process::Command;

/// Runs every reader of external bytes on inputs of this seed.
fn nothing_breaks(arguments: &[&str]) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    let output = command.args(["fuzz", "--inputs", "10000"]).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // libtest hides printed output, but not what is written to the handle itself: the seed must always show.
    let seed = text.lines().find(|line| line.starts_with("Seed ")).unwrap_or_default();
    writeln!(std::io::stderr().lock(), "fuzz: {seed}").unwrap();
    // A stack overflow ends the program without a message, and so without success.
    assert!(output.status.success(), "{}\n{text}", output.status);
    assert!(text.contains(" 0 findings"), "{text}");
}

#[test]
fn no_bytes_from_outside_break_a_promise() {
    nothing_breaks(&["--seed", "1"]);
}

#[test]
fn no_bytes_from_outside_break_a_promise_on_a_random_seed_either() {
    nothing_breaks(&[]);
}
