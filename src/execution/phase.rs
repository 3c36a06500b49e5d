//! How far an execution has come, according to its status.

use crate::api::WorkflowExecutionStatus as Status;
use crate::api::conditions::{self, COMPLETE, FAILED, STARTED};

/// Whether the execution has ended, with or without success.
pub fn is_finished(status: &Status) -> bool {
    conditions::is_true(&status.conditions, COMPLETE) || conditions::is_true(&status.conditions, FAILED)
}

/// Whether the API has accepted the run.
pub fn is_started(status: &Status) -> bool {
    conditions::is_true(&status.conditions, STARTED)
}
