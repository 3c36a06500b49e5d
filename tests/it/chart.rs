//! The chart: the API server accepts what it renders, and it has what the operator needs and nothing more.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use cluster::{ControlPlane, Environment, Error, GitOps};
use kube::ResourceExt;
use mistral_workflows_operator::{execution, workspace};
use serde_json::{Value, json};

use crate::support::*;

/// Values that make the chart render everything at once.
const EVERYTHING: &str = "
commonLabels: { team: platform }
imagePullSecrets: [{ name: registry }]
replicas: 2
allowBaseURLs: [https://api.mistral.ai, http://simulator.mistral:8080]
maxRequestsPerSecond: 20
log: { format: json, level: 'info,mistral_workflows_operator=debug' }
workspace: { create: true, baseURL: https://api.mistral.ai }
serviceAccount: { annotations: { example.com/a: b } }
rbac: { secretNames: [mistral] }
inputs: { secretsNeedLabel: true }
results: { configMaps: true, secrets: true }
networkPolicy:
  enabled: true
  apiServer: { cidrs: [10.96.0.1/32], ports: [443] }
  mistral: { cidrs: [203.0.113.0/24] }
  extraEgress: [{ to: [{ ipBlock: { cidr: 192.0.2.1/32 } }], ports: [{ port: 3128 }] }]
  ingressFrom: [{ namespaceSelector: { matchLabels: { name: monitoring } } }]
serviceMonitor: { enabled: true, labels: { release: prometheus } }
prometheusRule: { enabled: true, labels: { release: prometheus } }
dashboard: { enabled: true, annotations: { folder: Mistral } }
podAnnotations: { example.com/a: b }
podLabels: { example.com/c: d }
nodeSelector: { kubernetes.io/os: linux }
tolerations: [{ key: dedicated, operator: Exists }]
affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } }
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector: { matchLabels: { app.kubernetes.io/component: operator } }
priorityClassName: system-cluster-critical
extraEnv: [{ name: SSL_CERT_FILE, value: /certificates/ca.crt }]
extraVolumes: [{ name: certificates, configMap: { name: certificates } }]
extraVolumeMounts: [{ name: certificates, mountPath: /certificates, readOnly: true }]
";

fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn chart() -> PathBuf {
    repository("charts/mistral-workflows-operator")
}

/// Helm and similar tools. Outside CI, a machine without Go to build them skips the tests that need them, with a
/// visible notice.
pub async fn tools() -> Option<&'static GitOps> {
    static TOOLS: OnceLock<Option<GitOps>> = OnceLock::new();
    let find = || match GitOps::find_or_build(&Environment::of_process()) {
        Ok(tools) => Some(tools),
        Err(error @ (Error::GoMissing { .. } | Error::GoTooOld { .. })) if std::env::var_os("CI").is_none() => {
            let line = "=".repeat(100);
            let text = format!("\n{line}\nSKIPPED: nothing is known about the chart.\n{error}\n{line}\n");
            // Written past libtest, which hides the output of a passing test.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            None
        }
        Err(error) => panic!("{error}"),
    };
    tokio::task::spawn_blocking(move || TOOLS.get_or_init(find).as_ref()).await.unwrap()
}

/// Runs a program to its end with `input` on its standard input.
pub fn run(command: &mut std::process::Command, input: &str) -> Output {
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_owned();
    let writing = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let output = child.wait_with_output().unwrap();
    // A program may end without reading all of its input.
    let _ = writing.join().unwrap();
    output
}

/// The standard output of a program that must succeed.
pub fn succeed(command: &mut std::process::Command, input: &str) -> String {
    let output = run(command, input);
    let (said, complained) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}: {said}{complained}");
    said.into_owned()
}

