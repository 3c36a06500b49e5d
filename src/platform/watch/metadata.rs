//! A watch of metadata alone, for objects of which nothing is stored.

use std::borrow::Cow;
use std::fmt::Debug;
use std::marker::PhantomData;

use axum::http::{HeaderValue, Request, header};
use futures::Stream;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::client::Body;
use kube::core::NamespaceResourceScope;
use kube::runtime::watcher;
use kube::runtime::watcher::Event;
use kube::{Client, Resource};
use serde::{Deserialize, Deserializer};

use crate::platform::decoded::Metadata;
use crate::platform::watch::list;

/// The metadata of an object of a kind, however deep the object is.
#[derive(Clone, Debug)]
pub struct MetadataOf<K> {
    metadata: ObjectMeta,
    kind: PhantomData<fn() -> K>,
}

impl<'de, K> Deserialize<'de> for MetadataOf<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self { metadata: Metadata::deserialize(deserializer)?.metadata, kind: PhantomData })
    }
}

impl<K: Resource> Resource for MetadataOf<K> {
    type DynamicType = K::DynamicType;
    type Scope = K::Scope;

    fn kind(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::kind(dt)
    }

    fn group(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::group(dt)
    }

    fn version(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::version(dt)
    }

    fn plural(dt: &Self::DynamicType) -> Cow<'_, str> {
        K::plural(dt)
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

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
