//! What the API server refuses and stores with the CRDs alone: no operator runs in these tests.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::api::{ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, ResourceExt};
use mistral_workflows_operator::api::{DeletionPolicy, Workspace, crds};
use serde_json::{Map, Value, json};

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
async fn a_spec_that_cannot_run_is_refused_in_words() {
    let world = World::bare("refused").await;
    let attributes = |count| (0..count).map(|n| (format!("key-{n}"), json!("x"))).collect::<Map<_, _>>();
    let cases = [
        ("two targets", echo(json!({ "registrationId": REGISTRATION })), "name exactly one target"),
        ("a reference beside a name", echo(json!({ "workflowRef": { "name": "w" } })), "name exactly one target"),
        ("a reference without a name", json!({ "workflowRef": {} }), "spec.workflowRef.name: Required value"),
        ("no target", json!({}), "name exactly one target: workflowRef, workflowIdentifier or registrationId"),
        ("null targets", json!({ "workflowIdentifier": null, "registrationId": null }), "name exactly one target"),
        (
            "a workflow with a dot",
            json!({ "workflowIdentifier": "a.b" }),
            "spec.workflowIdentifier in body should match",
        ),
        (
            "a workflow with a slash",
            json!({ "workflowIdentifier": "a/b" }),
            "spec.workflowIdentifier in body should match",
        ),
        ("an empty workflow", json!({ "workflowIdentifier": "" }), "should be at least 1 chars long"),
        ("a long workflow", json!({ "workflowIdentifier": "w".repeat(129) }), "may not be more than 128 bytes"),
        ("a registration's name", json!({ "registrationId": "echo" }), "spec.registrationId in body should match"),
        ("a UUID and more", json!({ "registrationId": format!("{REGISTRATION}0") }), "may not be more than 36 bytes"),
        ("an id with a dot", echo(json!({ "executionId": "a.b" })), "spec.executionId in body should match"),
        ("an id with a line break", echo(json!({ "executionId": "a\n" })), "spec.executionId in body should match"),
        ("a long id", echo(json!({ "executionId": "e".repeat(241) })), "may not be more than 240 bytes"),
        ("an empty id", echo(json!({ "executionId": "" })), "spec.executionId in body should be at least 1 chars long"),
        ("a deployment's space", echo(json!({ "deploymentName": "a b" })), "spec.deploymentName in body should match"),
        (
            "a string as input",
            echo(json!({ "input": "text" })),
            "spec.input in body must be of type object: \"string\"",
        ),
        ("an array as input", echo(json!({ "input": [1] })), "spec.input in body must be of type object: \"array\""),
        ("a number as input", echo(json!({ "input": 7 })), "spec.input in body must be of type object: \"integer\""),
        ("an array as extensions", echo(json!({ "extensions": [] })), "spec.extensions in body must be of type object"),
        (
            "an unknown policy",
            echo(json!({ "deletionPolicy": "Delete" })),
            "supported values: \"Cancel\", \"Terminate\", \"Orphan\"",
        ),
        ("a large limit", echo(json!({ "result": { "maxBytes": 262_145 } })), "should be less than or equal to 262144"),
        ("a negative limit", echo(json!({ "result": { "maxBytes": -1 } })), "should be greater than or equal to 0"),
        ("an unknown shutdown", echo(json!({ "shutdown": "Stop" })), "should match '^(Cancel|Terminate)$'"),
        ("no time to start", echo(json!({ "startingDeadlineSeconds": 0 })), "greater than or equal to 1"),
        ("no time to run", echo(json!({ "activeDeadlineSeconds": 0 })), "greater than or equal to 1"),
        ("a word as a deadline", echo(json!({ "activeDeadlineSeconds": "1h" })), "must be of type integer"),
        ("a negative grace", echo(json!({ "terminationGracePeriodSeconds": -1 })), "greater than or equal to 0"),
        ("a negative time to live", echo(json!({ "ttlSecondsAfterFinished": -1 })), "greater than or equal to 0"),
        ("a word as suspend", echo(json!({ "suspend": "yes" })), "spec.suspend in body must be of type boolean"),
        ("a nameless Workspace", echo(json!({ "workspaceRef": { "name": "" } })), "should be at least 1 chars long"),
        (
            "a number as an attribute",
            echo(json!({ "customTracingAttributes": { "a": 1 } })),
            "must be of type string: \"integer\"",
        ),
        ("65 attributes", echo(json!({ "customTracingAttributes": attributes(65) })), "must have at most 64 items"),
    ];
    for (case, spec, words) in cases {
        assert_refused(case, create_execution(&world, "refused", spec).await, words);
    }
    let bare = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": { "name": "bare" },
    });
    let outcome = executions(&world).create(&PostParams::default(), &serde_json::from_value(bare).unwrap()).await;
    assert_refused("no spec", outcome, "spec: Required value");
    // The limits themselves are allowed.
    let largest = json!({
        "workflowIdentifier": "w".repeat(128), "executionId": "e".repeat(240), "result": { "maxBytes": 262_144 },
        "customTracingAttributes": attributes(64), "deploymentName": "a.b_c-D",
    });
    create_execution(&world, "largest", largest).await.unwrap();
}

