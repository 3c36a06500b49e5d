//! The endpoints of executions: execute, get, cancel, terminate. Their event streams are in `stream`.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use uuid::Uuid;

use crate::catalog::{Placement, Workflow};
use crate::fields::Fields;
use crate::query::Query;
use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Handled, Request, Wait};
use crate::run::{Job, Run, Status, Worker};
use crate::state::{Context, Workspace};
use crate::switches::{Admission, Reuse, WithoutWorker};
use crate::validate::{self, Problem, path_uuid};
use crate::wire::{ExecutionObject, SyncResult};
use crate::workflows::unknown;

const MAX_EXECUTION_ID: usize = 256;
const MAX_BATCH: usize = 100;

/// The documented 2 MB as a power of two, as the workflow engine reads it.
const MAX_INPUT_BYTES: usize = 2 * 1024 * 1024;

/// `POST /v1/workflows/{workflow_identifier}/execute`
pub(crate) fn execute(workspace: &mut Workspace, cx: &Context<'_>, identifier: &str, request: &Request) -> Handled {
    let order = Order::parse(request)?;
    let workflow = workspace.catalog.resolve(identifier);
    let workflow = workflow.ok_or_else(|| unknown(cx.switches, "Workflow"))?;
    let (job, worker) = prepare(workflow, cx, &order)?;
    start(workspace, cx, job, worker, &order)
}

/// `POST /v1/workflows/registrations/{workflow_registration_id}/execute`: the registration determines the deployment.
pub(crate) fn execute_registration(
    workspace: &mut Workspace,
    cx: &Context<'_>,
    id: &str,
    request: &Request,
) -> Handled {
    let id = path_uuid("workflow_registration_id", id)?;
    let mut order = Order::parse(request)?;
    let (workflow, registration) =
        workspace.catalog.registration(id).ok_or_else(|| unknown(cx.switches, "Workflow registration"))?;
    order.deployment = Some(registration.deployment.clone());
    let (job, worker) = prepare(workflow, cx, &order)?;
    start(workspace, cx, job, worker, &order)
}

/// The body of an execute call.
struct Order {
    arrived: Timestamp,
    execution_id: String,
    input: Value,
    /// The input is encrypted, compressed or stored elsewhere, so its schema cannot be checked.
    encoded: bool,
    wait: bool,
    timeout_s: Option<f64>,
    deployment: Option<String>,
    extensions: Value,
    custom_tracing_attributes: Value,
}

impl Order {
    fn parse(request: &Request) -> Result<Self, ApiError> {
        let mut fields = Fields::parse(&request.body, request.content_type.as_deref())?;
        let execution_id = fields.take("execution_id", execution_id).value();
        let input = fields.take("input", small_object).value();
        let encoded = fields.take("encoded_input", small_object).value();
        if let (Some(_), Some(encoded)) = (&input, &encoded) {
            let message = "Value error, input and encoded_input exclude each other";
            fields.report("encoded_input", Problem::new("value_error", message, encoded));
        }
        let wait = fields.flag("wait_for_result");
        let timeout_s = fields.take("timeout_seconds", validate::number).value();
        let deployment = fields.take("deployment_name", validate::text).value();
        let task_queue = fields.take("task_queue", validate::text).value();
        fields.flag("force_new_trace");
        let extensions = fields.take("extensions", validate::object).value();
        let attributes = fields.take("custom_tracing_attributes", validate::string_map);
        // `traceparent` is not checked: the API silently drops a malformed one.
        let custom_tracing_attributes = attributes.value().unwrap_or_default();
        fields.finish()?;
        Ok(Self {
            arrived: request.arrived,
            execution_id: execution_id.unwrap_or_else(generate_execution_id),
            encoded: encoded.is_some(),
            input: input.or(encoded).unwrap_or_default(),
            wait,
            timeout_s,
            deployment: deployment.or(task_queue),
            extensions: extensions.unwrap_or_default(),
            custom_tracing_attributes,
        })
    }
}

/// 64 hexadecimal digits, like the live API.
fn generate_execution_id() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

fn execution_id(value: Value) -> Result<String, Problem> {
    let id = validate::short_text(value, MAX_EXECUTION_ID)?;
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if id.is_empty() {
        let message = "String should have at least 1 character";
        return Err(Problem::new("string_too_short", message, &id.into()).with_context(json!({ "min_length": 1 })));
    }
    if !id.chars().all(plain) {
        let pattern = "^[a-zA-Z0-9_-]+$";
        let message = format!("String should match pattern '{pattern}'");
        return Err(
            Problem::new("string_pattern_mismatch", message, &id.into()).with_context(json!({ "pattern": pattern }))
        );
    }
    Ok(id)
}

