//! The controls under `/__sim`.

use serde_json::{Value, json};

use crate::support::{EXECUTE, Sim, pluck};

#[tokio::test]
async fn calls_are_counted_per_workspace_method_and_route_and_can_be_reset() {
    let mut sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    sim.execute(json!({ "execution_id": "a b" })).await;
    sim.get("/v1/workflows").await;
    sim.put("/__sim/tokens/other", json!({ "workspace": "second" })).await;
    sim.token = "other".to_owned();
    sim.get("/v1/workflows").await;

    let body = sim.ok("GET", "/__sim/calls?workspace=default", None).await;
    let expected = json!([
        {
            "workspace": "default", "method": "GET", "route": "/v1/workflows",
            "arrivals": 1, "effects": 0, "statuses": { "200": 1 },
        },
        {
            "workspace": "default", "method": "POST", "route": EXECUTE,
            "arrivals": 2, "effects": 1, "statuses": { "200": 1, "422": 1 },
        },
    ]);
    assert_eq!(body["calls"], expected);
    assert_eq!(body["total"], json!({ "arrivals": 3, "effects": 1 }));
    let all = sim.ok("GET", "/__sim/calls", None).await;
    assert_eq!(all["total"], json!({ "arrivals": 4, "effects": 1 }));
    sim.ok("DELETE", "/__sim/calls", None).await;
    let none = sim.ok("GET", "/__sim/calls", None).await;
    assert_eq!(none["total"], json!({ "arrivals": 0, "effects": 0 }));
}

#[tokio::test]
async fn updates_that_change_something_are_effects_and_others_are_not() {
    let sim = Sim::with_job(json!({})).await;
    let route = "/v1/workflows/{workflow_identifier}";
    for _ in 0..2 {
        sim.put("/v1/workflows/job", json!({ "tags": ["a"] })).await;
    }
    assert_eq!(sim.calls("PUT", route).await, (2, 1));
}

#[tokio::test]
async fn executions_are_listed_with_their_starts_oldest_first() {
    let sim = Sim::with_job(json!({})).await;
    for (id, input) in [("z", 1), ("a", 2), ("z", 3)] {
        sim.execute(json!({ "execution_id": id, "input": { "n": input } })).await;
    }
    let body = sim.ok("GET", "/__sim/executions", None).await;
    let rows = body["executions"].as_array().unwrap();
    assert_eq!(pluck(rows, "execution_id"), ["z", "a"]);
    let row = &rows[0];
    assert_eq!(row["workspace"], "default");
    assert_eq!(row["workflow_name"], "job");
    assert_eq!(row["starts"], 2);
    assert_eq!(row["input"], json!({ "n": 3 }), "of the newest run");
    assert_eq!(row["status"], "COMPLETED");
    assert_eq!(row["deployment_name"], "job-deployment");
    let other = sim.ok("GET", "/__sim/executions?workspace=other", None).await;
    assert_eq!(other["executions"], json!([]));
}

#[tokio::test]
async fn a_running_execution_is_ended_at_will() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    for (body, status, result) in [
        (json!({ "outcome": "complete", "result": [1] }), "COMPLETED", json!([1])),
        (json!({ "outcome": "complete", "result": null }), "COMPLETED", Value::Null),
        (json!({ "outcome": "complete" }), "COMPLETED", json!({ "a": 1 })),
        (json!({ "outcome": "fail", "error": "oops" }), "FAILED", Value::Null),
        (json!({ "outcome": "cancel" }), "CANCELED", Value::Null),
        (json!({ "outcome": "terminate" }), "TERMINATED", Value::Null),
        (json!({ "outcome": "time_out" }), "TIMED_OUT", Value::Null),
    ] {
        sim.execute(json!({ "execution_id": "e", "input": { "a": 1 } })).await;
        sim.finish("e", body.clone()).await;
        let execution = sim.execution("e").await;
        assert_eq!((&execution["status"], &execution["result"]), (&json!(status), &result));
        let again = sim.post("/__sim/executions/e/finish", body).await;
        assert_eq!(again.0, 409);
    }
    let events = sim.events("e").await;
    let failed = events.iter().find(|event| event["event_type"] == "WORKFLOW_EXECUTION_FAILED");
    assert_eq!(failed.unwrap()["attributes"]["failure"]["message"], "oops");
    let unknown = sim.post("/__sim/executions/none/finish", json!({ "outcome": "fail" })).await;
    assert_eq!(unknown.0, 404);
}

