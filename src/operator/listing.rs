//! How a kind is listed before it is watched.

use std::fmt::Debug;
use std::future::ready;

use axum::http::Request;
use futures::{Stream, StreamExt, stream};
use kube::client::Body;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;

use super::kubernetes;
use super::watch::api;

/// What there is of a kind and then what changes: as one stream, which the API server sends from its memory, while it may
/// have to read the pages of a list from etcd. In pages where it has no such stream, as before Kubernetes 1.34 by default,
/// and from then on if one breaks off before all has come: the next may break off as well, and a page is short.
///
/// `client` leads to the API server, `namespace` is none for all, and `list` is what the log calls it.
pub fn watched<K>(
    client: &Client,
    namespace: Option<&str>,
    list: String,
) -> impl Stream<Item = watcher::Result<Event<K>>> + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    let mut begun = false;
    let streamed =
        watcher(api(&of_now(client.clone()), namespace), kubernetes::watching().streaming_lists()).default_backoff();
    let streamed = streamed.take_while(move |event| {
        let streamed = is_streamed(&mut begun, event);
        if !streamed {
            let error = event.as_ref().err().map(ToString::to_string);
            tracing::info!(error, "the API server did not send {list} as a stream to its end, and is asked for pages");
        }
        ready(streamed)
    });
    let paged = watcher(api(client, namespace), kubernetes::watching());
    // That a list in pages begins is no sign of trouble being over, after which rests would be short again.
    let paged = paged.filter(|event| ready(!matches!(event, Ok(Event::Init)))).default_backoff();
    // What came of the stream is not of the list that follows.
    streamed.chain(stream::once(ready(Ok(Event::Init)))).chain(paged)
}

/// Whether what the watch brings goes on to be a stream: it has not refused to begin one, nor broken one off. `begun`
/// while a list has not come to its end.
fn is_streamed<K>(begun: &mut bool, event: &watcher::Result<Event<K>>) -> bool {
    match event {
        Ok(Event::Init) => !std::mem::replace(begun, true),
        Ok(Event::InitDone) => {
            *begun = false;
            true
        }
        Err(watcher::Error::WatchStartFailed(kube::Error::Api(status))) if status.is_invalid() => false,
        Err(_) => !*begun,
        Ok(_) => true,
    }
}

/// A client whose watches begin with what there is now, where they ask to begin with what there is.
///
/// kube's watcher asks for any version that the API server's cache happens to have (`resourceVersion=0`), and says itself
/// that this may be an old one. An unset version stands for the newest:
/// <https://kubernetes.io/docs/reference/using-api/api-concepts/#streaming-lists>
fn of_now(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let ask = move |request| {
        let client = client.clone();
        async move { client.send(unset_version(request)).await }
    };
    Client::new(tower::service_fn(ask), namespace)
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
mod tests {
    use std::time::Duration;

    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::{Value, json};

    use super::*;
    use crate::operator::health::Health;
    use crate::operator::watch;

    #[test]
    fn a_stream_that_is_refused_or_broken_off_is_one_no_more() {
        let invalid = || kube::Error::Api(kube::core::Status::failure("no", "Invalid").with_code(422).boxed());
        let silent =
            || kube::Error::Api(kube::core::Status::failure("later", "TooManyRequests").with_code(429).boxed());
        let object = || Ok(Event::InitApply(()));
        for (case, events, goes_on) in [
            ("refused", vec![Err(watcher::Error::WatchStartFailed(invalid()))], false),
            ("not yet", vec![Err(watcher::Error::WatchStartFailed(silent()))], true),
            ("broken off in silence", vec![Ok(Event::Init), object(), Ok(Event::Init)], false),
            (
                "broken off by an error",
                vec![Ok(Event::Init), object(), Err(watcher::Error::WatchFailed(silent()))],
                false,
            ),
            (
                "trouble after its end, and a new one",
                vec![Ok(Event::Init), Ok(Event::InitDone), Err(watcher::Error::WatchFailed(silent())), Ok(Event::Init)],
                true,
            ),
        ] {
            let mut begun = false;
            let number = events.len();
            let taken = events.iter().take_while(|event| is_streamed(&mut begun, event)).count();
            assert_eq!(taken, if goes_on { number } else { number - 1 }, "{case}");
        }
    }

    /// Answers a request with events or a list, after which the connection ends. Returns what was asked for.
    async fn answer(server: &tokio::net::TcpListener, lines: &[Value]) -> String {
        use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
        let (mut connection, _) = server.accept().await.unwrap();
        let (incoming, mut outgoing) = connection.split();
        let mut incoming = BufReader::new(incoming).lines();
        let asked = incoming.next_line().await.unwrap().unwrap();
        while incoming.next_line().await.unwrap().is_some_and(|line| !line.is_empty()) {}
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        outgoing.write_all(head.as_bytes()).await.unwrap();
        for line in lines {
            outgoing.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        }
        outgoing.shutdown().await.unwrap();
        asked
    }

    #[tokio::test]
    async fn a_list_asks_for_what_there_is_now_and_where_its_stream_breaks_off_it_is_read_in_pages() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", server.local_addr().unwrap());
        let config = kubernetes::tuned(kube::Config::new(address.parse().unwrap()));
        let client = kubernetes::client(config).unwrap();
        let (scopes, health) = (watch::scopes(&[]), Health::default());
        let (store, writer) = watch::store::<ConfigMap>();
        scopes[0].served.cancel();
        let keeping =
            watch::keep((&client, &scopes, &health), |at| &at.served, |at| &at.executions, |_| (), writer, |_| ());
        let item = |name: &str, version: &str| {
            json!({
                "apiVersion": "v1", "kind": "ConfigMap",
                "metadata": { "name": name, "namespace": "a", "resourceVersion": version },
            })
        };
        let api_server = async {
            let added = |name, version| json!({ "type": "ADDED", "object": item(name, version) });
            let asked = answer(&server, &[added("gone-meanwhile", "7"), added("kept", "8")]).await;
            assert!(asked.contains("&sendInitialEvents=true&resourceVersionMatch=NotOlderThan HTTP"), "{asked}");
            // kube begins anew before it says that a stream has ended.
            let asked = answer(&server, &[]).await;
            assert!(asked.contains("&sendInitialEvents=true"), "{asked}");
            let list = json!({
                "apiVersion": "v1", "kind": "ConfigMapList", "metadata": { "resourceVersion": "9" },
                "items": [item("kept", "8")],
            });
            let asked = answer(&server, &[list]).await;
            assert!(asked.contains("/configmaps?&limit=100 HTTP"), "{asked}");
            let asked = answer(&server, &[added("new", "10")]).await;
            assert!(asked.contains("watch=true") && asked.contains("&resourceVersion=9 HTTP"), "{asked}");
            let asked = answer(&server, &[]).await;
            assert!(asked.contains("watch=true") && asked.contains("&resourceVersion=10 HTTP"), "{asked}");
        };
        tokio::select! {
            () = keeping => unreachable!("it watches for ever"),
            done = tokio::time::timeout(Duration::from_secs(60), api_server) => done.expect("all was asked for"),
        }
        assert!(scopes[0].executions.is_cancelled());
        let mut names: Vec<_> = store.state().iter().map(|object| object.name_any()).collect();
        names.sort();
        assert_eq!(names, ["kept", "new"]);
    }
}
