//! Reads and changes the metadata of objects alone.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use k8s_openapi::jiff::Timestamp;
use kube::api::{GetParams, ListParams, Patch, PatchParams, Request};
use kube::{Client, Resource, ResourceExt};
use serde_json::json;

use super::call::ask;
use super::error::Error;
use crate::platform::decoded::{Metadata, MetadataList};
use crate::platform::names::FIELD_MANAGER;

/// For how long after a write a reconcile that sees an older object is put off.
const STALE_FOR: Duration = Duration::from_secs(5);

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

/// Changes an object's metadata by a merge patch. A `resourceVersion` in the patch makes the change conditional.
/// Returns the object's new metadata.
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

/// The object's finalizers with or without `ours`.
pub fn finalizers(metadata: &ObjectMeta, ours: &str, present: bool) -> Vec<String> {
    let others = metadata.finalizers.iter().flatten().filter(|finalizer| *finalizer != ours).cloned();
    others.chain(present.then(|| ours.to_owned())).collect()
}

/// When this operator, in any process, last wrote the metadata of an object, by the API server's clock. None unless the
/// annotation still has the value that the operator wrote: a client that writes another value becomes the annotation's
/// manager, and a removed annotation has no manager.
pub fn written_by_us<'a>(fields: impl Iterator<Item = &'a ManagedFieldsEntry>, annotation: &str) -> Option<Timestamp> {
    let is_ours = |entry: &&ManagedFieldsEntry| {
        let fields = entry.fields_v1.as_ref().map(|fields| &fields.0["f:metadata"]["f:annotations"]);
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.subresource.as_deref().unwrap_or_default().is_empty()
            && fields.is_some_and(|all| all.get(format!("f:{annotation}")).is_some())
    };
    let times = fields.filter(is_ours).map(|entry| entry.time.as_ref().map(|time| time.0));
    // If any matching entry lacks a time, the time is unknown.
    times.max_by_key(|time| time.is_none()).flatten()
}

/// The operator's last write to an object. Until the watch brings it back, a reconcile would see an older version.
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

    /// Whether `object` is older than the write, and the newer version probably on its way.
    pub fn is_ahead_of<K: Resource>(&self, object: &K) -> bool {
        let number = |text: &str| text.parse::<u128>().ok();
        match (object.resource_version().as_deref().and_then(number), number(&self.resource_version)) {
            (Some(seen), Some(written)) => seen < written && self.at.elapsed() < STALE_FOR,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
