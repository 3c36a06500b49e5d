//! One file for those without Helm (`cargo xtask manifest`).

use cluster::Supervised;

use super::*;

const NAMESPACE: &str = "mistral-system";
const ACCOUNT: &str = "mistral-workflows-operator";

/// The command of the page that removes all but the CRDs.
const DELETE: [&str; 2] = ["delete", "--selector=app.kubernetes.io/component!=crd"];

/// Starts an operator with the environment and the rights that the manifest gives to its Deployment.
fn operator(world: &World, cluster: &ControlPlane, deployment: &Value) -> Supervised {
    let mut kubectl = cluster.kubectl_command();
    let token = succeed(kubectl.args(["--namespace", NAMESPACE, "create", "token", ACCOUNT]), "");
    let folder = control_plane().folder();
    let kubeconfig = folder.join(format!("kubeconfig-{}", world.namespace));
    write_kubeconfig(cluster, &token, &kubeconfig);
    let pod = &deployment["spec"]["template"]["spec"];
    assert_eq!(pod["serviceAccountName"], ACCOUNT);
    let container = &pod["containers"][0];
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_mistral-workflows-operator"));
    command.args(container["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()));
    for variable in container["env"].as_array().unwrap() {
        command.env(variable["name"].as_str().unwrap(), variable["value"].as_str().unwrap());
    }
    command.env("KUBECONFIG", kubeconfig).env("LISTEN", "127.0.0.1:0").env("ALLOW_BASE_URL", &world.api.url);
    Supervised::spawn(&command, &folder.join(format!("operator-{}-manifest.log", world.namespace))).unwrap()
}

#[tokio::test]
async fn one_file_for_kubectl_installs_all_that_the_operator_needs_and_its_removal_keeps_the_resources() {
    let world = World::bare("chart-manifest").await;
    let Some(tools) = tools().await else { return };
    let manifest = tools.manifest(&chart()).unwrap();
    assert!(!manifest.contains("helm.sh/") && !manifest.contains("managed-by"), "{manifest}");
    let objects: Vec<Value> = serde_saphyr::from_multiple(&manifest).unwrap();
    let deployment = objects.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let cluster = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap().unwrap();
    let kubectl = |arguments: &[&str], input: &str| succeed(cluster.kubectl_command().args(arguments), input);
    // The second time, nothing has to be made.
    for _ in 0..2 {
        let applied = kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], &manifest);
        assert_eq!(applied.lines().count(), objects.len(), "{applied}");
    }

    let running = operator(&world, &cluster, deployment);
    let workspace = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "Workspace", "metadata": { "name": "default" },
        "spec": { "baseURL": world.api.url, "auth": { "apiKeySecretRef": { "name": "mistral", "key": "api-key" } } },
    });
    let execution = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1", "kind": "WorkflowExecution", "metadata": { "name": "greet" },
        "spec": { "workflowIdentifier": "echo", "input": { "n": 1 } },
    });
    kubectl(&["create", "secret", "generic", "mistral", &format!("--from-literal=api-key={KEY}")], "");
    for object in [workspace, execution] {
        kubectl(&["create", "-f", "-"], &object.to_string());
    }
    let result = ["get", "workflowexecution", "greet", "-o", "jsonpath={.status.result}"];
    let log = || std::fs::read_to_string(running.log()).unwrap_or_default();
    until(SOON, "the result", async || (kubectl(&result, "") == "{\"n\":1}").then_some(())).await;
    assert!(!log().contains("is forbidden"), "{}", log());
    drop(running);

    let page = std::fs::read_to_string(repository("docs/how-to/upgrade-and-uninstall.md")).unwrap();
    assert!(page.contains(&format!("kubectl {} -f install.yaml", DELETE.join(" "))));
    kubectl(&[&DELETE[..], &["-f", "-"]].concat(), &manifest);
    assert_eq!(kubectl(&result, ""), "{\"n\":1}");
    let left = "deployment,serviceaccount,service,role,clusterrole,clusterrolebinding,validatingadmissionpolicy";
    let selector = format!("--selector=app.kubernetes.io/instance={ACCOUNT}");
    assert_eq!(kubectl(&["get", left, "-A", &selector, "-o", "name"], ""), "");
}
