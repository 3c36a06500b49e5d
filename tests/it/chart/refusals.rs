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
