//! The rights that the chart grants are enough for the operator, and no more than the values ask for.

use kube::ResourceExt;

use super::*;

/// The rules of the objects of this kind whose names end so.
fn rules(objects: &[Value], kind: &str, part: &str) -> Vec<Value> {
    let of = |object: &&Value| object["kind"] == kind && name(object).ends_with(part);
    objects.iter().filter(of).map(|object| object["rules"].clone()).collect()
}

#[tokio::test]
async fn namespaces_to_watch_are_the_only_ones_that_the_operator_has_rights_in() {
    let world = World::bare("chart-rights").await;
    let Some(tools) = tools().await else { return };
    let everywhere = render(tools, &world.namespace, "", &[]);
    // A namespace that is listed twice counts once.
    let here = render(tools, &world.namespace, "watchNamespaces: [team-b, team-a, team-b]", &[]);
    for part in ["release-mistral-workflows-operator", "release-finalizers"] {
        let [everything] = &rules(&everywhere, "ClusterRole", part)[..] else { panic!("one ClusterRole") };
        assert_eq!(rules(&here, "Role", part), [everything.clone(), everything.clone()]);
        assert_eq!(rules(&here, "ClusterRole", part), Vec::<Value>::new());
        for kind in ["Role", "RoleBinding"] {
            let of = |object: &&Value| object["kind"] == kind && name(object).ends_with(part);
            let namespaces: Vec<&Value> =
                here.iter().filter(of).map(|object| &object["metadata"]["namespace"]).collect();
            assert_eq!(namespaces, ["team-b", "team-a"], "of each {kind} {part}");
        }
    }
    let own: Vec<&Value> =
        here.iter().filter(|object| object["kind"] == "Role" && name(object).ends_with("-lease")).collect();
    assert_eq!(own.len(), 1);
    assert_eq!(own[0]["metadata"]["namespace"], world.namespace);
    let one = |kind: &str| -> &Value {
        let mut found = here.iter().filter(|object| object["kind"] == kind);
        let (Some(object), None) = (found.next(), found.next()) else { panic!("one {kind}") };
        object
    };
    let env = &one("Deployment")["spec"]["template"]["spec"]["containers"][0]["env"];
    assert!(env.as_array().unwrap().contains(&json!({ "name": "WATCH_NAMESPACE", "value": "team-b,team-a" })), "{env}");
    let labelled = |values: &str| {
        let objects = render(tools, &world.namespace, values, &[]);
        objects.iter().any(|object| object.to_string().contains("INPUT_SECRETS_NEED_LABEL"))
    };
    assert!(labelled("inputs: { secretsNeedLabel: true }") && !labelled(""));
    let arguments = &one("Job")["spec"]["template"]["spec"]["containers"][0]["args"];
    assert_eq!(arguments, &json!(["release-finalizers", "--namespace=team-b", "--namespace=team-a"]));

    for object in everywhere.iter().chain(&here) {
        for rule in object["rules"].as_array().into_iter().flatten() {
            assert!(!rule.to_string().contains('*'), "{rule} in {}", name(object));
            if rule["resources"] == json!(["secrets"]) {
                assert_eq!(rule["verbs"], json!(["get"]), "in {}", name(object));
            }
        }
    }
}

#[tokio::test]
async fn the_operator_may_write_results_and_read_secrets_only_as_the_values_say() {
    let world = World::bare("chart-values").await;
    let Some(tools) = tools().await else { return };
    let writes = |values: &str| -> Vec<Value> {
        let objects = render(tools, &world.namespace, values, &[]);
        let rules = rules(&objects, "ClusterRole", "release-mistral-workflows-operator").remove(0);
        let writes = |rule: &&Value| rule["apiGroups"] == json!([""]) && rule["verbs"] != json!(["get"]);
        rules.as_array().unwrap().iter().filter(writes).cloned().collect()
    };
    let rule = |resource: &str| json!({ "apiGroups": [""], "resources": [resource], "verbs": ["create"] });
    assert_eq!(writes(""), [rule("configmaps")]);
    assert_eq!(writes("results: { configMaps: false }"), Vec::<Value>::new());
    assert_eq!(writes("results: { secrets: true }"), [rule("configmaps"), rule("secrets")]);

    let named = render(tools, &world.namespace, "rbac: { secretNames: [mistral] }", &[]);
    let named = &rules(&named, "ClusterRole", "release-mistral-workflows-operator")[0];
    let secrets = named.as_array().unwrap().iter().find(|rule| rule["resources"] == json!(["secrets"])).unwrap();
    assert_eq!(secrets["resourceNames"], json!(["mistral"]));
}

