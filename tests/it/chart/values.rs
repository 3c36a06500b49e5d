//! Each value changes what its name says.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// What values change, compared with what the chart renders with `base` alone: a kind, and a part of an object of it.
struct Case {
    base: &'static str,
    values: &'static str,
    adds: Vec<(&'static str, Value)>,
    removes: Vec<(&'static str, Value)>,
}

fn adds<const N: usize>(values: &'static str, adds: [(&'static str, Value); N]) -> Case {
    Case { base: "", values, adds: adds.into(), removes: Vec::new() }
}

fn removes<const N: usize>(base: &'static str, values: &'static str, removes: [(&'static str, Value); N]) -> Case {
    Case { base, values, adds: Vec::new(), removes: removes.into() }
}

fn variable(name: &str, value: &str) -> Value {
    json!({ "name": name, "value": value })
}

/// Any object of the kind.
fn any() -> Value {
    json!({})
}

fn of_names_and_image() -> Vec<Case> {
    let digest = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    vec![
        adds(
            "
nameOverride: renamed
commonLabels: { team: platform }
image: { repository: registry.example/operator, tag: '1.2.3', pullPolicy: Always }
imagePullSecrets: [{ name: registry }]
",
            [
                ("Deployment", json!({ "name": "release-renamed" })),
                ("Service", json!({ "team": "platform" })),
                ("Deployment", json!({ "image": "registry.example/operator:1.2.3", "imagePullPolicy": "Always" })),
                ("Job", json!({ "image": "registry.example/operator:1.2.3", "imagePullPolicy": "Always" })),
                ("Deployment", json!({ "imagePullSecrets": [{ "name": "registry" }] })),
                ("Job", json!({ "imagePullSecrets": [{ "name": "registry" }] })),
            ],
        ),
        adds(
            "
fullnameOverride: other
image: { repository: a/b, digest: 'sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef' }
",
            [
                ("Deployment", json!({ "name": "other" })),
                ("Deployment", variable("LEASE_NAME", "other")),
                ("Deployment", json!({ "image": format!("a/b@{digest}") })),
            ],
        ),
    ]
}

fn of_the_operator() -> Vec<Case> {
    vec![
        adds(
            "
watchNamespaces: [team-a]
allowBaseURLs: [https://a.example, https://b.example]
maxRequestsPerSecond: 20
log: { format: json, level: debug }
inputs: { secretsNeedLabel: true }
extraArgs: [--novel=1]
extraEnv: [{ name: HTTPS_PROXY, value: http://proxy }]
",
            [
                ("Deployment", variable("WATCH_NAMESPACE", "team-a")),
                ("Role", json!({ "namespace": "team-a" })),
                ("Deployment", variable("ALLOW_BASE_URL", "https://a.example,https://b.example")),
                ("Deployment", variable("MAX_REQUESTS_PER_SECOND", "20")),
                ("Deployment", variable("LOG_FORMAT", "json")),
                ("Deployment", variable("LOG_LEVEL", "debug")),
                ("Deployment", variable("INPUT_SECRETS_NEED_LABEL", "true")),
                ("Deployment", json!({ "args": ["run", "--novel=1"] })),
                ("Deployment", variable("HTTPS_PROXY", "http://proxy")),
            ],
        ),
        adds(
            "
allowBaseURLs: [https://a.example]
workspace: { create: true, name: main, namespace: team-a, baseURL: https://a.example, secret: { name: keys, key: k } }
",
            [
                ("Workspace", json!({ "name": "main", "namespace": "team-a" })),
                ("Workspace", json!({ "baseURL": "https://a.example" })),
                ("Workspace", json!({ "apiKeySecretRef": { "name": "keys", "key": "k" } })),
            ],
        ),
    ]
}

fn of_rights() -> Vec<Case> {
    let creates = |resource: &str| json!({ "resources": [resource], "verbs": ["create"] });
    vec![
        adds(
            "
serviceAccount: { annotations: { a: b }, name: theirs }
rbac: { secretNames: [mistral] }
discovery: { enabled: true }
results: { secrets: true }
",
            [
                ("ServiceAccount", json!({ "name": "theirs", "annotations": { "a": "b" } })),
                ("Deployment", json!({ "serviceAccountName": "theirs" })),
                ("ClusterRole", json!({ "resources": ["secrets"], "resourceNames": ["mistral"] })),
                ("ClusterRole", json!({ "resources": ["workflows"], "verbs": ["create", "delete"] })),
                ("ClusterRole", creates("secrets")),
            ],
        ),
        removes(
            "",
            "
serviceAccount: { create: false, name: theirs }
crds: { install: false }
releaseFinalizers: { enabled: false }
rbac: { aggregate: false }
results: { configMaps: false }
admissionPolicy: { enabled: false }
",
            [
                ("ServiceAccount", any()),
                ("CustomResourceDefinition", any()),
                ("Job", any()),
                ("ClusterRole", json!({ "rbac.authorization.k8s.io/aggregate-to-view": "true" })),
                ("ClusterRole", creates("configmaps")),
                ("ValidatingAdmissionPolicy", any()),
                ("ValidatingAdmissionPolicyBinding", any()),
            ],
        ),
        removes(
            "rbac: { aggregate: false }",
            "rbac: { aggregate: false, create: false }",
            [("ClusterRole", any()), ("ClusterRoleBinding", any()), ("Role", any()), ("RoleBinding", any())],
        ),
    ]
}

fn of_the_network() -> Vec<Case> {
    let to = |cidr: &str| json!([{ "ipBlock": { "cidr": cidr } }]);
    let monitoring = json!({ "namespaceSelector": { "matchLabels": { "name": "monitoring" } } });
    let test = json!({ "podSelector": { "matchLabels": {
        "app.kubernetes.io/name": "mistral-workflows-operator", "app.kubernetes.io/instance": "release",
        "app.kubernetes.io/component": "test",
    } } });
    vec![
        adds(
            "service: { port: 9090, annotations: { a: b } }",
            [("Service", json!({ "port": 9090 })), ("Service", json!({ "annotations": { "a": "b" } }))],
        ),
        // Anybody may read the metrics, and nobody may reach another port.
        adds(
            "networkPolicy: { enabled: true }",
            [("NetworkPolicy", json!({ "ingress": [{ "ports": [{ "port": "http" }] }] }))],
        ),
        adds(
            "
networkPolicy:
  enabled: true
  apiServer: { cidrs: [10.0.0.1/32], ports: [6444] }
  mistral: { cidrs: [203.0.113.0/24] }
  extraEgress: [{ to: [{ ipBlock: { cidr: 192.0.2.1/32 } }], ports: [{ port: 3128 }] }]
  ingressFrom: [{ namespaceSelector: { matchLabels: { name: monitoring } } }]
",
            [
                ("NetworkPolicy", json!({ "ports": [{ "port": 6444 }], "to": to("10.0.0.1/32") })),
                ("NetworkPolicy", json!({ "ports": [{ "port": 443 }], "to": to("203.0.113.0/24") })),
                ("NetworkPolicy", json!({ "ports": [{ "port": 3128 }], "to": to("192.0.2.1/32") })),
                ("NetworkPolicy", json!({ "ports": [{ "port": "http" }], "from": [monitoring, test] })),
            ],
        ),
    ]
}

fn of_monitoring() -> Vec<Case> {
    let labels = json!({ "release": "prometheus" });
    vec![adds(
        "
serviceMonitor: { enabled: true, interval: 45s, labels: { release: prometheus } }
prometheusRule: { enabled: true, labels: { release: prometheus }, failingShare: 0.75 }
dashboard: { enabled: true, labels: { grafana_dashboard: yes-please }, annotations: { folder: Mistral } }
tests: { image: registry.example/curl:1 }
",
        [
            ("ServiceMonitor", labels.clone()),
            ("ServiceMonitor", json!({ "interval": "45s" })),
            ("PrometheusRule", labels),
            ("ConfigMap", json!({ "grafana_dashboard": "yes-please" })),
            ("ConfigMap", json!({ "annotations": { "folder": "Mistral" } })),
            ("Pod", json!({ "image": "registry.example/curl:1" })),
        ],
    )]
}

fn of_placement() -> Vec<Case> {
    let selector = json!({ "kubernetes.io/os": "linux" });
    let constraint = json!({ "maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule" });
    let dns = json!({ "dnsPolicy": "None", "dnsConfig": { "nameservers": ["192.0.2.53"] } });
    vec![
        adds(
            "
replicas: 2
podDisruptionBudget: { maxUnavailable: 50% }
nodeSelector: { kubernetes.io/os: linux }
tolerations: [{ key: dedicated, operator: Exists }]
affinity: { podAntiAffinity: { preferredDuringSchedulingIgnoredDuringExecution: [] } }
topologySpreadConstraints: [{ maxSkew: 1, topologyKey: zone, whenUnsatisfiable: DoNotSchedule }]
priorityClassName: urgent
dnsPolicy: None
dnsConfig: { nameservers: [192.0.2.53] }
",
            [
                ("Deployment", json!({ "replicas": 2 })),
                ("PodDisruptionBudget", json!({ "maxUnavailable": "50%" })),
                ("Deployment", json!({ "nodeSelector": selector })),
                ("Job", json!({ "nodeSelector": selector })),
                ("Deployment", json!({ "tolerations": [{ "key": "dedicated", "operator": "Exists" }] })),
                ("Deployment", json!({ "podAntiAffinity": { "preferredDuringSchedulingIgnoredDuringExecution": [] } })),
                ("Deployment", json!({ "topologySpreadConstraints": [constraint] })),
                ("Deployment", json!({ "priorityClassName": "urgent" })),
                ("Deployment", dns.clone()),
                ("Job", dns.clone()),
                ("Pod", dns),
            ],
        ),
        adds("replicas: 2", [("Deployment", json!({ "whenUnsatisfiable": "ScheduleAnyway" }))]),
        removes("replicas: 2", "podDisruptionBudget: { enabled: false }", [("PodDisruptionBudget", any())]),
    ]
}

fn of_the_pods() -> Vec<Case> {
    let get = |path: &str| json!({ "httpGet": { "path": path, "port": "http" } });
    let with = |mut probe: Value, name: &str, value: u32| {
        probe[name] = json!(value);
        probe
    };
    let pod = json!({
        "runAsNonRoot": true, "runAsUser": 1000, "fsGroup": 1000, "seccompProfile": { "type": "Localhost" },
    });
    let container = json!({
        "readOnlyRootFilesystem": false, "allowPrivilegeEscalation": true,
        "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
    });
    vec![
        adds(
            "
resources: { requests: { cpu: 0.5, memory: 128Mi }, limits: { memory: 1Gi } }
podSecurityContext: { runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: { type: Localhost } }
securityContext:
  readOnlyRootFilesystem: false
  allowPrivilegeEscalation: true
  capabilities: { drop: [ALL], add: [NET_BIND_SERVICE] }
livenessProbe: { timeoutSeconds: 5 }
readinessProbe: { httpGet: { path: /other }, periodSeconds: 9 }
startupProbe: { tcpSocket: { port: http } }
deploymentAnnotations: { of: deployment }
podAnnotations: { of: pods }
podLabels: { labels: pods }
extraVolumes: [{ name: certificates, configMap: { name: certificates } }]
extraVolumeMounts: [{ name: certificates, mountPath: /certificates }]
",
            [
                ("Deployment", json!({ "requests": { "cpu": 0.5, "memory": "128Mi" } })),
                ("Deployment", json!({ "limits": { "memory": "1Gi" } })),
                ("Deployment", pod.clone()),
                ("Job", pod.clone()),
                ("Deployment", container.clone()),
                ("Job", container.clone()),
                ("Pod", container),
                ("Deployment", json!({ "livenessProbe": with(get("/healthz"), "timeoutSeconds", 5) })),
                ("Deployment", json!({ "readinessProbe": with(get("/other"), "periodSeconds", 9) })),
                ("Deployment", json!({ "startupProbe": { "tcpSocket": { "port": "http" } } })),
                ("Deployment", json!({ "annotations": { "of": "deployment" } })),
                ("Deployment", json!({ "annotations": { "of": "pods" } })),
                ("Deployment", json!({ "labels": "pods" })),
                ("Deployment", json!({ "name": "certificates", "configMap": { "name": "certificates" } })),
                ("Deployment", json!({ "name": "certificates", "mountPath": "/certificates" })),
            ],
        ),
        removes("", "livenessProbe: null", [("Deployment", json!({ "livenessProbe": get("/healthz") }))]),
    ]
}

fn of_objects() -> Vec<Case> {
    let object = "
extraObjects:
  - { apiVersion: v1, kind: ConfigMap, metadata: { name: '{{ .Release.Name }}-object' } }
  - |
    apiVersion: v1
    kind: ConfigMap
    metadata: { name: {{ .Release.Name }}-text }
";
    let named = |name: &str| ("ConfigMap", json!({ "name": name }));
    vec![adds(object, [named("release-object"), named("release-text")])]
}

fn cases() -> Vec<Case> {
    let all = [
        of_names_and_image(),
        of_the_operator(),
        of_rights(),
        of_the_network(),
        of_monitoring(),
        of_placement(),
        of_the_pods(),
        of_objects(),
    ];
    all.into_iter().flatten().collect()
}

/// Whether the part is anywhere in the value: of an object, some fields.
fn contains(value: &Value, part: &Value) -> bool {
    let here = match (value, part) {
        (Value::Object(fields), Value::Object(some)) => some.iter().all(|(name, of)| fields.get(name) == Some(of)),
        _ => value == part,
    };
    here || match value {
        Value::Object(fields) => fields.values().any(|value| contains(value, part)),
        Value::Array(items) => items.iter().any(|value| contains(value, part)),
        _ => false,
    }
}

#[tokio::test]
async fn each_value_changes_what_its_name_says() {
    let world = World::bare("chart-each-value").await;
    let Some(tools) = tools().await else { return };
    let mut bases = BTreeMap::new();
    for Case { base, values, adds, removes } in cases() {
        let before = bases.entry(base).or_insert_with(|| render(tools, &world.namespace, base, &[])).clone();
        // A name that stands in both has its value from the second.
        let both = if base.starts_with("rbac") { values.to_owned() } else { format!("{base}\n{values}") };
        let after = render(tools, &world.namespace, &both, &[]);
        let has = |objects: &[Value], (kind, part): &(&str, Value)| {
            objects.iter().any(|object| object["kind"] == *kind && contains(object, part))
        };
        for added in &adds {
            assert!(!has(&before, added) && has(&after, added), "{values} does not add {added:?}");
        }
        for removed in &removes {
            assert!(has(&before, removed) && !has(&after, removed), "{values} does not remove {removed:?}");
        }
    }
}

fn values() -> Value {
    serde_saphyr::from_str(&std::fs::read_to_string(chart().join("values.yaml")).unwrap()).unwrap()
}

/// The paths of all values that are no group of others.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                paths(value, &format!("{at}/{name}"), found);
            }
        }
        _ => {
            found.insert(at.to_owned());
        }
    }
}

#[test]
fn no_value_is_without_a_test() {
    let mut all = BTreeSet::new();
    paths(&values(), "", &mut all);
    let tested: Vec<Value> = cases().iter().map(|case| serde_saphyr::from_str(case.values).unwrap()).collect();
    all.retain(|path| !tested.iter().any(|values| values.pointer(path).is_some()));
    // Whole probes and contexts stand for their parts.
    all.retain(|path| !path.ends_with("Probe/httpGet/port") && path != "/livenessProbe/httpGet/path");
    assert_eq!(all, BTreeSet::new());
}

#[test]
fn the_schema_knows_each_value_and_no_other() {
    fn compare(schema: &Value, values: &Value, at: &str) {
        let Some(known) = schema["properties"].as_object() else { return };
        let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<BTreeSet<_>>();
        let mut known_names = names(known);
        // Helm gives it to every chart.
        known_names.remove("global");
        // No default.
        known_names.remove("claims");
        assert_eq!(known_names, names(values.as_object().unwrap()), "of {at:?}");
        for name in known_names {
            compare(&known[&name], &values[&name], &format!("{at}.{name}"));
        }
    }
    let schema = std::fs::read_to_string(chart().join("values.schema.json")).unwrap();
    let mut schema: Value = serde_json::from_str(&schema).unwrap();
    // The fields of Pods are Kubernetes' own.
    schema["properties"]["dnsConfig"] = json!({});
    compare(&schema, &values(), "");
}
