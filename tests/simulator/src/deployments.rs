//! The deployments of a workspace and their endpoints. A deployment exists once a registration has named it, and has
//! one worker.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::json;
use uuid::Uuid;

use crate::catalog::{Catalog, Workflow};
use crate::clock;
use crate::page::{Order, page};
use crate::query::{Query, bad_token};
use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Handled, Request};
use crate::spec::DeploymentSpec;
use crate::state::{Context, Workspace};
use crate::workflows::unknown;

const MAX_PAGE: usize = 100;

/// Every deployment that a workflow was ever registered with.
#[derive(Debug, Default)]
pub(crate) struct Deployments {
    by_name: BTreeMap<String, Deployment>,
}

/// One deployment. Registrations that name it decide whether it is active.
#[derive(Debug)]
struct Deployment {
    id: Uuid,
    name: String,
    created: Timestamp,
    /// When a worker last reported.
    seen: Timestamp,
}

impl Deployments {
    /// Records the deployments of a registration.
    pub(crate) fn take_in<'a>(&mut self, specs: impl Iterator<Item = &'a DeploymentSpec>) {
        let now = clock::now();
        for DeploymentSpec { name, active } in specs {
            let fresh = || Deployment { id: Uuid::now_v7(), name: name.clone(), created: now, seen: now };
            let deployment = self.by_name.entry(name.clone()).or_insert_with(fresh);
            if *active {
                deployment.seen = now;
            }
        }
    }
}

/// Whether a deployment serves a workflow, and whether it is alive.
#[derive(Clone, Copy)]
struct Service {
    is_named: bool,
    is_active: bool,
}

/// How a deployment serves the given workflow, or any workflow if none is given.
fn service(catalog: &Catalog, deployment: &str, workflow_name: Option<&str>) -> Service {
    let wanted = |workflow: &&Workflow| workflow_name.is_none_or(|name| name == workflow.name);
    let mut service = Service { is_named: false, is_active: false };
    for registration in catalog.iter().filter(wanted).flat_map(|it| &it.registrations) {
        if registration.deployment == deployment {
            service.is_named = true;
            service.is_active |= registration.active;
        }
    }
    service
}

/// `DeploymentResponse`; with `workers`, `DeploymentDetailResponse`.
#[derive(Serialize)]
struct DeploymentObject<'a> {
    id: Uuid,
    name: &'a str,
    is_active: bool,
    is_hardened: bool,
    created_at: String,
    last_heartbeat: String,
    /// The deprecated name of `last_heartbeat`.
    updated_at: String,
    owner: (),
    location: Location,
    locations: [&'static str; 1],
    worker_count: u8,
    active_worker_count: u8,
    managed: (),
    #[serde(skip_serializing_if = "Option::is_none")]
    workers: Option<[WorkerObject; 1]>,
}

/// `DeploymentWorkerResponse`
#[derive(Serialize)]
struct WorkerObject {
    name: String,
    created_at: String,
    last_heartbeat: String,
    updated_at: String,
    is_active: bool,
    location: Location,
}

#[derive(Serialize)]
struct Location {
    location_type: &'static str,
    k8s_cluster: (),
    k8s_namespace: (),
}

const LOCAL: Location = Location { location_type: "local", k8s_cluster: (), k8s_namespace: () };

impl Deployment {
    fn to_object(&self, is_active: bool) -> DeploymentObject<'_> {
        let seen = clock::render(self.seen);
        DeploymentObject {
            id: self.id,
            name: &self.name,
            is_active,
            is_hardened: false,
            created_at: clock::render(self.created),
            last_heartbeat: seen.clone(),
            updated_at: seen,
            owner: (),
            location: LOCAL,
            locations: ["local"],
            worker_count: 1,
            active_worker_count: u8::from(is_active),
            managed: (),
            workers: None,
        }
    }

    fn worker(&self, is_active: bool) -> WorkerObject {
        let seen = clock::render(self.seen);
        WorkerObject {
            name: format!("{}-worker", self.name),
            created_at: clock::render(self.created),
            last_heartbeat: seen.clone(),
            updated_at: seen,
            is_active,
            location: LOCAL,
        }
    }
}

