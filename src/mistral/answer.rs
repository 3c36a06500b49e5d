//! Decodes the API's responses: from a status, headers and bytes to a value or an error. No I/O here.

use std::time::Duration;

use k8s_openapi::jiff::{Timestamp, fmt::rfc2822};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::error::Category;

use super::error::{ApiError, Error};
use super::redactor::Redactor;
use super::wire::{Execution, Page, Registration, Workflow};
use crate::json::{self, Rows};

/// The longest `Retry-After` that is honoured. Longer ones are cut to this.
pub const MAX_RETRY_AFTER: Duration = Duration::from_secs(600);

/// Whether a call may be repeated when its outcome is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeat {
    /// A second call does no harm.
    Harmless,
    /// A second call may start a second run.
    Harmful,
}

/// Decodes the body of a successful response. Invalid UTF-8 is replaced: such a character is lost anyway.
///
/// # Errors
/// [`Error::Unreadable`] if the body does not have the documented shape.
pub fn read<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    serde_json::from_str(&String::from_utf8_lossy(body)).map_err(|error| not_understood(&error))
}

/// One execution, which must be the one with this id.
///
/// # Errors
/// [`Error::Unreadable`] if the body speaks of the execution, but does not have the documented shape: the run exists.
/// [`Error::Transient`] if the body does not even name the execution, as the page of a gateway does not, or if it is about
/// another one.
pub fn execution(body: &[u8], id: &str) -> Result<Execution, Error> {
    let names_it = || String::from_utf8_lossy(body).contains(id);
    match read::<Execution>(body) {
        Ok(execution) if execution.execution_id == id => Ok(execution),
        Ok(_) => Err(lost(Repeat::Harmless, "the API answered about another execution".to_owned())),
        Err(error) if names_it() => Err(error),
        Err(error) => Err(lost(Repeat::Harmless, error.to_string())),
    }
}

/// A page of `GET /v1/workflows`.
///
/// # Errors
/// See [`read`].
pub fn workflows<R: DeserializeOwned>(body: &[u8]) -> Result<Page<R>, Error> {
    #[derive(Deserialize)]
    struct Body<R> {
        #[serde(bound(deserialize = "R: DeserializeOwned"))]
        workflows: Rows<R>,
        next_cursor: Option<String>,
    }
    read::<Body<R>>(body).map(|body| page(body.workflows, body.next_cursor))
}

/// A page of `GET /v1/workflows/registrations`.
///
/// # Errors
/// See [`read`].
pub fn registrations<R: DeserializeOwned>(body: &[u8]) -> Result<Page<R>, Error> {
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
    let read: Body<R> = self::read(body)?;
    // The API sends all rows again under the deprecated name. They are decoded only if the current name is missing.
    let rows = match read.workflow_registrations {
        Some(rows) => rows,
        None => self::read::<Deprecated<R>>(body)?.workflow_versions,
    };
    Ok(page(rows, read.next_cursor))
}

/// A page of `GET /v1/workflows/runs`.
///
/// # Errors
/// See [`read`].
pub fn runs(body: &[u8]) -> Result<Page<Execution>, Error> {
    #[derive(Deserialize)]
    struct Body {
        #[serde(alias = "runs")]
        executions: Rows<Execution>,
        next_page_token: Option<String>,
    }
    read::<Body>(body).map(|body| page(body.executions, body.next_page_token))
}

/// A page of `GET /v1/workflows/events/list`.
///
/// # Errors
/// See [`read`].
pub fn events<E: DeserializeOwned>(body: &[u8]) -> Result<Page<E>, Error> {
    #[derive(Deserialize)]
    #[serde(bound = "E: DeserializeOwned")]
    struct Body<E> {
        events: Rows<E>,
        next_cursor: Option<String>,
    }
    read::<Body<E>>(body).map(|body| page(body.events, body.next_cursor))
}

/// The workflow that `GET /v1/workflows/{identifier}` returns.
///
/// # Errors
/// See [`read`].
pub fn workflow(body: &[u8]) -> Result<Workflow, Error> {
    #[derive(Deserialize)]
    struct Body {
        workflow: Workflow,
    }
    read::<Body>(body).map(|body| body.workflow)
}

/// The workflow after a change, if the API sends it. Some published examples have `null` where the schema promises one.
///
/// # Errors
/// See [`read`].
pub fn changed_workflow(body: &[u8]) -> Result<Option<Workflow>, Error> {
    #[derive(Deserialize)]
    struct Body {
        // A change that was made must not count as failed because the workflow in the response is unreadable.
        #[serde(default, deserialize_with = "json::lenient")]
        workflow: Option<Workflow>,
    }
    read::<Body>(body).map(|body| body.workflow)
}

