//! What is known of a Workspace's workflows. The layer above finds it out, so this layer only says what it needs.

use k8s_openapi::jiff::Timestamp;

use super::connections::WorkspaceKey;

/// What the sweeps of a Workspace's workflows have found out.
pub trait Findings: Send + Sync {
    /// Whether changes made at Mistral are detected.
    fn drift(&self, key: &WorkspaceKey) -> Drift;

    /// How many workflows the Mistral workspace has; none if its list has not been read to its end.
    fn count(&self, key: &WorkspaceKey) -> Option<usize>;

    /// The outcome of the last sweep of a Workspace that wants discovery.
    fn discovered(&self, key: &WorkspaceKey) -> Discovered;
}

/// Whether changes to workflows that are made at Mistral are detected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Drift {
    /// Not known yet since this process started: the status stays as it is.
    Unknown,
    /// They are detected, or there is nothing to watch.
    Seen,
    /// The lists cannot be read.
    Unseen {
        /// When the lists were last read, or first due if they were never read.
        since: Timestamp,
        /// The API's error.
        why: String,
    },
}

/// The outcome of discovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Discovered {
    /// Not known yet since this process started: the status stays as it is.
    Unknown,
    /// Everything is done, or discovery is disabled.
    Complete,
    /// Something could not be done.
    Incomplete {
        /// One of [`reasons::workspace`](crate::api::reasons::workspace).
        reason: &'static str,
        /// How many are affected, why the first of them is, and what to do.
        message: String,
    },
}
