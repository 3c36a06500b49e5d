//! The namespaces that are watched, and what each of them lacks.

use std::fmt::Debug;
use std::time::Duration;

use k8s_openapi::api::core::v1::Namespace;
use kube::api::{ListParams, WatchParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::platform::apiserver::{self, Error};
use crate::platform::health::Health;
use crate::platform::names::PROGRAM;

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

/// All namespaces or one of several, and how far its watches are. Each token is cancelled once its line is true.
#[derive(Clone, Debug, Default)]
pub struct Scope<L> {
    /// None for all namespaces.
    pub(super) namespace: Option<String>,
    /// The namespace exists, and its resources can be listed and watched.
    pub served: CancellationToken,
    /// One of its lists has failed.
    pub troubled: CancellationToken,
    /// Which of its lists are complete: a token for each kind.
    pub listed: L,
}

/// One scope for each namespace, or one for all if no namespace is named.
pub fn scopes<L: Default>(namespaces: &[String]) -> Vec<Scope<L>> {
    if namespaces.is_empty() {
        return vec![Scope::default()];
    }
    namespaces.iter().map(|name| Scope { namespace: Some(name.clone()), ..Scope::default() }).collect()
}

impl<L> Scope<L> {
    /// The namespace; none for all of them.
    pub fn namespace(&self) -> Option<&str> {
        self.namespace.as_deref()
    }

    /// The name of the scope in readiness.
    pub fn name(&self) -> String {
        self.namespace.as_ref().map_or_else(|| "all namespaces".into(), |name| format!("the namespace {name}"))
    }

    /// The name of the list of a kind in readiness.
    pub fn list(&self, kind: &str) -> String {
        format!("the list of {kind}s in {}", self.name())
    }

    /// Waits until a list is complete, or until a list has failed and nobody can say when this one will be. Does not
    /// wait for a namespace that is not served.
    pub async fn is_tried(&self, listed: &CancellationToken) {
        if self.served.is_cancelled() {
            tokio::select! {
                () = listed.cancelled() => {}
                () = self.troubled.cancelled() => {}
            }
        }
    }

    /// Waits until the namespace exists, and reports to readiness if it is missing.
    pub async fn exists(&self, client: &Client, health: &Health) {
        let Some(name) = &self.namespace else { return };
        let mut wait = FIRST_LOOK;
        // Without the right to get namespaces, the lists show the problem: there are no rights in a namespace that does
        // not exist.
        while matches!(apiserver::get_metadata::<Namespace>(client, None, name).await, Ok(None)) {
            health.waits(&self.name(), "it does not exist; create it, or remove it from --namespace".into());
            rest(&mut wait).await;
        }
    }

    /// Waits until resources of a kind can be listed and watched, and reports to readiness what is missing.
    pub async fn serves<K>(&self, client: &Client, health: &Health)
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
        if error.is_unserved() {
            let why = format!("it is missing; apply the output of `{PROGRAM} crds`");
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

#[cfg(test)]
mod tests {
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
}
