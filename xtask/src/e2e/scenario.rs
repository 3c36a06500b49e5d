//! What users do with the operator, from `helm install` to `helm uninstall`, and the expected results.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};
use uuid::Uuid;

use super::simulator::{self, LONG, SHORT, execution};
use super::target::{OPERATOR, SIMULATOR, TEAM, Target, until};
use super::{Result, failover, timed};
use crate::demo::ledger;
use crate::demo::programs::workspace_folder;

/// The name of the Helm release, and of its Deployment, service account and Lease.
const RELEASE: &str = "mistral-workflows-operator";
const CHART: &str = "charts/mistral-workflows-operator";
const LOG_LEVEL: &str = "mistral_workflows_operator=debug";
const CRDS: [&str; 3] = ["workspaces", "workflows", "workflowexecutions"];

/// The images under test.
pub struct Images {
    pub operator: String,
    pub simulator: String,
}

/// Runs all steps.
pub fn run(target: &Target, images: &Images) -> Result<()> {
    let began = Instant::now();
    let keys = [(); 2].map(|()| format!("e2e-{}", Uuid::new_v4().simple()));
    let [first, second] = &keys;
    let token = Uuid::new_v4().simple().to_string();

    let url = timed("The simulated Mistral API, as a pod", || {
        for namespace in [OPERATOR, TEAM, SIMULATOR] {
            target.kubectl(&["create", "namespace", namespace])?;
            target.kubectl(&["label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted"])?;
        }
        simulator::start(target, &images.simulator, &[first, second])
    })?;
    timed("helm install, under the Pod Security Standard `restricted`", || install(target, &images.operator, &url))?;
    timed("The examples, with the simulator's address and key", || examples(target, &url, first, &token))?;
    timed("helm upgrade: a changed value", || upgrade(target))?;
    timed("helm upgrade: a CRD with one field more", || upgrade_crd(target))?;
    timed("Fifty executions, and the leader's pod killed in their midst", || {
        failover::kill_the_leader(target, RELEASE)
    })?;
    timed("Another key in the Secret", || rotate(target, first, second))?;
    timed("helm uninstall", || uninstall(target, &token))?;
    println!("\nThe end-to-end test took {:.0} s, without the builds.", began.elapsed().as_secs_f64());
    Ok(())
}

fn install(target: &Target, image: &str, url: &str) -> Result<()> {
    let (repository, tag) = image.rsplit_once(':').ok_or("the operator's image needs a tag.")?;
    let values = json!({
        "image": { "repository": repository, "tag": tag },
        "replicas": 2,
        "allowBaseURLs": [url],
    });
    let values = target.write("values.json", &values.to_string())?;
    target.helm(&["install", RELEASE, CHART, "-n", OPERATOR, "-f", &values.display().to_string()])?;
    target.wait(OPERATOR, "condition=Available", &[&format!("deployment/{RELEASE}")], 120)?;
    target.kubectl(&["-n", OPERATOR, "rollout", "status", &format!("deployment/{RELEASE}"), "--timeout=120s"])?;
    target.kubectl(&["-n", OPERATOR, "get", "pods", "-o", "wide"])?;
    let accounts = target.field(OPERATOR, &["pods"], "{.items[*].spec.serviceAccountName}")?;
    if accounts.split_whitespace().any(|account| account != RELEASE) {
        return Err(format!("the pods' service accounts are {accounts}.").into());
    }
    Ok(())
}

fn examples(target: &Target, url: &str, key: &str, token: &str) -> Result<()> {
    let connection = target.write("workspace.yaml", &simulator::connection(url, key)?)?;
    target.kubectl(&["-n", TEAM, "apply", "-f", &connection.display().to_string()])?;
    target.wait(TEAM, "condition=Ready", &["workspace/default"], 60)?;
    for [verb, file] in [
        ["apply", "examples/workflow.yaml"],
        ["apply", "examples/execution.yaml"],
        ["apply", "examples/execution-failing.yaml"],
        ["create", "examples/execution-generate-name.yaml"],
    ] {
        target.kubectl(&["-n", TEAM, verb, "-f", file])?;
    }
    let echo = execution("echo", "hello-world", &json!({ "token": token })).to_string();
    target.kubectl_with(&["apply", "-f", "-"], Some(&echo))?;
    target.wait(TEAM, "condition=Complete", &["workflowexecution/greet", "workflowexecution/echo"], 60)?;
    target.wait(TEAM, "condition=Failed", &["workflowexecution/charge"], 60)?;
    target.wait(TEAM, "jsonpath={.status.endTime}", &["workflowexecution", "--all"], 60)?;
    target.wait(TEAM, "condition=Ready", &["workflow", "--all"], 60)?;
    target.kubectl(&["-n", TEAM, "get", "mistral"])?;
    let result =
        target.kubectl(&["-n", TEAM, "get", "workflowexecution", "greet", "-o", "jsonpath={.status.result}"])?;
    println!();
    if serde_json::from_str::<Value>(&result)? != json!({ "name": "World" }) {
        return Err(format!("the result of greet is {result}.").into());
    }
    Ok(())
}

