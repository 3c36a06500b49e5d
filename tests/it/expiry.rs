//! `ttlSecondsAfterFinished`.

use std::time::Duration;

use kube::ResourceExt;
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};

use crate::support::*;

fn echo(ttl: u32) -> Value {
    json!({ "workflowIdentifier": "echo", "ttlSecondsAfterFinished": ttl })
}

#[tokio::test]
async fn a_finished_execution_is_deleted_when_its_time_is_over_and_an_unfinished_one_is_not() {
    let world = World::new("ttl").await;
    let _operator = world.operator();
    let slow = json!({ "workflowIdentifier": "hang", "ttlSecondsAfterFinished": 0 });
    world.execute("unfinished", slow).await;
    world.execute("at-once", echo(0)).await;
    world.execute("soon", echo(3)).await;
    world.execute("kept", json!({ "workflowIdentifier": "echo" })).await;
    world.execute("failed", json!({ "workflowIdentifier": "fail", "ttlSecondsAfterFinished": 1 })).await;
    let done = world.wait_for_reason("soon", "Completed").await;
    for name in ["at-once", "soon", "failed"] {
        world.wait_until_gone(name, SOON).await;
    }
    let ago = k8s_openapi::jiff::Timestamp::now().duration_since(status(&done).end_time.unwrap().0);
    assert!(ago.as_secs() >= 3, "{ago:?}");
    assert!(is_finished(&world.wait_for_reason("kept", "Completed").await));
    assert!(!is_finished(&world.executions().get("unfinished").await.unwrap()));
    assert_eq!(world.api.starts().await, 5);
    // A TTL that is set later counts from the end of the run.
    world.patch("kept", json!({ "spec": { "ttlSecondsAfterFinished": 1 } })).await.unwrap();
    world.wait_until_gone("kept", SOON).await;
}

#[tokio::test]
async fn a_time_that_ran_out_while_no_operator_ran_is_over_at_the_next_start() {
    let world = World::new("ttl-down").await;
    let operator = world.process(&[]);
    world.execute("run", echo(8)).await;
    world.wait_for_reason("run", "Completed").await;
    drop(operator);
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert!(world.executions().get_opt("run").await.unwrap().is_some());
    let _next = world.process(&[]);
    world.wait_until_gone("run", SOON).await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn what_argo_cd_or_flux_would_create_and_run_again_is_kept_and_says_so() {
    let world = World::new("ttl-tracked").await;
    let _operator = world.operator();
    let marks = [
        ("argo", json!({ "annotations": { "argocd.argoproj.io/tracking-id": "app:workflows.mistral.ai/x" } })),
        ("flux", json!({ "labels": { "kustomize.toolkit.fluxcd.io/name": "team" } })),
    ];
    for (name, metadata) in &marks {
        let mut object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": metadata, "spec": echo(1),
        });
        object["metadata"]["name"] = json!(name);
        world.executions().create(&Default::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
    }
    for (name, _) in &marks {
        let kept = world.wait(name, SOON, |object| is_true(object, "Expired")).await;
        assert!(is_true(&kept, "Complete") && is_true(&kept, "Ready"));
        let expired = condition(&kept, "Expired").unwrap();
        assert_eq!(expired.reason, "Tracked");
        assert!(expired.message.contains("Remove it there"), "{}", expired.message);
    }
    assert_eq!(world.api.starts().await, 2);
    // Without the mark, no tool would create the resource again, so the operator deletes it.
    let mark = json!({ "metadata": { "annotations": { "argocd.argoproj.io/tracking-id": null } } });
    let unmarked: WorkflowExecution = world.patch("argo", mark).await.unwrap();
    world.wait_until_gone(&unmarked.name_any(), SOON).await;
}
