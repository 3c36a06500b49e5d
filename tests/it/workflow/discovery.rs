//! Discovery, which creates resources for existing workflows, and `import`, which prints manifests of them.

use std::collections::BTreeSet;

use super::*;

async fn discover(world: &World, policy: &str) {
    let patch = json!({ "spec": { "discovery": policy } });
    world.workspaces().patch("default", &Default::default(), &kube::api::Patch::Merge(patch)).await.unwrap();
}

async fn resources(world: &World) -> Vec<Workflow> {
    world.workflows().list(&Default::default()).await.unwrap().items
}

/// The resource whose status names this workflow.
async fn resource_of(world: &World, name: &str) -> Workflow {
    until(SOON, name, async || {
        let of = |it: &Workflow| workflow_status(it).name.as_deref() == Some(name);
        resources(world).await.into_iter().find(of)
    })
    .await
}

/// The workflow has a resource that discovery made, which only reads it.
async fn assert_discovered(world: &World, name: &str) {
    let made = resource_of(world, name).await;
    let id = workflow_status(&made).workflow_id.unwrap();
    assert!(made.name_any().starts_with(name) && made.name_any().ends_with(&id[id.len() - 8..]));
    assert_eq!(made.labels()["workflows.mistral.ai/discovered"], "true");
    let spec = json!(made.spec);
    assert_eq!((&spec["managementPolicy"], &spec["deletionPolicy"]), (&json!("Observe"), &json!("Retain")));
    world.wait_for_workflow(&made.name_any(), "Observed").await;
}

#[tokio::test]
async fn discovery_makes_a_resource_for_each_and_removes_only_what_is_gone_and_untouched() {
    let world = World::new("discover").await;
    world.resync("5s").await;
    world.api.register(json!({ "name": "__internal__", "is_technical": true })).await;
    for name in ["adopted", "goes", "labelled"] {
        world.api.register(json!({ "name": name })).await;
    }
    let _operator = world.operator();
    // A person's Workflow, which discovery leaves alone and does not duplicate.
    world.workflow("echo", json!({ "displayName": "Echo" })).await;
    world.wait_for_workflow("echo", "InSync").await;
    assert_eq!(resources(&world).await.len(), 1);
    discover(&world, "Observe").await;
    let all = ["slow", "hang", "fail", "adopted", "goes", "labelled"];
    for name in all {
        assert_discovered(&world, name).await;
    }
    assert_eq!(resources(&world).await.len(), all.len() + 1);
    // The resource follows changes.
    world.api.edit("slow", json!({ "tags": ["new"] })).await;
    let slow = resource_of(&world, "slow").await.name_any();
    world.wait_workflow(&slow, SOON, |it| workflow_status(it).tags == Some(vec!["new".into()])).await;
    // A person takes one resource over, labels another, and leaves the third alone. Then the API loses all three
    // workflows.
    let adopted = resource_of(&world, "adopted").await.name_any();
    world
        .patch_workflow(
            Box::leak(adopted.clone().into_boxed_str()),
            json!({ "managementPolicy": "Manage", "tags": ["mine"] }),
        )
        .await;
    world.wait_for_workflow(&adopted, "InSync").await;
    assert_eq!(at_the_api(&world, "adopted").await["tags"], json!(["mine"]));
    let labelled = resource_of(&world, "labelled").await.name_any();
    let label = json!({ "metadata": { "labels": { "team": "a" } } });
    world.workflows().patch(&labelled, &Default::default(), &kube::api::Patch::Merge(label)).await.unwrap();
    let goes = resource_of(&world, "goes").await.name_any();
    for name in ["adopted", "goes", "labelled"] {
        world.api.unregister(name).await;
    }
    until(SOON, "the removal", async || world.workflows().get_opt(&goes).await.unwrap().is_none().then_some(())).await;
    for name in [&adopted, &labelled] {
        world.wait_for_workflow(name, "WorkflowNotFound").await;
    }
    // The four workflows of every test, and the SDK's own.
    until(SOON, "the count", async || {
        let status = world.workspaces().get("default").await.unwrap().status.unwrap_or_default();
        (status.workflow_count == Some(5)).then_some(())
    })
    .await;
    // With discovery off, existing resources stay and no new ones appear.
    discover(&world, "Disabled").await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    world.api.register(json!({ "name": "too-late" })).await;
    world.api.unregister("slow").await;
    tokio::time::sleep(Duration::from_secs(7)).await;
    let names: BTreeSet<String> = resources(&world).await.iter().map(ResourceExt::name_any).collect();
    assert!(names.contains(&slow) && !names.iter().any(|name| name.starts_with("too-late")), "{names:?}");
}

