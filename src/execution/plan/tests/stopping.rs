//! Tables for `shutdown` and the two deadlines.

use super::*;
use crate::api::Shutdown;
use crate::execution::claim::StopFor;

/// A started run with this `spec.shutdown`.
fn told(shutdown: Shutdown) -> ExecutionState {
    let mut state = started();
    state.spec.shutdown = Some(shutdown);
    state
}

/// The same, recorded in the claim since second 50.
fn recorded(shutdown: Shutdown) -> ExecutionState {
    let mut state = told(shutdown);
    let ClaimAnnotation::Claim(claim) = &mut state.annotation else { unreachable!() };
    (claim.stop_since, claim.stop_for) = (Some(at(50)), Some(StopFor::Shutdown));
    state
}

#[test]
fn a_shutdown_is_recorded_before_it_calls_and_cancels_once_and_terminates_after_the_grace() {
    let mut state = told(Shutdown::Cancel);
    assert_eq!(step(&state, at(50)), Call::GetRun);
    state.fetched(Ok(run("RUNNING")));
    let (claim, _, send) = claim_of(step(&state, at(50)));
    assert_eq!((claim.stop_since, claim.stop_for, send), (Some(at(50)), Some(StopFor::Shutdown), false));
    state.claimed(claim, false);
    assert_eq!(step(&state, at(50)), Call::Stop(StopCall::Cancel));
    state.stop_sent(StopCall::Cancel, Ok(()), at(50));
    let waiting = settled(&state, at(50));
    assert_eq!(ready(&waiting.status), reason::STOPPING);
    assert!(is_true(&waiting.status.conditions, STARTED));
    state.outcomes.stopped = None;
    assert!(matches!(settled(&state, at(60)).requeue, Requeue::After(_)), "asked once is enough");
    assert_eq!(step(&state, at(80)), Call::Stop(StopCall::Terminate));
}

#[test]
fn a_stop_that_is_recorded_goes_on_when_the_wish_is_gone() {
    let mut state = recorded(Shutdown::Cancel);
    state.spec.shutdown = None;
    state.fetched(Ok(run("RUNNING")));
    assert_eq!(step(&state, at(51)), Call::Stop(StopCall::Cancel));
    assert_eq!(step(&state, at(80)), Call::Stop(StopCall::Terminate));
}

#[test]
fn a_stop_that_the_run_has_not_heeded_for_a_minute_is_asked_for_again() {
    let mut state = recorded(Shutdown::Terminate);
    state.fetched(Ok(run("RUNNING")));
    state.memory.stop = Some((StopCall::Terminate, at(50)));
    assert!(matches!(settled(&state, at(100)).requeue, Requeue::After(_)));
    assert_eq!(step(&state, at(111)), Call::Stop(StopCall::Terminate));
}

#[test]
fn every_end_of_a_stopped_run_is_told_as_what_it_is() {
    for (end, why, expected) in [
        ("CANCELED", StopFor::Shutdown, reason::CANCELED),
        ("TERMINATED", StopFor::Shutdown, reason::TERMINATED),
        ("CANCELED", StopFor::Deadline, reason::DEADLINE_EXCEEDED),
        ("TERMINATED", StopFor::Deadline, reason::DEADLINE_EXCEEDED),
        ("COMPLETED", StopFor::Shutdown, reason::COMPLETED),
        ("COMPLETED", StopFor::Deadline, reason::COMPLETED),
        ("FAILED", StopFor::Deadline, reason::WORKFLOW_FAILED),
        ("TIMED_OUT", StopFor::Shutdown, reason::TIMED_OUT),
    ] {
        let mut state = recorded(Shutdown::Cancel);
        let ClaimAnnotation::Claim(claim) = &mut state.annotation else { unreachable!() };
        claim.stop_for = Some(why);
        state.fetched(Ok(run(end)));
        state.outcomes.failure = FailureText::Read(Some("no".into()));
        assert_eq!(ready(&settled(&state, at(60)).status), expected, "{end} {why:?}");
    }
}

