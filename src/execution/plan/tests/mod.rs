//! One table for each stage of a run: what is known, and the step that follows.

mod deletion;
mod expiry;
mod inherited;
mod refusals;
mod running;
mod stopping;
mod values;
mod whose;

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::conditions::{COMPLETE, FAILED, MISSING, Progress, READY, STARTED, find, is_true};
use crate::api::{DeletionPolicy, Shutdown, WorkflowExecution, WorkflowExecutionStatus};
use crate::execution::claim::{Claim, ClaimAnnotation, ClaimBackup, TAKE_OVER};
use crate::execution::plan::{Call, ClusterStep, Decision, Settled, Step, plan};
use crate::execution::state::{
    Comparison, ExecutionState, FailureText, Instance, Memory, Outcomes, References, Remote, StopCall, WorkflowRefState,
};
use crate::execution::status::reason;
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
        Memory::default(),
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
    ConnectionInfo { origin: "https://api".into(), workspace_id: Some("ws".into()), epoch: 1 }
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

#[test]
fn a_new_resource_is_claimed_and_its_call_sent_without_asking() {
    let (claim, finalizer, send) = claim_of(step(&new(), at(1)));
    assert_eq!((claim.execution_id.as_str(), claim.attempt, finalizer, send), ("run-u-1", 1, true, true));
    let mut state = new();
    state.claimed(claim, true);
    assert_eq!(step(&state, at(1)), Call::Start);
}

