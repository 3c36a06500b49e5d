//! The eleven endpoints of Mistral's API reference page.

use serde_json::{Value, json};

use crate::support::{Sim, keys, pluck, problem};

async fn with_workflows() -> Sim {
    let sim = Sim::start().await;
    for spec in [
        json!({ "name": "plain" }),
        json!({ "name": "chatty", "available_in_chat_assistant": true, "tags": ["a", "b"] }),
        json!({ "name": "old", "archived": true, "tags": ["a"], "description": "Bills" }),
        json!({ "name": "idle", "deployments": [{ "name": "sleeper", "active": false }] }),
        json!({ "name": "shared", "shared_namespace": "others", "display_name": "Zebra" }),
    ] {
        sim.register(spec).await;
    }
    sim
}

async fn listed(sim: &Sim, query: &str) -> Vec<String> {
    let body = sim.ok("GET", &format!("/v1/workflows?{query}"), None).await;
    let mut names = pluck(body["workflows"].as_array().unwrap(), "name");
    names.sort();
    names
}

async fn workflow(sim: &Sim, name: &str) -> Value {
    let path = format!("/v1/workflows/{name}");
    sim.ok("GET", &path, None).await["workflow"].clone()
}

#[tokio::test]
async fn the_list_has_basic_definitions_and_a_null_cursor_at_its_end() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "tags": ["x"] })).await;
    let (status, body) = sim.get("/v1/workflows").await;
    assert_eq!(status, 200);
    assert_eq!(keys(&body), ["next_cursor", "workflows"]);
    assert!(body["next_cursor"].is_null());
    let row = &body["workflows"][0];
    assert_eq!(
        keys(row),
        ["archived", "description", "display_name", "id", "metadata", "name", "tags"],
        "`active` is not here"
    );
    assert_eq!(row["archived"], json!(false));
    assert_eq!(row["metadata"], json!({ "shared_namespace": null }));
}

#[tokio::test]
async fn the_list_is_filtered_by_each_documented_parameter() {
    let sim = with_workflows().await;
    let all = ["chatty", "idle", "old", "plain", "shared"];
    for (query, expected) in [
        ("", &all[..]),
        ("archived=true", &["old"]),
        ("archived=false", &["chatty", "idle", "plain", "shared"]),
        ("available_in_chat_assistant=true", &["chatty"]),
        ("available_in_chat_assistant=false", &["idle", "old", "plain", "shared"]),
        ("deployment_status=inactive", &["idle"]),
        ("deployment_status=active", &["chatty", "old", "plain", "shared"]),
        ("active_only=true", &["chatty", "old", "plain", "shared"]),
        ("deployment_name=sleeper&deployment_name=old-deployment", &["idle", "old"]),
        ("tags=a", &["chatty", "old"]),
        ("tags=a&tags=b", &["chatty"]),
        ("include_shared=false", &["chatty", "idle", "old", "plain"]),
        ("search=BILL", &["old"]),
        ("search=zebra", &["shared"]),
        ("status=RUNNING&status=FAILED", &all),
    ] {
        assert_eq!(listed(&sim, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn wrong_values_of_list_parameters_are_refused() {
    let sim = Sim::start().await;
    for (query, kind) in [
        ("archived=maybe", "bool_parsing"),
        ("order=up", "literal_error"),
        ("sort_by=name", "literal_error"),
        ("deployment_status=gone", "literal_error"),
        ("status=DONE", "literal_error"),
    ] {
        let refused = sim.get(&format!("/v1/workflows?{query}")).await;
        let name = query.split('=').next().unwrap();
        assert_eq!(problem(&refused), (json!(["query", name]), kind.to_owned()));
    }
}

#[tokio::test]
async fn a_workflow_is_found_by_name_and_by_id_with_its_worker_status() {
    let sim = Sim::with_job(json!({})).await;
    let by_name = workflow(&sim, "job").await;
    let id = by_name["id"].as_str().unwrap();
    assert_eq!(workflow(&sim, id).await, by_name);
    let mut expected = by_name.clone();
    for (key, value) in [
        ("name", json!("job")),
        ("display_name", json!("job")),
        ("type", json!("code")),
        ("description", json!("")),
        ("shared_namespace", Value::Null),
        ("available_in_chat_assistant", json!(false)),
        ("is_technical", json!(false)),
        ("archived", json!(false)),
        ("tags", json!([])),
        ("active", json!(true)),
    ] {
        expected[key] = value;
    }
    assert_eq!(by_name, expected);
    assert_eq!(keys(&by_name).len(), 13, "and customer_id, workspace_id, id");
}

#[tokio::test]
async fn a_workflow_without_a_live_worker_is_not_active() {
    let sim = with_workflows().await;
    assert_eq!(workflow(&sim, "idle").await["active"], json!(false));
}

#[tokio::test]
async fn a_workflow_named_like_a_route_is_reached_by_its_id_only() {
    let sim = Sim::start().await;
    for name in ["registrations", "archive", "runs", "executions", "workers"] {
        let registered = sim.register(json!({ "name": name })).await;
        let id = registered["id"].as_str().unwrap();
        assert_eq!(workflow(&sim, id).await["name"], name);
    }
    let list = sim.ok("GET", "/v1/workflows/registrations", None).await;
    assert!(list["workflow_registrations"].is_array());
    assert!(sim.ok("GET", "/v1/workflows/runs", None).await["executions"].is_array());
    assert_eq!(sim.get("/v1/workflows/executions").await.0, 404);
    let refused = sim.put("/v1/workflows/archive", json!({ "tags": [] })).await;
    assert_eq!(problem(&refused).0, json!(["body", "workflow_ids"]));
}

#[tokio::test]
async fn an_update_answers_with_the_workflow_but_not_its_worker_status() {
    let sim = Sim::with_job(json!({})).await;
    let change = json!({
        "display_name": "Job", "description": "Does it", "available_in_chat_assistant": true,
        "tags": [" a ", "b", "a", "b "], "unknown": 1,
    });
    let (status, body) = sim.put("/v1/workflows/job", change).await;
    assert_eq!(status, 200);
    let updated = &body["workflow"];
    assert!(updated.get("active").is_none());
    assert_eq!(updated["display_name"], "Job");
    assert_eq!(updated["description"], "Does it");
    assert_eq!(updated["available_in_chat_assistant"], json!(true));
    assert_eq!(updated["tags"], json!(["a", "b"]), "trimmed, deduplicated in order");
    assert_eq!(updated["name"], "job");
}

#[tokio::test]
async fn an_update_leaves_absent_and_null_fields_untouched() {
    let sim = Sim::start().await;
    let spec = json!({ "name": "job", "display_name": "Job", "description": "d", "tags": ["t"] });
    sim.register(spec).await;
    let before = workflow(&sim, "job").await;
    let nulls = json!({
        "display_name": null, "description": null, "available_in_chat_assistant": null, "tags": null,
    });
    for body in [json!({}), nulls.clone()] {
        assert_eq!(sim.put("/v1/workflows/job", body).await.0, 200);
        assert_eq!(workflow(&sim, "job").await, before);
    }
    sim.switches(json!({ "put_null": "clear" })).await;
    assert_eq!(sim.put("/v1/workflows/job", nulls).await.0, 200);
    let cleared = workflow(&sim, "job").await;
    assert_eq!(cleared["display_name"], "job");
    assert_eq!(cleared["description"], "");
    assert_eq!(cleared["tags"], json!([]));
}

#[tokio::test]
async fn empty_values_clear_the_description_and_the_tags() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "description": "d", "tags": ["t"] })).await;
    let body = json!({ "description": "", "tags": [] });
    let (_, body) = sim.put("/v1/workflows/job", body).await;
    assert_eq!(body["workflow"]["description"], "");
    assert_eq!(body["workflow"]["tags"], json!([]));
}

