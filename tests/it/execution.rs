//! From `kubectl apply` to the result.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn an_execution_runs_to_its_result_with_two_calls_and_three_writes() {
    let world = World::new("result").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.forget_calls().await;
    world
        .execute("run", json!({ "workflowIdentifier": "slow", "input": { "a": { "b": [1, null] }, "n": null } }))
        .await;
    let done = world.wait_for_reason("run", "Completed").await;
    let status = status(&done);
    assert_eq!(status.status.as_deref(), Some("COMPLETED"));
    assert_eq!(status.result, Some(json!({ "a": { "b": [1, null] }, "n": null })));
    assert!(is_true(&done, "Complete") && is_true(&done, "Started") && is_true(&done, "Ready"));
    assert_eq!(condition(&done, "Reconciling"), None);
    assert!(status.start_time.is_some() && status.end_time.is_some());
    let [run] = &world.api.executions().await[..] else { panic!("one run") };
    assert_eq!(run["starts"], 1);
    assert_eq!(run["execution_id"], json!(status.execution_id));
    println!("{:#?}", world.api.calls().await);
    println!("{:?}", world.events("run").await);
}
