//! Operators that are killed or stopped at the worst moments: each run still starts once.
//!
//! Each test waits for an observed fact (a held request, a process that ended or stopped), never for time to pass. The
//! delays come from the operator's own caution: it repeats a call that may have been sent only after the API has had
//! time to show its run.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::*;

/// Allows for the 90 s in which the outcome of a call may be unknown, the delay of a retry, and a busy machine.
const AFTER_DOUBT: Duration = Duration::from_secs(180);
const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");

fn hold_execute(at: &str, hide_ms: u64) -> Value {
    json!({
        "faults": [{ "method": EXECUTE.0, "route": EXECUTE.1, "times": 1, "kind": { "hold": at } }],
        "hide_new_executions_ms": hide_ms,
    })
}

async fn exited(process: &mut Process) {
    until(SOON, "the end of the process", async || process.child.wait_exit(Duration::ZERO).unwrap().map(|_| ())).await;
}

async fn one_start_and_completed(world: &World, limit: Duration) {
    let done = world.wait("run", limit, is_finished).await;
    assert_eq!(ready_reason(&done), Some("Completed"), "{:#?}", done.status);
    let [run] = &world.api.executions().await[..] else { panic!("one execution id") };
    assert_eq!(run["starts"], 1);
    assert_eq!(run["execution_id"], json!(status(&done).execution_id));
    assert_eq!(result(&done), Some(json!({ "n": 1 })));
}

#[tokio::test]
async fn killed_between_claim_and_call_the_run_is_started_once_by_the_next() {
    let world = World::new("kill-claimed").await;
    let mut first = world.process(&[("OPERATOR_FAILPOINTS", "failpoint-claimed=kill")]);
    world.execute("run", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    exited(&mut first).await;
    let claimed = world.executions().get("run").await.unwrap();
    assert!(claimed.metadata.annotations.unwrap_or_default().contains_key("workflows.mistral.ai/claim"));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    let _second = world.process(&[]);
    one_start_and_completed(&world, AFTER_DOUBT).await;
}

#[tokio::test]
async fn killed_while_the_call_waits_at_the_api_the_run_is_started_once_by_the_next() {
    let world = World::new("kill-held").await;
    let mut first = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(hold_execute("before_effect", 0)).await;
    world.execute("run", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    until(SOON, "the held call", async || world.api.held().await.pop()).await;
    first.child.kill().unwrap();
    until(SOON, "the call to be gone", async || world.api.held().await.is_empty().then_some(())).await;
    world.api.release().await;
    assert_eq!(world.api.starts().await, 0);
    let _second = world.process(&[]);
    one_start_and_completed(&world, AFTER_DOUBT).await;
}

#[tokio::test]
async fn killed_between_the_effect_and_the_status_a_run_that_shows_late_is_adopted() {
    let world = World::new("kill-effect").await;
    let mut first = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(hold_execute("after_effect", 20_000)).await;
    world.execute("run", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    until(SOON, "the held answer", async || world.api.held().await.pop()).await;
    assert_eq!(world.api.starts().await, 1);
    first.child.kill().unwrap();
    let _second = world.process(&[]);
    one_start_and_completed(&world, AFTER_DOUBT).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
}

#[tokio::test]
async fn killed_while_the_run_goes_on_its_end_is_noticed_by_the_next() {
    let world = World::new("kill-running").await;
    let mut first = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "hang", "input": { "n": 1 } })).await;
    let running = world.wait_for_reason("run", "Running").await;
    first.child.kill().unwrap();
    world.api.finish(&status(&running).execution_id.unwrap(), json!({ "outcome": "complete" })).await;
    let _second = world.process(&[]);
    one_start_and_completed(&world, SOON).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
}

#[tokio::test]
async fn stopped_between_claim_and_call_the_first_wakes_to_a_finished_run_and_sends_nothing() {
    let world = World::new("stop-claimed").await;
    let first = world.process(&[("OPERATOR_FAILPOINTS", "failpoint-claimed=stop")]);
    world.execute("run", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    until(SOON, "the process to stop", async || is_stopped(first.child.pid()).then_some(())).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    let _second = world.process(&[]);
    one_start_and_completed(&world, AFTER_DOUBT).await;
    first.child.signal("CONT").unwrap();
    until(SOON, "the first to find its claim too old", async || {
        first.log().contains("the claim grew too old before the call could be sent").then_some(())
    })
    .await;
    // The first operator continues to work: it runs the next execution, or the second operator does.
    world.execute("next", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("next", "Completed").await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 2);
    assert_eq!(world.api.starts().await, 2);
}