#[tokio::test]
async fn a_forgotten_execution_keeps_its_place_in_the_books() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    sim.ok("DELETE", "/__sim/executions/e", None).await;
    let booked = sim.booked("e").await.unwrap();
    assert_eq!((&booked["forgotten"], &booked["starts"]), (&json!(true), &json!(1)));
    assert_eq!(sim.call("DELETE", "/__sim/executions/e", None).await.0, 404);
    sim.run("e").await;
    let booked = sim.booked("e").await.unwrap();
    assert_eq!((&booked["forgotten"], &booked["starts"]), (&json!(false), &json!(2)));
    assert_eq!(sim.runs("").await.len(), 1);
}

#[tokio::test]
async fn a_revoked_token_is_unauthorized_until_it_is_granted_again() {
    let sim = Sim::with_job(json!({})).await;
    sim.ok("DELETE", "/__sim/tokens/token", None).await;
    let refused = (401, json!({ "detail": "Unauthorized" }));
    assert_eq!(sim.get("/v1/workflows").await, refused);
    assert_eq!(sim.execute(json!({})).await, refused);
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
    sim.put("/__sim/tokens/token", json!({ "workspace": "default" })).await;
    assert_eq!(sim.get("/v1/workflows").await.0, 200);
}

#[tokio::test]
async fn a_token_revoked_while_its_request_is_held_has_no_effect() {
    let sim = Sim::with_job(json!({})).await;
    sim.faults(json!({ "faults": [{ "kind": { "hold": "before_effect" } }] })).await;
    let request = sim.request("POST", "/v1/workflows/job/execute");
    let pending = tokio::spawn(request.json(&json!({})).send());
    sim.held(1).await;
    sim.ok("DELETE", "/__sim/tokens/token", None).await;
    sim.ok("POST", "/__sim/held/release", None).await;
    assert_eq!(pending.await.unwrap().unwrap().status(), 401);
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 0));
}

#[tokio::test]
async fn registering_a_workflow_again_keeps_its_ids_and_what_people_set() {
    let sim = Sim::start().await;
    let spec = json!({ "name": "job", "deployments": [{ "name": "a" }, { "name": "b" }] });
    let first = sim.register(spec).await;
    let change = json!({ "display_name": "Mine", "tags": ["t"] });
    sim.put("/v1/workflows/job", change).await;
    let spec = json!({
        "name": "job", "deployments": [{ "name": "b" }, { "name": "c" }],
        "input_schema": { "type": "object", "title": "new" }, "behaviour": { "outcome": "fail" },
    });
    let second = sim.register(spec).await;
    assert_eq!(first["id"], second["id"]);
    assert_eq!(first["registrations"][1]["id"], second["registrations"][0]["id"]);
    let workflow = sim.ok("GET", "/v1/workflows/job", None).await["workflow"].clone();
    assert_eq!((&workflow["display_name"], &workflow["tags"]), (&json!("Mine"), &json!(["t"])));
    let list = sim.ok("GET", "/v1/workflows/registrations", None).await;
    let rows = list["workflow_registrations"].as_array().unwrap();
    assert_eq!(pluck(rows, "deployment_name"), ["b", "c"]);
    assert_eq!(rows[0]["definition"]["input_schema"]["title"], "new");
    sim.execute(json!({ "execution_id": "e", "deployment_name": "b" })).await;
    assert_eq!(sim.status_of("e").await, "FAILED");
}

