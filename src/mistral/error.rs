//! Errors classified by what a caller can do next, not by where they came from.

use std::collections::BTreeSet;
use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::json::{self, Json, Rows};
use crate::text::truncate;

/// The longest text from the API that is passed on, in bytes: the text ends up in conditions and Events.
const MAX_DETAIL: usize = 1024;
/// In bytes. The API's own codes have some twenty characters.
const MAX_CODE: usize = 64;
/// The most validation errors that are reported from one response.
const MAX_ERRORS: usize = 20;
/// The most deployment names that are reported from one response.
const TOLD_DEPLOYMENTS: usize = 10;
/// The longest deployment name that is reported, in bytes. A spec can name deployments of at most 128 characters.
const MAX_DEPLOYMENT: usize = 128;

/// Why a call gave no usable response.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The call had no effect, or may safely be repeated. Waiting may help.
    #[error("{message}")]
    Transient {
        /// How long the API asked the caller to wait, if it did.
        retry_after: Option<Duration>,
        message: String,
    },
    /// A call that must not be made twice may or may not have taken effect.
    #[error("{message}")]
    UnknownOutcome {
        /// What happened.
        message: String,
    },
    /// The API reported success, but its response cannot be read. The call has taken effect.
    #[error("{message}")]
    Unreadable {
        /// The response is only too long. With fewer rows, it may fit.
        too_long: bool,
        message: String,
    },
    /// The named object does not exist (HTTP 404).
    #[error("{0}")]
    NotFound(ApiError),
    /// The call conflicts with the current state (HTTP 409).
    #[error("{0}")]
    Conflict(ApiError),
    /// The API understood the call and refused it. It will refuse the same call again.
    #[error("{0}")]
    Rejected(ApiError),
    /// The API did not accept the key (HTTP 401).
    #[error("{0}")]
    Unauthorized(ApiError),
}

impl Error {
    /// How long the API asked the caller to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Why a read or a change failed, classified by who can do something about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    pub kind: TroubleKind,
    pub message: String,
    /// How long the API asked the caller to wait.
    pub retry_after: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// The trouble may pass without intervention.
    Unavailable,
    /// The API no longer accepts the key.
    Unauthorized,
    /// The API refuses the call.
    Refused,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Transient { .. } | Error::UnknownOutcome { .. } | Error::Unreadable { .. } => {
                TroubleKind::Unavailable
            }
            Error::Unauthorized(_) => TroubleKind::Unauthorized,
            Error::NotFound(_) | Error::Conflict(_) | Error::Rejected(_) => TroubleKind::Refused,
        };
        Self { kind, message: error.to_string(), retry_after: error.retry_after() }
    }
}

/// Whether the words of an [`ApiError`] say that the key lacks a right (HTTP 403).
pub fn is_forbidden(said: &str) -> bool {
    said.contains("(HTTP 403")
}

/// When the operator tries again after the API could not be used, as the end of a sentence: `usually`, unless the API has
/// asked for a pause. How long a pause is differs from answer to answer, and each would be another status to write.
pub fn when_again(retry_after: Option<Duration>, usually: &str) -> &str {
    if retry_after.is_some() { "when the pause that the API asks for is over" } else { usually }
}

/// A refusal in the API's own words.
///
/// The API has several shapes of error bodies, in which every field is optional. A gateway may answer with HTML or with
/// no body at all.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The API's code, such as `WF_1101`.
    pub code: Option<String>,
    /// The API's message, at most 1 KiB.
    pub detail: String,
    /// The names of the deployments among which a `409 AMBIGUOUS_WORKFLOW` asks to choose. Of many, the first ten and
    /// the number of the others.
    pub deployments: Vec<String>,
    /// Whether the body was JSON, as the API's own bodies always are.
    pub is_json: bool,
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (HTTP {}", self.detail, self.status)?;
        match &self.code {
            Some(code) => write!(f, ", {code})"),
            None => write!(f, ")"),
        }
    }
}

impl ApiError {
    /// A run with the same execution id is still going on (`WF_1101`).
    pub fn is_already_started(&self) -> bool {
        self.code.as_deref() == Some("WF_1101")
    }

    /// The execution does not exist (`WF_1100`). A 404 without the API's own code comes from an intermediary, such as a
    /// gateway without a route, and proves nothing.
    pub fn is_no_execution(&self) -> bool {
        self.status == 404 && self.code.as_deref() == Some("WF_1100")
    }

