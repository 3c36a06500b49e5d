//! Whose run it is, and which claim to believe: old annotations come back, answers are wrong, clocks are set.

use super::*;

/// This process has claimed and sent attempt 2; the run goes on and is not visible yet.
fn second_attempt() -> ExecutionState {
    with_claim(|claim| (claim.attempt, claim.revision) = (2, 5))
}

/// The claim as it was in an export from before the second attempt.
fn exported(state: &ExecutionState) -> Claim {
    let ClaimAnnotation::Claim(claim) = &state.annotation else { unreachable!() };
    Claim { attempt: 1, revision: 3, refused: true, send_before: at(-100), ..claim.as_ref().clone() }
}

fn noted(state: &ExecutionState, claim: Claim) -> ExecutionState {
    ExecutionState { annotation: ClaimAnnotation::Claim(Box::new(claim)), ..state.clone() }
}

/// Claims that replace the present one: a description, and the resource with that claim.
fn come_back() -> Vec<(&'static str, ExecutionState)> {
    let state = second_attempt();
    let older = exported(&state);
    let owner = |name: &str, namespace: &str| {
        let claim = claimed_elsewhere(name, namespace);
        Claim { owner: claim.owner, revision: 9, ..older.clone() }
    };
    let earlier = Claim { uid: Some("u-0".into()), execution_id: "run-u-0".into(), revision: 9, ..older.clone() };
    vec![
        ("an older one", noted(&state, older.clone())),
        ("another resource's", noted(&state, owner("other", "n"))),
        ("another namespace's", noted(&state, owner("run", "elsewhere"))),
        ("an earlier life's", noted(&state, earlier)),
    ]
}

#[test]
fn a_claim_that_comes_back_over_a_newer_one_starts_nothing_and_is_replaced() {
    for (what, mut state) in come_back() {
        state.fetched(Err(not_found()));
        let (claim, _, send) = claim_of(step(&state, at(50)));
        assert!(!send && claim.revision > 5 && claim.attempt == 2, "{what}: {claim:?}");
        assert_eq!((claim.execution_id.as_str(), claim.refused), ("run-u-1", false), "{what}");
        state.claimed(claim, false);
        state.known_for = Duration::ZERO;
        let Decision::Settle(settled) = plan(&state, at(50)) else { panic!("{what} acts") };
        assert_eq!(ready(&settled.status), reason::OUTCOME_UNKNOWN, "{what}");
    }
}

#[test]
fn a_second_operators_call_over_a_claim_that_came_back_is_in_doubt_here_too() {
    let ours = second_attempt();
    // The second operator did not know of our claim, and counted on from the older one.
    let theirs = Claim { attempt: 2, revision: 4, claimant: "second".into(), send_before: at(500), ..exported(&ours) };
    let mut state = remembered(json!({ "annotations": annotation(&theirs) }), json!({}), ours.memory.clone());
    assert!(state.copied, "its revision is lower");
    state.fetched(Err(not_found()));
    state.known_for = Duration::ZERO;
    let Decision::Act(put_back) = plan(&state, at(490)) else { panic!("settles") };
    let (claim, _, send) = claim_of(put_back);
    assert!(!send && claim.revision > 5, "{claim:?}");
    state.claimed(claim, false);
    let Decision::Settle(settled) = plan(&state, at(490)) else { panic!("acts") };
    assert_eq!(ready(&settled.status), reason::OUTCOME_UNKNOWN);
    assert_eq!(state.memory.claim.as_ref().unwrap().attempt, 2);
    // What this process has recorded stays, also where the older claim comes back once more.
    let known = |claim: &Claim, memory: &Memory| {
        let state = remembered(json!({ "annotations": annotation(claim) }), json!({}), memory.clone());
        state.memory.claim.unwrap()
    };
    let newer = known(&theirs, &ours.memory);
    assert_eq!((newer.send_before, newer.own, newer.refused), (at(500), false, false));
    let memory = Memory { claim: Some(newer.clone()), ..Memory::default() };
    assert_eq!(known(&exported(&ours), &memory).send_before, at(500));
}

