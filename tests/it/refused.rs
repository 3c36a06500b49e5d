//! Writes that the API server refuses for good: reported, bounded, retried less and less often, and overcome.

use std::time::{Duration, Instant};

use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy as Policy, ValidatingAdmissionPolicyBinding as Binding,
};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::support::*;

const GET: (&str, &str) = ("GET", "/v1/workflows/executions/{execution_id}");
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// The limit for what must not wait for the next retry.
const AT_ONCE: Duration = Duration::from_secs(20);
/// Long enough for many retries every five seconds, or for a few with growing delays.
const MANY_RETRIES: Duration = Duration::from_secs(50);
/// The longest delay of a retry, and a busy machine.
const NEXT_RETRY: Duration = Duration::from_secs(150);

/// A policy in this world's namespace. It refuses requests for these resources unless the expression holds.
struct Refusing {
    name: String,
    policies: Api<Policy>,
    bindings: Api<Binding>,
}

impl Refusing {
    async fn changes(world: &World, resources: &[&str], unless: &str) -> Self {
        let this = Self::requests(world, "UPDATE", resources, unless).await;
        this.wait_until_in_force(world, resources).await;
        this
    }

    async fn requests(world: &World, operation: &str, resources: &[&str], unless: &str) -> Self {
        let name = format!("{}-{}", world.namespace, resources.join("-").replace('/', "."));
        let (policies, bindings): (Api<Policy>, Api<Binding>) =
            (Api::all(world.client.clone()), Api::all(world.client.clone()));
        let policy = json!({
            "metadata": { "name": name },
            "spec": {
                "failurePolicy": "Fail",
                "matchConstraints": {
                    "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": world.namespace } },
                    "resourceRules": [{
                        "apiGroups": ["workflows.mistral.ai"], "apiVersions": ["*"], "operations": [operation],
                        "resources": resources,
                    }],
                },
                "validations": [{ "expression": unless, "message": "the audit department says no" }],
            },
        });
        let binding =
            json!({ "metadata": { "name": name }, "spec": { "policyName": name, "validationActions": ["Deny"] } });
        policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap();
        bindings.create(&PostParams::default(), &serde_json::from_value(binding).unwrap()).await.unwrap();
        Self { name, policies, bindings }
    }

    /// Policies take effect a little after they are written.
    async fn wait_until_in_force(&self, world: &World, resources: &[&str]) {
        // No operator acts on this resource: its Workspace does not exist. It is deleted soon.
        let (kind, plural) = match resources[0].split('/').next().unwrap() {
            "workflows" => ("Workflow", "workflows"),
            "workspaces" => ("Workspace", "workspaces"),
            _ => ("WorkflowExecution", "workflowexecutions"),
        };
        let resource = kube::api::ApiResource {
            group: "workflows.mistral.ai".into(),
            version: "v1alpha1".into(),
            api_version: "workflows.mistral.ai/v1alpha1".into(),
            kind: kind.into(),
            plural: plural.into(),
        };
        let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &resource);
        let spec = match kind {
            "Workspace" => json!({ "auth": { "apiKeySecretRef": { "name": "none", "key": "none" } } }),
            "Workflow" => json!({ "suspend": true, "workspaceRef": { "name": "none" } }),
            _ => json!({ "workflowIdentifier": "echo", "suspend": true, "workspaceRef": { "name": "none" } }),
        };
        let probe = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": kind, "metadata": { "name": "probe" }, "spec": spec,
        });
        api.create(&PostParams::default(), &serde_json::from_value(probe).unwrap()).await.unwrap();
        until(SOON, "the policy to be in force", async || {
            let mut refused = true;
            for resource in resources {
                let dry = PatchParams { dry_run: true, ..PatchParams::default() };
                let (claim, status) = (
                    json!({ "workflows.mistral.ai/claim": "x" }),
                    json!({ "status": {
                    "conditions": [{ "type": "Probe", "status": "True", "reason": "Probe", "message": "x",
                        "lastTransitionTime": "2026-01-01T00:00:00Z" }],
                } }),
                );
                let outcome = if resource.ends_with("/status") {
                    api.patch_status("probe", &dry, &Patch::Merge(status)).await
                } else {
                    api.patch("probe", &dry, &Patch::Merge(json!({ "metadata": { "annotations": claim } }))).await
                };
                refused &= matches!(&outcome, Err(kube::Error::Api(said)) if said.message.contains("audit"));
            }
            refused.then_some(())
        })
        .await;
        api.delete("probe", &DeleteParams::default()).await.unwrap();
    }

    async fn lift(self) {
        self.bindings.delete(&self.name, &DeleteParams::default()).await.unwrap();
        self.policies.delete(&self.name, &DeleteParams::default()).await.unwrap();
    }
}