/// An upgrade replaces the pods while a run continues.
fn upgrade(target: &Target) -> Result<()> {
    let across = execution("across-the-upgrade", SHORT, &json!({ "step": "value" })).to_string();
    target.kubectl_with(&["create", "-f", "-"], Some(&across))?;
    let level = format!("log.level={LOG_LEVEL}");
    target.helm(&["upgrade", RELEASE, CHART, "-n", OPERATOR, "--reuse-values", "--set", &level])?;
    target.kubectl(&["-n", OPERATOR, "rollout", "status", &format!("deployment/{RELEASE}"), "--timeout=120s"])?;
    let level = target.field(OPERATOR, &["deployment", RELEASE], r#"{..env[?(@.name=="LOG_LEVEL")].value}"#)?;
    if level != LOG_LEVEL {
        return Err(format!("the pods' log level is {level}.").into());
    }
    target.wait(TEAM, "condition=Complete", &["workflowexecution/across-the-upgrade"], 120)?;
    Ok(())
}

/// Adds a field, as a later version might, to the CRD and to a resource.
fn upgrade_crd(target: &Target) -> Result<()> {
    let chart = target.folder.path().join("chart");
    copy(&workspace_folder().join(CHART), &chart)?;
    let crds = chart.join("files/crds.yaml");
    let text = fs::read_to_string(&crds)?;
    let (before, of_execution) =
        text.split_once("kind: WorkflowExecution\n").ok_or("the CRDs lack WorkflowExecution.")?;
    // Insert before the first spec field that every WorkflowExecution may have.
    let at = of_execution.find(" suspend:\n").ok_or("the CRD of WorkflowExecution lacks the field suspend.")?;
    let line = of_execution[..at].rfind('\n').map_or(0, |end| end + 1);
    let indent = " ".repeat(at + 1 - line);
    let added =
        format!("{indent}addedLater: {{ type: string, maxLength: 63, description: A field of a later version. }}\n");
    let of_execution = format!("{}{added}{}", &of_execution[..line], &of_execution[line..]);
    fs::write(&crds, format!("{before}kind: WorkflowExecution\n{of_execution}"))?;

    let count =
        || target.ask(&["-n", TEAM, "get", "workflowexecutions", "-o", "name"]).map(|names| names.lines().count());
    let before = count()?;
    target.helm(&["upgrade", RELEASE, &chart.display().to_string(), "-n", OPERATOR, "--reuse-values"])?;
    until("the API server serves the new field", Duration::from_secs(30), || {
        Ok(target.ask(&["explain", "workflowexecution.spec.addedLater"]).is_ok())
    })?;
    target.kubectl(&["explain", "workflowexecution.spec.addedLater"])?;
    let mut later = execution("with-the-new-field", SHORT, &json!({ "step": "crd" }));
    later["spec"]["addedLater"] = json!("kept");
    target.kubectl_with(&["create", "-f", "-"], Some(&later.to_string()))?;
    target.wait(TEAM, "condition=Complete", &["workflowexecution/with-the-new-field"], 60)?;
    let kept = target.field(TEAM, &["workflowexecution", "with-the-new-field"], "{.spec.addedLater}")?;
    if kept != "kept" || count()? != before + 1 {
        return Err(format!("the field has {kept:?}, and of {before} executions {} are left.", count()?).into());
    }
    Ok(())
}

/// The API refuses the old key, the operator uses the new one, and no pod restarts.
fn rotate(target: &Target, old: &str, new: &str) -> Result<()> {
    let pods = "{.items[*].metadata.uid}{.items[*].status.containerStatuses[*].restartCount}";
    let pods = || target.field(OPERATOR, &["pods"], pods);
    let before = pods()?;
    target.simulator("delete", &format!("tokens/{old}"), None)?;
    let rotated = execution("rotated", SHORT, &json!({ "step": "rotation" })).to_string();
    target.kubectl_with(&["create", "-f", "-"], Some(&rotated))?;
    target.wait(TEAM, "condition=Ready=False", &["workspace/default"], 90)?;
    target.kubectl(&["-n", TEAM, "get", "workspace/default", "workflowexecution/rotated"])?;
    let patch = json!({ "stringData": { "api-key": new } }).to_string();
    target.ask(&["-n", TEAM, "patch", "secret", "mistral", "-p", &patch])?;
    println!("The Secret has another key.");
    target.wait(TEAM, "condition=Complete", &["workflowexecution/rotated"], 120)?;
    target.wait(TEAM, "condition=Ready", &["workspace/default"], 60)?;
    let after = pods()?;
    if after != before {
        return Err(format!("the pods changed for it: {before} before, {after} after.").into());
    }
    Ok(())
}

/// The operator goes, the resources stay, and nothing that belongs to the operator blocks them.
fn uninstall(target: &Target, token: &str) -> Result<()> {
    let long = execution("still-running", LONG, &json!({})).to_string();
    target.kubectl_with(&["create", "-f", "-"], Some(&long))?;
    target.wait(TEAM, "condition=Started", &["workflowexecution/still-running"], 60)?;
    let names = ["-n", TEAM, "get", "workspaces,workflows,workflowexecutions", "-o", "name"];
    let before = target.ask(&names)?;
    target.helm(&["uninstall", RELEASE, "-n", OPERATOR, "--wait", "--timeout", "180s"])?;
    target.kubectl(&["-n", OPERATOR, "get", "deployments,pods,jobs,serviceaccounts"])?;
    let after = target.ask(&names)?;
    if after != before {
        return Err(format!("these resources were there before:\n{before}and these are left:\n{after}").into());
    }
    println!("All {} resources are still there.", after.lines().count());
    let finalizers = target.field(TEAM, &["workflows,workflowexecutions"], "{.items[*].metadata.finalizers}")?;
    if !finalizers.is_empty() {
        return Err(format!("finalizers are left: {finalizers}").into());
    }

    let mut list: Value =
        serde_json::from_str(&target.ask(&["-n", TEAM, "get", "workflowexecutions", "-o", "json"])?)?;
    let executions: Vec<WorkflowExecution> = serde_json::from_value(list["items"].take())?;
    let entries = target.ledger()?;
    ledger::compare(&entries, &executions, token)?;
    println!("The simulator's ledger agrees: {} executions, each started exactly once.", entries.len());
    target.kubectl(&["delete", "namespace", TEAM, "--timeout=60s"])?;
    Ok(())
}

/// An installed operator would act on these resources as well, and the CRDs would be replaced.
pub fn refuse_foreign_crds(target: &Target) -> Result<()> {
    for kind in CRDS {
        let crd = format!("{kind}.workflows.mistral.ai");
        if !target.ask(&["get", "crd", &crd, "--ignore-not-found", "-o", "name"])?.is_empty() {
            return Err(format!(
                "the cluster has the CRD of {kind}. An operator that is installed there would act on the test's \
                 resources too; take another cluster, or remove the CRDs with all their resources."
            )
            .into());
        }
    }
    Ok(())
}

/// Removes everything that the test has created, also after an incomplete run.
pub fn clean_up(target: &Target) -> Result<()> {
    let mut outcome =
        target.helm(&["uninstall", RELEASE, "-n", OPERATOR, "--ignore-not-found", "--wait", "--timeout", "120s"]);
    let crds = CRDS.map(|kind| format!("{kind}.workflows.mistral.ai"));
    let crds = crds.each_ref().map(String::as_str);
    for arguments in [
        &["delete", "namespace", OPERATOR, TEAM, SIMULATOR, "--ignore-not-found", "--timeout=120s"][..],
        &[&["delete", "crd", "--ignore-not-found", "--timeout=60s"][..], &crds].concat(),
    ] {
        outcome = outcome.and(target.kubectl(arguments).map(|_| ()));
    }
    outcome
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target: PathBuf = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
