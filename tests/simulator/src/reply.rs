//! An endpoint's answer before it is sent.

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self {
            status,
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            // Cannot fail: our own types and `Value` have only string keys.
            body: serde_json::to_vec(body).unwrap_or_default().into(),
        }
    }

    pub(crate) fn text(status: StatusCode, content_type: &str, body: String) -> Self {
        Self { status, content_type: Some(content_type.to_owned()), headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    pub(crate) fn no_content() -> Self {
        Self { status: StatusCode::NO_CONTENT, content_type: None, headers: Vec::new(), body: Bytes::new() }
    }
}

/// An error answer of the API: a status and the body that goes with it.
#[derive(Debug)]
pub(crate) struct ApiError {
    status: StatusCode,
    body: Value,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body }
    }

    /// The human-readable text.
    pub(crate) fn detail(&self) -> &Value {
        &self.body["detail"]
    }

    /// `{"detail"}`, the shape of errors without an application code.
    pub(crate) fn plain(status: StatusCode, detail: &str) -> Self {
        Self::new(status, json!({ "detail": detail }))
    }

    /// `{"detail","code"}`, the shape of application errors.
    pub(crate) fn coded(status: StatusCode, code: &str, detail: &str) -> Self {
        Self::new(status, json!({ "detail": detail, "code": code }))
    }

    /// `404` with the documented code.
    pub(crate) fn not_found(detail: &str) -> Self {
        Self::coded(StatusCode::NOT_FOUND, "WF_1100", detail)
    }

    /// `409 WF_1102`, which includes the status of the finished execution.
    pub(crate) fn not_running(status: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            json!({ "detail": "Workflow not running", "code": "WF_1102", "status": status }),
        )
    }

    /// An internal error. Its `detail` is always this text.
    pub(crate) fn internal(status: StatusCode, code: &str) -> Self {
        Self::coded(status, code, "An error occurred")
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self::json(error.status, &error.body)
    }
}