    /// The trouble for a response that does not come from the API itself. It may pass without intervention.
    pub fn not_the_apis_own(&self) -> Trouble {
        let message = format!("the answer does not come from the Workflows API, which would add an error code: {self}");
        Trouble { kind: TroubleKind::Unavailable, message, retry_after: None }
    }

    /// Several active deployments own the workflow, and the call named none of them.
    pub fn is_ambiguous_workflow(&self) -> bool {
        self.code.as_deref() == Some("AMBIGUOUS_WORKFLOW")
    }

    /// Reads any body of an HTTP error, whatever its depth. `clean` redacts a text.
    pub(super) fn parse(status: StatusCode, body: &[u8], clean: impl Fn(&str) -> String) -> Self {
        let body = String::from_utf8_lossy(body).into_owned();
        let body = Json::from_text(body);
        let fields = body.as_ref().and_then(Json::fields).unwrap_or_default();
        let field = |name: &str| fields.iter().find(|(field, _)| field == name).map(|(_, value)| value);
        let code = field("code").and_then(|code| match code.text().as_bytes().first() {
            Some(b'"') => code.string(),
            Some(b'-' | b'0'..=b'9') => Some(code.text().to_owned()),
            _ => None,
        });
        // Redact before truncating, which could leave part of a secret.
        let code = code.map(|code| {
            let mut code = clean(&code);
            truncate(&mut code, MAX_CODE);
            code
        });
        let deployments =
            field("deployments").and_then(|names| serde_json::from_str::<Rows<String>>(names.text()).ok());
        let deployments = some_of(deployments.map(|names| names.rows).unwrap_or_default(), &clean);
        let said = field("detail").and_then(detail_text).or_else(|| field("message").and_then(detail_text));
        let mut detail = match said {
            Some(said) => said,
            None if body.is_some() => status.canonical_reason().unwrap_or("an error without a text").to_owned(),
            None => {
                format!("{}, with a body that is not JSON", status.canonical_reason().unwrap_or("an error"))
            }
        };
        detail = clean(&detail);
        truncate(&mut detail, MAX_DETAIL);
        Self { status: status.as_u16(), code, detail, deployments, is_json: body.is_some() }
    }
}

/// The first of these names in alphabetical order, whatever the API's order: the same response must make the same text,
/// and the text must not be too long for a condition.
fn some_of(names: Vec<String>, clean: impl Fn(&str) -> String) -> Vec<String> {
    let names: BTreeSet<String> = names.into_iter().collect();
    let more = names.len().saturating_sub(TOLD_DEPLOYMENTS);
    let told = names.iter().take(TOLD_DEPLOYMENTS).map(|name| {
        let mut name = clean(name);
        truncate(&mut name, MAX_DEPLOYMENT);
        name
    });
    told.chain((more > 0).then(|| format!("and {more} more"))).collect()
}

/// `detail` may be a string, a list of validation errors, or an object.
fn detail_text(detail: &Json) -> Option<String> {
    match detail.text().as_bytes().first()? {
        b'"' => detail.string().filter(|text| !text.is_empty()),
        b'[' => {
            let errors = serde_json::from_str::<Rows<ValidationError>>(detail.text()).ok()?.rows;
            let errors: Vec<String> = errors.into_iter().take(MAX_ERRORS).filter_map(ValidationError::text).collect();
            (!errors.is_empty()).then(|| errors.join("; "))
        }
        b'{' => detail.field("message").and_then(|it| it.string()).or_else(|| Some(detail.compact().text().to_owned())),
        _ => None,
    }
}

/// One entry of FastAPI's `HTTPValidationError`, without its `input`, which echoes the request.
#[derive(Deserialize)]
struct ValidationError {
    #[serde(default, deserialize_with = "json::lenient_string")]
    msg: Option<String>,
    #[serde(default, deserialize_with = "json::lenient")]
    loc: Option<Vec<Json>>,
}

impl ValidationError {
    fn text(self) -> Option<String> {
        let message = self.msg?;
        let parts: Vec<String> = self
            .loc
            .unwrap_or_default()
            .iter()
            .map(|part| part.string().unwrap_or_else(|| part.text().to_owned()))
            .collect();
        Some(if parts.is_empty() { message } else { format!("{}: {message}", parts.join(".")) })
    }
}

