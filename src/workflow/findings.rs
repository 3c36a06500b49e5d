//! What the sweeps of workflows have found out, for the Workspaces' own statuses.

use std::sync::Arc;

use super::discovery::Discovery;
use super::inventory::Inventory;
use crate::workspace::connections::WorkspaceKey;
use crate::workspace::findings::{Discovered, Drift, Findings};

/// The sweeps of all Workspaces.
pub struct Sweeps {
    pub inventory: Arc<Inventory>,
    pub discovery: Arc<Discovery>,
}

impl Findings for Sweeps {
    fn drift(&self, key: &WorkspaceKey) -> Drift {
        self.inventory.drift(key)
    }

    fn count(&self, key: &WorkspaceKey) -> Option<usize> {
        self.inventory.count(key)
    }

    fn discovered(&self, key: &WorkspaceKey) -> Discovered {
        self.discovery.outcome(key)
    }
}
