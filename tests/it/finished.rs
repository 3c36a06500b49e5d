//! Finished executions leave the watch, and come back when there is something to do.

use cluster::ControlPlane;
use kube::api::{Patch, PatchParams, Request};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use crate::setup::move_to;
use crate::support::*;

pub const FINISHED: &str = "workflows.mistral.ai/finished";
pub const CLAIM: &str = "workflows.mistral.ai/claim";
const LONG_AGO: &str = "2026-01-01T00:00:00Z";
const A_YEAR: u32 = 365 * 86_400;

fn echo() -> Value {
    json!({ "workflowIdentifier": "echo" })
}

/// Makes the end of a run lie months back, so that nothing has to be waited for.
pub async fn age(world: &World, name: &str) {
    let mut status = serde_json::to_value(status(&world.executions().get(name).await.unwrap())).unwrap();
    status["endTime"] = json!(LONG_AGO);
    for condition in status["conditions"].as_array_mut().unwrap() {
        condition["lastTransitionTime"] = json!(LONG_AGO);
    }
    let aged = Patch::Merge(json!({ "status": { "endTime": LONG_AGO, "conditions": status["conditions"] } }));
    world.executions().patch_status(name, &PatchParams::default(), &aged).await.unwrap();
}

pub fn label(object: &WorkflowExecution) -> Option<&str> {
    object.labels().get(FINISHED).map(String::as_str)
}

/// Waits until the execution is outside the watch, with the mark of this generation.
pub async fn left(world: &World, name: &str, generation: u32) -> WorkflowExecution {
    let marked = |object: &WorkflowExecution| {
        let mark = format!("{}.{generation}", object.uid().unwrap());
        label(object).is_some_and(|label| label.starts_with(&mark)) && object.finalizers().is_empty()
    };
    world.wait(name, SOON, marked).await
}

#[tokio::test]
async fn executions_that_finished_under_an_earlier_version_leave_and_are_not_run_again() {
    let world = World::new("leave").await;
    let earlier = world.process(&[]);
    for name in ["one", "two", "three"] {
        world.execute(name, echo()).await;
    }
    world.execute("running", json!({ "workflowIdentifier": "hang" })).await;
    for name in ["one", "two", "three"] {
        world.wait_for_reason(name, "Completed").await;
    }
    world.wait_for_reason("running", "Running").await;
    drop(earlier);
    for name in ["one", "two", "three"] {
        age(&world, name).await;
    }

    let process = world.process(&[]);
    for name in ["one", "two", "three"] {
        let done = left(&world, name, 1).await;
        assert_eq!((ready_reason(&done), label(&done).unwrap().len()), (Some("Completed"), 38));
    }
    // The gauge counts what is watched.
    let only_the_running_one = async || {
        let (_, metrics) = process.ask("/metrics").await?;
        let gauge = |line: &&str| line.starts_with("mistral_workflows_executions{");
        let counted: Vec<&str> = metrics.lines().filter(gauge).collect();
        (counted.len() == 1 && counted[0].contains("\"RUNNING\"") && counted[0].ends_with(" 1")).then_some(())
    };
    until(SOON, "the finished ones to leave the gauge", only_the_running_one).await;
    drop(process);

    // The next one does not see them at all, and the running one is still looked after.
    let process = world.process(&[]);
    until(SOON, "readiness", async || process.ask("/readyz").await.filter(|(code, _)| *code == 200)).await;
    let id = status(&world.executions().get("running").await.unwrap()).execution_id.unwrap();
    world.api.finish(&id, json!({ "outcome": "complete" })).await;
    world.wait_for_reason("running", "Completed").await;
    assert_eq!(world.api.starts().await, 4);
    for name in ["one", "two", "three"] {
        world.delete(name).await;
        world.wait_until_gone(name, SOON).await;
    }
}

