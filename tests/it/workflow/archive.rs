//! Archiving many workflows at once, and conditions that warn before an execution is refused.

use super::*;

const BULK: (&str, &str) = ("PUT", "/v1/workflows/archive");
const LONE: (&str, &str) = ("PUT", "/v1/workflows/{workflow_identifier}/archive");

async fn many(world: &World, count: usize, spec: Value) {
    for n in 0..count {
        world.api.register(json!({ "name": format!("many-{n}") })).await;
    }
    let all = (0..count).map(|n| world.workflow(Box::leak(format!("many-{n}").into_boxed_str()), spec.clone()));
    futures::future::join_all(all).await;
    for n in 0..count {
        world.wait_for_workflow(&format!("many-{n}"), "InSync").await;
    }
}

async fn delete_all(world: &World) {
    world.workflows().delete_collection(&DeleteParams::default(), &Default::default()).await.unwrap();
    until(SOON, "all to be gone", async || {
        world.workflows().list(&Default::default()).await.unwrap().items.is_empty().then_some(())
    })
    .await;
}

async fn archived(world: &World) -> usize {
    let mut rows = 0;
    let mut cursor = String::new();
    loop {
        let page = world.api.call("GET", &format!("/v1/workflows?archived=true&limit=1000{cursor}"), None).await;
        rows += page["workflows"].as_array().unwrap().len();
        match page["next_cursor"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return rows,
        }
    }
}

/// How often a route was answered with which status.
async fn statuses(world: &World, (method, route): (&str, &str)) -> Vec<(String, u64)> {
    let rows = world.api.calls().await;
    let of_route = rows.iter().filter(|row| row["method"] == method && row["route"] == route);
    of_route
        .flat_map(|row| row["statuses"].as_object().unwrap())
        .map(|(status, count)| (status.clone(), count.as_u64().unwrap()))
        .collect()
}

#[tokio::test]
async fn deleting_five_hundred_archives_them_with_few_calls() {
    let world = World::new("wf-bulk").await;
    let _operator = world.operator();
    many(&world, 500, json!({ "deletionPolicy": "Archive" })).await;
    world.api.forget_calls().await;
    let began = std::time::Instant::now();
    delete_all(&world).await;
    let seconds = began.elapsed().as_secs();
    let (bulk, lone) = (world.api.arrivals(Some(BULK)).await, world.api.arrivals(Some(LONE)).await);
    println!(
        "500 archived by {bulk} calls for many and {lone} for one; {} calls in all",
        world.api.arrivals(None).await
    );
    assert_eq!(archived(&world).await, 500);
    // Five full calls, and some more on a machine that stalls.
    assert!(bulk + lone <= 6 + seconds / 2, "{bulk} and {lone} in {seconds} s");
}

#[tokio::test]
async fn what_the_spec_takes_out_of_the_archive_leaves_in_one_call_too() {
    let world = World::new("wf-unarchive").await;
    let _operator = world.operator();
    many(&world, 20, json!({ "archived": true })).await;
    assert_eq!(archived(&world).await, 20);
    world.api.forget_calls().await;
    let names: Vec<String> = (0..20).map(|n| format!("many-{n}")).collect();
    let all = names.iter().map(|name| world.patch_workflow(name, json!({ "archived": false })));
    futures::future::join_all(all).await;
    for name in &names {
        world.wait_for_workflow(name, "InSync").await;
    }
    assert_eq!(archived(&world).await, 0);
    let bulk = world.api.effects(Some(("PUT", "/v1/workflows/unarchive"))).await;
    let lone = world.api.effects(Some(("PUT", "/v1/workflows/{workflow_identifier}/unarchive"))).await;
    println!("20 taken out of the archive by {bulk} calls for many and {lone} for one");
    // On a slow machine, the changes do not all arrive at the same moment.
    assert!(bulk >= 1 && bulk + lone <= 5, "{bulk} and {lone}");
}

#[tokio::test]
async fn of_many_one_that_fails_is_the_only_one_concerned() {
    let world = World::new("wf-partial").await;
    let _operator = world.operator();
    many(&world, 10, json!({ "deletionPolicy": "Archive" })).await;
    world.api.unregister("many-3").await;
    world.api.forget_calls().await;
    delete_all(&world).await;
    assert_eq!(archived(&world).await, 9);
    // The one that failed is the only one that the API does not have; a sweep may have asked about it, too.
    let asked = statuses(&world, ("GET", GET)).await;
    assert!(matches!(&asked[..], [(status, 1..=3)] if status == "404"), "{asked:?}");
}

