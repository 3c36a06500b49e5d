//! The baseline: the least that any controller must do for an execution that starts once and ends with `Complete`. No
//! controller with three writes can be faster on the same machine.
//!
//! For each resource that its watch shows, the baseline sends a metadata patch (a claim), the `POST`, a status patch
//! (started), one `GET` once the run is over, and a status patch (`Complete`). It gives none of the operator's
//! guarantees: it repeats nothing, checks nothing first, and relies on the input for the duration of the run.

use std::collections::HashSet;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ApiResource, Object, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::object::NotUsed;
use kube::runtime::watcher::{Event, watcher};
use kube::{Api, Client, Config, ResourceExt};
use mistral_workflows_operator::api::WorkflowExecution;
use mistral_workflows_operator::platform::apiserver;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{Instant, sleep_until};

use crate::demo::Result;

/// The input field with the duration of the run, in milliseconds.
pub const DURATION: &str = "durationMs";
/// The line that the program prints once it sees resources.
pub const WATCHING: &str = "watching";
/// The environment variable with the API key.
pub const KEY: &str = "MISTRAL_API_KEY";
/// How long after the end of a run to get the run: timers and clocks are no more precise.
const AFTERWARDS: Duration = Duration::from_millis(3);

#[derive(Debug, clap::Args)]
pub struct Options {
    /// Kubeconfig of the cluster.
    #[arg(long, value_name = "FILE")]
    kubeconfig: PathBuf,
    /// Namespace of the executions.
    #[arg(long, value_name = "NAME")]
    namespace: String,
    /// URL of the Mistral API.
    #[arg(long, value_name = "URL")]
    url: String,
    /// API key for the Mistral API.
    #[arg(long, env = KEY, value_name = "KEY", hide_env_values = true)]
    api_key: String,
    /// Number of executions to work on at a time; an execution that waits for its run does not count.
    #[arg(long, value_name = "N")]
    at_once: usize,
}

/// The fields of a resource's spec that are read.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Spec {
    workflow_identifier: String,
    input: Map<String, Value>,
}

type Execution = Object<Spec, NotUsed>;

struct Baseline {
    executions: Api<Execution>,
    http: reqwest::Client,
    url: String,
    key: String,
    at_once: Semaphore,
}

/// Runs until the process is ended, or an error occurs.
pub fn run(options: Options) -> Result<()> {
    tokio::runtime::Runtime::new()?.block_on(serve(options))
}

async fn serve(options: Options) -> Result<()> {
    // Fails only if a provider is already installed, which is then used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let kubeconfig = Kubeconfig::read_from(&options.kubeconfig)?;
    let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
    let client = Client::try_from(apiserver::tuned(config))?;
    let resource = ApiResource::erase::<WorkflowExecution>(&());
    let baseline = Arc::new(Baseline {
        executions: Api::namespaced_with(client, &options.namespace, &resource),
        http: reqwest::Client::builder().no_proxy().retry(reqwest::retry::never()).build()?,
        url: options.url,
        key: options.api_key,
        at_once: Semaphore::new(options.at_once),
    });
    let (failed, mut failure) = mpsc::channel::<String>(1);
    let mut seen = HashSet::new();
    let mut events = pin!(watcher(baseline.executions.clone(), apiserver::watching()));
    loop {
        let event = tokio::select! {
            event = events.next() => event.ok_or("the watch ended.")?,
            Some(error) = failure.recv() => return Err(error.into()),
        };
        match event {
            Ok(Event::Apply(object) | Event::InitApply(object)) => {
                if seen.insert(object.uid().unwrap_or_default()) {
                    let (baseline, failed) = (Arc::clone(&baseline), failed.clone());
                    tokio::spawn(async move {
                        if let Err(error) = baseline.execute(&object).await {
                            // One error is enough.
                            let _ = failed.try_send(format!("{}: {error}", object.name_any()));
                        }
                    });
                }
            }
            Ok(Event::InitDone) => println!("{WATCHING}"),
            Ok(Event::Init | Event::Delete(_)) => {}
            // The watch restarts by itself.
            Err(error) => eprintln!("the watch: {error}"),
        }
    }
}

impl Baseline {
    async fn execute(&self, object: &Execution) -> Result<()> {
        let (name, spec) = (object.name_any(), &object.spec);
        let id = format!("{name}-{}", object.uid().unwrap_or_default());
        let lasts =
            spec.input.get(DURATION).and_then(Value::as_u64).ok_or("its input does not say how long it lasts")?;

        let permit = self.at_once.acquire().await?;
        let claim = json!({ "metadata": { "annotations": { "workflows.mistral.ai/claim": id } } });
        self.executions.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(&claim)).await?;
        let order = json!({ "execution_id": id, "input": spec.input });
        let start = self.http.post(format!("{}/v1/workflows/{}/execute", self.url, spec.workflow_identifier));
        self.call(start.json(&order)).await?;
        let over = Instant::now() + Duration::from_millis(lasts) + AFTERWARDS;
        self.write_status(&name, &json!({ "executionId": id })).await?;
        drop(permit);

        sleep_until(over).await;
        let _permit = self.at_once.acquire().await?;
        let run = self.call(self.http.get(format!("{}/v1/workflows/executions/{id}", self.url))).await?;
        if run["status"] != "COMPLETED" {
            return Err(format!("its run is {}", run["status"]).into());
        }
        let now = Timestamp::now();
        let complete = json!({
            "type": "Complete", "status": "True", "reason": "Completed", "message": "",
            "lastTransitionTime": format!("{now:.0}"),
        });
        let status = json!({
            "status": run["status"], "endTime": run["end_time"], "result": run["result"], "conditions": [complete],
        });
        self.write_status(&name, &status).await
    }

    async fn write_status(&self, name: &str, status: &Value) -> Result<()> {
        let patch = json!({ "status": status });
        self.executions.patch_status(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    async fn call(&self, request: reqwest::RequestBuilder) -> Result<Value> {
        Ok(request.bearer_auth(&self.key).send().await?.error_for_status()?.json().await?)
    }
}
