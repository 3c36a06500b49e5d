//! How a run is started: what is asked first, and what follows from each answer.

use super::*;
use crate::api::conditions::{EDITED, RECONCILING, STALLED};
use crate::execution::finished::left;
use crate::execution::state::Target;

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
fn a_conflict_of_an_unknown_kind_is_a_doubt_and_is_said_once() {
    let mut state = claimed();
    state.sent(Err(Error::Conflict(said(409, "WF_9999"))));
    assert_eq!(step(&state, at(1)), Call::GetRun);
    state.fetched(Err(not_found()));
    let told = settled(&state, at(1)).status;
    assert_eq!(ready(&told), reason::OUTCOME_UNKNOWN);
    let Requeue::Retry(wait) = settled(&state, at(1)).requeue else { panic!("no retry") };
    assert!(wait >= Duration::from_secs(15), "{wait:?}: the same start would be refused again");
    assert!(find(&told.conditions, READY).unwrap().message.contains("WF_9999"));
    let mut next = ExecutionState { status: told.clone(), memory: state.memory.clone(), ..claimed() };
    next.fetched(Err(not_found()));
    assert_eq!(settled(&next, at(30)).status, told, "the next look is no news");
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
    state.target_fetched(Ok(Target::Exists));
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
    // The Workspace is not checked yet, or may be in the same manifest: for a moment, there is nothing to report.
    let pending = ExecutionState { workspace: Workspace::Pending, ..new() };
    assert_eq!(settled(&pending, at(1)).status, new().status);
    assert_eq!(step(&pending, at(100)), ClusterStep::MayReport);
    let young = ExecutionState { workspace: Workspace::NotFound, ..new() };
    assert_eq!(settled(&young, at(1)).status, new().status);
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

/// Tools that compare two statuses as text, and people who read one, find each condition at its place.
#[test]
fn the_conditions_of_a_first_status_stand_in_one_order() {
    let first = |change: &dyn Fn(&mut ExecutionState)| {
        let mut state = claimed();
        assert!(state.status.conditions.is_empty());
        change(&mut state);
        let conditions = settled(&state, at(100)).status.conditions;
        conditions.into_iter().map(|condition| condition.type_).collect::<Vec<_>>()
    };
    assert_eq!(first(&|state| state.workspace = Workspace::NotFound), [READY, STALLED, STARTED]);
    assert_eq!(first(&|state| state.fetched(Err(transient()))), [READY, RECONCILING, STARTED]);
    assert_eq!(first(&|state| state.fetched(Ok(run("RUNNING")))), [READY, RECONCILING, STARTED]);
    assert_eq!(first(&|state| state.fetched(Ok(run("COMPLETED")))), [READY, STARTED, COMPLETE]);
    assert_eq!(first(&|state| state.fetched(Ok(run("TERMINATED")))), [READY, STALLED, STARTED, FAILED]);
    let forgotten = |state: &mut ExecutionState| {
        state.memory.seen = true;
        state.fetched(Err(not_found()));
    };
    assert_eq!(first(&forgotten), [READY, RECONCILING, STARTED, MISSING]);
    let edited = |state: &mut ExecutionState| {
        state.spec.input = Some(Json::from(&json!({ "c": 2 })));
        state.fetched(Ok(run("RUNNING")));
    };
    assert_eq!(first(&edited), [READY, RECONCILING, STARTED, EDITED]);
}

#[test]
fn what_has_left_the_watch_in_this_term_is_never_taken_for_new() {
    let left = |had_run: bool| {
        let mut state = new();
        state.memory.left = Some(left::Memory { had_run, end: None, stays: Duration::ZERO });
        state.memory.seen = had_run;
        state
    };
    assert!(claim_of(step(&new(), at(1))).2, "a new one is started without a question");
    for (had_run, starts) in [(true, false), (false, true)] {
        let mut state = left(had_run);
        assert_eq!(step(&state, at(1)), Call::GetRun);
        state.fetched(Err(not_found()));
        assert_eq!(claim_of(step(&state, at(1))).2, starts, "had a run: {had_run}");
    }
}
