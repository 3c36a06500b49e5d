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

use crate::clock::later;
use crate::platform::object::{Metadata, MetadataList};
use crate::room::{Held, Room, SHORT};
use crate::text::truncate;

/// How long one call to the API server may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long a pass over an object older than the operator's last write to it is put off.
const STALE_FOR: Duration = Duration::from_secs(5);
/// How long a deletion of an object that cannot be decoded is held up.
const UNDECODABLE_LINGERS: SignedDuration = SignedDuration::from_mins(5);

/// Why a reconcile did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server refused or could not be reached.
    #[error("the Kubernetes API: {}", describe(.0))]
    Kube(Box<kube::Error>),
    /// The API server did not answer in time.
    #[error("the Kubernetes API did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
    /// The pass panicked: a bug, but of this object's only.
    #[error("the pass panicked; this is a bug in the operator")]
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

    /// This account may not do it.
    pub fn is_forbidden(&self) -> bool {
        self.has_code(403)
    }

    /// A list that was read in pages has changed too much since.
    pub fn is_expired(&self) -> bool {
        self.has_code(410)
    }

    /// The API server's refusal, if it is one.
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

/// The longest object that the API server stores, in bytes: etcd takes requests of 1.5 MiB.
const LONGEST_OBJECT: usize = 3 << 19;
/// The longest text of an error that is passed on, in bytes.
const MAX_TEXT: usize = 1024;
/// How kube calls an answer with an error in it that is not the API server's own.
pub(super) const RECONSTRUCTED: &str = "Failed to parse error data";

/// What happened, without what was answered: a body may hold another tenant's input, or the page of a gateway.
pub fn describe(error: &kube::Error) -> String {
    let mut text = match error {
        kube::Error::Api(status) if status.reason == RECONSTRUCTED => {
            format!("something between here and the API server answered with HTTP {}", status.code)
        }
        // Its details may quote the object.
        kube::Error::Api(status) => format!("{} ({}, HTTP {})", status.message, status.reason, status.code),
        // serde's own text may quote a value.
        kube::Error::SerdeError(error) => not_understood(error),
        kube::Error::FromUtf8(_) => "its answer is not UTF-8".to_owned(),
        error => error.to_string(),
    };
    truncate(&mut text, MAX_TEXT);
    text
}

/// Says where, not what.
fn not_understood(error: &serde_json::Error) -> String {
    format!("its answer cannot be understood (line {}, column {})", error.line(), error.column())
}

/// For how long the API server may be silent on a connection that waits for it. Longer than a [watch](watching)
/// without news.
const SILENCE: Duration = Duration::from_secs(60);

/// Who the operator is for the API server: in its audit log, and, up to the slash, as the manager of the fields that it
/// writes, by which GitOps tools can be told to ignore them.
const AGENT: HeaderValue = HeaderValue::from_static(concat!("mistral-workflows-operator/", env!("CARGO_PKG_VERSION")));

/// How to talk to the API server.
///
/// kube would not say who asks, would repeat writes up to 15 times by itself, would send what is meant for the cluster
/// through the proxy that HTTPS_PROXY names for the Mistral API, and would wait for ever for the answer to a list or
/// watch whose other end is gone: a leader that goes on renewing its Lease and sees nothing any more.
pub fn tuned(mut config: kube::Config) -> kube::Config {
    config.default_retry = false;
    config.proxy_url = None;
    config.read_timeout = Some(SILENCE);
    // Counted from the request, not from when the connection fell idle.
    config.reset_reader_on_write = true;
    config.headers.push((header::USER_AGENT, AGENT));
    config
}

/// Requests to the API server that may be under way at a time, each of which has a connection of its own. As many
/// changes as an API server takes by default from all its clients (`--max-mutating-requests-inflight`).
const AT_ONCE: usize = 200;

/// A client whose requests wait for each other where there are many. A watch counts until it begins.
///
/// # Errors
/// When the certificates cannot be used.
pub fn client(config: kube::Config) -> kube::Result<Client> {
    Ok(ClientBuilder::try_from(config)?.with_layer(&ConcurrencyLimitLayer::new(AT_ONCE)).build())
}

/// Answer with an object's metadata instead of all of it.
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches>
const METADATA: HeaderValue = HeaderValue::from_static("application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1");

