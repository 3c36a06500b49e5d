//! Watches resources in all namespaces, or in some, and fills one store per kind.
//!
//! Each listed namespace has watches of its own. Readiness names a namespace that is missing, or in which the
//! operator's account has no rights, and the operator keeps trying. Work in the others goes on: a tenant who is not
//! there yet, or not any more, must not stop them. Within a namespace, a kind is listed after the kinds that it refers
//! to: without the Workspaces, every execution would seem to lack its own.

mod list;

use std::collections::HashSet;
use std::fmt::Debug;
use std::time::Duration;

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::api::{ListParams, WatchParams};
use kube::core::NamespaceResourceScope;
use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::api::{Workflow, WorkflowExecution, Workspace};
use crate::platform::apiserver::{self, Error};
use crate::platform::health::Health;
use crate::text::truncate;

/// The namespaces to watch, each once; an empty list stands for all of them.
///
/// # Errors
/// A sentence about the first entry that cannot be a namespace.
pub fn namespaces(given: &[String]) -> Result<Vec<String>, String> {
    // An empty environment variable counts as unset.
    if given.iter().all(|name| name.trim().is_empty()) && given.len() <= 1 {
        return Ok(Vec::new());
    }
    let mut namespaces: Vec<String> = Vec::new();
    for name in given.iter().map(|name| name.trim()) {
        if name.is_empty() {
            return Err("--namespace has an empty entry; name a namespace there, or remove the comma".into());
        }
        if !is_label(name) {
            return Err(format!(
                "--namespace: \"{name}\" cannot be a namespace: a name has up to 63 lowercase letters, digits and \
                 hyphens; separate several names with commas"
            ));
        }
        if !namespaces.iter().any(|known| known == name) {
            namespaces.push(name.to_owned());
        }
    }
    Ok(namespaces)
}

fn is_label(name: &str) -> bool {
    let inside = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&name.len()) && name.chars().all(inside) && !name.starts_with('-') && !name.ends_with('-')
}

/// The API for all namespaces, or for one.
pub fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

/// All namespaces or one of several, and how far its watches are. Each token is cancelled once its line is true.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// None for all namespaces.
    namespace: Option<String>,
    /// The namespace exists, and its resources can be listed and watched.
    pub served: CancellationToken,
    /// Its Workspaces are listed.
    pub workspaces: CancellationToken,
    /// Its Workflows are listed.
    pub workflows: CancellationToken,
    /// Its executions are listed.
    pub executions: CancellationToken,
    /// One of its lists has failed.
    pub troubled: CancellationToken,
}

/// One scope for each namespace, or one for all if no namespace is named.
pub fn scopes(namespaces: &[String]) -> Vec<Scope> {
    if namespaces.is_empty() {
        return vec![Scope::default()];
    }
    namespaces.iter().map(|name| Scope { namespace: Some(name.clone()), ..Scope::default() }).collect()
}

impl Scope {
    /// The name of the scope in readiness.
    pub fn name(&self) -> String {
        self.namespace.as_ref().map_or_else(|| "all namespaces".into(), |name| format!("the namespace {name}"))
    }

    /// The name of the list of a kind in readiness.
    pub fn list(&self, kind: &str) -> String {
        format!("the list of {kind}s in {}", self.name())
    }

    /// Waits until the executions are listed, or until a list has failed and nobody can say when they will be. Does not
    /// wait for a namespace that is not served.
    pub async fn is_tried(&self) {
        if self.served.is_cancelled() {
            tokio::select! {
                () = self.executions.cancelled() => {}
                () = self.troubled.cancelled() => {}
            }
        }
    }

    /// Waits until all kinds can be watched, and reports to readiness what is missing.
    pub async fn prepare(self, client: Client, health: &Health) {
        self.exists(&client, health).await;
        futures::join!(
            self.serves::<Workspace>(&client, health),
            self.serves::<Workflow>(&client, health),
            self.serves::<WorkflowExecution>(&client, health),
        );
        self.served.cancel();
        health.done(&self.name());
    }

    async fn exists(&self, client: &Client, health: &Health) {
        let Some(name) = &self.namespace else { return };
        let mut wait = FIRST_LOOK;
        // Without the right to get namespaces, the lists show the problem: there are no rights in a namespace that does
        // not exist.
        while matches!(apiserver::get_metadata::<Namespace>(client, None, name).await, Ok(None)) {
            health.waits(&self.name(), "it does not exist; create it, or remove it from --namespace".into());
            rest(&mut wait).await;
        }
    }

