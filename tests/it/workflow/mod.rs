//! A Workflow: the registered workflow matches the resource, stays so, and costs almost nothing.

mod archive;
mod discovery;
mod odd;
mod reference;
mod rules;

use std::time::Duration;

use kube::ResourceExt;
use kube::api::DeleteParams;
use mistral_workflows_operator::api::Workflow;
use serde_json::{Value, json};

use crate::support::*;

const GET: &str = "/v1/workflows/{workflow_identifier}";

/// The workflow of this name at the API.
async fn at_the_api(world: &World, name: &str) -> Value {
    world.api.call("GET", &format!("/v1/workflows/{name}"), None).await["workflow"].clone()
}

/// The number of calls that changed something at the API.
async fn changes(world: &World) -> u64 {
    world.api.effects(None).await
}

#[tokio::test]
async fn all_five_fields_are_set_as_the_spec_says() {
    let world = World::new("wf-set").await;
    let _operator = world.operator();
    let spec = json!({
        "displayName": "Echo", "description": "Says what it hears", "tags": ["b", " a ", "b"],
        "availableInChatAssistant": true, "archived": true,
    });
    world.workflow("echo", spec).await;
    let object = world.wait_for_workflow("echo", "InSync").await;
    let there = at_the_api(&world, "echo").await;
    assert_eq!(there["display_name"], "Echo");
    assert_eq!(there["description"], "Says what it hears");
    assert_eq!(there["tags"], json!(["b", "a"]));
    assert_eq!((&there["available_in_chat_assistant"], &there["archived"]), (&json!(true), &json!(true)));
    let status = workflow_status(&object);
    assert_eq!(json!(status.workflow_id), there["id"]);
    assert_eq!(status.name.as_deref(), Some("echo"));
    assert_eq!(status.tags, Some(vec!["b".to_owned(), "a".to_owned()]));
    assert_eq!((status.archived, status.active), (Some(true), Some(true)));
    assert_eq!(workflow_condition(&object, "Active").unwrap().status, "True");
    assert_eq!(changes(&world).await, 2, "one update, one archive");
}

#[tokio::test]
async fn drift_of_every_managed_field_is_corrected_also_of_a_workflow_named_by_uuid() {
    let world = World::new("wf-five").await;
    world.resync("5s").await;
    let made = world.api.register(json!({ "name": "five" })).await;
    let _operator = world.operator();
    let spec = json!({
        "identifier": made["id"], "displayName": "Five", "description": "All of them", "tags": ["a"],
        "availableInChatAssistant": false, "archived": false,
    });
    world.workflow("named-by-uuid", spec).await;
    let object = world.wait_for_workflow("named-by-uuid", "InSync").await;
    assert_eq!(workflow_status(&object).name.as_deref(), Some("five"));
    let theirs = json!({
        "display_name": "Theirs", "description": "theirs", "tags": ["theirs"],
        "available_in_chat_assistant": true, "archived": true,
    });
    world.api.edit("five", theirs).await;
    let back = async || {
        let there = at_the_api(&world, "five").await;
        let ours = there["display_name"] == "Five"
            && there["description"] == "All of them"
            && there["tags"] == json!(["a"])
            && there["available_in_chat_assistant"] == false
            && there["archived"] == false;
        ours.then_some(())
    };
    until(SOON, "all five fields", back).await;
    let corrected = async || {
        let events = world.events("named-by-uuid").await;
        let drift = events.iter().filter(|(reason, _)| reason == "DriftCorrected").map(|(_, note)| note.as_str());
        let all = drift.collect::<Vec<_>>().join(" ");
        let fields = ["displayName", "description", "tags", "availableInChatAssistant", "archived"];
        fields.iter().all(|field| all.contains(field)).then_some(())
    };
    until(SOON, "Events that name all five", corrected).await;
}

#[tokio::test]
async fn a_workflow_that_another_workspace_shares_is_shown_and_not_changed() {
    let world = World::new("wf-shared").await;
    world.api.register(json!({ "name": "theirs", "shared_namespace": "shared:theirs" })).await;
    world.api.register(json!({ "name": "sdk", "is_technical": true })).await;
    let _operator = world.operator();
    world.workflow("theirs", json!({ "tags": ["mine"], "deletionPolicy": "Archive" })).await;
    world.workflow("sdk", json!({ "tags": ["mine"] })).await;
    let object = world.wait_for_workflow("theirs", "Shared").await;
    assert_eq!(workflow_status(&object).shared_namespace.as_deref(), Some("shared:theirs"));
    world.wait_for_workflow("sdk", "Technical").await;
    world.workflows().delete("theirs", &DeleteParams::default()).await.unwrap();
    let gone = async || world.workflows().get_opt("theirs").await.unwrap().is_none().then_some(());
    until(SOON, "the deletion", gone).await;
    assert_eq!(changes(&world).await, 0);
}

