//! What people read: what is wrong, what to do, and when the operator tries again.

use super::*;
use crate::api::conditions::{RECONCILING, STALLED};
use crate::execution::claim::StopFor;
use crate::execution::plan::blocked::troubled;
use crate::execution::plan::waiting::report_due;
use crate::execution::state::input::Input;
use crate::execution::state::{Named, Report, Target};
use crate::mistral::Trouble;
use crate::throttle::Place;

fn message(status: &WorkflowExecutionStatus) -> String {
    find(&status.conditions, READY).unwrap().message.clone()
}

fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{word} in: {message}");
    }
}

/// A start with this spec that the API has refused with this answer, and the refusal is recorded.
fn refused(spec: Value, error: Error) -> ExecutionState {
    let mut state = of_resource(json!({}), spec);
    let claim = Claim { refused: true, ..state.claim(&connection(), 1, at(0)) };
    state.memory.claim = Some(Box::new(ClaimBackup { refused: true, ..state.known(&claim) }));
    state.annotation = ClaimAnnotation::Claim(Box::new(claim));
    state.sent(Err(error));
    state
}

#[test]
fn an_unknown_deployment_is_told_as_one_and_the_others_are_named() {
    let mut state = refused(json!({ "deploymentName": "blue" }), Error::NotFound(said(404, "WF_1100")));
    assert_eq!(step(&state, at(1)), Call::GetTarget, "the workflow may well exist");
    let active = vec!["alice".to_owned(), "bob".to_owned()];
    state.target_fetched(Ok(Target::NoDeployment { active: active.clone() }));
    let told = settled(&state, at(1));
    assert_eq!(ready(&told.status), reason::DEPLOYMENT_NOT_FOUND);
    let words = [
        "No live worker of deployment \"blue\" serves workflow \"w\"",
        "alice, bob",
        "new WorkflowExecution",
        "5 minutes",
    ];
    assert_says(&message(&told.status), &words);
    assert!(is_true(&told.status.conditions, STALLED) && matches!(told.requeue, Requeue::Retry(_)));
    // The next try asks again before it claims.
    let next = ExecutionState { status: told.status.clone(), ..state.clone() };
    let next = ExecutionState { outcomes: Outcomes::default(), ..next };
    assert_eq!(step(&next, at(60)), Call::GetTarget);
    let with = |target| ExecutionState { outcomes: Outcomes { target, ..Outcomes::default() }, ..next.clone() };
    let still = settled(&with(Target::NoDeployment { active }), at(60));
    assert_eq!(still.status, told.status, "nothing to write");
    assert_eq!(step(&with(Target::Exists), at(60)), Call::GetRun);
    let gone = settled(&with(Target::Absent), at(60)).status;
    assert_eq!(ready(&gone), reason::TARGET_NOT_FOUND, "the workflow is missing, too");

    state.target_fetched(Ok(Target::NoDeployment { active: Vec::new() }));
    assert_says(&message(&settled(&state, at(1)).status), &["No live worker of deployment \"blue\"", "No other"]);
    state.target_fetched(Err(not_found()));
    assert_eq!(ready(&settled(&state, at(1)).status), reason::TARGET_NOT_FOUND);
    // Without a deployment name, there is nothing to ask.
    let unknown = refused(json!({}), Error::NotFound(said(404, "WF_1100")));
    assert_eq!(ready(&settled(&unknown, at(1)).status), reason::TARGET_NOT_FOUND);
}

#[test]
fn an_incomplete_look_at_the_deployments_changes_no_reason_that_has_been_told() {
    // What the status says after a start was refused with a 404 and a look at the deployments.
    let look = |before: &ExecutionState, target: Result<Target, Error>| {
        let mut state = refused(json!({ "deploymentName": "blue" }), Error::NotFound(said(404, "WF_1100")));
        state.status = before.status.clone();
        state.target_fetched(target);
        state.status = settled(&state, at(1)).status;
        state
    };
    let away = || Error::Transient { retry_after: None, message: "away".into() };
    let nothing = new();
    let missing = look(&nothing, Ok(Target::NoDeployment { active: vec!["red".into()] }));
    for incomplete in [Ok(Target::DeploymentUnknown), Err(away())] {
        assert_eq!(look(&missing, incomplete).status, missing.status);
    }
    assert_eq!(step(&ExecutionState { outcomes: Outcomes::default(), ..missing.clone() }, at(60)), Call::GetTarget);
    let unknown = look(&nothing, Ok(Target::DeploymentUnknown));
    assert_eq!(ready(&unknown.status), reason::TARGET_NOT_FOUND);
    assert_eq!(look(&unknown, Ok(Target::DeploymentUnknown)).status, unknown.status);
    // A complete one does.
    let found = look(&unknown, Ok(Target::NoDeployment { active: Vec::new() }));
    assert_eq!(ready(&found.status), reason::DEPLOYMENT_NOT_FOUND);
    assert_eq!(ready(&look(&found, Ok(Target::Exists)).status), reason::TARGET_NOT_FOUND);
    assert_eq!(ready(&look(&found, Err(not_found())).status), reason::TARGET_NOT_FOUND);
}

