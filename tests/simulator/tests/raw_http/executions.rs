//! Executing workflows, and what the answers look like.

use serde_json::{Value, json};

use crate::support::{EXECUTE, Sim, keys, problem};

const FIELDS: [&str; 14] = [
    "deployment_name",
    "end_time",
    "execution_id",
    "parent_execution_id",
    "result",
    "root_execution_id",
    "run_id",
    "search_keys",
    "start_time",
    "status",
    "total_duration_ms",
    "user_id",
    "workflow_id",
    "workflow_name",
];

#[tokio::test]
async fn the_answer_to_execute_is_running_and_knows_nothing_of_its_worker() {
    let sim = Sim::with_job(json!({})).await;
    let (status, body) = sim.execute(json!({ "execution_id": "e", "input": { "a": 1 } })).await;
    assert_eq!(status, 200);
    assert_eq!(keys(&body), FIELDS);
    assert_eq!(body["workflow_name"], "job");
    assert_eq!(body["execution_id"], "e");
    assert_eq!(body["root_execution_id"], "e");
    assert_eq!(body["status"], "RUNNING");
    let time = body["start_time"].as_str().unwrap();
    assert!(time.len() == 27 && time.ends_with('Z'), "{time}");
    for unknown in [
        "workflow_id",
        "deployment_name",
        "run_id",
        "user_id",
        "parent_execution_id",
        "end_time",
        "total_duration_ms",
        "result",
        "search_keys",
    ] {
        assert!(body[unknown].is_null(), "{unknown}");
    }
}

#[tokio::test]
async fn a_finished_execution_has_its_worker_result_end_and_duration_but_no_run_id() {
    let sim = Sim::with_job(json!({ "duration_ms": 30 })).await;
    let input = json!({ "a": [1, { "b": null }] });
    sim.execute(json!({ "execution_id": "e", "input": input })).await;
    crate::support::sleep_ms(60).await;
    let body = sim.execution("e").await;
    assert_eq!(keys(&body), FIELDS);
    assert_eq!(body["status"], "COMPLETED");
    assert_eq!(body["result"], input, "a run echoes its input");
    assert_eq!(body["total_duration_ms"], 30, "ends when it was due");
    assert!(body["end_time"].is_string());
    assert!(body["workflow_id"].is_string() && body["user_id"].is_string());
    assert_eq!(body["deployment_name"], "job-deployment");
    assert!(body["run_id"].is_null());
}

#[tokio::test]
async fn an_empty_object_is_a_valid_body_and_gets_an_id_of_64_hex_digits() {
    let sim = Sim::with_job(json!({})).await;
    let (status, body) = sim.execute(json!({})).await;
    assert_eq!(status, 200);
    let id = body["execution_id"].as_str().unwrap();
    assert!(id.len() == 64 && id.chars().all(|c| c.is_ascii_hexdigit()));
    assert!(sim.execution(id).await["result"].is_null());
}

#[tokio::test]
async fn a_body_is_required() {
    let sim = Sim::with_job(json!({})).await;
    let refused = sim.call("POST", "/v1/workflows/job/execute", None).await;
    assert_eq!(problem(&refused), (json!(["body"]), "missing".to_owned()));
}

#[tokio::test]
async fn the_fields_of_an_execute_body_have_types() {
    let sim = Sim::with_job(json!({})).await;
    for (field, value, kind) in [
        ("input", json!([1]), "dict_type"),
        ("input", json!("text"), "dict_type"),
        ("wait_for_result", json!("x"), "bool_type"),
        ("wait_for_result", Value::Null, "bool_type"),
        ("timeout_seconds", json!("x"), "float_type"),
        ("deployment_name", json!(1), "string_type"),
        ("extensions", json!([]), "dict_type"),
        ("force_new_trace", json!(3), "bool_type"),
        ("execution_id", json!(3), "string_type"),
    ] {
        let refused = sim.execute(json!({ field: value })).await;
        assert_eq!(problem(&refused), (json!(["body", field]), kind.to_owned()));
    }
    let attributes = json!({ "custom_tracing_attributes": { "k": 1 } });
    let refused = sim.execute(attributes).await;
    let location = json!(["body", "custom_tracing_attributes", "k"]);
    assert_eq!(problem(&refused), (location, "string_type".to_owned()));
    assert_eq!(sim.calls("POST", EXECUTE).await, (10, 0), "none took effect");
}

#[tokio::test]
async fn nullable_fields_may_be_null_and_unknown_ones_are_ignored() {
    let sim = Sim::with_job(json!({})).await;
    let body = json!({
        "execution_id": null, "input": null, "timeout_seconds": null, "deployment_name": null,
        "custom_tracing_attributes": null, "extensions": null, "task_queue": null,
        "encoded_input": null, "traceparent": "malformed", "unknown": [],
    });
    assert_eq!(sim.execute(body).await.0, 200);
}

