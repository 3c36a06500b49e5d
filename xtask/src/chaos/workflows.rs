//! The workflows that are run: their names say how their runs go.

use mistral_simulator::{Behaviour, Outcome, WorkflowSpec};

/// The words of a workflow that fails.
pub const ERROR: &str = "the chaos wants this one to fail";

/// The workflows that end by themselves, as often as they are to be taken.
pub const ENDING: [&str; 13] = [
    "complete-0",
    "complete-0",
    "complete-0",
    "complete-300",
    "complete-1000",
    "complete-3000",
    "complete-8000",
    "complete-20000",
    "fail-0",
    "fail-2000",
    "time-out-1500",
    "ignore-cancel-4000",
    "slow-cancel-6000",
];
/// Those that a deletion may meet.
pub const STOPPED: [&str; 7] =
    ["hang", "hang", "hang-ignoring", "slow-cancel-6000", "complete-20000", "complete-3000", "fail-2000"];
/// One that the API does not know.
pub const UNKNOWN: &str = "unknown";
/// Those that Workflow resources of the same names stand for.
pub const REFERENCED: [&str; 3] = ["complete-0", "complete-3000", "fail-2000"];

/// The workflows, as the simulator is to know them. A run echoes its input in its result.
pub fn all() -> Vec<WorkflowSpec> {
    let mut names: Vec<&str> = ENDING.into_iter().chain(STOPPED).collect();
    names.sort_unstable();
    names.dedup();
    names.into_iter().map(|name| WorkflowSpec { behaviour: Some(behaviour(name)), ..WorkflowSpec::new(name) }).collect()
}

fn behaviour(name: &str) -> Behaviour {
    let (kind, ms) = name.rsplit_once('-').unwrap_or((name, ""));
    let duration_ms = ms.parse().ok();
    let (outcome, error, cancel_delay_ms) = match kind {
        "complete" => (Outcome::Complete, None, 0),
        "fail" => (Outcome::Fail, Some(ERROR.to_owned()), 0),
        "time-out" => (Outcome::TimeOut, None, 0),
        "ignore-cancel" => (Outcome::IgnoreCancel, None, 0),
        "slow-cancel" => (Outcome::Complete, None, 2000),
        "hang" if ms == "ignoring" => (Outcome::IgnoreCancel, None, 0),
        _ => (Outcome::Hang, None, 0),
    };
    Behaviour { duration_ms, outcome, error, cancel_delay_ms, ..Behaviour::default() }
}