#[tokio::test]
async fn what_was_asked_for_can_neither_change_nor_appear_nor_vanish() {
    let world = World::bare("immutable").await;
    // The field, its initial value, and new values that the API server must all refuse.
    let set = |value: Value| Some(value);
    let cases = [
        ("workspaceRef", set(json!({ "name": "team" })), vec![json!({ "name": "other" }), Value::Null]),
        ("workspaceRef", None, vec![json!({ "name": "other" })]),
        ("executionId", set(json!("a")), vec![json!("b"), Value::Null]),
        ("executionId", None, vec![json!("b")]),
        ("input", set(json!({ "a": 1 })), vec![json!({ "a": 2 }), Value::Null]),
        ("input", None, vec![json!({}), json!({ "a": 1 })]),
        ("deploymentName", set(json!("a")), vec![json!("b"), Value::Null]),
        ("deploymentName", None, vec![json!("b")]),
        // A map with a schema for its values, so a renamed key is detected too.
        (
            "customTracingAttributes",
            set(json!({ "a": "1" })),
            vec![
                json!({ "a": "2" }),
                json!({ "b": "1" }),
                json!({ "a": null, "b": "1" }),
                json!({ "a": null }),
                Value::Null,
            ],
        ),
        ("customTracingAttributes", None, vec![json!({}), json!({ "a": "1" })]),
        ("extensions", set(json!({ "a": 1 })), vec![json!({ "a": 2 }), json!({ "b": 1 }), Value::Null]),
        ("extensions", None, vec![json!({ "a": 1 })]),
        ("result", set(json!({ "maxBytes": 1 })), vec![json!({ "maxBytes": 2 }), Value::Null]),
        ("result", None, vec![json!({ "maxBytes": 2 })]),
        ("startingDeadlineSeconds", set(json!(10)), vec![json!(20), Value::Null]),
        ("startingDeadlineSeconds", None, vec![json!(10)]),
        ("activeDeadlineSeconds", set(json!(10)), vec![json!(20), Value::Null]),
        ("activeDeadlineSeconds", None, vec![json!(10)]),
        ("terminationGracePeriodSeconds", set(json!(10)), vec![json!(20), Value::Null]),
        ("terminationGracePeriodSeconds", None, vec![json!(20)]),
    ];
    for (index, (field, first, patches)) in cases.into_iter().enumerate() {
        let name = format!("run-{index}");
        let spec = echo(first.clone().map_or_else(|| json!({}), |first| json!({ field: first })));
        create_execution(&world, &name, spec).await.unwrap();
        for patch in patches {
            let case = format!("{field}: {first:?} patched with {patch}");
            let outcome = merge(&executions(&world), &name, json!({ "spec": { field: patch } })).await;
            assert_refused(&case, outcome, &format!("{field} is immutable"));
        }
    }
}

