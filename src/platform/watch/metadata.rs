//! A watch of metadata alone, for objects of which nothing is stored.

use std::fmt::Debug;

use axum::http::{HeaderValue, Request, header};
use futures::Stream;
use kube::client::Body;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Client, Resource};

use crate::platform::decoded::MetadataOf;
use crate::platform::watch::list;

/// The metadata of the objects that a label selector takes, and then of their changes; see `list::watched`.
pub fn watched<K>(
    client: &Client,
    namespace: Option<&str>,
    labels: &str,
    list: String,
) -> impl Stream<Item = watcher::Result<Event<MetadataOf<K>>>> + use<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + 'static,
{
    list::watched(&of_metadata(client.clone()), namespace, Some(labels), list)
}

/// A client that requests the metadata instead of the objects.
fn of_metadata(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let ask = move |mut request: Request<Body>| {
        let is_watch = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let wanted = if is_watch { "PartialObjectMetadata" } else { "PartialObjectMetadataList" };
        let accepted = HeaderValue::from_str(&format!("application/json;as={wanted};g=meta.k8s.io;v=v1"));
        if let Ok(accepted) = accepted {
            request.headers_mut().insert(header::ACCEPT, accepted);
        }
        let client = client.clone();
        async move { client.send(request).await }
    };
    Client::new(tower::service_fn(ask), namespace)
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::time::Duration;

    use futures::StreamExt;
    use k8s_openapi::api::core::v1::ConfigMap;
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::platform::watch::list::tests::{answer, api_server};

    #[tokio::test]
    async fn pages_of_long_metadata_are_short() {
        let (server, client) = api_server().await;
        let page = |names: &[&str], more: &str| {
            let items: Vec<_> = names
                .iter()
                .map(|name| {
                    let annotations = json!({ "long": "x".repeat(500_000) });
                    json!({ "metadata": { "name": name, "namespace": "a", "annotations": annotations } })
                })
                .collect();
            json!({
                "apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadataList",
                "metadata": { "resourceVersion": "9", "continue": more }, "items": items,
            })
        };
        let api_server = async {
            // kube starts over before it reports that a stream has ended.
            for _ in 0..2 {
                let asked = answer(&server, &[]).await;
                assert!(
                    asked.contains("sendInitialEvents=true") && asked.contains("PartialObjectMetadata;"),
                    "{asked}"
                );
            }
            let asked = answer(&server, &[page(&["x"; 16], "c")]).await;
            assert!(asked.contains("limit=16") && asked.contains("PartialObjectMetadataList"), "{asked}");
            // Twice as many would still fit into 8 MiB.
            let asked = answer(&server, &[page(&["x"; 8], "d")]).await;
            assert!(asked.contains("limit=8&continue=c"), "{asked}");
            let asked = answer(&server, &[page(&["last"], "")]).await;
            assert!(asked.contains("limit=8&continue=d"), "{asked}");
        };
        let mut events = pin!(watched::<ConfigMap>(&client, None, "done", "the list".into()));
        let reading = async {
            loop {
                if let Some(Ok(Event::InitApply(object))) = events.next().await
                    && object.name_any() == "last"
                {
                    return;
                }
            }
        };
        let both = async { futures::join!(api_server, reading) };
        tokio::time::timeout(Duration::from_secs(60), both).await.expect("all was asked for");
    }
}
