//! What a reader of the operator's log can find in it.

use serde_json::json;

use crate::support::*;

#[tokio::test]
async fn no_body_of_an_answer_is_logged_at_any_level() {
    let world = World::new("bodies").await;
    let process = world.process_with(&["--log-level", "trace"], &[]);
    until(SOON, "readiness", async || process.ask("/readyz").await.filter(|(code, _)| *code == 200)).await;
    // The mark is in an object that cannot be decoded, in its managedFields, in a result, and in an error.
    let mark = format!("private-{}", world.namespace);
    let workflow = json!({ "name": "odd", "behaviour": { "raw_result": format!(r#"{{"{mark}": NaN}}"#) } });
    world.api.register(workflow).await;
    world.execute("odd", json!({ "workflowIdentifier": "odd", "input": { mark.as_str(): mark } })).await;
    let failing = json!({ "error": { "status": 500, "body": { "unknown": mark } } });
    world.api.faults(json!({ "faults": [{ "method": "GET", "times": 5, "kind": failing }] })).await;
    world.execute("beside", json!({ "workflowIdentifier": "echo", "input": { "x": mark } })).await;
    world.wait_for_reason("beside", "Completed").await;
    world.wait("odd", SOON, is_finished).await;
    let log = process.log();
    assert!(log.contains("TRACE"), "it logs nothing that could be searched");
    let quotes: Vec<&str> = log.lines().filter(|line| line.contains(&mark)).collect();
    assert!(quotes.is_empty(), "{} lines, such as {:.500}", quotes.len(), quotes[0]);
}
