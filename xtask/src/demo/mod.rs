//! `cargo xtask demo`: the operator at work, from nothing to results.
//!
//! The demo also proves that the operator works: a random token in an input must come back in a result, and the
//! simulator's ledger must agree with the resources.

mod display;
mod environment;
pub mod ledger;
pub mod programs;
mod progress;

use std::fs;
use std::time::{Duration, Instant};

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};
use uuid::Uuid;

use environment::Environment;
use programs::{Binaries, Programs};
use progress::Progress;

/// How long the operator may take to accept its Workspace, and the executions to end, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// An error is a sentence for the person at the terminal.
pub type Result<T> = std::result::Result<T, Box<dyn std::error::Error + Send + Sync>>;

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Leave everything running at the end, and print how to continue and how to stop it.
    #[arg(long)]
    keep: bool,
    /// Use the cluster of the current kubeconfig context instead of a control plane of the demo's own.
    #[arg(long)]
    use_current_cluster: bool,
    /// Run a control plane of this minor version of Kubernetes, such as 1.33, instead of the newest.
    #[arg(long, value_name = "VERSION", conflicts_with = "use_current_cluster")]
    kubernetes: Option<String>,
}

/// Runs the demo. Fails if anything went wrong.
pub fn run(options: Options) -> Result<()> {
    heading("Building the operator and the simulator");
    let binaries = Binaries::build()?;
    let began = Instant::now();
    let runtime = tokio::runtime::Runtime::new().map_err(|error| format!("Tokio does not start: {error}."))?;
    runtime.block_on(async {
        let environment = if options.use_current_cluster {
            Environment::current_cluster().await?
        } else {
            heading("Starting a control plane: etcd, kube-apiserver and kube-controller-manager");
            Environment::own_control_plane(options.kubernetes).await?
        };
        demonstrate(environment, &binaries, options.keep).await?;
        println!("\nThe demo took {:.0} s, without the build.", began.elapsed().as_secs_f64());
        Ok(())
    })
}

/// Runs the demo in its environment and cleans up at the end, also after Ctrl-C.
async fn demonstrate(environment: Environment, binaries: &Binaries, keep: bool) -> Result<()> {
    let key = format!("demo-{}", Uuid::new_v4().simple());
    heading("Installing the CRDs, starting the simulator and the operator");
    environment.install_crds(&binaries.operator).await?;
    let mut programs = Programs::start(binaries, &environment, &key).await?;
    println!("The simulator answers at {}, and the operator has been started.", programs.url);

    let outcome = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err(None),
        status = programs::ended(&mut programs.operator) => Err(Some(format!("the operator ended ({status}).").into())),
        outcome = show(&environment, &programs.url, &key) => outcome.map_err(Some),
    };
    match outcome {
        Ok(()) if keep => {
            heading("How to go on");
            environment.keep(programs)
        }
        Ok(()) => {
            environment.clean_up().await?;
            heading("How to go on");
            println!("{HOW_TO_GO_ON}");
            Ok(())
        }
        Err(error) => {
            let error = match error {
                Some(error) => {
                    format!("{error}\n\nThe end of the operator's log:\n{}", programs::tail(&programs.operator))
                }
                None => "it was interrupted.".to_owned(),
            };
            match environment.clean_up().await {
                Ok(()) => Err(error.into()),
                Err(remains) => Err(format!("{error}\n\nAnd cleaning up failed: {remains}").into()),
            }
        }
    }
}

const HOW_TO_GO_ON: &str = "\
Everything that the demo started has been stopped. The same, left running for you to try things on:

  cargo xtask demo --keep

The same in the cluster of your kubeconfig, in a namespace of its own:

  cargo xtask demo --use-current-cluster

Your workflows, in the cluster of your kubeconfig:

  cargo run -- crds | kubectl apply -f -
  kubectl apply -f examples/workspace.yaml     # with your API key in it
  cargo run -- run";

/// Applies the examples, and shows and checks the results.
async fn show(environment: &Environment, url: &str, key: &str) -> Result<()> {
    environment.create_namespace().await?;
    heading("Connecting: examples/workspace.yaml, with the simulator's address and a random key");
    let mut progress = Progress::watch(environment.client(), environment.namespace());
    environment.kubectl(&["apply", "-f", &write_connection(environment, url, key)?]).await?;
    let connected = |seen: &progress::Seen| seen.get("workspace/default").is_some_and(|row| row.is_ready);
    progress.until("the Workspace did not become ready", PATIENCE, connected).await?;

    manage(environment, url, key, &mut progress).await?;

    heading("Running the examples, and one execution with a random token in its input");
    let token = Uuid::new_v4().simple().to_string();
    let mut names = Vec::new();
    for arguments in [
        ["apply", "-f", "examples/execution.yaml"],
        ["apply", "-f", "examples/execution-failing.yaml"],
        ["create", "-f", "examples/execution-generate-name.yaml"],
        ["apply", "-f", &write_token_execution(environment, &token)?],
    ] {
        names.push(name_of_first(&environment.kubectl(&arguments).await?)?);
    }
    let all_ended = |seen: &progress::Seen| names.iter().all(|name| seen.get(name).is_some_and(|row| row.has_ended));
    progress.until("not all executions ended", PATIENCE, all_ended).await?;
    drop(progress);

    heading("What kubectl shows");
    for kind in ["workspaces", "workflows", "workflowexecutions"] {
        environment.kubectl(&["get", kind]).await?;
    }
    environment.kubectl(&["events", "--for", &names[0]]).await?;

    heading("Results");
    let api: Api<WorkflowExecution> = Api::namespaced(environment.client().clone(), environment.namespace());
    let executions = api.list(&ListParams::default()).await.map_err(|error| format!("cannot list: {error}."))?.items;
    executions.iter().for_each(print_result);

    heading("The simulator's ledger");
    let ledger = programs::ledger(url).await?;
    ledger::compare(&ledger, &executions, &token)?;
    for line in [
        format!("They agree: {} executions, each started exactly once, each with its input.", ledger.len()),
        format!("The random token {token} reached the workflow and came back."),
    ] {
        println!("{}", display::marked(&line, display::Mark::Done));
    }
    Ok(())
}

