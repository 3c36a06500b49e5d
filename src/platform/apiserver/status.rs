//! Writes a status: only the fields that differ, and only if nobody has changed the object.

use std::collections::BTreeMap;

use axum::http::Request;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource, ResourceExt};
use reqwest::header::{self, HeaderValue};
use serde::Serialize;
use serde_json::value::RawValue;

use super::call::ask;
use super::error::Error;
use crate::platform::decoded::Metadata;

/// The `Accept` header for an object's metadata alone.
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// The request that writes the differences between two statuses, provided that nobody has changed the object since
/// `resource_version`; none if there are no differences.
///
/// The request is a JSON patch: a result may hold nulls, which a merge patch takes for removals. The patch names single
/// fields, so that the other fields of a newer operator stay. Fields are compared and sent as text: an older version
/// may have written a value too deep to decode.
///
/// # Errors
/// When the status cannot be serialized.
pub fn status_request<K, S>(
    object: &K,
    resource_version: &str,
    old: Option<&S>,
    new: &S,
) -> Result<Option<Request<Vec<u8>>>, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    S: Serialize,
{
    let unwritable = |error| Error::Kube(Box::new(kube::Error::SerdeError(error)));
    let operations = status_patch(old, new).map_err(unwritable)?;
    if operations.is_empty() {
        return Ok(None);
    }
    let version = serde_json::value::to_raw_value(resource_version).map_err(unwritable)?;
    let mut patch = vec![Operation { op: "replace", path: "/metadata/resourceVersion".into(), value: Some(version) }];
    patch.extend(operations);
    let patch = serde_json::to_vec(&patch).map_err(unwritable)?;
    let path = format!("{}/{}/status?", K::url_path(&(), object.namespace().as_deref()), object.name_any());
    let request = Request::patch(path)
        .header(header::CONTENT_TYPE, "application/json-patch+json")
        // The response is not read. A whole object may hold a long result.
        .header(header::ACCEPT, METADATA)
        .body(patch)
        .map_err(|error| {
            Error::Kube(Box::new(kube::Error::BuildRequest(kube::core::request::Error::BuildRequest(error))))
        })?;
    Ok(Some(request))
}

/// Sends a [`status_request`]. Returns the object's new resource version.
///
/// # Errors
/// See [`Error`]; a conflict when the object has changed.
pub async fn send_status(client: &Client, request: Request<Vec<u8>>) -> Result<Option<String>, Error> {
    Ok(ask::<Metadata>(client, Ok(request)).await?.metadata.resource_version)
}

/// One operation of a JSON patch (RFC 6902).
#[derive(Debug, Serialize)]
pub struct Operation {
    op: &'static str,
    path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<Box<RawValue>>,
}

/// The operations that turn one status into another, field by field.
///
/// # Errors
/// When a status cannot be serialized. Every status that was decoded can be.
pub fn status_patch<S: Serialize>(old: Option<&S>, new: &S) -> serde_json::Result<Vec<Operation>> {
    type Fields = BTreeMap<String, Box<RawValue>>;
    let fields = |status: &S| serde_json::from_str::<Fields>(&serde_json::to_string(status)?);
    let new_fields = fields(new)?;
    let Some(old) = old else {
        let whole = Operation { op: "add", path: "/status".into(), value: Some(serde_json::value::to_raw_value(new)?) };
        return Ok(if new_fields.is_empty() { Vec::new() } else { vec![whole] });
    };
    let old = fields(old)?;
    let same = |field: &str, value: &RawValue| old.get(field).is_some_and(|old| old.get() == value.get());
    let gone = old.keys().filter(|field| !new_fields.contains_key(*field)).map(|field| Operation {
        op: "remove",
        path: format!("/status/{field}"),
        value: None,
    });
    let gone: Vec<_> = gone.collect();
    let changed = new_fields.into_iter().filter(|(field, value)| !same(field, value)).map(|(field, value)| Operation {
        op: "add",
        path: format!("/status/{field}"),
        value: Some(value),
    });
    Ok(changed.chain(gone).collect())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::platform::apiserver::{client, tuned};

    #[tokio::test]
    async fn a_result_that_was_written_does_not_come_back() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        let asked = tokio::spawn(async move {
            let (mut connection, _) = server.accept().await.unwrap();
            let mut asked = String::new();
            while !asked.contains("the result") {
                let mut part = [0; 4096];
                let read = connection.read(&mut part).await.unwrap();
                assert_ne!(read, 0, "the end came early: {asked}");
                asked.push_str(std::str::from_utf8(&part[..read]).unwrap());
            }
            let answer =
                r#"{"kind":"PartialObjectMetadata","apiVersion":"meta.k8s.io/v1","metadata":{"resourceVersion":"8"}}"#;
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
                answer.len()
            );
            connection.write_all(format!("{head}{answer}").as_bytes()).await.unwrap();
            asked.to_ascii_lowercase()
        });
        let client = client(tuned(kube::Config::new(address.parse().unwrap()))).unwrap();
        let object =
            kube::core::ObjectMeta { name: Some("n".into()), namespace: Some("team".into()), ..Default::default() };
        let object = k8s_openapi::api::core::v1::Pod { metadata: object, ..Default::default() };
        let request = status_request(&object, "7", None, &json!({ "result": "the result" })).unwrap().unwrap();
        let version = send_status(&client, request).await.unwrap();
        assert_eq!(version.as_deref(), Some("8"));
        let asked = asked.await.unwrap();
        assert!(asked.starts_with("patch /api/v1/namespaces/team/pods/n/status?"), "{asked}");
        let accepts: Vec<&str> = asked.lines().filter(|line| line.starts_with("accept:")).collect();
        assert_eq!(accepts, ["accept: application/json;as=partialobjectmetadata;g=meta.k8s.io;v=v1"]);
    }

    #[test]
    fn only_what_differs_is_written_and_nulls_survive() {
        let old = json!({ "a": 1, "b": 2, "c": 3 });
        let new = json!({ "a": 1, "b": { "x": null } });
        let patch = |old: Option<&Value>, new: &Value| json!(status_patch(old, new).unwrap());
        assert_eq!(
            patch(Some(&old), &new),
            json!([
                { "op": "add", "path": "/status/b", "value": { "x": null } },
                { "op": "remove", "path": "/status/c" },
            ])
        );
        assert_eq!(patch(Some(&new), &new), json!([]));
        assert_eq!(patch(None, &json!({})), json!([]));
        assert_eq!(patch(None, &new), json!([{ "op": "add", "path": "/status", "value": new }]));
    }
}
