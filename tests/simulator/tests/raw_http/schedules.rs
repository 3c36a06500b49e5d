//! Schedules. The simulator has none.

use serde_json::json;

use crate::support::{Sim, problem};

#[tokio::test]
async fn the_list_of_schedules_is_empty() {
    let sim = Sim::start().await;
    for query in ["", "?workflow_name=job&user_id=current&status=active&search=j&page_size=1000"] {
        let body = sim.ok("GET", &format!("/v1/workflows/schedules{query}"), None).await;
        assert_eq!(body, json!({ "schedules": [], "next_page_token": null }));
    }
}

#[tokio::test]
async fn wrong_values_of_schedule_filters_are_refused() {
    let sim = Sim::start().await;
    for (query, name) in [("status=asleep", "status"), ("page_size=0", "page_size"), ("page_size=1001", "page_size")] {
        let refused = sim.get(&format!("/v1/workflows/schedules?{query}")).await;
        assert_eq!(problem(&refused).0, json!(["query", name]));
    }
}

#[tokio::test]
async fn an_unknown_schedule_is_404_with_a_code_of_its_own() {
    let sim = Sim::start().await;
    let (status, body) = sim.get("/v1/workflows/schedules/daily").await;
    assert_eq!(status, 404);
    assert_eq!(body, json!({ "detail": "Schedule not found", "code": "WF_1201" }));
}

#[tokio::test]
async fn schedules_cannot_be_created() {
    let sim = Sim::start().await;
    assert_eq!(sim.post("/v1/workflows/schedules", json!({})).await.0, 405);
}
