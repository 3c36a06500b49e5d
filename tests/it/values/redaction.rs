//! What the API says about a run is reported without the values of its Secrets.

use super::*;

#[tokio::test]
async fn a_refusal_that_quotes_a_secret_is_told_without_it() {
    let world = World::new("values-refused").await;
    // Long enough that the operator cuts the API's text in the middle of the value.
    let long = format!("{TOKEN}-{}", "canary-".repeat(300));
    let schema = json!({ "type": "object", "properties": { "token": { "type": "integer" } } });
    world.api.register(json!({ "name": "strict", "input_schema": schema })).await;
    world.secret("short", "k", TOKEN).await;
    world.secret("long", "k", &long).await;
    let operator = world.process(&[]);
    for name in ["short", "long"] {
        let spec = json!({ "workflowIdentifier": "strict", "inputFrom": [from_secret(name, "k", "/token")] });
        world.execute(name, spec).await;
        let refused = world.wait_for_reason(name, "InputRejected").await;
        let said = message(&refused, "Failed");
        assert!(said.contains("[redacted]") && said.contains("integer"), "{said}");
    }
    until(SOON, "the log", async || operator.log().contains("[redacted]").then_some(())).await;
}

#[tokio::test]
async fn a_failure_that_quotes_a_secret_is_told_without_it() {
    let world = World::new("values-failed").await;
    let error = format!("the customer's token '{TOKEN}' is not valid");
    world.api.register(json!({ "name": "picky", "behaviour": { "outcome": "fail", "error": error } })).await;
    world.secret("crm", "token", TOKEN).await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "picky", "inputFrom": [from_secret("crm", "token", "/token")] });
    world.execute("run", spec).await;
    let failed = world.wait_for_reason("run", "WorkflowFailed").await;
    assert_eq!(status(&failed).failure.unwrap().message, "the customer's token '[redacted]' is not valid");
}

#[tokio::test]
async fn after_a_restart_a_result_is_told_only_if_its_secrets_can_still_be_left_out() {
    let world = World::new("values-restart").await;
    for name in ["same", "changed", "gone", "kept"] {
        world.secret(name, "k", TOKEN).await;
    }
    let operator = world.operator();
    let mut ids = Vec::new();
    for name in ["same", "changed", "gone", "kept"] {
        let mut spec = json!({ "workflowIdentifier": "hang", "inputFrom": [from_secret(name, "k", "/token")] });
        if name == "kept" {
            spec["result"] = result_to("secret", "kept-result");
        }
        world.execute(name, spec).await;
        ids.push(status(&world.wait_for_reason(name, "Running").await).execution_id.unwrap());
    }
    // One more execution, for the text of a failure.
    world.secret("lost", "k", TOKEN).await;
    let spec = json!({ "workflowIdentifier": "hang", "inputFrom": [from_secret("lost", "k", "/token")] });
    world.execute("lost", spec).await;
    let lost = status(&world.wait_for_reason("lost", "Running").await).execution_id.unwrap();
    drop(operator);
    world.secret("changed", "k", "canary-another").await;
    for name in ["gone", "kept", "lost"] {
        secrets(&world).delete(name, &DeleteParams::default()).await.unwrap();
    }
    let _operator = world.operator();
    for id in ids {
        let result = json!({ "said": format!("it was {TOKEN}") });
        world.api.finish(&id, json!({ "outcome": "complete", "result": result })).await;
    }
    world.api.finish(&lost, json!({ "outcome": "fail", "error": format!("not {TOKEN}") })).await;
    let done = world.wait_for_reason("same", "Completed").await;
    assert_eq!(result(&done), Some(json!({ "said": "it was [redacted]" })));
    for (name, words) in [("changed", "has changed since"), ("gone", "no longer exists")] {
        let done = world.wait_for_reason(name, "Completed").await;
        assert_eq!(result(&done), None);
        assert_eq!(condition(&done, "ResultNotWritten").unwrap().reason, "ResultWithheld");
        assert!(message(&done, "Complete").contains(words), "{}", message(&done, "Complete"));
        assert!(status(&done).result_bytes.is_some());
    }
    let done = world.wait_for_reason("kept", "Completed").await;
    assert_eq!(condition(&done, "ResultNotWritten"), None);
    assert_eq!(result_in_secret(&world, "kept-result").await, json!({ "said": format!("it was {TOKEN}") }));
    let failed = world.wait_for_reason("lost", "WorkflowFailed").await;
    assert!(status(&failed).failure.unwrap().message.contains("withheld"));
}
