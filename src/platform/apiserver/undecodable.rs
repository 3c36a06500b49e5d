//! Lets go of objects that this version cannot decode: a finalizer must not hold them for ever.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::core::NamespaceResourceScope;
use kube::runtime::controller::Action;
use kube::{Client, Resource};
use serde_json::json;

use super::error::Error;
use super::metadata::{finalizers, patch_metadata};
use crate::clock::later;

/// How long after its deletion was requested an object that cannot be decoded keeps its finalizer.
const UNDECODABLE_LINGERS: SignedDuration = SignedDuration::from_mins(5);

/// Lets an object that this version cannot decode be deleted. First gives a version that can decode it the time to take
/// over, then removes the finalizer and leaves its work undone.
///
/// # Errors
/// See [`Error`].
pub async fn let_go_of_undecodable<K>(client: &Client, metadata: &ObjectMeta, finalizer: &str) -> Result<Action, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let present = metadata.finalizers.iter().flatten().any(|name| name == finalizer);
    let (Some(deleted), true) = (&metadata.deletion_timestamp, present) else { return Ok(Action::await_change()) };
    let let_go_at = later(deleted.0, UNDECODABLE_LINGERS);
    if let Ok(left) = Duration::try_from(let_go_at.duration_since(Timestamp::now()))
        && !left.is_zero()
    {
        return Ok(Action::requeue(left));
    }
    let finalizers = finalizers(metadata, finalizer, false);
    let patch = json!({ "finalizers": finalizers, "resourceVersion": metadata.resource_version });
    let namespace = metadata.namespace.clone().unwrap_or_default();
    let name = metadata.name.clone().unwrap_or_default();
    patch_metadata::<K>(client, &namespace, &name, patch).await?;
    tracing::warn!(
        kind = %K::kind(&()), namespace, name,
        "removed the finalizer of an object that cannot be decoded, without doing the finalizer's work"
    );
    Ok(Action::await_change())
}
