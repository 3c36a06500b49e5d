//! From `kubectl apply` to the result.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const GET: (&str, &str) = ("GET", "/v1/workflows/executions/{execution_id}");
const CANCEL: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/cancel");
const TERMINATE: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/terminate");
const CLAIM: &str = "workflows.mistral.ai/claim";

/// The number of writes to the objects from the creation of the first one to their end. The later removal of the
/// finalizer does not count.
async fn writes(world: &World, first: &WorkflowExecution) -> usize {
    let since = first.resource_version().unwrap();
    let events = world.executions().watch(&WatchParams::default().timeout(2), &since).await.unwrap();
    let events: Vec<WatchEvent<WorkflowExecution>> = events.boxed().try_collect().await.unwrap();
    let on_the_way = |event: &WatchEvent<WorkflowExecution>| match event {
        WatchEvent::Modified(object) => !is_finished(object) || !object.finalizers().is_empty(),
        WatchEvent::Error(error) => panic!("the history is not complete: {error:?}"),
        WatchEvent::Added(_) | WatchEvent::Deleted(_) | WatchEvent::Bookmark(_) => false,
    };
    events.iter().filter(|event| on_the_way(event)).count()
}

async fn remote_status(world: &World, execution_id: &str) -> Value {
    let all = world.api.executions().await;
    all.iter().find(|run| run["execution_id"] == execution_id).map(|run| run["status"].clone()).unwrap_or_default()
}

#[tokio::test]
async fn an_execution_runs_to_its_result_with_three_writes() {
    let world = World::new("result").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.forget_calls().await;
    let input = json!({ "a": { "b": [1, null] }, "n": null });
    let created = world.execute("run", json!({ "workflowIdentifier": "slow", "input": input })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    let status = status(&done);
    assert_eq!(status.status.as_deref(), Some("COMPLETED"));
    assert_eq!(status.workflow_name.as_deref(), Some("slow"));
    assert_eq!(status.result.as_ref().unwrap(), &input);
    assert_eq!(status.result_bytes, Some(i64::try_from(input.to_string().len()).unwrap()));
    assert_eq!(status.root_execution_id, status.execution_id);
    assert_eq!(status.observed_generation, Some(1));
    assert!(status.duration_ms.unwrap() >= 3000);
    assert!(is_true(&done, "Complete") && is_true(&done, "Started") && is_true(&done, "Ready"));
    for absent in ["Reconciling", "Stalled", "Failed", "Missing", "Edited"] {
        assert_eq!(condition(&done, absent), None);
    }
    let [run] = &world.api.executions().await[..] else { panic!("one run") };
    assert_eq!((&run["starts"], &run["input"]), (&json!(1), &input));
    assert_eq!(run["execution_id"], json!(status.execution_id));
    assert_eq!(writes(&world, &created).await, 3);
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 1);
    let events = until(SOON, "both Events", async || {
        let events = world.events("run").await;
        (events.len() >= 2).then_some(events)
    })
    .await;
    assert_eq!(events.iter().map(|(reason, _)| reason.as_str()).collect::<Vec<_>>(), ["Started", "Completed"]);
}

