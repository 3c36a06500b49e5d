//! The states that an execution goes through.

use serde_json::{Value, json};

use crate::support::{Sim, pluck, sleep_ms};

#[tokio::test]
async fn a_running_execution_has_no_result_and_no_end() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    let body = sim.execution("e").await;
    assert_eq!(body["status"], "RUNNING");
    assert!(body["result"].is_null() && body["end_time"].is_null());
    assert!(body["total_duration_ms"].is_null());
}

#[tokio::test]
async fn a_completed_execution_has_the_result_of_its_workflow() {
    let result = json!({ "result": "Hello" });
    let sim = Sim::with_job(json!({ "result": result })).await;
    sim.run("e").await;
    assert_eq!(sim.execution("e").await["result"], result);
    let events = sim.events("e").await;
    let kinds = ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_COMPLETED"];
    assert_eq!(pluck(&events, "event_type"), kinds);
    let attributes = &events[1]["attributes"];
    assert_eq!(attributes["result"], json!({ "type": "json", "value": result }));
}

#[tokio::test]
async fn a_workflow_can_return_null() {
    let sim = Sim::with_job(json!({ "result": null })).await;
    sim.execute(json!({ "execution_id": "e", "input": { "a": 1 } })).await;
    let execution = sim.execution("e").await;
    assert_eq!((&execution["status"], &execution["result"]), (&json!("COMPLETED"), &Value::Null));
}

#[tokio::test]
async fn a_failed_execution_has_a_null_result_and_its_message_in_an_event() {
    let sim = Sim::with_job(json!({ "outcome": "fail", "error": "no funds" })).await;
    sim.run("e").await;
    let body = sim.execution("e").await;
    assert_eq!(body["status"], "FAILED");
    assert!(body["result"].is_null() && body["end_time"].is_string());
    let events = sim.events("e").await;
    let kinds = ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_FAILED"];
    assert_eq!(pluck(&events, "event_type"), kinds);
    assert_eq!(events[1]["attributes"]["failure"], json!({ "message": "no funds" }));
}

#[tokio::test]
async fn a_failure_by_an_activity_has_the_real_message_in_the_activitys_event() {
    let behaviour = json!({ "outcome": "fail", "activity_error": "socket closed" });
    let sim = Sim::with_job(behaviour).await;
    sim.run("e").await;
    let events = sim.events("e").await;
    let kinds = ["WORKFLOW_EXECUTION_STARTED", "ACTIVITY_TASK_FAILED", "WORKFLOW_EXECUTION_FAILED"];
    assert_eq!(pluck(&events, "event_type"), kinds);
    let message = |index: usize| events[index]["attributes"]["failure"]["message"].clone();
    assert_eq!(message(1), "socket closed");
    assert_eq!(message(2), "Activity task failed");
}

#[tokio::test]
async fn events_are_best_effort() {
    let sim = Sim::with_job(json!({ "outcome": "fail" })).await;
    sim.switches(json!({ "drop_terminal_events": true })).await;
    sim.run("e").await;
    let kinds = pluck(&sim.events("e").await, "event_type");
    assert_eq!(kinds, ["WORKFLOW_EXECUTION_STARTED"]);
    assert_eq!(sim.status_of("e").await, "FAILED");
}

#[tokio::test]
async fn cancel_is_a_request_and_answered_with_204() {
    let sim = Sim::with_job(json!({ "outcome": "hang", "cancel_delay_ms": 500 })).await;
    sim.run("e").await;
    assert_eq!(sim.cancel("e").await, (204, json!("")));
    assert_eq!(sim.status_of("e").await, "RUNNING");
    sim.becomes("e", "CANCELED").await;
    assert!(sim.execution("e").await["result"].is_null());
    let kinds = pluck(&sim.events("e").await, "event_type");
    assert_eq!(kinds.last().unwrap(), "WORKFLOW_EXECUTION_CANCELED");
    let route = "/v1/workflows/executions/{execution_id}/cancel";
    assert_eq!(sim.calls("POST", route).await, (1, 1));
}

#[tokio::test]
async fn a_workflow_may_complete_although_it_was_asked_to_cancel() {
    let sim = Sim::with_job(json!({ "outcome": "ignore_cancel", "duration_ms": 500 })).await;
    sim.run("e").await;
    assert_eq!(sim.cancel("e").await.0, 204);
    assert_eq!(sim.cancel("e").await.0, 204);
    assert_eq!(sim.status_of("e").await, "RUNNING");
    sim.becomes("e", "COMPLETED").await;
}

