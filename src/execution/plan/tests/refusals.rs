//! Writes that the API server refuses.

use super::*;
use crate::api::Shutdown;
use crate::api::conditions::{RESULT_NOT_WRITTEN, STALLED};
use crate::execution::plan::refused_writes::smaller;
use crate::execution::state::Sent;
use crate::execution::state::refusals::Write;
use crate::platform::refused::{Cause, Refused};

fn refused(cause: Cause) -> Refused {
    Refused { cause, said: "no, said the API server".into() }
}

/// The API server has refused the claim of a new resource.
fn unclaimed() -> ExecutionState {
    let mut state = new();
    let (claim, _, send) = claim_of(step(&state, at(1)));
    state.refused(Write::Claim, refused(Cause::Annotations), at(1));
    state.unclaimed(claim, send);
    state
}

#[test]
fn a_refused_claim_starts_nothing_and_says_what_to_do() {
    let state = unclaimed();
    let Settled { status, notices, requeue } = settled(&state, at(1));
    assert_eq!(ready(&status), reason::CLAIM_REFUSED);
    assert!(is_true(&status.conditions, STALLED) && !is_true(&status.conditions, STARTED));
    let message = &find(&status.conditions, READY).unwrap().message;
    for expected in
        ["Nothing was started", "--server-side", "no, said the API server", "at growing intervals of up to 5 minutes"]
    {
        assert!(message.contains(expected), "{message}");
    }
    assert_eq!(notices.len(), 1);
    assert!(matches!(requeue, Requeue::After(wait) if wait <= Duration::from_secs(6)), "{requeue:?}");
}

#[test]
fn a_refused_claim_is_tried_again_when_it_is_due_and_at_once_when_the_resource_changes() {
    let mut state = unclaimed();
    assert!(claim_of(step(&state, at(8))).2, "due");
    state.version = "8".into();
    assert!(claim_of(step(&state, at(1))).2, "changed");
    state.version = "7".into();
    state.wrote("9");
    assert_eq!(ready(&settled(&state, at(1)).status), reason::CLAIM_REFUSED, "the operator's own status is no change");
}

#[test]
fn a_deadline_that_a_refused_claim_has_passed_names_the_refusal_even_where_no_status_could() {
    let mut state = unclaimed();
    state.spec.starting_deadline_seconds = Some(10);
    let status = settled(&state, at(11)).status;
    assert_eq!(ready(&status), reason::STARTING_DEADLINE_EXCEEDED);
    assert!(find(&status.conditions, FAILED).unwrap().message.contains("no, said the API server"));
}

#[test]
fn a_stop_that_cannot_be_recorded_is_sent_all_the_same() {
    let mut state = started();
    state.recorded = state.annotation.clone();
    state.deleted = Some(at(10));
    let (claim, _, send) = claim_of(step(&state, at(10)));
    state.refused(Write::Claim, refused(Cause::Rule), at(10));
    state.unclaimed(claim, send);
    state.outcomes.remote = Remote::Found(Box::new(run("RUNNING")));
    assert_eq!(step(&state, at(10)), Call::Stop(StopCall::Cancel));
}

#[test]
fn a_run_of_somebody_else_is_not_told_as_started_before_its_claim_is_recorded() {
    let mut state = of_resource(json!({}), json!({ "executionId": "theirs" }));
    state.outcomes.remote = Remote::Found(Box::new(run("RUNNING")));
    let (claim, _, send) = claim_of(step(&state, at(1)));
    assert!(claim.read_only && !send);
    state.refused(Write::Claim, refused(Cause::Rule), at(1));
    state.unclaimed(claim, send);
    let status = settled(&state, at(1)).status;
    assert_eq!(ready(&status), reason::CLAIM_REFUSED);
    assert!(!is_true(&status.conditions, STARTED));
    assert!(claim_of(step(&state, at(8))).0.read_only, "it is written when that is due");
}

#[test]
fn a_finalizer_that_is_refused_holds_up_nothing_but_a_deletion() {
    let mut state = ExecutionState { finalizer: false, ..started() };
    assert_eq!(step(&state, at(10)), ClusterStep::SetFinalizer(true));
    state.refused(Write::Finalizer, refused(Cause::Rule), at(10));
    let goes_on = settled(&state, at(10));
    assert_eq!(ready(&goes_on.status), reason::RUNNING);
    assert!(matches!(goes_on.requeue, Requeue::AtLatest(_)), "{:?}", goes_on.requeue);
    (state.deleted, state.finalizer) = (Some(at(10)), true);
    assert_eq!(ready(&settled(&state, at(10)).status), reason::FINALIZER_REFUSED);
}

/// Started, and being stopped because its resource is being deleted.
fn being_deleted() -> ExecutionState {
    let stopping = with_claim(|claim| claim.stop_since = Some(at(10)));
    ExecutionState { status: started().status, deleted: Some(at(10)), ..stopping }
}