#[tokio::test]
async fn the_target_of_a_run_cannot_be_edited() {
    let world = World::bare("target").await;
    create_execution(&world, "named", echo(json!({}))).await.unwrap();
    create_execution(&world, "pinned", json!({ "registrationId": REGISTRATION })).await.unwrap();
    let (workflow, registration) = ("workflowIdentifier", "registrationId");
    for (name, patch, words) in [
        ("named", json!({ workflow: "slow" }), "workflowIdentifier is immutable: create another WorkflowExecution"),
        ("named", json!({ workflow: null }), "workflowIdentifier is immutable"),
        ("named", json!({ registration: REGISTRATION }), "registrationId is immutable"),
        ("named", json!({ workflow: null, registration: REGISTRATION }), "registrationId is immutable"),
        ("pinned", json!({ registration: OTHER_REGISTRATION }), "registrationId is immutable: create another"),
        ("pinned", json!({ registration: null }), "registrationId is immutable"),
        ("pinned", json!({ workflow: "echo" }), "workflowIdentifier is immutable"),
        ("pinned", json!({ registration: null, workflow: "echo" }), "workflowIdentifier is immutable"),
    ] {
        let case = format!("{name} patched with {patch}");
        assert_refused(&case, merge(&executions(&world), name, json!({ "spec": patch })).await, words);
    }
}

#[tokio::test]
async fn suspend_shutdown_ttl_and_the_deletion_policy_may_change() {
    let world = World::bare("mutable").await;
    let first = world.execute("run", echo(json!({ "suspend": true, "input": { "a": { "b": [1, null] } } }))).await;
    assert!(first.spec.suspend);
    let edited = world.patch("run", json!({ "spec": { "suspend": false, "deletionPolicy": "Orphan" } })).await.unwrap();
    assert!(!edited.spec.suspend);
    assert_eq!(edited.spec.deletion_policy, DeletionPolicy::Orphan);
    assert_eq!(edited.metadata.generation, Some(2));
    for (shutdown, ttl) in [(json!("Cancel"), json!(0)), (json!("Terminate"), json!(5)), (Value::Null, Value::Null)] {
        let spec = json!({ "shutdown": shutdown, "ttlSecondsAfterFinished": ttl });
        let edited = world.patch("run", json!({ "spec": spec })).await.unwrap();
        let ttl = ttl.as_u64().map(|seconds| u32::try_from(seconds).unwrap());
        assert_eq!((json!(edited.spec.shutdown), edited.spec.ttl_seconds_after_finished), (shutdown, ttl));
    }
}

#[tokio::test]
async fn absent_fields_get_their_defaults() {
    let world = World::bare("defaults").await;
    let expected = json!({
        "workflowIdentifier": "echo", "workspaceRef": { "name": "default" }, "deletionPolicy": "Cancel",
        "suspend": false, "result": { "maxBytes": 32_768 }, "terminationGracePeriodSeconds": 30,
    });
    let made = create_execution(&world, "absent", echo(json!({}))).await.unwrap();
    assert_eq!(made.data["spec"], expected);
    let made = create_execution(&world, "empty", echo(json!({ "workspaceRef": {}, "result": {} }))).await.unwrap();
    assert_eq!(made.data["spec"], expected);
    let auth = json!({ "auth": { "apiKeySecretRef": { "name": "mistral", "key": "api-key" } } });
    let made = create(&workspaces(&world), "Workspace", "absent", auth).await.unwrap();
    assert_eq!(made.data["spec"]["baseURL"], "https://api.mistral.ai");
}

