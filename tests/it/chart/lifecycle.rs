//! Helm installs, upgrades and uninstalls the chart, and the resources stay.

use super::*;

const RELEASE: &str = "mistral-workflows-operator";
const JOB: &str = "mistral-workflows-operator-release-finalizers";

/// A control plane whose CRDs are Helm's. Helm does not own those of the shared one.
struct Cluster(ControlPlane);

impl Cluster {
    async fn start() -> Self {
        Self(tokio::task::spawn_blocking(ControlPlane::start).await.unwrap().unwrap())
    }

    fn helm(&self, program: &Path, arguments: &[&str]) -> std::process::Command {
        let mut command = helm_of(program, self.0.kubeconfig(), arguments);
        command.args(["--namespace", "mistral-system"]);
        command
    }

    /// `helm install` or `helm upgrade` with the chart.
    fn with_chart(&self, program: &Path, arguments: &[&str]) -> std::process::Command {
        let (verb, more) = arguments.split_first().unwrap();
        let mut command = self.helm(program, &[verb, RELEASE]);
        command.arg(chart()).args(more);
        command
    }

    fn kubectl(&self, arguments: &[&str], input: &str) -> String {
        let mut kubectl = self.0.kubectl_command();
        succeed(kubectl.args(["--namespace", "mistral-system"]).args(arguments), input)
    }

    /// What the Deployment has at a JSONPath.
    fn deployment(&self, path: &str) -> String {
        self.kubectl(&["get", "deployment", RELEASE, "-o", &format!("jsonpath={path}")], "")
    }

