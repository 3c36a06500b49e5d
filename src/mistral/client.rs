//! One connection to the API: an origin and a key.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use reqwest::header::{ACCEPT, HeaderMap, RETRY_AFTER};
use reqwest::{Method, RequestBuilder, Response, StatusCode, redirect};
use secrecy::{ExposeSecret, SecretString};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::error::Category;
use url::Url;

use super::budget::{Budget, Class, Pace, Turn};
use super::calls::{Calls, OneMore, Status};
use super::error::{ApiError, Error};
use super::filter::{RegistrationFilter, RunFilter, WorkflowFilter};
use super::mask::Mask;
use super::pages::Pages;
use super::room::{Held, Room, SHORT};
use super::wire::{BulkOutcome, Event, ExecuteRequest, Execution, Page, Registration, UpdateRequest, WhoAmI, Workflow};
use crate::json::{self, Rows};

/// How long connecting may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole call may take, from connecting to the last byte of the answer.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest answer that is read, in bytes. Results may be 2 MB; a page of 1,000 rows is about 500 kB.
const MAX_ANSWER: usize = 8 << 20;
/// The longest `Retry-After` that is believed.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// The route of one workflow.
const WORKFLOW: &str = "/v1/workflows/{workflow_identifier}";

/// A client of one Mistral workspace. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Client {
    http: reqwest::Client,
    base: Url,
    token: Arc<SecretString>,
    /// Hides the API key.
    own_mask: Arc<Mask>,
    mask: Arc<Mask>,
    calls: Calls,
    pace: Pace,
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
    /// As the URL has it.
    pub fn name(&self) -> &'a str {
        match self {
            Self::Workflow(name) | Self::Registration(name) => name,
        }
    }
}

/// A request that is ready to be sent, and what it is counted as.
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

/// Whether a call may be made again when its outcome is not known.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Repeat {
    Harmless,
    Harmful,
}

impl Client {
    /// Makes a client for the API at `base` (scheme, host and port) with an API key.
    ///
    /// The environment's `HTTPS_PROXY`, `HTTP_PROXY` and `NO_PROXY` are honoured. No redirect is
    /// followed, so the key never reaches another origin. The process must have installed a rustls
    /// provider before.
    ///
    /// # Errors
    /// When the HTTP client cannot be built, for example without any trusted certificate authority.
    pub fn new(base: Url, token: SecretString) -> Result<Self, String> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("mistral-workflows-operator/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT)
            .redirect(redirect::Policy::none())
            // reqwest repeats requests that HTTP/2 servers refuse; a start is ours to repeat.
            .retry(reqwest::retry::never())
            .build()
            .map_err(|error| with_causes(&error))?;
        let own_mask = Arc::new(Mask::new([token.expose_secret()]));
        let (token, mask, calls) = (Arc::new(token), Arc::default(), Calls::default());
        let (room, pages) = (Room::default(), Pages::default());
        Ok(Self { http, base, token, own_mask, mask, calls, pace: Pace::Free, room, pages })
    }

    /// The same client, whose calls are counted there.
    #[must_use]
    pub fn counted_in(self, calls: Calls) -> Self {
        Self { calls, ..self }
    }

    /// The same client, in whose errors these values are not shown.
    #[must_use]
    pub fn hiding(self, mask: Mask) -> Self {
        Self { mask: Arc::new(mask), ..self }
    }

    /// The same client, whose calls are all of this turn.
    #[must_use]
    pub fn in_turn(self, turn: Arc<Turn>) -> Self {
        Self { pace: Pace::In(turn), ..self }
    }

    /// The same client, each of whose calls waits for its turn: for tasks, never for a pass over a resource.
    #[must_use]
    pub fn waiting(self, budget: Arc<Budget>, class: Class, lane: String) -> Self {
        Self { pace: Pace::Waiting { budget, class, lane }, ..self }
    }

    /// The room for what is long that comes by way of this key.
    pub fn room(&self) -> &Room {
        &self.room
    }

    /// How many rows a page of which list may have.
    pub fn pages(&self) -> &Pages {
        &self.pages
    }

    /// Where each call waits for its turn: a client whose turn has come, for one call.
    pub async fn at_its_turn(&self) -> Self {
        match &self.pace {
            Pace::Waiting { budget, class, lane } => {
                let turn = budget.take(*class, lane).await;
                self.clone().in_turn(Arc::new(turn))
            }
            Pace::Free | Pace::In(_) => self.clone(),
        }
    }

