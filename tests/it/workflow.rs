//! A Workflow: the registered workflow looks as the resource says, stays so, and costs next to nothing.

use std::time::Duration;

use kube::ResourceExt;
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::support::*;

const GET: &str = "/v1/workflows/{workflow_identifier}";

/// What the API has under this name.
async fn at_the_api(world: &World, name: &str) -> Value {
    world.api.call("GET", &format!("/v1/workflows/{name}"), None).await["workflow"].clone()
}

/// Calls that changed something at the API.
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
    // A sweep that began before the last change may still compare with the lists from before.
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
async fn two_resources_with_different_wishes_stop_fighting_and_say_so() {
    let world = World::new("wf-fight").await;
    world.resync("5s").await;
    let _operator = world.operator();
    world.workflow("one", json!({ "identifier": "echo", "tags": ["one"], "displayName": "Echo" })).await;
    world.workflow("two", json!({ "identifier": "echo", "tags": ["two"] })).await;
    let one = world.wait_for_workflow("one", "Contested").await;
    let contested = workflow_condition(&one, "Contested").unwrap();
    assert!(contested.message.contains("tags") && !contested.message.contains("displayName"), "{}", contested.message);
    // The other may be the one whose wish holds; it has had to set it three times as well.
    world.api.forget_calls().await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    let calls = world.api.effects(None).await;
    assert!(calls <= 1, "{calls} changes after they had given up");
    let events = world.events("one").await;
    assert_eq!(events.iter().filter(|(reason, _)| reason == "Contested").count(), 1, "{events:?}");
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