/// Makes workflows match a manifest, changes them through the API, and shows that the operator reverts the changes.
async fn manage(environment: &Environment, url: &str, key: &str, progress: &mut Progress) -> Result<()> {
    heading("How two workflows should look: examples/workflow.yaml");
    let api = programs::Api::new(url, key)?;
    print_workflows("Before:", &api).await?;
    environment.kubectl(&["apply", "-f", "examples/workflow.yaml"]).await?;
    let in_sync = |seen: &progress::Seen| {
        WORKFLOWS.iter().all(|name| seen.get(&format!("workflow/{name}")).is_some_and(|row| row.is_ready))
    };
    progress.until("the workflows did not become as the manifest says", PATIENCE, in_sync).await?;
    let wanted = print_workflows("After, as the API shows them:", &api).await?;

    heading("Somebody changes a display name, a tag and the archive in Mistral's console");
    api.edit("hello-world", &json!({ "display_name": "Hullo", "tags": ["hand-made"] })).await?;
    api.unarchive("old-report").await?;
    print_workflows("Changed:", &api).await?;
    let deadline = Instant::now() + PATIENCE;
    while api.workflows(&WORKFLOWS).await? != wanted {
        if Instant::now() > deadline {
            return Err(format!("the changes were not set back within {} s.", PATIENCE.as_secs()).into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    print_workflows("Set back by the operator, within one resync of 5 s:", &api).await?;
    environment.kubectl(&["get", "workflows"]).await?;
    // Events are written a moment after what they report.
    let events: Api<Event> = Api::namespaced(environment.client().clone(), environment.namespace());
    let is_told = async || -> Result<bool> {
        let all = events.list(&ListParams::default()).await.map_err(|error| format!("cannot list Events: {error}."))?;
        Ok(all.iter().any(|event| event.reason.as_deref() == Some("DriftCorrected")))
    };
    while !is_told().await? {
        if Instant::now() > deadline {
            return Err("no Event tells of what was set back.".into());
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    environment.kubectl(&["events", "--for", "workflow/hello-world"]).await?;
    Ok(())
}

/// The workflows of examples/workflow.yaml.
const WORKFLOWS: [&str; 2] = ["hello-world", "old-report"];

async fn print_workflows(title: &str, api: &programs::Api) -> Result<Vec<Value>> {
    println!("{title}");
    let workflows = api.workflows(&WORKFLOWS).await?;
    for workflow in &workflows {
        println!(
            "  {:<11} display name {}, tags {}, archived {}",
            workflow["name"].as_str().unwrap_or_default(),
            workflow["display_name"],
            workflow["tags"],
            workflow["archived"],
        );
    }
    Ok(workflows)
}

/// Writes examples/workspace.yaml with another address and key, and returns the path.
fn write_connection(environment: &Environment, url: &str, key: &str) -> Result<String> {
    let mut text = include_str!("../../../examples/workspace.yaml").to_owned();
    for (from, to) in
        [("https://api.mistral.ai", url), ("replace-me", key), ("resyncInterval: 5m", "resyncInterval: 5s")]
    {
        if !text.contains(from) {
            return Err(format!("examples/workspace.yaml no longer says {from}, which the demo replaces.").into());
        }
        text = text.replace(from, to);
    }
    write(environment, "workspace.yaml", &text)
}

fn write_token_execution(environment: &Environment, token: &str) -> Result<String> {
    let execution = json!({
        "apiVersion": "workflows.mistral.ai/v1alpha1",
        "kind": "WorkflowExecution",
        "metadata": { "name": "echo" },
        "spec": { "workflowRef": { "name": "hello-world" }, "input": { "token": token } },
    });
    write(environment, "echo.json", &execution.to_string())
}

fn write(environment: &Environment, name: &str, text: &str) -> Result<String> {
    let file = environment.folder().join(name);
    fs::write(&file, text).map_err(|error| format!("{} cannot be written: {error}.", file.display()))?;
    Ok(file.display().to_string())
}

/// The kind and name in kubectl's answer, without the group. The answer has the form
/// `workflowexecution.workflows.mistral.ai/greet created`.
fn name_of_first(answer: &str) -> Result<String> {
    let name = answer.split_whitespace().next().and_then(|name| name.split_once('/'));
    let (kind, name) = name.ok_or_else(|| format!("kubectl did not say what it made, but: {answer}"))?;
    Ok(format!("{}/{name}", kind.split('.').next().unwrap_or(kind)))
}

fn print_result(execution: &WorkflowExecution) {
    let status = execution.status.clone().unwrap_or_default();
    let what = match (&status.result, &status.failure) {
        (Some(result), _) => result.to_string(),
        (None, Some(failure)) => format!("{}: {}", failure.reason, failure.message),
        (None, None) => "no result".to_owned(),
    };
    println!("{:<24} {:<10} {what}", execution.name_any(), status.status.unwrap_or_default());
}

/// Prints the heading of the next step.
pub fn heading(text: &str) {
    println!("\n{}", display::heading(text));
}
