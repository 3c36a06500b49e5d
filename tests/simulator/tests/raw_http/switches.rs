//! Undocumented answers about workflows.

use serde_json::{Value, json};

use crate::support::Sim;

async fn workflow(sim: &Sim) -> Value {
    sim.ok("GET", "/v1/workflows/job", None).await["workflow"].clone()
}

/// A workflow that a client has renamed, described, tagged and archived.
async fn updated() -> Sim {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "display_name": "Worker's", "description": "first" })).await;
    let change = json!({ "display_name": "Client's", "description": "better", "tags": ["t"] });
    sim.ok("PUT", "/v1/workflows/job", Some(change)).await;
    sim.ok("PUT", "/v1/workflows/job/archive", None).await;
    sim
}

#[tokio::test]
async fn a_client_s_updates_outlive_that_the_worker_registers_again() {
    let sim = updated().await;
    let again = json!({ "name": "job", "display_name": "Worker's", "description": "first", "archived": false });
    sim.register(again).await;
    let workflow = workflow(&sim).await;
    assert_eq!((&workflow["display_name"], &workflow["description"]), (&json!("Client's"), &json!("better")));
    assert_eq!((&workflow["archived"], &workflow["tags"]), (&json!(true), &json!(["t"])));
}

#[tokio::test]
async fn registering_again_overwrites_a_client_s_updates_by_switch() {
    let sim = updated().await;
    sim.switches(json!({ "reregistration": "overwrite" })).await;
    sim.register(json!({ "name": "job", "description": "first" })).await;
    let workflow = workflow(&sim).await;
    assert_eq!((&workflow["display_name"], &workflow["description"]), (&json!("job"), &json!("first")));
    assert_eq!(workflow["archived"], false);
    assert_eq!(workflow["tags"], json!(["t"]), "workers know no tags");
}

#[tokio::test]
async fn a_person_s_edit_is_not_a_registration() {
    let sim = updated().await;
    sim.ok("PATCH", "/__sim/workflows/job", Some(json!({ "display_name": "Console's", "archived": false }))).await;
    let workflow = workflow(&sim).await;
    assert_eq!((&workflow["display_name"], &workflow["archived"]), (&json!("Console's"), &json!(false)));
}

#[tokio::test]
async fn to_archive_what_is_archived_is_a_conflict_by_switch() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "repeated_archive": 409 })).await;
    for verb in ["archive", "unarchive"] {
        let path = format!("/v1/workflows/job/{verb}");
        assert_eq!(sim.call("PUT", &path, None).await.0, 200);
        assert_eq!(sim.call("PUT", &path, None).await.0, 409);
    }
    let id = workflow(&sim).await["id"].clone();
    for _ in 0..2 {
        let body = sim.ok("PUT", "/v1/workflows/archive", Some(json!({ "workflow_ids": [id] }))).await;
        assert_eq!(body["archived"][0]["id"], id, "in bulk it is documented to be fine");
    }
}

#[tokio::test]
async fn answers_to_changes_can_lack_the_workflow() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "null_workflow": true })).await;
    let id = workflow(&sim).await["id"].clone();
    let nothing = json!({ "workflow": null });
    let update = sim.put("/v1/workflows/job", json!({ "description": "new" })).await;
    assert_eq!(update, (200, nothing.clone()));
    for verb in ["archive", "unarchive"] {
        let path = format!("/v1/workflows/job/{verb}");
        assert_eq!(sim.call("PUT", &path, None).await, (200, nothing.clone()));
    }
    let body = sim.put("/v1/workflows/archive", json!({ "workflow_ids": [id] })).await;
    assert_eq!(body, (200, json!({ "archived": [null], "errored": [] })));
    let workflow = workflow(&sim).await;
    assert_eq!((&workflow["description"], &workflow["archived"]), (&json!("new"), &json!(true)));
}

#[tokio::test]
async fn null_in_an_update_clears_the_field_by_switch() {
    let sim = updated().await;
    sim.switches(json!({ "put_null": "clear" })).await;
    sim.ok("PUT", "/v1/workflows/job", Some(json!({ "display_name": null, "description": null, "tags": null }))).await;
    let workflow = workflow(&sim).await;
    assert_eq!((&workflow["display_name"], &workflow["description"]), (&json!("job"), &json!("")));
    assert_eq!(workflow["tags"], json!([]));
}

#[tokio::test]
async fn events_show_opaque_payloads_by_switch_and_the_execution_its_result() {
    let sim = Sim::with_job(json!({})).await;
    sim.execute(json!({ "execution_id": "e", "input": { "a": 1 } })).await;
    let [started, completed] = &sim.events("e").await[..] else { panic!("two events") };
    assert_eq!(started["attributes"]["input"]["value"], json!([{ "a": 1 }]));
    assert_eq!(completed["attributes"]["result"]["value"], json!({ "a": 1 }));
    sim.switches(json!({ "encoded_payloads": true })).await;
    let [started, completed] = &sim.events("e").await[..] else { panic!("two events") };
    assert!(started["attributes"]["input"]["value"].is_string(), "{started}");
    assert!(completed["attributes"]["result"]["value"].is_string(), "{completed}");
    assert_eq!(sim.execution("e").await["result"], json!({ "a": 1 }));
}

#[tokio::test]
async fn a_failed_execution_can_have_a_result() {
    let sim = Sim::with_job(json!({ "outcome": "fail" })).await;
    sim.switches(json!({ "failed_result": { "error": "x" } })).await;
    sim.run("e").await;
    assert_eq!(sim.execution("e").await["result"], json!({ "error": "x" }));
}

#[tokio::test]
async fn a_workflow_that_acts_on_behalf_of_users_says_so_and_can_be_executed() {
    let sim = Sim::start().await;
    let registered = sim.register(json!({ "name": "job", "on_behalf_of": true })).await;
    let id = registered["registrations"][0]["id"].as_str().unwrap();
    let body = sim.ok("GET", &format!("/v1/workflows/registrations/{id}"), None).await;
    assert_eq!(body["workflow_registration"]["definition"]["on_behalf_of"], true);
    sim.run("e").await;
    assert_eq!(sim.status_of("e").await, "COMPLETED");
}
