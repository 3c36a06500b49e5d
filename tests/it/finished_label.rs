//! Policies and tools that quarrel with the operator about the label of finished executions.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::finished::{CLAIM, FINISHED, age, label, left};
use crate::support::*;

/// A policy in this world's namespace about changes of executions.
struct Policy {
    name: String,
    apis: [Api<DynamicObject>; 2],
}

impl Policy {
    /// `kind` is Validating or Mutating. The probe shows whether the policy is in force.
    async fn new(
        world: &World,
        kind: &str,
        mut spec: Value,
        mut binding: Value,
        is_in_force: impl Fn(kube::Result<WorkflowExecution>) -> bool,
    ) -> Self {
        let name = world.namespace.clone();
        spec["failurePolicy"] = json!("Fail");
        spec["matchConstraints"] = json!({
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": world.namespace } },
            "resourceRules": [{
                "apiGroups": ["workflows.mistral.ai"], "apiVersions": ["*"], "operations": ["UPDATE"],
                "resources": ["workflowexecutions"],
            }],
        });
        binding["policyName"] = json!(name);
        let apis = ["", "Binding"].map(|suffix| {
            let kind = format!("{kind}AdmissionPolicy{suffix}");
            let resource = ApiResource {
                group: "admissionregistration.k8s.io".into(),
                version: "v1".into(),
                api_version: "admissionregistration.k8s.io/v1".into(),
                plural: kind.to_lowercase().replace("policy", "policies").replace("policiesbinding", "policybindings"),
                kind,
            };
            Api::all_with(world.client.clone(), &resource)
        });
        for (api, spec) in apis.iter().zip([spec, binding]) {
            let object = json!({ "metadata": { "name": name }, "spec": spec });
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            api.create(&PostParams::default(), &object).await.unwrap();
        }
        // The Workspace of the probe does not exist, and no operator acts yet.
        let api: Api<DynamicObject> =
            Api::namespaced_with(world.client.clone(), &world.namespace, &execution_resource());
        let probe = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": "probe", "labels": { FINISHED: "probe" } },
            "spec": { "workflowIdentifier": "echo", "suspend": true, "workspaceRef": { "name": "none" } },
        });
        api.create(&PostParams::default(), &serde_json::from_value(probe).unwrap()).await.unwrap();
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        until(SOON, "the policy to be in force", async || {
            let patch = json!({ "metadata": { "labels": { FINISHED: null }, "annotations": { "changed": "yes" } } });
            is_in_force(world.executions().patch("probe", &dry, &Patch::Merge(patch)).await).then_some(())
        })
        .await;
        api.delete("probe", &DeleteParams::default()).await.unwrap();
        Self { name, apis }
    }

    /// Nobody may remove the label.
    async fn keeps_the_label(world: &World) -> Self {
        let has = |object: &str| format!("(has({object}.metadata.labels) && '{FINISHED}' in {object}.metadata.labels)");
        let kept = format!("!{} || {}", has("oldObject"), has("object"));
        let spec = json!({ "validations": [{ "expression": kept, "message": "the audit department says no" }] });
        let binding = json!({ "validationActions": ["Deny"] });
        Self::new(world, "Validating", spec, binding, |patched| patched.is_err()).await
    }

    /// A mutation of every change.
    async fn mutates(world: &World, patch: &str, is_in_force: fn(&WorkflowExecution) -> bool) -> Self {
        let mutation = json!({ "patchType": "JSONPatch", "jsonPatch": { "expression": patch } });
        let spec = json!({ "reinvocationPolicy": "Never", "mutations": [mutation] });
        let is_in_force = move |patched: kube::Result<WorkflowExecution>| is_in_force(&patched.unwrap());
        Self::new(world, "Mutating", spec, json!({}), is_in_force).await
    }

    async fn lift(self) {
        for api in self.apis.iter().rev() {
            api.delete(&self.name, &DeleteParams::default()).await.unwrap();
        }
    }
}

async fn put(world: &World, name: &str, label: Value) {
    world.patch(name, json!({ "metadata": { "labels": { FINISHED: label } } })).await.unwrap();
}