/// Objects that a list brings at a time at most: what is decoded together is in memory together.
pub const PAGE: u32 = 100;

/// How to watch: the API server ends each watch before the silence on its connection looks like its death.
pub fn watching() -> watcher::Config {
    watcher::Config::default().timeout(50).page_size(PAGE)
}

/// Calls the API server, with a limit on how long that may take.
///
/// # Errors
/// See [`Error`].
pub async fn call<T>(call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    call_within(TIMEOUT, call).await
}

/// The same with a limit of its own.
///
/// # Errors
/// See [`Error`].
pub async fn call_within<T>(limit: Duration, call: impl Future<Output = kube::Result<T>>) -> Result<T, Error> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(|error| {
            let error = Error::Kube(Box::new(error));
            // kube's own lines about it are withheld, since they quote whole answers. A right that is missing, or a webhook
            // that fails, is to be found all the same.
            if error.refusal().is_some() && !error.is_not_found() && !error.is_conflict() {
                tracing::debug!("{error}");
            }
            error
        }),
        Err(_) => Err(Error::Timeout(limit)),
    }
}

/// Keeps a pass that panics from ending the process, which would only meet the same object again.
///
/// # Errors
/// Those of the pass, and [`Error::Panicked`].
pub async fn contained(pass: impl Future<Output = Result<Action, Error>>) -> Result<Action, Error> {
    AssertUnwindSafe(pass).catch_unwind().await.unwrap_or(Err(Error::Panicked))
}

/// Sends a request and decodes the answer. kube's own way of doing so logs answers that it cannot decode.
async fn ask<T: DeserializeOwned>(
    client: &Client,
    request: Result<axum::http::Request<Vec<u8>>, kube::core::request::Error>,
) -> Result<T, Error> {
    let request = request.map_err(|error| Error::Kube(Box::new(kube::Error::BuildRequest(error))))?;
    let text = call(client.request_text(request)).await?;
    serde_json::from_str(&text).map_err(|error| Error::Kube(Box::new(kube::Error::SerdeError(error))))
}

/// Reads an object, of whatever depth and whatever else is in it, and the room that it takes; none if there is none.
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

/// The same by a list of one, for kinds that the operator has the right to list and not to get.
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

/// Sends a request and decodes an answer that may be long, within its room.
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

/// The name under which the API server keeps what fields of metadata this operator has written last.
pub const FIELD_MANAGER: &str = "mistral-workflows-operator";

/// When this operator, in whichever process, last wrote the metadata of an object, by the API server's clock; none unless
/// the annotation of this name is as the operator wrote it. Somebody else who has written another value since is its
/// manager now, and a removed annotation has none.
pub fn written_by_us<'a>(fields: impl Iterator<Item = &'a ManagedFieldsEntry>, annotation: &str) -> Option<Timestamp> {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:annotations"]);
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && fields.is_some_and(|all| all.get(format!("f:{annotation}")).is_some())
    };
    let times = fields.filter(is_ours).map(|entry| entry.time.as_ref().map(|time| time.0));
    // One without a time says nothing.
    times.max_by_key(|time| time.is_none()).flatten()
}

/// Changes an object's metadata by a merge patch, which can be made conditional by a `resourceVersion` in it. Returns
/// the object's new metadata.
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

/// Writes what differs between two statuses, on condition that nobody changed the object since
/// `resource_version`. Returns the object's new resource version; none if there was nothing to write.
///
/// A JSON patch rather than a merge patch: a result may hold nulls, which a merge patch takes for
/// removals. It names single fields, so that what a newer operator wrote beside them stays. Fields are compared and sent
/// as text: what an older version wrote may be deeper than can be decoded.
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
        // What comes back is not read, and may be long: a result.
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
/// When a status cannot be serialized, which none that was decoded cannot.
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

/// The operator's last write to an object: until the watch brings it back, a pass would see an older one.
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

    /// Whether `object` is older, and the newer version probably on its way.
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

/// An object that this version cannot read can still be deleted: what the finalizer stands for is left
/// undone, after giving a version that can read it the time to take over.
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
        "let go of an object that cannot be decoded; what the operator would have done first is left undone"
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
    async fn a_pass_that_panics_is_repeated_later_and_ends_nothing_else() {
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
        // Those that are given up let others go on.
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