    /// Waits until resources of a kind can be listed and watched.
    async fn serves<K>(&self, client: &Client, health: &Health)
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
    {
        let (mut wait, mut lacked) = (FIRST_LOOK, None);
        loop {
            let lacks = may_watch::<K>(client, self.namespace.as_deref())
                .await
                .err()
                .map(|(verb, error)| self.lacks::<K>(verb, &error));
            if let Some((what, why)) = &lacks {
                health.waits(what, why.clone());
            }
            let lacks = lacks.map(|(what, _)| what);
            if let Some(old) = lacked.filter(|old| Some(old) != lacks.as_ref()) {
                health.done(&old);
            }
            if lacks.is_none() {
                return;
            }
            lacked = lacks;
            rest(&mut wait).await;
        }
    }

    /// What readiness waits for after this error, and why.
    fn lacks<K: Resource<DynamicType = ()>>(&self, verb: &str, error: &Error) -> (String, String) {
        let plural = K::plural(&());
        if error.is_not_found() {
            let why = "it is missing; apply the output of `mistral-workflows-operator crds`".into();
            (format!("the CRD {plural}.{}", K::group(&())), why)
        } else if error.is_forbidden() {
            let why =
                format!("grant the rights in docs/reference/rights.md, and check that the namespace exists: {error}");
            (format!("the right to {verb} {plural} in {}", self.name()), why)
        } else {
            (self.list(&K::kind(&())), error.to_string())
        }
    }
}

/// The first delay between two checks of something that is waited for.
pub const FIRST_LOOK: Duration = Duration::from_secs(1);
/// The longest delay.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// Waits, and doubles the next delay.
pub async fn rest(wait: &mut Duration) {
    tokio::time::sleep(*wait).await;
    *wait = (*wait * 2).min(LOOK_AGAIN);
}