fn small_object(value: Value) -> Result<Value, Problem> {
    let input = validate::object(value)?;
    // Cannot fail: the value has just been parsed.
    let size = serde_json::to_vec(&input).map_or(0, |bytes| bytes.len());
    if size > MAX_INPUT_BYTES {
        let message = "Value error, input exceeds 2 MB";
        return Err(Problem::new("value_error", message, &Value::Null));
    }
    Ok(input)
}

/// Makes every check that does not need the ledger.
fn prepare(workflow: &Workflow, cx: &Context<'_>, order: &Order) -> Result<(Job, Option<Worker>), ApiError> {
    if workflow.archived && cx.switches.execute_archived == Admission::Reject {
        return Err(ApiError::plain(StatusCode::CONFLICT, "Workflow is archived"));
    }
    let worker = match workflow.place(order.deployment.as_deref()) {
        Placement::Worker(worker) => Some(worker),
        Placement::Nobody => match cx.switches.execute_without_worker {
            WithoutWorker::Accept => None,
            WithoutWorker::NotFound => {
                return Err(ApiError::plain(StatusCode::NOT_FOUND, "No active deployment found"));
            }
            WithoutWorker::Reject => {
                return Err(ApiError::plain(StatusCode::CONFLICT, "No active worker serves the workflow"));
            }
        },
        Placement::Ambiguous(deployments) => {
            return Err(ApiError::new(
                StatusCode::CONFLICT,
                json!({ "code": "AMBIGUOUS_WORKFLOW", "deployments": deployments }),
            ));
        }
        Placement::UnknownDeployment => return Err(unknown(cx.switches, "Deployment")),
    };
    if !order.encoded {
        let nothing = json!({});
        let input = if order.input.is_null() { &nothing } else { &order.input };
        if let Some(reason) = workflow.reject_input(input) {
            return Err(ApiError::plain(StatusCode::UNPROCESSABLE_ENTITY, &format!("Invalid input: {reason}")));
        }
    }
    let job = Job {
        arrived: order.arrived,
        execution_id: order.execution_id.clone(),
        workflow_id: workflow.id,
        workflow_name: workflow.name.clone(),
        display_name: workflow.display_name.clone(),
        input: order.input.clone(),
        behaviour: workflow.behaviour.clone(),
        timeout: workflow.timeout(),
        deployment: order.deployment.clone(),
        extensions: order.extensions.clone(),
        custom_tracing_attributes: order.custom_tracing_attributes.clone(),
    };
    Ok((job, worker))
}

fn start(workspace: &mut Workspace, cx: &Context<'_>, job: Job, worker: Option<Worker>, order: &Order) -> Handled {
    let books = &mut workspace.books;
    let running = books.is_running(&job.execution_id);
    let conflict = cx.switches.reuse_finished_id == Reuse::Conflict;
    if running || (conflict && books.is_known(&job.execution_id)) {
        return Err(ApiError::coded(StatusCode::CONFLICT, "WF_1101", "Workflow execution already started"));
    }
    let index = books.start(job, worker, cx.now);
    let run = books.run(index).ok_or_else(not_found)?;
    if order.wait {
        let seconds = order.timeout_s.unwrap_or(cx.switches.wait_default_timeout_s);
        return Ok(Answer::Wait(Wait {
            execution_id: order.execution_id.clone(),
            first_engine_id: run.first_engine_id,
            limit: seconds_to_wait(seconds),
        }));
    }
    let object = ExecutionObject::started(run, cx.switches);
    Answer::write(Reply::ok(&object), true)
}

/// A negative number means no wait. A number too large for a `Duration` means no limit.
fn seconds_to_wait(seconds: f64) -> Duration {
    if seconds > 0.0 { Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX) } else { Duration::ZERO }
}

pub(crate) enum Waiting {
    Over(Reply),
    /// Still running; the next step of the run is due at this time.
    Until(jiff::Timestamp),
}

/// Checks an execution that a client waits for.
pub(crate) fn look(workspace: &Workspace, cx: &Context<'_>, wait: &Wait) -> Waiting {
    let execution_id = wait.execution_id.as_str();
    let own = |run: &Run| run.first_engine_id == wait.first_engine_id && !run.forgotten;
    let newest = workspace.books.newest(execution_id, own);
    let failure = || {
        let status = cx.switches.wait_failure_status;
        Waiting::Over(internal(status).into())
    };
    match newest {
        Some((_, run)) if run.status() == Status::Running => {
            let due = run.due.map_or(jiff::Timestamp::MAX, |(at, _)| at);
            Waiting::Until(due)
        }
        Some((_, run)) if run.status() == Status::Completed => Waiting::Over(Reply::ok(&SyncResult {
            workflow_name: &run.job.workflow_name,
            execution_id,
            result: run.result(),
        })),
        _ => failure(),
    }
}

