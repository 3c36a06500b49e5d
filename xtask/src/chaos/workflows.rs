//! The workflows of the test. Their names say how their runs behave.

use mistral_simulator::{Behaviour, Outcome, WorkflowSpec};

use super::poison::nested;

/// The error message of a workflow that fails.
pub const ERROR: &str = "the chaos wants this one to fail";

/// The workflows that end by themselves. A repeated name is chosen more often.
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
/// The workflows whose runs may have to be stopped.
pub const STOPPED: [&str; 7] =
    ["hang", "hang", "hang-ignoring", "slow-cancel-6000", "complete-20000", "complete-3000", "fail-2000"];
/// A workflow that the API does not know.
pub const UNKNOWN: &str = "unknown";
/// The workflows that have Workflow resources of the same names.
pub const REFERENCED: [&str; 3] = ["complete-0", "complete-3000", "fail-2000"];

/// Workflows whose results no status can hold.
pub const ODD: [&str; 6] = ["odd-deep", "odd-deeper", "odd-exponent", "odd-digits", "odd-half", "odd-nan"];
/// A workflow, and its Workflow resource, with a schema that is too deep for a status.
pub const DEEP_SCHEMA: &str = "deep-schema";

/// The workflows for the simulator. A run's result is its input.
pub fn all() -> Vec<WorkflowSpec> {
    let mut names: Vec<&str> = ENDING.into_iter().chain(STOPPED).chain(ODD).collect();
    names.sort_unstable();
    names.dedup();
    let all =
        names.into_iter().map(|name| WorkflowSpec { behaviour: Some(behaviour(name)), ..WorkflowSpec::new(name) });
    let schema = Some(nested(1000, "1"));
    all.chain([WorkflowSpec { raw_input_schema: schema, ..WorkflowSpec::new(DEEP_SCHEMA) }]).collect()
}

/// The odd result of a workflow, as text.
pub fn odd_result(name: &str) -> Option<String> {
    Some(match name {
        "odd-deep" => nested(121, "1"),
        "odd-deeper" => nested(1000, "1"),
        "odd-exponent" => r#"{"x":1e400}"#.into(),
        "odd-digits" => "7".repeat(400),
        "odd-half" => r#"{"x":"\udce9"}"#.into(),
        "odd-nan" => r#"{"x":NaN}"#.into(),
        _ => return None,
    })
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
        "odd" => (Outcome::Complete, None, 0),
        _ => (Outcome::Hang, None, 0),
    };
    Behaviour { duration_ms, outcome, error, cancel_delay_ms, raw_result: odd_result(name), ..Behaviour::default() }
}
