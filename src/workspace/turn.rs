//! A resource's permit to call the API. A reconcile requests it, ends without it, and is woken when it is granted.

use std::sync::Arc;
use std::time::Duration;

use super::connections::{Key, Live};
use crate::mistral::Client;
use crate::mistral::budget::{Budget, Caller, Class, Turn, Wake};

/// When the reconcile of a queued resource is repeated without a wake: a deadline of the resource may pass meanwhile,
/// and a wake may get lost.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// One reconcile of a resource, as a requester of permits. Dropping this without a pending request leaves the queue.
#[derive(Debug)]
pub struct Place {
    caller: Caller,
    budget: Option<Arc<Budget>>,
    turn: Option<Arc<Turn>>,
    waits: bool,
}

impl Place {
    /// For a resource of this Workspace that uses this connection.
    pub fn new(live: Option<&Live>, kind: &str, key: &Key, name: &str) -> Self {
        let caller = Caller { lane: key.lane(), object: format!("{kind} {}/{name}", key.namespace) };
        Self { caller, budget: live.map(|live| Arc::clone(&live.budget)), turn: None, waits: false }
    }

    /// Gives back the permit. The reconcile goes on without it.
    pub fn give_back(&mut self) {
        self.turn = None;
    }

    /// Waits for a permit, within a reconcile that waits for something else as well. The future may be dropped.
    pub async fn wait(&mut self, live: &Live, class: Class) -> Client {
        let turn = match self.turn.take() {
            Some(turn) => turn,
            None => Arc::new(live.budget.take(class, &self.caller.lane).await),
        };
        live.in_turn(Arc::clone(self.turn.insert(turn)))
    }

    /// Whether the reconcile holds a permit.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// A client for this reconcile, which keeps its permit to the end. If no permit is free, the resource is queued,
    /// the reconcile ends, and `wake` is called when the permit is granted.
    pub fn take(&mut self, live: &Live, class: Class, wake: impl FnOnce() -> Wake) -> Option<Client> {
        if self.turn.is_none() {
            self.turn = live.budget.ask(class, &self.caller, wake).map(Arc::new);
        }
        self.waits = self.turn.is_none();
        self.turn.as_ref().map(|turn| live.in_turn(Arc::clone(turn)))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let (false, Some(budget)) = (self.waits, &self.budget) {
            budget.leave(&self.caller.object);
        }
    }
}
