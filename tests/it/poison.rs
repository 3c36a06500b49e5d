//! Objects that are too deep, too long or too odd to be decoded harm only themselves.

use cluster::ControlPlane;
use kube::Resource;
use kube::api::Request;
use serde_json::json;

use crate::setup::move_to;
use crate::support::*;

/// An object with this many levels, as text.
fn nested(levels: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

/// Creates an execution with this input. Sent as text, because no type here could hold the input.
async fn create(world: &World, name: &str, workflow: &str, input: &str, suspend: bool) {
    let text = format!(
        r#"{{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"WorkflowExecution","metadata":{{"name":"{name}"}},
        "spec":{{"workflowIdentifier":"{workflow}","suspend":{suspend},"input":{input}}}}}"#
    );
    let resource = Request::new(WorkflowExecution::url_path(&(), Some(&world.namespace)));
    let request = resource.create(&Default::default(), text.into_bytes()).unwrap();
    world.client.request_text(request).await.unwrap();
}

/// The execution as text, because no type here could hold it.
async fn text(world: &World, name: &str) -> Option<String> {
    let resource = Request::new(WorkflowExecution::url_path(&(), Some(&world.namespace)));
    world.client.request_text(resource.get(name, &Default::default()).unwrap()).await.ok()
}

async fn delete(world: &World, name: &str) {
    let resource = Request::new(WorkflowExecution::url_path(&(), Some(&world.namespace)));
    world.client.request_text(resource.delete(name, &Default::default()).unwrap()).await.unwrap();
    until(SOON, "the deletion", async || text(world, name).await.is_none().then_some(())).await;
}

async fn ready(process: &Process) {
    until(SOON, "readiness", async || process.ask("/readyz").await.filter(|(code, _)| *code == 200)).await;
}

