//! Inputs from ConfigMaps and Secrets, and results in them.
//!
//! The Secrets of these tests hold canaries: each test ends with a search for them in logs, Events, metadata, status
//! and metrics.

use std::time::Duration;

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use kube::{Api, ResourceExt};
use mistral_workflows_operator::api::values::{Kind, ResultRef};
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const CLAIM: &str = "workflows.mistral.ai/claim";
/// Allows for the 90 s in which the outcome of a start stays unknown, the delay of a retry, and a busy machine.
const AFTER_DOUBT: Duration = Duration::from_secs(180);
/// Hard to redact: has characters that JSON and Python escape.
const TOKEN: &str = "canary-in\"put'-é-\\-42";

fn config_maps(world: &World) -> Api<ConfigMap> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

fn secrets(world: &World) -> Api<Secret> {
    Api::namespaced(world.client.clone(), &world.namespace)
}

async fn config_map(world: &World, name: &str, data: Value) {
    let object = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data });
    config_maps(world).patch(name, &PatchParams::apply("test").force(), &Patch::Apply(object)).await.unwrap();
}

fn from_config_map(name: &str, key: &str, path: &str) -> Value {
    json!({ "configMapKeyRef": { "name": name, "key": key }, "path": path })
}

fn from_secret(name: &str, key: &str, path: &str) -> Value {
    json!({ "secretKeyRef": { "name": name, "key": key }, "path": path })
}

fn as_json(mut entry: Value) -> Value {
    entry["as"] = json!("Json");
    entry
}

fn message<'a>(object: &'a WorkflowExecution, type_: &str) -> &'a str {
    &condition(object, type_).unwrap().message
}

fn claim(object: &WorkflowExecution) -> Value {
    serde_json::from_str(&object.annotations()[CLAIM]).unwrap()
}

fn result_to(kind: &str, name: &str) -> Value {
    json!({ "to": { kind: { "name": name } } })
}

async fn result_in_config_map(world: &World, name: &str) -> Value {
    let object = config_maps(world).get(name).await.unwrap();
    serde_json::from_str(&object.data.unwrap_or_default()["result"]).unwrap()
}

