//! The two styles of pagination.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{Sim, pluck, problem};

/// Follows `next` through a list; returns the number of rows on each page, and all rows.
async fn walk(sim: &Sim, path: &str, rows: &str, next: &str) -> (Vec<usize>, Vec<Value>) {
    let parameter = if next == "next_cursor" { "cursor" } else { next };
    let (mut sizes, mut all) = (Vec::new(), Vec::new());
    let mut page = path.to_owned();
    loop {
        let body = sim.ok("GET", &page, None).await;
        let part = body[rows].as_array().unwrap();
        sizes.push(part.len());
        all.extend(part.iter().cloned());
        match body[next].as_str() {
            Some(token) => page = format!("{path}&{parameter}={token}"),
            None => return (sizes, all),
        }
    }
}

async fn with_workflows(count: usize) -> Sim {
    let sim = Sim::start().await;
    for n in 0..count {
        sim.register(json!({ "name": format!("w{n:02}"), "display_name": format!("d{}", n % 7) })).await;
    }
    sim
}

#[tokio::test]
async fn lists_of_workflows_and_registrations_hold_50_rows_unless_asked_otherwise() {
    let sim = with_workflows(51).await;
    for (path, rows) in [("/v1/workflows", "workflows"), ("/v1/workflows/registrations", "workflow_registrations")] {
        let body = sim.ok("GET", path, None).await;
        assert_eq!(body[rows].as_array().unwrap().len(), 50);
        assert!(body["next_cursor"].is_string());
        let (sizes, all) = walk(&sim, &format!("{path}?limit=20"), rows, "next_cursor").await;
        assert_eq!(sizes, [20, 20, 11]);
        let ids: BTreeSet<String> = pluck(&all, "id").into_iter().collect();
        assert_eq!(ids.len(), 51);
        let body = sim.ok("GET", &format!("{path}?limit=51"), None).await;
        assert!(body["next_cursor"].is_null(), "a full last page is the last");
    }
}

#[tokio::test]
async fn an_empty_cursor_asks_for_the_first_page() {
    let sim = with_workflows(3).await;
    for path in ["/v1/workflows", "/v1/workflows/registrations", "/v1/workflows/deployments"] {
        let first = sim.ok("GET", &format!("{path}?limit=2"), None).await;
        assert_eq!(sim.ok("GET", &format!("{path}?limit=2&cursor="), None).await, first);
        assert!(first["next_cursor"].is_string());
    }
    let runs = sim.ok("GET", "/v1/workflows/runs?next_page_token=", None).await;
    assert_eq!(runs["executions"], json!([]));
}

#[tokio::test]
async fn workflows_are_sorted_by_display_name_over_pages() {
    let sim = with_workflows(20).await;
    for order in ["asc", "desc"] {
        let path = format!("/v1/workflows?limit=3&sort_by=display_name&order={order}");
        let (_, rows) = walk(&sim, &path, "workflows", "next_cursor").await;
        let mut names = pluck(&rows, "display_name");
        if order == "desc" {
            names.reverse();
        }
        assert!(names.is_sorted());
        assert_eq!(names.len(), 20);
    }
}

#[tokio::test]
async fn lists_of_runs_hold_50_rows_and_lists_of_events_100() {
    let sim = Sim::with_job(json!({})).await;
    for n in 0..51 {
        sim.run(&format!("e{n:02}")).await;
    }
    assert_eq!(sim.runs("").await.len(), 50);
    let events = sim.ok("GET", "/v1/workflows/events/list", None).await;
    assert_eq!(events["events"].as_array().unwrap().len(), 100);
    assert!(events["next_cursor"].is_string());

    let path = "/v1/workflows/runs?page_size=17";
    let (sizes, rows) = walk(&sim, path, "executions", "next_page_token").await;
    assert_eq!(sizes, [17, 17, 17]);
    let mut ids = pluck(&rows, "execution_id");
    ids.reverse();
    assert!(ids.is_sorted(), "newest first");

    let path = "/v1/workflows/events/list?limit=60";
    let (sizes, rows) = walk(&sim, path, "events", "next_cursor").await;
    assert_eq!(sizes, [60, 42]);
    let times: Vec<i64> = rows.iter().map(|row| row["event_timestamp"].as_i64().unwrap()).collect();
    assert!(times.is_sorted());
}

#[tokio::test]
async fn runs_that_start_between_two_pages_shift_nothing() {
    let sim = Sim::with_job(json!({})).await;
    for n in 0..4 {
        sim.run(&format!("e{n}")).await;
    }
    let first = sim.ok("GET", "/v1/workflows/runs?page_size=2", None).await;
    sim.run("late").await;
    let token = first["next_page_token"].as_str().unwrap();
    let second = sim.runs(&format!("page_size=2&next_page_token={token}")).await;
    assert_eq!(pluck(&second, "execution_id"), ["e1", "e0"]);
}

#[tokio::test]
async fn a_token_of_another_origin_is_refused() {
    let sim = Sim::with_job(json!({})).await;
    for path in [
        "/v1/workflows?cursor",
        "/v1/workflows/registrations?cursor",
        "/v1/workflows/runs?next_page_token",
        "/v1/workflows/events/list?cursor",
    ] {
        let refused = sim.get(&format!("{path}=nonsense")).await;
        let parameter = path.split('?').next_back().unwrap();
        assert_eq!(problem(&refused).0, json!(["query", parameter]));
    }
}

#[tokio::test]
async fn two_thousand_runs_are_two_pages() {
    let sim = Sim::with_job(json!({ "duration_ms": 60000 })).await;
    for n in 0..2000 {
        sim.run(&format!("e{n:04}")).await;
    }
    let path = "/v1/workflows/runs?page_size=1000&include_internal=false&status=RUNNING";
    let (sizes, rows) = walk(&sim, path, "executions", "next_page_token").await;
    assert_eq!(sizes, [1000, 1000]);
    let ids: BTreeSet<String> = pluck(&rows, "execution_id").into_iter().collect();
    assert_eq!(ids.len(), 2000);
}