/// Reason and message of the Workspace's condition `DiscoveryIncomplete`.
async fn incomplete(world: &World) -> Option<(String, String)> {
    let status = world.workspaces().get("default").await.unwrap().status?;
    let condition = status.conditions.into_iter().find(|condition| condition.type_ == "DiscoveryIncomplete")?;
    assert_eq!(condition.status, "True");
    Some((condition.reason, condition.message))
}

async fn wait_for_complete(world: &World) {
    let complete = async || incomplete(world).await.is_none().then_some(());
    until(SOON, "nothing left to be said of discovery", complete).await;
}

/// Waits for this many further complete sweeps.
async fn sweeps(world: &World, number: u64) {
    let done = async || world.api.arrivals(Some(("GET", "/v1/workflows/registrations"))).await;
    // A sweep may already have begun.
    let before = done().await;
    until(SOON, "sweeps", async || (done().await > before + number).then_some(())).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
}

/// Makes the API server refuse Workflows of this world whose names have this prefix.
async fn refuse(world: &World, prefix: &str) {
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": { "name": world.namespace },
        "spec": {
            "failurePolicy": "Fail",
            "matchConstraints": { "resourceRules": [{
                "apiGroups": ["workflows.mistral.ai"], "apiVersions": ["v1alpha1"],
                "operations": ["CREATE"], "resources": ["workflows"],
            }] },
            "validations": [{
                "expression": format!("!object.metadata.name.startsWith('{prefix}')"),
                "message": "such names are kept for the platform team",
            }],
        },
    });
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": { "name": world.namespace },
        "spec": {
            "policyName": world.namespace, "validationActions": ["Deny"],
            "matchResources": { "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": world.namespace } } },
        },
    });
    let folder = tempfile::tempdir().unwrap();
    for (file, object) in [("policy.json", policy), ("binding.json", binding)] {
        let path = folder.path().join(file);
        std::fs::write(&path, object.to_string()).unwrap();
        let (text, well) = world.kubectl(&["apply", "-f", path.to_str().unwrap()]).await;
        assert!(well, "{text}");
    }
    let name = format!("{prefix}probe");
    until(SOON, "the policy", async || {
        let made = world.try_workflow(&name, json!({})).await;
        if made.is_ok() {
            world.workflows().delete(&name, &DeleteParams::default()).await.unwrap();
        }
        made.is_err().then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_resource_that_the_api_server_refuses_holds_up_no_other_and_is_told_once() {
    let world = World::new("discover-refused").await;
    world.resync("5s").await;
    // The first one in the order of names.
    refuse(&world, "echo-").await;
    let process = world.process(&[]);
    world.wait_for_workspace("default", "Connected").await;
    discover(&world, "Observe").await;
    for name in ["fail", "hang", "slow"] {
        resource_of(&world, name).await;
    }
    let (reason, message) = until(SOON, "the condition", async || incomplete(&world).await).await;
    assert_eq!(reason, "DiscoveryFailed");
    for words in ["could not create the Workflow \"echo-", "kept for the platform team", "at each resync"] {
        assert!(message.contains(words), "{words} in: {message}");
    }
    let refusals = || process.log().matches("discovery could not make a change").count();
    let version = async || world.workspaces().get("default").await.unwrap().resource_version();
    let (before, refused) = (version().await, refusals());
    sweeps(&world, 2).await;
    let tried = refusals() - refused;
    assert!((1..=4).contains(&tried), "{tried} attempts in about three sweeps");
    assert_eq!(version().await, before, "the same fact was written again");
    world.wait_for_workspace("default", "Connected").await;
    let events = world.events("default").await;
    assert_eq!(events.iter().filter(|(reason, _)| reason == "DiscoveryFailed").count(), 1, "{events:?}");

    let (text, well) = world.kubectl(&["delete", "validatingadmissionpolicybinding", &world.namespace]).await;
    assert!(well, "{text}");
    resource_of(&world, "echo").await;
    wait_for_complete(&world).await;
    world.kubectl(&["delete", "validatingadmissionpolicy", &world.namespace]).await;
}

#[tokio::test]
async fn a_list_that_cannot_be_read_is_told_in_the_apis_words_and_nothing_is_taken_for_gone() {
    let world = World::new("discover-unlisted").await;
    world.resync("5s").await;
    let _process = world.process(&[]);
    discover(&world, "Observe").await;
    for name in ["echo", "fail", "hang", "slow"] {
        resource_of(&world, name).await;
    }
    let before = resources(&world).await.len();
    let body = json!({ "detail": "listing is switched off for this workspace" });
    let refuse =
        json!({ "route": "/v1/workflows", "method": "GET", "kind": { "error": { "status": 403, "body": body } } });
    world.api.faults(json!({ "faults": [refuse] })).await;
    let (reason, message) = until(SOON, "the condition", async || incomplete(&world).await).await;
    assert_eq!(reason, "DiscoveryFailed");
    for words in ["list of workflows could not be read", "listing is switched off", "403", "at each resync"] {
        assert!(message.contains(words), "{words} in: {message}");
    }
    sweeps(&world, 1).await;
    assert_eq!(resources(&world).await.len(), before);
    world.api.heal().await;
    wait_for_complete(&world).await;

    // A list that fails repeatedly is reported too, while the API accepts the key.
    let fail = json!({ "route": "/v1/workflows", "method": "GET", "kind": { "error": { "status": 503 } } });
    world.api.faults(json!({ "faults": [fail] })).await;
    let (_, message) = until(SOON, "the condition", async || incomplete(&world).await).await;
    assert!(message.contains("list of workflows could not be read") && message.contains("503"), "{message}");
    world.wait_for_workspace("default", "Connected").await;
    assert_eq!(resources(&world).await.len(), before);
    world.api.heal().await;
    wait_for_complete(&world).await;
}

#[tokio::test]
async fn a_name_that_is_taken_is_told_and_whatever_has_it_is_left_alone() {
    let world = World::new("discover-taken").await;
    world.resync("5s").await;
    let id = at_the_api(&world, "slow").await["id"].as_str().unwrap().to_owned();
    let name = format!("slow-{}", &id[id.len() - 8..]);
    let theirs = world.workflow(&name, json!({ "identifier": "echo" })).await;
    let _operator = world.operator();
    discover(&world, "Observe").await;
    for name in ["fail", "hang"] {
        resource_of(&world, name).await;
    }
    let told = async || incomplete(&world).await;
    let (reason, message) = until(SOON, "the condition", told).await;
    assert_eq!(reason, "NameTaken");
    for words in ["the name for the workflow", &format!("\"slow\" (\"{name}\")"), &format!("identifier {id}")] {
        assert!(message.contains(words), "{words} in: {message}");
    }
    sweeps(&world, 1).await;
    assert_eq!(world.workflows().get(&name).await.unwrap().spec, theirs.spec);
    let events = world.events("default").await;
    assert_eq!(events.iter().filter(|(reason, _)| reason == "NameTaken").count(), 1, "{events:?}");
    // Without discovery, the condition disappears.
    discover(&world, "Disabled").await;
    wait_for_complete(&world).await;
    discover(&world, "Observe").await;
    until(SOON, "the condition again", told).await;
    // The remedy that the message gives.
    world.workflow("slow-by-hand", json!({ "identifier": id })).await;
    wait_for_complete(&world).await;
}

#[tokio::test]
async fn what_discovery_made_goes_only_when_the_very_mistral_workspace_says_that_it_has_no_such_workflow() {
    const NEXT: &str = "canary-next-77ab";
    let world = World::bare("discover-keeps").await;
    world.api.admit(KEY, "mine").await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    world.resync("5s").await;
    for name in ["goes", "stays"] {
        world.api.register_in("mine", json!({ "name": name })).await;
    }
    let _operator = world.operator();
    discover(&world, "Observe").await;
    let [goes, stays] = [resource_of(&world, "goes").await, resource_of(&world, "stays").await];
    // The list cannot be read.
    let refused = json!({ "error": { "status": 403, "body": { "detail": "not for you" } } });
    world.api.faults(json!({ "faults": [{ "route": "/v1/workflows", "kind": refused }] })).await;
    world.api.unregister_in("mine", "goes").await;
    sweeps(&world, 1).await;
    assert!(world.workflows().get_opt(&goes.name_any()).await.unwrap().is_some(), "no list is not an empty list");
    // The list no longer has the workflow, but the get of the workflow fails.
    world
        .api
        .faults(json!({ "faults": [{ "method": "GET", "route": GET, "kind": { "error": { "status": 503 } } }] }))
        .await;
    sweeps(&world, 2).await;
    assert!(world.workflows().get_opt(&goes.name_any()).await.unwrap().is_some(), "nothing said that it is gone");
    world.api.heal().await;
    let gone = async || world.workflows().get_opt(&goes.name_any()).await.unwrap().is_none().then_some(());
    until(SOON, "the removal", gone).await;

    // Another key, for another Mistral workspace.
    world.api.register_in("other", json!({ "name": "elsewhere" })).await;
    world.api.admit(NEXT, "other").await;
    world.secret("mistral", "api-key", NEXT).await;
    world.api.revoke(KEY).await;
    resource_of(&world, "elsewhere").await;
    world.wait_for_workflow(&stays.name_any(), "WorkflowNotFound").await;
    sweeps(&world, 2).await;
    assert!(world.workflows().get_opt(&stays.name_any()).await.unwrap().is_some(), "that is not for this one to say");
}

async fn import(world: &World, key: &str, arguments: &[&str]) -> (String, String, bool) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.args(["import", "--base-url", &world.api.url]).args(arguments).env("MISTRAL_API_KEY", key);
    let output = command.output().await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.success())
}

