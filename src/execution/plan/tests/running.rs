//! A run that goes on, ends, or is forgotten.

use super::*;
use crate::execution::effects::orphan::OrphanedRun;
use crate::execution::finished::mark::Returns;
use crate::execution::state::{Named, Sent};
use crate::mistral::{Trouble, TroubleKind};

#[test]
fn a_running_one_is_asked_about_only_when_somebody_wants_to_look() {
    assert_eq!(settled(&started(), at(50)).requeue, Requeue::OnChange);
    let looking = ExecutionState { refresh: true, ..started() };
    assert_eq!(step(&looking, at(50)), Call::GetRun);
    for status in ["RUNNING", "CONTINUED_AS_NEW", "RETRYING_AFTER_ERROR", "PONDERING"] {
        let mut state = looking.clone();
        let mut still = run("RUNNING");
        still.status = Some(status.into());
        state.fetched(Ok(still));
        assert_eq!(ready(&settled(&state, at(50)).status), reason::RUNNING, "{status}");
    }
    let mut down = looking;
    down.fetched(Err(transient()));
    assert_eq!(settled(&down, at(50)).status, started().status);
}

#[test]
fn every_end_has_a_condition_and_a_time() {
    for (status, expected) in [
        ("COMPLETED", reason::COMPLETED),
        ("FAILED", reason::WORKFLOW_FAILED),
        ("CANCELED", reason::CANCELED),
        ("TERMINATED", reason::TERMINATED),
        ("TIMED_OUT", reason::TIMED_OUT),
    ] {
        let mut state = ExecutionState { refresh: true, ..started() };
        state.fetched(Ok(run(status)));
        if status == "FAILED" {
            assert_eq!(step(&state, at(50)), Call::ReadFailure);
            state.outcomes.failure = FailureText::Read(Some("no such customer".into()));
        }
        let settled = settled(&state, at(50));
        assert_eq!(ready(&settled.status), expected);
        let conditions = &settled.status.conditions;
        assert_eq!(is_true(conditions, COMPLETE), status == "COMPLETED");
        assert_eq!(is_true(conditions, FAILED), status != "COMPLETED");
        assert_eq!(settled.status.end_time.as_ref().unwrap().0, at(5));
        assert_eq!(settled.status.failure.is_some(), status != "COMPLETED");
    }
}

#[test]
fn how_long_a_run_took_is_told_with_its_end_and_not_before() {
    assert_eq!(started().status.duration, None);
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Ok(run("COMPLETED")));
    assert_eq!(settled(&state, at(50)).status.duration.as_deref(), Some("5.0s"), "from start to end");
    state.fetched(Ok(Execution { total_duration_ms: Some(90_400.0), ..run("COMPLETED") }));
    assert_eq!(settled(&state, at(50)).status.duration.as_deref(), Some("1m30s"), "as the API says");
}

/// The column and the field selector find a run however its workflow was named, and from the first write on.
#[test]
fn each_status_names_the_workflow_and_a_better_name_is_no_reason_to_write() {
    let id = "019b2bd7-96e7-7219-8c0b-45a73da50088";
    for (named, expected) in [
        (json!({}), "w"),
        (json!({ "workflowIdentifier": null, "registrationId": id }), id),
        (json!({ "workflowIdentifier": null, "workflowRef": { "name": "greeter" } }), "greeter"),
    ] {
        let mut state = of_resource(json!({}), named);
        state.spec.suspend = true;
        let waiting = settled(&state, at(1)).status;
        assert_eq!(waiting.workflow_name.as_deref(), Some(expected));
        state.status = waiting.clone();
        let workflow = Named { id: id.into(), name: "greet".into() };
        state.workflow_ref = WorkflowRefState::Ready { workflow, active: Some(true) };
        assert_eq!(settled(&state, at(2)).status, waiting);
    }
    let mut state = claimed();
    state.status.workflow_name = Some("greeter".into());
    state.outcomes.remote = Remote::Found(Box::new(run("RUNNING")));
    assert_eq!(settled(&state, at(1)).status.workflow_name.as_deref(), Some("w"), "as the API spells it");
}

#[test]
fn events_may_lag_behind_a_failure_for_a_while() {
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Ok(run("FAILED")));
    for _ in 0..4 {
        state.failure_read(Ok(Vec::new()));
        let waiting = settled(&state, at(6));
        // Lists keep reporting the end: being woken by them does not use up the attempts.
        assert_eq!(waiting.requeue, Requeue::Retry(Duration::from_secs(2)));
        let mut woken = state.clone();
        woken.settled(waiting.requeue, at(6));
        assert!(matches!(settled(&woken, at(7)).requeue, Requeue::Hold(_)));
        // Clients that wait for the end must not see it before its reason.
        assert_eq!((waiting.status.end_time, waiting.status.status.as_deref()), (None, Some("RUNNING")));
    }
    state.failure_read(Ok(Vec::new()));
    assert!(settled(&state, at(6)).status.failure.unwrap().message.contains("no text"));
}

#[test]
fn a_run_that_the_api_forgot_is_missing_and_lost_after_a_day_but_never_started_again() {
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Err(not_found()));
    assert_eq!(settled(&state, at(20)).status, state.status, "new runs show late");
    let missing = settled(&state, at(40));
    assert!(is_true(&missing.status.conditions, MISSING));
    state.status = missing.status;
    assert_eq!(ready(&settled(&state, at(40 + 86_000)).status), reason::MISSING);
    let lost = settled(&state, at(41 + 86_400));
    assert_eq!((ready(&lost.status), lost.status.end_time.is_some()), (reason::LOST, true));
    state.fetched(Ok(run("RUNNING")));
    assert!(find(&settled(&state, at(50)).status.conditions, MISSING).is_none());
}