#[tokio::test]
async fn a_hundred_executions_cost_few_calls_and_writes_and_nothing_once_finished() {
    let world = World::new("hundred").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    next_second().await;
    world.api.forget_calls().await;
    let mut created = Vec::new();
    for n in 0..100 {
        created.push(
            world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": "slow", "input": { "n": n } })).await,
        );
    }
    for n in 0..created.len() {
        let done = world.wait_for_reason(&format!("run-{n}"), "Completed").await;
        assert_eq!(result(&done), Some(json!({ "n": n })));
    }
    let written = writes(&world, &created[0]).await;
    let calls = world.api.calls().await;
    let total = world.api.arrivals(None).await;
    println!("per execution, of 100: {:.2} writes, {:.2} calls", written as f64 / 100.0, total as f64 / 100.0);
    for call in &calls {
        println!("  {} {}: {}", call["method"], call["route"], call["arrivals"]);
    }
    assert_eq!(world.api.starts().await, 100);
    assert_eq!(world.api.executions().await.len(), 100);
    // Some runs end while the operator still waits for their end, which saves the second write.
    assert!((200..=300).contains(&written), "{written} writes: claim, started, finished");
    // With GETs of single runs instead of lists, there were 279 calls.
    assert!(total <= 270, "{calls:#?}");
    // The operator removes the finalizers later, with a delay.
    until(Duration::from_secs(180), "the finalizers to go", async || {
        let all = world.executions().list(&Default::default()).await.unwrap();
        all.items.iter().all(|object| object.finalizers().is_empty()).then_some(())
    })
    .await;
    // At rest, the operator makes no calls and no writes.
    world.api.forget_calls().await;
    let before = world.executions().list(&Default::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    let after = world.executions().list(&Default::default()).await.unwrap();
    let versions = |list: &kube::core::ObjectList<WorkflowExecution>| -> Vec<_> {
        list.items.iter().map(|object| object.resource_version()).collect()
    };
    assert_eq!(versions(&before), versions(&after));
    assert_eq!(world.api.arrivals(None).await, 0);
}

#[tokio::test]
async fn runs_that_end_at_once_take_two_writes_each() {
    let world = World::new("short").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let mut created = Vec::new();
    for n in 0..50 {
        created.push(world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": "echo" })).await);
    }
    for n in 0..created.len() {
        let done = world.wait_for_reason(&format!("run-{n}"), "Completed").await;
        assert!(is_true(&done, "Started") && is_true(&done, "Complete"));
    }
    let written = writes(&world, &created[0]).await;
    println!("per short execution, of 50: {:.2} writes", written as f64 / 50.0);
    // On a busy machine, a list may come too late for some runs.
    assert!(written < 125, "{written}");
    assert_eq!(world.api.starts().await, 50);
}

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

#[tokio::test]
async fn a_run_found_under_an_explicit_id_is_adopted_and_survives_the_deletion() {
    let world = World::new("explicit").await;
    let body = json!({ "execution_id": "nightly-1", "input": {} });
    world.api.call("POST", "/v1/workflows/hang/execute", Some(body)).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang", "executionId": "nightly-1" })).await;
    let adopted = world.wait_for_reason("run", "Running").await;
    assert_eq!(condition(&adopted, "Started").unwrap().reason, "Adopted");
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    assert_eq!(remote_status(&world, "nightly-1").await, "RUNNING");
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_resource_created_again_with_its_explicit_id_does_not_run_again() {
    let world = World::new("again").await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "echo", "executionId": "once", "input": { "n": 1 } });
    for _ in 0..2 {
        world.execute("run", spec.clone()).await;
        let done = world.wait_for_reason("run", "Completed").await;
        assert_eq!(result(&done), Some(json!({ "n": 1 })));
        world.delete("run").await;
        world.wait_until_gone("run", SOON).await;
    }
    assert_eq!(world.api.starts().await, 1);
    // Without an id it is a new run, as with a Job.
    for _ in 0..2 {
        world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
        world.wait_for_reason("run", "Completed").await;
        world.delete("run").await;
        world.wait_until_gone("run", SOON).await;
    }
    assert_eq!(world.api.starts().await, 3);
}

#[tokio::test]
async fn two_resources_on_one_id_are_one_run_even_if_it_ends_at_once_and_shows_late() {
    let world = World::new("two-quick").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(json!({ "faults": [], "hide_new_executions_ms": 20_000 })).await;
    for name in ["one", "two", "three"] {
        world.execute(name, json!({ "workflowIdentifier": "echo", "executionId": "shared" })).await;
    }
    for name in ["one", "two", "three"] {
        world.wait(name, Duration::from_secs(120), |object| ready_reason(object) == Some("Completed")).await;
    }
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_resource_created_again_at_once_does_not_run_its_explicit_id_again() {
    let world = World::new("again-quick").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.faults(json!({ "faults": [], "hide_new_executions_ms": 20_000 })).await;
    let spec = json!({ "workflowIdentifier": "echo", "executionId": "once", "deletionPolicy": "Orphan" });
    world.execute("run", spec.clone()).await;
    until(SOON, "the start", async || (world.api.starts().await == 1).then_some(())).await;
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    world.execute("run", spec).await;
    world.wait("run", Duration::from_secs(120), |object| ready_reason(object) == Some("Completed")).await;
    assert_eq!(world.api.starts().await, 1);
}

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
async fn two_resources_on_one_id_are_one_run() {
    let world = World::new("two").await;
    let _operator = world.operator();
    for name in ["one", "two"] {
        world.execute(name, json!({ "workflowIdentifier": "slow", "executionId": "shared" })).await;
    }
    for name in ["one", "two"] {
        world.wait_for_reason(name, "Completed").await;
    }
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn an_id_that_another_workflow_runs_under_is_refused() {
    let world = World::new("taken").await;
    let body = json!({ "execution_id": "taken", "input": {} });
    world.api.call("POST", "/v1/workflows/hang/execute", Some(body)).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo", "executionId": "taken" })).await;
    let refused = world.wait_for_reason("run", "ExecutionIDTaken").await;
    assert!(condition(&refused, "Ready").unwrap().message.contains("workflow \"hang\""));
    assert_eq!(world.api.starts().await, 1);
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

#[tokio::test]
async fn the_run_id_that_only_the_list_of_runs_tells_is_recorded_when_a_sweep_saw_it() {
    let world = World::new("sweep").await;
    let _operator = world.operator();
    for n in 0..20 {
        world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": "slow" })).await;
    }
    let mut told = 0;
    for n in 0..20 {
        let done = world.wait_for_reason(&format!("run-{n}"), "Completed").await;
        told += usize::from(status(&done).run_id.is_some());
    }
    assert!(told > 0, "no sweep noticed any of the ends");
    assert!(world.api.arrivals(Some(("GET", "/v1/workflows/runs"))).await > 0);
    assert!(world.api.arrivals(Some(GET)).await <= 20 * 4);
}
