//! Small helpers around the Kubernetes client that every controller needs.

use std::collections::BTreeMap;
use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::{AsyncReadExt, FutureExt};
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{GetParams, ListParams, Patch, PatchParams, Request};
use kube::client::ClientBuilder;
use kube::core::{NamespaceResourceScope, Status};
use kube::runtime::controller::Action;
use kube::runtime::watcher;
use kube::{Client, Resource, ResourceExt};
use reqwest::header::{self, HeaderValue};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::json;
use serde_json::value::RawValue;
use tower::limit::ConcurrencyLimitLayer;

use crate::answer_memory::{Held, Room, SHORT};
use crate::clock::later;
use crate::platform::decoded::{Metadata, MetadataList};
use crate::text::truncate;

/// How long one call to the API server may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// For how long after a write a reconcile that sees an older object is put off.
const STALE_FOR: Duration = Duration::from_secs(5);
/// How long after its deletion was requested an object that cannot be decoded keeps its finalizer.
const UNDECODABLE_LINGERS: SignedDuration = SignedDuration::from_mins(5);

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused the call or could not be reached.
    #[error("the Kubernetes API: {}", describe(.0))]
    Kube(Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the Kubernetes API did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The reconcile panicked. This is a bug, but it affects only this object.
    #[error("the reconcile panicked; this is a bug in the operator")]
    Panicked,
}

impl Error {
    /// Somebody else changed the object first.
    pub fn is_conflict(&self) -> bool {
        self.has_code(409)
    }

    /// The object is gone.
    pub fn is_not_found(&self) -> bool {
        self.has_code(404)
    }

    /// The API server forbids the call.
    pub fn is_forbidden(&self) -> bool {
        self.has_code(403)
    }

    /// A paged list has expired: too much has changed since its first page.
    pub fn is_expired(&self) -> bool {
        self.has_code(410)
    }

    /// The API server's refusal, if the error is one.
    pub fn refusal(&self) -> Option<&Status> {
        match self {
            Self::Kube(error) => match &**error {
                kube::Error::Api(status) => Some(status),
                _ => None,
            },
            Self::Timeout(_) | Self::Panicked => None,
        }
    }

    fn has_code(&self, code: u16) -> bool {
        self.refusal().is_some_and(|status| status.code == code)
    }
}

/// The longest object that the API server stores, in bytes: etcd takes requests of up to 1.5 MiB.
const LONGEST_OBJECT: usize = 3 << 19;
/// The longest text of an error that is passed on, in bytes.
const MAX_TEXT: usize = 1024;
/// The `reason` that kube gives to an error response that does not come from the API server itself.
pub(super) const RECONSTRUCTED: &str = "Failed to parse error data";

/// Describes an error without the response body, which may hold another tenant's input or a gateway's page.
pub fn describe(error: &kube::Error) -> String {
    let mut text = match error {
        kube::Error::Api(status) if status.reason == RECONSTRUCTED => {
            format!("something between the operator and the API server answered with HTTP {}", status.code)
        }
        // The details of the status are left out: they may quote the object.
        kube::Error::Api(status) => format!("{} ({}, HTTP {})", status.message, status.reason, status.code),
        // serde's message may quote a value.
        kube::Error::SerdeError(error) => not_understood(error),
        kube::Error::FromUtf8(_) => "its answer is not UTF-8".to_owned(),
        error => error.to_string(),
    };
    truncate(&mut text, MAX_TEXT);
    text
}

/// Reports the position of the error, not the text there.
fn not_understood(error: &serde_json::Error) -> String {
    format!("its answer cannot be understood (line {}, column {})", error.line(), error.column())
}

/// Longest silence of the API server on a connection with a pending response. Longer than any [watch](watching).
const SILENCE: Duration = Duration::from_secs(60);

/// The operator's name in the API server's audit log. The part up to the slash is also the manager of the fields that
/// the operator writes. GitOps tools can be told to ignore a manager's fields.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("mistral-workflows-operator/", env!("CARGO_PKG_VERSION")));