fn helm(tools: &GitOps, kubeconfig: &Path, arguments: &[&str]) -> std::process::Command {
    let home = control_plane().folder().join("helm");
    let mut command = std::process::Command::new(&tools.helm);
    command
        .args(arguments)
        .env("KUBECONFIG", kubeconfig)
        .env("HELM_CACHE_HOME", home.join("cache"))
        .env("HELM_CONFIG_HOME", home.join("config"))
        .env("HELM_DATA_HOME", home.join("data"));
    command
}

/// The objects that the chart renders with these values, including hooks and tests.
pub fn render(tools: &GitOps, namespace: &str, values: &str, more: &[&str]) -> Vec<Value> {
    let chart = chart();
    let arguments = ["template", "release", chart.to_str().unwrap(), "--namespace", namespace, "--values", "-"];
    let text = succeed(helm(tools, Path::new("/nonexistent"), &arguments).args(more), values);
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[test]
fn the_chart_has_the_crds_and_the_version_of_the_program() {
    let ours = std::fs::read_to_string(repository("crds/workflows.mistral.ai.yaml")).unwrap();
    let charts = std::fs::read_to_string(chart().join("files/crds.yaml")).unwrap();
    let how = "cp crds/workflows.mistral.ai.yaml charts/mistral-workflows-operator/files/crds.yaml";
    assert!(ours == charts, "the chart's CRDs are out of date: {how}");

    let about = std::fs::read_to_string(chart().join("Chart.yaml")).unwrap();
    let about: Value = serde_saphyr::from_str(&about).unwrap();
    for version in ["version", "appVersion"] {
        assert_eq!(about[version], env!("CARGO_PKG_VERSION"), "{version} in Chart.yaml");
    }
}

#[tokio::test]
async fn helm_finds_nothing_to_complain_about() {
    let _world = World::bare("chart-lint").await;
    let Some(tools) = tools().await else { return };
    for values in ["", EVERYTHING] {
        let chart = chart();
        let arguments = ["lint", "--strict", chart.to_str().unwrap(), "--values", "-"];
        succeed(&mut helm(tools, Path::new("/nonexistent"), &arguments), values);
    }
}

#[tokio::test]
async fn a_value_that_is_misspelled_or_makes_no_sense_is_refused() {
    let world = World::bare("chart-values").await;
    let Some(tools) = tools().await else { return };
    let chart = chart();
    for (values, words) in [
        ("replicaCount: 2", "additional properties 'replicaCount' not allowed"),
        ("image: { repo: x }", "additional properties 'repo' not allowed"),
        ("networkPolicy: { enable: true }", "additional properties 'enable' not allowed"),
        ("replicas: two", "got string, want integer"),
        ("watchNamespace: a", "additional properties 'watchNamespace' not allowed"),
        ("watchNamespaces: a", "got string, want array"),
        ("watchNamespaces: ['a,b']", "does not match pattern"),
        ("watchNamespaces: [a, '']", "does not match pattern"),
        ("allowBaseURLs: [api.mistral.ai]", "does not match pattern"),
        ("maxRequestsPerSecond: 0", "minimum: got 0, want 1"),
        ("inputs: { secretsNeedLabel: 1 }", "got number, want boolean"),
        ("log: { format: xml }", "must be one of"),
        ("serviceAccount: { create: false }", "serviceAccount.name is needed"),
    ] {
        let arguments =
            ["template", "release", chart.to_str().unwrap(), "--namespace", &world.namespace, "--values", "-"];
        let output = run(&mut helm(tools, Path::new("/nonexistent"), &arguments), values);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && said.contains(words), "{values}: {said}");
    }
}