#[test]
fn a_claim_that_was_not_recorded_is_of_no_use_once_another_one_was_there() {
    let (mut ours, older) = (second_attempt(), exported(&second_attempt()));
    let recorded = ClaimAnnotation::read(Some(&serde_json::from_value(annotation(&older)).unwrap()));
    let ClaimAnnotation::Claim(unrecorded) = ours.annotation.clone() else { unreachable!() };
    ours.memory.refusals.unrecorded = Some(Box::new((*unrecorded, recorded)));
    let sees = |claim: &Claim, memory: &Memory| {
        remembered(json!({ "annotations": annotation(claim) }), json!({}), memory.clone())
    };
    assert_eq!(sees(&older, &ours.memory).annotation, ours.annotation);
    let between = sees(&Claim { revision: 9, ..older.clone() }, &ours.memory);
    assert_ne!(sees(&older, &between.memory).annotation, ours.annotation);
}

#[test]
fn a_doubt_ends_with_the_age_of_the_claim_in_whichever_process_unless_somebody_else_has_changed_it() {
    // A process that has just begun finds the claim.
    let found = |age: Option<u64>, refused: bool| {
        let mut state = with_claim(|claim| (claim.refused, claim.claimant) = (refused, "earlier".into()));
        let ClaimAnnotation::Claim(claim) = &state.annotation else { unreachable!() };
        state.memory.claim = Some(Box::new(ClaimBackup::of(claim, "run-u-1")));
        state.recorded = state.annotation.clone();
        state.claim_age = age.map(Duration::from_secs);
        state.began = at(91);
        state.fetched(Err(not_found()));
        state
    };
    for refused in [false, true] {
        for age in [None, Some(89)] {
            let state = found(age, refused);
            assert_eq!(ready(&settled(&state, at(89)).status), reason::OUTCOME_UNKNOWN, "{age:?} {refused}");
        }
        let early = ExecutionState { began: at(80), ..found(Some(91), refused) };
        assert_eq!(ready(&settled(&early, at(80)).status), reason::OUTCOME_UNKNOWN, "only one of two clocks says so");
        let mut state = found(Some(91), refused);
        let (claim, _, send) = claim_of(step(&state, at(91)));
        assert!(send && claim.attempt == 2, "{refused}");
        // A claim made now is as doubtful as any other.
        state.claimed(claim.clone(), true);
        assert_eq!(state.doubt(&claim), Duration::from_secs(90), "{refused}");
    }
}

#[test]
fn a_claim_has_an_age_only_on_the_resource_that_it_was_written_on() {
    let aged = |change: fn(&mut Claim)| {
        let mut state = with_claim(change);
        state.recorded = state.annotation.clone();
        state.instance.api_server_time = Some(at(100));
        state
    };
    let here = aged(|claim| claim.uid = Some("u-1".into()));
    assert_eq!(here.age_of_claim(Some(at(60))), Some(Duration::from_secs(39)), "times are cut to seconds");
    assert_eq!(here.age_of_claim(Some(at(-1))), None, "older than its resource, as from a backup");
    assert_eq!(here.age_of_claim(None), None, "somebody else has written it");
    assert_eq!(here.age_of_claim(Some(at(101))), None, "by a clock that is ahead");
    let unknown = ExecutionState { instance: Instance { api_server_time: None, ..here.instance.clone() }, ..here };
    assert_eq!(unknown.age_of_claim(Some(at(60))), None, "without an election nobody tells the time");
    let elsewhere: [fn(&mut Claim); 2] = [|claim| claim.uid = Some("u-0".into()), |claim| claim.uid = None];
    for change in elsewhere {
        assert_eq!(aged(change).age_of_claim(Some(at(60))), None);
    }
    let copied = aged(|claim| (claim.uid, claim.owner.namespace) = (Some("u-1".into()), "other".into()));
    assert_eq!(copied.age_of_claim(Some(at(60))), None);
}

