//! Helm installs, upgrades and uninstalls the chart, and the resources stay.

use cluster::ControlPlane;

use super::*;

#[tokio::test]
async fn helm_installs_upgrades_and_uninstalls_and_the_resources_stay() {
    let _world = World::bare("chart-helm").await;
    let Some(tools) = tools().await else { return };
    // Helm does not own the CRDs of the shared control plane, so this test starts another one.
    let cluster = tokio::task::spawn_blocking(ControlPlane::start).await.unwrap().unwrap();
    let chart = chart();
    let on_cluster = |arguments: &[&str]| {
        let mut command = helm(tools, cluster.kubeconfig(), arguments);
        command.args(["--namespace", "mistral-system"]);
        succeed(&mut command, "")
    };
    let kubectl = |arguments: &[&str], input: &str| {
        succeed(cluster.kubectl_command().args(["--namespace", "mistral-system"]).args(arguments), input)
    };
    let uid = ["get", "workspace", "default", "-o", "jsonpath={.metadata.uid}"];
    let values = ["--set", "workspace.create=true"];
    let install = ["install", "mistral-workflows-operator", chart.to_str().unwrap(), "--create-namespace"];
    let said = on_cluster(&[&install[..], &values].concat());
    assert!(said.contains("get workflowexecutions --watch"), "{said}");
    let first = kubectl(&uid, "");

    for _ in 0..2 {
        let upgrade = ["upgrade", "mistral-workflows-operator", chart.to_str().unwrap()];
        on_cluster(&[&upgrade[..], &values, &["--set", "replicas=2"]].concat());
        assert_eq!(kubectl(&uid, ""), first, "an upgrade made the Workspace anew");
    }
    let execution = std::fs::read_to_string(repository("examples/execution.yaml")).unwrap();
    kubectl(&["apply", "-f", "-"], &execution);
    let uninstall = ["uninstall", "mistral-workflows-operator", "--timeout=60s", "--namespace", "mistral-system"];
    let mut uninstalling =
        Uninstalling(helm(tools, cluster.kubeconfig(), &uninstall).stdout(Stdio::null()).spawn().unwrap());
    let job = "mistral-workflows-operator-release-finalizers";
    until(SOON, "the hook", async || {
        let mut hook = cluster.kubectl_command();
        hook.args(["--namespace", "mistral-system", "get", "job", job]);
        hook.output().unwrap().status.success().then_some(())
    })
    .await;
    // An operator that is still shutting down has no rights left to undo the hook's work.
    let all = |kinds: &str, label: &str| kubectl(&["get", kinds, "-A", "-l", label, "-o", "name"], "");
    let operator = "app.kubernetes.io/component=operator";
    assert_eq!(all("deployment,clusterrolebinding,rolebinding", operator), "");
    // The cluster has no node to run the hook on.
    let patch = ["patch", "job", job, "--subresource=status", "--type=merge", "--patch", &done().to_string()];
    kubectl(&patch, "");
    let ended = until(SOON, "the end of helm uninstall", async || uninstalling.0.try_wait().unwrap()).await;
    assert!(ended.success());
    kubectl(&["get", "workflowexecution", "greet"], "");
    assert_eq!(kubectl(&uid, ""), first);
    let kinds = "deployment,job,serviceaccount,service,role,rolebinding,clusterrole,clusterrolebinding,\
                 validatingadmissionpolicy,validatingadmissionpolicybinding";
    assert_eq!(all(kinds, "app.kubernetes.io/managed-by=Helm"), "");
}

/// The status of a Job that has succeeded.
fn done() -> Value {
    let now = "2026-11-24T00:00:00Z";
    let condition = |name: &str| json!({ "type": name, "status": "True", "lastTransitionTime": now });
    let conditions = [condition("SuccessCriteriaMet"), condition("Complete")];
    json!({ "status": { "startTime": now, "completionTime": now, "succeeded": 1, "conditions": conditions } })
}

/// Ends `helm uninstall` with the test, even if the test fails.
struct Uninstalling(std::process::Child);

impl Drop for Uninstalling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
