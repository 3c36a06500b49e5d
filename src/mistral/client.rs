//! One connection to the API: an origin and a key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

use super::answer::{self, Repeat};
use super::call_metrics::{Calls, Status};
use super::error::Error;
use super::filter::{RegistrationFilter, RunFilter, WorkflowFilter};
use super::pages::Pages;
use super::redactor::Redactor;
use super::wire::{BulkOutcome, ExecuteRequest, Execution, Page, Registration, UpdateRequest, WhoAmI, Workflow};
use crate::answer_memory::{Held, Room, SHORT};
use crate::throttle::metrics::InFlightGuard;
use crate::throttle::{Budget, Permit, Priority};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Limit for a whole call, from connecting to the last byte of the response.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest response body that is read, in bytes. Results may be 2 MB; a page of 1,000 rows is about 500 kB.
const MAX_ANSWER: usize = 8 << 20;

const WORKFLOW: &str = "/v1/workflows/{workflow_identifier}";

/// A client of one Mistral workspace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Arc<SecretString>,
    /// Redacts the API key.
    own_mask: Arc<Redactor>,
    mask: Arc<Redactor>,
    calls: Calls,
    pace: CallMode,
    room: Room,
    pages: Pages,
}

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

/// A request that is ready to be sent, with the route and method that the metrics count it under.
struct Request {
    http: RequestBuilder,
    route: &'static str,
    method: String,
}

impl Request {
    fn json(self, body: &impl Serialize) -> Self {
        Self { http: self.http.json(body), ..self }
    }
}

/// How the calls of a client get their permits.
#[derive(Clone, Debug, Default)]
enum CallMode {
    /// Calls need no permit.
    #[default]
    Free,
    /// All calls use this permit.
    In(Arc<Permit>),
    /// Each call waits for a permit of its own.
    Waiting { budget: Arc<Budget>, priority: Priority, flow: String },
}

impl CallMode {
    /// The permit of a call that is about to be sent.
    ///
    /// # Errors
    /// If nothing may be sent, with the time that is left until then.
    async fn permit(&self) -> Result<Option<Arc<Permit>>, Duration> {
        match self {
            Self::Free => Ok(None),
            Self::In(permit) => permit.spend().map(|()| Some(Arc::clone(permit))),
            Self::Waiting { budget, priority, flow } => loop {
                let permit = budget.take(*priority, flow).await;
                if permit.spend().is_ok() {
                    return Ok(Some(Arc::new(permit)));
                }
            },
        }
    }
}

