//! What is changed at the API, in which order, and what is left alone.

use super::*;

#[test]
fn values_are_compared_as_the_api_keeps_them() {
    for (spec, there) in [
        (json!({ "tags": [" a ", "b", "a"] }), json!({ "tags": ["a", "b"] })),
        (json!({ "description": "" }), json!({ "description": null })),
        (json!({ "displayName": "invoices" }), json!({ "display_name": null })),
        (json!({ "archived": false, "availableInChatAssistant": false }), json!({ "archived": null })),
        (json!({}), json!({ "tags": ["theirs"], "archived": true, "display_name": "Theirs" })),
    ] {
        let state = answered(wanting(spec.clone()), there);
        assert_eq!(ready(&settled(&state, at(1)).status), reason::IN_SYNC, "{spec}");
    }
}

#[test]
fn out_of_the_archive_comes_first_and_into_it_last() {
    let both = |archived: bool| wanting(json!({ "archived": archived, "tags": ["a"] }));
    let state = answered(both(false), json!({ "archived": true }));
    assert_eq!(step(&state, at(1)), Step::SetArchived(ID.into(), false));
    let mut state = answered(both(true), json!({}));
    assert_eq!(step(&state, at(1)), Call::Update(ID.into(), vec![Field::Tags]).into());
    // One change per reconcile: the second change follows at once, in the next reconcile.
    state.changed(vec![Field::Tags], Ok(Some(workflow(json!({ "tags": ["a"] })))), at(1));
    let first = settled(&state, at(1));
    assert_eq!((ready(&first.status), first.requeue), (reason::UPDATING, Requeue::After(Duration::ZERO)));
    let state = answered(next(&state, at(1)), json!({ "tags": ["a"] }));
    assert_eq!(step(&state, at(2)), Step::SetArchived(ID.into(), true));
}

#[test]
fn an_answer_without_a_workflow_is_asked_for_again() {
    let mut state = answered(wanting(json!({ "tags": ["a"] })), json!({}));
    state.changed(vec![Field::Tags], Ok(None), at(1));
    assert_eq!(step(&state, at(1)), Call::Get("invoices".into()).into());
    state.fetched(Ok(workflow(json!({ "tags": ["a"] }))));
    let end = settled(&state, at(1));
    assert_eq!((ready(&end.status), end.done.len()), (reason::IN_SYNC, 1));
}

#[test]
fn what_the_spec_newly_says_and_what_had_drifted_are_told_apart() {
    let set = |state: WorkflowState, field: Field, there: Value| {
        let mut state = answered(state, json!({}));
        state.changed(vec![field], Ok(Some(workflow(there))), at(1));
        settled(&state, at(1))
    };
    let spec = json!({ "displayName": "Invoices" });
    let first = set(wanting(spec.clone()), Field::DisplayName, json!({ "display_name": "Invoices" }));
    assert_eq!(first.done[0].reason, reason::UPDATED);
    assert_eq!(ready(&first.status), reason::IN_SYNC);

    let again = WorkflowState { status: first.status.clone(), refresh: true, ..wanting(spec) };
    let second = set(again, Field::DisplayName, json!({ "display_name": "Invoices" }));
    assert_eq!(second.done[0].reason, reason::DRIFT_CORRECTED);
    assert!(second.done[0].note.contains("displayName"), "{}", second.done[0].note);
    assert_eq!(second.status, first.status, "nothing to write");
}

#[test]
fn observing_changes_nothing_and_says_what_differs() {
    let state = answered(wanting(json!({ "managementPolicy": "Observe", "tags": ["a"] })), json!({}));
    let end = settled(&state, at(1));
    assert_eq!(ready(&end.status), reason::OBSERVED);
    assert!(is_true(&end.status.conditions, READY));
    assert!(find(&end.status.conditions, READY).unwrap().message.contains("tags"));
}

#[test]
fn what_is_not_ours_is_read_and_never_changed() {
    let shared = json!({ "shared_namespace": "shared:x", "workspace_id": "another" });
    for (there, expected) in [(shared.clone(), reason::SHARED), (json!({ "is_technical": true }), reason::TECHNICAL)] {
        let state = answered(wanting(json!({ "tags": ["a"] })), there.clone());
        assert_eq!(ready(&settled(&state, at(1)).status), expected);
        let state = answered(wanting(json!({})), there);
        assert_eq!(ready(&settled(&state, at(1)).status), reason::IN_SYNC, "nothing to change, nothing to complain of");
    }
    // Shared by us: ours to change.
    let state = answered(wanting(json!({ "tags": ["a"] })), json!({ "shared_namespace": "shared:x" }));
    assert!(matches!(step(&state, at(1)), Step::Call(Call::Update(..))));
    let deleted = json!({ "deletionTimestamp": at(10).to_string(), "finalizers": [FINALIZER] });
    let mut state = of_resource(deleted, json!({ "deletionPolicy": "Archive" }));
    state.fetched(Ok(workflow(shared)));
    assert_eq!(step(&state, at(11)), ClusterStep::Release { abandoned: false }.into());
}

#[test]
fn only_a_403_is_told_as_a_missing_right() {
    let message = |end: Settled| find(&end.status.conditions, READY).unwrap().message.clone();
    let change = |status| {
        let mut state = answered(wanting(json!({ "tags": ["a"] })), json!({}));
        state.changed(vec![Field::Tags], Err(Error::Rejected(refusal(status))), at(1));
        message(settled(&state, at(1)))
    };
    assert!(
        change(403).contains("the right to change workflows") && !change(403).contains("Correct"),
        "{}",
        change(403)
    );
    assert!(change(422).contains("Correct the field") && !change(422).contains("right"), "{}", change(422));
    let show = |status| {
        let mut state = wanting(json!({}));
        state.fetched(Err(Error::Rejected(refusal(status))));
        message(settled(&state, at(1)))
    };
    assert!(show(403).contains("the right to read workflows"), "{}", show(403));
    assert!(show(400).contains("HTTP 400") && !show(400).contains("right"), "{}", show(400));
}

