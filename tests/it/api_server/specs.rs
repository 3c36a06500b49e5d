//! A spec that cannot run is refused in words, and so is an edit of what was asked for.

use mistral_workflows_operator::api::DeletionPolicy;
use serde_json::Map;

use super::*;

/// A case, its spec, and words of the refusal.
type Case = (&'static str, Value, &'static str);

fn attributes(count: usize) -> Map<String, Value> {
    (0..count).map(|n| (format!("key-{n}"), json!("x"))).collect()
}

/// Specs that name no workflow, deployment or execution id, or several.
fn targets() -> Vec<Case> {
    vec![
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
    ]
}

/// Specs with a value of another type, or beyond its limit.
fn limits() -> Vec<Case> {
    vec![
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
    ]
}

#[tokio::test]
async fn a_spec_that_cannot_run_is_refused_in_words() {
    let world = World::bare("refused").await;
    let cases = targets().into_iter().chain(limits());
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
