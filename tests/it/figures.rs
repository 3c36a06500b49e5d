//! The figures of `docs/internals/scale.md`: what many resources cost, in calls, writes, time and memory.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kube::ResourceExt;
use kube::api::ListParams;
use serde_json::json;

use crate::idle::memory;
use crate::support::*;

/// How long a thousand resources may take on a busy machine.
const LONG: Duration = Duration::from_secs(900);
/// The number of concurrent requests of the test itself.
const AT_ONCE: usize = 16;
/// High enough that the budget does not limit the measurement.
const FAST: [&str; 4] = ["--log-level", "info", "--max-requests-per-second", "1000"];

/// Calls `what` for each number below `count`, several at a time.
async fn each(count: usize, what: impl AsyncFn(usize)) {
    stream::iter(0..count).for_each_concurrent(AT_ONCE, async |n| what(n).await).await;
}

/// Prints the calls to the API by route, in total and for each of `count`.
async fn calls(world: &World, count: usize) {
    for call in world.api.calls().await {
        let arrivals = call["arrivals"].as_u64().unwrap();
        let (method, route) = (call["method"].as_str().unwrap(), call["route"].as_str().unwrap());
        println!("  {method} {route}: {arrivals}, {:.3} each", arrivals as f64 / count as f64);
    }
    let all = world.api.arrivals(None).await;
    println!("  calls in all: {all}, {:.3} each", all as f64 / count as f64);
}

/// Writes that the API server has counted so far, by verb, resource and status code.
async fn writes(world: &World) -> BTreeMap<String, u64> {
    let (text, ok) = world.kubectl(&["get", "--raw", "/metrics"]).await;
    assert!(ok, "{text}");
    let mut writes = BTreeMap::new();
    for line in text.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let value = line.split_once(&format!("{name}=\"")).unwrap().1;
            value.split_once('"').unwrap().0
        };
        let group = label("group");
        let ours = group == "workflows.mistral.ai" || group == "events.k8s.io";
        if ours && ["POST", "PUT", "PATCH", "APPLY", "DELETE"].contains(&label("verb")) {
            let subresource = label("subresource");
            let slash = if subresource.is_empty() { "" } else { "/" };
            let what = format!("{} {}{slash}{subresource} {}", label("verb"), label("resource"), label("code"));
            *writes.entry(what).or_default() += line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap() as u64;
        }
    }
    writes
}

async fn print_writes_since(world: &World, before: &BTreeMap<String, u64>, count: usize) {
    for (what, now) in writes(world).await {
        let more = now - before.get(&what).copied().unwrap_or_default();
        if more > 0 {
            println!("  {what}: {more}, {:.3} each", more as f64 / count as f64);
        }
    }
}

/// Checks every two seconds whether `number` has reached `count`. A list of a thousand costs the API server as much as
/// the operation that is measured.
async fn wait_for(what: &str, count: usize, number: impl AsyncFn() -> kube::Result<usize>) {
    let begun = Instant::now();
    loop {
        match number().await {
            Ok(number) if number == count => return,
            now => assert!(begun.elapsed() < LONG, "waited in vain for {what}; {now:?} of {count}"),
        }
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
}

fn build() -> &'static str {
    if cfg!(debug_assertions) { "debug build" } else { "release build" }
}

fn print_memory(process: &Process, when: &str) {
    let (all, own) = (memory(process.child.pid(), "VmRSS"), memory(process.child.pid(), "RssAnon"));
    println!("{when}, {}: RSS {all:.1} MiB, of it anonymous {own:.1} MiB", build());
}

async fn in_sync(world: &World) -> kube::Result<usize> {
    let all = world.workflows().list(&ListParams::default()).await?;
    let is_in_sync = |object: &&_| {
        let current = workflow_status(object).observed_generation == object.metadata.generation;
        current && workflow_condition(object, "Ready").is_some_and(|ready| ready.reason == "InSync")
    };
    Ok(all.iter().filter(is_in_sync).count())
}

