//! What a claim says about a start, and the claims that start nothing until a person consents.

use super::*;

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
fn a_claim_is_remembered_of_a_resource_that_is_gone_while_its_call_may_be_in_flight() {
    let needed = |state: &ExecutionState, after| state.memory.may_have_called_after(Duration::from_secs(after));
    assert!(needed(&claimed(), 0) && needed(&claimed(), 89) && claimed().memory.may_have_called());
    assert!(!needed(&claimed(), 90), "a 404 proves enough");
    assert!(!needed(&with_claim(|claim| claim.refused = true), 0), "its call has started nothing");
    assert!(!needed(&with_claim(|claim| claim.read_only = true), 0), "it sends no call");
    assert!(!needed(&new(), 0));
    // What is remembered shows a resource that came back without its claim that it is not new.
    let restored = ExecutionState { memory: claimed().memory, ..new() };
    let (claim, _, send) = claim_of(step(&restored, at(20)));
    assert!(!send && claim.execution_id == "run-u-1", "{claim:?}");
}
