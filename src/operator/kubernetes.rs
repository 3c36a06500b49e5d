//! Small helpers around the Kubernetes client that every controller needs.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::{Patch, PatchParams, Request};
use kube::client::ClientBuilder;
use kube::core::{NamespaceResourceScope, PartialObjectMeta, Status};
use kube::runtime::controller::Action;
use kube::runtime::watcher;
use kube::{Api, Client, Resource, ResourceExt};
use reqwest::header::{self, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tower::limit::ConcurrencyLimitLayer;

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
    #[error("the Kubernetes API: {0}")]
    Kube(#[source] Box<kube::Error>),
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

/// Objects that a list brings at a time: what is decoded together is in memory together.
const PAGE: u32 = 100;

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
        Ok(answer) => answer.map_err(|error| Error::Kube(Box::new(error))),
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

/// What to do after a reconcile that failed: the same for all kinds.
pub fn after_error(error: &Error) -> Action {
    match error {
        // The newer version is on its way here, and will wake the object.
        error if error.is_conflict() => Action::requeue(Duration::from_secs(1)),
        error if error.is_not_found() => Action::await_change(),
        Error::Kube(_) | Error::Timeout(_) => Action::requeue(Duration::from_secs(5)),
        Error::Panicked => Action::requeue(Duration::from_secs(60)),
    }
}

/// Writes what differs between two statuses, on condition that nobody changed the object since
/// `resource_version`. Returns the object's new resource version; none if there was nothing to write.
///
/// A JSON patch rather than a merge patch: a result may hold nulls, which a merge patch takes for
/// removals. It names single fields, so that what a newer operator wrote beside them stays.
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
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let operations = status_patch(old.map(|old| json!(old)).as_ref(), &json!(new));
    if operations.is_empty() {
        return Ok(None);
    }
    let mut patch = vec![json!({ "op": "replace", "path": "/metadata/resourceVersion", "value": resource_version })];
    patch.extend(operations);
    let patch: json_patch::Patch = match serde_json::from_value(Value::Array(patch)) {
        Ok(patch) => patch,
        Err(error) => return Err(Error::Kube(Box::new(kube::Error::SerdeError(error)))),
    };
    let resource = Request::new(K::url_path(&(), object.namespace().as_deref()));
    let patch = Patch::Json::<()>(patch);
    let request = resource.patch_subresource("status", &object.name_any(), &PatchParams::default(), &patch);
    let mut request = request.map_err(|error| Error::Kube(Box::new(kube::Error::BuildRequest(error))))?;
    // What comes back is not read, and may be long: a result.
    request.headers_mut().insert(header::ACCEPT, METADATA);
    let written: PartialObjectMeta<K> = call(client.request(request)).await?;
    Ok(written.resource_version())
}

/// The operations that turn one status into another, field by field.
pub fn status_patch(old: Option<&Value>, new: &Value) -> Vec<Value> {
    let empty = serde_json::Map::new();
    let new = new.as_object().unwrap_or(&empty);
    let Some(old) = old.and_then(Value::as_object) else {
        return if new.is_empty() { Vec::new() } else { vec![json!({ "op": "add", "path": "/status", "value": new })] };
    };
    let mut operations = Vec::new();
    for (field, value) in new {
        if old.get(field) != Some(value) {
            operations.push(json!({ "op": "add", "path": format!("/status/{field}"), "value": value }));
        }
    }
    for field in old.keys().filter(|field| !new.contains_key(*field)) {
        operations.push(json!({ "op": "remove", "path": format!("/status/{field}") }));
    }
    operations
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
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let present = metadata.finalizers.iter().flatten().any(|name| name == finalizer);
    let (Some(deleted), true) = (&metadata.deletion_timestamp, present) else { return Ok(Action::await_change()) };
    let let_go_at = deleted.0.saturating_add(UNDECODABLE_LINGERS).unwrap_or(Timestamp::MAX);
    if let Ok(left) = Duration::try_from(let_go_at.duration_since(Timestamp::now()))
        && !left.is_zero()
    {
        return Ok(Action::requeue(left));
    }
    let finalizers = finalizers(metadata, finalizer, false);
    let patch = json!({ "metadata": { "finalizers": finalizers, "resourceVersion": metadata.resource_version } });
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    let api: Api<PartialObjectMeta<K>> = Api::namespaced(client.clone(), &namespace);
    call(api.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))).await?;
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
    use super::*;

    #[tokio::test]
    async fn a_pass_that_panics_is_repeated_later_and_ends_nothing_else() {
        let outcome = contained(async { panic!("a bug") }).await;
        assert!(matches!(outcome, Err(Error::Panicked)));
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
        assert_eq!(
            status_patch(Some(&old), &new),
            [
                json!({ "op": "add", "path": "/status/b", "value": { "x": null } }),
                json!({ "op": "remove", "path": "/status/c" }),
            ]
        );
        assert_eq!(status_patch(Some(&new), &new), Vec::<Value>::new());
        assert_eq!(status_patch(None, &json!({})), Vec::<Value>::new());
    }
}