    /// Whether it calls this address with this key.
    pub fn uses(&self, base: &Url, token: &SecretString) -> bool {
        self.base == *base && self.token.expose_secret() == token.expose_secret()
    }

    /// Whether another client calls the same address with the same key.
    pub fn is_as(&self, other: &Self) -> bool {
        self.uses(&other.base, &other.token)
    }

    /// `GET /v1/workflows/workers/whoami`: whether the key is good, and whose it is.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn whoami(&self) -> Result<WhoAmI, Error> {
        self.get("/v1/workflows/workers/whoami", &[], &[]).await
    }

    /// `GET /v1/workflows`: one page of workflows, in the order of their display names.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_workflows(&self, filter: &WorkflowFilter) -> Result<Page<Workflow>, Error> {
        self.list_workflows_as(filter).await
    }

    /// The same, with as much of each row as the caller needs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_workflows_as<R: DeserializeOwned>(&self, filter: &WorkflowFilter) -> Result<Page<R>, Error> {
        #[derive(Deserialize)]
        struct Body<R> {
            #[serde(bound(deserialize = "R: DeserializeOwned"))]
            workflows: Rows<R>,
            next_cursor: Option<String>,
        }
        let body: Body<R> = self.get("/v1/workflows", &[], &filter.query()).await?;
        Ok(page(body.workflows, body.next_cursor))
    }

    /// `GET /v1/workflows/registrations`: one page of registrations.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_registrations(&self, filter: &RegistrationFilter) -> Result<Page<Registration>, Error> {
        self.list_registrations_as(filter).await
    }

    /// The same, with as much of each row as the caller needs.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_registrations_as<R: DeserializeOwned>(
        &self,
        filter: &RegistrationFilter,
    ) -> Result<Page<R>, Error> {
        #[derive(Deserialize)]
        struct Body<R> {
            #[serde(bound(deserialize = "R: DeserializeOwned"))]
            workflow_registrations: Option<Rows<R>>,
            next_cursor: Option<String>,
        }
        #[derive(Deserialize)]
        struct Deprecated<R> {
            #[serde(bound(deserialize = "R: DeserializeOwned"))]
            workflow_versions: Rows<R>,
        }
        let request = self.request(Method::GET, "/v1/workflows/registrations", &[]);
        let request = Request { http: request.http.query(&filter.query()), ..request };
        let (bytes, _room) = self.send(request, Repeat::Harmless).await?;
        let text = String::from_utf8_lossy(&bytes);
        let read = |error| not_understood(&error);
        let body: Body<R> = serde_json::from_str(&text).map_err(read)?;
        // All rows are there once more under the deprecated name: they are read only where there are no others.
        let rows = match body.workflow_registrations {
            Some(rows) => rows,
            None => serde_json::from_str::<Deprecated<R>>(&text).map_err(read)?.workflow_versions,
        };
        Ok(page(rows, body.next_cursor))
    }

    /// `GET /v1/workflows/{identifier}`: one workflow, by name or UUID, with `active`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_workflow(&self, identifier: &str) -> Result<Workflow, Error> {
        Ok(self.get::<WorkflowBody>(WORKFLOW, &[identifier], &[]).await?.workflow)
    }

    /// `GET /v1/workflows/registrations/{id}`: one registration, by UUID, with `active`.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_registration(&self, id: &str) -> Result<Registration, Error> {
        #[derive(Deserialize)]
        struct Body {
            workflow_registration: Registration,
        }
        let route = "/v1/workflows/registrations/{workflow_registration_id}";
        Ok(self.get::<Body>(route, &[id], &[]).await?.workflow_registration)
    }

    /// `PUT /v1/workflows/{identifier}`: the workflow as it is then, if the API tells.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn update_workflow(&self, identifier: &str, update: &UpdateRequest) -> Result<Option<Workflow>, Error> {
        let request = self.request(Method::PUT, WORKFLOW, &[identifier]).json(update);
        Ok(self.json::<MaybeWorkflowBody>(request, Repeat::Harmless).await?.workflow)
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
        Ok(self.json::<MaybeWorkflowBody>(request, Repeat::Harmless).await?.workflow)
    }

    /// `PUT /v1/workflows/archive` or `…/unarchive` for at most 100 UUIDs; some may fail alone.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn set_archived_many(&self, ids: &[String], archived: bool) -> Result<BulkOutcome, Error> {
        let route = if archived { "/v1/workflows/archive" } else { "/v1/workflows/unarchive" };
        let request = self.request(Method::PUT, route, &[]).json(&serde_json::json!({ "workflow_ids": ids }));
        self.json(request, Repeat::Harmless).await
    }

    /// Starts a run. Never repeated here: a second call may start a second run.
    ///
    /// # Errors
    /// [`Error::UnknownOutcome`] when the run may have started all the same: a timeout, a broken
    /// connection, any 5xx, an answer that makes no sense. [`Error::Transient`] only when it cannot
    /// have: no connection, or HTTP 429.
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
        self.json(request.json(body), Repeat::Harmful).await
    }

    /// `GET /v1/workflows/executions/{id}`: the newest run of that id, with its result.
    ///
    /// # Errors
    /// See [`Error`]. A new execution may be unknown for a while after its start.
    pub async fn get_execution(&self, execution_id: &str) -> Result<Execution, Error> {
        let request = self.request(Method::GET, "/v1/workflows/executions/{execution_id}", &[execution_id]);
        let (execution, room): (Execution, Held) = self.json_with_room(request, Repeat::Harmless).await?;
        Ok(Execution { room, ..execution })
    }

    /// `POST /v1/workflows/executions/{id}/cancel`: asks the run to stop, which it may ignore.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn cancel(&self, execution_id: &str) -> Result<(), Error> {
        self.stop("/v1/workflows/executions/{execution_id}/cancel", execution_id).await
    }

    /// `POST /v1/workflows/executions/{id}/terminate`: ends the run at once.
    ///
    /// # Errors
    /// See [`Error`]; [`Error::Conflict`] when it has ended already.
    pub async fn terminate(&self, execution_id: &str) -> Result<(), Error> {
        self.stop("/v1/workflows/executions/{execution_id}/terminate", execution_id).await
    }

    async fn stop(&self, route: &'static str, execution_id: &str) -> Result<(), Error> {
        let request = self.request(Method::POST, route, &[execution_id]);
        self.send(request, Repeat::Harmless).await.map(|_| ())
    }

    /// `GET /v1/workflows/runs`: one page of runs, those that ended last first, without internal ones.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_runs(&self, filter: &RunFilter) -> Result<Page<Execution>, Error> {
        #[derive(Deserialize)]
        struct Body {
            #[serde(alias = "runs")]
            executions: Rows<Execution>,
            next_page_token: Option<String>,
        }
        let body: Body = self.get("/v1/workflows/runs", &[], &filter.query()).await?;
        Ok(page(body.executions, body.next_page_token))
    }

    /// `GET /v1/workflows/runs/{run_id}`: one run by the API's database id.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn get_run(&self, run_id: &str) -> Result<Execution, Error> {
        self.get("/v1/workflows/runs/{run_id}", &[run_id], &[]).await
    }

    /// `GET /v1/workflows/events/list`: one page of at most `limit` (1 to 1,000) of an execution's events.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list_events(
        &self,
        execution_id: &str,
        cursor: Option<&str>,
        limit: u16,
    ) -> Result<Page<Event>, Error> {
        #[derive(Deserialize)]
        struct Body {
            events: Rows<Event>,
            next_cursor: Option<String>,
        }
        let mut query = vec![("workflow_exec_id", execution_id.to_owned()), ("limit", limit.to_string())];
        query.extend(cursor.map(|cursor| ("cursor", cursor.to_owned())));
        let body: Body = self.get("/v1/workflows/events/list", &[], &query).await?;
        Ok(page(body.events, body.next_cursor))
    }

    async fn get<T: DeserializeOwned>(
        &self,
        route: &'static str,
        parameters: &[&str],
        query: &[(&str, String)],
    ) -> Result<T, Error> {
        let request = self.request(Method::GET, route, parameters);
        self.json(Request { http: request.http.query(query), ..request }, Repeat::Harmless).await
    }

    /// A request to this route; each parameter in turn becomes a percent-encoded segment.
    fn request(&self, method: Method, route: &'static str, parameters: &[&str]) -> Request {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            let mut parameters = parameters.iter();
            segments.clear();
            for part in route.split('/').skip(1) {
                let segment = if part.starts_with('{') { parameters.next().unwrap_or(&part) } else { part };
                // The URL standard resolves `.` and `..`; nothing has such a name, nor the one sent instead.
                let dots = segment.trim_matches(['.', '\t', '\r', '\n']).is_empty();
                segments.push(if dots { "%" } else { segment });
            }
        }
        let name = method.to_string();
        let http =
            self.http.request(method, url).header(ACCEPT, "application/json").bearer_auth(self.token.expose_secret());
        Request { http, route, method: name }
    }

    async fn json<T: DeserializeOwned>(&self, request: Request, repeat: Repeat) -> Result<T, Error> {
        self.json_with_room(request, repeat).await.map(|(answer, _)| answer)
    }

    /// The answer, and the room that it takes.
    async fn json_with_room<T: DeserializeOwned>(&self, request: Request, repeat: Repeat) -> Result<(T, Held), Error> {
        let (body, room) = self.send(request, repeat).await?;
        // A byte that is no UTF-8 stands for a character that is lost anyway.
        match serde_json::from_str(&String::from_utf8_lossy(&body)) {
            Ok(answer) => Ok((answer, room)),
            Err(error) => Err(match repeat {
                Repeat::Harmless => not_understood(&error),
                Repeat::Harmful => Error::UnknownOutcome { message: not_understood(&error).to_string() },
            }),
        }
    }

    /// Sends and sorts what comes back. No text that leaves here contains the key, nor a value to hide.
    async fn send(&self, request: Request, repeat: Repeat) -> Result<(Vec<u8>, Held), Error> {
        let Request { http, route, method } = request;
        let turn = self.pace.turn().await.map_err(|left| Error::Transient {
            retry_after: Some(left),
            message: "the API has asked for fewer calls (HTTP 429), so this one was not sent".into(),
        })?;
        let begun = Instant::now();
        let under_way = OneMore::of(&self.calls.in_flight);
        let (status, outcome) = match http.send().await {
            Ok(response) => self.answer(response, repeat).await,
            Err(error) if error.is_connect() || error.is_builder() => {
                let message = self.unreachable(&error);
                (Status::of(&error), Err(Error::Transient { retry_after: None, message }))
            }
            Err(error) => (Status::of(&error), Err(self.lost(repeat, self.unreachable(&error)))),
        };
        drop(under_way);
        self.calls.made(route, method, status, begun);
        if let (Some(turn), Status::Code(429), Err(refusal)) = (&turn, status, &outcome) {
            turn.refused(refusal.retry_after());
        }
        outcome.map_err(|error| self.redact(error))
    }

    async fn answer(&self, response: Response, repeat: Repeat) -> (Status, Result<(Vec<u8>, Held), Error>) {
        let status = response.status();
        let retry_after = retry_after(response.headers());
        let code = Status::Code(status.as_u16());
        match self.read(response).await {
            Ok((body, room)) => (code, self.sort(status, retry_after, body, repeat).map(|body| (body, room))),
            // The status alone is enough to sort a refusal.
            Err(_) if status.is_client_error() => {
                (code, self.sort(status, retry_after, Vec::new(), repeat).map(|body| (body, Held::default())))
            }
            Err(Unread::TooLong) if status.is_success() && repeat == Repeat::Harmless => {
                (code, Err(Error::Unreadable { too_long: true, message: too_long() }))
            }
            Err(Unread::TooLong) => (Status::Broken, Err(self.lost(repeat, too_long()))),
            Err(Unread::NoRoom) => {
                let message = "too many long answers are being read at a time".to_owned();
                (Status::Broken, Err(self.lost(repeat, message)))
            }
            Err(Unread::Broken(status, message)) => (status, Err(self.lost(repeat, message))),
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
        let said = ApiError::parse(status, &body, |text| self.clean(text));
        // Only the API itself can say that something does not exist, is in conflict or is refused for
        // good; a gateway's page with the same status says nothing.
        let gateway = !said.is_json && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS);
        if gateway && status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
            return Err(self.lost(repeat, said.to_string()));
        }
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS => Error::Transient { retry_after, message: said.to_string() },
            StatusCode::UNAUTHORIZED => Error::Unauthorized(said),
            StatusCode::NOT_FOUND => Error::NotFound(said),
            StatusCode::CONFLICT => Error::Conflict(said),
            status if status.is_client_error() || status.is_redirection() => Error::Rejected(said),
            _ if repeat == Repeat::Harmless => Error::Transient { retry_after, message: said.to_string() },
            _ => Error::UnknownOutcome { message: said.to_string() },
        })
    }

    /// The body, and the room that it takes.
    async fn read(&self, response: Response) -> Result<(Vec<u8>, Held), Unread> {
        let length = response.content_length().and_then(|length| usize::try_from(length).ok());
        if length.is_some_and(|length| length > MAX_ANSWER) {
            return Err(Unread::TooLong);
        }
        // Where its length is not told, it is as long as it may be, once it is longer than a short one.
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
            // Nothing is waited for that is there already.
            room = room.cut_to(body.len());
        }
        Ok((body, room))
    }

    fn lost(&self, repeat: Repeat, message: String) -> Error {
        match repeat {
            Repeat::Harmless => Error::Transient { retry_after: None, message },
            Repeat::Harmful => Error::UnknownOutcome { message },
        }
    }

    /// Names the origin rather than the URL: a sentence for a condition, the same for each object.
    fn unreachable(&self, error: &reqwest::Error) -> String {
        let origin = self.base.origin().ascii_serialization();
        if error.is_timeout() {
            format!("{origin} did not answer in time")
        } else {
            format!("{origin} cannot be reached: {}", root_cause(error))
        }
    }

    /// The API could echo a header; its words end up where everyone can read them.
    fn redact(&self, error: Error) -> Error {
        let clean = |text: String| self.clean(&text);
        let clean_api = |api: ApiError| ApiError {
            code: api.code.map(clean),
            detail: clean(api.detail),
            deployments: api.deployments.into_iter().map(clean).collect(),
            ..api
        };
        match error {
            Error::Transient { retry_after, message } => Error::Transient { retry_after, message: clean(message) },
            Error::UnknownOutcome { message } => Error::UnknownOutcome { message: clean(message) },
            unreadable @ Error::Unreadable { .. } => unreadable,
            Error::NotFound(api) => Error::NotFound(clean_api(api)),
            Error::Conflict(api) => Error::Conflict(clean_api(api)),
            Error::Rejected(api) => Error::Rejected(clean_api(api)),
            Error::Unauthorized(api) => Error::Unauthorized(clean_api(api)),
        }
    }

    fn clean(&self, text: &str) -> String {
        // However short the key is.
        let text = text.replace(self.token.expose_secret(), "[redacted]");
        self.mask.text(&self.own_mask.text(&text)).into_owned()
    }
}

