//! How a kind is listed before it is watched.

use std::fmt::Debug;
use std::future::ready;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use axum::http::Request;
use futures::{Stream, StreamExt, stream};
use kube::client::Body;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use crate::platform::apiserver;
use crate::platform::watch::scope::api;
use crate::platform::watch::store::describe;

/// The existing objects of a kind, and then its changes. Both come in one stream, which the API server sends from its
/// cache; pages of a list it may have to read from etcd. If the stream fails, pages are used from then on. An API
/// server may have no such stream: 1.33 has none by default. A stream that has broken off may do so again, while a page
/// is short.
///
/// `namespace` is none for all namespaces, and `labels` is a selector. `list` is the name of the list in the log.
pub fn watched<K>(
    client: &Client,
    namespace: Option<&str>,
    labels: Option<&str>,
    list: String,
) -> impl Stream<Item = watcher::Result<Event<K>>> + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut streamed = Streamed::Asked;
    let config = watcher::Config { label_selector: labels.map(str::to_owned), ..apiserver::watching() };
    let stream = watcher(api(&of_now(client.clone()), namespace), config.clone().streaming_lists());
    let stream = stream.default_backoff().take_while(move |event| {
        let goes_on = streamed.goes_on(event);
        if !goes_on {
            let why = event.as_ref().err().and_then(why_broken);
            tracing::info!(why, "the API server sent no stream of {list}; the operator requests pages from now on");
        }
        ready(goes_on)
    });
    let pages = watcher(api(&in_short_pages(client.clone()), namespace), config);
    // The start of a paged list does not mean that the trouble is over, so it must not reset the backoff.
    let pages = pages.filter(|event| ready(!matches!(event, Ok(Event::Init)))).default_backoff();
    // What the stream has brought is not part of the list that follows.
    stream.chain(stream::once(ready(Ok(Event::Init)))).chain(pages)
}

/// Why a stream broke off; none if this API server has no streams, which is no fault. Its refusal would read like a
/// missing right.
fn why_broken(error: &watcher::Error) -> Option<String> {
    match error {
        watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.message.contains("sendInitialEvents") => {
            None
        }
        error => Some(describe(error)),
    }
}

/// The progress of a list that was requested as a stream.
enum Streamed {
    Asked,
    Begun,
    Complete,
}

impl Streamed {
    /// Whether to stay with the stream after this event: nothing has failed before the list was complete.
    fn goes_on<K>(&mut self, event: &watcher::Result<Event<K>>) -> bool {
        let goes_on = match event {
            // The stream has ended, and kube has begun another one.
            Ok(Event::Init) => !matches!(self, Self::Begun),
            Ok(_) => true,
            Err(_) => matches!(self, Self::Complete),
        };
        match event {
            Ok(Event::Init) => *self = Self::Begun,
            Ok(Event::InitDone) => *self = Self::Complete,
            // kube requests a list next.
            Err(watcher::Error::WatchError(status)) if status.code == 410 => *self = Self::Asked,
            Ok(_) | Err(_) => {}
        }
        goes_on
    }
}

/// A client whose streams of existing objects begin with the newest state.
///
/// kube's watcher requests any version that the API server's cache happens to have (`resourceVersion=0`), which may
/// lack the newest claims. An unset version stands for the newest:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>
fn of_now(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let ask = move |request| {
        let client = client.clone();
        async move { client.send(unset_version(request)).await }
    };
    Client::new(tower::service_fn(ask), namespace)
}

/// Objects in the first page of a list: each may be as long as an object can be.
const FIRST_PAGE: usize = 16;
/// Target size of a page, in bytes: a page is in memory as a whole, as text.
const PAGE_BYTES: usize = 4 << 20;

/// A client that requests as many objects a page as fit into [`PAGE_BYTES`], judging by the page before.
///
/// The API server limits pages only by the number of objects, and a hundred of the longest are 150 MB.
fn in_short_pages(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let size = Arc::new(AtomicUsize::new(FIRST_PAGE));
    let ask = move |mut request: Request<Body>| {
        let (client, size) = (client.clone(), Arc::clone(&size));
        async move {
            let asked = size.load(Ordering::Relaxed);
            let Some(limited) = with_limit(&request.uri().to_string(), asked).and_then(|uri| uri.parse().ok()) else {
                return client.send(request).await;
            };
            *request.uri_mut() = limited;
            let (head, body) = client.send(request).await?.into_parts();
            let bytes = body.collect_bytes().await?;
            size.store(next_size(asked, bytes.len()), Ordering::Relaxed);
            Ok(axum::http::Response::from_parts(head, Body::from(bytes)))
        }
    };
    Client::new(tower::service_fn(ask), namespace)
}

