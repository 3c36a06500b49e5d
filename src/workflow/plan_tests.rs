//! One table for each stage of a workflow: what is known, and the step that follows.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::fields::Field;
use super::plan::{Call, ClusterStep, Decision, Settled, Step, plan};
use super::state::{Address, Change, FINALIZER, Memory, Remote, WorkflowState};
use super::status::reason;
use super::versions::{Gathering, Versions};
use crate::api::conditions::{ACTIVE, CONTESTED, NEEDS_USER, Progress, READY, STALLED, find, is_true};
use crate::api::{Workflow as Resource, WorkflowStatus};
use crate::mistral::wire::{Registration, Workflow};
use crate::mistral::{ApiError, Error};
use crate::platform::requeue::Requeue;
use crate::workspace::access::{ConnectionInfo, Workspace};

const ID: &str = "0198a000-0000-7000-8000-000000000001";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + seconds).unwrap()
}

fn connection() -> ConnectionInfo {
    ConnectionInfo { origin: "https://api".into(), workspace_id: Some("ws".into()), epoch: 1 }
}

/// All times in these tests are seconds after the creation of the resource.
fn of_resource(metadata: Value, spec: Value) -> WorkflowState {
    let mut object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workflow",
        "metadata": {
            "name": "invoices", "namespace": "n", "uid": "u-1", "generation": 1,
            "creationTimestamp": at(0).to_string(),
        },
        "spec": spec,
    });
    for (key, value) in metadata.as_object().unwrap() {
        object["metadata"][key] = value.clone();
    }
    let object: Resource = serde_json::from_value(object).unwrap();
    WorkflowState::new(&object, Memory::default(), Workspace::Ready(connection()), Some(connection()), false)
}

fn wanting(spec: Value) -> WorkflowState {
    of_resource(json!({}), spec)
}

fn workflow(fields: Value) -> Workflow {
    let mut all = json!({
        "id": ID, "name": "invoices", "display_name": "invoices", "type": "code", "description": "",
        "workspace_id": "ws", "shared_namespace": null, "available_in_chat_assistant": false,
        "is_technical": false, "archived": false, "tags": [], "active": true,
    });
    all.as_object_mut().unwrap().extend(fields.as_object().cloned().unwrap());
    serde_json::from_value(all).unwrap()
}

/// With all reads answered.
fn answered(mut state: WorkflowState, fields: Value) -> WorkflowState {
    state.fetched(Ok(workflow(fields)));
    state.registrations_read(Ok(Versions::default()));
    state
}

fn step(state: &WorkflowState, now: Timestamp) -> Step {
    match plan(state, now) {
        Decision::Act(step) => step,
        Decision::Settle(settled) => panic!("settled: {settled:#?}"),
    }
}

fn settled(state: &WorkflowState, now: Timestamp) -> Settled {
    match plan(state, now) {
        Decision::Settle(settled) => *settled,
        Decision::Act(step) => panic!("acts: {step:?}"),
    }
}

fn ready(status: &WorkflowStatus) -> &str {
    find(&status.conditions, READY).map_or("", |ready| &ready.reason)
}

/// The next reconcile: with the status that the last one wrote, and what it remembers.
fn next(state: &WorkflowState, now: Timestamp) -> WorkflowState {
    let Settled { status, requeue, .. } = settled(state, now);
    let mut last = state.clone();
    last.settled(requeue, now);
    WorkflowState {
        status,
        remote: Remote::NotFetched,
        registrations: super::state::Registrations::NotFetched,
        change: Change::None,
        ..last
    }
}

fn refusal(status: u16) -> ApiError {
    ApiError { status, code: None, detail: "no".into(), deployments: Vec::new(), is_json: true }
}

fn not_found() -> Error {
    Error::NotFound(refusal(404))
}

#[test]
fn the_workflow_is_asked_for_then_its_versions_then_compared() {
    let mut state = wanting(json!({ "displayName": "Invoices" }));
    assert_eq!(step(&state, at(1)), Call::Get("invoices".into()).into());
    state.fetched(Ok(workflow(json!({}))));
    assert_eq!(step(&state, at(1)), Call::ReadRegistrations(ID.into()).into());
    state.registrations_read(Ok(Versions::default()));
    assert_eq!(step(&state, at(1)), Call::Update(ID.into(), vec![Field::DisplayName]).into());
}