#[tokio::test]
async fn the_api_server_accepts_all_that_the_chart_renders_and_the_examples() {
    let world = World::bare("chart-accepted").await;
    let Some(tools) = tools().await else { return };
    let known = ["--api-versions", "workflows.mistral.ai/v1alpha1/Workspace"];
    let own = format!("watchNamespaces: [{}]\nnetworkPolicy: {{ enabled: true }}", world.namespace);
    let mut rendered = Vec::new();
    let long = format!("fullnameOverride: {}", "n".repeat(50));
    for values in ["", &own, &long, EVERYTHING] {
        rendered.extend(render(tools, &world.namespace, values, &known));
    }
    let kinds: BTreeSet<String> = rendered.iter().map(|object| object["kind"].as_str().unwrap().to_owned()).collect();
    for kind in [
        "ClusterRole",
        "ClusterRoleBinding",
        "ConfigMap",
        "CustomResourceDefinition",
        "Deployment",
        "Job",
        "NetworkPolicy",
        "Pod",
        "PodDisruptionBudget",
        "PrometheusRule",
        "Role",
        "RoleBinding",
        "Service",
        "ServiceAccount",
        "ServiceMonitor",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "Workspace",
    ] {
        assert!(kinds.contains(kind), "no {kind} in {kinds:?}");
    }
    // The test cluster has no CRDs of the Prometheus Operator.
    rendered.retain(|object| object["apiVersion"] != "monitoring.coreos.com/v1");
    for file in std::fs::read_dir(repository("examples")).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        rendered.extend(serde_saphyr::from_multiple::<Value>(&text).unwrap());
    }
    for object in rendered {
        let mut kubectl = control_plane().kubectl_command();
        // An object with `generateName` cannot be applied.
        let verb = if object["metadata"]["name"].is_string() { "apply" } else { "create" };
        kubectl.args([verb, "--dry-run=server", "--validate=strict", "--namespace", &world.namespace, "-f", "-"]);
        succeed(&mut kubectl, &object.to_string());
    }
}

#[tokio::test]
async fn rendered_pods_fit_into_a_namespace_that_allows_only_restricted_ones() {
    let world = World::bare("chart-restricted").await;
    let Some(tools) = tools().await else { return };
    let label = ["label", "namespace", &world.namespace, "pod-security.kubernetes.io/enforce=restricted"];
    assert!(world.kubectl(&label).await.1);
    let mut pods = render(tools, &world.namespace, EVERYTHING, &[]);
    let cronjob = std::fs::read_to_string(repository("examples/cronjob.yaml")).unwrap();
    pods.extend(serde_saphyr::from_multiple::<Value>(&cronjob).unwrap());
    let mut specs = Vec::new();
    for object in &pods {
        match object["kind"].as_str().unwrap() {
            "Pod" => specs.push(&object["spec"]),
            "Deployment" | "Job" => specs.push(&object["spec"]["template"]["spec"]),
            "CronJob" => specs.push(&object["spec"]["jobTemplate"]["spec"]["template"]["spec"]),
            _ => {}
        }
    }
    assert_eq!(specs.len(), 4);
    for (number, spec) in specs.into_iter().enumerate() {
        let mut spec = spec.clone();
        // Only the namespace's default service account exists.
        let fields = spec.as_object_mut().unwrap();
        fields.remove("serviceAccountName");
        let pod =
            json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": format!("pod-{number}") }, "spec": spec });
        let mut kubectl = control_plane().kubectl_command();
        kubectl.args(["create", "--dry-run=server", "--namespace", &world.namespace, "-f", "-"]);
        succeed(&mut kubectl, &pod.to_string());
    }
}

