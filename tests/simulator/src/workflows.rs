//! The endpoints of workflows: list, get, update, tag, archive and unarchive.

use hyper::StatusCode;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::catalog::Workflow;
use crate::fields::{Field, Fields};
use crate::page::{Order, page};
use crate::query::{Query, bad_token};
use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Handled, Request};
use crate::run::Status;
use crate::state::{Context, Workspace};
use crate::switches::{NullField, Switches};
use crate::validate::{self, Problem};
use crate::wire::{Row, WorkflowObject, WorkflowRow};

const MAX_DISPLAY_NAME: usize = 128;
const MAX_TAG: usize = 100;
const MAX_BULK: usize = 100;

/// The error for a workflow, registration or deployment that does not exist.
pub(crate) fn unknown(switches: &Switches, what: &str) -> ApiError {
    let detail = format!("{what} not found");
    match &switches.unknown_workflow_code {
        Some(code) => ApiError::coded(StatusCode::NOT_FOUND, code, &detail),
        None => ApiError::plain(StatusCode::NOT_FOUND, &detail),
    }
}

/// `GET /v1/workflows`
pub(crate) fn list(workspace: &Workspace, cx: &Context<'_>, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    // The documentation does not say what an execution status means for a workflow. The parameter is checked, then
    // ignored.
    query.choices("status", Status::WORDS);
    let include_shared = query.flag("include_shared").unwrap_or(true);
    let in_chat = query.flag("available_in_chat_assistant");
    let archived = query.flag("archived");
    let active_only = query.flag("active_only").unwrap_or(false);
    let status = query.choices("deployment_status", &["active", "inactive"]);
    let deployments = query.list("deployment_name");
    let tags = query.list("tags");
    let by_name = !query.choices("sort_by", &["display_name"]).is_empty();
    let order = query.order(Order::Ascending);
    let limit = query.page_size("limit", 50);
    let search = query.text("search").map(str::to_lowercase);
    let token = query.text("cursor");
    query.finish()?;
    let active = match (status.last(), active_only) {
        (Some(&"active"), _) | (None, true) => Some(true),
        (Some(_), _) => Some(false),
        (None, false) => None,
    };

    let wanted = |workflow: &&Workflow| {
        (include_shared || workflow.shared_namespace.is_none())
            && in_chat.is_none_or(|it| it == workflow.available_in_chat_assistant)
            && archived.is_none_or(|it| it == workflow.archived)
            && active.is_none_or(|it| it == workflow.is_active())
            && (deployments.is_empty() || is_served_by(workflow, &deployments))
            && has_tags(workflow, &tags)
            && search.as_deref().is_none_or(|it| mentions(workflow, it))
    };
    let rows: Vec<&Workflow> = workspace.catalog.iter().filter(wanted).collect();
    let key = |workflow: &&Workflow| {
        let name = if by_name { workflow.display_name.as_str() } else { "" };
        (name.to_owned(), workflow.id)
    };
    let page = page(rows, key, order, token, limit).ok_or_else(|| bad_token("cursor", token))?;
    let rows = page.rows.into_iter();
    let mut rows: Vec<_> = rows.map(|it| Row::Promised(WorkflowRow::new(it, cx.switches))).collect();
    if page.next.is_none() {
        rows.extend(cx.switches.odd_workflow_rows.iter().cloned().map(Row::Odd));
    }
    Answer::read(Reply::ok(&json!({ "workflows": rows, "next_cursor": page.next })))
}

/// Whether a workflow has all of `tags`.
pub(crate) fn has_tags(workflow: &Workflow, tags: &[&str]) -> bool {
    let has = |tag: &&str| workflow.tags.iter().any(|it| it == tag);
    tags.iter().all(has)
}

/// Whether a workflow's names, description or id contain `text`, which must be lower case.
pub(crate) fn mentions(workflow: &Workflow, text: &str) -> bool {
    let id = workflow.id.to_string();
    [&workflow.name, &workflow.display_name, &workflow.description, &id]
        .iter()
        .any(|field| field.to_lowercase().contains(text))
}

fn is_served_by(workflow: &Workflow, deployments: &[&str]) -> bool {
    let mut registrations = workflow.registrations.iter();
    registrations.any(|it| deployments.contains(&it.deployment.as_str()))
}

/// `GET /v1/workflows/{workflow_identifier}`
pub(crate) fn get(workspace: &Workspace, cx: &Context<'_>, identifier: &str) -> Handled {
    let workflow = workspace.catalog.resolve(identifier);
    let workflow = workflow.ok_or_else(|| unknown(cx.switches, "Workflow"))?;
    let object = WorkflowObject::new(workflow, workspace, cx.switches).with_worker_status(workflow.is_active());
    Answer::read(Reply::ok(&json!({ "workflow": object })))
}

/// `PUT /v1/workflows/{workflow_identifier}`
pub(crate) fn update(workspace: &mut Workspace, cx: &Context<'_>, identifier: &str, request: &Request) -> Handled {
    let mut fields = Fields::parse(&request.body, request.content_type.as_deref())?;
    let display_name = fields.take("display_name", display_name);
    let description = fields.take("description", validate::text);
    let in_chat = fields.take("available_in_chat_assistant", validate::boolean);
    let tags = fields.take("tags", tags);
    fields.finish()?;

    let workflow = workspace.catalog.resolve_mut(identifier);
    let workflow = workflow.ok_or_else(|| unknown(cx.switches, "Workflow"))?;
    let nulls = cx.switches.put_null;
    let own_name = workflow.name.clone();
    let changed = [
        put(&mut workflow.display_name, display_name, nulls, own_name),
        put(&mut workflow.description, description, nulls, String::new()),
        put(&mut workflow.available_in_chat_assistant, in_chat, nulls, false),
        put(&mut workflow.tags, tags, nulls, Vec::new()),
    ]
    .contains(&true);
    workflow.updated_by_client = true;
    answer_with(workspace, cx, identifier, changed)
}

