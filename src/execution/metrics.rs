//! Metrics of executions: their state, how they ended, and what became of their claims.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};
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
use crate::sync;

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
    finished: Family<End, Counter>,
    ran: Family<End, Histogram, fn() -> Histogram>,
    claims: Family<Outcome, Counter>,
    workflows: Arc<Workflows>,
}

/// Labels of an execution that has ended: the outcome and, if that is wanted, the workflow.
type End = Vec<(&'static str, Cow<'static, str>)>;

/// The workflows that have a label value of their own.
#[derive(Default)]
struct Workflows {
    /// The most that there may be; none if there is no such label.
    most: usize,
    named: Mutex<HashSet<String>>,
}

impl Workflows {
    /// The label value of a workflow; none if there is no such label. Names are made by people, and each takes memory
    /// in the metrics system for long: those beyond the limit share a value.
    ///
    /// Only a workflow that has started has a value of its own (`is_real`): otherwise whoever may create executions could use
    /// up the values with invented names.
    fn label(&self, workflow: &str, is_real: bool) -> Option<Cow<'static, str>> {
        if self.most == 0 {
            return None;
        }
        let mut named = sync::lock(&self.named);
        if !named.contains(workflow) {
            if named.len() >= self.most || !is_real {
                return Some("other".into());
            }
            named.insert(workflow.to_owned());
        }
        Some(workflow.to_owned().into())
    }
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
    /// Registers them. Those of ended executions have a label for the workflow, with up to `workflows` values, if that is
    /// not 0.
    pub fn new(all: &Metrics, workflows: usize) -> Self {
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
            workflows: Arc::new(Workflows { most: workflows, named: Mutex::default() }),
        };
        // With a label for the workflow, these series begin when a run of the workflow starts.
        if workflows == 0 {
            metrics.make_ends(None);
        }
        for outcome in CLAIMS {
            drop(metrics.claims.get_or_create(&Outcome { outcome }));
        }
        metrics
    }

    /// Makes the series of a workflow whose run starts, so that the first end is an increase.
    pub fn begin(&self, workflow: &str) {
        if let Some(label) = self.workflows.label(workflow, true) {
            self.make_ends(Some(label));
        }
    }

    fn make_ends(&self, workflow: Option<Cow<'static, str>>) {
        for outcome in ends() {
            drop(self.finished.get_or_create(&end(outcome, workflow.clone())));
            drop(self.ran.get_or_create(&end(outcome, workflow.clone())));
        }
    }

    /// Counts an execution of this workflow that has ended. `ran` is how long the run took, if there was one.
    pub fn finished(&self, outcome: &'static str, (workflow, is_real): (&str, bool), ran: Option<Duration>) {
        debug_assert!(ends().contains(&outcome), "{outcome}");
        let end = end(outcome, self.workflows.label(workflow, is_real));
        self.finished.get_or_create(&end).inc();
        if let Some(ran) = ran {
            self.ran.get_or_create(&end).observe(ran.as_secs_f64());
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

fn end(outcome: &'static str, workflow: Option<Cow<'static, str>>) -> End {
    [("outcome", outcome.into())].into_iter().chain(workflow.map(|workflow| ("workflow", workflow))).collect()
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
    let workflow = workflow(state, new);
    if is_started(new) && !is_started(&state.status) {
        metrics.begin(workflow);
    }
    if is_finished(new) && !is_finished(&state.status) {
        let outcome = ready(new).and_then(|reason| known(reason, &reason::ENDS));
        metrics.finished(outcome.unwrap_or(OTHER), (workflow, is_started(new)), ran(new));
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

/// The workflow's name at Mistral, or, before that is known, the name that the spec has for it.
fn workflow<'a>(state: &'a ExecutionState, new: &'a Status) -> &'a str {
    let referred = state.spec.workflow_ref.as_ref().map(|workflow| &workflow.name);
    new.workflow_name.as_ref().or(state.spec.workflow_identifier.as_ref()).or(referred).map_or("", |name| name)
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
    fn the_label_for_the_workflow_is_wanted_or_absent_and_its_values_are_as_many_as_were_allowed() {
        let rendered = |workflows: usize| {
            let all = Metrics::new("test", "0", &[]);
            let metrics = ExecutionMetrics::new(&all, workflows);
            for name in ["a", "b", "c", "d", "a"] {
                metrics.begin(name);
                metrics.finished("Canceled", ("invented", false), None);
                metrics.finished("Completed", (name, true), Some(Duration::from_secs(1)));
            }
            all.render()
        };
        let text = rendered(0);
        assert!(text.contains("test_executions_finished_total{outcome=\"Completed\"} 5\n"), "{text}");
        assert!(!text.contains("workflow="), "{text}");
        let text = rendered(2);
        for (workflow, count) in [("a", 2), ("b", 1), ("other", 2)] {
            let series = format!("{{outcome=\"Completed\",workflow=\"{workflow}\"}} {count}\n");
            assert!(text.contains(&format!("test_executions_finished_total{series}")), "{series} in {text}");
            assert!(text.contains(&format!("test_execution_duration_seconds_count{series}")), "{series} in {text}");
            assert!(text.contains(&format!("total{{outcome=\"Lost\",workflow=\"{workflow}\"}} 0\n")), "{text}");
        }
        assert!(!text.contains("workflow=\"c\"") && !text.contains("invented"), "{text}");
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
