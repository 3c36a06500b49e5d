//! Several namespaces instead of all: the operator serves them. A missing one is reported, and holds up no other.

use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::PostParams;
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::json;

use crate::chart::{kubeconfig_of, render, succeed, tools};
use crate::support::*;

const ACCOUNT: &str = "release-mistral-workflows-operator";

async fn wait_for_readiness(process: &Process, status: u16, text: &str) {
    let mut last = None;
    let holds = async || {
        last = process.ask("/readyz").await;
        last.as_ref().is_some_and(|(said, body)| *said == status && body.contains(text)).then_some(())
    };
    until(SOON, &format!("{status} {text}"), holds).await;
}

/// Starts an operator for all of these worlds, with the settings of the first one.
fn operator_of(worlds: &[&World], more: &[&str], environment: &[(&str, &str)]) -> Process {
    let others = worlds[1..]
        .iter()
        .flat_map(|world| ["--namespace", world.namespace.as_str(), "--allow-base-url", world.api.url.as_str()]);
    let arguments: Vec<&str> = others.chain(more.iter().copied()).collect();
    worlds[0].process_with(&arguments, environment)
}

async fn is_untouched(world: &World, name: &str) -> bool {
    let object: WorkflowExecution = world.executions().get(name).await.unwrap();
    let calls = world.api.arrivals(None).await;
    object.status.is_none()
        && object.metadata.annotations.is_none()
        && object.metadata.finalizers.is_none()
        && calls == 0
}

/// Creates the chart's account, with its rights in these namespaces.
async fn grant(namespace: &str, watched: &[&World]) {
    let tools = tools().await.unwrap();
    let watched: Vec<&str> = watched.iter().map(|world| world.namespace.as_str()).collect();
    let mut rendered = render(tools, namespace, &json!({ "watchNamespaces": watched }).to_string(), &[]);
    rendered.retain(|object| {
        let hook = &object["metadata"]["annotations"]["helm.sh/hook"];
        (object["kind"] == "ServiceAccount" || object["apiVersion"] == "rbac.authorization.k8s.io/v1") && hook.is_null()
    });
    for object in &rendered {
        let mut kubectl = control_plane().kubectl_command();
        succeed(kubectl.args(["apply", "-f", "-"]), &object.to_string());
    }
}

