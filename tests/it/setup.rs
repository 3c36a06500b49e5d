//! What an installation may lack: the operator waits for it and reports it.

use cluster::ControlPlane;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use serde_json::json;

use crate::support::*;

async fn wait_for_readiness(process: &Process, status: u16, text: &str) {
    let mut last = None;
    until(SOON, text, async || {
        last = process.ask("/readyz").await;
        last.as_ref().is_some_and(|(said, body)| *said == status && body.contains(text)).then_some(())
    })
    .await;
}

/// Moves a world to a control plane that has nothing but the world's namespace.
pub async fn move_to(world: &mut World, plane: &ControlPlane) {
    world.client = plane.client().await.unwrap();
    let namespace = json!({ "metadata": { "name": world.namespace } });
    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace).unwrap()).await.unwrap();
}

/// Whether the API server sends lists as streams by default, as those since 1.34 do.
async fn sends_lists_as_streams(client: &kube::Client) -> bool {
    let minor = client.apiserver_version().await.unwrap().minor;
    minor.trim_end_matches('+').parse::<u32>().unwrap() >= 34
}

#[tokio::test]
async fn crds_that_come_later_are_waited_for_by_name_and_then_all_starts() {
    let mut world = World::bare("no-crds").await;
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start().unwrap()).await.unwrap();
    move_to(&mut world, &plane).await;
    let process = world.process(&[("KUBECONFIG", plane.kubeconfig().to_str().unwrap())]);
    let missing = "(it is missing; apply the output of `mistral-workflows-operator crds`)";
    let both = format!(
        "waiting for the CRD workflowexecutions.workflows.mistral.ai {missing}, the CRD workflows.workflows.mistral.ai {missing}"
    );
    wait_for_readiness(&process, 503, &both).await;
    install_crds_into(&world.client, |name| name != "workflows.workflows.mistral.ai").await;
    let one = format!(
        "waiting for the CRD workflows.workflows.mistral.ai {missing}, the namespace {}, the watches\n",
        world.namespace
    );
    wait_for_readiness(&process, 503, &one).await;
    // Reported once for each CRD, however often the operator checked.
    assert_eq!(process.log().matches("it is missing; apply").count(), 3, "{}", process.log());
    assert_eq!(process.ask("/healthz").await, Some((200, "alive\n".into())));
    install_crds_into(&world.client, |_| true).await;
    wait_for_readiness(&process, 200, "ready\n").await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    let pages = process.log().contains("requests pages from now on");
    assert_eq!(pages, !sends_lists_as_streams(&world.client).await, "{}", process.log());

    // A CRD that is deleted later is reported too, until it exists again.
    let crds: Api<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> =
        Api::all(world.client.clone());
    crds.delete("workflows.workflows.mistral.ai", &Default::default()).await.unwrap();
    let gone = format!("waiting for the CRD workflows.workflows.mistral.ai {missing}\n");
    wait_for_readiness(&process, 503, &gone).await;
    install_crds_into(&world.client, |_| true).await;
    wait_for_readiness(&process, 200, "ready\n").await;
    world.workflow("echo", json!({})).await;
    world.wait_for_workflow("echo", "InSync").await;
    world.workflows().delete("echo", &Default::default()).await.unwrap();
    until(SOON, "its end", async || world.workflows().get_opt("echo").await.unwrap().is_none().then_some(())).await;

    let mut release = tokio::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    release.arg("release-finalizers").env("KUBECONFIG", plane.kubeconfig());
    drop(process);
    crds.delete("workflows.workflows.mistral.ai", &Default::default()).await.unwrap();
    let output = release.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("Workflows: 0 released"), "{said}");
    world.client = control_plane().client().await.unwrap();
}

#[tokio::test]
async fn an_api_server_that_sends_no_lists_as_streams_is_asked_for_pages() {
    let mut world = World::bare("pages").await;
    let plane = tokio::task::spawn_blocking(|| ControlPlane::start_without("WatchList").unwrap()).await.unwrap();
    move_to(&mut world, &plane).await;
    install_crds_into(&world.client, |_| true).await;
    world.secret("mistral", "api-key", KEY).await;
    world.workspace("default", &world.api.url).await;
    world.execute("before", json!({ "workflowIdentifier": "echo" })).await;
    let process = world.process(&[("KUBECONFIG", plane.kubeconfig().to_str().unwrap())]);
    wait_for_readiness(&process, 200, "ready\n").await;
    world.wait_for_reason("before", "Completed").await;
    world.execute("after", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("after", "Completed").await;
    let log = process.log();
    // Once for each kind and for the finished executions, and without errors.
    assert_eq!(log.matches("requests pages from now on").count(), 4, "{log}");
    assert!(!log.contains("forbidden"), "it reads like a missing right: {log}");
    assert!(!log.contains("the watch of"), "{log}");
    drop(process);
    world.client = control_plane().client().await.unwrap();
}

#[tokio::test]
async fn missing_permissions_are_named_and_the_documented_ones_are_enough() {
    let world = World::new("rbac").await;
    let account = Account::new(&world).await;
    account.may_in_all(&[("", "namespaces", "get")]).await;
    let kubeconfig = account.kubeconfig.to_str().unwrap();
    let arguments = ["--lease-name", "operator", "--lease-namespace", &world.namespace];
    let process = world.process_with(&arguments, &[("KUBECONFIG", kubeconfig)]);
    let right = |verb: &str| format!("the right to {verb} workflows in the namespace {}", world.namespace);
    wait_for_readiness(&process, 503, &right("list")).await;
    let (lease, others): (Vec<_>, Vec<_>) =
        documented_permissions().into_iter().partition(|(group, ..)| *group == "coordination.k8s.io");
    // Without the right to watch, everything would look fine, but the operator would see no changes.
    let (watch, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|(.., verb)| *verb == "watch");
    account.may(&others).await;
    wait_for_readiness(&process, 503, &right("watch")).await;
    assert!(!process.ask("/readyz").await.unwrap().1.contains(&right("list")));
    account.may(&watch).await;
    wait_for_readiness(&process, 503, "waiting for the Lease").await;
    wait_for_readiness(&process, 503, "cannot get resource").await;
    account.may(&lease).await;
    wait_for_readiness(&process, 200, "ready\n").await;
    world.execute("run", json!({ "workflowIdentifier": "echo" })).await;
    world.wait_for_reason("run", "Completed").await;
    world.workflow("echo", json!({ "description": "Ours", "deletionPolicy": "Archive" })).await;
    world.wait_for_workflow("echo", "InSync").await;
    until(SOON, "an Event", async || (!world.events("run").await.is_empty()).then_some(())).await;
    world.delete("run").await;
    world.wait_until_gone("run", SOON).await;
}

/// API group, resource and verb.
fn documented_permissions() -> Vec<(&'static str, &'static str, &'static str)> {
    let (table, _) = include_str!("../../docs/reference/rights.md").split_once("\n## ").unwrap();
    let mut permissions = Vec::new();
    for row in table.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let (resources, group) = match cells[1].split_once(" (`") {
            Some((resources, group)) => (resources, group.trim_end_matches("`)")),
            None if cells[1].contains("work") => (cells[1], "workflows.mistral.ai"),
            None => (cells[1], ""),
        };
        for resource in resources.split(", ") {
            permissions.extend(cells[2].split(", ").map(|verb| (group, resource.trim_matches('`'), verb)));
        }
    }
    permissions
}