#[test]
fn a_refusal_names_the_right_the_secret_and_the_next_try() {
    let start = settled(&refused(json!({}), Error::Rejected(said(403, "x"))), at(1)).status;
    let words = ["start workflow \"w\"", "HTTP 403", "Secret \"mistral\"", "Workspace \"default\"", "within 5 minutes"];
    assert_says(&message(&start), &words);
    let mut state = claimed();
    state.fetched(Err(Error::Rejected(said(403, "x"))));
    assert_says(&message(&settled(&state, at(1)).status), &["refuses to show the run", "Secret \"mistral\""]);
    state.fetched(Err(Error::Unauthorized(said(401, "x"))));
    assert_says(&message(&settled(&state, at(1)).status), &["Secret \"mistral\"", "valid key", "within 5 minutes"]);
}

#[test]
fn a_run_that_goes_on_says_since_when_whether_a_worker_is_there_and_what_ends_it() {
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Ok(run("RUNNING")));
    let told = |state: &ExecutionState| message(&settled(state, at(50)).status);
    assert_says(&told(&state), &["1970-01-12T13:46:40Z", "check that a worker"]);
    state.spec.active_deadline_seconds = Some(3600);
    assert_says(&told(&state), &["3600 s (spec.activeDeadlineSeconds)"]);
    for (active, words) in [(true, "A live worker serves"), (false, "no live worker serves its workflow")] {
        let workflow = Named { id: "id".into(), name: "w".into() };
        state.workflow_ref = WorkflowRefState::Ready { workflow, active: Some(active) };
        assert_says(&told(&state), &[words]);
    }
}

#[test]
fn a_doubt_says_until_when_the_run_is_looked_for_and_is_written_once() {
    let mut state = claimed();
    state.sent(Err(Error::UnknownOutcome { message: "the connection broke.".into() }));
    state.fetched(Err(not_found()));
    let first = settled(&state, at(1)).status;
    let words = ["(the connection broke)", "\"run-u-1\"", "until 1970-01-12T13:48:10Z", "nothing to do"];
    assert_says(&message(&first), &words);
    // The next look does not know what happened to the call.
    let mut next = ExecutionState { status: first.clone(), ..claimed() };
    next.fetched(Err(not_found()));
    assert_eq!(settled(&next, at(20)).status, first);
}

#[test]
fn a_deadline_for_the_start_is_never_told_with_a_way_to_start() {
    let mut state = new();
    state.spec.suspend = true;
    state.spec.starting_deadline_seconds = Some(60);
    let waiting = settled(&state, at(1)).status;
    assert_says(&message(&waiting), &["Set it to false", "by 1970-01-12T13:47:40Z at the latest"]);
    state.status = waiting;
    let late = settled(&state, at(60)).status;
    assert_eq!(ready(&late), reason::STARTING_DEADLINE_EXCEEDED);
    assert_says(&message(&late), &["within 60 s", "never will", "Suspended", "spec.suspend is true"]);
    assert!(!message(&late).contains("Set it to false"), "{}", message(&late));
}

