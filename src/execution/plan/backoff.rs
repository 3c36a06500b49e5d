//! When to retry: later each time, and not all resources at once.

use std::time::Duration;

use crate::execution::state::ExecutionState;
use crate::mistral::Trouble;
use crate::platform::requeue::{self, Requeue};

/// Retries of something that a person has to correct: after 30 s at first, at most 5 minutes apart.
pub(crate) fn blocked_retry(state: &ExecutionState) -> Requeue {
    Requeue::Retry(backoff(state, 30, 300))
}

/// What a message says of these retries. It stays the same from one retry to the next, which saves writes.
pub(crate) const TRIES_AGAIN: &str = "The operator tries again within 5 minutes";

/// Doubles from `first` to `last` seconds with each consecutive retry.
pub(crate) fn backoff(state: &ExecutionState, first: u64, last: u64) -> Duration {
    requeue::backoff(state.memory.retries.in_a_row, &state.uid, first, last)
}

pub(crate) fn asked_to_wait(trouble: Option<&Trouble>) -> Duration {
    trouble.and_then(|trouble| trouble.retry_after).unwrap_or_default()
}