#[tokio::test]
async fn an_edit_changes_what_it_mentions_and_nothing_else() {
    let sim = Sim::start().await;
    let spec = json!({ "name": "job", "tags": ["t"], "behaviour": { "outcome": "fail" } });
    sim.register(spec).await;
    let edit = json!({
        "display_name": "Other", "archived": true,
        "deployments": [{ "name": "job-deployment", "active": false }],
    });
    sim.ok("PATCH", "/__sim/workflows/job", Some(edit)).await;
    let workflow = sim.ok("GET", "/v1/workflows/job", None).await["workflow"].clone();
    assert_eq!(workflow["display_name"], "Other");
    assert_eq!(workflow["archived"], json!(true));
    assert_eq!(workflow["active"], json!(false));
    assert_eq!(workflow["tags"], json!(["t"]));
    let active = json!({ "deployments": [{ "name": "job-deployment" }] });
    sim.ok("PATCH", "/__sim/workflows/job", Some(active)).await;
    sim.run("e").await;
    assert_eq!(sim.status_of("e").await, "FAILED");
    let unknown = sim.call("PATCH", "/__sim/workflows/none", Some(json!({}))).await;
    assert_eq!(unknown.0, 404);
}

#[tokio::test]
async fn a_removed_workflow_is_gone_but_its_executions_are_not() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    sim.ok("DELETE", "/__sim/workflows/job", None).await;
    assert_eq!(sim.get("/v1/workflows/job").await.0, 404);
    assert_eq!(sim.status_of("e").await, "COMPLETED");
    assert_eq!(sim.runs("").await.len(), 1);
}

#[tokio::test]
async fn workspaces_see_their_own_workflows_only() {
    let mut sim = Sim::with_job(json!({})).await;
    sim.put("/__sim/tokens/other", json!({ "workspace": "second" })).await;
    sim.post("/__sim/workflows?workspace=second", json!({ "name": "its" })).await;
    let mine = sim.ok("GET", "/v1/workflows/workers/whoami", None).await;
    sim.token = "other".to_owned();
    let its = sim.ok("GET", "/v1/workflows/workers/whoami", None).await;
    assert_ne!(mine["namespace"], its["namespace"]);
    let list = sim.ok("GET", "/v1/workflows", None).await;
    assert_eq!(pluck(list["workflows"].as_array().unwrap(), "name"), ["its"]);
    sim.token = "anybody".to_owned();
    assert_eq!(sim.get("/v1/workflows/job").await.0, 200, "not listed: the default one");
}

#[tokio::test]
async fn switches_are_read_back_and_absent_ones_are_at_their_defaults() {
    let sim = Sim::start().await;
    let defaults = sim.ok("GET", "/__sim/switches", None).await;
    sim.switches(json!({ "cancel_finished": 204 })).await;
    let mut expected = defaults.clone();
    expected["cancel_finished"] = json!(204);
    assert_eq!(sim.ok("GET", "/__sim/switches", None).await, expected);
    sim.switches(json!({})).await;
    assert_eq!(sim.ok("GET", "/__sim/switches", None).await, defaults);
}

#[tokio::test]
async fn mistakes_in_controls_are_refused_and_explained() {
    let sim = Sim::start().await;
    for (method, path, body) in [
        ("PUT", "/__sim/switches", json!({ "no_such_switch": 1 })),
        ("PUT", "/__sim/faults", json!({ "faults": [{ "kind": { "explode": 1 } }] })),
        ("POST", "/__sim/workflows", json!({ "name": "a b" })),
        ("POST", "/__sim/workflows", json!({ "name": "x".repeat(129) })),
        ("POST", "/__sim/workflows", json!({ "name": "a", "typo": 1 })),
        ("POST", "/__sim/workflows", json!({ "name": "a", "input_schema": { "type": 1 } })),
    ] {
        let (status, answer) = sim.call(method, path, Some(body)).await;
        assert_eq!(status, 400, "{path}");
        assert!(answer["error"].is_string());
    }
    assert_eq!(sim.get("/__sim/nothing").await.0, 404);
}
