//! The event log and the endpoint that lists it. `stream` sends events live.
//!
//! The log holds only events that workers publish. No event says that a run timed out or was terminated, and a
//! continued run appears as a new start.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::page::{Order, page};
use crate::query::{Query, bad_token};
use crate::reply::Reply;
use crate::request::{Answer, Handled, Request};
use crate::run::Run;
use crate::state::{Context, Workspace};
use crate::switches::Switches;

/// The only activity of every run.
pub(crate) const ACTIVITY_NAME: &str = "activity";
pub(crate) const ACTIVITY_ID: &str = "1";
/// What an event shows of a payload that workers encode.
const ENCODED: &str = "gAAAAABvcGFxdWU=";

#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) id: Uuid,
    pub(crate) at: Timestamp,
    /// Index of the run in the ledger.
    pub(crate) run: usize,
    pub(crate) kind: EventKind,
}

#[derive(Debug)]
pub(crate) enum EventKind {
    Started,
    Completed,
    Failed { message: String },
    Canceled,
    ActivityFailed { message: String },
}

impl EventKind {
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Started => "WORKFLOW_EXECUTION_STARTED",
            Self::Completed => "WORKFLOW_EXECUTION_COMPLETED",
            Self::Failed { .. } => "WORKFLOW_EXECUTION_FAILED",
            Self::Canceled => "WORKFLOW_EXECUTION_CANCELED",
            Self::ActivityFailed { .. } => "ACTIVITY_TASK_FAILED",
        }
    }

    fn ends_the_run(&self) -> bool {
        matches!(self, Self::Completed | Self::Failed { .. } | Self::Canceled)
    }

    fn attributes(&self, run: &Run, switches: &Switches) -> Value {
        let task_id = run.engine_id;
        let payload = |value: Value| {
            let value = if switches.encoded_payloads { ENCODED.into() } else { value };
            json!({ "type": "json", "value": value })
        };
        match self {
            Self::Started => json!({
                "task_id": task_id,
                "workflow_name": run.job.workflow_name,
                "display_name": run.job.display_name,
                // A workflow's arguments are a list with one item.
                "input": payload(json!([run.job.input])),
                "attempt": 1,
            }),
            Self::Completed => json!({
                "task_id": task_id,
                "result": payload(run.result().clone()),
                "attempt": 1,
            }),
            Self::Failed { message } => json!({
                "task_id": task_id,
                "failure": { "message": message },
                "attempt": 1,
            }),
            Self::Canceled => json!({ "task_id": task_id, "reason": null, "attempt": 1 }),
            Self::ActivityFailed { message } => json!({
                "task_id": ACTIVITY_ID,
                "activity_name": ACTIVITY_NAME,
                "attempt": 1,
                "failure": { "message": message },
            }),
        }
    }
}

impl Event {
    /// Whether the event gets lost on its way from the worker.
    pub(crate) fn is_lost(&self, switches: &Switches) -> bool {
        switches.drop_terminal_events && self.kind.ends_the_run()
    }

    pub(crate) fn to_json(&self, run: &Run, switches: &Switches) -> Value {
        json!({
            "event_id": self.id,
            "event_timestamp": i64::try_from(self.at.as_nanosecond()).unwrap_or(i64::MAX),
            "root_workflow_exec_id": run.job.execution_id,
            "parent_workflow_exec_id": null,
            "continued_run_id": run.continues,
            "first_execution_run_id": run.first_engine_id,
            "chain_run_id": run.first_engine_id,
            "schedule_id": null,
            "workflow_exec_id": run.job.execution_id,
            "workflow_run_id": run.engine_id,
            "workflow_name": run.job.workflow_name,
            "event_type": self.kind.name(),
            "attributes": self.kind.attributes(run, switches),
        })
    }
}

/// `GET /v1/workflows/events/list`, oldest first.
pub(crate) fn list(workspace: &Workspace, cx: &Context<'_>, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let root = query.text("root_workflow_exec_id");
    let execution = query.text("workflow_exec_id");
    let run_id = query.text("workflow_run_id");
    let limit = query.page_size("limit", 100);
    let token = query.text("cursor");
    query.finish()?;

    // No run starts sub-workflows, so every execution is its own root.
    let is_wanted = |run: &Run| {
        run.is_visible(cx.now, cx.hiding)
            && root.is_none_or(|it| it == run.job.execution_id)
            && execution.is_none_or(|it| it == run.job.execution_id)
            && run_id.is_none_or(|it| it == run.engine_id.to_string())
    };
    let books = &workspace.books;
    let rows: Vec<(usize, &Event, &Run)> = books
        .events()
        .iter()
        .enumerate()
        .filter(|(_, event)| !event.is_lost(cx.switches))
        .filter_map(|(sequence, event)| Some((sequence, event, books.run(event.run)?)))
        .filter(|(_, _, run)| is_wanted(run))
        .collect();
    let key = |(sequence, _, _): &(usize, &Event, &Run)| *sequence;
    let page = page(rows, key, Order::Ascending, token, limit).ok_or_else(|| bad_token("cursor", token))?;
    let rows = page.rows.iter();
    let events: Vec<_> = rows.map(|(_, event, run)| event.to_json(run, cx.switches)).collect();
    Answer::read(Reply::ok(&json!({ "events": events, "next_cursor": page.next })))
}
