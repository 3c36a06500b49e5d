//! The calls of the API that the operator uses: a method for each endpoint.

use reqwest::Method;
use serde::de::DeserializeOwned;

use super::answer::{self, Repeat};
use super::client::Client;
use super::error::Error;
use super::filter::{RegistrationFilter, RunFilter, WorkflowFilter};
use super::wire::{BulkOutcome, ExecuteRequest, Execution, Page, Registration, UpdateRequest, WhoAmI, Workflow};

const WORKFLOW: &str = "/v1/workflows/{workflow_identifier}";

/// What to start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecuteTarget<'a> {
    /// A workflow, by name or UUID.
    Workflow(&'a str),
    /// A registration, by UUID.
    Registration(&'a str),
}

impl<'a> ExecuteTarget<'a> {
    /// The identifier in the URL.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Workflow(name) | Self::Registration(name) => name,
        }
    }
}

impl Client {
    /// `GET /v1/workflows/workers/whoami`: whether the key is valid, and who owns it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn whoami(&self) -> Result<WhoAmI, Error> {
        answer::read(&self.get("/v1/workflows/workers/whoami", &[], &[]).await?.0)
    }

    /// `GET /v1/workflows`: one page of workflows, sorted by display name.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_workflows(&self, filter: &WorkflowFilter) -> Result<Page<Workflow>, Error> {
        self.list_workflows_as(filter).await
    }

    /// Like `list_workflows`, but decodes only as much of each row as the caller needs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_workflows_as<R: DeserializeOwned>(&self, filter: &WorkflowFilter) -> Result<Page<R>, Error> {
        answer::workflows(&self.get("/v1/workflows", &[], &filter.query()).await?.0)
    }

    /// `GET /v1/workflows/registrations`: one page of registrations.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_registrations(&self, filter: &RegistrationFilter) -> Result<Page<Registration>, Error> {
        self.list_registrations_as(filter).await
    }

    /// Like `list_registrations`, but decodes only as much of each row as the caller needs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_registrations_as<R: DeserializeOwned>(
        &self,
        filter: &RegistrationFilter,
    ) -> Result<Page<R>, Error> {
        answer::registrations(&self.get("/v1/workflows/registrations", &[], &filter.query()).await?.0)
    }

    /// `GET /v1/workflows/{identifier}`: one workflow, by name or UUID, with `active`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_workflow(&self, identifier: &str) -> Result<Workflow, Error> {
        answer::workflow(&self.get(WORKFLOW, &[identifier], &[]).await?.0)
    }

    /// `GET /v1/workflows/registrations/{id}`: one registration, by UUID, with `active`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_registration(&self, id: &str) -> Result<Registration, Error> {
        let route = "/v1/workflows/registrations/{workflow_registration_id}";
        answer::registration(&self.get(route, &[id], &[]).await?.0)
    }

    /// `PUT /v1/workflows/{identifier}`: returns the changed workflow, if the API sends it.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_workflow(&self, identifier: &str, update: &UpdateRequest) -> Result<Option<Workflow>, Error> {
        let request = self.request(Method::PUT, WORKFLOW, &[identifier]).json(update);
        answer::changed_workflow(&self.send(request, Repeat::Harmless).await?.0)
    }

    /// `PUT /v1/workflows/{identifier}/archive` or `…/unarchive`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_archived(&self, identifier: &str, archived: bool) -> Result<Option<Workflow>, Error> {
        let route = if archived {
            "/v1/workflows/{workflow_identifier}/archive"
        } else {
            "/v1/workflows/{workflow_identifier}/unarchive"
        };
        let request = self.request(Method::PUT, route, &[identifier]);
        answer::changed_workflow(&self.send(request, Repeat::Harmless).await?.0)
    }

    /// `PUT /v1/workflows/archive` or `…/unarchive` for at most 100 UUIDs. Each of them may fail individually.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_archived_many(&self, ids: &[String], archived: bool) -> Result<BulkOutcome, Error> {
        let route = if archived { "/v1/workflows/archive" } else { "/v1/workflows/unarchive" };
        let request = self.request(Method::PUT, route, &[]).json(&serde_json::json!({ "workflow_ids": ids }));
        answer::read(&self.send(request, Repeat::Harmless).await?.0)
    }

    /// Starts a run. The client never repeats this call: a second call may start a second run.
    ///
    /// # Errors
    /// [`Error::UnknownOutcome`] when the run may have started despite the error: after a timeout, a broken connection,
    /// any 5xx, or a response that makes no sense. [`Error::Transient`] only when the run cannot have started: without
    /// a connection, or after HTTP 429.
    pub async fn execute(&self, target: ExecuteTarget<'_>, body: &ExecuteRequest) -> Result<Execution, Error> {
        let request = match target {
            ExecuteTarget::Workflow(identifier) => {
                self.request(Method::POST, "/v1/workflows/{workflow_identifier}/execute", &[identifier])
            }
            ExecuteTarget::Registration(id) => {
                let route = "/v1/workflows/registrations/{workflow_registration_id}/execute";
                self.request(Method::POST, route, &[id])
            }
        };
        let (answer, _room) = self.send(request.json(body), Repeat::Harmful).await?;
        answer::execution(&answer, &body.execution_id).map_err(|error| answer::lost(Repeat::Harmful, error.to_string()))
    }

    /// `GET /v1/workflows/executions/{id}`: the newest run with that id, with its result.
    ///
    /// # Errors
    /// See [`Error`]. The API may not know a new execution for a while after its start.
    pub async fn get_execution(&self, execution_id: &str) -> Result<Execution, Error> {
        let (body, room) = self.get("/v1/workflows/executions/{execution_id}", &[execution_id], &[]).await?;
        Ok(Execution { room, ..answer::execution(&body, execution_id)? })
    }

    /// `POST /v1/workflows/executions/{id}/cancel`: asks the run to stop. The run may ignore this.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel(&self, execution_id: &str) -> Result<(), Error> {
        self.stop("/v1/workflows/executions/{execution_id}/cancel", execution_id).await
    }

    /// `POST /v1/workflows/executions/{id}/terminate`: ends the run at once.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Conflict`] when the run has ended already.
    pub async fn terminate(&self, execution_id: &str) -> Result<(), Error> {
        self.stop("/v1/workflows/executions/{execution_id}/terminate", execution_id).await
    }

    async fn stop(&self, route: &'static str, execution_id: &str) -> Result<(), Error> {
        let request = self.request(Method::POST, route, &[execution_id]);
        self.send(request, Repeat::Harmless).await.map(|_| ())
    }

    /// `GET /v1/workflows/runs`: one page of runs, most recently ended first, without internal runs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_runs(&self, filter: &RunFilter) -> Result<Page<Execution>, Error> {
        answer::runs(&self.get("/v1/workflows/runs", &[], &filter.query()).await?.0)
    }

    /// `GET /v1/workflows/runs/{run_id}`: one run by the API's database id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_run(&self, run_id: &str) -> Result<Execution, Error> {
        answer::read(&self.get("/v1/workflows/runs/{run_id}", &[run_id], &[]).await?.0)
    }

    /// `GET /v1/workflows/events/list`: one page of at most `limit` (1 to 1,000) of an execution's events.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_events<E: DeserializeOwned>(
        &self,
        execution_id: &str,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<E>, Error> {
        let mut query = vec![("workflow_exec_id", execution_id.to_owned()), ("limit", limit.to_string())];
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        answer::events(&self.get("/v1/workflows/events/list", &[], &query).await?.0)
    }
}