/// The same list with another number of objects a page; none for a request that is no paged list.
fn with_limit(asked: &str, size: usize) -> Option<String> {
    let (before, after) = asked.split_once(&format!("limit={}", apiserver::PAGE))?;
    (after.is_empty() || after.starts_with('&')).then(|| format!("{before}limit={size}{after}"))
}

/// The number of objects for the next page, after a page of `size` objects with `bytes` bytes in all.
fn next_size(size: usize, bytes: usize) -> usize {
    let fitting = size.saturating_mul(PAGE_BYTES) / bytes.max(1);
    fitting.clamp(1, (size * 4).min(apiserver::PAGE as usize))
}

fn unset_version(mut request: Request<Body>) -> Request<Body> {
    let asked = request.uri().to_string();
    if asked.contains("sendInitialEvents=true")
        && let Some(Ok(unset)) = asked.strip_suffix("&resourceVersion=0").map(str::parse)
    {
        *request.uri_mut() = unset;
    }
    request
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use kube::core::Status;
    use serde_json::{Value, json};
    use tokio::net::TcpListener;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::platform::health::Health;
    use crate::platform::watch;

    #[test]
    fn a_stream_that_fails_before_its_list_is_complete_is_given_up() {
        let refused = || Err(watcher::Error::WatchStartFailed(kube::Error::TlsRequired));
        let failed = || Err(watcher::Error::WatchFailed(kube::Error::TlsRequired));
        let gone = || Err(watcher::Error::WatchError(Status::failure("gone", "Expired").with_code(410).boxed()));
        let object = || Ok(Event::InitApply(()));
        let (begins, ends) = (|| Ok(Event::Init), || Ok(Event::InitDone));
        for (case, events, last_too) in [
            ("refused", vec![refused()], false),
            ("ended", vec![begins(), object(), begins()], false),
            ("broken off", vec![begins(), object(), failed()], false),
            ("complete, then refused and failed", vec![begins(), object(), ends(), refused(), failed()], true),
            ("asked for anew", vec![begins(), ends(), gone(), begins(), object(), ends()], true),
            ("asked for anew and refused", vec![begins(), ends(), gone(), refused()], false),
        ] {
            let mut streamed = Streamed::Asked;
            let taken = events.iter().take_while(|event| streamed.goes_on(event)).count();
            assert_eq!(taken, events.len() - usize::from(!last_too), "{case}");
        }
    }

    #[test]
    fn an_api_server_without_streams_is_no_fault_and_any_other_refusal_is_told() {
        let refused = |message: &str, code| {
            watcher::Error::WatchStartFailed(kube::Error::Api(
                Status::failure(message, "Invalid").with_code(code).boxed(),
            ))
        };
        let no_streams = "ListOptions.meta.k8s.io \"\" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is \
                          forbidden for watch unless the WatchList feature gate is enabled";
        assert_eq!(why_broken(&refused(no_streams, 422)), None);
        let told = why_broken(&refused("configmaps is forbidden: User \"x\" cannot watch", 403)).unwrap();
        assert!(told.contains("cannot watch"), "{told}");
    }

    #[test]
    fn pages_of_long_objects_are_short_and_those_of_short_ones_soon_long() {
        assert_eq!(with_limit("/apis/x?&limit=100&continue=c", 16).as_deref(), Some("/apis/x?&limit=16&continue=c"));
        assert_eq!(with_limit("/apis/x?watch=true&resourceVersion=100", 16), None);
        let longest = 1_500_000;
        assert_eq!(next_size(FIRST_PAGE, FIRST_PAGE * longest), 2);
        assert_eq!(next_size(2, 2 * longest), 2);
        assert_eq!(next_size(1, 20 << 20), 1);
        assert_eq!((next_size(FIRST_PAGE, FIRST_PAGE * 6_500), next_size(64, 64 * 6_500)), (64, 100));
    }

    /// Answers a request with events or a list, then closes the connection. Returns the head of the request.
    pub(crate) async fn answer(server: &TcpListener, lines: &[Value]) -> String {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        let (mut connection, _) = server.accept().await.unwrap();
        let (incoming, mut outgoing) = connection.split();
        let mut incoming = BufReader::new(incoming).lines();
        let mut asked = String::new();
        while let Some(line) = incoming.next_line().await.unwrap().filter(|line| !line.is_empty()) {
            asked = asked + &line + "\n";
        }
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        outgoing.write_all(head.as_bytes()).await.unwrap();
        for line in lines {
            outgoing.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        outgoing.shutdown().await.unwrap();
        asked
    }

    pub(crate) async fn api_server() -> (TcpListener, Client) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        (server, apiserver::client(apiserver::tuned(kube::Config::new(address.parse().unwrap()))).unwrap())
    }

    fn item(name: &str, version: &str) -> Value {
        let metadata = json!({ "name": name, "namespace": "a", "resourceVersion": version });
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata })
    }

    fn added(name: &str, version: &str) -> Value {
        json!({ "type": "ADDED", "object": item(name, version) })
    }

    /// Lists and watches until `api_server` has seen all requests that it expects. Returns whether the list was
    /// complete, and the names in the store.
    async fn kept(client: &Client, api_server: impl Future<Output = ()>) -> (bool, Vec<String>) {
        let (scopes, health) = (watch::scopes::<CancellationToken>(&[]), Health::default());
        let (store, writer) = watch::store::<ConfigMap>();
        scopes[0].served.cancel();
        let all = (client, &*scopes, &health);
        let watching = watch::run(all, None, |at| &at.served, |at| &at.listed, |_| (), writer, |_| ());
        tokio::select! {
            () = watching => unreachable!("it watches for ever"),
            done = tokio::time::timeout(Duration::from_secs(60), api_server) => done.expect("all was asked for"),
        }
        let mut names: Vec<_> = store.state().iter().map(|object| object.name_any()).collect();
        names.sort();
        (scopes[0].listed.is_cancelled(), names)
    }

    const STREAM: &str = "&sendInitialEvents=true&resourceVersionMatch=NotOlderThan HTTP";

    #[tokio::test]
    async fn a_list_asks_for_what_there_is_now_and_where_its_stream_breaks_off_it_is_read_in_pages() {
        let (server, client) = api_server().await;
        let api_server = async {
            let asked = answer(&server, &[added("gone-meanwhile", "7"), added("kept", "8")]).await;
            assert!(asked.contains(STREAM), "{asked}");
            // kube starts over before it reports that a stream has ended.
            let asked = answer(&server, &[]).await;
            assert!(asked.contains(STREAM), "{asked}");
            let list = json!({
                "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "resourceVersion": "9" },
                "items": [item("kept", "8")],
            });
            let asked = answer(&server, &[list]).await;
            assert!(asked.contains("/configmaps?&limit=16 HTTP"), "{asked}");
            let asked = answer(&server, &[added("new", "10")]).await;
            assert!(asked.contains("watch=true") && asked.contains("&resourceVersion=9 HTTP"), "{asked}");
            let asked = answer(&server, &[]).await;
            assert!(asked.contains("watch=true") && asked.contains("&resourceVersion=10 HTTP"), "{asked}");
        };
        assert_eq!(kept(&client, api_server).await, (true, vec!["kept".into(), "new".into()]));
    }

    #[tokio::test]
    async fn a_list_comes_as_a_stream_and_so_does_the_next_one_once_a_watch_is_too_old() {
        let (server, client) = api_server().await;
        let mark = |version: &str| {
            let marks = json!({ "k8s.io/initial-events-end": "true" });
            let metadata = json!({ "resourceVersion": version, "annotations": marks });
            json!({ "type": "BOOKMARK", "object": { "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata } })
        };
        let too_old = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "Expired", "code": 410,
            "message": "too old resource version",
        });
        let api_server = async {
            let asked = answer(&server, &[added("gone-meanwhile", "7"), added("kept", "8"), mark("8")]).await;
            assert!(asked.contains(STREAM), "{asked}");
            let asked = answer(&server, &[json!({ "type": "ERROR", "object": too_old })]).await;
            assert!(asked.contains("watch=true") && asked.contains("&resourceVersion=8 HTTP"), "{asked}");
            let asked = answer(&server, &[added("kept", "8"), mark("9")]).await;
            assert!(asked.contains(STREAM), "{asked}");
            let asked = answer(&server, &[]).await;
            assert!(asked.contains("watch=true") && asked.contains("&resourceVersion=9 HTTP"), "{asked}");
        };
        assert_eq!(kept(&client, api_server).await, (true, vec!["kept".into()]));
    }
}