#[test]
fn everything_that_may_have_a_past_is_asked_about_first() {
    let explicit = of_resource(json!({}), json!({ "executionId": "mine" }));
    let older =
        ExecutionState { instance: Instance { name: "me".into(), since: at(1), api_server_time: None }, ..new() };
    let copied = of_resource(json!({ "annotations": annotation(&claimed_elsewhere("other-name", "n")) }), json!({}));
    for (what, state) in
        [("an explicit id", explicit), ("an older resource", older), ("a copied claim", copied), ("a claim", claimed())]
    {
        assert_eq!(step(&state, at(100)), Call::GetRun, "{what}");
    }
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

#[test]
fn absence_is_believed_only_once_no_call_can_be_under_way() {
    let mut state = claimed();
    state.fetched(Err(not_found()));
    for now in [1, 60, 89] {
        assert_eq!(ready(&settled(&state, at(now)).status), reason::OUTCOME_UNKNOWN);
    }
    let (claim, _, send) = claim_of(step(&state, at(90)));
    assert_eq!((claim.attempt, send), (2, true));
}

#[test]
fn an_api_in_trouble_is_never_read_as_absence() {
    for error in [transient(), Error::Unauthorized(said(401, "")), Error::Rejected(said(403, ""))] {
        let mut state = claimed();
        state.fetched(Err(error));
        let settled = settled(&state, at(1000));
        assert!(matches!(settled.requeue, Requeue::Retry(_)));
    }
}

#[test]
fn each_answer_to_a_start_has_its_consequence() {
    let unknown = Error::UnknownOutcome { message: "lost".into() };
    // The run is fetched at once, to see whether the start took effect.
    for error in [unknown, Error::Conflict(said(409, "WF_1101"))] {
        let mut state = claimed();
        state.sent(Err(error));
        assert_eq!(step(&state, at(1)), Call::GetRun);
        state.fetched(Err(not_found()));
        assert_eq!(ready(&settled(&state, at(1)).status), reason::OUTCOME_UNKNOWN);
        state.fetched(Ok(run("RUNNING")));
        assert_eq!(ready(&settled(&state, at(1)).status), reason::RUNNING);
    }
    // The claim records the refusal, so it never turns into a doubt.
    for (error, expected) in [
        (Error::NotFound(said(404, "WF_1100")), reason::TARGET_NOT_FOUND),
        (Error::Conflict(said(409, "AMBIGUOUS_WORKFLOW")), reason::AMBIGUOUS_DEPLOYMENT),
        (Error::Rejected(said(403, "")), reason::REQUEST_REFUSED),
        (Error::Rejected(said(422, "")), reason::INPUT_REJECTED),
        (Error::Unauthorized(said(401, "")), reason::CREDENTIAL_REFUSED),
        (transient(), reason::API_UNAVAILABLE),
    ] {
        let mut state = claimed();
        state.sent(Err(error));
        let (claim, _, send) = claim_of(step(&state, at(1)));
        assert_eq!((claim.refused, send, claim.attempt), (true, false, 1));
        state.claimed(claim, false);
        let settled = settled(&state, at(1));
        assert_eq!(ready(&settled.status), expected);
        assert_eq!(is_true(&settled.status.conditions, FAILED), expected == reason::INPUT_REJECTED);
        assert_eq!(find(&settled.status.conditions, STARTED).unwrap().status, "False");
        assert_eq!(settled.notices.len(), 1);
    }
    let mut state = claimed();
    state.sent(Ok(run("RUNNING")));
    assert_eq!(step(&state, at(1)), ClusterStep::Linger);
    state.lingered(None);
    assert!(is_true(&settled(&state, at(1)).status.conditions, STARTED));
}

#[test]
fn a_run_that_ends_at_once_is_written_once() {
    let mut state = claimed();
    state.sent(Ok(run("RUNNING")));
    state.lingered(Some(Ok(run("COMPLETED"))));
    let status = settled(&state, at(1)).status;
    assert!(is_true(&status.conditions, STARTED) && is_true(&status.conditions, COMPLETE));
    // Whatever the poll answered, the run has started.
    for outcome in [Err(not_found()), Err(transient()), Ok(run("RUNNING"))] {
        state.lingered(Some(outcome));
        assert_eq!(ready(&settled(&state, at(1)).status), reason::RUNNING);
    }
    let mut at_once = claimed();
    at_once.sent(Ok(run("COMPLETED")));
    assert!(is_true(&settled(&at_once, at(1)).status.conditions, COMPLETE));
}

#[test]
fn a_conflict_of_an_unknown_kind_is_a_doubt_and_is_said() {
    let mut state = claimed();
    state.sent(Err(Error::Conflict(said(409, "WF_9999"))));
    assert_eq!(step(&state, at(1)), Call::GetRun);
    state.fetched(Err(not_found()));
    assert_eq!(ready(&settled(&state, at(1)).status), reason::REQUEST_REFUSED);
    state.fetched(Ok(run("RUNNING")));
    assert_eq!(ready(&settled(&state, at(1)).status), reason::RUNNING);
}

#[test]
fn a_run_that_the_api_has_shown_once_is_never_taken_for_one_that_did_not_start() {
    for answer in [Ok(run("RUNNING")), Err(Error::Conflict(said(409, "WF_1101")))] {
        let mut state = claimed();
        state.sent(answer);
        // The status could not be written; the next reconcile knows only what is in memory.
        let mut next = ExecutionState { memory: state.memory, ..claimed() };
        next.fetched(Err(not_found()));
        assert!(is_true(&settled(&next, at(100)).status.conditions, MISSING));
    }
}

#[test]
fn a_claim_older_than_a_day_is_not_started_without_consent() {
    let mut state = claimed();
    state.fetched(Err(not_found()));
    assert_eq!(claim_of(step(&state, at(86_000))).0.attempt, 2);
    assert_eq!(ready(&settled(&state, at(87_000)).status), reason::STALE_CLAIM);
    state.take_over = Some("run-u-1".into());
    assert_eq!(claim_of(step(&state, at(87_000))).0.attempt, 2);
}

#[test]
fn an_explicit_id_that_another_resource_has_just_claimed_waits() {
    let mut state = of_resource(json!({}), json!({ "executionId": "mine" }));
    state.fetched(Err(not_found()));
    state.outcomes.conflicting_claim_until = Some(at(90));
    let waiting = settled(&state, at(1));
    assert_eq!(ready(&waiting.status), reason::EXECUTION_ID_CLAIMED);
    assert!(matches!(waiting.requeue, Requeue::Retry(_)));
    let outcomes = Outcomes { conflicting_claim_until: None, ..state.outcomes };
    let alone = ExecutionState { outcomes, ..state };
    assert!(claim_of(step(&alone, at(90))).2);
}

#[test]
fn times_at_the_end_of_time_do_no_harm() {
    let mut state = with_claim(|claim| {
        claim.send_before = Timestamp::MAX;
        claim.stop_since = Some(Timestamp::MAX);
    });
    state.fetched(Err(not_found()));
    assert_eq!(ready(&settled(&state, at(80)).status), reason::OUTCOME_UNKNOWN);
    state.deleted = Some(at(100));
    assert_eq!(claim_of(step(&state, at(100))).0.stop_since, Some(at(100)));
    assert_eq!(step(&state, at(500)), ClusterStep::Release { abandoned: true });
    let mut ended = ExecutionState { refresh: true, ..started() };
    let mut run = run("FAILED");
    run.end_time = Some(Timestamp::MAX);
    ended.fetched(Ok(run));
    assert_eq!(step(&ended, at(100)), Call::ReadFailure);
}

#[test]
fn an_edit_after_the_end_is_acknowledged() {
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Ok(run("COMPLETED")));
    let status = settled(&state, at(6)).status;
    let edited = ExecutionState { generation: Some(2), finalizer: false, status, ..claimed() };
    let acknowledged = settled(&edited, at(1000)).status;
    assert_eq!(acknowledged.observed_generation, Some(2));
    assert!(acknowledged.conditions.iter().all(|condition| condition.observed_generation == Some(2)));
}