#[tokio::test]
async fn without_a_live_worker_a_cancel_is_not_honoured_but_a_terminate_is() {
    let sim = Sim::start().await;
    let deployments = json!([{ "name": "d", "active": false }]);
    sim.switches(json!({ "execute_without_worker": "accept" })).await;
    sim.register(json!({ "name": "job", "deployments": deployments })).await;
    sim.run("e").await;
    assert_eq!(sim.cancel("e").await.0, 204);
    let body = sim.execution("e").await;
    assert_eq!(body["status"], "RUNNING");
    assert!(body["workflow_id"].is_null() && body["deployment_name"].is_null());
    assert!(sim.events("e").await.is_empty(), "events come from workers");
    assert_eq!(sim.terminate("e").await.0, 204);
    assert_eq!(sim.status_of("e").await, "TERMINATED");
}

#[tokio::test]
async fn an_execution_without_a_worker_waits_for_one_by_switch() {
    let sim = Sim::start().await;
    sim.switches(json!({ "execute_without_worker": "accept" })).await;
    let inactive = json!([{ "name": "d", "active": false }]);
    sim.register(json!({ "name": "job", "deployments": inactive })).await;
    sim.run("e").await;
    assert_eq!(sim.status_of("e").await, "RUNNING");
    let active = json!({ "deployments": [{ "name": "d", "active": true }] });
    sim.ok("PATCH", "/__sim/workflows/job", Some(active)).await;
    let body = sim.execution("e").await;
    assert_eq!(body["status"], "COMPLETED");
    assert_eq!(body["deployment_name"], "d");
}

#[tokio::test]
async fn an_execution_without_a_worker_is_not_found_or_by_switch_times_out_or_is_refused() {
    let sim = Sim::start().await;
    let spec = json!({
        "name": "job", "deployments": [], "execution_timeout_s": 0.05,
    });
    sim.register(spec).await;
    let refused = sim.execute(json!({ "execution_id": "e" })).await;
    assert_eq!(refused, (404, json!({ "detail": "No active deployment found" })));
    assert_eq!(sim.call("GET", "/v1/workflows/executions/e", None).await.0, 404);
    sim.switches(json!({ "execute_without_worker": "accept" })).await;
    sim.run("e").await;
    sleep_ms(80).await;
    assert_eq!(sim.status_of("e").await, "TIMED_OUT");
    sim.switches(json!({ "execute_without_worker": "reject" })).await;
    assert_eq!(sim.execute(json!({})).await.0, 409);
}

#[tokio::test]
async fn terminate_is_immediate_and_leaves_no_event() {
    let sim = Sim::with_job(json!({ "outcome": "ignore_cancel" })).await;
    sim.run("e").await;
    assert_eq!(sim.terminate("e").await, (204, json!("")));
    assert_eq!(sim.status_of("e").await, "TERMINATED");
    let kinds = pluck(&sim.events("e").await, "event_type");
    assert_eq!(kinds, ["WORKFLOW_EXECUTION_STARTED"]);
}

#[tokio::test]
async fn terminating_a_finished_execution_is_a_conflict_that_tells_its_status() {
    let sim = Sim::with_job(json!({})).await;
    sim.run("e").await;
    let (status, body) = sim.terminate("e").await;
    assert_eq!(status, 409);
    let detail = "Workflow not running";
    assert_eq!(body, json!({ "detail": detail, "code": "WF_1102", "status": "COMPLETED" }));
}

#[tokio::test]
async fn cancelling_a_finished_execution_is_a_conflict_or_by_switch_fine() {
    let sim = Sim::with_job(json!({ "outcome": "fail" })).await;
    sim.run("e").await;
    let (status, body) = sim.cancel("e").await;
    assert_eq!((status, &body["code"], &body["status"]), (409, &json!("WF_1102"), &json!("FAILED")));
    sim.switches(json!({ "cancel_finished": 204 })).await;
    assert_eq!(sim.cancel("e").await.0, 204);
    assert_eq!(sim.status_of("e").await, "FAILED");
}

