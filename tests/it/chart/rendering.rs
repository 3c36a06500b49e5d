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
async fn helm_3_renders_what_helm_4_does() {
    let world = World::bare("chart-helm-3").await;
    let Some(tools) = tools().await else { return };
    let chart = chart();
    let arguments = ["template", "release", chart.to_str().unwrap(), "--namespace", &world.namespace, "--values", "-"];
    let with = |program: &Path, values: &str| -> Vec<Value> {
        let mut helm = helm_of(program, Path::new("/nonexistent"), &arguments);
        // Without a cluster, a Helm 3 that is not built by its Makefile assumes a very old one.
        let text = succeed(helm.args(["--kube-version", "1.33.0"]), values);
        let mut objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        objects.retain(|object| !object.is_null());
        // The two differ in the order of objects of one kind.
        objects.sort_by_key(Value::to_string);
        objects
    };
    for values in ["", EVERYTHING] {
        assert_eq!(with(&tools.helm3, values), with(&tools.helm, values), "{values}");
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
    let specs = pod_specs(&pods);
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

/// The specs of all pods that these objects are or create.
fn pod_specs(objects: &[Value]) -> Vec<&Value> {
    let path = |kind: &Value| match kind.as_str().unwrap() {
        "Pod" => Some("/spec"),
        "Deployment" | "Job" => Some("/spec/template/spec"),
        "CronJob" => Some("/spec/jobTemplate/spec/template/spec"),
        _ => None,
    };
    objects.iter().filter_map(|object| object.pointer(path(&object["kind"])?)).collect()
}

/// OpenShift's `restricted-v2` sets user and group from a range of the namespace, and refuses others.
#[tokio::test]
async fn on_openshift_no_pod_names_a_user_and_elsewhere_only_the_one_whose_image_has_none() {
    let world = World::bare("chart-openshift").await;
    let Some(tools) = tools().await else { return };
    let openshift = ["--api-versions", "security.openshift.io/v1"];
    for (more, of_the_test) in [(&openshift[..], Value::Null), (&[], json!(65532))] {
        let rendered = render(tools, &world.namespace, "", more);
        let specs = pod_specs(&rendered);
        assert_eq!(specs.len(), 3);
        for spec in specs {
            let pod = &spec["securityContext"];
            assert_eq!(pod["runAsNonRoot"], true, "{spec}");
            assert_eq!(pod["seccompProfile"]["type"], "RuntimeDefault", "{spec}");
            let user = if spec["containers"][0]["name"] == "ready" { &of_the_test } else { &Value::Null };
            assert_eq!([&pod["runAsUser"], &pod["runAsGroup"]], [user, user], "{spec}");
            let container = &spec["containers"][0]["securityContext"];
            assert_eq!(container["capabilities"], json!({ "drop": ["ALL"] }), "{spec}");
            assert_eq!(container["allowPrivilegeEscalation"], false, "{spec}");
            assert!(container["runAsUser"].is_null() && spec["hostNetwork"].is_null(), "{spec}");
        }
    }
}

#[tokio::test]
async fn two_replicas_go_to_two_nodes_where_possible_and_an_upgrade_counts_only_new_pods() {
    let world = World::bare("chart-spread").await;
    let Some(tools) = tools().await else { return };
    let rendered = render(tools, &world.namespace, "replicas: 2", &[]);
    let deployment = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let template = &deployment["spec"]["template"];
    let [constraint] = &template["spec"]["topologySpreadConstraints"].as_array().unwrap()[..] else {
        panic!("one constraint")
    };
    assert_eq!(constraint["topologyKey"], "kubernetes.io/hostname");
    assert_eq!(constraint["whenUnsatisfiable"], "ScheduleAnyway");
    assert_eq!(constraint["matchLabelKeys"], json!(["pod-template-hash"]));
    assert_eq!(constraint["labelSelector"], deployment["spec"]["selector"], "other pods count");
}

#[tokio::test]
async fn a_failed_job_after_an_uninstall_goes_by_itself() {
    let world = World::bare("chart-job").await;
    let Some(tools) = tools().await else { return };
    let rendered = render(tools, &world.namespace, "", &[]);
    let job = rendered.iter().find(|object| object["kind"] == "Job").unwrap();
    // Long enough to read its log, and to let Helm see its end.
    assert_eq!(job["spec"]["ttlSecondsAfterFinished"], 86400);
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
    let dns = json!({ "ports": [
        { "port": 53, "protocol": "UDP" }, { "port": 53, "protocol": "TCP" },
        // OpenShift's.
        { "port": 5353, "protocol": "UDP" }, { "port": 5353, "protocol": "TCP" },
    ] });
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