#[tokio::test]
async fn an_edit_of_an_execution_that_has_left_is_acknowledged_before_and_after_a_restart() {
    let world = World::new("edited-later").await;
    let operator = world.process(&[]);
    world.execute("run", echo()).await;
    world.wait_for_reason("run", "Completed").await;
    age(&world, "run").await;
    left(&world, "run", 1).await;
    world.patch("run", json!({ "spec": { "deletionPolicy": "Terminate" } })).await.unwrap();
    // What came back stays for two minutes, in case somebody removes the label again and again.
    let acknowledged = |object: &WorkflowExecution| status(object).observed_generation == Some(2);
    world.wait("run", SOON, acknowledged).await;
    world.wait("run", SOON * 2, |object| label(object).is_some()).await;
    left(&world, "run", 2).await;
    drop(operator);
    world.patch("run", json!({ "spec": { "deletionPolicy": "Orphan" } })).await.unwrap();
    let _operator = world.process(&[]);
    let edited = left(&world, "run", 3).await;
    assert_eq!(status(&edited).observed_generation, Some(3));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn an_execution_that_has_left_is_deleted_when_its_time_is_over() {
    let world = World::new("ttl-outside").await;
    let operator = world.process(&[]);
    let lasting = json!({ "workflowIdentifier": "echo", "ttlSecondsAfterFinished": A_YEAR });
    for name in ["shortened", "shortened-while-down", "lasting"] {
        world.execute(name, lasting.clone()).await;
        world.wait_for_reason(name, "Completed").await;
        age(&world, name).await;
        let marked = left(&world, name, 1).await;
        let expires: i64 = label(&marked).unwrap().rsplit('.').next().unwrap().parse().unwrap();
        // From when this process saw the end, whatever the status says since.
        let left = expires - k8s_openapi::jiff::Timestamp::now().as_second() - i64::from(A_YEAR);
        assert!((-120..=5).contains(&left), "{left} s beside a year");
    }
    world.patch("shortened", json!({ "spec": { "ttlSecondsAfterFinished": 1 } })).await.unwrap();
    world.wait_until_gone("shortened", SOON).await;
    drop(operator);
    world.patch("shortened-while-down", json!({ "spec": { "ttlSecondsAfterFinished": 1 } })).await.unwrap();
    // A label that says that the time is over, although it is not: whoever wrote it deletes nothing.
    let uid = world.executions().get("lasting").await.unwrap().uid().unwrap();
    let early = json!({ "metadata": { "labels": { FINISHED: format!("{uid}.1.1767225600") } } });
    world.patch("lasting", early).await.unwrap();
    let _operator = world.process(&[]);
    world.wait_until_gone("shortened-while-down", SOON).await;
    let right = |object: &WorkflowExecution| label(object).is_some_and(|label| !label.ends_with(".1767225600"));
    world.wait("lasting", SOON, right).await;
    assert_eq!(world.api.starts().await, 3);
}

#[tokio::test]
async fn what_only_a_tool_keeps_is_deleted_once_the_tool_lets_go_also_after_it_has_left() {
    let world = World::new("untracked").await;
    let _operator = world.process(&[]);
    const TRACKED: &str = "kustomize.toolkit.fluxcd.io/name";
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": "run", "labels": { TRACKED: "team" } },
        "spec": { "workflowIdentifier": "echo", "ttlSecondsAfterFinished": 1 },
    });
    world.executions().create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    world.wait("run", SOON, |object| is_true(object, "Expired")).await;
    age(&world, "run").await;
    let marked = left(&world, "run", 1).await;
    assert!(label(&marked).unwrap().ends_with(".tracked"));
    world.patch("run", json!({ "metadata": { "labels": { TRACKED: null } } })).await.unwrap();
    world.wait_until_gone("run", SOON).await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_copy_with_the_label_of_another_resource_is_run() {
    let world = World::new("copied-label").await;
    let copy = |name: &str, label: &str| {
        let metadata = json!({ "name": name, "labels": { FINISHED: label } });
        let kind = json!("WorkflowExecution");
        let object = json!({ "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": kind, "metadata": metadata, "spec": echo() });
        serde_json::from_value(object).unwrap()
    };
    let other = "7c0b36a4-6a39-4f0e-9c33-0d3a3f4f5a6b.1";
    world.executions().create(&Default::default(), &copy("before", other)).await.unwrap();
    let _operator = world.operator();
    let done = world.wait_for_reason("before", "Completed").await;
    assert_eq!(label(&done), None);
    for (name, label) in [("copied", other), ("odd", "kept"), ("empty", "")] {
        world.executions().create(&Default::default(), &copy(name, label)).await.unwrap();
        world.wait_for_reason(name, "Completed").await;
    }
    assert_eq!(world.api.starts().await, 4);
}

