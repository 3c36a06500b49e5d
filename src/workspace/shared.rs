//! What the controllers of all kinds share.

use std::sync::Arc;

use kube::Client;
use kube::runtime::reflector::Store;

use super::connections::Connections;
use crate::api::{Workflow, WorkflowExecution, Workspace};
use crate::platform::decoded::Decoded;
use crate::platform::events::Publisher;
use crate::platform::leader::term::Term;
use crate::platform::metrics::Metrics;
use crate::platform::requeue::Failures;
use crate::platform::status_writer::StatusWriter;

/// What the controllers of all kinds share. A clone shares it, too.
#[derive(Clone)]
pub struct Shared {
    /// The client of the Kubernetes API.
    pub client: Client,
    /// The connections to Mistral's API whose keys were accepted.
    pub connections: Arc<Connections>,
    /// The Workspaces that exist.
    pub workspaces: Store<Decoded<Workspace>>,
    /// The Workflows that exist.
    pub workflows: Store<Decoded<Workflow>>,
    /// The executions that exist.
    pub executions: Store<Decoded<WorkflowExecution>>,
    /// Publishes Events.
    pub publisher: Arc<Publisher>,
    /// Writes statuses, each object's at a bounded rate.
    pub status_writer: Arc<StatusWriter>,
    /// For how long this process may act.
    pub term: Term,
    /// The metrics that all kinds have in common.
    pub metrics: Arc<Metrics>,
    /// Consecutive failed reconciles of each object.
    pub failures: Arc<Failures>,
}