impl Client {
    /// Makes a client for the API at `base` (scheme, host and port) with an API key.
    ///
    /// Honours `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` from the environment. Follows no redirect, so the key never
    /// reaches another origin. The process must have installed a rustls provider first.
    ///
    /// # Errors
    /// When the HTTP client cannot be built, for example without any trusted certificate authority.
    pub fn new(base: Url, token: SecretString) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("mistral-workflows-operator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            // By default, reqwest repeats requests that an HTTP/2 server refuses. Only the operator may repeat a start.
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| with_causes(&error))?;
        let own_mask = Arc::new(Redactor::new([token.expose_secret()]));
        let (token, mask, calls) = (Arc::new(token), Arc::default(), Calls::default());
        let (room, pages) = (Room::default(), Pages::default());
        Ok(Self { http, base, token, own_mask, mask, calls, pace: CallMode::Free, room, pages })
    }

    /// Counts the calls of this client in `calls`.
    #[must_use]
    pub fn counted_in(self, calls: Calls) -> Self {
        Self { calls, ..self }
    }

    /// Redacts the values of `mask` in the errors of this client.
    #[must_use]
    pub fn hiding(self, mask: Redactor) -> Self {
        Self { mask: Arc::new(mask), ..self }
    }

    /// Makes all calls of this client with this permit.
    #[must_use]
    pub fn with_permit(self, permit: Arc<Permit>) -> Self {
        Self { pace: CallMode::In(permit), ..self }
    }

    /// Makes each call of this client wait for a permit of its own: for tasks, never for reconciles.
    #[must_use]
    pub fn waiting(self, budget: Arc<Budget>, priority: Priority, flow: String) -> Self {
        Self { pace: CallMode::Waiting { budget, priority, flow }, ..self }
    }

    /// The memory limit for long responses and inputs of this key.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// The page size of each list.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Returns a client for one call. If the calls of this client wait for permits, waits for the permit of that call.
    pub async fn with_its_permit(&self) -> Self {
        match &self.pace {
            CallMode::Waiting { budget, priority, flow } => {
                let permit = budget.take(*priority, flow).await;
                self.clone().with_permit(Arc::new(permit))
            }
            CallMode::Free | CallMode::In(_) => self.clone(),
        }
    }

    /// Whether this client calls this address with this key.
    pub fn uses(&self, base: &Url, token: &SecretString) -> bool {
        self.base == *base && self.token.expose_secret() == token.expose_secret()
    }

    /// Whether `other` calls the same address with the same key.
    pub fn is_as(&self, other: &Self) -> bool {
        self.uses(&other.base, &other.token)
    }

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
        let (body, _room) = self.send(request.json(body), Repeat::Harmful).await?;
        answer::read(&body).map_err(|error| answer::lost(Repeat::Harmful, error.to_string()))
    }

    /// `GET /v1/workflows/executions/{id}`: the newest run with that id, with its result.
    ///
    /// # Errors
    /// See [`Error`]. The API may not know a new execution for a while after its start.
    pub async fn get_execution(&self, execution_id: &str) -> Result<Execution, Error> {
        let (body, room) = self.get("/v1/workflows/executions/{execution_id}", &[execution_id], &[]).await?;
        Ok(Execution { room, ..answer::read(&body)? })
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

    /// Returns the response body and the memory reserved for it.
    async fn get(
        &self,
        route: &'static str,
        parameters: &[&str],
        query: &[(&str, String)],
    ) -> Result<(Vec<u8>, Held), Error> {
        let request = self.request(Method::GET, route, parameters);
        self.send(Request { http: request.http.query(query), ..request }, Repeat::Harmless).await
    }

    /// A request to this route. The parameters become percent-encoded path segments, in order.
    fn request(&self, method: Method, route: &'static str, parameters: &[&str]) -> Request {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            let mut parameters = parameters.iter();
            segments.clear();
            for part in route.split('/').skip(1) {
                let segment = if part.starts_with('{') { parameters.next().unwrap_or(&part) } else { part };
                // The URL standard resolves `.` and `..`. Nothing has such a name, or the name `%` that is sent
                // instead.
                let dots = segment.trim_matches(['.', '\t', '\r', '\n']).is_empty();
                segments.push(if dots { "%" } else { segment });
            }
        }
        let name = method.to_string();
        let http =
            self.http.request(method, url).header(ACCEPT, "application/json").bearer_auth(self.token.expose_secret());
        Request { http, route, method: name }
    }

    /// Sends a request and classifies the outcome. No error text contains the key or a value to redact.
    async fn send(&self, request: Request, repeat: Repeat) -> Result<(Vec<u8>, Held), Error> {
        let Request { http, route, method } = request;
        let permit = self.pace.permit().await.map_err(|left| Error::Transient {
            retry_after: Some(left),
            message: "the API has asked for fewer calls (HTTP 429), so this one was not sent".into(),
        })?;
        let begun = Instant::now();
        let under_way = InFlightGuard::of(&self.calls.in_flight);
        let (status, outcome) = match http.send().await {
            Ok(response) => self.answer(response, repeat).await,
            Err(error) if error.is_connect() || error.is_builder() => {
                let message = self.unreachable(&error);
                (Status::of(&error), Err(Error::Transient { retry_after: None, message }))
            }
            Err(error) => (Status::of(&error), Err(answer::lost(repeat, self.unreachable(&error)))),
        };
        drop(under_way);
        self.calls.made(route, method, status, begun);
        if let (Some(permit), Status::Code(429), Err(refusal)) = (&permit, status, &outcome) {
            permit.refused(refusal.retry_after());
        }
        outcome.map_err(|error| answer::redact(error, |text| self.clean(text)))
    }

    async fn answer(&self, response: Response, repeat: Repeat) -> (Status, Result<(Vec<u8>, Held), Error>) {
        let status = response.status();
        let retry_after = answer::retry_after(response.headers(), Timestamp::now());
        let code = Status::Code(status.as_u16());
        match self.read(response).await {
            Ok((body, room)) => (code, self.sort(status, retry_after, body, repeat).map(|body| (body, room))),
            // The status alone is enough to classify a refusal.
            Err(_) if status.is_client_error() => {
                (code, self.sort(status, retry_after, Vec::new(), repeat).map(|body| (body, Held::default())))
            }
            Err(Unread::TooLong) if status.is_success() && repeat == Repeat::Harmless => {
                (code, Err(Error::Unreadable { too_long: true, message: too_long() }))
            }
            Err(Unread::TooLong) => (Status::Broken, Err(answer::lost(repeat, too_long()))),
            Err(Unread::NoRoom) => {
                let message = "too many long answers are being read at a time".to_owned();
                (Status::Broken, Err(answer::lost(repeat, message)))
            }
            Err(Unread::Broken(status, message)) => (status, Err(answer::lost(repeat, message))),
        }
    }

    fn sort(
        &self,
        status: StatusCode,
        retry_after: Option<Duration>,
        body: Vec<u8>,
        repeat: Repeat,
    ) -> Result<Vec<u8>, Error> {
        if status.is_success() {
            return Ok(body);
        }
        Err(answer::refusal(status, retry_after, &body, repeat, |text| self.clean(text)))
    }

    /// Returns the body and the memory reserved for it.
    async fn read(&self, response: Response) -> Result<(Vec<u8>, Held), Unread> {
        let length = response.content_length().and_then(|length| usize::try_from(length).ok());
        if length.is_some_and(|length| length > MAX_ANSWER) {
            return Err(Unread::TooLong);
        }
        // A body without a declared length counts as `MAX_ANSWER` bytes once it is longer than `SHORT`.
        let mut room = self.room.take(length.unwrap_or_default()).await.ok_or(Unread::NoRoom)?;
        let mut body = Vec::with_capacity(length.unwrap_or_default());
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let broken =
                |error| Unread::Broken(Status::of(&error), format!("the answer broke off: {}", root_cause(&error)));
            let chunk = chunk.map_err(broken)?;
            if body.len() + chunk.len() > MAX_ANSWER {
                return Err(Unread::TooLong);
            }
            if length.is_none() && body.len() <= SHORT && body.len() + chunk.len() > SHORT {
                room = self.room.take(MAX_ANSWER).await.ok_or(Unread::NoRoom)?;
            }
            body.extend_from_slice(&chunk);
        }
        if length.is_none() && body.len() <= MAX_ANSWER / 2 {
            // The body is in memory already, so this only shrinks the reservation and waits for nothing.
            room = room.cut_to(body.len());
        }
        Ok((body, room))
    }

    /// Names the origin rather than the URL: a sentence for a condition should be the same for every object.
    fn unreachable(&self, error: &reqwest::Error) -> String {
        let origin = self.base.origin().ascii_serialization();
        if error.is_timeout() {
            format!("{origin} did not answer in time")
        } else {
            format!("{origin} cannot be reached: {}", root_cause(error))
        }
    }

    fn clean(&self, text: &str) -> String {
        answer::clean(text, self.token.expose_secret(), &self.own_mask, &self.mask)
    }
}

/// Why a body was not read to its end.
enum Unread {
    /// The body is longer than [`MAX_ANSWER`].
    TooLong,
    /// Other long responses held all the memory for too long.
    NoRoom,
    /// The status for the metrics, and the reason in words.
    Broken(Status, String),
}

fn too_long() -> String {
    format!("the API's answer is longer than {MAX_ANSWER} bytes")
}

/// The innermost cause: "connection refused" says more than "error sending request".
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    format!("{error}: {}", root_cause(error))
}
