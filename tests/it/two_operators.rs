//! Two operators with different settings over one namespace.

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
