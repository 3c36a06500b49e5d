//! Tables for `spec.workflowRef`: what the Workflow resource says, and what follows for the run.

use k8s_openapi::jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::conditions::{Progress, READY, find};
use crate::api::reasons::execution as reason;
use crate::api::{Workflow, WorkflowExecution};
use crate::execution::claim::{Claim, ClaimAnnotation};
use crate::execution::plan::{Call, ClusterStep, Decision, Step, plan};
use crate::execution::state::{
    ExecutionState, Instance, Memory, Named, Outcomes, References, Remote, StopCall, WorkflowRefState,
};
use crate::mistral::wire::Execution;
use crate::workspace::access::{ConnectionInfo, Workspace};

const OLD: &str = "0198a000-0000-7000-8000-000000000001";
const NEW: &str = "0198a000-0000-7000-8000-000000000002";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn named(id: &str, name: &str) -> Named {
    Named { id: id.into(), name: name.into() }
}

fn ready(id: &str, name: &str) -> WorkflowRefState {
    WorkflowRefState::Ready { workflow: named(id, name), active: Some(true) }
}

fn not_ready(workflow: Option<Named>) -> WorkflowRefState {
    WorkflowRefState::NotReady { why: "it is archived".into(), wait: Progress::Stalled, workflow }
}

fn connection() -> ConnectionInfo {
    ConnectionInfo { origin: "https://api".into(), workspace_id: Some("ws".into()), epoch: 1, secret: "mistral".into() }
}

fn state(spec: Value, workflow_ref: WorkflowRefState) -> ExecutionState {
    let mut object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": {
            "name": "run", "namespace": "n", "uid": "u-1", "generation": 1, "creationTimestamp": at(0).to_string(),
        },
        "spec": { "workflowRef": { "name": "w" } },
    });
    object["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    let object: WorkflowExecution = serde_json::from_value(object).unwrap();
    let references =
        References { workspace: Workspace::Ready(connection()), stop_with: Some(connection()), workflow_ref };
    let instance = Instance { name: "me".into(), since: at(-60), api_server_time: None };
    ExecutionState::new(&object, "cluster", instance, Memory::default(), references, false, Timestamp::now())
}

fn run(id: &str, workflow_id: Option<&str>, workflow_name: &str, status: &str) -> Execution {
    let run = json!({
        "execution_id": id, "workflow_id": workflow_id, "workflow_name": workflow_name, "status": status,
        "start_time": at(0).to_string(),
    });
    serde_json::from_value(run).unwrap()
}

fn claimed(mut state: ExecutionState) -> ExecutionState {
    let claim = state.claim(&connection(), 1, at(0));
    state.annotation = ClaimAnnotation::Claim(Box::new(claim));
    state.finalizer = true;
    state
}

/// The reason of `Ready` with which the reconcile ends.
fn reason_of(state: &ExecutionState, now: Timestamp) -> String {
    match plan(state, now) {
        Decision::Settle(settled) => find(&settled.status.conditions, READY).unwrap().reason.clone(),
        Decision::Act(step) => panic!("acts: {step:?}"),
    }
}

#[test]
fn nothing_is_claimed_before_it_is_known_what_is_to_be_run() {
    assert_eq!(reason_of(&state(json!({}), WorkflowRefState::NotFound), at(60)), reason::WORKFLOW_NOT_FOUND);
    assert_eq!(reason_of(&state(json!({}), not_ready(None)), at(60)), reason::WORKFLOW_NOT_READY);
    assert_eq!(reason_of(&state(json!({}), not_ready(Some(named(OLD, "w")))), at(60)), reason::WORKFLOW_NOT_READY);
    let ready = state(json!({}), ready(OLD, "w"));
    assert!(matches!(plan(&ready, at(60)), Decision::Act(Step::Cluster(ClusterStep::WriteClaim { send: true, .. }))));
}

#[test]
fn a_workflow_that_arrives_with_its_execution_is_waited_for_in_silence() {
    let Decision::Settle(settled) = plan(&state(json!({}), WorkflowRefState::NotFound), at(2)) else { panic!() };
    assert!(settled.status.conditions.is_empty() && settled.notices.is_empty());
}