    /// Uninstalls the chart. Succeeds for the Job, since the cluster has no node to run it.
    async fn uninstall(&self, program: &Path) {
        let mut command = self.helm(program, &["uninstall", RELEASE, "--timeout=60s"]);
        let mut uninstalling = Uninstalling(command.stdout(Stdio::null()).spawn().unwrap());
        until(SOON, "the hook", async || {
            let mut kubectl = self.0.kubectl_command();
            kubectl.args(["--namespace", "mistral-system", "get", "job", JOB]);
            kubectl.output().unwrap().status.success().then_some(())
        })
        .await;
        // An operator that is still shutting down has no rights left to undo the hook's work.
        let rights = "deployment,clusterrolebinding,rolebinding";
        let label = "app.kubernetes.io/component=operator";
        assert_eq!(self.kubectl(&["get", rights, "-A", "-l", label, "-o", "name"], ""), "");
        let now = "2026-11-24T00:00:00Z";
        let condition = |name: &str| json!({ "type": name, "status": "True", "lastTransitionTime": now });
        let done = json!({ "status": {
            "startTime": now, "completionTime": now, "succeeded": 1,
            "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        } });
        self.kubectl(&["patch", "job", JOB, "--subresource=status", "--type=merge", "--patch", &done.to_string()], "");
        let ended = until(SOON, "the end of helm uninstall", async || uninstalling.0.try_wait().unwrap()).await;
        assert!(ended.success());
    }
}

#[tokio::test]
async fn helm_installs_upgrades_and_uninstalls_and_the_resources_stay() {
    let _world = World::bare("chart-helm").await;
    let Some(tools) = tools().await else { return };
    let cluster = Cluster::start().await;
    let uid = ["get", "workspace", "default", "-o", "jsonpath={.metadata.uid}"];
    let values = ["--set", "workspace.create=true"];
    let mut first = String::new();
    // What one version has left behind, the other takes over.
    for program in [&tools.helm, &tools.helm3] {
        let said = succeed(cluster.with_chart(program, &["install", "--create-namespace"]).args(values), "");
        assert!(said.contains("get mwfx --watch"), "{said}");
        let now = cluster.kubectl(&uid, "");
        assert!(first.is_empty() || first == now, "the second install made the Workspace anew");
        first = now;
        for _ in 0..2 {
            succeed(cluster.with_chart(program, &["upgrade", "--set", "replicas=2"]).args(values), "");
            assert_eq!(cluster.kubectl(&uid, ""), first, "an upgrade made the Workspace anew");
        }
        let execution = std::fs::read_to_string(repository("examples/execution.yaml")).unwrap();
        cluster.kubectl(&["apply", "-f", "-"], &execution);
        cluster.uninstall(program).await;
        cluster.kubectl(&["get", "workflowexecution", "greet"], "");
        assert_eq!(cluster.kubectl(&uid, ""), first);
        let kinds = "deployment,job,serviceaccount,service,role,rolebinding,clusterrole,clusterrolebinding,\
                     validatingadmissionpolicy,validatingadmissionpolicybinding";
        let left = cluster.kubectl(&["get", kinds, "-A", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name"], "");
        assert_eq!(left, "");
    }
}

#[tokio::test]
async fn helm_3_and_helm_4_upgrade_and_roll_back_what_the_other_has_installed() {
    let _world = World::bare("chart-helms").await;
    let Some(tools) = tools().await else { return };
    let cluster = Cluster::start().await;
    let state = || cluster.deployment(r#"{.spec.replicas} {..env[?(@.name=="LOG_LEVEL")].value}"#);
    let upgrade = |program: &Path, value: &str| {
        succeed(&mut cluster.with_chart(program, &["upgrade", "--reset-then-reuse-values", "--set", value]), "");
    };
    let roll_back = |program: &Path, revision: &str| {
        succeed(&mut cluster.helm(program, &["rollback", RELEASE, revision]), "");
    };
    succeed(&mut cluster.with_chart(&tools.helm3, &["install", "--create-namespace"]), "");
    upgrade(&tools.helm, "replicas=2");
    upgrade(&tools.helm3, "log.level=debug");
    assert_eq!(state(), "2 debug");
    roll_back(&tools.helm, "1");
    assert_eq!(state(), "1 info");
    roll_back(&tools.helm3, "3");
    assert_eq!(state(), "2 debug");
    // As before an uninstall, and by somebody who is not Helm.
    cluster.kubectl(&["scale", "deployment", RELEASE, "--replicas=0"], "");
    upgrade(&tools.helm, "replicas=3");
    assert_eq!(state(), "3 debug");
}

/// The commands of docs/how-to/install.md, for CRDs of another version than the chart's.
#[tokio::test]
async fn crds_that_kubectl_has_applied_are_taken_over_as_the_page_says() {
    let _world = World::bare("chart-crds").await;
    let Some(tools) = tools().await else { return };
    let cluster = Cluster::start().await;
    cluster.kubectl(&["create", "namespace", "mistral-system"], "");
    let page = std::fs::read_to_string(repository("docs/how-to/install.md")).unwrap();
    let crds = std::fs::read_to_string(repository("crds/workflows.mistral.ai.yaml")).unwrap();
    let description = "description: Key in the Secret.";
    let older = crds.replace(description, "description: Of an older version.");
    let names: Vec<String> =
        mistral_workflows_operator::api::crds().into_iter().filter_map(|crd| crd.metadata.name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let both = ["--take-ownership", "--force-conflicts"];
    for (program, flags, server_side) in [
        (&tools.helm3, &both[..1], "--server-side=false"),
        (&tools.helm3, &both[..1], "--server-side=true"),
        (&tools.helm, &both, "--server-side=false"),
        (&tools.helm, &both, "--server-side=true"),
    ] {
        cluster.kubectl(&["apply", server_side, "-f", "-"], &older);
        let refused = run(&mut cluster.with_chart(program, &["install"]), "");
        let said = String::from_utf8_lossy(&refused.stderr);
        assert!(!refused.status.success() && said.contains("invalid ownership metadata"), "{said}");
        let command = format!(
            "helm install {RELEASE} {CHART} \\\n  --namespace mistral-system --create-namespace \\\n  --set image.repository=REGISTRY/{RELEASE} {}\n",
            flags.join(" ")
        );
        assert!(page.contains(&command), "{command}");
        succeed(cluster.with_chart(program, &["install"]).args(flags), "");
        let spec = cluster.kubectl(&["get", "crd", names[0], "-o", "jsonpath={.spec}"], "");
        assert!(spec.contains("Key in the Secret.") && !spec.contains("Of an older version."), "{spec}");
        succeed(&mut cluster.helm(program, &["uninstall", RELEASE, "--no-hooks"]), "");
        cluster.kubectl(&[&["delete", "crd"], &names[..]].concat(), "");
    }
}

/// As the pages name it, from the root of the repository.
const CHART: &str = "charts/mistral-workflows-operator";

/// Ends `helm uninstall` with the test, even if the test fails.
struct Uninstalling(std::process::Child);

impl Drop for Uninstalling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
