//! Values that make no sense are refused, in words.

use super::*;

/// What Helm says of values that it must refuse.
fn refusal(tools: &GitOps, values: &str) -> String {
    let chart = chart();
    let arguments = ["template", "release", chart.to_str().unwrap(), "--values", "-"];
    let output = run(&mut helm(tools, Path::new("/nonexistent"), &arguments), values);
    assert!(!output.status.success(), "{values} is taken");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_value_that_is_misspelled_or_makes_no_sense_is_refused() {
    let _world = World::bare("chart-refused").await;
    let Some(tools) = tools().await else { return };
    for (values, words) in [
        ("replicaCount: 2", "additional properties 'replicaCount' not allowed"),
        ("image: { repo: x }", "additional properties 'repo' not allowed"),
        ("image: { digest: 'sha256:12' }", "does not match pattern"),
        ("networkPolicy: { enable: true }", "additional properties 'enable' not allowed"),
        ("replicas: two", "got string, want integer"),
        ("replicas: -1", "minimum: got -1, want 0"),
        ("replicas: 11", "maximum: got 11, want 10"),
        ("watchNamespace: a", "additional properties 'watchNamespace' not allowed"),
        ("watchNamespaces: a", "got string, want array"),
        ("watchNamespaces: ['a,b']", "does not match pattern"),
        ("watchNamespaces: [a, '']", "does not match pattern"),
        ("allowBaseURLs: [api.mistral.ai]", "does not match pattern"),
        ("maxRequestsPerSecond: 0", "minimum: got 0, want 1"),
        ("inputs: { secretsNeedLabel: 1 }", "got number, want boolean"),
        ("log: { format: xml }", "must be one of"),
        ("log: { level: inf }", "'inf' does not match pattern '^(off|error|warn|info|debug|trace)$"),
        ("serviceAccount: { create: false }", "serviceAccount.name is needed"),
        ("serviceAccount: { annotations: { a: 1 } }", "got number, want string"),
        ("deploymentAnnotations: { a: true }", "got boolean, want string"),
        // Thousandths of bytes: meant was 512Mi.
        ("resources: { limits: { memory: 512m } }", "does not match pattern"),
        ("resources: { requests: { memory: 64mb } }", "does not match pattern"),
        ("resources: { requests: { cpu: 10Mi } }", "does not match pattern"),
        ("resources: { requests: { cpu: -1 } }", "minimum: got -1, want 0"),
        ("resources: { memory: 64Mi }", "additional properties 'memory' not allowed"),
        ("livenessProbe: { timeout: 5 }", "additional properties 'timeout' not allowed"),
        ("readinessProbe: { periodSeconds: 0 }", "minimum: got 0, want 1"),
        ("dnsPolicy: Cluster", "must be one of"),
        ("dnsConfig: { servers: [192.0.2.53] }", "additional properties 'servers' not allowed"),
        ("extraArgs: [run]", "does not match pattern"),
        ("extraEnv: [{ value: a }]", "missing property 'name'"),
        ("extraObjects: [1]", "got number, want string or object"),
    ] {
        let said = refusal(tools, values);
        assert!(said.contains(words), "{values}: {said}");
    }
}

/// A node would say no more than `InvalidImageName`.
#[tokio::test]
async fn a_repository_that_no_node_could_pull_from_is_refused() {
    let world = World::bare("chart-repository").await;
    let Some(tools) = tools().await else { return };
    for (repository, words) in [
        ("REGISTRY/operator", "image.repository REGISTRY/operator has capital letters: "),
        ("http://x/y", "image.repository http://x/y has a scheme: leave http:// out"),
        ("reg/x:0.1.0", "image.repository reg/x:0.1.0 has a tag or a digest: set image.tag or image.digest"),
        ("x:0.1.0", "image.repository x:0.1.0 has a tag or a digest"),
        ("reg/x@sha256:12", "image.repository reg/x@sha256:12 has a tag or a digest"),
    ] {
        let said = refusal(tools, &format!("image: {{ repository: '{repository}' }}"));
        assert!(said.contains(words), "{repository}: {said}");
    }
    for repository in ["x", "localhost:5000/a/b", "registry.example:5000/x"] {
        render(tools, &world.namespace, &format!("image: {{ repository: '{repository}' }}"), &[]);
    }
}

#[tokio::test]
async fn a_workspace_that_the_operator_could_not_serve_is_refused() {
    let world = World::bare("chart-unserved").await;
    let Some(tools) = tools().await else { return };
    let public = "https://api.mistral.ai, https://api.eu.mistral.ai, https://api.us.mistral.ai";
    let unlisted = format!("address https://x.example is not among those that the operator may call ({public})");
    for (values, words) in [
        ("workspace: { create: true, baseURL: https://x.example }", unlisted.as_str()),
        // The default address is not on a list that lacks it.
        (
            "{ workspace: { create: true }, allowBaseURLs: [https://gateway.example] }",
            "address https://api.mistral.ai is not among those that the operator may call (https://gateway.example)",
        ),
        (
            "{ workspace: { create: true, namespace: b }, watchNamespaces: [a] }",
            "namespace b is not watched: set workspace.namespace to one of watchNamespaces (a), or add it there",
        ),
        (
            "{ workspace: { create: true }, rbac: { secretNames: [other] } }",
            "may not read the Workspace's Secret mistral: add it to rbac.secretNames (other)",
        ),
    ] {
        let said = refusal(tools, values);
        assert!(said.contains(words), "{values}: {said}");
    }
    for values in [
        // As the operator compares addresses.
        "{ workspace: { create: true, baseURL: 'https://A.example:443' }, allowBaseURLs: [https://a.example/] }",
        "{ workspace: { create: true }, watchNamespaces: [a, b] }",
        "{ workspace: { create: true }, rbac: { secretNames: [other, mistral] } }",
        // Without a Workspace of the chart, there is nothing to compare.
        "{ allowBaseURLs: [https://gateway.example], watchNamespaces: [a], rbac: { secretNames: [other] } }",
    ] {
        render(tools, &world.namespace, values, &[]);
    }
}

/// The chart's list for a Workspace is the operator's default.
#[tokio::test]
async fn each_public_address_of_the_operator_suits_a_workspace_of_the_chart() {
    let world = World::bare("chart-public").await;
    let Some(tools) = tools().await else { return };
    let command = mistral_workflows_operator::cli::command();
    let run = command.find_subcommand("run").unwrap();
    let flag = run.get_arguments().find(|flag| flag.get_long() == Some("allow-base-url")).unwrap();
    let public = flag.get_default_values();
    assert!(!public.is_empty());
    for address in public {
        let values = format!("workspace: {{ create: true, baseURL: {} }}", address.to_str().unwrap());
        render(tools, &world.namespace, &values, &[]);
    }
    let said = refusal(tools, "workspace: { create: true, baseURL: https://x.example }");
    assert!(said.matches("https://").count() == public.len() + 1, "{said}");
}

/// Of two settings of one thing, the last would win.
#[tokio::test]
async fn what_the_chart_sets_itself_is_refused_as_a_variable_and_as_a_flag() {
    let world = World::bare("chart-owned").await;
    let Some(tools) = tools().await else { return };
    let everything = format!("{EVERYTHING}\nwatchNamespaces: [{}]", world.namespace);
    let rendered = render(tools, &world.namespace, &everything, &[]);
    let deployment = rendered.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let variables = deployment["spec"]["template"]["spec"]["containers"][0]["env"].as_array().unwrap();
    let own: Vec<&str> = variables.iter().map(name_of).filter(|name| *name != EXTRA).collect();
    let command = mistral_workflows_operator::cli::command();
    let run = command.find_subcommand("run").unwrap();
    let mut flags = 0;
    for name in &own {
        let said = refusal(tools, &format!("extraEnv: [{{ name: {name}, value: x }}]"));
        assert!(said.contains(&format!("extraEnv has {name}, which the chart sets itself: ")), "{said}");
        for flag in run.get_arguments().filter(|flag| flag.get_env().is_some_and(|env| env == *name)) {
            for flag in flag.get_long_and_visible_aliases().unwrap() {
                let said = refusal(tools, &format!("extraArgs: [--{flag}=x]"));
                assert!(said.contains(&format!("extraArgs has --{flag}, which the chart sets itself: ")), "{said}");
                flags += 1;
            }
        }
    }
    // The two former names have no flag of their own.
    assert_eq!(flags, own.len() - 2, "of {own:?}");
    let said = refusal(tools, "extraEnv: [{ name: WATCH_NAMESPACE, value: x }]");
    assert!(said.contains("use watchNamespaces"), "{said}");
    let said = refusal(tools, "extraArgs: [--lease=x]");
    assert!(said.contains("use fullnameOverride"), "{said}");
}

/// The variable in the extraEnv of [`EVERYTHING`].
const EXTRA: &str = "SSL_CERT_FILE";

fn name_of(variable: &Value) -> &str {
    variable["name"].as_str().unwrap()
}