#[test]
fn a_refusal_that_this_process_has_not_seen_is_not_believed() {
    // The call of this process is in flight, and somebody writes that it was refused.
    let mut state = claimed();
    let ClaimAnnotation::Claim(claim) = &state.annotation else { unreachable!() };
    let claim = Claim { refused: true, ..claim.as_ref().clone() };
    state.annotation = ClaimAnnotation::Claim(Box::new(claim.clone()));
    state.fetched(Err(not_found()));
    assert!(!state.is_refused(&claim) && !state.doubt(&claim).is_zero());
    state.sent(Err(not_found()));
    assert!(state.is_refused(&claim));
}

#[test]
fn a_claim_that_comes_back_lets_no_deletion_and_no_shutdown_pass_the_run_by() {
    for (what, state) in come_back() {
        let deleted = ExecutionState { deleted: Some(at(50)), ..state.clone() };
        assert!(matches!(step(&deleted, at(50)), Step::Cluster(ClusterStep::WriteClaim { send: false, .. })), "{what}");
        let mut shut = state;
        shut.spec.shutdown = Some(Shutdown::Cancel);
        assert!(matches!(step(&shut, at(50)), Step::Cluster(ClusterStep::WriteClaim { send: false, .. })), "{what}");
    }
}

#[test]
fn after_a_restart_a_refused_claim_proves_nothing_before_every_earlier_call_would_show() {
    let state = with_claim(|claim| (claim.refused, claim.claimant) = (true, "before".into()));
    let mut state = ExecutionState { memory: Memory::default(), ..state };
    state.fetched(Err(not_found()));
    assert_eq!(ready(&settled(&state, at(89)).status), reason::OUTCOME_UNKNOWN);
    assert!(claim_of(step(&state, at(90))).2);
    let mut deleted = ExecutionState { deleted: Some(at(50)), ..state };
    let (claim, ..) = claim_of(step(&deleted, at(60)));
    deleted.claimed(claim, false);
    deleted.fetched(Err(not_found()));
    assert!(matches!(settled(&deleted, at(89)).requeue, Requeue::After(_)));
    assert_eq!(step(&deleted, at(90)), ClusterStep::Release { abandoned: false });
}

#[test]
fn after_a_restart_the_finalizer_alone_tells_that_there_was_a_claim() {
    let copied = Claim { owner: claimed_elsewhere("other", "n").owner, ..exported(&claimed()) };
    let state = ExecutionState { memory: Memory::default(), finalizer: true, ..noted(&claimed(), copied) };
    let (claim, _, send) = claim_of(step(&state, at(1)));
    assert_eq!((claim.execution_id.as_str(), send), ("run-u-1", false));
}

#[test]
fn a_claim_of_an_earlier_life_is_believed_only_if_this_life_has_no_run() {
    let earlier = Claim { uid: Some("u-0".into()), execution_id: "run-u-0".into(), ..exported(&claimed()) };
    let instance = Instance { name: "me".into(), since: at(10), api_server_time: None };
    let restored = ExecutionState { memory: Memory::default(), instance, ..noted(&claimed(), earlier) };
    assert_eq!((step(&restored, at(20)), restored.execution_id().as_str()), (Call::GetRun.into(), "run-u-1"));
    let mut found = restored.clone();
    found.fetched(Ok(run("COMPLETED")));
    assert_eq!(claim_of(step(&found, at(20))).0.execution_id, "run-u-1");
    let mut absent = restored;
    absent.fetched(Err(not_found()));
    assert_eq!(ready(&settled(&absent, at(84)).status), reason::OUTCOME_UNKNOWN);
    let (claim, _, send) = claim_of(step(&absent, at(85)));
    assert_eq!((claim.execution_id.as_str(), send), ("run-u-0", false));
    absent.claimed(claim, false);
    assert_eq!((step(&absent, at(85)), absent.execution_id().as_str()), (Call::GetRun.into(), "run-u-0"));
}

