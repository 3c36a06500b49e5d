//! How a run ends, and how its status says so.

use super::*;

#[tokio::test]
async fn a_registration_is_run_by_its_id() {
    let world = World::new("registration").await;
    let registered = world.api.register(json!({ "name": "pinned" })).await;
    let id = registered["registrations"][0]["id"].clone();
    let _operator = world.operator();
    world.execute("run", json!({ "registrationId": id, "input": { "n": 1 } })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    assert_eq!(status(&done).workflow_name.as_deref(), Some("pinned"));
    assert_eq!(world.api.executions().await[0]["registration_id"], id);
}

#[tokio::test]
async fn an_unknown_registration_says_so() {
    let world = World::new("registration").await;
    let _operator = world.operator();
    let id = "019b2bd7-96e7-7219-8c0b-45a73da50088";
    world.execute("run", json!({ "registrationId": id })).await;
    let waiting = world.wait_for_reason("run", "TargetNotFound").await;
    assert!(condition(&waiting, "Ready").unwrap().message.contains(&format!("registration \"{id}\"")));
}

#[tokio::test]
async fn a_failed_run_is_failed_in_the_workflows_own_words() {
    let world = World::new("failed").await;
    let behaviour = json!({ "outcome": "fail", "activity_error": "card declined" });
    world.api.register(json!({ "name": "pay", "behaviour": behaviour })).await;
    let _operator = world.operator();
    world.execute("plain", json!({ "workflowIdentifier": "fail" })).await;
    world.execute("activity", json!({ "workflowIdentifier": "pay" })).await;
    let failed = world.wait_for_reason("plain", "WorkflowFailed").await;
    assert_eq!(status(&failed).failure.unwrap().message, "no such customer");
    assert_eq!(status(&failed).status.as_deref(), Some("FAILED"));
    assert!(is_true(&failed, "Failed") && is_true(&failed, "Stalled") && status(&failed).end_time.is_some());
    assert_eq!(condition(&failed, "Complete"), None);
    let failed = world.wait_for_reason("activity", "WorkflowFailed").await;
    assert_eq!(status(&failed).failure.unwrap().message, "Activity task failed: card declined");
}

#[tokio::test]
async fn a_failed_run_without_a_text_is_failed_all_the_same() {
    let world = World::new("silent").await;
    world.api.switches(json!({ "drop_terminal_events": true })).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "fail" })).await;
    let failed = world.wait_for_reason("run", "WorkflowFailed").await;
    assert!(status(&failed).failure.unwrap().message.contains("no text"));
}

#[tokio::test]
async fn every_other_end_has_its_own_reason() {
    let world = World::new("ends").await;
    let _operator = world.operator();
    let ends =
        [("cancel", "Canceled"), ("terminate", "Terminated"), ("time_out", "TimedOut"), ("fail", "WorkflowFailed")];
    for (outcome, _) in ends {
        world.execute(&outcome.replace('_', "-"), json!({ "workflowIdentifier": "hang" })).await;
    }
    for (outcome, reason) in ends {
        let name = outcome.replace('_', "-");
        let running = world.wait_for_reason(&name, "Running").await;
        world.api.finish(&status(&running).execution_id.unwrap(), json!({ "outcome": outcome })).await;
        let ended = world.wait_for_reason(&name, reason).await;
        assert!(is_true(&ended, "Failed") && status(&ended).end_time.is_some(), "{outcome}");
    }
}

#[tokio::test]
async fn a_run_that_continues_as_new_is_followed_to_its_end() {
    let world = World::new("continued").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang", "input": { "n": 1 } })).await;
    let id = status(&world.wait_for_reason("run", "Running").await).execution_id.unwrap();
    world.api.finish(&id, json!({ "outcome": "continue_as_new" })).await;
    world.api.finish(&id, json!({ "outcome": "complete", "result": { "second": true } })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    assert_eq!(result(&done), Some(json!({ "second": true })));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
}

#[tokio::test]
async fn a_status_that_is_null_or_unknown_is_no_end() {
    let world = World::new("odd").await;
    world.api.switches(json!({ "running_status": null })).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "slow" })).await;
    world.wait_for_reason("run", "Running").await;
    world.api.switches(json!({ "running_status": "PONDERING" })).await;
    world.execute("other", json!({ "workflowIdentifier": "slow" })).await;
    let pondering = world.wait_for_reason("other", "Running").await;
    assert_eq!(status(&pondering).status.as_deref(), Some("PONDERING"));
    world.wait_for_reason("run", "Completed").await;
    world.wait_for_reason("other", "Completed").await;
}

#[tokio::test]
async fn a_result_above_max_bytes_stays_at_the_api_and_its_size_is_told() {
    let world = World::new("large").await;
    let _operator = world.operator();
    let input = json!({ "text": "x".repeat(100) });
    let bytes = input.to_string().len();
    let spec = |max| json!({ "workflowIdentifier": "echo", "input": input, "result": { "maxBytes": max } });
    world.execute("fits", spec(bytes)).await;
    world.execute("large", spec(bytes - 1)).await;
    assert_eq!(result(&world.wait_for_reason("fits", "Completed").await), Some(input.clone()));
    let done = world.wait_for_reason("large", "Completed").await;
    assert_eq!(result(&done), None);
    assert_eq!(status(&done).result_bytes, Some(i64::try_from(bytes).unwrap()));
    assert!(condition(&done, "Complete").unwrap().message.contains("maxBytes"));
}

#[tokio::test]
async fn kubectl_wait_returns_for_complete_and_for_either_end() {
    let world = World::new("kubectl").await;
    let _operator = world.operator();
    world.execute("good", json!({ "workflowIdentifier": "slow" })).await;
    world.execute("bad", json!({ "workflowIdentifier": "fail" })).await;
    let (text, ok) = world.kubectl(&["wait", "--for=condition=Complete", "--timeout=60s", "mwfx/good"]).await;
    assert!(ok, "{text}");
    for name in ["mwfx/good", "mwfx/bad"] {
        let (text, ok) = world.kubectl(&["wait", "--for=jsonpath={.status.endTime}", "--timeout=60s", name]).await;
        assert!(ok, "{text}");
    }
    let (text, _) = world.kubectl(&["get", "mwfx"]).await;
    assert!(text.contains("WORKFLOW") && text.contains("COMPLETED") && text.contains("WorkflowFailed"), "{text}");
    println!("{text}");
}