#[test]
fn a_run_whose_state_cannot_be_read_for_long_says_so() {
    let mut state = ExecutionState { refresh: true, ..started() };
    for _ in 0..4 {
        state.fetched(Err(transient()));
        assert_eq!(ready(&settled(&state, at(50)).status), reason::RUNNING);
    }
    state.fetched(Err(transient()));
    assert_eq!(ready(&settled(&state, at(50)).status), reason::API_UNAVAILABLE);
    assert!(is_true(&settled(&state, at(50)).status.conditions, STARTED));
}

#[test]
fn a_call_that_came_too_late_is_not_sent_and_leaves_no_doubt() {
    let mut state = claimed();
    state.too_late();
    let (claim, _, send) = claim_of(step(&state, at(20)));
    assert_eq!((claim.refused, send), (true, false));
    state.claimed(claim, false);
    assert_eq!(settled(&state, at(20)).requeue, Requeue::After(Duration::ZERO));
}

#[test]
fn after_a_refusal_nothing_is_repeated_before_it_is_due() {
    let mut state = with_claim(|claim| claim.refused = true);
    state.sent(Err(Error::Conflict(said(409, "AMBIGUOUS_WORKFLOW"))));
    let first = settled(&state, at(1));
    let Requeue::Retry(wait) = first.requeue else { panic!("{:?}", first.requeue) };
    assert!(wait >= Duration::from_secs(25));
    state.settled(first.requeue, at(1));
    // The operator's own write wakes the resource at once.
    let memory = state.memory.clone();
    let woken = |memory: Memory| ExecutionState {
        memory,
        status: first.status.clone(),
        ..with_claim(|claim| claim.refused = true)
    };
    assert!(matches!(settled(&woken(memory.clone()), at(2)).requeue, Requeue::Hold(_)));
    assert_eq!(step(&woken(memory.clone()), at(40)), Call::GetRun);
    // After a correction of the Secret or the spec, the retry comes at once.
    let corrected = ConnectionInfo { epoch: 2, ..connection() };
    assert_eq!(
        step(&ExecutionState { workspace: Workspace::Ready(corrected), ..woken(memory.clone()) }, at(2)),
        Call::GetRun
    );
    assert_eq!(step(&ExecutionState { generation: Some(2), ..woken(memory) }, at(2)), Call::GetRun);
}

#[test]
fn a_workflow_that_was_unknown_is_looked_for_by_one_cheap_question() {
    let mut state = with_claim(|claim| claim.refused = true);
    state.sent(Err(not_found()));
    let status = settled(&state, at(1)).status;
    let mut state = ExecutionState { status: status.clone(), ..with_claim(|claim| claim.refused = true) };
    assert_eq!(step(&state, at(60)), Call::GetTarget);
    state.target_fetched(Err(not_found()));
    assert_eq!(settled(&state, at(60)).status, status);
    state.target_fetched(Ok(()));
    assert_eq!(step(&state, at(60)), Call::GetRun);
    state.fetched(Err(not_found()));
    assert_eq!(claim_of(step(&state, at(60))).0.attempt, 2);
}

#[test]
fn suspend_holds_what_has_not_started() {
    let state = of_resource(json!({}), json!({ "suspend": true }));
    assert_eq!(ready(&settled(&state, at(1)).status), reason::SUSPENDED);
    let mut refused = with_claim(|claim| claim.refused = true);
    refused.spec.suspend = true;
    assert_eq!(ready(&settled(&refused, at(1)).status), reason::SUSPENDED);
    // A call that may be in flight is still followed, but not repeated.
    let mut doubt = claimed();
    doubt.spec.suspend = true;
    assert_eq!(step(&doubt, at(1)), Call::GetRun);
    doubt.fetched(Err(not_found()));
    assert_eq!(ready(&settled(&doubt, at(100)).status), reason::SUSPENDED);
    let running = ExecutionState { refresh: true, ..started() };
    assert_eq!(step(&ExecutionState { spec: doubt.spec, ..running }, at(100)), Call::GetRun);
}