async fn result_in_secret(world: &World, name: &str) -> Value {
    let ByteString(bytes) = secrets(world).get(name).await.unwrap().data.unwrap_or_default()["result"].clone();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn values_of_config_maps_and_secrets_reach_the_run_and_those_of_secrets_nothing_else() {
    let world = World::new("values").await;
    config_map(&world, "settings", json!({ "region": "eu", "limits": r#"{ "rows": [1, null] }"# })).await;
    world.secret("crm", "token", TOKEN).await;
    world.secret("login", "login.json", r#"{ "user": "canary-user", "pin": 12345678 }"#).await;
    let _operator = world.operator();
    let spec = json!({
        "workflowIdentifier": "echo",
        "input": { "customer": { "id": 7 }, "region": null, "n": 12345678 },
        "inputFrom": [
            from_config_map("settings", "region", "/customer/region"),
            as_json(from_config_map("settings", "limits", "/limits")),
            from_secret("crm", "token", "/auth/deep/token"),
            as_json(from_secret("login", "login.json", "/auth/login")),
        ],
    });
    world.execute("run", spec).await;
    let done = world.wait_for_reason("run", "Completed").await;
    let [run] = &world.api.executions().await[..] else { panic!("one run") };
    let input = |token: &str, user: &str, pin: Value| {
        json!({
            "customer": { "id": 7, "region": "eu" }, "region": null, "n": pin, "limits": { "rows": [1, null] },
            "auth": { "deep": { "token": token }, "login": { "user": user, "pin": pin } },
        })
    };
    assert_eq!(run["input"], input(TOKEN, "canary-user", json!(12345678)));
    assert_eq!(result(&done), Some(input("[redacted]", "[redacted]", json!("[redacted]"))));
    assert!(message(&done, "Complete").contains("[redacted]"));
    // A result that others may read elsewhere is redacted too.
    let from = json!([from_secret("crm", "token", "/token")]);
    world
        .execute(
            "map",
            json!({ "workflowIdentifier": "echo", "inputFrom": from, "result": result_to("configMap", "out") }),
        )
        .await;
    world.wait_for_reason("map", "Completed").await;
    assert_eq!(result_in_config_map(&world, "out").await, json!({ "token": "[redacted]" }));
    let inputs = claim(&done)["inputs"].clone();
    let settings = config_maps(&world).get("settings").await.unwrap();
    let version = json!({
        "kind": "ConfigMap", "name": "settings", "uid": settings.uid(), "resourceVersion": settings.resource_version(),
    });
    assert_eq!(inputs[0], version);
    let names: Vec<_> = inputs.as_array().unwrap().iter().map(|input| input["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["settings", "crm", "login"]);
}

#[tokio::test]
async fn an_execution_and_its_values_may_come_in_one_manifest_in_any_order() {
    let world = World::new("values-order").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let spec = json!({ "workflowIdentifier": "echo", "inputFrom": [from_config_map("later", "k", "/a")] });
    world.execute("run", spec).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    config_map(&world, "later", json!({ "k": "v" })).await;
    let done = world.wait("run", Duration::from_secs(20), is_finished).await;
    assert_eq!(result(&done), Some(json!({ "a": "v" })));
    let events = world.events("run").await;
    assert!(events.iter().all(|(reason, _)| reason != "InputNotFound"), "{events:?}");
}

#[tokio::test]
async fn what_is_missing_or_wrong_is_named_and_waited_for() {
    let world = World::new("values-wrong").await;
    config_map(&world, "there", json!({ "text": "{not json" })).await;
    let binary = Secret {
        metadata: kube::core::ObjectMeta { name: Some("binary".into()), ..Default::default() },
        data: Some([("k".to_owned(), ByteString(vec![0xff, 0x00]))].into()),
        ..Secret::default()
    };
    secrets(&world).create(&PostParams::default(), &binary).await.unwrap();
    world.secret("token", "k", TOKEN).await;
    for n in 0..3 {
        config_map(&world, &format!("large-{n}"), json!({ "k": "x".repeat(800_000) })).await;
    }
    let _operator = world.operator();
    let large = |n: usize| from_config_map(&format!("large-{n}"), "k", &format!("/{n}"));
    for (name, from, reason, words) in [
        ("no-map", json!([from_config_map("absent", "k", "/a")]), "InputNotFound", "no ConfigMap \"absent\""),
        ("no-secret", json!([from_secret("absent", "k", "/a")]), "InputNotFound", "no Secret \"absent\""),
        ("no-key", json!([from_secret("token", "absent", "/a")]), "InputNotFound", "\"token\" has no key \"absent\""),
        ("not-json", json!([as_json(from_config_map("there", "text", "/a"))]), "InputInvalid", "is not JSON"),
        ("not-json-secret", json!([as_json(from_secret("token", "k", "/a"))]), "InputInvalid", "is not JSON"),
        ("not-utf-8", json!([from_secret("binary", "k", "/a")]), "InputInvalid", "not UTF-8"),
        ("too-large", json!([large(0), large(1), large(2)]), "InputInvalid", "the API takes 2 MB"),
    ] {
        world.execute(name, json!({ "workflowIdentifier": "echo", "inputFrom": from })).await;
        let waiting = world.wait_for_reason(name, reason).await;
        assert!(message(&waiting, "Ready").contains(words), "{name}: {}", message(&waiting, "Ready"));
        assert!(is_true(&waiting, "Stalled") && !is_finished(&waiting), "{name}");
        assert_eq!(condition(&waiting, "Started").unwrap().status, "False");
        assert!(!waiting.annotations().contains_key(CLAIM), "{name}");
    }
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    // The operator checks again after half a minute.
    world.secret("absent", "k", TOKEN).await;
    let done = world.wait("no-secret", Duration::from_secs(90), is_finished).await;
    assert_eq!(result(&done), Some(json!({ "a": "[redacted]" })));
    // Two of the large values fit.
    world.execute("fits", json!({ "workflowIdentifier": "echo", "inputFrom": [large(0), large(1)] })).await;
    let done = world.wait_for_reason("fits", "Completed").await;
    assert_eq!(status(&done).result_bytes, Some(1_600_000 + 15));
    assert_eq!(world.api.starts().await, 2);
}

#[tokio::test]
async fn the_api_key_of_a_workspace_is_no_input_also_where_the_workspace_comes_later() {
    let world = World::new("values-key").await;
    world.secret("later", "k", TOKEN).await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let from = json!([from_secret("mistral", "api-key", "/a")]);
    world.execute("key", json!({ "workflowIdentifier": "echo", "inputFrom": from })).await;
    let from = json!([from_config_map("absent", "k", "/a"), from_secret("later", "k", "/b")]);
    world.execute("later", json!({ "workflowIdentifier": "echo", "inputFrom": from })).await;
    let refused = world.wait_for_reason("key", "InputForbidden").await;
    for words in ["Secret \"mistral\" holds the API key of a Workspace", "a Secret of its own"] {
        assert!(message(&refused, "Ready").contains(words), "{}", message(&refused, "Ready"));
    }
    assert!(is_true(&refused, "Stalled") && !refused.annotations().contains_key(CLAIM));
    world.wait_for_reason("later", "InputNotFound").await;
    let other = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace", "metadata": { "name": "other" },
        "spec": { "baseURL": world.api.url, "auth": { "apiKeySecretRef": { "name": "later", "key": "k" } } },
    });
    world.workspaces().create(&PostParams::default(), &serde_json::from_value(other).unwrap()).await.unwrap();
    config_map(&world, "absent", json!({ "k": "v" })).await;
    let refused = world.wait_for_reason("later", "InputForbidden").await;
    assert!(message(&refused, "Ready").contains("\"later\" holds the API key"), "{}", message(&refused, "Ready"));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    // No Workspace uses the Secret any more.
    world.workspaces().delete("other", &DeleteParams::default()).await.unwrap();
    let done = world.wait("later", AFTER_DOUBT, is_finished).await;
    assert_eq!(result(&done), Some(json!({ "a": "v", "b": "[redacted]" })));
}

#[tokio::test]
async fn where_inputs_need_a_label_no_other_secret_is_one() {
    let world = World::new("values-label").await;
    world.secret("crm", "token", TOKEN).await;
    let _operator = world.process_with(&["--input-secrets-need-label"], &[]);
    let from = json!([from_secret("crm", "token", "/a")]);
    world.execute("run", json!({ "workflowIdentifier": "echo", "inputFrom": from })).await;
    let refused = world.wait_for_reason("run", "InputForbidden").await;
    for words in ["workflows.mistral.ai/input=true", "Secret \"crm\" lacks"] {
        assert!(message(&refused, "Ready").contains(words), "{}", message(&refused, "Ready"));
    }
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    let (said, done) = world.kubectl(&["label", "secret", "crm", "workflows.mistral.ai/input=true"]).await;
    assert!(done, "{said}");
    let done = world.wait("run", Duration::from_secs(90), is_finished).await;
    assert_eq!(result(&done), Some(json!({ "a": "[redacted]" })));
}

#[tokio::test]
async fn a_spec_whose_values_have_no_place_of_their_own_is_refused_in_words() {
    let world = World::new("values-spec").await;
    let entry = |path: &str| from_config_map("c", "k", path);
    let both = json!({ "configMapKeyRef": { "name": "c", "key": "k" }, "secretKeyRef": { "name": "s", "key": "k" }, "path": "/a" });
    let many: Vec<Value> = (0..33).map(|n| entry(&format!("/{n}"))).collect();
    let to = json!({ "to": { "configMap": { "name": "c" }, "secret": { "name": "s" } } });
    for (case, field, value, words) in [
        ("two sources", "inputFrom", json!([both]), "name exactly one source"),
        ("no source", "inputFrom", json!([{ "path": "/a" }]), "name exactly one source"),
        ("the same path twice", "inputFrom", json!([entry("/a"), entry("/a")]), "two paths of inputFrom are the same"),
        ("a path in another", "inputFrom", json!([entry("/a/b"), entry("/c"), entry("/a")]), "one is inside the other"),
        ("no path", "inputFrom", json!([{ "configMapKeyRef": { "name": "c", "key": "k" } }]), "path: Required value"),
        ("a path without a slash", "inputFrom", json!([entry("ab")]), "path in body should match"),
        ("the whole input", "inputFrom", json!([entry("/")]), "path in body should be at least 2 chars long"),
        ("an empty name in a path", "inputFrom", json!([entry("/a//b")]), "path in body should match"),
        ("a tilde that escapes nothing", "inputFrom", json!([entry("/a~2")]), "path in body should match"),
        (
            "a name that leads elsewhere",
            "inputFrom",
            json!([from_secret("../../x", "k", "/a")]),
            "name in body should match",
        ),
        (
            "another format",
            "inputFrom",
            json!([{ "configMapKeyRef": { "name": "c", "key": "k" }, "path": "/a", "as": "Yaml" }]),
            "supported values: \"String\", \"Json\"",
        ),
        ("33 values", "inputFrom", json!(many), "must have at most 32 items"),
        ("two places", "result", to, "name exactly one place for the result"),
        ("no place", "result", json!({ "to": {} }), "name exactly one place for the result"),
        ("a name with a slash", "result", result_to("secret", "a/b"), "name in body should match"),
    ] {
        match world.try_execute("refused", json!({ "workflowIdentifier": "echo", field: value })).await {
            Err(kube::Error::Api(status)) => assert!(status.message.contains(words), "{case}: {}", status.message),
            Err(error) => panic!("{case}: {error}"),
            Ok(_) => panic!("{case}: accepted"),
        }
    }
    // Paths that share a prefix or a parent do not conflict.
    let neighbours = json!([entry("/a"), entry("/ab"), entry("/a~1b"), entry("/b/a"), entry("/b/c")]);
    let spec = json!({ "workflowIdentifier": "echo", "suspend": true, "inputFrom": neighbours, "result": result_to("configMap", "r") });
    world.execute("run", spec).await;
    for (patch, words) in [
        (json!({ "inputFrom": null }), "inputFrom is immutable"),
        (json!({ "inputFrom": [entry("/a")] }), "inputFrom is immutable"),
        (json!({ "result": { "to": null } }), "result is immutable"),
        (json!({ "result": { "to": { "configMap": { "name": "other" } } } }), "result is immutable"),
        (json!({ "result": result_to("secret", "r") }), "name exactly one place"),
    ] {
        match world.patch("run", json!({ "spec": patch })).await {
            Err(kube::Error::Api(status)) => assert!(status.message.contains(words), "{patch}: {}", status.message),
            other => panic!("{patch}: {other:?}"),
        }
    }
    world.execute("plain", json!({ "workflowIdentifier": "echo", "suspend": true })).await;
    let added = world.patch("plain", json!({ "spec": { "inputFrom": [entry("/a")] } })).await;
    assert!(added.unwrap_err().to_string().contains("inputFrom is immutable"));

    // CEL cannot detect these conflicts, so the operator does.
    let _operator = world.operator();
    for (name, input) in [("taken", json!({ "a": { "b": 1 } })), ("through", json!({ "a": [1] }))] {
        let spec = json!({ "workflowIdentifier": "echo", "input": input, "inputFrom": [entry("/a/b")] });
        world.execute(name, spec).await;
        let failed = world.wait_for_reason(name, "InputConflict").await;
        assert!(is_true(&failed, "Failed") && message(&failed, "Failed").contains("/a/b"));
    }
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
}

#[tokio::test]
async fn a_refusal_that_quotes_a_secret_is_told_without_it() {
    let world = World::new("values-refused").await;
    // Long enough that the operator cuts the API's text in the middle of the value.
    let long = format!("{TOKEN}-{}", "canary-".repeat(300));
    let schema = json!({ "type": "object", "properties": { "token": { "type": "integer" } } });
    world.api.register(json!({ "name": "strict", "input_schema": schema })).await;
    world.secret("short", "k", TOKEN).await;
    world.secret("long", "k", &long).await;
    let operator = world.process(&[]);
    for name in ["short", "long"] {
        let spec = json!({ "workflowIdentifier": "strict", "inputFrom": [from_secret(name, "k", "/token")] });
        world.execute(name, spec).await;
        let refused = world.wait_for_reason(name, "InputRejected").await;
        let said = message(&refused, "Failed");
        assert!(said.contains("[redacted]") && said.contains("integer"), "{said}");
    }
    until(SOON, "the log", async || operator.log().contains("[redacted]").then_some(())).await;
}

#[tokio::test]
async fn a_failure_that_quotes_a_secret_is_told_without_it() {
    let world = World::new("values-failed").await;
    let error = format!("the customer's token '{TOKEN}' is not valid");
    world.api.register(json!({ "name": "picky", "behaviour": { "outcome": "fail", "error": error } })).await;
    world.secret("crm", "token", TOKEN).await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "picky", "inputFrom": [from_secret("crm", "token", "/token")] });
    world.execute("run", spec).await;
    let failed = world.wait_for_reason("run", "WorkflowFailed").await;
    assert_eq!(status(&failed).failure.unwrap().message, "the customer's token '[redacted]' is not valid");
}

#[tokio::test]
async fn after_a_restart_a_result_is_told_only_if_its_secrets_can_still_be_left_out() {
    let world = World::new("values-restart").await;
    for name in ["same", "changed", "gone", "kept"] {
        world.secret(name, "k", TOKEN).await;
    }
    let operator = world.operator();
    let mut ids = Vec::new();
    for name in ["same", "changed", "gone", "kept"] {
        let mut spec = json!({ "workflowIdentifier": "hang", "inputFrom": [from_secret(name, "k", "/token")] });
        if name == "kept" {
            spec["result"] = result_to("secret", "kept-result");
        }
        world.execute(name, spec).await;
        ids.push(status(&world.wait_for_reason(name, "Running").await).execution_id.unwrap());
    }
    // One more execution, for the text of a failure.
    world.secret("lost", "k", TOKEN).await;
    let spec = json!({ "workflowIdentifier": "hang", "inputFrom": [from_secret("lost", "k", "/token")] });
    world.execute("lost", spec).await;
    let lost = status(&world.wait_for_reason("lost", "Running").await).execution_id.unwrap();
    drop(operator);
    world.secret("changed", "k", "canary-another").await;
    for name in ["gone", "kept", "lost"] {
        secrets(&world).delete(name, &DeleteParams::default()).await.unwrap();
    }
    let _operator = world.operator();
    for id in ids {
        let result = json!({ "said": format!("it was {TOKEN}") });
        world.api.finish(&id, json!({ "outcome": "complete", "result": result })).await;
    }
    world.api.finish(&lost, json!({ "outcome": "fail", "error": format!("not {TOKEN}") })).await;
    let done = world.wait_for_reason("same", "Completed").await;
    assert_eq!(result(&done), Some(json!({ "said": "it was [redacted]" })));
    for (name, words) in [("changed", "has changed since"), ("gone", "no longer exists")] {
        let done = world.wait_for_reason(name, "Completed").await;
        assert_eq!(result(&done), None);
        assert_eq!(condition(&done, "ResultNotWritten").unwrap().reason, "ResultWithheld");
        assert!(message(&done, "Complete").contains(words), "{}", message(&done, "Complete"));
        assert!(status(&done).result_bytes.is_some());
    }
    let done = world.wait_for_reason("kept", "Completed").await;
    assert_eq!(condition(&done, "ResultNotWritten"), None);
    assert_eq!(result_in_secret(&world, "kept-result").await, json!({ "said": format!("it was {TOKEN}") }));
    let failed = world.wait_for_reason("lost", "WorkflowFailed").await;
    assert!(status(&failed).failure.unwrap().message.contains("withheld"));
}

#[tokio::test]
async fn a_value_that_changes_while_it_is_not_known_whether_it_was_sent_starts_nothing() {
    let world = World::new("values-changed").await;
    config_map(&world, "changed", json!({ "k": "before" })).await;
    let mut first = world.process(&[("OPERATOR_FAILPOINTS", "failpoint-claimed=kill")]);
    world.wait_for_workspace("default", "Connected").await;
    let spec = json!({ "workflowIdentifier": "echo", "inputFrom": [from_config_map("changed", "k", "/a")] });
    world.execute("run", spec).await;
    until(SOON, "the end of the process", async || first.child.wait_exit(Duration::ZERO).unwrap().map(|_| ())).await;
    config_map(&world, "changed", json!({ "k": "after" })).await;
    let _second = world.process(&[]);
    let is_changed = |object: &WorkflowExecution| ready_reason(object) == Some("InputChanged");
    let waiting = world.wait("run", AFTER_DOUBT, is_changed).await;
    assert!(message(&waiting, "Ready").contains("ConfigMap \"changed\""));
    assert_eq!(world.api.arrivals(Some(EXECUTE)).await, 0);
    // A person can decide to start the run.
    let id = claim(&waiting)["executionId"].clone();
    let consent = json!({ "metadata": { "annotations": { "workflows.mistral.ai/take-over": id } } });
    world.patch("run", consent).await.unwrap();
    let done = world.wait_for_reason("run", "Completed").await;
    assert_eq!(result(&done), Some(json!({ "a": "after" })));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_refused_start_is_tried_again_with_the_values_of_that_time() {
    let world = World::new("values-again").await;
    config_map(&world, "settings", json!({ "k": "before" })).await;
    let _operator = world.operator();
    let spec = json!({ "workflowIdentifier": "later", "inputFrom": [from_config_map("settings", "k", "/a")] });
    world.execute("run", spec).await;
    let waiting = world.wait_for_reason("run", "TargetNotFound").await;
    config_map(&world, "settings", json!({ "k": "after" })).await;
    world.api.register(json!({ "name": "later" })).await;
    let done = world.wait("run", Duration::from_secs(90), is_finished).await;
    assert_eq!(result(&done), Some(json!({ "a": "after" })));
    assert_ne!(claim(&waiting)["inputs"], claim(&done)["inputs"]);
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_result_is_where_the_spec_wants_it_when_the_run_completes() {
    let world = World::new("result-to").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    // Larger than the limit of status.result.
    let input = json!({ "rows": vec!["x".repeat(1000); 500], "none": null });
    for (name, kind) in [("map", "configMap"), ("secret", "secret")] {
        let spec = json!({ "workflowIdentifier": "echo", "input": input, "result": result_to(kind, &format!("{name}-result")) });
        let created = world.execute(name, spec).await;
        let done = world.wait_for_reason(name, "Completed").await;
        let (metadata, result, kind) = if kind == "secret" {
            let object = secrets(&world).get("secret-result").await.unwrap();
            (object.metadata, result_in_secret(&world, "secret-result").await, Kind::Secret)
        } else {
            let object = config_maps(&world).get("map-result").await.unwrap();
            (object.metadata, result_in_config_map(&world, "map-result").await, Kind::ConfigMap)
        };
        assert_eq!(result, input);
        let [owner] = &metadata.owner_references.unwrap()[..] else { panic!("one owner") };
        assert_eq!((Some(&owner.uid), owner.controller), (created.uid().as_ref(), Some(true)));
        let named = Some(ResultRef { kind, name: format!("{name}-result") });
        assert_eq!((status(&done).result_ref, status(&done).result), (named, None));
        assert_eq!(status(&done).result_bytes, Some(i64::try_from(input.to_string().len()).unwrap()));
        assert!(message(&done, "Complete").contains(&format!("\"{name}-result\"")));
    }
    // The object is deleted with its resource, and the next execution of that name creates it again.
    world.delete("map").await;
    world.wait_until_gone("map", SOON).await;
    let spec = json!({ "workflowIdentifier": "echo", "input": { "second": true }, "result": result_to("configMap", "map-result") });
    world.execute("map", spec).await;
    let done = world.wait_for_reason("map", "Completed").await;
    assert_eq!(condition(&done, "ResultNotWritten"), None, "{:#?}", done.status);
    assert_eq!(result_in_config_map(&world, "map-result").await, json!({ "second": true }));
}

/// A client that waits for `Complete` is woken by the write that sets it, so the result has to exist before.
#[tokio::test]
async fn nobody_sees_a_completed_run_whose_result_is_not_there_yet() {
    let world = World::new("result-first").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    let spec = json!({ "workflowIdentifier": "echo", "input": { "a": 1 }, "result": result_to("configMap", "out") });
    let created = world.execute("run", spec).await;
    let since = created.resource_version().unwrap();
    let mut events = world.executions().watch(&WatchParams::default().timeout(60), &since).await.unwrap().boxed();
    while let Some(event) = events.try_next().await.unwrap() {
        let WatchEvent::Modified(object) = event else { continue };
        let written: u64 = object.resource_version().unwrap().parse().unwrap();
        if status(&object).end_time.is_some() || is_finished(&object) {
            let made = config_maps(&world).get("out").await.unwrap().resource_version().unwrap();
            assert!(made.parse::<u64>().unwrap() < written, "{made} {written}");
            return;
        }
    }
    panic!("no end");
}

#[tokio::test]
async fn an_object_of_somebody_else_is_left_alone_and_the_run_completes() {
    let world = World::new("result-taken").await;
    config_map(&world, "theirs", json!({ "result": "mine" })).await;
    world.secret("theirs", "result", "canary-theirs").await;
    let _operator = world.operator();
    for kind in ["configMap", "secret"] {
        let name = kind.to_lowercase();
        let spec = json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "result": result_to(kind, "theirs") });
        world.execute(&name, spec).await;
        let done = world.wait_for_reason(&name, "Completed").await;
        assert!(is_true(&done, "Complete"));
        assert_eq!(condition(&done, "ResultNotWritten").unwrap().reason, "ResultNotOurs");
        assert!(message(&done, "Complete").contains("name another in spec.result.to"));
        assert_eq!((status(&done).result_ref, status(&done).result), (None, None));
        let events = until(SOON, "the Events", async || {
            let events = world.events(&name).await;
            (events.len() >= 2).then_some(events)
        })
        .await;
        assert!(events.iter().any(|(_, note)| note.contains("\"theirs\"")), "{events:?}");
    }
    assert_eq!(config_maps(&world).get("theirs").await.unwrap().data.unwrap()["result"], "mine");
    assert_eq!(secrets(&world).get("theirs").await.unwrap().data.unwrap()["result"].0, b"canary-theirs");
    // The same applies to the object of another execution.
    for name in ["first", "second"] {
        let spec =
            json!({ "workflowIdentifier": "echo", "input": { "n": name }, "result": result_to("configMap", "shared") });
        world.execute(name, spec).await;
        world.wait_for_reason(name, "Completed").await;
    }
    assert_eq!(result_in_config_map(&world, "shared").await, json!({ "n": "first" }));
}

#[tokio::test]
async fn a_result_that_no_object_can_hold_is_said_to_be_too_large() {
    let world = World::new("result-large").await;
    let _operator = world.operator();
    // `{"a":"…"}` of exactly one mebibyte, and of one byte more.
    for (name, size) in [("fits", (1 << 20) - 8), ("large", (1 << 20) - 7)] {
        let behaviour = json!({ "duration_ms": 0, "result": { "a": "x".repeat(size) } });
        world.api.register(json!({ "name": name, "behaviour": behaviour })).await;
        for kind in ["configMap", "secret"] {
            let name = format!("{name}-{}", kind.to_lowercase());
            let spec = json!({ "workflowIdentifier": name.split('-').next(), "result": result_to(kind, &name) });
            world.execute(&name, spec).await;
        }
    }
    for kind in ["configmap", "secret"] {
        let done = world.wait_for_reason(&format!("fits-{kind}"), "Completed").await;
        assert!(status(&done).result_ref.is_some(), "{:#?}", status(&done));
        let done = world.wait_for_reason(&format!("large-{kind}"), "Completed").await;
        assert_eq!(condition(&done, "ResultNotWritten").unwrap().reason, "ResultTooLarge");
        assert!(message(&done, "Complete").contains("1048577 bytes"), "{}", message(&done, "Complete"));
        assert_eq!((status(&done).result_bytes, status(&done).result_ref), (Some(1_048_577), None));
    }
    assert!(config_maps(&world).get_opt("large-configmap").await.unwrap().is_none());
}

#[tokio::test]
async fn killed_between_the_result_and_the_status_the_next_one_finds_it_written() {
    let world = World::new("result-killed").await;
    let mut first = world.process(&[("OPERATOR_FAILPOINTS", "failpoint-result-written=kill")]);
    let spec = json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "result": result_to("configMap", "out") });
    world.execute("run", spec).await;
    until(SOON, "the end of the process", async || first.child.wait_exit(Duration::ZERO).unwrap().map(|_| ())).await;
    let written = config_maps(&world).get("out").await.unwrap();
    assert!(!is_finished(&world.executions().get("run").await.unwrap()));
    let _second = world.process(&[]);
    let done = world.wait("run", AFTER_DOUBT, is_finished).await;
    assert!(status(&done).result_ref.is_some() && is_true(&done, "Complete"), "{:#?}", done.status);
    assert_eq!(config_maps(&world).get("out").await.unwrap().metadata, written.metadata, "written twice");
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn a_result_object_that_was_changed_before_the_end_is_left_as_it_is_and_that_is_said() {
    let world = World::new("result-spoilt").await;
    let mut first = world.process(&[("OPERATOR_FAILPOINTS", "failpoint-result-written=kill")]);
    let spec = json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "result": result_to("secret", "out") });
    world.execute("run", spec).await;
    until(SOON, "the end of the process", async || first.child.wait_exit(Duration::ZERO).unwrap().map(|_| ())).await;
    let spoil = json!({ "stringData": { "result": "{}", "more": "kept" } });
    secrets(&world).patch("out", &PatchParams::default(), &Patch::Merge(spoil)).await.unwrap();
    let _second = world.process(&[]);
    let done = world.wait("run", AFTER_DOUBT, is_finished).await;
    assert_eq!(result_in_secret(&world, "out").await, json!({}));
    let not_written = condition(&done, "ResultNotWritten").unwrap();
    assert_eq!(not_written.reason, "ResultNotOurs");
    assert!(not_written.message.contains("does not hold the result"), "{}", not_written.message);
    assert!(is_true(&done, "Complete") && status(&done).result_ref.is_none(), "{:#?}", done.status);
    assert_eq!(secrets(&world).get("out").await.unwrap().data.unwrap()["more"].0, b"kept");
}