#[tokio::test]
async fn a_field_that_the_spec_leaves_out_is_left_alone() {
    let world = World::new("wf-alone").await;
    world.api.edit("echo", json!({ "display_name": "Theirs", "tags": ["x"], "archived": true })).await;
    let _operator = world.operator();
    world.workflow("mine", json!({ "identifier": "echo", "description": "ours" })).await;
    world.wait_for_workflow("mine", "InSync").await;
    let there = at_the_api(&world, "echo").await;
    assert_eq!((&there["display_name"], &there["tags"]), (&json!("Theirs"), &json!(["x"])));
    assert_eq!((&there["archived"], &there["description"]), (&json!(true), &json!("ours")));
}

#[tokio::test]
async fn a_changed_tag_is_set_back_within_one_resync_with_one_event_and_no_write() {
    let world = World::new("wf-drift").await;
    world.resync("5s").await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "displayName": "Echo", "tags": ["a", "b"] })).await;
    let before = world.wait_for_workflow("echo", "InSync").await;
    world.api.edit("echo", json!({ "tags": ["a", "hand-made"] })).await;
    until(Duration::from_secs(8), "the tag", async || {
        (at_the_api(&world, "echo").await["tags"] == json!(["a", "b"])).then_some(())
    })
    .await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let events = world.events("echo").await;
    let drift: Vec<_> = events.iter().filter(|(reason, _)| reason == "DriftCorrected").collect();
    assert_eq!(drift.len(), 1, "{events:?}");
    assert!(drift[0].1.contains("tags") && drift[0].1.contains("hand-made"), "{drift:?}");
    assert!(!drift[0].1.contains("displayName"), "{drift:?}");
    let after = world.workflows().get("echo").await.unwrap();
    assert_eq!(after.resource_version(), before.resource_version());
}

#[tokio::test]
async fn a_hundred_at_rest_for_ten_resyncs_cost_no_write_and_a_few_lists() {
    let world = World::new("wf-rest").await;
    world.resync("5s").await;
    for n in 0..100 {
        world.api.register(json!({ "name": format!("w{n}"), "tags": ["a"] })).await;
        world.workflow(&format!("w{n}"), json!({ "tags": ["a"], "displayName": format!("Workflow {n}") })).await;
    }
    let _operator = world.operator();
    for n in 0..100 {
        world.wait_for_workflow(&format!("w{n}"), "InSync").await;
    }
    // A sweep that began before the last change may still compare with older lists.
    tokio::time::sleep(Duration::from_secs(7)).await;
    let versions = async || {
        let all = world.workflows().list(&Default::default()).await.unwrap();
        let mut all: Vec<_> = all.into_iter().map(|object| (object.name_any(), object.resource_version())).collect();
        all.sort();
        all
    };
    let before = versions().await;
    world.api.forget_calls().await;
    let sweeps = async || world.api.arrivals(Some(("GET", "/v1/workflows/registrations"))).await;
    until(Duration::from_secs(75), "ten sweeps", async || (sweeps().await >= 10).then_some(())).await;
    let (calls, sweeps) = (world.api.arrivals(None).await, sweeps().await);
    println!("{calls} calls in {sweeps} resyncs of 100 workflows");
    assert!(calls <= 4 * sweeps + 4, "{calls} calls in {sweeps} resyncs");
    assert_eq!(world.api.arrivals(Some(("GET", GET))).await, 0, "no question about a single one");
    assert_eq!(versions().await, before);
}

#[tokio::test]
async fn the_answer_to_an_own_change_is_the_truth_until_a_sweep_that_began_later() {
    let world = World::new("wf-answer").await;
    world.resync("5s").await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "tags": ["a"] })).await;
    world.workflow("slow", json!({})).await;
    for name in ["echo", "slow"] {
        world.wait_for_workflow(name, "InSync").await;
    }
    // The lists are read with the old tag, but arrive after the tag has been changed.
    let hold = json!({ "method": "GET", "route": "/v1/workflows", "kind": { "hold": "after_effect" } });
    world.api.faults(json!({ "faults": [hold] })).await;
    until(SOON, "a sweep", async || (!world.api.held().await.is_empty()).then_some(())).await;
    world.api.forget_calls().await;
    world.patch_workflow("echo", json!({ "tags": ["b"] })).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.api.heal().await;
    let swept = async || world.api.arrivals(Some(("GET", "/v1/workflows/registrations"))).await;
    until(SOON, "the end of two sweeps", async || (swept().await >= 2).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.api.arrivals(Some(("GET", GET))).await, 1, "the one question before the change");
    assert_eq!(world.api.effects(Some(("PUT", GET))).await, 1);
    assert_eq!(at_the_api(&world, "echo").await["tags"], json!(["b"]));
}