/// Adapts kube's defaults for calls to the API server.
///
/// By default, kube does not identify the operator, and repeats writes up to 15 times. It sends requests to the cluster
/// through the proxy that HTTPS_PROXY names for the Mistral API. It waits forever for the response to a list or watch
/// whose other end is gone: a leader would go on renewing its Lease and see no more changes.
pub fn tuned(mut config: kube::Config) -> kube::Config {
    config.default_retry = false;
    config.proxy_url = None;
    config.read_timeout = Some(SILENCE);
    // The timeout counts from the request, not from when the connection fell idle.
    config.reset_reader_on_write = true;
    config.headers.push((header::USER_AGENT, AGENT));
    config
}

/// Requests to the API server that may be in flight at a time. Each has a connection of its own. By default, an API
/// server takes as many changes from all its clients (`--max-mutating-requests-inflight`).
const AT_ONCE: usize = 200;

/// A client whose requests queue when too many are in flight. A watch counts until it begins.
///
/// # Errors
/// When the certificates cannot be used.
pub fn client(config: kube::Config) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&ConcurrencyLimitLayer::new(AT_ONCE)).build())
}

/// The `Accept` header for an object's metadata alone.
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Objects in a page of a list, at most: objects that are decoded together are in memory together.
pub const PAGE: u32 = 100;

/// Configures a watch: the API server ends it before its silent connection would count as dead.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(50).page_size(PAGE)
}

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

/// Keeps a panic in a reconcile from ending the process: a new process would only meet the same object again.
///
/// # Errors
/// Those of the reconcile, and [`Error::Panicked`].
pub async fn contained(reconcile: impl Future<Output = Result<Action, Error>>) -> Result<Action, Error> {
    AssertUnwindSafe(reconcile).catch_unwind().await.unwrap_or(Err(Error::Panicked))
}

/// Sends a request and decodes the response. kube's own method logs responses that it cannot decode.
async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T, Error> {
    let request = request.map_err(|error| Error::Kube(Box::new(kube::Error::BuildRequest(error))))?;
    let text = call(client.request_text(request)).await?;
    serde_json::from_str(&text).map_err(|error| Error::Kube(Box::new(kube::Error::SerdeError(error))))
}