#[test]
fn without_a_usable_workspace_nothing_is_called() {
    for (workspace, expected) in [
        (Workspace::NotFound, reason::WORKSPACE_NOT_FOUND),
        (Workspace::NotReady("no Secret".into(), Progress::Stalled), reason::WORKSPACE_NOT_READY),
    ] {
        for state in [new(), claimed(), started()] {
            let settled = settled(&ExecutionState { workspace: workspace.clone(), ..state }, at(100));
            assert_eq!((ready(&settled.status), settled.requeue), (expected, Requeue::OnChange));
        }
    }
    // The Workspace is not checked yet, or may be in the same manifest: there is nothing to report.
    let pending = ExecutionState { workspace: Workspace::Pending, ..new() };
    assert_eq!(settled(&pending, at(100)).status, new().status);
    let young = ExecutionState { workspace: Workspace::NotFound, ..new() };
    assert_eq!(settled(&young, at(1)).status, new().status);
}

#[test]
fn another_mistral_workspace_is_never_called_for_an_old_claim() {
    for moved in [
        ConnectionInfo { workspace_id: Some("another".into()), ..connection() },
        ConnectionInfo { origin: "https://api.eu".into(), ..connection() },
    ] {
        for state in [claimed(), started(), with_claim(|claim| claim.refused = true)] {
            let settled = settled(
                &ExecutionState { workspace: Workspace::Ready(moved.clone()), refresh: true, ..state },
                at(100),
            );
            assert_eq!(ready(&settled.status), reason::WORKSPACE_CHANGED);
        }
    }
    // If the API no longer reports the Mistral workspace, a started run is read, and nothing is started.
    let untold = Workspace::Ready(ConnectionInfo { workspace_id: None, ..connection() });
    let moved = settled(&ExecutionState { workspace: untold.clone(), ..claimed() }, at(100));
    assert_eq!(ready(&moved.status), reason::WORKSPACE_CHANGED);
    assert_eq!(step(&ExecutionState { workspace: untold, refresh: true, ..started() }, at(100)), Call::GetRun);
}

#[test]
fn a_claim_of_another_namespace_or_cluster_starts_nothing_without_consent() {
    let claim = claimed_elsewhere("run", "another-namespace");
    let foreign = |annotations: Value| of_resource(json!({ "annotations": annotations }), json!({}));
    let mut state = foreign(annotation(&claim));
    assert_eq!(step(&state, at(1000)), Call::GetRun);
    state.fetched(Err(not_found()));
    let waiting = settled(&state, at(1000));
    assert_eq!(ready(&waiting.status), reason::FOREIGN_CLAIM);
    state.fetched(Ok(run("RUNNING")));
    let read_only = settled(&state, at(1000));
    assert_eq!(find(&read_only.status.conditions, STARTED).unwrap().reason, reason::ADOPTED);
    let mut consent = annotation(&claim);
    consent[TAKE_OVER] = json!("run-u-1");
    let (taken, finalizer, send) = claim_of(step(&foreign(consent.clone()), at(1000)));
    assert_eq!((taken.owner.namespace.as_str(), finalizer, send), ("n", true, false));
    // The claim keeps its doubt, and a consent for another run does not count.
    assert_eq!(taken.send_before, claim.send_before);
    consent[TAKE_OVER] = json!("run-u-2");
    assert_eq!(step(&foreign(consent), at(1000)), Call::GetRun);
}

#[test]
fn a_claim_that_cannot_be_read_stops_everything_but_deletion() {
    let unreadable = json!({ "annotations": { "workflows.mistral.ai/claim": "{\"version\":9}" } });
    let state = of_resource(unreadable, json!({}));
    assert_eq!(ready(&settled(&state, at(1000)).status), reason::CLAIM_UNREADABLE);
    let deleted = ExecutionState { deleted: Some(at(1000)), finalizer: true, ..state };
    assert_eq!(step(&deleted, at(1000)), ClusterStep::Release { abandoned: true });
}