#[test]
fn a_run_that_has_stopped_is_not_left_alone_however_long_its_finalizer_cannot_be_taken_off() {
    let mut state = being_deleted();
    state.outcomes.remote = Remote::Found(Box::new(run("CANCELED")));
    assert_eq!(step(&state, at(20)), ClusterStep::Release { abandoned: false });
    state.refused(Write::Finalizer, refused(Cause::Rule), at(20));
    state.outcomes.remote = Remote::NotFetched;
    assert_eq!(step(&state, at(400)), ClusterStep::Release { abandoned: false });
    // A process that began later does not know what became of the run.
    assert_eq!(step(&being_deleted(), at(400)), ClusterStep::Release { abandoned: true });
}

#[test]
fn a_run_whose_status_is_refused_is_not_asked_about_before_that_is_due() {
    let mut state = claimed();
    assert_eq!(step(&state, at(1)), Call::GetRun);
    state.refused(Write::Status, refused(Cause::Rule), at(1));
    assert!(matches!(settled(&state, at(1)).requeue, Requeue::Hold(_)));
    assert_eq!(step(&state, at(8)), Call::GetRun);
}

#[test]
fn a_run_is_not_said_to_be_left_alone_by_the_next_process_since_only_its_finalizer_could_not_be_removed() {
    let mut state = ExecutionState { deleted: Some(at(10)), ..started() };
    assert_eq!(step(&state, at(400)), ClusterStep::Release { abandoned: true }, "it could not be stopped");
    state.refused(Write::Finalizer, refused(Cause::Rule), at(20));
    let status = settled(&state, at(20)).status;
    assert_eq!(ready(&status), reason::FINALIZER_REFUSED);
    let next = ExecutionState { memory: Memory::default(), status, ..state };
    assert_eq!(step(&next, at(400)), ClusterStep::Release { abandoned: false });
}

#[test]
fn an_end_that_cannot_be_written_is_told_in_two_events_and_its_result_is_asked_for_once_it_can() {
    let mut state = started();
    state.outcomes.remote = Remote::Found(Box::new(run("COMPLETED")));
    let end = settled(&state, at(6));
    state.refused(Write::Status, refused(Cause::Rule), at(6));
    let told: Vec<String> = state.untold(&end, at(6)).into_iter().map(|notice| notice.reason).collect();
    assert_eq!(told, [reason::STATUS_REFUSED, reason::COMPLETED]);
    assert!(state.untold(&end, at(6)).is_empty(), "once");
    state.outcomes.remote = Remote::NotFetched;
    let pending = settled(&state, at(20)).status;
    assert_eq!(ready(&pending), reason::RESULT_PENDING);
    state.told(&pending);
    state.status = pending;
    assert_eq!(step(&state, at(20)), Call::GetRun);
}

#[test]
fn a_result_that_is_refused_is_left_out_and_the_run_is_complete() {
    let mut state = started();
    state.outcomes.remote = Remote::Found(Box::new(run("COMPLETED")));
    let end = settled(&state, at(6));
    let without = smaller(&state, &end, &refused(Cause::Size), at(6)).unwrap();
    assert!(without.status.result.is_none() && is_true(&without.status.conditions, COMPLETE));
    assert_eq!(find(&without.status.conditions, RESULT_NOT_WRITTEN).unwrap().reason, reason::RESULT_TOO_LARGE);
    assert_eq!(smaller(&state, &without, &refused(Cause::Size), at(6)), None, "there is nothing smaller");
}

#[test]
fn a_start_does_not_wait_in_circles_for_a_claim_while_an_earlier_one_cannot_be_completed() {
    let mut state = claimed();
    state.recorded = state.annotation.clone();
    state.sent(Err(not_found()));
    // There was room for the claim, but there is none for the outcome of its call.
    let (claim, _, send) = claim_of(step(&state, at(1)));
    assert!(claim.refused && !send);
    state.refused(Write::Claim, refused(Cause::Annotations), at(1));
    state.unclaimed(claim, send);
    let outcomes = Outcomes { sent: Sent::Nothing, remote: Remote::Absent, ..state.outcomes };
    let next = ExecutionState { outcomes, ..state };
    assert_eq!(ready(&settled(&next, at(2)).status), reason::CLAIM_REFUSED);
    assert!(claim_of(step(&next, at(8))).0.refused, "first what has happened is recorded");
}

#[test]
fn an_end_that_could_not_be_written_is_not_written_over_what_has_happened_since() {
    let mut state = with_claim(|claim| claim.refused = true);
    state.recorded = state.annotation.clone();
    state.spec.shutdown = Some(Shutdown::Cancel);
    let end = settled(&state, at(1));
    assert_eq!(ready(&end.status), reason::CANCELED);
    state.refused(Write::Status, refused(Cause::Rule), at(1));
    state.untold(&end, at(1));
    assert_eq!(settled(&state, at(8)).status, end.status, "due");
    state.spec.shutdown = None;
    // Another operator has started the run meanwhile.
    let theirs = state.claim(&connection(), 2, at(2));
    let mut started = ExecutionState { recorded: ClaimAnnotation::Claim(Box::new(theirs.clone())), ..state.clone() };
    started.annotation = started.recorded.clone();
    assert_eq!(step(&started, at(8)), Call::GetRun);
    // The stop request was withdrawn, and nothing has started.
    let edited = ExecutionState { generation: Some(2), ..state };
    assert_eq!(step(&edited, at(8)), Call::GetRun);
}
