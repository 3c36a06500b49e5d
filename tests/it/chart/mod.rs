//! The chart: the API server accepts what it renders, and it has what the operator needs and nothing more.

mod alerts;
mod lifecycle;
mod manifest;
mod monitoring;
mod published;
mod refusals;
mod rendering;
mod rights;
mod values;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::OnceLock;

use cluster::{ControlPlane, Environment, Error, GitOps};
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
deploymentAnnotations: { example.com/a: b }
livenessProbe: { timeoutSeconds: 5 }
startupProbe: { httpGet: { path: /healthz, port: http } }
podSecurityContext: { runAsUser: 1000 }
dnsPolicy: None
dnsConfig: { nameservers: [192.0.2.53], options: [{ name: ndots, value: '2' }] }
extraArgs: [--novel]
extraObjects: [{ apiVersion: v1, kind: ConfigMap, metadata: { name: '{{ .Release.Name }}-extra' } }]
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

/// Helm and similar tools.
pub async fn tools() -> Option<&'static GitOps> {
    static TOOLS: OnceLock<Option<GitOps>> = OnceLock::new();
    let find = || or_skip(GitOps::find_or_build(&Environment::of_process()), "the chart");
    tokio::task::spawn_blocking(move || TOOLS.get_or_init(find).as_ref()).await.unwrap()
}

/// Programs that Go builds. Outside CI, a machine without Go skips the tests that need them, with a visible notice.
pub fn or_skip<T>(built: Result<T, Error>, subject: &str) -> Option<T> {
    match built {
        Ok(programs) => Some(programs),
        Err(error @ (Error::GoMissing { .. } | Error::GoTooOld { .. })) if std::env::var_os("CI").is_none() => {
            let line = "=".repeat(100);
            let text = format!("\n{line}\nSKIPPED: nothing is known about {subject}.\n{error}\n{line}\n");
            // Written past libtest, which hides the output of a passing test.
            let _ = std::io::stderr().lock().write_all(text.as_bytes());
            None
        }
        Err(error) => panic!("{error}"),
    }
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
    helm_of(&tools.helm, kubeconfig, arguments)
}

/// Helm of either version.
fn helm_of(program: &Path, kubeconfig: &Path, arguments: &[&str]) -> std::process::Command {
    let home = control_plane().folder().join("helm");
    let mut command = std::process::Command::new(program);
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

/// A kubeconfig with the token of the service account and no rights of the administrator.
pub async fn kubeconfig_of(world: &World, account: &str) -> PathBuf {
    let (token, made) = world.kubectl(&["create", "token", account]).await;
    assert!(made, "{token}");
    let file = control_plane().folder().join(format!("kubeconfig-{}", world.namespace));
    write_kubeconfig(control_plane(), &token, &file);
    file
}

/// Writes the control plane's kubeconfig with this token in place of the administrator's.
fn write_kubeconfig(control_plane: &ControlPlane, token: &str, file: &Path) {
    let text = std::fs::read_to_string(control_plane.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&text).unwrap();
    kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
    std::fs::write(file, kubeconfig.to_string()).unwrap();
}
