//! Deployments and the workers that make them active.

use serde_json::{Value, json};

use crate::support::{Sim, keys, pluck, problem, sleep_ms};

/// Deployments `a` and `b` are active, `c` is not. `b` serves both workflows, but is not alive for `other`.
async fn with_deployments() -> Sim {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "deployments": [{ "name": "a" }, { "name": "b" }] })).await;
    sleep_ms(2).await;
    let deployments = json!([{ "name": "b", "active": false }, { "name": "c", "active": false }]);
    sim.register(json!({ "name": "other", "deployments": deployments })).await;
    sim
}

async fn listed(sim: &Sim, query: &str) -> Vec<String> {
    let body = sim.ok("GET", &format!("/v1/workflows/deployments?{query}"), None).await;
    pluck(body["deployments"].as_array().unwrap(), "name")
}

async fn active(sim: &Sim, path: &str) -> Value {
    sim.ok("GET", path, None).await["is_active"].clone()
}

#[tokio::test]
async fn a_deployment_has_the_fields_of_the_document_and_those_of_newer_clients() {
    let sim = with_deployments().await;
    let body = sim.ok("GET", "/v1/workflows/deployments", None).await;
    assert_eq!(keys(&body), ["deployments", "next_cursor", "workspace_id"]);
    let workflow = sim.ok("GET", "/v1/workflows/job", None).await;
    assert_eq!(body["workspace_id"], workflow["workflow"]["workspace_id"]);
    let row = &body["deployments"][0];
    let fields = [
        "active_worker_count",
        "created_at",
        "id",
        "is_active",
        "is_hardened",
        "last_heartbeat",
        "location",
        "locations",
        "managed",
        "name",
        "owner",
        "updated_at",
        "worker_count",
    ];
    assert_eq!(keys(row), fields);
    let detail = sim.ok("GET", "/v1/workflows/deployments/a", None).await;
    let worker = &detail["workers"][0];
    let fields = ["created_at", "is_active", "last_heartbeat", "location", "name", "updated_at"];
    assert_eq!(keys(worker), fields);
    let workers = sim.ok("GET", "/v1/workflows/deployments/a/workers", None).await;
    assert_eq!(workers, json!({ "workers": [worker], "next_cursor": null }));
}

#[tokio::test]
async fn deployments_are_filtered_by_each_documented_parameter() {
    let sim = with_deployments().await;
    let body = sim.ok("GET", "/v1/workflows/deployments/b", None).await;
    let id = body["id"].as_str().unwrap();
    for (query, expected) in [
        ("", vec!["b", "a"]),
        ("active_only=true", vec!["b", "a"]),
        ("active_only=false", vec!["b", "a", "c"]),
        ("active_only=false&order=asc", vec!["a", "b", "c"]),
        ("active_only=false&order_by=created_at", vec!["c", "b", "a"]),
        ("active_only=false&order_by=updated_at&order=asc", vec!["a", "b", "c"]),
        ("workflow_name=job", vec!["b", "a"]),
        ("workflow_name=other", vec![]),
        ("workflow_name=other&active_only=false", vec!["c", "b"]),
        ("workflow_name=none&active_only=false", vec![]),
        ("search=A", vec!["a"]),
        ("is_hardened=true", vec![]),
        ("is_hardened=false&limit=1", vec!["b"]),
        (&format!("search={id}"), vec!["b"]),
    ] {
        assert_eq!(listed(&sim, query).await, expected, "{query}");
    }
}

#[tokio::test]
async fn deployments_come_in_pages() {
    let sim = with_deployments().await;
    let mut names = Vec::new();
    let mut cursor = String::new();
    loop {
        let path = format!("/v1/workflows/deployments?active_only=false&limit=2{cursor}");
        let body = sim.ok("GET", &path, None).await;
        names.extend(pluck(body["deployments"].as_array().unwrap(), "name"));
        match body["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => break,
        }
    }
    assert_eq!(names, ["b", "a", "c"]);
}

#[tokio::test]
async fn wrong_values_of_deployment_filters_are_refused() {
    let sim = with_deployments().await;
    for (query, name) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("order_by=name", "order_by"),
        ("active_only=perhaps", "active_only"),
        ("workspace_id=mine", "workspace_id"),
        ("cursor=zz", "cursor"),
    ] {
        let refused = sim.get(&format!("/v1/workflows/deployments?{query}")).await;
        assert_eq!(problem(&refused).0, json!(["query", name]));
    }
    let foreign = "workspace_id=019b2bd7-96e7-7219-8c0b-45a73da50088";
    assert_eq!(sim.get(&format!("/v1/workflows/deployments?{foreign}")).await.0, 403);
    let refused = sim.get("/v1/workflows/deployments/a/workers?worker_status=tired").await;
    assert_eq!(problem(&refused).0, json!(["query", "worker_status"]));
}

#[tokio::test]
async fn an_unknown_deployment_is_404() {
    let sim = with_deployments().await;
    for path in ["/v1/workflows/deployments/none", "/v1/workflows/deployments/none/workers"] {
        let (status, body) = sim.get(path).await;
        assert_eq!((status, &body["code"]), (404, &json!("WF_1100")));
    }
}

#[tokio::test]
async fn a_deployments_activity_can_be_asked_for_one_workflow() {
    let sim = with_deployments().await;
    assert_eq!(active(&sim, "/v1/workflows/deployments/b").await, true);
    assert_eq!(active(&sim, "/v1/workflows/deployments/b?workflow_name=job").await, true);
    assert_eq!(active(&sim, "/v1/workflows/deployments/b?workflow_name=other").await, false);
}

#[tokio::test]
async fn workers_that_fall_silent_make_their_workflow_and_deployment_inactive_until_they_are_back() {
    let sim = Sim::start().await;
    sim.register(json!({ "name": "job", "deployments": [{ "name": "d" }] })).await;
    let heard = sim.ok("GET", "/v1/workflows/deployments/d", None).await["last_heartbeat"].clone();
    for alive in [false, true] {
        sleep_ms(2).await;
        let deployments = json!({ "deployments": [{ "name": "d", "active": alive }] });
        sim.ok("PATCH", "/__sim/workflows/job", Some(deployments)).await;
        let workflow = sim.ok("GET", "/v1/workflows/job", None).await;
        assert_eq!(workflow["workflow"]["active"], alive);
        let deployment = sim.ok("GET", "/v1/workflows/deployments/d", None).await;
        assert_eq!(deployment["is_active"], alive);
        assert_eq!(deployment["active_worker_count"], u8::from(alive));
        assert_eq!(deployment["workers"][0]["is_active"], alive);
        assert_eq!(deployment["last_heartbeat"] == heard, !alive);
        assert_eq!(listed(&sim, "").await.len(), usize::from(alive));
    }
}

#[tokio::test]
async fn a_deployment_outlives_its_workflows_but_is_not_active() {
    let sim = with_deployments().await;
    sim.ok("DELETE", "/__sim/workflows/job", None).await;
    assert!(listed(&sim, "").await.is_empty());
    assert_eq!(active(&sim, "/v1/workflows/deployments/a").await, false);
}
