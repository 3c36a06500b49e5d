//! Removes the operator's finalizers from all resources, so that they can be deleted without an operator.

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::ListParams;
use kube::core::NamespaceResourceScope;
use kube::{Client, Resource};
use serde_json::json;

use crate::api::{Workflow, WorkflowExecution};
use crate::platform::apiserver::{self, Error};
use crate::platform::leader::others;
use crate::{execution, workflow};

/// Resources per page of a list.
const PAGE: u32 = 100;
/// Resources that are written at a time.
const AT_A_TIME: usize = 16;
/// How often a write is tried that conflicts with other writes.
const TRIES: u32 = 5;

/// The result for one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Resources whose finalizer was removed.
    pub released: usize,
    /// Resources that still have the finalizer.
    pub failed: usize,
}

/// The result for all kinds.
#[derive(Debug, Default)]
pub struct Released {
    /// By kind.
    pub outcomes: [(&'static str, Outcome); 2],
    /// What could not be listed, a sentence each.
    pub errors: Vec<String>,
}

/// What a person should know before the finalizers are removed, a sentence each. What this process may not look at is
/// not mentioned: the chart's own Job has no right to look.
pub async fn remarks(client: &Client, namespaces: &[String]) -> Vec<String> {
    let mut remarks = Vec::new();
    for name in namespaces {
        if let Ok(None) = apiserver::get_metadata::<Namespace>(client, None, name).await {
            remarks
                .push(format!("the namespace {name} does not exist, so nothing is released there; is its name right?"));
        }
    }
    if let Ok(Some(other)) = others::leads(client, namespaces).await {
        remarks.push(format!(
            "an operator is at work: {} holds the Lease {}. If it watches these resources, it adds the finalizers again: \
             stop it, and run this command once more",
            other.holder, other.lease
        ));
    }
    remarks
}

/// Removes the operator's finalizers from all resources of these namespaces, or of all namespaces if none is named.
/// Logs each resource that it could not free. A namespace whose resources cannot be listed does not stop the others.
pub async fn finalizers(client: &Client, namespaces: &[String]) -> Released {
    let mut released = Released {
        outcomes: [("WorkflowExecutions", Outcome::default()), ("Workflows", Outcome::default())],
        errors: Vec::new(),
    };
    let all = namespaces.is_empty().then_some(None);
    for namespace in namespaces.iter().map(|name| Some(name.as_str())).chain(all) {
        let found = [
            of_kind::<WorkflowExecution>(client, namespace, execution::claim::FINALIZER).await,
            of_kind::<Workflow>(client, namespace, workflow::state::FINALIZER).await,
        ];
        for ((kind, sum), outcome) in released.outcomes.iter_mut().zip(found) {
            match outcome {
                Ok(outcome) => {
                    sum.released += outcome.released;
                    sum.failed += outcome.failed;
                }
                Err(error) => {
                    let place = namespace.map_or_else(|| "all namespaces".into(), |name| format!("namespace {name}"));
                    released.errors.push(format!("the {kind} of {place} could not be listed: {error}"));
                }
            }
        }
    }
    released
}

async fn of_kind<K>(client: &Client, namespace: Option<&str>, finalizer: &str) -> Result<Outcome, Error>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let mut outcome = Outcome::default();
    let mut page = ListParams::default().limit(PAGE);
    loop {
        // Lists only the metadata: of resources of another version, nothing else can be read.
        let list = match apiserver::list_metadata::<K>(client, namespace, &page).await {
            Ok(list) => list,
            // Without the CRD there are no resources.
            Err(error) if error.is_unserved() => return Ok(outcome),
            // This took so long that the list has to start over. It does not find released resources again.
            Err(error) if error.is_expired() => {
                page.continue_token = None;
                continue;
            }
            Err(error) => return Err(error),
        };
        let held = list.items.into_iter().map(|object| object.metadata).filter(|metadata| has(metadata, finalizer));
        let mut results =
            stream::iter(held).map(|metadata| free::<K>(client, metadata, finalizer)).buffer_unordered(AT_A_TIME);
        while let Some(freed) = results.next().await {
            if freed { outcome.released += 1 } else { outcome.failed += 1 }
        }
        page.continue_token = list.metadata.continue_.filter(|token| !token.is_empty());
        if page.continue_token.is_none() {
            return Ok(outcome);
        }
    }
}

fn has(metadata: &ObjectMeta, finalizer: &str) -> bool {
    metadata.finalizers.iter().flatten().any(|name| name == finalizer)
}

/// Removes the finalizer from one resource. Returns whether the finalizer is gone.
async fn free<K>(client: &Client, mut metadata: ObjectMeta, finalizer: &str) -> bool
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let (namespace, name) = (metadata.namespace.clone().unwrap_or_default(), metadata.name.clone().unwrap_or_default());
    let mut tries = 0;
    let error = loop {
        if !has(&metadata, finalizer) {
            return true;
        }
        tries += 1;
        let finalizers = apiserver::finalizers(&metadata, finalizer, false);
        let patch = json!({ "finalizers": finalizers, "resourceVersion": metadata.resource_version });
        match apiserver::patch_metadata::<K>(client, &namespace, &name, patch).await {
            Ok(_) => return true,
            Err(error) if error.is_not_found() => return true,
            Err(error) if error.is_conflict() && tries < TRIES => {}
            Err(error) => break error,
        }
        metadata = match apiserver::get_metadata::<K>(client, Some(&namespace), &name).await {
            Ok(Some(present)) => present,
            Ok(None) => return true,
            Err(error) => break error,
        };
    };
    tracing::error!(kind = %K::kind(&()), object = format!("{namespace}/{name}"), %error, "its finalizer could not be removed");
    false
}