#[tokio::test]
async fn a_null_in_an_optional_field_is_as_good_as_an_absent_one() {
    let world = World::bare("nulls").await;
    let absent = world.execute("absent", echo(json!({}))).await;
    let nulls = echo(json!({
        "registrationId": null, "executionId": null, "input": null, "deploymentName": null,
        "customTracingAttributes": null, "extensions": null, "suspend": null, "deletionPolicy": null,
        "workspaceRef": null, "result": null, "shutdown": null, "startingDeadlineSeconds": null,
        "activeDeadlineSeconds": null, "terminationGracePeriodSeconds": null, "ttlSecondsAfterFinished": null,
    }));
    assert_eq!(world.execute("null", nulls.clone()).await.spec, absent.spec);
    // The same in an edit that replaces the whole object, as `kubectl replace` does.
    let manifest = |name: &str| {
        json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
            "metadata": { "name": name, "resourceVersion": absent.resource_version() }, "spec": nulls,
        })
    };
    let edited = serde_json::from_value(manifest("absent")).unwrap();
    executions(&world).replace("absent", &PostParams::default(), &edited).await.unwrap();
    // The same with kubectl, whose client-side apply turns the manifest into a patch.
    let file = tempfile::NamedTempFile::new().unwrap();
    for name in ["absent", "null", "applied", "applied"] {
        let mut manifest = manifest(name);
        manifest["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        std::fs::write(file.path(), manifest.to_string()).unwrap();
        let (text, well) = world.kubectl(&["apply", "-f", file.path().to_str().unwrap()]).await;
        assert!(well, "{name}: {text}");
        assert_eq!(world.executions().get(name).await.unwrap().spec, absent.spec, "{name}");
    }
}

#[tokio::test]
async fn a_null_is_as_good_as_an_absent_field_in_server_side_apply_too() {
    let world = World::bare("ssa-nulls").await;
    let absent = world.execute("absent", echo(json!({}))).await;
    let parameters = PatchParams::apply("somebody").force();
    // `applied` is created first and edited the second time. `absent` was created without the nulls.
    for name in ["applied", "applied", "absent"] {
        let manifest = json!({
            "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": { "name": name },
            "spec": echo(json!({ "registrationId": null, "executionId": null, "input": null })),
        });
        let applied = world.executions().patch(name, &parameters, &Patch::Apply(manifest)).await;
        assert_eq!(applied.unwrap_or_else(|error| panic!("{name}: {error}")).spec, absent.spec, "{name}");
    }
}

