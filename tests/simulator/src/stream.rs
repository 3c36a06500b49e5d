//! The event streams: past events since some point and then new ones, as Server-Sent Events.
//!
//! Streams come from the broker that workers publish to, not from the database. They report an execution at once, even
//! while a fault hides it from readers.

use hyper::StatusCode;
use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::clock;
use crate::events::{ACTIVITY_ID, ACTIVITY_NAME, Event, EventKind};
use crate::executions;
use crate::query::Query;
use crate::reply::ApiError;
use crate::request::{Answer, Handled, Request};
use crate::run::Run;
use crate::state::{Context, Workspace};
use crate::switches::Admission;
use crate::validate::{Problem, unprocessable};

/// The name of the only stream.
const STREAM: &str = "workflow_events";

/// The most events examined under one lock: a long history must not block other requests.
const BATCH: usize = 1000;

/// All event types of the API, including those that the simulator never produces.
const EVENT_TYPES: &[&str] = &[
    "WORKFLOW_EXECUTION_STARTED",
    "WORKFLOW_EXECUTION_COMPLETED",
    "WORKFLOW_EXECUTION_FAILED",
    "WORKFLOW_EXECUTION_CANCELED",
    "WORKFLOW_EXECUTION_CONTINUED_AS_NEW",
    "WORKFLOW_TASK_TIMED_OUT",
    "WORKFLOW_TASK_FAILED",
    "CUSTOM_TASK_STARTED",
    "CUSTOM_TASK_IN_PROGRESS",
    "CUSTOM_TASK_COMPLETED",
    "CUSTOM_TASK_FAILED",
    "CUSTOM_TASK_TIMED_OUT",
    "CUSTOM_TASK_CANCELED",
    "ACTIVITY_TASK_STARTED",
    "ACTIVITY_TASK_COMPLETED",
    "ACTIVITY_TASK_RETRYING",
    "ACTIVITY_TASK_FAILED",
];

/// A reader's position in the events of a workspace.
pub(crate) struct Feed {
    filter: Filter,
    /// How many events the reader has passed, which is the `broker_sequence` of the last one.
    passed: usize,
    end: End,
}

enum End {
    Never,
    /// Once all past events are sent.
    AtOnce,
    /// Once the execution has ended and its events are sent.
    With(Chain),
}

/// An execution from its start through all continuations.
struct Chain {
    execution_id: String,
    first_engine_id: Uuid,
}

/// The result of one poll.
pub(crate) struct Look {
    /// Whole frames, or nothing.
    pub(crate) frames: String,
    pub(crate) then: Then,
}

/// What the stream does next.
pub(crate) enum Then {
    /// More events are waiting.
    LookAgain,
    /// At this time a run changes without a request.
    WaitUntil(Timestamp),
    End,
}

impl Feed {
    /// Returns the events since the last poll.
    pub(crate) fn look(&mut self, workspace: &Workspace, cx: &Context<'_>) -> Look {
        let events = workspace.books.events();
        let until = events.len().min(self.passed.saturating_add(BATCH));
        let mut frames = String::new();
        for (index, event) in events.iter().enumerate().take(until).skip(self.passed) {
            let run = workspace.books.run(event.run);
            let run = run.filter(|run| !run.forgotten && !event.is_lost(cx.switches));
            if let Some(run) = run.filter(|run| self.filter.admits(event, run)) {
                frames.push_str(&frame(index + 1, event, run, workspace, cx));
            }
        }
        self.passed = self.passed.max(until);
        let then = if until < events.len() {
            Then::LookAgain
        } else if self.is_over(workspace, cx) {
            Then::End
        } else {
            Then::WaitUntil(workspace.books.next_due().unwrap_or(Timestamp::MAX))
        };
        Look { frames, then }
    }

    fn is_over(&self, workspace: &Workspace, cx: &Context<'_>) -> bool {
        match &self.end {
            End::Never => false,
            End::AtOnce => true,
            End::With(chain) => {
                let own = |run: &Run| run.first_engine_id == chain.first_engine_id && !run.forgotten;
                let newest = workspace.books.newest(&chain.execution_id, own);
                cx.switches.execution_stream_ends && newest.is_none_or(|(_, run)| run.end.is_some())
            }
        }
    }
}

/// One event as sent.
fn frame(sequence: usize, event: &Event, run: &Run, workspace: &Workspace, cx: &Context<'_>) -> String {
    let id = if cx.switches.stream_ids { format!("id: {sequence}\n") } else { String::new() };
    let data = json!({
        "stream": STREAM,
        "timestamp": clock::render(event.at),
        "data": event.to_json(run, cx.switches),
        "workflow_context": {
            "namespace": workspace.namespace(),
            "workflow_name": run.job.workflow_name,
            "workflow_exec_id": run.job.execution_id,
            "parent_workflow_exec_id": null,
            "root_workflow_exec_id": run.job.execution_id,
        },
        "metadata": {},
        "broker_sequence": sequence,
    });
    format!("{id}event: workflow.event\ndata: {data}\n\n")
}

/// The last frame of a failing stream.
pub(crate) fn error_frame() -> String {
    let data = json!({ "error": "The stream failed", "reason": "stream_error" });
    format!("event: error\ndata: {data}\n\n")
}

