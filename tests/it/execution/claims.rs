//! A claim that is copied, restored, dropped or forged, and a spec that is edited after it.

use super::*;

#[tokio::test]
async fn a_claim_from_the_end_of_time_stops_nobody_else() {
    let world = World::new("forged").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    let mut claim: Value = serde_json::from_str(&done.annotations()[CLAIM]).unwrap();
    claim["sendBefore"] = json!("9999-12-30T21:59:59Z");
    claim["owner"]["name"] = json!("forged");
    claim["executionId"] = json!("forged");
    let forged = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": "forged", "annotations": { CLAIM: claim.to_string() } },
        "spec": { "workflowIdentifier": "echo" },
    });
    world.executions().create(&Default::default(), &serde_json::from_value(forged).unwrap()).await.unwrap();
    world.wait_for_reason("forged", "OutcomeUnknown").await;
    world.execute("next", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("next", "Completed").await;
    assert_eq!(world.api.starts().await, 2);
}

#[tokio::test]
async fn a_copied_manifest_starts_its_own_run_and_says_so() {
    let world = World::new("copied").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    let copy = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": "copy", "annotations": done.annotations() }, "spec": { "workflowIdentifier": "echo" },
    });
    world.executions().create(&Default::default(), &serde_json::from_value(copy).unwrap()).await.unwrap();
    let copied = world.wait_for_reason("copy", "Completed").await;
    assert_ne!(status(&copied).execution_id, status(&done).execution_id);
    assert_eq!(world.api.starts().await, 2);
    until(SOON, "the Event", async || {
        world.events("copy").await.iter().any(|(reason, _)| reason == "ClaimIgnored").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_restored_resource_finds_its_run_and_a_clone_elsewhere_needs_consent() {
    let world = World::new("restored").await;
    let operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo", "input": { "n": 1 } })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    let restored = |claim: &str| {
        let annotations = json!({ CLAIM: claim });
        json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": "run", "annotations": annotations },
            "spec": { "workflowIdentifier": "echo", "input": { "n": 1 } },
        })
    };
    let claim = done.annotations()[CLAIM].clone();
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    // As a backup restores the resource: without the status, and with another UID.
    world.executions().create(&Default::default(), &serde_json::from_value(restored(&claim)).unwrap()).await.unwrap();
    let again = world.wait_for_reason("run", "Completed").await;
    assert_eq!(status(&again).execution_id, status(&done).execution_id);
    assert_eq!(world.api.starts().await, 1);
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    // As in another cluster, once the API has forgotten the run.
    let id = status(&done).execution_id.unwrap();
    world.api.forget(&id).await;
    let cluster: Value = serde_json::from_str(&claim).unwrap();
    let foreign = claim.replace(cluster["owner"]["cluster"].as_str().unwrap(), "another-cluster");
    world.executions().create(&Default::default(), &serde_json::from_value(restored(&foreign)).unwrap()).await.unwrap();
    let waiting = world.wait_for_reason("run", "ForeignClaim").await;
    assert!(condition(&waiting, "Ready").unwrap().message.contains(&format!("workflows.mistral.ai/take-over={id}")));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
    let consent = json!({ "metadata": { "annotations": { "workflows.mistral.ai/take-over": id } } });
    world.patch("run", consent).await.unwrap();
    world.wait("run", Duration::from_secs(150), |object| ready_reason(object) == Some("Completed")).await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 2);
    drop(operator);
}

#[tokio::test]
async fn kubectl_replace_that_drops_the_claim_repeats_nothing() {
    let world = World::new("replaced").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    world.patch("run", json!({ "metadata": { "annotations": { CLAIM: null } } })).await.unwrap();
    world.wait("run", SOON, |object| object.annotations().contains_key(CLAIM)).await;
    world.api.finish(&status(&running).execution_id.unwrap(), json!({ "outcome": "complete" })).await;
    world.wait_for_reason("run", "Completed").await;
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
}

#[tokio::test]
async fn an_edit_that_slips_through_changes_nothing_but_a_condition() {
    let world = World::new("edited").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang", "input": { "b": 2 } })).await;
    let running = world.wait_for_reason("run", "Running").await;
    world.patch("run", json!({ "spec": { "input": { "b": null, "c": 2 } } })).await.unwrap();
    world.api.finish(&status(&running).execution_id.unwrap(), json!({ "outcome": "complete" })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    assert!(is_true(&done, "Edited"));
    assert_eq!(world.api.executions().await[0]["input"], json!({ "b": 2 }));
}