#[test]
fn a_404_that_is_not_the_apis_own_says_nothing() {
    let gateway = || Error::NotFound(ApiError { code: None, ..said(404, "") });
    let mut state = claimed();
    state.fetched(Err(gateway()));
    let unknown = settled(&state, at(500));
    assert_eq!(ready(&unknown.status), reason::OUTCOME_UNKNOWN);
    let mut claimed_this_reconcile = of_resource(json!({}), json!({ "executionId": "mine" }));
    claimed_this_reconcile.fetched(Err(gateway()));
    assert_eq!(ready(&settled(&claimed_this_reconcile, at(500)).status), reason::API_UNAVAILABLE);
    let mut gone = started();
    gone.fetched(Err(gateway()));
    assert!(find(&settled(&gone, at(500)).status.conditions, MISSING).is_none());
    let mut deleted = ExecutionState { deleted: Some(at(10)), ..with_claim(|claim| claim.stop_since = Some(at(10))) };
    deleted.fetched(Ok(run("RUNNING")));
    deleted.stop_sent(StopCall::Cancel, Err(gateway()), at(100));
    assert!(matches!(settled(&deleted, at(200)).requeue, Requeue::After(_)));
}

#[test]
fn a_404_counts_from_the_moment_the_question_was_sent() {
    let mut state = claimed();
    state.fetched(Err(not_found()));
    // The answer took thirty seconds.
    let slow = ExecutionState { began: at(85), known_for: Duration::from_secs(85), ..state.clone() };
    assert!(matches!(plan(&slow, at(115)), Decision::Settle(_)));
    // The machine was suspended for an hour.
    let suspended = ExecutionState { began: at(3600), known_for: Duration::from_secs(2), ..state };
    assert!(matches!(plan(&suspended, at(3600)), Decision::Settle(_)));
}

#[test]
fn a_run_that_began_before_the_claim_was_not_started_by_it() {
    let explicit = |began: i64| {
        let mut state = claimed();
        state.spec.execution_id = Some("mine".into());
        state.fetched(Ok(Execution { start_time: Some(at(began)), ..run("RUNNING") }));
        state
    };
    assert!(claim_of(step(&explicit(-20), at(20))).0.read_only);
    assert_eq!(ready(&settled(&explicit(1), at(20)).status), reason::RUNNING);
    // Clocks may differ.
    assert_eq!(ready(&settled(&explicit(-10), at(20)).status), reason::RUNNING);
}

#[test]
fn a_workflow_whose_name_differs_in_case_is_another_one() {
    let mut state = of_resource(json!({}), json!({ "executionId": "mine", "workflowIdentifier": "W" }));
    state.fetched(Ok(run("RUNNING")));
    assert_eq!(ready(&settled(&state, at(20)).status), reason::EXECUTION_ID_TAKEN);
}

/// Found under an explicit id, with a read-only claim.
fn adopted(comparison: Comparison, status: &str) -> ExecutionState {
    let mut state = with_claim(|claim| claim.read_only = true);
    state.spec.execution_id = Some("mine".into());
    state.fetched(Ok(run(status)));
    assert_eq!(step(&state, at(20)), Call::Compare);
    state.compared(comparison);
    state
}

#[test]
fn a_run_with_another_input_or_of_another_workflow_is_nobodys_result_here() {
    for (comparison, words) in [
        (Comparison::OtherInput("at /a".into()), "another input (at /a)"),
        (Comparison::OtherWorkflow("other".into()), "workflow \"other\""),
    ] {
        let status = settled(&adopted(comparison, "COMPLETED"), at(20)).status;
        assert_eq!((ready(&status), &status.result), (reason::EXECUTION_ID_TAKEN, &None));
        let message = &find(&status.conditions, READY).unwrap().message;
        assert!(message.contains(words) && !is_true(&status.conditions, COMPLETE), "{message}");
    }
}

#[test]
fn complete_says_of_a_run_that_was_found_whether_it_had_the_same_input() {
    for (comparison, words) in [
        (Comparison::Same, "with the same input"),
        (Comparison::Unknown("no event shows the input".into()), "is not known: no event shows the input"),
    ] {
        let status = settled(&adopted(comparison, "COMPLETED"), at(20)).status;
        let complete = find(&status.conditions, COMPLETE).unwrap();
        assert!(complete.message.contains("not started by this resource"), "{}", complete.message);
        assert!(complete.message.contains(words), "{}", complete.message);
    }
}