#[tokio::test]
async fn of_three_namespaces_two_are_worked_on_with_the_charts_rights_and_the_third_is_left_alone_until_it_is_added() {
    let (a, b, c) = (World::new("several-a").await, World::new("several-b").await, World::new("several-c").await);
    if tools().await.is_none() {
        return;
    }
    grant(&a.namespace, &[&a, &b]).await;
    let kubeconfig = kubeconfig_of(&a, ACCOUNT).await;
    let environment = [
        ("KUBECONFIG", kubeconfig.to_str().unwrap()),
        ("LEASE_NAME", ACCOUNT),
        ("LEASE_NAMESPACE", a.namespace.as_str()),
    ];
    let mut process = operator_of(&[&a, &b], &[], &environment);
    wait_for_readiness(&process, 200, "ready\n").await;
    for world in [&a, &b, &c] {
        world.execute("run", json!({ "workflowRef": { "name": "echo" } })).await;
        world.workflow("echo", json!({ "displayName": "Echo" })).await;
    }
    for world in [&a, &b] {
        world.wait_for_reason("run", "Completed").await;
        world.wait_for_workflow("echo", "InSync").await;
    }
    assert!(is_untouched(&c, "run").await);
    assert_eq!(c.workflows().get("echo").await.unwrap().status, None);
    assert!(!process.log().contains("is forbidden"), "{}", process.log());
    process.child.signal("TERM").unwrap();
    until(SOON, "its end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;

    // The third namespace is configured before the operator has any rights in it.
    let process = operator_of(&[&a, &b, &c], &[], &environment);
    let lacking = format!("the right to list workspaces in the namespace {}", c.namespace);
    wait_for_readiness(&process, 503, &lacking).await;
    for world in [&a, &b] {
        world.execute("second", json!({ "workflowIdentifier": "echo" })).await;
        world.wait_for_reason("second", "Completed").await;
        assert_eq!(world.api.starts().await, 2);
    }
    assert!(is_untouched(&c, "run").await);
    grant(&a.namespace, &[&a, &b, &c]).await;
    c.wait_for_reason("run", "Completed").await;
    wait_for_readiness(&process, 200, "ready\n").await;

    // With the chart's rights too, the operator distinguishes a deleted namespace from one without rights. The rights
    // are deleted with the namespace, so resources with the operator's finalizers have to go first.
    let (said, deleted) = c.kubectl(&["delete", "workflowexecutions,workflows", "--all", "--timeout=60s"]).await;
    assert!(deleted, "{said}");
    let (said, deleted) = c.kubectl(&["delete", "namespace", &c.namespace, "--timeout=60s"]).await;
    assert!(deleted, "{said}");
    let process = operator_of(&[&a, &b, &c], &["--lease-name", ""], &[environment[0]]);
    wait_for_readiness(&process, 503, &format!("the namespace {} (it does not exist", c.namespace)).await;
}

#[tokio::test]
async fn a_namespace_that_does_not_exist_is_named_and_holds_up_only_ids_that_somebody_in_it_may_have_claimed() {
    let world = World::new("several-missing").await;
    let missing = format!("{}-missing", world.namespace);
    let mut process = world.process_with(&["--namespace", &format!("{missing},{}", world.namespace)], &[]);
    let reason = format!("the namespace {missing} (it does not exist; create it");
    wait_for_readiness(&process, 503, &reason).await;
    world.wait_for_workspace("default", "Connected").await;
    world.execute("derived", json!({ "workflowIdentifier": "echo" })).await;
    world.execute("explicit", json!({ "workflowIdentifier": "echo", "executionId": "nightly" })).await;
    world.wait_for_reason("derived", "Completed").await;
    world.wait_for_reason("explicit", "ExecutionIDClaimed").await;
    assert_eq!(world.api.starts().await, 1);

    let namespaces: Api<Namespace> = Api::all(world.client.clone());
    let namespace = serde_json::from_value(json!({ "metadata": { "name": missing } })).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    wait_for_readiness(&process, 200, "ready\n").await;
    world.wait_for_reason("explicit", "Completed").await;
    // The log names the namespace of each list, and a namespace that is given twice counts once.
    for kind in ["Workspace", "Workflow", "WorkflowExecution"] {
        assert!(!process.log().contains(&format!("the watch of {kind}s")), "{}", process.log());
    }
    process.child.signal("TERM").unwrap();
    let end = until(SOON, "its end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;
    assert!(end.success(), "{end}");
}

#[tokio::test]
async fn while_a_namespace_is_missing_the_operator_still_lets_calls_end_when_it_is_told_to_stop() {
    let world = World::new("several-stop").await;
    let hold = json!({ "route": "/v1/workflows/{workflow_identifier}/execute", "kind": { "hold": "before_effect" } });
    world.api.faults(json!({ "faults": [hold] })).await;
    let mut process = world.process_with(&["--namespace", "there-is-no-such-namespace"], &[]);
    world.execute("run", json!({ "workflowIdentifier": "hang" })).await;
    until(SOON, "the call", async || (world.api.held().await.len() == 1).then_some(())).await;
    process.child.signal("TERM").unwrap();
    until(SOON, "the line", async || process.log().contains("stopping").then_some(())).await;
    assert_eq!(process.child.wait_exit(Duration::from_millis(500)).unwrap(), None);
    world.api.heal().await;
    let end = until(SOON, "its end", async || process.child.wait_exit(Duration::ZERO).unwrap()).await;
    assert!(end.success(), "{end}");
    assert_eq!(ready_reason(&world.executions().get("run").await.unwrap()), Some("Running"));
}
