//! A resource's permit to call the API. A reconcile requests it, ends without it, and is woken when it is granted.

use std::sync::Arc;
use std::time::Duration;

use super::connections::{Connection, WorkspaceKey};
use crate::mistral::Client;
use crate::throttle::{Budget, Permit, Place, Priority, Requester, Wake};

/// When the reconcile of a queued resource is repeated without a wake: a deadline of the resource may pass meanwhile,
/// and a wake may get lost.
pub const RECHECK_AFTER: Duration = Duration::from_secs(60);

/// One reconcile of a resource, as a requester of permits. Dropping this without a pending request leaves the queue.
#[derive(Debug)]
pub struct QueueTicket {
    requester: Requester,
    budget: Option<Arc<Budget>>,
    permit: Option<Arc<Permit>>,
    waits: bool,
}

impl QueueTicket {
    /// For a resource of this Workspace that uses this connection.
    pub fn new(live: Option<&Connection>, kind: &str, key: &WorkspaceKey, name: &str) -> Self {
        let requester = Requester { flow: key.flow(), object: format!("{kind} {}/{name}", key.namespace) };
        Self { requester, budget: live.map(|live| Arc::clone(&live.budget)), permit: None, waits: false }
    }

    /// Gives back the permit. The reconcile goes on without it.
    pub fn give_back(&mut self) {
        self.permit = None;
    }

    /// Waits for a permit, within a reconcile that waits for something else as well. The future may be dropped.
    pub async fn wait(&mut self, live: &Connection, priority: Priority) -> Client {
        let permit = match self.permit.take() {
            Some(permit) => permit,
            None => Arc::new(live.budget.take(priority, &self.requester.flow).await),
        };
        live.with_permit(Arc::clone(self.permit.insert(permit)))
    }

    /// Whether the reconcile holds a permit.
    pub fn has_permit(&self) -> bool {
        self.permit.is_some()
    }

    /// Where the resource stands in the queue. None if it does not wait.
    pub fn place(&self) -> Option<Place> {
        self.budget.as_ref()?.place(&self.requester.object)
    }

    /// How long the resource has waited. None if it does not wait.
    pub fn waited(&self) -> Option<Duration> {
        self.budget.as_ref()?.waited(&self.requester.object)
    }

    /// Whether calls of the same key wait for a permit.
    pub fn others_wait(&self) -> bool {
        self.budget.as_ref().is_some_and(|budget| budget.waiting() > 0)
    }

    /// A client for this reconcile, which keeps its permit to the end. If no permit is free, the resource is queued,
    /// the reconcile ends, and `wake` is called when the permit is granted.
    pub fn take(&mut self, live: &Connection, priority: Priority, wake: impl FnOnce() -> Wake) -> Option<Client> {
        if self.permit.is_none() {
            self.permit = live.budget.ask(priority, &self.requester, wake).map(Arc::new);
        }
        self.waits = self.permit.is_none();
        if self.waits {
            // The status that says so may take long to write.
            live.budget.set_busy(&self.requester.object, true);
        }
        self.permit.as_ref().map(|permit| live.with_permit(Arc::clone(permit)))
    }
}

impl Drop for QueueTicket {
    fn drop(&mut self) {
        match &self.budget {
            Some(budget) if self.waits => budget.set_busy(&self.requester.object, false),
            Some(budget) => budget.leave(&self.requester.object),
            None => {}
        }
    }
}