#[tokio::test]
async fn a_changed_spec_costs_two_calls_also_where_it_waits_for_its_turn() {
    let world = World::new("wf-turns").await;
    let _operator = world.operator();
    let names: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    for name in &names {
        world.api.register(json!({ "name": name })).await;
        world.workflow(name, json!({ "tags": ["a"] })).await;
    }
    for name in &names {
        world.wait_for_workflow(name, "InSync").await;
    }
    let slow = kube::api::Patch::Merge(json!({ "spec": { "requestsPerSecond": 4, "resyncInterval": "1h" } }));
    world.workspaces().patch("default", &Default::default(), &slow).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    world.api.forget_calls().await;
    for name in &names {
        world.patch_workflow(name, json!({ "tags": ["b"] })).await;
    }
    for name in &names {
        world.wait_for_workflow(name, "InSync").await;
    }
    let ours = |call: &&Value| call["route"] == GET || call["route"] == "/v1/workflows/registrations";
    let calls: Vec<Value> = world.api.calls().await.iter().filter(ours).cloned().collect();
    let number = calls.iter().map(|call| call["arrivals"].as_u64().unwrap()).sum::<u64>();
    assert_eq!(number, 40, "one question and one change of each: {calls:#?}");
}

#[tokio::test]
async fn two_resources_with_different_wishes_stop_fighting_and_say_so() {
    let world = World::new("wf-fight").await;
    world.resync("5s").await;
    let _operator = world.operator();
    world.workflow("one", json!({ "identifier": "echo", "tags": ["one"], "displayName": "Echo" })).await;
    world.workflow("two", json!({ "identifier": "echo", "tags": ["two"] })).await;
    let says = |object: &Workflow| workflow_condition(object, "Contested").is_some();
    for name in ["one", "two"] {
        let object = world.wait_workflow(name, SOON * 3, says).await;
        let message = &workflow_condition(&object, "Contested").unwrap().message;
        assert!(message.contains("tags") && !message.contains("displayName"), "{message}");
    }
    // One of the two may still set the tag once. After that, both stop.
    tokio::time::sleep(Duration::from_secs(6)).await;
    world.api.forget_calls().await;
    world.api.edit("echo", json!({ "display_name": "Theirs" })).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(world.api.effects(Some(("PUT", GET))).await, 1, "the display name, which nobody contests");
    for name in ["one", "two"] {
        let events = world.events(name).await;
        assert_eq!(events.iter().filter(|(reason, _)| reason == "Contested").count(), 1, "{events:?}");
    }
}

#[tokio::test]
async fn a_workflow_that_is_not_registered_yet_is_waited_for() {
    let world = World::new("wf-wait").await;
    let _operator = world.operator();
    world.workflow("later", json!({ "displayName": "Later" })).await;
    let object = world.wait_for_workflow("later", "WorkflowNotFound").await;
    assert!(workflow_condition(&object, "Ready").unwrap().message.contains("start the worker"));
    world.api.register(json!({ "name": "later" })).await;
    world.wait_for_workflow("later", "InSync").await;
    assert_eq!(at_the_api(&world, "later").await["display_name"], "Later");
}

#[tokio::test]
async fn deleting_archives_only_where_the_policy_says_so() {
    let world = World::new("wf-delete").await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "deletionPolicy": "Archive" })).await;
    world.workflow("slow", json!({})).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.wait_for_workflow("slow", "InSync").await;
    for (name, archived) in [("echo", true), ("slow", false)] {
        world.workflows().delete(name, &DeleteParams::default()).await.unwrap();
        until(SOON, "the deletion", async || world.workflows().get_opt(name).await.unwrap().is_none().then_some(()))
            .await;
        assert_eq!(at_the_api(&world, name).await["archived"], json!(archived), "{name}");
    }
}

#[tokio::test]
async fn a_field_that_the_spec_newly_names_is_set_and_announced_as_an_update() {
    let world = World::new("wf-edit").await;
    let _operator = world.operator();
    world.workflow("echo", json!({})).await;
    world.wait_for_workflow("echo", "InSync").await;
    assert_eq!(changes(&world).await, 0);
    world.patch_workflow("echo", json!({ "description": "new" })).await;
    world.wait_for_workflow("echo", "InSync").await;
    assert_eq!(at_the_api(&world, "echo").await["description"], "new");
    let reasons = until(SOON, "both Events", async || {
        let events = world.events("echo").await;
        (events.len() > 1).then(|| events.into_iter().map(|(reason, _)| reason).collect::<Vec<_>>())
    });
    assert_eq!(reasons.await, ["InSync", "Updated"]);
}