/// Each null has an object of its own, so that no null hides another.
#[tokio::test]
async fn a_null_inside_of_a_field_that_may_not_change_is_no_change() {
    let world = World::bare("inner-nulls").await;
    let key = json!({ "name": "n", "key": "k" });
    let cases = [
        (json!({ "result": { "maxBytes": 5 } }), json!({ "result": { "maxBytes": 5, "to": null } })),
        (
            json!({ "result": { "to": { "secret": { "name": "s" } } } }),
            json!({ "result": { "to": { "secret": { "name": "s" }, "configMap": null } } }),
        ),
        (
            json!({ "inputFrom": [{ "configMapKeyRef": key, "path": "/a" }] }),
            json!({ "inputFrom": [{ "configMapKeyRef": key, "secretKeyRef": null, "path": "/a", "as": null }] }),
        ),
    ];
    let file = tempfile::NamedTempFile::new().unwrap();
    for (n, (without, with)) in cases.into_iter().enumerate() {
        for (way, first, second) in [("added", &without, &with), ("removed", &with, &without)] {
            for server_side in [false, true] {
                let name = format!("{way}-{n}-{server_side}");
                for spec in [first, second, second] {
                    let manifest = json!({
                        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
                        "metadata": { "name": name }, "spec": echo(spec.clone()),
                    });
                    std::fs::write(file.path(), manifest.to_string()).unwrap();
                    let path = file.path().to_str().unwrap();
                    let arguments = ["apply", "-f", path, "--server-side"];
                    let (said, well) = world.kubectl(&arguments[..if server_side { 4 } else { 3 }]).await;
                    assert!(well, "{name}: {spec}: {said}");
                    if server_side {
                        continue;
                    }
                    let (said, same) = world.kubectl(&["diff", "-f", path]).await;
                    assert!(same, "{name}: {spec}: {said}");
                }
                // Changes of immutable fields are still refused.
                for (case, change) in [
                    ("the result", json!({ "result": { "to": { "configMap": { "name": "other" }, "secret": null } } })),
                    ("its length", json!({ "result": { "maxBytes": 6 } })),
                    ("an entry", json!({ "inputFrom": [{ "secretKeyRef": key, "path": "/a" }] })),
                    ("a path", json!({ "inputFrom": [{ "configMapKeyRef": key, "path": "/b" }] })),
                    ("a format", json!({ "inputFrom": [{ "configMapKeyRef": key, "path": "/a", "as": "Json" }] })),
                    (
                        "a key",
                        json!({ "inputFrom": [{ "configMapKeyRef": { "name": "n", "key": "l" }, "path": "/a" }] }),
                    ),
                ] {
                    let refused = merge(&executions(&world), &name, json!({ "spec": change })).await;
                    assert_refused(&format!("{name}, {case}"), refused, "is immutable");
                }
            }
        }
    }
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

#[tokio::test]
async fn an_input_survives_as_it_was_written() {
    let world = World::bare("input").await;
    let input = json!({
        "nested": { "list": [1, [2, { "three": 3 }], null], "empty": {}, "none": [], "null": null },
        "numbers": [0, -1, 9_007_199_254_740_993_i64, i64::MIN, i64::MAX, 0.1, 1e-9, 123_456_789.25],
        "unicode": "Zürich 東京 🦀 \u{0} \"quoted\" \\ \n",
        "ключ": true, "with.dot/and slash": "", "": "empty key", "kind": "Secret", "apiVersion": 1,
        "metadata": { "name": 7 }, "null": null, "empty": {},
    });
    create_execution(&world, "run", echo(json!({ "input": input, "extensions": input }))).await.unwrap();
    create_execution(&world, "empty", echo(json!({ "input": {} }))).await.unwrap();
    let kept = executions(&world).get("run").await.unwrap();
    assert_eq!(kept.data["spec"]["input"], input);
    assert_eq!(kept.data["spec"]["extensions"], input);
    assert_eq!(executions(&world).get("empty").await.unwrap().data["spec"]["input"], json!({}));
    // The operator reads the same values.
    let typed = world.executions().get("run").await.unwrap();
    assert_eq!(typed.spec.input.unwrap(), input);
    assert_eq!(world.executions().get("empty").await.unwrap().spec.input.unwrap(), json!({}));
}

#[tokio::test]
async fn an_edited_input_is_refused() {
    let world = World::bare("edited").await;
    let input = json!({ "a": 1, "b": { "c": 2 }, "d": [1, 2], "n": null });
    create_execution(&world, "run", echo(json!({ "input": input }))).await.unwrap();
    for (case, edited) in [
        ("a changed value", json!({ "a": 2, "b": { "c": 2 }, "d": [1, 2], "n": null })),
        ("an addition", json!({ "a": 1, "b": { "c": 2 }, "d": [1, 2], "n": null, "e": 1 })),
        ("a removal", json!({ "b": { "c": 2 }, "d": [1, 2], "n": null })),
        ("a removed null", json!({ "a": 1, "b": { "c": 2 }, "d": [1, 2] })),
        ("a null for a value", json!({ "a": null, "b": { "c": 2 }, "d": [1, 2], "n": null })),
        ("another type", json!({ "a": "1", "b": { "c": 2 }, "d": [1, 2], "n": null })),
        ("a changed value deep inside", json!({ "a": 1, "b": { "c": 3 }, "d": [1, 2], "n": null })),
        ("an addition deep inside", json!({ "a": 1, "b": { "c": 2, "e": 1 }, "d": [1, 2], "n": null })),
        ("a removal deep inside", json!({ "a": 1, "b": {}, "d": [1, 2], "n": null })),
        ("another order of a list", json!({ "a": 1, "b": { "c": 2 }, "d": [2, 1], "n": null })),
        ("everything else", json!({})),
    ] {
        let patch = json!([{ "op": "replace", "path": "/spec/input", "value": edited }]);
        let patch: Patch<Value> = Patch::Json(serde_json::from_value(patch).unwrap());
        let outcome = executions(&world).patch("run", &PatchParams::default(), &patch).await;
        assert_refused(case, outcome, "input is immutable: create another WorkflowExecution for another run");
    }
}

#[tokio::test]
async fn a_renamed_key_of_the_input_passes_the_api_server() {
    let world = World::bare("renamed").await;
    create_execution(&world, "run", echo(json!({ "input": { "b": 2 } }))).await.unwrap();
    // Without a schema for the fields, the API server compares only the number of fields and the values of those fields
    // that both objects have. The fingerprint in the claim detects an edit that passes here: the run keeps the input
    // that it was started with, and the condition `Edited` says so.
    let patch = json!({ "spec": { "input": { "b": null, "c": 2 } } });
    let edited = merge(&executions(&world), "run", patch).await.unwrap();
    assert_eq!(edited.data["spec"]["input"], json!({ "c": 2 }));
}

#[tokio::test]
async fn an_unknown_field_of_the_spec_is_dropped() {
    let world = World::bare("unknown").await;
    let spec = echo(json!({ "newer": { "a": 1 }, "result": { "maxBytes": 5, "newer": true } }));
    let made = create_execution(&world, "run", spec).await.unwrap();
    assert_eq!(made.data["spec"]["newer"], Value::Null);
    assert_eq!(made.data["spec"]["result"], json!({ "maxBytes": 5 }));
}

#[tokio::test]
async fn a_status_is_written_only_through_its_subresource() {
    let world = World::bare("status").await;
    let forged = json!({ "executionId": "forged", "status": "COMPLETED" });
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": { "name": "run" },
        "spec": { "workflowIdentifier": "echo" }, "status": forged,
    });
    let made = executions(&world).create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await;
    assert_eq!(made.unwrap().data.get("status"), None);
    let patch = json!({ "status": forged, "metadata": { "labels": { "patched": "yes" } } });
    let patched = merge(&executions(&world), "run", patch.clone()).await.unwrap();
    assert_eq!(patched.labels()["patched"], "yes");
    assert_eq!(patched.data.get("status"), None);
    let patched = executions(&world).patch_status("run", &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    assert_eq!(patched.data["status"], forged);
}