#[test]
fn a_name_that_is_a_route_is_found_by_list_and_addressed_by_uuid() {
    for name in ["runs", "registrations", "executions", "register"] {
        let mut state = of_resource(json!({ "name": name }), json!({}));
        assert_eq!(step(&state, at(1)), Call::Find(name.into()).into());
        state.found(Ok(Some(ID.into())));
        assert_eq!(step(&state, at(1)), Call::Get(ID.into()).into());
        state.found(Ok(None));
        assert_eq!(state.address, Address::Absent);
        assert_eq!(ready(&settled(&state, at(1)).status), reason::WORKFLOW_NOT_FOUND);
    }
}

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
fn at_rest_nothing_is_asked_until_drift_detection_says_so() {
    let state = next(&answered(wanting(json!({})), json!({})), at(1));
    assert_eq!(settled(&state, at(2)).requeue, Requeue::OnChange);
    assert_eq!(step(&WorkflowState { refresh: true, ..state.clone() }, at(2)), Call::Get("invoices".into()).into());
    assert_eq!(step(&WorkflowState { generation: Some(2), ..state }, at(2)), Call::Get("invoices".into()).into());
}

#[test]
fn a_value_that_comes_back_is_set_three_times_and_then_hourly() {
    let mut state = wanting(json!({ "tags": ["ours"] }));
    let mut sets = Vec::new();
    for minute in (0..130).step_by(5) {
        let now = at(minute * 60);
        let mut pass = answered(WorkflowState { refresh: true, ..state.clone() }, json!({ "tags": ["theirs"] }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, now) {
            sets.push(minute);
            pass.changed(fields, Ok(Some(workflow(json!({ "tags": ["ours"] })))), now);
        }
        let end = settled(&pass, now);
        assert_eq!(is_true(&end.status.conditions, CONTESTED), minute >= 10, "{minute}");
        assert_eq!(end.news.iter().filter(|it| it.reason == reason::CONTESTED).count(), usize::from(minute == 10));
        if minute >= 15 && !sets.contains(&minute) {
            assert!(is_true(&end.status.conditions, STALLED));
            assert_eq!(end.status.contested_fields, ["tags"]);
        }
        state = next(&pass, now);
    }
    assert_eq!(sets, [0, 5, 10, 70]);
}

#[test]
fn a_restart_does_not_begin_the_fight_anew() {
    let mut state = wanting(json!({ "tags": ["ours"] }));
    for minute in 0..4 {
        let mut pass = answered(WorkflowState { refresh: true, ..state.clone() }, json!({ "tags": ["theirs"] }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, at(minute * 60)) {
            pass.changed(fields, Ok(Some(workflow(json!({ "tags": ["ours"] })))), at(minute * 60));
        }
        state = next(&pass, at(minute * 60));
    }
    assert_eq!(ready(&state.status), reason::CONTESTED);
    let restarted = WorkflowState { memory: Memory::default(), ..state };
    let pass = |now| plan(&answered(restarted.clone(), json!({ "tags": ["theirs"] })), now);
    assert!(matches!(pass(at(600)), Decision::Settle(_)));
    assert!(matches!(pass(at(3900)), Decision::Act(Step::Call(Call::Update(..)))));
    // Once the field is set again after the hour, the next reversal makes it contested at once.
    let mut last = answered(restarted.clone(), json!({ "tags": ["theirs"] }));
    last.changed(vec![Field::Tags], Ok(Some(workflow(json!({ "tags": ["ours"] })))), at(3900));
    let state = answered(WorkflowState { refresh: true, ..next(&last, at(3900)) }, json!({ "tags": ["theirs"] }));
    assert_eq!(ready(&settled(&state, at(4000)).status), reason::CONTESTED);
}

#[test]
fn a_value_that_the_api_keeps_otherwise_does_not_spin() {
    let mut state = wanting(json!({ "displayName": "Invoices" }));
    let mut sets = 0;
    for second in (0..1000).step_by(10) {
        let mut pass = answered(state.clone(), json!({ "display_name": "INVOICES" }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, at(second)) {
            sets += 1;
            pass.changed(fields, Ok(Some(workflow(json!({ "display_name": "INVOICES" })))), at(second));
        }
        state = next(&pass, at(second));
    }
    assert_eq!(sets, 3);
    assert_eq!(ready(&state.status), reason::CONTESTED);
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
fn suspended_nothing_is_asked_or_changed_not_even_by_deletion() {
    let state = wanting(json!({ "suspend": true, "tags": ["a"] }));
    assert_eq!(ready(&settled(&state, at(1)).status), reason::SUSPENDED);
    let deleted = json!({ "deletionTimestamp": at(10).to_string(), "finalizers": [FINALIZER] });
    let state = of_resource(deleted, json!({ "suspend": true, "deletionPolicy": "Archive" }));
    assert_eq!(step(&state, at(11)), ClusterStep::Release { abandoned: false }.into());
}

#[test]
fn without_a_usable_workspace_nothing_is_called() {
    let with = |workspace| WorkflowState { workspace, ..wanting(json!({ "tags": ["a"] })) };
    assert_eq!(settled(&with(Workspace::Pending), at(60)).requeue, Requeue::OnChange);
    let missing = settled(&with(Workspace::NotFound), at(60));
    assert_eq!(ready(&missing.status), reason::WORKSPACE_NOT_FOUND);
    assert!(settled(&with(Workspace::NotFound), at(1)).status.conditions.is_empty(), "it may be on its way");
    let end = settled(&with(Workspace::NotReady("the key is refused".into(), Progress::Stalled)), at(60));
    assert_eq!(ready(&end.status), reason::WORKSPACE_NOT_READY);
    assert!(find(&end.status.conditions, READY).unwrap().message.contains("the key is refused"));
}

#[test]
fn an_api_in_trouble_is_never_read_as_absence() {
    let mut state = next(&answered(wanting(json!({})), json!({ "display_name": "Known" })), at(1));
    state.refresh = true;
    state.fetched(Err(Error::Transient { retry_after: Some(Duration::from_secs(77)), message: "down".into() }));
    let end = settled(&state, at(2));
    assert_eq!(ready(&end.status), reason::API_UNAVAILABLE);
    assert_eq!(end.status.display_name.as_deref(), Some("Known"));
    assert!(is_true(&end.status.conditions, ACTIVE), "what was known stays");
    assert_eq!(end.requeue, Requeue::Retry(Duration::from_secs(77)));
    state.fetched(Err(not_found()));
    let end = settled(&state, at(2));
    assert_eq!(ready(&end.status), reason::WORKFLOW_NOT_FOUND);
    assert!(!is_true(&end.status.conditions, ACTIVE));
    assert_eq!(end.status.display_name.as_deref(), Some("Known"));
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
fn the_finalizer_is_there_only_while_deletion_does_something() {
    let with = |finalizers: Value, policy: &str| {
        of_resource(json!({ "finalizers": finalizers }), json!({ "deletionPolicy": policy }))
    };
    assert_eq!(step(&with(json!([]), "Archive"), at(1)), ClusterStep::SetFinalizer(true).into());
    assert_eq!(step(&with(json!([FINALIZER]), "Retain"), at(1)), ClusterStep::SetFinalizer(false).into());
    assert_eq!(step(&with(json!([FINALIZER]), "Archive"), at(1)), Call::Get("invoices".into()).into());
}

#[test]
fn registrations_are_the_newest_twenty_and_the_newest_active_one_is_described() {
    let registration = |n: usize, definition: Value| -> Registration {
        let id = format!("0198a000-0000-7000-8000-0000000000{n:02}");
        let row = json!({
            "id": id, "workflow_id": ID, "deployment_name": format!("d{n}"), "definition": definition,
        });
        serde_json::from_value(row).unwrap()
    };
    let plain = json!({
        "input_schema": { "type": "object" }, "output_schema": null, "signals": [{ "name": "stop" }],
        "on_behalf_of": true, "execution_timeout": 3600.0,
    });
    let rows: Vec<Registration> = (10..35).map(|n| registration(n, plain.clone())).collect();
    let gathered = |rows: &[Registration], active: &[usize]| {
        let mut gathering = Gathering::new(active.iter().map(|n| rows[*n].id.clone()).collect());
        rows.iter().for_each(|row| gathering.add(row.clone()));
        Ok(gathering.versions())
    };
    let mut state = wanting(json!({}));
    state.fetched(Ok(workflow(json!({}))));
    state.registrations_read(gathered(&rows, &[3, 20]));
    let status = settled(&state, at(1)).status;
    assert_eq!(status.registrations.len(), 20);
    assert_eq!(status.registrations[0].id, rows[24].id);
    assert_eq!(status.registrations.iter().filter(|row| row.active).count(), 1, "the other is older");
    let definition = status.definition.clone().unwrap();
    assert_eq!(definition.registration_id, rows[20].id);
    assert_eq!(
        (definition.signals.as_slice(), definition.execution_timeout_seconds),
        (&["stop".to_owned()][..], Some(3600))
    );
    assert!(is_true(&status.conditions, NEEDS_USER), "on behalf of a user");

    let large = json!({ "input_schema": { "description": "x".repeat(40_000) }, "output_schema": {} });
    state.registrations_read(gathered(&[registration(10, large)], &[]));
    let definition = settled(&state, at(1)).status.definition.unwrap();
    assert!(definition.input_schema.is_none() && definition.schemas_omitted.unwrap().contains("40"));
}

#[test]
fn a_schema_that_the_api_server_spells_in_its_own_way_is_not_written_again() {
    let read = |state: &mut WorkflowState, schema: &str| {
        let text = format!(r#"{{"id":"r","workflow_id":"{ID}","definition":{{"input_schema":{schema}}}}}"#);
        let mut gathering = Gathering::default();
        gathering.add(serde_json::from_str(&text).unwrap());
        state.fetched(Ok(workflow(json!({}))));
        state.registrations_read(Ok(gathering.versions()));
        settled(state, at(1)).status
    };
    let mut state = wanting(json!({}));
    let written = read(&mut state, r#"{"type":"object","maxProperties":2}"#);
    // As it comes back: in another order.
    let mut next = WorkflowState { refresh: true, ..wanting(json!({})) };
    next.status = serde_json::from_str(
        &serde_json::to_string(&written)
            .unwrap()
            .replace(r#"{"type":"object","maxProperties":2}"#, r#"{"maxProperties":2,"type":"object"}"#),
    )
    .unwrap();
    assert_ne!(next.status, written);
    assert_eq!(read(&mut next.clone(), r#"{"type":"object","maxProperties":2.0}"#), next.status);
    assert_ne!(read(&mut next.clone(), r#"{"type":"object","maxProperties":3}"#), next.status);
}

#[test]
fn a_deep_schema_in_a_status_from_before_costs_nothing_but_itself() {
    let deep = format!("{}1{}", r#"{"a":"#.repeat(1000), "}".repeat(1000));
    let text = format!(
        r#"{{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"Workflow","metadata":{{"name":"w"}},"spec":{{}},
        "status":{{"workflowId":"{ID}","definition":{{"registrationId":"r","inputSchema":{deep}}}}}}}"#
    );
    let object: Resource = serde_json::from_str(&text).unwrap();
    let mut state = WorkflowState { status: object.status.unwrap(), refresh: true, ..wanting(json!({})) };
    assert_eq!(state.status.definition.as_ref().unwrap().input_schema.as_ref().unwrap().text(), deep);
    // The schema stays until a refresh, which removes it.
    state.fetched(Ok(workflow(json!({}))));
    state.registrations_read(Ok(Versions::default()));
    assert_eq!(settled(&state, at(1)).status.definition, None);
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

/// A workflow with a contested field, at the time at which that is reported.
fn contested() -> WorkflowState {
    let mut state = wanting(json!({ "tags": ["ours"] }));
    for minute in 0..4 {
        let mut pass = answered(WorkflowState { refresh: true, ..state.clone() }, json!({ "tags": ["theirs"] }));
        if let Decision::Act(Step::Call(Call::Update(_, fields))) = plan(&pass, at(minute * 60)) {
            pass.changed(fields, Ok(Some(workflow(json!({ "tags": ["ours"] })))), at(minute * 60));
        }
        state = next(&pass, at(minute * 60));
    }
    assert_eq!(ready(&state.status), reason::CONTESTED);
    state
}

#[test]
fn an_edit_ends_the_contest_whichever_way_it_goes() {
    for spec in [json!({}), json!({ "tags": ["theirs"] })] {
        let agreed = WorkflowState { generation: Some(2), spec: wanting(spec.clone()).spec, ..contested() };
        let end = settled(&answered(agreed, json!({ "tags": ["theirs"] })), at(300));
        assert_eq!(ready(&end.status), reason::IN_SYNC, "{spec}");
        assert!(find(&end.status.conditions, CONTESTED).is_none() && end.status.contested_fields.is_empty(), "{spec}");
        assert_eq!(end.requeue, Requeue::OnChange);
    }
    // A new value is set at once, also by a process that remembers nothing, and after trouble.
    let spec = wanting(json!({ "tags": ["new"] })).spec;
    let mut edited = WorkflowState { generation: Some(2), spec, memory: Memory::default(), ..contested() };
    edited.fetched(Err(Error::Transient { retry_after: None, message: "down".into() }));
    let state = answered(next(&edited, at(300)), json!({ "tags": ["theirs"] }));
    assert!(matches!(plan(&state, at(310)), Decision::Act(Step::Call(Call::Update(..)))));
}

#[test]
fn registrations_that_could_not_be_read_are_read_again_soon() {
    let mut state = wanting(json!({}));
    state.fetched(Ok(workflow(json!({ "active": false }))));
    state.registrations_read(Err(Error::Transient { retry_after: None, message: "down".into() }));
    let end = settled(&state, at(1));
    assert_eq!(ready(&end.status), reason::IN_SYNC);
    assert!(matches!(end.requeue, Requeue::Retry(_)));
    let state = next(&state, at(1));
    assert!(matches!(settled(&state, at(2)).requeue, Requeue::Hold(_)));
    assert_eq!(step(&state, at(120)), Call::Get("invoices".into()).into());
    // If reading them is forbidden, the operator does not insist.
    let mut state = wanting(json!({}));
    state.fetched(Ok(workflow(json!({}))));
    state.registrations_read(Err(Error::Rejected(refusal(403))));
    assert_eq!(settled(&state, at(1)).requeue, Requeue::OnChange);
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