#[tokio::test]
async fn the_label_cannot_hide_a_run_that_has_to_be_stopped() {
    let world = World::new("forged-label").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    let forged = json!({ "metadata": { "labels": { FINISHED: format!("{}.1", running.uid().unwrap()) } } });
    world.patch("run", forged).await.unwrap();
    world.wait("run", SOON, |object| label(object).is_none()).await;
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    let runs = world.api.executions().await;
    assert!(runs.iter().all(|run| run["status"] != "RUNNING"), "{runs:?}");
}

#[tokio::test]
async fn an_object_of_any_depth_with_the_label_keeps_no_other_from_coming_back() {
    let world = World::new("deep-label").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let deep = format!("{}1{}", r#"{"a":"#.repeat(4900), "}".repeat(4900));
    for (name, input) in [("deep", deep.as_str()), ("beside", "{}")] {
        let text = format!(
            r#"{{"apiVersion":"workflows.mistral.ai/v1alpha1","kind":"WorkflowExecution",
            "metadata":{{"name":"{name}","labels":{{"{FINISHED}":"copied"}}}},
            "spec":{{"workflowIdentifier":"echo","input":{input}}}}}"#
        );
        let resource = Request::new(WorkflowExecution::url_path(&(), Some(&world.namespace)));
        let request = resource.create(&Default::default(), text.into_bytes()).unwrap();
        world.client.request_text(request).await.unwrap();
    }
    world.wait_for_reason("beside", "Completed").await;
}

#[tokio::test]
async fn a_store_restored_to_before_a_run_that_has_left_since_does_not_run_it_again() {
    let world = World::new("restored-later").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    // Creation timestamps are whole seconds: the operator has to be sure that it ran before the creation.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    world.execute("run", json!({ "workflowIdentifier": "echo", "deletionPolicy": "Orphan" })).await;
    world.wait_for_reason("run", "Completed").await;
    age(&world, "run").await;
    left(&world, "run", 1).await;
    // Longer than the operator remembers objects that it does not watch.
    tokio::time::sleep(std::time::Duration::from_secs(130)).await;
    let nothing = Patch::Merge(json!({ "status": null }));
    world.executions().patch_status("run", &PatchParams::default(), &nothing).await.unwrap();
    let before = json!({ "metadata": { "annotations": { CLAIM: null }, "labels": { FINISHED: null } } });
    world.patch("run", before).await.unwrap();
    world.wait("run", SOON * 2, |object| ready_reason(object) == Some("Completed")).await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_cluster_that_is_restored_from_a_snapshot_runs_nothing_again() {
    let mut world = World::bare("snapshot").await;
    let mut plane = tokio::task::spawn_blocking(|| ControlPlane::start().unwrap()).await.unwrap();
    move_to(&mut world, &plane).await;
    install_crds_into(&world.client, |_| true).await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    let kubeconfig = plane.kubeconfig().to_owned();
    let environment = [("KUBECONFIG", kubeconfig.to_str().unwrap())];
    let operator = world.process(&environment);
    world.execute("left-before", echo()).await;
    world.wait_for_reason("left-before", "Completed").await;
    age(&world, "left-before").await;
    left(&world, "left-before", 1).await;
    world.execute("run-since", json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    world.wait_for_reason("run-since", "Suspended").await;
    drop(operator);
    let (mut plane, snapshot) = tokio::task::spawn_blocking(move || {
        let snapshot = plane.snapshot().unwrap();
        (plane, snapshot)
    })
    .await
    .unwrap();

    let start = json!({ "spec": { "suspend": false } });
    let operator = world.process(&environment);
    world.patch("run-since", start.clone()).await.unwrap();
    world.wait_for_reason("run-since", "Completed").await;
    age(&world, "run-since").await;
    left(&world, "run-since", 2).await;
    world.execute("created-since", echo()).await;
    world.wait_for_reason("created-since", "Completed").await;
    drop(operator);
    let plane = tokio::task::spawn_blocking(move || {
        plane.restore(&snapshot).unwrap();
        plane
    })
    .await
    .unwrap();

    let _operator = world.process(&environment);
    assert!(world.executions().get_opt("created-since").await.unwrap().is_none());
    world.patch("run-since", start).await.unwrap();
    world.wait_for_reason("run-since", "Completed").await;
    world.patch("left-before", json!({ "spec": { "deletionPolicy": "Orphan" } })).await.unwrap();
    left(&world, "left-before", 2).await;
    assert_eq!(world.api.starts().await, 3);
    world.client = control_plane().client().await.unwrap();
    drop(plane);
}