#[tokio::test]
async fn a_base_url_is_a_scheme_a_host_and_a_port_and_stays() {
    let world = World::bare("base-url").await;
    let api = workspaces(&world);
    let spec = |url: &str| json!({ "baseURL": url, "auth": { "apiKeySecretRef": { "name": "mistral", "key": "k" } } });
    for (index, url) in [
        "https://api.eu.mistral.ai",
        "https://api.mistral.ai/",
        "http://localhost:8080",
        "http://127.0.0.1:1",
        "https://[::1]",
        "http://[fd00::1.2.3.4]:8443/",
    ]
    .into_iter()
    .enumerate()
    {
        let made = create(&api, "Workspace", &format!("good-{index}"), spec(url)).await.unwrap();
        assert_eq!(made.data["spec"]["baseURL"], url);
    }
    for url in [
        "https://api.mistral.ai/v1",
        "https://api.mistral.ai//",
        "https://user@api.mistral.ai",
        "https://user:password@api.mistral.ai",
        "https://api.mistral.ai?a=b",
        "https://api.mistral.ai/?a=b",
        "https://api.mistral.ai#a",
        "ftp://api.mistral.ai",
        "file:///etc/passwd",
        "api.mistral.ai",
        "//api.mistral.ai",
        "https://api mistral ai",
        "https://api.mistral.ai\n",
        "https://api.mistral.ai\\@evil.example",
        "https://[::1",
    ] {
        let outcome = create(&api, "Workspace", "bad", spec(url)).await;
        assert_refused(url, outcome, "baseURL must be a scheme (https or http), a host and an optional port");
    }
    let long = format!("https://{}.ai", "a".repeat(250));
    assert_refused("long", create(&api, "Workspace", "bad", spec(&long)).await, "may not be more than 256 bytes");

    for patch in [json!({ "baseURL": "https://api.us.mistral.ai" }), json!({ "baseURL": null })] {
        let outcome = merge(&api, "good-0", json!({ "spec": patch })).await;
        assert_refused(&patch.to_string(), outcome, "baseURL is immutable: create another Workspace");
    }
    let patch = json!({ "spec": { "auth": { "apiKeySecretRef": { "name": "rotated" } } } });
    let patched = merge(&api, "good-0", patch).await.unwrap();
    assert_eq!(patched.data["spec"]["auth"]["apiKeySecretRef"], json!({ "name": "rotated", "key": "k" }));
}