/// Starts an operator with the rights that the chart grants with these values.
async fn operator_with_rights(world: &World, tools: &GitOps, values: &str) -> Process {
    let values = format!("watchNamespaces: [{}]\n{values}", world.namespace);
    let mut rendered = render(tools, &world.namespace, &values, &[]);
    rendered.retain(|object| {
        let kind = object["kind"].as_str().unwrap();
        let hook = &object["metadata"]["annotations"]["helm.sh/hook"];
        (kind == "ServiceAccount" || object["apiVersion"] == "rbac.authorization.k8s.io/v1") && hook.is_null()
    });
    let account = "release-mistral-workflows-operator";
    for object in &rendered {
        let mut kubectl = control_plane().kubectl_command();
        succeed(kubectl.args(["apply", "-f", "-"]), &object.to_string());
    }
    let kubeconfig = kubeconfig_of(world, account).await;
    world.process(&[
        ("KUBECONFIG", kubeconfig.to_str().unwrap()),
        ("LEASE_NAME", account),
        ("LEASE_NAMESPACE", &world.namespace),
    ])
}

/// A refusal by the API server appears in the log, or in the status if the object is a Secret.
#[tokio::test]
async fn the_charts_rights_are_enough_for_a_whole_life_of_each_resource() {
    let world = World::new("chart-life").await;
    let Some(tools) = tools().await else { return };
    world.secret("input", "k", KEY).await;
    let values = "rbac: { secretNames: [mistral, input] }\ndiscovery: { enabled: true }";
    let process = operator_with_rights(&world, tools, values).await;

    world.wait_for_workspace("default", "Connected").await;
    let discovery = json!({ "spec": { "discovery": "Observe", "resyncInterval": "5s" } });
    let workspaces = world.workspaces();
    workspaces.patch("default", &Default::default(), &kube::api::Patch::Merge(discovery)).await.unwrap();
    until(SOON, "a discovered Workflow", async || {
        let all = world.workflows().list(&Default::default()).await.unwrap();
        all.items.iter().any(|it| it.name_any().starts_with("slow-")).then_some(())
    })
    .await;
    world.api.unregister("slow").await;
    until(SOON, "its removal", async || {
        let all = world.workflows().list(&Default::default()).await.unwrap();
        (!all.items.iter().any(|it| it.name_any().starts_with("slow-"))).then_some(())
    })
    .await;
    world.execute("brief", json!({ "workflowIdentifier": "echo", "ttlSecondsAfterFinished": 0 })).await;
    world.wait_until_gone("brief", SOON).await;
    world.workflow("echo", json!({ "displayName": "Echo", "deletionPolicy": "Archive" })).await;
    world.wait_for_workflow("echo", "InSync").await;
    let settings = ["create", "configmap", "settings", "--from-literal=k=v"];
    assert!(world.kubectl(&settings).await.1);
    let from = json!([
        { "configMapKeyRef": { "name": "settings", "key": "k" }, "path": "/a" },
        { "secretKeyRef": { "name": "input", "key": "k" }, "path": "/b" },
    ]);
    let to = json!({ "to": { "configMap": { "name": "out" } } });
    world.execute("whole", json!({ "workflowRef": { "name": "echo" }, "inputFrom": from, "result": to })).await;
    world.wait_for_reason("whole", "Completed").await;
    // An execution with a long input, which the cache leaves out and the operator reads again.
    let long = json!({ "text": "x".repeat(10_000) });
    world.execute("long", json!({ "workflowIdentifier": "echo", "input": long })).await;
    world.wait_for_reason("long", "Completed").await;
    world.execute("stopped", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("stopped", "Running").await;
    world.delete("stopped").await;
    world.wait_until_gone("stopped", SOON).await;
    let (said, done) = world.kubectl(&["delete", "workflow", "echo", "--timeout=60s"]).await;
    assert!(done, "{said}");
    until(SOON, "the Events", async || {
        (world.events("whole").await.len() + world.events("echo").await.len() >= 2).then_some(())
    })
    .await;

    let refused = || process.log().lines().find(|line| line.contains("is forbidden")).map(str::to_owned);
    assert_eq!(refused(), None);
    // Proves that the search finds a refusal: the operator may not read another Secret.
    world.secret("other", "api-key", KEY).await;
    let patch = json!({ "spec": { "auth": { "apiKeySecretRef": { "name": "other" } } } });
    workspaces.patch("default", &Default::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
    world.wait_for_workspace("default", "SecretForbidden").await;
    assert!(refused().is_some());
}

#[tokio::test]
async fn what_the_chart_does_not_allow_to_be_read_or_written_is_said_in_words() {
    let world = World::new("chart-denied").await;
    let Some(tools) = tools().await else { return };
    world.secret("other", "k", KEY).await;
    let values = "rbac: { secretNames: [mistral] }\nresults: { configMaps: false }";
    let _process = operator_with_rights(&world, tools, values).await;
    let discovery = json!({ "spec": { "discovery": "Observe", "resyncInterval": "5s" } });
    world.workspaces().patch("default", &Default::default(), &kube::api::Patch::Merge(discovery)).await.unwrap();
    until(SOON, "the Event of discovery", async || {
        let events = world.events("default").await;
        events.into_iter().find(|(reason, note)| reason == "DiscoveryFailed" && note.contains("discovery.enabled"))
    })
    .await;
    let from = json!([{ "secretKeyRef": { "name": "other", "key": "k" }, "path": "/a" }]);
    world.execute("input", json!({ "workflowIdentifier": "echo", "inputFrom": from })).await;
    let waiting = world.wait_for_reason("input", "InputForbidden").await;
    assert!(condition(&waiting, "Ready").unwrap().message.contains("may not get Secret \"other\""));
    for (kind, value) in [("configMap", "results.configMaps=true"), ("secret", "results.secrets=true")] {
        let name = kind.to_lowercase();
        let to = json!({ "to": { kind: { "name": "out" } } });
        world.execute(&name, json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "result": to })).await;
        let done = world.wait_for_reason(&name, "Completed").await;
        assert_eq!(condition(&done, "ResultNotWritten").unwrap().reason, "ResultForbidden");
        assert!(condition(&done, "Complete").unwrap().message.contains(value), "{:#?}", done.status);
    }
    assert_eq!(world.api.starts().await, 2);
}

