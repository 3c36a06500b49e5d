//! What deletion and suspension leave to do.

use super::*;

#[test]
fn suspended_nothing_is_asked_or_changed_not_even_by_deletion() {
    let state = wanting(json!({ "suspend": true, "tags": ["a"] }));
    assert_eq!(ready(&settled(&state, at(1)).status), reason::SUSPENDED);
    let deleted = json!({ "deletionTimestamp": at(10).to_string(), "finalizers": [FINALIZER] });
    let state = of_resource(deleted, json!({ "suspend": true, "deletionPolicy": "Archive" }));
    assert_eq!(step(&state, at(11)), ClusterStep::Release { abandoned: false }.into());
}

#[test]
fn deletion_is_bounded_and_never_asks_for_more_than_it_needs() {
    let deleted =
        |spec: Value| of_resource(json!({ "deletionTimestamp": at(10).to_string(), "finalizers": [FINALIZER] }), spec);
    let mut state = deleted(json!({ "deletionPolicy": "Archive" }));
    assert_eq!(step(&state, at(11)), Call::Get("invoices".into()).into());
    state.fetched(Ok(workflow(json!({}))));
    assert_eq!(step(&state, at(11)), Step::SetArchived(ID.into(), true));
    state.changed(vec![Field::Archived], Ok(Some(workflow(json!({ "archived": true })))), at(11));
    assert_eq!(step(&state, at(11)), ClusterStep::Release { abandoned: false }.into());

    let mut state = deleted(json!({ "deletionPolicy": "Archive" }));
    state.fetched(Err(not_found()));
    assert_eq!(step(&state, at(11)), ClusterStep::Release { abandoned: false }.into());
    state.fetched(Err(Error::Unauthorized(refusal(401))));
    assert_eq!(ready(&settled(&state, at(11)).status), reason::ARCHIVING);
    assert_eq!(step(&state, at(10 + 301)), ClusterStep::Release { abandoned: true }.into());
    state.stop_with = None;
    assert_eq!(ready(&settled(&state, at(11)).status), reason::ARCHIVING);
    assert_eq!(step(&deleted(json!({})), at(11)), ClusterStep::Release { abandoned: false }.into());
}

#[test]
fn a_deletion_while_no_operator_led_archives_first_however_long_ago_it_was_asked_for() {
    let metadata = json!({ "deletionTimestamp": at(10).to_string(), "finalizers": [FINALIZER] });
    let state = of_resource(metadata, json!({ "deletionPolicy": "Archive" })).led_since(at(400));
    assert_eq!(step(&state, at(405)), Call::Get("invoices".into()).into());
    assert_eq!(step(&state, at(701)), ClusterStep::Release { abandoned: true }.into());
}

#[test]
fn the_finalizer_is_there_only_while_deletion_does_something() {
    let with = |finalizers: Value, policy: &str| {
        of_resource(json!({ "finalizers": finalizers }), json!({ "deletionPolicy": policy }))
    };
    assert_eq!(step(&with(json!([]), "Archive"), at(1)), ClusterStep::SetFinalizer(true).into());
    assert_eq!(step(&with(json!([FINALIZER]), "Retain"), at(1)), ClusterStep::SetFinalizer(false).into());
    assert_eq!(step(&with(json!([FINALIZER]), "Archive"), at(1)), Call::Get("invoices".into()).into());
}

#[test]
fn times_at_the_end_of_time_do_no_harm() {
    let mut state = of_resource(
        json!({ "deletionTimestamp": "9999-12-30T00:00:00Z", "finalizers": [FINALIZER] }),
        json!({ "deletionPolicy": "Archive" }),
    );
    state.created = Timestamp::MAX;
    plan(&state, Timestamp::MAX);
    plan(
        &WorkflowState { deleted: None, workspace: Workspace::NotFound, ..state },
        Timestamp::MAX - SignedDuration::from_secs(1),
    );
}