#[tokio::test]
async fn an_update_cannot_rename_or_archive() {
    let sim = Sim::with_job(json!({})).await;
    let before = workflow(&sim, "job").await;
    let body = json!({ "name": "other", "archived": true, "is_technical": true, "type": "x" });
    assert_eq!(sim.put("/v1/workflows/job", body).await.0, 200);
    assert_eq!(workflow(&sim, "job").await, before);
}

#[tokio::test]
async fn an_update_with_values_of_the_wrong_type_is_refused_as_a_whole() {
    let sim = Sim::with_job(json!({})).await;
    let before = workflow(&sim, "job").await;
    for (field, value, kind) in [
        ("display_name", json!(1), "string_type"),
        ("description", json!([]), "string_type"),
        ("available_in_chat_assistant", json!("x"), "bool_type"),
        ("tags", json!("a"), "list_type"),
    ] {
        let mut body = json!({ "display_name": "new", "description": "new" });
        body[field] = value;
        let refused = sim.put("/v1/workflows/job", body).await;
        assert_eq!(problem(&refused), (json!(["body", field]), kind.to_owned()));
    }
    assert_eq!(workflow(&sim, "job").await, before);
}

#[tokio::test]
async fn tags_can_be_added_to_those_that_are_there() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "tags": ["a"] })).await;
    let body = json!({ "tags": ["b", "a", " c"] });
    let (status, body) = sim.post("/v1/workflows/job/tags", body).await;
    assert_eq!((status, body), (204, json!("")));
    assert_eq!(workflow(&sim, "job").await["tags"], json!(["a", "b", "c"]));
}

#[tokio::test]
async fn archive_and_unarchive_answer_with_the_workflow_and_can_be_repeated() {
    let sim = Sim::with_job(json!({})).await;
    for (verb, archived) in [("archive", true), ("unarchive", false)] {
        for _ in 0..2 {
            let path = format!("/v1/workflows/job/{verb}");
            let (status, body) = sim.call("PUT", &path, None).await;
            assert_eq!(status, 200);
            assert_eq!(body["workflow"]["archived"], json!(archived));
            assert!(body["workflow"].get("active").is_none());
        }
        assert_eq!(workflow(&sim, "job").await["archived"], json!(archived));
        let route = format!("/v1/workflows/{{workflow_identifier}}/{verb}");
        assert_eq!(sim.calls("PUT", &route).await, (2, 1), "one of two changed something");
    }
}