/// The registration that `GET /v1/workflows/registrations/{id}` returns.
///
/// # Errors
/// See [`read`].
pub fn registration(body: &[u8]) -> Result<Registration, Error> {
    #[derive(Deserialize)]
    struct Body {
        workflow_registration: Registration,
    }
    read::<Body>(body).map(|body| body.workflow_registration)
}

/// A page of rows that were decoded one by one. An empty token ends a list, as null does.
fn page<T>(rows: Rows<T>, next: Option<String>) -> Page<T> {
    Page { items: rows.rows, next: next.filter(|token| !token.is_empty()), unreadable: rows.unreadable }
}

/// Names the position, not the content: serde's own text may quote the response, which not every reader may see.
fn not_understood(error: &serde_json::Error) -> Error {
    let problem = match error.classify() {
        Category::Data => "it does not have the expected shape",
        Category::Eof => "it is incomplete",
        Category::Syntax | Category::Io => "it is not JSON",
    };
    let message =
        format!("the API's answer cannot be understood: {problem} (line {}, column {})", error.line(), error.column());
    Error::Unreadable { too_long: false, message }
}

/// Classifies an unsuccessful response by what a caller can do. `clean` redacts a text.
pub fn refusal(
    status: StatusCode,
    retry_after: Option<Duration>,
    body: &[u8],
    repeat: Repeat,
    clean: impl Fn(&str) -> String,
) -> Error {
    let said = ApiError::parse(status, body, clean);
    // Only the API itself can say that an object does not exist, or that a call is in conflict or refused for good. A
    // gateway's page with the same status proves nothing.
    let gateway = !said.is_json && !matches!(status, StatusCode::UNAUTHORIZED | StatusCode::TOO_MANY_REQUESTS);
    if gateway && status.is_client_error() || status == StatusCode::REQUEST_TIMEOUT {
        return lost(repeat, said.to_string());
    }
    // Something on the way may have passed the call on and redirected the answer.
    if status.is_redirection() && repeat == Repeat::Harmful {
        return lost(repeat, said.to_string());
    }
    match status {
        StatusCode::TOO_MANY_REQUESTS => Error::Transient { retry_after, message: said.to_string() },
        StatusCode::UNAUTHORIZED => Error::Unauthorized(said),
        StatusCode::NOT_FOUND => Error::NotFound(said),
        StatusCode::CONFLICT => Error::Conflict(said),
        status if status.is_client_error() || status.is_redirection() => Error::Rejected(said),
        _ if repeat == Repeat::Harmless => Error::Transient { retry_after, message: said.to_string() },
        _ => Error::UnknownOutcome { message: said.to_string() },
    }
}

/// The error for a call whose outcome is unknown.
pub fn lost(repeat: Repeat, message: String) -> Error {
    match repeat {
        Repeat::Harmless => Error::Transient { retry_after: None, message },
        Repeat::Harmful => Error::UnknownOutcome { message },
    }
}

/// How long the API asks the caller to wait. The header holds seconds or an HTTP date.
pub fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let at = rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(at.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(MAX_RETRY_AFTER))
}

/// Redacts the key, also in the forms that `of_key` finds, and the values that `of_values` finds.
pub fn clean(text: &str, key: &str, of_key: &Redactor, of_values: &Redactor) -> String {
    // `of_key` ignores short values, so the key is replaced here whatever its length.
    let text = text.replace(key, "[redacted]");
    of_values.text(&of_key.text(&text)).into_owned()
}

/// Redacts each text of an error: the API could echo a header, and its texts end up where everyone can read them.
pub fn redact(error: Error, clean: impl Fn(&str) -> String) -> Error {
    let clean = |text: String| clean(&text);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_answer_that_names_the_execution_says_that_its_run_exists() {
        let read = |body: &str| execution(body.as_bytes(), "run-7");
        assert_eq!(read(r#"{"execution_id":"run-7"}"#).unwrap().execution_id, "run-7");
        let unreadable = read(r#"{"execution_id":"run-7","result":NaN}"#);
        assert!(matches!(unreadable, Err(Error::Unreadable { .. })), "{unreadable:?}");
        for body in ["", "<html>Back in a minute</html>", "{}", r#"{"execution_id":"run-8"}"#, r#"{"execution_id":""}"#]
        {
            let other = read(body);
            assert!(matches!(other, Err(Error::Transient { .. })), "{body}: {other:?}");
        }
    }

    #[test]
    fn a_redirection_says_nothing_about_a_start_that_something_may_have_passed_on() {
        let answer = |repeat| refusal(StatusCode::FOUND, None, b"{}", repeat, str::to_owned);
        assert!(matches!(answer(Repeat::Harmful), Error::UnknownOutcome { .. }));
        assert!(matches!(answer(Repeat::Harmless), Error::Rejected(_)));
    }
}