/// The versions of an execution that a client sees who looks often.
async fn versions(world: &World, name: &str, during: Duration) -> HashSet<String> {
    let (begun, mut versions) = (Instant::now(), HashSet::new());
    while begun.elapsed() < during {
        versions.extend(world.executions().get(name).await.unwrap().resource_version());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    versions
}

async fn assert_stopped_and_started_once(world: &World, runs: usize) {
    let ledger = world.api.executions().await;
    assert_eq!(ledger.len(), runs, "{ledger:?}");
    assert!(ledger.iter().all(|run| run["starts"] == 1 && run["status"] != "RUNNING"), "{ledger:?}");
}

#[tokio::test]
async fn neither_a_deletion_nor_the_end_of_a_run_waits_for_a_label_that_nobody_may_remove() {
    let world = World::new("kept-label").await;
    let policy = Policy::keeps_the_label(&world).await;
    let operator = world.process(&[]);
    for name in ["deleted", "ends", "deleted-later"] {
        world.execute(name, json!({ "workflowIdentifier": "hang", "terminationGracePeriodSeconds": 1 })).await;
        let running = world.wait_for_reason(name, "Running").await;
        // A label that would be right if the run had ended.
        put(&world, name, json!(format!("{}.1", running.uid().unwrap()))).await;
    }
    world.delete("deleted").await;
    world.wait_until_gone("deleted", SOON).await;
    let id = status(&world.executions().get("ends").await.unwrap()).execution_id.unwrap();
    world.api.finish(&id, json!({ "outcome": "complete" })).await;
    world.wait_for_reason("ends", "Completed").await;
    age(&world, "ends").await;
    left(&world, "ends", 1).await;
    drop(operator);
    let _operator = world.process(&[]);
    world.delete("deleted-later").await;
    world.wait_until_gone("deleted-later", SOON).await;
    assert_stopped_and_started_once(&world, 3).await;
    let told = world.events("deleted").await;
    assert!(told.iter().any(|(reason, note)| reason == "LabelRefused" && note.contains("all the same")), "{told:?}");
    world.delete("ends").await;
    world.wait_until_gone("ends", SOON).await;
    policy.lift().await;
}

#[tokio::test]
async fn a_deletion_does_not_wait_for_a_label_that_comes_back_with_every_change() {
    let world = World::new("label-returns").await;
    let path = format!("/metadata/labels/{}", FINISHED.replace('/', "~1"));
    let patch = format!(
        "has(object.metadata.labels) ? [JSONPatch{{op: 'add', path: '{path}', value: 'kept'}}] : [JSONPatch{{op: 'add', path: '/metadata/labels', value: {{'{FINISHED}': 'kept'}}}}]"
    );
    let policy = Policy::mutates(&world, &patch, |probe| label(probe) == Some("kept")).await;
    let _operator = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "hang", "deletionPolicy": "Terminate" })).await;
    world.wait_for_reason("run", "Running").await;
    world.wait("run", SOON, |object| label(object) == Some("kept")).await;
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    assert_stopped_and_started_once(&world, 1).await;
    policy.lift().await;
}

#[tokio::test]
async fn an_execution_whose_label_a_policy_drops_stays_watched_without_a_write_after_the_other() {
    let world = World::new("dropped-label").await;
    let path = format!("/metadata/labels/{}", FINISHED.replace('/', "~1"));
    let patch = format!(
        "has(object.metadata.labels) && '{FINISHED}' in object.metadata.labels ? [JSONPatch{{op: 'remove', path: '{path}'}}] : []"
    );
    // The probe's own patch would remove its label anyway.
    let policy = Policy::mutates(&world, &patch, |_| true).await;
    until(SOON, "the policy to be in force", async || {
        let labelled = json!({ "metadata": { "labels": { FINISHED: "x" } } });
        let dry = PatchParams { dry_run: true, ..PatchParams::default() };
        let spec = json!({ "workflowIdentifier": "echo", "suspend": true, "workspaceRef": { "name": "none" } });
        let _ = world.try_execute("other", spec).await;
        let patched = world.executions().patch("other", &dry, &Patch::Merge(labelled)).await.unwrap();
        label(&patched).is_none().then_some(())
    })
    .await;
    let _operator = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    age(&world, "run").await;
    world.wait("run", SOON, |object| object.finalizers().is_empty()).await;
    let seen = versions(&world, "run", Duration::from_secs(20)).await;
    assert!(seen.len() <= 2, "{} versions in 20 s", seen.len());
    world.patch("run", json!({ "spec": { "deletionPolicy": "Orphan" } })).await.unwrap();
    world.wait("run", SOON, |object| status(object).observed_generation == Some(2)).await;
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
    assert_stopped_and_started_once(&world, 1).await;
    policy.lift().await;
}

