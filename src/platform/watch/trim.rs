//! What a store does not keep of an object's metadata.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::Resource;

use crate::platform::names::PREFIX;

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
            if name.starts_with(PREFIX) || name == MANAGED_BY {
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
