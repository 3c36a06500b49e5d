//! What is read of a workflow, and when.

use super::*;

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
fn at_rest_nothing_is_asked_until_drift_detection_says_so() {
    let state = next(&answered(wanting(json!({})), json!({})), at(1));
    assert_eq!(settled(&state, at(2)).requeue, Requeue::OnChange);
    assert_eq!(step(&WorkflowState { refresh: true, ..state.clone() }, at(2)), Call::Get("invoices".into()).into());
    assert_eq!(step(&WorkflowState { generation: Some(2), ..state }, at(2)), Call::Get("invoices".into()).into());
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