#[test]
fn a_run_under_an_explicit_id_is_adopted_only_if_it_is_known_to_be_of_this_workflow() {
    let explicit = |workflow_ref| state(json!({ "executionId": "id" }), workflow_ref);
    let found = |workflow_ref, run| {
        let outcomes = Outcomes { remote: Remote::Found(Box::new(run)), ..Outcomes::default() };
        ExecutionState { outcomes, ..explicit(workflow_ref) }
    };
    let theirs = || run("id", Some(NEW), "other", "COMPLETED");
    for unknown in [WorkflowRefState::NotFound, not_ready(None)] {
        assert!(matches!(plan(&found(unknown, theirs()), at(60)), Decision::Settle(_)));
    }
    assert_eq!(reason_of(&found(ready(OLD, "w"), theirs()), at(60)), reason::EXECUTION_ID_TAKEN);
    assert_eq!(reason_of(&found(not_ready(Some(named(OLD, "w"))), theirs()), at(60)), reason::EXECUTION_ID_TAKEN);
    // A workflow that is registered again has another UUID, and at first the API reports only the name.
    for ours in [run("id", Some(NEW), "w", "RUNNING"), run("id", None, "w", "RUNNING")] {
        let state = found(ready(OLD, "w"), ours);
        assert!(matches!(
            plan(&state, at(60)),
            Decision::Act(Step::Cluster(ClusterStep::WriteClaim { send: false, .. }))
        ));
    }
}

#[test]
fn a_restored_claim_adopts_nothing_of_which_it_cannot_tell_what_it_is() {
    let foreign = |workflow_ref| {
        let mut state = claimed(state(json!({ "executionId": "id" }), workflow_ref));
        let ClaimAnnotation::Claim(claim) = &mut state.annotation else { unreachable!() };
        claim.owner.cluster = "another".into();
        state.fetched(Ok(run("id", Some(NEW), "other", "COMPLETED")));
        state
    };
    assert_eq!(reason_of(&foreign(WorkflowRefState::NotFound), at(60)), reason::WORKFLOW_NOT_FOUND);
    assert_eq!(reason_of(&foreign(ready(OLD, "w")), at(60)), reason::EXECUTION_ID_TAKEN);
}

#[test]
fn a_run_of_ours_is_stopped_though_its_workflow_now_leads_elsewhere() {
    let mut state = claimed(state(json!({}), ready(NEW, "another")));
    state.outcomes.remote = Remote::Found(Box::new(run("run-u-1", Some(OLD), "w", "RUNNING")));
    let Decision::Settle(settled) = plan(&state, at(1)) else { panic!() };
    let stopping = |claim: &mut Claim| claim.stop_since = Some(at(10));
    let mut state = ExecutionState { status: settled.status, deleted: Some(at(10)), ..state };
    let ClaimAnnotation::Claim(claim) = &mut state.annotation else { unreachable!() };
    stopping(claim);
    assert_eq!(plan(&state, at(11)), Decision::Act(Call::Stop(StopCall::Cancel).into()));
}

#[test]
fn what_the_workflow_resource_says_decides() {
    let resource = |metadata: Value, spec: Value, status: Value| -> Workflow {
        let mut all = json!({ "name": "w", "namespace": "n" });
        all.as_object_mut().unwrap().extend(metadata.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow", "metadata": all, "spec": spec,
            "status": status,
        }))
        .unwrap()
    };
    let known = |more: Value| {
        let mut all = json!({ "workflowId": OLD, "name": "w", "archived": false, "active": false });
        all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        all
    };
    let condition = |reason: &str| {
        json!({ "conditions": [{
            "type": "Ready", "status": "False", "reason": reason, "message": "start the worker",
            "lastTransitionTime": at(0).to_string(),
        }]})
    };
    let read = |resource: &Workflow| WorkflowRefState::read(Some(resource), "default");
    let healthy = resource(json!({}), json!({}), known(json!({})));
    assert_eq!(read(&healthy), WorkflowRefState::Ready { workflow: named(OLD, "w"), active: Some(false) });
    let fought = resource(json!({}), json!({}), known(condition("Contested")));
    assert!(matches!(read(&fought), WorkflowRefState::Ready { .. }), "a quarrel about a name stops no run");
    assert_eq!(WorkflowRefState::read(None, "default"), WorkflowRefState::NotFound);
    for (resource, words, is_known) in [
        (resource(json!({}), json!({}), json!({})), "not read it from the API", false),
        (resource(json!({}), json!({}), known(json!({ "archived": true }))), "archived", true),
        (resource(json!({}), json!({}), known(condition("WorkflowNotFound"))), "start the worker", true),
        (
            resource(json!({ "deletionTimestamp": at(0).to_string() }), json!({}), known(json!({}))),
            "being deleted",
            true,
        ),
        (resource(json!({}), json!({ "workspaceRef": { "name": "other" } }), known(json!({}))), "\"other\"", false),
    ] {
        let WorkflowRefState::NotReady { why, workflow, .. } = read(&resource) else { panic!("{words}") };
        assert!(why.contains(words), "{why}");
        assert_eq!(workflow.is_some(), is_known, "{words}");
    }
}