#[test]
fn a_consent_is_used_once() {
    let used = |state: &ExecutionState| match step(state, at(2 * 86_400)) {
        Step::Cluster(ClusterStep::WriteClaim { consent, .. }) => consent,
        other => panic!("{other:?}"),
    };
    let mut read = with_claim(|claim| claim.read_only = true);
    read.take_over = Some("run-u-1".into());
    assert!(used(&read));
    let mut stale = claimed();
    stale.take_over = Some("run-u-1".into());
    stale.fetched(Err(not_found()));
    assert!(used(&stale));
    assert!(!used(&new()));
}

#[test]
fn a_run_is_stopped_whether_or_not_the_api_tells_of_it() {
    for error in [transient(), Error::Unreadable { too_long: false, message: "odd".into() }] {
        let mut state = ExecutionState { refresh: true, ..started() };
        state.spec.shutdown = Some(Shutdown::Cancel);
        state.fetched(Err(error));
        let (claim, ..) = claim_of(step(&state, at(100)));
        state.claimed(claim, false);
        assert_eq!(step(&state, at(100)), Call::Stop(StopCall::Cancel));
        state.stop_sent(StopCall::Cancel, Ok(()), at(100));
        assert_eq!(ready(&settled(&state, at(101)).status), reason::STOPPING);
    }
}

#[test]
fn the_active_deadline_trusts_the_apis_clock_no_further_than_ours() {
    let seconds_left = |start: i64| {
        let mut state = started();
        state.spec.active_deadline_seconds = Some(60);
        state.status.start_time = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(start)));
        settled(&state, at(10)).requeue
    };
    // The run began between its claim, at 0, and its start in the status, at 1.
    assert_eq!(seconds_left(-3600), Requeue::AtLatest(Duration::from_secs(50)));
    assert_eq!(seconds_left(0), Requeue::AtLatest(Duration::from_secs(50)));
    assert_eq!(seconds_left(3600), Requeue::AtLatest(Duration::from_secs(52)));
}

#[test]
fn a_stop_that_a_backup_brings_back_shortens_no_grace() {
    let mut state = ExecutionState { deleted: Some(at(5000)), ..started() };
    let ClaimAnnotation::Claim(claim) = &mut state.annotation else { unreachable!() };
    claim.stop_since = Some(at(100));
    assert_eq!(claim_of(step(&state, at(5000))).0.stop_since, Some(at(5000)));
}

#[test]
fn a_clock_that_is_set_back_holds_nothing_for_longer_than_it_was_meant_to_wait() {
    let mut state = claimed();
    state.fetched(Err(transient()));
    state.settled(settled(&state, at(86_400)).requeue, at(86_400));
    let held = ExecutionState { outcomes: Outcomes::default(), ..state };
    assert!(matches!(plan(&held, at(86_400)), Decision::Settle(_)));
    assert_eq!(plan(&held, at(0)), Decision::Act(Call::GetRun.into()));
}

#[test]
fn what_an_earlier_process_said_of_a_refused_start_stands_until_it_is_certain_and_then_deadlines_count() {
    let state = with_claim(|claim| (claim.refused, claim.claimant) = (true, "before".into()));
    let status = crate::execution::status::not_started(
        &state,
        Progress::Stalled,
        reason::TARGET_NOT_FOUND,
        "The API does not know it.".into(),
        at(1),
    );
    let mut state = ExecutionState { memory: Memory::default(), status: status.clone(), ..state };
    let quiet = settled(&state, at(40));
    assert_eq!((quiet.status, quiet.requeue), (status, Requeue::After(Duration::from_secs(50))));
    assert_eq!(step(&state, at(90)), Call::GetRun);
    state.fetched(Err(not_found()));
    assert!(claim_of(step(&state, at(90))).2);
    state.spec.starting_deadline_seconds = Some(60);
    assert_eq!(ready(&settled(&state, at(90)).status), reason::STARTING_DEADLINE_EXCEEDED);
}

#[test]
fn a_clock_that_is_behind_the_api_servers_stops_a_deleted_run_all_the_same() {
    let mut state = ExecutionState { deleted: Some(at(5000)), ..started() };
    let (claim, ..) = claim_of(step(&state, at(100)));
    state.claimed(claim, false);
    assert_eq!(step(&state, at(100)), Call::GetRun);
}