#[derive(Deserialize)]
struct WorkflowBody {
    workflow: Workflow,
}

/// Some published examples have `null` where the schema promises a workflow.
#[derive(Deserialize)]
struct MaybeWorkflowBody {
    // Nor is one that cannot be read a reason to take a change that was made for one that was not.
    #[serde(default, deserialize_with = "json::lenient")]
    workflow: Option<Workflow>,
}

/// Rows that were decoded one by one. An empty token ends a list as null does.
fn page<T>(rows: Rows<T>, next: Option<String>) -> Page<T> {
    Page { items: rows.rows, next: next.filter(|token| !token.is_empty()), unreadable: rows.unreadable }
}

/// Why a body was not read to its end.
enum Unread {
    /// It is longer than [`MAX_ANSWER`].
    TooLong,
    /// Other long answers took all the room for long.
    NoRoom,
    /// What came of the call, and why in words.
    Broken(Status, String),
}

fn too_long() -> String {
    format!("the API's answer is longer than {MAX_ANSWER} bytes")
}

/// Says where, not what: serde's own text may quote the answer, which is not for every reader.
fn not_understood(error: &serde_json::Error) -> Error {
    let problem = match error.classify() {
        Category::Data => "it is not of the promised shape",
        Category::Eof => "it breaks off",
        Category::Syntax | Category::Io => "it is not JSON",
    };
    let message =
        format!("the API's answer cannot be understood: {problem} (line {}, column {})", error.line(), error.column());
    Error::Unreadable { too_long: false, message }
}

/// Seconds, or an HTTP date.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
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
