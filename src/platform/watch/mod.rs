//! Watches resources in all namespaces, or in some, and fills one store per kind.
//!
//! Each listed namespace has watches of its own. Readiness names a namespace that is missing, or in which the
//! operator's account has no rights, and the operator keeps trying. Work in the others goes on: a tenant who is not
//! there yet, or not any more, must not stop them. Within a namespace, a kind is listed after the kinds that it refers
//! to: while those are unknown, each of its objects would seem to refer to nothing.

mod list;
pub mod metadata;
mod scope;
mod store;
mod trim;

use std::collections::HashSet;
use std::fmt::Debug;

use futures::stream::{BoxStream, FuturesUnordered, SelectAll};
use futures::{FutureExt, StreamExt, stream};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio_util::sync::CancellationToken;

use crate::platform::health::Health;

pub use scope::{FIRST_LOOK, Scope, api, namespaces, rest, scopes};
pub use store::{Guest, describe, reference, store};
pub use trim::{MANAGED_BY, trim_for_cache};

use store::Watch;

/// Keeps the store of a kind as the API server has it, and calls `notify` for each object that appears, changes or goes.
/// A failing watch is logged once and retried, and delays no other. A namespace is listed once its `after` token is
/// cancelled; the complete list cancels `listed`. `selected` has the labels that select the objects, and guests from
/// among the others; `trim_for_cache` removes from each object what need not be kept.
pub async fn run<K, L>(
    (client, scopes, health): (&Client, &[Scope<L>], &Health),
    selected: Option<(&str, UnboundedReceiver<Guest<K>>)>,
    after: fn(&Scope<L>) -> &CancellationToken,
    listed: fn(&Scope<L>) -> &CancellationToken,
    trim_for_cache: fn(&mut K),
    mut writer: Writer<K>,
    notify: impl Fn(ObjectRef<K>),
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Debug
        + Send
        + Sync
        + 'static,
{
    let kind = K::kind(&());
    let mut watches: Vec<Watch<K>> = scopes.iter().map(|_| Watch::default()).collect();
    let (labels, mut guests) = selected.unzip();
    let mut events = events::<K, L>(client, scopes, labels, after);
    // The scopes in which the kind is no longer served. A new watch brings nothing until something changes, so the
    // operator checks when the kind is served again.
    let (mut lost, mut served_again) = (HashSet::new(), FuturesUnordered::new());
    loop {
        let (number, event) = tokio::select! {
            Some(number) = served_again.next(), if !served_again.is_empty() => {
                lost.remove(&number);
                continue;
            }
            Some(guest) = async { guests.as_mut()?.recv().await }, if guests.is_some() => {
                store::admit(&mut writer, guest).into_iter().for_each(&notify);
                continue;
            }
            event = events.next() => match event {
                Some(event) => event,
                None => return,
            },
        };
        let (scope, watch) = (&scopes[number], &mut watches[number]);
        match event {
            Ok(mut event) => {
                if !trimmed(&mut event, trim_for_cache) {
                    continue;
                }
                let complete = matches!(event, Event::InitDone);
                watch.apply(&mut writer, scope.namespace.as_deref(), event).into_iter().for_each(&notify);
                if complete {
                    listed(scope).cancel();
                    health.done(&scope.list(&kind));
                }
            }
            Err(error) => {
                scope.troubled.cancel();
                if is_not_served(&error) && lost.insert(number) {
                    served_again.push(scope.serves::<K>(client, health).map(move |()| number));
                }
                watch.failed(&kind, &scope.name(), &error);
            }
        }
    }
}

/// The events of the watches in all scopes, each with the number of its scope. A watch begins once its `after` token is
/// cancelled.
fn events<K, L>(
    client: &Client,
    scopes: &[Scope<L>],
    labels: Option<&str>,
    after: fn(&Scope<L>) -> &CancellationToken,
) -> SelectAll<BoxStream<'static, (usize, watcher::Result<Event<K>>)>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug + Send + 'static,
{
    stream::select_all(scopes.iter().enumerate().map(|(number, scope)| {
        let watch = list::watched::<K>(client, scope.namespace(), labels, scope.list(&K::kind(&())));
        let begun = after(scope).clone().cancelled_owned();
        begun.map(|()| watch).flatten_stream().map(move |event| (number, event)).boxed()
    }))
}

/// Removes from the object of an event what need not be kept. Returns whether the event can be applied: an object
/// without a name cannot be a resource of the cluster, and cannot be referred to.
fn trimmed<K: Resource<DynamicType = ()>>(event: &mut Event<K>, trim_for_cache: fn(&mut K)) -> bool {
    if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = event {
        if object.meta().name.is_none() {
            tracing::warn!("the API server sent a {} without a name; the operator ignores it", K::kind(&()));
            return false;
        }
        trim_for_cache(object);
    }
    true
}

/// Whether the API server does not know the kind, because its CRD was deleted.
fn is_not_served(error: &watcher::Error) -> bool {
    match error {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status))
        | watcher::Error::WatchFailed(kube::Error::Api(status)) => status.code == 404,
        watcher::Error::WatchError(status) => status.code == 404,
        _ => false,
    }
}