#[tokio::test]
async fn an_observed_workflow_is_never_changed_and_its_news_are_told() {
    let world = World::new("wf-observe").await;
    world.resync("5s").await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "managementPolicy": "Observe", "tags": ["wanted"] })).await;
    let object = world.wait_for_workflow("echo", "Observed").await;
    assert!(workflow_condition(&object, "Ready").unwrap().message.contains("tags"));
    let deployments = json!([{ "name": "default", "active": false }]);
    world.api.edit("echo", json!({ "display_name": "Theirs", "deployments": deployments })).await;
    let object = world
        .wait_workflow("echo", SOON, |object| workflow_status(object).display_name.as_deref() == Some("Theirs"))
        .await;
    assert_eq!(workflow_condition(&object, "Active").unwrap().reason, "NoWorker");
    assert_eq!(changes(&world).await, 0);
}

#[tokio::test]
async fn a_suspended_workflow_is_left_alone_until_it_is_not() {
    let world = World::new("wf-suspend").await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "suspend": true, "tags": ["a"] })).await;
    world.wait_for_workflow("echo", "Suspended").await;
    assert_eq!(world.api.arrivals(Some(("GET", GET))).await, 0);
    world.patch_workflow("echo", json!({ "suspend": false })).await;
    world.wait_for_workflow("echo", "InSync").await;
    assert_eq!(at_the_api(&world, "echo").await["tags"], json!(["a"]));
}

#[tokio::test]
async fn a_workflow_that_vanishes_is_said_to_and_is_set_again_when_it_comes_back() {
    let world = World::new("wf-vanish").await;
    world.resync("5s").await;
    let _operator = world.operator();
    // Two Workflows, so that the operator reads the lists instead of each workflow.
    world.workflow("echo", json!({ "tags": ["a"] })).await;
    world.workflow("slow", json!({})).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.api.unregister("echo").await;
    let object = world.wait_for_workflow("echo", "WorkflowNotFound").await;
    assert_eq!(workflow_condition(&object, "Active").unwrap().status, "False");
    let first = workflow_status(&object).workflow_id;
    world.api.register(json!({ "name": "echo" })).await;
    let object = world.wait_for_workflow("echo", "InSync").await;
    assert_ne!(workflow_status(&object).workflow_id, first, "another one of the same name");
    assert_eq!(at_the_api(&world, "echo").await["tags"], json!(["a"]));
}

#[tokio::test]
async fn a_workflow_whose_name_is_a_route_is_managed_by_its_uuid() {
    let world = World::new("wf-route").await;
    let made = world.api.register(json!({ "name": "runs" })).await;
    world.api.register(json!({ "name": "runs-of-old" })).await;
    let _operator = world.operator();
    world.workflow("runs", json!({ "tags": ["a"], "archived": true })).await;
    let object = world.wait_for_workflow("runs", "InSync").await;
    assert_eq!(json!(workflow_status(&object).workflow_id), made["id"]);
    let there = at_the_api(&world, made["id"].as_str().unwrap()).await;
    assert_eq!((&there["tags"], &there["archived"]), (&json!(["a"]), &json!(true)));
}

