//! How GitOps tools judge the resources: the customizations of docs/how-to/gitops.md, run by the tools' own libraries.

use std::path::{Path, PathBuf};

use cluster::GitOps;
use serde_json::{Value, json};

use crate::chart::{succeed, tools};
use crate::support::*;

/// The YAML blocks of docs/how-to/gitops.md, each as a file.
struct Documented {
    argocd: PathBuf,
    flux: PathBuf,
    _folder: tempfile::TempDir,
}

fn documented() -> Documented {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/how-to/gitops.md")).unwrap();
    let blocks: Vec<Value> = page
        .split("```yaml\n")
        .skip(1)
        .map(|rest| serde_saphyr::from_str(rest.split_once("\n```").unwrap().0).unwrap())
        .collect();
    let block = |kind: &str| blocks.iter().find(|block| block["kind"] == kind).unwrap();
    let customizations = block("ConfigMap")["data"]["resource.customizations"].as_str().unwrap();
    let customizations: Value = serde_saphyr::from_str(customizations).unwrap();
    let lua = customizations["workflows.mistral.ai/*"]["health.lua"].as_str().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (argocd, flux) = (folder.path().join("health.lua"), folder.path().join("healthCheckExprs"));
    std::fs::write(&argocd, lua).unwrap();
    // JSON is YAML.
    std::fs::write(&flux, block("Kustomization")["spec"]["healthCheckExprs"].to_string()).unwrap();
    Documented { argocd, flux, _folder: folder }
}

/// The health of the resource according to Argo CD, Flux and kstatus. A dash where a tool cannot tell.
fn health(tools: &GitOps, documented: &Documented, object: &Value) -> [String; 3] {
    let (argocd, flux) = (documented.argocd.to_str().unwrap(), documented.flux.to_str().unwrap());
    [&["argocd", argocd][..], &["flux", flux], &["kstatus"]].map(|arguments| {
        let output = crate::chart::run(std::process::Command::new(&tools.health).args(arguments), &object.to_string());
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        let complained = String::from_utf8_lossy(&output.stderr);
        if complained.contains("no such attribute") { "-".to_owned() } else { said + &complained }
    })
}

fn read(world: &World, object: &str) -> Value {
    let mut kubectl = control_plane().kubectl_command();
    kubectl.args(["--namespace", &world.namespace, "get", object, "-o", "json"]);
    serde_json::from_str(&succeed(&mut kubectl, "")).unwrap()
}

const HEALTHY: [&str; 3] = ["Healthy", "Current", "Current"];
const AT_WORK: [&str; 3] = ["Progressing", "InProgress", "InProgress"];
const TROUBLE: [&str; 3] = ["Degraded", "Failed", "Failed"];
const SUSPENDED: [&str; 3] = ["Suspended", "InProgress", "InProgress"];
/// kstatus counts a resource without a status as done, as docs/how-to/gitops.md says.
const NEW: [&str; 3] = ["Progressing", "-", "Current"];

#[tokio::test]
async fn argo_cd_flux_and_kstatus_tell_work_success_and_trouble_apart() {
    let world = World::bare("gitops").await;
    let Some(tools) = tools().await else { return };
    let documented = documented();
    let is = |object: &str| health(tools, &documented, &read(&world, object));

    world.workspace("default", &world.api.url).await;
    world.workflow("echo", json!({ "displayName": "Echo" })).await;
    world.execute("done", json!({ "workflowIdentifier": "echo" })).await;
    for object in ["workspace/default", "workflow/echo", "workflowexecution/done"] {
        assert_eq!(is(object), NEW, "{object} before the operator has seen it");
    }

    let _operator = world.operator();
    world.wait_for_workspace("default", "SecretNotFound").await;
    world.wait_for_reason("done", "WorkspaceNotReady").await;
    // The Secret may still arrive.
    assert_eq!(is("workspace/default"), AT_WORK);
    world.secret("mistral", "api-key", KEY).await;
    world.wait_for_workspace("default", "Connected").await;
    assert_eq!(is("workspace/default"), HEALTHY);

    world.wait_for_workflow("echo", "InSync").await;
    assert_eq!(is("workflow/echo"), HEALTHY);
    world.workflow("absent", json!({})).await;
    world.wait_for_workflow("absent", "WorkflowNotFound").await;
    assert_eq!(is("workflow/absent"), TROUBLE);
    world.workflow("held", json!({ "identifier": "slow", "suspend": true })).await;
    world.wait_for_workflow("held", "Suspended").await;
    assert_eq!(is("workflow/held"), SUSPENDED);

    world.wait_for_reason("done", "Completed").await;
    assert_eq!(is("workflowexecution/done"), HEALTHY);
    for (name, spec, reason, expected) in [
        ("running", json!({ "workflowIdentifier": "hang" }), "Running", AT_WORK),
        ("failed", json!({ "workflowIdentifier": "fail" }), "WorkflowFailed", TROUBLE),
        ("nowhere", json!({ "workflowIdentifier": "nosuch" }), "TargetNotFound", TROUBLE),
        ("held", json!({ "workflowIdentifier": "echo", "suspend": true }), "Suspended", SUSPENDED),
    ] {
        world.execute(name, spec).await;
        world.wait_for_reason(name, reason).await;
        assert_eq!(is(&format!("workflowexecution/{name}")), expected, "{name}");
    }

    // An edit is not done before the operator has seen it.
    let mut edited = read(&world, "workflowexecution/done");
    edited["metadata"]["generation"] = json!(edited["metadata"]["generation"].as_i64().unwrap() + 1);
    assert_eq!(health(tools, &documented, &edited), AT_WORK);
}