/// `count` Workflows in a Mistral workspace without other workflows: at rest, and after a change of each.
async fn workflows(count: usize) {
    println!("--- {count} Workflows");
    let world = World::new("figures-workflows").await;
    for name in ["echo", "slow", "hang", "fail"] {
        world.api.unregister(name).await;
    }
    world.resync("1h").await;
    let process = world.process_with(&FAST, &[]);
    world.wait_for_workspace("default", "Connected").await;
    let name = |n| format!("w{n}");
    each(count, async |n| {
        world.api.register(json!({ "name": name(n) })).await;
    })
    .await;
    world.api.forget_calls().await;
    let begun = Instant::now();
    each(count, async |n| {
        world.workflow(&name(n), json!({ "tags": ["a"] })).await;
    })
    .await;
    wait_for("all in sync", count, async || in_sync(&world).await).await;
    println!("created, with a tag to set, and all in sync after {:.1?}", begun.elapsed());
    calls(&world, count).await;
    print_memory(&process, "at rest");

    world.api.forget_calls().await;
    let before = writes(&world).await;
    let begun = Instant::now();
    each(count, async |n| {
        world.patch_workflow(&name(n), json!({ "tags": ["b"] })).await;
    })
    .await;
    let applied = begun.elapsed();
    wait_for("all in sync again", count, async || in_sync(&world).await).await;
    println!("a changed tag of each: applied within {applied:.1?}, all in sync after {:.1?}", begun.elapsed());
    calls(&world, count).await;
    print_writes_since(&world, &before, count).await;
    print_memory(&process, "after that");

    // Until then, sweeps may still compare with lists from before the last change.
    tokio::time::sleep(Duration::from_secs(10)).await;
    world.resync("10s").await;
    let swept = async || world.api.arrivals(Some(("GET", "/v1/workflows/registrations"))).await > 0;
    for resync in 1..=3 {
        world.api.forget_calls().await;
        until(LONG, "a resync", async || swept().await.then_some(())).await;
        tokio::time::sleep(Duration::from_secs(3)).await;
        println!("resync {resync}:");
        calls(&world, count).await;
    }
    print_memory(&process, "after three resyncs");
}

#[tokio::test]
#[ignore = "minutes, for docs/internals/scale.md: cargo test --release --test it figures_of_workflows -- --ignored --nocapture"]
async fn figures_of_workflows() {
    for count in [10, 100, 1000] {
        workflows(count).await;
    }
}

/// `count` executions of one workflow, all healthy, until their finalizers are removed.
async fn executions(count: usize, workflow: &str) {
    println!("--- {count} executions of {workflow}");
    let world = World::new("figures-executions").await;
    let process = world.process_with(&FAST, &[]);
    world.wait_for_workspace("default", "Connected").await;
    world.api.forget_calls().await;
    let before = writes(&world).await;
    let begun = Instant::now();
    each(count, async |n| {
        world.execute(&format!("run-{n}"), json!({ "workflowIdentifier": workflow, "input": { "n": n } })).await;
    })
    .await;
    let created = begun.elapsed();
    let number = async |is: fn(&WorkflowExecution) -> bool| {
        let all = world.executions().list(&ListParams::default()).await?;
        kube::Result::Ok(all.iter().filter(|object| is(object)).count())
    };
    wait_for("all to complete", count, async || number(|object| is_true(object, "Complete")).await).await;
    println!("created within {created:.1?}, all complete after {:.1?}", begun.elapsed());
    assert_eq!(world.api.starts().await, u64::try_from(count).unwrap());
    calls(&world, count).await;
    wait_for("the finalizers to go", count, async || number(|object| object.finalizers().is_empty()).await).await;
    print_writes_since(&world, &before, count).await;
    print_memory(&process, "with all of them finished");
}

#[tokio::test]
#[ignore = "minutes, for docs/internals/scale.md: cargo test --release --test it figures_of_executions -- --ignored --nocapture"]
async fn figures_of_executions() {
    executions(1000, "echo").await;
    executions(1000, "slow").await;
}