/// The answer to a `wait_for_result` that timed out. The execution continues.
pub(crate) fn waited_too_long(cx: &Context<'_>) -> Reply {
    internal(cx.switches.wait_timeout_status).into()
}

fn internal(status: u16) -> ApiError {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    ApiError::internal(status, "WF_1103")
}

pub(crate) fn not_found() -> ApiError {
    ApiError::not_found("Workflow execution not found")
}

/// The newest run of an execution that readers can see.
pub(crate) fn visible<'a>(
    workspace: &'a Workspace,
    cx: &Context<'_>,
    execution_id: &str,
) -> Result<(usize, &'a Run), ApiError> {
    workspace.books.newest(execution_id, |run| run.is_visible(cx.now, cx.hiding)).ok_or_else(|| {
        if workspace.books.is_known(execution_id) {
            cx.concealed.fetch_add(1, Ordering::Relaxed);
        }
        not_found()
    })
}

/// `GET /v1/workflows/executions/{execution_id}`
pub(crate) fn get(workspace: &Workspace, cx: &Context<'_>, execution_id: &str, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    // Runs have no search keys to include.
    query.flag("include_search_keys");
    query.finish()?;
    let (_, run) = visible(workspace, cx, execution_id)?;
    let object = ExecutionObject::latest(run, workspace, cx.switches);
    match &run.job.behaviour.raw_result {
        Some(raw) if run.status() == Status::Completed => Answer::read(with_result(&object, raw)),
        _ => Answer::read(Reply::ok(&object)),
    }
}

/// An answer with `raw` in place of the result.
fn with_result(object: &ExecutionObject<'_>, raw: &str) -> Reply {
    let mark = Uuid::new_v4().to_string();
    let mut object = json!(object);
    object["result"] = json!(mark);
    let body = object.to_string().replace(&format!("\"{mark}\""), raw);
    Reply::text(StatusCode::OK, "application/json", body)
}

/// `POST /v1/workflows/executions/{execution_id}/cancel`: a request that the workflow honours in its own time.
pub(crate) fn cancel(workspace: &mut Workspace, cx: &Context<'_>, execution_id: &str) -> Handled {
    let news = cancel_one(workspace, cx, execution_id)?;
    Answer::write(Reply::no_content(), news)
}

/// `POST /v1/workflows/executions/{execution_id}/terminate`: takes effect at once.
pub(crate) fn terminate(workspace: &mut Workspace, cx: &Context<'_>, execution_id: &str) -> Handled {
    let news = terminate_one(workspace, cx, execution_id)?;
    Answer::write(Reply::no_content(), news)
}

/// `POST /v1/workflows/executions/cancel`
pub(crate) fn cancel_batch(workspace: &mut Workspace, cx: &Context<'_>, request: &Request) -> Handled {
    batch(request, |id| cancel_one(workspace, cx, id))
}

/// `POST /v1/workflows/executions/terminate`
pub(crate) fn terminate_batch(workspace: &mut Workspace, cx: &Context<'_>, request: &Request) -> Handled {
    batch(request, |id| terminate_one(workspace, cx, id))
}

/// Applies `one` to several executions; each succeeds or fails by itself.
fn batch(request: &Request, mut one: impl FnMut(&str) -> Result<bool, ApiError>) -> Handled {
    let mut fields = Fields::parse(&request.body, request.content_type.as_deref())?;
    let check = |value| validate::filled_list(value, MAX_BATCH, validate::text);
    let ids: BTreeSet<String> = fields.required("execution_ids", check).into_iter().collect();
    fields.finish()?;

    let mut results = Map::new();
    let mut changed = false;
    for id in ids {
        let outcome = one(&id);
        changed |= matches!(outcome, Ok(true));
        let result = match outcome {
            Ok(_) => json!({ "status": "success", "error": null }),
            Err(error) => json!({ "status": "failure", "error": error.detail() }),
        };
        results.insert(id, result);
    }
    Answer::write(Reply::ok(&json!({ "results": results })), changed)
}

/// Requests a cancel. Returns whether this was the first request.
fn cancel_one(workspace: &mut Workspace, cx: &Context<'_>, execution_id: &str) -> Result<bool, ApiError> {
    let (index, run) = visible(workspace, cx, execution_id)?;
    if run.end.is_some() {
        return match cx.switches.cancel_finished {
            204 => Ok(false),
            _ => Err(ApiError::not_running(run.status().word())),
        };
    }
    Ok(workspace.books.request_cancel(index, cx.now))
}

fn terminate_one(workspace: &mut Workspace, cx: &Context<'_>, execution_id: &str) -> Result<bool, ApiError> {
    let (index, run) = visible(workspace, cx, execution_id)?;
    if run.end.is_some() {
        return Err(ApiError::not_running(run.status().word()));
    }
    workspace.books.terminate(index, cx.now);
    Ok(true)
}