#[tokio::test]
async fn unknown_executions_cannot_be_read_cancelled_or_terminated() {
    let sim = Sim::with_job(json!({})).await;
    let expected = json!({ "detail": "Workflow execution not found", "code": "WF_1100" });
    for answer in [
        sim.get("/v1/workflows/executions/none").await,
        sim.get("/v1/workflows/executions/a%3A1.b").await,
        sim.cancel("none").await,
        sim.terminate("none").await,
    ] {
        assert_eq!(answer, (404, expected.clone()));
    }
}

#[tokio::test]
async fn an_execution_times_out_when_its_timeout_has_passed_without_an_event() {
    let sim = Sim::start().await;
    let behaviour = json!({ "outcome": "hang" });
    sim.register(json!({ "name": "job", "execution_timeout_s": 0.05, "behaviour": behaviour })).await;
    sim.run("e").await;
    sleep_ms(90).await;
    let body = sim.execution("e").await;
    assert_eq!(body["status"], "TIMED_OUT");
    assert_eq!(body["total_duration_ms"], 50);
    let kinds = pluck(&sim.events("e").await, "event_type");
    assert_eq!(kinds, ["WORKFLOW_EXECUTION_STARTED"]);
}

#[tokio::test]
async fn a_continued_execution_keeps_its_id_and_shows_the_newest_run() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    sim.finish("e", json!({ "outcome": "continue_as_new" })).await;
    assert_eq!(sim.status_of("e").await, "RUNNING", "the second run");
    sim.finish("e", json!({ "outcome": "complete" })).await;
    let runs = sim.runs("root_execution_id=e&order=asc").await;
    assert_eq!(pluck(&runs, "status"), ["CONTINUED_AS_NEW", "COMPLETED"]);
    assert_eq!(pluck(&runs, "execution_id"), ["e", "e"]);
    assert_eq!(runs[0]["end_time"], runs[1]["start_time"]);
    assert_ne!(runs[0]["run_id"], runs[1]["run_id"]);

    let events = sim.events("e").await;
    let kinds = ["WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_STARTED", "WORKFLOW_EXECUTION_COMPLETED"];
    assert_eq!(pluck(&events, "event_type"), kinds);
    assert_eq!(events[0]["continued_run_id"], Value::Null);
    assert_eq!(events[1]["continued_run_id"], events[0]["workflow_run_id"]);
    assert_eq!(events[1]["chain_run_id"], events[0]["chain_run_id"]);
    assert_eq!(sim.booked("e").await.unwrap()["starts"], 1);
}

#[tokio::test]
async fn a_workflow_continues_once_and_then_completes() {
    let sim = Sim::with_job(json!({ "outcome": "continue_as_new", "duration_ms": 30 })).await;
    sim.run("e").await;
    sim.becomes("e", "COMPLETED").await;
    let runs = sim.runs("order=asc").await;
    assert_eq!(pluck(&runs, "status"), ["CONTINUED_AS_NEW", "COMPLETED"]);
    assert_eq!(runs[0]["end_time"], runs[1]["start_time"]);
    let durations = [0, 1].map(|index: usize| runs[index]["total_duration_ms"].clone());
    assert_eq!(durations, [json!(30), json!(30)], "whenever somebody looks");
}

#[tokio::test]
async fn the_timeout_covers_continuations() {
    let sim = Sim::start().await;
    let behaviour = json!({ "outcome": "continue_as_new", "duration_ms": 60 });
    sim.register(json!({ "name": "job", "execution_timeout_s": 0.1, "behaviour": behaviour })).await;
    sim.run("e").await;
    sleep_ms(150).await;
    let runs = sim.runs("order=asc").await;
    assert_eq!(pluck(&runs, "status"), ["CONTINUED_AS_NEW", "TIMED_OUT"]);
    assert_eq!(runs[1]["total_duration_ms"], 40);
}

#[tokio::test]
async fn the_status_of_a_running_execution_may_be_null_or_an_unknown_word() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    sim.run("e").await;
    for word in [Value::Null, json!("RETRYING_AFTER_ERROR"), json!("PAUSED")] {
        sim.switches(json!({ "running_status": word })).await;
        assert_eq!(sim.execution("e").await["status"], word);
        assert_eq!(sim.runs("status=RUNNING").await[0]["status"], word);
    }
    sim.terminate("e").await;
    assert_eq!(sim.status_of("e").await, "TERMINATED");
}
