//! The simulated Mistral API as a pod, and the connection to it.

use std::time::Duration;

use mistral_simulator::{Behaviour, WorkflowSpec};
use serde_json::{Value, json};

use super::Result;
use super::target::{SIMULATOR, TEAM, Target, until};
use crate::demo::programs::workflows_of_the_examples;

/// A workflow whose runs take three seconds.
pub const SHORT: &str = "short";
/// A workflow whose runs take an hour.
pub const LONG: &str = "long";

/// Starts the simulator in its namespace with these keys. Returns the address for other pods.
pub fn start(target: &Target, image: &str, keys: &[&str]) -> Result<String> {
    target.kubectl_with(&["apply", "-f", "-"], Some(&manifest(image, keys)?.to_string()))?;
    target.wait(SIMULATOR, "condition=Ready", &["pod/simulator"], 120)?;
    until("the simulator's Service leads to it", Duration::from_secs(30), || Ok(target.ledger().is_ok()))?;
    // The IP address, because not every cluster has DNS.
    let address = target.field(SIMULATOR, &["service", "simulator"], "{.spec.clusterIP}")?;
    Ok(format!("http://{address}"))
}

/// examples/workspace.yaml with this address and key, for the team's namespace.
pub fn connection(url: &str, key: &str) -> Result<String> {
    let mut text = include_str!("../../../examples/workspace.yaml").to_owned();
    for (from, to) in [("https://api.mistral.ai", url), ("replace-me", key)] {
        if !text.contains(from) {
            return Err(format!("examples/workspace.yaml no longer says {from}, which is replaced here.").into());
        }
        text = text.replace(from, to);
    }
    Ok(text)
}

/// An execution for the team's namespace.
pub fn execution(name: &str, workflow: &str, input: &Value) -> Value {
    json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1",
        "kind": "WorkflowExecution",
        "metadata": { "name": name, "namespace": TEAM },
        "spec": { "workflowIdentifier": workflow, "input": input },
    })
}

fn manifest(image: &str, keys: &[&str]) -> Result<Value> {
    let lasting = |name: &str, seconds: u64| WorkflowSpec {
        behaviour: Some(Behaviour { duration_ms: Some(seconds * 1000), ..Behaviour::default() }),
        ..WorkflowSpec::new(name)
    };
    let mut workflows = workflows_of_the_examples().to_vec();
    workflows.extend([lasting(SHORT, 3), lasting(LONG, 3600)]);
    let metadata = json!({ "name": "simulator", "namespace": SIMULATOR, "labels": { "app": "simulator" } });
    let mut arguments =
        vec!["--listen=0.0.0.0:8080".to_owned(), "--workflows=/configuration/workflows.json".to_owned()];
    arguments.extend(keys.iter().map(|key| format!("--workspace=team={key}")));
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": [
        {
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata,
            "data": { "workflows.json": serde_json::to_string(&workflows)? },
        },
        {
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "selector": { "app": "simulator" }, "ports": [{ "port": 80, "targetPort": 8080 }] },
        },
        {
            "apiVersion": "v1", "kind": "Pod", "metadata": metadata,
            "spec": {
                "automountServiceAccountToken": false,
                "securityContext": {
                    "runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": { "type": "RuntimeDefault" },
                },
                "containers": [{
                    "name": "simulator", "image": image, "imagePullPolicy": "IfNotPresent", "args": arguments,
                    "securityContext": {
                        "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                        "capabilities": { "drop": ["ALL"] },
                    },
                    "readinessProbe": { "tcpSocket": { "port": 8080 }, "periodSeconds": 1 },
                    "volumeMounts": [{ "name": "configuration", "mountPath": "/configuration" }],
                }],
                "volumes": [{ "name": "configuration", "configMap": { "name": "simulator" } }],
            },
        },
    ]}))
}
