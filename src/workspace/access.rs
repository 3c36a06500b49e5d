//! Whether a resource may use the Workspace that it references.

use std::collections::BTreeSet;

use crate::platform::decoded::Decoded;
use kube::runtime::reflector::{ObjectRef, Store};
use kube::{Resource, ResourceExt};

use super::connections::{Connection, Connections, State, WorkspaceKey};
use crate::api;
use crate::api::conditions::Progress;

/// The Workspace as seen by the resources that reference it.
#[derive(Clone, Debug, PartialEq)]
pub enum Workspace {
    /// Not checked yet since this process started.
    Pending,
    NotFound,
    /// The Workspace cannot be used: why, and whether this may pass without intervention.
    NotReady(String, Progress),
    Ready(ConnectionInfo),
}

impl Workspace {
    /// Where calls go, if the Workspace can be used.
    pub fn connection(&self) -> Option<&ConnectionInfo> {
        match self {
            Self::Ready(connection) => Some(connection),
            Self::Pending | Self::NotFound | Self::NotReady(..) => None,
        }
    }
}

/// Where calls go.
#[derive(Clone, Debug, PartialEq)]
pub struct ConnectionInfo {
    /// Scheme, host and port.
    pub origin: String,
    /// The Mistral workspace, if the API reports it.
    pub workspace_id: Option<String>,
    /// Differs for each key: a corrected Secret is a reason to retry at once.
    pub epoch: u64,
    /// Name of the Secret that holds the key.
    pub secret: String,
}

impl From<&Connection> for ConnectionInfo {
    fn from(live: &Connection) -> Self {
        let (origin, workspace_id) = (live.origin.clone(), live.workspace_id.clone());
        Self { origin, workspace_id, epoch: live.epoch, secret: live.secret.clone() }
    }
}

/// Where the key of a Workspace comes from, for messages about what it may not do.
pub fn key_text(connection: Option<&ConnectionInfo>, workspace: &str) -> String {
    match connection {
        Some(connection) => format!("the key in Secret \"{}\" (Workspace \"{workspace}\")", connection.secret),
        None => format!("the key of Workspace \"{workspace}\""),
    }
}

/// The names of the Secrets that hold the API keys of the Workspaces in this namespace.
pub fn api_key_secrets(workspaces: &Store<Decoded<api::Workspace>>, namespace: &str) -> BTreeSet<String> {
    let all = workspaces.state().into_iter().filter(|workspace| workspace.namespace().as_deref() == Some(namespace));
    all.filter_map(|workspace| Some(workspace.0.as_ref().ok()?.spec.auth.api_key_secret_ref.name.clone())).collect()
}

/// Whether this Workspace may be used, and with which connection.
pub fn resolve(
    workspaces: &Store<Decoded<api::Workspace>>,
    connections: &Connections,
    key: &WorkspaceKey,
) -> (Workspace, Option<Connection>) {
    let Some(workspace) = workspaces.get(&ObjectRef::new(&key.name).within(&key.namespace)) else {
        connections.gone(key);
        return (Workspace::NotFound, None);
    };
    if let Err(invalid) = &workspace.0 {
        return (Workspace::NotReady(format!("it cannot be decoded ({})", invalid.error), Progress::Stalled), None);
    }
    match connections.of(key, &workspace.uid().unwrap_or_default()) {
        None if workspace.meta().deletion_timestamp.is_some() => {
            (Workspace::NotReady("it is being deleted".into(), Progress::Stalled), None)
        }
        None => (Workspace::Pending, None),
        Some(State::NotReady(why, wait, _)) => (Workspace::NotReady(why, wait), None),
        Some(State::Ready(live)) => (Workspace::Ready(ConnectionInfo::from(&live)), Some(live)),
    }
}