#[tokio::test]
async fn the_charts_rights_are_enough_for_results_in_secrets_where_it_allows_them() {
    let world = World::new("chart-results").await;
    let Some(tools) = tools().await else { return };
    world.secret("theirs", "result", KEY).await;
    let process = operator_with_rights(&world, tools, "results: { secrets: true, configMaps: false }").await;
    // The state after a process that ended between writing the result and writing the status.
    let to = json!({ "to": { "secret": { "name": "half" } } });
    let spec = json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "suspend": true, "result": to });
    let made = world.execute("half", spec).await;
    let owner = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "name": "half",
        "uid": made.metadata.uid, "controller": true,
    });
    let half = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "half", "ownerReferences": [owner] },
        "stringData": { "result": "{\"n\":1}" },
    });
    let mut kubectl = control_plane().kubectl_command();
    succeed(kubectl.args(["--namespace", &world.namespace, "create", "-f", "-"]), &half.to_string());
    world.patch("half", json!({ "spec": { "suspend": false } })).await.unwrap();
    let done = world.wait_for_reason("half", "Completed").await;
    assert_eq!(condition(&done, "ResultNotWritten"), None);
    assert!(status(&done).result_ref.is_some());
    for (name, reason) in [("out", None), ("theirs", Some("ResultNotOurs"))] {
        let to = json!({ "to": { "secret": { "name": name } } });
        world.execute(name, json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "result": to })).await;
        let done = world.wait_for_reason(name, "Completed").await;
        assert_eq!(condition(&done, "ResultNotWritten").map(|it| it.reason.as_str()), reason);
    }
    assert!(!process.log().contains("is forbidden"));
}
