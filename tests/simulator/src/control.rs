//! The controls under `/__sim/`, with which tests set up state and inspect effects.
//!
//! `?workspace=NAME` selects a workspace. Without the parameter, lists cover all workspaces; other controls use the
//! workspace `default`.

use std::sync::atomic::Ordering;
use std::time::Duration;

use hyper::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Error;
use crate::books::Words;
use crate::catalog::Workflow;
use crate::clock;
use crate::faults::Fault;
use crate::reply::Reply;
use crate::request::parse_query;
use crate::route::decode_segments;
use crate::run::Step;
use crate::spec::{WorkflowSpec, present};
use crate::state::{DEFAULT_WORKSPACE, Hiding, Shared, State, Workspace};

#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no such control")]
    Unknown,
    #[error("no such {0}")]
    Missing(&'static str),
    #[error("the execution is not running")]
    NotRunning,
    #[error("the body is too large")]
    Oversized,
    #[error("body: {0}")]
    Body(#[from] serde_json::Error),
    #[error(transparent)]
    Spec(#[from] Error),
}

impl From<Refusal> for Reply {
    fn from(refusal: Refusal) -> Self {
        let status = match refusal {
            Refusal::Unknown | Refusal::Missing(_) => StatusCode::NOT_FOUND,
            Refusal::NotRunning => StatusCode::CONFLICT,
            Refusal::Oversized => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::Body(_) | Refusal::Spec(_) => StatusCode::BAD_REQUEST,
        };
        Self::json(status, &json!({ "error": refusal.to_string() }))
    }
}

/// The answer to a control request whose body exceeds the server's limit.
pub(crate) fn refuse_oversized() -> Reply {
    Refusal::Oversized.into()
}

/// Serves a control request. `path` is the part after `/__sim`.
pub(crate) fn handle(shared: &Shared, method: &str, path: &str, query: &str, body: &[u8]) -> Reply {
    let query = parse_query(query);
    let workspace = query.iter().find(|(key, _)| key == "workspace");
    let control = Control {
        state: &mut shared.lock(),
        open_streams: shared.streams.load(Ordering::Relaxed),
        workspace: workspace.map(|(_, name)| name.as_str()),
        body,
    };
    let segments = decode_segments(path);
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let reply = control.dispatch(method, &segments);
    // Anything may have changed, and a needless wake-up costs little.
    shared.changed.notify_waiters();
    reply.unwrap_or_else(Reply::from)
}

struct Control<'a> {
    state: &'a mut State,
    open_streams: usize,
    workspace: Option<&'a str>,
    body: &'a [u8],
}

impl Control<'_> {
    fn dispatch(mut self, method: &str, path: &[&str]) -> Result<Reply, Refusal> {
        match (method, path) {
            ("GET", ["calls"]) => Ok(Reply::ok(&self.state.calls.report(self.workspace))),
            ("DELETE", ["calls"]) => {
                self.state.calls.reset();
                Ok(Reply::no_content())
            }
            ("GET", ["streams"]) => Ok(Reply::ok(&json!({ "open": self.open_streams }))),
            ("GET", ["executions"]) => Ok(self.executions()),
            ("POST", ["executions", id, "finish"]) => self.finish(id),
            ("DELETE", ["executions", id]) => self.forget(id),
            ("GET", ["faults"]) => Ok(self.faults()),
            ("PUT", ["faults"]) => self.replace_faults(),
            ("GET", ["held"]) => Ok(Reply::ok(&json!({ "held": self.state.held.list() }))),
            ("POST", ["held", "release"]) => {
                self.state.held.release_all();
                Ok(Reply::no_content())
            }
            ("POST", ["held", id, "release"]) => {
                let known = id.parse().is_ok_and(|id| self.state.held.release(id));
                found(known, "held request")
            }
            ("GET", ["switches"]) => Ok(Reply::ok(&self.state.switches)),
            ("PUT", ["switches"]) => {
                self.state.switches = self.parse()?;
                Ok(Reply::ok(&self.state.switches))
            }
            ("PUT", ["tokens", token]) => {
                let Grant { workspace } = self.parse()?;
                self.state.tokens.grant((*token).to_owned(), workspace);
                Ok(Reply::no_content())
            }
            ("DELETE", ["tokens", token]) => {
                self.state.tokens.revoke((*token).to_owned());
                Ok(Reply::no_content())
            }
            ("POST", ["workflows"]) => self.register(),
            ("PATCH", ["workflows", name]) => self.edit(name),
            ("DELETE", ["workflows", name]) => {
                let known = self.one().catalog.remove(name);
                found(known, "workflow")
            }
            _ => Err(Refusal::Unknown),
        }
    }

    fn parse<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        Ok(serde_json::from_slice(self.body)?)
    }

    /// The workspace that the request names.
    fn one(&mut self) -> &mut Workspace {
        let name = self.workspace.unwrap_or(DEFAULT_WORKSPACE);
        self.state.open(name).0
    }

    /// The names of the workspaces that a list covers.
    fn several(&self) -> Vec<String> {
        let names = self.state.workspaces.keys();
        let wanted = |name: &&String| self.workspace.is_none_or(|it| it == *name);
        names.filter(wanted).cloned().collect()
    }

    fn register(&mut self) -> Result<Reply, Refusal> {
        let spec: WorkflowSpec = self.parse()?;
        let rule = self.state.switches.reregistration;
        let workspace = self.one();
        let reply = Reply::ok(&describe(workspace.catalog.register(spec, rule)?));
        workspace.serve_waiting(clock::now());
        Ok(reply)
    }

    fn edit(&mut self, name: &str) -> Result<Reply, Refusal> {
        let mut body: Value = self.parse()?;
        if let Some(object) = body.as_object_mut() {
            object.insert("name".to_owned(), name.into());
        }
        let spec: WorkflowSpec = serde_json::from_value(body)?;
        let workspace = self.one();
        workspace.catalog.edit(spec)?;
        workspace.serve_waiting(clock::now());
        let workflow = workspace.catalog.resolve(name);
        let workflow = workflow.ok_or(Refusal::Missing("workflow"))?;
        Ok(Reply::ok(&describe(workflow)))
    }

    fn executions(&mut self) -> Reply {
        let names = self.several();
        for name in &names {
            // `open` settles the ledger.
            self.state.open(name);
        }
        let mut rows = Vec::new();
        for (name, workspace) in &self.state.workspaces {
            if names.contains(name) {
                rows.extend(summarise(name, workspace));
            }
        }
        Reply::ok(&Executions { executions: rows })
    }

    /// The first workspace, by name, that has the execution.
    fn owner(&mut self, execution_id: &str) -> Result<&mut Workspace, Refusal> {
        for name in self.several() {
            if self.state.open(&name).0.books.is_known(execution_id) {
                return Ok(self.state.open(&name).0);
            }
        }
        Err(Refusal::Missing("execution"))
    }

    fn finish(&mut self, execution_id: &str) -> Result<Reply, Refusal> {
        let finish: Finish = self.parse()?;
        let books = &mut self.owner(execution_id)?.books;
        let newest = books.newest(execution_id, |run| !run.forgotten);
        let running = newest.filter(|(_, run)| run.end.is_none());
        let (index, _) = running.ok_or(Refusal::NotRunning)?;
        let words = Words { result: finish.result, error: finish.error };
        books.finish(index, finish.outcome.into(), words, clock::now());
        Ok(Reply::no_content())
    }

    fn forget(&mut self, execution_id: &str) -> Result<Reply, Refusal> {
        let known = self.owner(execution_id)?.books.forget(execution_id);
        found(known, "execution")
    }

    fn faults(&self) -> Reply {
        let hidden = self.state.hiding.map(|hiding| hiding.length.as_millis());
        Reply::ok(&json!({
            "faults": self.state.faults.list(),
            "hide_new_executions_ms": hidden,
            "struck": self.state.faults.struck(),
            "concealed": self.state.concealed.load(Ordering::Relaxed),
        }))
    }

    fn replace_faults(&mut self) -> Result<Reply, Refusal> {
        let orders: FaultOrders = self.parse()?;
        self.state.faults.replace(orders.faults, orders.seed);
        self.state.hiding =
            orders.hide_new_executions_ms.map(|ms| Hiding { since: clock::now(), length: Duration::from_millis(ms) });
        self.state.held.release_all();
        Ok(self.faults())
    }
}