#[test]
fn a_stop_met_with_trouble_is_told_and_tried_again() {
    let with = |error: Error| {
        let mut state = recorded(Shutdown::Cancel);
        state.fetched(Ok(run("RUNNING")));
        state.stop_sent(StopCall::Cancel, Err(error), at(51));
        settled(&state, at(51))
    };
    let down = with(transient());
    assert_eq!(ready(&down.status), reason::STOPPING);
    assert!(matches!(down.requeue, Requeue::Retry(_)));
    assert_eq!(ready(&with(Error::Unauthorized(said(401, "x"))).status), reason::CREDENTIAL_REFUSED);
    // The run has ended, or is not visible yet: the next poll tells which.
    for error in [not_found(), Error::Conflict(said(409, "WF_1102"))] {
        assert!(matches!(with(error).requeue, Requeue::After(_)));
    }
}

#[test]
fn a_run_is_stopped_by_a_connection_that_was_good_not_long_ago() {
    let lost = |state: ExecutionState| ExecutionState {
        workspace: Workspace::NotReady("the Secret is gone".into(), Progress::Stalled),
        ..state
    };
    assert_eq!(step(&lost(told(Shutdown::Cancel)), at(50)), Call::GetRun);
    assert_eq!(ready(&settled(&lost(started()), at(50)).status), reason::WORKSPACE_NOT_READY);
    let state_unreadable = ExecutionState { stop_with: None, ..lost(told(Shutdown::Cancel)) };
    assert_eq!(ready(&settled(&state_unreadable, at(50)).status), reason::WORKSPACE_NOT_READY);
}

#[test]
fn a_run_of_somebody_else_is_neither_stopped_nor_held_to_a_deadline() {
    let mut state = with_claim(|claim| claim.read_only = true);
    state.status = started().status;
    state.finalizer = false;
    state.spec.shutdown = Some(Shutdown::Terminate);
    state.spec.active_deadline_seconds = Some(1);
    state.fetched(Ok(run("RUNNING")));
    let left_alone = settled(&state, at(500));
    assert_eq!(ready(&left_alone.status), reason::RUNNING);
    let ready = find(&left_alone.status.conditions, READY).unwrap();
    assert!(ready.message.contains("this resource does not own it"), "{}", ready.message);
}

#[test]
fn what_has_not_started_is_kept_from_starting_without_a_call() {
    for (shutdown, expected) in [(Shutdown::Cancel, reason::CANCELED), (Shutdown::Terminate, reason::TERMINATED)] {
        for state in [
            new(),
            with_claim(|claim| claim.refused = true),
            ExecutionState { workspace: Workspace::NotFound, ..new() },
        ] {
            let mut state = state;
            state.spec.shutdown = Some(shutdown);
            let status = settled(&state, at(1)).status;
            assert_eq!(ready(&status), expected);
            assert!(is_true(&status.conditions, FAILED) && !is_true(&status.conditions, STARTED));
            assert_eq!(status.end_time.map(|time| time.0), Some(at(1)));
        }
    }
}

#[test]
fn a_start_in_doubt_is_resolved_before_it_is_given_up() {
    for (change, expected) in [
        (
            Box::new(|state: &mut ExecutionState| state.spec.shutdown = Some(Shutdown::Cancel))
                as Box<dyn Fn(&mut ExecutionState)>,
            reason::CANCELED,
        ),
        (
            Box::new(|state: &mut ExecutionState| state.spec.starting_deadline_seconds = Some(10)),
            reason::STARTING_DEADLINE_EXCEEDED,
        ),
    ] {
        let mut state = claimed();
        change(&mut state);
        assert_eq!(step(&state, at(20)), Call::GetRun);
        state.fetched(Err(not_found()));
        assert_eq!(ready(&settled(&state, at(20)).status), reason::OUTCOME_UNKNOWN);
        assert_eq!(ready(&settled(&state, at(91)).status), expected);
        state.fetched(Ok(run("RUNNING")));
        if state.spec.shutdown.is_some() {
            assert!(claim_of(step(&state, at(20))).0.stop_since.is_some());
        } else {
            assert_eq!(ready(&settled(&state, at(20)).status), reason::RUNNING, "it started in time");
        }
    }
}