#[tokio::test]
async fn what_import_prints_is_applied_without_a_change_at_the_api() {
    let world = World::new("import").await;
    for workflow in [
        json!({ "name": "plain" }),
        json!({ "name": "Rich_One", "display_name": "Rich: \"one\"", "description": "two\nlines", "tags": ["b", "a"], "available_in_chat_assistant": true }),
        json!({ "name": "old", "archived": true, "tags": ["b"] }),
        json!({ "name": "runs", "display_name": "yes" }),
        json!({ "name": "tab-first", "description": "\t\nfirst\n\tsecond\nthird" }),
        json!({ "name": "blank-first", "description": "\n\tfirst\n second\n\n" }),
        json!({ "name": "odd", "description": "\t\n a\n\tb\u{85}c\u{2028}d\u{feff}\u{7f}\n\n" }),
        json!({ "name": "crowded", "tags": (0..65).map(|n| format!("t{n}")).collect::<Vec<_>>() }),
        json!({ "name": "__internal__", "is_technical": true }),
    ] {
        world.api.register(workflow).await;
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new").to_str().unwrap().to_owned();
    let (_, remarks, well) = import(&world, KEY, &["--output-dir", &path]).await;
    assert!(well, "{remarks}");
    assert!(
        remarks.contains("crowded: its tags is left out") && remarks.contains("__internal__: left out"),
        "{remarks}"
    );
    let (text, well) = world.kubectl(&["apply", "-f", &path]).await;
    assert!(well, "{text}");
    world.api.forget_calls().await;
    let _operator = world.operator();
    let names: Vec<String> =
        world.workflows().list(&Default::default()).await.unwrap().iter().map(ResourceExt::name_any).collect();
    assert_eq!(names.len(), 12);
    for name in &names {
        world.wait_for_workflow(name, "InSync").await;
    }
    assert_eq!(changes(&world).await, 0);
    // The printed manifests equal the written ones, and the filters leave out the others.
    let (printed, _, _) = import(&world, KEY, &["--tag", "b", "--archived", "false"]).await;
    assert_eq!(printed.matches("kind: Workflow").count(), 1, "{printed}");
    assert!(printed.contains("identifier: Rich_One") && printed.starts_with("---\n"), "{printed}");
    let (printed, ..) = import(&world, KEY, &["--name", "RICH", "--workspace", "team", "--namespace", "team-a"]).await;
    assert!(printed.contains("name: team") && printed.contains("namespace: team-a"), "{printed}");
    assert!(!printed.contains(KEY));
}

#[tokio::test]
async fn an_import_that_cannot_be_made_says_what_to_do_and_keeps_the_key_to_itself() {
    let world = World::new("import-wrong").await;
    world.api.revoke(KEY).await;
    let (_, said, well) = import(&world, KEY, &[]).await;
    assert!(!well && said.contains("could not be listed") && said.contains("401") && !said.contains(KEY), "{said}");
    let (_, said, well) = import(&world, " ", &[]).await;
    assert!(!well && said.contains("is not an API key"), "{said}");
    let (_, said, well) = import(&world, KEY, &["--api-key-file", "/does/not/exist"]).await;
    assert!(!well && said.contains("--api-key-file") && !said.contains(KEY), "{said}");
    let (_, said, well) = import(&world, KEY, &["--base-url", "ftp://x"]).await;
    assert!(!well && said.contains("--base-url"), "{said}");
}