/// The number of Events about this object with this reason, and the note of the first one.
async fn told(world: &World, name: &str, reason: &str) -> (usize, String) {
    let events = world.events(name).await;
    let notes: Vec<&String> = events.iter().filter(|(it, _)| it == reason).map(|(_, note)| note).collect();
    (notes.len(), notes.first().map(|note| (*note).clone()).unwrap_or_default())
}

async fn wait_until_told(world: &World, name: &str, reason: &str) -> String {
    until(SOON, &format!("the Event {reason}"), async || {
        let (count, note) = told(world, name, reason).await;
        (count > 0).then_some(note)
    })
    .await
}

async fn create(world: &World, name: &str, annotations: Value, spec: Value) {
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &execution_resource());
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "name": name, "annotations": annotations }, "spec": spec,
    });
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap();
}

fn message<'a>(object: &'a WorkflowExecution, type_: &str) -> &'a str {
    condition(object, type_).map_or("", |condition| &condition.message)
}

#[tokio::test]
async fn annotations_without_room_for_the_claim_start_nothing_and_say_what_to_do() {
    let world = World::new("no-room").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let manifest = json!({ LAST_APPLIED: "x".repeat(262_036) });
    create(&world, "run", manifest, json!({ "workflowIdentifier": "echo" })).await;
    let refused = world.wait_for_reason("run", "ClaimRefused").await;
    assert!(is_true(&refused, "Stalled") && !is_finished(&refused));
    assert_eq!(condition(&refused, "Started").unwrap().status, "False");
    let words = message(&refused, "Ready");
    for expected in ["Nothing was started", "Too long", "--server-side", "again"] {
        assert!(words.contains(expected), "{expected:?} is not in {words:?}");
    }
    tokio::time::sleep(MANY_RETRIES).await;
    assert_eq!(told(&world, "run", "ClaimRefused").await.0, 1, "{:#?}", world.events("run").await);
    let still = world.executions().get("run").await.unwrap();
    assert_eq!(still.metadata.resource_version, refused.metadata.resource_version, "written to while it waited");
    assert_eq!(world.api.arrivals(Some(("POST", "/v1/workflows/{workflow_identifier}/execute"))).await, 0);
    // The next retry is more than half a minute away, but a change takes effect before.
    let changed = Instant::now();
    world.patch("run", json!({ "metadata": { "annotations": { LAST_APPLIED: null } } })).await.unwrap();
    world.wait("run", AT_ONCE, |object| is_true(object, "Complete")).await;
    assert!(changed.elapsed() < AT_ONCE);
    assert_eq!(world.api.starts().await, 1);
}

/// Bytes that the chart's policy leaves for the claim and its key.
const ROOM: usize = 262_144 - 261_800;

