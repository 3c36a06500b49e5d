//! Values of ConfigMaps and Secrets reach the run, or the resource says which one is missing or wrong.

use super::*;

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
    let key = |name: &str| json!({ "name": name, "key": "k" });
    let both = json!({ "configMapKeyRef": key("c"), "secretKeyRef": key("s"), "path": "/a" });
    let many: Vec<Value> = (0..33).map(|n| entry(&format!("/{n}"))).collect();
    let to = json!({ "to": { "configMap": { "name": "c" }, "secret": { "name": "s" } } });
    for (case, field, value, words) in [
        ("two sources", "inputFrom", json!([both]), "name exactly one source"),
        ("no source", "inputFrom", json!([{ "path": "/a" }]), "name exactly one source"),
        ("the same path twice", "inputFrom", json!([entry("/a"), entry("/a")]), "two paths of inputFrom are the same"),
        ("a path in another", "inputFrom", json!([entry("/a/b"), entry("/c"), entry("/a")]), "one is inside the other"),
        ("no path", "inputFrom", json!([{ "configMapKeyRef": { "name": "c", "key": "k" } }]), "path: Required value"),
        ("a path without a slash", "inputFrom", json!([entry("a")]), "path must start with /, such as"),
        ("an empty path", "inputFrom", json!([entry("")]), "path must start with /"),
        ("the whole input", "inputFrom", json!([entry("/")]), "path must have a name after each /"),
        ("an empty name in a path", "inputFrom", json!([entry("/a//b")]), "path must have a name after each /"),
        ("a tilde that escapes nothing", "inputFrom", json!([entry("/a~2")]), "a ~ in a name only as ~0 or ~1"),
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
}

#[tokio::test]
async fn where_values_come_from_and_go_does_not_change_and_paths_that_meet_a_value_are_refused_in_words() {
    let world = World::new("values-paths").await;
    let entry = |path: &str| from_config_map("c", "k", path);
    // Paths that share a prefix or a parent do not conflict.
    let neighbours = json!([entry("/a"), entry("/ab"), entry("/a~1b"), entry("/b/a"), entry("/b/c")]);
    let to = result_to("configMap", "r");
    let spec = json!({ "workflowIdentifier": "echo", "suspend": true, "inputFrom": neighbours, "result": to });
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
