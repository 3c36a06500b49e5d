//! Requests that a fault holds until a test releases them.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use tokio::sync::oneshot;

use crate::faults::When;
use crate::request::Request;
use crate::state::Shared;

#[derive(Debug, Default)]
pub(crate) struct Held {
    entries: BTreeMap<u64, Entry>,
    last_id: u64,
}

/// A held request. Dropping it releases the request.
#[derive(Debug, Serialize)]
struct Entry {
    id: u64,
    method: String,
    path: String,
    route: &'static str,
    when: When,
    workspace: Option<String>,
    execution_id: Option<String>,
    #[serde(skip)]
    _gate: oneshot::Sender<()>,
}

impl Held {
    /// The held requests, oldest first.
    pub(crate) fn list(&self) -> Vec<impl Serialize> {
        self.entries.values().collect()
    }

    /// Releases one request. Returns whether it was held.
    pub(crate) fn release(&mut self, id: u64) -> bool {
        self.entries.remove(&id).is_some()
    }

    pub(crate) fn release_all(&mut self) {
        self.entries.clear();
    }
}

/// Removes a request from the list when its client disconnects.
struct Guard {
    shared: Arc<Shared>,
    id: u64,
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.shared.lock().held.release(self.id);
    }
}

/// Holds a request until it is released. If its client disconnects first, this never returns.
pub(crate) async fn hold(shared: &Arc<Shared>, request: &Request, workspace: Option<&str>, when: When) {
    let (gate, released) = oneshot::channel();
    let guard = {
        let held = &mut shared.lock().held;
        held.last_id += 1;
        let id = held.last_id;
        let entry = Entry {
            id,
            method: request.method.clone(),
            path: request.path.clone(),
            route: request.template(),
            when,
            workspace: workspace.map(str::to_owned),
            execution_id: request.execution_id(),
            _gate: gate,
        };
        held.entries.insert(id, entry);
        Guard { shared: Arc::clone(shared), id }
    };
    // Nothing is sent through the gate. Dropping it releases the request.
    let _ = released.await;
    drop(guard);
}
