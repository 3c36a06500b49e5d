//! What the API server refuses and stores with the CRDs alone: no operator runs in these tests.

mod kubectl;
mod specs;
mod storage;
mod workspaces;

use kube::api::{ApiResource, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use mistral_workflows_operator::api::Workspace;
use serde_json::{Value, json};

use crate::support::*;

const REGISTRATION: &str = "0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3a";
const OTHER_REGISTRATION: &str = "0198f3a2-6c1e-7c55-8a53-1f0f6d1c2b3b";

/// WorkflowExecutions as dynamic objects: the types of this version would hide what the API server does.
fn executions(world: &World) -> Api<DynamicObject> {
    Api::namespaced_with(world.client.clone(), &world.namespace, &execution_resource())
}

fn workspaces(world: &World) -> Api<DynamicObject> {
    Api::namespaced_with(world.client.clone(), &world.namespace, &ApiResource::erase::<Workspace>(&()))
}

async fn create(api: &Api<DynamicObject>, kind: &str, name: &str, spec: Value) -> kube::Result<DynamicObject> {
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": kind, "metadata": { "name": name }, "spec": spec,
    });
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
}

async fn create_execution(world: &World, name: &str, spec: Value) -> kube::Result<DynamicObject> {
    create(&executions(world), "WorkflowExecution", name, spec).await
}

async fn merge(api: &Api<DynamicObject>, name: &str, patch: Value) -> kube::Result<DynamicObject> {
    api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await
}

/// Fails unless the API server refused the object as invalid, with these words.
fn assert_refused(case: &str, outcome: kube::Result<DynamicObject>, words: &str) {
    match outcome {
        Err(kube::Error::Api(status)) => {
            assert_eq!(status.code, 422, "{case}: {}", status.message);
            assert!(status.message.contains(words), "{case}: {words:?} is not in {:?}", status.message);
        }
        Err(error) => panic!("{case}: {error}"),
        Ok(object) => panic!("{case}: accepted as {}", object.data),
    }
}

/// A spec for the workflow `echo` with some more fields.
fn echo(more: Value) -> Value {
    let mut spec = json!({ "workflowIdentifier": "echo" });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

#[test]
fn the_crds_in_the_repository_are_those_that_the_program_prints() {
    let output =
        std::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator")).arg("crds").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let printed = String::from_utf8(output.stdout).unwrap();
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/crds/workflows.mistral.ai.yaml");
    let kept = std::fs::read_to_string(file).unwrap();
    let differs = printed.lines().zip(kept.lines()).position(|(new, old)| new != old);
    assert!(
        printed == kept,
        "crds/workflows.mistral.ai.yaml is out of date (line {}). Write it anew: \
         cargo run -- crds > crds/workflows.mistral.ai.yaml",
        differs.unwrap_or(printed.lines().count().min(kept.lines().count())) + 1,
    );
}

#[tokio::test]
async fn the_api_server_has_nothing_to_say_about_the_crds() {
    let world = World::bare("crd-warnings").await;
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/crds/workflows.mistral.ai.yaml")).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    // The API server checks CRDs when they are created, so these get new names.
    std::fs::write(file.path(), text.replace("workflows.mistral.ai", "warnings.example.com")).unwrap();
    let path = file.path().to_str().unwrap();
    let (said, well) = world.kubectl(&["create", "--dry-run=server", "-f", path]).await;
    assert!(well && !said.contains("Warning"), "{said}");
}