#[tokio::test]
async fn a_workspace_without_the_whole_reference_to_its_key_is_refused() {
    let world = World::bare("auth").await;
    for (auth, words) in [
        (Value::Null, "spec.auth: Required value"),
        (json!({}), "spec.auth.apiKeySecretRef: Required value"),
        (json!({ "apiKeySecretRef": { "key": "k" } }), "spec.auth.apiKeySecretRef.name: Required value"),
        (json!({ "apiKeySecretRef": { "name": "n" } }), "spec.auth.apiKeySecretRef.key: Required value"),
        (json!({ "apiKeySecretRef": { "name": "n", "key": "" } }), "should be at least 1 chars long"),
        (json!({ "apiKeySecretRef": { "name": "../n", "key": "k" } }), "apiKeySecretRef.name in body should match"),
        (json!({ "apiKeySecretRef": { "name": "n", "key": "a/b" } }), "apiKeySecretRef.key in body should match"),
    ] {
        let outcome = create(&workspaces(&world), "Workspace", "bad", json!({ "auth": auth })).await;
        assert_refused(&auth.to_string(), outcome, words);
    }
    assert_refused("no auth", create(&workspaces(&world), "Workspace", "bad", json!({})).await, "spec.auth: Required");
}

#[tokio::test]
async fn field_selectors_find_the_runs_of_a_workflow_and_of_a_registration() {
    let world = World::bare("selectors").await;
    world.execute("echo", echo(json!({}))).await;
    world.execute("slow", json!({ "workflowIdentifier": "slow" })).await;
    world.execute("pinned", json!({ "registrationId": REGISTRATION })).await;
    for (selector, expected) in [
        ("spec.workflowIdentifier=echo".to_owned(), vec!["echo"]),
        ("spec.workflowIdentifier!=echo".to_owned(), vec!["pinned", "slow"]),
        (format!("spec.registrationId={REGISTRATION}"), vec!["pinned"]),
        (format!("spec.registrationId={OTHER_REGISTRATION}"), vec![]),
    ] {
        let found = world.executions().list(&ListParams::default().fields(&selector)).await.unwrap();
        let found: Vec<String> = found.iter().map(ResourceExt::name_any).collect();
        assert_eq!(found, expected, "{selector}");
    }
}

#[tokio::test]
async fn generate_name_makes_a_new_run_of_each_creation() {
    let world = World::bare("generate").await;
    let object = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution",
        "metadata": { "generateName": "run-" }, "spec": { "workflowIdentifier": "echo" },
    });
    let mut names = Vec::new();
    for _ in 0..2 {
        let object = serde_json::from_value(object.clone()).unwrap();
        names.push(executions(&world).create(&PostParams::default(), &object).await.unwrap().name_any());
    }
    assert!(names.iter().all(|name| name.starts_with("run-") && name.len() > "run-".len()), "{names:?}");
    assert_ne!(names[0], names[1]);
}

/// The lines that `kubectl get` printed, header first, with single spaces.
fn table(text: &str) -> Vec<String> {
    text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect()
}