#[tokio::test]
async fn a_tool_that_strips_the_label_again_and_again_causes_few_writes_and_no_run() {
    let world = World::new("stripped-label").await;
    let _operator = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    age(&world, "run").await;
    left(&world, "run", 1).await;
    let (begun, mut stripped, mut seen) = (Instant::now(), 0, HashSet::new());
    while begun.elapsed() < Duration::from_secs(60) {
        let object = world.executions().get("run").await.unwrap();
        if label(&object).is_some() {
            put(&world, "run", Value::Null).await;
            stripped += 1;
        }
        seen.extend(object.resource_version());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(stripped == 1 && seen.len() <= 4, "stripped {stripped} times, {} versions", seen.len());
    assert_stopped_and_started_once(&world, 1).await;
}

#[tokio::test]
async fn a_wrong_label_that_changes_all_the_time_is_removed_once_a_minute() {
    let world = World::new("wrong-label").await;
    let _operator = world.process(&[]);
    world.execute("run", json!({ "workflowIdentifier": "echo", "deletionPolicy": "Orphan" })).await;
    world.wait_for_reason("run", "Completed").await;
    let (begun, mut removed) = (Instant::now(), 0);
    for n in 0.. {
        if begun.elapsed() > Duration::from_secs(100) {
            break;
        }
        let before = world.executions().get("run").await.unwrap();
        if n > 0 && label(&before).is_none() {
            removed += 1;
        }
        put(&world, "run", json!(format!("wrong-{n}"))).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    // At once, and a minute later.
    assert_eq!(removed, 2);
    assert_stopped_and_started_once(&world, 1).await;
}

#[tokio::test]
async fn a_claim_in_flight_that_a_label_hides_from_the_next_leader_keeps_its_id_from_others() {
    let world = World::new("hidden-claim").await;
    let policy = Policy::keeps_the_label(&world).await;
    let earlier = world.process(&[]);
    world.execute("model", json!({ "workflowIdentifier": "echo", "executionId": "model" })).await;
    let model = world.wait_for_reason("model", "Completed").await;
    drop(earlier);
    // Claimed a moment ago by a leader that has crashed since, with the label of another resource.
    let shared = json!({ "workflowIdentifier": "echo", "executionId": "shared", "deletionPolicy": "Orphan" });
    let hidden = world.execute("hidden", shared.clone()).await;
    world.execute("beside", shared).await;
    let mut claim: Value = serde_json::from_str(&model.annotations()[CLAIM]).unwrap();
    let now = k8s_openapi::jiff::Timestamp::now();
    for (field, value) in [
        ("executionId", json!("shared")),
        ("claimant", json!("crashed")),
        ("uid", json!(hidden.uid())),
        ("since", json!(now)),
        ("sendBefore", json!(now + k8s_openapi::jiff::SignedDuration::from_secs(15))),
    ] {
        claim[field] = value;
    }
    claim["owner"]["name"] = json!("hidden");
    let metadata = json!({ "labels": { FINISHED: "copied" }, "annotations": { CLAIM: claim.to_string() } });
    world.patch("hidden", json!({ "metadata": metadata })).await.unwrap();

    let _operator = world.process(&[]);
    // Its call takes effect late.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let body = json!({ "execution_id": "shared", "input": {} });
    world.api.call("POST", "/v1/workflows/echo/execute", Some(body)).await;
    let found = world.wait("beside", SOON * 2, is_finished).await;
    assert_eq!(condition(&found, "Started").map(|started| &*started.reason), Some("Adopted"));
    assert_stopped_and_started_once(&world, 2).await;
    policy.lift().await;
}
