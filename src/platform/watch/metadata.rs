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