/// Selects events for a reader. An event must pass all conditions.
#[derive(Default)]
struct Filter {
    scope: Option<String>,
    activity_name: Option<String>,
    activity_id: Option<String>,
    workflow_name: Option<String>,
    execution: Option<String>,
    root: Option<String>,
    parent: Option<String>,
    stream: Option<String>,
    types: Vec<String>,
    has_metadata: bool,
    first_engine_id: Option<Uuid>,
}

impl Filter {
    fn parse(query: &mut Query<'_>) -> Self {
        // A star is the default of these parameters.
        let wanted = |text: Option<&str>| text.filter(|text| *text != "*").map(str::to_owned);
        let types = query.choices("workflow_event_types", EVENT_TYPES);
        Self {
            scope: wanted(query.choices("scope", &["activity", "workflow", "*"]).last().copied()),
            activity_name: wanted(query.text("activity_name")),
            activity_id: wanted(query.text("activity_id")),
            workflow_name: wanted(query.text("workflow_name")),
            execution: wanted(query.text("workflow_exec_id")),
            root: wanted(query.text("root_workflow_exec_id")),
            parent: wanted(query.text("parent_workflow_exec_id")),
            stream: wanted(query.text("stream")),
            types: types.into_iter().map(str::to_owned).collect(),
            has_metadata: has_metadata(query),
            first_engine_id: None,
        }
    }

    fn names_an_execution(&self) -> bool {
        self.execution.is_some() || self.root.is_some() || self.parent.is_some()
    }

    fn admits(&self, event: &Event, run: &Run) -> bool {
        let is = |wanted: &Option<String>, actual: &str| wanted.as_deref().is_none_or(|wanted| wanted == actual);
        let of_activity = matches!(event.kind, EventKind::ActivityFailed { .. });
        let of_this_activity = |wanted: &Option<String>, actual: &str| {
            wanted.as_deref().is_none_or(|wanted| of_activity && wanted == actual)
        };
        is(&self.scope, if of_activity { "activity" } else { "workflow" })
            && of_this_activity(&self.activity_name, ACTIVITY_NAME)
            && of_this_activity(&self.activity_id, ACTIVITY_ID)
            && is(&self.workflow_name, &run.job.workflow_name)
            && is(&self.execution, &run.job.execution_id)
            // Every execution is its own root, and none has a parent or metadata.
            && is(&self.root, &run.job.execution_id)
            && self.parent.is_none()
            && !self.has_metadata
            && is(&self.stream, STREAM)
            && (self.types.is_empty() || self.types.iter().any(|it| it == event.kind.name()))
            && self.first_engine_id.is_none_or(|id| id == run.first_engine_id)
    }
}

/// Whether the reader wants only events with certain metadata.
fn has_metadata(query: &mut Query<'_>) -> bool {
    let Some(text) = query.text("metadata_filters") else {
        return false;
    };
    match serde_json::from_str(text) {
        Ok(Value::Object(wanted)) => !wanted.is_empty(),
        _ => {
            let message = "Input should be a valid dictionary";
            query.report("metadata_filters", Problem::new("dict_type", message, &text.into()));
            false
        }
    }
}

/// `GET /v1/workflows/events/stream`: never ends by itself.
pub(crate) fn of_workspace(cx: &Context<'_>, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let filter = Filter::parse(&mut query);
    let start = query.integer("start_seq").unwrap_or(0);
    query.finish()?;
    let resumed = resume_after(request.last_event_id.as_deref())?;
    if cx.switches.unscoped_stream == Admission::Reject && !filter.names_an_execution() {
        let detail = "One of root_workflow_exec_id, parent_workflow_exec_id or workflow_exec_id is required";
        return Err(ApiError::plain(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    // `start_seq` is inclusive: a reader that has seen `n` sends `n + 1`.
    let passed = resumed.unwrap_or_else(|| usize::try_from(start.saturating_sub(1)).unwrap_or(0));
    Ok(Answer::Stream(Feed { filter, passed, end: End::Never }))
}

/// `GET /v1/workflows/executions/{execution_id}/stream`: the newest start of that id and its continuations.
pub(crate) fn of_execution(workspace: &Workspace, cx: &Context<'_>, execution_id: &str, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let source = query.choices("event_source", &["DATABASE", "LIVE", "HYBRID"]).last().copied();
    let last_event_id = request.last_event_id.as_deref().or(query.text("last_event_id"));
    query.finish()?;
    let resumed = resume_after(last_event_id)?;
    let (_, run) = executions::visible(workspace, cx, execution_id)?;
    let first_engine_id = run.first_engine_id;
    let chain = Chain { execution_id: execution_id.to_owned(), first_engine_id };
    // The meaning of the sources is undocumented; the simulator takes them as stored events, future events, or both.
    let (begin, end) = match source {
        Some("DATABASE") => (0, End::AtOnce),
        Some("LIVE") => (workspace.books.events().len(), End::With(chain)),
        _ => (0, End::With(chain)),
    };
    let filter = Filter { first_engine_id: Some(first_engine_id), ..Filter::default() };
    Ok(Answer::Stream(Feed { filter, passed: resumed.unwrap_or(begin), end }))
}

/// The position after the event with this id, which is a `broker_sequence`.
fn resume_after(last_event_id: Option<&str>) -> Result<Option<usize>, ApiError> {
    let Some(text) = last_event_id else {
        return Ok(None);
    };
    let id = text.parse().map_err(|_| {
        let problem = Problem::new("value_error", "Value error, invalid event id", &text.into());
        unprocessable(vec![problem.inside("last-event-id").inside("header")])
    })?;
    Ok(Some(id))
}