#[test]
fn a_refused_claim_says_nothing_once_the_api_has_told_of_a_run() {
    let mut state = with_claim(|claim| claim.refused = true);
    state.spec.shutdown = Some(Shutdown::Cancel);
    state.memory.seen = true;
    assert_eq!(step(&state, at(50)), Call::GetRun);
}

/// The claim of another namespace came with a restore, and its run goes on.
fn restored_elsewhere(more: Value) -> ExecutionState {
    let claim = Claim { uid: Some("u-0".into()), ..claimed_elsewhere("run", "another-namespace") };
    let mut state = of_resource(json!({ "annotations": annotation(&claim) }), more);
    state.fetched(Ok(run("RUNNING")));
    state
}

#[test]
fn a_run_that_goes_on_under_a_foreign_claim_is_only_read_until_a_person_consents() {
    let mut state = restored_elsewhere(json!({ "shutdown": "Terminate", "activeDeadlineSeconds": 1 }));
    let read = settled(&state, at(1000));
    assert_eq!(ready(&read.status), reason::RUNNING);
    assert_eq!(find(&read.status.conditions, STARTED).unwrap().reason, reason::ADOPTED);
    state.status = read.status;
    assert_eq!(ready(&settled(&state, at(1000)).status), reason::RUNNING, "neither a shutdown nor a deadline stops it");
    let mut gone = state.clone();
    gone.fetched(Err(not_found()));
    assert!(is_true(&settled(&gone, at(1000)).status.conditions, MISSING), "it is not started here");
    // The restore may have brought the finalizer.
    (state.deleted, state.finalizer) = (Some(at(1000)), true);
    assert_eq!(step(&state, at(1000)), ClusterStep::Release { abandoned: false }, "a deletion does not stop it");
}

#[test]
fn after_a_consent_the_run_of_a_foreign_claim_is_owned_and_not_started_again() {
    let unread = ExecutionState { outcomes: Outcomes::default(), ..restored_elsewhere(json!({})) };
    let read = ExecutionState { status: settled(&restored_elsewhere(json!({})), at(1000)).status, ..unread.clone() };
    for (what, state) in [("before its run was read", unread), ("after it", read)] {
        let mut state = ExecutionState { take_over: Some("run-u-1".into()), refresh: true, ..state };
        let Step::Cluster(ClusterStep::WriteClaim { claim, finalizer, send, consent }) = step(&state, at(1000)) else {
            panic!("{what}: no claim");
        };
        assert_eq!((claim.owner == state.owner, claim.read_only), (true, false), "{what}");
        assert_eq!((finalizer, send, consent), (true, false, true), "{what}");
        state.claimed(*claim, false);
        (state.finalizer, state.take_over, state.memory.consented) = (finalizer, None, true);
        assert_eq!(step(&state, at(1000)), Call::GetRun, "{what}");
        state.fetched(Ok(run("RUNNING")));
        let running = settled(&state, at(1000)).status;
        assert_eq!(ready(&running), reason::RUNNING, "{what}");
        assert_eq!(find(&running.conditions, STARTED).unwrap().reason, reason::STARTED, "{what}");
        // It stays so if the claim is lost, as by `kubectl replace`.
        let lost = ExecutionState {
            annotation: ClaimAnnotation::Absent,
            recorded: ClaimAnnotation::Absent,
            outcomes: Outcomes::default(),
            status: running.clone(),
            ..state.clone()
        };
        for memory in [state.memory.clone(), Memory::default()] {
            let (restored, ..) = claim_of(step(&ExecutionState { memory, ..lost.clone() }, at(1001)));
            assert!(!restored.read_only, "{what}");
        }
        // It is this resource's to stop.
        state = ExecutionState { status: running, deleted: Some(at(1001)), ..state };
        let (stop, _, send) = claim_of(step(&state, at(1001)));
        assert_eq!((stop.stop_since, send), (Some(at(1001)), false), "{what}");
        state.claimed(stop, false);
        assert_eq!(step(&state, at(1001)), Call::Stop(StopCall::Cancel), "{what}");
    }
}