fn found(known: bool, what: &'static str) -> Result<Reply, Refusal> {
    if known { Ok(Reply::no_content()) } else { Err(Refusal::Missing(what)) }
}

/// The body of `PUT /__sim/faults`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FaultOrders {
    #[serde(default)]
    faults: Vec<Fault>,
    #[serde(default)]
    hide_new_executions_ms: Option<u64>,
    #[serde(default)]
    seed: Option<u64>,
}

/// The body of `PUT /__sim/tokens/{token}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Grant {
    workspace: String,
}

/// The body of `POST /__sim/executions/{execution_id}/finish`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Finish {
    outcome: Ending,
    #[serde(default, deserialize_with = "present")]
    result: Option<Value>,
    #[serde(default)]
    error: Option<String>,
}

/// How a test ends a run.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Ending {
    Complete,
    Fail,
    Cancel,
    Terminate,
    TimeOut,
    ContinueAsNew,
}

impl From<Ending> for Step {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Complete => Self::Complete,
            Ending::Fail => Self::Fail,
            Ending::Cancel => Self::Cancel,
            Ending::Terminate => Self::Terminate,
            Ending::TimeOut => Self::TimeOut,
            Ending::ContinueAsNew => Self::ContinueAsNew,
        }
    }
}

/// A registered workflow with its ids.
fn describe(workflow: &Workflow) -> Value {
    let registrations = workflow.registrations.iter();
    let registrations: Vec<_> =
        registrations.map(|it| json!({ "id": it.id, "deployment_name": it.deployment, "active": it.active })).collect();
    json!({ "id": workflow.id, "name": workflow.name, "registrations": registrations })
}