#[tokio::test]
async fn of_many_that_the_spec_archives_one_that_fails_says_so_and_the_others_are_in_order() {
    let world = World::new("wf-partial-spec").await;
    let _operator = world.operator();
    many(&world, 10, json!({})).await;
    let hold = json!({ "method": BULK.0, "route": BULK.1, "kind": { "hold": "before_effect" } });
    world.api.faults(json!({ "faults": [hold] })).await;
    world.api.forget_calls().await;
    let names: Vec<String> = (0..10).map(|n| format!("many-{n}")).collect();
    let all = names.iter().map(|name| world.patch_workflow(name, json!({ "archived": true })));
    futures::future::join_all(all).await;
    // The operator has read all workflows when one of them disappears.
    until(SOON, "all to wait for the call", async || {
        let asked = world.api.arrivals(Some(("GET", GET))).await >= 10;
        (asked && !world.api.held().await.is_empty()).then_some(())
    })
    .await;
    world.api.unregister("many-3").await;
    world.api.heal().await;
    let failed = world.wait_for_workflow("many-3", "ChangeRefused").await;
    let message = &workflow_condition(&failed, "Ready").unwrap().message;
    assert!(message.contains("archived"), "{message}");
    for name in names.iter().filter(|name| *name != "many-3") {
        world.wait_for_workflow(name, "InSync").await;
        assert!(!world.events(name).await.iter().any(|(reason, _)| reason == "ChangeRefused"), "{name}");
    }
    assert_eq!(archived(&world).await, 9);
}

#[tokio::test]
async fn a_call_for_many_that_fails_loses_none_and_a_lone_one_has_its_own_route() {
    let world = World::new("wf-bulk-fails").await;
    let _operator = world.operator();
    many(&world, 10, json!({ "deletionPolicy": "Archive" })).await;
    let broken = |kind: Value| json!({ "method": BULK.0, "route": BULK.1, "times": 1, "kind": kind });
    // One call fails without effect. The other takes effect, but its answer is lost.
    let faults = [broken(json!({ "error": { "status": 503 } })), broken(json!({ "close": "after_effect" }))];
    world.api.faults(json!({ "faults": faults })).await;
    world.workflows().delete("many-0", &DeleteParams::default()).await.unwrap();
    until(SOON, "the lone one", async || world.workflows().get_opt("many-0").await.unwrap().is_none().then_some(()))
        .await;
    assert_eq!((world.api.arrivals(Some(LONE)).await, world.api.arrivals(Some(BULK)).await), (1, 0));
    delete_all(&world).await;
    assert_eq!(archived(&world).await, 10);
}

#[tokio::test]
async fn a_workflow_registered_anew_or_elsewhere_is_asked_about_before_its_deletion_archives_it() {
    let world = World::new("wf-anew").await;
    let _operator = world.operator();
    many(&world, 1, json!({ "deletionPolicy": "Archive" })).await;
    world.api.unregister("many-0").await;
    world.api.register(json!({ "name": "many-0" })).await;
    world.workflows().delete("many-0", &DeleteParams::default()).await.unwrap();
    until(SOON, "the deletion", async || world.workflows().get_opt("many-0").await.unwrap().is_none().then_some(()))
        .await;
    assert_eq!(at_the_api(&world, "many-0").await["archived"], true);
}

#[tokio::test]
async fn two_active_deployments_are_announced_before_an_execution_is_refused() {
    let world = World::new("wf-ambiguous").await;
    world.resync("5s").await;
    world.api.register(json!({ "name": "twice" })).await;
    let _operator = world.operator();
    world.workflow("twice", json!({})).await;
    let well = world.wait_for_workflow("twice", "InSync").await;
    assert_eq!(workflow_condition(&well, "Ambiguous"), None);
    let deployments = json!([{ "name": "blue" }, { "name": "green" }, { "name": "old", "active": false }]);
    world.api.register(json!({ "name": "twice", "deployments": deployments })).await;
    let told = |object: &Workflow| workflow_condition(object, "Ambiguous").is_some();
    let ambiguous = world.wait_workflow("twice", SOON, told).await;
    let message = &workflow_condition(&ambiguous, "Ambiguous").unwrap().message;
    assert!(message.contains("(blue, green)") && message.contains("deploymentName"), "{message}");
    assert_eq!(ambiguous.status.as_ref().unwrap().conditions.iter().filter(|it| it.type_ == "Ready").count(), 1);
    world.api.register(json!({ "name": "twice", "deployments": [{ "name": "blue" }] })).await;
    world.wait_workflow("twice", SOON, |object| workflow_condition(object, "Ambiguous").is_none()).await;
    let events = world.events("twice").await;
    assert_eq!(events.iter().filter(|(reason, _)| reason == "SeveralDeployments").count(), 1, "{events:?}");
}
