//! `wait_for_result`.

use serde_json::{Value, json};

use crate::support::{EXECUTE, Sim, keys, sleep_ms};

fn waiting(seconds: Value) -> Value {
    json!({ "execution_id": "e", "input": { "a": 1 }, "wait_for_result": true, "timeout_seconds": seconds })
}

#[tokio::test]
async fn a_success_is_answered_with_nothing_but_the_result() {
    let sim = Sim::with_job(json!({ "duration_ms": 50 })).await;
    let (status, body) = sim.execute(waiting(Value::Null)).await;
    assert_eq!(status, 200);
    assert_eq!(keys(&body), ["execution_id", "result", "workflow_name"]);
    assert_eq!(body["result"], json!({ "a": 1 }));
    assert_eq!(sim.status_of("e").await, "COMPLETED");
    assert_eq!(sim.calls("POST", EXECUTE).await, (1, 1));
}

#[tokio::test]
async fn a_wait_that_takes_too_long_is_504_and_the_execution_goes_on() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let (status, body) = sim.execute(waiting(json!(0.05))).await;
    assert_eq!(status, 504);
    assert_eq!(body, json!({ "detail": "An error occurred", "code": "WF_1103" }));
    assert_eq!(sim.status_of("e").await, "RUNNING");
}

#[tokio::test]
async fn a_wait_for_a_failure_is_500() {
    let sim = Sim::with_job(json!({ "outcome": "fail", "duration_ms": 20 })).await;
    let (status, body) = sim.execute(waiting(Value::Null)).await;
    assert_eq!(status, 500);
    assert_eq!(body, json!({ "detail": "An error occurred", "code": "WF_1103" }));
    assert_eq!(sim.status_of("e").await, "FAILED");
}

#[tokio::test]
async fn a_wait_ends_when_somebody_ends_the_execution() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let request = sim.request("POST", "/v1/workflows/job/execute");
    let pending = tokio::spawn(request.json(&waiting(Value::Null)).send());
    while sim.booked("e").await.is_none() {
        sleep_ms(5).await;
    }
    sim.finish("e", json!({ "outcome": "complete", "result": 7 })).await;
    let body: Value = pending.await.unwrap().unwrap().json().await.unwrap();
    assert_eq!(body["result"], 7);
}

#[tokio::test]
async fn a_wait_follows_continuations() {
    let sim = Sim::with_job(json!({ "outcome": "continue_as_new", "duration_ms": 20 })).await;
    assert_eq!(sim.execute(waiting(Value::Null)).await.0, 200);
    assert_eq!(sim.runs("").await.len(), 2);
}

#[tokio::test]
async fn the_statuses_of_unlucky_waits_are_switches() {
    let sim = Sim::with_job(json!({ "outcome": "hang" })).await;
    let switches = json!({
        "wait_timeout_status": 500, "wait_failure_status": 422, "wait_default_timeout_s": 0.02,
    });
    sim.switches(switches).await;
    assert_eq!(sim.execute(waiting(Value::Null)).await.0, 500);
    sim.finish("e", json!({ "outcome": "cancel" })).await;
    sim.register(json!({ "name": "job", "behaviour": { "outcome": "fail" } })).await;
    assert_eq!(sim.execute(waiting(Value::Null)).await.0, 422);
}

#[tokio::test]
async fn a_wait_is_for_its_own_start_of_the_id_and_no_later_one() {
    let sim = Sim::with_job(json!({ "duration_ms": 200, "result": 7 })).await;
    let ids = [0, 1, 2, 3, 4, 5, 6, 7, 8, 9].map(|number| format!("e{number}"));
    let mut pending = Vec::new();
    for id in &ids {
        let body = json!({ "execution_id": id, "wait_for_result": true, "timeout_seconds": 2 });
        pending.push(tokio::spawn(sim.request("POST", "/v1/workflows/job/execute").json(&body).send()));
        while sim.booked(id).await.is_none() {}
    }
    sim.register(json!({ "name": "job", "behaviour": { "outcome": "hang" } })).await;
    // Each id starts again as soon as its run ends, mostly before the waiting request has checked.
    for id in &ids {
        while sim.execute(json!({ "execution_id": id })).await.0 != 200 {}
    }
    for (id, one) in ids.iter().zip(pending) {
        let body: Value = one.await.unwrap().unwrap().json().await.unwrap();
        assert_eq!(body["result"], 7, "{body}");
        assert_eq!(sim.status_of(id).await, "RUNNING");
    }
}

#[tokio::test]
async fn a_timeout_beyond_all_bounds_is_a_long_wait_and_one_below_zero_none() {
    let sim = Sim::with_job(json!({ "duration_ms": 50 })).await;
    assert_eq!(sim.execute(waiting(json!(1e300))).await.0, 200);
    assert_eq!(sim.execute(waiting(json!(-1))).await.0, 504);
}
