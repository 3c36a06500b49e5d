//! A result is where the spec wants it before the run is called complete, and overwrites nothing.

use futures::{StreamExt, TryStreamExt};
use kube::api::{DynamicObject, WatchEvent, WatchParams};
use mistral_workflows_operator::api::values::{Kind, ResultRef};

use super::*;

#[tokio::test]
async fn a_result_is_where_the_spec_wants_it_when_the_run_completes() {
    let world = World::new("result-to").await;
    let _operator = world.operator();
    world.wait_for_workspace("default", "Connected").await;
    // Larger than the limit of status.result.
    let input = json!({ "rows": vec!["x".repeat(1000); 500], "none": null });
    for (name, kind) in [("map", "configMap"), ("secret", "secret")] {
        let to = result_to(kind, &format!("{name}-result"));
        let spec = json!({ "workflowIdentifier": "echo", "input": input, "result": to });
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
        let labels = metadata.labels.unwrap();
        assert_eq!(labels["workflows.mistral.ai/workflow"], "echo");
        assert_eq!(labels["workflows.mistral.ai/workspace"], "default");
        let named = Some(ResultRef { kind, name: format!("{name}-result") });
        assert_eq!((status(&done).result_ref, status(&done).result), (named, None));
        assert_eq!(status(&done).result_bytes, Some(i64::try_from(input.to_string().len()).unwrap()));
        assert!(message(&done, "Complete").contains(&format!("\"{name}-result\"")));
    }
    // The object is deleted with its resource, and the next execution of that name creates it again.
    world.delete("map").await;
    world.wait_until_gone("map", SOON).await;
    let to = result_to("configMap", "map-result");
    let spec = json!({ "workflowIdentifier": "echo", "input": { "second": true }, "result": to });
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
        let metadata = kube::core::ObjectMeta { generate_name: Some("probe-".into()), ..Default::default() };
        let probe = ConfigMap { metadata, ..ConfigMap::default() };
        let outcome = config_maps(&world).create(&PostParams::default(), &probe).await;
        matches!(outcome, Err(kube::Error::Api(status)) if status.code == 500).then_some(())
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