/// The API server returns errors while it cannot call a webhook.
#[tokio::test]
async fn an_api_server_in_trouble_delays_the_end_and_loses_nothing() {
    let world = World::new("result-trouble").await;
    let name = format!("{}.values.test", world.namespace);
    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
        "metadata": { "name": name },
        "webhooks": [{
            "name": name, "failurePolicy": "Fail", "sideEffects": "None", "admissionReviewVersions": ["v1"],
            "clientConfig": { "url": "https://127.0.0.1:1/" }, "timeoutSeconds": 1,
            "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": world.namespace } },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"],
            }],
        }],
    });
    let gvk = kube::core::GroupVersionKind::gvk("admissionregistration.k8s.io", "v1", "ValidatingWebhookConfiguration");
    let webhooks: Api<DynamicObject> = Api::all_with(world.client.clone(), &kube::api::ApiResource::from_gvk(&gvk));
    webhooks.create(&PostParams::default(), &serde_json::from_value(webhook).unwrap()).await.unwrap();
    // The API server learns of the webhook a moment later.
    until(SOON, "the webhook to work", async || {
        let probe = ConfigMap { metadata: kube::core::ObjectMeta { generate_name: Some("probe-".into()), ..Default::default() }, ..Default::default() };
        matches!(config_maps(&world).create(&PostParams::default(), &probe).await, Err(kube::Error::Api(status)) if status.code == 500).then_some(())
    })
    .await;
    let operator = world.process(&[]);
    let spec = json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "result": result_to("configMap", "out") });
    world.execute("run", spec).await;
    until(SOON, "two attempts", async || (operator.log().matches("failed calling webhook").count() >= 2).then_some(()))
        .await;
    assert!(!is_finished(&world.executions().get("run").await.unwrap()));
    webhooks.delete(&name, &DeleteParams::default()).await.unwrap();
    let done = world.wait("run", SOON, is_finished).await;
    assert!(is_true(&done, "Complete") && status(&done).result_ref.is_some(), "{:#?}", done.status);
    assert_eq!(result_in_config_map(&world, "out").await, json!({ "n": 1 }));
    assert_eq!(world.api.starts().await, 1);
}

#[tokio::test]
async fn an_encoded_result_is_marked_where_it_is_written() {
    let world = World::new("result-encoded").await;
    let result = json!({ "b64payload": "AAECAw==", "encoding_options": ["encrypted", "offloaded"], "empty": false });
    let behaviour = json!({ "duration_ms": 0, "result": result });
    world.api.register(json!({ "name": "sealed", "behaviour": behaviour })).await;
    let _operator = world.operator();
    world.execute("run", json!({ "workflowIdentifier": "sealed", "result": result_to("configMap", "out") })).await;
    let done = world.wait_for_reason("run", "Completed").await;
    assert!(message(&done, "Complete").contains("encoded it (encrypted,offloaded)"), "{}", message(&done, "Complete"));
    assert_eq!(result_in_config_map(&world, "out").await, result);
    let object = config_maps(&world).get("out").await.unwrap();
    assert_eq!(object.annotations()["workflows.mistral.ai/result-encoding"], "encrypted,offloaded");
}