/// The innermost cause: "connection refused" says more than "error sending request".
pub(super) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// An error, and its innermost cause.
pub(super) fn with_causes(error: &dyn std::error::Error) -> String {
    format!("{error}: {}", root_cause(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(status: u16, body: &str) -> String {
        ApiError::parse(StatusCode::from_u16(status).unwrap(), body.as_bytes(), str::to_owned).to_string()
    }

    #[test]
    fn every_known_shape_of_error_becomes_a_sentence() {
        for (status, body, expected) in [
            (
                404,
                r#"{"detail":"Workflow execution not found","code":"WF_1100"}"#,
                "Workflow execution not found (HTTP 404, WF_1100)",
            ),
            (
                409,
                r#"{"code":"AMBIGUOUS_WORKFLOW","deployments":["a","b"]}"#,
                "Conflict (HTTP 409, AMBIGUOUS_WORKFLOW)",
            ),
            (
                422,
                r#"{"detail":[{"loc":["body","execution_ids",0],"msg":"too short","type":"x","input":"secret"}]}"#,
                "body.execution_ids.0: too short (HTTP 422)",
            ),
            (
                422,
                r#"{"detail":"Invalid input: 'x' is a required property"}"#,
                "Invalid input: 'x' is a required property (HTTP 422)",
            ),
            (401, r#"{"message":"Unauthorized","request_id":"1"}"#, "Unauthorized (HTTP 401)"),
            (
                429,
                r#"{"object":"error","message":"Rate limit exceeded","type":"rate_limited","param":null,"code":"1300"}"#,
                "Rate limit exceeded (HTTP 429, 1300)",
            ),
            (429, r#"{"message":"slow","code":1300}"#, "slow (HTTP 429, 1300)"),
            (502, "<html>Bad Gateway</html>", "Bad Gateway, with a body that is not JSON (HTTP 502)"),
            (503, "", "Service Unavailable, with a body that is not JSON (HTTP 503)"),
            (400, "[]", "Bad Request (HTTP 400)"),
            (400, r#"{"detail":{"message":"nested"}}"#, "nested (HTTP 400)"),
            (400, r#"{"detail":[1,{}],"code":[]}"#, "Bad Request (HTTP 400)"),
        ] {
            assert_eq!(parsed(status, body), expected);
        }
    }

    #[test]
    fn an_error_that_echoes_a_deep_input_is_the_refusal_that_it_is() {
        let deep = format!("{}1{}", "[".repeat(5000), "]".repeat(5000));
        let body = format!(r#"{{"detail":[{{"loc":["body","input"],"msg":"too deep","input":{deep},"ctx":{deep}}}]}}"#);
        let error = ApiError::parse(StatusCode::UNPROCESSABLE_ENTITY, body.as_bytes(), str::to_owned);
        assert_eq!((error.to_string().as_str(), error.is_json), ("body.input: too deep (HTTP 422)", true));
        let body = format!(r#"{{"detail":"half \udce9","extra":1e400,"deployments":["a",{deep}]}}"#);
        let error = ApiError::parse(StatusCode::CONFLICT, body.as_bytes(), str::to_owned);
        assert_eq!((error.to_string().as_str(), error.is_json), ("half \u{fffd} (HTTP 409)", true));
        assert_eq!(error.deployments, ["a"]);
    }

    #[test]
    fn of_many_deployments_the_first_are_told_in_the_same_order_each_time() {
        let told = |names: &[String]| {
            let body = serde_json::json!({ "code": "AMBIGUOUS_WORKFLOW", "deployments": names }).to_string();
            ApiError::parse(StatusCode::CONFLICT, body.as_bytes(), |text| text.replace("s3cret", "[redacted]"))
                .deployments
        };
        let names = |range: std::ops::Range<usize>| range.map(|n| format!("blue-{n:04}")).collect::<Vec<_>>();
        assert_eq!(
            told(&["green".into(), "s3cret".into(), "blue".into(), "green".into()]),
            ["blue", "green", "[redacted]"]
        );
        assert_eq!(told(&names(0..10)), names(0..10));
        let mut many = names(0..5000);
        many.reverse();
        assert_eq!(told(&many), [names(0..10), vec!["and 4990 more".to_owned()]].concat());
        assert!(told(&["x".repeat(1 << 20)])[0].len() <= MAX_DEPLOYMENT);
    }

    #[test]
    fn a_long_text_is_cut() {
        let error = ApiError::parse(
            StatusCode::BAD_REQUEST,
            format!(r#"{{"detail":"{}"}}"#, "é".repeat(2000)).as_bytes(),
            str::to_owned,
        );
        assert_eq!(error.detail.len(), MAX_DETAIL);
    }
}
