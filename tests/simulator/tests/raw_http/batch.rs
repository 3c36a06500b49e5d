//! Cancel and terminate of several executions at once.

use serde_json::{Value, json};

use crate::support::{Sim, problem};

const CANCEL: &str = "/v1/workflows/executions/cancel";
const TERMINATE: &str = "/v1/workflows/executions/terminate";

async fn batch(sim: &Sim, path: &str, ids: &[&str]) -> Value {
    let body = json!({ "execution_ids": ids });
    sim.ok("POST", path, Some(body)).await["results"].clone()
}

fn failure(error: &str) -> Value {
    json!({ "status": "failure", "error": error })
}

/// A running execution `r` and a finished one, `f`.
async fn with_executions() -> Sim {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("r").await;
    sim.run("f").await;
    sim.finish("f", json!({ "outcome": "complete" })).await;
    sim
}

#[tokio::test]
async fn a_batch_cancel_reports_each_id_by_itself() {
    let sim = with_executions().await;
    let results = batch(&sim, CANCEL, &["r", "f", "none"]).await;
    let expected = json!({
        "r": { "status": "success", "error": null },
        "f": failure("Workflow not running"),
        "none": failure("Workflow execution not found"),
    });
    assert_eq!(results, expected);
    assert_eq!(sim.status_of("r").await, "CANCELED");
    assert_eq!(sim.calls("POST", CANCEL).await, (1, 1));
}

#[tokio::test]
async fn a_batch_terminate_reports_each_id_by_itself() {
    let sim = with_executions().await;
    let results = batch(&sim, TERMINATE, &["none", "f", "r"]).await;
    assert_eq!(results["r"]["status"], "success");
    assert_eq!(results["f"], failure("Workflow not running"));
    assert_eq!(results["none"], failure("Workflow execution not found"));
    assert_eq!(sim.status_of("r").await, "TERMINATED");
    assert_eq!(sim.status_of("f").await, "COMPLETED");
}

#[tokio::test]
async fn an_id_that_stands_twice_in_a_batch_counts_once() {
    let sim = with_executions().await;
    let results = batch(&sim, TERMINATE, &["r", "r"]).await;
    assert_eq!(results, json!({ "r": { "status": "success", "error": null } }));
}

#[tokio::test]
async fn a_batch_without_a_success_changes_nothing_and_is_200_all_the_same() {
    let sim = with_executions().await;
    batch(&sim, TERMINATE, &["f", "none"]).await;
    assert_eq!(sim.calls("POST", TERMINATE).await, (1, 0));
}

#[tokio::test]
async fn a_batch_cancel_of_finished_executions_is_fine_by_switch() {
    let sim = with_executions().await;
    sim.switches(json!({ "cancel_finished": 204 })).await;
    assert_eq!(batch(&sim, CANCEL, &["f"]).await["f"]["status"], "success");
    assert_eq!(sim.status_of("f").await, "COMPLETED");
}

#[tokio::test]
async fn a_batch_holds_1_to_100_ids() {
    let sim = with_executions().await;
    for path in [CANCEL, TERMINATE] {
        let ids = |count: usize| json!({ "execution_ids": vec!["x"; count] });
        assert_eq!(sim.post(path, ids(100)).await.0, 200);
        let place = json!(["body", "execution_ids"]);
        assert_eq!(problem(&sim.post(path, ids(0)).await), (place.clone(), "too_short".to_owned()));
        assert_eq!(problem(&sim.post(path, ids(101)).await), (place.clone(), "too_long".to_owned()));
        assert_eq!(problem(&sim.post(path, json!({})).await), (place, "missing".to_owned()));
        let wrong = sim.post(path, json!({ "execution_ids": ["x", 1] })).await;
        assert_eq!(problem(&wrong), (json!(["body", "execution_ids", 1]), "string_type".to_owned()));
    }
    assert_eq!(sim.status_of("r").await, "RUNNING");
}
