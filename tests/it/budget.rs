//! How many calls the operator sends with a key, in which order, and which calls wait for others.

use std::time::{Duration, Instant};

use futures::StreamExt;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const CANCEL: (&str, &str) = ("POST", "/v1/workflows/executions/{execution_id}/cancel");

/// Creates `number` executions with this spec, several at a time.
async fn execute_many(world: &World, prefix: &str, number: usize, spec: Value) {
    let creating = (0..number).map(|n| {
        let spec = spec.clone();
        async move { world.execute(&format!("{prefix}-{n}"), spec).await }
    });
    futures::stream::iter(creating).buffer_unordered(16).for_each(|_| async {}).await;
}

async fn limit(world: &World, workspace: &str, requests_per_second: u32) {
    let patch = Patch::Merge(json!({ "spec": { "requestsPerSecond": requests_per_second } }));
    world.workspaces().patch(workspace, &PatchParams::default(), &patch).await.unwrap();
}

/// Samples of the simulator's ledger until `done`: the time when the ledger answered, and the calls that had arrived by
/// then.
struct Arrivals(Vec<(Duration, u64)>);

impl Arrivals {
    async fn watch(world: &World, limit: Duration, mut done: impl AsyncFnMut() -> bool) -> Self {
        let (begun, before) = (Instant::now(), world.api.arrivals(None).await);
        let mut seen = Vec::new();
        loop {
            let over = done().await;
            let calls = world.api.arrivals(None).await - before;
            seen.push((begun.elapsed(), calls));
            if over {
                return Self(seen);
            }
            assert!(begun.elapsed() < limit, "waited in vain; {seen:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Asserts that there were never more than `per_second` calls a second, apart from a burst of `at_once`. Counts
    /// from a quiet start, so that late calls do not look like too many.
    fn assert_at_most(&self, per_second: f64, at_once: f64) {
        for (after, calls) in &self.0 {
            let most = at_once + per_second * after.as_secs_f64();
            assert!(*calls as f64 <= most, "{calls} calls after {after:?}: {:?}", self.0);
        }
    }

    fn last(&self) -> (Duration, u64) {
        self.0[self.0.len() - 1]
    }
}

async fn finished(world: &World) -> usize {
    let all = world.executions().list(&kube::api::ListParams::default()).await.unwrap();
    all.iter().filter(|object| is_finished(object)).count()
}

#[tokio::test]
async fn three_hundred_executions_never_make_more_calls_than_the_limit_and_all_complete() {
    let world = World::new("rate").await;
    limit(&world, "default", 50).await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    next_second().await;
    let creating = execute_many(&world, "run", 300, json!({ "workflowIdentifier": "echo" }));
    let all = async || finished(&world).await == 300;
    let ((), arrivals) = futures::join!(creating, Arrivals::watch(&world, Duration::from_secs(180), all));
    arrivals.assert_at_most(50.0, 10.0);
    let (took, calls) = arrivals.last();
    println!("300 executions: {calls} calls in {took:?}");
    assert_eq!(world.api.starts().await, 300);
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 300);
}

#[tokio::test]
async fn an_execution_that_waits_for_its_turn_says_so_and_starts_by_itself() {
    let world = World::new("queued").await;
    limit(&world, "default", 1).await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    execute_many(&world, "run", 20, json!({ "workflowIdentifier": "echo" })).await;
    let queued = until(SOON, "no blank row", async || {
        let all = world.executions().list(&kube::api::ListParams::default()).await.unwrap();
        let is_blank = |object: &WorkflowExecution| ready_reason(object).is_none() && status(object).status.is_none();
        let any_blank = all.iter().any(is_blank);
        (!any_blank).then_some(all)
    })
    .await;
    // Unit tests hold when a row has to say something. Here it is soon enough that several still wait.
    let waiting: Vec<_> = queued.iter().filter(|object| ready_reason(object) == Some("Queued")).collect();
    assert!(waiting.len() >= 4, "{} of 20 wait", waiting.len());
    for object in waiting {
        let said = &condition(object, "Ready").unwrap().message;
        assert!(said.contains("API key") && said.contains("limit is 1 a second"), "{said}");
        assert_eq!(status(object).workflow_name.as_deref(), Some("echo"));
        assert!(is_true(object, "Reconciling"));
    }
    until(Duration::from_secs(120), "all to end", async || (finished(&world).await == 20).then_some(())).await;
    assert_eq!(world.api.starts().await, 20);
}

#[tokio::test]
async fn a_stop_gets_through_within_seconds_while_hundreds_of_starts_wait() {
    let world = World::new("stops").await;
    limit(&world, "default", 2).await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.execute("first", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("first", "Running").await;
    execute_many(&world, "run", 200, json!({ "workflowIdentifier": "hang", "deletionPolicy": "Orphan" })).await;
    let begun = Instant::now();
    world.delete("first").await;
    until(SOON, "the stop", async || (world.api.arrivals(Some(CANCEL)).await > 0).then_some(())).await;
    let took = begun.elapsed();
    let starts = world.api.arrivals(Some(EXECUTE)).await;
    println!("the stop came after {took:?}; {starts} of 201 had started by then");
    // Behind the starts, the stop would have taken a minute and a half.
    assert!(took < Duration::from_secs(30), "the stop came after {took:?}");
    assert!(starts < 150, "nothing waited: {starts} had started");
    world.wait_until_gone("first", SOON).await;
}

#[tokio::test]
async fn after_a_429_no_call_of_that_key_leaves_before_retry_after_and_all_complete_afterwards() {
    let world = World::new("refused").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let refuse = json!({ "error": { "status": 429, "headers": { "Retry-After": "15" } } });
    let fault = json!({ "method": EXECUTE.0, "route": EXECUTE.1, "times": 1, "kind": refuse });
    world.api.faults(json!({ "faults": [fault] })).await;
    world.execute("first", json!({ "workflowIdentifier": "echo" })).await;
    until(SOON, "the refusal", async || (world.api.arrivals(Some(EXECUTE)).await > 0).then_some(())).await;
    let refused = Instant::now();
    // The answer is still on its way.
    tokio::time::sleep(Duration::from_millis(500)).await;
    let calls = world.api.arrivals(None).await;
    execute_many(&world, "run", 30, json!({ "workflowIdentifier": "echo" })).await;
    let throttled = until(SOON, "the condition", async || {
        let status = world.workspaces().get("default").await.unwrap().status.unwrap();
        status.conditions.iter().find(|condition| condition.type_ == "Throttled").cloned()
    })
    .await;
    assert_eq!((throttled.status.as_str(), throttled.reason.as_str()), ("True", "RateLimited"));
    assert!(throttled.message.contains("429") && throttled.message.contains("requestsPerSecond"));
    while refused.elapsed() < Duration::from_secs(14) {
        assert_eq!(world.api.arrivals(None).await, calls, "called after {:?}", refused.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    until(Duration::from_secs(120), "all 31", async || (finished(&world).await == 31).then_some(())).await;
    assert!(world.api.executions().await.iter().all(|run| run["starts"] == 1));
    let workspace = world.wait_for_workspace("default", "Connected").await;
    let ready = workspace.status.unwrap().conditions.into_iter().find(|condition| condition.type_ == "Ready").unwrap();
    assert_eq!(ready.status, "True");
    assert_eq!(world.events("default").await.iter().filter(|(reason, _)| reason == "RateLimited").count(), 1);
}

#[tokio::test]
async fn a_tenant_whose_api_hangs_slows_down_no_other() {
    let world = World::new("hangs").await;
    world.secret("other", "api-key", "canary-other-5f1c6a0e9d").await;
    let other = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace", "metadata": { "name": "other" },
        "spec": { "baseURL": world.api.url, "auth": { "apiKeySecretRef": { "name": "other", "key": "api-key" } } },
    });
    world.api.admit("canary-other-5f1c6a0e9d", "other").await;
    let other = serde_json::from_value(other).unwrap();
    world.workspaces().create(&kube::api::PostParams::default(), &other).await.unwrap();
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.wait_for_workspace("other", "Connected").await;
    let hang = json!({ "workspace": "other", "method": "POST", "kind": { "hold": "before_effect" } });
    world.api.faults(json!({ "faults": [hang] })).await;
    let stuck =
        json!({ "workflowIdentifier": "echo", "workspaceRef": { "name": "other" }, "deletionPolicy": "Orphan" });
    execute_many(&world, "stuck", 110, stuck).await;
    until(SOON, "calls that hang", async || (world.api.held().await.len() >= 96).then_some(())).await;
    let begun = Instant::now();
    execute_many(&world, "run", 20, json!({ "workflowIdentifier": "echo" })).await;
    until(SOON, "those of the other", async || (finished(&world).await >= 20).then_some(())).await;
    println!("20 executions beside an API that hangs took {:?}", begun.elapsed());
    assert!(world.api.held().await.len() >= 96, "they did not hang all the time");
    world.api.heal().await;
}

#[tokio::test]
async fn two_workspaces_with_one_key_share_one_budget_and_the_smaller_limit() {
    let world = World::new("shared").await;
    world.workspace("second", &world.api.url).await;
    limit(&world, "second", 10).await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.wait_for_workspace("second", "Connected").await;
    next_second().await;
    let second = json!({ "workflowIdentifier": "echo", "workspaceRef": { "name": "second" } });
    let creating = async {
        execute_many(&world, "a", 25, json!({ "workflowIdentifier": "echo" })).await;
        execute_many(&world, "b", 25, second).await;
    };
    let all = async || finished(&world).await == 50;
    let ((), arrivals) = futures::join!(creating, Arrivals::watch(&world, Duration::from_secs(180), all));
    arrivals.assert_at_most(10.0, 2.0);
    println!("50 executions of two Workspaces: {:?}", arrivals.last());
}

#[tokio::test]
async fn only_limits_from_1_to_1000_are_taken() {
    let world = World::new("limits").await;
    for (wish, taken) in [(0, false), (1, true), (1000, true), (1001, false)] {
        let patch = Patch::Merge(json!({ "spec": { "requestsPerSecond": wish } }));
        let outcome = world.workspaces().patch("default", &PatchParams::default(), &patch).await;
        assert_eq!(outcome.is_ok(), taken, "{wish}");
    }
}
