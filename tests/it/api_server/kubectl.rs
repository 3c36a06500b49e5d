//! What kubectl shows and selects.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::JSONSchemaProps;
use kube::api::ListParams;
use mistral_workflows_operator::api::crds;

use super::*;

#[tokio::test]
async fn field_selectors_find_the_runs_of_a_workflow_a_registration_and_a_status() {
    let world = World::bare("selectors").await;
    world.execute("echo", echo(json!({}))).await;
    world.execute("slow", json!({ "workflowIdentifier": "slow" })).await;
    world.execute("pinned", json!({ "registrationId": REGISTRATION })).await;
    let status = json!({ "status": { "status": "RUNNING", "workflowName": "report" } });
    executions(&world).patch_status("pinned", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    for (selector, expected) in [
        ("status.status=RUNNING".to_owned(), vec!["pinned"]),
        ("status.status!=RUNNING".to_owned(), vec!["echo", "slow"]),
        ("status.workflowName=report".to_owned(), vec!["pinned"]),
        ("status.workflowName=report,status.status=COMPLETED".to_owned(), vec![]),
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
        "status": "COMPLETED", "executionId": "run-1", "workflowName": "echo", "duration": "1m30s",
        "conditions": [{
            "type": "Ready", "status": "True", "reason": "Completed", "message": "It has completed.",
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
    assert_eq!(lines[0], "NAME WORKFLOW STATUS REASON DURATION AGE");
    assert!(lines[2].starts_with("run echo COMPLETED Completed 1m30s "), "{lines:?}");
    let lines = kubectl(&["get", "workflowexecutions", "-o", "wide"]).await;
    assert_eq!(lines[0], "NAME WORKFLOW STATUS REASON DURATION AGE EXECUTION ID WORKSPACE MESSAGE");
    assert!(lines[1].starts_with("pinned ") && lines[1].ends_with(" default"), "{lines:?}");
    assert!(lines[2].starts_with("run echo COMPLETED Completed 1m30s "), "{lines:?}");
    assert!(lines[2].ends_with(" run-1 default It has completed."), "the message is whole, and last: {lines:?}");
    let lines = kubectl(&["get", "mws"]).await;
    assert_eq!(lines[0], "NAME READY REASON AGE");
    assert!(lines[1].starts_with("default "), "{lines:?}");
    let lines = kubectl(&["get", "workspaces", "-o", "wide"]).await;
    assert_eq!(lines[0], "NAME READY REASON AGE URL WORKFLOWS WORKSPACE ID MESSAGE");
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