#[tokio::test]
async fn bulk_archive_lists_successes_and_errors_apart_and_is_200() {
    let sim = Sim::start().await;
    let mut ids = Vec::new();
    for name in ["a", "b"] {
        ids.push(sim.register(json!({ "name": name })).await["id"].clone());
    }
    let unknown = json!("019b2bd7-96e7-7219-8c0b-45a73da50088");
    sim.ok("PUT", "/v1/workflows/a/archive", None).await;
    ids.push(unknown.clone());
    for (verb, key) in [("archive", "archived"), ("unarchive", "unarchived")] {
        let path = format!("/v1/workflows/{verb}");
        let (status, body) = sim.put(&path, json!({ "workflow_ids": ids })).await;
        assert_eq!(status, 200);
        assert_eq!(pluck(body[key].as_array().unwrap(), "name"), ["a", "b"]);
        let error = &body["errored"][0];
        assert_eq!(error["workflow_id"], unknown);
        assert!(error["workflow"].is_null() && error["message"].is_string());
        assert_eq!(keys(&body).len(), 2);
    }
}

#[tokio::test]
async fn registrations_are_listed_with_their_definition_and_the_deprecated_twin() {
    let sim = with_workflows().await;
    let list = sim.ok("GET", "/v1/workflows/registrations", None).await;
    assert_eq!(list["workflow_registrations"], list["workflow_versions"]);
    let row = &list["workflow_registrations"][0];
    assert_eq!(
        keys(row),
        [
            "compatible_with_chat_assistant",
            "definition",
            "deployment_id",
            "deployment_name",
            "id",
            "task_queue",
            "workflow",
            "workflow_id"
        ],
        "`active` is not here"
    );
    assert!(row["workflow"].is_null());
    assert_eq!(
        keys(&row["definition"]),
        [
            "enforce_determinism",
            "execution_timeout",
            "input_schema",
            "on_behalf_of",
            "output_schema",
            "plugin_metadata",
            "queries",
            "signals",
            "updates"
        ]
    );
    assert_eq!(row["deployment_name"], "plain-deployment");
}

#[tokio::test]
async fn registrations_are_filtered_by_each_documented_parameter() {
    let sim = with_workflows().await;
    let chatty = workflow(&sim, "chatty").await["id"].clone();
    let by_id = format!("workflow_id={}", chatty.as_str().unwrap());
    for (query, expected) in [
        ("", 5),
        (by_id.as_str(), 1),
        ("workflow_name=plain", 1),
        ("workflow_name=plai", 0),
        ("workflow_search=PLAI", 1),
        ("task_queue=sleeper", 1),
        ("active_only=true", 4),
        ("include_shared=false", 4),
        ("archived=true", 1),
        ("archived=false", 4),
        ("available_in_chat_assistant=true", 1),
    ] {
        let path = format!("/v1/workflows/registrations?{query}");
        let list = sim.ok("GET", &path, None).await;
        let rows = list["workflow_registrations"].as_array().unwrap();
        assert_eq!(rows.len(), expected, "{query}");
    }
    let refused = sim.get("/v1/workflows/registrations?workflow_id=plain").await;
    assert_eq!(problem(&refused).1, "uuid_parsing");
}

#[tokio::test]
async fn a_registration_is_found_by_uuid_only_and_shows_its_workflow_on_request() {
    let sim = Sim::start().await;
    let spec = json!({
        "name": "job", "deployments": [{ "name": "a" }, { "name": "b", "active": false }],
    });
    let registered = sim.register(spec).await;
    for (index, active) in [(0, true), (1, false)] {
        let id = registered["registrations"][index]["id"].as_str().unwrap();
        let path = format!("/v1/workflows/registrations/{id}");
        let body = sim.ok("GET", &path, None).await;
        assert_eq!(body["workflow_registration"], body["workflow_version"]);
        let registration = &body["workflow_registration"];
        assert_eq!(registration["active"], json!(active));
        assert!(registration["workflow"].is_null());
        let path = format!("{path}?with_workflow=true");
        let body = sim.ok("GET", &path, None).await;
        assert_eq!(body["workflow_registration"]["workflow"]["name"], "job");
    }
    let refused = sim.get("/v1/workflows/registrations/job").await;
    let location = json!(["path", "workflow_registration_id"]);
    assert_eq!(problem(&refused), (location, "uuid_parsing".to_owned()));
}

#[tokio::test]
async fn whoami_tells_the_customer_and_the_workspace() {
    let sim = Sim::with_job(json!({})).await;
    let me = sim.ok("GET", "/v1/workflows/workers/whoami", None).await;
    assert_eq!(keys(&me), ["features", "namespace", "scheduler_url", "tls"]);
    let workflow = workflow(&sim, "job").await;
    let ids = ["customer_id", "workspace_id"].map(|key| workflow[key].as_str().unwrap());
    assert_eq!(me["namespace"], ids.join(":"));
}
