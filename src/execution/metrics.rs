//! Metrics of executions: their state, how they ended, and what became of their claims.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;

use crate::api::WorkflowExecutionStatus as Status;
use crate::api::conditions::{self, READY, STARTED};
use crate::api::reasons::execution as reason;
use crate::execution::Guarded;
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::execution::phase::{is_finished, is_started};
use crate::execution::state::{ExecutionState, Sent};
use crate::mistral::wire::TERMINAL;
use crate::platform::metrics::{Metrics, OTHER};

/// Buckets in seconds: from a second to a day.
const RUN: [f64; 11] = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 10_800.0, 21_600.0, 43_200.0, 86_400.0];
/// The outcomes of a claim.
const CLAIMS: [&str; 8] = ["written", "started", "recovered", "refused", "adopted", "taken", "foreign", "stale"];

/// The outcomes of an execution.
fn ends() -> Vec<&'static str> {
    reason::ENDS.into_iter().chain([OTHER]).collect()
}

/// Metrics of executions. Clones share them.
#[derive(Clone)]
pub struct ExecutionMetrics {
    executions: Family<State, Gauge>,
    finished: Family<Outcome, Counter>,
    ran: Family<Outcome, Histogram, fn() -> Histogram>,
    claims: Family<Outcome, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct State {
    status: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

impl ExecutionMetrics {
    /// Registers them.
    pub fn new(all: &Metrics) -> Self {
        let run: fn() -> Histogram = || Histogram::new(RUN);
        let metrics = Self {
            executions: all.register(
                "executions",
                "WorkflowExecutions that have not finished, or finished within the last two minutes",
                Family::default(),
            ),
            finished: all.register("executions_finished", "Executions that ended", Family::default()),
            ran: all.register(
                "execution_duration_seconds",
                "How long finished runs took, by the API's clock",
                Family::new_with_constructor(run),
            ),
            claims: all.register("claims", "Claims on execution ids, by outcome", Family::default()),
        };
        for outcome in ends() {
            drop(metrics.finished.get_or_create(&Outcome { outcome }));
            drop(metrics.ran.get_or_create(&Outcome { outcome }));
        }
        for outcome in CLAIMS {
            drop(metrics.claims.get_or_create(&Outcome { outcome }));
        }
        metrics
    }

    /// Counts an execution that has ended. `ran` is how long the run took, if there was one.
    pub fn finished(&self, outcome: &'static str, ran: Option<Duration>) {
        debug_assert!(ends().contains(&outcome), "{outcome}");
        self.finished.get_or_create(&Outcome { outcome }).inc();
        if let Some(ran) = ran {
            self.ran.get_or_create(&Outcome { outcome }).observe(ran.as_secs_f64());
        }
    }

    /// Counts an outcome of a claim.
    pub fn claim(&self, outcome: &'static str) {
        debug_assert!(CLAIMS.contains(&outcome), "{outcome}");
        self.claims.get_or_create(&Outcome { outcome }).inc();
    }

    /// Sets how many executions there are, by the status that the API reports and the reason of `Ready`.
    pub fn set_executions(&self, states: impl Iterator<Item = (&'static str, &'static str)>) {
        self.executions.clear();
        for (status, reason) in states {
            self.executions.get_or_create(&State { status, reason }).inc();
        }
    }

    /// The labels that have a fixed set of values, with the values.
    pub fn closed() -> Vec<(&'static str, &'static str, Vec<&'static str>)> {
        vec![
            ("executions_finished_total", "outcome", ends()),
            ("execution_duration_seconds", "outcome", ends()),
            ("claims_total", "outcome", CLAIMS.to_vec()),
        ]
    }
}

/// The state of an execution: its status at the API, and the reason of `Ready`. Unknown words become `Other`: anyone
/// who may write a status could otherwise fill the memory of the metrics system.
pub fn labels(object: &Guarded) -> (&'static str, &'static str) {
    let Ok(execution) = &object.0 else { return ("Undecodable", "Undecodable") };
    let blank = Status::default();
    let status = execution.status.as_ref().unwrap_or(&blank);
    let word = match &status.status {
        Some(word) => known(word, &TERMINAL).or(known(word, &["RUNNING"])).unwrap_or("Other"),
        None if is_started(status) => "Other",
        None => "NotStarted",
    };
    (word, ready(status).unwrap_or("None"))
}

/// Counts what a newly written status says beyond the one before.
pub fn settled(metrics: &ExecutionMetrics, state: &ExecutionState, new: &Status) {
    if is_finished(new) && !is_finished(&state.status) {
        let outcome = ready(new).and_then(|reason| known(reason, &reason::ENDS));
        metrics.finished(outcome.unwrap_or(OTHER), ran(new));
    }
    if let Some(outcome) = claim_outcome(state, new) {
        metrics.claim(outcome);
    }
}

/// Counts a claim that was written over another one, or none; `send` if its call follows.
pub fn claimed(metrics: &ExecutionMetrics, before: &ClaimAnnotation, claim: &Claim, send: bool) {
    if send {
        metrics.claim("written");
    } else if claim.refused && !matches!(before, ClaimAnnotation::Claim(before) if before.refused) {
        metrics.claim("refused");
    }
}

fn claim_outcome(state: &ExecutionState, new: &Status) -> Option<&'static str> {
    if is_started(new) && !is_started(&state.status) {
        let adopted = conditions::find(&new.conditions, STARTED).is_some_and(|it| it.reason == reason::ADOPTED);
        return Some(match state.outcomes.sent {
            _ if adopted => "adopted",
            Sent::Accepted(_) => "started",
            _ => "recovered",
        });
    }
    let reason = ready(new).filter(|reason| ready(&state.status) != Some(*reason))?;
    match reason {
        reason::EXECUTION_ID_TAKEN => Some("taken"),
        reason::FOREIGN_CLAIM => Some("foreign"),
        reason::STALE_CLAIM => Some("stale"),
        _ => None,
    }
}

/// How long the run took, if there was one.
fn ran(status: &Status) -> Option<Duration> {
    if let Some(ms) = status.duration_ms {
        return Some(Duration::from_millis(u64::try_from(ms).unwrap_or_default()));
    }
    let (start, end) = (status.start_time.as_ref()?, status.end_time.as_ref()?);
    Duration::try_from(end.0.duration_since(start.0)).ok()
}

/// The reason of `Ready`; none before the first reconcile.
fn ready(status: &Status) -> Option<&'static str> {
    conditions::find(&status.conditions, READY).map(|ready| known(&ready.reason, &reason::ALL).unwrap_or("Other"))
}

