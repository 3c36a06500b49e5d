//! The endpoints of runs. Each run is a row, so an execution that was restarted or continued has several.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::page::{Order, page};
use crate::query::{Query, bad_token};
use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Handled, Request};
use crate::run::{Run, Status};
use crate::state::{Context, Workspace};
use crate::validate::{Problem, path_uuid};
use crate::wire::{ExecutionObject, RunRow};
use crate::workflows::{has_tags, mentions};

const MAX_TAGS: usize = 20;
const MAX_SEARCH_KEYS: usize = 3;

/// `GET /v1/workflows/runs/{run_id}`
pub(crate) fn get(workspace: &Workspace, cx: &Context<'_>, id: &str) -> Handled {
    let id = path_uuid("run_id", id)?;
    let run = workspace.books.by_run_id(id);
    let run = run
        .filter(|run| run.is_visible(cx.now, cx.hiding))
        .ok_or_else(|| ApiError::not_found("Workflow run not found"))?;
    let object = ExecutionObject::of_run(run, workspace, cx.switches);
    Answer::read(Reply::ok(&object))
}

/// `GET /v1/workflows/runs`
pub(crate) fn list(workspace: &Workspace, cx: &Context<'_>, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let filter = Filter::parse(&mut query);
    let by_end = query.choices("sort_by", &["start_time", "end_time"]).last() == Some(&"end_time");
    let order = query.order(Order::Descending);
    let size = query.page_size("page_size", 50);
    let token = query.text("next_page_token");
    query.finish()?;

    let wanted = |(_, run): &(usize, &Run)| run.is_visible(cx.now, cx.hiding) && filter.matches(run, workspace);
    let runs = workspace.books.runs().iter().enumerate();
    let rows: Vec<(usize, &Run)> = runs.filter(wanted).collect();
    let key = |(index, run): &(usize, &Run)| {
        // Runs that have not ended sort last.
        let end = || run.ended().unwrap_or(Timestamp::MAX);
        let time = if by_end { end() } else { run.started };
        (time.as_microsecond(), *index)
    };
    let page = page(rows, key, order, token, size).ok_or_else(|| bad_token("next_page_token", token))?;
    let rows = page.rows.into_iter();
    let rows: Vec<_> = rows.map(|(_, run)| RunRow::new(run, workspace, cx.switches)).collect();
    Answer::read(Reply::ok(&json!({ "executions": rows, "next_page_token": page.next })))
}

/// The filters of the run list; a run must pass all of them.
struct Filter<'a> {
    workflow: Option<&'a str>,
    root: Option<&'a str>,
    search: Option<String>,
    statuses: Vec<&'a str>,
    deployment: Option<&'a str>,
    started_after: Option<Timestamp>,
    started_before: Option<Timestamp>,
    ended_after: Option<Timestamp>,
    ended_before: Option<Timestamp>,
    user: Option<&'a str>,
    tags: Vec<&'a str>,
    include_internal: bool,
    /// Runs have no search keys, so a filter by search key matches nothing.
    has_search_key: bool,
}

impl<'a> Filter<'a> {
    fn parse(query: &mut Query<'a>) -> Self {
        let search_keys = query.bounded_list("search_key", MAX_SEARCH_KEYS);
        for entry in &search_keys {
            let parts = entry.split_once(':');
            if !parts.is_some_and(|(key, value)| !key.is_empty() && !value.is_empty()) {
                let pattern = "^[^:]+:.+$";
                let message = format!("String should match pattern '{pattern}'");
                let input = Value::from(*entry);
                let problem = Problem::new("string_pattern_mismatch", message, &input)
                    .with_context(json!({ "pattern": pattern }));
                query.report("search_key", problem);
            }
        }
        Self {
            workflow: query.text("workflow_identifier"),
            root: query.text("root_execution_id"),
            search: query.text("search").map(str::to_lowercase),
            statuses: query.choices("status", Status::WORDS),
            deployment: query.text("deployment_name"),
            started_after: query.time("start_time_after"),
            started_before: query.time("start_time_before"),
            ended_after: query.time("end_time_after"),
            ended_before: query.time("end_time_before"),
            user: query.text("user_id"),
            tags: query.bounded_list("workflow_tags", MAX_TAGS),
            include_internal: query.flag("include_internal").unwrap_or(true),
            has_search_key: !search_keys.is_empty(),
        }
    }

    fn matches(&self, run: &Run, workspace: &Workspace) -> bool {
        self.matches_times(run)
            && (self.statuses.is_empty() || self.statuses.contains(&run.status().word()))
            && self.root.is_none_or(|it| it == run.job.execution_id)
            && self.deployment.is_none_or(|it| {
                let worker = run.worker.as_ref();
                worker.is_some_and(|worker| worker.deployment == it)
            })
            && self.matches_user(workspace)
            && !self.has_search_key
            && self.matches_workflow(run, workspace)
    }

    /// The bounds are inclusive. Bounds on the end exclude runs that have not ended.
    fn matches_times(&self, run: &Run) -> bool {
        let ended = |holds: &dyn Fn(Timestamp) -> bool| run.ended().is_some_and(holds);
        self.started_after.is_none_or(|it| run.started >= it)
            && self.started_before.is_none_or(|it| run.started <= it)
            && self.ended_after.is_none_or(|it| ended(&|end| end >= it))
            && self.ended_before.is_none_or(|it| ended(&|end| end <= it))
    }

    fn matches_user(&self, workspace: &Workspace) -> bool {
        self.user.is_none_or(|it| it == "current" || it == workspace.user_id.to_string())
    }

    fn matches_workflow(&self, run: &Run, workspace: &Workspace) -> bool {
        let job = &run.job;
        let workflow = workspace.catalog.by_id(job.workflow_id);
        self.workflow.is_none_or(|it| it == job.workflow_name || it == job.workflow_id.to_string())
            && (self.include_internal || !workflow.is_some_and(|it| it.is_technical))
            && (self.tags.is_empty() || workflow.is_some_and(|it| has_tags(it, &self.tags)))
            && self.search.as_deref().is_none_or(|text| workflow.is_some_and(|it| mentions(it, text)))
    }
}
