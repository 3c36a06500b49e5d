//! What a resource may do with the Workspace that it names.

use std::collections::BTreeSet;

use crate::platform::object::Decoded;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};

use super::connections::{Connections, Key, Live, State};
use crate::api;
use crate::api::conditions::Wait;

/// The Workspace as the resources see it that name it.
#[derive(Clone, Debug, PartialEq)]
pub enum Workspace {
    /// Not looked at yet since this process began.
    Pending,
    /// There is no such resource.
    NotFound,
    /// It cannot be used: why, and whether that may pass by itself.
    NotReady(String, Wait),
    /// It can be used.
    Ready(Connection),
}

impl Workspace {
    /// Where calls go, if it can be used.
    pub fn connection(&self) -> Option<&Connection> {
        match self {
            Self::Ready(connection) => Some(connection),
            Self::Pending | Self::NotFound | Self::NotReady(..) => None,
        }
    }
}

/// Where calls go.
#[derive(Clone, Debug, PartialEq)]
pub struct Connection {
    /// Scheme, host and port.
    pub origin: String,
    /// The Mistral workspace, when the API tells.
    pub workspace_id: Option<String>,
    /// Another number for each key: a corrected Secret is a reason to try again at once.
    pub epoch: u64,
}

impl From<&Live> for Connection {
    fn from(live: &Live) -> Self {
        Self { origin: live.origin.clone(), workspace_id: live.workspace_id.clone(), epoch: live.epoch }
    }
}

/// The names of the Secrets in which Workspaces of this namespace have their API keys.
pub fn api_key_secrets(workspaces: &Store<Decoded<api::Workspace>>, namespace: &str) -> BTreeSet<String> {
    let all = workspaces.state().into_iter().filter(|workspace| workspace.namespace().as_deref() == Some(namespace));
    all.filter_map(|workspace| Some(workspace.0.as_ref().ok()?.spec.auth.api_key_secret_ref.name.clone())).collect()
}

/// What may be done with this Workspace, and with which connection.
pub fn look(
    workspaces: &Store<Decoded<api::Workspace>>,
    connections: &Connections,
    key: &Key,
) -> (Workspace, Option<Live>) {
    let Some(workspace) = workspaces.get(&ObjectRef::new(&key.name).within(&key.namespace)) else {
        connections.gone(key);
        return (Workspace::NotFound, None);
    };
    if let Err(invalid) = &workspace.0 {
        return (Workspace::NotReady(format!("it cannot be decoded ({})", invalid.error), Wait::Stalled), None);
    }
    match connections.of(key, &workspace.uid().unwrap_or_default()) {
        None if workspace.meta().deletion_timestamp.is_some() => {
            (Workspace::NotReady("it is being deleted".into(), Wait::Stalled), None)
        }
        None => (Workspace::Pending, None),
        Some(State::NotReady(why, wait, _)) => (Workspace::NotReady(why, wait), None),
        Some(State::Ready(live)) => (Workspace::Ready(Connection::from(&live)), Some(live)),
    }
}
