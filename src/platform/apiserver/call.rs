//! Sends one request to the API server, within a limit of time.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::error::Error;

/// How long one call to the API server may take.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Calls the API server with the default time limit.
///
/// # Errors
/// See [`Error`].
pub async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    call_within(TIMEOUT, call).await
}

/// Calls the API server, for no longer than `limit`.
///
/// # Errors
/// See [`Error`].
pub async fn call_within<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| {
            let error = Error::Kube(Box::new(error));
            // kube's own log lines are withheld, since they quote whole responses. This one still shows a missing right
            // or a failing webhook.
            if error.refusal().is_some() && !error.is_not_found() && !error.is_conflict() {
                tracing::debug!("{error}");
            }
            error
        }),
        Err(_) => Err(Error::Timeout(limit)),
    }
}

/// Sends a request and decodes the response. kube's own method logs responses that it cannot decode.
pub(super) async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T, Error> {
    let request = request.map_err(|error| Error::Kube(Box::new(kube::Error::BuildRequest(error))))?;
    let text = call(client.request_text(request)).await?;
    serde_json::from_str(&text).map_err(|error| Error::Kube(Box::new(kube::Error::SerdeError(error))))
}

/// What an Event about this object refers to.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}
