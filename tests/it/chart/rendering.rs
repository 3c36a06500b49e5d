//! What the chart renders: Helm and the API server accept it, and a wrong value is refused.

use std::collections::BTreeSet;

use super::*;

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
