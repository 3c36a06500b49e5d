//! Tables for the deletion of a resource.

use super::*;

#[test]
fn a_run_of_another_workflow_is_not_stopped_by_a_deletion() {
    let mut state = ExecutionState { deleted: Some(at(10)), ..with_claim(|claim| claim.stop_since = Some(at(10))) };
    let mut other = run("RUNNING");
    other.workflow_name = Some("other".into());
    state.fetched(Ok(other));
    assert_eq!(step(&state, at(20)), Call::Stop(StopCall::Cancel), "a derived id is nobody else's");
    state.spec.execution_id = Some("run-u-1".into());
    assert_eq!(step(&state, at(20)), ClusterStep::Release { abandoned: false });
}

#[test]
fn a_deletion_after_the_claim_was_dropped_stops_the_run_all_the_same() {
    let state = ExecutionState { annotation: ClaimAnnotation::Absent, deleted: Some(at(50)), ..started() };
    assert_eq!(claim_of(step(&state, at(50))).0.execution_id, "run-u-1");
    let state_unreadable = ExecutionState { stop_with: None, ..state };
    assert!(matches!(settled(&state_unreadable, at(60)).requeue, Requeue::After(_)));
    assert_eq!(step(&state_unreadable, at(360)), ClusterStep::Release { abandoned: true });
}

#[test]
fn the_finalizer_follows_the_deletion_policy_while_the_run_goes_on() {
    let mut state = started();
    state.spec.deletion_policy = DeletionPolicy::Orphan;
    assert_eq!(step(&state, at(50)), ClusterStep::SetFinalizer(false));
    state.finalizer = false;
    assert!(settled(&state, at(50)).notices.is_empty());
    state.spec.deletion_policy = DeletionPolicy::Terminate;
    assert_eq!(step(&state, at(50)), ClusterStep::SetFinalizer(true));
}

#[test]
fn a_deletion_records_the_stop_before_it_calls_and_then_cancels_and_terminates() {
    let mut state = ExecutionState { deleted: Some(at(50)), ..started() };
    let (claim, finalizer, send) = claim_of(step(&state, at(50)));
    assert_eq!((claim.stop_since, finalizer, send), (Some(at(50)), true, false));
    state.claimed(claim, false);
    assert_eq!(step(&state, at(50)), Call::GetRun);
    state.fetched(Ok(run("RUNNING")));
    assert_eq!(step(&state, at(50)), Call::Stop(StopCall::Cancel));
    state.stop_sent(StopCall::Cancel, Ok(()), at(50));
    assert_eq!(ready(&settled(&state, at(50)).status), reason::STOPPING);
    state.outcomes.stopped = None;
    assert!(matches!(settled(&state, at(60)).requeue, Requeue::After(_)), "asked once is enough");
    assert_eq!(step(&state, at(81)), Call::Stop(StopCall::Terminate));
    state.fetched(Ok(run("CANCELED")));
    assert_eq!(step(&state, at(60)), ClusterStep::Release { abandoned: false });
}

#[test]
fn a_deletion_lets_go_at_once_where_there_is_nothing_to_stop() {
    let deleted = |state: ExecutionState| ExecutionState { deleted: Some(at(50)), finalizer: true, ..state };
    let mut orphan = started();
    orphan.spec.deletion_policy = DeletionPolicy::Orphan;
    let mut finished = ExecutionState { refresh: true, ..started() };
    finished.fetched(Ok(run("COMPLETED")));
    let status = settled(&finished, at(6)).status;
    for (what, state) in [
        ("refused", with_claim(|claim| claim.refused = true)),
        ("read only", with_claim(|claim| claim.read_only = true)),
        ("orphaned, without a credential", ExecutionState { stop_with: None, ..orphan }),
        ("finished", ExecutionState { status, ..claimed() }),
    ] {
        assert_eq!(step(&deleted(state), at(50)), ClusterStep::Release { abandoned: false }, "{what}");
    }
    let gone = ExecutionState { finalizer: false, deleted: Some(at(50)), ..started() };
    assert_eq!(settled(&gone, at(50)).requeue, Requeue::OnChange);
}

#[test]
fn a_deletion_waits_out_a_start_that_may_be_under_way() {
    let mut state = ExecutionState { deleted: Some(at(10)), ..with_claim(|claim| claim.stop_since = Some(at(10))) };
    state.fetched(Err(not_found()));
    assert!(matches!(settled(&state, at(80)).requeue, Requeue::After(_)));
    assert_eq!(step(&state, at(91)), ClusterStep::Release { abandoned: false });
    // A run that was seen running and is unknown now has been forgotten by the API.
    let mut seen = ExecutionState { deleted: Some(at(10)), status: started().status, ..state };
    seen.fetched(Err(not_found()));
    // The API's clock may be behind ours.
    assert!(matches!(settled(&seen, at(44)).requeue, Requeue::After(_)));
    assert_eq!(step(&seen, at(46)), ClusterStep::Release { abandoned: false });
}

#[test]
fn a_deletion_lets_go_after_five_minutes_whatever_is_wrong() {
    for state in [
        ExecutionState { stop_with: None, workspace: Workspace::NotFound, ..started() },
        ExecutionState {
            stop_with: Some(ConnectionInfo { origin: "https://elsewhere".into(), ..connection() }),
            ..started()
        },
        {
            let mut state = with_claim(|claim| claim.stop_since = Some(at(10)));
            state.fetched(Err(transient()));
            state
        },
    ] {
        let state = ExecutionState { deleted: Some(at(10)), ..state };
        assert!(matches!(settled(&state, at(300)).requeue, Requeue::After(_)));
        assert_eq!(step(&state, at(311)), ClusterStep::Release { abandoned: true });
    }
}

#[test]
fn a_deletion_while_no_operator_led_stops_the_run_first_however_long_ago_it_was_asked_for() {
    let led_from = |since: i64, state: ExecutionState| {
        let instance = Instance { since: at(since), ..state.instance.clone() };
        ExecutionState { deleted: Some(at(10)), instance, ..state }
    };
    assert_eq!(claim_of(step(&led_from(400, started()), at(405))).0.stop_since, Some(at(405)));
    let without_key = ExecutionState { stop_with: None, workspace: Workspace::NotFound, ..started() };
    assert!(matches!(settled(&led_from(400, without_key.clone()), at(699)).requeue, Requeue::After(_)));
    assert_eq!(step(&led_from(400, without_key), at(701)), ClusterStep::Release { abandoned: true });
    // The leader before has tried for long enough.
    let mut tried = with_claim(|claim| claim.stop_since = Some(at(10)));
    tried.fetched(Err(transient()));
    assert_eq!(step(&led_from(400, tried), at(405)), ClusterStep::Release { abandoned: true });
    // A clock that is ahead of the API server's ends no deletion early.
    let mut ahead = ExecutionState { deleted: Some(at(10)), ..started() };
    ahead.instance.api_server_time = Some(at(20));
    assert_eq!(claim_of(step(&ahead, at(400))).0.stop_since, Some(at(400)));
}