#[test]
fn a_stop_says_when_it_becomes_a_termination_and_who_ended_the_run() {
    let stopped = |end: &str, why: Option<StopFor>, shutdown| {
        let change = |claim: &mut Claim| (claim.stop_since, claim.stop_for) = (why.map(|_| at(1)), why);
        let mut state = ExecutionState { status: started().status, refresh: true, ..with_claim(change) };
        state.spec.shutdown = shutdown;
        state.spec.active_deadline_seconds = Some(60);
        state.fetched(Ok(run(end)));
        settled(&state, at(70)).status
    };
    let (cancel, terminate) = (Some(Shutdown::Cancel), Some(Shutdown::Terminate));
    for (end, why, shutdown, words) in [
        ("CANCELED", Some(StopFor::Shutdown), cancel, "was canceled, as spec.shutdown asked"),
        ("TERMINATED", Some(StopFor::Shutdown), terminate, "was terminated, as spec.shutdown asked"),
        ("TERMINATED", Some(StopFor::Shutdown), cancel, "did not stop within the 30 s"),
        ("CANCELED", Some(StopFor::Deadline), None, "longer than the 60 s of spec.activeDeadlineSeconds"),
        ("TERMINATED", Some(StopFor::Deadline), None, "did not stop within the 30 s"),
        ("CANCELED", None, None, "canceled at Mistral, not by this operator"),
        ("TERMINATED", None, None, "terminated at Mistral, not by this operator"),
    ] {
        let status = stopped(end, why, shutdown);
        assert_says(&message(&status), &[words]);
        assert!(is_true(&status.conditions, FAILED), "{words}");
        // Nobody has to act where the spec asked for it.
        let asked = why == Some(StopFor::Shutdown);
        assert_eq!(is_true(&status.conditions, STALLED), !asked, "{words}");
        assert_eq!(is_true(&status.conditions, READY), asked, "{words}");
    }
    let change = |claim: &mut Claim| (claim.stop_since, claim.stop_for) = (Some(at(10)), Some(StopFor::Shutdown));
    let mut state = ExecutionState { status: started().status, refresh: true, ..with_claim(change) };
    state.spec.shutdown = cancel;
    state.fetched(Ok(run("RUNNING")));
    state.stop_sent(StopCall::Cancel, Ok(()), at(10));
    assert_says(&message(&settled(&state, at(11)).status), &["was asked to stop", "until 1970-01-12T13:47:20Z"]);
}

#[test]
fn a_claim_from_elsewhere_names_its_cluster() {
    for (cluster, words) in [("cluster", "of this cluster"), ("u-9", "has the UID u-9")] {
        let mut claim = claimed_elsewhere("run", "other");
        claim.owner.cluster = cluster.into();
        let mut state = of_resource(json!({ "annotations": annotation(&claim) }), json!({}));
        state.fetched(Err(not_found()));
        let status = settled(&state, at(200)).status;
        assert_eq!(ready(&status), reason::FOREIGN_CLAIM);
        assert_says(&message(&status), &["\"run\" in namespace \"other\"", words, "annotate this resource"]);
    }
}

#[test]
fn an_execution_in_the_queue_says_how_many_are_ahead_without_a_notice() {
    let mut state = new();
    state.outcomes.report = Report::Queued(Place { ahead: 18, limit: 1.0, rate: 1.0 });
    let Settled { status, notices, requeue } = settled(&state, at(4));
    assert_eq!((ready(&status), status.workflow_name.as_deref()), (reason::QUEUED, Some("w")));
    assert_says(&message(&status), &["about 18 calls", "limit is 1 a second", "starts by itself"]);
    assert!(is_true(&status.conditions, RECONCILING) && notices.is_empty());
    assert!(matches!(requeue, Requeue::Hold(_)), "retries are not forgotten: {requeue:?}");
    // Its turn comes: it starts as any new one.
    let granted = ExecutionState { status, outcomes: Outcomes::default(), ..state };
    assert!(claim_of(step(&granted, at(20))).2);
}

#[test]
fn a_cause_that_is_gone_is_told_no_longer_than_four_seconds_once_the_execution_waits_for_its_turn() {
    let told = |reason: &str, of: ExecutionState| {
        let message = "it waits for something".to_owned();
        let status = crate::execution::status::not_started(&of, Progress::Stalled, reason, message, at(4));
        ExecutionState { status, ..of }
    };
    let due = |state: &ExecutionState, waited: u64| report_due(state, Duration::from_secs(waited), at(600));
    let missing = ExecutionState { workspace: Workspace::NotFound, workflow_ref: WorkflowRefState::NotFound, ..new() };
    let suspended = of_resource(json!({}), json!({ "suspend": true }));
    let mut read = new();
    read.outcomes.input = Input::Read(std::sync::Arc::default());
    for (reason, present, gone) in [
        (reason::SUSPENDED, &suspended, &new()),
        (reason::WORKSPACE_NOT_FOUND, &missing, &new()),
        (reason::WORKSPACE_NOT_READY, &missing, &new()),
        (reason::WORKFLOW_NOT_FOUND, &missing, &new()),
        (reason::WORKFLOW_NOT_READY, &missing, &new()),
        (reason::INPUT_NOT_FOUND, &new(), &read),
        (reason::INPUT_FORBIDDEN, &new(), &read),
    ] {
        assert_eq!(due(&told(reason, present.clone()), 60), None, "{reason} still holds");
        let gone = told(reason, gone.clone());
        assert_eq!(due(&gone, 1), Some(Duration::from_secs(3)), "{reason}");
        assert_eq!(due(&gone, 60), Some(Duration::ZERO), "{reason}");
        assert_eq!(due(&ExecutionState { deleted: Some(at(500)), ..gone }, 60), None);
    }
    // Only Mistral knows whether these still hold.
    for reason in [reason::TARGET_NOT_FOUND, reason::CREDENTIAL_REFUSED, reason::QUEUED] {
        assert_eq!(due(&told(reason, read.clone()), 60), None, "{reason}");
    }
    assert_eq!(due(&started(), 60), None);
    assert_eq!(report_due(&new(), Duration::ZERO, at(1)), Some(Duration::from_secs(3)), "a blank row");
    // What it then says.
    let mut waiting = told(reason::WORKFLOW_NOT_FOUND, new());
    waiting.outcomes.report = Report::Queued(Place { ahead: 18, limit: 1.0, rate: 1.0 });
    let status = settled(&waiting, at(600)).status;
    assert_eq!(ready(&status), reason::QUEUED);
    assert!(is_true(&status.conditions, RECONCILING) && !is_true(&status.conditions, STALLED));
}

