//! What the API server makes of an accepted object: defaults, nulls, unknown fields, and inputs as they were written.

use super::*;

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