#[tokio::test]
async fn namespaces_to_watch_are_the_only_ones_that_the_operator_has_rights_in() {
    let world = World::bare("chart-rights").await;
    let Some(tools) = tools().await else { return };
    let rules = |objects: &[Value], kind: &str, part: &str| -> Vec<Value> {
        let of = |object: &&Value| object["kind"] == kind && name(object).ends_with(part);
        objects.iter().filter(of).map(|object| object["rules"].clone()).collect()
    };
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
    // The rights that results need, and no more than the values ask for.
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

#[tokio::test]
async fn the_job_after_an_uninstall_may_reach_dns_and_the_api_server_and_its_policy_is_there_before_it() {
    let world = World::bare("chart-policies").await;
    let Some(tools) = tools().await else { return };
    let rendered = render(tools, &world.namespace, EVERYTHING, &[]);
    let of_kind = |kind: &str, component: &str| -> &Value {
        let label = |object: &Value| object["metadata"]["labels"]["app.kubernetes.io/component"] == component;
        rendered.iter().find(|object| object["kind"] == kind && label(object)).unwrap()
    };
    let policy = of_kind("NetworkPolicy", "release-finalizers");
    let job = of_kind("Job", "release-finalizers");
    let pods = job["spec"]["template"]["metadata"]["labels"].as_object().unwrap();
    for (label, value) in policy["spec"]["podSelector"]["matchLabels"].as_object().unwrap() {
        assert_eq!(pods.get(label), Some(value), "{label}");
    }
    let operators = of_kind("NetworkPolicy", "operator");
    let selector = &operators["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/component"];
    assert_ne!(pods.get("app.kubernetes.io/component"), Some(selector), "both policies hold for the Job");

    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    assert_eq!(policy["spec"]["ingress"], Value::Null);
    let dns = json!({ "ports": [{ "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" }] });
    let api_server = json!({ "ports": [{ "port": 443 }], "to": [{ "ipBlock": { "cidr": "10.96.0.1/32" } }] });
    assert_eq!(policy["spec"]["egress"], json!([dns, api_server]));
    let operators = operators["spec"]["egress"].as_array().unwrap();
    assert!(operators.starts_with(&[dns, api_server]) && operators.len() == 4, "{operators:#?}");

    let annotation = |object: &Value, name: &str| object["metadata"]["annotations"][name].clone();
    assert_eq!(annotation(policy, "helm.sh/hook"), annotation(job, "helm.sh/hook"));
    let weight =
        |object: &Value| annotation(object, "helm.sh/hook-weight").as_str().map_or(0, |text| text.parse().unwrap());
    let (before, after): (i32, i32) = (weight(policy), weight(job));
    assert!(before < after, "{before} is not before {after}");
    assert!(annotation(policy, "helm.sh/hook-delete-policy").as_str().unwrap().contains("hook-succeeded"));
}

/// A kubeconfig with the token of the service account and no rights of the administrator.
pub async fn kubeconfig_of(world: &World, account: &str) -> PathBuf {
    let (token, made) = world.kubectl(&["create", "token", account]).await;
    assert!(made, "{token}");
    let text = std::fs::read_to_string(control_plane().kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
    let file = control_plane().folder().join(format!("kubeconfig-{}", world.namespace));
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    file
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
    let (said, done) =
        world.kubectl(&["patch", "workspace", "default", "--type=merge", "-p", &patch.to_string()]).await;
    assert!(done, "{said}");
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
    assert!(condition(&waiting, "Ready").unwrap().message.contains("may not read Secret \"other\""));
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
    let made = world.execute("half", json!({ "workflowIdentifier": "echo", "input": { "n": 1 }, "suspend": true, "result": { "to": { "secret": { "name": "half" } } } })).await;
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
        cluster
            .kubectl_command()
            .args(["--namespace", "mistral-system", "get", "job", job])
            .output()
            .unwrap()
            .status
            .success()
            .then_some(())
    })
    .await;
    // An operator that is still shutting down has no rights left to undo the hook's work.
    let rights = [
        "get",
        "deployment,clusterrolebinding,rolebinding",
        "-A",
        "-l",
        "app.kubernetes.io/component=operator",
        "-o",
        "name",
    ];
    assert_eq!(kubectl(&rights, ""), "");
    // The cluster has no node to run the hook on.
    let now = "2026-11-24T00:00:00Z";
    let condition = |name: &str| json!({ "type": name, "status": "True", "lastTransitionTime": now });
    let done = json!({ "status": {
        "startTime": now, "completionTime": now, "succeeded": 1,
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
    } });
    kubectl(&["patch", "job", job, "--subresource=status", "--type=merge", "--patch", &done.to_string()], "");
    let ended = until(SOON, "the end of helm uninstall", async || uninstalling.0.try_wait().unwrap()).await;
    assert!(ended.success());
    kubectl(&["get", "workflowexecution", "greet"], "");
    assert_eq!(kubectl(&uid, ""), first);
    let kinds = "deployment,job,serviceaccount,service,role,rolebinding,clusterrole,clusterrolebinding,\
                 validatingadmissionpolicy,validatingadmissionpolicybinding";
    let left = kubectl(&["get", kinds, "-A", "-l", "app.kubernetes.io/managed-by=Helm", "-o", "name"], "");
    assert_eq!(left, "");
}