/// The body of `GET /__sim/executions`.
#[derive(Serialize)]
struct Executions<'a> {
    executions: Vec<Summary<'a>>,
}

/// The state of an execution, whether or not API readers can see it.
#[derive(Serialize)]
struct Summary<'a> {
    workspace: &'a str,
    execution_id: &'a str,
    workflow_name: &'a str,
    input: &'a Value,
    starts: u64,
    runs: usize,
    status: &'a str,
    /// When the execute call arrived: before any fault's latency, and so before `start_time`.
    arrival_time: String,
    start_time: String,
    end_time: Option<String>,
    deployment_name: Option<&'a str>,
    registration_id: Option<Uuid>,
    extensions: &'a Value,
    custom_tracing_attributes: &'a Value,
    cancel_requested: bool,
    forgotten: bool,
}

/// The executions of a workspace, oldest first.
fn summarise<'a>(name: &'a str, workspace: &'a Workspace) -> impl Iterator<Item = Summary<'a>> {
    let mut executions: Vec<_> = workspace.books.executions().collect();
    executions.sort_by_key(|(_, execution)| execution.runs.first());
    executions.into_iter().filter_map(move |(id, execution)| {
        let run = workspace.books.run(*execution.runs.last()?)?;
        let worker = run.worker.as_ref();
        Some(Summary {
            workspace: name,
            execution_id: id,
            workflow_name: &run.job.workflow_name,
            input: &run.job.input,
            starts: execution.starts,
            runs: execution.runs.len(),
            status: run.status().word(),
            arrival_time: clock::render(run.job.arrived),
            start_time: clock::render(run.started),
            end_time: run.ended().map(clock::render),
            deployment_name: worker.map(|it| it.deployment.as_str()),
            registration_id: worker.map(|it| it.registration_id),
            extensions: &run.job.extensions,
            custom_tracing_attributes: &run.job.custom_tracing_attributes,
            cancel_requested: run.cancel_requested,
            forgotten: run.forgotten,
        })
    })
}