#[test]
fn a_finished_one_costs_nothing_but_the_write_by_which_it_leaves() {
    let mut state = ExecutionState { refresh: true, ..started() };
    state.fetched(Ok(run("COMPLETED")));
    let status = settled(&state, at(6)).status;
    let finished = ExecutionState { refresh: true, status, ..claimed() };
    assert!(matches!(settled(&finished, at(6)).requeue, Requeue::AtLatest(_)));
    for finalizer in [true, false] {
        let finished = ExecutionState { finalizer, ..finished.clone() };
        assert!(matches!(settled(&finished, at(90)).requeue, Requeue::AtLatest(_)));
        assert_eq!(step(&finished, at(140)), ClusterStep::Leave { returns: Returns::Never });
    }
}

#[test]
fn a_start_in_doubt_of_a_resource_that_is_gone_is_not_stopped_once_another_may_have_started_its_own() {
    let trouble = || Trouble { kind: TroubleKind::Unavailable, message: "lost".into(), retry_after: None };
    let orphaned_run = |explicit: bool, sent: Sent| {
        let mut state = claimed();
        state.spec.execution_id = explicit.then(|| "explicit".to_owned());
        state.outcomes.sent = sent;
        OrphanedRun::new(&state).unwrap()
    };
    let ClaimAnnotation::Claim(claim) = claimed().annotation else { panic!("not claimed") };
    let over = claim.outcome_known_by();
    let unknown = orphaned_run(true, Sent::Unknown(trouble()));
    assert!(!unknown.may_be_anothers(at(1)) && unknown.may_be_anothers(over));
    // The last call is over before that.
    assert!(unknown.may_be_anothers(over.saturating_sub(SignedDuration::from_secs(30)).unwrap()));
    assert!(!orphaned_run(false, Sent::Unknown(trouble())).may_be_anothers(over));
    assert!(!orphaned_run(true, Sent::Accepted(Box::new(run("RUNNING")))).may_be_anothers(over));
}

/// A started run that was polled in vain, and its status in the list.
fn listed(status: &str, asked_in_vain: u32) -> ExecutionState {
    let mut state = started();
    state.memory.unanswered = asked_in_vain;
    state.memory.listed(Some(Box::new(Execution { end_time: Some(at(10)), ..run(status) })));
    let message = "the API's answer cannot be understood".to_owned();
    state.outcomes.remote = Remote::Unknown(Trouble { kind: TroubleKind::Unavailable, message, retry_after: None });
    state
}

#[test]
fn a_run_that_cannot_be_read_ends_as_the_list_says() {
    let completed = settled(&listed("COMPLETED", 5), at(20)).status;
    assert!(is_true(&completed.conditions, COMPLETE));
    let said = find(&completed.conditions, crate::api::conditions::RESULT_NOT_WRITTEN).unwrap();
    assert_eq!(said.reason, reason::RESULT_UNREADABLE);
    assert!(said.message.contains("cannot be understood"), "{}", said.message);
    assert_eq!(completed.end_time.map(|time| time.0), Some(at(10)));
    let canceled = settled(&listed("CANCELED", 5), at(20)).status;
    assert!(is_true(&canceled.conditions, FAILED));
    assert_eq!(plan(&listed("FAILED", 5), at(20)), Decision::Act(Call::ReadFailure.into()));
    // After brief trouble at a gateway, the run is polled again.
    assert!(!is_true(&settled(&listed("COMPLETED", 4), at(20)).status.conditions, COMPLETE));
    // A row that shows a running run is no end.
    assert!(!is_true(&settled(&listed("RUNNING", 9), at(20)).status.conditions, COMPLETE));
}

#[test]
fn the_deletion_of_a_run_that_cannot_be_read_does_not_wait_for_an_answer() {
    let deleting = |mut state: ExecutionState| {
        state.deleted = Some(at(20));
        state.finalizer = true;
        if let ClaimAnnotation::Claim(claim) = &mut state.annotation {
            claim.stop_since = Some(at(20));
        }
        state
    };
    assert_eq!(
        plan(&deleting(listed("COMPLETED", 5)), at(21)),
        Decision::Act(ClusterStep::Release { abandoned: false }.into())
    );
    let mut state = deleting(listed("RUNNING", 1));
    assert_eq!(plan(&state, at(21)), Decision::Act(Call::Stop(StopCall::Cancel).into()));
    state.memory.stop = Some((StopCall::Cancel, at(21)));
    assert!(matches!(plan(&state, at(22)), Decision::Settle(_)));
    // After the grace period.
    assert_eq!(plan(&state, at(60)), Decision::Act(Call::Stop(StopCall::Terminate).into()));
    state.memory.unanswered = 3;
    state.memory.stop = Some((StopCall::Terminate, at(60)));
    assert_eq!(plan(&state, at(61)), Decision::Act(ClusterStep::Release { abandoned: false }.into()));
    // The API says that the run is not running.
    let mut state = deleting(listed("RUNNING", 1));
    let said = ApiError {
        status: 409,
        code: Some("WF_1102".into()),
        detail: "not running".into(),
        deployments: Vec::new(),
        is_json: true,
    };
    state.outcomes.stopped = Some(Err(Error::Conflict(said)));
    assert_eq!(plan(&state, at(21)), Decision::Act(ClusterStep::Release { abandoned: false }.into()));
}

#[test]
fn a_run_that_is_there_and_cannot_be_read_counts_as_started() {
    let mut state = started();
    state.status = WorkflowExecutionStatus::default();
    for _ in 0..2 {
        state.fetched(Err(Error::Unreadable { too_long: false, message: "not JSON".into() }));
    }
    assert!(is_true(&settled(&state, at(20)).status.conditions, STARTED));
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