#[tokio::test]
async fn an_execution_that_can_never_be_claimed_is_refused_at_its_creation_by_the_charts_policy() {
    let world = World::bare("never-claimed").await;
    let Some(tools) = crate::chart::tools().await else { return };
    let here = format!("watchNamespaces: [{}]", world.namespace);
    let rendered = crate::chart::render(tools, &world.namespace, &here, &[]);
    let policy: Vec<&Value> = rendered
        .iter()
        .filter(|object| object["kind"].as_str().unwrap().starts_with("ValidatingAdmissionPolicy"))
        .collect();
    assert_eq!(policy.len(), 2);
    for object in &policy {
        crate::chart::succeed(control_plane().kubectl_command().args(["create", "-f", "-"]), &object.to_string());
    }
    let api: Api<DynamicObject> = Api::namespaced_with(world.client.clone(), &world.namespace, &execution_resource());
    let spec = json!({ "workflowIdentifier": "echo", "suspend": true });
    let create = async |name: &str, annotations: Value| {
        let object = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": name, "annotations": annotations }, "spec": spec,
        });
        api.create(&PostParams { dry_run: true, ..PostParams::default() }, &serde_json::from_value(object).unwrap())
            .await
    };
    let long = |bytes: usize| json!({ LAST_APPLIED: "x".repeat(bytes - LAST_APPLIED.len()) });
    let refusal = until(SOON, "the policy to be in force", async || create("run", long(262_144)).await.err()).await;
    let words = refusal.to_string();
    assert!(words.contains("no room for the claim") && words.contains("--server-side"), "{words}");
    // The policy counts bytes, not characters, and those of all annotations.
    let half = "ü".repeat((262_144 - ROOM) / 4);
    assert!(create("run", json!({ "a": half, "b": half })).await.is_err());
    assert!(create("run", long(262_144 - ROOM + 1)).await.is_err());
    assert!(create("run", long(262_144 - ROOM)).await.is_ok());
    assert!(create("run", Value::Null).await.is_ok());
    for object in policy {
        crate::chart::succeed(control_plane().kubectl_command().args(["delete", "-f", "-"]), &object.to_string());
    }
}

#[tokio::test]
async fn a_deadline_that_a_refused_claim_has_passed_names_the_refusal() {
    let world = World::new("refused-late").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let manifest = json!({ LAST_APPLIED: "x".repeat(262_036) });
    create(&world, "run", manifest, json!({ "workflowIdentifier": "echo", "startingDeadlineSeconds": 10 })).await;
    let late = world.wait("run", SOON, is_finished).await;
    assert_eq!(ready_reason(&late), Some("StartingDeadlineExceeded"));
    assert!(message(&late, "Failed").contains("Too long"), "{}", message(&late, "Failed"));
    assert_eq!(world.api.starts().await, 0);
    world.delete("run").await;
    world.wait_until_gone("run", AT_ONCE).await;
}