#[test]
fn a_claim_that_was_lost_is_no_proof_that_nothing_started() {
    let mut state = ExecutionState { annotation: ClaimAnnotation::Absent, ..claimed() };
    state.status.execution_id = Some("run-u-1".into());
    state.spec.starting_deadline_seconds = Some(10);
    assert_eq!(claim_of(step(&state, at(20))).0.execution_id, "run-u-1");
}

#[test]
fn a_starting_deadline_wakes_the_resource_and_tells_what_kept_it_also_while_suspended() {
    let mut state =
        ExecutionState { workspace: Workspace::NotReady("the API refused the key".into(), Progress::Stalled), ..new() };
    state.spec.starting_deadline_seconds = Some(60);
    let waiting = settled(&state, at(20));
    assert_eq!(waiting.requeue, Requeue::AtLatest(Duration::from_secs(40)));
    state.status = waiting.status;
    let over = settled(&state, at(60));
    assert_eq!(ready(&over.status), reason::STARTING_DEADLINE_EXCEEDED);
    assert!(over.status.failure.unwrap().message.contains("the API refused the key"));
    let mut suspended = new();
    suspended.spec.suspend = true;
    suspended.spec.starting_deadline_seconds = Some(60);
    assert_eq!(ready(&settled(&suspended, at(60)).status), reason::STARTING_DEADLINE_EXCEEDED);
    // A retry is not delayed beyond the deadline.
    let mut refused = with_claim(|claim| claim.refused = true);
    refused.spec.starting_deadline_seconds = Some(60);
    refused.outcomes.sent = crate::execution::state::Sent::NotStarted(crate::mistral::Trouble::from(transient()));
    refused.memory.retries.in_a_row = 10;
    assert_eq!(settled(&refused, at(59)).requeue, Requeue::Retry(Duration::from_secs(1)));
}

#[test]
fn an_active_deadline_wakes_a_running_resource_and_stops_its_run() {
    let mut state = started();
    state.spec.active_deadline_seconds = Some(100);
    assert_eq!(settled(&state, at(40)).requeue, Requeue::AtLatest(Duration::from_secs(60)));
    assert_eq!(step(&state, at(100)), Call::GetRun);
    state.fetched(Ok(run("RUNNING")));
    assert_eq!(claim_of(step(&state, at(100))).0.stop_for, Some(StopFor::Deadline));
}

#[test]
fn a_run_that_was_past_its_deadline_when_it_was_found_is_first_told_to_have_started() {
    let mut state = claimed();
    state.spec.active_deadline_seconds = Some(1);
    state.outcomes.claimed_this_reconcile = true;
    state.sent(Ok(run("RUNNING")));
    state.lingered(None);
    assert_eq!(ready(&settled(&state, at(30)).status), reason::RUNNING);
}

#[test]
fn a_stop_that_is_recorded_goes_on_when_the_claim_is_lost() {
    let mut state = recorded(Shutdown::Cancel);
    let ClaimAnnotation::Claim(claim) = &state.annotation else { unreachable!() };
    state.memory.claim = Some(Box::new(ClaimBackup::of(claim.as_ref(), &state.derived_id())));
    // As after `kubectl replace` with a manifest that has neither.
    (state.annotation, state.spec.shutdown) = (ClaimAnnotation::Absent, None);
    let (claim, ..) = claim_of(step(&state, at(60)));
    assert_eq!((claim.stop_since, claim.stop_for), (Some(at(50)), Some(StopFor::Shutdown)));
}
