//! The shapes of errors.

use serde_json::json;

use crate::support::{Sim, client, problem, read};

#[tokio::test]
async fn without_a_token_every_route_is_401() {
    let sim = Sim::with_job(json!({})).await;
    for (method, path) in [
        ("GET", "/v1/workflows"),
        ("GET", "/v1/workflows/workers/whoami"),
        ("POST", "/v1/workflows/job/execute"),
        ("GET", "/v1/workflows/runs"),
        ("GET", "/v1/workflows/events/stream"),
        ("GET", "/v1/workflows/deployments"),
        ("GET", "/v1/workflows/schedules"),
        ("POST", "/v1/workflows/executions/terminate"),
    ] {
        for header in [None, Some(""), Some("Bearer "), Some("Basic dG9rZW4="), Some("token")] {
            let method = method.parse().unwrap();
            let mut request = client().request(method, sim.url(path)).body("{}");
            if let Some(header) = header {
                request = request.header("authorization", header);
            }
            let answer = read(request.send().await.unwrap()).await;
            assert_eq!(answer, (401, json!({ "detail": "Unauthorized" })), "{path} {header:?}");
        }
    }
}

#[tokio::test]
async fn an_unknown_workflow_is_404_with_the_code_of_the_switch() {
    let sim = Sim::start().await;
    let calls = [
        ("GET", "/v1/workflows/none", None),
        ("PUT", "/v1/workflows/none", Some(json!({}))),
        ("PUT", "/v1/workflows/none/archive", None),
        ("PUT", "/v1/workflows/none/unarchive", None),
        ("POST", "/v1/workflows/none/execute", Some(json!({}))),
        ("GET", "/v1/workflows/019b2bd7-96e7-7219-8c0b-45a73da50088", None),
    ];
    for (method, path, body) in calls.clone() {
        let answer = sim.call(method, path, body).await;
        let expected = json!({ "detail": "Workflow not found", "code": "WF_1100" });
        assert_eq!(answer, (404, expected), "{method} {path}");
    }
    sim.switches(json!({ "unknown_workflow_code": null })).await;
    for (method, path, body) in calls {
        let answer = sim.call(method, path, body).await;
        assert_eq!(answer, (404, json!({ "detail": "Workflow not found" })));
    }
}

#[tokio::test]
async fn an_unknown_registration_is_404() {
    let sim = Sim::start().await;
    let path = "/v1/workflows/registrations/019b2bd7-96e7-7219-8c0b-45a73da50088";
    let (status, body) = sim.get(path).await;
    assert_eq!((status, &body["code"]), (404, &json!("WF_1100")));
}

#[tokio::test]
async fn an_unknown_route_is_404_without_a_code() {
    let sim = Sim::start().await;
    for path in ["/v1/models", "/v1/workflows/a/b/c", "/v1/workflows/", "/"] {
        assert_eq!(sim.get(path).await, (404, json!({ "detail": "Not Found" })), "{path}");
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_and_tells_the_right_ones() {
    let sim = Sim::start().await;
    let response = sim.request("DELETE", "/v1/workflows/job").send().await.unwrap();
    assert_eq!(response.headers()["allow"], "GET, PUT");
    assert_eq!(read(response).await, (405, json!({ "detail": "Method Not Allowed" })));
    assert_eq!(sim.get("/v1/workflows/job/execute").await.0, 405);
}

#[tokio::test]
async fn a_body_that_is_no_json_object_is_422() {
    let sim = Sim::with_job(json!({})).await;
    let path = "/v1/workflows/job/execute";
    let send = async |body: &'static str, content_type: &str| {
        let request = sim.request("POST", path).body(body);
        let request = request.header("content-type", content_type);
        read(request.send().await.unwrap()).await
    };
    assert_eq!(problem(&send("{", "application/json").await).1, "json_invalid");
    let kind = "model_attributes_type";
    assert_eq!(problem(&send("[]", "application/json").await).1, kind);
    assert_eq!(problem(&send("null", "application/json").await).1, kind);
    assert_eq!(problem(&send("{}", "text/plain").await).1, kind);
    assert_eq!(send("{}", "application/json; charset=utf-8").await.0, 200);
}

#[tokio::test]
async fn all_problems_of_a_body_are_listed_with_place_message_and_input() {
    let sim = Sim::with_job(json!({})).await;
    let (status, body) = sim.execute(json!({ "execution_id": "a b", "input": 3 })).await;
    assert_eq!(status, 422);
    let expected = json!({ "detail": [
        {
            "loc": ["body", "execution_id"],
            "msg": "String should match pattern '^[a-zA-Z0-9_-]+$'",
            "type": "string_pattern_mismatch",
            "input": "a b",
            "ctx": { "pattern": "^[a-zA-Z0-9_-]+$" },
        },
        {
            "loc": ["body", "input"],
            "msg": "Input should be a valid dictionary",
            "type": "dict_type",
            "input": 3,
        },
    ] });
    assert_eq!(body, expected);
}

#[tokio::test]
async fn archived_can_be_a_string_as_in_the_reference_pages_examples() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "archived_as_string": true })).await;
    let list = sim.ok("GET", "/v1/workflows", None).await;
    assert_eq!(list["workflows"][0]["archived"], "false");
    let one = sim.ok("PUT", "/v1/workflows/job/archive", None).await;
    assert_eq!(one["workflow"]["archived"], "true");
}