#[tokio::test]
async fn a_finished_execution_that_may_not_be_deleted_when_its_time_is_over_says_so_and_goes_once_it_may() {
    let world = World::new("undeletable").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    let policy = Refusing::requests(&world, "DELETE", &["workflowexecutions"], "false").await;
    until(SOON, "the policy to be in force", async || {
        world.executions().delete("run", &DeleteParams::default().dry_run()).await.err()
    })
    .await;
    world.patch("run", json!({ "spec": { "ttlSecondsAfterFinished": 1 } })).await.unwrap();
    let kept = world.wait("run", SOON, |object| is_true(object, "Expired")).await;
    let expired = condition(&kept, "Expired").unwrap();
    assert_eq!(expired.reason, "DeletionRefused");
    for expected in ["the audit department says no", "tries again", "change the policy"] {
        assert!(expired.message.contains(expected), "{expected:?} is not in {:?}", expired.message);
    }
    assert!(is_true(&kept, "Complete") && is_true(&kept, "Ready"));
    // The operator retries the deletion, and writes the status once.
    tokio::time::sleep(Duration::from_secs(20)).await;
    let still = world.executions().get("run").await.unwrap();
    assert_eq!(still.metadata.resource_version, kept.metadata.resource_version, "written to while it waited");
    policy.lift().await;
    world.wait_until_gone("run", NEXT_RETRY).await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_policy_against_the_claim_is_said_and_the_run_starts_once_it_is_lifted() {
    let world = World::new("policy").await;
    let policy = Refusing::changes(&world, &["workflowexecutions"], "false").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let refused = world.wait_for_reason("run", "ClaimRefused").await;
    assert!(message(&refused, "Ready").contains("the audit department says no"), "{refused:#?}");
    assert_eq!(world.api.starts().await, 0);
    policy.lift().await;
    world.wait("run", NEXT_RETRY, |object| is_true(object, "Complete")).await;
    assert_eq!(world.api.starts().await, 1);
    assert_eq!(told(&world, "run", "ClaimRefused").await.0, 1);
}

#[tokio::test]
async fn a_policy_against_every_write_is_told_in_events_and_the_run_starts_once_it_is_lifted() {
    let world = World::new("policy-all").await;
    let policy = Refusing::changes(&world, &["workflowexecutions", "workflowexecutions/status"], "false").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    let note = wait_until_told(&world, "run", "StatusRefused").await;
    assert!(note.contains("the audit department says no"), "{note}");
    wait_until_told(&world, "run", "ClaimRefused").await;
    tokio::time::sleep(MANY_RETRIES).await;
    for reason in ["StatusRefused", "ClaimRefused"] {
        assert_eq!(told(&world, "run", reason).await.0, 1, "{reason}");
    }
    assert_eq!(world.api.starts().await, 0);
    policy.lift().await;
    world.wait("run", NEXT_RETRY, |object| is_true(object, "Complete")).await;
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_run_whose_status_is_refused_is_asked_about_less_and_less_and_told_once_it_can_be() {
    let world = World::new("policy-status").await;
    let policy = Refusing::changes(&world, &["workflowexecutions/status"], "false").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.forget_calls().await;
    world.execute("ends", json!({ "workflowIdentifier": "echo", "input": { "a": 1 } })).await;
    world.execute("runs", json!({ "workflowIdentifier": "hang" })).await;
    for name in ["ends", "runs"] {
        let note = wait_until_told(&world, name, "StatusRefused").await;
        assert!(note.contains("the audit department says no"), "{note}");
    }
    tokio::time::sleep(MANY_RETRIES).await;
    for name in ["ends", "runs"] {
        assert_eq!(told(&world, name, "StatusRefused").await.0, 1, "{name}: {:#?}", world.events(name).await);
    }
    // Polling every five seconds would have taken some twenty calls.
    let asked = world.api.arrivals(Some(GET)).await;
    assert!(asked <= 8, "{asked} questions: {:#?}", world.api.calls().await);
    policy.lift().await;
    let done = world.wait("ends", NEXT_RETRY, |object| is_true(object, "Complete")).await;
    assert_eq!(status(&done).result.map(|result| json!(result)), Some(json!({ "a": 1 })), "{done:#?}");
    world.wait("runs", NEXT_RETRY, |object| ready_reason(object) == Some("Running")).await;
    assert_eq!(world.api.starts().await, 2);
}

#[tokio::test]
async fn an_object_that_has_no_room_for_the_claim_starts_nothing_and_says_so() {
    let world = World::new("too-large").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let input = json!({ "text": "x".repeat(1_571_700) });
    create(&world, "run", json!({}), json!({ "workflowIdentifier": "echo", "input": input })).await;
    let note = wait_until_told(&world, "run", "ClaimRefused").await;
    assert!(note.contains("Nothing was started") && note.contains("too large"), "{note}");
    tokio::time::sleep(Duration::from_secs(20)).await;
    for reason in ["ClaimRefused", "StatusRefused"] {
        assert!(told(&world, "run", reason).await.0 <= 1, "{:#?}", world.events("run").await);
    }
    assert_eq!(world.api.starts().await, 0);
    world.delete("run").await;
    world.wait_until_gone("run", AT_ONCE).await;
}

#[tokio::test]
async fn a_result_that_the_object_has_no_room_for_is_left_out_and_the_run_is_complete() {
    let world = World::new("large-result").await;
    let _operator = world.operator();
    let result = json!({ "text": "y".repeat(262_000) });
    world.api.register(json!({ "name": "wordy", "behaviour": { "duration_ms": 0, "result": result } })).await;
    let input = json!({ "text": "x".repeat(1_400_000) });
    world
        .execute("run", json!({ "workflowIdentifier": "wordy", "input": input, "result": { "maxBytes": 262_144 } }))
        .await;
    let done = world.wait("run", SOON, |object| is_true(object, "Complete")).await;
    let left_out = condition(&done, "ResultNotWritten").expect("said");
    assert_eq!((&*left_out.status, &*left_out.reason), ("True", "ResultTooLarge"));
    assert!(left_out.message.contains("too large"), "{}", left_out.message);
    assert!(status(&done).result.is_none() && status(&done).result_bytes == Some(262_011), "{:?}", status(&done));
    let told = world.events("run").await;
    assert!(told.iter().all(|(reason, _)| reason != "StatusRefused"), "{told:#?}");
    assert_eq!(world.api.starts().await, 1);
}

/// Refuses only changes of annotations: a person may still edit the spec.
const ANNOTATIONS_STAY: &str = "(has(object.metadata.annotations) ? object.metadata.annotations : {}) == \
                                (has(oldObject.metadata.annotations) ? oldObject.metadata.annotations : {})";

#[tokio::test]
async fn a_stop_that_cannot_be_recorded_is_sent_all_the_same() {
    let world = World::new("stop-refused").await;
    let _operator = world.operator();
    for name in ["shut", "deleted"] {
        world.execute(name, json!({ "workflowIdentifier": "hang" })).await;
        world.wait_for_reason(name, "Running").await;
    }
    let policy = Refusing::changes(&world, &["workflowexecutions"], ANNOTATIONS_STAY).await;
    world.patch("shut", json!({ "spec": { "shutdown": "Cancel" } })).await.unwrap();
    world.wait_for_reason("shut", "Canceled").await;
    wait_until_told(&world, "shut", "ClaimRefused").await;
    world.delete("deleted").await;
    world.wait_until_gone("deleted", SOON).await;
    let ends: Vec<Value> = world.api.executions().await.iter().map(|run| run["status"].clone()).collect();
    assert_eq!(ends, ["CANCELED", "CANCELED"]);
    policy.lift().await;
}

#[tokio::test]
async fn a_finalizer_that_cannot_be_taken_off_is_told_and_goes_once_it_can() {
    let world = World::new("held-finalizer").await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("run", "Running").await;
    let policy = Refusing::changes(&world, &["workflowexecutions"], "false").await;
    world.delete("run").await;
    let note = wait_until_told(&world, "run", "FinalizerRefused").await;
    assert!(note.contains("the audit department says no"), "{note}");
    assert_eq!(world.api.executions().await[0]["status"], "CANCELED", "the run is stopped all the same");
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(told(&world, "run", "FinalizerRefused").await.0, 1);
    policy.lift().await;
    world.wait_until_gone("run", NEXT_RETRY).await;
}

#[tokio::test]
async fn a_workflow_whose_status_or_finalizer_is_refused_is_told_once_and_left_alone_for_longer_and_longer() {
    let world = World::new("workflow-refused").await;
    let policy = Refusing::changes(&world, &["workflows", "workflows/status"], "false").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    world.api.forget_calls().await;
    world.workflow("echo", json!({ "tags": ["a"], "deletionPolicy": "Archive" })).await;
    for reason in ["FinalizerRefused", "StatusRefused"] {
        let note = wait_until_told(&world, "echo", reason).await;
        assert!(note.contains("the audit department says no"), "{note}");
    }
    tokio::time::sleep(MANY_RETRIES).await;
    for reason in ["FinalizerRefused", "StatusRefused"] {
        assert_eq!(told(&world, "echo", reason).await.0, 1, "{:#?}", world.events("echo").await);
    }
    // The tag is set, although the status is refused.
    let asked = world.api.arrivals(Some(("GET", "/v1/workflows/{workflow_identifier}"))).await;
    assert!((1..=6).contains(&asked), "{asked} questions: {:#?}", world.api.calls().await);
    policy.lift().await;
    world
        .wait_workflow("echo", NEXT_RETRY, |object| {
            workflow_condition(object, "Ready").is_some_and(|ready| ready.reason == "InSync")
                && !object.finalizers().is_empty()
        })
        .await;
}

#[tokio::test]
async fn a_workspace_whose_status_is_refused_is_told_once_and_works() {
    let world = World::bare("workspace-refused").await;
    let policy = Refusing::changes(&world, &["workspaces/status"], "false").await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait("run", SOON, |object| is_true(object, "Complete")).await;
    let note = wait_until_told(&world, "default", "StatusRefused").await;
    assert!(note.contains("the audit department says no") && note.contains("Connected"), "{note}");
    tokio::time::sleep(MANY_RETRIES).await;
    assert_eq!(told(&world, "default", "StatusRefused").await.0, 1);
    policy.lift().await;
    world.wait_for_workspace("default", "Connected").await;
    let left: Vec<Policy> = Api::<Policy>::all(world.client.clone()).list(&ListParams::default()).await.unwrap().items;
    assert!(left.iter().all(|policy| !policy.name_any().starts_with(&world.namespace)));
}