fn known(word: &str, words: &[&'static str]) -> Option<&'static str> {
    words.iter().find(|known| **known == word).copied()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn execution(status: &serde_json::Value) -> Guarded {
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": "run" }, "spec": { "workflowIdentifier": "echo" }, "status": status,
        });
        serde_json::from_value(object).unwrap()
    }

    fn condition(type_: &str, status: &str, reason: &str) -> serde_json::Value {
        let time = "2026-11-24T00:00:00Z";
        json!({ "type": type_, "status": status, "reason": reason, "message": "", "lastTransitionTime": time })
    }

    #[test]
    fn no_word_of_a_status_becomes_a_label_that_was_not_known_before() {
        for (status, expected) in [
            (json!(null), ("NotStarted", "None")),
            (
                json!({ "status": "RUNNING", "conditions": [condition("Ready", "False", "Running")] }),
                ("RUNNING", "Running"),
            ),
            (json!({ "status": "made-up", "conditions": [condition("Ready", "False", "MadeUp")] }), ("Other", "Other")),
            (json!({ "conditions": [condition("Started", "True", "Started")] }), ("Other", "None")),
        ] {
            assert_eq!(labels(&execution(&status)), expected);
        }
        let undecodable = serde_json::from_value(json!({ "metadata": { "name": "run" }, "spec": 1 })).unwrap();
        assert_eq!(labels(&undecodable), ("Undecodable", "Undecodable"));
    }

    #[test]
    fn every_reason_is_known() {
        let listed: Vec<&str> = include_str!("../api/reasons/execution.rs")
            .lines()
            .filter_map(|line| line.trim().strip_prefix("pub const ")?.split_once(": &str = \"")?.1.strip_suffix("\";"))
            .collect();
        assert!(listed.len() > 20);
        for reason in listed {
            assert!(reason::ALL.contains(&reason), "{reason} is not in ALL");
        }
    }

    #[test]
    fn the_time_that_a_run_took_is_the_apis_and_none_where_nothing_ran() {
        let of = |status| ran(&serde_json::from_value(status).unwrap());
        let (start, end) = ("2026-11-24T00:00:00Z", "2026-11-24T00:00:05Z");
        assert_eq!(of(json!({ "durationMs": 1500, "endTime": end })), Some(Duration::from_millis(1500)));
        assert_eq!(of(json!({ "startTime": start, "endTime": end })), Some(Duration::from_secs(5)));
        assert_eq!(of(json!({ "durationMs": -1 })), Some(Duration::ZERO));
        assert_eq!(of(json!({ "startTime": end, "endTime": start })), None);
        assert_eq!(of(json!({ "endTime": end })), None);
    }
}