#[tokio::test]
async fn kubectl_get_shows_whether_it_is_well_and_what_it_does() {
    let world = World::new("columns").await;
    world.execute("run", echo(json!({}))).await;
    world.execute("pinned", json!({ "registrationId": REGISTRATION })).await;
    let status = json!({ "status": {
        "status": "RUNNING", "executionId": "run-1",
        "conditions": [{
            "type": "Ready", "status": "False", "reason": "Running", "message": "it runs",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    }});
    executions(&world).patch_status("run", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();

    let kubectl = async |arguments: &[&str]| {
        let (text, well) = world.kubectl(arguments).await;
        assert!(well, "{arguments:?}: {text}");
        table(&text)
    };
    let lines = kubectl(&["get", "mwfx"]).await;
    assert_eq!(lines[0], "NAME WORKFLOW REF STATUS READY REASON AGE");
    assert!(lines[2].starts_with("run echo RUNNING False Running "), "{lines:?}");
    let lines = kubectl(&["get", "workflowexecutions", "-o", "wide"]).await;
    assert_eq!(lines[0], "NAME WORKFLOW REF STATUS READY REASON EXECUTION ID REGISTRATION MESSAGE AGE");
    assert!(lines[1].starts_with("pinned ") && lines[1].contains(REGISTRATION), "{lines:?}");
    assert!(lines[2].starts_with("run echo RUNNING False Running run-1 it runs "), "{lines:?}");
    let lines = kubectl(&["get", "mws"]).await;
    assert_eq!(lines[0], "NAME READY REASON AGE");
    assert!(lines[1].starts_with("default "), "{lines:?}");
    let lines = kubectl(&["get", "workspaces", "-o", "wide"]).await;
    assert_eq!(lines[0], "NAME READY REASON URL WORKFLOWS WORKSPACE ID AGE");
    assert!(lines[1].contains(&world.api.url), "{lines:?}");
    let lines = kubectl(&["get", "mistral", "-o", "name"]).await;
    assert_eq!(
        lines,
        [
            "workflowexecution.workflows.mistral.ai/pinned",
            "workflowexecution.workflows.mistral.ai/run",
            "workspace.workflows.mistral.ai/default",
        ]
    );
}

/// Collects every object in the schema that has fields: its path for `kubectl explain`, and its fields.
fn objects(path: &str, schema: &JSONSchemaProps, found: &mut Vec<(String, Vec<String>)>) {
    let Some(properties) = &schema.properties else { return };
    found.push((path.to_owned(), properties.keys().cloned().collect()));
    for (name, property) in properties {
        objects(&format!("{path}.{name}"), property, found);
    }
}

#[tokio::test]
async fn kubectl_explain_says_something_of_every_field() {
    let world = World::bare("explain").await;
    let mut found = Vec::new();
    for crd in crds() {
        let schema = crd.spec.versions[0].schema.clone().unwrap().open_api_v3_schema.unwrap();
        for part in ["spec", "status"] {
            let properties = schema.properties.as_ref().unwrap();
            objects(&format!("{}.{part}", crd.spec.names.singular.as_ref().unwrap()), &properties[part], &mut found);
        }
    }
    assert!(found.iter().any(|(path, _)| path == "workflowexecution.spec.result"), "{found:?}");
    for (path, fields) in found {
        // The API server publishes schemas a little after the CRD is established.
        let explained = until(SOON, &format!("kubectl explain {path}"), async || {
            let (text, well) = world.kubectl(&["explain", &path]).await;
            well.then_some(text)
        })
        .await;
        assert!(!explained.contains("<no description>"), "{path}: {explained}");
        for field in fields {
            let mut lines = explained.lines().skip_while(|line| !line.starts_with(&format!("  {field}\t")));
            assert!(lines.next().is_some(), "{path}.{field} is not named: {explained}");
            let description = lines.find(|line| !line.trim_start().starts_with("enum:")).unwrap_or_default();
            assert!(description.starts_with("    ") && !description.trim().is_empty(), "{path}.{field}: {explained}");
        }
    }
}
