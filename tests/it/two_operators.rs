//! Two operators over one namespace, each of which takes itself for the leader.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use kube::ResourceExt;
use kube::api::{WatchEvent, WatchParams};
use serde_json::json;

use super::support::{SOON, World, until};

/// How long changes are counted.
const COUNTED: Duration = Duration::from_secs(20);

#[tokio::test]
async fn two_that_disagree_write_a_status_seldom_and_say_so_and_start_each_run_once() {
    let world = World::new("two-operators").await;
    let _ours = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let theirs = world.operator_with(|config| config.allow_base_urls = vec!["https://api.mistral.ai".parse().unwrap()]);
    until(SOON, "an Event about the contest", async || {
        let events = world.events("default").await;
        events.into_iter().find(|(reason, note)| reason == "StatusContested" && note.contains("second operator"))
    })
    .await;
    // Both have used up their bursts at most a few moments later.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let changes = changes(&world).await;
    // Each writes once in ten seconds.
    assert!((1..=8).contains(&changes), "{changes} changes in {} s", COUNTED.as_secs());

    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    assert_eq!(world.api.starts().await, 1);

    drop(theirs);
    world.execute("later", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("later", "Completed").await;
    world.wait_for_workspace("default", "Connected").await;
    assert_eq!(world.api.starts().await, 2);
}

/// How often the Workspace changes within [`COUNTED`].
async fn changes(world: &World) -> usize {
    let version = world.workspaces().get("default").await.unwrap().resource_version().unwrap();
    let watch = world.workspaces().watch(&WatchParams::default(), &version).await.unwrap();
    let changes = watch.try_filter(|event| std::future::ready(matches!(event, WatchEvent::Modified(_))));
    changes.take_until(tokio::time::sleep(COUNTED)).count().await
}

#[tokio::test]
async fn two_that_both_lead_start_each_run_once_also_where_answers_are_lost() {
    let world = World::new("two-leaders").await;
    let kind = json!({ "close": "after_effect" });
    let lost = json!({ "method": "POST", "route": "/v1/workflows/echo/execute", "rate": 0.5, "kind": kind });
    world.api.faults(json!({ "faults": [lost], "hide_new_executions_ms": 5000, "seed": 7 })).await;
    let _first = world.operator();
    let _second = world.operator();
    let names: Vec<String> = (0..30).map(|number| format!("run-{number}")).collect();
    for name in &names {
        world.execute(name, json!({ "workflowIdentifier": "echo" })).await;
    }
    for name in &names {
        world.wait_for_reason(name, "Completed").await;
    }
    let runs = world.api.executions().await;
    assert_eq!(runs.len(), names.len());
    for run in runs {
        assert_eq!(run["starts"], 1, "{run}");
    }
}
