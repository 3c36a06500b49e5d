//! Why a Workspace cannot be used.

use k8s_openapi::jiff::Timestamp;

use crate::api::conditions::Progress;
use crate::api::reasons::workspace as reason;

/// Why a Workspace cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// One of [`reasons::workspace`](crate::api::reasons::workspace).
    pub reason: &'static str,
    /// What is wrong and what to do.
    pub message: String,
    /// The problem may pass without intervention.
    pub passing: bool,
}

impl Problem {
    pub(super) fn stalled(reason: &'static str, message: String) -> Self {
        Self { reason, message, passing: false }
    }

    /// Adapts the problem to the age of the Workspace: in one manifest, the Workspace may well come before its Secret.
    #[must_use]
    pub fn of_a_workspace_from(self, created: Timestamp, now: Timestamp) -> Self {
        let arrives =
            self.reason == reason::SECRET_NOT_FOUND && Progress::for_missing(created, now).0 == Progress::Working;
        Self { passing: self.passing || arrives, ..self }
    }

    /// Whether the problem may pass without intervention.
    pub fn wait(&self) -> Progress {
        if self.passing { Progress::Working } else { Progress::Stalled }
    }
}