#[test]
fn a_claim_that_vanished_is_put_back_with_a_doubt() {
    let mut state = ExecutionState { annotation: ClaimAnnotation::Absent, ..started() };
    let (claim, _, send) = claim_of(step(&state, at(500)));
    assert_eq!((claim.execution_id.as_str(), send), ("run-u-1", false));
    // Another operator may have claimed after this one last did.
    state.status = WorkflowExecutionStatus::default();
    state.memory.claim = Some(Box::new(ClaimBackup { attempt: 3, ..ClaimBackup::of(&claim, &state.derived_id()) }));
    let (claim, _, send) = claim_of(step(&state, at(500)));
    assert_eq!((claim.attempt, claim.refused, send), (3, false, false));
    assert!(claim.outcome_known_by() > at(580));
}

#[test]
fn a_run_that_has_ended_does_not_look_new_when_the_cluster_is_restored_to_a_time_before_it() {
    let mut state = new();
    let claim = state.claim(&connection(), 2, at(0));
    state.claimed(claim, true);
    state.sent(Ok(run("COMPLETED")));
    state.memory.ended();
    // No claim, no status, the same UID.
    let mut restored = ExecutionState { memory: state.memory, ..new() };
    let (claim, _, send) = claim_of(step(&restored, at(500)));
    assert_eq!((claim.attempt, send), (2, false));
    restored.annotation = ClaimAnnotation::Claim(Box::new(claim));
    restored.fetched(Err(not_found()));
    assert!(is_true(&settled(&restored, at(1000)).status.conditions, MISSING), "the API has forgotten it");
}

#[test]
fn a_run_found_under_an_explicit_id_is_read_only() {
    let explicit = || of_resource(json!({}), json!({ "executionId": "mine" }));
    let mut state = explicit();
    state.fetched(Ok(run("RUNNING")));
    let (claim, finalizer, send) = claim_of(step(&state, at(1)));
    assert_eq!((claim.read_only, finalizer, send), (true, false, false));
    state.claimed(claim.clone(), false);
    state.finalizer = false;
    assert_eq!(step(&state, at(1)), Call::Compare);
    state.compared(Comparison::Same);
    let settled = settled(&state, at(1));
    assert_eq!(find(&settled.status.conditions, STARTED).unwrap().reason, reason::ADOPTED);
    // Nor is the run ours if the API reports it only in answer to our first call.
    let mut late = explicit();
    late.fetched(Err(not_found()));
    late.claimed(Claim { read_only: false, ..claim }, true);
    late.sent(Err(Error::Conflict(said(409, "WF_1101"))));
    assert!(claim_of(step(&late, at(1))).0.read_only);
    // Nor in answer to a later call, nor if it is another workflow's run, nor after a refusal.
    let with_id = |change: fn(&mut Claim)| {
        let mut state = with_claim(change);
        state.spec.execution_id = Some("mine".into());
        state
    };
    let mut second = with_id(|claim| claim.attempt = 2);
    second.sent(Err(Error::Conflict(said(409, "WF_1101"))));
    let mut other = run("RUNNING");
    other.workflow_name = Some("other".into());
    second.fetched(Ok(other));
    assert!(claim_of(step(&second, at(1))).0.read_only);
    let mut refused = with_id(|claim| claim.refused = true);
    refused.fetched(Ok(run("RUNNING")));
    assert!(claim_of(step(&refused, at(1))).0.read_only);
}

#[test]
fn an_edit_before_the_start_keeps_it_from_happening() {
    let mut state = claimed();
    state.spec.input = Some(Json::from(&json!({ "c": 2 })));
    state.fetched(Err(not_found()));
    assert_eq!(ready(&settled(&state, at(100)).status), reason::INPUT_CHANGED);
    state.fetched(Ok(run("COMPLETED")));
    assert_eq!(ready(&settled(&state, at(100)).status), reason::COMPLETED);
}

#[test]
fn backoff_doubles_to_a_limit_and_differs_by_resource() {
    let wait = |retries: u32, uid: &str| {
        let mut state = with_claim(|claim| claim.refused = true);
        state.uid = uid.into();
        state.memory.retries.in_a_row = retries;
        state.fetched(Err(transient()));
        match settled(&state, at(1)).requeue {
            Requeue::Retry(wait) => SignedDuration::try_from(wait).unwrap(),
            other => panic!("{other:?}"),
        }
    };
    assert!(wait(1, "a") > wait(0, "a") && wait(60, "a") <= SignedDuration::from_secs(66));
    assert_ne!(wait(0, "a"), wait(0, "b"));
}