/// `GET /v1/workflows/deployments`
pub(crate) fn list(workspace: &Workspace, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let active_only = query.flag("active_only").unwrap_or(true);
    let hardened = query.flag("is_hardened");
    let workflow_name = query.text("workflow_name");
    let search = query.text("search").map(str::to_lowercase);
    let order_by = query.choices("order_by", &["updated_at", "created_at"]).last().copied();
    let order = query.order(Order::Descending);
    let limit = query.size("limit", MAX_PAGE).unwrap_or(usize::MAX);
    let token = query.text("cursor");
    let scope = query.uuid("workspace_id");
    query.finish()?;
    if scope.is_some_and(|id| id != workspace.id) {
        return Err(ApiError::plain(hyper::StatusCode::FORBIDDEN, "Forbidden"));
    }

    let catalog = &workspace.catalog;
    let matches = |deployment: &Deployment, text: &str| {
        deployment.name.to_lowercase().contains(text) || deployment.id.to_string().starts_with(text)
    };
    let rows: Vec<(&Deployment, bool)> = catalog
        .deployments
        .by_name
        .values()
        .map(|it| (it, service(catalog, &it.name, workflow_name)))
        .filter(|(_, service)| service.is_named || workflow_name.is_none())
        .map(|(it, service)| (it, service.is_active))
        .filter(|(_, is_active)| *is_active || !active_only)
        .filter(|(it, _)| search.as_deref().is_none_or(|text| matches(it, text)))
        // No deployment is hardened.
        .filter(|_| hardened != Some(true))
        .collect();
    let key = |(it, is_active): &(&Deployment, bool)| {
        // Without a sort field, active deployments come first in either order.
        let group = order_by.is_none() && *is_active == (order == Order::Descending);
        let time = if order_by == Some("updated_at") { it.seen } else { it.created };
        (group, time.as_microsecond(), it.name.clone())
    };
    let page = page(rows, key, order, token, limit).ok_or_else(|| bad_token("cursor", token))?;
    let rows: Vec<_> = page.rows.iter().map(|(it, is_active)| it.to_object(*is_active)).collect();
    Answer::read(Reply::ok(&json!({
        "deployments": rows,
        "next_cursor": page.next,
        "workspace_id": workspace.id,
    })))
}

/// `GET /v1/workflows/deployments/{name}`
pub(crate) fn get(workspace: &Workspace, cx: &Context<'_>, name: &str, request: &Request) -> Handled {
    let workflow_name = Query::new(&request.query).text("workflow_name");
    let deployment = find(workspace, cx, name)?;
    let is_active = service(&workspace.catalog, name, workflow_name).is_active;
    let workers = Some([deployment.worker(is_active)]);
    Answer::read(Reply::ok(&DeploymentObject { workers, ..deployment.to_object(is_active) }))
}

/// `GET /v1/workflows/deployments/{name}/workers`: the single worker fits on any page.
pub(crate) fn list_workers(workspace: &Workspace, cx: &Context<'_>, name: &str, request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    let status = query.choices("worker_status", &["active", "inactive"]).last().copied();
    query.size("limit", MAX_PAGE);
    query.finish()?;
    let deployment = find(workspace, cx, name)?;
    let worker = deployment.worker(service(&workspace.catalog, name, None).is_active);
    let is_wanted = status.is_none_or(|status| worker.is_active == (status == "active"));
    let workers: Vec<_> = Some(worker).filter(|_| is_wanted).into_iter().collect();
    Answer::read(Reply::ok(&json!({ "workers": workers, "next_cursor": null })))
}

fn find<'a>(workspace: &'a Workspace, cx: &Context<'_>, name: &str) -> Result<&'a Deployment, ApiError> {
    let deployment = workspace.catalog.deployments.by_name.get(name);
    deployment.ok_or_else(|| unknown(cx.switches, "Deployment"))
}
