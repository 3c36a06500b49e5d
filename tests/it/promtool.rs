//! What Prometheus' own tool says about the operator's metrics.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use cluster::{Environment, find_or_build_promtool};
use serde_json::json;

use crate::chart::{or_skip, run};
use crate::support::*;

/// promtool, except where it cannot be built: see [`or_skip`].
pub async fn promtool() -> Option<Command> {
    static PROMTOOL: OnceLock<Option<PathBuf>> = OnceLock::new();
    let find = || or_skip(find_or_build_promtool(&Environment::of_process()), "the alerts and the form of the metrics");
    let path = tokio::task::spawn_blocking(move || PROMTOOL.get_or_init(find).as_ref()).await.unwrap();
    path.map(Command::new)
}

#[tokio::test]
async fn prometheus_has_nothing_to_say_against_what_an_operator_at_work_answers() {
    let world = World::new("promtool").await;
    let Some(mut promtool) = promtool().await else { return };
    let process = world.process(&[("METRICS_WORKFLOWS", "1")]);
    world.workflow("echo", json!({ "workflowIdentifier": "echo", "displayName": "Echo" })).await;
    world.execute("completes", json!({ "workflowIdentifier": "echo" })).await;
    world.execute("fails", json!({ "workflowIdentifier": "fail" })).await;
    world.execute("runs", json!({ "workflowIdentifier": "hang" })).await;
    world.wait_for_reason("completes", "Completed").await;
    world.wait_for_reason("fails", "WorkflowFailed").await;
    world.wait_for_reason("runs", "Running").await;
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    let counted = ["executions_finished_total{outcome=\"WorkflowFailed\"", "sweep_age_seconds{kind=\"runs\"}"];
    let text = until(SOON, "metrics of all that happened", async || {
        let request = client.get(format!("http://{}/metrics", process.listen)).header("accept", "text/plain");
        let text = request.send().await.ok()?.text().await.ok()?;
        counted.iter().all(|series| text.contains(series)).then_some(text)
    })
    .await;
    let output = run(promtool.args(["check", "metrics"]), &text);
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.trim().is_empty(), "{said}\n{text}");
    // It would say so if something were wrong.
    let wrong = "# TYPE mistral_workflows_wrong counter\nmistral_workflows_wrong 1\n";
    assert!(!run(&mut promtool, &(text + wrong)).status.success());
}