/// Ends `helm uninstall` with the test, even if the test fails.
struct Uninstalling(std::process::Child);

impl Drop for Uninstalling {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn every_metric_of_the_alerts_and_the_dashboard_is_documented() {
    let world = World::bare("chart-metrics").await;
    let Some(tools) = tools().await else { return };
    let documented = std::fs::read_to_string(repository("docs/reference/metrics.md")).unwrap();
    let mut used = BTreeSet::new();
    for object in render(tools, &world.namespace, EVERYTHING, &[]) {
        let text = object.to_string();
        for (at, _) in text.match_indices("mistral_workflows_") {
            let end = text[at..].find(|c: char| !c.is_ascii_lowercase() && c != '_').map_or(text.len(), |end| at + end);
            used.insert(text[at..end].to_owned());
        }
    }
    // The crate's name appears in the log directives.
    used.remove("mistral_workflows_operator");
    assert!(used.len() > 10, "{used:?}");
    for metric in used {
        let family = ["_bucket", "_count", "_sum"].iter().find_map(|part| metric.strip_suffix(part)).unwrap_or(&metric);
        assert!(documented.contains(&format!("| `{family}` |")), "{metric} is not in docs/reference/metrics.md");
    }
}

#[tokio::test]
async fn each_alert_says_of_which_operator_it_is_and_fires_for_what_its_name_says() {
    let world = World::bare("chart-alerts").await;
    let Some(tools) = tools().await else { return };
    let objects = render(tools, &world.namespace, "prometheusRule: { enabled: true }", &[]);
    let rule = objects.iter().find(|object| object["kind"] == "PrometheusRule").unwrap();
    let alerts = rule["spec"]["groups"][0]["rules"].as_array().unwrap();
    let at = format!("namespace=\"{}\",job=\"release-mistral-workflows-operator\"", world.namespace);
    for alert in alerts {
        let labels = &alert["labels"];
        assert_eq!(labels["namespace"], world.namespace, "{alert}");
        assert_eq!(labels["job"], "release-mistral-workflows-operator", "{alert}");
        assert!(labels["severity"].is_string(), "{alert}");
        assert!(alert["expr"].as_str().unwrap().contains(&at), "{alert}");
    }
    let expression = |name: &str| {
        let named = |alert: &&Value| alert["alert"] == format!("MistralWorkflows{name}");
        alerts.iter().find(named).unwrap()["expr"].as_str().unwrap()
    };
    assert!(expression("CredentialRefused").contains(",reason=\"CredentialRefused\"}"));
    assert!(expression("WorkspaceNotReady").contains("reason!~\"APIUnavailable|CredentialRefused|None\""));
    assert!(expression("DriftUnseen").contains("mistral_workflows_drift_overdue_seconds{"));
}

#[test]
fn every_reason_is_in_the_table_of_what_to_do_about_it() {
    let page = std::fs::read_to_string(repository("docs/reference/reasons.md")).unwrap();
    for reason in execution::status::reason::ALL.into_iter().chain(workspace::status::reason::ALL) {
        assert!(page.contains(&format!("`{reason}`")), "{reason} is not in docs/reference/reasons.md");
    }
}
