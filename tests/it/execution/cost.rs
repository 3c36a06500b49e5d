//! What an execution costs in calls and writes.

use futures::{StreamExt, TryStreamExt};
use kube::api::{WatchEvent, WatchParams};

use super::*;

const GET: (&str, &str) = ("GET", "/v1/workflows/executions/{execution_id}");

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