/// Sets a field from a request. Returns whether the value changed.
fn put<T: PartialEq>(field: &mut T, value: Field<T>, nulls: NullField, cleared: T) -> bool {
    let new = match value {
        Field::Value(value) => value,
        Field::Null if nulls == NullField::Clear => cleared,
        Field::Null | Field::Absent => return false,
    };
    let changed = *field != new;
    *field = new;
    changed
}

fn display_name(value: Value) -> Result<String, Problem> {
    let name = validate::short_text(value, MAX_DISPLAY_NAME)?;
    if name.trim().is_empty() {
        let message = "Value error, display_name must not be blank";
        return Err(Problem::new("value_error", message, &name.into()));
    }
    Ok(name)
}

/// Tags are trimmed and deduplicated in order.
fn tags(value: Value) -> Result<Vec<String>, Problem> {
    let mut unique: Vec<String> = Vec::new();
    for tag in validate::list(value, None, tag)? {
        if !unique.contains(&tag) {
            unique.push(tag);
        }
    }
    Ok(unique)
}

fn tag(value: Value) -> Result<String, Problem> {
    let tag = validate::text(value)?.trim().to_owned();
    if tag.is_empty() {
        let message = "Value error, tag must not be blank";
        return Err(Problem::new("value_error", message, &tag.into()));
    }
    validate::short_text(tag.into(), MAX_TAG)
}

/// `POST /v1/workflows/{workflow_identifier}/tags`
pub(crate) fn add_tags(workspace: &mut Workspace, cx: &Context<'_>, identifier: &str, request: &Request) -> Handled {
    let mut fields = Fields::parse(&request.body, request.content_type.as_deref())?;
    let added = fields.required("tags", tags);
    fields.finish()?;
    let workflow = workspace.catalog.resolve_mut(identifier);
    let workflow = workflow.ok_or_else(|| unknown(cx.switches, "Workflow"))?;
    let before = workflow.tags.len();
    for tag in added {
        if !workflow.tags.contains(&tag) {
            workflow.tags.push(tag);
        }
    }
    Answer::write(Reply::no_content(), workflow.tags.len() > before)
}

/// `PUT /v1/workflows/{workflow_identifier}/archive` and `…/unarchive`. Repetition is no error, unless the switch says
/// so.
pub(crate) fn set_archived(workspace: &mut Workspace, cx: &Context<'_>, identifier: &str, archived: bool) -> Handled {
    let workflow = workspace.catalog.resolve_mut(identifier);
    let workflow = workflow.ok_or_else(|| unknown(cx.switches, "Workflow"))?;
    let changed = workflow.archive(archived);
    if !changed && cx.switches.repeated_archive == 409 {
        let state = if archived { "archived already" } else { "not archived" };
        return Err(ApiError::plain(StatusCode::CONFLICT, &format!("Workflow is {state}")));
    }
    answer_with(workspace, cx, identifier, changed)
}

/// `PUT /v1/workflows/archive` and `…/unarchive`. Each id succeeds or fails by itself.
pub(crate) fn set_archived_in_bulk(
    workspace: &mut Workspace,
    cx: &Context<'_>,
    request: &Request,
    archived: bool,
) -> Handled {
    let mut fields = Fields::parse(&request.body, request.content_type.as_deref())?;
    let check = |value| validate::list(value, Some(MAX_BULK), |id| validate::uuid(&id));
    let ids: Vec<Uuid> = fields.required("workflow_ids", check);
    fields.finish()?;

    let mut changed = false;
    for id in &ids {
        if let Some(workflow) = workspace.catalog.resolve_mut(&id.to_string()) {
            changed |= workflow.archive(archived);
        }
    }
    let (mut done, mut errored) = (Vec::new(), Vec::new());
    for id in ids {
        match workspace.catalog.by_id(id) {
            Some(workflow) => done.push(answered(workflow, workspace, cx.switches)),
            None => errored.push(json!({
                "workflow_id": id, "workflow": null, "message": "Workflow not found",
            })),
        }
    }
    let key = if archived { "archived" } else { "unarchived" };
    Answer::write(Reply::ok(&json!({ key: done, "errored": errored })), changed)
}

fn answer_with(workspace: &Workspace, cx: &Context<'_>, identifier: &str, changed: bool) -> Handled {
    let workflow = workspace.catalog.resolve(identifier);
    let workflow = workflow.ok_or_else(|| unknown(cx.switches, "Workflow"))?;
    let object = answered(workflow, workspace, cx.switches);
    Answer::write(Reply::ok(&json!({ "workflow": object })), changed)
}

/// A changed workflow as the answer shows it.
fn answered<'a>(workflow: &'a Workflow, workspace: &Workspace, switches: &Switches) -> Option<WorkflowObject<'a>> {
    (!switches.null_workflow).then(|| WorkflowObject::new(workflow, workspace, switches))
}
