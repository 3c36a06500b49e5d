//! The endpoints of registrations and of the token's own identity.

use serde_json::json;

use crate::catalog::{Registration, Workflow};
use crate::page::{Order, page};
use crate::query::{Query, bad_token};
use crate::reply::Reply;
use crate::request::{Answer, Handled, Request};
use crate::state::{Context, Workspace};
use crate::validate::path_uuid;
use crate::wire::{OneRegistration, RegistrationObject, RegistrationPage, Row, WorkflowObject};
use crate::workflows::unknown;

/// `GET /v1/workflows/registrations`
pub(crate) fn list(workspace: &Workspace, cx: &Context<'_>, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let workflow_id = query.uuid("workflow_id");
    let workflow_name = query.text("workflow_name");
    let search = query.text("workflow_search").map(str::to_lowercase);
    let task_queue = query.text("task_queue");
    let active_only = query.flag("active_only").unwrap_or(false);
    let include_shared = query.flag("include_shared").unwrap_or(true);
    let archived = query.flag("archived");
    let with_workflow = query.flag("with_workflow").unwrap_or(false);
    let in_chat = query.flag("available_in_chat_assistant");
    let limit = query.page_size("limit", 50);
    let token = query.text("cursor");
    query.finish()?;

    let wanted = |workflow: &&Workflow| {
        workflow_id.is_none_or(|it| it == workflow.id)
            && workflow_name.is_none_or(|it| it == workflow.name)
            && search.as_deref().is_none_or(|it| workflow.name.to_lowercase().contains(it))
            && (include_shared || workflow.shared_namespace.is_none())
            && archived.is_none_or(|it| it == workflow.archived)
            && in_chat.is_none_or(|it| it == workflow.available_in_chat_assistant)
    };
    let rows: Vec<(&Workflow, &Registration)> = workspace
        .catalog
        .iter()
        .filter(wanted)
        .flat_map(|workflow| workflow.registrations.iter().map(move |it| (workflow, it)))
        .filter(|(_, it)| task_queue.is_none_or(|queue| queue == it.deployment))
        .filter(|(_, it)| it.active || !active_only)
        .collect();
    let key = |(_, registration): &(&Workflow, &Registration)| registration.id;
    let page = page(rows, key, Order::Ascending, token, limit).ok_or_else(|| bad_token("cursor", token))?;
    let mut objects: Vec<_> = page
        .rows
        .into_iter()
        .map(|(workflow, registration)| {
            let object = with_workflow.then(|| WorkflowObject::new(workflow, workspace, cx.switches));
            Row::Promised(RegistrationObject::new(workflow, registration, object))
        })
        .collect();
    if page.next.is_none() {
        objects.extend(cx.switches.odd_registration_rows.iter().cloned().map(Row::Odd));
    }
    Answer::read(Reply::ok(&RegistrationPage {
        workflow_registrations: &objects,
        next_cursor: page.next,
        workflow_versions: &objects,
    }))
}

/// `GET /v1/workflows/registrations/{workflow_registration_id}`
pub(crate) fn get(workspace: &Workspace, cx: &Context<'_>, id: &str, request: &Request) -> Handled {
    let id = path_uuid("workflow_registration_id", id)?;
    let mut query = Query::new(&request.query);
    let with_workflow = query.flag("with_workflow").unwrap_or(false);
    query.flag("include_shared");
    query.finish()?;
    let (workflow, registration) =
        workspace.catalog.registration(id).ok_or_else(|| unknown(cx.switches, "Workflow registration"))?;
    let object = with_workflow.then(|| WorkflowObject::new(workflow, workspace, cx.switches));
    let object = RegistrationObject::new(workflow, registration, object).with_worker_status(registration.active);
    Answer::read(Reply::ok(&OneRegistration { workflow_registration: &object, workflow_version: &object }))
}

/// `GET /v1/workflows/workers/whoami`
pub(crate) fn whoami(workspace: &Workspace) -> Handled {
    Answer::read(Reply::ok(&json!({
        "scheduler_url": "scheduler.simulator.invalid:443",
        "namespace": workspace.namespace(),
        "tls": true,
        "features": {},
    })))
}
