//! The kinds that are watched in each namespace.

use kube::Client;
use tokio_util::sync::CancellationToken;

use crate::api::{Workflow, WorkflowExecution, Workspace};
use crate::platform::health::Health;
use crate::platform::watch;

/// The kinds, each after those that it refers to.
pub const KINDS: [&str; 3] = ["Workspace", "Workflow", "WorkflowExecution"];

/// A namespace or all, and how far its watches are.
pub type Scope = watch::Scope<Lists>;

/// The lists of a scope. Each token is cancelled once the list is complete.
#[derive(Clone, Debug, Default)]
pub struct Lists {
    pub workspaces: CancellationToken,
    pub workflows: CancellationToken,
    pub executions: CancellationToken,
    /// The metadata of finished executions outside the watch. Readiness does not wait for it.
    pub finished: CancellationToken,
}

/// Waits until all kinds can be watched in this scope, and reports to readiness what is missing.
pub async fn prepare(scope: Scope, client: Client, health: &Health) {
    scope.exists(&client, health).await;
    futures::join!(
        scope.serves::<Workspace>(&client, health),
        scope.serves::<Workflow>(&client, health),
        scope.serves::<WorkflowExecution>(&client, health),
    );
    scope.served.cancel();
    health.done(&scope.name());
}
