//! A resource's turn to call the API: asked for by a pass, which ends without it, and is woken once it has come.

use std::sync::Arc;
use std::time::Duration;

use super::connections::{Key, Live};
use crate::mistral::Client;
use crate::mistral::budget::{Budget, Caller, Class, Turn, Wake};

/// When a pass that waits for its turn comes back by itself: a deadline of its resource may pass meanwhile, and a wake
/// may get lost.
pub const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A pass over one resource, as the budget of its key sees it. Whoever ends a pass without having asked in vain wants
/// nothing any more, and leaves the queue.
#[derive(Debug)]
pub struct Place {
    caller: Caller,
    budget: Option<Arc<Budget>>,
    turn: Option<Arc<Turn>>,
    waits: bool,
}

impl Place {
    /// Of a resource of this Workspace that uses this connection.
    pub fn new(live: Option<&Live>, kind: &str, key: &Key, name: &str) -> Self {
        let caller = Caller { lane: key.lane(), object: format!("{kind} {}/{name}", key.namespace) };
        Self { caller, budget: live.map(|live| Arc::clone(&live.budget)), turn: None, waits: false }
    }

    /// The pass goes on without its turn.
    pub fn give_back(&mut self) {
        self.turn = None;
    }

    /// Waits for its turn, within a pass that has something else to wait for as well. It may be given up.
    pub async fn wait(&mut self, live: &Live, class: Class) -> Client {
        let turn = match self.turn.take() {
            Some(turn) => turn,
            None => Arc::new(live.budget.take(class, &self.caller.lane).await),
        };
        live.in_turn(Arc::clone(self.turn.insert(turn)))
    }

    /// Whether the pass has its turn.
    pub fn has_turn(&self) -> bool {
        self.turn.is_some()
    }

    /// A client for this pass, which keeps its turn to its end. If there is none now, the resource stands in the queue,
    /// `wake` is called when its turn has come, and the pass ends.
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