#[test]
fn a_workspace_that_is_being_checked_is_told_after_four_seconds_and_only_to_a_blank_row() {
    let pending = ExecutionState { workspace: Workspace::Pending, ..new() };
    let early = settled(&pending, at(1));
    assert_eq!((early.status.conditions, early.requeue), (Vec::new(), Requeue::After(Duration::from_secs(3))));
    assert_eq!(step(&pending, at(4)), ClusterStep::MayReport);
    let outcomes = Outcomes { report: Report::Allowed, ..Outcomes::default() };
    let told = settled(&ExecutionState { outcomes, ..pending.clone() }, at(4)).status;
    assert_eq!(ready(&told), reason::WORKSPACE_NOT_READY);
    assert_says(&message(&told), &["checking the key of Workspace \"default\""]);
    let running = ExecutionState { workspace: Workspace::Pending, ..started() };
    assert_eq!(settled(&running, at(50)).status, started().status);
}

#[test]
fn no_message_names_a_time_in_the_past() {
    let mut own = claimed();
    own.fetched(Err(transient()));
    let early = settled(&own, at(1)).status;
    assert_says(&message(&early), &["until", "There is nothing to do"]);
    let late = settled(&own, at(200_000)).status;
    assert_eq!(ready(&late), reason::OUTCOME_UNKNOWN);
    assert_says(&message(&late), &["looks for the run \"run-u-1\" now", "consent"]);
}

#[test]
fn only_a_403_is_told_as_a_missing_right() {
    let told = |status, code| {
        let state = refused(json!({}), Error::Rejected(said(status, code)));
        message(&settled(&state, at(1)).status)
    };
    assert_says(&told(403, "WF_1"), &["Give the key in Secret", "the right to do so", "5 minutes"]);
    assert_says(
        &told(400, "WF_2"),
        &["HTTP 400", "Correct what the API names in a new WorkflowExecution", "5 minutes"],
    );
    assert!(!told(400, "WF_2").contains("right"), "{}", told(400, "WF_2"));
}

#[test]
fn what_hinders_a_run_that_goes_on_is_not_told_as_if_it_had_to_start() {
    let without = |state: ExecutionState, workspace| {
        let mut state = state;
        state.workspace = workspace;
        message(&settled(&state, at(100)).status)
    };
    let not_ready = || Workspace::NotReady("its Secret is gone.".into(), Progress::Stalled);
    assert_says(&without(new(), Workspace::NotFound), &["so nothing is started", "the run starts once"]);
    assert_says(&without(started(), Workspace::NotFound), &["cannot follow the run", "the run itself is not affected"]);
    assert_says(&without(new(), not_ready()), &["its Secret is gone. The run starts once the Workspace is ready."]);
    assert_says(&without(started(), not_ready()), &["follows the run again", "the run itself is not affected"]);

    let unreadable = |state: ExecutionState| {
        let state = ExecutionState { annotation: ClaimAnnotation::Unreadable, ..state };
        message(&settled(&state, at(100)).status)
    };
    assert_says(&unreadable(new()), &["A run may exist", "remove the annotation once"]);
    let told = unreadable(started());
    assert_says(&told, &["The run is not affected", "restore the annotation from a backup"]);
    assert!(!told.contains("remove"), "{told}");
}

#[test]
fn a_pause_is_told_only_where_the_api_asks_for_one() {
    let told = |retry_after| {
        let trouble = Trouble::from(Error::Transient { retry_after, message: "away".into() });
        let Decision::Settle(settled) = troubled(&new(), &trouble, at(1)) else { panic!("acts") };
        message(&settled.status)
    };
    let pause = told(Some(Duration::from_secs(20)));
    assert_says(&pause, &["tries again when the pause that the API asks for is over."]);
    assert_eq!(told(Some(Duration::from_secs(19))), pause, "a pause that counts down is no news");
    assert_says(&told(None), &["tries again within a minute."]);
}
