//! What an endpoint answers, before it becomes bytes on a connection.

use hyper::StatusCode;
use hyper::body::Bytes;
use serde::Serialize;
use serde_json::{Value, json};

/// A complete HTTP answer.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    pub(crate) status: StatusCode,
    pub(crate) content_type: Option<String>,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Reply {
    /// An answer with a JSON body.
    pub(crate) fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self {
            status,
            content_type: Some("application/json".to_owned()),
            headers: Vec::new(),
            // Our own types and `Value` have string keys only, so this cannot fail.
            body: serde_json::to_vec(body).unwrap_or_default().into(),
        }
    }

    /// An answer with a body of another kind.
    pub(crate) fn text(status: StatusCode, content_type: &str, body: String) -> Self {
        Self { status, content_type: Some(content_type.to_owned()), headers: Vec::new(), body: body.into() }
    }

    /// `200` with a JSON body.
    pub(crate) fn ok(body: &impl Serialize) -> Self {
        Self::json(StatusCode::OK, body)
    }

    /// `204`.
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
    /// Any status with any body.
    pub(crate) fn new(status: StatusCode, body: Value) -> Self {
        Self { status, body }
    }

    /// The text for people.
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

    /// `409 WF_1102`, which also tells the status of the finished execution.
    pub(crate) fn not_running(status: &str) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            json!({ "detail": "Workflow not running", "code": "WF_1102", "status": status }),
        )
    }

    /// An error of the server's own making: its `detail` never says more than this.
    pub(crate) fn internal(status: StatusCode, code: &str) -> Self {
        Self::coded(status, code, "An error occurred")
    }
}

impl From<ApiError> for Reply {
    fn from(error: ApiError) -> Self {
        Self::json(error.status, &error.body)
    }
}