#[tokio::test]
async fn an_execution_of_any_depth_keeps_no_other_from_being_run_before_and_after_a_restart() {
    let world = World::new("deep").await;
    let process = world.process(&[]);
    ready(&process).await;
    // The API server mirrors each depth in managedFields.
    for levels in [60, 119, 120, 121, 122, 123, 124, 125, 126, 127, 128, 500, 4900] {
        create(&world, &format!("held-{levels}"), "echo", &nested(levels), true).await;
    }
    world.execute("beside", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("beside", "Completed").await;
    for levels in [120, 4900] {
        let name = format!("held-{levels}");
        until(SOON, "a condition", async || text(&world, &name).await.filter(|it| it.contains(r#""Suspended""#))).await;
    }
    drop(process);

    let process = world.process(&[]);
    ready(&process).await;
    world.execute("after", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("after", "Completed").await;
    assert!(!process.log().contains(&nested(60)[..200]), "the log holds an input");
    // Some executions are started. The API's own decoder may refuse one, which the status then says.
    let start = json!({ "spec": { "suspend": false } }).to_string();
    for (levels, reason) in [(60, "Completed"), (120, "Completed"), (4900, "InputRejected")] {
        let name = format!("held-{levels}");
        let resource = Request::new(WorkflowExecution::url_path(&(), Some(&world.namespace)));
        let patch = kube::api::Patch::Merge(serde_json::from_str::<serde_json::Value>(&start).unwrap());
        let request = resource.patch(&name, &Default::default(), &patch).unwrap();
        world.client.request_text(request).await.unwrap();
        let said = format!(r#""reason":"{reason}""#);
        until(SOON, &format!("{reason} of {name}"), async || text(&world, &name).await.filter(|it| it.contains(&said)))
            .await;
    }
    for levels in [120, 500, 4900] {
        delete(&world, &format!("held-{levels}")).await;
    }
}

/// Fills the first namespace with deeply nested executions. An operator for both namespaces has to serve the second
/// one, before and after a restart.
async fn serve_beside_poison(poisoned: &World, beside: &World, environment: &[(&str, &str)]) -> String {
    let others = ["--namespace", &beside.namespace, "--allow-base-url", &beside.api.url];
    for levels in [120, 130, 4900] {
        create(poisoned, &format!("before-{levels}"), "echo", &nested(levels), true).await;
    }
    let mut logs = String::new();
    for time in ["first", "second"] {
        let process = poisoned.process_with(&others, environment);
        ready(&process).await;
        beside.execute(time, json!({ "workflowIdentifier": "echo" })).await;
        beside.wait_for_reason(time, "Completed").await;
        for levels in [120, 4900] {
            create(poisoned, &format!("{time}-{levels}"), "echo", &nested(levels), true).await;
        }
        // The nested execution itself is reported as suspended, and an ordinary one beside it runs.
        let name = format!("{time}-4900");
        until(SOON, "a condition", async || text(poisoned, &name).await.filter(|it| it.contains(r#""Suspended""#)))
            .await;
        poisoned.execute(time, json!({ "workflowIdentifier": "echo" })).await;
        poisoned.wait_for_reason(time, "Completed").await;
        assert_eq!(process.ask("/readyz").await.map(|(code, _)| code), Some(200));
        logs += &process.log();
    }
    assert_eq!((poisoned.api.starts().await, beside.api.starts().await), (2, 2));
    logs
}

#[tokio::test]
async fn poison_in_one_of_several_namespaces_keeps_no_other_from_being_served_before_and_after_a_restart() {
    let (poisoned, beside) = (World::new("poisoned").await, World::new("beside").await);
    serve_beside_poison(&poisoned, &beside, &[]).await;
}

#[tokio::test]
async fn poison_in_one_of_several_namespaces_keeps_no_other_from_being_served_where_lists_come_in_pages() {
    let (mut poisoned, mut beside) = (World::bare("poisoned-pages").await, World::bare("beside-pages").await);
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start_without("WatchList").unwrap()).await.unwrap();
    install_crds_into(&plane.client().await.unwrap(), |_| true).await;
    for world in [&mut poisoned, &mut beside] {
        move_to(world, &plane).await;
        world.secret("mistral", "api-key", KEY).await;
        world.workspace("default", &world.api.url).await;
    }
    let environment = [("KUBECONFIG", plane.kubeconfig().to_str().unwrap())];
    let logs = serve_beside_poison(&poisoned, &beside, &environment).await;
    assert!(logs.contains("requests pages from now on"), "{logs}");
    for world in [&mut poisoned, &mut beside] {
        world.client = control_plane().client().await.unwrap();
    }
}

#[tokio::test]
async fn an_execution_of_any_depth_is_listed_in_pages_and_released() {
    let world = World::new("deep-pages").await;
    for levels in [120, 4900] {
        create(&world, &format!("deep-{levels}"), "hang", &nested(levels), true).await;
    }
    for n in 0..30 {
        world.execute(&format!("held-{n}"), json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    }
    let stop = json!(["workflows.mistral.ai/stop-run"]);
    let patch = kube::api::Patch::Merge(json!({ "metadata": { "finalizers": stop } }));
    let resource = Request::new(WorkflowExecution::url_path(&(), Some(&world.namespace)));
    for name in ["deep-120", "deep-4900"] {
        let request = resource.patch(name, &Default::default(), &patch).unwrap();
        world.client.request_text(request).await.unwrap();
    }
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.args(["release-finalizers", "--namespace", &world.namespace]);
    command.env("KUBECONFIG", control_plane().kubeconfig()).kill_on_drop(true);
    let output = tokio::time::timeout(SOON, command.output()).await.expect("an end").unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("WorkflowExecutions: 2 released"), "{said}");
}

/// Runs a workflow with this raw result, stored in the ConfigMap `to` if given. Returns the finished execution.
async fn ended_with(world: &World, name: &str, raw: &str, to: Option<&str>) -> WorkflowExecution {
    let workflow = json!({ "name": name, "behaviour": { "duration_ms": 0, "raw_result": raw } });
    world.api.register(workflow).await;
    let mut spec = json!({ "workflowIdentifier": name });
    if let Some(to) = to {
        spec["result"] = json!({ "to": { "configMap": { "name": to } } });
    }
    world.execute(name, spec).await;
    world.wait(name, SOON, is_finished).await
}

#[tokio::test]
async fn a_run_ends_whatever_its_result_is_and_an_object_takes_it_as_it_is_spelled() {
    let world = World::new("results").await;
    let _operator = world.operator();
    let deep = nested(1000);
    let digits = "7".repeat(400);
    for (name, raw, reason) in [
        ("deep", deep.as_str(), "ResultNotKeepable"),
        ("deeper-121", &nested(121), "ResultNotKeepable"),
        ("exponent", r#"{"x":1e400}"#, "ResultNotKeepable"),
        ("digits", &digits, "ResultNotKeepable"),
        ("half", r#"{"x":"\udce9"}"#, "ResultNotKeepable"),
    ] {
        let ended = ended_with(&world, name, raw, None).await;
        assert!(is_true(&ended, "Complete"), "{name}: {:?}", status(&ended).conditions);
        let said = condition(&ended, "ResultNotWritten").unwrap();
        assert_eq!(said.reason, reason, "{name}: {}", said.message);
    }
    let maps: kube::Api<k8s_openapi::api::core::v1::ConfigMap> =
        kube::Api::namespaced(world.client.clone(), &world.namespace);
    let spelled = r#"{"big":20000000000000000001,"e":1E2,"z":-0,"half":"\udce9"}"#;
    for (name, raw) in [("spelled", spelled), ("kept-deep", deep.as_str())] {
        let ended = ended_with(&world, name, raw, Some(name)).await;
        assert!(is_true(&ended, "Complete") && condition(&ended, "ResultNotWritten").is_none(), "{name}");
        assert_eq!(maps.get(name).await.unwrap().data.unwrap()["result"], raw);
    }
    let shown = ended_with(&world, "shown", r#" {"a": [1, 2.50]} "#, None).await;
    assert_eq!(status(&shown).result.unwrap().normal(), r#"{"a":[1,2.5]}"#);
}

#[tokio::test]
async fn a_run_that_can_never_be_read_ends_as_the_list_says_and_its_deletion_does_not_wait() {
    let world = World::new("unreadable").await;
    let _operator = world.operator();
    let ended = ended_with(&world, "nan", r#"{"x":NaN}"#, None).await;
    assert!(is_true(&ended, "Complete"), "{:?}", status(&ended).conditions);
    let said = condition(&ended, "ResultNotWritten").unwrap();
    assert_eq!(said.reason, "ResultUnreadable", "{}", said.message);
    // Another run continues, and is stopped when its resource is deleted.
    world.execute("going-on", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("going-on", "Running").await;
    world
        .api
        .faults(json!({ "faults": [{
        "method": "GET", "route": "/v1/workflows/executions/{execution_id}", "kind": { "error": { "status": 500 } },
    }] }))
        .await;
    world.delete("going-on").await;
    world.wait_until_gone("going-on", SOON).await;
    let runs = world.api.executions().await;
    assert!(runs.iter().any(|run| run["status"] == "CANCELED"), "{runs:?}");
}
