//! Resources that this version cannot decode, as after a downgrade: reported, skipped, deletable, and harmless to
//! others.

use cluster::ControlPlane;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::*;

/// A cluster whose CRD for executions accepts everything, as a newer CRD may accept more than this version knows.
async fn lenient(world: &mut World) -> ControlPlane {
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start().unwrap()).await.unwrap();
    world.client = plane.client().await.unwrap();
    let namespace = json!({ "metadata": { "name": world.namespace } });
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
    install_crds_into(&world.client, |_| true).await;
    let crds: Api<CustomResourceDefinition> = Api::all(world.client.clone());
    let open = json!({ "type": "object", "x-kubernetes-preserve-unknown-fields": true });
    let schema = json!([
        { "op": "remove", "path": "/spec/versions/0/selectableFields" },
        { "op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": open },
    ]);
    let patch: json_patch::Patch = serde_json::from_value(schema).unwrap();
    let name = "workflowexecutions.workflows.mistral.ai";
    crds.patch(name, &PatchParams::default(), &Patch::Json::<()>(patch)).await.unwrap();
    plane
}

#[tokio::test]
async fn an_execution_that_cannot_be_decoded_is_told_once_and_its_run_stopped_when_it_is_deleted() {
    let mut world = World::bare("undecodable").await;
    let plane = lenient(&mut world).await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    let process = world.process(&[("KUBECONFIG", plane.kubeconfig().to_str().unwrap())]);
    let any: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &execution_resource());
    let edit = async |name: &str, spec: serde_json::Value| {
        // The API server learns of the new schema a moment later.
        until(SOON, "an edit that this version cannot read", async || {
            let patch = Patch::Merge(json!({ "spec": spec }));
            any.patch(name, &PatchParams::default(), &patch).await.ok()
        })
        .await
    };
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    let running = world.wait_for_reason("run", "Running").await;
    world.execute("held", json!({ "workflowIdentifier": "hang", "suspend": true })).await;
    world.wait_for_reason("held", "Suspended").await;
    for name in ["run", "held"] {
        edit(name, json!({ "deletionPolicy": "Hibernate" })).await;
    }
    let before = any.get("run").await.unwrap();
    let told = until(SOON, "the Event", async || {
        let events = world.events("run").await;
        events.into_iter().find(|(reason, _)| reason == "Undecodable")
    })
    .await;
    for part in ["spec.deletionPolicy", "Hibernate", "upgrade this one"] {
        assert!(told.1.contains(part), "{part} in: {}", told.1);
    }
    // The other executions continue.
    world.execute("other", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("other", "Completed").await;
    let metrics = process.ask("/metrics").await.unwrap().1;
    assert!(metrics.lines().any(|line| line.contains("Undecodable") && line.ends_with(" 2")), "{metrics}");
    for name in ["run", "held"] {
        any.delete(name, &Default::default()).await.unwrap();
        until(SOON, "the deletion", async || any.get_opt(name).await.unwrap().is_none().then_some(())).await;
    }
    let [run] =
        &world.api.executions().await.into_iter().filter(|run| run["status"] != "COMPLETED").collect::<Vec<_>>()[..]
    else {
        panic!("one run that did not complete")
    };
    assert_eq!(run["status"], "CANCELED");
    assert_eq!(run["execution_id"], json!(status(&running).execution_id));
    assert_eq!(world.events("run").await.iter().filter(|(reason, _)| reason == "Undecodable").count(), 1);
    assert!(before.data["status"]["conditions"].is_array(), "the status was left as it was");
    drop(process);
    world.client = control_plane().client().await.unwrap();
}
