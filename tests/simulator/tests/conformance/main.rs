//! Mistral's own Python client calls the simulator; `drive.py` checks the objects that the client makes of every
//! answer.
//!
//! The client is installed from the package index into a temporary environment. If that fails, the test is skipped with
//! a message that stands out. Under CI (where the variable `CI` is set), the test fails instead.

#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod python;

use std::io::Write;
use std::path::Path;
use std::time::Duration;

use mistral_simulator::{Options, Simulator};

use crate::python::Python;

const SCRIPT_LIMIT: Duration = Duration::from_secs(120);

#[tokio::test(flavor = "multi_thread")]
async fn mistrals_own_python_client_understands_every_answer() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let folder = tempfile::tempdir().unwrap();
    let python = match Python::with_packages(&here.join("requirements.txt"), folder.path()).await {
        Ok(python) => python,
        Err(reason) => return skip(&reason),
    };
    say("driving Mistral's Python client");
    let simulator = Simulator::start(Options::default()).await.unwrap();
    let mut script = python.command();
    // Write no compiled modules next to the sources.
    script.args(["-B", "-W", "ignore::DeprecationWarning"]).arg(here.join("drive.py")).arg(simulator.url());
    match python::run(&mut script, SCRIPT_LIMIT).await {
        Ok(output) => say(output.trim()),
        Err(output) => panic!("{output}"),
    }
}

/// Skips a test that this machine cannot run, but never silently.
fn skip(reason: &str) {
    let line = "=".repeat(100);
    let text =
        format!("SKIPPED: nothing is known about how Mistral's Python client gets on with the simulator.\n{reason}");
    say(&format!("\n{line}\n{text}\n{line}"));
    let is_ci = std::env::var_os("CI").is_some_and(|value| !value.is_empty());
    assert!(!is_ci, "{text}\nUnder CI this is a failure.");
}

/// Tells the person at the terminal which step takes long. libtest hides output of `eprintln!` until a test fails, but
/// not what is written to the handle itself.
fn say(text: &str) {
    // A closed standard error is no reason to fail.
    let _ = writeln!(std::io::stderr().lock(), "conformance: {text}");
}
