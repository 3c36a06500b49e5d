//! What the sweeps of workflows have found out, for the Workspaces' own statuses.

use std::sync::Arc;

use super::discovery::Discovery;
use super::drift::DriftDetector;
use crate::workspace::connections::WorkspaceKey;
use crate::workspace::findings::{Discovered, Drift, Findings};

/// The sweeps of all Workspaces.
pub struct Sweeps {
    pub drift_detector: Arc<DriftDetector>,
    pub discovery: Arc<Discovery>,
}

impl Findings for Sweeps {
    fn drift(&self, key: &WorkspaceKey) -> Drift {
        self.drift_detector.drift(key)
    }

    fn count(&self, key: &WorkspaceKey) -> Option<usize> {
        self.drift_detector.count(key)
    }

    fn discovered(&self, key: &WorkspaceKey) -> Discovered {
        self.discovery.outcome(key)
    }
}