#[tokio::test]
async fn versions_and_schemas_are_in_the_status() {
    let world = World::new("wf-versions").await;
    let schema = json!({ "type": "object", "properties": { "customer": { "type": "string" } } });
    let deployments = json!([{ "name": "blue", "active": true }, { "name": "green", "active": false }]);
    let signals = json!([{ "name": "stop", "input_schema": {} }]);
    let made = json!({
        "name": "invoices", "input_schema": schema, "deployments": deployments, "signals": signals,
        "on_behalf_of": true,
    });
    world.api.register(made).await;
    let _operator = world.operator();
    world.workflow("invoices", json!({})).await;
    let object = world.wait_for_workflow("invoices", "InSync").await;
    let status = workflow_status(&object);
    let mut versions: Vec<_> =
        status.registrations.iter().map(|it| (it.deployment.clone().unwrap(), it.active)).collect();
    versions.sort();
    assert_eq!(versions, [("blue".into(), true), ("green".into(), false)]);
    let definition = status.definition.unwrap();
    assert_eq!(serde_json::from_str::<Value>(definition.input_schema.unwrap().text()).unwrap(), schema);
    assert_eq!(definition.signals, ["stop"]);
    assert!(status.registrations.iter().any(|it| it.active && it.id == definition.registration_id));
    let user = workflow_condition(&object, "NeedsUser").unwrap();
    assert_eq!((user.status.as_str(), user.reason.as_str()), ("True", "OnBehalfOf"));
    until(SOON, "the Event", async || {
        world.events("invoices").await.iter().any(|(reason, _)| reason == "OnBehalfOf").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_refused_change_is_said_in_the_apis_words_and_corrected_by_an_edit() {
    let world = World::new("wf-refused").await;
    let _operator = world.operator();
    let fault = json!({
        "method": "PUT", "route": GET,
        "kind": { "error": { "status": 422, "body": { "detail": "tags are frozen this week", "code": "WF_1001" } } },
    });
    world.api.faults(json!({ "faults": [fault] })).await;
    world.workflow("echo", json!({ "tags": ["a"] })).await;
    let object = world.wait_for_workflow("echo", "ChangeRefused").await;
    let message = &workflow_condition(&object, "Ready").unwrap().message;
    for words in ["tags", "tags are frozen this week", "WF_1001"] {
        assert!(message.contains(words), "{message}");
    }
    world.api.forget_calls().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(world.api.arrivals(Some(("PUT", GET))).await, 0, "not before it is due");
    world.api.heal().await;
    world.patch_workflow("echo", json!({ "tags": ["b"] })).await;
    world.wait_for_workflow("echo", "InSync").await;
}

#[tokio::test]
async fn an_api_that_is_down_is_waited_for() {
    let world = World::new("wf-down").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world
        .api
        .faults(json!({ "faults": [{ "route": "/v1/workflows*", "kind": { "error": { "status": 503 } } }] }))
        .await;
    world.workflow("echo", json!({ "tags": ["a"] })).await;
    world.wait_for_workflow("echo", "APIUnavailable").await;
    world.api.heal().await;
    world.wait_for_workflow("echo", "InSync").await;
}

#[tokio::test]
async fn a_workflow_of_a_deleted_workspace_says_so_and_lets_itself_be_deleted() {
    let world = World::new("wf-orphan").await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "deletionPolicy": "Archive" })).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.workspaces().delete("default", &DeleteParams::default()).await.unwrap();
    world.wait_for_workflow("echo", "WorkspaceNotFound").await;
    // The operator may still archive by the last good connection.
    world.workflows().delete("echo", &DeleteParams::default()).await.unwrap();
    let gone = async || world.workflows().get_opt("echo").await.unwrap().is_none().then_some(());
    until(SOON, "the deletion", gone).await;
    assert_eq!(at_the_api(&world, "echo").await["archived"], true);
}

#[tokio::test]
async fn a_restart_at_rest_changes_nothing_and_asks_by_list() {
    let world = World::new("wf-restart").await;
    for n in 0..20 {
        world.api.register(json!({ "name": format!("w{n}") })).await;
        world.workflow(&format!("w{n}"), json!({ "tags": ["a"] })).await;
    }
    {
        let _operator = world.operator();
        for n in 0..20 {
            world.wait_for_workflow(&format!("w{n}"), "InSync").await;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let version = async || world.workflows().get("w7").await.unwrap().resource_version();
    let before = version().await;
    world.api.forget_calls().await;
    let _operator = world.operator();
    let swept = async || world.api.arrivals(Some(("GET", "/v1/workflows/registrations"))).await;
    until(SOON, "the first sweep", async || (swept().await > 0).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(world.api.arrivals(Some(("GET", GET))).await, 0);
    assert_eq!(world.api.effects(None).await, 0);
    assert_eq!(version().await, before);
}

#[tokio::test]
async fn drift_is_found_also_where_a_list_is_refused() {
    let world = World::new("wf-lists").await;
    world.resync("5s").await;
    let refused = json!({ "error": { "status": 403, "body": { "detail": "not for you" } } });
    let fault = json!({ "route": "/v1/workflows/registrations", "kind": refused });
    world.api.faults(json!({ "faults": [fault] })).await;
    let _operator = world.operator();
    world.workflow("echo", json!({ "tags": ["a"] })).await;
    world.workflow("slow", json!({ "tags": ["a"] })).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.wait_for_workflow("slow", "InSync").await;
    world.api.edit("echo", json!({ "tags": ["theirs"] })).await;
    let back = async || (at_the_api(&world, "echo").await["tags"] == json!(["a"])).then_some(());
    until(SOON, "the tag", back).await;
}