/// Reads an object of any depth and content, and reserves memory for it. None if there is no such object.
///
/// # Errors
/// See [`Error`].
pub async fn get<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
    client: &Client,
    room: &Room,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<(T, Held)>, Error> {
    let request = Request::new(K::url_path(&(), namespace)).get(name, &GetParams::default());
    match read(client, room, request).await {
        Ok(read) => Ok(Some(read)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the object through a list of one, for kinds that the operator has the right to list but not to get.
///
/// # Errors
/// See [`Error`].
pub async fn get_by_list<K: Resource<DynamicType = ()>, T: DeserializeOwned>(
    client: &Client,
    room: &Room,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<(T, Held)>, Error> {
    #[derive(Deserialize)]
    #[serde(bound = "T: DeserializeOwned")]
    struct List<T> {
        items: Option<Vec<T>>,
    }
    let this = ListParams::default().fields(&format!("metadata.name={name}"));
    let request = Request::new(K::url_path(&(), namespace)).list(&this);
    let (list, held): (List<T>, Held) = read(client, room, request).await?;
    Ok(list.items.unwrap_or_default().into_iter().next().map(|object| (object, held)))
}

/// Sends a request and decodes a response that may be long. Takes the memory from `room`.
async fn read<T: DeserializeOwned>(
    client: &Client,
    room: &Room,
    request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<(T, Held), Error> {
    let request = request.map_err(|error| Error::Kube(Box::new(kube::Error::BuildRequest(error))))?;
    let reading = async {
        let mut answer = std::pin::pin!(client.request_stream(request).await?);
        let (mut text, mut held) = (Vec::new(), Held::default());
        loop {
            let mut part = [0; 16 << 10];
            let length = answer.read(&mut part).await.map_err(kube::Error::ReadEvents)?;
            if length == 0 {
                return Ok((text, held));
            }
            if text.len() <= SHORT && text.len() + length > SHORT {
                let full = || std::io::Error::other("too many long objects are being read at a time");
                held = room.take(LONGEST_OBJECT).await.ok_or_else(|| kube::Error::ReadEvents(full()))?;
            }
            text.extend_from_slice(&part[..length]);
        }
    };
    let (text, held) = call(reading).await?;
    match serde_json::from_slice(&text) {
        Ok(object) => Ok((object, held.cut_to(text.len()))),
        Err(error) => Err(Error::Kube(Box::new(kube::Error::SerdeError(error)))),
    }
}

/// Reads an object's metadata; none if there is no such object.
///
/// # Errors
/// See [`Error`].
pub async fn get_metadata<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<ObjectMeta>, Error> {
    let request = Request::new(K::url_path(&(), namespace)).get_metadata(name, &GetParams::default());
    match ask::<Metadata>(client, request).await {
        Ok(object) => Ok(Some(object.metadata)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the metadata of a page of objects.
///
/// # Errors
/// See [`Error`].
pub async fn list_metadata<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: Option<&str>,
    page: &ListParams,
) -> Result<MetadataList, Error> {
    let request = Request::new(K::url_path(&(), namespace)).list_metadata(page);
    ask(client, request).await
}

/// The name under which the API server records which metadata fields this operator wrote last.
pub const FIELD_MANAGER: &str = "mistral-workflows-operator";

/// When this operator, in any process, last wrote the metadata of an object, by the API server's clock. None unless the
/// annotation still has the value that the operator wrote: a client that writes another value becomes the annotation's
/// manager, and a removed annotation has no manager.
pub fn written_by_us<'a>(fields: impl Iterator<Item = &'a ManagedFieldsEntry>, annotation: &str) -> Option<Timestamp> {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:annotations"]);
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && fields.is_some_and(|all| all.get(format!("f:{annotation}")).is_some())
    };
    let times = fields.filter(is_ours).map(|entry| entry.time.as_ref().map(|time| time.0));
    // If any matching entry lacks a time, the time is unknown.
    times.max_by_key(|time| time.is_none()).flatten()
}

/// Changes an object's metadata by a merge patch. A `resourceVersion` in the patch makes the change conditional.
/// Returns the object's new metadata.
///
/// # Errors
/// See [`Error`]; a conflict when the object has changed.
pub async fn patch_metadata<K: Resource<DynamicType = ()>>(
    client: &Client,
    namespace: &str,
    name: &str,
    metadata: serde_json::Value,
) -> Result<ObjectMeta, Error> {
    let patch = Patch::Merge(json!({ "metadata": metadata }));
    let request = Request::new(K::url_path(&(), Some(namespace))).patch_metadata(
        name,
        &PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() },
        &patch,
    );
    ask::<Metadata>(client, request).await.map(|object| object.metadata)
}

/// Writes the differences between two statuses, provided that nobody has changed the object since `resource_version`.
/// Returns the object's new resource version; none if there was nothing to write.
///
/// The request is a JSON patch: a result may hold nulls, which a merge patch takes for removals. The patch names single
/// fields, so that the other fields of a newer operator stay. Fields are compared and sent as text: an older version
/// may have written a value too deep to decode.
///
/// # Errors
/// See [`Error`]; a conflict when the object has changed.
pub async fn write_status<K, S>(
    client: &Client,
    object: &K,
    resource_version: &str,
    old: Option<&S>,
    new: &S,
) -> Result<Option<String>, Error>
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
    let request = axum::http::Request::patch(path)
        .header(header::CONTENT_TYPE, "application/json-patch+json")
        // The response is not read. A whole object may hold a long result.
        .header(header::ACCEPT, METADATA)
        .body(patch)
        .map_err(kube::core::request::Error::BuildRequest);
    Ok(ask::<Metadata>(client, request).await?.metadata.resource_version)
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

/// The operator's last write to an object. Until the watch brings it back, a reconcile would see an older version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    resource_version: String,
    at: Instant,
}

impl Written {
    /// A write that was made just now.
    pub fn now(resource_version: String) -> Self {
        Self { resource_version, at: Instant::now() }
    }

    /// Whether `object` is older than the write, and the newer version probably on its way.
    pub fn is_ahead_of<K: Resource>(&self, object: &K) -> bool {
        let number = |text: &str| text.parse::<u128>().ok();
        match (object.resource_version().as_deref().and_then(number), number(&self.resource_version)) {
            (Some(seen), Some(written)) => seen < written && self.at.elapsed() < STALE_FOR,
            _ => false,
        }
    }
}

/// The object's finalizers with or without `ours`.
pub fn finalizers(metadata: &ObjectMeta, ours: &str, present: bool) -> Vec<String> {
    let others = metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != ours).cloned();
    others.chain(present.then(|| ours.to_owned())).collect()
}

/// Lets an object that this version cannot decode be deleted. First gives a version that can decode it the time to take
/// over, then removes the finalizer and leaves its work undone.
///
/// # Errors
/// See [`Error`].
pub async fn let_go_of_undecodable<K>(client: &Client, metadata: &ObjectMeta, finalizer: &str) -> Result<Action, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let present = metadata.finalizers.iter().flatten().any(|name| name == finalizer);
    let (Some(deleted), true) = (&metadata.deletion_timestamp, present) else { return Ok(Action::await_change()) };
    let let_go_at = later(deleted.0, UNDECODABLE_LINGERS);
    if let Ok(left) = Duration::try_from(let_go_at.duration_since(Timestamp::now()))
        && !left.is_zero()
    {
        return Ok(Action::requeue(left));
    }
    let finalizers = finalizers(metadata, finalizer, false);
    let patch = json!({ "finalizers": finalizers, "resourceVersion": metadata.resource_version });
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    patch_metadata::<K>(client, &namespace, &name, patch).await?;
    tracing::warn!(
        kind = %K::kind(&()), namespace, name,
        "removed the finalizer of an object that cannot be decoded, without doing the finalizer's work"
    );
    Ok(Action::await_change())
}

/// What an Event about this object refers to.
pub fn reference<K: Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    object.object_ref(&())
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[tokio::test]
    async fn a_reconcile_that_panics_is_repeated_later_and_ends_nothing_else() {
        let outcome = contained(async { panic!("a bug") }).await;
        assert!(matches!(outcome, Err(Error::Panicked)));
    }

    #[test]
    fn an_annotation_is_ours_until_somebody_else_has_written_another_value() {
        let entry = |manager: &str, subresource: Option<&str>, annotation: &str| {
            let metadata = json!({ "f:annotations": { format!("f:{annotation}"): {} } });
            let entry = json!({
                "manager": manager, "subresource": subresource, "time": "2026-11-30T08:00:00Z",
                "fieldsV1": { "f:metadata": metadata },
            });
            serde_json::from_value::<ManagedFieldsEntry>(entry).unwrap()
        };
        let (ours, theirs) = (entry(FIELD_MANAGER, None, "a"), entry("kubectl", None, "a"));
        let time = ours.time.as_ref().unwrap().0;
        assert_eq!(written_by_us([&theirs, &ours].into_iter(), "a"), Some(time));
        assert_eq!(written_by_us([&ours].into_iter(), "b"), None);
        assert_eq!(written_by_us([&theirs].into_iter(), "a"), None);
        assert_eq!(written_by_us([&entry(FIELD_MANAGER, Some("status"), "a")].into_iter(), "a"), None);
        let timeless = ManagedFieldsEntry { time: None, ..ours.clone() };
        assert_eq!(written_by_us([&ours, &timeless].into_iter(), "a"), None);
    }

    #[tokio::test]
    async fn ten_thousand_writes_do_not_open_ten_thousand_connections() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", silent.local_addr().unwrap());
        let client = client(tuned(kube::Config::new(address.parse().unwrap()))).unwrap();
        let writes: Vec<_> = (0..3 * AT_ONCE)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.apiserver_version().await })
            })
            .collect();
        let mut opened = Vec::new();
        let more = async |opened: &mut Vec<_>| opened.push(silent.accept().await.unwrap());
        while opened.len() < AT_ONCE {
            tokio::time::timeout(Duration::from_secs(60), more(&mut opened)).await.expect("fewer than are allowed");
        }
        assert!(
            tokio::time::timeout(Duration::from_secs(1), more(&mut opened)).await.is_err(),
            "more than are allowed"
        );
        // Requests that are given up make room for others.
        writes[..AT_ONCE].iter().for_each(|write| write.abort());
        tokio::time::timeout(Duration::from_secs(60), more(&mut opened)).await.expect("nobody goes on");
    }

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
        let version = write_status(&client, &object, "7", None, &json!({ "result": "the result" })).await.unwrap();
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
