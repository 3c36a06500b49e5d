//! Suspension holds a start, and deletion stops a run as the policy says.

use super::*;

const CANCEL: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/cancel");
const TERMINATE: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/terminate");

#[tokio::test]
async fn suspend_holds_the_start_and_never_touches_a_running_one() {
    let world = World::new("suspend").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang", "suspend": true })).await;
    world.wait_for_reason("run", "Suspended").await;
    assert_eq!(world.api.starts().await, 0);
    world.patch("run", json!({ "spec": { "suspend": false } })).await.unwrap();
    let running = world.wait_for_reason("run", "Running").await;
    world.patch("run", json!({ "spec": { "suspend": true } })).await.unwrap();
    world.api.finish(&status(&running).execution_id.unwrap(), json!({ "outcome": "complete" })).await;
    world.wait_for_reason("run", "Completed").await;
    assert_eq!((world.api.arrivals(Some(CANCEL)).await, world.api.starts().await), (0, 1));
}

#[tokio::test]
async fn deletion_stops_the_run_as_the_policy_says() {
    let world = World::new("delete").await;
    let behaviour = json!({ "outcome": "ignore_cancel" });
    world.api.register(json!({ "name": "stubborn", "behaviour": behaviour })).await;
    let _operator = world.operator();
    let cases = [
        ("cancel", "hang", "Cancel", "CANCELED"),
        ("terminate", "hang", "Terminate", "TERMINATED"),
        ("orphan", "hang", "Orphan", "RUNNING"),
        ("stubborn", "stubborn", "Cancel", "TERMINATED"),
    ];
    for (name, workflow, policy, _) in cases {
        world.execute(name, json!({ "workflowIdentifier": workflow, "deletionPolicy": policy })).await;
    }
    for (name, _, _, end) in cases {
        let id = status(&world.wait_for_reason(name, "Running").await).execution_id.unwrap();
        world.delete(name).await;
        world.wait_until_gone(name, Duration::from_secs(90)).await;
        assert_eq!(remote_status(&world, &id).await, end, "{name}");
    }
    // One call per run, not one per poll.
    assert_eq!(world.api.arrivals(Some(CANCEL)).await, 2);
    assert_eq!(world.api.arrivals(Some(TERMINATE)).await, 2);
}

#[tokio::test]
async fn deleting_a_finished_or_never_started_execution_calls_nobody() {
    let world = World::new("delete").await;
    let _operator = world.operator();
    world.execute("done", json!({ "workflowIdentifier": "echo" })).await;
    world.execute("held", json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    world.wait_for_reason("done", "Completed").await;
    world.wait_for_reason("held", "Suspended").await;
    world.api.forget_calls().await;
    for name in ["done", "held"] {
        world.delete(name).await;
        world.wait_until_gone(name, SOON).await;
    }
    assert_eq!(world.api.arrivals(None).await, 0);
}
