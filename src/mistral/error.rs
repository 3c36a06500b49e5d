//! Errors sorted by consequence: what a caller can do next, not where they came from.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::Value;

use crate::api::conditions::truncate;

/// The longest text of the API that is passed on, in bytes: it ends up in conditions and Events.
const MAX_DETAIL: usize = 1024;
/// Those of the API have some twenty characters.
const MAX_CODE: usize = 64;

/// Why a call gave no usable answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Error {
    /// The call had no effect, or may safely be made again; waiting may help.
    #[error("{message}")]
    Transient {
        /// How long the API asked to wait, if it did.
        retry_after: Option<Duration>,
        /// What happened.
        message: String,
    },
    /// A call that must not be made twice may or may not have taken effect.
    #[error("{message}")]
    UnknownOutcome {
        /// What happened.
        message: String,
    },
    /// The thing named does not exist (HTTP 404).
    #[error("{0}")]
    NotFound(ApiError),
    /// The call contradicts the present state (HTTP 409).
    #[error("{0}")]
    Conflict(ApiError),
    /// The API understood and refused; the same call will be refused again.
    #[error("{0}")]
    Rejected(ApiError),
    /// The API key was not accepted (HTTP 401).
    #[error("{0}")]
    Unauthorized(ApiError),
}

impl Error {
    /// How long the API asked to wait, if it did.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Transient { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Why a question has no answer, or a change was not made, by who can do something about it.
#[derive(Clone, Debug, PartialEq)]
pub struct Trouble {
    /// What kind of trouble it is.
    pub kind: TroubleKind,
    /// What happened.
    pub message: String,
    /// How long the API asked to wait.
    pub retry_after: Option<Duration>,
}

/// Kinds of [`Trouble`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TroubleKind {
    /// It may pass by itself.
    Unavailable,
    /// The key is no longer good.
    Unauthorized,
    /// The API refuses.
    Refused,
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        let kind = match &error {
            Error::Transient { .. } | Error::UnknownOutcome { .. } => TroubleKind::Unavailable,
            Error::Unauthorized(_) => TroubleKind::Unauthorized,
            Error::NotFound(_) | Error::Conflict(_) | Error::Rejected(_) => TroubleKind::Refused,
        };
        Self { kind, message: error.to_string(), retry_after: error.retry_after() }
    }
}

/// A refusal in the API's own words.
///
/// The API has several shapes of error bodies, all of them optional in every field; a gateway may
/// answer with HTML or nothing at all.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// HTTP status.
    pub status: u16,
    /// The API's code, such as `WF_1101`.
    pub code: Option<String>,
    /// What the API said, at most 1 KiB.
    pub detail: String,
    /// The deployments between which a `409 AMBIGUOUS_WORKFLOW` asks to choose.
    pub deployments: Vec<String>,
    /// Whether the body was JSON, as the API's own always is.
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
    /// The same execution id runs already (`WF_1101`).
    pub fn is_already_started(&self) -> bool {
        self.code.as_deref() == Some("WF_1101")
    }

    /// Several active deployments own the workflow, and none was named.
    pub fn is_ambiguous_workflow(&self) -> bool {
        self.code.as_deref() == Some("AMBIGUOUS_WORKFLOW")
    }

    /// Reads whatever body came with an HTTP error; `clean` takes out of a text what it must not show.
    pub(super) fn parse(status: StatusCode, body: &[u8], clean: impl Fn(&str) -> String) -> Self {
        let body: Option<Value> = serde_json::from_slice(body).ok();
        let field = |name: &str| body.as_ref().and_then(|body| body.get(name));
        let code = field("code").and_then(|code| match code {
            Value::String(code) => Some(code.clone()),
            Value::Number(code) => Some(code.to_string()),
            _ => None,
        });
        // Before the cuts, which could leave a part of a secret.
        let code = code.map(|code| {
            let mut code = clean(&code);
            truncate(&mut code, MAX_CODE);
            code
        });
        let deployments: Vec<String> = field("deployments")
            .and_then(Value::as_array)
            .map(|names| names.iter().filter_map(Value::as_str).map(str::to_owned).collect())
            .unwrap_or_default();
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

/// `detail` may be a string, a list of validation errors, or an object.
fn detail_text(detail: &Value) -> Option<String> {
    match detail {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Array(errors) => {
            let errors: Vec<String> = errors.iter().filter_map(validation_error).collect();
            (!errors.is_empty()).then(|| errors.join("; "))
        }
        Value::Object(object) => {
            object.get("message").and_then(Value::as_str).map(str::to_owned).or_else(|| Some(detail.to_string()))
        }
        _ => None,
    }
}

/// One entry of FastAPI's `HTTPValidationError`, without its `input`, which echoes what was sent.
fn validation_error(error: &Value) -> Option<String> {
    let message = error.get("msg")?.as_str()?;
    let at = error.get("loc").and_then(Value::as_array).map(|loc| {
        let parts: Vec<String> =
            loc.iter().map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect();
        parts.join(".")
    });
    Some(match at {
        Some(at) if !at.is_empty() => format!("{at}: {message}"),
        _ => message.to_owned(),
    })
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
    fn a_long_text_is_cut() {
        let error = ApiError::parse(
            StatusCode::BAD_REQUEST,
            format!(r#"{{"detail":"{}"}}"#, "é".repeat(2000)).as_bytes(),
            str::to_owned,
        );
        assert_eq!(error.detail.len(), MAX_DETAIL);
    }
}
