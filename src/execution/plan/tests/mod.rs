//! One table for each stage of a run: what is known, and the step that follows.

mod claims;
mod deletion;
mod expiry;
mod inherited;
mod messages;
mod refusals;
mod running;
mod starting;
mod stopping;
mod values;
mod whose;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::conditions::{COMPLETE, FAILED, MISSING, Progress, READY, STARTED, find, is_true};
use crate::api::reasons::execution as reason;
use crate::api::{DeletionPolicy, Shutdown, WorkflowExecution, WorkflowExecutionStatus};
use crate::execution::claim::{Claim, ClaimAnnotation, ClaimBackup, TAKE_OVER};
use crate::execution::plan::{Call, ClusterStep, Decision, Settled, Step, plan};
use crate::execution::state::{
    Comparison, ExecutionState, FailureText, Instance, Memory, Outcomes, References, Remote, StopCall, WorkflowRefState,
};
use crate::json::Json;
use crate::mistral::wire::Execution;
use crate::mistral::{ApiError, Error};
use crate::platform::requeue::Requeue;
use crate::workspace::access::{ConnectionInfo, Workspace};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

/// All times in these tests are seconds after the creation of the resource.
fn of_resource(metadata: Value, spec: Value) -> ExecutionState {
    remembered(metadata, spec, Memory::default())
}

/// The same for a process that remembers something of the resource.
fn remembered(metadata: Value, spec: Value, memory: Memory) -> ExecutionState {
    let mut object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": {
            "name": "run", "namespace": "n", "uid": "u-1", "resourceVersion": "7", "generation": 1,
            "creationTimestamp": at(0).to_string(),
        },
        "spec": { "workflowIdentifier": "w" },
    });
    merge(&mut object["metadata"], metadata);
    merge(&mut object["spec"], spec);
    let object: WorkflowExecution = serde_json::from_value(object).unwrap();
    let instance = Instance { name: "me".into(), since: at(-60), api_server_time: None };
    ExecutionState::new(
        &object,
        "cluster",
        instance,
        memory,
        References {
            workspace: Workspace::Ready(connection()),
            stop_with: Some(connection()),
            workflow_ref: WorkflowRefState::NotNamed,
        },
        false,
        at(0),
    )
}

fn merge(into: &mut Value, from: Value) {
    for (key, value) in from.as_object().unwrap() {
        into[key] = value.clone();
    }
}

fn new() -> ExecutionState {
    of_resource(json!({}), json!({}))
}

fn connection() -> ConnectionInfo {
    ConnectionInfo { origin: "https://api".into(), workspace_id: Some("ws".into()), epoch: 1, secret: "mistral".into() }
}

/// Claimed at second 0, so the doubt ends at second 90.
fn claimed() -> ExecutionState {
    let mut state = new();
    let claim = state.claim(&connection(), 1, at(0));
    state.memory.claim = Some(Box::new(state.known(&claim)));
    assert!(state.memory.claim.as_ref().unwrap().own);
    state.annotation = ClaimAnnotation::Claim(Box::new(claim));
    state.finalizer = true;
    state
}

fn with_claim(change: impl FnOnce(&mut Claim)) -> ExecutionState {
    let mut state = claimed();
    let ClaimAnnotation::Claim(claim) = &mut state.annotation else { unreachable!() };
    change(claim);
    let known =
        ClaimBackup { own: true, refused: claim.refused, ..ClaimBackup::of(&claim.clone(), &state.derived_id()) };
    state.memory.claim = Some(Box::new(known));
    state
}

/// Claimed, sent, accepted, and the status written.
fn started() -> ExecutionState {
    let mut state = claimed();
    state.outcomes.remote = Remote::Found(Box::new(run("RUNNING")));
    let Decision::Settle(settled) = plan(&state, at(1)) else { panic!("not settled") };
    ExecutionState { status: settled.status, ..claimed() }
}

fn run(status: &str) -> Execution {
    let ended = !matches!(status, "RUNNING" | "CONTINUED_AS_NEW");
    let end = ended.then(|| at(5).to_string());
    let run = json!({
        "execution_id": "run-u-1", "workflow_name": "w", "status": status, "start_time": at(0).to_string(),
        "end_time": end, "result": { "x": 1 },
    });
    serde_json::from_value(run).unwrap()
}

fn said(status: u16, code: &str) -> ApiError {
    ApiError { status, code: Some(code.into()), detail: "said".into(), deployments: vec!["a".into()], is_json: true }
}

fn not_found() -> Error {
    Error::NotFound(said(404, "WF_1100"))
}

fn transient() -> Error {
    Error::Transient { retry_after: None, message: "down".into() }
}

/// A reconcile that begins at `now`, by a process that has known of the claim since second 0.
fn plan_at(state: &ExecutionState, now: Timestamp) -> Decision {
    let known_for = now.duration_since(at(0)).unsigned_abs();
    plan(&ExecutionState { began: now, known_for, ..state.clone() }, now)
}

fn settled(state: &ExecutionState, now: Timestamp) -> Settled {
    match plan_at(state, now) {
        Decision::Settle(settled) => *settled,
        Decision::Act(step) => panic!("acts: {step:?}"),
    }
}

fn step(state: &ExecutionState, now: Timestamp) -> Step {
    match plan_at(state, now) {
        Decision::Act(step) => step,
        Decision::Settle(settled) => panic!("settles: {settled:#?}"),
    }
}

// So that a step compares with what it carries.
impl PartialEq<Call> for Step {
    fn eq(&self, call: &Call) -> bool {
        matches!(self, Self::Call(own) if own == call)
    }
}

impl PartialEq<ClusterStep> for Step {
    fn eq(&self, step: &ClusterStep) -> bool {
        matches!(self, Self::Cluster(own) if own == step)
    }
}

fn claim_of(step: Step) -> (Claim, bool, bool) {
    match step {
        Step::Cluster(ClusterStep::WriteClaim { claim, finalizer, send, consent: _ }) => (*claim, finalizer, send),
        other => panic!("no claim: {other:?}"),
    }
}

fn ready(status: &WorkflowExecutionStatus) -> &str {
    &find(&status.conditions, READY).unwrap().reason
}

fn claimed_elsewhere(name: &str, namespace: &str) -> Claim {
    let mut claim = new().claim(&connection(), 1, at(0));
    claim.owner.name = name.into();
    claim.owner.namespace = namespace.into();
    claim
}

fn annotation(claim: &Claim) -> Value {
    json!({ "workflows.mistral.ai/claim": claim.to_annotation() })
}
