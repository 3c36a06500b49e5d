//! Sends one call and reads its answer, within limits of time and memory.

use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::jiff::Timestamp;
use reqwest::header::ACCEPT;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::ExposeSecret;
use serde::Serialize;

use super::answer::{self, Repeat};
use super::call_metrics::Status;
use super::client::Client;
use super::error::{Error, root_cause};
use crate::answer_memory::{Held, SHORT};
use crate::throttle::metrics::InFlightGuard;

/// The longest response body that is read, in bytes. Results may be 2 MB; a page of 1,000 rows is about 500 kB.
const MAX_ANSWER: usize = 8 << 20;

/// A request that is ready to be sent, with the route and method that the metrics count it under.
pub(super) struct Request {
    http: RequestBuilder,
    route: &'static str,
    method: String,
}

impl Request {
    pub(super) fn json(self, body: &impl Serialize) -> Self {
        Self { http: self.http.json(body), ..self }
    }
}

impl Client {
    /// Returns the response body and the memory reserved for it.
    pub(super) async fn get(
        &self,
        route: &'static str,
        parameters: &[&str],
        query: &[(&str, String)],
    ) -> Result<(Vec<u8>, Held), Error> {
        let request = self.request(Method::GET, route, parameters);
        self.send(Request { http: request.http.query(query), ..request }, Repeat::Harmless).await
    }

    /// A request to this route. The parameters become percent-encoded path segments, in order.
    pub(super) fn request(&self, method: Method, route: &'static str, parameters: &[&str]) -> Request {
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
    pub(super) async fn send(&self, request: Request, repeat: Repeat) -> Result<(Vec<u8>, Held), Error> {
        let Request { http, route, method } = request;
        let permit = self.call_mode.permit().await.map_err(|left| Error::Transient {
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
        answer::clean(text, self.token.expose_secret(), &self.key_redactor, &self.redactor)
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