/// Tries both verbs that a watch needs: with the right to list alone, it would see no changes. Returns the verb that
/// failed.
async fn may_watch<K>(client: &Client, namespace: Option<&str>) -> Result<(), (&'static str, Error)>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned + Debug,
{
    let listed = apiserver::list_metadata::<K>(client, namespace, &ListParams::default().limit(1)).await;
    listed.map_err(|error| ("list", error))?;
    let api = api::<K>(client, namespace);
    // The head of the response is enough; the rest is dropped.
    let watched = apiserver::call(api.watch_metadata(&WatchParams::default().timeout(1), "0")).await;
    watched.map(drop).map_err(|error| ("watch", error))
}

/// An empty store that counts as complete from the start: kinds that refer to this one are listed later.
pub fn store<K>() -> (Store<K>, Writer<K>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let (store, mut writer) = reflector::store();
    writer.apply_watcher_event(&Event::Init);
    writer.apply_watcher_event(&Event::InitDone);
    (store, writer)
}

/// Keeps the store of a kind as the API server has it, and calls `tell` for each object that appears, changes or goes.
/// A failing watch is logged once and retried, and delays no other. A namespace is listed once its `after` token is
/// cancelled; the complete list cancels `listed`. `trim_for_cache` removes from each object what need not be kept.
pub async fn keep<K>(
    (client, scopes, health): (&Client, &[Scope], &Health),
    after: fn(&Scope) -> &CancellationToken,
    listed: fn(&Scope) -> &CancellationToken,
    trim_for_cache: fn(&mut K),
    mut writer: Writer<K>,
    tell: impl Fn(ObjectRef<K>),
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
    let mut events = stream::select_all(scopes.iter().enumerate().map(|(number, scope)| {
        let watch = list::watched::<K>(client, scope.namespace.as_deref(), scope.list(&kind));
        let begun = after(scope).clone().cancelled_owned();
        begun.map(|()| watch).flatten_stream().map(move |event| (number, event)).boxed()
    }));
    // The scopes in which the kind is no longer served. A new watch brings nothing until something changes, so the
    // operator checks when the kind is served again.
    let (mut lost, mut served_again) = (HashSet::new(), FuturesUnordered::new());
    loop {
        let (number, event) = tokio::select! {
            Some(number) = served_again.next(), if !served_again.is_empty() => {
                lost.remove(&number);
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
                if let Event::Apply(object) | Event::InitApply(object) | Event::Delete(object) = &mut event {
                    // An object without a name cannot be a resource of the cluster, and cannot be referred to.
                    if object.meta().name.is_none() {
                        tracing::warn!("the API server sent a {kind} without a name; the operator ignores it");
                        continue;
                    }
                    trim_for_cache(object);
                }
                let complete = matches!(event, Event::InitDone);
                watch.apply(&mut writer, scope.namespace.as_deref(), event).into_iter().for_each(&tell);
                if complete {
                    listed(scope).cancel();
                    health.done(&scope.list(&kind));
                }
            }
            Err(error) => {
                scope.troubled.cancel();
                if is_not_served(&error) && lost.insert(number) {
                    served_again.push(async move {
                        scope.serves::<K>(client, health).await;
                        number
                    });
                }
                // If the error was about a list, the list starts over.
                watch.listing.clear();
                let error = describe(&error);
                if watch.trouble != error {
                    let place = scope.name();
                    tracing::warn!(error, "the watch of {kind}s in {place} failed; the operator tries again");
                    watch.trouble = error;
                }
            }
        }
    }
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

/// Describes an error of a watch without the response body.
fn describe(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(error) => format!("the list failed: {}", apiserver::describe(error)),
        watcher::Error::WatchStartFailed(error) => {
            format!("the watch could not start: {}", apiserver::describe(error))
        }
        watcher::Error::WatchFailed(error) => format!("the watch failed: {}", apiserver::describe(error)),
        watcher::Error::WatchError(status) => {
            let mut text = format!("the API server ended the watch: {}", status.message);
            truncate(&mut text, 512);
            text
        }
        watcher::Error::NoResourceVersion => "the API server sent no resource version".into(),
    }
}

/// The prefix of names that the operator itself writes into metadata.
const OURS: &str = "workflows.mistral.ai/";
/// The label that names the creator of an object.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Removes from an object what only the API server and kubectl need, and which may be longer than all the rest. Of
/// `managedFields`, only what `keep` returns stays. Of the annotations and labels of others, only a few names stay,
/// without values: those that `marks` accepts, and one more, which shows that there are others.
pub fn trim_for_cache<K: Resource>(
    object: &mut K,
    keep: impl Fn(&ManagedFieldsEntry) -> Option<ManagedFieldsEntry>,
    marks: impl Fn(&str) -> bool,
) {
    let meta = object.meta_mut();
    for map in [&mut meta.annotations, &mut meta.labels].into_iter().flatten() {
        let mut others = 0;
        map.retain(|name, value| {
            if name.starts_with(OURS) || name == MANAGED_BY {
                return true;
            }
            // The name stays: it shows that a person has applied the object, or that a tool keeps track of it.
            *value = String::new();
            marks(name) || {
                others += 1;
                others == 1
            }
        });
    }
    if let Some(owners) = &mut meta.owner_references {
        // Keeps the controller, wherever it stands in the list.
        owners.sort_by_key(|owner| owner.controller != Some(true));
        owners.truncate(8);
    }
    let fields = object.meta_mut().managed_fields.take().unwrap_or_default();
    let kept: Vec<_> = fields.iter().filter_map(keep).collect();
    object.meta_mut().managed_fields = Some(kept).filter(|kept| !kept.is_empty());
}

/// A reference with name and namespace only: several queues at once hold references to tens of thousands of objects.
pub fn reference<K: Resource<DynamicType = ()>>(object: &impl Resource) -> ObjectRef<K> {
    ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default())
}

/// One of the watches that fill a store.
#[derive(Debug)]
struct Watch<K: Resource<DynamicType = ()>> {
    /// The objects that an incomplete list has brought so far.
    listing: HashSet<ObjectRef<K>>,
    /// The error that was last logged; empty while the watch works.
    trouble: String,
}