#[tokio::test]
async fn input_and_encoded_input_exclude_each_other() {
    let sim = Sim::with_job(json!({})).await;
    let encoded = json!({ "b64payload": "eA==", "encoding_options": [], "empty": false });
    let both = json!({ "input": {}, "encoded_input": encoded });
    let refused = sim.execute(both).await;
    assert_eq!(problem(&refused).0, json!(["body", "encoded_input"]));
    let one = json!({ "input": null, "encoded_input": encoded });
    assert_eq!(sim.execute(one).await.0, 200);
}

#[tokio::test]
async fn an_input_against_the_schema_is_refused_with_a_string_and_no_code() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "input_schema": {
        "additionalProperties": false, "properties": { "name": { "type": "string" } },
        "required": ["name"], "type": "object",
    } }))
    .await;
    for (input, reason) in [
        (json!({ "name": "n", "x": 1 }), "Additional properties are not allowed ('x' was unexpected)"),
        (json!({}), "\"name\" is a required property"),
        (Value::Null, "\"name\" is a required property"),
    ] {
        let (status, body) = sim.execute(json!({ "input": input })).await;
        assert_eq!(status, 422);
        assert_eq!(body, json!({ "detail": format!("Invalid input: {reason}") }));
    }
    assert_eq!(sim.execute(json!({ "input": { "name": "n" } })).await.0, 200);
}

#[tokio::test]
async fn what_a_client_sends_along_is_kept() {
    let sim = Sim::with_job(json!({})).await;
    let body = json!({
        "execution_id": "e", "extensions": { "x": 1 }, "custom_tracing_attributes": { "k": "v" },
    });
    sim.execute(body).await;
    let booked = sim.booked("e").await.unwrap();
    assert_eq!(booked["extensions"], json!({ "x": 1 }));
    assert_eq!(booked["custom_tracing_attributes"], json!({ "k": "v" }));
}

async fn with_deployments(deployments: Value) -> Sim {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "deployments": deployments })).await;
    sim
}

#[tokio::test]
async fn two_active_deployments_make_a_workflow_ambiguous_until_one_is_named() {
    let deployments = json!([
        { "name": "bob" }, { "name": "alice" }, { "name": "carol", "active": false }
    ]);
    let sim = with_deployments(deployments).await;
    let (status, body) = sim.execute(json!({})).await;
    assert_eq!(status, 409);
    let expected = json!({ "code": "AMBIGUOUS_WORKFLOW", "deployments": ["alice", "bob"] });
    assert_eq!(body, expected, "inactive ones do not count");
    for field in ["deployment_name", "task_queue"] {
        let body = json!({ "execution_id": field, field: "bob" });
        assert_eq!(sim.execute(body).await.0, 200);
        assert_eq!(sim.execution(field).await["deployment_name"], "bob");
    }
}

#[tokio::test]
async fn a_deployment_that_does_not_serve_the_workflow_is_not_found() {
    let sim = Sim::with_job(json!({})).await;
    let (status, body) = sim.execute(json!({ "deployment_name": "nobody" })).await;
    assert_eq!(status, 404);
    assert_eq!(body["detail"], "Deployment not found");
}

#[tokio::test]
async fn a_registration_is_executed_on_its_own_deployment() {
    let sim = Sim::start().await;
    let spec = json!({ "name": "job", "deployments": [{ "name": "a" }, { "name": "b" }] });
    let registered = sim.register(spec).await;
    let id = registered["registrations"][1]["id"].clone();
    let path = format!("/v1/workflows/registrations/{}/execute", id.as_str().unwrap());
    let (status, body) = sim.post(&path, json!({ "execution_id": "e" })).await;
    assert_eq!((status, keys(&body)), (200, FIELDS.map(str::to_owned).to_vec()));
    assert_eq!(sim.execution("e").await["deployment_name"], "b");
    assert_eq!(sim.booked("e").await.unwrap()["registration_id"], id);

    let refused = sim.post("/v1/workflows/registrations/job/execute", json!({})).await;
    assert_eq!(problem(&refused).1, "uuid_parsing");
    let unknown = "/v1/workflows/registrations/019b2bd7-96e7-7219-8c0b-45a73da50088/execute";
    assert_eq!(sim.post(unknown, json!({})).await.0, 404);
}

#[tokio::test]
async fn an_archived_workflow_can_be_executed_unless_the_switch_says_otherwise() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "archived": true })).await;
    assert_eq!(sim.execute(json!({})).await.0, 200);
    sim.switches(json!({ "execute_archived": "reject" })).await;
    assert_eq!(sim.execute(json!({})).await.0, 409);
}

#[tokio::test]
async fn a_workflow_is_executed_by_id_too() {
    let sim = Sim::with_job(json!({})).await;
    let body = sim.ok("GET", "/v1/workflows/job", None).await;
    let id = body["workflow"]["id"].as_str().unwrap();
    let path = format!("/v1/workflows/{id}/execute");
    let (status, body) = sim.post(&path, json!({})).await;
    assert_eq!((status, &body["workflow_name"]), (200, &json!("job")));
}
