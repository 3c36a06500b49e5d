//! One table for each stage of a workflow: what is known, and the step that follows.

mod changes;
mod contest;
mod deletion;
mod reading;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::conditions::{ACTIVE, CONTESTED, NEEDS_USER, Progress, READY, STALLED, find, is_true};
use crate::api::reasons::workflow as reason;
use crate::api::{Workflow as Resource, WorkflowStatus};
use crate::mistral::wire::{Registration, Workflow};
use crate::mistral::{ApiError, Error};
use crate::platform::requeue::Requeue;
use crate::workflow::fields::Field;
use crate::workflow::plan::{Call, ClusterStep, Decision, Settled, Step, plan};
use crate::workflow::state::{Address, Change, FINALIZER, Memory, Registrations, Remote, WorkflowState};
use crate::workflow::versions::{Gathering, Versions};
use crate::workspace::access::{ConnectionInfo, Workspace};

const ID: &str = "0198a000-0000-7000-8000-000000000001";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn connection() -> ConnectionInfo {
    ConnectionInfo { origin: "https://api".into(), workspace_id: Some("ws".into()), epoch: 1, secret: "mistral".into() }
}

/// All times in these tests are seconds after the creation of the resource.
fn of_resource(metadata: Value, spec: Value) -> WorkflowState {
    let mut object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow",
        "metadata": {
            "name": "invoices", "namespace": "n", "uid": "u-1", "generation": 1,
            "creationTimestamp": at(0).to_string(),
        },
        "spec": spec,
    });
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    let object: Resource = serde_json::from_value(object).unwrap();
    WorkflowState::new(&object, Memory::default(), Workspace::Ready(connection()), Some(connection()), false)
}

fn wanting(spec: Value) -> WorkflowState {
    of_resource(json!({}), spec)
}

fn workflow(fields: Value) -> Workflow {
    let mut all = json!({
        "id": ID, "name": "invoices", "display_name": "invoices", "type": "code", "description": "",
        "workspace_id": "ws", "shared_namespace": null, "available_in_chat_assistant": false,
        "is_technical": false, "archived": false, "tags": [], "active": true,
    });
    all.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
    serde_json::from_value(all).unwrap()
}

/// With all reads answered.
fn answered(mut state: WorkflowState, fields: Value) -> WorkflowState {
    state.fetched(Ok(workflow(fields)));
    state.registrations_read(Ok(Versions::default()));
    state
}

fn step(state: &WorkflowState, now: Timestamp) -> Step {
    match plan(state, now) {
        Decision::Act(step) => step,
        Decision::Settle(settled) => panic!("settled: {settled:#?}"),
    }
}

fn settled(state: &WorkflowState, now: Timestamp) -> Settled {
    match plan(state, now) {
        Decision::Settle(settled) => *settled,
        Decision::Act(step) => panic!("acts: {step:?}"),
    }
}

fn ready(status: &WorkflowStatus) -> &str {
    find(&status.conditions, READY).map_or("", |ready| &ready.reason)
}

/// The next reconcile: with the status that the last one wrote, and what it remembers.
fn next(state: &WorkflowState, now: Timestamp) -> WorkflowState {
    let Settled { status, requeue, .. } = settled(state, now);
    let mut last = state.clone();
    last.settled(requeue, now);
    WorkflowState {
        status,
        remote: Remote::NotFetched,
        registrations: Registrations::NotFetched,
        change: Change::None,
        ..last
    }
}

fn refusal(status: u16) -> ApiError {
    ApiError { status, code: None, detail: "no".into(), deployments: Vec::new(), is_json: true }
}

fn not_found() -> Error {
    Error::NotFound(refusal(404))
}
