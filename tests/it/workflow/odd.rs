//! Whatever workers and users register and name, however odd, deep or long, costs nobody else anything.

use super::*;

const LIST: (&str, &str) = ("GET", "/v1/workflows");
const REGISTRATIONS: (&str, &str) = ("GET", "/v1/workflows/registrations");

fn deep(levels: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

async fn tagged(world: &World, name: &str, tag: &str) {
    until(SOON, &format!("the tag of {name}"), async || {
        (at_the_api(world, name).await["tags"] == json!([tag])).then_some(())
    })
    .await;
}

/// Somebody else changes the tags of this workflow, and the operator sets them back.
async fn drift_is_corrected(world: &World, name: &str) {
    world.api.edit(name, json!({ "tags": ["theirs"] })).await;
    tagged(world, name, "ours").await;
}

async fn sweeps(world: &World, number: u64) {
    let done = async || world.api.arrivals(Some(REGISTRATIONS)).await;
    let before = done().await;
    until(SOON, "sweeps", async || (done().await > before + number).then_some(())).await;
}

#[tokio::test]
async fn a_schema_of_any_depth_number_or_text_costs_only_itself_and_that_it_is_left_out_is_said() {
    let world = World::new("wf-deep").await;
    world.resync("5s").await;
    let odd = [
        ("deep-119", deep(119), "nested 119 levels deep"),
        ("deep-1000", deep(1000), "nested 1000 levels deep"),
        ("number", r#"{"maximum":1e400}"#.to_owned(), "1e400"),
        ("half", r#"{"title":"\udce9"}"#.to_owned(), "half of a character"),
    ];
    for (name, schema, _) in &odd {
        world.api.register(json!({ "name": name, "raw_input_schema": schema, "signals": [{ "name": "stop" }] })).await;
    }
    {
        let _operator = world.operator();
        for name in ["echo", "slow"] {
            world.workflow(name, json!({ "tags": ["ours"] })).await;
        }
        for (name, _, words) in &odd {
            world.workflow(name, json!({})).await;
            let says = |object: &Workflow| {
                let definition = workflow_status(object).definition.unwrap_or_default();
                definition.signals == ["stop"]
                    && definition.input_schema.is_none()
                    && definition.schemas_omitted.is_some_and(|said| said.contains(words))
            };
            world.wait_workflow(name, SOON, says).await;
            world.wait_for_workflow(name, "InSync").await;
        }
        for name in ["echo", "slow"] {
            let object = world.wait_for_workflow(name, "InSync").await;
            assert!(workflow_status(&object).definition.unwrap().input_schema.is_some());
        }
        // The lists of all workflows contain these schemas too.
        drift_is_corrected(&world, "echo").await;
    }
    // The Workflows' own statuses do not impede the next operator either.
    let _operator = world.operator();
    drift_is_corrected(&world, "slow").await;
    world.workflow("fail", json!({})).await;
    world.wait_for_workflow("fail", "InSync").await;
}

#[tokio::test]
async fn a_status_with_a_deep_schema_from_another_version_hides_no_workflow_and_is_written_anew() {
    let world = World::new("wf-old-deep").await;
    world.workflow("echo", json!({})).await;
    let patch = format!(r#"{{"status":{{"definition":{{"registrationId":"old","inputSchema":{}}}}}}}"#, deep(1000));
    let (text, well) =
        world.kubectl(&["patch", "workflow", "echo", "--subresource=status", "--type=merge", "-p", &patch]).await;
    assert!(well, "{text}");
    let _operator = world.operator();
    world.workflow("slow", json!({})).await;
    world.wait_for_workflow("slow", "InSync").await;
    until(SOON, "a new status", async || {
        let object = world.workflows().get("echo").await.ok()?;
        workflow_status(&object).definition.filter(|it| it.registration_id != "old" && it.input_schema.is_some())
    })
    .await;
}

#[tokio::test]
async fn a_row_that_cannot_be_read_hides_no_other_and_nothing_follows_from_what_is_not_listed() {
    let world = World::new("wf-odd-row").await;
    world.resync("5s").await;
    world.api.register(json!({ "name": "goes" })).await;
    let process = world.process(&[]);
    let discover = kube::api::Patch::Merge(json!({ "spec": { "discovery": "Observe" } }));
    world.workspaces().patch("default", &Default::default(), &discover).await.unwrap();
    for name in ["echo", "slow"] {
        world.workflow(name, json!({ "tags": ["ours"] })).await;
        world.wait_for_workflow(name, "InSync").await;
    }
    let discovered = async |workflow: &str| {
        let all = world.workflows().list(&Default::default()).await.unwrap().items;
        all.into_iter().find(|it| it.name_any().starts_with(&format!("{workflow}-"))).map(|it| it.name_any())
    };
    let goes = until(SOON, "a resource", async || discovered("goes").await).await;

    world.api.switches(json!({ "odd_workflow_rows": [7, { "id": 7, "name": "odd" }] })).await;
    drift_is_corrected(&world, "echo").await;
    world.api.unregister("goes").await;
    world.api.register(json!({ "name": "comes" })).await;
    until(SOON, "a resource", async || discovered("comes").await).await;
    sweeps(&world, 3).await;
    assert!(world.workflows().get_opt(&goes).await.unwrap().is_some(), "the row that cannot be read may be its");
    for name in ["echo", "slow"] {
        world.wait_for_workflow(name, "InSync").await;
    }
    let said = process.log().matches("the list of workflows has 2 rows that cannot be read").count();
    assert_eq!(said, 1, "once, not with each sweep");
    let incomplete = async || {
        let status = world.workspaces().get("default").await.unwrap().status.unwrap();
        let condition = status.conditions.into_iter().find(|condition| condition.type_ == "DiscoveryIncomplete");
        condition.map(|condition| condition.message)
    };
    let message = until(SOON, "the condition", incomplete).await;
    assert!(message.contains("to its end: it has 2 rows that cannot be read"), "{message}");

    world.api.switches(json!({})).await;
    until(SOON, "the removal", async || world.workflows().get_opt(&goes).await.unwrap().is_none().then_some(())).await;
    until(SOON, "the condition's end", async || incomplete().await.is_none().then_some(())).await;
}

#[tokio::test]
async fn a_list_whose_pages_are_too_long_is_read_in_shorter_ones_and_they_are_remembered() {
    let world = World::new("wf-long-page").await;
    world.resync("5s").await;
    let description = "x".repeat(16_000);
    for n in 0..600 {
        world.api.register(json!({ "name": format!("long-{n}"), "description": description })).await;
    }
    let _operator = world.operator();
    for name in ["echo", "slow"] {
        world.workflow(name, json!({ "tags": ["ours"] })).await;
        world.wait_for_workflow(name, "InSync").await;
    }
    sweeps(&world, 1).await;
    drift_is_corrected(&world, "echo").await;
    world.api.forget_calls().await;
    sweeps(&world, 4).await;
    let (lists, rest) = (world.api.arrivals(Some(LIST)).await, world.api.arrivals(Some(REGISTRATIONS)).await);
    // Of 604 workflows, two pages; of those with a worker, two; of those in the chat assistant, one. Of 604
    // registrations, four.
    assert!(lists <= (rest / 4 + 2) * 6, "{lists} calls for workflows while there were {rest} for registrations");
}

#[tokio::test]
async fn sweeps_that_keep_failing_are_a_condition_of_the_workspace_until_one_succeeds() {
    let world = World::new("wf-unseen").await;
    world.resync("5s").await;
    let _operator = world.operator();
    for name in ["echo", "slow"] {
        world.workflow(name, json!({ "tags": ["ours"] })).await;
        world.wait_for_workflow(name, "InSync").await;
    }
    sweeps(&world, 1).await;
    let body = json!({ "detail": "the index is being rebuilt" });
    let fail = json!({ "method": "GET", "route": LIST.1, "kind": { "error": { "status": 503, "body": body } } });
    world.api.faults(json!({ "faults": [fail] })).await;
    let conditions = async || world.workspaces().get("default").await.unwrap().status.unwrap().conditions;
    let unseen = async || conditions().await.into_iter().find(|condition| condition.type_ == "DriftUnseen");
    let told = until(SOON, "the condition", unseen).await;
    assert_eq!((told.status.as_str(), told.reason.as_str()), ("True", "ListsFailed"));
    for words in [
        "has not seen changes in Mistral since 20",
        "the index is being rebuilt (HTTP 503)",
        "tries again every minute",
    ] {
        assert!(told.message.contains(words), "{words} in: {}", told.message);
    }
    let arrivals = async || world.api.arrivals(Some(LIST)).await;
    let before = arrivals().await;
    until(SOON, "another attempt", async || (arrivals().await > before).then_some(())).await;
    world.wait_for_workspace("default", "Connected").await;
    assert_eq!(unseen().await, Some(told));
    world.api.heal().await;
    until(SOON, "the condition's end", async || unseen().await.is_none().then_some(())).await;
    let events = world.events("default").await;
    assert_eq!(events.iter().filter(|(reason, _)| reason == "ListsFailed").count(), 1, "{events:?}");
}

#[tokio::test]
async fn thousands_of_registrations_with_long_schemas_take_little_memory() {
    if !cfg!(target_os = "linux") {
        println!("SKIPPED: what a process takes is read from /proc, which only Linux has");
        return;
    }
    let world = World::new("wf-many-versions").await;
    world.resync("1h").await;
    let properties = (0..450).map(|n| (format!("p{n}"), json!({ "type": "string", "title": n.to_string() })));
    let schema = json!({ "type": "object", "properties": properties.collect::<serde_json::Map<_, _>>() });
    assert!((16_000..20_000).contains(&schema.to_string().len()));
    let deployments: Vec<Value> = (0..5000).map(|n| json!({ "name": format!("d{n}") })).collect();
    world.api.register(json!({ "name": "many", "input_schema": schema, "deployments": deployments })).await;
    let process = world.process_with(&["--log-level", "info"], &[]);
    world.wait_for_workspace("default", "Connected").await;
    world.workflow("many", json!({})).await;
    let read = |object: &Workflow| workflow_status(object).definition.is_some();
    let object = world.wait_workflow("many", 3 * SOON, read).await;
    let status = workflow_status(&object);
    assert_eq!(status.registrations.len(), 20);
    assert!(status.registrations.iter().all(|row| row.active));
    let definition = status.definition.unwrap();
    assert_eq!(definition.registration_id, status.registrations[0].id);
    assert!(definition.input_schema.is_some());
    assert!(workflow_condition(&object, "Ambiguous").unwrap().message.contains("and 4990 more"));
    let most = crate::idle::memory(process.child.pid(), "VmHWM");
    println!("{most:.0} MiB at most for 5000 registrations of 16 KiB");
    assert!(most < 150.0, "{most:.0} MiB");
}
