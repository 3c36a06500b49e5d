//! `execution_id` as an idempotency key.

use serde_json::{Value, json};

use crate::support::{EXECUTE, Sim, pluck};

#[tokio::test]
async fn an_id_of_a_running_execution_is_refused_with_wf_1101() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let first = sim.run("e").await;
    let (status, body) = sim.execute(json!({ "execution_id": "e" })).await;
    assert_eq!(status, 409);
    let detail = "Workflow execution already started";
    assert_eq!(body, json!({ "detail": detail, "code": "WF_1101" }), "and nothing else");
    assert_eq!(sim.execution("e").await["start_time"], first["start_time"]);
    assert_eq!(sim.calls("POST", EXECUTE).await, (2, 1));
    assert_eq!(sim.booked("e").await.unwrap()["starts"], 1);
}

#[tokio::test]
async fn an_id_is_one_for_all_workflows_of_a_workspace() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.register(json!({ "name": "other" })).await;
    sim.run("e").await;
    let (status, body) = sim.post("/v1/workflows/other/execute", json!({ "execution_id": "e" })).await;
    assert_eq!((status, &body["code"]), (409, &json!("WF_1101")));
}

#[tokio::test]
async fn an_id_in_another_workspace_is_another_execution() {
    let mut sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    sim.put("/__sim/tokens/other", json!({ "workspace": "second" })).await;
    sim.post("/__sim/workflows?workspace=second", json!({ "name": "job" })).await;
    sim.token = "other".to_owned();
    assert_eq!(sim.get("/v1/workflows/executions/e").await.0, 404);
    sim.run("e").await;
    assert_eq!(sim.runs("").await.len(), 1);
}

#[tokio::test]
async fn a_finished_id_starts_a_new_run_whatever_its_end() {
    for outcome in ["complete", "fail", "cancel", "terminate", "time_out"] {
        let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
        let first = sim.run("e").await;
        sim.finish("e", json!({ "outcome": outcome })).await;
        let second = sim.run("e").await;
        assert_ne!(first["start_time"], second["start_time"]);
        let newest = sim.execution("e").await;
        assert_eq!(newest["status"], "RUNNING");
        assert_eq!(newest["start_time"], second["start_time"]);
        let runs = sim.runs("order=asc").await;
        assert_eq!(runs.len(), 2, "the older one is in the list of runs only");
        assert_eq!(runs[1]["status"], "RUNNING");
        assert_ne!(runs[0]["run_id"], runs[1]["run_id"]);
        assert_eq!(sim.booked("e").await.unwrap()["starts"], 2);
    }
}

#[tokio::test]
async fn a_new_run_of_a_finished_id_begins_a_new_chain() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    sim.run("e").await;
    let events = sim.events("e").await;
    let started = |event: &&Value| event["event_type"] == "WORKFLOW_EXECUTION_STARTED";
    let started: Vec<Value> = events.iter().filter(started).cloned().collect();
    let chains = pluck(&started, "chain_run_id");
    assert_eq!(chains.len(), 2);
    assert_ne!(chains[0], chains[1]);
}

#[tokio::test]
async fn a_blind_retry_after_the_first_run_finished_runs_it_twice() {
    let sim = Sim::with_job(json!({})).await;
    for _ in 0..2 {
        sim.execute(json!({ "execution_id": "e" })).await;
    }
    assert_eq!(sim.booked("e").await.unwrap()["starts"], 2);
    assert_eq!(sim.calls("POST", EXECUTE).await, (2, 2));
}

#[tokio::test]
async fn reusing_a_finished_id_is_a_conflict_by_switch() {
    let sim = Sim::with_job(json!({})).await;
    sim.switches(json!({ "reuse_finished_id": "conflict" })).await;
    sim.run("e").await;
    let (status, body) = sim.execute(json!({ "execution_id": "e" })).await;
    assert_eq!((status, &body["code"]), (409, &json!("WF_1101")));
    sim.ok("DELETE", "/__sim/executions/e", None).await;
    sim.run("e").await;
}

#[tokio::test]
async fn a_refused_input_does_not_use_up_the_id() {
    let sim = Sim::start().await;
    let schema = json!({ "type": "object", "required": ["a"] });
    sim.register(json!({ "name": "job", "input_schema": schema })).await;
    assert_eq!(sim.execute(json!({ "execution_id": "e" })).await.0, 422);
    assert!(sim.booked("e").await.is_none());
    let good = json!({ "execution_id": "e", "input": { "a": 1 } });
    assert_eq!(sim.execute(good).await.0, 200);
}

#[tokio::test]
async fn of_many_simultaneous_starts_of_an_id_one_wins() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let mut pending = Vec::new();
    for _ in 0..20 {
        let request = sim.request("POST", "/v1/workflows/job/execute");
        pending.push(tokio::spawn(request.json(&json!({ "execution_id": "e" })).send()));
    }
    let mut statuses = Vec::new();
    for one in pending {
        statuses.push(one.await.unwrap().unwrap().status().as_u16());
    }
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(statuses[1..].iter().all(|status| *status == 409));
}