impl<K: Resource<DynamicType = ()>> Default for Watch<K> {
    fn default() -> Self {
        Self { listing: HashSet::new(), trouble: String::new() }
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Watch<K> {
    /// Applies an event of this watch to the store of all namespaces. A complete list replaces only the objects of its
    /// own namespace. Returns the objects that the event touched.
    fn apply(&mut self, writer: &mut Writer<K>, namespace: Option<&str>, event: Event<K>) -> Vec<ObjectRef<K>> {
        self.trouble.clear();
        match event {
            Event::Init => {
                self.listing.clear();
                Vec::new()
            }
            Event::InitApply(object) => {
                let reference = reference::<K>(&object);
                self.listing.insert(reference.clone());
                writer.apply_watcher_event(&Event::Apply(object));
                vec![reference]
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listing);
                let ours = |object: &K| namespace.is_none() || object.namespace().as_deref() == namespace;
                let gone =
                    writer.as_reader().state_filter(|object| ours(object) && !listed.contains(&reference(object)));
                let gone = gone.into_iter().map(|object| {
                    writer.apply_watcher_event(&Event::Delete(K::clone(&object)));
                    reference(object.as_ref())
                });
                gone.collect()
            }
            Event::Apply(ref object) | Event::Delete(ref object) => {
                let reference = reference::<K>(object);
                writer.apply_watcher_event(&event);
                vec![reference]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

    fn given(names: &[&str]) -> Result<Vec<String>, String> {
        namespaces(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn each_namespace_counts_once_and_none_stands_for_all() {
        for (names, meant) in [
            (&[][..], &[][..]),
            (&[""], &[]),
            (&["team-a"], &["team-a"]),
            (&["team-b", " team-a", "team-b"], &["team-b", "team-a"]),
        ] {
            assert_eq!(given(names).unwrap(), meant, "{names:?}");
        }
    }

    #[test]
    fn what_cannot_be_a_namespace_is_refused_with_a_sentence() {
        for (names, words) in [
            (&["team-a", ""][..], "has an empty entry"),
            (&["", ""], "has an empty entry"),
            (&["Team"], "\"Team\" cannot be a namespace"),
            (&["a;b"], "names with commas"),
            (&["-a"], "cannot be a namespace"),
            (&["*"], "\"*\" cannot be a namespace"),
            (&["a".repeat(64).as_str()], "up to 63"),
        ] {
            let said = given(names).unwrap_err();
            assert!(said.contains(words), "{names:?}: {said}");
        }
    }

    fn object(namespace: &str, name: &str) -> ConfigMap {
        let metadata =
            ObjectMeta { namespace: Some(namespace.into()), name: Some(name.into()), ..ObjectMeta::default() };
        ConfigMap { metadata, ..ConfigMap::default() }
    }

    fn names(store: &Store<ConfigMap>) -> Vec<String> {
        let of = |object: &ConfigMap| format!("{}/{}", object.namespace().unwrap_or_default(), object.name_any());
        let mut names: Vec<_> = store.state().iter().map(|object| of(object)).collect();
        names.sort();
        names
    }

    #[test]
    fn a_new_list_of_one_namespace_replaces_its_objects_and_no_others() {
        let (store, mut writer) = store();
        let (mut of_a, mut of_b) = (Watch::default(), Watch::default());
        for event in
            [Event::Init, Event::InitApply(object("a", "1")), Event::InitApply(object("a", "2")), Event::InitDone]
        {
            of_a.apply(&mut writer, Some("a"), event);
        }
        for event in [Event::Init, Event::InitApply(object("b", "1")), Event::InitDone, Event::Apply(object("b", "2"))]
        {
            of_b.apply(&mut writer, Some("b"), event);
        }
        assert_eq!(names(&store), ["a/1", "a/2", "b/1", "b/2"]);

        // A list that breaks off changes only the objects that it has brought.
        of_a.apply(&mut writer, Some("a"), Event::InitApply(object("a", "2")));
        of_a.listing.clear();
        of_a.apply(&mut writer, Some("a"), Event::InitApply(object("a", "3")));
        assert_eq!(names(&store), ["a/1", "a/2", "a/3", "b/1", "b/2"]);
        let mut touched = of_a.apply(&mut writer, Some("a"), Event::InitDone);
        touched.sort_by_key(|at| at.name.clone());
        assert_eq!(touched, [ObjectRef::from_obj(&object("a", "1")), ObjectRef::from_obj(&object("a", "2"))]);
        assert_eq!(names(&store), ["a/3", "b/1", "b/2"]);

        let touched = of_b.apply(&mut writer, Some("b"), Event::Delete(object("b", "1")));
        assert_eq!(touched, [ObjectRef::from_obj(&object("b", "1"))]);
        assert_eq!(names(&store), ["a/3", "b/2"]);
    }
}
