//! The endpoints of schedules. None can be created, so the list is empty and every id is unknown.

use hyper::StatusCode;
use serde_json::json;

use crate::query::Query;
use crate::reply::{ApiError, Reply};
use crate::request::{Answer, Handled, Request};

const MAX_PAGE: usize = 1000;

/// `GET /v1/workflows/schedules`
pub(crate) fn list(request: &Request) -> Handled {
    let mut query = Query::new(&request.query);
    query.choices("status", &["active", "paused"]);
    query.size("page_size", MAX_PAGE);
    query.finish()?;
    Answer::read(Reply::ok(&json!({ "schedules": [], "next_page_token": null })))
}

/// `GET /v1/workflows/schedules/{schedule_id}`
pub(crate) fn get() -> Handled {
    Err(ApiError::coded(StatusCode::NOT_FOUND, "WF_1201", "Schedule not found"))
}