#[test]
fn a_refused_change_is_said_once_and_repeated_later_and_later() {
    let mut state = answered(wanting(json!({ "tags": ["a"] })), json!({}));
    state.changed(vec![Field::Tags], Err(Error::Rejected(refusal(422))), at(1));
    let end = settled(&state, at(1));
    assert_eq!(ready(&end.status), reason::CHANGE_REFUSED);
    assert!(find(&end.status.conditions, READY).unwrap().message.contains("tags"));
    let held = next(&state, at(1));
    assert!(matches!(settled(&held, at(2)).requeue, Requeue::Hold(_)));
    // Nor does a refresh before that repeat the change: it only takes in what is new at the API.
    let refresh =
        answered(WorkflowState { refresh: true, ..held.clone() }, json!({ "active": false, "archived": true }));
    let taken_in = settled(&refresh, at(2));
    assert!(matches!(taken_in.requeue, Requeue::Hold(_)));
    assert_eq!((taken_in.status.active, taken_in.status.archived), (Some(false), Some(true)));
    assert_eq!(ready(&taken_in.status), reason::CHANGE_REFUSED);
    assert!(matches!(plan(&refresh, at(120)), Decision::Act(Step::Call(Call::Update(..)))));
    assert!(matches!(
        plan(&WorkflowState { generation: Some(2), ..held }, at(2)),
        Decision::Act(Step::Call(Call::Get(_)))
    ));
}

#[test]
fn drift_that_takes_two_changes_is_called_drift_both_times() {
    let spec = json!({ "archived": false, "tags": ["ours"] });
    let rest = next(&answered(wanting(spec), json!({ "tags": ["ours"] })), at(1));
    let theirs = json!({ "tags": ["theirs"], "archived": true });
    let mut first = answered(WorkflowState { refresh: true, ..rest }, theirs);
    assert_eq!(step(&first, at(2)), Step::SetArchived(ID.into(), false));
    first.changed(vec![Field::Archived], Ok(Some(workflow(json!({ "tags": ["theirs"] })))), at(2));
    assert_eq!(settled(&first, at(2)).done[0].reason, reason::DRIFT_CORRECTED);
    let mut second = answered(next(&first, at(2)), json!({ "tags": ["theirs"] }));
    second.changed(vec![Field::Tags], Ok(Some(workflow(json!({ "tags": ["ours"] })))), at(3));
    assert_eq!(settled(&second, at(3)).done[0].reason, reason::DRIFT_CORRECTED);
}

#[test]
fn what_was_just_set_and_does_not_show_is_not_set_again_at_once() {
    let mut state = answered(wanting(json!({ "tags": ["a"] })), json!({}));
    state.changed(vec![Field::Tags], Ok(Some(workflow(json!({})))), at(1));
    let end = settled(&state, at(1));
    assert!(matches!(end.requeue, Requeue::Retry(wait) if wait >= Duration::from_secs(4)), "{:?}", end.requeue);
    assert!(matches!(settled(&next(&state, at(1)), at(2)).requeue, Requeue::Hold(_)));
}

#[test]
fn a_field_that_is_refused_does_not_keep_the_workflow_out_of_the_archive() {
    let mut state = answered(wanting(json!({ "tags": ["a"], "archived": true })), json!({}));
    state.changed(vec![Field::Tags], Err(Error::Rejected(refusal(422))), at(1));
    let state = answered(next(&state, at(1)), json!({}));
    assert_eq!(step(&state, at(120)), Step::SetArchived(ID.into(), true));
}

#[test]
fn an_event_names_every_field_however_long_the_values_are() {
    let spec = json!({ "description": "d".repeat(2000), "tags": ["ours"], "availableInChatAssistant": true });
    let wanted = json!({
        "description": "d".repeat(2000), "tags": ["ours"], "available_in_chat_assistant": true,
    });
    let rest = next(&answered(wanting(spec), wanted.clone()), at(1));
    let mut state = answered(WorkflowState { refresh: true, ..rest }, json!({ "description": "é".repeat(2000) }));
    let fields = vec![Field::Description, Field::Tags, Field::AvailableInChatAssistant];
    state.changed(fields, Ok(Some(workflow(wanted))), at(2));
    let note = settled(&state, at(2)).done[0].note.clone();
    assert!(note.len() < 1024, "{}", note.len());
    for name in ["description", "tags", "availableInChatAssistant"] {
        assert!(note.contains(name), "{note}");
    }
}

#[test]
fn a_shared_workflow_of_which_it_cannot_be_told_whose_it_is_is_left_alone() {
    let mut state = answered(wanting(json!({ "tags": ["a"] })), json!({ "shared_namespace": "shared:x" }));
    let unknown = ConnectionInfo { workspace_id: None, ..connection() };
    state.workspace = Workspace::Ready(unknown);
    assert_eq!(ready(&settled(&state, at(1)).status), reason::SHARED);
    let upper = answered(wanting(json!({ "tags": ["a"] })), json!({ "workspace_id": "WS" }));
    assert!(matches!(step(&upper, at(1)), Step::Call(Call::Update(..))));
}
