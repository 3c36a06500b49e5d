//! Applies the events of several watches to one store.

use std::collections::HashSet;

use kube::runtime::reflector::store::Writer;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::{Resource, ResourceExt};

use crate::platform::apiserver;
use crate::text::truncate;

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

/// A reference with name and namespace only: several queues at once hold references to tens of thousands of objects.
pub fn reference<K: Resource<DynamicType = ()>>(object: &impl Resource) -> ObjectRef<K> {
    ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default())
}

/// An object that is in the store although no watch shows it. A watch may show it later, so an older copy never replaces a
/// newer one.
#[derive(Debug)]
pub enum Guest<K: Resource<DynamicType = ()>> {
    /// The object as it was a moment ago.
    Here(K),
    /// Removes the object with this UID. With a version, only if the store holds nothing newer.
    Gone { object: ObjectRef<K>, uid: String, version: Option<String> },
}

/// Applies what is known of a guest to the store. Returns the object that this touched.
pub(super) fn admit<K>(writer: &mut Writer<K>, guest: Guest<K>) -> Option<ObjectRef<K>>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    // Versions are numbers that grow across all objects of a kind.
    let number = |version: Option<String>| version?.parse::<u64>().ok();
    let store = writer.as_reader();
    let (reference, event) = match guest {
        Guest::Here(object) => {
            let reference = reference(&object);
            let stored = store.get(&reference).and_then(|stored| number(stored.resource_version()));
            if stored.is_some() && stored >= number(object.resource_version()) {
                return None;
            }
            (reference, Event::Apply(object))
        }
        Guest::Gone { object, uid, version } => {
            let stored = store.get(&object).filter(|stored| stored.uid().as_ref() == Some(&uid))?;
            if version.is_some() && number(version) < number(stored.resource_version()) {
                return None;
            }
            (object, Event::Delete(K::clone(&stored)))
        }
    };
    writer.apply_watcher_event(&event);
    Some(reference)
}

/// One of the watches that fill a store.
#[derive(Debug)]
pub(super) struct Watch<K: Resource<DynamicType = ()>> {
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
    pub(super) fn apply(
        &mut self,
        writer: &mut Writer<K>,
        namespace: Option<&str>,
        event: Event<K>,
    ) -> Vec<ObjectRef<K>> {
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

    /// Records that the watch has failed, and logs an error that is new.
    pub(super) fn failed(&mut self, kind: &str, place: &str, error: &watcher::Error) {
        // If the error was about a list, the list starts over.
        self.listing.clear();
        let error = describe(error);
        if self.trouble != error {
            tracing::warn!(error, "the watch of {kind}s in {place} failed; the operator tries again");
            self.trouble = error;
        }
    }
}

/// Describes an error of a watch without the response body.
pub fn describe(error: &watcher::Error) -> String {
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

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

    use super::*;

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

    #[test]
    fn a_guest_takes_the_place_of_nothing_newer_and_its_end_that_of_no_other_object() {
        let (store, mut writer) = store::<ConfigMap>();
        let object = |uid: &str, version: &str| {
            let mut object = object("a", "1");
            object.metadata.uid = Some(uid.into());
            object.metadata.resource_version = Some(version.into());
            object
        };
        let reference = ObjectRef::new("1").within("a");
        let gone = |uid: &str, version: Option<&str>| Guest::Gone {
            object: ObjectRef::new("1").within("a"),
            uid: uid.into(),
            version: version.map(str::to_owned),
        };
        let stored = || store.get(&reference).and_then(|stored| stored.resource_version());
        assert_eq!(admit(&mut writer, Guest::Here(object("u", "9"))).as_ref(), Some(&reference));
        assert_eq!(admit(&mut writer, Guest::Here(object("u", "9"))), None, "nothing has changed");
        assert!(admit(&mut writer, Guest::Here(object("u", "10"))).is_some());
        assert_eq!(admit(&mut writer, Guest::Here(object("u", "9"))), None);
        assert_eq!(admit(&mut writer, gone("u", Some("9"))), None, "a watch has shown it since");
        assert_eq!(admit(&mut writer, gone("other", None)), None, "another object has the name by now");
        assert_eq!(stored().as_deref(), Some("10"));
        assert!(admit(&mut writer, gone("u", Some("10"))).is_some());
        assert_eq!(stored(), None);
        admit(&mut writer, Guest::Here(object("u", "11")));
        assert!(admit(&mut writer, gone("u", None)).is_some(), "it is gone, whatever it was last");
        assert_eq!(stored(), None);
    }
}
