//! From `kubectl apply` to the result.

mod claims;
mod cost;
mod ends;
mod explicit_id;
mod suspend_and_delete;

use std::time::Duration;

use kube::ResourceExt;
use mistral_workflows_operator::api::WorkflowExecution;
use serde_json::{Value, json};

use crate::support::*;

const EXECUTE: (&str, &str) = ("POST", "/v1/workflows/{workflow_identifier}/execute");
const CLAIM: &str = "workflows.mistral.ai/claim";

async fn remote_status(world: &World, execution_id: &str) -> Value {
    let all = world.api.executions().await;
    all.iter().find(|run| run["execution_id"] == execution_id).map(|run| run["status"].clone()).unwrap_or_default()
}
